"""The Redis protocol as data: which commands an effect becomes, and what their replies mean. It sends nothing.

Every change of an entry is a script on one key, so that it holds in a cluster too, and each compares the 17-byte handle
(see ``_core.entry``) before it changes anything. No script is on the way of a hit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgpack
from redis.exceptions import NoPermissionError

from cachecraft._core.effects import (
    Acquire,
    Claim,
    Delete,
    Fetch,
    Follow,
    Followed,
    Footprint,
    Reading,
    Release,
    Remote,
    Renew,
    Stamp,
    Store,
)
from cachecraft._core.entry import HANDLE, PLACEHOLDER, TOKEN, pack_placeholder
from cachecraft._core.refresh import claim_key
from cachecraft._core.trail import SPAN
from cachecraft.backends import queue
from cachecraft.backends.footprints import TRAIL
from cachecraft.backends.scripts import Command, Plan, Replies, Script, call, milliseconds, reply_of, truth_of

STAMP_TTL: Final = 30 * 86400 * 1000
"""Milliseconds a stamp lives after its last use. One that expires takes its entries with it, and revives none."""


# GETRANGE rather than GET: an entry may be a megabyte, its handle is 17 bytes. A missing key reads as "".
_IF_HELD: Final = "if redis.call('GETRANGE', KEYS[1], 0, 16) ~= ARGV[1] then return 0 end "

SET: Final = Script(_IF_HELD + "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1")
"""Acquire and store: put a value where the handle still stands."""
RELEASE: Final = Script(_IF_HELD + "return redis.call('DEL', KEYS[1])")
RENEW: Final = Script(_IF_HELD + "return redis.call('PEXPIRE', KEYS[1], ARGV[2])")
# Every change of a stamp is told to all near caches, so its time is renewed at half of it and not with each use.
PROLONG: Final = Script(
    "local left = redis.call('PTTL', KEYS[1])"
    " if left < 0 or left > tonumber(ARGV[1]) / 2 then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[1])"
)

SCRIPTS: Final = {script.sha: script for script in (SET, RELEASE, RENEW, PROLONG, *queue.SCRIPTS)}

_SET, _RELEASE, _RENEW, _PROLONG = SET.sha, RELEASE.sha, RENEW.sha, PROLONG.sha


def _fetch(effect: Fetch) -> list[Command]:
    keys = [effect.key] if effect.aside is None else [effect.key, effect.aside]
    read: Command = ("MGET", effect.key, *effect.tags, *keys[1:])
    # The times first: what is replaced in between is then thought to end too soon, never too late.
    return [*(("PTTL", key) for key in keys), read] if effect.aged else [read]


def _fetched(effect: Fetch, replies: Replies) -> Reading:
    slot, *rest = replies[-1]
    left = _left(replies[0]) if effect.aged else None
    if effect.aside is None:
        return Reading(slot, _stamps(rest), left)
    *rest, aside = rest
    stamps = _stamps(rest)
    return Reading(
        slot, stamps, left, Reading(aside, (_stamp_of(slot), *stamps), _left(replies[1]) if effect.aged else None)
    )


def _left(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds >= 0 else None


def _stamps(values: Sequence[bytes | None]) -> tuple[bytes | None, ...]:
    return tuple([value if value is None or len(value) == TOKEN else _stamp_of(value) for value in values])


def _stamp_of(value: bytes | None) -> bytes | None:
    """What stands for an entry where it is a stamp: its handle is another with each change, made as short as stamps."""
    return None if value is None else hashlib.blake2b(value[:HANDLE], digest_size=TOKEN).digest()


def _acquire(effect: Acquire) -> list[Command]:
    placeholder = pack_placeholder(effect.token, effect.stamps, effect.tags)
    commands: list[Command] = []
    for tag, stamp, missing in zip(effect.tags, effect.stamps, effect.missing, strict=True):
        if tag == effect.beside:
            continue
        # SET NX, then the read below: together what SET NX GET does, which servers before 7.0 refuse.
        commands.append(("SET", tag, stamp, "NX", "PX", STAMP_TTL) if missing else call(_PROLONG, tag, STAMP_TTL))
    commands.append(call(_SET, effect.key, effect.seen, placeholder, milliseconds(effect.lease)))
    # Told whatever stands there: Redis may have evicted what near caches still hold.
    told = [tell_gone([effect.key])] if effect.replaces else []
    return [*commands, *told, ("PTTL", effect.key), ("MGET", effect.key, *effect.tags)]


def _acquired(effect: Acquire, replies: Replies) -> Reading | None:
    won = replies[sum(tag != effect.beside for tag in effect.tags)]
    left, (slot, *rest) = replies[-2:]
    stamps = _stamps(rest)
    if won and stamps == effect.stamps:
        return None
    return Reading(slot, stamps, _left(left))


def _stamp(effect: Stamp) -> list[Command]:
    sets: list[Command] = [
        ("SET", tag, fresh, "NX", "PX", STAMP_TTL) for tag, fresh in zip(effect.tags, effect.fresh, strict=True)
    ]
    return [*sets, ("MGET", *effect.tags)]


def _nothing(_: Any, __: Replies) -> None:
    return None


def _store(effect: Store) -> list[Command]:
    store = call(_SET, effect.key, effect.held, effect.entry, milliseconds(effect.ttl))
    told = [tell_gone([effect.key])] if effect.replaces else []
    return [store, *told, *_tell_done(effect)]


def _delete(effect: Delete) -> list[Command]:
    # Stamps as well, though their changes are tracked: one that is made and falls in one turn of the server's loop is
    # tracked as one change, and to delete one that is not there is none.
    homes: dict[str, list[str]] = {}
    for key in effect.keys:
        homes.setdefault(prefix_in(key), []).append(key)
    return [("UNLINK", *effect.keys), *map(tell_gone, homes.values()), *leave(effect.trail)]


def leave(trail: Sequence[Footprint]) -> list[Command]:
    """Leave a trail, for those who ask why something is gone."""
    return [("SET", place, told, "PX", milliseconds(SPAN)) for place, told in trail]


def is_beside(command: Command, refusal: Exception) -> bool:
    """Whether what was to be done is done although this was refused: only, somebody is not told."""
    if command[0] == "PUBLISH":
        return isinstance(refusal, NoPermissionError)
    return command[0] == "SET" and TRAIL in command[1]


def _follow(effect: Follow) -> list[Command]:
    return [("MGET", *effect.places), *(("PTTL", place) for place in effect.places)]


def _followed(effect: Follow, replies: Replies) -> tuple[Followed, ...]:
    there, *left = replies
    return tuple((told, time / 1000) for told, time in zip(there, left, strict=True) if told is not None and time >= 0)


# -- what is told to other processes ---------------------------------------------------------------------------


def prefix_in(key: str) -> str:
    """What all keys of its namespace begin with; namespaces are escaped, so they have no colon in them."""
    return key[: key.index(":") + 1]


def gone_channel(prefix: str) -> str:
    """Where it is told which keys and stamps of a namespace were removed or replaced, for near caches."""
    return f"{prefix}~gone"


def done_channel(prefix: str, token: bytes) -> str:
    """Where it is told that a load is over, for those who wait for it."""
    return f"{prefix}~done:{token.hex()}"


def tell_gone(keys: Sequence[str]) -> Command:
    """Tell that keys, all of one namespace, are gone."""
    return ("PUBLISH", gone_channel(prefix_in(keys[0])), msgpack.packb([None, *keys]))


def tell_swept(prefix: str, pattern: str) -> Command:
    """Tell that what matches a pattern is gone."""
    return ("PUBLISH", gone_channel(prefix), msgpack.packb([pattern]))


def read_told(message: bytes) -> tuple[str | None, list[str]]:
    """What ``tell_gone`` or ``tell_swept`` told: a pattern, or keys.

    Raises:
        ValueError: it was told by somebody else.
    """
    match msgpack.unpackb(message):
        case [str() | None as pattern, *keys] if all(isinstance(key, str) for key in keys):
            return pattern, keys
    raise ValueError("not what is told here")


def _tell_done(effect: Store | Release) -> list[Command]:
    # Nobody waits for a claim to be given back.
    if not effect.held.startswith(PLACEHOLDER) or effect.key.endswith(claim_key("")):
        return []
    return [("PUBLISH", done_channel(prefix_in(effect.key), effect.held[1:HANDLE]), b"")]


_READS: Final = frozenset({"MGET", "PTTL"})


def only_reads(commands: Sequence[Command]) -> bool:
    """Whether the same replies do for all who send these commands at the same time."""
    return _READS.issuperset([command[0] for command in commands])


PLANS: Final[dict[type[Remote[Any]], Plan]] = {
    Fetch: Plan(_fetch, _fetched),
    Acquire: Plan(_acquire, _acquired),
    Store: Plan(_store, truth_of),
    Release: Plan(lambda e: [call(_RELEASE, e.key, e.held), *_tell_done(e)], _nothing),
    Renew: Plan(lambda e: [call(_RENEW, e.key, e.held, milliseconds(e.lease))], truth_of),
    Claim: Plan(lambda e: [("SET", e.key, e.token, "NX", "PX", milliseconds(e.lease))], truth_of),
    Stamp: Plan(_stamp, lambda e, replies: _stamps(replies[-1])),
    Delete: Plan(_delete, reply_of),
    Follow: Plan(_follow, _followed),
    **queue.PLANS,
}

SCAN_COUNT: Final = 1000


def scan(cursor: int, pattern: str) -> Command:
    return ("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)


def unlink_each(keys: Sequence[bytes]) -> list[Command]:
    """One command a key: one command for all would hold the server for as long as they take together."""
    return [("UNLINK", key) for key in keys]


__all__ = ["PLACEHOLDER", "PLANS", "SCRIPTS", "Command", "Plan", "Script", "milliseconds", "scan", "unlink_each"]
