"""Glob patterns as Redis understands them (``KEYS``, ``SCAN … MATCH``); knows neither keys nor templates."""

from __future__ import annotations

import re
from collections.abc import Callable


def matcher(pattern: str) -> Callable[[str], bool]:
    """A test whether a key matches, with the answer that Redis gives: bytes are compared, so ``é`` is two ``?``.

    Only in ranges with an end outside ASCII may Redis differ: it compares them as its CPU's ``char``, signed or not.
    """
    first, *rest = _segments(_encode(pattern))
    expression = first
    if rest:
        # The first place where a middle segment fits is as good as any later one, so nothing is ever tried twice.
        expression += b"".join(b"(?>.*?%b)" % middle for middle in rest[:-1]) + b".*" + rest[-1]
    match = re.compile(expression, re.DOTALL).fullmatch
    return lambda key: match(_encode(key)) is not None


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _segments(pattern: bytes) -> list[bytes]:
    """What stands between the stars, as regular expressions."""
    segments = [b""]
    at = 0
    while at < len(pattern):
        here = pattern[at : at + 1]
        at += 1
        if here == b"*":
            segments.append(b"")
            continue
        if here == b"?":
            here = b"."
        elif here == b"[":
            here, at = _class(pattern, at)
        else:
            if here == b"\\" and at < len(pattern):
                here = pattern[at : at + 1]
                at += 1
            here = re.escape(here)
        segments[-1] += here
    return segments


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class that begins at ``at``, and where the pattern goes on. One without an end reaches to the end."""
    negated = pattern[at : at + 1] == b"^"
    ranges, at = _ranges(pattern, at + negated)
    if not ranges:
        return (b"." if negated else b"(?!)"), at
    members = b"".join(b"\\x%02x-\\x%02x" % pair for pair in ranges)
    return b"[%b%b]" % (b"^" * negated, members), at


def _ranges(pattern: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    ranges = []
    while at < len(pattern):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            ranges.append((pattern[at + 1], pattern[at + 1]))
            at += 2
        elif pattern[at] == ord("]"):
            return ranges, at + 1
        elif at + 2 < len(pattern) and pattern[at + 1] == ord("-"):
            low, high = sorted((pattern[at], pattern[at + 2]))
            ranges.append((low, high))
            at += 3
        else:
            ranges.append((pattern[at], pattern[at]))
            at += 1
    return ranges, at
