"""Event loops, forks, closing and the end of the interpreter: a cache outlives some of them and holds up none."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachecraft import MISSING, Cache, ClosedError
from tests.callers import PATIENCE, until
from tests.redis_kit import cache, colour, in_child, other, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer


async def _aload(number: int) -> list[int]:
    await asyncio.sleep(0)
    return [number]


def _load(number: int) -> list[int]:
    return [number]


async def _busy(f: Any, calls: int = 200) -> int:
    """How many of many concurrent calls got a value that was not theirs."""
    values = await asyncio.gather(*(f(number % 20) for number in range(calls)))
    return sum(value != [number % 20] for number, value in enumerate(values))


# -- loops -----------------------------------------------------------------------------------------------------------


def _runners() -> list[Any]:
    runners = [pytest.param(asyncio.run, id="asyncio")]
    if sys.platform != "win32":
        uvloop = pytest.importorskip("uvloop")
        runners.append(pytest.param(uvloop.run, id="uvloop"))
    return runners


@pytest.mark.parametrize("run", _runners())
def test_a_cache_outlives_its_event_loops(cache: Cache, run: Callable[[Any], Any]) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(_aload)
    assert [run(_busy(f)) for _ in range(3)] == [0, 0, 0]
    assert (f.stats.loads, f.stats.backend_errors) == (20, 0)


def test_a_loop_that_is_abandoned_does_not_spoil_the_next(cache: Cache) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(_aload)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(f(1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    del loop
    gc.collect()
    assert asyncio.run(_busy(f)) == 0


@pytest.mark.parametrize("run", _runners())
def test_loops_in_threads_run_side_by_side_and_share_their_loads(cache: Cache, run: Callable[[Any], Any]) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(_aload)
    together = threading.Barrier(4)

    def in_a_loop() -> int:
        together.wait(PATIENCE)
        return int(run(_busy(f)))

    with ThreadPoolExecutor(4) as pool:
        assert [each.result(PATIENCE) for each in [pool.submit(in_a_loop) for _ in range(4)]] == [0] * 4
    assert (f.stats.loads, f.stats.backend_errors) == (20, 0)


def test_a_load_whose_loop_died_is_taken_over(cache: Cache) -> None:
    """The loop was stopped and closed under a running load: nobody will ever end it, nor give the lease back."""

    async def stuck(number: int) -> list[int]:
        await asyncio.Event().wait()
        return []

    async def begin() -> None:
        asyncio.ensure_future(cache.aget_or_load("k", lambda: stuck(1), lease=0.3))  # noqa: RUF006 - the exit of the process is to find it running
        while not cache.keeper.flights:  # type: ignore[attr-defined]  # a RemoteKeeper
            await asyncio.sleep(0.001)

    asyncio.run(begin())
    assert asyncio.run(cache.aget_or_load("k", lambda: 5, wait=PATIENCE)) == 5
    assert not cache.keeper.flights  # type: ignore[attr-defined]  # as above


# -- the end ---------------------------------------------------------------------------------------------------------


def test_close_lets_go_of_every_connection(redis_server: RedisServer, redis_url: str) -> None:
    def clients() -> int:
        return int(redis_server.cli("INFO", "clients")["connected_clients"])

    async def use(made: Cache) -> None:
        async with made:
            await made.aset("k", 1)
            made.set("k", 2)
            assert clients() > before

    before = clients()
    with Cache(redis_url, namespace="shop") as made, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: made.set(str(number), 1), range(8)))
        assert clients() > before
    until(lambda: clients() == before)
    asyncio.run(use(Cache(redis_url, namespace="shop")))
    until(lambda: clients() == before)


def test_the_end_of_a_loop_hangs_up_though_the_cache_goes_on(cache: Cache, redis_server: RedisServer) -> None:
    def clients() -> int:
        return int(redis_server.cli("INFO", "clients")["connected_clients"])

    before = clients()
    for _ in range(3):
        asyncio.run(cache.aset("k", 1))
    until(lambda: clients() == before)


def test_closing_under_load_hurts_nobody(redis_url: str) -> None:
    made = Cache(redis_url, namespace="shop")
    f = made.cached(ttl=60, key="n:{number}")(_load)
    over = threading.Event()
    wrong: list[Any] = []

    def call() -> None:
        while not over.is_set():
            for number in range(20):
                try:
                    if f(number) != [number]:
                        wrong.append(number)
                except BaseException as error:
                    wrong.append(error)

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    until(lambda: f.stats.hits > 50)
    made.close()
    time.sleep(0.05)
    over.set()
    for caller in callers:
        caller.join(PATIENCE)
    assert wrong == []


async def test_closing_ends_a_refresh_that_runs_behind(redis_url: str) -> None:
    refreshing, ended = asyncio.Event(), asyncio.Event()

    async def load(number: int) -> int:
        if f.stats.loads:
            refreshing.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return number

    async with Cache(redis_url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}", refresh_ahead=59.9, jitter=None)(load)
        await f(1)
        await asyncio.sleep(0.15)
        assert await f(1) == 1
        await asyncio.wait_for(refreshing.wait(), PATIENCE)
    await asyncio.wait_for(ended.wait(), PATIENCE)


def test_a_configured_cache_moves_to_its_new_place(redis_url: str) -> None:
    from cachecraft import cached, configure

    f = cached(ttl=60, key="n:{number}")(_load)
    try:
        configure(redis_url, namespace="one")
        f(1)
        assert f.get(1) == [1]
        configure(redis_url, namespace="two")
        assert f.get(1) is MISSING
        assert f.key(1) == "two:n:1"
    finally:
        configure("memory://").close()
        configure("memory://")


def test_a_closed_cache_says_so_and_its_context_manager_closes(redis_url: str) -> None:
    with Cache(redis_url, namespace="shop") as made:
        made.set("k", 1)
    made.close()  # a second time is no matter
    with pytest.raises(ClosedError):
        made.get("k")


# -- forks -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_after_a_fork_parent_and_child_go_on_with_connections_of_their_own(redis_url: str, kind: str) -> None:
    """Both clients are warm, and both processes are busy at once: no value may reach the wrong caller."""
    # With time enough for the busiest machine: this is about whose values they are.
    with Cache(redis_url, namespace="shop", timeout=PATIENCE, connect_timeout=PATIENCE) as cache:
        _fork_while_busy(cache, kind)


def _fork_while_busy(cache: Cache, kind: str) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(_load)
    g = cache.cached(ttl=60, key="m:{number}")(_aload)

    def busy_threads() -> int:
        with ThreadPoolExecutor(4) as pool:
            values = list(pool.map(f, [number % 20 for number in range(1000)]))
        return sum(value != [number % 20] for number, value in enumerate(values))

    def child() -> int:
        wrong = busy_threads() if kind == "threads" else asyncio.run(_busy(g, 1000))
        for each in (f, g):
            wrong += int(each.stats.backend_errors) + each.stats.reasons.get("corrupt", 0)
        return min(wrong, 50)

    async def parent() -> tuple[int, int]:
        await _busy(g)
        busy_threads()
        forked = asyncio.create_task(asyncio.to_thread(in_child, child))
        wrong = 0
        while not forked.done():
            wrong += await asyncio.to_thread(busy_threads) if kind == "threads" else await _busy(g, 200)
        return await forked, wrong + busy_threads() + await _busy(g)

    assert asyncio.run(parent()) == (0, 0)
    assert f.stats.backend_errors == g.stats.backend_errors == 0
    assert f.stats.reasons.get("corrupt", 0) == g.stats.reasons.get("corrupt", 0) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_does_not_wait_for_what_only_its_parents_threads_do(cache: Cache) -> None:
    """A load and a refresh were under way in the parent when it forked: they will never end in the child."""
    go_on = threading.Event()

    def load(number: int) -> str:
        if os.getpid() == parent:
            assert go_on.wait(PATIENCE)
            return "parent"
        return "child"

    parent = os.getpid()
    f = cache.cached(ttl=60, key="n:{number}", wait=PATIENCE * 3)(load)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(f, 1)
        until(lambda: f.stats.misses == 1 and cache.keeper.flights)  # type: ignore[attr-defined]  # a RemoteKeeper

        def child() -> int:
            # It sees the parent's lease, and waits for the value as any other process would.
            threading.Timer(0.2, lambda: cache.set("go on", True)).start()
            return 0 if f(1) == "parent" and f(2) == "child" else 1

        helper = threading.Thread(target=lambda: (until(lambda: cache.get("go on")), go_on.set()))
        helper.start()
        began = time.monotonic()
        assert in_child(child) == 0
        assert time.monotonic() - began < PATIENCE
        helper.join(PATIENCE)
        assert leader.result(PATIENCE) == "parent"


# -- whole processes -------------------------------------------------------------------------------------------------


def _python(url: str, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    prelude = f"""
    import asyncio, sys, threading, time
    from cachecraft import Cache
    cache = Cache({url!r}, namespace="shop")
    """
    program = textwrap.dedent(prelude) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )


@pytest.mark.parametrize("ending", ["", "cache.close()", "asyncio.run(cache.aclose())", "del f, cache"])
def test_no_warning_is_left_at_the_end(redis_url: str, ending: str) -> None:
    """Every warning is an error, ResourceWarning and DeprecationWarning among them, also those of destructors."""
    code = f"""
    async def load(number):
        return number
    f = cache.cached(ttl=60, key="n:{{number}}")(load)
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 60  # to warn of a busy machine is not its business
        assert await asyncio.gather(*map(f, range(50))) == list(range(50))
        task = asyncio.ensure_future(f(99))
        await asyncio.sleep(0)
        task.cancel()
    for _ in range(2):
        asyncio.run(main())
    cache.set("k", 1)
    {ending}
    """
    done = _python(redis_url, code, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_the_interpreter_ends_though_a_refresh_runs_behind(redis_url: str, kind: str) -> None:
    code = """
    refreshing = threading.Event()
    def load(number):
        if f.stats.loads:
            refreshing.set()
            time.sleep(600)
        return number
    f = cache.cached(ttl=60, key="n:{number}", refresh_ahead=59.9, jitter=None)(load)
    f(1)
    time.sleep(0.15)
    f(1)
    assert refreshing.wait(10)
    """
    if kind == "tasks":
        code = """
        async def load(number):
            if f.stats.loads:
                refreshing.set()
                await asyncio.sleep(600)
            return number
        f = cache.cached(ttl=60, key="n:{number}", refresh_ahead=59.9, jitter=None)(load)
        async def main():
            global refreshing
            refreshing = asyncio.Event()
            await f(1)
            await asyncio.sleep(0.15)
            await f(1)
            await asyncio.wait_for(refreshing.wait(), 10)
        asyncio.run(main())
        """
    began = time.monotonic()
    done = _python(redis_url, code)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < PATIENCE


def test_a_module_is_decorated_and_imported_without_a_server() -> None:
    done = _python(
        "redis://127.0.0.1:1/0",
        """
        f = cache.cached(ttl=60)(print)
        @cache.cached(ttl=60)
        def load(number):
            return number
        @cache.invalidates(load)
        def write(number):
            return number
        assert load(1) == 1
        """,
        "-X",
        "dev",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_leader_killed_in_its_load_is_replaced_within_its_lease(cache: Cache, redis_url: str) -> None:
    code = """
    def load():
        print("loading", flush=True)
        time.sleep(600)
    cache.get_or_load("k", load, lease=0.5)
    """
    prelude = f"import time\nfrom cachecraft import Cache\ncache = Cache({redis_url!r}, namespace='shop')\n"
    with subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "loading\n"
        loads: list[int] = []

        def load() -> int:
            loads.append(1)
            return 5

        with ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(cache.get_or_load, "k", load, lease=0.5, wait=PATIENCE) for _ in range(5)]
            until(lambda: cache.stats.waits >= 5)
            leader.kill()
            assert [each.result(PATIENCE) for each in waiting] == [5] * 5
    assert len(loads) == 1
