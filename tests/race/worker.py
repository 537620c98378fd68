"""One process of the race: a few threads, or a few tasks, that read and now and then write, and check what they get."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cachecraft import BackendError, Cache
from tests.race.naive import NaiveItems
from tests.race.truth import ERRORS, FAILED_WRITES, ITEMS, LOADS, READS, VIOLATIONS, WRITES, Truth

CALLERS = 4


class Worker:
    """Knows the truth, and how to read, write and check."""

    def __init__(self, truth: Truth, number: int, workers: int, *, slow: float) -> None:
        self.truth = truth
        self.number = number
        self.own = [item for item in range(ITEMS) if item % workers == number]
        self.slow = slow
        self.random = random.Random(number)

    def began(self, item: int) -> tuple[int, float]:
        """What a loader sees as it begins, and how long it takes."""
        self.truth.count(self.number, LOADS)
        nap = self.random.expovariate(1 / self.slow)
        return self.truth.version(item), min(nap, 10 * self.slow)

    def check(self, item: int, floor: int, value: Sequence[Any]) -> bool:
        """Count a read. Answers whether it may be: of this item, and not older than its ``floor``."""
        self.truth.count(self.number, READS)
        right = bool(value[0] == item and value[1] >= floor)
        self.truth.count(self.number, VIOLATIONS, by=not right)
        return right

    def pick(self) -> tuple[bool, int]:
        if self.own and self.random.random() < 0.04:
            return True, self.random.choice(self.own)
        return False, min(int(self.random.expovariate(0.25)), ITEMS - 1)


def items(cache: Cache, load: Callable[..., Any], *, lease: float) -> tuple[list[Any], list[Callable[[int], Any]]]:
    """Three ways to keep an item and to drop it: by key, by pattern, by tag. Items are dealt out among them."""
    by_key = cache.cached(ttl=60, key="key:{item}", lease=lease, stale=5)(load)
    by_pattern = cache.cached(ttl=60, key="pattern:{item}:x", lease=lease)(load)
    by_tag = cache.cached(ttl=60, tags=["item:{item}"], lease=lease)(load)
    plain, patterns, tags = by_key.invalidate, cache.invalidate, cache.invalidate
    if asyncio.iscoroutinefunction(load):
        patterns = tags = cache.ainvalidate
    return [by_key, by_pattern, by_tag], [
        plain,
        lambda item: patterns(pattern=f"pattern:{item}:*"),
        lambda item: tags(tags=[f"item:{item}"]),
    ]


def run_threads(worker: Worker, url: str, kind: str, until: float, lease: float) -> None:
    def load(item: int) -> list[int]:
        version, nap = worker.began(item)
        time.sleep(nap)
        return [item, version]

    if kind == "naive":
        naive = NaiveItems(url, load)
        reads, drops = [naive.read] * 3, [naive.invalidate] * 3
    else:
        cache = Cache(url, namespace="race", timeout=1.0, on_unreachable="raise")
        reads, drops = items(cache, load, lease=lease)

    def go() -> None:
        while time.time() < until:
            write, item = worker.pick()
            try:
                if write:
                    with guard[item]:
                        version = worker.truth.commit(item)
                        drops[item % 3](item)
                        worker.truth.publish(item, version)
                    worker.truth.count(worker.number, WRITES)
                else:
                    floor = worker.truth.floor(item)
                    worker.check(item, floor, reads[item % 3](item))
            except BackendError:
                worker.truth.count(worker.number, FAILED_WRITES)
            except Exception as error:
                worker.truth.count(worker.number, ERRORS)
                print(f"worker {worker.number}: {error!r}", file=sys.stderr, flush=True)

    guard = {item: threading.Lock() for item in worker.own}
    threads = [threading.Thread(target=go) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if kind != "naive":
        cache.close()


async def run_tasks(worker: Worker, url: str, until: float, lease: float) -> None:
    async def load(item: int) -> list[int]:
        version, nap = worker.began(item)
        await asyncio.sleep(nap)
        return [item, version]

    async with Cache(url, namespace="race", timeout=1.0, on_unreachable="raise") as cache:
        reads, drops = items(cache, load, lease=lease)
        guard = {item: asyncio.Lock() for item in worker.own}

        async def go() -> None:
            while time.time() < until:
                write, item = worker.pick()
                try:
                    if write:
                        async with guard[item]:
                            version = worker.truth.commit(item)
                            await drops[item % 3](item)
                            worker.truth.publish(item, version)
                        worker.truth.count(worker.number, WRITES)
                    else:
                        floor = worker.truth.floor(item)
                        worker.check(item, floor, await reads[item % 3](item))
                except BackendError:
                    worker.truth.count(worker.number, FAILED_WRITES)
                except Exception as error:
                    worker.truth.count(worker.number, ERRORS)
                    print(f"worker {worker.number}: {error!r}", file=sys.stderr, flush=True)

        await asyncio.gather(*(go() for _ in range(CALLERS)))


def main(argv: list[str]) -> None:
    name, number, workers, url, kind, until, lease, slow = argv
    truth = Truth(Path(name))
    worker = Worker(truth, int(number), int(workers), slow=float(slow))
    try:
        if kind == "tasks":
            asyncio.run(run_tasks(worker, url, float(until), float(lease)))
        else:
            run_threads(worker, url, kind, float(until), float(lease))
    finally:
        truth.close()


if __name__ == "__main__":
    main(sys.argv[1:])
