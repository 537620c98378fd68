"""How often a bounded memory has what is asked for, on made-up traces: ours, LRU, LFU, and the best there can be."""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from bisect import bisect
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

import cachetools
import moka_py

import cachecraft

ENTRIES: Final = 1000
LENGTH: Final = 100_000

Trace = list[int]


def zipf(chance: random.Random, exponent: float, items: int) -> Callable[[int], Trace]:
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, items + 1)))
    return lambda length: [bisect(weights, chance.random() * weights[-1]) for _ in range(length)]


def traces(chance: random.Random) -> dict[str, Trace]:
    popular = zipf(chance, 0.9, 20_000)
    narrow = zipf(chance, 0.7, 3_000)

    def scans() -> Iterable[int]:
        for start in itertools.count(10**6, 2000):
            yield from popular(4000)
            yield from range(start, start + 2000)

    def shifting(size: int, source: Callable[[int], Trace], step: int) -> Iterable[int]:
        for base in itertools.count(0, step):
            yield from (base + key for key in source(size))

    def working_sets() -> Iterable[int]:
        for base in itertools.count(0, 800):
            keys = list(range(base, base + 800))
            for _ in range(5):
                chance.shuffle(keys)
                yield from keys

    def recent() -> Iterable[int]:
        past: Trace = []
        for fresh in itertools.count():
            back = int(chance.expovariate(1 / 400))
            past.append(past[-1 - back] if back < len(past) and chance.random() < 0.8 else fresh)
            yield past[-1]

    endless: dict[str, Iterable[int]] = {
        "popular, zipf 0.6": zipf(chance, 0.6, 20_000)(LENGTH),
        "popular, zipf 0.8": zipf(chance, 0.8, 20_000)(LENGTH),
        "popular, zipf 1.0": zipf(chance, 1.0, 20_000)(LENGTH),
        "popular, zipf 1.2": zipf(chance, 1.2, 20_000)(LENGTH),
        "popular, with scans": scans(),
        "loop of 1.1 x the bound": itertools.cycle(range(ENTRIES * 11 // 10)),
        "popularity shifts": shifting(20_000, popular, 20_000),
        "popularity drifts": shifting(5000, narrow, 1500),
        "working sets": working_sets(),
        "recently used": recent(),
        "sliding window": (at // 20 + chance.randrange(900) for at in itertools.count()),
    }
    return {name: list(itertools.islice(trace, LENGTH)) for name, trace in endless.items()}


def decorated(decorate: Callable[[Callable[[int], int]], Callable[[int], int]], trace: Trace) -> float:
    misses = 0

    def load(x: int) -> int:
        nonlocal misses
        misses += 1
        return x

    call = decorate(load)
    for key in trace:
        call(key)
    return 1 - misses / len(trace)


def optimum(trace: Sequence[Hashable], entries: int = ENTRIES) -> float:
    """Belady: what is needed again last goes first."""
    again, seen = [0] * len(trace), dict[Hashable, int]()
    for at in reversed(range(len(trace))):
        again[at] = seen.get(trace[at], len(trace))
        seen[trace[at]] = at
    kept: dict[Hashable, int] = {}
    latest: list[tuple[int, int, Hashable]] = []
    hits = 0
    for at, key in enumerate(trace):
        hits += key in kept
        kept[key] = again[at]
        heapq.heappush(latest, (-again[at], at, key))
        while len(kept) > entries:
            when, _, candidate = heapq.heappop(latest)
            if kept.get(candidate) == -when:
                del kept[candidate]
    return hits / len(trace)


CONTESTANTS: Final[dict[str, Callable[[Trace], float]]] = {
    "cachecraft": lambda trace: decorated(cachecraft.Cache(max_entries=ENTRIES).cached(ttl=3600), trace),
    "LRU": lambda trace: decorated(cachetools.cached(cachetools.LRUCache(ENTRIES)), trace),
    "LFU": lambda trace: decorated(cachetools.cached(cachetools.LFUCache(ENTRIES)), trace),
    "moka-py": lambda trace: decorated(moka_py.cached(maxsize=ENTRIES), trace),
    "optimum": optimum,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    options, _ = parser.parse_known_args()
    print(f"hits in percent; {ENTRIES:,} entries, {LENGTH:,} calls, seed {options.seed}")
    print(f"{'':26}" + "".join(f"{name:>12}" for name in CONTESTANTS))
    for name, trace in traces(random.Random(options.seed)).items():
        print(f"{name:26}" + "".join(f"{100 * play(trace):12.1f}" for play in CONTESTANTS.values()), flush=True)


if __name__ == "__main__":
    main()
