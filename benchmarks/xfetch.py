"""A hot key whose loader takes a second: how often do callers find it expired, and have to wait, with ``beta=``?

Callers come at random (a Poisson process) in virtual time: an event loop that jumps to its next timer, while cache,
decorator, refreshes and single flight are the real ones. Whoever waits would be one more loader in a cache without
single flight: a stampede. Vattani, Chierichetti and Lowenstein (VLDB 2015) show that refreshing at ``time left <=
-cost * beta * ln(random)`` is optimal; the column "expected" is what follows from that rule alone.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import selectors
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cachecraft import Cache

COST = 1.0
"""Seconds that the loader takes."""
TTL = 20.0
RATE = 5.0
"""Callers a second."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time passes only when there is nothing left to do, and then at once."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # which one depends on the platform
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self._loop.jump(timeout)
            timeout = 0
        return super().select(timeout)


class HotKey:
    """One key under one choice of options, and what happened to it and to its callers."""

    def __init__(self, clock: Any, options: dict[str, float]) -> None:
        self._clock = clock
        self.waited: Counter[float] = Counter()
        """Callers who had to wait, by the end of the load they waited for."""
        self.calls = 0
        self.loads = 0
        self.early: list[float] = []
        """Seconds that were left when a load began, where any were."""
        self._expires = 0.0
        cache = Cache(clock=clock, random=random.Random(2).random, jitter=None)
        self._call = cache.cached(ttl=TTL, key="hot", **options)(self._load)  # type: ignore[arg-type]  # by name

    async def _load(self) -> int:
        self.loads += 1
        if self._expires > self._clock():
            self.early.append(self._expires - self._clock())
        await asyncio.sleep(COST)
        self._expires = self._clock() + TTL
        return self.loads

    async def call(self) -> None:
        self.calls += 1
        began = self._clock()
        await self._call()
        if self._clock() > began:
            self.waited[self._clock()] += 1


async def crowd(options: dict[str, float], expirations: int) -> HotKey:
    """Callers come and go until the key has been loaded so often."""
    hot = HotKey(asyncio.get_running_loop().time, options)
    await hot.call()
    hot.waited.clear()  # there was nothing to expire yet
    chance, tasks = random.Random(1), set()
    while hot.loads <= expirations:
        await asyncio.sleep(chance.expovariate(RATE))
        task = asyncio.ensure_future(hot.call())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return hot


def expected(options: dict[str, float], steps: int = 10_000) -> float:
    """The share of expirations that callers should find, by theory: integrated over when the refresh begins."""
    ahead, beta = options.get("refresh_ahead", 0.0), options.get("beta", 0.0)
    none_yet, found, width = 1.0, 0.0, TTL / steps
    for step in range(steps):
        left = TTL - (step + 0.5) * width
        odds = math.exp(-left / (beta * COST)) if beta else float(left <= ahead)
        begins = none_yet * RATE * odds * width
        none_yet -= begins
        # The old entry ends before the new one is there, and somebody comes in between.
        found += begins * (1 - math.exp(-RATE * max(0.0, COST - left)))
    return found + none_yet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--expirations", type=int, default=1000)
    rounds = parser.parse_args().expirations
    print(f"ttl {TTL:g} s, loader {COST:g} s, {RATE:g} callers a second, {rounds} entries that come to their end")
    print(f"{'':15} {'loads':>6} {'found expired':>14} {'expected':>9} {'had to wait':>12} {'most at once':>13}"
          f" {'early loads':>12} {'by':>7}")  # fmt: skip
    for options in ({}, {"beta": 0.5}, {"beta": 1.0}, {"beta": 2.0}, {"refresh_ahead": 2.0}):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            hot = runner.run(crowd(options, rounds))
        name = ", ".join(f"{name}={value:g}" for name, value in options.items()) or "beta=0"
        early = sum(hot.early) / len(hot.early) if hot.early else 0.0
        print(f"{name:15} {rounds:6} {len(hot.waited) / rounds:13.1%}  {expected(options):9.1%}"
              f" {hot.waited.total():12} {max(hot.waited.values(), default=0):13} {len(hot.early):12}"
              f" {early:5.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
