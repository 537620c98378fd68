"""Everything is seen (P10): counters per function and per cache."""

import gc
from typing import Any

import pytest

from cachecraft import Cache, _books
from cachecraft.stats import BY_HAND, OTHERS, Counted
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock

Colour = Sync | Async


def test_hits_misses_loads_errors_and_load_time(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        clock.advance(x)
        if x == 3:
            raise ValueError
        return x

    for x in (1, 1, 1, 2):
        colour(load(x))
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            colour(load(3))
    numbers = load.stats.as_dict()
    assert (numbers["hits"], numbers["misses"], numbers["loads"], numbers["errors"]) == (2, 4, 4, 2)
    assert numbers["load_time"] == 1 + 2 + 3 + 3
    assert numbers["mean_load_time"] == 9 / 4
    assert numbers["hit_rate"] == pytest.approx(1 / 3)
    assert load.stats.hits == 2
    assert tuple(load.cache_info())[:2] == (2, 4)


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}, {"tags": ["t"]}, {"ttl": 5, "stale": 5}, {"isolate": True}])
def test_every_way_counts_alike(cache: Cache, colour: Colour, options: dict[str, Any]) -> None:
    @cache.cached(**options)
    @colour.loader
    def load(x: object) -> Any:
        return [x]

    for x in (1, 1, "a", "a", [1], [1], 1):
        colour(load(x))
    assert tuple(load.cache_info()) == (4, 3, 100_000, 3)
    assert load.stats.loads == 3


def test_who_joins_is_counted_as_a_wait_and_a_miss(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    callers = [colour.start(load, 1) for _ in range(5)]
    gate.reached()
    until(lambda: load.stats.waits == 4)
    gate.open()
    for caller in callers:
        caller.result(PATIENCE)
    assert (load.stats.misses, load.stats.waits, load.stats.loads) == (5, 4, 1)


def test_a_result_lost_to_an_invalidation_is_counted(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    caller = colour.start(load, 1)
    gate.reached()
    colour(load.invalidate(1))
    gate.open()
    caller.result(PATIENCE)
    assert (load.stats.store_lost, load.stats.invalidated) == (1, 0)


def test_a_cache_sums_over_its_functions_and_what_is_done_by_hand(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def one(x: int) -> int:
        return x

    @cache.cached
    @colour.loader
    def two(x: int) -> int:
        return x

    for function in (one, two):
        colour(function(1)), colour(function(1))
    by_hand = colour.on(cache)
    by_hand.get_or_load("k", lambda: 1)
    by_hand.get_or_load("k", lambda: 1)
    assert (cache.stats.hits, cache.stats.misses, cache.stats.loads) == (3, 3, 3)
    assert cache.stats.hit_rate == 0.5


def test_a_live_view_with_a_telling_repr(cache: Cache) -> None:
    load = cache.cached(lambda x: x)
    stats = load.stats
    assert repr(stats) == "<Stats hits=0, misses=0, loads=0, errors=0, stale=0, waits=0, hit_rate=0.0%>"
    load(1), load(1)
    assert repr(stats) == "<Stats hits=1, misses=1, loads=1, errors=0, stale=0, waits=0, hit_rate=50.0%>"
    with pytest.raises(AttributeError, match="no counter 'hitz'; there are hits"):
        stats.hitz  # noqa: B018


def test_lookups_that_load_nothing_are_no_calls(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        return x

    colour(load.get(1)), colour(load.set(1, 1)), colour(load.get(1)), colour(load.invalidate(1))
    assert tuple(load.cache_info())[:2] == (0, 0)
    assert load.stats.invalidated == 1


def test_functions_that_are_gone_leave_their_counts_and_nothing_else(cache: Cache) -> None:
    for _ in range(50):
        cache.cached(lambda: None)()
    gc.collect()
    assert cache.stats.misses == cache.stats.loads == 50
    assert len(cache.books) < 10


def counted(cache: Cache, function: Any) -> Counted:
    return cache.snapshot().functions[function.__cachecraft__.subject.label]


def test_misses_in_memory_tell_their_reason(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    @cache.cached(ttl=10)
    @colour.loader
    def plain(x: int) -> int:
        return x

    @cache.cached(ttl=10)
    @colour.loader
    def load(x: object) -> Any:
        return [x]

    for function, other in ((plain, 2), (load, (2,))):
        colour(function(1)), colour(function(other))
        clock.advance(11)
        colour(function(1)), colour(function(other)), colour(function(3))
        assert function.stats.reasons == {"absent": 3, "expired": 2}
    assert cache.stats.reasons == {"absent": 6, "expired": 4}


def test_each_call_has_one_outcome(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    """Also where a call is a miss and served something old all the same."""
    broken = False

    @cache.cached(ttl=10, stale=10, grace=100)
    @colour.loader
    def load(x: int) -> int:
        if broken or x < 0:
            raise ValueError
        return x

    for x in (1, 1, 1):
        colour(load(x))
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            colour(load(-1))
    clock.advance(11)
    colour(load(1))  # stale, and refreshed behind
    until(lambda: load.stats.loads == 4)
    colour(load(1))
    broken = True
    clock.advance(50)
    colour(load(1))  # nothing but the old value is to be had
    outcomes = counted(cache, load).outcomes
    assert outcomes == {"hit": 3, "stale": 2, "miss": 1, "error": 2}
    assert load.stats.hits + load.stats.misses == outcomes.total() == 8


def test_who_joins_a_load_that_raises_is_an_error_too(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        raise ValueError

    load.key(1)
    callers = [colour.start(load, 1) for _ in range(3)]
    gate.reached()
    until(lambda: load.stats.waits == 2)
    gate.open()
    for caller in callers:
        with pytest.raises(ValueError):  # noqa: PT011
            caller.result(PATIENCE)
    assert counted(cache, load).outcomes == {"error": 3}


def test_waits_are_timed(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    load.key(1)
    leader = colour.start(load, 1)
    gate.reached()
    waiter = colour.start(load, 1)
    until(lambda: load.stats.waits == 1)
    clock.advance(3)
    gate.open()
    assert leader.result(PATIENCE) == waiter.result(PATIENCE) == 1
    assert load.stats.wait_time == 3
    assert counted(cache, load).waits.count == 1
    assert counted(cache, load).loads.quantile(0.5) > 2.5


def test_what_functions_counted_stays_under_their_name_when_they_are_gone(cache: Cache) -> None:
    def make() -> Any:
        @cache.cached
        def load(x: int) -> int:
            return x

        return load

    for _ in range(20):
        load = make()
        load(1), load(1), load(1)
    label = load.__cachecraft__.subject.label
    del load
    gc.collect()
    outcomes = cache.snapshot().functions[label].outcomes
    assert outcomes == {"hit": 40, "miss": 20}
    assert cache.stats.hits == 40
    assert len(cache.books) == 1


def test_no_counter_goes_down(make_cache: Any, clock: FakeClock) -> None:
    """Whatever becomes of the function: monitors take a counter that falls for a process that began anew."""
    cache = make_cache(namespace="a")

    @cache.cached
    def load(x: int) -> int:
        return x

    def hits() -> int:
        return counted(cache, load).outcomes["hit"]

    load(1), load(1)
    assert hits() == 1
    load.cache_clear()
    assert (hits(), load.stats.hits, tuple(load.cache_info())[:2]) == (1, 0, (0, 0))
    load(1), load(1)
    assert (hits(), load.stats.hits) == (2, 1)
    cache._configure("memory://", {"namespace": "b", "clock": clock})
    assert hits() == 2
    load(1), load(1)
    assert hits() == 3
    cache.close()
    assert hits() == cache.stats.hits == 3


def test_a_snapshot_between_two_counters_is_no_step_back(cache: Cache) -> None:
    """Somebody was served a stale value, and only half of it is counted yet."""

    @cache.cached
    def load(x: int) -> int:
        return x

    load(1)
    record = load.__cachecraft__.record  # type: ignore[attr-defined]  # our own
    record.tally.hits += 1
    assert counted(cache, load).outcomes == {"hit": 1, "miss": 1}
    record.tally.stale += 1
    assert counted(cache, load).outcomes == {"hit": 1, "miss": 1, "stale": 1}
    record.tally.hits += 1
    assert counted(cache, load).outcomes == {"hit": 1, "miss": 1, "stale": 1}


def test_functions_beyond_the_first_so_many_share_a_name(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_books, "MOST", 10)
    functions = []
    for number in range(15):

        def load() -> None: ...

        load.__qualname__ = f"f{number}"
        functions.append(cache.cached(load))
        functions[-1]()
    told = cache.snapshot().functions
    assert len(told) == 10
    assert told[OTHERS].requests == 6  # the name of what is kept by hand is taken


def test_what_is_kept_by_hand_is_told_of_once_there_is_something(cache: Cache) -> None:
    cache.get("k")
    assert cache.snapshot().functions == {}
    cache.get_or_load("k", lambda: 1)
    assert cache.snapshot().functions[BY_HAND].outcomes == {"miss": 1}


def test_what_functions_hold_in_memory(cache: Cache) -> None:
    @cache.cached
    def short(x: int) -> str:
        return ""

    @cache.cached
    def long(x: int) -> str:
        return "x" * 10_000

    for x in range(3):
        short(x), long(x)
    few, many = counted(cache, short), counted(cache, long)
    assert few.entries == many.entries == 3
    assert few.bytes < 2_000
    assert 30_000 < many.bytes < 33_000
    assert cache.stats.memory_entries == 6
    assert cache.stats.memory_bytes == few.bytes + many.bytes
    long.invalidate_all()
    assert counted(cache, long).bytes == 0
