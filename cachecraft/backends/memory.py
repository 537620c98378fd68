"""Entries in this process: nodes by call key and by wire key, bounded, and never revived once invalidated.

Knows functions only by their tables, and neither Redis nor an event loop. A hit reads ``Shelf.nodes`` without a lock
(see ``_wrappers``); whatever changes something holds ``Memory.lock``, and what is invalidated has ``expires == DEAD``
before the lock is released.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any

from cachecraft._core.flights import Flight
from cachecraft._core.keys import matcher
from cachecraft.backends.eviction import DEAD, NO_KEY, Bound, Node
from cachecraft.backends.nodes import Grave, Named, Shelf
from cachecraft.backends.table import Lookup, Table


class Memory:
    """A bounded store of nodes, shared by the functions of one cache."""

    def __init__(
        self, *, max_entries: int, max_bytes: int | None, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self.lock = RLock()
        self.clock = clock
        self.random = random
        self.bound = Bound(max_entries, max_bytes, self.detach)
        #: Of the functions whose keys the user wrote: nodes by wire key, and loads under way.
        self.names: dict[str, Named] = {}
        self.flights: dict[Any, Flight] = {}
        self.tags: dict[str, set[Named]] = {}
        self.tables: weakref.WeakSet[Table] = weakref.WeakSet()
        self._graves: deque[Grave] = deque()

    def after_fork(self) -> None:
        """In a forked child: loads may be led, and the lock be held, by threads that are not here."""
        torn = not self.lock.acquire(blocking=False)
        if torn:
            # Whoever held it was in the middle of a change. The lock stays the same object: others hold on to it.
            self.lock._at_fork_reinit()  # type: ignore[attr-defined]  # what threading itself does after a fork
        else:
            self.lock.release()
        for table in list(self.tables):
            table.flights.clear()
            if torn:
                table.forget()
        if torn:
            self.names.clear()
            self.tags.clear()
            self.bound.__init__(self.bound.max_entries, self.bound.max_bytes, self.detach)  # type: ignore[misc]  # emptied in place

    def __len__(self) -> int:
        with self.lock:
            self.reap()
            return len(self.bound)

    # -- removing; the caller holds the lock -----------------------------------------------------------------

    def detach(self, node: Node) -> None:
        """Take a node out of every index, and make sure that nobody serves it."""
        node.expires = DEAD
        shelf: Shelf = node.shelf
        if node.key is not NO_KEY and shelf.nodes.get(node.key) is node:
            del shelf.nodes[node.key]
        if type(node) is not Node:
            assert isinstance(node, Named)
            if node.wire is not None and shelf.names.get(node.wire) is node:
                del shelf.names[node.wire]
            for tag in node.tags:
                tagged = self.tags.get(tag)
                if tagged is not None:
                    tagged.discard(node)
                    if not tagged:
                        del self.tags[tag]
        shelf.retired += node.hits
        node.hits = 0

    def drop(self, node: Node) -> int:
        """Remove a node; 1 if it could still have been served."""
        alive = (node.until if isinstance(node, Named) else node.expires) > self.clock()
        self.detach(node)
        self.bound.remove(node)
        return int(alive)

    def bury(self, grave: Grave) -> None:
        """An owner died. Called by the garbage collector, perhaps in the middle of anything: it must not block."""
        self._graves.append(grave)
        # This very thread may be in the middle of a change. Then the grave waits for the next one.
        owned = self.lock._is_owned()  # type: ignore[attr-defined]  # what threading.Condition relies on
        if not owned and self.lock.acquire(blocking=False):
            try:
                self.reap()
            finally:
                self.lock.release()

    def reap(self) -> None:
        """Let go of what belonged to objects and functions that have died."""
        while self._graves:
            shelf = self._graves.popleft().shelf
            table = shelf.table
            table.graves.pop(shelf.serial, None)
            if table.shelves.get(shelf.ident) is shelf:
                del table.shelves[shelf.ident]
            # The shelf of the function itself dies last, with all that its objects still have.
            for each in table.all_shelves if shelf is table.shelf else [shelf]:
                for node in each.all():
                    self.drop(node)
            if shelf is not table.shelf:
                table.retired += shelf.retired

    # -- invalidating ----------------------------------------------------------------------------------------

    @staticmethod
    def _void(board: dict[Any, Flight], doomed: Callable[[Flight], bool]) -> None:
        # A copy: the wrappers put flights on the board without the lock.
        for flight in list(board.values()):
            if doomed(flight):
                flight.void = True
                board.pop(flight.key, None)

    def invalidate(self, lookup: Lookup) -> int:
        """Drop the entry of one call."""
        with self.lock:
            self.void(lookup.table, lookup)
            node = lookup.table.find(lookup)
            return self.drop(node) if node is not None else 0

    @staticmethod
    def void(table: Table, lookup: Lookup) -> None:
        """Have the load of a call under way, if there is one, keep its result to itself."""
        flight = table.flights.pop(lookup.flight_key, None)
        if flight is not None:
            flight.void = True

    def invalidate_key(self, wire: str) -> int:
        """Drop the entry with this wire key, whichever function it belongs to."""
        with self.lock:
            names = self._voided_names(lambda flight_wire: flight_wire == wire, wire.startswith)
            doomed = [node for each in names if (node := each.get(wire)) is not None]
            return sum(map(self.drop, doomed))

    def invalidate_pattern(self, prefix: str, pattern: str) -> int:
        """Drop what matches a glob pattern within one namespace."""
        matches = matcher(prefix + pattern)
        fixed = (
            prefix + pattern[: min((at for at, sign in enumerate(pattern) if sign in "*?[\\"), default=len(pattern))]
        )
        with self.lock:
            names = self._voided_names(matches, lambda stem: fixed.startswith(stem) or stem.startswith(fixed))
            doomed = [node for each in names for wire, node in each.items() if matches(wire)]
            return sum(map(self.drop, doomed))

    def _voided_names(self, doomed: Callable[[str], bool], concerns: Callable[[str], bool]) -> list[dict[str, Named]]:
        """Void the loads whose wire keys are doomed; answers where nodes with such wire keys may be found.

        ``concerns`` tells whether a function whose keys begin so may have any.
        """
        self._void(self.flights, lambda flight: doomed(flight.shelf.table.flight_wire(flight)))
        names = [self.names]
        for table in self._tables():
            if not table.shared and (table.subject.explicit or concerns(table.prefix + table.subject.stem)):
                self._void(table.flights, lambda flight: doomed(flight.shelf.table.flight_wire(flight)))
                table.index()
                names += [shelf.names for shelf in table.all_shelves]
        return names

    def invalidate_tags(self, tags: Iterable[str]) -> int:
        """Drop what carries any of these tags (their full names)."""
        names = frozenset(tags)
        with self.lock:
            for board in (self.flights, *(table.flights for table in self._tables())):
                for flight in list(board.values()):
                    # What is put by hand brings its own tags; they are compared when it lands.
                    flight.lost = flight.lost | names
                self._void(board, lambda flight: _may_carry(flight, names))
            doomed = {node for name in names for node in self.tags.get(name, ())}
            return sum(map(self.drop, doomed))

    def invalidate_table(self, table: Table) -> int:
        """Drop all that belongs to one function."""
        with self.lock:
            self.reap()
            self._void(table.flights, lambda flight: flight.shelf.table is table)
            return sum(self.drop(node) for shelf in table.all_shelves for node in shelf.all())

    def clear(self) -> int:
        with self.lock:
            return sum(self.invalidate_table(table) for table in self._tables())

    def _tables(self) -> list[Table]:
        self.reap()
        return list(self.tables)

    def __repr__(self) -> str:
        bound = self.bound
        return f"<Memory: {len(bound)} of {bound.max_entries} entries, {bound.bytes} of {bound.max_bytes} bytes>"


def _may_carry(flight: Flight, tags: frozenset[str]) -> bool:
    """Whether a load may turn out to carry one of these tags; where they follow from the result, nobody knows yet."""
    return flight.shelf.table.subject.tag_maker is not None or not tags.isdisjoint(flight.tags or ())
