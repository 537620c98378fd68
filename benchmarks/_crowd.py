"""Processes that wait for orders: each has a cache of its own on one server, and does what it is told, all at once."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self

sys.path.insert(0, str(Path(__file__).parent.parent))

from cachecraft import Cache

NAMESPACE: Final = "bench"
KEYS: Final = 10_000
EXPONENT: Final = 1.0
"""Of Zipf's law: how often each key is wanted, by its rank."""
_DRAWN: Final = 100_000


@dataclass(frozen=True)
class Use:
    """What one process did in its time."""

    reads: int = 0
    writes: int = 0
    near_hits: float = 0.0
    seconds: float = 1.0
    cpu: float = 0.0
    """Seconds of the processor."""
    received: float = 0.0


def load(item: int) -> str:
    return f"item {item}" + "x" * 100


class Worker:
    """One of them."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.cache: Cache | None = None
        draw = random.Random(seed)
        weights = list(accumulate(1 / rank**EXPONENT for rank in range(1, KEYS + 1)))
        self.items = draw.choices(range(KEYS), cum_weights=weights, k=_DRAWN)
        self.chances = [draw.random() for _ in range(_DRAWN)]
        self.f: Any = None

    def open(self, near: bool) -> None:
        self.cache = Cache(self.url, namespace=NAMESPACE, near=near, timeout=5)
        self.f = self.cache.cached(ttl=600, key="item:{item}")(load)
        self.f(0)
        while near and not self.cache.stats.near_entries:
            self.f(0)

    def warm(self) -> None:
        """Read everything once."""
        for item in range(KEYS):
            self.f(item)

    def close(self) -> None:
        if self.cache is not None:
            self.cache.close()
            self.cache = None

    def rest(self, seconds: float) -> Use:
        """Do nothing, but for what the cache does by itself."""
        assert self.cache is not None
        began, cpu, received = time.perf_counter(), time.process_time(), self.cache.stats.near_received
        time.sleep(seconds)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        return Use(seconds=took, cpu=cpu, received=self.cache.stats.near_received - received)

    def write(self, seconds: float, rate: float, by: str) -> Use:
        """Invalidate at a rate, or as fast as it goes if that is 0: one key, or one tag."""
        assert self.cache is not None
        writes, began, cpu = 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - began) < seconds:
            if rate and writes >= rate * passed:
                time.sleep(0.0005)
                continue
            item = self.items[writes % _DRAWN]
            if by == "key":
                self.cache.invalidate(key=f"item:{item}")
            else:
                # A tag falls only if it stands: whoever has read it since has set its stamp.
                self.cache.set("tagged", 1, tags=[f"t:{item}"])
                self.cache.invalidate(tags=[f"t:{item}"])
            writes += 1
        return Use(writes=writes, seconds=time.perf_counter() - began, cpu=time.process_time() - cpu)

    def zipf(self, seconds: float, share: float) -> Use:
        """Read what is wanted most, most; that share of the calls invalidates instead."""
        assert self.cache is not None
        f, calls = self.f, cycle(zip(self.items, self.chances, strict=True))
        hits, reads, writes = self.cache.stats.near_hits, 0, 0
        began, cpu = time.perf_counter(), time.process_time()
        until = began + seconds
        while time.perf_counter() < until:
            for item, chance in islice(calls, 50):
                if chance < share:
                    f.invalidate(item)
                    writes += 1
                else:
                    f(item)
                    reads += 1
        return Use(
            reads,
            writes,
            self.cache.stats.near_hits - hits,
            time.perf_counter() - began,
            time.process_time() - cpu,
        )


def _work(url: str, seed: int, line: Connection) -> None:
    worker = Worker(url, seed)
    while True:
        name, args = line.recv()
        if name == "end":
            break
        try:
            line.send(getattr(worker, name)(*args))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    worker.close()


class Crowd:
    """So many processes."""

    def __init__(self, url: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._lines: list[Connection] = []
        self._processes = []
        for seed in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(url, seed, theirs), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(ours)
            self._processes.append(process)

    def begin(self, who: slice, order: Callable[..., Any], *args: Any) -> Callable[[], list[Any]]:
        """Give an order to some of them. Answers a call that waits until all are done, and tells what they did."""
        lines = self._lines[who]
        for line in lines:
            line.send((order.__name__, args))
        return lambda: [line.recv() for line in lines]

    def do(self, who: slice, order: Callable[..., Any], *args: Any) -> list[Any]:
        return self.begin(who, order, *args)()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for line in self._lines:
            line.send(("end", ()))
        for process in self._processes:
            process.join(5)
