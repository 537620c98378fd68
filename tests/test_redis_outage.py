"""Redis goes away and comes back: nobody waits for it meanwhile, and no invalidation is lost.

Each test has a server of its own to freeze, kill and restart. ``other`` in these tests stands for another process: it
shares nothing with the cache under test but the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from cachecraft import MISSING, BackendError, Cache, OptionError
from tests.callers import PATIENCE, Async, Sync, until
from tests.proxy import Proxy
from tests.redis_kit import colour, in_child  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async

BUDGET = 3.0
"""Seconds within which what takes 1.5 at the most has ended on a busy machine; unbounded it would be far more."""


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def made(server: RedisServer) -> Iterator[Cache]:
    """The cache under test."""
    with Cache(server.url, namespace="shop") as cache:
        yield cache


@pytest.fixture
def other(server: RedisServer) -> Iterator[Cache]:
    with Cache(server.url, namespace="shop") as cache:
        yield cache


class Prices:
    """A source of truth, a cached function over it, and how often it was asked."""

    def __init__(self, cache: Cache, colour: Colour, price: list[int], **options: Any) -> None:
        self.loads = 0

        def load(item: int) -> int:
            self.loads += 1
            return price[0]

        load.__qualname__ = "price_of"  # one function in all processes
        options = {"key": "price:{item}", "tags": ["tag:{item}"], **options}
        self.f: Any = cache.cached(ttl=60, **options)(colour.loader(load))


def is_well(cache: Cache) -> bool:
    return not (cache.stats.breaker_open or cache.stats.journal)


def fail_until_open(cache: Cache, colour: Colour) -> None:
    for _ in range(3):
        colour.on(cache).get("nothing")
    assert cache.stats.breaker_open == 1


# -- the breaker -----------------------------------------------------------------------------------------------------


def test_while_the_breaker_is_open_calls_send_nothing_and_are_counted(server: RedisServer, colour: Colour) -> None:
    with Proxy(server.port) as line, Cache(line.url, namespace="shop") as made:
        prices = Prices(made, colour, [1])
        colour(prices.f(1))
        server.pause()
        fail_until_open(made, colour)
        line.forget()
        before = prices.f.stats.backend_errors
        assert [colour(prices.f(1)) for _ in range(50)] == [1] * 50
        colour(prices.f.get(1)), colour(prices.f.invalidate(1)), colour.on(made).set("k", 1)
        assert prices.f.stats.backend_errors == before + 51
        assert not any(b"shop:price:1" in command or b"shop:k" in command for command in line.commands)
        assert made.stats.breaker_opened == 1
        server.resume()
        until(lambda: is_well(made))


@pytest.mark.parametrize("warm", [True, False])
def test_a_hundred_callers_of_a_frozen_server_end_together(
    server: RedisServer, made: Cache, colour: Colour, warm: bool
) -> None:
    prices = Prices(made, colour, [1])
    if warm:
        colour(prices.f(0))
    server.pause()
    waiting = [colour.start(prices.f, item) for item in range(1, 101)]
    assert [each.result(BUDGET) for each in waiting] == [1] * 100
    server.resume()


def test_it_works_again_when_the_server_wakes(server: RedisServer, made: Cache, colour: Colour) -> None:
    prices = Prices(made, colour, [1])
    colour(prices.f(1))
    server.pause()
    fail_until_open(made, colour)
    server.resume()
    until(lambda: is_well(made))
    errors = made.stats.backend_errors
    assert colour(prices.f(1)) == 1
    assert (prices.loads, prices.f.stats.hits, made.stats.backend_errors) == (1, 1, errors)


def test_no_server_at_first_use_and_then_it_comes(server: RedisServer, colour: Colour) -> None:
    server.kill()
    with Cache(server.url, namespace="shop") as made:
        prices = Prices(made, colour, [1])
        assert [colour(prices.f(1)) for _ in range(10)] == [1] * 10
        assert made.stats.breaker_opened == 1
        server.start()
        until(lambda: is_well(made))
        colour(prices.f(1))
        assert colour(prices.f.get(1)) == 1


def test_killed_in_use_and_back(server: RedisServer, made: Cache, colour: Colour) -> None:
    prices = Prices(made, colour, [1])
    colour(prices.f(1))
    server.kill()
    assert [colour(prices.f(1)) for _ in range(10)] == [1] * 10
    server.start()
    until(lambda: is_well(made))
    colour(prices.f(1))
    assert colour(prices.f.get(1)) == 1


def test_killed_in_use_and_back_after_two_seconds_it_caches_again_within_two(server: RedisServer, made: Cache) -> None:
    """However far apart the attempts have come to be meanwhile. Functions and coroutine functions alike."""
    prices = Prices(made, Sync(), [1])
    prices.f(1)

    async def served() -> bool:
        await made.aset("k", 1)
        return await made.aget("k") == 1

    assert asyncio.run(served())
    server.kill()
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        assert prices.f(1) == 1
        assert not asyncio.run(served())
        time.sleep(0.05)  # as long as it is away; it cannot tell us
    server.start()
    back = time.monotonic()
    until(lambda: is_well(made))
    assert time.monotonic() - back < 2.0
    prices.f(2)
    assert prices.f.get(2) == 1
    assert asyncio.run(served())


def test_no_connection_from_before_an_outage_is_used_after_it(server: RedisServer, made: Cache) -> None:
    """One that nobody used meanwhile may lead nowhere, and would cost its next user a deadline."""

    async def use() -> None:
        await made.aset("k", 1)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: made.set(str(number), 1), range(8)))
        before = clients()
        server.pause()
        fail_until_open(made, Sync())  # the tasks' connection is not asked
        server.resume()
        async with asyncio.timeout(PATIENCE):
            while not is_well(made):
                await asyncio.sleep(0.01)
            assert await made.aget("k") == made.get("k") == 1
            while before & clients():
                await asyncio.sleep(0.01)

    def clients() -> set[bytes]:
        return set(re.findall(rb"\bid=\d+", server.cli("CLIENT", "LIST")))

    asyncio.run(use())


def test_renewing_hangs_up_on_what_nobody_uses(server: RedisServer, made: Cache) -> None:
    made.set("k", 1)
    backend: Any = made.driver.backend.backend  # type: ignore[union-attr]  # the one behind the guard
    before = backend._sync.execute([("CLIENT", "ID")])
    assert backend._sync.execute([("CLIENT", "ID")]) == before
    backend.renew()
    until(lambda: b"id=%d " % before[0] not in server.cli("CLIENT", "LIST"))
    assert backend._sync.execute([("CLIENT", "ID")]) != before


def test_a_replica_is_not_asked_until_it_takes_writes(
    server: RedisServer, start_redis: Callable[..., RedisServer], made: Cache, colour: Colour
) -> None:
    """What a demoted primary still holds, an invalidation elsewhere does not reach. It answers every PING."""
    prices = Prices(made, colour, [1])
    colour(prices.f(1))
    server.cli("REPLICAOF", "127.0.0.1", start_redis().port)
    colour(prices.f.invalidate(1))
    assert made.stats.breaker_open == 1

    def probes() -> int:
        return int(server.cli("INFO", "commandstats").get("cmdstat_unlink", {}).get("rejected_calls", 0))

    seen = probes()
    until(lambda: probes() >= seen + 2)
    assert made.stats.breaker_open == made.stats.breaker_opened == 1
    server.cli("REPLICAOF", "NO", "ONE")
    until(lambda: is_well(made))
    colour(prices.f(1))
    assert colour(prices.f.get(1)) == 1


def test_a_server_busy_with_a_script_is_left_alone(server: RedisServer, made: Cache, colour: Colour) -> None:
    prices = Prices(made, colour, [1])
    colour(prices.f(1))
    server.cli("CONFIG", "SET", "lua-time-limit", 10)

    def spin() -> None:
        with contextlib.suppress(redis.RedisError):
            server.cli("EVAL", "while true do end", 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    until(lambda: colour(prices.f(1)) == 1 and made.stats.breaker_open)
    with contextlib.suppress(redis.RedisError):
        server.cli("SCRIPT", "KILL")
    spinning.join(PATIENCE)
    until(lambda: is_well(made))
    assert colour(prices.f(1)) == 1
    assert prices.loads > 1


# -- the journal -----------------------------------------------------------------------------------------------------


def _by_function(cache: Any, f: Any, colour: Colour) -> None:
    colour(f.invalidate(1))


def _all_of_the_function(cache: Any, f: Any, colour: Colour) -> None:
    colour(f.invalidate_all())


def _by_key(cache: Any, f: Any, colour: Colour) -> None:
    colour.on(cache).invalidate(key="price:1")


def _by_pattern(cache: Any, f: Any, colour: Colour) -> None:
    colour.on(cache).invalidate(pattern="pri*:1")


def _by_tag(cache: Any, f: Any, colour: Colour) -> None:
    colour.on(cache).invalidate(tags=["tag:1"])


def _delete(cache: Any, f: Any, colour: Colour) -> None:
    colour.on(cache).delete(f.key(1))


def _clear(cache: Any, f: Any, colour: Colour) -> None:
    colour.on(cache).clear()


def _a_write(cache: Any, f: Any, colour: Colour) -> None:
    @cache.invalidates(f)
    @colour.loader
    def write(item: int) -> int:
        return item

    assert colour(write(1)) == 1


def _an_update(cache: Any, f: Any, colour: Colour) -> None:
    @cache.updates(f)
    @colour.loader
    def update(item: int) -> int:
        return 2

    assert colour(update(1)) == 2


FORMS = [
    _by_function,
    _all_of_the_function,
    _by_key,
    _by_pattern,
    _by_tag,
    _delete,
    _clear,
    _a_write,
    _an_update,
]
WHOLE = {_all_of_the_function, _clear}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"tags": lambda result, item: [f"tag:{item}"]}], ids=["", "tags of results"])
def test_an_invalidation_in_an_outage_holds_at_once_here_and_everywhere_after_it(
    server: RedisServer, made: Cache, other: Cache, colour: Colour, form: Callable[..., None], options: dict[str, Any]
) -> None:
    price = [1]
    here, there = Prices(made, colour, price, **options), Prices(other, colour, price, **options)
    assert [colour(here.f(item)) for item in (1, 2)] == [colour(there.f(item)) for item in (1, 2)] == [1, 1]
    server.pause()
    price[0] = 2
    form(made, here.f, colour)
    assert made.stats.journal > 0
    assert made.stats.journaled > 0
    assert colour(here.f(1)) == 2
    assert colour(here.f.get(1)) is MISSING
    server.resume()
    while not is_well(made):
        assert colour(here.f(1)) == 2
    assert colour(there.f.get(1)) in (MISSING, 2)
    assert colour(there.f(1)) == colour(here.f(1)) == 2
    if form not in WHOLE:
        assert colour(there.f.get(2)) == 1  # what nobody invalidated is still there


def test_one_lost_invalidation_does_not_wait_for_an_outage(server: RedisServer, other: Cache, colour: Colour) -> None:
    """The server is well: only this one answer did not come. What it names is not served till it has been replayed."""
    price = [1]
    with Proxy(server.port) as line, Cache(line.url, namespace="shop", timeout=0.1) as made:
        here, there = Prices(made, colour, price), Prices(other, colour, price)
        colour(here.f(1))
        line.hold_replies()
        price[0] = 2
        assert colour(here.f.invalidate(1)) == 0
        assert colour(here.f(1)) == 2
        line.let_go()
        until(lambda: is_well(made))
        assert colour(there.f.get(1)) is MISSING
        assert colour(here.f(1)) == 2


def test_a_load_from_before_the_invalidation_is_not_stored_after_it(
    server: RedisServer, made: Cache, other: Cache
) -> None:
    price = [1]
    loading, go_on = threading.Event(), threading.Event()

    def price_of(item: int) -> int:
        found = price[0]
        loading.set()
        assert go_on.wait(PATIENCE)
        return found

    f = made.cached(ttl=60, key="price:{item}", lease=PATIENCE)(price_of)
    g = other.cached(ttl=60, key="price:{item}")(price_of)
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(f, 1)
        assert loading.wait(PATIENCE)
        server.pause()
        price[0] = 2
        f.invalidate(1)
        server.resume()
        until(lambda: is_well(made))
        go_on.set()
        assert early.result(PATIENCE) == 1
    assert f.get(1) is g.get(1) is MISSING
    assert f(1) == g(1) == 2


def test_more_than_it_holds_drops_everything(server: RedisServer, made: Cache, other: Cache) -> None:
    price = [1]
    here, there = Prices(made, Sync(), price), Prices(other, Sync(), price)
    here.f(1), here.f(2)
    server.pause()
    price[0] = 2
    for number in range(10_001):
        made.invalidate(key=f"price:{number}")
    assert made.stats.journaled == 10_001
    assert made.stats.journal < 10_000
    assert here.f(1) == 2
    server.resume()
    until(lambda: is_well(made))
    assert there.f.get(1) is there.f.get(2) is MISSING
    assert there.f(1) == here.f(2) == 2


@pytest.mark.parametrize("form", [form for form in FORMS if form is not _an_update])
def test_who_would_rather_hear_of_it_does(server: RedisServer, colour: Colour, form: Callable[..., None]) -> None:
    with Cache(server.url, namespace="shop", on_unreachable="raise") as made:
        prices = Prices(made, colour, [1])
        colour(prices.f(1))
        server.pause()
        with pytest.raises(BackendError):
            form(made, prices.f, colour)
        assert made.stats.journal > 0  # it is made up for all the same
        assert colour(prices.f.get(1)) is MISSING
        server.resume()
        until(lambda: is_well(made))
        form(made, prices.f, colour)


def test_a_write_that_raised_is_heard_of_before_its_invalidation(server: RedisServer, colour: Colour) -> None:
    with Cache(server.url, namespace="shop", on_unreachable="raise") as made:
        prices = Prices(made, colour, [1])

        @made.invalidates(prices.f)
        @colour.loader
        def write(item: int) -> None:
            raise ZeroDivisionError

        server.pause()
        with pytest.raises(ZeroDivisionError):
            colour(write(1))
        assert made.stats.journal == 1
        server.resume()


def test_an_update_in_an_outage_raises_nothing_in_either_mode(server: RedisServer, colour: Colour) -> None:
    """Its caller is owed the result of the write; that the entry must fall is in the journal."""
    with Cache(server.url, namespace="shop", on_unreachable="raise") as made:
        prices = Prices(made, colour, [1])
        server.pause()
        _an_update(made, prices.f, colour)
        assert made.stats.journal == 1
        server.resume()


def test_what_on_unreachable_may_say() -> None:
    with pytest.raises(OptionError, match="on_unreachable='ignore' must be 'journal' or 'raise'"):
        Cache("redis://localhost:1", on_unreachable="ignore")  # type: ignore[arg-type]  # as the test says


def test_what_the_server_refuses_is_not_served_until_it_takes_it(
    server: RedisServer, made: Cache, other: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    price = [1]
    here, there = Prices(made, colour, price), Prices(other, colour, price)
    colour(here.f(1)), colour(here.f(2))
    server.cli("ACL", "SETUSER", "default", "-unlink")
    price[0] = 2
    assert colour(here.f.invalidate(1)) == 0
    until(lambda: any("refuses 1 invalidations" in record.getMessage() for record in caplog.records))
    assert colour(here.f(1)) == 2
    assert colour(here.f.get(1)) is MISSING
    assert colour(here.f(2)) == 1  # a hit: only what is concerned is not served
    assert (made.stats.breaker_opened, made.stats.journal) == (0, 1)
    server.cli("ACL", "SETUSER", "default", "+unlink")
    until(lambda: is_well(made))
    assert colour(there.f.get(1)) is MISSING


async def test_a_cancelled_invalidation_is_in_the_journal(server: RedisServer) -> None:
    async with Cache(server.url, namespace="shop") as made:
        f = Prices(made, Async(asyncio.get_running_loop()), [1]).f
        await f(1)
        server.pause()
        task = asyncio.ensure_future(f.invalidate(1))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made.stats.journal == 1
        assert await f.get(1) is MISSING
        server.resume()


def test_closing_delivers_what_waits_if_it_can(
    server: RedisServer, made: Cache, other: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    price = [1]
    here, there = Prices(made, colour, price), Prices(other, colour, price)
    colour(here.f(1))
    server.pause()
    price[0] = 2
    colour(here.f.invalidate(1))
    server.resume()
    colour.on(made).close() if not colour.is_async else colour(made.aclose())
    assert colour(there.f.get(1)) is MISSING
    assert not any("never reached" in record.getMessage() for record in caplog.records)


def test_closing_in_an_outage_says_what_is_lost(
    server: RedisServer, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    made = Cache(server.url, namespace="shop")
    f = Prices(made, colour, [1]).f
    server.pause()
    colour(f.invalidate(1))
    colour.start(made.aclose if colour.is_async else made.close).result(BUDGET)
    assert "closed with 1 invalidations that never reached Redis" in caplog.text
    assert "price" not in caplog.text
    server.resume()


async def test_closing_in_an_outage_does_not_block_the_event_loop(server: RedisServer) -> None:
    made = Cache(server.url, namespace="shop")
    await made.aget("warm")
    server.pause()
    await made.ainvalidate(key="k")
    closing = asyncio.create_task(made.aclose())
    turns = 0
    while not closing.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20  # one, had it been blocked
    server.resume()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_knows_what_its_parent_had_yet_to_invalidate(server: RedisServer, made: Cache) -> None:
    price = [1]
    prices = Prices(made, Sync(), price)
    prices.f(1)
    server.pause()
    price[0] = 2
    prices.f.invalidate(1)
    fail_until_open(made, Sync())

    def child() -> int:
        fresh = prices.f(1) == 2
        threading.Timer(0.2, server.resume).start()
        until(lambda: prices.f(1) == 2 and is_well(made))  # it has a prober of its own
        return 0 if fresh and prices.f(1) == 2 else 1

    assert in_child(child) == 0
    until(lambda: is_well(made))
    assert prices.f(1) == 2


def test_each_outage_is_logged_once_and_so_is_its_end(
    server: RedisServer, made: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    prices = Prices(made, colour, [1])
    colour(prices.f(1))
    server.pause()
    for _ in range(20):
        colour(prices.f(1)), colour(prices.f.invalidate(1))
    server.resume()
    until(lambda: "is back after" in caplog.text)
    said = [record.getMessage() for record in caplog.records]
    for part in ("goes on without Redis", "may not have reached", "is out of reach", "is back after"):
        assert sum(part in line for line in said) == 1, said
    assert len(said) == 4
    assert "breaker" not in repr(made.stats)
    assert made.stats.as_dict()["breaker_opened"] == 1
    assert "<Breaker closed, 0 failures, opened 1 times> <Journal: 0 of" in repr(made.driver.backend)


def test_of_several_invalidations_in_one_call_each_is_kept(server: RedisServer, colour: Colour) -> None:
    """Also where the first of them raises."""
    with Cache(server.url, on_unreachable="raise") as cache:
        by_hand = colour.on(cache)
        by_hand.set("k", 1)
        server.pause()
        with pytest.raises(BackendError):
            by_hand.invalidate(key="k", pattern="p*", tags=["t"])
        assert cache.stats.journal == 3
        server.resume()
        until(lambda: not cache.stats.journal)
