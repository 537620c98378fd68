"""What a process says of itself to others: its counters as bytes, and the sum of many; knows not where they are kept.

    report   seconds 8 (float, little-endian: since the cache was opened) | msgpack

Bounded: so many functions, those with the most calls, and the rest summed up; so many keys, findings, results. The
bytes are untrusted: what does not read as a report is none. What another release tells besides is left out, and what an
older one does not tell is not known.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgpack

from cachecraft._core.durations import BOUNDS, Durations
from cachecraft._core.entry import key_digest
from cachecraft._core.errors import told as in_words
from cachecraft._core.heat import Heat
from cachecraft._core.notes import KEPT, UNKEPT, Lately, Note, Unkept
from cachecraft._core.tally import NUMBERS, Tally
from cachecraft.advice import Advice
from cachecraft.stats import OTHERS, Counted, Snapshot

T = TypeVar("T")

log: Final = logging.getLogger("cachecraft")

FUNCTIONS: Final = 100
KEYS: Final = 30
FINDINGS: Final = 20
_LONGEST: Final = 200
"""Characters of a name,"""
_TEXT: Final = 400
"""and of a text."""
_SCHEMAS: Final = 4
"""Of one function: closures of one name may return different things."""
_FORMAT: Final = 1
_HEAD: Final = struct.Struct("<d")


class Kept(NamedTuple):
    """A result that was stored, and when that was and ends by the wall clock of who stored it."""

    when: float
    until: float


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
    kept: dict[bytes, Kept] | None = None
    """Its last results that were, by the digest of their key; ``None`` if it does not tell."""
    advice: list[Advice] = field(default_factory=list)
    """What it advises itself: of the functions that are called most, first."""
    schemas: dict[str, list[bytes]] = field(default_factory=dict)
    """By name, the schema of what its functions return; of closures of one name there may be several."""


class Source(Protocol):
    """Who knows what there is to report."""

    def snapshot(self) -> Snapshot | None: ...
    def advice(self, functions: Mapping[str, Counted]) -> Sequence[Advice]: ...
    def schemas(self) -> Mapping[str, Iterable[bytes]]: ...


class Reporter:
    """Makes the reports of one cache, for as long as it is there."""

    def __init__(self, source: Source, heat: Heat, lately: Lately) -> None:
        self._source = source
        self._heat = heat
        self._lately = lately
        self._wall = time.time() - time.monotonic()
        self._host = socket.gethostname()
        self._opened = self._taken = time.monotonic()
        self._inherited: Snapshot | None = None

    def after_fork(self) -> None:
        """In a forked child: what the parent counted, the parent reports."""
        self._inherited = self._source.snapshot()
        self._opened = self._taken = time.monotonic()
        self._heat.take(0)
        self._lately.clear()

    def content(self) -> bytes | None:
        """All but the time, so that it is the same if nothing happened. ``None`` if the cache is gone."""
        snapshot = self._source.snapshot()
        if snapshot is None:
            return None
        if self._inherited is not None:
            snapshot.forget(self._inherited)
        now = time.monotonic()
        past, self._taken = max(now - self._taken, 1e-3), now
        functions = bounded(snapshot.functions)
        schemas: Mapping[str, Iterable[bytes]] = _spared(self._source.schemas) or {}
        advice: Sequence[Advice] = _spared(lambda: self._source.advice(functions)) or ()
        packed: bytes = msgpack.packb(
            {
                "format": _FORMAT,
                "host": self._host[:_LONGEST],
                "pid": os.getpid(),
                "functions": {name: _told(each, schemas.get(name, ())) for name, each in functions.items()},
                "cache": snapshot.cache,
                "redis": {name: [each.counts, each.seconds] for name, each in snapshot.redis.items()},
                "redis_errors": dict(snapshot.redis_errors),
                "keys": [(key[:_LONGEST], round(count / past, 1)) for key, count in self._heat.take(KEYS)],
                "unkept": [self._told_unkept(each) for each in self._lately.unkept.copy()],
                "kept": [self._told_kept(key, note) for key, note in self._lately.kept.copy().items()],
                "advice": [_told_advice(each) for each in advice[:FINDINGS]],
            },
            unicode_errors="surrogatepass",
        )
        return packed

    def _told_unkept(self, unkept: Unkept) -> tuple[float, str, str, str]:
        when, key, fate, detail = unkept
        return when + self._wall, key[:_LONGEST], fate, detail[:_LONGEST]

    def _told_kept(self, key: str, note: Note) -> tuple[bytes, float, float]:
        return key_digest(key), note.when + self._wall, note.until + self._wall

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
                Unkept(_moment(when), str(key), str(fate), str(detail))
                for when, key, fate, detail in told.get("unkept", [])[:UNKEPT]
            ],
            _kept(told.get("kept")),
            [Advice(*map(str, texts[:4])) for texts in told.get("advice", [])[:FINDINGS]],
            _schemas(told["functions"]),
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


def _told(counted: Counted, schemas: Iterable[bytes]) -> dict[str, Any]:
    numbers = {name: value for name in NUMBERS if (value := getattr(counted.tally, name))}
    told = {
        "numbers": numbers,
        "outcomes": dict(+counted.outcomes),
        "reasons": dict(+counted.tally.reasons),
        "loads": counted.loads.counts if counted.loads.count else [],
        "waits": counted.waits.counts if counted.waits.count else [],
        "held": [counted.entries, counted.bytes] if counted.entries else [],
        "schemas": sorted(schemas)[:_SCHEMAS],
    }
    return {name: value for name, value in told.items() if value}


def _told_advice(advice: Advice) -> tuple[str, ...]:
    return advice.function[:_LONGEST], advice.check[:_LONGEST], advice.finding[:_TEXT], advice.remedy[:_TEXT]


def _spared(tell: Callable[[], T]) -> T | None:
    """What is told beside the counters; whatever goes wrong there, they are told."""
    try:
        return tell()
    except Exception as error:
        log.debug("a report is made without some of it: %s", in_words(error))
        return None


def _snapshot(namespace: str, told: Any) -> Snapshot:
    return Snapshot(
        namespace,
        {str(name)[:_LONGEST]: _counted(each) for name, each in told["functions"].items()},
        {str(name): float(value) for name, value in told["cache"].items()},
        {str(name): _durations(counts, seconds) for name, (counts, seconds) in told["redis"].items()},
        Counter({str(name): int(count) for name, count in told["redis_errors"].items()}),
    )


def _kept(told: Any) -> dict[bytes, Kept] | None:
    if told is None:
        return None
    return {_bytes(digest): Kept(_moment(when), _moment(until)) for digest, when, until, *_ in told[:KEPT]}


def _schemas(functions: Any) -> dict[str, list[bytes]]:
    return {str(name): list(map(_bytes, each["schemas"])) for name, each in functions.items() if "schemas" in each}


def _moment(told: Any) -> float:
    if not math.isfinite(moment := float(told)):
        raise ValueError("at no time there is")
    return moment


def _bytes(told: Any) -> bytes:
    if not isinstance(told, bytes):
        raise TypeError("no bytes")
    return told


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
