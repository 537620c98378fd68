"""What memory holds for one function: how a call finds its node, and the loads under way.

Knows the memory it is part of; no policy, no clock of its own, no colour.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from math import isnan
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from cachecraft._core.calls import ATOMIC, Subject, Values
from cachecraft._core.errors import UnkeyableError
from cachecraft._core.flights import ABANDONED, Flight
from cachecraft.backends.doomed import Retired
from cachecraft.backends.eviction import DEAD, ENTRY_BYTES, NO_KEY, Node
from cachecraft.backends.isolation import plain_enum
from cachecraft.backends.nodes import Grave, Named, Shelf, place

if TYPE_CHECKING:
    from cachecraft.backends.memory import Memory

_serials: Final = itertools.count(1)
_current: Final = attrgetter("current")
_hits: Final = attrgetter("hits")
_size: Final = attrgetter("size")
__cachecraft_leader__: Final = "flight"  # see ``flights.LEADER``


def _atomic(key: Any, kind: object) -> bool:
    if kind is not None:
        return _tells(key, kind)
    half = len(key) // 2
    return all(map(_tells, key[:half], key[half:]))


def _tells(value: Any, kind: Any) -> bool:
    """Whether equality and type together tell this value from all others. Zero has two signs, and nan no equal."""
    return kind in ATOMIC or (kind is float and value != 0 and not isnan(value)) or plain_enum(kind)


def flight_key(shelf: Shelf, key: Any, kind: object) -> Any:
    if shelf.serial:
        return shelf.serial, key, kind
    # An int is told by its value, once what equals it (True, 1.0) brings its type: one tuple less for most.
    return key if kind is None or kind is int else (key, kind)


class Lookup:
    """One call on its way through the flow: where its node would be, under which names."""

    __slots__ = ("key", "kind", "shelf", "table", "tags", "values", "wire")

    def __init__(self, table: Table, shelf: Shelf, values: Values, key: Any, kind: object, wire: str | None) -> None:
        self.table = table
        self.shelf = shelf
        self.values = values
        self.key = key
        """The call key, or ``NO_KEY`` where an argument is of a type whose equality may lie."""
        self.kind = kind
        self.wire = wire
        self.tags: tuple[str, ...] = ()

    @property
    def identity(self) -> object:
        """What tells this call from those of all functions, as far as it is known without more ado."""
        return self.wire if self.wire is not None else (self.table.serial, self.flight_key)

    @property
    def flight_key(self) -> Any:
        """One for every call that means the same, whichever way it came."""
        if self.table.subject.named or self.key is NO_KEY:
            return self.wire
        return flight_key(self.shelf, self.key, self.kind)


class Table:
    """What memory holds for one function."""

    def __init__(self, memory: Memory, subject: Subject, prefix: str, *, shared: bool = True) -> None:
        self.memory = memory
        self.subject = subject
        self.prefix = prefix
        self.serial = next(_serials)
        #: Functions whose keys the user wrote share their entries and their loads; not with those of other versions.
        self.shared = shared and subject.explicit and subject.version is None
        self.shelf = Shelf(self, memory.names if self.shared else {})
        #: Nodes by call key, by ``id`` of the object they belong to: what the wrapper of a method looks into.
        self.owners: dict[int, dict[Any, Node]] = {}
        self.shelves: dict[int, Shelf] = {}
        self.flights: dict[Any, Flight] = memory.flights if self.shared else {}
        self.wired = subject.named
        """Some node may be found by its wire key only, so a miss by call key proves nothing; new ones get both."""
        self._indexed = subject.named
        self.tagged = False
        """Some node may have had tags."""
        self.epoch = 0
        """Began when all of it was last invalidated (``Memory.epoch``)."""
        self.retired = 0
        self.graves: dict[int, Grave] = {}
        self._wrapper: weakref.WeakMethod[Callable[[], None]] | None = None
        with memory.lock:
            memory.tables.add(self)

    # -- finding ---------------------------------------------------------------------------------------------

    def lookup(self, values: Values, wire: str | None = None) -> Lookup:
        """Work out the names of a call; ``wire`` where that is known already.

        Raises:
            UnkeyableError: an argument has no stable identity.
        """
        subject = self.subject
        owner = subject.owner(values)
        shelf = self.shelf if owner is None else self.shelf_of(owner)
        key, kind = subject.call_key(values)
        if (subject.owned and owner is None) or not _atomic(key, kind) or subject.maker or subject.vary:
            key, kind = NO_KEY, None
        if wire is None and (key is NO_KEY or self.wired):
            wire = subject.wire(self.prefix, values, shelf.serial or None)
        return Lookup(self, shelf, values, key, kind, wire)

    def shelf_of(self, owner: object) -> Shelf:
        """The shelf that lives as long as ``owner`` does, without keeping it alive."""
        shelf = self.shelves.get(id(owner))
        if shelf is not None and shelf.belongs_to(owner) and shelf.current:
            return shelf
        with self.memory.lock:
            self.memory.reap()
            shelf = self.shelves.get(id(owner))
            if shelf is None or not shelf.belongs_to(owner):
                shelf = self._new_shelf(owner)
            elif not shelf.current:
                self._open(shelf, owner)
        return shelf

    def _open(self, shelf: Shelf, owner: object) -> None:
        """Let the wrapper find the shelf, which is empty, for as long as the owner lives."""
        shelf.nodes = {}
        # Ids are used again, so the wrapper must not find this one once the owner is gone. The callback is C code
        # to the last instruction: no signal handler can keep it from running to its end.
        shelf.owner = weakref.ref(owner, partial(self.owners.pop, id(owner)))
        self.owners[id(owner)] = shelf.nodes

    def _new_shelf(self, owner: object) -> Shelf:
        shelf = Shelf(self, {}, next(_serials), id(owner))
        try:
            grave = Grave(owner, self.memory.bury)
        except TypeError:
            raise UnkeyableError(
                f"{self.subject.parameters[0]!r} of {self.subject.label} is a {type(owner).__qualname__}, which has no"
                " stable identity and allows no weak reference; give key=, define __cache_key__(), or add"
                " '__weakref__' to its __slots__"
            ) from None
        self._open(shelf, owner)
        self.shelves[id(owner)] = self._prepare(grave, shelf)
        return shelf

    def bury_with(self, function: object) -> None:
        """Have everything dropped once the function is gone: nobody else can ask for it."""
        self._prepare(Grave(function, self.memory.bury), self.shelf)

    def _prepare(self, grave: Grave, shelf: Shelf) -> Shelf:
        grave.shelf = shelf
        self.graves[shelf.serial] = grave
        return shelf

    def find(self, lookup: Lookup) -> Node | None:
        """The node that may answer a call, however old."""
        node = self.standing_for(lookup)
        return node if node is not None and self.meant_for(lookup, node) else None

    def meant_for(self, lookup: Lookup, found: Node | Flight) -> bool:
        """Whether any invalidation meant for this call would have reached what is found under its key.

        Functions whose keys are the same may have other tags, and one of them may be invalidated as a whole.
        """
        if lookup.tags and not set(lookup.tags).issubset(found.tags or ()):
            return False
        return found.shelf.table is self or (self.subject.tag_maker is None and found.epoch >= self.epoch)

    def standing_for(self, lookup: Lookup) -> Node | None:
        """The node that stands under the key of a call, whichever function stored it."""
        if lookup.key is not NO_KEY:
            node = lookup.shelf.nodes.get(lookup.key)
            if node is not None and node.kind is lookup.kind and not node.fallen:
                return node
        named = lookup.shelf.names.get(self.name(lookup)) if self.wired else None
        # What is retired or fallen keeps its name until it is let go of.
        return named if named is not None and named.shelf.holds(named) and not named.fallen else None

    def name(self, lookup: Lookup) -> str:
        """The wire key of a call, worked out when it is first needed."""
        if lookup.wire is None:
            lookup.wire = self.subject.wire(self.prefix, lookup.values, lookup.shelf.serial or None)
        return lookup.wire

    @property
    def all_shelves(self) -> list[Shelf]:
        return [self.shelf, *self.shelves.values()]

    def watch(self, moved: Callable[[], None]) -> None:
        """Have a method called, under the lock, when the wrapper has to look elsewhere. It is not kept alive."""
        self._wrapper = weakref.WeakMethod(moved)

    def moved(self) -> None:
        tell = self._wrapper() if self._wrapper is not None else None
        if tell is not None:
            tell()

    @property
    def contents(self) -> Retired:
        """What is to be let go of after ``empty``. The caller holds the lock, as for all that follows here."""
        return Retired(self, self.shelf.nodes, self.owners)

    def empty(self) -> None:
        """Begin with empty shelves, whatever their number; the wrapper is yet to be told (``moved``).

        Objects get theirs when they are next seen (``_open``); until then these are not ``current``.
        """
        self.shelf.nodes, self.owners = {}, {}

    def standing(self) -> list[Node]:
        """Every node that was not retired."""
        return [node for shelf in filter(_current, self.all_shelves) for node in shelf.all()]

    @property
    def size(self) -> int:
        """How many these are, or how many objects: whichever is more. Of very many objects not all are asked."""
        return max(len(self.owners), len(self.contents))

    # -- loading ---------------------------------------------------------------------------------------------

    def board(self, lookup: Lookup) -> tuple[Flight, Flight | None]:
        """The flight of a call; the same once more if the caller is to lead it."""
        flight = Flight.of(lookup.flight_key, self.memory.clock())
        flight.epoch = self.memory.epoch
        flight.tags = frozenset(lookup.tags)
        flight.lookup, flight.shelf = lookup, lookup.shelf
        flight.call_key, flight.kind = lookup.key, lookup.kind
        found = self.flights.setdefault(flight.key, flight)
        if found.orphaned:
            self.end(found, ABANDONED, None)
            found = self.flights.setdefault(flight.key, flight)
        return found, found if found is flight else None

    def end(self, flight: Flight, state: int, result: Any, node: Node | None = None) -> bool:
        """Take the flight off the board, store its node unless an invalidation came, and wake who joined."""
        with self.memory.lock:
            stored = node is not None and self.put(node, flight)
            # Whoever voids a flight takes it off the board, and another may be there by now.
            if self.flights.get(flight.key) is flight and not flight.void:
                self.flights.pop(flight.key, None)
        flight.settle(state, result)
        flight.lookup = None  # with the arguments in it: whatever the loader left running remembers its flight
        return stored

    def put(self, node: Node, flight: Flight | None = None) -> bool:
        """Store a node under all its names, unless an invalidation came since its flight began, or comes meanwhile.

        The caller holds the lock. Answers whether it is stored; in the middle of another change nothing is.
        """
        if not self.memory.begin():
            return False
        try:
            if flight is not None:
                if flight.void:
                    return False
                if isinstance(node, Named) and not flight.lost.isdisjoint(node.tags):
                    return False  # for a tag that the load did not know it would have
            return self._put(node)
        finally:
            self.memory.done()

    def _put(self, node: Node) -> bool:
        """The change itself: any invalidation in the middle of it has the node removed again."""
        memory, shelf = self.memory, node.shelf
        if not shelf.current and (owner := shelf.owner()) is not None:
            self._open(shelf, owner)
        old = shelf.nodes.get(node.key) if node.key is not NO_KEY else None
        # The place may be taken by an argument that is equal and means something else, as True is to 1.
        taken = old is not None and old.kind is not node.kind
        if taken or node.key is NO_KEY:
            self.wired = True
        if self.wired:
            node = self._named(node)
            if taken:
                node.key, old = NO_KEY, None
            named = shelf.names.get(node.wire)
            if old is None and named is not None and named.shelf.holds(named):
                old = named
        # Whoever looks takes no lock; so nobody is served the node before it is certain that it may be.
        expires, node.expires = node.expires, DEAD
        if old is not None:
            memory.detach(old)
            memory.bound.replace(old, node)
        else:
            memory.bound.admit(node)
        if isinstance(node, Named):
            node.tagged = tuple(map(memory.tagged, node.tags))
            for tagged in node.tagged:
                tagged.nodes.add(node)
            self.tagged = self.tagged or bool(node.tags)
            if node.wire is not None:
                shelf.names[node.wire] = node
        shelf.nodes[place(node)] = node
        if memory.disturbed:
            memory.late.append(node)
            return False
        node.expires = expires
        return True

    # -- naming ----------------------------------------------------------------------------------------------

    def index(self) -> Sequence[Mapping[str, Node]]:
        """Where nodes are found by their wire keys; every node has one from now on. The caller holds the lock."""
        if not self._indexed:
            if not self.memory.begin():
                return [{self._wire(node): node for node in self.standing()}]
            try:
                self._name_all()
            finally:
                self.memory.done()
        return [shelf.names for shelf in self.all_shelves]

    def _name_all(self) -> None:
        self.wired = True
        for shelf in filter(_current, self.all_shelves):
            for node in shelf.all():
                if isinstance(node, Named):
                    shelf.names[self._named(node).wire] = node  # type: ignore[index]  # it has a name now
                else:
                    self._put(node)
        self._indexed = True

    def _named(self, node: Node) -> Named:
        """The node with a wire key; another one if it has no room for that."""
        if not isinstance(node, Named):
            twin = Named()
            for slot in ("value", "expires", "kind", "hits", "key", "shelf", "size"):
                setattr(twin, slot, getattr(node, slot))
            twin.wire, twin.tags, twin.tagged, twin.epoch, twin.cost = None, (), (), 0, 0.0
            twin.until = twin.fresh_until = node.expires
            twin.born = None
            # The counter moves over with the node; what a reader adds to the old one meanwhile is not worth a lock.
            node.hits = 0
            node = twin
        node.wire = self._wire(node)
        return node

    def _wire(self, node: Node) -> str:
        wire = node.wire if isinstance(node, Named) else None
        return self.wire_of(node.shelf, node.key, node.kind) if wire is None else wire

    def wire_of(self, shelf: Shelf, key: Any, kind: object) -> str:
        rest = (key,) if kind is not None else key[: len(key) // 2]
        values = (None, *rest) if self.subject.owned else rest
        return self.subject.wire(self.prefix, values, shelf.serial or None)

    def flight_wire(self, flight: Flight) -> str:
        lookup: Lookup | None = flight.lookup
        return self.name(lookup) if lookup is not None else self.wire_of(flight.shelf, flight.call_key, flight.kind)

    # -- counting --------------------------------------------------------------------------------------------

    @property
    def hits(self) -> int:
        """Hits counted where they happen, in the nodes; a sum over them, so ask for it now and then only."""
        with self.memory.lock:
            self.memory.reap()
            shelves = self.all_shelves
            places = [*(shelf.nodes for shelf in shelves), *self.memory.doomed.places(self)]
            # Where an object was not seen since, its shelf is among what was retired.
            nodes = {id(each): each for each in places}.values()
            kept = sum(sum(map(_hits, list(each.values()))) for each in nodes)
            return self.retired + sum(shelf.retired for shelf in shelves) + kept

    def call_keys(self, most: int = 256) -> list[tuple[Any, ...]]:
        """What some of the nodes were asked for by: the values in the order of the parameters that tell the key."""
        with self.memory.lock:
            nodes = [node for shelf in self.all_shelves[:most] for node in islice(shelf.nodes.values(), most)][:most]
        known = [node for node in nodes if node.key is not NO_KEY]
        return [(node.key,) if node.kind is not None else node.key[: len(node.key) // 2] for node in known]

    @property
    def count(self) -> int:
        """How many entries there are; counted when asked for."""
        with self.memory.lock:
            self.memory.reap()
            places = [shelf.nodes for shelf in self.all_shelves if shelf.current]
            if not (self.tagged and self.memory.wary):
                return sum(map(len, places))
            return sum(not node.fallen for nodes in places for node in list(nodes.values()))

    @property
    def bytes(self) -> int:
        """What they weigh; a sum over them, so ask for it now and then only."""
        with self.memory.lock:
            self.memory.reap()
            nodes = self.standing()
        values: int = sum(map(_size, nodes))
        return values + ENTRY_BYTES * len(nodes)

    def forget(self) -> None:
        """Let go of every node as it is, in whatever state the indexes are."""
        for shelf in self.all_shelves:
            shelf.nodes.clear()
            shelf.names.clear()
        self.moved()

    def forget_hits(self) -> None:
        with self.memory.lock:
            self.retired -= self.hits

    def __repr__(self) -> str:
        return f"<Table of {self.subject.label}: {self.count} entries, {len(self.flights)} loads under way>"
