"""Threads that ask Redis at the same time go together: each gets its own answer, and nobody waits for the lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import hiredis
import pytest

from cachecraft import Cache
from cachecraft._core.errors import BackendTimeout
from cachecraft.backends.combining import Combiner
from tests.callers import PATIENCE, until

ALONE = 3
"""So many go out each by itself where one may lead."""


class Wire:
    """What a combiner sends over. Notes each sending, holds it until let go, and answers each command with itself."""

    def __init__(self) -> None:
        self.sent: list[list[list[bytes]]] = []
        self.error: BaseException | None = None
        self.meanwhile: Callable[[], object] | None = None
        self._held = threading.Event()
        self._held.set()

    def hold(self) -> None:
        self._held.clear()

    def let_go(self) -> None:
        self._held.set()

    def __call__(self, packed: bytes, count: int, since: float) -> list[Any]:
        reader = hiredis.Reader()
        reader.feed(packed)
        commands = list(iter(reader.gets, False))
        assert len(commands) == count
        self.sent.append(commands)
        if (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            meanwhile()
        assert self._held.wait(PATIENCE), "nobody let the sending go"
        if self.error is not None:
            raise self.error
        return commands


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def combiner(wire: Wire) -> Combiner:
    """One in which whoever has to wait does not soon give up: that would hide who should not have had to."""
    return Combiner(wire, connections=8, limit=PATIENCE, patience=6 * PATIENCE)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


class Crowd:
    """Fills the way with questions that are held, and then has others come."""

    def __init__(self, wire: Wire, combiner: Combiner, threads: ThreadPoolExecutor) -> None:
        self.wire, self.combiner, self.threads = wire, combiner, threads
        wire.hold()
        self.first = [threads.submit(combiner.ask, [("GET", f"first {at}")]) for at in range(ALONE)]
        until(lambda: len(wire.sent) == ALONE)

    def come(self, *questions: list[tuple[str, ...]]) -> list[Future[list[Any]]]:
        came = []
        for commands in questions:
            before = repr(self.combiner)
            came.append(self.threads.submit(self.combiner.ask, commands))
            until(lambda before=before: repr(self.combiner) != before and waiting(self.combiner) == len(came))
        return came

    @property
    def later(self) -> list[list[list[bytes]]]:
        """What was sent for those who came later."""
        return self.wire.sent[ALONE:]


def waiting(combiner: Combiner) -> int:
    return len(combiner._waiting)


@pytest.fixture
def crowd(wire: Wire, combiner: Combiner, threads: ThreadPoolExecutor) -> Iterator[Crowd]:
    yield Crowd(wire, combiner, threads)
    wire.let_go()


def test_one_thread_asks_at_once(wire: Wire, combiner: Combiner) -> None:
    assert combiner.ask([("GET", "a"), ("PTTL", "a")]) == [[b"GET", b"a"], [b"PTTL", b"a"]]
    assert len(wire.sent) == 1


def test_who_comes_while_others_are_away_goes_together_and_each_gets_its_own_answer(crowd: Crowd) -> None:
    came = crowd.come(*([("SET", f"k{at}", "v"), ("GET", f"k{at}")] for at in range(5)))
    crowd.wire.let_go()
    for at, each in enumerate(came):
        assert each.result(PATIENCE) == [[b"SET", b"k%d" % at, b"v"], [b"GET", b"k%d" % at]]
    assert len(crowd.later) == 1
    assert [each.result(PATIENCE) for each in crowd.first] == [[[b"GET", b"first %d" % at]] for at in range(ALONE)]


def test_of_all_who_read_the_same_one_asks_and_of_those_who_write_each_does(crowd: Crowd) -> None:
    same: list[tuple[str, ...]] = [("MGET", "k", "stamp"), ("PTTL", "k")]
    came = crowd.come(same, same, [("UNLINK", "k")], [("UNLINK", "k")], same)
    crowd.wire.let_go()
    for each in came:
        assert each.result(PATIENCE)
    assert [command[0] for command in crowd.later[0]] == [b"MGET", b"PTTL", b"UNLINK", b"UNLINK"]
    assert came[0].result() == came[4].result() == [[b"MGET", b"k", b"stamp"], [b"PTTL", b"k"]]


def test_what_is_on_its_way_is_asked_again_for_who_comes_later(
    wire: Wire, combiner: Combiner, threads: ThreadPoolExecutor
) -> None:
    """P1: an invalidation may have ended between that reading and their coming."""
    wire.hold()
    same: list[tuple[str, ...]] = [("MGET", "k")]
    asking = [threads.submit(combiner.ask, same) for _ in range(ALONE)]
    until(lambda: len(wire.sent) == ALONE)
    asking.append(threads.submit(combiner.ask, same))
    until(lambda: waiting(combiner) == 1)
    wire.let_go()
    assert [each.result(PATIENCE) for each in asking] == [[[b"MGET", b"k"]]] * (ALONE + 1)
    assert len(wire.sent) == ALONE + 1


def test_what_goes_wrong_is_told_to_all_who_went_together(crowd: Crowd) -> None:
    came = crowd.come([("GET", "a")], [("GET", "b")])
    crowd.wire.error = BackendTimeout("no answer")
    crowd.wire.let_go()
    for each in (*crowd.first, *came):
        with pytest.raises(BackendTimeout):
            each.result(PATIENCE)
    crowd.wire.error = None
    assert crowd.combiner.ask([("GET", "c")]) == [[b"GET", b"c"]]


def test_who_asked_together_with_one_that_is_interrupted_is_told_so(crowd: Crowd) -> None:
    came = crowd.come([("GET", "a")], [("GET", "b")], [("GET", "c")])
    crowd.wire.error = KeyboardInterrupt()
    crowd.wire.let_go()
    errors = [each.exception(PATIENCE) for each in came]
    assert sorted(type(error).__name__ for error in errors) == ["BackendError", "BackendError", "KeyboardInterrupt"]
    for each in crowd.first:
        each.exception(PATIENCE)


def test_what_cannot_be_sent_is_the_matter_of_who_asked_it(crowd: Crowd) -> None:
    came = crowd.come([("GET", "a")])
    with pytest.raises(TypeError):
        crowd.combiner.ask([("GET", object())])  # type: ignore[list-item]  # that is the point
    crowd.wire.let_go()
    assert came[0].result(PATIENCE) == [[b"GET", b"a"]]


def test_who_asks_in_the_middle_of_asking_is_answered(
    wire: Wire, combiner: Combiner, threads: ThreadPoolExecutor
) -> None:
    """A signal handler, or a destructor: what it interrupts cannot go on before it is back."""
    inner: list[Any] = []

    def deeper(depth: int) -> None:
        if depth:
            wire.meanwhile = lambda: deeper(depth - 1)
            inner.append(combiner.ask([("GET", str(depth))]))

    deeper(10)
    assert len(inner) == 10


def test_who_waits_and_is_interrupted_is_not_asked_for(
    crowd: Crowd, threads: ThreadPoolExecutor, raising_signal: Callable[[], None]
) -> None:
    def interrupt() -> None:
        until(lambda: waiting(crowd.combiner) == 1)
        raising_signal()

    told = threads.submit(interrupt)
    with pytest.raises(InterruptedError):
        crowd.combiner.ask([("GET", "nobody wants it any more")])
    told.result(PATIENCE)
    came = crowd.come([("GET", "a")])
    crowd.wire.let_go()
    assert came[0].result(PATIENCE) == [[b"GET", b"a"]]
    assert crowd.later == [[[b"GET", b"a"]]]


@pytest.fixture
def raising_signal() -> Iterator[Callable[[], None]]:
    def raises(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGUSR1, raises)
    yield lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_nobody_waits_for_leaders_that_do_not_come_back(wire: Wire, threads: ThreadPoolExecutor) -> None:
    combiner = Combiner(wire, connections=8, limit=PATIENCE)
    wire.hold()
    stuck = [threads.submit(combiner.ask, [("GET", f"stuck {at}")]) for at in range(ALONE)]
    until(lambda: len(wire.sent) == ALONE)
    came = threads.submit(combiner.ask, [("GET", "a")])
    until(lambda: len(wire.sent) == ALONE + 1)  # it has gone by itself, while all the others are away
    assert not any(each.done() for each in stuck)
    wire.let_go()
    assert came.result(PATIENCE) == [[b"GET", b"a"]]


def test_to_a_distant_server_as_many_go_at_once_as_find_a_connection(
    wire: Wire, combiner: Combiner, threads: ThreadPoolExecutor
) -> None:
    """There, waiting for company would cost more than it saves."""
    combiner.trip_took(0.001)
    wire.hold()
    many = [threads.submit(combiner.ask, [("GET", str(at))]) for at in range(20)]
    until(lambda: len(wire.sent) == 20)
    wire.let_go()
    assert [each.result(PATIENCE) for each in many] == [[[b"GET", b"%d" % at]] for at in range(20)]


def test_many_threads_each_get_their_own_from_a_real_server(redis_url: str) -> None:
    """P8, where it could most easily break."""
    with Cache(redis_url, namespace="own", pool_size=4, timeout=PATIENCE) as cache:

        @cache.cached(ttl=60)
        def double(x: int) -> int:
            return 2 * x

        def ask(start: int) -> list[tuple[int, int]]:
            every = [(start * 37 + asked) % 500 for asked in range(200)]
            return [(x, answer) for x in every if (answer := double(x)) != 2 * x]

        with ThreadPoolExecutor(24) as threads:
            wrong = [each for found in threads.map(ask, range(24)) for each in found]
        assert not wrong
        assert double.stats.hits + double.stats.misses == 24 * 200
        assert double.stats.backend_errors == 0
