"""What is true, in memory shared by all processes: for each item, what is committed and what readers may rely on.

``version`` is the committed version of an item, ``floor`` the highest whose invalidation has returned. A call that
starts when the floor is ``n`` must not return less than ``n``. Each item has one writer, so plain
8-byte writes suffice.
"""

from __future__ import annotations

import mmap
from pathlib import Path

ITEMS = 24
COUNTERS = 8
SLOTS = 64


class Truth:
    """Arrays of 64-bit integers in a mapped file: versions, floors, and what each worker counted."""

    def __init__(self, path: Path) -> None:
        size = 8 * (2 * ITEMS + SLOTS * COUNTERS)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)
        self._cells = memoryview(self._memory).cast("q")

    def version(self, item: int) -> int:
        return self._cells[item]

    def commit(self, item: int) -> int:
        self._cells[item] += 1
        return self._cells[item]

    def floor(self, item: int) -> int:
        return self._cells[ITEMS + item]

    def publish(self, item: int, version: int) -> None:
        """The invalidation after the commit of ``version`` has returned."""
        self._cells[ITEMS + item] = version

    def count(self, worker: int, counter: int, by: int = 1) -> None:
        self._cells[2 * ITEMS + worker * COUNTERS + counter] += by

    def total(self, counter: int) -> int:
        return sum(self._cells[2 * ITEMS + worker * COUNTERS + counter] for worker in range(SLOTS))

    def close(self) -> None:
        self._cells.release()
        self._memory.close()


READS, WRITES, VIOLATIONS, LOADS, ERRORS, FAILED_WRITES = range(6)
