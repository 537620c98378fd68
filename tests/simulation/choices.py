"""Where the world's decisions come from: a string of bytes, or an enumeration of all there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol


class Choices(Protocol):
    def pick(self, options: int) -> int:
        """A number below ``options``; 0 is what happens when nobody interferes."""

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to decide, so that from here on nobody interferes."""


class Bytes:
    """Decisions from a string of bytes: hypothesis makes and shrinks it, or a seed does."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def pick(self, options: int) -> int:
        if options <= 1 or self.exhausted:
            return 0
        self._at += 1
        return self._data[self._at - 1] % options

    @property
    def exhausted(self) -> bool:
        return self._at >= len(self._data)


class Path:
    """One way through the tree of decisions: a given beginning, then the first option each time."""

    exhausted = False

    def __init__(self, beginning: list[int]) -> None:
        self.taken = beginning
        self.widths: list[int] = []

    def pick(self, options: int) -> int:
        at = len(self.widths)
        self.widths.append(options)
        if at == len(self.taken):
            self.taken.append(0)
        return self.taken[at]

    def next(self) -> list[int] | None:
        """The beginning of the next way, depth first; ``None`` after the last one."""
        taken = self.taken[: len(self.widths)]
        while taken:
            last = taken.pop()
            if last + 1 < self.widths[len(taken)]:
                return [*taken, last + 1]
        return None


def all_ways(run: Callable[[Path], object]) -> Iterator[Path]:
    """Go every way there is, one run each."""
    beginning: list[int] | None = []
    while beginning is not None:
        path = Path(beginning)
        run(path)
        yield path
        beginning = path.next()
