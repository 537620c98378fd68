"""What is true, in memory shared by all processes: for each item, what is committed and what readers may rely on.

``version`` is the committed version of an item, ``floor`` the highest whose invalidation has returned and reached the
server. A call that starts when the floor is ``n`` must not return less than ``n``. ``told`` is the highest whose
invalidation has returned, even if it still waits in a journal of the process that made it. Each item has one writer,
so plain 8-byte writes suffice.
"""

from __future__ import annotations

import mmap
from pathlib import Path

ITEMS = 36
COUNTERS = 24
SLOTS = 64


class Truth:
    """Arrays of 64-bit integers in a mapped file: versions, floors, what was told, and what each worker counted."""

    def __init__(self, path: Path) -> None:
        size = 8 * (3 * ITEMS + SLOTS * COUNTERS)
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
        """The invalidation after the commit of ``version`` has returned, and the server has acknowledged it."""
        self._cells[ITEMS + item] = version

    def told(self, item: int) -> int:
        return self._cells[2 * ITEMS + item]

    def tell(self, item: int, version: int) -> None:
        """The invalidation after the commit of ``version`` has returned."""
        self._cells[2 * ITEMS + item] = version

    def count(self, worker: int, counter: int, by: int = 1) -> None:
        self._cells[_cell(worker, counter)] += by

    def raise_to(self, worker: int, counter: int, value: int) -> bool:
        """Keep the highest. Answers whether this is it."""
        higher = value > self._cells[_cell(worker, counter)]
        if higher:
            self._cells[_cell(worker, counter)] = value
        return higher

    def total(self, counter: int) -> int:
        return sum(self._cells[_cell(worker, counter)] for worker in range(SLOTS))

    def highest(self, counter: int) -> int:
        return max(self._cells[_cell(worker, counter)] for worker in range(SLOTS))

    def close(self) -> None:
        self._cells.release()
        self._memory.close()


def _cell(worker: int, counter: int) -> int:
    return 3 * ITEMS + worker * COUNTERS + counter


READS, WRITES, VIOLATIONS, LOADS, ERRORS, FAILED_WRITES = range(6)
