"""What happened, as users read it: the counters of one function, or of all functions of a cache.

Hits in memory are counted in the nodes where they happen and summed when asked for, so that a hit pays one addition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cachecraft._core.durations import Durations
from cachecraft._core.tally import NUMBERS, Tally

BY_HAND: Final = "(by hand)"
"""The name of what is kept by ``cache.set``, ``cache.get_or_load`` and so on."""
OTHERS: Final = "(others)"
"""The name of all functions beyond the first so many."""


class Stats:
    """A live view of the counters of one function, or of all functions of a cache.

    Every counter of ``Tally`` is an attribute; ``as_dict`` takes them all at once. Those of a function tell of what it
    has in this process's memory too: ``memory_entries`` and ``memory_bytes``. Those of a cache tell of the whole:
    ``memory_entries``, ``memory_bytes`` and ``evictions`` of what is held in memory; ``journal`` (invalidations
    that have yet to reach Redis), ``journaled`` (all that ever had to wait), ``breaker_open`` (1 while Redis is not
    asked), ``breaker_opened`` (how often that came). And of the near cache: ``near_entries``, ``near_evictions``,
    ``near_received`` (invalidations heard), ``near_dropped`` (entries that went by them; ``near_dropped_key`` and so on
    tell why), ``near_deaf_seconds`` (time without a listener).
    """

    __slots__ = ("_more", "_sources")

    def __init__(
        self, sources: Callable[[], Iterable[Tally]], more: Callable[[], Mapping[str, float]] | None = None
    ) -> None:
        self._sources = sources
        self._more = more

    def as_dict(self) -> dict[str, float]:
        """All numbers, ``hit_rate``, ``mean_load_time`` (seconds), and ``saved_seconds``: what the loaders would have
        taken for the hits, each function's at the mean of its own loads.
        """
        totals: dict[str, float] = {**dict.fromkeys(NUMBERS, 0), "saved_seconds": 0.0}
        for tally in self._sources():
            for name in NUMBERS:
                totals[name] += getattr(tally, name)
            totals["saved_seconds"] += tally.saved_seconds
        calls = totals["hits"] + totals["misses"]
        totals["hit_rate"] = totals["hits"] / calls if calls else 0.0
        totals["mean_load_time"] = totals["load_time"] / totals["loads"] if totals["loads"] else 0.0
        if self._more is not None:
            totals.update(self._more())
        return totals

    @property
    def reasons(self) -> dict[str, int]:
        """Misses by reason."""
        merged: Counter[str] = Counter()
        for tally in self._sources():
            merged.update(tally.all_reasons)
        return dict(merged)

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.as_dict()[name]
        except KeyError:
            raise AttributeError(f"there is no counter {name!r}; there are {', '.join(self.as_dict())}") from None

    def __repr__(self) -> str:
        numbers = self.as_dict()
        shown = ", ".join(
            f"{name}={numbers[name]:g}" for name in ("hits", "misses", "loads", "errors", "stale", "waits")
        )
        return f"<Stats {shown}, hit_rate={numbers['hit_rate']:.1%}>"


@dataclass(slots=True)
class Counted:
    """What one function has counted, and what it holds in memory."""

    tally: Tally = field(default_factory=Tally)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Calls by how they ended; see ``OUTCOMES``."""
    loads: Durations = field(default_factory=Durations)
    waits: Durations = field(default_factory=Durations)
    entries: int = 0
    bytes: int = 0

    def add(self, other: Counted) -> None:
        self._count(other, 1)
        self.entries += other.entries
        self.bytes += other.bytes

    def forget(self, other: Counted) -> None:
        """Take away what had been counted by then; what it holds, it holds."""
        self._count(other, -1)

    def _count(self, other: Counted, times: int) -> None:
        self.tally.add(other.tally, times)
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += times * count
        self.loads.merge(other.loads, times)
        self.waits.merge(other.waits, times)

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())


@dataclass(slots=True)
class Snapshot:
    """All counters of a cache at one moment, for those who hand them on: metrics, and what is published."""

    namespace: str
    functions: dict[str, Counted] = field(default_factory=dict)
    """By name. No counter is ever less than in an earlier snapshot of the same cache."""
    cache: dict[str, float] = field(default_factory=dict)
    """What is counted for the cache as a whole."""
    redis: dict[str, Durations] = field(default_factory=dict)
    """Round trips, by operation."""
    redis_errors: Counter[str] = field(default_factory=Counter)
    """Those that failed, by operation."""

    def add(self, other: Snapshot) -> None:
        """Sum up with another cache, or another process."""
        for name, counted in other.functions.items():
            self.functions.setdefault(name, Counted()).add(counted)
        for number, value in other.cache.items():
            self.cache[number] = self.cache.get(number, 0) + value
        for operation, durations in other.redis.items():
            self.redis.setdefault(operation, Durations()).merge(durations)
        self.redis_errors.update(other.redis_errors)

    def forget(self, other: Snapshot) -> None:
        """Take away what had been counted by then."""
        for name, counted in other.functions.items():
            self.functions.setdefault(name, Counted()).forget(counted)
        for operation, durations in other.redis.items():
            self.redis.setdefault(operation, Durations()).merge(durations, -1)
        self.redis_errors.subtract(other.redis_errors)


OUTCOMES: Final = ("hit", "near_hit", "stale", "miss", "error")
"""How a call ended: with a fresh value from where entries are kept, with one from the near cache, with one past its
ttl, with what a loader returned, with what it raised."""


def outcomes(tally: Tally) -> Counter[str]:
    """Calls by outcome; each is counted once."""
    return Counter(
        hit=tally.hits - tally.near_hits - (tally.stale - tally.grace),
        near_hit=tally.near_hits,
        stale=tally.stale,
        miss=tally.misses - tally.grace - tally.raised,
        error=tally.raised,
    )
