"""One load per key on a real Redis: among threads, tasks, both at once, and caches that share only the server."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft._core.effects import Renew
from cachecraft.backends.heart import Heart
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.redis_kit import cache, colour, other  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async


class Load:
    """A loader that counts itself and waits at a gate."""

    def __init__(self, colour: Colour) -> None:
        self.gate = Gate()
        self.runs: list[int] = []
        runs, gate = self.runs, self.gate

        @colour.loader
        def load(number: int = 0) -> Any:
            runs.append(number)
            yield gate
            return {"number": number, "run": len(runs)}

        self.fn = load


def _joined(cache: Cache) -> int:
    """How many callers of this process wait for its own loads."""
    flights = list(cache.keeper.flights.values())  # type: ignore[attr-defined]  # a RemoteKeeper
    return sum(len(flight.wakers or ()) for flight in flights)


def _holds_lease(server: RedisServer, key: str) -> bool:
    return (server.cli("GET", key) or b"").startswith(b"L")


def test_fifty_callers_of_one_process_share_one_load(cache: Cache, colour: Colour) -> None:
    load = Load(colour)
    f = cache.cached(ttl=60)(load.fn)
    callers = [colour.start(f, 1) for _ in range(50)]
    load.gate.reached()
    until(lambda: _joined(cache) == 49)
    load.gate.open()
    results = [caller.result(PATIENCE) for caller in callers]
    assert results == [{"number": 1, "run": 1}] * 50
    assert len({id(result) for result in results}) == 50  # and each has its own
    assert (f.stats.loads, f.stats.misses, f.stats.hits) == (1, 50, 0)


def test_the_first_callers_of_a_fresh_server_share_one_load(redis_server: RedisServer, redis_url: str) -> None:
    """Each comes with a connection of its own, and each of those finds a server that nobody has used before."""
    for _ in range(30):
        redis_server.cli("FLUSHALL")
        with Cache(redis_url, namespace="shop") as fresh, ThreadPoolExecutor(8) as pool:
            f = fresh.cached(ttl=60, key="n:{number}")(_slowly)
            together = threading.Barrier(8)

            def call(f: Any = f, together: threading.Barrier = together) -> int:
                together.wait(PATIENCE)
                return int(f(1))

            assert [each.result(PATIENCE) for each in [pool.submit(call) for _ in range(8)]] == [1] * 8
            assert f.stats.loads == 1


def _slowly(number: int) -> int:
    threading.Event().wait(0.01)
    return number


async def test_threads_and_tasks_share_one_load(cache: Cache) -> None:
    runs: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def load() -> int:
        runs.append("thread")
        begun.set()
        assert go_on.wait(PATIENCE)
        return 5

    async def aload() -> int:
        runs.append("task")
        begun.set()
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return 5

    with ThreadPoolExecutor(25) as pool:
        callers: list[asyncio.Future[int]] = []
        for _ in range(25):
            callers.append(asyncio.wrap_future(pool.submit(cache.get_or_load, "k", load)))
            callers.append(asyncio.ensure_future(cache.aget_or_load("k", aload)))
        while not (begun.is_set() and _joined(cache) == 49):
            await asyncio.sleep(0.001)
        go_on.set()
        assert await asyncio.gather(*callers) == [5] * 50
    assert len(runs) == 1


def test_two_processes_share_one_load_and_the_one_that_waits_is_given_the_value(
    cache: Cache, other: Cache, colour: Colour
) -> None:
    load = Load(colour)
    f, g = (each.cached(ttl=60)(load.fn) for each in (cache, other))
    leader = colour.start(f, 1)
    load.gate.reached()
    waiters = [colour.start(g, 1) for _ in range(10)]
    until(lambda: g.stats.waits == 10)
    load.gate.open()
    assert leader.result(PATIENCE) == {"number": 1, "run": 1}
    assert [waiter.result(PATIENCE) for waiter in waiters] == [{"number": 1, "run": 1}] * 10
    assert (f.stats.loads, g.stats.loads) == (1, 0)


def test_one_of_many_waiters_asks_redis_for_all(
    cache: Cache, other: Cache, colour: Colour, redis_server: RedisServer
) -> None:
    load = Load(colour)
    f, g = (each.cached(ttl=60)(load.fn) for each in (cache, other))
    leader = colour.start(f, 1)
    load.gate.reached()
    waiters = [colour.start(g, 1) for _ in range(20)]
    until(lambda: g.stats.waits == 20)
    # As many reads as callers at first, and then those of one watch: far from twenty callers' polling.
    reads = redis_server.cli("INFO", "commandstats")["cmdstat_mget"]["calls"]
    threading.Event().wait(0.5)
    assert redis_server.cli("INFO", "commandstats")["cmdstat_mget"]["calls"] - reads <= 60
    load.gate.open()
    for caller in (leader, *waiters):
        caller.result(PATIENCE)
    assert len(load.runs) == 1


def test_whoever_comes_after_an_invalidation_does_not_join_the_load_before_it(
    cache: Cache, other: Cache, colour: Colour
) -> None:
    load = Load(colour)
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"])(load.fn)
    for drop in (
        lambda: colour.on(other).invalidate(key="n:1"),
        lambda: colour.on(other).invalidate(pattern="n:*"),
        lambda: colour.on(other).invalidate(tags=["t"]),
        lambda: colour.on(other).clear(),
        lambda: colour(f.invalidate(1)),
        lambda: colour(f.invalidate_all()),
    ):
        load.runs.clear()
        load.gate.__init__()  # type: ignore[misc]  # closed again
        early = colour.start(f, 1)
        load.gate.reached()
        drop()
        late = colour.start(f, 1)
        load.gate.reached()  # a load of its own
        load.gate.open()
        early.result(PATIENCE)
        assert late.result(PATIENCE)["run"] == 2
        assert colour(f.get(1)) == late.result()
        colour(f.invalidate(1))


def test_a_loader_that_raises_leaves_no_lease_and_its_error_reaches_who_joined(
    cache: Cache, colour: Colour, redis_server: RedisServer
) -> None:
    gate = Gate()
    broken = LookupError("no such thing")

    @colour.loader
    def load(number: int) -> Any:
        yield gate
        raise broken

    f = cache.cached(ttl=60, key="n:{number}")(load)
    callers = [colour.start(f, 1) for _ in range(5)]
    gate.reached()
    until(lambda: _joined(cache) == 4)
    assert _holds_lease(redis_server, f.key(1))
    gate.open()
    assert [caller.exception(PATIENCE) for caller in callers] == [broken] * 5
    assert redis_server.cli("EXISTS", f.key(1)) == 0
    assert f.stats.loads == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_is_no_exception_passes_unchanged_and_leaves_no_lease(
    cache: Cache, redis_server: RedisServer, error: BaseException
) -> None:
    def load(number: int) -> None:
        raise error

    f = cache.cached(ttl=60, key="n:{number}")(load)
    with pytest.raises(type(error)) as raised:
        f(1)
    assert raised.value is error
    assert redis_server.cli("EXISTS", f.key(1)) == 0
    assert not cache.keeper.flights  # type: ignore[attr-defined]  # a RemoteKeeper


async def test_a_cancelled_leader_gives_its_lease_back_and_the_next_caller_loads(
    cache: Cache, other: Cache, redis_server: RedisServer
) -> None:
    runs: list[int] = []
    loading = asyncio.Event()

    async def load(number: int) -> int:
        runs.append(number)
        if len(runs) == 1:
            loading.set()
            await asyncio.Event().wait()
        return len(runs)

    f, g = (each.cached(ttl=60, key="n:{number}", lease=60)(load) for each in (cache, other))
    leader = asyncio.create_task(f(1))
    await loading.wait()
    joined = [asyncio.create_task(each(1)) for each in (f, f, g, g)]
    while f.stats.waits + g.stats.waits < 4:
        await asyncio.sleep(0.001)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    # The lease lasts a minute: had it not been given back, they would wait that long.
    assert await asyncio.wait_for(asyncio.gather(*joined), PATIENCE) == [2, 2, 2, 2]
    assert runs == [1, 1]


async def test_a_cancelled_waiter_leaves_the_load_alone(cache: Cache, other: Cache) -> None:
    loading, go_on = asyncio.Event(), asyncio.Event()

    async def load(number: int) -> int:
        loading.set()
        await go_on.wait()
        return 5

    f, g = (each.cached(ttl=60, key="n:{number}")(load) for each in (cache, other))
    leader = asyncio.create_task(f(1))
    await loading.wait()
    waiters = [asyncio.create_task(each(1)) for each in (f, g)]
    stays = asyncio.create_task(g(1))
    while f.stats.waits + g.stats.waits < 3:
        await asyncio.sleep(0.001)
    for waiter in waiters:
        waiter.cancel()
    assert [type(each) for each in await asyncio.gather(*waiters, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * 2
    go_on.set()
    assert await asyncio.wait_for(asyncio.gather(leader, stays), PATIENCE) == [5, 5]
    assert f.stats.loads + g.stats.loads == 1


async def test_a_caller_cancelled_at_any_point_leaves_no_flight_and_no_lease(
    cache: Cache, redis_server: RedisServer
) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"], lease=60)(_napping)
    await f(-1)
    for turns in range(40):
        task = asyncio.create_task(f(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not _holds_lease(redis_server, f.key(turns))
    assert not cache.keeper.flights  # type: ignore[attr-defined]  # a RemoteKeeper
    assert [await f(turns) for turns in range(40)] == list(range(40))


async def _napping(number: int) -> int:
    for _ in range(5):
        await asyncio.sleep(0)
    return number


def test_a_holder_that_died_is_replaced_within_its_lease(
    cache: Cache, colour: Colour, redis_server: RedisServer
) -> None:
    f = cache.cached(ttl=60, key="n:{number}", lease=0.3)(colour.loader(lambda number: [number]))
    colour(f(1))
    entry = redis_server.cli("GET", f.key(1))
    # What a process that was killed leaves behind: a lease with the stamps of now, that nobody keeps alive.
    placeholder = b"L" + b"x" * 16 + entry[17 : 18 + 16 * entry[17]]
    redis_server.cli("SET", f.key(1), placeholder, "PX", 300)
    assert colour.start(f, 1).result(PATIENCE) == [1]
    assert (f.stats.loads, f.stats.waits, f.stats.wait_timeouts) == (2, 1, 0)
    assert colour(f.get(1)) == [1]


def test_a_lease_shorter_than_the_load_is_kept_alive(cache: Cache, other: Cache, colour: Colour) -> None:
    load = Load(colour)
    f, g = (each.cached(ttl=60, key="n:{number}", lease=0.5)(load.fn) for each in (cache, other))
    leader = colour.start(f, 1)
    load.gate.reached()
    threading.Event().wait(1.0)
    waiter = colour.start(g, 1)
    until(lambda: g.stats.waits == 1)
    load.gate.open()
    assert leader.result(PATIENCE) == waiter.result(PATIENCE) == {"number": 1, "run": 1}
    assert (f.stats.store_lost, len(load.runs)) == (0, 1)


def test_a_short_lease_does_not_wait_for_a_long_one_to_be_due() -> None:
    renewed = threading.Event()

    def renew(effect: Renew) -> bool:
        assert effect.key == "short"
        renewed.set()
        return True

    heart = Heart(renew)
    try:
        heart.hold("long", b"held", 3000)
        until(lambda: heart._wakes < math.inf)  # its thread sleeps, for a quarter of an hour
        heart.hold("short", b"held", 0.05)
        assert renewed.wait(PATIENCE)
    finally:
        heart.close()


def test_a_lease_that_is_lost_or_ended_is_not_renewed_again() -> None:
    renewals: list[str] = []
    second = threading.Event()

    def renew(effect: Renew) -> bool:
        renewals.append(effect.key)
        if renewals.count("kept") == 2:
            second.set()
        return effect.key == "kept"

    heart = Heart(renew)
    try:
        heart.hold("lost", b"held", 0.05)
        heart.hold("ended", b"held", 0.05).end()
        heart.hold("kept", b"held", 0.1)
        assert second.wait(PATIENCE)
    finally:
        heart.close()
    assert (renewals.count("lost"), renewals.count("ended")) == (1, 0)


def test_patience_ends_and_the_caller_loads_for_itself_without_storing(
    cache: Cache, other: Cache, colour: Colour
) -> None:
    load = Load(colour)
    f = cache.cached(ttl=60, key="n:{number}")(load.fn)
    g = other.cached(ttl=60, key="n:{number}", wait=0.05)(colour.loader(lambda number: "impatient"))
    # Both are called the same, as the same function in two processes would be.
    g.__cachecraft__.function().own = f.__cachecraft__.function().own
    g.__cachecraft__.function().standing = f.__cachecraft__.function().standing
    leader = colour.start(f, 1)
    load.gate.reached()
    assert colour.start(g, 1).result(PATIENCE) == "impatient"
    assert g.stats.wait_timeouts == 1
    load.gate.open()
    leader.result(PATIENCE)
    assert colour(f.get(1)) == {"number": 1, "run": 1}


def test_a_loader_that_calls_itself_with_the_same_arguments_ends(cache: Cache, colour: Colour) -> None:
    depth: list[int] = []
    if colour.is_async:

        async def load(number: int) -> int:
            depth.append(number)
            return 1 if len(depth) > 1 else 1 + await f(number)
    else:

        def load(number: int) -> int:  # type: ignore[misc]  # the other colour
            depth.append(number)
            return 1 if len(depth) > 1 else 1 + f(number)

    f: Any = cache.cached(ttl=60, wait=30)(load)
    assert colour.start(f, 1).result(PATIENCE) == 2
    assert colour(f.get(1)) == 2


async def test_a_sync_call_on_the_loop_never_waits_for_a_task_of_that_loop(cache: Cache) -> None:
    """It would wait for ever for what only its own thread can go on with."""
    loading, go_on = asyncio.Event(), asyncio.Event()

    async def aload() -> int:
        loading.set()
        await go_on.wait()
        return 1

    leader = asyncio.create_task(cache.aget_or_load("k", aload))
    await loading.wait()
    began = time.monotonic()
    assert cache.get_or_load("k", lambda: 2, wait=3 * PATIENCE) == 2
    assert time.monotonic() - began < PATIENCE
    go_on.set()
    assert await leader == 1


def test_without_a_thread_for_its_lease_a_load_goes_on(
    cache: Cache, colour: Colour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that has used up its threads, or while the interpreter ends."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    @cache.cached(key="k:{x}")
    @colour.loader
    def load(x: int) -> int:
        return x

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert colour(load(1)) == 1
    assert colour(load.get(1)) == 1
    assert colour(load(2)) == 2
    assert cache.keeper.heart._alive  # type: ignore[attr-defined]  # the next load has one again


def test_a_result_that_cannot_be_copied_is_its_callers_all_the_same(cache: Cache, colour: Colour) -> None:
    @cache.cached(key="k:{x}", isolate=True)
    @colour.loader
    def load(x: int) -> Any:
        return threading.Lock()

    assert [type(colour(load(1))) for _ in range(2)] == [type(threading.Lock())] * 2
    assert load.stats.wait_timeouts == load.stats.errors == 0
    assert load.stats.refused == 2  # not stored


async def test_who_is_cancelled_while_tags_get_their_stamps_keeps_nobody_waiting(
    start_redis: Any,
) -> None:
    server = start_redis()
    async with Cache(server.url, timeout=PATIENCE) as cache, Cache(server.url, timeout=PATIENCE) as other:

        @cache.cached(key="k:{x}", tags=lambda result, x: ["t"], lease=60)
        async def load(x: int) -> int:
            server.pause()
            return x

        @other.cached(key="k:{x}", tags=lambda result, x: ["t"])
        async def elsewhere(x: int) -> int:
            return x

        await load.get(1)
        caller = asyncio.create_task(load(1))
        while not server.paused:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.sleep(0)
        server.resume()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert not _holds_lease(server, ":k:1")
        assert await asyncio.wait_for(elsewhere(1), PATIENCE) == 1
        assert elsewhere.stats.waits == 0


@pytest.mark.parametrize("behind", [False, True])
def test_a_load_whose_event_loop_was_closed_loses_its_lease(
    cache: Cache, other: Cache, redis_server: RedisServer, behind: bool
) -> None:
    """Without having been cancelled, and with somebody still holding on to its task."""
    calls: list[int] = []

    @cache.cached(key="k:{x}", ttl=0.05, jitter=None, stale=600 if behind else 0, lease=0.3)
    async def load(x: int) -> int:
        calls.append(x)
        if len(calls) == 1 + behind:
            await asyncio.sleep(math.inf)
        return len(calls)

    loop = asyncio.new_event_loop()
    if behind:
        loop.run_until_complete(load(1))
        time.sleep(0.06)  # past its ttl, as Redis counts it

    async def begin() -> Any:
        task = asyncio.create_task(load(1))
        while len(calls) < 1 + behind:
            await asyncio.sleep(0.001)
        return task

    task = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    leased = "shop:k:1~r" if behind else "shop:k:1"
    until(lambda: not redis_server.cli("EXISTS", leased))

    async def again() -> None:
        while await load(1) < 2 + behind:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(again(), PATIENCE))
    del task


async def test_a_call_that_blocks_its_event_loop_does_not_wait_for_a_task_of_that_loop(
    cache: Cache, other: Cache
) -> None:
    """The task watches a load elsewhere for all of its process, and could not go on."""
    gate = Gate()

    def elsewhere() -> str:
        gate.pass_through()
        return "theirs"

    leader = Sync().start(other.get_or_load, "k", elsewhere)
    gate.reached()
    watcher = asyncio.create_task(cache.aget_or_load("k", lambda: "mine"))
    while not cache.keeper.watches:  # type: ignore[attr-defined]  # a RemoteKeeper
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    began = time.monotonic()
    assert cache.get_or_load("k", lambda: "alone", wait=PATIENCE) == "alone"
    assert time.monotonic() - began < PATIENCE
    gate.open()
    assert await watcher == "theirs"
    assert leader.result(PATIENCE) == "theirs"
