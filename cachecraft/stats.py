"""What happened, counted: per function, and summed over a cache; knows no key and no value.

Hits in memory are counted in the nodes where they happen and summed when asked for, so that a hit pays one addition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from cachecraft._core.tally import NUMBERS, Tally


class Stats:
    """A live view of the counters of one function, or of all functions of a cache.

    Every counter of ``Tally`` is an attribute; ``as_dict`` takes them all at once. Those of a function tell of what it
    has in this process's memory: ``memory_entries`` and ``memory_bytes``. Those of a cache tell of Redis too:
    ``journal`` (invalidations that have yet to reach Redis), ``journaled`` (all that ever had to wait),
    ``breaker_open`` (1 while Redis is not asked), ``breaker_opened`` (how often that came). And of the near cache:
    ``near_hits`` (among the ``hits``), ``near_entries``, ``near_evictions``, ``near_received`` (invalidations heard),
    ``near_dropped`` (entries that went by them; ``near_dropped_key`` and so on tell why), ``near_deaf_seconds`` (time
    without a listener).
    """

    __slots__ = ("_more", "_sources")

    def __init__(
        self,
        sources: Callable[[], Iterable[tuple[Tally, int]]],
        more: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self._sources = sources
        self._more = more

    def as_dict(self) -> dict[str, float]:
        """All numbers, ``hit_rate``, ``mean_load_time`` (seconds), and ``saved_seconds``: what the loaders would have
        taken for the hits, each function's at the mean of its own loads.
        """
        totals: dict[str, float] = {**dict.fromkeys(NUMBERS, 0), "saved_seconds": 0.0}
        for tally, memory_hits in self._sources():
            for name in NUMBERS:
                totals[name] += getattr(tally, name)
            totals["hits"] += memory_hits
            totals["saved_seconds"] += tally.saved(tally.hits + memory_hits)
        calls = totals["hits"] + totals["misses"]
        totals["hit_rate"] = totals["hits"] / calls if calls else 0.0
        totals["mean_load_time"] = totals["load_time"] / totals["loads"] if totals["loads"] else 0.0
        if self._more is not None:
            totals.update(self._more())
        return totals

    @property
    def reasons(self) -> dict[str, int]:
        """Misses in the backend by reason."""
        merged: Counter[str] = Counter()
        for tally, _ in self._sources():
            merged.update(tally.reasons)
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
