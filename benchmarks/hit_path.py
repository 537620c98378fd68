"""What a call costs, a hit or a miss, ours beside its peers', as ratios to cachebox; nobody rests while another runs.

Contestants take turns round by round in one process, each in a loop compiled for it alone, so that its call sites
specialise; a ratio is the median over the rounds, each against cachebox's loop of the same round. What we lose is here
too: ``functools.lru_cache`` is C to the bone, and has no ttl, no single flight and no async. moka-py runs without its
single flight (``wait_concurrent=True``), which costs it a third of a hit and half of a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import cachebox
import cachetools
import moka_py

import cachecraft

ENTRIES: Final = 10_000
TTL: Final = 60
CALLS: Final = 1_000
"""Calls of one contestant in one round."""

Decorator = Callable[[Callable[..., Any]], Any]

SYNC: Final[dict[str, Callable[[], Decorator]]] = {
    "cachecraft": lambda: cachecraft.Cache(max_entries=ENTRIES).cached(ttl=TTL),
    "cachebox": lambda: cachebox.cached(cachebox.TTLCache(ENTRIES, global_ttl=TTL)),
    "moka-py": lambda: moka_py.cached(maxsize=ENTRIES, ttl=TTL),
    "cachetools": lambda: cachetools.cached(cachetools.TTLCache(ENTRIES, TTL), lock=threading.RLock()),
    "lru_cache": lambda: functools.lru_cache(ENTRIES),
}
ASYNC: Final = {name: SYNC[name] for name in ("cachecraft", "cachebox", "moka-py")}


@dataclass
class Case:
    """One kind of call: ``call`` is written out in the loop, where ``i`` is a number never seen before."""

    name: str
    limit: float | None
    call: str
    function: Callable[[Decorator], Any]
    is_async: bool = False
    warm: int = 0
    """Calls to make before the rounds: enough to fill the cache, for misses that evict."""
    times: dict[str, list[float]] = field(default_factory=dict)

    @property
    def makers(self) -> dict[str, Callable[[], Decorator]]:
        return ASYNC if self.is_async else SYNC

    def prepare(self) -> dict[str, Callable[[int, int], float]]:
        """A loop for each contestant: from a number on, so many calls, in seconds."""
        loops = {}
        for name, make in self.makers.items():
            loops[name] = _compile(self.call, self.function(make()), is_async=self.is_async)
            self.times[name] = []
            loops[name](0, self.warm or CALLS)
        return loops

    def ratio(self, name: str) -> float | None:
        if name not in self.times:
            return None
        return median(ours / base for ours, base in zip(self.times[name], self.times["cachebox"], strict=True))


def _compile(call: str, target: Any, *, is_async: bool) -> Callable[[int, int], float]:
    source = f"""
{"async " * is_async}def loop(start, count):
    begin = clock()
    for i in range(start, start + count):
        {"await " * is_async}{call}
    return clock() - begin
"""
    space = {"f": target, "clock": time.perf_counter}
    exec(compile(source, "<loop>", "exec"), space)  # noqa: S102 - the text stands above
    loop: Any = space["loop"]
    if is_async:
        return lambda start, count: RUNNER.run(loop(start, count))
    return loop  # type: ignore[no-any-return]  # made above


RUNNER: Final = asyncio.Runner()


def plain(decorate: Decorator) -> Any:
    @decorate
    def f(x: int) -> int:
        return x

    return f


def mixed(decorate: Decorator) -> Any:
    @decorate
    def f(a: str, b: int, *, c: int = 1) -> int:
        return b

    return f


def method(decorate: Decorator) -> Any:
    class Owner:
        @decorate
        def f(self, x: int) -> int:
            return x

    return Owner()


def plain_async(decorate: Decorator) -> Any:
    @decorate
    async def f(x: int) -> int:
        return x

    return f


def mixed_async(decorate: Decorator) -> Any:
    @decorate
    async def f(a: str, b: int, *, c: int = 1) -> int:
        return b

    return f


def cases() -> list[Case]:
    fill = 2 * ENTRIES
    return [
        Case("hit f(int)", 0.40, "f(5)", plain),
        Case("hit f(str, int, kw=)", 0.35, "f('a', 5, c=2)", mixed),
        Case("hit method", 0.50, "f.f(5)", method),
        Case("hit async f(int)", 0.42, "f(5)", plain_async, is_async=True),
        Case("hit async f(str, int, kw=)", 0.40, "f('a', 5, c=2)", mixed_async, is_async=True),
        Case("miss f(int)", 0.80, "f(i)", plain, warm=fill),
        Case("miss f(str, int, kw=)", None, "f('a', i, c=2)", mixed, warm=fill),
        Case("miss method", None, "f.f(i)", method, warm=fill),
        Case("miss async f(int)", 0.70, "f(i)", plain_async, is_async=True, warm=fill),
    ]


def measure(case: Case, rounds: int) -> None:
    loops = case.prepare()
    start = case.warm
    for _ in range(rounds):
        for name, loop in loops.items():
            case.times[name].append(loop(start, CALLS))
        start += CALLS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    options = parser.parse_args()
    names = list(SYNC)
    print(f"x cachebox, lower is better; medians of {options.rounds} rounds of {CALLS} calls; ns is cachebox's own")
    print(f"{'':27}{'ns':>6}{'limit':>8}" + "".join(f"{name:>12}" for name in names))
    missed = []
    for case in cases():
        measure(case, options.rounds)
        ratios = {name: case.ratio(name) for name in names}
        base = median(case.times["cachebox"]) / CALLS * 1e9
        limit = "" if case.limit is None else f"{case.limit:.2f}"
        row = "".join(f"{'-' if ratio is None else f'{ratio:.2f}':>12}" for ratio in ratios.values())
        print(f"{case.name:27}{base:6.0f}{limit:>8}{row}", flush=True)
        ours = ratios["cachecraft"]
        if case.limit is not None and ours is not None and ours > case.limit:
            missed.append(f"{case.name}: {ours:.3f} > {case.limit}")
    for line in missed:
        print(f"missed: {line}")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
