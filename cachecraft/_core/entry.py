"""What is stored for a key, byte by byte, and whether it may be served; knows no key but its digest, and no clock.

A Redis key holds one of two things. Both begin with a 17-byte *handle* (a letter and a random token) that every
change compares, and with the stamps (16 bytes each) of the tags that were current before the load began::

    placeholder   L | token 16 | n 1 | stamps 16*n | digest of the tag names 8
    entry         V | token 16 | n 1 | stamps 16*n | header 50 | tag names | payload

    header  format 1 | flags 1 | serializer 1 | reserved 1 | key digest 8 | schema 8
            | created 8 (wall clock, ms; to show, never to decide) | keep 8 (ms kept beyond the ttl)
            | load time 8 (microseconds) | length of the tag names 2 | checksum 4 (CRC-32 from the header on)

The tag names are UTF-8 text, a line each, in the order of their stamps. Integers are little-endian. A
change of the format is a new format number; readers take an unknown one as a miss.

An encrypted payload (flag 8) opens only beside the key and all that stands before it, see ``bound_to``. Only the
payload is encrypted: whoever can read Redis sees keys, tag names, sizes and times.
"""

from __future__ import annotations

import enum
import functools
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, final

from cachecraft._core.errors import CorruptError

HANDLE: Final = 17
TOKEN: Final = 16
FORMAT: Final = 1
PLACEHOLDER: Final = b"L"
ENTRY: Final = b"V"

ZLIB: Final = 1
ZSTD: Final = 2
FAILURE: Final = 4
ENCRYPTED: Final = 8
"""Flags: how the payload is compressed, that it is a remembered exception, that it is encrypted (after all else)."""

_HEADER: Final = struct.Struct("<BBBx8s8sQQQH")
_CHECKSUM: Final = struct.Struct("<I")
_BODY: Final = _HEADER.size + _CHECKSUM.size


@functools.cache
def _front(count: int) -> struct.Struct:
    """All of an entry with so many stamps that comes before the tag names."""
    return struct.Struct(f"<{HANDLE}sB{'16s' * count}{_HEADER.format[1:]}{_CHECKSUM.format[1:]}")


@final
class Missing(enum.Enum):
    """The type of ``MISSING``, so that type checkers can narrow it away."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING
"""What a lookup answers when there is no entry; never ``None``, which is a value."""


class Verdict(enum.Enum):
    """What may be done with an entry of a certain age."""

    FRESH = "fresh"
    EARLY = "early"
    """Fresh, and due to be refreshed behind the caller's back."""
    STALE = "stale"
    """Past its ttl, served while one refresh runs behind."""
    GRACE = "grace"
    """Past its ttl, served only if the loader fails."""
    MISS = "miss"


FRESH: Final = Verdict.FRESH
"""Under a name of its own for those who ask for it at each hit: an enumeration takes its time to hand out a member."""


def judge(left: float, *, stale: float, grace: float, ahead: float, beta: float, cost: float, random: float) -> Verdict:
    """Judge an entry with ``left`` seconds to the end of its ttl.

    ``beta`` draws an early refresh whose odds rise towards the end and with the load time ``cost``: XFetch, from
    Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
    """
    if left > 0:
        gap = -cost * beta * math.log(1.0 - random) if beta else 0.0
        return Verdict.FRESH if left > ahead and left > gap else Verdict.EARLY
    if -left < stale:
        return Verdict.STALE
    return Verdict.GRACE if -left < grace else Verdict.MISS


@dataclass(slots=True)  # frozen, it would cost each hit a microsecond
class Entry:
    """One decoded envelope."""

    token: bytes
    tags: tuple[str, ...]
    stamps: tuple[bytes, ...]
    flags: int
    serializer: int
    schema: bytes
    created: float
    keep: float
    cost: float
    payload: bytes


_DIGEST: Final = blake2b(digest_size=8)


def key_digest(key: str) -> bytes:
    digest = _DIGEST.copy()  # half the price of making one
    digest.update(key.encode("utf-8", "surrogatepass"))
    return digest.digest()


def names_digest(tags: Sequence[str]) -> bytes:
    return key_digest("\n".join(tags))


def pack_placeholder(token: bytes, stamps: Sequence[bytes], tags: Sequence[str]) -> bytes:
    return b"%b%b%c%b%b" % (PLACEHOLDER, token, len(stamps), b"".join(stamps), names_digest(tags))


def is_for(slot: bytes, tags: Sequence[str]) -> bool:
    """Whether a placeholder's stamps are those of these tags, whatever they have become since."""
    return slot[HANDLE + 1 + TOKEN * slot[HANDLE] :] == names_digest(tags)


def pack(key: str, entry: Entry) -> bytes:
    names = "\n".join(entry.tags).encode()
    header = _HEADER.pack(
        FORMAT,
        entry.flags,
        entry.serializer,
        key_digest(key),
        entry.schema,
        round(entry.created * 1e3),  # not cut off: what was read is to pack to the same bytes
        round(entry.keep * 1e3),
        round(entry.cost * 1e6),
        len(names),
    )
    checksum = _CHECKSUM.pack(zlib.crc32(entry.payload, zlib.crc32(names, zlib.crc32(header))))
    front = b"%b%b%c%b" % (ENTRY, entry.token, len(entry.stamps), b"".join(entry.stamps))
    return b"".join((front, header, checksum, names, entry.payload))


def bound_to(key: str, entry: Entry) -> bytes:
    """What an encrypted payload is bound to: all that the entry says beside it, and the whole key."""
    return pack(key, replace(entry, payload=b"")) + key.encode("utf-8", "surrogatepass")


def handle(slot: bytes | None) -> bytes:
    """What a change must compare: the first 17 bytes, or nothing where there is nothing."""
    return b"" if slot is None else slot[:HANDLE]


def read_stamps(slot: bytes) -> tuple[bytes, ...]:
    """The stamps of a placeholder or an entry.

    Raises:
        CorruptError: the bytes end before the stamps do.
    """
    if len(slot) <= HANDLE:
        raise CorruptError("shorter than its handle")
    count = slot[HANDLE]
    end = HANDLE + 1 + TOKEN * count
    if len(slot) < end:
        raise CorruptError("ends before its stamps do")
    return tuple(slot[at : at + TOKEN] for at in range(HANDLE + 1, end, TOKEN))


def read_tags(front: bytes) -> tuple[str, ...]:
    """The tag names of an entry, as far as ``front``, its first bytes, has them. It is not checked, so only to show.

    Raises:
        CorruptError: the bytes end before the header does.
    """
    start = HANDLE + 1 + TOKEN * len(read_stamps(front))
    if len(front) < start + _BODY:
        raise CorruptError("ends before its header does")
    length = _HEADER.unpack_from(front, start)[-1]
    return tuple(front[start + _BODY :][:length].decode("utf-8", "replace").split("\n"))


def unpack(key: str, slot: bytes) -> Entry:
    """Read the entry that was stored under ``key``.

    Raises:
        CorruptError: damaged, of another key, or of an unknown format.
    """
    if len(slot) <= HANDLE:
        raise CorruptError("shorter than its handle")
    count = slot[HANDLE]
    front = _front(count)
    end = front.size
    if len(slot) < end:
        raise CorruptError("ends before its header does")
    read = front.unpack_from(slot)
    format_, flags, serializer, digest, schema, created, keep, cost, length, checksum = read[2 + count :]
    if format_ != FORMAT:
        raise CorruptError(f"format {format_} is unknown here")
    body = slot[end:]
    if checksum != zlib.crc32(body, zlib.crc32(slot[HANDLE + 1 + TOKEN * count : end - _CHECKSUM.size])):
        raise CorruptError("checksum does not match")
    if digest != key_digest(key):
        raise CorruptError("names another key")
    tags = tuple(body[:length].decode("utf-8", "replace").split("\n")) if length else ()
    return Entry(
        slot[1:HANDLE],
        tags,
        read[2 : 2 + count],
        flags,
        serializer,
        schema,
        created / 1e3,
        keep / 1e3,
        cost / 1e6,
        body[length:],
    )


def outline(front: bytes) -> Entry:
    """What the first bytes of an entry say of it. Nothing tells whether they are damaged, and there is no payload.

    Raises:
        CorruptError: no entry, of an unknown format, or cut off before its tag names end.
    """
    stamps = read_stamps(front)
    start = HANDLE + 1 + TOKEN * len(stamps)
    if front[:1] != ENTRY or len(front) < start + _BODY:
        raise CorruptError("not the beginning of an entry")
    format_, flags, serializer, _, schema, created, keep, cost, length = _HEADER.unpack_from(front, start)
    names = front[start + _BODY : start + _BODY + length]
    if format_ != FORMAT or len(names) < length:
        raise CorruptError("of an unknown format, or cut off before its tag names end")
    tags = tuple(names.decode("utf-8", "replace").split("\n")) if length else ()
    return Entry(front[1:HANDLE], tags, stamps, flags, serializer, schema, created / 1e3, keep / 1e3, cost / 1e6, b"")
