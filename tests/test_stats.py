"""Everything is seen (P10): counters per function and per cache."""

import gc
from typing import Any

import pytest

from cachecraft import Cache
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
