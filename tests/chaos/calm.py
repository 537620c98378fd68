"""After the faults: every function of a worker is cached again, and of caches that are closed nothing is left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from cachecraft import MISSING, Cache
from tests.chaos.kinds import Kind
from tests.chaos.ledger import BREAKS, HITS, JOURNALED, LEFT, REFRESHES, STALE, UNWELL, Ledger

PATIENCE: Final = 15.0
"""Seconds within which all is well after the last fault."""

_COUNTED: Final = {
    HITS: "hits",
    STALE: "stale",
    REFRESHES: "refreshes",
    BREAKS: "breaker_opened",
    JOURNALED: "journaled",
}


def _under_way(keepers: list[tuple[Any, Any]]) -> list[str]:
    """Flights, leases and tasks of caches that nobody calls."""
    found = []
    for keeper, crew in keepers:
        for name in ("flights", "leading", "watches", "refreshing"):
            found += [f"{name}: {each!r}" for each in list(getattr(keeper, name).values())]
        found += [f"lease: {each!r}" for each in list(keeper.heart._beats)]
        found += [f"task: {each!r}" for each in list(crew._tasks)]
    return found


def _running() -> list[str]:
    """Threads of caches that are closed, and tasks of anybody."""
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("cachecraft")]
    return threads + [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def settle(caches: list[Cache], kinds: list[Kind], akinds: list[Kind], ledger: Ledger) -> None:
    """The faults are over, and so are the calls."""
    deadline = time.monotonic() + PATIENCE
    for sync, tasks in zip(kinds, akinds, strict=True):
        while not (well := await _is_cached(sync, tasks, ledger.worker.number)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if not well:
            ledger.count(UNWELL)
            ledger.note(f"UNWELL: {sync.name} is not kept: {sync.cache.stats.as_dict()}")
    ledger.publish()
    for cache in caches:
        for counter, name in _COUNTED.items():
            ledger.count(counter, int(getattr(cache.stats, name)))
    keepers = [(cache.keeper, cache.driver.crew) for cache in caches]
    await _none_left(lambda: _under_way(keepers), ledger)
    for cache in caches:
        await cache.aclose()
    await _none_left(_running, ledger)


async def _is_cached(sync: Kind, tasks: Kind, item: int) -> bool:
    sync.call(item)
    by_threads = sync.get(item) is not MISSING
    await tasks.call(item)
    return by_threads and await tasks.get(item) is not MISSING


async def _none_left(found: Callable[[], list[str]], ledger: Ledger) -> None:
    deadline = time.monotonic() + PATIENCE
    while found() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    if left := found():
        ledger.count(LEFT, len(left))
        ledger.note(f"LEFT: {left}")
