"""`f.explain(...)` on a real Redis, near too: what stands there, and who let it fall, in whatever process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft.backends.footprints import TRAIL
from cachecraft.serializers import JsonSerializer
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock
from tests.redis_kit import cache, colour, other  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async


def priced(cache: Cache, colour: Colour, **options: Any) -> Any:
    def price(item: int) -> list[int]:
        return [item]

    return cache.cached(**{"ttl": 60, "key": "price:{item}", "tags": ["shelf:{item}"], "jitter": None, **options})(
        colour.loader(price)
    )


def test_what_is_fresh_tells_of_itself(cache: Cache, colour: Colour) -> None:
    f = priced(cache, colour)
    colour(f(1))
    asked = cache.stats.as_dict()
    found = colour(f.explain(1))
    assert (found.verdict, found.held, found.reason) == ("fresh", "redis", None)
    assert found.tags == ("shelf:1",)
    assert 0 <= found.age < PATIENCE
    assert 60 - PATIENCE < found.left <= 60
    assert found.load_time < PATIENCE
    assert found.size > 100
    assert cache.stats.as_dict() == asked
    assert colour.on(cache).explain("price:1").verdict == "fresh"


def test_stale_expired_and_loading(cache: Cache, other: Cache, colour: Colour) -> None:
    f = priced(cache, colour, ttl=0.05, stale=60)
    colour(f(1))
    until(lambda: colour(f.explain(1)).left < 0)
    assert colour(f.explain(1)).verdict == "stale"
    g = priced(cache, colour, ttl=0.05, key="g:{item}")
    colour(g(1))
    until(lambda: colour(g.explain(1)).verdict == "miss")
    assert colour(g.explain(1)).reason == "expired"
    colour(g(1))
    assert g.stats.reasons["expired"] == 1
    gate = Gate()

    def slow(item: int) -> Any:
        yield gate
        return item

    here, there = (each.cached(ttl=60, key="h:{item}")(colour.loader(slow)) for each in (cache, other))
    caller = colour.start(here, 1)
    gate.reached()
    found = [colour(each.explain(1)) for each in (here, there)]
    assert {each.verdict for each in found} == {"loading"}
    assert 0 < found[1].left <= 5
    assert (found[0].since is None, found[1].since) == (False, None)
    gate.open()
    caller.result(PATIENCE)


WAYS: list[tuple[str, str, Any]] = [
    ("key", "", lambda f, cache: f.invalidate(1)),
    ("key", "", lambda f, cache: cache.invalidate(key="price:1")),
    ("tag", "shelf:1", lambda f, cache: cache.invalidate(tags=["other", "shelf:1"])),
    ("pattern", "price:?", lambda f, cache: cache.invalidate(pattern="price:?")),
    ("function", "", lambda f, cache: f.invalidate_all()),
    ("clear", "", lambda f, cache: cache.clear()),
]


@pytest.mark.parametrize(("by", "name", "invalidate"), WAYS)
def test_what_invalidated_it_here_and_as_another_process_is_told(
    cache: Cache, other: Cache, by: str, name: str, invalidate: Any
) -> None:
    f, g = priced(cache, Sync()), priced(other, Sync())
    f(1)
    invalidate(f, cache)
    here, there = f.explain(1), g.explain(1)
    for found in (here, there):
        assert (found.verdict, found.reason, found.by.by, found.by.name) == ("miss", "invalidated", by, name)
        assert __file__ in found.by.site
        assert "<lambda>" in found.by.site
        assert 0 <= found.by.ago < PATIENCE
    assert (here.by.elsewhere, there.by.elsewhere) == (False, True)
    assert "in another process" in str(there)


async def test_the_site_in_tasks_and_the_write(cache: Cache, other: Cache) -> None:
    @cache.cached(ttl=60, key="price:{item}")
    async def price(item: int) -> int:
        return item

    @cache.invalidates(price)
    async def reprice(item: int) -> None: ...

    await price(1)
    await reprice(1)
    for each in (cache, other):
        by = (await each.aexplain("price:1")).by
        assert by is not None
        assert by.site is not None
        assert by.site.endswith(" test_the_site_in_tasks_and_the_write")
        assert by.write == f"{__name__}.test_the_site_in_tasks_and_the_write.<locals>.reprice"


def test_a_stamp_that_went_by_itself(cache: Cache, redis_server: RedisServer) -> None:
    f = priced(cache, Sync())
    f(1)
    redis_server.cli("UNLINK", "shop:~root")
    found = f.explain(1)
    assert (found.reason, found.by.by, found.by.site) == ("invalidated", "clear", None)
    assert "evicted" in found.detail


def test_gone_before_its_time(cache: Cache, other: Cache, redis_server: RedisServer) -> None:
    f, g = priced(cache, Sync()), priced(other, Sync())
    f(1)
    redis_server.cli("UNLINK", "shop:price:1")
    assert f.explain(1).reason == "evicted"
    assert g.explain(1).reason == "absent"  # it never saw it


def test_never_stored_though_much_else_was_invalidated(cache: Cache, other: Cache) -> None:
    f, g = priced(cache, Sync()), priced(other, Sync())
    f.invalidate(2), cache.invalidate(tags=["shelf:1"]), cache.invalidate(pattern="rice*"), f.invalidate(1)
    assert f.explain(1).reason == "absent"
    assert not g.explain(1).certain  # others are not told whether there was anything to remove


def test_why_it_was_not_kept(redis_url: str, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop", max_value_bytes=1000, compress_above=None) as cache:

        @cache.cached(ttl=60, when=lambda result: result != "no")
        @colour.loader
        def load(x: str) -> Any:
            if x == "fail":
                raise ConnectionError("hush")
            return {"large": "x" * 2000, "no": "no"}.get(x, iter)

        with pytest.raises(ConnectionError):
            colour(load("fail"))
        for x in ("large", "no", "odd"):
            colour(load(x))
        found = {x: colour(load.explain(x)) for x in ("fail", "large", "no", "odd")}
        assert {x: each.reason for x, each in found.items()} == {
            "fail": "failed", "large": "refused", "no": "declined", "odd": "refused"
        }  # fmt: skip
        assert "max_value_bytes=1000" in found["large"].detail
        assert "hush" not in str(found["fail"])


def test_overtaken_while_it_was_loaded(cache: Cache, other: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached(ttl=60, key="price:{item}", tags=["shelf"])
    @colour.loader
    def price(item: int) -> Any:
        yield gate
        return item

    caller = colour.start(price, 1)
    gate.reached()
    colour.on(other).invalidate(tags=["shelf"])
    assert colour(price.explain(1)).by.by == "tag"
    colour.on(other).invalidate(key="price:1")
    gate.open()
    caller.result(PATIENCE)
    found = colour(price.explain(1))
    assert (found.reason, found.by.by, found.by.elsewhere) == ("invalidated", "key", True)
    assert "while it was loaded" in found.detail


def test_what_this_process_cannot_read(redis_url: str, cache: Cache, redis_server: RedisServer) -> None:
    f = priced(cache, Sync())
    f(1)
    assert priced(cache, Sync(), version=2).explain(1).reason == "schema"
    with Cache(redis_url, namespace="shop", encryption_keys=b"k" * 32) as sealed:
        assert priced(sealed, Sync()).explain(1).reason == "encryption"
    with Cache(redis_url, namespace="shop", serializer=JsonSerializer()) as foreign:
        assert priced(foreign, Sync()).explain(1).reason == "corrupt"
    redis_server.cli("SET", "shop:price:2", b"V" * 100, "PX", 10_000)
    assert f.explain(2).reason == "corrupt"


def test_without_redis(start_redis: Any, colour: Colour) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop") as cache:
        f = priced(cache, colour)
        colour(f(1))
        server.kill()
        assert colour(f.explain(1)).reason == "unreachable"


# -- near ----------------------------------------------------------------------------------------------------


@pytest.fixture
def near(redis_url: str) -> Iterator[Cache]:
    with Cache(redis_url, namespace="shop", near=True) as made:
        yield made


def test_what_is_held_near(near: Cache, other: Cache, colour: Colour) -> None:
    seen: list[Any] = []
    f = priced(near, colour)
    colour(f(1))
    # Until it is proven that nothing was missed, and whenever that takes too long, Redis is asked.
    until(lambda: colour(f(1)) and (found := colour(f.explain(1))).held == "near" and seen.append(found) is None)
    found = seen[0]
    assert (found.verdict, found.tags) == ("fresh", ("shelf:1",))
    assert 0 <= found.age < PATIENCE
    assert 60 - PATIENCE < found.left <= 60
    assert "in the near cache" in str(found)
    colour.on(other).invalidate(tags=["shelf:1"])
    until(lambda: colour(f.explain(1)).verdict == "miss")
    found = colour(f.explain(1))
    assert (found.by.by, found.by.name, found.by.elsewhere) == ("tag", "shelf:1", True)


# -- the trail -----------------------------------------------------------------------------------------------


def trail(server: RedisServer) -> list[bytes]:
    return sorted(server.cli("KEYS", f"*{TRAIL}*"))


def test_the_trail_is_bounded_and_expires_and_tells_no_key(cache: Cache, redis_server: RedisServer) -> None:
    f = cache.cached(ttl=60, key="k:{who}")(lambda who: who)
    for x in range(300):
        f.invalidate(f"hush-{x}")
    cache.invalidate(tags=["hush"])
    left = trail(redis_server)
    assert 0 < len(left) <= 130  # a hundred at once, and twenty a second
    for key in left:
        assert 0 < redis_server.cli("PTTL", key) <= 600_000
        assert b"hush" not in key + redis_server.cli("GET", key)


def test_no_pattern_of_a_user_reaches_the_trail(cache: Cache, redis_server: RedisServer) -> None:
    cache.set("train", 1)
    cache.invalidate(key="x")
    assert cache.invalidate(pattern="tr*") == 1
    assert cache.explain("train").by is not None
    assert cache.explain("train").by.name == "tr*"  # type: ignore[union-attr]  # as just seen


def test_a_server_that_will_not_keep_the_trail_invalidates_all_the_same(
    start_redis: Any, caplog: pytest.LogCaptureFixture, colour: Colour
) -> None:
    """`UNLINK` works when memory is full, and `SET` does not."""
    server = start_redis()
    with Cache(server.url, namespace="shop") as cache:
        f = priced(cache, colour)
        colour(f(1))
        server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert colour(f.invalidate(1)) == 1
            colour.on(cache).invalidate(pattern="price:*")
        assert caplog.records == []
        assert (cache.stats.journaled, cache.stats.backend_errors) == (0, 0)
        server.cli("CONFIG", "SET", "maxmemory", "0")
        assert trail(server) == []
        assert (colour(f.explain(1)).reason, colour(f.explain(1)).by.by) == ("invalidated", "pattern")


@pytest.mark.parametrize("told", [b"", b"\xff", b"\x93\x01\x02\x03", b"\x97" + b"\x01" * 7])
def test_foreign_bytes_in_the_trail_are_no_matter(cache: Cache, redis_server: RedisServer, told: bytes) -> None:
    f = priced(cache, Sync())
    f(1), f.invalidate(1)
    (place,) = trail(redis_server)
    redis_server.cli("SET", place, told, "PX", 10_000)
    redis_server.cli("SET", f"shop:{TRAIL}p3", told, "PX", 10_000)
    found = f.explain(1)
    assert found.by is not None, f"{found} {cache.stats}"
    assert found.by.elsewhere is False


def test_what_is_remembered_here_is_forgotten_in_time(redis_url: str, redis_server: RedisServer) -> None:
    clock = FakeClock()
    with Cache(redis_url, namespace="shop", clock=clock) as cache:
        f = cache.cached(ttl=60, key="k:{x}")(lambda x: None)
        f(1), f.invalidate(1)
        for key in trail(redis_server):
            redis_server.cli("UNLINK", key)
        assert f.explain(1).reason == "invalidated"
        clock.advance(601)
        assert f.explain(1).reason == "expired"
