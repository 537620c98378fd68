"""One process of a stampede: many callers ask for one missing key at the same moment; prints what each waited."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

from cachecraft import Cache

KEY = "the one key"


def note(path: str) -> None:
    """A load begins: say so where every process can count it."""
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % os.getpid())


def threads(cache: Cache, path: str, callers: int, nap: float, lease: float) -> list[float]:
    def load() -> str:
        note(path)
        time.sleep(nap)
        return "loaded"

    waited: list[float] = []
    gate = threading.Barrier(callers + 1)

    def call() -> None:
        gate.wait()
        began = time.perf_counter()
        assert cache.get_or_load(KEY, load, lease=lease) == "loaded"
        waited.append(time.perf_counter() - began)

    _let_loose([threading.Thread(target=call) for _ in range(callers)], gate)
    return waited


def bare(callers: int, nap: float) -> list[float]:
    """The least that threads can do: one naps, and each of the others waits at a lock of its own until it has."""
    waited: list[float] = []
    gate = threading.Barrier(callers + 1)
    locks = [threading.Lock() for _ in range(callers)]

    def call(number: int) -> None:
        gate.wait()
        began = time.perf_counter()
        if number:
            locks[number].acquire(timeout=10)
        else:
            time.sleep(nap)
            for lock in locks:
                lock.release()
        waited.append(time.perf_counter() - began)

    for lock in locks:
        lock.acquire()
    _let_loose([threading.Thread(target=call, args=(number,)) for number in range(callers)], gate)
    return waited


def _let_loose(crowd: list[threading.Thread], gate: threading.Barrier) -> None:
    for each in crowd:
        each.start()
    ready()
    gate.wait()
    for each in crowd:
        each.join()


async def tasks(cache: Cache, path: str, callers: int, nap: float, lease: float) -> list[float]:
    async def load() -> str:
        note(path)
        await asyncio.sleep(nap)
        return "loaded"

    async def call() -> float:
        began = time.perf_counter()
        assert await cache.aget_or_load(KEY, load, lease=lease) == "loaded"
        return time.perf_counter() - began

    async with cache:
        await cache.aget("warm")
        ready()
        return list(await asyncio.gather(*(call() for _ in range(callers))))


def ready() -> None:
    """Wait until everybody is: the parent says go."""
    print("ready", flush=True)
    sys.stdin.readline()


def main(argv: list[str]) -> None:
    url, path, colour, callers, nap, lease = argv
    if colour == "bare":
        print(json.dumps(bare(int(callers), float(nap))), flush=True)
        return
    cache = Cache(url, namespace="crowd", pool_size=64, timeout=2.0)
    arguments: Any = (cache, path, int(callers), float(nap), float(lease))
    cache.get("warm")
    waited = asyncio.run(tasks(*arguments)) if colour == "tasks" else threads(*arguments)
    print(json.dumps(waited), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
