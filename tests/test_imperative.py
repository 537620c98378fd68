"""A cache by hand: ``get``, ``set``, ``get_or_load``, ``delete``, ``invalidate``, ``clear``, and their async twins."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from cachecraft import HOT, MISSING, Cache, OptionError, OptionTypeError
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock

Colour = Sync | Async


@pytest.mark.parametrize("value", [None, 0, "", [1], {"a": (1, 2)}, object()])
def test_what_was_set_is_got_until_it_is_deleted(cache: Cache, colour: Colour, value: object) -> None:
    by_hand = colour.on(cache)
    assert by_hand.get("k") is MISSING
    assert by_hand.set("k", value) is True
    assert by_hand.get("k") == value
    assert by_hand.get("other") is MISSING
    assert by_hand.delete("k") is True
    assert by_hand.delete("k") is False
    assert by_hand.get("k") is MISSING


def test_missing_is_false_and_says_its_name() -> None:
    assert not MISSING
    assert repr(MISSING) == "MISSING"


def test_setting_again_replaces(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    by_hand.set("k", 1, tags=["old"])
    by_hand.set("k", 2, tags=["new"])
    assert len(cache._keeper.memory) == 1
    assert by_hand.invalidate(tags=["old"]) == 0
    assert by_hand.get("k") == 2
    assert by_hand.invalidate(tags=["new"]) == 1


def test_get_or_load_loads_once(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    calls: list[int] = []

    def loader() -> None:
        calls.append(1)

    assert [by_hand.get_or_load("k", loader) for _ in range(3)] == [None] * 3
    assert len(calls) == 1


async def test_the_loader_of_aget_or_load_may_be_of_either_colour(cache: Cache) -> None:
    async def load() -> str:
        return "async"

    assert await cache.aget_or_load("a", load) == "async"
    assert await cache.aget_or_load("b", lambda: "sync") == "sync"
    assert cache.get("a") == "async"
    assert cache.get_or_load("a", lambda: "not asked") == "async"


def test_get_or_load_takes_the_options_of_cached(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    by_hand = colour.on(cache)
    by_hand.get_or_load("k", lambda: "old", ttl=10, stale=60, tags=["t"])
    clock.advance(11)
    assert by_hand.get_or_load("k", lambda: "new", ttl=10, stale=60, tags=["t"]) == "old"
    until(lambda: by_hand.get("k") == "new")
    assert by_hand.invalidate(tags=["t"]) == 1
    assert by_hand.get_or_load("none", lambda: None, when=lambda value: value is not None) is None
    assert by_hand.get("none") is MISSING


def test_a_loader_that_raises_stores_nothing(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        by_hand.get_or_load("k", fail)
    assert by_hand.get("k") is MISSING
    assert by_hand.get_or_load("k", lambda: 1) == 1


def test_a_delete_during_get_or_load_wins(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @colour.loader
    def load() -> object:
        yield gate
        return "old"

    caller = colour.start(cache.aget_or_load if colour.is_async else cache.get_or_load, "k", load)
    gate.reached()
    colour.on(cache).delete("k")
    gate.open()
    assert caller.result(PATIENCE) == "old"
    assert colour.on(cache).get("k") is MISSING


def test_a_key_made_by_a_function_is_taken_as_it_is(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(namespace="shop")

    @cache.cached(key="user:{x}")
    @colour.loader
    def user(x: object) -> object:
        return x

    @cache.cached(namespace="own")
    @colour.loader
    def own(x: object) -> object:
        return x

    by_hand = colour.on(cache)
    for function in (user, own):
        colour(function("a:b"))
        assert by_hand.get(user.key("a:b")) == "a:b"
    colour(user("plain"))
    assert by_hand.get("user:plain") == "plain", "by hand, in the cache's own namespace"
    assert by_hand.get(str(user.key("plain"))) is MISSING, "as text it is a key like any other"
    by_hand.set(user.key("new"), "by hand")
    assert colour(user("new")) == "by hand"


def test_glob_characters_in_a_key_are_nothing_special(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    for key in ("a*", "ab", "a?", "[a]", "a b", "ä", "a%41"):
        by_hand.set(key, key)
    assert by_hand.delete("a*")
    assert [by_hand.get(key) for key in ("ab", "a?", "[a]", "a b", "ä", "a%41")] == [
        "ab",
        "a?",
        "[a]",
        "a b",
        "ä",
        "a%41",
    ]


def test_two_caches_share_nothing(make_cache: Callable[..., Cache], colour: Colour) -> None:
    one, two = make_cache(), make_cache()
    colour.on(one).set("k", 1)
    assert colour.on(two).get("k") is MISSING
    colour.on(two).clear()
    assert colour.on(one).get("k") == 1


def test_several_ways_of_invalidating_at_once_count_together(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    for key, tags in (("a", []), ("b:1", []), ("b:2", ["t"]), ("c", ["t"]), ("d", [])):
        by_hand.set(key, 1, tags=tags)
    seen: list[int] = []
    assert by_hand.invalidate(key="a", pattern="b:*", tags=["t"], progress=seen.append) == 4
    assert seen == [2]
    assert by_hand.get("d") == 1
    assert cache.stats.invalidated == 4


def test_a_ping_costs_nothing_and_a_cache_is_a_context_manager(colour: Colour) -> None:
    with Cache() as cache:
        assert colour.on(cache).ping() == 0.0
    assert not cache.enabled


async def test_a_cache_is_an_async_context_manager() -> None:
    async with Cache() as cache:
        await cache.aset("k", 1)
    assert not cache.enabled
    await cache.aclose()


def test_sync_and_async_calls_see_the_same_entries(cache: Cache) -> None:
    cache.set("k", 1)
    assert asyncio.run(cache.aget("k")) == 1
    asyncio.run(cache.aset("l", 2))
    assert cache.get("l") == 2
    assert asyncio.run(cache.adelete("k")) is True
    assert asyncio.run(cache.ainvalidate(key="l")) == 1
    asyncio.run(cache.aset("m", 1))
    asyncio.run(cache.aclear())
    assert cache.get("m") is MISSING


@pytest.mark.parametrize("url", ["memory://", "redis"])
def test_more_tags_than_an_entry_carries_are_refused_by_name(url: str, redis_url: str, colour: Colour) -> None:
    many = [f"t{number}" for number in range(251)]
    with Cache(redis_url if url == "redis" else url) as cache:
        by_hand = colour.on(cache)
        with pytest.raises(OptionError, match="tags= names 251 tags"):
            by_hand.set("k", 1, tags=many)
        with pytest.raises(OptionError, match="tags= names 251 tags"):
            by_hand.get_or_load("k", lambda: 1, tags=many)
        assert by_hand.set("k", 1, tags=many[:250])
        assert by_hand.get("k") == 1
        by_hand.invalidate(tags=many)
        assert by_hand.get("k") is MISSING


def test_options_that_are_equal_but_not_the_same_are_told_apart(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour
) -> None:
    """What is kept under options is remembered by them, and ``HOT`` equals 600, ``True`` equals 1."""
    by_hand = colour.on(make_cache(random=lambda: 0.0, jitter=None))
    by_hand.get_or_load("whole", lambda: 1, ttl=600)
    by_hand.get_or_load("spread", lambda: 1, ttl=HOT)  # 300 to 900 seconds
    clock.advance(400)
    assert by_hand.get("whole") == 1
    assert by_hand.get("spread") is MISSING
    by_hand.set("k", 1, ttl=1)
    with pytest.raises(OptionTypeError, match="ttl="):
        by_hand.set("k", 1, ttl=True)


@pytest.mark.parametrize("url", ["memory://", "redis"])
def test_a_cache_holds_on_to_no_option_that_may_hold_on_to_others(url: str, redis_url: str, colour: Colour) -> None:
    class Request:
        def fits(self, value: object) -> bool:
            return value == 1

    request = Request()
    gone = weakref.ref(request)
    with Cache(redis_url if url == "redis" else url) as cache:
        assert colour.on(cache).get_or_load("k", lambda: 1, when=request.fits) == 1
        del request
        gc.collect()
        assert gone() is None
