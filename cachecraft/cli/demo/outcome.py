"""What a step measured, and how such numbers read."""

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


def duration(seconds: float) -> str:
    """Two or three digits, in the unit that suits them: ``1.34 s``, ``47.1 ms``, ``0.3 µs``."""
    unit, value = next(
        ((unit, seconds * factor) for unit, factor in (("s", 1.0), ("ms", 1e3)) if seconds * factor >= 0.9995),
        ("µs", seconds * 1e6),
    )
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 or unit == "µs" else 2
    return f"{value:.{digits}f} {unit}"


def many(number: int, thing: str, things: str = "") -> str:
    """``1 query``, ``2 queries``."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
