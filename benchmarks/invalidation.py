"""Milliseconds that an invalidation of a million entries in memory takes, ours beside its peers' and a dict's.

The call alone is timed: ours marks what is gone and leaves it to later calls to let go of it, in portions; the column
``next`` is the worst of the 2,000 calls that follow, a miss each. The collector of garbage is off, as it would only
tell how many objects there are. cashews, where it is installed, gets a two-hundredth of the entries: its time grows
with their square.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import cachebox
import cachetools

import cachecraft

LIMIT: Final = 1.5
"""Milliseconds, for the slowest round."""
AFTER: Final = 2_000
FEWER: Final = 200

Filled = tuple[Callable[[], object], Callable[[int], object]]
"""The invalidation of all that was filled in, and a call of the cached function."""


def ours(how: str, entries: int) -> Filled:
    cache = cachecraft.Cache(max_entries=2 * entries, max_bytes=None)

    @cache.cached(tags=["all"] if how == "tag" else ())
    def load(x: int) -> int:
        return x

    for x in range(entries):
        load(x)
    ways: dict[str, Callable[[], object]] = {
        "tag": lambda: cache.invalidate(tags=["all"]),
        "function": load.invalidate_all,
        "clear": cache.clear,
    }
    return ways[how], load


def by_dict(entries: int) -> Filled:
    kept = {x: (x, x) for x in range(entries)}
    return kept.clear, lambda x: kept.setdefault(x, (x, x))


def by_lru_cache(entries: int) -> Filled:
    load = functools.lru_cache(2 * entries)(lambda x: x)
    for x in range(entries):
        load(x)
    return load.cache_clear, load


def by_cachebox(entries: int) -> Filled:
    cache: Any = cachebox.TTLCache(2 * entries, global_ttl=600)
    load = cachebox.cached(cache)(lambda x: x)
    for x in range(entries):
        load(x)
    return cache.clear, load


def by_cachetools(entries: int) -> Filled:
    cache: Any = cachetools.TTLCache(2 * entries, 600)
    load = cachetools.cached(cache)(lambda x: x)
    for x in range(entries):
        load(x)
    return cache.clear, load


def by_cashews(how: str, entries: int) -> Filled:
    from cashews import Cache  # not among what the extra brings

    cache = Cache()
    cache.setup("mem://", size=4 * entries, check_interval=0)

    async def fill() -> None:
        for x in range(entries):
            await cache.set(f"load:{x}", x, expire=600, tags=["all"] if how == "tag" else ())

    if how == "tag":
        cache.register_tag("all", "load:{x}")
    entries //= FEWER
    RUNNER.run(fill())
    drop = {"tag": lambda: cache.delete_tags("all"), "clear": cache.clear}[how]
    return lambda: RUNNER.run(drop()), lambda x: RUNNER.run(cache.set(f"load:{x}", x, expire=600))


RUNNER: Final = asyncio.Runner()

CASES: Final[list[tuple[str, str, Callable[[int], Filled]]]] = [
    *((how, "cachecraft", functools.partial(ours, how)) for how in ("tag", "function", "clear")),
    ("clear", "dict", by_dict),
    ("clear", "lru_cache", by_lru_cache),
    ("clear", "cachebox", by_cachebox),
    ("clear", "cachetools", by_cachetools),
    *((how, f"cashews/{FEWER}", functools.partial(by_cashews, how)) for how in ("tag", "clear")),
]


def measure(make: Callable[[int], Filled], entries: int) -> tuple[float, float]:
    """Milliseconds of the invalidation, and of the worst call after it."""
    invalidate, call = make(entries)
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        invalidate()
        taken, worst = time.perf_counter() - begin, 0.0
        for x in range(AFTER):
            begin = time.perf_counter()
            call(x)
            worst = max(worst, time.perf_counter() - begin)
    finally:
        gc.enable()
    return taken * 1e3, worst * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help=f"exit 1 if ours takes more than {LIMIT} ms")
    options, _ = parser.parse_known_args()
    print(
        f"ms to invalidate {options.entries:,} entries, {options.rounds} rounds; limit {LIMIT} for ours, at its worst"
    )
    print(f"{'':10}{'':12}{'median':>10}{'worst':>10}{'next':>10}")
    missed = False
    for how, name, make in CASES:
        try:
            results = [measure(make, options.entries) for _ in range(options.rounds)]
        except ImportError:
            continue
        taken, after = zip(*results, strict=True)
        print(f"{how:10}{name:12}{median(taken):10.3f}{max(taken):10.3f}{max(after):10.3f}", flush=True)
        missed = missed or (name == "cachecraft" and max(taken) > LIMIT)
    return int(options.check and missed)


if __name__ == "__main__":
    sys.exit(main())
