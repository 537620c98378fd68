"""What it costs to be seen: a scrape, a snapshot, a report, by the number of functions and of entries in memory.

What it costs a call is told by ``hit_path.py`` and ``redis_hits.py``: nothing is recorded on a hit in memory, and on a
round trip to Redis two readings of the clock and a few additions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from cachecraft import Cache
from cachecraft._core.heat import Heat
from cachecraft._core.notes import Lately
from cachecraft._telling import Teller
from cachecraft.integrations.prometheus import register
from cachecraft.reports import Reporter


def cache_of(functions: int, entries: int) -> Cache:
    """A cache in memory, with so many entries over so many functions."""
    cache = Cache(max_entries=max(entries, 1), max_bytes=None)
    kept = []
    for number in range(functions):

        def load(x: int) -> int:
            return x

        load.__qualname__ = f"function_{number}"
        kept.append(cache.cached(load))
        for x in range(entries // functions):
            kept[-1](x)
    vars(cache)["kept"] = kept
    return cache


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print(f"{'functions':>9}{'entries':>9}{'snapshot ms':>13}{'scrape ms':>11}{'report ms':>11}{'report kB':>11}")
    for functions, entries in ((10, 0), (100, 0), (1000, 0), (10, 100_000), (10, 1_000_000)):
        cache = cache_of(functions, entries)
        registry = CollectorRegistry()
        register(cache, registry=registry)
        reporter = Reporter(Teller(cache), Heat(), Lately())
        report = reporter.content() or b""
        row = (
            milliseconds(cache.snapshot, rounds),
            milliseconds(lambda registry=registry: generate_latest(registry), rounds),
            milliseconds(reporter.content, rounds),
        )
        cells = "".join(f"{value:>{width}.1f}" for value, width in zip(row, (13, 11, 11), strict=True))
        print(f"{functions:9}{entries:9}{cells}{len(report) / 1e3:11.1f}", flush=True)
        cache.close()


if __name__ == "__main__":
    main()
