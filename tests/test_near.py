"""The near cache as its users see it: at the speed of memory, never older than it may be, on a real Redis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecraft import MISSING, Cache, Near, OptionError, OptionTypeError
from cachecraft.serializers import MsgpackSerializer
from tests.callers import Async, Sync, until
from tests.redis_kit import colour, other, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async


@pytest.fixture
def near(redis_url: str) -> Iterator[Cache]:
    with Cache(redis_url, namespace="shop", near=True, jitter=None) as made:
        yield made


@pytest.fixture
def elsewhere(redis_url: str) -> Iterator[Cache]:
    """As another process would have it, with a near cache of its own."""
    with Cache(redis_url, namespace="shop", near=Near(max_staleness=5), jitter=None, timeout=0.3) as made:
        yield made


class Source:
    """What the loaders load, and how often."""

    def __init__(self) -> None:
        self.price = 1
        self.loads = 0

    def load(self, item: Any = None, **_: Any) -> int:
        self.loads += 1
        return self.price


@pytest.fixture
def source() -> Source:
    return Source()


def priced(cache: Cache, colour: Colour, source: Source, **options: Any) -> Any:
    def price(item: int) -> int:
        return source.load()

    made = {"ttl": 60, "key": "price:{item}", "tags": ["shelf:{item}"], **options}
    return cache.cached(**made)(colour.loader(price))


def held(f: Any, colour: Colour, *args: Any) -> Any:
    """Call until the value is held near, and answer it."""
    for _ in range(1000):
        before = f.stats.near_hits
        value = colour(f(*args))
        if f.stats.near_hits > before:
            return value
    raise AssertionError("it is never held near")


def forget_in_redis(server: RedisServer, cache: Cache, key: str) -> None:
    """Behind everybody's back: nobody is told, so a near cache still has it."""
    assert server.cli("UNLINK", f"{cache.namespace}:{key}") == 1


# -- serving ---------------------------------------------------------------------------------------------------------


def test_the_second_call_is_answered_from_memory(
    near: Cache, colour: Colour, source: Source, redis_server: RedisServer
) -> None:
    f = priced(near, colour, source)
    assert colour(f(1)) == 1
    forget_in_redis(redis_server, near, "price:1")
    source.price = 2
    assert colour(f(1)) == 1
    assert (source.loads, f.stats.near_hits, f.stats.hits, near.stats.near_hits) == (1, 1, 1, 1)


def test_what_another_process_loaded_is_held_here_once_it_was_read(
    near: Cache, elsewhere: Cache, colour: Colour, source: Source, redis_server: RedisServer
) -> None:
    colour(priced(elsewhere, colour, source)(1))
    f = priced(near, colour, source)
    assert colour(f(1)) == 1
    forget_in_redis(redis_server, near, "price:1")
    assert colour(f(1)) == 1
    assert (source.loads, f.stats.hits, f.stats.near_hits) == (1, 2, 1)


def test_a_hit_near_with_tags_asks_redis_nothing(colour: Colour, source: Source, proxy: Any) -> None:
    with Cache(proxy.url, namespace="shop", near=Near(max_staleness=60)) as cache:
        f = priced(cache, colour, source, tags=["a", "b", "c:{item}"])
        held(f, colour, 1)
        proxy.forget()
        assert [colour(f(1)) for _ in range(100)] == [1] * 100
        assert not proxy.names.keys() - {"UNLINK"}  # the listener's probe


def test_by_hand_as_well(near: Cache, elsewhere: Cache, colour: Colour, redis_server: RedisServer) -> None:
    here, there = colour.on(near), colour.on(elsewhere)
    there.set("answer", 42, tags=["t"])
    assert (here.get("answer"), here.get("answer")) == (42, 42)
    forget_in_redis(redis_server, near, "answer")
    assert here.get("answer") == 42
    assert (near.stats.hits, near.stats.near_hits, near.stats.misses) == (0, 0, 0)  # to look is no call
    there.invalidate(tags=["t"])
    here.barrier()
    assert here.get("answer") is MISSING
    assert here.get_or_load("other", colour.loader(lambda: 7), ttl=50, tags=["u"]) == 7
    forget_in_redis(redis_server, near, "other")
    assert here.get_or_load("other", colour.loader(lambda: 8), ttl=50, tags=["u"]) == 7


def test_an_entry_that_lacks_a_tag_of_the_caller_is_not_served(near: Cache, colour: Colour) -> None:
    """Or an invalidation by that tag would not reach it."""
    here = colour.on(near)
    assert here.get_or_load("k", colour.loader(lambda: 1), tags=["a"]) == 1
    assert here.get_or_load("k", colour.loader(lambda: 1), tags=["a"]) == 1
    assert here.get_or_load("k", colour.loader(lambda: 2), tags=["b"]) == 2


@pytest.mark.parametrize("options", [{"near": False}, {}], ids=["of a function", "of a cache"])
def test_near_false_asks_redis_each_time(
    redis_url: str, redis_server: RedisServer, colour: Colour, source: Source, options: dict[str, Any]
) -> None:
    with Cache(redis_url, namespace="shop", near=bool(options)) as cache:
        f = priced(cache, colour, source, **options)
        colour(f(1))
        colour(f(1))
        forget_in_redis(redis_server, cache, "price:1")
        source.price = 2
        assert colour(f(1)) == 2
        assert (f.stats.near_hits, cache.stats.near_hits) == (0, 0)


def test_a_method_and_a_function_without_a_key(near: Cache, colour: Colour, source: Source) -> None:
    @dataclasses.dataclass(frozen=True)
    class Shop:
        name: str

        @near.cached(ttl=60)
        @colour.loader
        def total(self, *items: int, tax: bool = False) -> int:
            return source.load()

    shop: Any = Shop("corner")
    assert [colour(shop.total(1, 2, tax=True)) for _ in range(3)] == [1, 1, 1]
    assert (source.loads, Shop.total.stats.near_hits) == (1, 2)  # type: ignore[attr-defined]  # a wrapper
    assert colour(shop.total(1, 2)) == 1
    assert source.loads == 2


# -- invalidation ----------------------------------------------------------------------------------------------------

INVALIDATIONS: dict[str, Callable[[Any, Any, Any], object]] = {
    "f.invalidate": lambda cache, f, colour: colour(f.invalidate(1)),
    "key": lambda cache, f, colour: colour.on(cache).invalidate(key="price:1"),
    "delete": lambda cache, f, colour: colour.on(cache).delete("price:1"),
    "pattern": lambda cache, f, colour: colour.on(cache).invalidate(pattern="pri*"),
    "tag": lambda cache, f, colour: colour.on(cache).invalidate(tags=["shelf:1"]),
    "function": lambda cache, f, colour: colour(f.invalidate_all()),
    "clear": lambda cache, f, colour: colour.on(cache).clear(),
    "invalidates": lambda cache, f, colour: colour(cache.invalidates(f)(colour.loader(lambda item: None))(1)),
}


@pytest.mark.parametrize("how", INVALIDATIONS)
def test_what_is_invalidated_here_is_gone_here_at_once(near: Cache, colour: Colour, source: Source, how: str) -> None:
    f = priced(near, colour, source)
    for price in range(2, 12):
        held(f, colour, 1)
        source.price = price
        INVALIDATIONS[how](near, f, colour)
        assert colour(f(1)) == price


@pytest.mark.parametrize("how", INVALIDATIONS)
@pytest.mark.parametrize("writer", ["elsewhere", "other"])
def test_what_is_invalidated_elsewhere_is_gone_here_after_a_barrier(
    near: Cache, colour: Colour, source: Source, how: str, writer: str, request: pytest.FixtureRequest
) -> None:
    """Whether the other has a near cache of its own or none."""
    f, there = priced(near, colour, source), request.getfixturevalue(writer)
    g = priced(there, colour, source)
    for price in range(2, 6):
        held(f, colour, 1)
        source.price = price
        INVALIDATIONS[how](there, g, colour)
        colour.on(near).barrier()
        assert colour(f(1)) == price


@pytest.mark.parametrize("how", INVALIDATIONS)
def test_what_is_invalidated_elsewhere_leaves_by_itself(
    near: Cache, other: Cache, colour: Colour, source: Source, how: str
) -> None:
    f, g = priced(near, colour, source), priced(other, colour, source)
    held(f, colour, 1)
    source.price = 2
    INVALIDATIONS[how](other, g, colour)
    until(lambda: colour(f(1)) == 2)
    until(lambda: near.stats.near_received > 0)


@pytest.mark.parametrize("how", INVALIDATIONS)
def test_it_is_gone_at_once_from_every_near_cache_of_the_process(
    near: Cache, elsewhere: Cache, other: Cache, colour: Colour, source: Source, how: str
) -> None:
    """Whichever cache was told to invalidate it, and whether that has a near cache itself."""
    f, g, h = (priced(cache, colour, source) for cache in (near, elsewhere, other))
    for price, writer, told in ((2, near, f), (3, elsewhere, g), (4, other, h)):
        assert held(f, colour, 1) == held(g, colour, 1) == price - 1
        source.price = price
        INVALIDATIONS[how](writer, told, colour)
        assert colour(f(1)) == colour(g(1)) == price


REPLACEMENTS: dict[str, Callable[[Any, Any, Any], object]] = {
    "set": lambda cache, f, colour: colour(f.set(9, 1)),
    "refresh": lambda cache, f, colour: colour(f.refresh(1)),
    "updates": lambda cache, f, colour: colour(cache.updates(f)(colour.loader(lambda item: 9))(1)),
    "set by hand": lambda cache, f, colour: colour.on(cache).set(f.key(1), 9),
}


@pytest.mark.parametrize("how", REPLACEMENTS)
def test_what_is_replaced_is_seen_here_at_once_and_elsewhere_after_a_barrier(
    near: Cache, elsewhere: Cache, colour: Colour, source: Source, how: str
) -> None:
    f, g = priced(near, colour, source), priced(elsewhere, colour, source)
    assert held(f, colour, 1) == held(g, colour, 1) == 1
    source.price = 9
    REPLACEMENTS[how](near, f, colour)
    assert colour(f(1)) == 9
    colour.on(elsewhere).barrier()
    assert colour(g(1)) == 9


def test_a_tag_of_the_result_reaches_what_is_held_here(
    near: Cache, elsewhere: Cache, colour: Colour, source: Source
) -> None:
    f = priced(near, colour, source, tags=lambda result, item: [f"made:{result}"])
    held(f, colour, 1)
    source.price = 2
    colour.on(elsewhere).invalidate(tags=["made:1"])
    colour.on(near).barrier()
    assert colour(f(1)) == 2


def test_a_function_of_another_namespace_is_listened_to_as_well(
    near: Cache, elsewhere: Cache, colour: Colour, source: Source
) -> None:
    f = priced(near, colour, source)
    held(f, colour, 1)
    g, h = (priced(cache, colour, source, namespace="bank") for cache in (near, elsewhere))
    held(g, colour, 1)
    source.price = 2
    colour(h.invalidate(1))
    colour.on(near).barrier()
    assert (colour(g(1)), held(f, colour, 1)) == (2, 1)


def test_a_load_that_was_under_way_when_the_invalidation_came_is_not_held(
    near: Cache, elsewhere: Cache, colour: Colour, source: Source
) -> None:
    from tests.callers import Gate

    gate = Gate()

    def price(item: int) -> Any:
        seen = source.load()
        yield gate
        return seen

    f = near.cached(ttl=60, key="slow:{item}")(colour.loader(price))
    caller = colour.start(f, 1)
    gate.reached()
    source.price = 2
    colour.on(elsewhere).invalidate(key="slow:1")
    gate.open()
    assert caller.result(10) == 1
    assert colour(f(1)) == 2


# -- values and time -------------------------------------------------------------------------------------------------


def test_nobody_can_change_what_another_gets(near: Cache, colour: Colour) -> None:
    f = near.cached(ttl=60, key="cart")(colour.loader(lambda: {"items": [1, {"n": 2}]}))
    for _ in range(3):
        mine = colour(f())
        assert mine == {"items": [1, {"n": 2}]}
        mine["items"][1]["n"] = 99
        mine.clear()
    assert f.stats.near_hits >= 1


class Money:
    """Opaque: neither a container nor a dataclass."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


class _Moneyed(MsgpackSerializer):
    id = 77

    def dumps(self, value: Any) -> bytes:
        return super().dumps(value.cents)

    def loads(self, payload: bytes) -> Any:
        return Money(super().loads(payload))


@pytest.mark.parametrize(("isolate", "shared"), [(None, False), (True, False), (False, True)])
def test_an_opaque_object_is_copied_too_unless_its_users_promise_not_to_change_it(
    near: Cache, colour: Colour, isolate: bool | None, shared: bool
) -> None:
    f = near.cached(ttl=60, key="money", serializer=_Moneyed(), isolate=isolate)(colour.loader(lambda: Money(5)))
    first, second = held(f, colour), held(f, colour)
    assert first.cents == second.cents == 5
    assert (first is second) is shared


def test_an_entry_is_not_held_longer_than_its_ttl(
    near: Cache, colour: Colour, source: Source, redis_server: RedisServer
) -> None:
    f = priced(near, colour, source, ttl=0.15)
    assert held(f, colour, 1) == 1
    source.price = 2
    until(lambda: colour(f(1)) == 2)
    assert source.loads >= 2


def test_what_is_due_to_be_loaded_anew_is_asked_of_redis(near: Cache, colour: Colour, source: Source) -> None:
    f = priced(near, colour, source, refresh_ahead=59.999)
    colour(f(1))
    source.price = 2
    until(lambda: colour(f(1)) == 2)
    assert f.stats.refreshes >= 1


def test_the_bounds_of_the_near_cache_hold(redis_url: str, colour: Colour, source: Source) -> None:
    with Cache(redis_url, namespace="shop", near=Near(max_entries=10)) as cache:
        f = priced(cache, colour, source)
        for item in range(100):
            colour(f(item))
        assert 0 < cache.stats.near_entries <= 10
        assert cache.stats.near_evictions > 0


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near", ["yes", 1, 0.5])
def test_near_is_true_false_or_a_near(near: Any) -> None:
    with pytest.raises(OptionTypeError, match="near="):
        Cache("redis://localhost", near=near)


@pytest.mark.parametrize(
    "options", [{"max_entries": 0}, {"max_bytes": -1}, {"max_staleness": 0}, {"max_staleness": 0.001}]
)
def test_a_near_that_cannot_be_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Near(**options)


def test_near_of_a_function_is_yes_or_no(near: Cache) -> None:
    with pytest.raises(OptionTypeError, match="near="):
        near.cached(near=Near())  # type: ignore[call-overload]


def test_memory_is_near_by_itself() -> None:
    with Cache("memory://", near=True) as cache:
        f = cache.cached(lambda x: x)
        assert (f(1), f(1), f.stats.hits) == (1, 1, 1)
        cache.barrier()
