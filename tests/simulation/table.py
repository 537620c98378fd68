"""The database behind a queue: what it holds, which writes are on their way, and what their callers rely on.

Writes have numbers; zero is what was there before any. They take effect, one after the other, when they begin to wait:
of one whose caller was not answered, nobody knows when that will be.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

BEFORE: int = 0


@dataclass(frozen=True)
class Promise:
    """What who asks now may rely on: these writes have returned, those were given up before."""

    returned: tuple[int, ...]
    given_up: frozenset[int]


@dataclass
class Table:
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By key, the write that was delivered last."""
    keys: list[str] = field(default_factory=lambda: [""])
    """Of each write."""
    order: list[int] = field(default_factory=lambda: [BEFORE])
    """Writes, as they began to wait."""
    made: set[int] = field(default_factory=set)
    forsaken: set[int] = field(default_factory=set)
    """Writes that a worker gives up: from some moment on nobody reads them."""
    given_up: set[int] = field(default_factory=set)
    """Those of which it has said so."""
    _returned: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def begin(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys) - 1

    def queued(self, write: bytes) -> None:
        self.order.append(int(write))

    def returned(self, write: int) -> None:
        self._returned[self.keys[write]].append(write)

    def deliver(self, write: int) -> str | None:
        """Make a write. Answers what is wrong with that."""
        key = self.keys[write]
        before, self.rows[key] = self.rows[key], write
        self.made.add(write)
        return f"order: {key} fell back from write {before} to {write}" if self._older(write, before) else None

    def promise(self, key: str) -> Promise:
        return Promise(tuple(self._returned[key]), frozenset(self.given_up))

    def wrong(self, shown: int, promise: Promise) -> str | None:
        """What is wrong with a read that was made this promise, and that this write is shown."""
        for write in promise.returned:
            if self._older(shown, write) and not (write in self.forsaken and write not in self.made):
                return f"P1: is shown write {shown}, though {write} had returned before"
        if shown in promise.given_up and shown not in self.made:
            return f"P1: is shown write {shown}, though it had been given up before"
        return None

    def settled(self, aside: set[int]) -> str | None:
        """Nothing waits any more, and these writes were put aside: from now on that is a promise to everybody.

        Answers what is wrong with it.
        """
        self.given_up |= aside
        due = {self.keys[write]: write for write in self.order if write in self.made or write not in aside}
        for key, write in due.items():
            if write != BEFORE and self.rows[key] != write:
                return f"lost: the table has write {self.rows[key]} of {key}, and not {write}"
            self.returned(write)
        return None

    def _older(self, write: int, than: int) -> bool:
        return self.order.index(write) < self.order.index(than)
