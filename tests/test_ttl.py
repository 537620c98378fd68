"""Every entry has a ttl, and its jitter spreads it (P6)."""

import itertools
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from cachecraft import COLD, HOT, MEDIUM, MISSING, STATIC, Cache, Jitter, OptionError
from tests.callers import Async, Sync
from tests.clock import FakeClock

Colour = Sync | Async


class Chance:
    """A random source that says what the test wants."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def __call__(self) -> float:
        return self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]


ALMOST_ONE = 1 - 2**-53


def lifetime(clock: FakeClock, colour: Colour, load: Any, *arguments: Any) -> float:
    """For how many whole seconds the entry of this call is served."""
    colour(load.invalidate(*arguments))
    colour(load(*arguments))
    low, high = 0, 2**21
    began = clock()
    while high - low > 1:  # how long it lives, by halves; each try begins anew, with the same chance
        colour(load.set("value", *arguments))
        began = clock()
        middle = (low + high) // 2
        clock.advance(middle)
        low, high = (low, middle) if colour(load.get(*arguments)) is MISSING else (middle, high)
    assert clock() > began
    return high


def one(cache: Cache, colour: Colour, **options: Any) -> Any:
    @cache.cached(**options)
    @colour.loader
    def load(x: int = 1) -> str:
        return "value"

    return load


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(90, 90), (2.0, 2), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("7d", 604800), (timedelta(minutes=2), 120),
     (MEDIUM, 3600), (COLD, 86400), (STATIC, 604800), (None, 3600)],
)  # fmt: skip
def test_an_entry_is_served_until_its_ttl_is_over(
    cache: Cache, clock: FakeClock, colour: Colour, ttl: Any, seconds: int
) -> None:
    load = one(cache, colour, ttl=ttl)
    colour(load())
    clock.advance(seconds - 0.001)
    assert colour(load.get()) == "value"
    assert load.stats.misses == 1
    clock.advance(0.001)
    assert colour(load.get()) is MISSING
    colour(load())
    assert load.stats.loads == 2


def test_a_hit_does_not_prolong_it(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    load = one(cache, colour, ttl=10)
    for _ in range(4):
        colour(load())
        clock.advance(4)
    assert load.stats.loads == 2


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 3960), (0.5, 4140), (ALMOST_ONE, 4320)])
def test_by_default_an_hour_becomes_66_to_72_minutes(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour, chance: float, seconds: int
) -> None:
    cache = Cache(clock=clock, random=Chance(chance))
    assert lifetime(clock, colour, one(cache, colour, ttl=3600)) == seconds
    assert lifetime(clock, colour, one(cache, colour)) == seconds


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 300), (0.5, 600), (ALMOST_ONE, 900)])
def test_hot_is_five_to_fifteen_minutes(clock: FakeClock, colour: Colour, chance: float, seconds: int) -> None:
    cache = Cache(clock=clock, random=Chance(chance))
    assert lifetime(clock, colour, one(cache, colour, ttl=HOT)) == seconds
    assert lifetime(clock, colour, cache.cached(HOT)(colour.loader(lambda: "value"))) == seconds


@pytest.mark.parametrize(
    ("jitter", "chance", "seconds"),
    [
        (None, 0.9, 100),
        (Jitter(0, 0), 0.9, 100),
        (Jitter(-0.5, -0.25), 0.0, 50),
        (Jitter(-0.5, -0.25), ALMOST_ONE, 75),
        ((0.5, 1.0), 0.0, 150),
        (Jitter(0.5, 1.0), ALMOST_ONE, 200),
    ],
)
def test_jitter_is_set_per_function_or_per_cache(
    clock: FakeClock, colour: Colour, jitter: Any, chance: float, seconds: int
) -> None:
    by_function = Cache(clock=clock, random=Chance(chance))
    by_cache = Cache(clock=clock, random=Chance(chance), jitter=jitter, ttl=100)
    assert lifetime(clock, colour, one(by_function, colour, ttl=100, jitter=jitter)) == seconds
    assert lifetime(clock, colour, one(by_cache, colour)) == seconds


def test_entries_stored_together_do_not_expire_together(clock: FakeClock, colour: Colour) -> None:
    cache = Cache(clock=clock)
    load = one(cache, colour, ttl=3600)
    for x in range(200):
        colour(load(x))
    clock.advance(3960 - 1)
    assert all(colour(load.get(x)) == "value" for x in range(200))
    clock.advance(181)
    alive = sum(colour(load.get(x)) == "value" for x in range(200))
    assert 20 < alive < 180
    clock.advance(181)
    assert all(colour(load.get(x)) is MISSING for x in range(200))


def test_ten_thousand_entries_expire_evenly_over_the_jitter(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    """Of an hour with 10 to 20 % on top: a tenth of them in each of the ten parts of those six minutes."""
    cache = make_cache(jitter=Jitter(0.10, 0.20), random=random.Random(7).random, max_entries=20_000)
    load = one(cache, Sync(), ttl=3600)
    for x in range(10_000):
        load(x)
    clock.advance(3960)
    left = [10_000]
    for _ in range(10):
        clock.advance(36)
        left.append(sum(load.get(x) is not MISSING for x in range(10_000)))
    ended = [before - after for before, after in itertools.pairwise(left)]
    assert left[-1] == 0
    assert all(850 < each < 1150 for each in ended), ended  # five standard deviations


def test_a_ttl_may_follow_from_the_result(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    @cache.cached(ttl=lambda result: "1m" if result else 5)
    @colour.loader
    def find(x: int) -> int:
        return x

    colour(find(0)), colour(find(1))
    clock.advance(5)
    assert [colour(find.get(0)), colour(find.get(1))] == [MISSING, 1]
    clock.advance(55)
    assert colour(find.get(1)) is MISSING


@pytest.mark.parametrize("wrong", [0, -1, "soon", None, float("nan")])
def test_a_ttl_that_follows_and_is_none_costs_the_entry_and_not_the_result(
    cache: Cache, colour: Colour, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @cache.cached(ttl=lambda result: wrong)
    @colour.loader
    def find(x: int) -> int:
        return x

    assert [colour(find(1)), colour(find(1))] == [1, 1]
    assert find.stats.refused == 2
    assert caplog.text.count("ttl=") == 1


def test_by_hand_a_ttl_is_given_with_each_value(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    by_hand = colour.on(cache)
    by_hand.set("short", 1, ttl=5)
    by_hand.set("default", 1)
    by_hand.get_or_load("loaded", lambda: 1, ttl="10s")
    clock.advance(5)
    assert [by_hand.get(key) for key in ("short", "loaded", "default")] == [MISSING, 1, 1]
    clock.advance(5)
    assert [by_hand.get(key) for key in ("loaded", "default")] == [MISSING, 1]
    clock.advance(3590)
    assert by_hand.get("default") is MISSING


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}", "tags": ["t"]}])
def test_a_reload_replaces_the_old_entry_rather_than_adding_one(
    cache: Cache, clock: FakeClock, colour: Colour, options: dict[str, Any]
) -> None:
    load = one(cache, colour, ttl=10, **options)
    for _ in range(5):
        colour(load())
        clock.advance(10)
    assert load.cache_info().currsize == len(cache._keeper.memory) == 1
    assert load.stats.loads == 5


def test_a_ttl_must_be_above_what_is_refreshed_ahead_of_it(cache: Cache) -> None:
    with pytest.raises(OptionError, match=r"refresh_ahead.*ttl"):
        cache.cached(ttl=10, refresh_ahead=10)(lambda: 1)


def test_the_default_clock_only_grows() -> None:
    cache = Cache()
    done = threading.Event()

    @cache.cached(ttl=0.001, jitter=None)
    def load() -> int:
        return 1

    load()
    assert not done.wait(0.01)
    assert load.get() is MISSING
