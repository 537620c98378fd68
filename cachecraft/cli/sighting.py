"""What stands under one key, read and judged as the cache would, but for what only a function knows. Writes nothing.

Whether a function would take it for another release's only the processes can tell (``release``); of its policy nobody.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from redis import exceptions

from cachecraft._core.effects import Fetch, Reading
from cachecraft._core.entry import Entry, outline, read_stamps, unpack
from cachecraft._core.errors import CorruptError
from cachecraft._core.explanation import Invalidation
from cachecraft._core.notes import Unkept
from cachecraft._core.refresh import claim_key
from cachecraft._core.sight import ASIDE
from cachecraft.backends.commands import PLANS
from cachecraft.backends.redis import ROOT
from cachecraft.backends.remote import ANY
from cachecraft.cli.release import Release
from cachecraft.cli.server import Server, granted
from cachecraft.cli.slots import FRONT, is_internal, kind_of

_TRIES: Final = 5
"""How often to read again because the entry was replaced between two readings."""
_MOST: Final = 64 * 2**20
"""Bytes of the largest value that is read at all."""
_PLAN: Final = PLANS[Fetch]


@dataclass(frozen=True, slots=True)
class Stamp:
    """One of the stamps that an entry rests on."""

    kind: str
    """``namespace``, ``function``, ``tag``, ``any tag``, or ``entry``: the one that this is kept aside of."""
    name: str
    holds: bool
    key: str
    """What it is called in Redis."""


class Stored(NamedTuple):
    """A result that was stored and is not there any more: when, until when, and by whom, by its clock."""

    when: float
    until: float
    host: str
    pid: int
    fate: str = ""
    """``expired``, ``gone`` (before its time, and not known to be invalidated), ``invalidated``."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One key, and what was seen."""

    key: str
    state: str
    """``fresh``, ``stale`` (past its ttl), ``invalidated``, ``loading``, ``corrupt``, ``absent``; of names that the
    cache keeps for itself ``stamp``, ``refresh``, ``other``."""
    reason: str | None = None
    entry: Entry | None = None
    size: int = 0
    """Bytes in Redis."""
    age: float | None = None
    """Seconds since it was stored, by the clock of whoever stored it and by ours."""
    left: float | None = None
    """Seconds until the ttl ends, or the lease of a load; none if nothing ends it."""
    stamps: tuple[Stamp, ...] = ()
    refreshing: bool = False
    """Somebody loads it anew behind the callers' backs."""
    waits: str | None = None
    """The function behind which a write waits that brings its value: whoever loads it gets that."""
    by: Invalidation | None = None
    """What invalidated it, where that is known."""
    unkept: Unkept | None = None
    """What became of the last result, where a process has told that it was not kept."""
    kept: Stored | None = None
    """The last time it was stored, where a process has told that, and nothing is there."""
    remembered: int | None = None
    """Of how many results the processes remember that they stored them, where it is none of these."""
    release: Release | None = None
    """Whether it is what its function returns now; of what a function stored."""


def sight(server: Server, key: str) -> Sighting:
    """Look at one key and at its stamps."""
    front, size, left = server.ask(("GETRANGE", key, 0, FRONT - 1), ("STRLEN", key), ("PTTL", key))
    if isinstance(front, exceptions.ResponseError) and "WRONGTYPE" in str(front):
        return Sighting(key, "corrupt", "it holds no string, as none of ours does")
    front = granted(front)
    size = size if isinstance(size, int) else len(front)
    prefix = server.target.prefix.encode()
    raw = key.encode("utf-8", "surrogateescape")
    kind = kind_of(raw, prefix, front)
    if left == _GONE:
        return Sighting(key, "absent")
    if kind == "load":
        return _placeholder(server, key)
    if kind == "entry" and size <= _MOST:
        return _entry(server, key, front)
    seen = Sighting(key, kind, size=size, left=left / 1000 if left >= 0 else None)
    if kind == "entry":
        return replace(seen, state="other", reason="it is too large to be looked at")
    return seen if is_internal(raw, prefix) else replace(seen, state="corrupt", reason="it begins like none of ours")


_GONE: Final = -2


def _entry(server: Server, key: str, front: bytes) -> Sighting:
    try:
        tags = outline(front).tags
    except CorruptError:
        tags = ()  # the whole of it may say more
    for _ in range(_TRIES):
        reading, refreshing = _read(server, key, tags)
        slot = reading.slot
        if slot is None:
            return Sighting(key, "absent")
        try:
            entry = unpack(key, slot)
            if len(entry.tags) != len(entry.stamps):
                raise CorruptError("it has not as many stamps as tags")
        except CorruptError as error:
            return Sighting(key, "corrupt", str(error), size=len(slot), left=reading.left)
        if entry.tags == tags:
            return _judged(server, key, entry, reading, refreshing)
        tags = entry.tags  # and once more, with its stamps in the same breath
    return Sighting(key, "other", "it is replaced more quickly than it can be looked at")


def _read(server: Server, key: str, tags: tuple[str, ...]) -> tuple[Reading, bool]:
    effect = Fetch(key, tags, aged=True)
    *replies, claimed = server.ask(*_PLAN.commands(effect), ("PTTL", claim_key(key)))
    return _PLAN.answer(effect, list(map(granted, replies))), granted(claimed) > 0


def _judged(server: Server, key: str, entry: Entry, reading: Reading, refreshing: bool) -> Sighting:
    stamps = tuple(
        _stamp(server.target.prefix, tag, holds=there == stamp)
        for tag, stamp, there in zip(entry.tags, entry.stamps, reading.stamps, strict=True)
    )
    left = None if reading.left is None else reading.left - entry.keep
    fallen = [f"{each.kind} {each.name}".strip() for each in stamps if not each.holds]
    if fallen:
        state, reason = "invalidated", f"by {', '.join(fallen)}"
    elif left is not None and left <= 0:
        state, reason = "stale", "past its ttl: for functions with stale= or grace= only"
    else:
        state, reason = "fresh", None
    return Sighting(
        key,
        state,
        reason,
        entry,
        size=len(reading.slot or b""),
        age=time.time() - entry.created,
        left=left,
        stamps=stamps,
        refreshing=refreshing,
    )


def _placeholder(server: Server, key: str) -> Sighting:
    """A load under way, or one whose process died: that, its lease will tell. It does not name its tags."""
    root = server.target.prefix + ROOT
    reading, _ = _read(server, key, (root,))
    slot = reading.slot
    if slot is None:
        return Sighting(key, "absent")
    try:
        stamps = read_stamps(slot)
    except CorruptError as error:
        return Sighting(key, "corrupt", str(error), size=len(slot), left=reading.left)
    holds = reading.stamps[0] in stamps
    return Sighting(
        key,
        "loading" if holds else "invalidated",
        None if holds else "by namespace, while it was loaded",
        size=len(slot),
        left=reading.left,
        stamps=(Stamp("namespace", "", holds, root),),
    )


def _stamp(prefix: str, tag: str, *, holds: bool) -> Stamp:
    own = tag.removeprefix(prefix)
    if own == ROOT:
        return Stamp("namespace", "", holds, tag)
    if own == ANY:
        return Stamp("any tag", "", holds, tag)
    for kind, mark in (("function", "~fn:"), ("tag", "~tag:")):
        if own.startswith(mark):
            return Stamp(kind, own.removeprefix(mark), holds, tag)
    return Stamp("entry", tag, holds, tag)


def kept_aside(server: Server, key: str) -> list[str]:
    """The names under which other releases keep theirs aside of a key. It takes a scan."""
    literal = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in key)
    found = {name for names in server.scan(f"{literal}{ASIDE}*") for name in names}
    return sorted(name.decode("utf-8", "surrogateescape") for name in found if not name.endswith(_CLAIM))


_CLAIM: Final = claim_key("").encode()
