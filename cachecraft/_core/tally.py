"""The counters of one function, as plain numbers; knows nobody who reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from cachecraft._core.durations import BOUNDS, QUICK, Durations, no_counts


@dataclass(slots=True)
class Tally:
    """The counters of one function. Plain additions: each is one bytecode away from atomic under the GIL.

    Another number is one more field: statistics, metrics and what is published take it from here.
    """

    hits: int = 0
    """Hits counted here; those in memory are added from the nodes."""
    near_hits: int = 0
    """Of the hits, those served from the near cache."""
    misses: int = 0
    """Calls that found nothing to serve, those that joined another's load included."""
    raised: int = 0
    """Of the misses, those that ended in the loader's exception, whoever ran the loader."""
    loads: int = 0
    """Times the loader ran."""
    load_time: float = 0.0
    """Seconds spent in the loader, over all loads."""
    errors: int = 0
    """Loads that raised."""
    stale: int = 0
    """Calls served with a value past its ttl (``stale=`` and ``grace=``)."""
    grace: int = 0
    """Of these, the misses: loading failed or took too long."""
    waits: int = 0
    """Calls that waited for a load of somebody else."""
    wait_time: float = 0.0
    """Seconds spent in such waits that have ended."""
    wait_timeouts: int = 0
    """Waits whose patience ended; these callers loaded for themselves."""
    refreshes: int = 0
    """Loads behind a caller's back."""
    store_lost: int = 0
    """Results not stored, because an invalidation came while they were loaded, or the lease was lost."""
    not_kept: int = 0
    """Results that ``when=`` declined."""
    refused: int = 0
    """Results that could not be stored: no serializer for them, or too large."""
    invalidated: int = 0
    """Entries removed by invalidation, where known."""
    backend_errors: int = 0
    """Failures of the backend that the caller was spared."""
    verified: int = 0
    """Hits that were compared with what the loader returns now (``verify=``)."""
    differed: int = 0
    """Of these, those that were not equal, though nothing had been invalidated."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Misses by reason: absent, expired, invalidated, corrupt, encryption, schema, unreachable, ...

    A miss without one is one of a key that was absent: the quickest misses in memory do not say so.
    """
    load_counts: list[int] = field(default_factory=no_counts)
    """Loads by duration (see ``durations``), but for the quickest: those are the rest of ``loads``."""
    wait_counts: list[int] = field(default_factory=no_counts)
    """Waits that have ended, by duration."""

    def loaded(self, seconds: float) -> None:
        """A load has ended."""
        self.loads += 1
        self.load_time += seconds
        if seconds > QUICK:
            self.load_counts[bisect_left(BOUNDS, seconds)] += 1

    def waited(self, seconds: float) -> None:
        """A wait has ended."""
        self.wait_time += seconds
        self.wait_counts[bisect_left(BOUNDS, seconds)] += 1

    def missed(self, reason: str) -> None:
        self.misses += 1
        self.reasons[reason] += 1

    @property
    def load_durations(self) -> Durations:
        slow = self.load_counts[1:]
        return Durations([max(0, self.loads - sum(slow)), *slow], self.load_time)

    @property
    def wait_durations(self) -> Durations:
        return Durations(self.wait_counts, self.wait_time)

    @property
    def all_reasons(self) -> dict[str, int]:
        """Misses by reason, with those that went without saying."""
        reasons = dict(self.reasons)
        unsaid = self.misses - sum(reasons.values())
        if unsaid > 0:
            reasons["absent"] = reasons.get("absent", 0) + unsaid
        return reasons

    @property
    def saved_seconds(self) -> float:
        """What the loader would have taken for the hits, at the mean of its loads."""
        return self.hits * self.load_time / self.loads if self.loads else 0.0

    def add(self, other: Tally, times: int = 1) -> None:
        """Add what the other has; with ``times=-1``, take it away."""
        for reason, count in dict(other.reasons).items():  # a copy: somebody may count a new one meanwhile
            self.reasons[reason] += times * count
        self.load_counts = _sums(self.load_counts, other.load_counts, times)
        self.wait_counts = _sums(self.wait_counts, other.wait_counts, times)
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))


def _sums(some: list[int], others: list[int], times: int) -> list[int]:
    return [one + times * other for one, other in zip(some, others, strict=True)]


NUMBERS: Final = tuple(name for name, each in Tally.__dataclass_fields__.items() if each.type in ("int", "float"))
"""The fields that are plain numbers."""
