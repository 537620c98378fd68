"""Load on a cache for so many seconds: callers, threads or tasks, that read without pause, and what each call took.

It knows the public methods of a cache and nothing beneath them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cachecraft._api import Cache
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import BackendError, BackendRefused
from cachecraft.cli.figures import percentile

KEYS = 64
TTL = 300.0
"""Seconds after which nothing is left of a run that was killed."""


@dataclass(frozen=True, slots=True)
class Level:
    """What so many callers at once came to. Times are in seconds."""

    kind: str
    """``threads`` or ``tasks``."""
    callers: int
    per_second: float
    """Hits: what failed counts for nothing."""
    p50: float
    p99: float
    worst: float
    failed: int


@contextlib.contextmanager
def filled(cache: Cache, size: int) -> Iterator[list[str]]:
    """Keys with values of ``size`` random bytes, for as long as they are needed.

    Raises:
        BackendError: they cannot be stored.
    """
    run = secrets.token_hex(4)
    names = [f"cachecraft-bench:{run}:{number}" for number in range(KEYS)]
    try:
        for name in names:
            if not cache.set(name, os.urandom(size), ttl=TTL):
                cache.ping()  # which says why
                raise BackendRefused("the values cannot be stored; `cachecraft doctor` may know why")
        yield names
    finally:
        with contextlib.suppress(BackendError):  # then their ttl removes them
            for name in names:
                cache.delete(name)


def by_threads(cache: Cache, names: Sequence[str], callers: int, seconds: float) -> Level:
    """Threads that read round and round."""
    logs: list[list[float]] = [[] for _ in range(callers)]
    failed = [0] * callers
    start, over = threading.Barrier(callers + 1), threading.Event()

    def call(at: int) -> None:
        note, get, clock = logs[at].append, cache.get, time.perf_counter
        mine = itertools.cycle([*names[at % KEYS :], *names[: at % KEYS]])
        get(next(mine))  # connect first
        start.wait()
        while not over.is_set():
            began = clock()
            if get(next(mine)) is MISSING:
                failed[at] += 1
            else:
                note(clock() - began)

    threads = [threading.Thread(target=call, args=(at,), name=f"caller-{at}", daemon=True) for at in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    try:
        over.wait(seconds)
    finally:
        over.set()
    for thread in threads:
        thread.join()
    return _level("threads", logs, sum(failed), time.perf_counter() - began)


def by_tasks(cache: Cache, names: Sequence[str], callers: int, seconds: float) -> Level:
    """Tasks of one event loop that read round and round."""
    logs: list[list[float]] = [[] for _ in range(callers)]
    failed = [0] * callers

    async def call(at: int, until: float) -> None:
        note, get, clock = logs[at].append, cache.aget, time.perf_counter
        mine = itertools.cycle([*names[at % KEYS :], *names[: at % KEYS]])
        while (began := clock()) < until:
            if await get(next(mine)) is MISSING:
                failed[at] += 1
            else:
                note(clock() - began)

    async def all_of_them() -> float:
        await cache.aget(names[0])  # connect first
        began = time.perf_counter()
        await asyncio.gather(*(call(at, began + seconds) for at in range(callers)))
        return time.perf_counter() - began

    took = asyncio.run(all_of_them())
    return _level("tasks", logs, sum(failed), took)


def _level(kind: str, logs: list[list[float]], failed: int, took: float) -> Level:
    waits = sorted(itertools.chain.from_iterable(logs))
    p50, p99 = percentile(waits, 50), percentile(waits, 99)
    return Level(kind, len(logs), len(waits) / took, p50, p99, waits[-1] if waits else 0.0, failed)
