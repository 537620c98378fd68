"""The trail of invalidations that the processes of a namespace leave in Redis: who invalidated what, for ten minutes.

It is there to be shown, and decides nothing. An invalidation takes it along in the same packet; whether the server
keeps it is no matter, and a process leaves so many a second at the most. There is a fixed number of places, so that it
never grows: what falls into the same place is overwritten. A place is called ``{namespace}:trail~:{number}``; ``~`` is
escaped in keys, so no entry is called so. It tells no key, no tag and no value: of those a digest, and the text of a
pattern, beside the line of code. How old it is tells the time it has left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, cast, get_args

import msgpack

from cachecraft._core.effects import Followed, Footprint
from cachecraft._core.entry import key_digest
from cachecraft._core.explanation import Invalidation, Means
from cachecraft._core.keys import matcher
from cachecraft._core.sites import Cause
from cachecraft._core.trail import SPAN

TRAIL: Final = "trail~:"
_FORMAT: Final = 1
_PLACES: Final = 1024
_PATTERNS: Final = 16
"""Places of their own, since each of them must be looked at."""
_LONGEST: Final = 300
"""Characters of a text."""
_MOST: Final = 8
"""Names of one invalidation that are told."""
_RATE: Final = 20.0
"""Footprints a second, of one process,"""
_BURST: Final = 100.0
"""and at once."""


class Footprints:
    """What this process leaves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = _BURST
        self._since = clock()
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: it is somebody else."""
        self.who = os.urandom(4)

    def of(
        self, prefix: str, by: Means, names: Collection[str], cause: Cause, pattern: str = ""
    ) -> tuple[Footprint, ...]:
        """What an invalidation takes along; nothing where there were too many lately."""
        names = [pattern] if pattern else list(names)[:_MOST]
        return tuple(_footprint(prefix, by, name, cause, pattern, self.who) for name in names if self._may())

    def _may(self) -> bool:
        now = self._clock()
        self._left, self._since = min(_BURST, self._left + _RATE * (now - self._since)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def __repr__(self) -> str:
        return f"<Footprints: {self._left:.0f} more at once>"


def _footprint(prefix: str, by: Means, name: str, cause: Cause, pattern: str, who: bytes) -> Footprint:
    site, write = (cause.site or "")[-_LONGEST:], (cause.write or "")[-_LONGEST:]
    told = [_FORMAT, who, by, b"" if pattern else key_digest(name), pattern[:_LONGEST], site, write]
    place = _pattern_place(prefix, pattern) if pattern else _place(prefix, name)
    return place, cast("bytes", msgpack.packb(told, unicode_errors="surrogatepass"))


def _place(prefix: str, name: str) -> str:
    return f"{prefix}{TRAIL}{int.from_bytes(key_digest(name)[:4], 'big') % _PLACES}"


def _pattern_place(prefix: str, pattern: str) -> str:
    return f"{prefix}{TRAIL}p{key_digest(pattern)[0] % _PATTERNS}"


def places(prefix: str, names: Collection[str]) -> tuple[str, ...]:
    """Where to look for what may have invalidated any of these names (keys and stamps), or a key by a pattern."""
    patterns = [f"{prefix}{TRAIL}p{number}" for number in range(_PATTERNS)]
    return (*dict.fromkeys(_place(prefix, name) for name in names), *patterns)


def latest(
    found: Collection[Followed], names: Mapping[str, str], wire: str, prefix: str, who: bytes
) -> Invalidation | None:
    """The last invalidation of any of these names by somebody else than ``who``; ``names`` tells how to show each."""
    known = {key_digest(name): text for name, text in names.items()}
    candidates = [each for told, left in found for each in _read(told, left, known, wire, prefix, who)]
    return min(candidates, key=lambda each: each.ago or 0.0, default=None)


def _read(
    told: bytes, left: float, known: Mapping[bytes, str], wire: str, prefix: str, who: bytes
) -> Iterator[Invalidation]:
    try:
        parts: Any = msgpack.unpackb(told, unicode_errors="surrogatepass")
        match parts:
            case [1, bytes(whose), str(by), bytes(digest), str(pattern), str(site), str(write)] if by in get_args(
                Means
            ):
                name = pattern.removeprefix(prefix) if pattern else known.get(digest)
                if whose == who or name is None or (pattern and not matcher(pattern)(wire)):
                    return
                yield Invalidation(
                    by=cast("Means", by),
                    name=name,
                    ago=max(0.0, SPAN - left),
                    site=site or None,
                    write=write or None,
                    elsewhere=True,
                )
    except Exception:  # the bytes are untrusted, and of no importance
        return
