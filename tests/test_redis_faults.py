"""A server that is slow, frozen, gone, new or confused: callers get their results soon, and never anybody else's."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cachecraft import MISSING, BackendError, BackendTimeout, Cache
from tests.callers import PATIENCE, Async, Sync, until
from tests.proxy import Proxy
from tests.redis_kit import cache, colour, other, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async

BUDGET = 3.0
"""Seconds that no call may take on a sick server: far above what is promised, far below what redis-py would do."""


def _same(number: int) -> int:
    return number


def _within_budget(colour: Colour, fn: Callable[..., Any], *args: Any) -> Any:
    caller: Future[Any] = colour.start(fn, *args)
    return caller.result(BUDGET)


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_twenty_callers_share_a_pool_of_two(redis_url: str, redis_server: RedisServer, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop", pool_size=2) as small:
        f = small.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        colour(f(0))
        before = redis_server.cli("INFO", "clients")["connected_clients"]
        for _ in range(5):
            callers = [colour.start(f, number) for number in range(20)]
            assert [caller.result(PATIENCE) for caller in callers] == list(range(20))
        assert redis_server.cli("INFO", "clients")["connected_clients"] <= before + 1
        assert f.stats.errors == 0


def test_a_pool_that_is_used_up_is_a_counted_miss(proxy: Proxy) -> None:
    with Cache(proxy.url, namespace="shop", pool_size=1, timeout=0.3) as small:
        f = small.cached(ttl=60, key="n:{number}")(_same)
        f(1)
        proxy.hold_replies()
        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(f, [1] * 5, timeout=BUDGET)) == [1] * 5
        assert f.stats.backend_errors == 5
        proxy.let_go()
        until(lambda: not small.stats.breaker_open)
        assert f(1) == 1
        assert f.stats.hits == 1


# -- silence ---------------------------------------------------------------------------------------------------------


def test_a_frozen_server_costs_little_and_is_used_again_when_it_wakes(
    start_redis: Callable[..., RedisServer], colour: Colour
) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        assert colour(f(1)) == 1
        server.pause()
        assert _within_budget(colour, f, 1) == 1  # over a connection that was good a moment ago
        assert _within_budget(colour, f, 2) == 2  # over one that cannot be made
        assert _within_budget(colour, f.get, 1) is MISSING
        assert _within_budget(colour, f.set, 5, 1) is False
        assert _within_budget(colour, f.refresh, 1) == 1
        counted = f.stats.backend_errors
        assert counted >= 4
        assert _within_budget(colour, f.invalidate, 1) == 0
        with pytest.raises(BackendTimeout):
            colour.on(made).ping()
        server.resume()
        until(lambda: not (made.stats.breaker_open or made.stats.journal))
        colour(f(3))
        assert colour(f(3)) == 3
        assert f.stats.backend_errors == counted
        assert colour(f.get(3)) == 3


@pytest.mark.parametrize("callers", [100])
def test_a_hundred_callers_of_a_frozen_server_end_together(
    start_redis: Callable[..., RedisServer], colour: Colour, callers: int
) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        colour(f(0))
        server.pause()
        began = time.monotonic()
        waiting = [colour.start(f, number) for number in range(callers)]
        assert [each.result(PATIENCE) for each in waiting] == list(range(callers))
        assert time.monotonic() - began < BUDGET
        server.resume()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.fixture
def full_port() -> Iterator[str]:
    """A port whose queue is full, so that connecting hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        yield f"redis://127.0.0.1:{port}/0"
        for filler in fillers:
            filler.close()


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.fixture
def babble() -> Iterator[str]:
    """A port that answers everything with what is not Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                line.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


@pytest.mark.parametrize("where", ["black_hole", "full_port", "closed_port", "babble"])
def test_a_port_without_redis_costs_little_and_is_counted(
    request: pytest.FixtureRequest, colour: Colour, where: str
) -> None:
    with Cache(request.getfixturevalue(where), namespace="shop", on_unreachable="raise") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        for number in range(2):
            assert _within_budget(colour, f, number) == number
        assert f.stats.backend_errors == f.stats.misses == f.stats.loads == 2
        assert _within_budget(colour, colour.loader(lambda: 1)) == 1
        with pytest.raises(BackendError):
            colour.on(made).ping()
        with pytest.raises(BackendError):
            colour.on(made).invalidate(key="k")


def test_a_loaders_own_connection_error_is_not_taken_for_the_caches(cache: Cache, colour: Colour) -> None:
    broken = BackendTimeout("the loader's own")

    def load() -> None:
        raise broken

    f = cache.cached(ttl=60)(colour.loader(load))
    with pytest.raises(BackendTimeout) as raised:
        colour(f())
    assert raised.value is broken
    assert (f.stats.errors, f.stats.backend_errors, f.stats.loads) == (1, 0, 1)


def test_an_answer_that_drips_does_not_outlast_the_deadline(
    start_redis: Callable[..., RedisServer], colour: Colour
) -> None:
    """Each piece comes in time, and all of it never would."""
    server = start_redis()
    with Proxy(server.port) as line, Cache(line.url, namespace="shop", compress_above=None) as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: "x" * 1000))
        colour(f(1))
        line.hold_replies()
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.05):
                line.hold_replies(1)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert len(_within_budget(colour, f, 1)) == 1000
        finally:
            over.set()
            dripping.join()
            line.let_go()
        assert (f.stats.hits, f.stats.backend_errors) == (0, 1)


def test_a_connection_that_broke_in_between_is_replaced_without_a_word(proxy: Proxy, colour: Colour) -> None:
    with Cache(proxy.url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        colour(f(1))
        for _ in range(3):
            proxy.cut()
            time.sleep(0.05)  # until the end of the connection has arrived
            assert colour(f(1)) == 1
        assert (f.stats.hits, f.stats.backend_errors) == (3, 0)


# -- whose reply is it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 7, 60, 200])
def test_a_reply_that_came_too_late_reaches_nobody(
    redis_server: RedisServer, redis_url: str, colour: Colour, after: int
) -> None:
    """The reply is cut short at different places, the caller gives up, and then the rest of it arrives."""
    with Proxy(redis_server.port) as line, Cache(line.url, namespace="shop", timeout=0.1, pool_size=2) as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: [number] * 20))
        for number in range(10):
            colour(f(number))
        for round_ in range(3):
            line.hold_replies(after)
            assert colour(f(round_)) == [round_] * 20
            line.let_go()
            assert [colour(f(number)) for number in range(10)] == [[number] * 20 for number in range(10)]
        assert f.stats.backend_errors >= 3
        assert f.stats.reasons.get("corrupt", 0) == 0


async def test_thousands_of_cancellations_mix_up_no_replies(redis_server: RedisServer, redis_url: str) -> None:
    with Proxy(redis_server.port) as line:
        async with Cache(line.url, namespace="shop", timeout=5) as made:
            f = made.cached(ttl=60, key="n:{number}", tags=["t:{number}"])(_aload)
            await asyncio.gather(*(f(number) for number in range(50)))
            wrong: list[Any] = []

            async def call(number: int) -> None:
                value = await f(number)
                if value != [number] * 5:
                    wrong.append((number, value))

            for round_ in range(60):
                tasks = [asyncio.ensure_future(call(number)) for number in range(50)]
                for _ in range(round_ % 12):
                    await asyncio.sleep(0)
                for task in tasks[:: 1 + round_ % 3]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert wrong == []
            assert f.stats.reasons.get("corrupt", 0) == 0
            assert f.stats.backend_errors == 0


async def _aload(number: int) -> list[int]:
    return [number] * 5


def test_threads_that_time_out_in_the_middle_mix_up_no_replies(redis_server: RedisServer, redis_url: str) -> None:
    with Proxy(redis_server.port) as line, Cache(line.url, namespace="shop", timeout=0.1, pool_size=4) as made:
        f = made.cached(ttl=60, key="n:{number}")(lambda number: [number] * 50)
        for number in range(20):
            f(number)
        over = threading.Event()

        def disturb() -> None:
            while not over.wait(0.02):
                line.hold_replies(37)
                over.wait(0.12)
                line.let_go()

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                results = list(pool.map(f, [number % 20 for number in range(400)], timeout=PATIENCE * 2))
        finally:
            over.set()
            disturbing.join()
        assert results == [[number % 20] * 50 for number in range(400)]
        assert f.stats.backend_errors > 0
        assert f.stats.reasons.get("corrupt", 0) == 0


def _later(fn: Callable[..., Any]) -> Callable[..., Any]:
    async def later(*args: Any) -> Any:
        return fn(*args)

    return later


async def test_a_command_that_cannot_be_written_leaves_the_line_in_step(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with Cache(redis_url, namespace="shop") as made:
        await made.aset("k", 1)
        backend: Any = made.driver.backend.backend  # type: ignore[union-attr]  # the one behind the guard
        for execute in (backend._async.execute, _later(backend._sync.execute)):
            redis_server.cli("SET", "other", "not asked for", "PX", 60_000)
            redis_server.cli("SET", "wanted", "wanted", "PX", 60_000)
            with pytest.raises(BackendError):
                await execute([("GET", "other"), ("GET", "\ud800")])
            assert await execute([("GET", "wanted")]) == [b"wanted"]
            assert await made.aget("k") == 1


# -- what a server may forget ----------------------------------------------------------------------------------------


def test_scripts_that_the_server_forgot_are_sent_again(cache: Cache, redis_server: RedisServer, colour: Colour) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"])(colour.loader(_same))
    colour(f(1))
    for number in range(2, 5):
        redis_server.cli("SCRIPT", "FLUSH")
        assert colour(f(number)) == number
        assert colour(f.get(number)) == number
    redis_server.cli("SCRIPT", "FLUSH")
    broken = cache.cached(ttl=60, key="b:{number}")(colour.loader(lambda number: 1 // number))
    with pytest.raises(ZeroDivisionError):
        colour(broken(0))
    assert redis_server.cli("EXISTS", "shop:b:0") == 0
    assert f.stats.backend_errors == broken.stats.backend_errors == 0


def test_evicted_stamps_over_invalidate_and_never_revive(
    cache: Cache, redis_server: RedisServer, colour: Colour
) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"])(colour.loader(_same))
    for stamp in ("~root", "~tag:t", f"~fn:{f.__cachecraft__.subject.label}"):
        colour(f(1))
        assert colour(f.get(1)) == 1
        assert redis_server.cli("UNLINK", f"shop:{stamp}") == 1
        assert colour(f.get(1)) is MISSING
    redis_server.cli("FLUSHALL")
    assert colour(f(1)) == 1
    assert colour(f.get(1)) == 1


def test_an_old_snapshot_revives_nothing(start_redis: Callable[..., RedisServer], colour: Colour) -> None:
    """The fence: what was invalidated after the snapshot was taken must not be served after the restart."""
    server = start_redis("--dbfilename", "old.rdb")
    prices = {"a": 1, "b": 1, "c": 1, "d": 1}
    with Cache(server.url, namespace="shop") as made, Cache(server.url, namespace="shop") as idle:
        f = made.cached(ttl=600, key="price:{item}", tags=["t:{item}"])(colour.loader(lambda item: prices[item]))
        g = idle.cached(ttl=600, key="price:{item}", tags=["t:{item}"])(colour.loader(lambda item: prices[item]))
        for item in prices:
            colour(f(item))
            colour(g(item))
        server.cli("SAVE")
        prices.update(dict.fromkeys(prices, 2))
        colour.on(made).invalidate(key="price:a")
        colour.on(made).invalidate(pattern="price:b*")
        colour.on(made).invalidate(tags=["t:c"])
        colour(f("d"))
        assert [colour(f(item)) for item in "abc"] == [2, 2, 2]
        server.kill()
        server.start()
        assert server.cli("EXISTS", "shop:price:a", "shop:price:b", "shop:price:c") == 3  # the old ones are back
        with Cache(server.url, namespace="shop") as late:
            h = late.cached(ttl=600, key="price:{item}", tags=["t:{item}"])(colour.loader(lambda item: prices[item]))
            for each in (g, f, h):  # one whose connection broke, and one that has never been there
                assert [colour(each(item)) for item in "abc"] == [2, 2, 2]
        assert g.stats.reasons["invalidated"] + g.stats.reasons.get("absent", 0) >= 3


def test_a_namespace_that_comes_later_is_fenced_too(start_redis: Callable[..., RedisServer], colour: Colour) -> None:
    """The connection was made, and greeted, when nobody had heard of it."""
    server = start_redis("--dbfilename", "old.rdb")
    price = [1]
    load = colour.loader(lambda: price[0])
    with Cache(server.url, namespace="late") as before:
        f = before.cached(ttl=600, key="price")(load)
        colour(f())
        server.cli("SAVE")
        colour(f.invalidate())
        price[0] = 2
    server.kill()
    server.start()
    assert server.cli("EXISTS", "late:price") == 1
    with Cache(server.url, namespace="early") as made:
        colour.on(made).set("k", 1)
        g = made.cached(ttl=600, namespace="late", key="price")(load)
        assert g.__cachecraft__.subject.label == f.__cachecraft__.subject.label
        assert colour(g()) == 2
        assert g.stats.reasons == {"invalidated": 1}


def test_a_fence_may_be_trusted_away(start_redis: Callable[..., RedisServer], colour: Colour) -> None:
    server = start_redis("--dbfilename", "old.rdb")
    with Cache(server.url, namespace="shop", on_failover="trust") as made:
        colour.on(made).set("k", 1)
        server.cli("SAVE")
        server.kill()
        server.start()
        until(lambda: colour.on(made).get("k") == 1)


def test_a_server_that_restarts_empty_is_cached_in_again(
    start_redis: Callable[..., RedisServer], colour: Colour
) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        colour(f(1))
        server.kill()
        assert _within_budget(colour, f, 1) == 1
        server.start()
        colour(f(1))
        assert colour(f.get(1)) == 1


def test_a_scan_that_loses_its_server_says_so(start_redis: Callable[..., RedisServer], colour: Colour) -> None:
    """It must not go on with the old cursor on a new server, nor count as done."""
    server = start_redis()
    with Cache(server.url, namespace="shop", on_unreachable="raise") as made:
        colour.on(made).set("k", 1)
        server.cli("EVAL", "for i = 1, 5000 do redis.call('SET', 'shop:n:' .. i, i, 'PX', 600000) end", 0)
        steps: list[int] = []

        def progress(count: int) -> None:
            steps.append(count)
            if len(steps) == 2:
                server.kill()
                server.start()

        with pytest.raises(BackendError):
            colour.on(made).invalidate(pattern="n:*", progress=progress)
        assert len(steps) == 2
        until(lambda: not made.stats.journal)
        assert colour.on(made).invalidate(pattern="n:*") == 0


# -- what a server may refuse ----------------------------------------------------------------------------------------


def test_a_wrong_password_is_a_counted_miss_that_says_nothing_secret(
    start_redis: Callable[..., RedisServer], colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    server.cli("CONFIG", "SET", "requirepass", "right")
    for secret, works in (("wrong-secret", False), ("right", True)):
        url = server.url.replace("redis://", f"redis://:{secret}@")
        with Cache(url, namespace="shop") as made:
            f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
            assert colour(f(1)) == 1
            assert (colour(f.get(1)) == 1) is works
            assert (f.stats.backend_errors == 0) is works
            assert (made.stats.breaker_opened == 0) is works, "it says of itself that it is of no use"
    assert "wrong-secret" not in caplog.text


def test_a_full_server_serves_hits_and_invalidates(start_redis: Callable[..., RedisServer], colour: Colour) -> None:
    server = start_redis("--maxmemory-policy", "noeviction")
    with Cache(server.url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}", tags=["t:{number}"])(colour.loader(_same))
        for number in (1, 2, 3):
            colour(f(number))
        server.cli("CONFIG", "SET", "maxmemory", 1)
        assert colour(f(1)) == 1
        assert f.stats.hits == 1
        assert colour(f(9)) == 9  # nothing can be stored
        assert colour(f.invalidate(1)) == 1
        colour.on(made).invalidate(tags=["t:2"])
        assert colour.on(made).invalidate(pattern="n:*") >= 1
        assert [colour(f.get(number)) is MISSING for number in (1, 2, 3)] == [True] * 3
        assert f.stats.backend_errors == 1


def test_a_store_that_a_full_server_refuses_makes_nobody_wait(
    start_redis: Callable[..., RedisServer], colour: Colour
) -> None:
    """The lease would stand for a minute, and nobody loads under it."""
    server = start_redis("--maxmemory-policy", "noeviction")

    def load(number: int) -> int:
        server.cli("CONFIG", "SET", "maxmemory", 1)
        return number

    with Cache(server.url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}", lease=60, wait=60)(colour.loader(load))
        assert colour(f(1)) == 1
        until(lambda: not server.cli("EXISTS", f.key(1)))


def test_a_replica_that_takes_no_writes_still_serves(start_redis: Callable[..., RedisServer], colour: Colour) -> None:
    server, primary = start_redis(), start_redis()
    with Cache(server.url, namespace="shop", on_unreachable="raise") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        colour(f(1))
        server.cli("REPLICAOF", "127.0.0.1", primary.port)
        assert _within_budget(colour, f, 2) == 2
        with pytest.raises(BackendError):
            colour(f.invalidate(1))  # it has not happened, so it may not look as if it had


def test_client_kill_costs_at_most_a_miss(cache: Cache, redis_server: RedisServer, colour: Colour) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(colour.loader(_same))
    colour(f(1))
    for _ in range(5):
        redis_server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert colour(f(1)) == 1
    assert f.stats.errors == 0


def test_a_paused_client_costs_a_deadline_and_no_more(cache: Cache, redis_server: RedisServer, colour: Colour) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(colour.loader(_same))
    colour(f(1))
    redis_server.cli("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        assert _within_budget(colour, f, 1) == 1
        assert f.stats.hits == 1  # reads go on
        assert _within_budget(colour, f, 2) == 2
        assert f.stats.backend_errors == 1
    finally:
        redis_server.cli("CLIENT", "UNPAUSE")
    colour(f(2))


def test_a_name_that_cannot_be_looked_up_in_time_costs_a_deadline(
    colour: Colour, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def slowly(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("redis.invalid", b"redis.invalid"):
            asked.set()
            answered.wait(PATIENCE)
            raise socket.gaierror("no such name")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    with Cache("redis://redis.invalid/0", namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(_same))
        assert _within_budget(colour, f, 1) == 1
        assert asked.is_set()
        assert f.stats.backend_errors == 1
        answered.set()


def test_a_name_is_looked_up(redis_server: RedisServer, colour: Colour) -> None:
    with Cache(f"redis://localhost:{redis_server.port}/0", namespace="shop") as made:
        f = made.cached(ttl=60, key="named:{number}")(colour.loader(_same))
        assert [colour(f(1)), colour(f(1))] == [1, 1]
        assert (f.stats.hits, f.stats.backend_errors) == (1, 0)
        colour(f.invalidate(1))


# -- what one does to the others -------------------------------------------------------------------------------------


def test_whoever_finds_the_last_idle_connection_just_hung_up_dials(redis_url: str) -> None:
    """Hanging up takes no lock: an outage may end a connection between a caller's look at the pool and its grasp."""

    class Emptied(deque[Any]):
        def pop(self) -> Any:
            while self:
                transport._discard(super().pop())
            return super().pop()

    with Cache(redis_url, namespace="shop") as cache:
        f = cache.cached(ttl=60, key="n:{number}")(_same)
        assert f(1) == 1
        transport = cache.driver.backend.backend._sync  # type: ignore[union-attr]  # a Guard
        transport._idle = Emptied(transport._idle)
        assert f(2) == 2
        assert transport._total == 1
        assert f.stats.backend_errors == 0


async def test_who_is_cancelled_while_a_namespace_is_greeted_takes_no_answer_from_others(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    async with Cache(server.url, timeout=PATIENCE) as cache:

        @cache.cached(key="n:{number}")
        async def known(number: int) -> int:
            return number

        @cache.cached(key="n:{number}", namespace="new")
        async def new(number: int) -> int:
            return number

        for number in range(5):
            await known(number)
        server.pause()
        others = [asyncio.create_task(known(number)) for number in range(5)]
        first = asyncio.create_task(new(1))
        await asyncio.sleep(0.05)  # all of them have asked
        first.cancel()
        await asyncio.sleep(0)
        server.resume()
        assert await asyncio.gather(*others) == list(range(5))
        assert known.stats.loads == 5, "each had its answer"
        assert await new(1) == 1
        assert cache.stats.backend_errors == 0


def test_many_namespaces_are_greeted_in_as_many_round_trips_as_one(redis_url: str) -> None:
    """On a distant server a connection would otherwise never be made in time."""

    def trips(namespaces: int) -> int:
        with Cache(redis_url) as cache:
            transport = cache.driver.backend.backend  # type: ignore[union-attr]  # a Guard
            for number in range(namespaces):
                transport.serve(f"{namespaces}.{number}:")
            replies: list[Any] = []
            talk, count = transport._fence(), 0
            try:
                commands = next(talk)
                while True:
                    count += 1
                    replies = transport._sync.execute(commands)
                    commands = talk.send(replies)
            except StopIteration:
                return count

    assert trips(1) == trips(30)
