"""The plain load in memory, written out for speed: begin it, and store an immutable result of it.

It does what ``Table.board`` and ``Local.land`` do, for the case that needs no second thought, and hands over to them in
every other. Worth its repetition: it halves the price of a miss.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cachecraft._core.calls import ATOMIC
from cachecraft._core.flights import ABANDONED, LANDED, Flight, current
from cachecraft.backends.eviction import Node
from cachecraft.backends.isolation import ENTRY_BYTES
from cachecraft.backends.table import flight_key

if TYPE_CHECKING:
    from cachecraft.backends.local import Local

_LIGHT: Final = frozenset({int, float, bool, type(None), str, bytes})
"""Results that can be shared and weighed at a glance."""

Lead = Callable[..., Flight | None]
Land = Callable[[Flight, Any], Any]


def plain_loads(local: Local) -> tuple[Lead, Land]:
    """``lead(key, kind, owner)``, which answers ``None`` where the flow must look closer, and ``land(flight, value)``."""
    table, memory, tally = local.table, local.memory, local.tally
    clock, random, bound, lock = memory.clock, memory.random, memory.bound, memory.lock
    board, nodes, own, shelves = table.flights, table.shelf.nodes, table.shelf, table.shelves
    owned, most = table.subject.owned, bound.max_bytes or sys.maxsize
    lifetime = local.lifetime
    enter, leave, path, getsizeof = current.set, current.reset, current.get, sys.getsizeof

    def lead(key: Any, kind: object, owner: object = None) -> Flight | None:
        if table.wired or not (kind in ATOMIC if kind is not None else ATOMIC.issuperset(key[len(key) // 2 :])):
            return None
        shelf, mine = own, nodes
        if owned:
            found = shelves.get(id(owner))
            if found is None or not found.belongs_to(owner):
                return None
            shelf, mine = found, found.nodes
        flight = Flight()
        # flight_key, written out
        flight.key = place = (key, kind) if shelf is own and kind is not None else flight_key(shelf, key, kind)
        if board.setdefault(place, flight) is not flight:
            return None
        flight.began = now = clock()
        node = mine.get(key)
        if node is not None and (node.kind is not kind or node.expires > now):
            # Somebody landed between the wrapper's look and ours, or another kind of argument sits in this place.
            table.end(flight, ABANDONED, None)
            return None
        flight.call_key = key
        flight.kind = kind
        flight.shelf = shelf
        flight.parent = path()
        flight.token = enter(flight)
        return flight

    def land(flight: Flight, value: Any) -> Any:
        tally.misses += 1
        if type(value) not in _LIGHT or lifetime is None or local.policy.when is not None or table.wired:
            return local.land(flight, value)
        now = clock()
        try:
            leave(flight.token)  # type: ignore[arg-type]  # set by lead
        except ValueError:
            pass  # a coroutine that ended in another context than it began in
        tally.loads += 1
        tally.load_time += now - flight.began
        node = Node()
        node.value = value
        node.expires = now + lifetime.low + lifetime.span * random()
        node.key = key = flight.call_key
        node.kind = flight.kind
        node.shelf = shelf = flight.shelf
        node.size = getsizeof(value) + ENTRY_BYTES
        node.hits = 0
        with lock:
            if flight.void or node.size > most:
                tally.store_lost += 1
            elif table.wired or key in shelf.nodes:
                table.put(node)
            else:
                bound.admit(node)
                shelf.nodes[key] = node
            if board.get(flight.key) is flight:
                del board[flight.key]
        flight.result = value
        flight.state = LANDED
        if flight.wakers is not None:
            flight.settle(LANDED, value)
        return value

    return lead, land
