"""The plain load in memory, written out for speed: begin it, and store an immutable result of it.

It does what ``Table.board`` and ``Local.land`` do, for the case that needs no second thought, and hands over to them in
every other. Worth its repetition: it halves the price of a miss.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cachecraft._core.durations import BOUNDS, QUICK
from cachecraft._core.flights import ABANDONED, LANDED, Flight, current
from cachecraft.backends.eviction import DEAD, Node
from cachecraft.backends.isolation import weigh_key

if TYPE_CHECKING:
    from cachecraft.backends.local import Local
    from cachecraft.backends.nodes import Shelf

__cachecraft_leader__: Final = "flight"  # see ``flights.LEADER``

_LIGHT: Final = frozenset({int, float, bool, type(None), str, bytes})
"""Results that can be shared and weighed at a glance."""

Lead = Callable[..., Flight | None]
Land = Callable[[Flight, Any], Any]


def plain_lead(local: Local) -> Lead:
    """``lead(key, kind, owner)``: the flight the caller is to lead, or ``None`` where the flow must look closer."""
    table, clock = local.table, local.memory.clock
    board, own, shelves, owned = table.flights, table.shelf, table.shelves, table.subject.owned
    tally = local.tally

    def lead(key: Any, kind: object, owner: object = None) -> Flight | None:
        if table.wired:
            return None
        shelf: Shelf | None
        place: Any
        # flight_key, written out
        if owned:
            shelf = shelves.get(id(owner))
            if shelf is None or shelf.owner() is not owner:  # type: ignore[misc]  # those in shelves have one
                return None
            place = shelf.serial, key, kind
        else:
            shelf = own
            place = key if kind is None or kind is int else (key, kind)
        flight = Flight()
        flight.key = place
        flight.call_key = key
        flight.kind = kind
        flight.shelf = shelf
        flight.began = now = clock()
        # These say what the class says, but are found sooner.
        flight.void = False
        flight.wakers = flight.token = None
        try:
            if board.setdefault(place, flight) is not flight:
                return None
            node = shelf.nodes.get(key)
            if node is not None and (node.kind is not kind or node.expires > now):
                # Somebody landed between the wrapper's look and ours, or another kind of argument sits in this place.
                table.end(flight, ABANDONED, None)
                return None
            if owned and table.owners.get(shelf.ident) is not shelf.nodes:
                # All was invalidated since the object was last seen.
                table.end(flight, ABANDONED, None)
                return None
            if node is not None:
                tally.reasons["expired"] += 1
            return flight
        except BaseException:  # a signal's: nobody is to wait for a load that will not be
            table.end(flight, ABANDONED, None)
            raise

    return lead


def _put(local: Local, flight: Flight, node: Node, expires: float) -> None:
    """Store what is not to be stored at a glance, if it is at all."""
    if node.size > local.memory.bound.largest:
        local.tally.refused += 1
        local.too_large(flight, node.size)
        return
    node.expires = expires
    if local.table.put(node, flight):
        local.notes.forget(flight.key)
    else:
        _lost(local, flight)


def _lost(local: Local, flight: Flight) -> None:
    local.tally.store_lost += 1
    local.notes.add(flight.key, "lost")


def plain_land(local: Local) -> Land:  # noqa: PLR0915 - see ``land``
    """``land(flight, value)``: what ``Local.land`` does, and as quickly as can be where there is little to do."""
    table, memory, tally = local.table, local.memory, local.tally
    clock, random, bound, lock = memory.clock, memory.random, memory.bound, memory.lock
    board, leave, admit = table.flights, current.reset, bound.admit
    largest, late = bound.largest, memory.late
    lifetime = local.lifetime
    low, span = (lifetime.low, lifetime.span) if lifetime is not None else (0.0, 0.0)
    light = _LIGHT if lifetime is not None and local.policy.when is None else frozenset[type]()
    noted, forget = local.notes.by_hash, local.notes.forget
    acquire, release, held = lock.acquire, lock.release, lock._is_owned  # type: ignore[attr-defined]  # see below

    def land(flight: Flight, value: Any) -> Any:  # noqa: PLR0912, PLR0915 - each call it were split into costs every miss
        tally.misses += 1
        if type(value) not in light:
            return local.land(flight, value)
        now = clock()
        if flight.token is not None:
            try:
                leave(flight.token)
            except ValueError:
                pass  # a coroutine that ended in another context than it began in
        tally.loads += 1
        tally.load_time += (took := now - flight.began)
        if took > QUICK:
            tally.load_counts[bisect_left(BOUNDS, took)] += 1
        expires = now + low + span * random()
        node = Node()
        node.value = value
        node.expires = DEAD
        node.key = key = flight.call_key
        node.kind = kind = flight.kind
        node.shelf = shelf = flight.shelf
        node.size = size = value.__sizeof__() if kind is int else value.__sizeof__() + weigh_key(key)
        node.hits = 0
        # ``with lock``, at half its price. A signal may raise as soon as the lock is ours: hence inside the ``try``.
        try:
            acquire()
            if flight.void or size > largest or table.wired or key in shelf.nodes or memory.changing:
                _put(local, flight, node, expires)
            else:
                if noted:
                    forget(flight.key)
                # Table.put, written out; only what is invalidated in the middle of it can make this flight void.
                memory.changing = True
                try:
                    admit(node)
                    shelf.nodes[key] = node
                    if flight.void:
                        late.append(node)
                        _lost(local, flight)
                    else:
                        node.expires = expires
                finally:
                    memory.changing = False
                if late:
                    memory.done()
            if not flight.void:
                board.pop(flight.key, None)  # a flight that is not void is on the board, and nobody else in its place
        except BaseException:
            if held():
                release()
            raise
        release()
        flight.result = value
        flight.state = LANDED
        if flight.wakers is not None:
            flight.settle(LANDED, value)
        return value

    return land
