"""What is true and since when it was to be relied on, in memory shared by all processes.

``version`` is the committed version of an item, which only its owner raises. Whoever has invalidated an item publishes
the version that was committed before, with the time at which the invalidation had returned. Each process writes cells
of its own, eight bytes at a time, so nobody needs a lock; a time and a version share one cell.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from enum import IntEnum, auto
from pathlib import Path
from typing import Final

ITEMS: Final = 600
_RING: Final = 32
"""Of each item, what each process published last."""
_SHIFT: Final = 22
_VERSION: Final = (1 << _SHIFT) - 1

READY: Final = 1
"""The first phase: everybody is there. Then they count on, three to a round: race, end what is under way, compare."""
OVER: Final = -1
"""The last one."""
MOODS: Final = ("calm", "eager", "wide")
"""How callers choose what to do; see ``worker``."""


class Counter(IntEnum):
    """What each process counts."""

    READS = 0
    HITS = auto()
    WRITES = auto()
    LOADS = auto()
    OLD_HERE = auto()
    """Reads that were older than an invalidation of the same process."""
    OLD_ELSEWHERE = auto()
    """Reads that were older, by more than ``max_staleness``, than an invalidation of another process."""
    OLD_BEHIND_BARRIER = auto()
    """Reads behind a barrier that were older than an invalidation before it."""
    WORST = auto()
    """Microseconds by which a read was older than an invalidation of another process, at the most."""
    WRONG = auto()
    """Errors that should not be, and values of another item."""
    FAILED = auto()
    """Writes that Redis did not take at once."""
    COMPARED = auto()
    DIFFERENT = auto()
    """Entries held that were not what Redis serves."""


_MUTANT, _MOOD, _FAULTY, _BASE, _PHASE, _HEAD = range(6)
_DONE: Final = len(Counter)
"""Where a process says to the end of which phase it has come."""
_ROW: Final = len(Counter) + 1 + ITEMS * _RING


class History:
    """A mapped file of 64-bit integers."""

    def __init__(self, path: Path, processes: int) -> None:
        size = 8 * (_HEAD + ITEMS + processes * _ROW)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)
        self._cells = memoryview(self._memory).cast("q")
        self._processes = range(processes)

    # -- phases ----------------------------------------------------------------------------------------------

    @property
    def phase(self) -> int:
        return self._cells[_PHASE]

    @property
    def mutant(self) -> int:
        """Which guard is off in this round."""
        return self._cells[_MUTANT]

    @property
    def mood(self) -> int:
        """How callers choose what to do in this round."""
        return self._cells[_MOOD]

    @property
    def faulty(self) -> bool:
        """Whether things get lost in this round."""
        return bool(self._cells[_FAULTY])

    def begin(self, phase: int, *, mutant: int, mood: int, faulty: bool) -> None:
        """Begin a round, with all counters anew."""
        if not self._cells[_BASE]:
            self._cells[_BASE] = time.monotonic_ns() // 1000
        for each in self._processes:
            for counter in Counter:
                self._cells[self._row(each) + counter] = 0
        self._cells[_MUTANT], self._cells[_MOOD], self._cells[_FAULTY] = mutant, mood, faulty
        self.enter(phase)

    def enter(self, phase: int) -> None:
        self._cells[_PHASE] = phase

    def done(self, process: int, phase: int) -> None:
        self._cells[self._row(process) + _DONE] = phase

    def all_done(self, phase: int) -> bool:
        return all(self._cells[self._row(each) + _DONE] >= phase for each in self._processes)

    # -- items -----------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Microseconds since the beginning, the same in all processes."""
        return time.monotonic_ns() // 1000 - self._cells[_BASE]

    def version(self, item: int) -> int:
        return self._cells[_HEAD + item]

    def commit(self, item: int) -> int:
        self._cells[_HEAD + item] += 1
        return self._cells[_HEAD + item]

    def publish(self, process: int, item: int, version: int, turn: int) -> None:
        """An invalidation that began after the commit of ``version`` has returned; ``turn`` counts on."""
        self._cells[self._ring(process, item) + turn % _RING] = self.now() << _SHIFT | version

    def since(self, process: int, item: int, version: int, before: int) -> int | None:
        """Since when nothing as old as ``version`` is to be read, by what a process published before that time."""
        newer = [cell >> _SHIFT for cell in self._published(process, item) if cell & _VERSION > version]
        earliest = min(newer, default=before)
        return earliest if earliest < before else None

    def floor(self, item: int) -> int:
        """The highest version that was published."""
        return max(cell & _VERSION for each in self._processes for cell in self._published(each, item))

    # -- counters --------------------------------------------------------------------------------------------

    def count(self, process: int, counter: Counter, by: int = 1) -> None:
        self._cells[self._row(process) + counter] += by

    def raise_to(self, process: int, counter: Counter, value: int) -> None:
        cell = self._row(process) + counter
        self._cells[cell] = max(value, self._cells[cell])

    def total(self, counter: Counter) -> int:
        counted = (self._cells[self._row(each) + counter] for each in self._processes)
        return max(counted) if counter is Counter.WORST else sum(counted)

    def _row(self, process: int) -> int:
        return _HEAD + ITEMS + process * _ROW

    def _ring(self, process: int, item: int) -> int:
        return self._row(process) + _DONE + 1 + item * _RING

    def _published(self, process: int, item: int) -> Sequence[int]:
        ring = self._ring(process, item)
        return self._cells[ring : ring + _RING].tolist()

    def close(self) -> None:
        self._cells.release()
        self._memory.close()
