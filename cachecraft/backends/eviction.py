"""Which node goes when memory is full: S3-FIFO that finds the size of its queues; knows no value and no clock.

Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023. New nodes enter a
small queue, and only what is read twice there moves on to the main one, so a scan washes through without harm. A hit
merely counts (``node.hits``): nothing moves and nothing is locked. Callers of everything else are making a change
(``Memory.begin``).

A tenth for the small queue is right for popularity that lasts, and loses a third of the hits where whole working sets
come and go. So what is missed again soon after it went moves the border, as in ARC (Megiddo and Modha, FAST 2003): in
favour of the queue that had let go of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

DEAD: Final = float("-inf")
"""The ``expires`` of a node that must not be served any more."""
ENTRY_BYTES: Final = 250
"""Bytes of bookkeeping for an entry: node, call key, table slot."""
NO_KEY: Final = object()
"""The call key of a node that has only a wire key; not ``None``, which is an argument like any other."""
_MOST_HITS: Final = 2
_LEAST_PART: Final = 0.02
_MOST_PART: Final = 0.9


class Node:
    """One value in memory. ``expires`` (clock seconds) ends the time in which a hit may return it unasked."""

    # Ten slots fill the allocator's 112 bytes exactly; an eleventh would cost sixteen bytes an entry.
    __slots__ = ("expires", "hits", "in_main", "key", "kind", "next", "prev", "shelf", "size", "value")

    value: Any
    expires: float
    kind: object
    hits: int
    key: Any
    shelf: Any
    size: int
    """Bytes of value and names. Without those of every entry, so that most sizes are among Python's ready-made ints."""
    prev: Node
    next: Node
    in_main: bool

    # A plain node has no tags, and no other function is served it.
    tags: tuple[str, ...] = ()
    epoch = 0
    fallen = False
    """Whether one of its tags was invalidated."""


def _ring() -> Node:
    """The head of an empty queue: a ring of nodes, oldest next to the head."""
    head = Node()
    head.prev = head.next = head
    return head


def _push(head: Node, node: Node) -> None:
    last = head.prev
    node.prev, node.next = last, head
    last.next = head.prev = node


def _take(node: Node) -> None:
    before, after = node.prev, node.next
    before.next, after.prev = after, before
    # A reader may still hold the node; it must not hold its neighbours.
    node.prev = node.next = None  # type: ignore[assignment]  # out of the ring, where they are never read


class Bound:
    """Keeps nodes within ``max_entries`` and ``max_bytes``; ``evicted`` takes those that go out of their indexes.

    ``reclaim`` lets go of some that are of no use to anybody and answers whether there were any: they go first.
    """

    def __init__(
        self, max_entries: int, max_bytes: int | None, evicted: Callable[[Node], None], reclaim: Callable[[], bool]
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self.count = 0
        self.evictions = 0
        self._most_bytes = sys.maxsize if max_bytes is None else max_bytes
        #: The size of a node that has just room enough.
        self.largest = self._most_bytes - ENTRY_BYTES
        #: How many nodes there may be before one that comes in has to think of others; 0 while there is something to
        #: reclaim, so that this is found out for nothing.
        self.brim = max_entries
        self._evicted = evicted
        self._reclaim = reclaim
        self._small = _ring()
        self._main = _ring()
        self._in_small = 0
        #: How much of the memory the small queue may have; in nodes, what it must have for one of its own to go.
        self._small_part = 0.1
        self._small_share = max(1, max_entries // 10)
        # Hashes of what went, each in the place it falls into until another falls there; inverted if it was in the main
        # queue. On average that lasts as long as in a queue of ghosts, for one store instead of four calls.
        self._ghosts: list[int | None] = [None]
        self._places = 1
        self._missed_small = self._missed_main = 1

    def __len__(self) -> int:
        return self.count

    def let_go_of(self, key: object) -> bool:
        """Whether a node of this key went lately, to make room; as far as a hash tells, whoever's node that was."""
        ghost = hash(key)
        return self._ghosts[ghost % self._places] in (ghost, ~ghost)

    def admit(self, node: Node) -> None:
        """Take a node in, and first make room for it: the bounds hold at every moment."""
        small = self._small
        key = node.key
        ghost = hash(key) if key is not NO_KEY else _ghost(node)
        size = self.bytes + node.size + ENTRY_BYTES
        brim = self.brim
        if self.count < brim and size <= self._most_bytes:
            self.count += 1
            self._in_small += 1
        else:
            old = small.next
            if (
                brim
                and self._in_small >= self._small_share
                and type(old) is Node
                and old.hits <= 1
                and size - old.size - ENTRY_BYTES <= self._most_bytes
                and self.count <= self._places
            ):
                # _evict and Memory.detach, written out for a plain node: where memory is full, nearly every miss comes
                # here, and three calls are a tenth of its price.
                gone = hash(old.key)
                self._ghosts[gone % self._places] = gone
                old.expires = DEAD
                shelf = old.shelf
                shelf.nodes.pop(old.key, None)
                if old.hits:
                    shelf.retired += old.hits
                    old.hits = 0
                small.next = after = old.next
                after.prev = small
                old.prev = old.next = None  # type: ignore[assignment]  # as in _take
                self.evictions += 1
                size -= old.size + ENTRY_BYTES
            else:
                self._make_room(node.size)
                size = self.bytes + node.size + ENTRY_BYTES
                self.count += 1
                self._in_small += 1
        self.bytes = size
        met = self._ghosts[ghost % self._places]
        if met is not None and (met == ghost or met == ~ghost):  # noqa: PLR1714 - a tuple would be made each time
            self._shift(ghost, met)
            if met == ghost:
                self._in_small -= 1
                node.in_main = True
                _push(self._main, node)
                return
        node.in_main = False
        # _push, written out
        last = small.prev
        node.prev = last
        node.next = small
        last.next = small.prev = node

    def replace(self, old: Node, node: Node) -> None:
        """Put ``node`` where ``old`` was, with the standing that ``old`` had earned."""
        in_main = old.in_main
        self.remove(old)
        if in_main and self.bytes + node.size <= self.largest:
            node.in_main = True
            _push(self._main, node)
            self.count += 1
            self.bytes += node.size + ENTRY_BYTES
        else:
            self.admit(node)

    def remove(self, node: Node) -> None:
        if node.prev is not None:  # else it is out already
            _take(node)
            self.count -= 1
            self.bytes -= node.size + ENTRY_BYTES
            if not node.in_main:
                self._in_small -= 1

    def _make_room(self, size: int) -> None:
        if not self.brim:
            self._reclaim()
        while self._lacks(size) and self._reclaim():
            pass
        if not self._lacks(size):
            return
        if self.count > self._places:
            self._places = min(2 * self.count, self.max_entries)
            self._ghosts = [None] * self._places
        # Where bytes are what bounds it, this many nodes is what fits.
        self._small_share = max(1, int(self.count * self._small_part))
        while self._lacks(size):
            self._evict()

    def _lacks(self, size: int) -> bool:
        """Whether something has to go before a node of this size may come."""
        return self.count > 0 and (self.count >= self.max_entries or self.bytes + size > self.largest)

    def _evict(self) -> None:
        """Drop one node, moving on those that have earned to stay."""
        while True:
            if self._in_small >= self._small_share or self._in_small == self.count:
                node = self._small.next
                if node.hits <= 1:
                    self._in_small -= 1
                    ghost = _ghost(node)
                    self._ghosts[ghost % self._places] = ghost
                    break
                _take(node)
                self._settle(node, 0)
                self._in_small -= 1
                node.in_main = True
            else:
                node = self._main.next
                if not node.hits:
                    ghost = _ghost(node)
                    self._ghosts[ghost % self._places] = ~ghost
                    break
                _take(node)
                self._settle(node, min(node.hits, _MOST_HITS) - 1)
            _push(self._main, node)
        _take(node)
        self.count -= 1
        self.bytes -= node.size + ENTRY_BYTES
        self.evictions += 1
        self._evicted(node)

    def _shift(self, ghost: int, met: int) -> None:
        """One comes back that a larger queue would have kept: move the border, the further the rarer that is."""
        self._ghosts[ghost % self._places] = None
        if met == ghost:
            self._missed_small += 1
            step = max(1.0, self._missed_main / self._missed_small)
        else:
            self._missed_main += 1
            step = -max(1.0, self._missed_small / self._missed_main)
        if self._missed_small + self._missed_main > self.count:
            # What was long ago counts less.
            self._missed_small = self._missed_small // 2 + 1
            self._missed_main = self._missed_main // 2 + 1
        self._small_part = min(max(self._small_part + step / self.count, _LEAST_PART), _MOST_PART)
        self._small_share = max(1, int(self.count * self._small_part))

    @staticmethod
    def _settle(node: Node, hits: int) -> None:
        """Set the counter that decides on eviction, without losing what it counted for the statistics."""
        node.shelf.retired += node.hits - hits
        node.hits = hits


def _ghost(node: Node) -> int:
    """What is remembered of a node that went, in case it comes back soon. It only sorts; two may share it."""
    key = node.key
    return hash(key) if key is not NO_KEY else hash(node.wire)  # type: ignore[attr-defined]  # a Named, having no call key
