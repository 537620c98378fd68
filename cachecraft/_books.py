"""The books of a cache: which functions there are and were, and the counters of each; knows nobody who reads them.

*A counter never goes down.* What a function counted stays when the function is gone, or when somebody has it begin
anew; under its name, so that the closures which one factory made are one function here.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from cachecraft._core.tally import NUMBERS, Tally
from cachecraft.stats import BY_HAND, OTHERS, Counted, outcomes

MOST: Final = 1000
"""Functions that have a name here: whoever monitors them is to be bounded too."""


class Place(Protocol):
    """Where hits in memory are counted: what memory holds for a function."""

    @property
    def hits(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def forget_hits(self) -> None: ...


class Record:
    """One function in the books."""

    __slots__ = ("label", "near", "place", "tally")

    def __init__(self, label: str) -> None:
        self.label = label
        self.tally = Tally()
        self.place: Place | None = None
        self.near = False
        """Whether that place is near to where entries are kept, rather than it."""

    def settle(self, place: Place | None, *, near: bool) -> None:
        """Its function has been bound to a place; to none in memory, perhaps."""
        self.place, self.near = place, near

    def leave(self) -> None:
        """Its function is about to be bound to another place, or to none."""
        place, self.place = self.place, None
        if place is not None:
            self._add_hits(self.tally, place)

    def sum(self) -> Tally:
        """All that it has counted, in a tally of its own."""
        total = Tally()
        total.add(self.tally)
        if self.place is not None:
            self._add_hits(total, self.place)
        return total

    def _add_hits(self, tally: Tally, place: Place) -> None:
        hits = place.hits
        tally.hits += hits
        tally.near_hits += hits if self.near else 0

    def __repr__(self) -> str:
        return f"<Record of {self.label}>"


class Books:
    """The records of one cache."""

    def __init__(self) -> None:
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self._lock = threading.RLock()
        self._live: dict[Record, weakref.ref[Any]] = {}
        self._gone: deque[Record] = deque()
        """Their functions were collected, perhaps in the middle of anything: there it is only noted."""
        self._past: dict[str, Tally] = {}
        """What was counted by those that are gone, by name."""
        self._told: dict[str, Counted] = {}
        """What the last reading came to."""
        self._names = {BY_HAND}

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def enter(self, owner: object, label: str) -> Record:
        """Open a record, to be closed when ``owner`` is collected."""
        self._settle()
        with self._lock:
            if label not in self._names and len(self._names) >= MOST:
                label = OTHERS
            self._names.add(label)
            record = Record(label)
            self._live[record] = weakref.ref(owner, _noting(self._gone, record))
        return record

    def begin_anew(self, record: Record) -> None:
        """Have a function count from nothing; what it has counted so far stays in the sums."""
        counted = record.sum()
        record.tally.__init__()  # type: ignore[misc]  # the same object, since others hold it
        if record.place is not None:
            record.place.forget_hits()
        self._keep(record.label, counted)

    def _settle(self) -> None:
        """Close the records of those that are gone."""
        while self._gone:
            try:
                record = self._gone.popleft()
            except IndexError:  # another thread was quicker
                return
            counted = record.sum()
            with self._lock:
                if self._live.pop(record, None) is not None:
                    self._keep(record.label, counted)

    def _keep(self, label: str, counted: Tally) -> None:
        with self._lock:
            self._past.setdefault(label, Tally()).add(counted)

    def sums(self) -> list[tuple[Record, Tally]]:
        """What was counted by each that is there, and by name by those that are not: nobody is in both."""
        self._settle()
        with self._lock:
            live = list(self._live)
            past = [(Record(label), _copy(tally)) for label, tally in self._past.items()]
        return [*past, *((record, record.sum()) for record in live)]

    def tallies(self) -> list[Tally]:
        """All that was ever counted."""
        return [tally for _, tally in self.sums()]

    def read(self) -> dict[str, Counted]:
        """What each function has counted, by name; no counter is less than the last time."""
        functions: dict[str, Counted] = {}
        for record, tally in self.sums():
            counted = functions.setdefault(record.label, Counted(tally))
            if counted.tally is not tally:
                counted.tally.add(tally)
            if record.place is not None:
                counted.entries += record.place.count
                counted.bytes += record.place.bytes
        with self._lock:
            for label, counted in functions.items():
                _complete(counted)
                if label in self._told:
                    _never_less(counted, self._told[label])
            self._told = dict(functions)
        if BY_HAND in functions and not _has_counted(functions[BY_HAND].tally):
            del functions[BY_HAND]  # most caches are never used so
        return functions

    def __len__(self) -> int:
        """How many functions there are."""
        self._settle()
        return len(self._live)

    def __repr__(self) -> str:
        return f"<Books: {len(self)} functions>"


def _noting(gone: deque[Record], record: Record) -> Callable[[object], None]:
    return lambda _: gone.append(record)


def _has_counted(tally: Tally) -> bool:
    return any(getattr(tally, name) for name in NUMBERS)


def _copy(tally: Tally) -> Tally:
    twin = Tally()
    twin.add(tally)
    return twin


def _complete(counted: Counted) -> None:
    """Work out what is told by a difference of counters."""
    tally = counted.tally
    tally.reasons = Counter(tally.all_reasons)
    counted.loads, counted.waits = tally.load_durations, tally.wait_durations
    counted.outcomes = +outcomes(tally)


def _never_less(counted: Counted, told: Counted) -> None:
    """Others count meanwhile, so a difference may come out one too small; to monitors that is a counter begun anew."""
    for name in NUMBERS:
        setattr(counted.tally, name, max(getattr(counted.tally, name), getattr(told.tally, name)))
    counted.tally.reasons |= told.tally.reasons
    counted.outcomes |= told.outcomes
    counted.loads.raise_to(told.loads)
    counted.waits.raise_to(told.waits)
