"""Invalidations that have not reached the store, and what must not be served until they have; does no I/O.

They are kept as the effects they were. An item leaves by its serial number: one that came again while it was being
replayed is replayed again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from cachecraft._core.effects import Acquire, Claim, Delete, Fetch, Remote, Stamp, Store, Sweep
from cachecraft._core.keys import matcher

Invalidation = Delete | Sweep
Item = tuple[int, Invalidation]
"""A serial number, and what is to be done."""

ROOM: Final = 10_000
"""Keys and stamps that it holds."""
_SWEEP: Final = 100
"""Keys that a pattern counts for: while it waits, every read must be held against it."""


class Journal:
    """What is still to be invalidated. When it is full, everything is: ``roots`` are the stamps that all entries carry.

    A read of its emptiness is all that it costs while there is nothing in it.
    """

    def __init__(self, roots: Callable[[], Sequence[str]], *, room: int = ROOM) -> None:
        self._roots = roots
        self._room = room
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self._lock = threading.RLock()
        self.total = 0
        """How many invalidations it has ever taken."""
        self._clear()

    def _clear(self) -> None:
        self._items: dict[Invalidation, int] = {}
        self._names: Counter[str] = Counter()
        """Keys and stamps, and how many items name each."""
        self._patterns: dict[str, Callable[[str], bool]] = {}
        self._weight = 0

    def after_fork(self) -> None:
        """In a forked child: it holds what the parent held, which deletes twice what once would have been enough for.

        A thread of the parent may have been in the middle of a change.
        """
        self._lock = threading.RLock()
        items = dict(self._items)
        self._clear()
        for effect, serial in items.items():
            self._put(effect, serial)

    def add(self, effect: Invalidation) -> bool:
        """Keep it; from here on ``affects`` knows it. Answers whether it was too much, so that now everything is."""
        if isinstance(effect, Sweep):
            effect = Sweep(effect.prefix, effect.pattern)  # nobody is told of its progress any more
        with self._lock:
            self.total += 1
            full = self._weight + _weight(effect) > self._room and effect not in self._items
            if full:
                everything = Delete(tuple(self._roots()))
                self._put(everything, self.total)  # before the others go: who reads meanwhile takes no lock
                for each in [each for each in self._items if each != everything]:
                    self._drop(each)
            else:
                self._put(effect, self.total)
            return full

    def pending(self) -> list[Item]:
        """What is to be replayed, in the order in which it came."""
        with self._lock:
            return sorted((serial, effect) for effect, serial in self._items.items())

    def done(self, item: Item) -> None:
        """It has been acknowledged. What came again since stays."""
        serial, effect = item
        with self._lock:
            if self._items.get(effect) == serial:
                self._drop(effect)

    def affects(self, effect: Remote[Any]) -> bool:
        """Whether it would read, or store, what has yet to be invalidated."""
        if isinstance(effect, (Fetch, Acquire)):
            return self._names_any(effect.tags) or self._reaches(effect.key)
        if isinstance(effect, (Store, Claim)):
            return self._reaches(effect.key)
        return isinstance(effect, Stamp) and self._names_any(effect.tags)

    def _names_any(self, names: Sequence[str]) -> bool:
        return not self._names.keys().isdisjoint(names)

    def _reaches(self, key: str) -> bool:
        return key in self._names or any(matches(key) for matches in list(self._patterns.values()))

    def _put(self, effect: Invalidation, serial: int) -> None:
        if effect not in self._items:
            self._weight += _weight(effect)
            if isinstance(effect, Sweep):
                pattern = effect.prefix + effect.pattern
                self._patterns[pattern] = matcher(pattern)
            else:
                self._names.update(effect.keys)
        self._items[effect] = serial

    def _drop(self, effect: Invalidation) -> None:
        del self._items[effect]
        self._weight -= _weight(effect)
        if isinstance(effect, Sweep):
            del self._patterns[effect.prefix + effect.pattern]
            return
        for name, count in Counter(effect.keys).items():
            self._names[name] -= count
            if not self._names[name]:
                del self._names[name]

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Journal: {len(self._items)} of {self.total} invalidations wait>"


def _weight(effect: Invalidation) -> int:
    return _SWEEP if isinstance(effect, Sweep) else len(effect.keys)
