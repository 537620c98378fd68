"""What was invalidated and is still to be let go of: marked as a whole, in no time, and emptied node by node later.

Knows nodes, and neither a lock nor who drops them.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from cachecraft.backends.eviction import Node

if TYPE_CHECKING:
    from cachecraft.backends.nodes import Named
    from cachecraft.backends.table import Table

_SOME: Final = 1000
"""Objects whose entries are counted when the entries of all objects go together: there may be a million."""


class Tagged:
    """The nodes that carry a tag, until it falls: then they are served to nobody any more."""

    __slots__ = ("fallen", "nodes", "tag")

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.nodes: set[Named] = set()
        self.fallen = False

    def __len__(self) -> int:
        return len(self.nodes)

    def take(self) -> Node | None:
        """Give away a node to be dropped; ``None`` if that is left to the shelf it was retired with."""
        node = self.nodes.pop() if self.nodes else None
        return node if node is not None and node.shelf.holds(node) else None


class Retired:
    """What stood on the shelves of a function when all of it was invalidated; nobody looks there any more."""

    __slots__ = ("nodes", "owners", "table")

    def __init__(self, table: Table, nodes: dict[Any, Node], owners: dict[int, dict[Any, Node]]) -> None:
        self.table = table
        self.nodes = nodes
        self.owners = owners

    def __len__(self) -> int:
        """How many nodes there are; where there are very many objects, at least."""
        # In one call, without a line of Python: an object that dies takes its nodes out of ``owners``.
        return sum(map(len, islice(self.owners.values(), _SOME)), len(self.nodes))

    def __bool__(self) -> bool:
        return bool(self.nodes or self.owners)

    def places(self) -> list[dict[Any, Node]]:
        return [self.nodes, *self.owners.copy().values()]

    def take(self) -> Node | None:
        """Give away a node to be dropped; ``None`` if it took a step towards the next one."""
        if self.nodes:
            return self.nodes.popitem()[1]
        try:
            self.nodes = self.owners.popitem()[1]
        except KeyError:
            pass  # the last of the objects has just died
        return None


class Doomed:
    """A queue of them."""

    def __init__(self) -> None:
        self._queue: deque[Tagged | Retired] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, group: Tagged | Retired) -> None:
        self._queue.append(group)

    def take(self) -> Node | None:
        """As ``take`` of the first of them; the queue is not empty."""
        group = self._queue[0]
        if group:
            return group.take()
        self._queue.popleft()
        return None

    def clear(self) -> None:
        self._queue.clear()

    def _groups(self) -> list[Tagged | Retired]:
        # A copy: the garbage collector may run a destructor that adds to the queue.
        return list(self._queue)

    @property
    def falling(self) -> bool:
        """Whether some node that still stands on its shelf may be under a tag that fell."""
        return any(isinstance(group, Tagged) and group for group in self._groups())

    @property
    def fallen(self) -> int:
        """At most so many nodes that still stand on their shelves are under a tag that fell."""
        return sum(len(group) for group in self._groups() if isinstance(group, Tagged))

    @property
    def retired(self) -> int:
        """At most so many nodes that have tags were retired."""
        return sum(len(group) for group in self._groups() if isinstance(group, Retired) and group.table.tagged)

    def places(self, table: Table) -> list[dict[Any, Node]]:
        """Where retired nodes of a function are."""
        return [
            nodes
            for group in self._groups()
            if isinstance(group, Retired) and group.table is table
            for nodes in group.places()
        ]
