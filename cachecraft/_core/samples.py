"""Which parameters of a function are different in every call, as far as a few sampled misses can tell.

It keeps digests, no argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cachecraft._core.canonical import canonical, digest
from cachecraft._core.errors import UnkeyableError

ENOUGH: Final = 16
_ROOM: Final = 32
_EACH: Final = 64
"""After the first few, one miss in so many."""


class Samples:
    """What was asked for in vain."""

    __slots__ = ("_at", "_drawn", "_names", "_seen")

    def __init__(self, parameters: Sequence[str], names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._at = tuple(parameters.index(name) for name in self._names)
        self._drawn: deque[tuple[str | None, ...]] = deque(maxlen=_ROOM)
        self._seen = 0

    def add(self, values: Sequence[Any]) -> None:
        """A call with these values was a miss."""
        self._seen = seen = self._seen + 1
        if seen > ENOUGH and seen % _EACH:
            return
        self._drawn.append(tuple(_digest(values[at], name) for at, name in zip(self._at, self._names, strict=True)))

    def always_different(self) -> list[str]:
        """The parameters of which no two samples had the same value; none if there are too few."""
        return never_alike(self._names, list(self._drawn))

    def __repr__(self) -> str:
        return f"<Samples: {len(self._drawn)} of {self._seen} misses>"


def never_alike(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The columns in which no two rows have the same value."""
    if len(rows) < ENOUGH:
        return []
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return [name for name, column in columns if None not in column and len(set(column)) == len(column)]


def _digest(value: object, name: str) -> str | None:
    try:
        return digest(canonical(value, name))
    except (UnkeyableError, RecursionError):
        return None
