"""Why a call finds in memory what it finds; it looks, and changes nothing.

It reads what ``Local`` and its table know; what was invalidated, the trail remembers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cachecraft._core.calls import Values
from cachecraft._core.entry import Verdict
from cachecraft._core.explanation import Explanation, Invalidation
from cachecraft._core.flights import FLYING
from cachecraft._core.notes import Note
from cachecraft.backends.eviction import ENTRY_BYTES, NO_KEY, Node
from cachecraft.backends.nodes import Named, Raised

if TYPE_CHECKING:
    from cachecraft.backends.local import Local
    from cachecraft.backends.table import Lookup, Table


def all_of(table: Table) -> object:
    """What stands in the trail for all that belongs to a function."""
    return "function", table.serial


def all_in(prefix: str) -> object:
    """What stands in the trail for a namespace."""
    return "namespace", prefix


def explained(local: Local, values: Values) -> Explanation:
    lookup = local.lookup(values)
    told: dict[str, Any] = {"function": local.table.subject.label, "key": local.table.name(lookup)}
    found = local.look(lookup)
    node: Node | None = found.node
    if node is not None:
        told |= of_node(local, node)
        if found.verdict in (Verdict.FRESH, Verdict.EARLY, Verdict.STALE):
            local.notes.forget(lookup.flight_key)
            return Explanation(verdict="stale" if found.verdict is Verdict.STALE else "fresh", **told)
    flight = local.table.flights.get(lookup.flight_key)
    if flight is not None and flight.state == FLYING and not flight.orphaned:
        return Explanation(verdict="loading", since=local.clock() - flight.began, **told)
    if node is not None:
        return Explanation(verdict="miss", reason="expired", since=-told["left"], **told)
    return Explanation(verdict="miss", **told, **_why_absent(local, lookup, told["key"]))


def of_node(local: Local, node: Node) -> dict[str, Any]:
    """What a node tells of itself."""
    now, prefix = local.clock(), len(local.table.prefix)
    told: dict[str, Any] = {"held": "memory", "size": node.size + ENTRY_BYTES, "left": node.expires - now}
    if isinstance(node, Named):
        told["left"] = node.fresh_until - now
        told["tags"] = tuple(unquote(tag[prefix:], errors="replace") for tag in node.tags)
        told["load_time"] = node.cost
        told["exception"] = isinstance(node, Raised)
        if node.born is not None:
            return {**told, "age": now - node.born}
    if local.lifetime is not None:
        # When a plain node was stored, its ttl tells: that of its function, never one that was given by hand.
        told["age"] = max(0.0, local.lifetime.draw(0.5) - told["left"])
    return told


def _why_absent(local: Local, lookup: Lookup, wire: str) -> dict[str, Any]:
    note = local.notes.get(lookup.flight_key)
    by = _invalidation(local, lookup, wire, idle=note is not None and note.fate == "lost")
    now = local.clock()
    if note is not None and (by is None or by.ago is None or now - note.when < by.ago or note.fate == "lost"):
        return of_note(note, now, by)
    if by is not None:
        return {"reason": "invalidated", "by": by, "certain": by.by == "key"}
    if local.memory.bound.let_go_of(lookup.key if lookup.key is not NO_KEY else wire):
        most = local.memory.bound.max_entries
        return {
            "reason": "evicted",
            "certain": False,
            "detail": f"as the hash of its key tells; {most:,} entries are the most",
        }
    return {"reason": "absent"}


def of_note(note: Note, now: float, by: Invalidation | None) -> dict[str, Any]:
    """What became of the last result, as the reason that there is none."""
    if note.fate == "lost":
        detail = "while it was loaded, so that was not stored" if by else "while it was loaded, or its lease was lost"
        return {"reason": "invalidated", "by": by, "detail": detail, "since": now - note.when}
    return {"reason": note.fate, "detail": note.detail, "since": now - note.when}


def _invalidation(local: Local, lookup: Lookup, wire: str, *, idle: bool) -> Invalidation | None:
    table, prefix = local.table, local.table.prefix
    names: dict[object, str] = {wire: "", (table.serial, lookup.flight_key): "", all_of(table): "", all_in(prefix): ""}
    names |= {tag: unquote(tag[len(prefix) :], errors="replace") for tag in lookup.tags}
    return local.memory.trail.latest(names, wire, prefix, idle=idle)
