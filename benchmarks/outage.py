"""What an outage of Redis costs: the first call, those while the breaker is open, many at once, and the way back."""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cachecraft import MISSING, Cache
from cachecraft._core.effects import Fetch
from cachecraft.backends.failures import Suspended
from tests.servers import RedisServer

CALLERS = 100


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def load(number: int) -> int:
    return number


async def aload(number: int) -> int:
    return number


class Round:
    """One server, one cache, frozen and killed once."""

    def __init__(self, server: RedisServer, loop: asyncio.Runner, *, tasks: bool) -> None:
        self.server = server
        self.loop = loop
        self.tasks = tasks
        self.cache = Cache(server.url, namespace="bench")
        self.f: Any = self.cache.cached(ttl=60, key="n:{number}")(aload if tasks else load)
        self.figures: dict[str, float] = {}

    def call(self, number: int = 1) -> Any:
        return self.loop.run(self.f(number)) if self.tasks else self.f(number)

    def look(self) -> Any:
        return self.loop.run(self.f.get(1)) if self.tasks else self.f.get(1)

    def together(self) -> None:
        async def tasks() -> None:
            await asyncio.gather(*map(self.f, range(CALLERS)))

        if self.tasks:
            self.loop.run(tasks())
        else:
            with ThreadPoolExecutor(CALLERS) as pool:
                list(pool.map(self.f, range(CALLERS)))

    def each(self, calls: int) -> list[float]:
        """Seconds of one call after the other, in the loop that they belong to."""
        if not self.tasks:
            return [timed(lambda: self.f(1)) for _ in range(calls)]

        async def one_by_one() -> list[float]:
            took = []
            for _ in range(calls):
                began = time.perf_counter()
                await self.f(1)
                took.append(time.perf_counter() - began)
            return took

        return self.loop.run(one_by_one())

    def until_cached(self) -> float:
        began = time.perf_counter()
        while self.look() is MISSING:
            self.call()
            time.sleep(0.001)
        return time.perf_counter() - began

    def run(self) -> dict[str, float]:
        self.call()
        self.server.pause()
        self.figures["first call, frozen (s)"] = timed(self.call)
        while not self.cache.stats.breaker_open:
            self.call()
        took = self.each(2000)
        self.figures["call, breaker open, p50 (us)"] = statistics.median(took) * 1e6
        self.figures["call, breaker open, p99 (us)"] = statistics.quantiles(took, n=100)[98] * 1e6
        self.figures["the check alone (us)"] = self.check() * 1e6
        time.sleep(2)  # by now the prober's pauses are at their longest
        self.server.resume()
        self.figures["caching again after SIGCONT (s)"] = self.until_cached()
        self.server.pause()
        self.figures[f"{CALLERS} callers at once, frozen (s)"] = timed(self.together)
        self.server.resume()
        self.until_cached()
        self.server.kill()
        gone = time.perf_counter()
        while time.perf_counter() - gone < 2:
            self.call()
        self.server.start()
        self.figures["caching again after kill and 2 s (s)"] = self.until_cached()
        self.cache.close()
        return self.figures

    def check(self) -> float:
        backend, effect = self.cache.driver.backend, Fetch("bench:n:1", ("bench:~root",))
        assert backend is not None
        took = []
        for _ in range(2000):
            began = time.perf_counter()
            try:
                backend.perform(effect)
            except Suspended:
                took.append(time.perf_counter() - began)
        return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("cachecraft").setLevel(logging.ERROR)
    print(f"the worst of {options.rounds} rounds; default deadlines; the loader returns at once")
    print(f"{'':40} {'threads':>10} {'tasks':>10}")
    rounds: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(options.rounds):
        for tasks, figures in rounds.items():
            with RedisServer() as server, asyncio.Runner() as loop:
                figures.append(Round(server, loop, tasks=tasks).run())
    for name in rounds[False][0]:
        worst = [max(figures[name] for figures in rounds[tasks]) for tasks in (False, True)]
        print(f"{name:40} {worst[0]:10.2f} {worst[1]:10.2f}")


if __name__ == "__main__":
    main()
