"""What a decorated function and a cache offer, on a real Redis, sync and async alike."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cachecraft import MISSING, Cache, ClosedError, OptionError, OptionTypeError, PatternError, UnkeyableError
from tests.redis_kit import cache, colour, other  # noqa: F401 - fixtures
from tests.servers import RedisServer

# -- a cached function ---------------------------------------------------------------------------------------


def test_a_function_remembers_in_redis_and_another_process_finds_it(cache: Cache, other: Cache, colour: Any) -> None:
    loads: list[tuple[int, str]] = []

    def find(number: int, *, kind: str = "a") -> dict[str, Any]:
        loads.append((number, kind))
        return {"number": number, "kind": kind}

    here, there = (each.cached(ttl=60)(colour.loader(find)) for each in (cache, other))
    assert colour(here(1)) == {"number": 1, "kind": "a"}
    assert colour(here(number=1, kind="a")) == {"number": 1, "kind": "a"}
    assert colour(there(1)) == {"number": 1, "kind": "a"}
    assert loads == [(1, "a")]
    assert colour(there(1, kind="b"))["kind"] == "b"
    assert loads == [(1, "a"), (1, "b")]
    assert here.key(1) == there.key(number=1, kind="a") != here.key("1")


def test_get_set_refresh_and_invalidate(cache: Cache, other: Cache, colour: Any) -> None:
    loads: list[int] = []

    def price(item: int) -> int:
        loads.append(item)
        return len(loads)

    f, g = (each.cached(ttl=60, key="price:{item}")(colour.loader(price)) for each in (cache, other))
    assert colour(f.get(7)) is MISSING
    assert colour(f(7)) == 1
    assert colour(g.get(7)) == 1
    assert colour(f.refresh(7)) == 2
    assert colour(g(7)) == 2
    assert colour(f.set(40, 7)) is True
    assert colour(g(7)) == 40
    assert colour(f.invalidate(7)) == 1
    assert colour(g.get(7)) is MISSING
    assert colour(f.invalidate(7)) == 0
    assert f.key(7) == "shop:price:7"
    assert loads == [7, 7]


def test_invalidate_all_drops_this_function_and_no_other(cache: Cache, other: Cache, colour: Any) -> None:
    one = cache.cached(ttl=60)(colour.loader(_one))
    two = cache.cached(ttl=60)(colour.loader(_two))
    for number in range(3):
        colour(one(number))
        colour(two(number))
    colour(other.cached(ttl=60)(colour.loader(_one)).invalidate_all())
    assert [colour(one.get(number)) for number in range(3)] == [MISSING] * 3
    assert [colour(two.get(number)) for number in range(3)] == [0, 2, 4]
    colour(two.cache_clear())
    assert colour(two.get(1)) is MISSING
    assert two.cache_info()[:2] == (0, 0)


def _one(number: int) -> int:
    return number


def _two(number: int) -> int:
    return 2 * number


def test_statistics_count_hits_misses_loads_and_reasons(cache: Cache, colour: Any) -> None:
    def load(number: int) -> int:
        if number < 0:
            raise ValueError(number)
        return number

    f = cache.cached(ttl=60, tags=["t:{number}"])(colour.loader(load))
    for number in (1, 1, 2):
        colour(f(number))
    with pytest.raises(ValueError, match="-1"):
        colour(f(-1))
    colour.on(cache).invalidate(tags=["t:1"])
    colour(f(1))
    assert (f.stats.hits, f.stats.misses, f.stats.loads, f.stats.errors) == (1, 4, 4, 1)
    assert f.stats.reasons == {"absent": 3, "invalidated": 1}
    assert f.stats.load_time > 0
    assert cache.stats.hits == 1
    assert f.cache_info() == (1, 4, None, 0)
    assert f.cache_parameters()["ttl"] == 60


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_a_write_invalidates_however_it_ended(cache: Cache, colour: Any, how: str) -> None:
    f = cache.cached(ttl=60, key="user:{user}", tags=["team:{user}"])(colour.loader(lambda user: [user]))

    def rename(user: int) -> None:
        if how == "raises":
            raise RuntimeError("after the commit")

    writes = [
        cache.invalidates(f)(colour.loader(rename)),
        cache.invalidates(key="user:{user}")(colour.loader(rename)),
        cache.invalidates(pattern="user:{user}*")(colour.loader(rename)),
        cache.invalidates(tags=["team:{user}"])(colour.loader(rename)),
    ]
    for write in writes:
        colour(f(1))
        colour(f(2))
        if how == "raises":
            with pytest.raises(RuntimeError, match="after the commit"):
                colour(write(1))
        else:
            colour(write(1))
        assert colour(f.get(1)) is MISSING
        assert colour(f.get(2)) == [2]


async def test_a_cancelled_write_invalidates_before_the_cancellation_goes_on(cache: Cache) -> None:
    f = cache.cached(ttl=60, key="user:{user}")(_one_user)
    committed = asyncio.Event()

    @cache.invalidates(key="user:{user}")
    async def rename(user: int) -> None:
        committed.set()
        await asyncio.Event().wait()

    await f(1)
    writer = asyncio.create_task(rename(1))
    await committed.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert await f.get(1) is MISSING


async def _one_user(user: int) -> list[int]:
    return [user]


def test_on_success_only_leaves_entries_alone_when_the_write_failed(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="user:{user}")(colour.loader(lambda user: user))

    def rename(user: int, fail: bool) -> int:
        if fail:
            raise RuntimeError
        return user

    write = cache.invalidates(key="user:{result}", on_success_only=True)(colour.loader(rename))
    colour(f(1))
    with pytest.raises(RuntimeError):
        colour(write(1, True))
    assert colour(f.get(1)) == 1
    colour(write(1, False))
    assert colour(f.get(1)) is MISSING


def test_updates_writes_through_and_drops_the_entry_if_the_write_raised(
    cache: Cache, other: Cache, colour: Any
) -> None:
    names = {1: "Ann"}

    def name(user: int) -> str:
        return names[user]

    f, elsewhere = (each.cached(ttl=60, key="name:{user}")(colour.loader(name)) for each in (cache, other))

    def rename(user: int, new: str) -> str:
        names[user] = new
        if new == "!":
            raise RuntimeError
        return new

    write = cache.updates(f)(colour.loader(rename))
    colour(f(1))
    colour(write(1, "Bea"))
    assert colour(elsewhere.get(1)) == "Bea"
    with pytest.raises(RuntimeError):
        colour(write(1, "!"))
    assert colour(elsewhere.get(1)) is MISSING


# -- methods -------------------------------------------------------------------------------------------------


def test_a_method_without_a_stable_self_is_refused_with_the_remedies(cache: Cache, colour: Any) -> None:
    class Shop:
        price = cache.cached(ttl=60, namespace="mine")(colour.loader(lambda self, item: item))

    with pytest.raises(UnkeyableError, match=r"'self'.*key=.*__cache_key__.*frozen dataclass"):
        colour(Shop().price(1))


@dataclass(frozen=True)
class _Store:
    number: int
    loads: Any = None

    def __hash__(self) -> int:
        return self.number


class _Keyed:
    def __init__(self, name: str) -> None:
        self.name = name

    def __cache_key__(self) -> str:
        return self.name


def _on(self: Any, item: int) -> str:
    return f"{self.name if isinstance(self, _Keyed) else self.number}:{item}"


def test_a_method_works_where_self_says_who_it_is(cache: Cache, colour: Any) -> None:
    frozen = cache.cached(ttl=60)(colour.loader(_on))
    assert colour(frozen(_Store(1), 5)) == "1:5"
    assert colour(frozen.get(_Store(1), 5)) == "1:5"
    assert colour(frozen.get(_Store(2), 5)) is MISSING
    assert colour(frozen(_Keyed("x"), 5)) == "x:5"
    assert colour(frozen.get(_Keyed("x"), 5)) == "x:5"
    assert colour(frozen.get(_Keyed("y"), 5)) is MISSING


def test_a_template_may_name_what_identifies_self(cache: Cache, other: Cache, colour: Any) -> None:
    class Plain:
        def __init__(self, number: int) -> None:
            self.number = number

    shops = []
    for each in (cache, other):

        class Shop(Plain):
            price = each.cached(ttl=60, key="price:{self.number}:{item}")(colour.loader(_on))

        shops.append(Shop)
    assert colour(shops[0](1).price(5)) == "1:5"
    assert colour(shops[1].price.get(shops[1](1), 5)) == "1:5"
    assert colour(shops[1].price.get(shops[1](2), 5)) is MISSING


# -- names ---------------------------------------------------------------------------------------------------


def test_a_lambda_needs_a_key_or_a_namespace_in_redis(cache: Cache) -> None:
    nameless = cache.cached(ttl=60)(lambda number: number)
    with pytest.raises(OptionError, match=r"key= or namespace="):
        nameless(1)
    assert cache.cached(ttl=60, key="n:{number}")(lambda number: number)(1) == 1
    assert cache.cached(ttl=60, namespace="mine")(lambda number: number)(1) == 1


def _times(cache: Cache, colour: Any, factor: Any, **options: Any) -> Any:
    async def later(number: int) -> Any:
        return number * factor

    def now(number: int) -> Any:
        return number * factor

    return cache.cached(ttl=60, **options)(later if colour.is_async else now)


def test_closures_that_differ_never_share_a_name(cache: Cache, colour: Any) -> None:
    double, triple = _times(cache, colour, 2), _times(cache, colour, 3)
    assert colour(double(10)) == 20
    with pytest.raises(OptionError, match=r"key= or a namespace="):
        colour(triple(10))
    assert colour(double(10)) == 20


def test_a_closure_made_for_each_request_is_found_out_though_the_last_one_is_gone(cache: Cache, colour: Any) -> None:
    colour(_times(cache, colour, [1])(10))
    with pytest.raises(OptionError, match="share their results"):
        colour(_times(cache, colour, [2])(10))


def test_closures_with_a_key_or_namespace_of_their_own_are_told_apart(cache: Cache, colour: Any) -> None:
    assert colour(_times(cache, colour, 2, key="double:{number}")(10)) == 20
    assert colour(_times(cache, colour, 3, key="triple:{number}")(10)) == 30
    assert colour(_times(cache, colour, 4, namespace="four")(10)) == 40
    assert colour(_times(cache, colour, 5, namespace="five")(10)) == 50


@pytest.mark.parametrize("gone", [False, True])
def test_the_same_function_made_again_shares_its_entries(cache: Cache, colour: Any, gone: bool) -> None:
    first = _times(cache, colour, 2)
    assert colour(first(10)) == 20
    if gone:
        del first
        gc.collect()
    again = _times(cache, colour, 2)
    assert colour(again(10)) == 20
    assert again.stats.hits == 1
    if gone:
        with pytest.raises(OptionError, match="other variables around it"):
            colour(_times(cache, colour, 3)(10))


def test_a_recursive_closure_may_be_made_again(cache: Cache) -> None:
    def make() -> Callable[[int], int]:
        @cache.cached(ttl=60)
        def fib(number: int) -> int:
            return number if number < 2 else fib(number - 1) + fib(number - 2)

        return fib

    first, second = make(), make()
    assert first(10) == second(10) == 55


def test_a_function_defined_anew_takes_over_its_name(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a module is loaded again, or a cell of a notebook is run again."""
    for factor in (1, 2):
        space: dict[str, Any] = {"__name__": __name__}
        exec(f"def redefined(x): return x * {factor}", space)  # noqa: S102 - what a notebook does
        f = cache.cached(ttl=60)(space["redefined"])
        monkeypatch.setitem(globals(), "redefined", f)
        f(1)
        f.invalidate_all()


# -- by hand -------------------------------------------------------------------------------------------------


def test_by_hand_set_get_delete(cache: Cache, other: Cache, colour: Any) -> None:
    assert colour.on(cache).get("greeting") is MISSING
    assert colour.on(cache).set("greeting", None, ttl="5m") is True
    assert colour.on(other).get("greeting") is None
    assert colour.on(other).delete("greeting") is True
    assert colour.on(cache).get("greeting") is MISSING
    assert colour.on(cache).delete("greeting") is False


def test_by_hand_tags_and_ttl(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    colour.on(cache).set("a", 1, ttl=10, tags=["blue"], jitter=None)
    colour.on(cache).set("b", 2, ttl=10, tags=["red"])
    assert 9_000 < redis_server.cli("PTTL", "shop:a") <= 10_000
    assert colour.on(cache).get("a") == 1
    colour.on(cache).invalidate(tags="blue")
    assert colour.on(cache).get("a") is MISSING
    assert colour.on(cache).get("b") == 2
    assert colour.on(cache).invalidate(key="b") == 1
    assert colour.on(cache).get("b") is MISSING


def test_by_hand_get_or_load_loads_once(cache: Cache, other: Cache, colour: Any) -> None:
    loads: list[int] = []

    def load() -> int:
        loads.append(1)
        return len(loads)

    for each in (cache, other, cache):
        assert colour.on(each).get_or_load("answer", colour.loader(load), ttl=60, tags=["t"]) == 1
    colour.on(other).invalidate(tags=["t"])
    assert colour.on(cache).get_or_load("answer", colour.loader(load), ttl=60, tags=["t"]) == 2


async def test_aget_or_load_takes_a_plain_loader_too(cache: Cache) -> None:
    assert await cache.aget_or_load("k", lambda: 5, ttl=60) == 5
    assert cache.get("k") == 5


def test_get_or_load_says_what_to_do_with_an_async_loader(cache: Cache) -> None:
    with pytest.raises(OptionTypeError, match="aget_or_load"):
        cache.get_or_load("k", _one_user)  # type: ignore[arg-type]


def test_a_key_that_a_function_made_leads_to_its_results(cache: Cache, other: Cache, colour: Any) -> None:
    loads: list[int] = []

    def load(number: int) -> list[int]:
        loads.append(number)
        return [number]

    f = cache.cached(ttl=60, tags=["t:{number}"])(colour.loader(load))
    assert colour.on(cache).get(f.key(1)) is MISSING
    colour(f(1))
    assert colour.on(cache).get(f.key(1)) == [1]
    assert colour.on(cache).set(f.key(2), [22]) is True
    assert colour(f(2)) == [22]
    assert colour.on(cache).get_or_load(f.key(3), colour.loader(lambda: [33])) == [33]
    assert colour(f(3)) == [33]
    colour.on(cache).invalidate(tags=["t:2"])
    assert colour(f.get(2)) is MISSING
    assert colour.on(other).invalidate(key=f.key(1)) == 1
    assert colour(f.get(1)) is MISSING
    assert colour.on(cache).delete(f.key(3)) is True
    assert colour(f.get(3)) is MISSING
    assert loads == [1]


def test_a_loader_by_hand_may_raise_and_the_next_one_loads(cache: Cache, colour: Any) -> None:
    def fail() -> int:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        colour.on(cache).get_or_load("k", colour.loader(fail))
    assert colour.on(cache).get_or_load("k", colour.loader(lambda: 1)) == 1


def test_switched_off_it_is_a_plain_call_and_talks_to_nobody(colour: Any) -> None:
    with Cache("redis://127.0.0.1:1/0", enabled=False) as off:
        f = off.cached(ttl=60)(colour.loader(lambda number: [number]))
        assert colour(f(1)) == [1]
        assert colour(f.get(1)) is MISSING
        assert colour(f.set(5, 1)) is False
        assert colour.on(off).set("k", 1) is False
        assert colour.on(off).get("k") is MISSING
        assert colour.on(off).get_or_load("k", colour.loader(lambda: 3)) == 3
        assert colour.on(off).invalidate(key="k") == 0
        assert colour.on(off).delete("k") is False
        colour.on(off).clear()


def test_after_close_work_by_hand_is_refused_and_functions_are_plain_calls(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: [number]))
    colour(f(1))
    colour.on(cache).close()
    assert colour(f(1)) == [1]
    assert f.stats.hits == 0
    for name, args, options in [
        ("get", ("k",), {}),
        ("set", ("k", 1), {}),
        ("get_or_load", ("k", colour.loader(lambda: 1)), {}),
        ("delete", ("k",), {}),
        ("invalidate", (), {"key": "k"}),
        ("clear", (), {}),
        ("ping", (), {}),
    ]:
        with pytest.raises(ClosedError):
            getattr(colour.on(cache), name)(*args, **options)


def test_a_pattern_of_wildcards_alone_is_refused(cache: Cache, colour: Any) -> None:
    for pattern in ("", "*", "**", "?*"):
        with pytest.raises(PatternError, match="clear"):
            colour.on(cache).invalidate(pattern=pattern)


@pytest.mark.parametrize("url", ["redis://localhost:port/0", "redis://localhost/0?decode_responses=true"])
def test_a_url_that_cannot_be_used_is_told_where_it_is_written(url: str) -> None:
    with pytest.raises(OptionError, match="url="):
        Cache(url)


def test_a_password_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(OptionError) as caught:
        Cache("redis://user:sec/ret@127.0.0.1:1/0")
    assert "sec" not in str(caught.value)
    with Cache("redis://user:secret@127.0.0.1:1/0") as unreachable:
        unreachable.get("k")
        assert "secret" not in f"{unreachable!r} {unreachable.keeper!r} {unreachable.stats!r} {caplog.text}"
