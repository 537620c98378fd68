"""The breaker, the journal and the guard that holds them, without a server: what each decides, and in which order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis.exceptions as redis_errors
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from cachecraft import BackendError, BackendTimeout, Cache
from cachecraft._core.effects import Acquire, Claim, Delete, Fetch, Reading, Release, Remote, Renew, Stamp, Store, Sweep
from cachecraft.backends import prober as probing
from cachecraft.backends.breaker import Breaker
from cachecraft.backends.failures import Exhausted, Kind, Suspended, failure, kind_of
from cachecraft.backends.guard import Guard
from cachecraft.backends.journal import Journal
from tests.callers import PATIENCE, until
from tests.clock import FakeClock


def fetch(key: str, *tags: str) -> Fetch:
    return Fetch(key, tags)


# -- the breaker -----------------------------------------------------------------------------------------------------


def test_it_opens_after_three_failures_on_end_and_a_success_begins_anew() -> None:
    breaker = Breaker()
    assert [breaker.failed(), breaker.failed()] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(), breaker.failed(), breaker.open] == [False, False, False]
    assert breaker.failed()
    assert breaker.open
    assert not breaker.failed()  # it is open already
    assert breaker.opened == 1


def test_what_the_server_says_of_itself_opens_it_at_once() -> None:
    breaker = Breaker()
    assert breaker.failed(at_once=True)


def test_only_who_has_probed_closes_it_and_hears_how_long_it_was_open(clock: FakeClock) -> None:
    breaker = Breaker(clock=clock)
    assert breaker.close() is None
    breaker.failed(at_once=True)
    clock.advance(12.5)
    breaker.succeeded()  # an answer that was under way
    assert breaker.open
    assert "open for 12.5 s" in repr(breaker)
    assert breaker.close() == 12.5
    assert not breaker.open
    assert not breaker.failed()
    assert repr(breaker) == "<Breaker closed, 1 failures, opened 1 times>"


def test_of_many_threads_that_fail_at_once_one_opens_it() -> None:
    breaker, together = Breaker(), threading.Barrier(8)
    opened: list[bool] = []

    def fail() -> None:
        together.wait(PATIENCE)
        opened.extend(breaker.failed() for _ in range(50))

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert opened.count(True) == breaker.opened == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis_errors.TimeoutError("slow"), Kind.LOST),
        (redis_errors.ConnectionError("refused"), Kind.LOST),
        (redis_errors.InvalidResponse("HTTP/1.1"), Kind.LOST),
        (ConnectionResetError("reset"), Kind.LOST),
        (TimeoutError(), Kind.LOST),
        (redis_errors.BusyLoadingError("loading"), Kind.DOWN),
        (redis_errors.MasterDownError("no master"), Kind.DOWN),
        (redis_errors.ReadOnlyError("a replica"), Kind.DOWN),
        (redis_errors.AuthenticationError("who are you"), Kind.DOWN),
        (redis_errors.ResponseError("BUSY Redis is busy running a script."), Kind.DOWN),
        (redis_errors.ResponseError("BUSYGROUP is about streams"), Kind.REFUSED),
        (redis_errors.NoPermissionError("no"), Kind.REFUSED),
        (redis_errors.OutOfMemoryError("full"), Kind.REFUSED),
        (redis_errors.ResponseError("WRONGTYPE of another kind"), Kind.REFUSED),
        (redis_errors.ResponseError("MISCONF cannot save"), Kind.REFUSED),
        (redis_errors.DataError("what is that"), Kind.OURS),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), Kind.OURS),
        (KeyError("of a callback"), Kind.OURS),
        (BackendError("Redis: the connection is lost"), Kind.LOST),
        (BackendTimeout("Redis: no answer"), Kind.LOST),
        (Exhausted("all are in use"), Kind.UNASKED),
        (Suspended("later"), Kind.UNASKED),
    ],
)
def test_whose_failure_it_is(error: Exception, kind: Kind) -> None:
    assert kind_of(failure(error)) is kind


def test_errors_whose_causes_lead_in_circles_are_failures_as_others_are() -> None:
    first, second = redis_errors.TimeoutError("slow"), KeyError("while that was handled")
    first.__cause__, second.__cause__ = second, first
    assert kind_of(failure(first)) is Kind.LOST


def test_a_cancellation_says_nothing_of_the_server() -> None:
    assert kind_of(asyncio.CancelledError()) is kind_of(KeyboardInterrupt()) is Kind.OURS


# -- the journal -----------------------------------------------------------------------------------------------------


def journal_of(*effects: Delete | Sweep, room: int = 10_000) -> Journal:
    journal = Journal(lambda: ["a:~root", "b:~root"], room=room)
    for effect in effects:
        journal.add(effect)
    return journal


@pytest.mark.parametrize(
    ("kept", "effect", "affected"),
    [
        (Delete(("a:k",)), fetch("a:k"), True),
        (Delete(("a:k",)), fetch("a:other"), False),
        (Delete(("a:k",)), Store("a:k", b"", b"", 1.0), True),
        (Delete(("a:k",)), Acquire("a:k", b"", b"", (), (), (), 1.0), True),
        (Delete(("a:k",)), Release("a:k", b""), False),  # it only ever removes
        (Delete(("a:k",)), Renew("a:k", b"", 1.0), False),  # what it keeps alive, the replay removes
        (Delete(("a:~any", "a:~tag:t")), fetch("a:k", "a:~root", "a:~tag:t"), True),
        (Delete(("a:~any", "a:~tag:t")), fetch("a:k", "a:~root", "a:~any"), True),  # whose tags are not known yet
        (Delete(("a:~any", "a:~tag:t")), fetch("a:k", "a:~root", "a:~tag:u"), False),
        (Delete(("a:~any", "a:~tag:t")), Stamp(("a:~tag:t",), (b"",)), True),
        (Delete(("a:~fn:f",)), Acquire("a:k", b"", b"", ("a:~fn:f",), (b"",), (False,), 1.0), True),
        (Delete(("a:~root",)), fetch("a:k", "a:~root"), True),
        (Delete(("a:~root",)), fetch("b:k", "b:~root"), False),
        (Sweep("a:", "user:1*"), fetch("a:user:12"), True),
        (Sweep("a:", "user:1*"), fetch("a:user:2"), False),
        (Sweep("a:", "user:1*"), fetch("b:user:12"), False),
        (Sweep("a:", "user:?"), Store("a:user:1", b"", b"", 1.0), True),
        (Sweep("a:", "user:?"), Claim("a:user:1", b"", 1.0), True),
    ],
)
def test_what_an_invalidation_that_waits_affects(kept: Delete | Sweep, effect: Remote[Any], affected: bool) -> None:
    journal = journal_of(kept)
    assert journal.affects(effect) is affected
    (item,) = journal.pending()
    journal.done(item)
    assert not journal
    assert not journal.affects(effect)


def test_what_came_again_while_it_was_replayed_is_replayed_again() -> None:
    journal = journal_of(Delete(("a:k",)))
    (under_way,) = journal.pending()
    journal.add(Delete(("a:k",)))  # equal, and later than the server may have done it
    journal.done(under_way)
    assert len(journal) == 1
    assert journal.affects(fetch("a:k"))
    (again,) = journal.pending()
    journal.done(again)
    assert not journal
    assert journal.total == 2


def test_a_name_is_free_only_when_every_item_that_names_it_is_done() -> None:
    journal = journal_of(Delete(("a:~any", "a:~tag:t")), Delete(("a:~any", "a:~tag:u")))
    first, second = journal.pending()
    journal.done(first)
    assert journal.affects(fetch("a:k", "a:~any"))
    assert not journal.affects(fetch("a:k", "a:~tag:t"))
    journal.done(second)
    assert not journal.affects(fetch("a:k", "a:~any"))


def test_a_sweep_waits_without_whoever_watched_its_progress() -> None:
    journal = journal_of(Sweep("a:", "k*", print), Sweep("a:", "k*", repr))
    assert [effect for _, effect in journal.pending()] == [Sweep("a:", "k*")]


def test_when_it_is_full_everything_is_to_fall() -> None:
    journal = journal_of(*(Delete((f"a:{number}",)) for number in range(5)), room=5)
    assert not journal.affects(fetch("a:other", "a:~root"))
    assert not journal.add(Delete(("a:0",)))  # which it holds
    assert journal.add(Delete(("a:6",)))
    for key in ("a:0", "a:6", "a:other"):
        assert journal.affects(fetch(key, "a:~root"))
    assert [effect for _, effect in journal.pending()] == [Delete(("a:~root", "b:~root"))]
    (everything,) = journal.pending()
    journal.add(Delete(("a:7",)))  # there is room again
    journal.done(everything)
    assert [effect for _, effect in journal.pending()] == [Delete(("a:7",))]


def test_few_patterns_fill_it_since_each_read_is_held_against_all() -> None:
    journal = journal_of(*(Sweep("a:", f"{number}*") for number in range(100)))
    assert len(journal) == 100
    assert journal.add(Sweep("a:", "100*"))
    assert len(journal) == 1


def test_what_overflows_while_everything_is_replayed_is_replayed_again() -> None:
    journal = journal_of(*(Delete((f"a:{number}",)) for number in range(6)), room=5)
    (under_way,) = journal.pending()
    for number in range(6):
        journal.add(Delete((f"a:{number}",)))
    journal.done(under_way)
    assert journal.affects(fetch("a:0", "a:~root"))


_NAMES = st.sampled_from(["a:1", "a:2", "a:~tag:t", "a:~tag:u", "a:~any"])
_EFFECTS = st.one_of(
    st.lists(_NAMES, min_size=1, max_size=3).map(lambda names: Delete(tuple(names))),
    st.sampled_from([Sweep("a:", "1*"), Sweep("a:", "?")]),
)


@given(st.lists(st.one_of(_EFFECTS, st.integers(0, 5)), max_size=40), st.sampled_from([3, 250, 10_000]))
def test_nothing_is_readable_before_each_of_its_invalidations_is_done(steps: list[Any], room: int) -> None:
    """Against a model: a step adds an item, or acknowledges one that was pending at some time before."""
    journal = Journal(lambda: ["a:~root"], room=room)
    offered: list[Any] = []
    owed: list[Any] = []  # every addition with what was pending after it: one of those must be done
    for step in steps:
        if isinstance(step, int):
            if offered:
                item = offered[step % len(offered)]
                journal.done(item)
                owed = [
                    (effect, serial) for effect, serial in owed if not (_covers(item[1], effect) and item[0] >= serial)
                ]
        else:
            journal.add(step)
            owed.append((step, journal.total))
        offered = journal.pending() or offered
        for effect, _ in owed:
            for read in _reads_of(effect):
                assert journal.affects(read), (effect, read, journal.pending())
    for item in journal.pending():
        journal.done(item)
    assert not journal
    assert not any(
        journal.affects(read) for effect in (Delete(("a:1", "a:2", "a:~any")),) for read in _reads_of(effect)
    )
    assert (journal._weight, len(journal._names), len(journal._patterns)) == (0, 0, 0)


def _covers(done: Delete | Sweep, effect: Delete | Sweep) -> bool:
    return done == effect or done == Delete(("a:~root",))


def _reads_of(effect: Delete | Sweep) -> Iterator[Fetch]:
    if isinstance(effect, Sweep):
        yield fetch("a:1", "a:~root")
        return
    for name in effect.keys:
        yield fetch("a:9", "a:~root", name) if "~" in name else fetch(name, "a:~root")


# -- the guard -------------------------------------------------------------------------------------------------------


class Scripted:
    """A backend that does as it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Remote[Any]], Any]) -> None:
        self.answer = answer
        self.asked: list[Remote[Any]] = []
        self.renewed = 0

    def perform(self, effect: Remote[Any]) -> Any:
        self.asked.append(effect)
        return self.answer(effect)

    async def aperform(self, effect: Remote[Any]) -> Any:
        return self.perform(effect)

    def renew(self) -> None:
        self.renewed += 1

    def ping(self) -> float:
        return 0.0

    async def aping(self) -> float:
        return 0.0

    def serve(self, prefix: str) -> None: ...
    def after_fork(self) -> None: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


def lost(_: Remote[Any]) -> Any:
    raise BackendError("Redis: lost")


def refused(_: Remote[Any]) -> Any:
    raise failure(redis_errors.NoPermissionError("no"))


def fine(effect: Remote[Any]) -> Any:
    return Reading(None, ()) if isinstance(effect, Fetch) else 1


@pytest.fixture
def make_guard() -> Iterator[Callable[..., Guard]]:
    made: list[Guard] = []

    def make(backend: Scripted, spare: Scripted, **options: Any) -> Guard:
        guard = Guard(backend, spare, **options)
        guard.serve("a:")
        made.append(guard)
        return guard

    yield make
    for guard in made:
        guard.close()


def perform(guard: Guard, effect: Remote[Any], how: str) -> Any:
    return guard.perform(effect) if how == "sync" else asyncio.run(guard.aperform(effect))


both = pytest.mark.parametrize("how", ["sync", "async"])


@both
def test_while_it_is_open_nobody_is_asked(make_guard: Callable[..., Guard], how: str) -> None:
    backend = Scripted(lost)
    guard = make_guard(backend, Scripted(lost))
    for _ in range(3):
        with pytest.raises(BackendError, match="lost"):
            perform(guard, fetch("a:k"), how)
    asked = len(backend.asked)
    for effect in (fetch("a:k"), fetch("a:l"), Store("a:k", b"", b"", 1.0), Renew("a:k", b"", 1.0)):
        with pytest.raises(Suspended):
            perform(guard, effect, how)
    assert perform(guard, Delete(("a:k",)), how) == 0
    assert len(backend.asked) == asked == 3
    assert backend.renewed == 1


def test_a_connection_that_breaks_under_many_callers_is_one_failure(make_guard: Callable[..., Guard]) -> None:
    broken = BackendError("Redis: the server closed the connection")

    def break_down(_: Remote[Any]) -> Any:
        raise broken

    guard = make_guard(Scripted(break_down), Scripted(fine))
    for _ in range(10):
        with pytest.raises(BackendError):
            guard.perform(fetch("a:k"))
    assert guard.breaker.opened == 0


@pytest.mark.parametrize(
    "error", [Exhausted("in use"), failure(redis_errors.NoPermissionError("no")), failure(KeyError())]
)
def test_what_is_not_the_servers_failure_does_not_open_it(make_guard: Callable[..., Guard], error: Exception) -> None:
    def fail(_: Remote[Any]) -> Any:
        raise error

    guard = make_guard(Scripted(fail), Scripted(fine))
    for _ in range(10):
        with pytest.raises(BackendError):
            guard.perform(fetch("a:k"))
    assert not guard.breaker.opened


@both
def test_an_invalidation_is_in_the_journal_before_its_caller_goes_on(
    make_guard: Callable[..., Guard], how: str
) -> None:
    guard = make_guard(Scripted(lost), Scripted(lost))
    assert perform(guard, Delete(("a:k",)), how) == 0
    with pytest.raises(Suspended, match="has yet to reach"):
        perform(guard, fetch("a:k"), how)
    assert (guard.counters()["journal"], guard.counters()["journaled"]) == (1, 1)


@both
@pytest.mark.parametrize("stopped", [KeyboardInterrupt, asyncio.CancelledError])
def test_one_that_is_interrupted_may_not_have_arrived(
    make_guard: Callable[..., Guard], how: str, stopped: type[BaseException]
) -> None:
    def stop(_: Remote[Any]) -> Any:
        raise stopped

    guard = make_guard(Scripted(stop), Scripted(lost))
    with pytest.raises(stopped):
        perform(guard, Delete(("a:k",)), how)
    assert len(guard.journal) == 1


@both
def test_a_loud_guard_keeps_it_and_raises(make_guard: Callable[..., Guard], how: str) -> None:
    guard = make_guard(Scripted(lost), Scripted(lost), loud=True)
    with pytest.raises(BackendError, match="lost"):
        perform(guard, Sweep("a:", "k*"), how)
    assert len(guard.journal) == 1


def test_the_journal_is_replayed_before_the_breaker_closes(make_guard: Callable[..., Guard]) -> None:
    open_then: list[tuple[Remote[Any], bool]] = []
    back = threading.Event()

    def answer(effect: Remote[Any]) -> Any:
        if not back.is_set():
            return lost(effect)
        open_then.append((effect, guard.breaker.open))
        return 1

    guard = make_guard(Scripted(lost), Scripted(answer))
    for effect in (Delete(("a:1",)), Delete(("a:~any", "a:~tag:t")), Sweep("a:", "k*"), Delete(("a:2",))):
        assert guard.perform(effect) == 0
    back.set()
    until(lambda: not guard.breaker.open)
    assert open_then == [
        (Delete(("a:~probe",)), True),
        (Delete(("a:1", "a:~any", "a:~tag:t")), True),  # as many as go into one command
        (Sweep("a:", "k*"), True),
        (Delete(("a:2",)), True),
    ]
    assert not guard.journal


@both
@pytest.mark.parametrize(
    "failing",
    [
        Acquire("a:k", b"", b"t" * 16, (), (), (), 5.0),
        Store("a:k", b"L" + b"t" * 16, b"", 1.0),
        Release("a:k", b"L" + b"t" * 16),
    ],
)
def test_a_placeholder_that_nobody_loads_under_is_removed_before_redis_is_used_again(
    make_guard: Callable[..., Guard], failing: Remote[Any], how: str
) -> None:
    """Else whoever asks for that key next waits until its lease ends."""
    removed: list[tuple[Remote[Any], bool]] = []
    back = threading.Event()

    def answer(effect: Remote[Any]) -> Any:
        if not back.is_set():
            return lost(effect)
        removed.append((effect, guard.breaker.open))
        return 1

    guard = make_guard(Scripted(lost), Scripted(answer))
    with pytest.raises(BackendError, match="lost"):
        perform(guard, failing, how)
    for effect in (fetch("a:1"), fetch("a:2")):
        with pytest.raises(BackendError):  # lost; or not asked any more, if who tries to remove it failed as well
            perform(guard, effect, how)
    assert guard.breaker.open
    back.set()
    until(lambda: not guard.breaker.open)
    assert removed == [(Delete(("a:~probe",)), True), (Release("a:k", b"L" + b"t" * 16), True)]


@pytest.mark.parametrize("failing", [Store("a:k", b"V" + b"t" * 16, b"", 1.0), fetch("a:k")])
def test_an_entry_that_could_not_be_replaced_is_left_alone(
    make_guard: Callable[..., Guard], failing: Remote[Any]
) -> None:
    spare = Scripted(fine)
    guard = make_guard(Scripted(lost), spare)
    for effect in (failing, fetch("a:1"), fetch("a:2")):
        with pytest.raises(BackendError, match="lost"):
            guard.perform(effect)
    until(lambda: not guard.breaker.open)
    assert set(spare.asked) == {Delete(("a:~probe",))}


def test_each_attempt_is_made_on_a_new_connection(make_guard: Callable[..., Guard]) -> None:
    spare = Scripted(lost)
    guard = make_guard(Scripted(lost), spare)
    guard.perform(Delete(("a:k",)))
    until(lambda: len(spare.asked) >= 3)
    guard.close()
    assert spare.renewed >= len(spare.asked)  # each of which was the first of an attempt, and failed


def test_what_is_journaled_again_in_the_middle_of_its_replay_is_replayed_again(
    make_guard: Callable[..., Guard],
) -> None:
    """The server may have done the first one before the second was asked for."""
    replays: list[Remote[Any]] = []
    backend = Scripted(lost)

    def answer(effect: Remote[Any]) -> Any:
        if effect == Delete(("a:k",)):
            replays.append(effect)
            if len(replays) == 1:
                guard.perform(effect)  # from another thread, say: it fails, and the first is about to be acknowledged
        return 1

    guard = make_guard(backend, Scripted(answer))
    guard.perform(Delete(("a:k",)))
    until(lambda: not guard.journal)
    assert len(replays) == 2
    assert guard.journal.total == 2


def test_one_that_is_refused_stays_and_holds_up_no_other(
    make_guard: Callable[..., Guard], caplog: pytest.LogCaptureFixture
) -> None:
    allowed = threading.Event()

    def answer(effect: Remote[Any]) -> Any:
        forbidden = isinstance(effect, Delete) and "a:forbidden" in effect.keys
        return refused(effect) if forbidden and not allowed.is_set() else 1

    backend, spare = Scripted(lost), Scripted(answer)
    guard = make_guard(backend, spare)
    for key in ("a:1", "a:forbidden", "a:2"):
        guard.perform(Delete((key,)))
    until(lambda: not guard.breaker.open and len(guard.journal) == 1)
    backend.answer = fine
    guard.perform(fetch("a:1"))
    with pytest.raises(Suspended):
        guard.perform(fetch("a:forbidden"))
    backend.answer = lost
    guard.perform(Delete(("a:3",)))  # cuts the long pause short
    backend.answer = fine
    until(lambda: len(guard.journal) == 1)
    assert guard.journal.affects(fetch("a:forbidden"))
    assert sum("refuses" in record.message for record in caplog.records) == 1
    assert not any("forbidden" in record.getMessage() for record in caplog.records)
    allowed.set()
    backend.answer = lost
    guard.perform(Delete(("a:4",)))
    until(lambda: not guard.journal)


def test_the_thread_is_there_only_while_there_is_something_to_do(make_guard: Callable[..., Guard]) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "cachecraft-prober"]

    backend, spare = Scripted(lost), Scripted(lost)
    guard = make_guard(backend, spare)
    assert threads() == []
    guard.perform(Delete(("a:k",)))
    until(lambda: spare.asked)
    assert threads() == ["cachecraft-prober"]
    spare.answer = fine
    until(lambda: threads() == [])
    assert not guard.journal
    assert repr(guard._prober) == "<Prober idle>"


def test_a_long_pause_gives_way_to_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """To what comes while it lasts, and to what came when it had been decided on and not yet begun."""
    monkeypatch.setattr(probing, "SLOW", tenacity.wait_fixed(60))
    attempts: list[int] = []
    nothing_new = iter([True, False, True, True])

    def attempt() -> bool:
        attempts.append(1)
        return len(attempts) == 3

    prober = probing.Prober(attempt, needed=lambda: False, slowly=lambda: next(nothing_new))
    prober.wake()
    until(lambda: len(attempts) == 2 and prober._napping_long)
    prober.wake()  # no news
    assert len(attempts) == 2
    prober.wake(news=True)
    until(lambda: len(attempts) == 3)
    prober.close()


def test_an_attempt_that_goes_wrong_in_an_unheard_of_way_is_not_the_last(make_guard: Callable[..., Guard]) -> None:
    failures: list[int] = []

    def answer(effect: Remote[Any]) -> Any:
        if len(failures) < 2:
            failures.append(1)
            raise RuntimeError("unheard of")
        return 1

    guard = make_guard(Scripted(lost), Scripted(answer))
    guard.perform(Delete(("a:k",)))
    until(lambda: not guard.journal)


def test_close_tries_once_more(make_guard: Callable[..., Guard], caplog: pytest.LogCaptureFixture) -> None:
    for answer, left in ((fine, 0), (lost, 2)):
        spare = Scripted(lost)
        guard = make_guard(Scripted(lost), spare)
        guard.perform(Delete(("a:secret",)))
        guard.perform(Delete(("a:secret2",)))
        until(lambda spare=spare: spare.asked)
        spare.answer = answer
        caplog.clear()
        guard.close()
        assert len(guard.journal) == left
        said = [record.getMessage() for record in caplog.records]
        assert ("closed with 2 invalidations that never reached Redis" in said) is bool(left)
        assert not any("secret" in line for line in said)


def test_an_outage_is_logged_once_and_so_is_its_end(
    make_guard: Callable[..., Guard], caplog: pytest.LogCaptureFixture
) -> None:
    spare = Scripted(lost)
    guard = make_guard(Scripted(lost), spare)
    for number in range(20):
        guard.perform(Delete((f"a:{number}",)))
    spare.answer = fine
    until(lambda: "is back after" in caplog.text)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split()[0:3] for line in said] == [
        ["an", "invalidation", "may"],
        ["Redis", "is", "out"],
        ["Redis", "is", "back"],
    ]
    assert "20 invalidations were made up for" in said[-1]


# -- a backend of one's own ------------------------------------------------------------------------------------------


@both
def test_a_backend_of_ones_own_is_left_to_itself(how: str) -> None:
    made = Cache(Scripted(lost))
    with pytest.raises(BackendError, match="lost"):
        made.invalidate(key="k") if how == "sync" else asyncio.run(made.ainvalidate(key="k"))
    assert (made.stats.journal, made.stats.breaker_open) == (0, 0)
    made.close()


@both
@pytest.mark.parametrize("stopped", [KeyboardInterrupt, asyncio.CancelledError])
def test_who_is_stopped_while_redis_fails_does_not_go_on_to_load(how: str, stopped: type[BaseException]) -> None:
    def answer(effect: Remote[Any]) -> Any:
        if isinstance(effect, Fetch):
            return Reading(None, (None,) * len(effect.tags))
        if isinstance(effect, Acquire):
            raise stopped
        return lost(effect)

    loads: list[int] = []
    with Cache(Scripted(answer)) as made:

        def call() -> None:
            if how == "sync":
                made.get_or_load("k", lambda: loads.append(1))
            else:
                asyncio.run(made.aget_or_load("k", lambda: loads.append(1)))

        with pytest.raises(stopped):
            call()
    assert loads == []
