"""What a hit in Redis costs, ours beside redis-py's bare ``get``; 100 bytes, a server on loopback.

One caller at a time, as ratios to a bare socket that sends the same ``MGET`` and parses nothing; many at a time, as a
multiple of redis-py's ``get`` under the same load. Contestants take turns, round by round, and a ratio is the median
over the rounds. Ours reads the entry with the stamps of its function and namespace, checks whose it is, and decodes it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import redis
import redis.asyncio

sys.path.insert(0, str(Path(__file__).parent.parent))

from cachecraft import Cache
from tests.servers import RedisServer

VALUE: Final = "x" * 100
CALLS: Final = 2_000
THREADS: Final = 8


def load(number: int) -> str:
    return VALUE


async def aload(number: int) -> str:
    return VALUE


def bare(port: int, request: bytes, size: int) -> Callable[[], None]:
    """Send the bytes, read as many as there will be."""
    line = socket.create_connection(("127.0.0.1", port))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask() -> None:
        line.sendall(request)
        left = size
        while left:
            left -= len(line.recv(left))

    return ask


def per_call(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - began) / CALLS


async def aper_call(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - began) / CALLS


async def aper_call_of(tasks: int, call: Callable[[], Awaitable[object]]) -> float:
    async def some() -> None:
        for _ in range(max(1, CALLS * 2 // tasks)):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(tasks)))
    return (time.perf_counter() - began) / (max(1, CALLS * 2 // tasks) * tasks)


def per_call_of_threads(call: Callable[[], object]) -> float:
    gate = threading.Barrier(THREADS + 1)

    def some() -> None:
        gate.wait()
        for _ in range(CALLS // 4):
            call()

    crowd = [threading.Thread(target=some) for _ in range(THREADS)]
    for each in crowd:
        each.start()
    gate.wait()
    began = time.perf_counter()
    for each in crowd:
        each.join()
    return (time.perf_counter() - began) / (CALLS // 4 * THREADS)


def rounds(count: int, contestants: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {name: [] for name in contestants}
    for each in contestants.values():
        each()  # warm
    for _ in range(count):
        for name, measure in contestants.items():
            seen[name].append(measure())
    return seen


def show(what: str, seen: dict[str, list[float]], base: str, limit: str, *, speed: bool = False) -> None:
    for name, times in seen.items():
        if name != base:
            ratios = [a / b for a, b in zip(seen[base], times, strict=True)]
            ratio = median(ratios) if speed else 1 / median(ratios)
            print(f"{what:34}{name:18}{ratio:8.2f} x {base:14}{limit if name == 'cachecraft' else ''}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options, _ = parser.parse_known_args()
    with RedisServer() as server, Cache(server.url, namespace="shop", timeout=5) as cache, asyncio.Runner() as runner:
        f, g = cache.cached(ttl=3600)(load), cache.cached(ttl=3600, key="g:{number}")(aload)
        f(1), runner.run(g(1))
        client: Any = redis.Redis.from_url(server.url)
        client.set("plain", VALUE)
        aclient: Any = redis.asyncio.Redis.from_url(server.url, max_connections=2000)

        names = [f.key(1), "shop:~root", next(name.decode() for name in client.keys("shop:~fn:*load"))]
        request = b"*4\r\n$4\r\nMGET\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(n), n.encode()) for n in names)
        size = sum(len(client.get(n)) + len(b"$%d\r\n\r\n" % len(client.get(n))) for n in names) + 4
        ask = bare(server.port, request, size)

        one = {"bare socket": lambda: per_call(ask), "cachecraft": lambda: per_call(lambda: f(1))}
        one["redis-py get"] = lambda: per_call(lambda: client.get("plain"))
        show("sync, one at a time", rounds(options.rounds, one), "bare socket", "(limit 2.6)")

        def run(measure: Awaitable[float]) -> float:
            return runner.run(measure)  # type: ignore[arg-type]  # a coroutine

        aone = {"bare socket": lambda: per_call(ask), "cachecraft": lambda: run(aper_call(lambda: g(1)))}
        aone["redis.asyncio get"] = lambda: run(aper_call(lambda: aclient.get("plain")))
        show("async, one task", rounds(options.rounds, aone), "bare socket", "(limit 4.4)")
        for tasks, limit in ((10, 3), (100, 10), (1000, 12)):
            many = {
                "redis.asyncio": lambda tasks=tasks: run(aper_call_of(tasks, lambda: aclient.get("plain"))),
                "cachecraft": lambda tasks=tasks: run(aper_call_of(tasks, lambda: g(1))),
            }
            seen = rounds(options.rounds, many)
            show(f"async, {tasks} tasks: hits a second", seen, "redis.asyncio", f"(limit {limit})", speed=True)
        threads = {
            "redis-py": lambda: per_call_of_threads(lambda: client.get("plain")),
            "cachecraft": lambda: per_call_of_threads(lambda: f(1)),
        }
        show(f"{THREADS} threads: hits a second", rounds(options.rounds, threads), "redis-py", "(limit 2)", speed=True)
        runner.run(aclient.aclose())
        runner.run(cache.aclose())


if __name__ == "__main__":
    main()
