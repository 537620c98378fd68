"""What memory holds: nodes that answer in their own way, and the shelves they stand on; knows no policy and no lock."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from cachecraft.backends.eviction import NO_KEY, Node
from cachecraft.backends.isolation import Copier, replica

if TYPE_CHECKING:
    from cachecraft.backends.table import Table

_slot: Any = vars(Node)["value"]
# The slot itself, beneath the properties that override it below.
_held, hold = _slot.__get__, _slot.__set__


class Named(Node):
    """A node that can be found by its wire key, has tags, or outlives its ttl."""

    __slots__ = ("cost", "fresh_until", "tags", "until", "wire")

    wire: str | None
    tags: tuple[str, ...]
    fresh_until: float
    """Clock seconds at which its ttl ends; ``expires`` may come earlier, to ask for a refresh, or later, after one
    has failed."""
    until: float
    """Clock seconds at which even ``stale`` and ``grace`` end."""
    cost: float


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
        """By call key."""
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
        """Every node that stands here; those without a call key are found by name alone."""
        return [
            *self.nodes.values(),
            *(node for node in self.names.values() if node.key is NO_KEY and node.shelf is self),
        ]

    def belongs_to(self, owner: object) -> bool:
        """Ids are used again, so a shelf found by an id may be that of an object that has died."""
        return self.owner is not None and self.owner() is owner


class Grave(weakref.ref[Any]):
    """Tells when the owner of a shelf has died."""

    __slots__ = ("shelf",)

    shelf: Shelf
