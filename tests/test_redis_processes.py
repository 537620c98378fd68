"""Workers made from a process that has used its cache, by fork and by spawn, and processes that end while at work."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from cachecraft import Cache, cached, configure
from tests.callers import PATIENCE
from tests.redis_kit import cache, in_child  # noqa: F401 - a fixture
from tests.servers import RedisServer


@cached(ttl=60, key="square:{number}")
def square(number: int) -> tuple[int, int]:
    """The result, and the process that worked it out."""
    return number * number, os.getpid()


def _in_worker(url: str, numbers: list[int]) -> list[tuple[int, int]]:
    configure(url, namespace="shop")
    return [square(number) for number in numbers]


def test_spawned_workers_share_what_was_kept(redis_url: str) -> None:
    """A function decorated at import reaches the worker by its name, and the cache is the worker's own."""
    try:
        before = _in_worker(redis_url, list(range(5)))
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = [pool.submit(_in_worker, redis_url, list(range(10))) for _ in range(2)]
            first, second = (each.result(PATIENCE * 3) for each in results)
        assert first[:5] == second[:5] == before
        assert first == second
        assert [value for value, _ in first] == [number * number for number in range(10)]
        assert _in_worker(redis_url, list(range(10))) == first
    finally:
        configure("memory://").close()
        configure("memory://")


def _lines(cache: Cache) -> tuple[int, int]:
    """The server's names for the connection of this process's threads, and for that of its tasks."""
    backend: Any = cache.driver.backend.backend  # type: ignore[union-attr]  # the one behind the guard

    async def of_tasks() -> int:
        return int((await backend._async.execute([("CLIENT", "ID")]))[0])

    return int(backend._sync.execute([("CLIENT", "ID")])[0]), asyncio.run(of_tasks())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_workers_forked_from_a_warm_master_share_no_connection(cache: Cache, redis_server: RedisServer) -> None:
    """As gunicorn does with an application loaded beforehand: three workers, and a fourth for one that was lost."""
    f = cache.cached(ttl=60, key="n:{number}")(lambda number: [number])
    masters = {f(1) and line for line in _lines(cache)}

    def worker() -> int:
        wrong = sum(f(number) != [number] for number in range(50))
        lines = _lines(cache)
        f.set(list(lines), f"lines of {os.getpid()}")
        return wrong + bool(masters & set(lines)) + int(f.stats.backend_errors)

    assert [in_child(worker) for _ in range(4)] == [0] * 4
    assert f(1) == [1]
    assert _lines(cache)[0] in masters, "the master goes on with what it had"
    of_workers = [redis_server.cli("GET", key) for key in redis_server.cli("KEYS", "shop:n:lines*")]
    assert len(of_workers) == 4
    alive = set(map(int, re.findall(rb"\bid=(\d+)", redis_server.cli("CLIENT", "LIST"))))
    assert masters & alive


@pytest.mark.parametrize("work", ["a refresh", "a load in a daemon thread", "an outage"])
def test_a_process_ends_within_a_second_whatever_is_under_way(redis_url: str, work: str) -> None:
    """Without a traceback, from its last line on."""
    code = f"""
    import threading, time
    from cachecraft import Cache
    work = {work!r}
    url = "redis://127.0.0.1:1/0" if work == "an outage" else {redis_url!r}
    cache = Cache(url, namespace="shop")
    under_way = threading.Event()
    def load(number):
        if work == "a load in a daemon thread" or f.stats.loads:
            under_way.set()
            time.sleep(600)
        return number
    f = cache.cached(ttl=60, key="n:{{number}}", refresh_ahead=59.99, jitter=None)(load)
    if work == "an outage":
        for number in range(5):
            cache.get_or_load(str(number), lambda: number)
            cache.delete(str(number))
    elif work == "a refresh":
        f(1)
        time.sleep(0.02)
        f(1)
        assert under_way.wait(10)
    else:
        threading.Thread(target=f, args=(1,), daemon=True).start()
        assert under_way.wait(10)
    print(time.time(), flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )
    ended = time.time()
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert ended - float(done.stdout) < 1.0
