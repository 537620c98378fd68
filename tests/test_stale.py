"""Around the end of the ttl: ``stale``, ``grace``, ``refresh_ahead``, ``beta``, ``soft_timeout`` and ``timeout``."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from cachecraft._crew import Crew
from tests.callers import PATIENCE, Async, Gate, Sync, flights_of, running_loop, until
from tests.clock import FakeClock

Colour = Sync | Async


class Source:
    """A loader that answers 1, 2, 3, ..., waits where it is told and fails where it is told."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.calls = 0
        self.gates: dict[int, Gate] = {}
        self.errors: dict[int, BaseException] = {}
        self.takes = 0.0

    def gate(self, call: int) -> Gate:
        return self.gates.setdefault(call, Gate())

    def decorated(self, cache: Cache, colour: Colour, **options: Any) -> Any:
        @cache.cached(**options)
        @colour.loader
        def load(x: int = 0) -> Any:
            self.calls += 1
            mine = self.calls
            if mine in self.gates:
                yield self.gates[mine]
            self.clock.advance(self.takes)
            if mine in self.errors:
                raise self.errors[mine]
            return mine

        return load


@pytest.fixture
def source(clock: FakeClock) -> Source:
    return Source(clock)


# -- stale ---------------------------------------------------------------------------------------------------


def test_a_stale_value_is_served_while_one_refresh_runs(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=60)
    gate = source.gate(2)
    assert colour(load()) == 1
    clock.advance(10)
    assert [colour(load()) for _ in range(5)] == [1] * 5
    gate.reached()
    assert [colour(load()) for _ in range(5)] == [1] * 5
    assert source.calls == 2
    assert load.stats.stale == 10
    gate.open()
    until(lambda: not flights_of(cache))
    assert colour(load()) == 2
    assert (load.stats.refreshes, load.stats.loads) == (1, 2)
    assert load.cache_info()[:2] == (11, 1), "a stale value served is a hit"


def test_past_the_window_nobody_is_served_the_old_value(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=60)
    colour(load())
    clock.advance(70)
    assert colour(load.get()) is MISSING
    assert colour(load()) == 2


def test_get_serves_stale_values_and_refreshes_nothing(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=60)
    colour(load())
    clock.advance(30)
    assert colour(load.get()) == 1
    assert source.calls == 1


@pytest.mark.parametrize("x", [0, [0]], ids=["by call key", "by wire key"])
def test_a_refresh_that_fails_is_tried_again_after_a_moment_and_not_at_every_call(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source, x: Any
) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=60)
    source.errors = {2: ValueError("down"), 3: ValueError("down")}
    colour(load(x))
    clock.advance(11)
    assert colour(load(x)) == 1
    until(lambda: source.calls == 2 and not flights_of(cache))
    assert [colour(load(x)) for _ in range(20)] == [1] * 20
    assert source.calls == 2
    clock.advance(1)
    assert colour(load(x)) == 1
    until(lambda: source.calls == 3 and not flights_of(cache))
    clock.advance(1)
    assert colour(load(x)) == 1
    until(lambda: not flights_of(cache))
    assert colour(load(x)) == 4
    assert load.stats.errors == 2


def test_failing_refreshes_do_not_stretch_the_window(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=5)
    source.errors = {2: ValueError("down"), 3: ValueError("down")}
    colour(load())
    clock.advance(14.5)
    assert colour(load()) == 1
    until(lambda: source.calls == 2 and not flights_of(cache))
    clock.advance(0.5)
    with pytest.raises(ValueError, match="down"):
        colour(load())


def test_a_refresh_that_is_interrupted_does_not_stop_later_ones(cache: Cache, clock: FakeClock, source: Source) -> None:
    load = source.decorated(cache, Sync(), ttl=10, stale=1000)
    load()
    for turn in range(2, 14):  # more often than there are threads behind
        source.errors[turn] = SystemExit(1)
        clock.advance(11)
        assert load() == 1
        until(lambda turn=turn: source.calls == turn and not flights_of(cache))
    clock.advance(11)
    load()
    until(lambda: not flights_of(cache))
    assert load() == 14


def test_a_refresh_sees_the_context_of_its_caller(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    from contextvars import ContextVar

    tenant: ContextVar[str] = ContextVar("tenant")
    seen: list[str] = []

    @cache.cached(ttl=10, stale=60)
    @colour.loader
    def load() -> None:
        seen.append(tenant.get("nobody"))

    def call() -> Any:
        tenant.set("acme")
        return load()

    async def acall() -> Any:
        tenant.set("acme")
        return await load()

    call_it = acall if colour.is_async else call
    colour.start(call_it).result(PATIENCE)
    clock.advance(11)
    colour.start(call_it).result(PATIENCE)
    until(lambda: len(seen) == 2)
    assert seen == ["acme", "acme"]


# -- grace ---------------------------------------------------------------------------------------------------


def test_the_old_value_is_served_if_the_loader_fails_and_only_then(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60)
    source.errors = {2: ConnectionError("down")}
    colour(load())
    clock.advance(11)
    assert colour(load.get()) is MISSING
    assert colour(load()) == 1
    assert (load.stats.stale, load.stats.errors) == (1, 1)
    clock.advance(1)
    assert colour(load()) == 3


def test_while_it_fails_it_is_not_asked_at_every_call(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60)
    source.errors = dict.fromkeys(range(2, 10), ConnectionError("down"))
    colour(load())
    clock.advance(11)
    assert [colour(load()) for _ in range(10)] == [1] * 10
    assert source.calls == 2


def test_past_the_grace_the_error_is_the_callers(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60)
    source.errors = {2: ConnectionError("down")}
    colour(load())
    clock.advance(70)
    with pytest.raises(ConnectionError, match="down"):
        colour(load())


def test_without_an_old_value_the_error_is_the_callers(cache: Cache, colour: Colour, source: Source) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60)
    source.errors = {1: ConnectionError("down")}
    with pytest.raises(ConnectionError, match="down"):
        colour(load())


@pytest.mark.parametrize("options", [{}, {"soft_timeout": 5}])
def test_what_was_invalidated_meanwhile_does_not_come_back_by_grace(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source, options: dict[str, Any]
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60, **options)
    gate = source.gate(2)
    source.errors = {2: ConnectionError("down")}
    colour(load())
    clock.advance(11)
    caller = colour.start(load)
    gate.reached()
    colour(load.invalidate())
    gate.open()
    assert isinstance(caller.exception(PATIENCE), ConnectionError)


def test_all_who_joined_the_failing_load_get_the_old_value(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60)
    gate = source.gate(2)
    source.errors = {2: ConnectionError("down")}
    colour(load())
    clock.advance(11)
    callers = [colour.start(load) for _ in range(10)]
    gate.reached()
    until(lambda: load.stats.waits == 9)
    gate.open()
    assert [caller.result(PATIENCE) for caller in callers] == [1] * 10


def test_a_cancellation_is_not_a_failure_that_grace_covers(cache: Cache, clock: FakeClock, source: Source) -> None:
    with running_loop() as loop:
        colour = Async(loop)
        load = source.decorated(cache, colour, ttl=10, grace=60)
        gate = source.gate(2)
        colour(load())
        clock.advance(11)
        caller = colour.start(load)
        gate.reached()
        caller.cancel()
        until(lambda: not flights_of(cache))
        assert caller.cancelled()


def test_a_loader_that_is_too_slow_is_overtaken_by_the_old_value_and_stored_when_it_is_done(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60, soft_timeout=0.01)
    gate = source.gate(2)
    colour(load())
    clock.advance(11)
    assert [colour(load()), colour(load())] == [1, 1]
    assert source.calls == 2
    gate.open()
    until(lambda: not flights_of(cache))
    assert colour(load()) == 2


def test_a_loader_quicker_than_the_soft_timeout_is_waited_for(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60, soft_timeout=PATIENCE)
    colour(load())
    clock.advance(11)
    assert colour(load()) == 2


def test_without_an_old_value_the_soft_timeout_does_nothing(cache: Cache, colour: Colour, source: Source) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60, soft_timeout=0.001)
    gate = source.gate(1)
    caller = colour.start(load)
    gate.reached()
    gate.open()
    assert caller.result(PATIENCE) == 1


def test_stale_comes_before_grace(cache: Cache, clock: FakeClock, colour: Colour, source: Source) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=10, grace=30)
    source.errors = {2: ConnectionError("down")}
    colour(load())
    clock.advance(15)
    assert colour(load()) == 1
    until(lambda: source.calls == 2 and not flights_of(cache))
    clock.advance(10)
    assert colour(load()) == 3, "in the foreground, since the stale window is over"


# -- refresh ahead and beta ----------------------------------------------------------------------------------


def test_a_hit_close_to_the_end_has_the_entry_refreshed_ahead(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=100, refresh_ahead=20)
    colour(load())
    clock.advance(79.9)
    assert colour(load()) == 1
    assert source.calls == 1
    clock.advance(0.2)
    assert colour(load()) == 1
    until(lambda: source.calls == 2 and not flights_of(cache))
    clock.advance(50)
    assert colour(load()) == 2, "with a ttl of its own"
    assert load.stats.stale == 0
    assert load.cache_info()[:2] == (3, 1)


def test_no_hit_no_refresh(cache: Cache, clock: FakeClock, colour: Colour, source: Source) -> None:
    load = source.decorated(cache, colour, ttl=100, refresh_ahead=20)
    colour(load())
    clock.advance(100)
    assert source.calls == 1
    assert colour(load()) == 2


@pytest.mark.parametrize(
    ("left", "chance", "early"),
    [(1.0, 0.5, False), (1.0, 0.7, True), (5.0, 0.9, False), (5.0, 0.995, True), (50.0, 0.999999, False)],
)
def test_with_beta_the_odds_of_an_early_refresh_rise_towards_the_end(
    make_cache: Callable[..., Cache],
    clock: FakeClock,
    colour: Colour,
    source: Source,
    left: float,
    chance: float,
    early: bool,
) -> None:
    """A load that took one second is refreshed with ``left`` seconds to go if ``-ln(1 - chance) >= left``."""
    cache = make_cache(random=lambda: chance)
    load = source.decorated(cache, colour, ttl=100, beta=1.0)
    source.takes = 1.0
    colour(load())
    clock.advance(100 - left)
    assert colour(load()) == 1
    until(lambda: not flights_of(cache))
    assert source.calls == 1 + early


def test_beta_leaves_quick_loads_alone(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour, source: Source
) -> None:
    cache = make_cache(random=lambda: 0.999)
    load = source.decorated(cache, colour, ttl=100, beta=1.0)
    colour(load())
    clock.advance(99.9)
    assert colour(load()) == 1
    assert source.calls == 1


# -- timeout -------------------------------------------------------------------------------------------------


def test_a_loader_that_takes_too_long_is_a_timeout_error_for_all_who_wait(
    cache: Cache, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, timeout=0.05)
    gate = source.gate(1)
    callers = [colour.start(load) for _ in range(3)]
    gate.reached()
    assert all(isinstance(caller.exception(PATIENCE), TimeoutError) for caller in callers)
    gate.open()
    assert colour(load()) == 2


def test_a_loader_within_its_timeout_runs_in_the_callers_context(cache: Cache, colour: Colour) -> None:
    from contextvars import ContextVar

    tenant: ContextVar[str] = ContextVar("tenant")

    @cache.cached(ttl=10, timeout=PATIENCE)
    @colour.loader
    def load(fail: bool) -> str:
        if fail:
            raise ValueError("mine")
        return tenant.get()

    def call() -> Any:
        tenant.set("acme")
        return load(False)

    async def acall() -> Any:
        tenant.set("acme")
        return await load(False)

    assert colour.start(acall if colour.is_async else call).result(PATIENCE) == "acme"
    with pytest.raises(ValueError, match="mine"):
        colour(load(True))


def test_a_timeout_falls_back_on_grace(cache: Cache, clock: FakeClock, colour: Colour, source: Source) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60, timeout=0.05)
    gate = source.gate(2)
    colour(load())
    clock.advance(11)
    assert colour(load()) == 1
    gate.open()


# -- the end -------------------------------------------------------------------------------------------------


def test_close_ends_refreshes_and_later_calls_are_plain(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour, source: Source
) -> None:
    cache = make_cache()
    load = source.decorated(cache, colour, ttl=10, stale=60)
    gate = source.gate(2)
    colour(load())
    clock.advance(11)
    colour(load())
    gate.reached()
    cache.close()
    gate.open()
    assert [colour(load()), colour(load())] == [3, 4]
    cache.close()
    assert repr(cache) == "<Cache memory:// namespace='' closed>"


def test_close_cancels_refreshes_that_run_as_tasks(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    cache = make_cache()
    seen: list[str] = []

    @cache.cached(ttl=10, stale=60)
    async def load() -> None:
        seen.append("began")
        if len(seen) > 1:
            try:
                await asyncio.sleep(PATIENCE * 3)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    with running_loop() as loop:
        colour = Async(loop)
        colour(load())
        clock.advance(11)
        colour(load())
        until(lambda: len(seen) == 2)
        cache.close()
        until(lambda: seen[-1] == "cancelled")


def test_close_ends_idle_threads(make_cache: Callable[..., Cache], clock: FakeClock, source: Source) -> None:
    cache = make_cache()
    load = source.decorated(cache, Sync(), ttl=10, stale=60)
    before = set(threading.enumerate())
    load()
    clock.advance(11)
    load()
    until(lambda: source.calls == 2)
    workers = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("cachecraft-")]
    assert workers
    assert all(worker.daemon for worker in workers)
    cache.close()
    for worker in workers:
        worker.join(PATIENCE)
        assert not worker.is_alive()


def test_when_too_many_refreshes_run_the_stale_value_is_served_all_the_same(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, stale=60)
    colour(load())
    cache._driver.crew._backlog = 0
    clock.advance(11)
    assert [colour(load()), colour(load())] == [1, 1]
    assert source.calls == 1
    assert flights_of(cache) == []


def test_grace_with_a_soft_timeout_loads_in_the_foreground_when_too_many_refreshes_run(
    cache: Cache, clock: FakeClock, colour: Colour, source: Source
) -> None:
    load = source.decorated(cache, colour, ttl=10, grace=60, soft_timeout=5)
    colour(load())
    cache._driver.crew._backlog = 0
    clock.advance(11)
    assert colour(load()) == 2


def test_a_refresh_does_not_wait_for_the_load_it_was_asked_from(cache: Cache, clock: FakeClock) -> None:
    async def main() -> None:
        calls: list[str] = []

        @cache.cached(ttl=10, stale=1000)
        async def inner() -> int:
            calls.append("inner")
            return len(calls)

        @cache.cached(ttl=10)
        async def outer() -> int:
            calls.append("outer")
            return await inner()

        async with asyncio.timeout(PATIENCE):
            await outer()
            clock.advance(11)
            await outer()
            while calls.count("inner") < 2 or flights_of(cache):
                await asyncio.sleep(0)

    asyncio.run(main(), debug=True)


def test_a_refresh_joins_the_load_it_was_asked_from(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    """It runs in a copy of that load's context, and yet it is not a part of it that would wait for itself."""
    outers: list[int] = []
    inners: list[int] = []

    def joined() -> bool:
        return len(outers) < 2 or outer.stats.waits == 1

    if colour.is_async:

        @cache.cached(ttl=10, tags=["t"])
        async def outer() -> int:
            outers.append(1)
            value = await inner()
            while not joined():
                await asyncio.sleep(0.001)
            return int(value)

        @cache.cached(ttl=10, stale=1000)
        async def inner() -> int:
            inners.append(1)
            return 1 if len(inners) == 1 else await outer()
    else:

        @cache.cached(ttl=10, tags=["t"])
        def outer() -> int:
            outers.append(1)
            value = inner()
            until(joined)
            return int(value)

        @cache.cached(ttl=10, stale=1000)
        def inner() -> int:
            inners.append(1)
            return 1 if len(inners) == 1 else int(outer())

    colour(outer())
    clock.advance(11)
    assert colour(outer()) == 1
    until(lambda: not flights_of(cache))
    assert (len(outers), len(inners)) == (2, 2)


def test_refreshes_and_invalidations_by_many_threads_end(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    cache = make_cache()

    @cache.cached(ttl=10, stale=100, refresh_ahead=5, grace=200, tags=["t:{x}"])
    def load(x: int) -> int:
        return x

    def work(seed: int) -> None:
        for turn in range(500):
            x = (turn + seed) % 5
            assert load(x) == x
            if turn % 7 == seed:
                clock.advance(3)
            if turn % 50 == seed:
                cache.invalidate(tags=[f"t:{x}"])

    for worker in [Sync().start(work, seed) for seed in range(4)]:
        worker.result(PATIENCE * 2)
    until(lambda: not flights_of(cache))


def test_nobody_waits_for_a_refresh_that_close_has_dropped() -> None:
    crew, busy, release = Crew(threads=1), threading.Event(), threading.Event()
    ended: list[str] = []

    def work() -> None:
        busy.set()
        release.wait(PATIENCE)

    assert crew.submit(work, partial(ended.append, "ran"))
    assert busy.wait(PATIENCE)
    assert crew.submit(work, partial(ended.append, "dropped"))
    crew.close()
    assert ended == ["dropped"]
    release.set()
    until(lambda: ended == ["dropped", "ran"])


async def test_nobody_waits_for_a_refresh_that_was_cancelled_before_it_began() -> None:
    crew, ended = Crew(), asyncio.Event()

    async def work() -> None:
        raise AssertionError("it was cancelled before it began")

    assert crew.spawn(work(), ended.set)
    crew.close()
    await asyncio.wait_for(ended.wait(), PATIENCE)


def test_without_a_thread_to_refresh_in_the_old_value_is_served(
    cache: Cache, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    @cache.cached(ttl=10, stale=100)
    def load(x: int) -> int:
        return x

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert load(1) == 1
    clock.advance(11)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert [load(1), load(1)] == [1, 1]
    assert load(1) == 1
    until(lambda: load.stats.refreshes == 1)
