"""Bytes that an entry costs, from ``int`` to a short text, ours beside its peers' and a dict's (tracemalloc)."""

from __future__ import annotations

import argparse
import functools
import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import cachebox
import cachetools

import cachecraft

ENTRIES: Final = 100_000
LIMIT: Final = 2.0


def text(x: int) -> str:
    return f"value {x}"


def by_dict() -> Callable[[int], Any]:
    kept: dict[int, str] = {}

    def call(x: int) -> None:
        kept[x] = text(x)

    return call


CONTESTANTS: Final[dict[str, Callable[[], Callable[[int], Any]]]] = {
    "dict": by_dict,
    "cachecraft": lambda: cachecraft.Cache(max_entries=2 * ENTRIES).cached(ttl=60)(text),
    "cachebox": lambda: cachebox.cached(cachebox.TTLCache(2 * ENTRIES, global_ttl=60))(text),
    "cachetools": lambda: cachetools.cached(cachetools.TTLCache(2 * ENTRIES, 60))(text),
    "lru_cache": lambda: functools.lru_cache(2 * ENTRIES)(text),
}
"""moka-py keeps its entries where tracemalloc cannot see them."""


def bytes_each(make: Callable[[], Callable[[int], Any]]) -> float:
    call = make()
    call(-1)  # what comes once comes now
    gc.collect()
    tracemalloc.start()
    for x in range(1000, 1000 + ENTRIES):
        call(x)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / ENTRIES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help=f"exit 1 if ours takes more than {LIMIT} x a dict's")
    options, _ = parser.parse_known_args()
    used = {name: bytes_each(make) for name, make in CONTESTANTS.items()}
    print(f"{'':12}{'bytes':>8}{'x dict':>8}    of an entry, among {ENTRIES:,}; limit {LIMIT}")
    for name, each in used.items():
        print(f"{name:12}{each:8.0f}{each / used['dict']:8.2f}")
    return int(options.check and used["cachecraft"] > LIMIT * used["dict"])


if __name__ == "__main__":
    sys.exit(main())
