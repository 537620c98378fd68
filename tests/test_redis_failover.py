"""A replica takes its primary's place, and has not got everything: nothing that was invalidated may come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.proxy import Proxy
from tests.redis_kit import colour  # noqa: F401 - a fixture
from tests.servers import RedisServer

Colour = Sync | Async


class Pair:
    """A primary and a replica behind one address, as behind a service name or a proxy."""

    def __init__(self, primary: RedisServer, replica: RedisServer) -> None:
        self.primary, self.replica = primary, replica
        replica.cli("REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: replica.cli("INFO", "replication")["master_link_status"] == "up")
        self.line = Proxy(primary.port)

    def part(self) -> None:
        """All writes until now have arrived at the replica; those from now on will be lost."""
        self.primary.cli("SET", "last", 1, "PX", 60_000)
        until(lambda: self.replica.cli("GET", "last") == b"1")
        self.replica.cli("REPLICAOF", "NO", "ONE")

    def fail_over(self) -> None:
        self.primary.kill()
        self.line.target = self.replica.port
        self.line.cut()


@pytest.fixture
def pair(start_redis: Callable[..., RedisServer]) -> Iterator[Pair]:
    made = Pair(start_redis("--repl-diskless-sync-delay", "0"), start_redis())
    with made.line:
        yield made


def _cached(cache: Cache, colour: Colour, prices: dict[str, int]) -> Any:
    load = colour.loader(lambda item: prices[item])
    return cache.cached(ttl=600, key="price:{item}", tags=["t:{item}"])(load)


def test_a_promoted_replica_that_lacks_the_last_writes_revives_nothing(pair: Pair, colour: Colour) -> None:
    prices = dict.fromkeys("abcd", 1)
    with Cache(pair.line.url, namespace="shop") as made, Cache(pair.line.url, namespace="shop") as idle:
        f, g = (_cached(each, colour, prices) for each in (made, idle))
        for item in prices:
            assert colour(f(item)) == colour(g(item)) == 1
        pair.part()
        prices.update(dict.fromkeys(prices, 2))
        by_hand = colour.on(made)
        by_hand.invalidate(key="price:a", pattern="price:b*", tags=["t:c"])
        assert [colour(f(item)) for item in "abcd"] == [2, 2, 2, 1]  # the last was never invalidated
        pair.fail_over()
        # They are all there still, as they were before the invalidation.
        assert pair.replica.cli("EXISTS", *(f"shop:price:{item}" for item in "abc")) == 3
        for each in (g, f):
            assert [colour(each(item)) for item in "abc"] == [2, 2, 2]
        assert made.stats.errors == idle.stats.errors == 0
        until(lambda: not (made.stats.breaker_open or idle.stats.breaker_open))
        assert colour(f("a")) == 2
        until(lambda: colour(g.get("a")) == 2)
    assert pair.replica.keys_without_ttl() == []


def test_a_load_that_was_invalidated_on_the_lost_primary_is_not_kept_on_the_new_one(pair: Pair, colour: Colour) -> None:
    """Its lease has been replicated, the invalidation has not: the store finds all as it was left."""
    gate, price = Gate(), [1]

    @colour.loader
    def load(item: str) -> Any:
        found = price[0]
        if found == 1:
            yield gate
        return found

    with Cache(pair.line.url, namespace="shop") as made, Cache(pair.line.url, namespace="shop") as other:
        f, g = (each.cached(ttl=600, key="price:{item}", lease=60)(load) for each in (made, other))
        leader = colour.start(f, "a")
        gate.reached()
        pair.part()
        price[0] = 2
        colour.on(other).invalidate(key="price:a")
        pair.fail_over()
        assert colour(g("a")) == 2  # whoever comes after the invalidation does not join the load before it
        gate.open()
        assert leader.result(PATIENCE) == 1
        assert colour(f("a")) == colour(g("a")) == 2
        assert colour(f.get("a")) in (2, MISSING)


def test_what_the_old_primary_still_holds_is_not_asked_for(pair: Pair, colour: Colour) -> None:
    """It was demoted and comes back as a replica under the old address: it answers reads, and is behind."""
    price = {"a": 1}
    with Cache(pair.primary.url, namespace="shop") as here, Cache(pair.replica.url, namespace="shop") as there:
        f = _cached(here, colour, price)
        assert colour(f("a")) == 1
        pair.part()
        pair.primary.cli("REPLICAOF", "127.0.0.1", 1)
        price["a"] = 2
        colour.on(there).invalidate(key="price:a")
        colour(f.invalidate("a"))
        assert here.stats.breaker_open == 1
        assert colour(f("a")) == 2
        pair.primary.cli("REPLICAOF", "NO", "ONE")
        until(lambda: not (here.stats.breaker_open or here.stats.journal))
        assert colour(f("a")) == 2
