"""What goes wrong between a near cache and Redis: nothing is served beyond ``max_staleness``, and it ends by itself.

Each test has a server of its own. ``other`` in these tests stands for another process: it shares nothing with the cache
under test but the server. Whether an answer came from near is told by the server, which was then not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import resource
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachecraft import Cache, Near
from cachecraft.backends import listener as listening
from tests import states
from tests.callers import PATIENCE, Async, Gate, Sync, running_loop, until
from tests.clock import FakeClock
from tests.proxy import Proxy
from tests.redis_kit import colour, in_child  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async

BOUND = 0.25
"""Seconds of ``max_staleness`` in these tests."""
BUDGET = 3.0
"""Seconds that no call may take, on the busiest machine."""


class Prices:
    """A source of truth, a cached function over it, and how often it was asked."""

    def __init__(self, cache: Cache, colour: Colour, price: list[int], **options: Any) -> None:
        self.colour = colour
        self.loads = 0

        def load(item: int) -> int:
            self.loads += 1
            return price[0]

        load.__qualname__ = "price_of"  # one function in all processes
        options = {"ttl": 60, "key": "price:{item}", "tags": ["t:{item}"], **options}
        self.f: Any = cache.cached(**options)(colour.loader(load))

    def __call__(self, item: int = 1) -> int:
        return self.colour.start(self.f, item).result(BUDGET)  # type: ignore[no-any-return]  # what the loader returns


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def line(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.port) as made:
        yield made


def near(url: str, **options: Any) -> Cache:
    return Cache(url, **{"namespace": "shop", "near": Near(max_staleness=BOUND), "timeout": 5, **options})


@pytest.fixture
def here(line: Proxy) -> Iterator[Cache]:
    """The cache under test, over a line that can be disturbed."""
    with near(line.url, timeout=0.25) as cache:
        yield cache


@pytest.fixture
def other(server: RedisServer) -> Iterator[Cache]:
    with near(server.url) as cache:
        yield cache


def reads(server: RedisServer) -> int:
    return int(server.cli("INFO", "commandstats").get("cmdstat_mget", {}).get("calls", 0))


def is_near(server: RedisServer, call: Callable[[], Any]) -> bool:
    """Whether an answer comes without the server being asked."""
    before = reads(server)
    call()
    return reads(server) == before


def until_near(server: RedisServer, call: Callable[[], Any]) -> None:
    until(lambda: is_near(server, call))


def listeners(server: RedisServer) -> list[int]:
    """The ids of the connections on which somebody listens."""
    return [int(each) for each in re.findall(rb"id=(\d+) .* sub=[1-9]", server.cli("CLIENT", "LIST"))]


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "cachecraft-listener"]


def never_old(price: Prices, old: int, since: float, *, ended: Callable[[], object]) -> None:
    """Call until it has ended: nothing ``old`` is served to a call that began more than the bound after ``since``."""
    while True:
        done, began = ended(), time.monotonic()
        value = price()
        assert value != old or began <= since + BOUND, f"{began - since:.3f} s old"
        if done and value != old:
            return
        time.sleep(0.002)  # time is to pass, in which nothing tells us anything


# -- the connection --------------------------------------------------------------------------------------------------


def by_type(server: RedisServer) -> None:
    server.cli("CLIENT", "KILL", "TYPE", "pubsub")


def by_id(server: RedisServer) -> None:
    for each in listeners(server):
        server.cli("CLIENT", "KILL", "ID", each)


@pytest.mark.parametrize("kill", [by_type, by_id])
def test_a_listener_that_is_killed_loses_nothing_that_is_said_meanwhile(
    server: RedisServer, here: Cache, colour: Colour, kill: Callable[[RedisServer], None]
) -> None:
    truth = [1]
    price = Prices(here, colour, truth)
    with Cache(server.url, namespace="shop", timeout=5) as writer:  # it has no listener to be killed
        until_near(server, price)
        was = listeners(server)
        assert len(was) == 1
        kill(server)
        truth[0] = 2
        writer.invalidate(key="price:1")
        never_old(price, 1, time.monotonic(), ended=lambda: set(listeners(server)) - set(was))
    until_near(server, price)
    assert price() == 2


def test_nothing_is_held_while_nothing_is_heard(server: RedisServer, line: Proxy, colour: Colour) -> None:
    """Redis itself can be asked; only the listener's words are lost."""
    with near(line.url, connect_timeout=0.25) as made:
        price = Prices(made, colour, [1])
        until_near(server, price)
        line.swallow(b"HELLO")
        until(lambda: not made.stats.near_entries)
        for _ in range(3):
            assert not is_near(server, price)
        assert (made.stats.near_entries, made.stats.backend_errors) == (0, 0)
        assert made.stats.near_deaf_seconds > 0
        line.heal()
        until_near(server, price)
        assert made.stats.near_entries == 1


def test_a_connection_that_breaks_again_and_again_is_told_of_once(
    server: RedisServer, line: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [each.getMessage() for each in caplog.records if "near caches are" in each.getMessage()]

    with near(line.url) as made:
        price = Prices(made, Sync(), [1])
        for _ in range(3):
            until_near(server, price)
            line.cut()
        until(lambda: len(told()) > 1)
        off, on = told()
        assert off.startswith("near caches are off until Redis can be heard: ")
        assert on == "Redis is heard again, and near caches are on"


@pytest.mark.parametrize(
    ("by", "silent"),
    [({"key": "price:1"}, b"HELLO"), ({"tags": ["t:1"]}, None), ({"pattern": "pri*"}, b"HELLO")],
    ids=["key, the listener", "tag, everything", "pattern, the listener"],
)
def test_behind_a_silent_network_nothing_is_served_beyond_the_bound(
    server: RedisServer, line: Proxy, here: Cache, other: Cache, colour: Colour, by: dict[str, Any], silent: bytes
) -> None:
    """All sockets stay open, and no byte comes through either way: on the listener's line, or on all."""
    truth = [1]
    price = Prices(here, colour, truth)
    until_near(server, price)
    other.ping()
    line.swallow(*filter(None, [silent]))
    truth[0] = 2
    other.invalidate(**by)
    said = time.monotonic()
    never_old(price, 1, said, ended=lambda: time.monotonic() > said + 1.5 * BOUND)
    line.heal()
    until_near(server, price)
    assert price() == 2


def test_what_is_heard_late_was_not_served_meanwhile(
    server: RedisServer, line: Proxy, here: Cache, other: Cache, colour: Colour
) -> None:
    """All replies and pushes come in the end, in order, and long after they were sent."""
    truth = [1]
    price = Prices(here, colour, truth)
    until_near(server, price)
    other.ping()
    line.hold_replies()
    truth[0] = 2
    other.invalidate(tags=["t:1"])
    said = time.monotonic()
    never_old(price, 1, said, ended=lambda: time.monotonic() > said + 1.5 * BOUND)
    line.let_go()
    never_old(price, 1, said, ended=lambda: here.stats.near_entries)
    until_near(server, price)


def test_a_frozen_server(server: RedisServer, here: Cache, colour: Colour) -> None:
    """What is held may be served until the bound, as nobody can say that it has changed. Then the loader is asked."""
    truth = [1]
    price = Prices(here, colour, truth)
    until_near(server, price)
    server.pause()
    frozen, truth[0] = time.monotonic(), 2
    never_old(price, 1, frozen, ended=lambda: not here.stats.near_entries)
    server.resume()
    until(lambda: not here.stats.breaker_open)
    until_near(server, price)
    assert price() == 1  # as Redis has it: nobody has said otherwise


def test_a_primary_that_becomes_a_replica(server: RedisServer, here: Cache, colour: Colour) -> None:
    """It answers all that it is asked, and what is invalidated on the new primary reaches it late, or never."""
    price = Prices(here, colour, [1])
    until_near(server, price)
    with states.a_replica(server):
        demoted = time.monotonic()
        while True:
            began = time.monotonic()
            if not is_near(server, price):
                break
            assert began <= demoted + BOUND
        until(lambda: not here.stats.near_entries)
        assert not is_near(server, price)
    until_near(server, price)


@pytest.mark.parametrize("snapshot", [False, True], ids=["empty", "from an old snapshot"])
def test_a_server_that_was_killed_and_restarted(
    server: RedisServer, here: Cache, other: Cache, colour: Colour, snapshot: bool
) -> None:
    truth = [1]
    price = Prices(here, colour, truth)
    until_near(server, price)
    if snapshot:
        server.cli("SAVE")
    truth[0] = 2
    other.invalidate(tags=["t:1"])
    never_old(price, 1, time.monotonic(), ended=lambda: price() == 2)
    until_near(server, price)
    server.kill()
    until(lambda: not here.stats.near_entries)
    assert price() == 2
    server.start()
    never_old(price, 1, 0.0, ended=lambda: not here.stats.breaker_open and here.stats.near_entries)
    until_near(server, price)
    assert price() == 2


def test_a_listener_that_the_server_drops_for_its_backlog(server: RedisServer, here: Cache, colour: Colour) -> None:
    """One push is more than a subscriber may have waiting, and what was invalidated is in it."""
    truth = [1]
    price = Prices(here, colour, truth)
    until_near(server, price)
    was = listeners(server)
    server.cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1024 0 0")
    truth[0] = 2
    fall = "redis.call('UNLINK', 'shop:~tag:t:1')"
    server.cli("EVAL", fall + " for i = 1, 5000 do redis.call('SET', 'shop:~tag:' .. i, '', 'PX', 60000) end", 0)
    said = time.monotonic()
    never_old(price, 1, said, ended=lambda: not set(listeners(server)) & set(was))
    until_near(server, price)
    assert price() == 2


# -- much at once ----------------------------------------------------------------------------------------------------

MANY = 10_000


async def in_batches(call: Callable[[int], Any]) -> set[int]:
    """Of all of ``MANY``; all at once would be a test of something else."""
    results: set[int] = set()
    for at in range(0, MANY, 250):
        results.update(await asyncio.gather(*map(call, range(at, at + 250))))
    return results


def test_ten_thousand_keys_invalidated_at_once(server: RedisServer) -> None:
    asyncio.run(_ten_thousand(server))  # not in debug mode, as other tests are: it would take minutes


async def _ten_thousand(server: RedisServer) -> None:
    truth = [1]
    async with near(server.url) as here, Cache(server.url, namespace="shop", timeout=5) as writer:

        @here.cached(ttl=60, key="n:{item}")
        async def price(item: int) -> int:
            return truth[0]

        await price(0)  # it makes the stamps, and they are listened to from here on
        assert await in_batches(price) == {1}
        until(lambda: here.stats.near_entries == MANY)
        truth[0] = 2
        assert await writer.ainvalidate(pattern="n:*") == MANY
        await here.abarrier()
        assert here.stats.near_entries == 0
        assert [await price(item) for item in range(0, MANY, 100)] == [2] * 100
        truth[0] = 3
        await in_batches(lambda item: writer.ainvalidate(key=f"n:{item}"))
        await here.abarrier()
        assert here.stats.near_entries == 0
        assert [await price(item) for item in range(0, MANY, 100)] == [3] * 100


def test_everything_flushed_by_somebody_else(server: RedisServer, here: Cache, colour: Colour) -> None:
    truth = [1]
    price = Prices(here, colour, truth)
    until_near(server, price)
    truth[0] = 2
    server.cli("FLUSHALL")
    colour.on(here).barrier()
    assert here.stats.near_entries == 0
    assert price() == 2
    until_near(server, price)


# -- a server that cannot be listened to -----------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is asked for again at once, rather than after seconds."""
    monkeypatch.setattr(listening, "SLOW", lambda state: 0.01)


def all_else_works(made: Cache, other: Cache, colour: Colour) -> None:
    """As in a cache without a near one: hits, invalidations here and elsewhere."""
    truth = [1]
    price = Prices(made, colour, truth)
    assert [price(), price(), price.loads] == [1, 1, 1]
    for forget in (lambda: other.invalidate(key="price:1"), lambda: colour(price.f.invalidate(1))):
        truth[0] += 1
        forget()
        assert [price(), price()] == [truth[0]] * 2
    assert price.loads == 3
    assert (made.stats.near_entries, made.stats.backend_errors, made.stats.journaled) == (0, 0, 0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("refused", ["client|tracking", "subscribe"])
def test_without_the_right_to_listen_all_else_works_and_the_remedy_is_said_once(
    server: RedisServer, other: Cache, colour: Colour, refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.cli("ACL", "SETUSER", "app", "on", ">password", "~*", "&*", "+@all", f"-{refused}")
    with near(server.url.replace("redis://", "redis://app:password@")) as made:
        all_else_works(made, other, colour)
        until(lambda: refusals(server, refused) >= 3)
        (warning,) = [each.getMessage() for each in caplog.records if "near cache" in each.getMessage()]
        assert "+client|tracking +subscribe +unsubscribe" in warning
        assert "near=False" in warning
        assert "password" not in warning
        server.cli("ACL", "SETUSER", "app", "+@all")
        until_near(server, Prices(made, colour, [1]))


def refusals(server: RedisServer, command: str) -> int:
    """How often the server refused it. (It adds up what is alike.)"""
    entries = [dict(zip(each[::2], each[1::2], strict=True)) for each in server.cli("ACL", "LOG")]
    return sum(entry[b"count"] for entry in entries if entry[b"object"] == command.encode())


@pytest.mark.usefixtures("impatient")
def test_a_server_that_knows_no_resp3(
    server: RedisServer, other: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Proxy(server.port, answers={b"HELLO": b"-ERR unknown command 'HELLO'\r\n"}) as old,
        near(old.url) as made,
    ):
        all_else_works(made, other, colour)
        until(lambda: old.names["HELLO"] >= 3)
        (warning,) = [each.getMessage() for each in caplog.records if "near cache" in each.getMessage()]
        assert "6.0" in warning


# -- processes -------------------------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
looks_at_files = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")


@forks
def test_a_forked_child_begins_empty_and_listens_for_itself(server: RedisServer) -> None:
    truth = [1]
    with near(server.url) as made:
        price = Prices(made, Sync(), truth)
        until_near(server, price)
        mine = set(listeners(server))

        def child() -> int:
            empty = made.stats.near_entries == 0
            until_near(server, price)
            theirs = set(listeners(server))
            truth[0] = 2
            made.invalidate(key="price:1")
            made.close()
            return 0 if empty and len(theirs - mine) == 1 and theirs >= mine else 1

        assert in_child(child) == 0
        truth[0] = 2
        made.barrier()
        assert price() == 2  # what the child invalidated was heard on the connection there was before
        assert set(listeners(server)) == mine
        until_near(server, price)


@forks
@looks_at_files
def test_a_forked_child_does_not_keep_its_parents_connection_open(server: RedisServer) -> None:
    """Else Redis would go on to push into it when the parent has died."""
    with near(server.url) as made:
        price = Prices(made, Sync(), [1])
        until_near(server, price)
        ours = {each for each in sockets() if to_server(each, server)}
        assert ours

        def child() -> int:
            gc.collect()
            return len(ours & sockets())

        assert in_child(child) == 0
        assert is_near(server, price)


def sockets() -> set[str]:
    found = set()
    for each in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{each}"))
        except OSError:  # the one that was used to look
            pass
    return {each for each in found if each.startswith("socket:")}


def to_server(link: str, server: RedisServer) -> bool:
    inode = link[len("socket:[") : -1]
    rows = [row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return any(row[9] == inode and int(row[2].split(":")[1], 16) == server.port for row in rows)


@forks
def test_forks_while_the_listener_is_in_the_middle_of_things(server: RedisServer) -> None:
    """Each child answers, whatever the parent's listener was at."""
    ended = threading.Event()

    def talk() -> None:
        while not ended.is_set():
            server.cli("EVAL", "for i = 1, 50 do redis.call('PUBLISH', 'shop:~gone', ARGV[1]) end", 0, b"\x92\xc0\xa1x")

    with near(server.url) as made:
        price = Prices(made, Sync(), [1])
        until_near(server, price)
        mine = listeners(server)
        talking = threading.Thread(target=talk)
        talking.start()

        def child() -> int:
            signal.alarm(int(PATIENCE))
            return 0 if [price(item) for item in range(5)] == [1] * 5 else 1

        assert [in_child(child) for _ in range(6)] == [0] * 6
        ended.set()
        talking.join()
        assert listeners(server) == mine


@forks
@pytest.mark.parametrize("of", ["all listeners", "this listener", "the memory"])
def test_a_fork_while_another_thread_holds_a_lock(server: RedisServer, of: str) -> None:
    with near(server.url) as made:
        price = Prices(made, Sync(), [1])
        until_near(server, price)
        keeper: Any = made.keeper
        lock = {
            "all listeners": listening._lock,
            "this listener": keeper._listener._lock,
            "the memory": keeper.memory.lock,
        }[of]
        held, let_go = Gate(), threading.Event()

        def hold() -> None:
            with lock:
                held._arrived.release()
                let_go.wait(PATIENCE)

        holder = threading.Thread(target=hold)
        holder.start()
        held.reached()

        def child() -> int:
            signal.alarm(int(PATIENCE))
            right = price() == 1
            made.close()
            with near(server.url) as another:
                return 0 if right and Prices(another, Sync(), [1])() == 1 else 1

        try:
            assert in_child(child) == 0
        finally:
            let_go.set()
            holder.join()


# -- its life --------------------------------------------------------------------------------------------------------


def test_all_caches_on_a_server_share_one_listener(server: RedisServer, colour: Colour) -> None:
    caches = [near(server.url, namespace=f"shop{number}") for number in range(5)]
    before = threads()
    truth = [1]
    prices = [Prices(cache, colour, truth) for cache in caches]
    for price in prices:
        until_near(server, price)
    assert len(listeners(server)) == len(set(threads()) - set(before)) == 1
    truth[0] = 2
    with Cache(server.url, namespace="shop3") as writer:
        writer.invalidate(tags=["t:1"])
    colour.on(caches[3]).barrier()
    assert [price() for price in prices] == [1, 1, 1, 2, 1]
    for cache in caches[:-1]:
        colour.on(cache).close()
    assert is_near(server, prices[-1])
    assert len(listeners(server)) == 1
    colour.on(caches[-1]).close()
    until(lambda: not listeners(server))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@looks_at_files
def test_close_leaves_no_thread_and_no_file(server: RedisServer, colour: Colour) -> None:
    files, running = open_files(), set(threads())
    made = near(server.url)
    price = Prices(made, colour, [1])
    until_near(server, price)
    assert set(threads()) - running
    colour.on(made).close()
    until(lambda: not set(threads()) - running)
    until(lambda: open_files() <= files)
    assert [price(), price()] == [1, 1]
    assert price.loads == 3  # a plain function again
    assert not set(threads()) - running


def test_a_cache_that_is_configured_anew_listens_where_it_is_then(
    start_redis: Callable[..., RedisServer], colour: Colour
) -> None:
    old, new = start_redis(), start_redis()
    running = set(threads())
    truth = [1]
    with near(old.url) as made:
        price = Prices(made, colour, truth)
        until_near(old, price)
        made._configure(new.url, {"namespace": "shop", "near": True})
        assert not listeners(old)
        until_near(new, price)
        truth[0] = 2
        with Cache(new.url, namespace="shop") as writer:
            writer.invalidate(key="price:1")
        colour.on(made).barrier()
        assert price() == 2
        made._configure("memory://", {})
        assert not set(threads()) - running
        assert [price(), price(), price.loads] == [2, 2, 4]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yield mute.getsockname()[1]


@pytest.mark.parametrize("end", ["close", "configure"])
def test_it_may_end_while_it_connects(silent_port: int, colour: Colour, end: str) -> None:
    running = set(threads())
    made = near(f"redis://127.0.0.1:{silent_port}/0", timeout=0.25)
    price = Prices(made, colour, [1])
    caller = colour.start(price.f, 1)
    until(lambda: set(threads()) - running)
    began = time.monotonic()
    if end == "close":
        colour.on(made).close()
    else:
        made._configure("memory://", {})
    assert time.monotonic() - began < BUDGET
    assert caller.result(BUDGET) == 1
    until(lambda: not set(threads()) - running)
    made.close()


def test_no_event_loop_waits_for_it_to_end(silent_port: int) -> None:
    """The listener is in the middle of connecting, and may be for ten seconds."""
    running = set(threads())

    async def story() -> None:
        made = near(f"redis://127.0.0.1:{silent_port}/0", connect_timeout=5)
        getting = asyncio.ensure_future(made.aget("k"))
        async with asyncio.timeout(PATIENCE):
            while not set(threads()) - running:
                await asyncio.sleep(0.001)
        began = time.monotonic()
        await made.aclose()
        assert time.monotonic() - began < BUDGET
        getting.cancel()

    asyncio.run(story())


def test_a_cache_that_is_collected_leaves_nothing(server: RedisServer, colour: Colour) -> None:
    running = set(threads())

    class Shop:
        """Its key is a method of its own, so that what is held leads back to the cache."""

        def __init__(self) -> None:
            self.cache = near(server.url)
            self.price = Prices(self.cache, colour, [1], key=self.key)

        def key(self, item: int) -> str:
            return f"price:{item}"

    def use() -> None:
        until_near(server, Shop().price)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use()
        until(lambda: gc.collect() and not set(threads()) - running)
    assert [str(each.message).partition(" <")[0] for each in caught] == ["unclosed"]
    until(lambda: not listeners(server))


def test_loops_that_come_and_go(server: RedisServer) -> None:
    """What one loop has brought near is there for the next, and what is heard between two of them is gone."""
    truth = [1]

    async def story() -> tuple[int, bool]:
        before = reads(server)
        return await price(1), reads(server) == before

    with near(server.url) as made, Cache(server.url, namespace="shop") as writer:

        @made.cached(ttl=60, key="price:{item}")
        async def price(item: int) -> int:
            return truth[0]

        until(lambda: asyncio.run(story()) == (1, True))
        truth[0] = 2
        writer.invalidate(key="price:1")
        asyncio.run(made.abarrier())
        assert asyncio.run(story()) == (2, False)
        until(lambda: asyncio.run(story()) == (2, True))
        with running_loop() as one, running_loop() as two:
            assert [Async(loop)(story()) for loop in (one, two, one)] == [(2, True)] * 3


@looks_at_files
def test_a_process_with_thousands_of_files(server: RedisServer, colour: Colour) -> None:
    """`select()` would take no number above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 4096, hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        server.kill()
        with near(server.url) as made:
            price = Prices(made, colour, [1])
            until(lambda: price() and made.stats.breaker_open)
            server.start()
            until(lambda: not made.stats.breaker_open)
            until_near(server, price)
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@looks_at_files
def test_no_file_left_for_a_listener(server: RedisServer, colour: Colour) -> None:
    """No caller hears of it, and when there are files again it listens."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with near(server.url) as made:
        price = Prices(made, colour, [1])
        strict = Prices(made, colour, [1], key="strict:{item}", near=False)
        assert strict() == 1  # so that there is a connection to ask on
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        taken: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            assert [price(), price(), price.loads] == [1, 1, 1]
        finally:
            for each in taken:
                os.close(each)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until_near(server, price)


def test_time_passes_by_the_clock_it_was_given(server: RedisServer, line: Proxy, colour: Colour) -> None:
    clock = FakeClock()
    with near(line.url, clock=clock, near=Near(max_staleness=10)) as made:
        price = Prices(made, colour, [1], ttl=5, jitter=None)
        until_near(server, price)
        line.swallow(b"HELLO")
        clock.advance(4.9)
        assert is_near(server, price)
        clock.advance(0.2)
        assert not is_near(server, price)  # its ttl is over here, if not in Redis
        until_near(server, price)
        clock.advance(4.8)
        assert is_near(server, price)
        clock.advance(0.2)
        assert not is_near(server, price)  # ten seconds without a proof


# -- what it may hold ------------------------------------------------------------------------------------------------


def test_a_refresh_behind_the_callers_back_holds_nothing_that_fell_meanwhile(
    server: RedisServer, other: Cache, colour: Colour
) -> None:
    truth, gate, clock = [1], Gate(), FakeClock()

    @colour.loader
    def load(item: int) -> int:
        value = truth[0]
        if price.stats.refreshes:
            yield gate
        return value

    def refreshes() -> float:
        clock.advance(0.02)  # so long it may be held here, before it is to be loaded anew
        assert colour(price(1)) == 1
        return price.stats.refreshes

    with near(server.url, near=True, clock=clock) as made:
        price: Any = made.cached(ttl=60, key="p:{item}", tags=["t:{item}"], refresh_ahead=59.98, jitter=None)(load)
        until(refreshes)
        gate.reached()
        truth[0] = 2
        other.invalidate(tags=["t:1"])
        gate.open()
        until(lambda: price.stats.loads == 2 and not made.keeper.remote.refreshing)  # type: ignore[attr-defined]  # a NearKeeper
        assert colour(price(1)) == 2


@pytest.mark.parametrize("write", ["set", "updates"])
def test_what_is_replaced_leaves_near_caches_even_if_redis_had_evicted_it(
    server: RedisServer, here: Cache, other: Cache, colour: Colour, write: str
) -> None:
    truth = [1]
    price, there = Prices(here, colour, truth), Prices(other, colour, truth)
    until_near(server, price)
    server.cli("UNLINK", "shop:price:1")
    truth[0] = 2
    if write == "set":
        assert colour(there.f.set(2, 1))
    else:
        assert colour(other.updates(there.f)(colour.loader(lambda item: 2))(1)) == 2
    colour.on(here).barrier()
    assert price() == 2


def test_a_stamp_that_is_made_and_falls_in_the_same_moment(server: RedisServer, line: Proxy, colour: Colour) -> None:
    """Redis tells of it once, as of a stamp that was made. The next invalidation finds nothing, and tells nobody."""
    truth = [1]
    with (
        Proxy(server.port) as far,
        near(line.url, near=True) as made,
        Cache(far.url, namespace="shop", timeout=5) as writer,
    ):
        price = Prices(made, colour, truth)
        until_near(server, lambda: price(0))
        writer.ping()
        for item in range(1, 6):  # the moment is missed now and then
            truth[0], before = 1, reads(server)
            line.hold_replies()
            caller = colour.start(price.f, item)
            until(lambda before=before: reads(server) > before)
            server.pause()
            line.forget(), far.forget()
            line.let_go()
            line.wait_for(lambda command: command[0] == b"EVALSHA")
            writing = Sync().start(writer.invalidate, tags=[f"t:{item}"])
            far.wait_for(lambda command: command[0] == b"UNLINK")
            server.resume()
            assert (caller.result(BUDGET), writing.result(BUDGET)) == (1, 0)
            truth[0] = 2
            writer.invalidate(tags=[f"t:{item}"])
            colour.on(made).barrier()
            assert price(item) == 2
