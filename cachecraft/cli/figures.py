"""The figures that ``stats`` and ``top`` show, worked out of what processes have published, and how they read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from cachecraft import reports
from cachecraft._core.calls import prefix_of
from cachecraft._core.durations import Durations
from cachecraft._core.errors import OptionError
from cachecraft._settings import redacted
from cachecraft.backends.publisher import Board
from cachecraft.backends.transports import Dialling
from cachecraft.cli.demo.outcome import duration
from cachecraft.reports import Report
from cachecraft.stats import Counted, Snapshot

Where = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The Redis of the cache; else CACHECRAFT_URL, else redis://localhost."),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="The cache's namespace; else CACHECRAFT_NAMESPACE.")
]

_DEADLINE: Final = 2.0


@dataclass(slots=True)
class Reader:
    """Reads what is published in one namespace."""

    namespace: str
    dialling: Dialling
    board: Board

    @classmethod
    def of(cls, url: str | None, namespace: str | None) -> Reader:
        url = url or os.environ.get("CACHECRAFT_URL") or "redis://localhost:6379/0"
        namespace = namespace if namespace is not None else os.environ.get("CACHECRAFT_NAMESPACE", "")
        if url.partition("://")[0] not in ("redis", "rediss", "unix"):
            raise OptionError(f"--url {redacted(url)}: counters are published to Redis only; give redis://HOST:PORT/DB")
        dialling = Dialling(url, timeout=_DEADLINE, connect_timeout=_DEADLINE, pool_size=1)
        return cls(namespace, dialling, Board(dialling, prefix_of(namespace)))

    def read(self) -> list[Report]:
        """What each process says.

        Raises:
            BackendError: Redis cannot be reached.
        """
        found = [reports.read(data, self.namespace, writer) for writer, data in self.board.read()]
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
        }


def by_function(snapshot: Snapshot) -> list[Figures]:
    """Those with the most calls first."""
    figures = [Figures.of(name, counted) for name, counted in snapshot.functions.items()]
    return sorted(figures, key=lambda each: (-each.requests, each.function))


def overall(snapshot: Snapshot) -> Figures:
    everything = Counted()
    for counted in snapshot.functions.values():
        everything.add(counted)
    return Figures.of("all", everything)


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


def shown(text: str) -> str:
    """Text out of Redis as a terminal may have it: nothing in it moves the cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def bytes_shown(number: float) -> str:
    """``1.5 MB`` and the like."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("the last unit takes all")


def rate_shown(figures: Figures) -> str:
    return "" if figures.hit_rate is None else f"{figures.hit_rate:.1%}"


def quantile_shown(durations: Durations, share: float) -> str:
    return duration(durations.quantile(share)) if durations.count else ""


def number_table(first: str, *others: str) -> Table:
    """A table of one column of names and many of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def processes_shown(found: Sequence[Report]) -> str:
    processes, hosts = len({(report.host, report.pid) for report in found}), len({report.host for report in found})
    return f"{processes} process{'es' * (processes != 1)} on {hosts} host{'s' * (hosts != 1)}"
