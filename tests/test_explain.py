"""`f.explain(...)`, in memory: what the next call would find; and if nothing, why, on whose behalf, and when."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache, UnkeyableError
from tests.callers import PATIENCE, Async, Gate, Sync
from tests.clock import FakeClock

Colour = Sync | Async


def here(offset: int = 0) -> str:
    """The line of the caller, as an explanation names it."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{frame.f_back.f_code.co_filename}:{frame.f_back.f_lineno + offset}"


def echo(cache: Cache, colour: Colour, **options: Any) -> Any:
    def load(x: int) -> list[int]:
        return [x]

    return cache.cached(**{"ttl": 60, **options})(colour.loader(load))


# -- what is there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}", "tags": ["t:{x}", "all"]}, {"isolate": False}])
def test_what_is_fresh_tells_of_itself(cache: Cache, clock: FakeClock, colour: Colour, options: dict[str, Any]) -> None:
    def load(x: int) -> list[int]:
        clock.advance(0.5)
        return [x]

    f = cache.cached(ttl=60, **options)(colour.loader(load))
    colour(f(1))
    clock.advance(20)
    found = colour(f.explain(1))
    assert (found.verdict, found.held, found.reason, found.by) == ("fresh", "memory", None, None)
    assert (found.age, found.left) == (pytest.approx(20), pytest.approx(40))
    assert found.size > 100
    assert found.key == f.key(1)
    assert found.tags == (("t:1", "all") if "tags" in options else ())
    assert found.load_time == (None if options == {"isolate": False} and found.load_time is None else 0.5)
    assert "fresh in memory, 20 s old, 40 s left" in str(found)
    assert json.loads(json.dumps(found.as_dict()))["verdict"] == "fresh"


def test_to_ask_is_no_call(cache: Cache, colour: Colour) -> None:
    f = echo(cache, colour)
    colour(f.explain(1)), colour(f(1)), colour(f.explain(1))
    assert (f.stats.hits, f.stats.misses, f.stats.loads) == (0, 1, 1)


def test_past_its_ttl_it_is_stale_and_then_expired(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    f, g = echo(cache, colour, stale=30), echo(cache, colour, grace=30, key="g:{x}")
    colour(f(1)), colour(g(1))
    clock.advance(70)
    assert (colour(f.explain(1)).verdict, colour(f.explain(1)).left) == ("stale", -10)
    assert "expired 10 s ago" in str(colour(f.explain(1)))
    fallen_back_on = colour(g.explain(1))
    assert (fallen_back_on.verdict, fallen_back_on.reason, fallen_back_on.held) == ("miss", "expired", "memory")
    clock.advance(30)
    gone = colour(f.explain(1))
    assert (gone.verdict, gone.reason, gone.since) == ("miss", "expired", 40)


def test_the_age_of_what_was_kept_by_hand_is_its_own(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    f = echo(cache, colour, ttl=1000)
    colour.on(cache).set(f.key(1), [1], ttl=10)
    clock.advance(4)
    found = colour(f.explain(1))
    assert (found.age, found.left) == (4, 6)


def test_a_load_under_way(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    caller = colour.start(load, 1)
    gate.reached()
    clock.advance(3)
    found = colour(load.explain(1))
    assert (found.verdict, found.since) == ("loading", 3)
    assert "loading for 3 s" in str(found)
    gate.open()
    caller.result(PATIENCE)


def test_a_remembered_exception_is_what_would_be_served(cache: Cache, colour: Colour) -> None:
    @cache.cached(cache_errors=KeyError)
    @colour.loader
    def load(x: int) -> int:
        raise KeyError(x)

    with pytest.raises(KeyError):
        colour(load(1))
    assert (colour(load.explain(1)).verdict, colour(load.explain(1)).exception) == ("fresh", True)


# -- what is not, and why ------------------------------------------------------------------------------------


def test_never_stored(cache: Cache, colour: Colour) -> None:
    found = colour(echo(cache, colour).explain(1))
    assert (found.verdict, found.reason, found.held) == ("miss", "absent", None)


WAYS: list[tuple[str, str, Callable[[Any, Any, Any], Any]]] = [
    ("key", "", lambda f, cache, _: f.invalidate(1)),
    ("key", "", lambda f, cache, _: cache.invalidate(key="k:1")),
    ("key", "", lambda f, cache, _: cache.delete("k:1")),
    ("key", "", lambda f, cache, _: cache.delete(f.key(1))),
    ("tag", "t:1", lambda f, cache, _: cache.invalidate(tags=["other", "t:1"])),
    ("pattern", "k:?", lambda f, cache, _: cache.invalidate(pattern="k:?")),
    ("function", "", lambda f, cache, _: f.invalidate_all()),
    ("clear", "", lambda f, cache, _: cache.clear()),
    ("key", "", lambda f, cache, write: write(1)),
]


@pytest.mark.parametrize(("by", "name", "invalidate"), WAYS)
def test_what_invalidated_it_when_and_from_where(
    cache: Cache, clock: FakeClock, by: str, name: str, invalidate: Callable[[Any, Any, Any], Any]
) -> None:
    f = echo(cache, Sync(), key="k:{x}", tags=["t:{x}"])

    @cache.invalidates(f)
    def write(x: int) -> None: ...

    f(1)
    site = here(+1)
    invalidate(f, cache, write)
    clock.advance(5)
    found = f.explain(1)
    assert (found.verdict, found.reason) == ("miss", "invalidated")
    assert (found.by.by, found.by.name, found.by.ago, found.by.elsewhere) == (by, name, 5, False)
    # The innermost line that is not the cache's: that of the lambda above, or of its caller.
    assert __file__ in found.by.site
    assert "<lambda>" in found.by.site
    assert (found.by.write is not None) is (invalidate is WAYS[-1][2])
    assert __file__ in site


def test_the_site_is_the_line_that_asked(cache: Cache) -> None:
    f = echo(cache, Sync())

    @cache.invalidates(f)
    def write(x: int) -> None:
        raise ValueError

    f(1)
    f.invalidate(1)
    assert f.explain(1).by.site == f"{here(-1)} test_the_site_is_the_line_that_asked"
    f(1)
    with pytest.raises(ValueError):  # noqa: PT011 - its commit may have happened, so it invalidates
        write(1)
    by = f.explain(1).by
    assert (by.site, by.write) == (
        f"{here(-3)} test_the_site_is_the_line_that_asked",
        f"{__name__}.test_the_site_is_the_line_that_asked.<locals>.write",
    )


async def test_the_site_in_tasks(cache: Cache) -> None:
    @cache.cached
    async def f(x: int) -> int:
        return x

    @cache.invalidates(f)
    async def write(x: int) -> None:
        await asyncio.sleep(0)

    await f(1)
    await asyncio.gather(f.invalidate(1), asyncio.sleep(0))
    assert (await f.explain(1)).by.site == f"{here(-1)} test_the_site_in_tasks"
    await f(1)
    await cache.ainvalidate(key=f.key(1))
    assert (await f.explain(1)).by.site == f"{here(-1)} test_the_site_in_tasks"
    await f(1)
    await write(1)
    by = (await f.explain(1)).by
    assert (by.site, by.write) == (
        f"{here(-3)} test_the_site_in_tasks",
        f"{__name__}.test_the_site_in_tasks.<locals>.write",
    )
    await f(1)
    await asyncio.create_task(write(1))
    assert (await f.explain(1)).by.site is None  # who made the task, the stack does not tell


def test_a_thread_that_was_handed_the_call_knows_no_site(cache: Cache) -> None:
    f = echo(cache, Sync())
    f(1)
    thread = threading.Thread(target=f.invalidate, args=(1,))
    thread.start()
    thread.join()
    assert (f.explain(1).reason, f.explain(1).by.site) == ("invalidated", None)


def test_an_invalidation_that_found_nothing_explains_nothing(cache: Cache, colour: Colour) -> None:
    f = echo(cache, colour)
    colour(f.invalidate(1))
    assert colour(f.explain(1)).reason == "absent"


def test_what_may_have_found_nothing_is_not_certain(cache: Cache, colour: Colour) -> None:
    f = echo(cache, colour)
    colour(f(1)), colour(f.invalidate(1)), colour(f(2)), colour(f.invalidate_all())
    found = colour(f.explain(3))
    assert (found.reason, found.certain) == ("invalidated", False)
    assert "most likely invalidated with all of its function" in str(found)


def test_the_last_invalidation_is_the_one(cache: Cache, colour: Colour) -> None:
    f = echo(cache, colour, tags=["t"])
    colour(f(1)), colour.on(cache).invalidate(tags=["t"]), colour(f(1)), colour(f.invalidate(1))
    assert colour(f.explain(1)).by.by == "key"
    assert colour(f.explain(2)).by.by == "tag"


def test_invalidations_are_remembered_for_ten_minutes_and_a_thousand_of_them(
    cache: Cache, clock: FakeClock, colour: Colour
) -> None:
    f = echo(cache, colour)
    colour(f(1)), colour(f.invalidate(1))
    clock.advance(599)
    assert colour(f.explain(1)).reason == "invalidated"
    clock.advance(2)
    assert colour(f.explain(1)).reason == "absent"
    colour(f(1)), colour(f.invalidate(1))
    for x in range(2, 1002):
        colour(f.invalidate(x))
    assert colour(f.explain(1)).reason == "absent"


def test_a_method_of_an_object(cache: Cache) -> None:
    class Shop:
        @cache.cached
        def stock(self, sku: str) -> str:
            return sku

    one, two = Shop(), Shop()
    one.stock("tea"), two.stock("tea")
    Shop.stock.invalidate(one, "tea")
    assert Shop.stock.explain(one, "tea").reason == "invalidated"
    assert Shop.stock.explain(two, "tea").verdict == "fresh"
    assert Shop.stock.explain(one, "oil").reason == "absent"


def test_why_it_was_not_kept(make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour) -> None:
    cache = make_cache(max_bytes=10_000)

    @cache.cached(when=lambda result: result != "no")
    @colour.loader
    def load(x: object) -> Any:
        if x == "fail":
            raise ConnectionError("hush")
        return {"once": iter, "large": "x" * 20_000, "no": "no"}.get(str(x), (each for each in ()))

    quick = cache.cached(colour.loader(lambda x: "x" * 20_000))
    with pytest.raises(ConnectionError):
        colour(load("fail"))
    for x in ("large", "no", "generator"):
        colour(load(x))
    colour(quick(1))
    clock.advance(2)
    found = {x: colour(load.explain(x)) for x in ("fail", "large", "no", "generator")}
    assert {x: each.reason for x, each in found.items()} == {
        "fail": "failed", "large": "refused", "no": "declined", "generator": "refused"
    }  # fmt: skip
    assert {each.since for each in found.values()} == {2}
    assert "ConnectionError at " in found["fail"].detail
    assert "hush" not in str(found["fail"])
    assert "max_bytes=10,000" in found["large"].detail
    assert "used only once" in found["generator"].detail
    assert colour(quick.explain(1)).reason == "refused"


def test_what_was_kept_in_the_end_is_not_explained_by_what_came_before(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    """Also on the quick way, which notes nothing down."""
    cache = make_cache(max_entries=10)
    broken = [True]

    def load(x: int) -> int:
        if broken.pop():
            raise ConnectionError
        broken.append(False)
        return x

    f = cache.cached(colour.loader(load))
    with pytest.raises(ConnectionError):
        colour(f(1))
    broken.append(False)
    colour(f(1))
    for x in range(2, 12):
        colour(f(x))
    assert colour(f.explain(1)).reason == "evicted"
    assert not colour(f.explain(1)).certain


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}])
def test_overtaken_by_an_invalidation_while_it_was_loaded(
    cache: Cache, colour: Colour, options: dict[str, Any]
) -> None:
    gate = Gate()

    @cache.cached(**options)
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
    found = colour(load.explain(1))
    assert (found.reason, found.by.by) == ("invalidated", "key")
    assert "while it was loaded" in str(found)


def test_a_write_through_that_failed(cache: Cache, colour: Colour) -> None:
    f = echo(cache, colour)

    def write(x: int) -> int:
        raise ConnectionError

    update = cache.updates(f)(colour.loader(write))
    colour(f(1))
    with pytest.raises(ConnectionError):
        colour(update(1))
    assert colour(f.explain(1)).reason == "dropped"


def test_by_hand(cache: Cache, colour: Colour) -> None:
    f, by_hand = echo(cache, colour, key="k:{x}"), colour.on(cache)
    assert by_hand.explain("a").reason == "absent"
    by_hand.set("a", 1, tags=["t"])
    assert (by_hand.explain("a").verdict, by_hand.explain("a").tags) == ("fresh", ("t",))
    colour(f(1))
    assert by_hand.explain(f.key(1)).function == f"{__name__}.echo.<locals>.load"
    assert by_hand.explain("k:1").verdict == "fresh"
    by_hand.delete("a")
    assert by_hand.explain("a").by.by == "key"


def test_a_cache_that_is_off(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(enabled=False)
    assert colour(echo(cache, colour).explain(1)).reason == "off"
    assert colour.on(cache).explain("a").reason == "off"


def test_a_call_without_a_key_has_no_explanation(cache: Cache) -> None:
    with pytest.raises(UnkeyableError, match="'x'"):
        echo(cache, Sync()).explain(object())


def test_the_repr_tells_no_argument_and_the_text_does(cache: Cache) -> None:
    f = cache.cached(ttl=60, key="user:{who}", tags=["t:{who}"])(lambda who: 1)
    f("hush")
    shown = [repr(f.explain("hush"))]
    assert "hush" in str(f.explain("hush"))
    cache.invalidate(tags=["t:hush"])
    shown.append(repr(f.explain("hush")))
    f("hush"), cache.invalidate(pattern="user:hus*")
    shown.append(repr(f.explain("hush")))
    assert "'user:hus*'" in str(f.explain("hush"))
    assert "hush" not in "".join(shown)
    assert shown[1].endswith("miss: most likely invalidated by the tag, 0 ms ago>")


def test_the_arguments_of_an_invalidation_are_not_kept_alive(cache: Cache) -> None:
    import gc
    import weakref

    class Name(str):
        """Text that can be watched."""

    f = cache.cached(ttl=60, key="k:{x}")(lambda x: 1)
    name = Name("a")
    watched = weakref.ref(name)
    f(name), f.invalidate(name)
    del name
    gc.collect()
    assert watched() is None
