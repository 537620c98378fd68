"""How long things took, counted in buckets of fixed bounds; knows neither a clock nor what it was that took so long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds up to which each bucket reaches, that included; one more bucket has all that took longer."""
QUICK: Final = BOUNDS[0]


def no_counts() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


class Durations:
    """Buckets and their sum. An addition is a few bytecodes, each atomic under the GIL."""

    __slots__ = ("counts", "seconds")

    def __init__(self, counts: Iterable[int] = (), seconds: float = 0.0) -> None:
        self.counts = list(counts) or no_counts()
        """How many fell into each bucket."""
        self.seconds = seconds
        """All of them together."""

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def merge(self, other: Durations, times: int = 1) -> None:
        """Add what the other has; with ``times=-1``, take it away."""
        self.counts = [mine + times * theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += times * other.seconds

    def raise_to(self, other: Durations) -> None:
        """Be nowhere less than the other."""
        self.counts = list(map(max, self.counts, other.counts))
        self.seconds = max(self.seconds, other.seconds)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Seconds that so large a share stayed below: exact to the bucket, evenly spread within it.

        0 if there were none; of the last bucket, which has no end, its beginning.
        """
        below = list(accumulate(self.counts))
        if not below[-1]:
            return 0.0
        rank = share * below[-1]
        at = bisect_left(below, rank)
        if at >= len(BOUNDS):
            return BOUNDS[-1]
        low = BOUNDS[at - 1] if at else 0.0
        within = (rank - (below[at] - self.counts[at])) / self.counts[at] if self.counts[at] else 0.0
        return low + (BOUNDS[at] - low) * within

    def __repr__(self) -> str:
        return f"<Durations: {self.count}, p50 {self.quantile(0.5):.2g} s, p99 {self.quantile(0.99):.2g} s>"
