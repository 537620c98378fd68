"""How long Redis takes, by operation, and what failed; knows effects by their kind alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Any

from cachecraft._core.durations import BOUNDS, Durations
from cachecraft._core.effects import Remote


class Timings:
    """Round trips as their callers saw them: with the wait for a connection, and for a turn of the event loop."""

    def __init__(self) -> None:
        self._durations: defaultdict[type[Remote[Any]], Durations] = defaultdict(Durations)
        self._errors: Counter[type[Remote[Any]]] = Counter()

    def add(self, kind: type[Remote[Any]], seconds: float) -> None:
        durations = self._durations[kind]
        # Durations.add, written out: every hit in Redis comes here.
        durations.counts[bisect_left(BOUNDS, seconds)] += 1
        durations.seconds += seconds

    def failed(self, kind: type[Remote[Any]], seconds: float) -> None:
        self.add(kind, seconds)
        self._errors[kind] += 1

    def durations(self) -> dict[str, Durations]:
        """All of them, failures too, by operation."""
        return {operation(kind): Durations(each.counts, each.seconds) for kind, each in dict(self._durations).items()}

    def errors(self) -> Counter[str]:
        return Counter({operation(kind): count for kind, count in dict(self._errors).items()})

    def __repr__(self) -> str:
        return f"<Timings: {self.durations()}>"


def operation(kind: type[Remote[Any]]) -> str:
    """What people call it: fetch, acquire, store, ..."""
    return kind.__name__.lower()
