"""Entries in this process: nodes by call key and by wire key, bounded, and never revived once invalidated.

Knows functions only by their tables, and neither Redis nor an event loop. A hit reads ``Shelf.nodes`` without a lock
(see ``_wrappers``); whatever changes something holds ``Memory.lock``.

A signal handler, or a destructor, may use the cache in the middle of a *change*, in the thread that has the lock. So
there is one change at a time even within a thread (``begin``): what comes in the middle of one may make its nodes
unservable, and void loads, at once; it stores nothing, and what it removes leaves the indexes when the change is done.

What is invalidated is out of reach before the lock is released. A few nodes are dropped one by one. Of many, only what
holds them together is marked, so that it takes no longer for a million: a function begins with empty shelves, and the
nodes of a tag that fell are told by it. They are ``doomed``, and let go of in portions by those who come next
(``reclaim``). To look up a node's tags would cost each hit, so the wrappers of functions with tags are *wary* until
all the fallen are gone: to them no node is fresh, and the flow looks at it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from threading import RLock
from typing import Any, Final

from cachecraft._core.flights import Flight
from cachecraft._core.keys import matcher
from cachecraft._core.trail import Trail
from cachecraft._core.verification import Seats
from cachecraft.backends.doomed import Doomed, Retired, Tagged
from cachecraft.backends.eviction import DEAD, Bound, Node
from cachecraft.backends.nodes import Grave, Named, Shelf, place
from cachecraft.backends.table import Lookup, Table

AT_ONCE: Final = 1000
"""An invalidation of more nodes than this leaves them to others: about a millisecond."""
PORTION: Final = 32
"""Nodes that one call lets go of on behalf of an invalidation."""


EMPTY: Final[dict[str, float]] = dict.fromkeys(("memory_entries", "memory_bytes", "evictions"), 0)
"""The counters where nothing is held in memory."""


class Memory:
    """A bounded store of nodes, shared by the functions of one cache."""

    def __init__(
        self, *, max_entries: int, max_bytes: int | None, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self.lock = RLock()
        self.clock = clock
        self.random = random
        self.bound = Bound(max_entries, max_bytes, self.detach, self.reclaim)
        #: Of the functions whose keys the user wrote: nodes by wire key, and loads under way.
        self.names: dict[str, Named] = {}
        self.flights: dict[Any, Flight] = {}
        self.tags: dict[str, Tagged] = {}
        self.tables: weakref.WeakSet[Table] = weakref.WeakSet()
        self.doomed = Doomed()
        self.epoch = 0
        """Another begins when all of a function is invalidated: what others stored under its keys may be older."""
        self.trail = Trail(clock)
        self.seats = Seats()
        self.wary = False
        """Among the nodes that wrappers find there are some whose tag fell."""
        self.changing = False
        self.disturbed = False
        """Something was invalidated since the change began: what it stores may be out of date."""
        self.late: list[Node] = []
        """What is to be removed when the change is done."""
        self._graves: deque[Grave] = deque()

    def after_fork(self) -> None:
        """In a forked child: loads may be led, and the lock be held, by threads that are not here."""
        torn = not self.lock.acquire(blocking=False)
        if torn:
            # Whoever held it was in the middle of a change. The lock stays the same object: others hold on to it.
            self.lock._at_fork_reinit()  # type: ignore[attr-defined]  # what threading itself does after a fork
        else:
            self.lock.release()
        self.seats.after_fork()
        for table in list(self.tables):
            table.flights.clear()
        if torn:
            self.late.clear()
            self.names.clear()
            self.tags.clear()
            self.doomed.clear()
            self.wary = self.changing = False
            bound = self.bound
            bound.__init__(bound.max_entries, bound.max_bytes, self.detach, self.reclaim)  # type: ignore[misc]  # emptied in place
            for table in list(self.tables):
                table.forget()

    def __len__(self) -> int:
        with self.lock:
            self.reap()
            return len(self.bound)

    def counters(self) -> dict[str, float]:
        """For the statistics of the cache."""
        bound = self.bound
        return {"memory_entries": len(bound), "memory_bytes": bound.bytes, "evictions": bound.evictions}

    # -- changing; the caller holds the lock -----------------------------------------------------------------

    def begin(self) -> bool:
        """Whether a change may be made now, up to ``done``; not in the middle of another."""
        if self.changing:
            return False
        self.changing = True
        self.disturbed = False
        return True

    def done(self) -> None:
        self.changing = False
        while self.late:
            self.changing = True
            try:
                while self.late:
                    self._remove(self.late.pop())
            finally:
                self.changing = False

    def detach(self, node: Node) -> None:
        """Take a node out of every index, and make sure that nobody serves it. Part of a change."""
        node.expires = DEAD
        shelf: Shelf = node.shelf
        nodes = shelf.nodes
        if nodes.get(stand := place(node)) is node:
            del nodes[stand]
        if type(node) is not Node:
            assert isinstance(node, Named)
            if node.wire is not None and shelf.names.get(node.wire) is node:
                del shelf.names[node.wire]
            for tagged in node.tagged:
                tagged.nodes.discard(node)
                if not tagged and self.tags.get(tagged.tag) is tagged:
                    del self.tags[tagged.tag]
        shelf.retired += node.hits
        node.hits = 0

    def drop(self, node: Node) -> int:
        """Remove a node; 1 if it could still have been served."""
        ends = node.until if isinstance(node, Named) and node.expires != DEAD else node.expires
        alive = ends > self.clock() and not node.fallen
        if self.begin():
            try:
                self._remove(node)
            finally:
                self.done()
        else:
            node.expires = DEAD
            self.late.append(node)
        return int(alive)

    def _remove(self, node: Node) -> None:
        self.detach(node)
        self.bound.remove(node)

    def tagged(self, tag: str) -> Tagged:
        tagged = self.tags.get(tag)
        if tagged is None:
            tagged = self.tags[tag] = Tagged(tag)
        return tagged

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
        while self._graves and not self.changing:
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

    def _disturb(self) -> None:
        self.disturbed = True
        if self.changing:
            # What we interrupted may have emptied shelves, and be about to say so.
            for table in list(self.tables):
                table.moved()

    def _void(self, board: dict[Any, Flight], doomed: Callable[[Flight], bool]) -> None:
        self._disturb()
        # A copy: the wrappers put flights on the board without the lock.
        for flight in list(board.values()):
            if doomed(flight):
                flight.void = True
                board.pop(flight.key, None)

    def invalidate(self, lookup: Lookup) -> int:
        """Drop the entry of one call."""
        with self.lock:
            self.void(lookup.table, lookup)
            node = lookup.table.standing_for(lookup)
            return self.drop(node) if node is not None else 0

    def void(self, table: Table, lookup: Lookup) -> None:
        """Have the load of a call under way, if there is one, keep its result to itself."""
        self._disturb()
        flight = table.flights.pop(lookup.flight_key, None)
        if flight is not None:
            flight.void = True

    def invalidate_key(self, wire: str) -> int:
        """Drop the entry with this wire key, whichever function it belongs to."""
        with self.lock:
            names = self._voided_names(lambda flight_wire: flight_wire == wire, wire.startswith)
            found = [node for each in names if (node := each.get(wire)) is not None]
            return self._drop_standing(found)

    def invalidate_pattern(self, prefix: str, pattern: str) -> int:
        """Drop what matches a glob pattern within one namespace."""
        matches = matcher(prefix + pattern)
        fixed = (
            prefix + pattern[: min((at for at, sign in enumerate(pattern) if sign in "*?[\\"), default=len(pattern))]
        )
        with self.lock:
            names = self._voided_names(matches, lambda stem: fixed.startswith(stem) or stem.startswith(fixed))
            found = [node for each in names for wire, node in list(each.items()) if matches(wire)]
            return self._drop_standing(found)

    def _drop_standing(self, nodes: Iterable[Node]) -> int:
        # What was retired is gone already, and let go of with all that it was retired with.
        return sum(self.drop(node) for node in nodes if node.shelf.holds(node))

    def _voided_names(self, doomed: Callable[[str], bool], concerns: Callable[[str], bool]) -> list[Mapping[str, Node]]:
        """Void the loads whose wire keys are doomed; answers where nodes with such wire keys may be found.

        ``concerns`` tells whether a function whose keys begin so may have any.
        """
        self._void(self.flights, lambda flight: doomed(flight.shelf.table.flight_wire(flight)))
        names: list[Mapping[str, Node]] = [self.names]
        for table in self._tables():
            if not table.shared and (table.subject.explicit or concerns(table.prefix + table.subject.stem)):
                self._void(table.flights, lambda flight: doomed(flight.shelf.table.flight_wire(flight)))
                names += table.index()
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
            count, left = 0, AT_ONCE
            falling = []
            # The smallest first, so that many small ones and a large one are still counted exactly.
            for tagged in sorted(filter(None, map(self.tags.get, names)), key=len):
                left -= len(tagged)
                if left >= 0:
                    count += self._drop_standing(list(tagged.nodes))
                else:
                    falling.append(tagged)
            return count + self._let_fall(falling)

    def _let_fall(self, falling: list[Tagged]) -> int:
        """Serve none of their nodes any more. Answers how many these were, without those that may have been gone."""
        if not falling:
            return 0
        count, gone = 0, self.doomed.fallen + self.doomed.retired
        for tagged in falling:
            count += max(0, len(tagged) - gone)
            gone += len(tagged)
            tagged.fallen = True
            self._doom(tagged)
        self.wary = True
        self._tell()
        # Last, so that whoever was interrupted, and invalidates once more, finds them again.
        for tagged in falling:
            self.tags.pop(tagged.tag, None)
        return count

    def invalidate_tables(self, tables: Iterable[Table]) -> int:
        """Drop all that belongs to these functions."""
        with self.lock:
            self.reap()
            count, left = 0, AT_ONCE
            for table in tables:
                self.epoch = table.epoch = self.epoch + 1
                self._void(table.flights, _loads_of(table))
                left -= table.size
                if left >= 0:
                    count += self._drop_standing(table.standing())
                else:
                    count += self._retire(table)
                if self.doomed:
                    table.moved()  # here, so that it is made up for if it was interrupted the last time
            return count

    def _retire(self, table: Table) -> int:
        """Have a function begin with empty shelves. Answers how many nodes went, without those already gone."""
        mine = self.begin()
        try:
            retired = table.contents
            self._doom(retired)
            table.empty()
            table.moved()
        finally:
            if mine:
                self.done()
        return max(0, len(retired) - self.doomed.fallen * table.tagged)

    # -- letting go of what was invalidated; the caller holds the lock ---------------------------------------

    def _doom(self, group: Tagged | Retired) -> None:
        self.doomed.add(group)
        self.bound.brim = 0

    def _tell(self) -> None:
        for table in list(self.tables):
            if table.tagged:
                table.moved()

    def reclaim(self) -> bool:
        """Drop some of what is doomed; false if there is nothing to be done. Part of a change."""
        if not self.doomed:
            return False
        for _ in range(PORTION):
            node = self.doomed.take() if self.doomed else None
            if node is not None:
                # Its shelf may have been buried meanwhile, with what it had counted.
                node.shelf.table.retired += node.hits
                node.hits = 0
                self._remove(node)
        # Set first and then looked at again: something may be invalidated in between.
        if self.wary and not self.doomed.falling:
            self.wary = False
            if self.doomed.falling:
                self.wary = True
            self._tell()
        if not self.doomed:
            self.bound.brim = self.bound.max_entries
            if self.doomed:
                self.bound.brim = 0
        return True

    def tidy(self) -> None:
        """Do one call's share of it."""
        if self.doomed:
            with self.lock:
                if self.begin():
                    try:
                        self.reclaim()
                    finally:
                        self.done()

    def _tables(self) -> list[Table]:
        self.reap()
        return list(self.tables)

    def __repr__(self) -> str:
        bound = self.bound
        return f"<Memory: {len(bound)} of {bound.max_entries} entries, {bound.bytes} of {bound.max_bytes} bytes>"


def _loads_of(table: Table) -> Callable[[Flight], bool]:
    return lambda flight: flight.shelf.table is table


def _may_carry(flight: Flight, tags: frozenset[str]) -> bool:
    """Whether a load may turn out to carry one of these tags; where they follow from the result, nobody knows yet."""
    return flight.shelf.table.subject.tag_maker is not None or not tags.isdisjoint(flight.tags or ())
