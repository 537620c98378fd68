"""What a process says of itself to others: its counters as bytes, and the sum of many; knows not where they are kept.

    report   seconds 8 (float, little-endian: since the cache was opened) | msgpack

Bounded: so many functions, those with the most calls, and the rest summed up; so many keys. The bytes are untrusted:
what does not read as a report is none.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from cachecraft._core.durations import BOUNDS, Durations
from cachecraft._core.heat import Heat
from cachecraft._core.notes import UNKEPT, Unkept
from cachecraft._core.tally import NUMBERS, Tally
from cachecraft.stats import OTHERS, Counted, Snapshot

FUNCTIONS: Final = 100
KEYS: Final = 30
_LONGEST: Final = 200
"""Characters of a name."""
_FORMAT: Final = 1
_HEAD: Final = struct.Struct("<d")


@dataclass(slots=True)
class Report:
    """What one cache in one process has counted. Times are in seconds."""

    id: bytes
    host: str
    pid: int
    up: float
    """How long ago it was opened."""
    counted: Snapshot
    keys: list[tuple[str, float]] = field(default_factory=list)
    """The keys that were asked for most of late, and how often a second; hits in memory are not among these."""
    unkept: list[Unkept] = field(default_factory=list)
    """Its last results that were not kept, and when that was by its wall clock."""


class Reporter:
    """Makes the reports of one cache, for as long as it is there."""

    def __init__(self, snapshot: Callable[[], Snapshot | None], heat: Heat, unkept: deque[Unkept]) -> None:
        self._snapshot = snapshot
        self._heat = heat
        self._unkept = unkept
        self._wall = time.time() - time.monotonic()
        self._host = socket.gethostname()
        self._opened = self._taken = time.monotonic()
        self._inherited: Snapshot | None = None

    def after_fork(self) -> None:
        """In a forked child: what the parent counted, the parent reports."""
        self._inherited = self._snapshot()
        self._opened = self._taken = time.monotonic()
        self._heat.take(0)
        self._unkept.clear()

    def content(self) -> bytes | None:
        """All but the time, so that it is the same if nothing happened. ``None`` if the cache is gone."""
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        if self._inherited is not None:
            snapshot.forget(self._inherited)
        now = time.monotonic()
        past, self._taken = max(now - self._taken, 1e-3), now
        keys = [(key, round(count / past, 1)) for key, count in self._heat.take(KEYS)]
        unkept = [each._replace(when=each.when + self._wall) for each in self._unkept.copy()]
        return _packed(self._host, snapshot, keys, unkept)

    def dated(self, content: bytes) -> bytes:
        return _HEAD.pack(time.monotonic() - self._opened) + content


def read(data: bytes, namespace: str, id: bytes = b"") -> Report | None:  # noqa: A002 - it is one
    """A report, or ``None`` if it is none."""
    try:
        (up,) = _HEAD.unpack_from(data)
        told: Any = msgpack.unpackb(data[_HEAD.size :])
        if told["format"] != _FORMAT:
            return None
        return Report(
            id,
            str(told["host"]),
            int(told["pid"]),
            float(up),
            _snapshot(namespace, told),
            [(str(key), float(rate)) for key, rate in told["keys"][:KEYS]],
            [
                Unkept(float(when), str(key), str(fate), str(detail))
                for when, key, fate, detail in told.get("unkept", [])[:UNKEPT]
            ],
        )
    except Exception:  # whatever it is, it is no report
        return None


def total(namespace: str, reports: Iterable[Report]) -> Snapshot:
    """The sum over processes."""
    everything = Snapshot(namespace)
    for report in reports:
        everything.add(report.counted)
    return everything


def hottest(reports: Iterable[Report]) -> list[tuple[str, float]]:
    """Keys and how often a second they are asked for by all processes, hottest first."""
    rates: dict[str, float] = {}
    for report in reports:
        for key, rate in report.keys:
            rates[key] = rates.get(key, 0.0) + rate
    return sorted(rates.items(), key=lambda each: (-each[1], each[0]))[:KEYS]


def bounded(functions: dict[str, Counted]) -> dict[str, Counted]:
    """Those with the most calls, and the others as one."""
    kept: dict[str, Counted] = {}
    for name, counted in sorted(functions.items(), key=lambda each: -each[1].requests):
        if len(kept) < FUNCTIONS:
            kept[name[:_LONGEST]] = counted
        else:
            kept.setdefault(OTHERS, Counted()).add(counted)
    return kept


def _packed(host: str, snapshot: Snapshot, keys: list[tuple[str, float]], unkept: list[Unkept]) -> bytes:
    packed: bytes = msgpack.packb(
        {
            "format": _FORMAT,
            "host": host[:_LONGEST],
            "pid": os.getpid(),
            "functions": {name: _told(counted) for name, counted in bounded(snapshot.functions).items()},
            "cache": snapshot.cache,
            "redis": {name: [each.counts, each.seconds] for name, each in snapshot.redis.items()},
            "redis_errors": dict(snapshot.redis_errors),
            "keys": [(key[:_LONGEST], rate) for key, rate in keys],
            "unkept": [(when, key[:_LONGEST], fate, detail[:_LONGEST]) for when, key, fate, detail in unkept],
        },
        unicode_errors="surrogatepass",
    )
    return packed


def _told(counted: Counted) -> dict[str, Any]:
    numbers = {name: value for name in NUMBERS if (value := getattr(counted.tally, name))}
    told = {
        "numbers": numbers,
        "outcomes": dict(+counted.outcomes),
        "reasons": dict(+counted.tally.reasons),
        "loads": counted.loads.counts if counted.loads.count else [],
        "waits": counted.waits.counts if counted.waits.count else [],
        "held": [counted.entries, counted.bytes] if counted.entries else [],
    }
    return {name: value for name, value in told.items() if value}


def _snapshot(namespace: str, told: Any) -> Snapshot:
    return Snapshot(
        namespace,
        {str(name)[:_LONGEST]: _counted(each) for name, each in told["functions"].items()},
        {str(name): float(value) for name, value in told["cache"].items()},
        {str(name): _durations(counts, seconds) for name, (counts, seconds) in told["redis"].items()},
        Counter({str(name): int(count) for name, count in told["redis_errors"].items()}),
    )


def _counted(told: Any) -> Counted:
    tally = Tally()
    for name, value in told.get("numbers", {}).items():
        if name in NUMBERS:  # else of another release
            setattr(tally, name, value + 0)
    tally.reasons = Counter({str(name): int(count) for name, count in told.get("reasons", {}).items()})
    entries, held = told.get("held") or (0, 0)
    return Counted(
        tally,
        Counter({str(name): int(count) for name, count in told.get("outcomes", {}).items()}),
        _durations(told.get("loads"), tally.load_time),
        _durations(told.get("waits"), tally.wait_time),
        int(entries),
        int(held),
    )


def _durations(counts: Any, seconds: Any) -> Durations:
    counts = list(map(int, counts or ()))
    if counts and len(counts) != len(BOUNDS) + 1:
        raise ValueError("counted by other bounds")
    return Durations(counts, float(seconds))
