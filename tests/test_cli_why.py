"""`cachecraft inspect` tells why nothing would be served: by what it was invalidated, and from which line of code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache
from tests.callers import Async, Sync
from tests.cli_kit import Shop, server, shop  # noqa: F401 - fixtures
from tests.redis_kit import colour  # noqa: F401 - a fixture
from tests.servers import RedisServer
from tests.terminal import cli
from tests.test_redis_rights import ACL

WAYS: dict[str, tuple[Callable[[Shop, Any], Any], str, str, str]] = {
    "key": (lambda shop, by_hand: by_hand.invalidate(key="product:p7"), "absent", "", "its key"),
    "call": (lambda shop, by_hand: shop.product.invalidate("p7"), "absent", "", "its key"),
    "pattern": (
        lambda shop, by_hand: by_hand.invalidate(pattern="product:p*"),
        "absent",
        "product:p*",
        "the pattern 'product:p*'",
    ),
    "tag": (lambda shop, by_hand: by_hand.invalidate(tags=["range:tea"]), "invalidated", "range:tea", "the tag"),
    "function": (lambda shop, by_hand: shop.product.invalidate_all(), "invalidated", "", "with all of its function"),
    "clear": (lambda shop, by_hand: by_hand.clear(), "invalidated", "", "with all of its namespace"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_invalidated_it_and_from_where(shop: Shop, colour: Sync | Async, way: str) -> None:
    invalidate, state, name, words = WAYS[way]
    invalidate(shop, colour.on(shop.cache))
    ended = cli("inspect", "product:p7", *shop.where, "--json")
    told = ended.document
    assert (ended.code, told["state"], told["by"]["name"]) == (1, state, name)
    assert told["by"]["means"] == ("key" if way == "call" else way)
    assert 0 <= told["by"]["ago_s"] < 60
    if way in ("call", "function") or not colour.is_async:
        assert told["by"]["site"].startswith(f"{__file__}:{invalidate.__code__.co_firstlineno}")
    shown = cli("inspect", "product:p7", *shop.where).out
    assert words in shown
    assert f"called at {told['by']['site']}" in shown or told["by"]["site"] is None


def test_the_write_that_is_decorated_is_named_and_the_line_that_called_it(shop: Shop, colour: Sync | Async) -> None:
    @shop.cache.invalidates(key="product:{sku}")
    @colour.loader
    def reprice(sku: str) -> None: ...

    if colour.is_async:

        async def nightly() -> None:
            await reprice("p7")
    else:

        def nightly() -> None:  # type: ignore[misc]  # the same in the other colour
            reprice("p7")

    colour(nightly())
    by = cli("inspect", "product:p7", *shop.where, "--json").document["by"]
    assert by["write"].endswith("reprice")
    assert by["site"].startswith(f"{__file__}:{nightly.__code__.co_firstlineno + 1} ")
    assert by["site"].endswith("nightly")
    shown = cli("inspect", "product:p7", *shop.where).out
    assert "most likely invalidated" in shown
    assert f"@invalidates on {by['write']}, called at {by['site']}" in shown


def test_what_stands_and_holds_has_no_cause(shop: Shop) -> None:
    shop.cache.invalidate(key="product:p7")
    shop.product("p7")
    told = cli("inspect", "product:p7", *shop.where, "--json").document
    assert (told["state"], told["reason"], told["by"]) == ("fresh", None, None)


def test_where_nothing_is_known_it_says_what_it_may_be(shop: Shop, server: RedisServer) -> None:
    told = cli("inspect", "nope", *shop.where, "--json").document
    assert told["by"] is None
    assert (
        told["reason"] == "never stored, expired, or invalidated over ten minutes ago; this server has evicted nothing"
    )
    server.cli("CONFIG", "SET", "maxmemory", "1500kb", "maxmemory-policy", "allkeys-random")
    with Cache(server.url, namespace="shop") as cache:
        for number in range(3000):
            cache.set(f"n{number}", "x" * 200)
            if int(server.cli("INFO", "stats")["evicted_keys"]):
                break
        else:
            pytest.fail("nothing was evicted")
    reason = cli("inspect", "nope", "--url", server.url, "--namespace", "shop", "--json").document["reason"]
    assert "evicted (this server has evicted " in reason


def test_an_invalidation_of_something_else_is_not_blamed(shop: Shop) -> None:
    shop.cache.invalidate(pattern="report:*")
    shop.cache.invalidate(key="product:p8")
    shop.cache.invalidate(tags=["range:oil"])
    assert cli("inspect", "nope", *shop.where, "--json").document["by"] is None
    assert cli("inspect", "product:p7", *shop.where, "--json").document["state"] == "fresh"


def test_the_rights_of_a_cache_are_enough(shop: Shop, redis_server: RedisServer) -> None:
    redis_server.cli("ACL", "SETUSER", "app", "reset", "on", ">password", *ACL.split())
    shop.cache.invalidate(key="product:p7")
    url = shop.url.replace("redis://", "redis://app:password@")
    assert cli("inspect", "product:p7", "--url", url, "--namespace", "shop", "--json").document["by"]["means"] == "key"


def _loads(colour: Sync | Async, cache: Cache, result: Any, **options: Any) -> None:
    """A call whose result is not kept, and what a process publishes of it."""

    def load(sku: str) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    lamp = cache.cached(ttl=60, key="lamp:{sku}", **options)(colour.loader(load))
    with contextlib.suppress(LookupError):
        colour(lamp("l1"))
    cache.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper


@pytest.mark.parametrize(
    ("result", "options", "fate", "words"),
    [
        (None, {"when": bool}, "declined", "declined by when="),
        (object(), {}, "refused", "could not be stored (values of type object"),
        ("x" * 2000, {}, "refused", "above max_value_bytes=1000), "),
        (LookupError("secret"), {}, "failed", "its load failed (LookupError at "),
    ],
    ids=["declined", "of no known type", "too large", "failed"],
)
def test_what_was_not_kept_is_told_as_the_process_published_it(
    redis_url: str, colour: Sync | Async, result: Any, options: dict[str, Any], fate: str, words: str
) -> None:
    where = ("--url", redis_url, "--namespace", "shop", "--json")
    with Cache(redis_url, namespace="shop", publish_stats=3600, max_value_bytes=1000) as cache:
        _loads(colour, cache, result, **options)
        ended = cli("inspect", "lamp:l1", *where)
        told = ended.document
        assert (ended.code, told["state"], told["by"]) == (1, "absent", None)
        assert (told["unkept"]["fate"], 0 <= told["unkept"]["ago_s"] < 60) == (fate, True)
        assert words in told["reason"]
        assert "secret" not in ended.out
        assert cli("inspect", "lamp:l2", *where).document["unkept"] is None
        cache.invalidate(key="lamp:l1")  # which is the later of the two
        assert cli("inspect", "lamp:l1", *where).document["by"]["means"] == "key"
