"""Which node goes when memory is full: S3-FIFO over intrusive lists; knows no key, no value and no clock.

Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023. New nodes enter a
small queue, and only what is read twice there moves on to the main one, so a scan washes through without harm. A hit
merely counts (``node.hits``): nothing moves and nothing is locked. Callers of everything else hold the memory's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

DEAD: Final = float("-inf")
"""The ``expires`` of a node that must not be served any more."""
_MOST_HITS: Final = 3


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
    prev: Node
    next: Node
    in_main: bool


class Queue:
    """A FIFO of nodes from which any node can be taken."""

    __slots__ = ("count", "head")

    def __init__(self) -> None:
        head = self.head = Node()
        head.prev = head.next = head
        self.count = 0

    def push(self, node: Node) -> None:
        head = self.head
        last = head.prev
        node.prev, node.next = last, head
        last.next = head.prev = node
        self.count += 1

    def take(self, node: Node) -> None:
        node.prev.next, node.next.prev = node.next, node.prev
        # A reader may still hold the node; it must not hold its neighbours.
        del node.prev, node.next
        self.count -= 1

    def oldest(self) -> Node:
        return self.head.next


class Bound:
    """Keeps nodes within ``max_entries`` and ``max_bytes``; ``evicted`` is told of each that goes."""

    def __init__(self, max_entries: int, max_bytes: int | None, evicted: Callable[[Node], None]) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evictions = 0
        self._evicted = evicted
        self._small = Queue()
        self._main = Queue()
        self._small_share = max(1, max_entries // 10)
        self._ghosts: set[int] = set()
        self._ghost_order: deque[int] = deque()

    def __len__(self) -> int:
        return self._small.count + self._main.count

    def admit(self, node: Node) -> None:
        """Take a node in, and first make room for it: the bounds hold at every moment."""
        while self._small.count + self._main.count >= self.max_entries:
            self._evict()
        if self.max_bytes is not None:
            while self.bytes + node.size > self.max_bytes and len(self):
                self._evict()
        ghost = hash((id(node.shelf), node.key)) if self._ghosts else 0
        if ghost in self._ghosts:
            self._ghosts.discard(ghost)
            node.in_main = True
            self._main.push(node)
        else:
            node.in_main = False
            self._small.push(node)
        self.bytes += node.size

    def replace(self, old: Node, node: Node) -> None:
        """Put ``node`` where ``old`` was, with the standing that ``old`` had earned."""
        in_main = old.in_main
        self.remove(old)
        if in_main and (self.max_bytes is None or self.bytes + node.size <= self.max_bytes):
            node.in_main = True
            self._main.push(node)
            self.bytes += node.size
        else:
            self.admit(node)

    def remove(self, node: Node) -> None:
        (self._main if node.in_main else self._small).take(node)
        self.bytes -= node.size

    def _evict(self) -> None:
        """Drop one node, moving on those that have earned to stay."""
        while True:
            if self._small.count >= self._small_share or not self._main.count:
                node = self._small.oldest()
                if node.hits > 1 and node.expires != DEAD:
                    self._small.take(node)
                    self._settle(node, 0)
                    node.in_main = True
                    self._main.push(node)
                    continue
                self._remember(hash((id(node.shelf), node.key)))
            else:
                node = self._main.oldest()
                if node.hits and node.expires != DEAD:
                    self._main.take(node)
                    self._settle(node, min(node.hits, _MOST_HITS) - 1)
                    self._main.push(node)
                    continue
            self.remove(node)
            self.evictions += 1
            self._evicted(node)
            return

    @staticmethod
    def _settle(node: Node, hits: int) -> None:
        """Set the counter that decides on eviction, without losing what it counted for the statistics."""
        node.shelf.retired += node.hits - hits
        node.hits = hits

    def _remember(self, ghost: int) -> None:
        self._ghosts.add(ghost)
        order = self._ghost_order
        order.append(ghost)
        while len(order) > self.max_entries:
            self._ghosts.discard(order.popleft())
