"""What memory holds: nodes that answer in their own way, and the shelves they stand on; knows no policy and no lock."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from cachecraft.backends.eviction import NO_KEY, Node
from cachecraft.backends.isolation import Copier, replica

if TYPE_CHECKING:
    from cachecraft.backends.doomed import Tagged
    from cachecraft.backends.table import Table

_slot: Any = vars(Node)["value"]
# The slot itself, beneath the properties that override it below.
_held, hold = _slot.__get__, _slot.__set__


class Named(Node):
    """A node that can be found by its wire key, has tags, or outlives its ttl."""

    __slots__ = ("born", "cost", "epoch", "fresh_until", "tagged", "tags", "until", "wire")

    wire: str | None
    tags: tuple[str, ...]
    tagged: tuple[Tagged, ...]
    """Where it stands for each of its tags, once it is stored."""
    epoch: int
    """In which its load began (``Memory.epoch``)."""
    fresh_until: float
    """Clock seconds at which its ttl ends; ``expires`` may come earlier, to ask for a refresh, or later, after one
    has failed."""
    until: float
    """Clock seconds at which even ``stale`` and ``grace`` end."""
    cost: float
    born: float | None
    """Clock seconds at which it was stored; unknown of one that was a plain node, and of one that is held near."""

    @property
    def fallen(self) -> bool:  # type: ignore[override]  # a plain node's is always the same
        return any(tagged.fallen for tagged in self.tagged)


class Copied(Named):
    """A node whose value each caller gets a copy of."""

    __slots__ = ("copier",)

    copier: Copier

    @property
    def value(self) -> Any:  # reading it is the moment to copy
        return self.copier(_held(self))


class Raised(Named):
    """A node that remembers an exception."""

    __slots__ = ()

    @property
    def value(self) -> Any:  # reading it is the moment to raise
        raise replica(_held(self))


class Shelf:
    """The nodes of one function, or of one function and one object."""

    __slots__ = ("ident", "names", "nodes", "owner", "retired", "serial", "table")

    def __init__(self, table: Table, names: dict[str, Named], serial: int = 0, ident: int = 0) -> None:
        self.table = table
        self.nodes: dict[Any, Node] = {}
        """By call key; one that has none stands here by itself, and is found by its wire key."""
        self.names = names
        """By wire key; shared by all functions whose keys were written by the user."""
        self.ident = ident
        """The ``id`` of the object it belongs to."""
        self.serial = serial
        """Tells the objects apart to which shelves belong; 0 is the function's own."""
        self.owner: weakref.ref[Any] | None = None
        self.retired = 0
        """Hits of nodes that are gone."""

    def all(self) -> list[Node]:
        """Every node that stands here."""
        return list(self.nodes.values())

    @property
    def current(self) -> bool:
        """Whether nodes that stand here may be served: not if it was retired, and not yet renewed."""
        return not self.ident or self.table.owners.get(self.ident) is self.nodes

    def holds(self, node: Node) -> bool:
        """Whether one of its nodes still stands here, and was not retired."""
        return self.nodes.get(place(node)) is node and self.current

    def belongs_to(self, owner: object) -> bool:
        """Ids are used again, so a shelf found by an id may be that of an object that has died."""
        return self.owner is not None and self.owner() is owner


class Grave(weakref.ref[Any]):
    """Tells when the owner of a shelf has died."""

    __slots__ = ("shelf",)

    shelf: Shelf


def place(node: Node) -> Any:
    """Under what a node stands on its shelf. No argument is equal to a node."""
    return node if node.key is NO_KEY else node.key
