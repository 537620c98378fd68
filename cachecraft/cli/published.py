"""The figures that ``stats`` and ``top`` show, worked out of what processes have published, and how they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from cachecraft import reports
from cachecraft._core.durations import Durations
from cachecraft.backends.publisher import Board
from cachecraft.cli.figures import duration, many, span
from cachecraft.cli.target import Target
from cachecraft.reports import Report
from cachecraft.stats import Counted, Snapshot


class Reader:
    """Reads what is published in one namespace.

    Raises:
        BackendError: the server cannot be used; the message says why.
    """

    def __init__(self, target: Target) -> None:
        with target.server() as server:  # it says more of what is the matter
            server.ask(("PING",))
        self.target = target
        self._board = Board(target.dialling(), target.prefix)

    @property
    def namespace(self) -> str:
        return self.target.namespace

    def read(self) -> list[Report]:
        """What each process says.

        Raises:
            BackendError: Redis cannot be reached.
        """
        found = [reports.read(data, self.namespace, writer) for writer, data in self._board.read()]
        return sorted(filter(None, found), key=lambda report: (report.host, report.pid))


@dataclass(slots=True)
class Figures:
    """What is known of one function, or of all. Times are in seconds."""

    function: str
    requests: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    loads: int = 0
    errors: int = 0
    load: Durations = field(default_factory=Durations)
    waits: int = 0
    wait: Durations = field(default_factory=Durations)
    entries: int = 0
    bytes: int = 0
    avoided: int = 0
    """Loads that hits have spared,"""
    saved: float = 0.0
    """and what these would have taken, at the mean of those that ran."""
    stale: int = 0
    verified: int = 0
    differed: int = 0

    @classmethod
    def of(cls, function: str, counted: Counted) -> Figures:
        tally = counted.tally
        return cls(
            function,
            counted.requests,
            dict(counted.outcomes),
            dict(tally.reasons),
            tally.loads,
            tally.errors,
            counted.loads,
            tally.waits,
            counted.waits,
            counted.entries,
            counted.bytes,
            tally.hits,
            tally.saved_seconds,
            tally.stale,
            tally.verified,
            tally.differed,
        )

    @property
    def hit_rate(self) -> float | None:
        """The share of calls that were served without a load of theirs or somebody else's."""
        served = sum(self.outcomes.get(outcome, 0) for outcome in ("hit", "near_hit", "stale"))
        return served / self.requests if self.requests else None

    def as_json(self) -> dict[str, Any]:
        return {
            "function": self.function,
            "requests": self.requests,
            "hit_rate": None if self.hit_rate is None else round(self.hit_rate, 4),
            "outcomes": self.outcomes,
            "misses": self.reasons,
            "loads": self.loads,
            "errors": self.errors,
            "load_seconds": _quantiles(self.load),
            "waits": self.waits,
            "wait_seconds": _quantiles(self.wait),
            "memory": {"entries": self.entries, "bytes": self.bytes},
            "loads_avoided": self.avoided,
            "saved_seconds": round(self.saved, 6),
            "stale_serves": self.stale,
            "verified": self.verified,
            "differed": self.differed,
        }


def by_function(snapshot: Snapshot) -> list[Figures]:
    """Those with the most calls first."""
    figures = [Figures.of(name, counted) for name, counted in snapshot.functions.items()]
    return sorted(figures, key=lambda each: (-each.requests, each.function))


def overall(snapshot: Snapshot) -> Figures:
    everything = Counted()
    for counted in snapshot.functions.values():
        everything.add(counted)
    figures = Figures.of("all", everything)
    figures.saved = sum(counted.tally.saved_seconds for counted in snapshot.functions.values())  # each at its own mean
    return figures


def redis_json(snapshot: Snapshot) -> dict[str, Any]:
    return {
        name: {"count": each.count, "errors": snapshot.redis_errors[name], **_quantiles(each)}
        for name, each in snapshot.redis.items()
    }


def _quantiles(durations: Durations) -> dict[str, float | None]:
    if not durations.count:
        return {"p50": None, "p99": None, "mean": None}
    return {
        "p50": round(durations.quantile(0.5), 6),
        "p99": round(durations.quantile(0.99), 6),
        "mean": round(durations.seconds / durations.count, 6),
    }


def rate_shown(figures: Figures) -> str:
    return "" if figures.hit_rate is None else f"{figures.hit_rate:.1%}"


def near_shown(figures: Figures) -> str:
    """The share of calls that the near cache served; nothing where it served none."""
    near = figures.outcomes.get("near_hit", 0)
    return f"{near / figures.requests:.1%}" if near else ""


def quantile_shown(durations: Durations, share: float) -> str:
    return duration(durations.quantile(share)) if durations.count else ""


def saved_shown(figures: Figures) -> str:
    if not figures.saved:
        return ""
    return duration(figures.saved) if figures.saved < 10 else span(figures.saved)


def number_table(first: str, *others: str) -> Table:
    """A table of one column of names and many of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def processes_shown(found: Sequence[Report]) -> str:
    processes, hosts = len({(report.host, report.pid) for report in found}), len({report.host for report in found})
    return f"{many(processes, 'process', 'processes')} on {many(hosts, 'host')}"
