"""The counters of one function, as plain numbers; knows nobody who reads them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True)
class Tally:
    """The counters of one function. Plain additions: each is one bytecode away from atomic under the GIL."""

    hits: int = 0
    """Hits counted here; those in memory are added from the nodes."""
    misses: int = 0
    """Calls that found nothing to serve, those that joined another's load included."""
    loads: int = 0
    """Times the loader ran."""
    load_time: float = 0.0
    """Seconds spent in the loader, over all loads."""
    errors: int = 0
    """Loads that raised."""
    stale: int = 0
    """Calls served with a value past its ttl (``stale=`` and ``grace=``)."""
    waits: int = 0
    """Calls that waited for a load of somebody else."""
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
    """Misses in the backend by reason: absent, expired, invalidated, corrupt, encryption, schema, ..."""

    def saved(self, hits: int) -> float:
        """Seconds that so many loads would have taken."""
        return hits * self.load_time / self.loads if self.loads else 0.0

    def add(self, other: Tally) -> None:
        self.reasons.update(other.reasons)
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


NUMBERS: Final = tuple(name for name in Tally.__dataclass_fields__ if name != "reasons")
