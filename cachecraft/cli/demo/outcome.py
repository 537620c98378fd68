"""What a step measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the table. Times are in seconds."""

    title: str
    load: str
    calls: int
    queries: int
    busiest: int
    """The most queries within 50 ms."""
    p50: float
    p99: float
    stale: int
    stats: dict[str, int]
    """The cache's own counters, as far as the step moved them."""

    def as_json(self) -> dict[str, object]:
        return {
            "step": self.title,
            "load": self.load,
            "calls": self.calls,
            "queries": self.queries,
            "busiest_50ms": self.busiest,
            "p50_ms": round(self.p50 * 1e3, 4),
            "p99_ms": round(self.p99 * 1e3, 4),
            "stale_answers": self.stale,
            "stats": self.stats,
        }
