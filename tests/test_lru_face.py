"""The face of ``functools.lru_cache``: code written for it finds what it looks for."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import Async, Sync
from tests.clock import FakeClock

Colour = Sync | Async


def test_a_run_counts_as_functools_counts_it(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(max_entries=1000)

    def square(x: int) -> int:
        return x * x

    ours, theirs = cache.cached(square), functools.lru_cache(1000)(square)
    for x in (1, 2, 1, 3, 2, 1, 1, 4):
        assert ours(x) == theirs(x)
    assert tuple(ours.cache_info()) == tuple(theirs.cache_info()) == (4, 4, 1000, 4)
    assert ours.cache_info()._fields == theirs.cache_info()._fields
    ours.cache_clear(), theirs.cache_clear()
    assert tuple(ours.cache_info()) == tuple(theirs.cache_info())
    assert ours(1) == 1
    assert tuple(ours.cache_info())[:2] == (0, 1)


def test_cache_clear_forgets_entries_and_counters(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        return x

    colour(load(1)), colour(load(1)), colour(load(2))
    assert colour(load.cache_clear()) == 2
    assert tuple(load.cache_info()) == (0, 0, 100_000, 0)
    assert set(load.stats.as_dict().values()) == {0}
    assert colour(load.get(1)) is MISSING
    colour(load(1)), colour(load(1))
    assert tuple(load.cache_info())[:2] == (1, 1)


def test_cache_clear_before_the_first_call_and_with_the_cache_off(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    for cache in (make_cache(), make_cache(enabled=False)):
        load = cache.cached(colour.loader(lambda: 1))
        assert colour(load.cache_clear()) == 0
        assert tuple(load.cache_info())[:2] == (0, 0)


def test_cache_parameters_are_those_of_the_decoration(cache: Cache) -> None:
    assert cache.cached(lambda: 1).cache_parameters() == {}
    load = cache.cached(ttl="5m", key="k", tags=["t"])(lambda: 1)
    parameters = load.cache_parameters()
    assert parameters == {"ttl": "5m", "key": "k", "tags": ["t"]}
    parameters["ttl"] = 1
    assert load.cache_parameters()["ttl"] == "5m"


def test_wrapped_is_the_function_itself_and_bypasses_the_cache(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    @colour.loader
    def load(x: int) -> int:
        """Load."""
        calls.append(x)
        return x

    load.custom = "kept"  # type: ignore[attr-defined]
    cached = cache.cached(load)
    assert cached.__wrapped__ is load
    assert inspect.unwrap(cached) is inspect.unwrap(load)
    assert inspect.signature(cached) == inspect.signature(load)
    assert (cached.__name__, cached.__qualname__, cached.__doc__, cached.__module__) == (
        load.__name__,
        load.__qualname__,
        "Load.",
        __name__,
    )
    assert cached.__annotations__ == load.__annotations__
    assert cached.custom == "kept"
    colour(cached.__wrapped__(1)), colour(cached.__wrapped__(1))
    assert calls == [1, 1]
    assert cached.cache is cache


def test_maxsize_is_the_bound_of_the_cache_and_currsize_counts_this_function(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    cache = make_cache(max_entries=3)

    @cache.cached
    @colour.loader
    def one(x: object) -> Any:
        return x

    @cache.cached
    @colour.loader
    def two(x: object) -> Any:
        return x

    colour(one(1)), colour(one([1])), colour(two(1))
    assert (one.cache_info().maxsize, one.cache_info().currsize, two.cache_info().currsize) == (3, 2, 1)
    colour(two(2)), colour(two(3)), colour(two(4))
    assert one.cache_info().currsize + two.cache_info().currsize == 3


def test_evicted_and_replaced_entries_keep_their_hits_in_the_count(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour
) -> None:
    cache = make_cache(max_entries=2)

    @cache.cached(ttl=10)
    @colour.loader
    def load(x: int) -> int:
        return x

    hits = misses = 0
    for turn in range(60):
        kept = colour(load.get(turn % 5)) is not MISSING
        colour(load(turn % 5)), colour(load(turn % 5))
        hits, misses = hits + 1 + kept, misses + 1 - kept
        if turn % 7 == 0:
            clock.advance(11)
    assert tuple(load.cache_info())[:2] == (hits, misses)


def test_a_method_can_be_told_apart_from_its_class(cache: Cache) -> None:
    class Owner:
        @cache.cached
        def method(self) -> int:
            return 1

    Owner().method()
    assert Owner().method.cache_info().misses == 1
    assert Owner.method.cache_info().misses == 1


@pytest.mark.parametrize("x", [1, [1]])
def test_the_repr_tells_what_it_is(cache: Cache, x: object) -> None:
    @cache.cached
    def load(x: object) -> object:
        return x

    load(x)
    function = load.__cachecraft__.function()
    assert "load" in repr(load)
    assert repr(load.__cachecraft__) == f"<cached {__name__}.test_the_repr_tells_what_it_is.<locals>.load>"
    assert "1 entries, 0 loads under way" in repr(function)
    assert "1 of 100000 entries" in repr(cache)
    assert "misses=1" in repr(load.stats)
