"""What stands under names, as far as a glance tells: kind, size, ttl, first bytes. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cachecraft._core.entry import ENTRY, PLACEHOLDER
from cachecraft._core.refresh import claim_key
from cachecraft._core.sight import ASIDE
from cachecraft.backends.redis import ROOT
from cachecraft.backends.remote import ANY
from cachecraft.cli.server import Server

FRONT: Final = 1024
"""Bytes that nearly always hold an entry's stamps, header and tag names."""
_STAMPS: Final = tuple(name.encode() for name in (ROOT, ANY, "~tag:", "~fn:"))
_CLAIM: Final = claim_key("").encode()


@dataclass(frozen=True, slots=True)
class Slot:
    """One name and what stands there."""

    key: bytes
    kind: str
    """``entry``, ``load`` (a placeholder), ``stamp``, ``refresh`` (a claim), or ``other``."""
    left: float | None
    """Seconds until Redis drops it; none if it never does."""
    size: int | None
    """Bytes; none where the user may not ask (STRLEN)."""
    front: bytes
    """Its first bytes; none if it is no string."""


def is_internal(name: bytes, prefix: bytes) -> bool:
    """Whether it is one of the names that the cache keeps for itself: ``~`` is escaped in all others."""
    return b"~" in name[len(prefix) :]


def glance(server: Server, names: Sequence[bytes], *, front: int = 1) -> list[Slot]:
    """Look at names, in one round trip. What has gone meanwhile is left out."""
    prefix = server.target.prefix.encode()
    asked = [[("PTTL", name), ("STRLEN", name), ("GETRANGE", name, 0, front - 1)] for name in names]
    replies = iter(server.ask(*(command for each in asked for command in each)) if names else ())
    slots = []
    for name, left, size, start in zip(names, replies, replies, replies, strict=True):
        if isinstance(left, Exception) or left == _GONE:
            continue
        begins = start if isinstance(start, bytes) else b""
        length = size if isinstance(size, int) else None
        slots.append(Slot(name, kind_of(name, prefix, begins), _seconds(left), length, begins))
    return slots


_GONE: Final = -2


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if milliseconds >= 0 else None


def kind_of(name: bytes, prefix: bytes, front: bytes) -> str:
    """What a name and the first byte under it say of what it is."""
    own = name[len(prefix) :]
    if own.startswith(_STAMPS):
        return "stamp"
    if own.endswith(_CLAIM):
        return "refresh"
    if b"~" in own and ASIDE.encode() not in own:
        return "other"
    return {ENTRY: "entry", PLACEHOLDER: "load"}.get(front[:1], "other")
