"""What one process of a chaos run may rely on, and what it found: floors, counters, and notes of all that is wrong.

An invalidation is promised to other processes once the server has acknowledged it: when the journals of this process
are empty after it has returned. Until then it is promised to this process alone, and what others serve meanwhile is
counted apart (docs/outages.md, "What remains").
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos.source import is_made
from tests.race.truth import ERRORS, WRITES
from tests.race.worker import Worker

WRONG, UNTOLD, LEFT, UNWELL = range(6, 10)
"""Wrong values; reads that were stale within what is documented; what was left over; who did not cache in the end."""
HITS, STALE, BREAKS, JOURNALED, REFRESHES, FORKS, CANCELLED = range(10, 17)
SLOWEST, SLOWEST_ALONE = range(17, 19)
"""Microseconds over the loader: of all calls, and of those that nobody but their caller makes."""

_BUDGET: Final = 1_000_000
"""Microseconds that the first call in a freeze may cost; what is above is noted each time."""
_WORTH_NOTING: Final = 300_000
"""Microseconds of a new record."""


@dataclass(frozen=True)
class Floors:
    """What held for an item when a call started."""

    own: int
    """The version whose invalidation had returned in this process."""
    shared: int
    """The version whose invalidation had reached the server, whoever made it."""
    told: int
    """The version whose invalidation had returned anywhere."""
    at: float
    """When, by the monotonic clock."""


class Ledger:
    """Kept by all threads and tasks of a process."""

    def __init__(self, worker: Worker, notes: Path, journal: Callable[[], float]) -> None:
        self.worker = worker
        self.truth = worker.truth
        self._notes = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._journal = journal
        """How many invalidations wait."""
        self._own: dict[int, int] = {}
        """The floors within this process."""
        self._pending: dict[int, int] = {}
        self._lock = threading.Lock()

    def after_fork(self, number: int) -> None:
        """In a forked child: what the parent invalidated is so here; it counts for itself and writes nothing."""
        self.worker.number, self.worker.own = number, []
        self._lock = threading.Lock()
        self._pending = {}

    def note(self, text: str) -> None:
        """In one write, so that lines of many processes do not mix."""
        os.write(self._notes, f"{time.time()} worker {self.worker.number}: {text}\n".encode())

    def count(self, counter: int, by: int = 1) -> None:
        self.truth.count(self.worker.number, counter, by)

    def failed(self, text: str) -> None:
        """An exception that nobody's loader raised."""
        self.count(ERRORS)
        self.note(text)

    # -- writes ----------------------------------------------------------------------------------------------

    def returned(self, item: int, version: int) -> None:
        """The invalidation after the commit of a version has returned."""
        self.count(WRITES)
        self._own[item] = version
        self.truth.tell(item, version)
        with self._lock:
            self._pending[item] = version
        self.publish()

    def publish(self) -> None:
        """Let others rely on what has returned, if nothing waits: then all that had returned was acknowledged."""
        with self._lock:
            if self._pending and not self._journal():
                for item, version in self._pending.items():
                    self.truth.publish(item, version)
                self._pending = {}

    # -- reads -----------------------------------------------------------------------------------------------

    def floors(self, item: int) -> Floors:
        return Floors(self._own.get(item, 0), self.truth.floor(item), self.truth.told(item), time.monotonic())

    def read(self, what: str, kind: str, item: int, floors: Floors, value: Any) -> None:
        """Check what a call returned, given the floors when it started."""
        if not is_made(kind, item, value) or value[1] > self.truth.version(item):
            self.count(WRONG)
            self.note(f"WRONG {what}: {str(value)[:80]}")
            return
        version = value[1]
        if not self.worker.check(item, max(floors.own, floors.shared), value):
            ago = time.monotonic() - floors.at
            self.note(f"VIOLATION {what}, begun {ago:.3f} s ago: version {version} where {floors} hold")
        elif version < floors.told:
            self.count(UNTOLD)

    def took(self, seconds: float, what: str, *, alone: bool = False) -> None:
        """How long a call took beyond its loader."""
        cost = int(1e6 * seconds)
        higher = self.truth.raise_to(self.worker.number, SLOWEST_ALONE if alone else SLOWEST, cost)
        if cost > _BUDGET or (higher and cost > _WORTH_NOTING):
            self.note(f"slow: {what} took {seconds:.3f} s over its loader{' (alone)' if alone else ''}")


class Pulse:
    """Tells how long its owner, a thread or a loop, could not run: stopped or starved. That is no call's cost."""

    def __init__(self, every: float = 0.01) -> None:
        self.every = every
        self._lost = 0.0
        self._last = time.monotonic()

    def beat(self) -> None:
        """Now it runs; called about ``every`` so many seconds."""
        now = time.monotonic()
        self._lost += max(0.0, now - self._last - self.every)
        self._last = now

    def lost(self) -> float:
        return self._lost + max(0.0, time.monotonic() - self._last - self.every)
