"""What type checkers must make of the public names. Never run: `mypy --strict` reads it.

A line with `type: ignore` is one they must refuse, for the reason beside it: an ignore that nothing needs is an error.
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, assert_type

from cachecraft import (
    COLD,
    HOT,
    MISSING,
    Cache,
    Explanation,
    Jitter,
    cached,
    configure,
    hooks,
    invalidates,
    updates,
    write_behind,
)
from cachecraft._core.entry import Missing
from cachecraft.stats import Stats

T = TypeVar("T")

tenant: ContextVar[str] = ContextVar("tenant")


@dataclass
class User:
    id: int
    name: str = ""


class NotFoundError(Exception):
    pass


# -- every way to decorate keeps the signature ---------------------------------------------------------------


@cached
def bare(a: int, b: str = "", *, c: bool = False) -> list[int]: ...


@cached()
def empty(a: int) -> str: ...


@cached("5m")
def positional(a: int) -> str: ...


@cached(60, key="user:{user_id}", tags=["tenant:{name}"])
def get_user(user_id: int, name: str = "main") -> User: ...


@cached(ttl=HOT, jitter=(0.1, 0.2), stale="1m", grace=timedelta(hours=1), soft_timeout=0.2, refresh_ahead=5)
async def fetch_user(user_id: int) -> User: ...


@cached(ttl=lambda result: 60 if result else "1s", when=lambda result: result is not None)
def ttl_of_the_result(a: int) -> str | None: ...


@cached(
    COLD,
    key=lambda a: f"a:{a}",
    tags=lambda result, a: [str(a)],
    namespace="shop",
    version=2,
    jitter=Jitter(0, 0.5),
    beta=1.0,
    verify=0.001,
    lease=2,
    wait="3s",
    timeout=5,
    cache_errors={NotFoundError: "30s", KeyError: 5},
    vary=tenant.get,
    serializer=None,
    isolate=False,
)
async def all_options(a: int) -> str: ...


@cached(None, jitter=None, cache_errors=NotFoundError)
def ttl_of_the_cache(a: int) -> str: ...


def how_they_are_called() -> None:
    assert_type(bare(1, "x", c=True), list[int])
    assert_type(bare(a=1), list[int])
    assert_type(empty(1), str)
    assert_type(positional(1), str)
    assert_type(get_user(1, name="eu"), User)
    assert_type(ttl_of_the_result(1), str | None)
    assert_type(ttl_of_the_cache(1), str)

    bare("1")  # type: ignore[arg-type]  # the argument is an int
    bare(1, "x", True)  # type: ignore[call-arg]  # c is given by keyword alone
    bare(1, d=1)  # type: ignore[call-arg]  # there is no d
    bare()  # type: ignore[call-arg]  # a is missing
    empty("1")  # type: ignore[arg-type]  # so with empty parentheses
    positional("1")  # type: ignore[arg-type]  # and with options
    _: str = get_user(1)  # type: ignore[assignment]  # the result is a User


async def how_they_are_awaited() -> None:
    assert_type(await fetch_user(1), User)
    _ = assert_type(fetch_user(user_id=1), Coroutine[Any, Any, User])
    assert_type(await all_options(1), str)

    await fetch_user("1")  # type: ignore[arg-type]  # the argument is an int
    await get_user(1)  # type: ignore[misc]  # a def is not awaited
    _ = fetch_user(1).name  # type: ignore[attr-defined]  # an async def is


call_me: Callable[[int], str] = empty
await_me: Callable[[int], Coroutine[Any, Any, User]] = fetch_user
call_me_wrongly: Callable[[str], str] = empty  # type: ignore[assignment]  # it takes an int


# -- what hangs on a cached function -------------------------------------------------------------------------


def what_hangs_on_it() -> None:
    assert_type(get_user.key(1), str)
    assert_type(get_user.get(1, name="eu"), User | Missing)
    assert_type(get_user.set(User(1), 1), bool)
    assert_type(get_user.refresh(1), User)
    assert_type(get_user.explain(1), Explanation)
    assert_type(get_user.invalidate(user_id=1), int)
    assert_type(get_user.invalidate_all(), int)
    assert_type(get_user.cache_clear(), int)
    assert_type(get_user.cache_info().hits, int)
    assert_type(get_user.cache_info().maxsize, int | None)
    assert_type(get_user.cache_parameters(), dict[str, Any])
    assert_type(get_user.cache, Cache)
    assert_type(get_user.__name__, str)
    assert_type(get_user.__wrapped__(1), User)

    found = get_user.get(1)
    if found is not MISSING:
        assert_type(found, User)
    else:
        assert_type(found, Literal[Missing.MISSING])

    _ = get_user.get(1).id  # type: ignore[union-attr]  # it may be MISSING
    get_user.get("1")  # type: ignore[arg-type]  # the argument is an int
    get_user.key()  # type: ignore[call-arg]  # user_id is missing
    get_user.set("bob", 1)  # type: ignore[arg-type]  # the result is a User
    get_user.set(User(1))  # type: ignore[call-arg]  # user_id is missing
    get_user.refresh(1, nmae="eu")  # type: ignore[call-arg]  # there is no nmae
    get_user.invalidate("1")  # type: ignore[arg-type]  # the argument is an int
    get_user.explain("1")  # type: ignore[arg-type]  # the argument is an int
    get_user.drop(1)  # type: ignore[attr-defined]  # there is no drop


async def what_hangs_on_an_async_one() -> None:
    assert_type(fetch_user.key(1), str)
    assert_type(await fetch_user.get(1), User | Missing)
    assert_type(await fetch_user.set(User(1), 1), bool)
    assert_type(await fetch_user.refresh(1), User)
    assert_type(await fetch_user.explain(1), Explanation)
    assert_type(await fetch_user.invalidate(1), int)
    assert_type(await fetch_user.invalidate_all(), int)
    assert_type(await fetch_user.cache_clear(), int)
    assert_type(fetch_user.cache_info().currsize, int)
    assert_type(await fetch_user.__wrapped__(1), User)

    if (found := await fetch_user.get(1)) is not MISSING:
        assert_type(found, User)

    fetch_user.invalidate(1)  # type: ignore[unused-coroutine]  # nothing happens until it is awaited
    await fetch_user.set("bob", 1)  # type: ignore[arg-type]  # the result is a User
    await fetch_user.key(1)  # type: ignore[misc]  # a key is there at once
    await get_user.invalidate(1)  # type: ignore[misc]  # that of a def is not awaited


# -- methods -------------------------------------------------------------------------------------------------


class Shop:
    def __init__(self) -> None:
        self.lookup = cached(ttl=60)(self.plain)

    def plain(self, x: int) -> str: ...

    @cached
    def method(self, x: int) -> str: ...

    @cached("5m")
    async def amethod(self, x: int) -> list[str]: ...

    @staticmethod
    @cached
    def static(x: int) -> str: ...

    @cached(60)
    @staticmethod
    async def astatic(x: int) -> str: ...

    @classmethod
    @cached
    def klass(cls, x: int) -> str: ...

    @cached(60)
    @classmethod
    async def aklass(cls, x: int) -> str: ...

    @property
    @cached
    def prop(self) -> str: ...

    @invalidates(method, static, klass, on_success_only=True)
    def sell(self, x: int) -> bool: ...

    @updates(amethod)
    async def restock(self, x: int) -> list[str]: ...


class Corner(Shop):
    def calls_super(self) -> None:
        assert_type(super().method(1), str)


class Box(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content

    @cached
    def swap(self, content: T) -> T: ...

    @cached
    async def aswap(self, content: T) -> list[T]: ...


def methods(shop: Shop, corner: Corner) -> None:
    assert_type(shop.method(1), str)
    assert_type(corner.method(x=1), str)
    assert_type(Shop.method(shop, 1), str)
    assert_type(shop.prop, str)
    assert_type(shop.lookup(1), str)
    assert_type(shop.lookup.invalidate(1), int)
    assert_type(shop.sell(1), bool)

    # By the class or by the object, what hangs on a method is told the object.
    assert_type(Shop.method.invalidate(shop, 1), int)
    assert_type(Corner.method.get(corner, x=1), str | Missing)
    assert_type(shop.method.refresh(shop, 1), str)
    assert_type(shop.method.stats, Stats)

    shop.method("1")  # type: ignore[arg-type]  # the argument is an int
    shop.method(shop, 1)  # type: ignore[call-arg, arg-type]  # a bound method has its object
    Shop.method(1)  # type: ignore[call-arg, arg-type]  # an unbound one has not
    Shop.method.invalidate(1)  # type: ignore[call-arg, arg-type]  # nor has what hangs on it
    shop.method.invalidate(1)  # type: ignore[call-arg, arg-type]  # even on the bound method
    Shop.method.set(1, shop, 1)  # type: ignore[arg-type]  # the result is a str
    shop.prop()  # type: ignore[operator]  # a property is not called
    shop.sell("1")  # type: ignore[arg-type]  # writers keep their signature too


async def async_methods(shop: Shop) -> None:
    assert_type(await shop.amethod(1), list[str])
    assert_type(await Shop.amethod.invalidate(shop, 1), int)
    assert_type(await shop.restock(1), list[str])

    await shop.amethod("1")  # type: ignore[arg-type]  # the argument is an int
    await shop.method(1)  # type: ignore[misc]  # a def is not awaited


async def static_and_class_methods(shop: Shop) -> None:
    assert_type(Shop.static(1), str)
    assert_type(shop.static(1), str)
    assert_type(await Shop.astatic(1), str)
    assert_type(await shop.astatic(1), str)
    assert_type(Corner.klass(1), str)
    assert_type(shop.klass(1), str)
    assert_type(await Corner.aklass(1), str)
    assert_type(await shop.aklass(1), str)

    assert_type(Shop.static.invalidate(1), int)
    assert_type(shop.static.get(1), str | Missing)
    assert_type(await Shop.astatic.invalidate(1), int)
    assert_type(Corner.klass.invalidate(Corner, 1), int)
    assert_type(await Corner.aklass.get(Corner, 1), str | Missing)

    Shop.static("1")  # type: ignore[arg-type]  # the argument is an int
    shop.static(shop, 1)  # type: ignore[call-arg, arg-type]  # a static method has no object
    Corner.klass("1")  # type: ignore[arg-type]  # the argument is an int
    Corner.klass.invalidate(1)  # type: ignore[call-arg, arg-type]  # what hangs on a class method is told the class


async def methods_of_a_generic_class(box: Box[float]) -> None:
    assert_type(box.swap(1.5), float)
    assert_type(box.swap.get(box, 1.5), float | Missing)
    assert_type(await box.aswap(1.5), list[float])

    box.swap("x")  # type: ignore[arg-type]  # this box holds floats


# -- wrong options -------------------------------------------------------------------------------------------


def wrong_options() -> None:
    cached(tll=60)  # type: ignore[call-overload]  # there is no tll
    cached(60, tll=60)  # type: ignore[call-overload]  # nor beside a ttl
    cached(60, "user:{a}")  # type: ignore[call-overload]  # only the ttl is positional
    cached(60, ttl=60)  # type: ignore[call-overload]  # and it is given once
    cached(bare, ttl=60)  # type: ignore[call-overload]  # a function or options
    cached([60])  # type: ignore[call-overload]  # no duration
    cached(ttl=[60])  # type: ignore[call-overload]  # no duration by keyword either
    cached(ttl=lambda result: [60])  # type: ignore[arg-type]  # nor as a function's answer
    cached(60, key=1)  # type: ignore[call-overload]  # a key is a template or a function
    cached(60, tags=1)  # type: ignore[call-overload]  # tags are templates or a function
    cached(60, jitter=0.1)  # type: ignore[call-overload]  # jitter has two bounds
    cached(60, cache_errors=[KeyError])  # type: ignore[call-overload]  # a class, a tuple or a dict
    cached(60, serializer="json")  # type: ignore[call-overload]  # a serializer is an object
    cached(60)("no function")  # type: ignore[call-overload]  # what is decorated is a function


# -- functions that write ------------------------------------------------------------------------------------


@invalidates(get_user, fetch_user, Shop.method, key="top", pattern=["user:{user_id}*"], tags="tenant:{result.id}")
def rename(user_id: int, name: str) -> User: ...


@invalidates(pattern="user:{user_id}*", when=lambda result: result)
async def arename(user_id: int, name: str) -> bool: ...


@updates(get_user)
def save(user_id: int, user: User) -> User: ...


@updates(get_user, value=lambda row: User(*row))
def save_row(user_id: int, name: str) -> tuple[int, str]: ...


@updates(fetch_user)
async def asave(user_id: int, name: str) -> User: ...


@updates(fetch_user, value=lambda row: User(*row))
async def asave_row(user_id: int, name: str) -> tuple[int, str]: ...


async def writers() -> None:
    assert_type(rename(1, "bob"), User)
    assert_type(await arename(1, "bob"), bool)
    assert_type(save(1, user=User(1)), User)
    assert_type(save_row(1, "bob"), tuple[int, str])
    assert_type(await asave(1, "bob"), User)
    assert_type(await asave_row(1, "bob"), tuple[int, str])

    rename("1", "bob")  # type: ignore[arg-type]  # the argument is an int
    save(1)  # type: ignore[call-arg]  # the user is missing
    invalidates(len)  # type: ignore[arg-type]  # not a cached function
    invalidates(get_user, "user:*")  # type: ignore[arg-type]  # a pattern is given by keyword
    invalidates(key="top", ttl=60)  # type: ignore[call-arg]  # that is no option of invalidates
    updates(len)  # type: ignore[call-overload]  # not a cached function
    updates(get_user, lambda row: row)  # type: ignore[call-overload]  # value is given by keyword
    updates(get_user, value=lambda row: 1)  # type: ignore[arg-type, return-value]  # the value is a User


@updates(get_user)  # type: ignore[arg-type]  # what get_user returns is a User
def save_nothing(user_id: int) -> None: ...


@updates(fetch_user)  # type: ignore[arg-type]  # an async function is updated by an async one
def save_in_a_thread(user_id: int) -> User: ...


@updates(get_user)  # type: ignore[arg-type]  # and a def by a def
async def save_in_a_task(user_id: int) -> User: ...


# -- caches --------------------------------------------------------------------------------------------------


def caches() -> None:
    assert_type(configure(), Cache)
    assert_type(configure("redis://localhost:6379/0", namespace="shop", timeout=0.5, on_failover="trust"), Cache)
    assert_type(Cache(), Cache)
    cache = Cache(
        "memory://",
        namespace="shop",
        ttl="1h",
        jitter=None,
        enabled=True,
        max_entries=10,
        max_bytes=None,
        max_value_bytes=1024,
        compress_above=None,
        compression="zstd",
        connect_timeout="1s",
        pool_size=8,
        serializer=None,
        clock=lambda: 0.0,
        random=lambda: 0.5,
    )
    with cache as same:
        assert_type(same, Cache)

    Cache(hooks=[print, hooks.log_event], publish_stats="10s").add_hook(lambda event: event)
    Cache(hooks=[len])  # type: ignore[list-item]  # an event has no length
    Cache(10)  # type: ignore[arg-type]  # the first argument is a URL
    Cache("memory://", ["shop"])  # type: ignore[call-arg, arg-type]  # options are given by keyword
    Cache(tll=60)  # type: ignore[call-arg]  # there is no tll
    Cache(max_entries="many")  # type: ignore[arg-type]  # a number of entries
    Cache(compression="lz4")  # type: ignore[arg-type]  # zlib or zstd
    configure(url=None, nmaespace="shop")  # type: ignore[call-arg]  # there is no nmaespace
    configure("memory://", ["shop"])  # type: ignore[call-arg, arg-type]  # options are given by keyword
    configure(on_failover="hope")  # type: ignore[arg-type]  # flush or trust


async def written_behind(cache: Cache) -> None:
    @cache.cached
    def get(key: int) -> str: ...

    @cached
    async def aget(key: int) -> str: ...

    @cache.write_behind(get, value="name", coalesce=True, retry_for="1h", max_pending=10, on_unqueued="raise")
    def save(key: int, name: str = "x") -> int: ...

    @write_behind(aget, value=lambda key, name: name)
    async def asave(key: int, name: str) -> int: ...

    assert_type(save(1, name="a"), None)
    assert_type(await asave(1, "a"), None)
    save("1")  # type: ignore[arg-type]  # the signature is kept
    cache.write_behind(get)  # type: ignore[call-arg]  # what does it return from now on?
    cache.write_behind(print, value="name")  # type: ignore[arg-type]  # that is no cached function
    cache.write_behind(get, value="name", on_unqueued="drop")  # type: ignore[arg-type]  # write or raise


async def by_hand(cache: Cache) -> None:
    @cache.cached(ttl=5)
    def of_this_cache(a: int) -> str: ...

    assert_type(of_this_cache(1), str)
    assert_type(cache.set("k", 1, ttl="5m", tags=["t"]), bool)
    assert_type(cache.get_or_load("k", lambda: 1, ttl=5, stale=1), int)
    assert_type(cache.delete("k"), bool)
    assert_type(cache.invalidate(key="k", pattern="k*", tags=["t"]), int)
    assert_type(cache.ping(), float)
    assert_type(cache.namespace, str)
    assert_type(cache.stats, Stats)

    assert_type(await cache.aset("k", 1, ttl=5), bool)
    assert_type(await cache.aget_or_load("k", lambda: 1), int)
    assert_type(await cache.adelete("k"), bool)
    assert_type(await cache.ainvalidate(pattern="k*"), int)
    assert_type(await cache.aping(), float)
    async with cache as same:
        assert_type(same, Cache)

    cache.get(1)  # type: ignore[arg-type]  # a key is text
    cache.set("k", 1, 60)  # type: ignore[call-arg]  # the ttl is given by keyword
    cache.get_or_load("k", 1)  # type: ignore[arg-type]  # a loader is called
    cache.invalidate("k")  # type: ignore[call-arg]  # say what it is: key=, pattern= or tags=
    cache.aclear()  # type: ignore[unused-coroutine]  # nothing happens until it is awaited
