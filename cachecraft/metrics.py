"""What is measured, under the names that monitoring systems know it by; knows none of these systems.

A counter of ``Tally`` that has no place of its own below is a family by itself, so that whatever is counted is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from cachecraft._core.tally import NUMBERS
from cachecraft.stats import OUTCOMES, Counted, Snapshot

Labels = tuple[str, ...]
Sample = tuple[Labels, Any]
"""The labels after the namespace, and a number or ``Durations``."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, with a sample for each set of labels."""

    name: str
    """Words between dots, as OpenTelemetry has them."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels
    """Besides the namespace."""
    samples: Callable[[Snapshot], Iterable[Sample]]
    unit: Literal["", "seconds", "bytes"] = ""


def _of_functions(read: Callable[[Counted], Any]) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: [((name,), read(counted)) for name, counted in snapshot.functions.items()]


def _number(name: str) -> Callable[[Snapshot], Iterable[Sample]]:
    return _of_functions(lambda counted: getattr(counted.tally, name))


def _of_cache(name: str) -> Callable[[Snapshot], Iterable[Sample]]:
    return lambda snapshot: [((), snapshot.cache[name])] if name in snapshot.cache else []


def _outcomes(snapshot: Snapshot) -> Iterator[Sample]:
    for name, counted in snapshot.functions.items():
        for outcome in OUTCOMES:
            yield (name, outcome), counted.outcomes[outcome]


def _reasons(snapshot: Snapshot) -> Iterator[Sample]:
    for name, counted in snapshot.functions.items():
        for reason, count in counted.tally.reasons.items():
            yield (name, reason), count


def _not_stored(snapshot: Snapshot) -> Iterator[Sample]:
    for name, counted in snapshot.functions.items():
        for reason, number in (("when", "not_kept"), ("refused", "refused"), ("lost", "store_lost")):
            yield (name, reason), getattr(counted.tally, number)


def _near_dropped(snapshot: Snapshot) -> Iterator[Sample]:
    for number, value in snapshot.cache.items():
        if number.startswith(_DROPPED):
            yield (number.removeprefix(_DROPPED),), value


_FUNCTION: Final = ("function",)
_TOLD: Final = frozenset(
    {"hits", "near_hits", "misses", "raised", "stale", "grace", "loads", "load_time", "waits", "wait_time"}
    | {"store_lost", "not_kept", "refused"}
)
"""The numbers of ``Tally`` that are in the families which follow."""

REQUESTS: Final = Family(
    "requests",
    "counter",
    "Calls by how they ended: hit, near_hit, stale, miss (loaded, or joined a load) or error (the loader raised).",
    ("function", "outcome"),
    _outcomes,
)
MISSES: Final = Family(
    "misses", "counter", "Calls that found nothing to serve, by reason.", ("function", "reason"), _reasons
)
NOT_STORED: Final = Family(
    "not.stored",
    "counter",
    "Results that were not kept: declined by when=, refused as they are, or lost to an invalidation.",
    ("function", "reason"),
    _not_stored,
)
LOADS: Final = Family(
    "load.duration",
    "histogram",
    "How long loaders ran.",
    _FUNCTION,
    _of_functions(lambda counted: counted.loads),
    "seconds",
)
WAITS: Final = Family(
    "wait.duration",
    "histogram",
    "How long calls waited for somebody else's load.",
    _FUNCTION,
    lambda snapshot: [((name,), each.waits) for name, each in snapshot.functions.items() if each.waits.count],
    "seconds",
)
REDIS: Final = Family(
    "redis.duration",
    "histogram",
    "How long round trips to Redis took, as callers saw them.",
    ("operation",),
    lambda snapshot: [((name,), each) for name, each in snapshot.redis.items()],
    "seconds",
)
REDIS_ERRORS: Final = Family(
    "redis.errors",
    "counter",
    "Round trips to Redis that failed or were refused.",
    ("operation",),
    lambda snapshot: [((name,), snapshot.redis_errors[name]) for name in snapshot.redis],
)
_HELP: Final = {
    "errors": ("load.errors", "Loads that raised."),
    "wait_timeouts": ("wait.timeouts", "Waits whose patience ended."),
    "refreshes": ("refreshes", "Loads behind the callers' backs."),
    "invalidated": ("invalidated", "Entries removed by invalidation, where known."),
    "verified": ("verified", "Hits that were compared with what the loader returns now (verify=)."),
    "differed": ("differed", "Of these, those that were not equal, though nothing had been invalidated."),
    "backend_errors": ("backend.errors", "Failures of the backend that a call of this function was spared."),
}
_COUNTED: Final = tuple(
    Family(name, "counter", text, _FUNCTION, _number(number))
    for number in NUMBERS
    if number not in _TOLD
    for name, text in [_HELP.get(number, (number.replace("_", "."), f"{number.replace('_', ' ').capitalize()}."))]
)
_HELD: Final = (
    Family(
        "memory.entries",
        "gauge",
        "Entries in the memory of this process.",
        _FUNCTION,
        _of_functions(lambda counted: counted.entries),
    ),
    Family(
        "memory.size",
        "gauge",
        "What these entries weigh.",
        _FUNCTION,
        _of_functions(lambda counted: counted.bytes),
        "bytes",
    ),
)
# A number that is counted for a cache as a whole is one more line here.
_CACHE: Final[dict[str, tuple[str, Literal["counter", "gauge"], str]]] = {
    "evictions": ("evictions", "counter", "Entries that memory had no room for."),
    "breaker_open": ("breaker.open", "gauge", "1 while Redis is out of reach and is not asked."),
    "breaker_opened": ("breaker.opened", "counter", "How often Redis went out of reach."),
    "journal": ("journal.length", "gauge", "Invalidations that have yet to reach Redis."),
    "journaled": ("journaled", "counter", "Invalidations that ever had to wait for Redis."),
    "near_entries": ("near.entries", "gauge", "Entries of Redis that are held near."),
    "near_evictions": ("near.evictions", "counter", "Entries that the near cache had no room for."),
    "near_received": ("near.received", "counter", "Keys, patterns and stamps that were heard to be gone."),
}
_WHOLE: Final = tuple(Family(name, kind, text, (), _of_cache(number)) for number, (name, kind, text) in _CACHE.items())
_DROPPED: Final = "near_dropped_"
_NEAR: Final = (
    Family(
        "near.dropped", "counter", "Entries held near that had to go, by what was heard.", ("reason",), _near_dropped
    ),
    Family(
        "near.deaf",
        "counter",
        "Time in which the near cache heard nothing.",
        (),
        _of_cache("near_deaf_seconds"),
        "seconds",
    ),
)
FAMILIES: Final = (
    REQUESTS,
    MISSES,
    LOADS,
    WAITS,
    REDIS,
    REDIS_ERRORS,
    NOT_STORED,
    *_COUNTED,
    *_HELD,
    *_WHOLE,
    *_NEAR,
)


class Counts(Protocol):
    """A cache, as far as it is measured."""

    def snapshot(self) -> Snapshot: ...


def gather(caches: Iterable[Counts]) -> list[Snapshot]:
    """What each namespace has counted: of several caches that share one, the sum."""
    namespaces: dict[str, Snapshot] = {}
    for cache in caches:
        counted = cache.snapshot()
        namespaces.setdefault(counted.namespace, Snapshot(counted.namespace)).add(counted)
    return list(namespaces.values())
