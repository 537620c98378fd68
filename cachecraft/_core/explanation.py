"""Why a call finds what it finds: the answer of ``f.explain(...)``, as data and in words; it looks at nothing itself.

Its ``repr`` names no key and no tag, since a ``repr`` may end in a log; ``str`` tells it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Means = Literal["key", "tag", "pattern", "function", "clear"]
Reason = Literal[
    "absent", "expired", "evicted", "invalidated", "declined", "refused", "failed", "dropped",
    "schema", "corrupt", "encryption", "unreachable", "changing", "off",
]  # fmt: skip

_WORDS: Final[dict[str, str]] = {
    "absent": "never stored, as far as is remembered here",
    "expired": "expired",
    "evicted": "evicted",
    "invalidated": "invalidated",
    "schema": "what is stored is another release's",
    "declined": "its result was declined by when=",
    "refused": "its result could not be stored",
    "failed": "its load failed",
    "dropped": "dropped by @updates: its write failed, or another came in between",
    "corrupt": "what is stored is damaged, or nothing of ours",
    "encryption": "what is stored cannot be decrypted here",
    "unreachable": "Redis cannot be asked",
    "changing": "it changes more quickly than it can be read",
    "off": "this cache is off or closed",
}

_HOW: Final[dict[str, str]] = {
    "key": "by its key",
    "tag": "by the tag",
    "pattern": "by the pattern",
    "function": "with all of its function",
    "clear": "with all of its namespace",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalidation:
    """What invalidated an entry, as far as that is known."""

    by: Means
    """``clear`` stands for all that lets a whole namespace fall."""
    name: str = ""
    """The tag or the pattern."""
    ago: float | None = None
    """Seconds since then."""
    site: str | None = None
    """``file:line function`` of the code that asked for it."""
    write: str | None = None
    """The function that ``@invalidates`` decorates, which was called there."""
    elsewhere: bool = False
    """Another process did it."""

    def how(self, *, named: bool = True) -> str:
        """By what, and how long ago, in words."""
        name = f" {self.name!r}" if named and self.name else ""
        text = f"{_HOW[self.by]}{name}"
        return text if self.ago is None else f"{text}, {_span(self.ago)} ago"

    def whence(self) -> str:
        """From which code, in words."""
        text = f"@invalidates on {self.write}, " if self.write else ""
        text += f"called at {self.site}" if self.site else "from where is not known"
        return f"{text}, in another process" if self.elsewhere else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the next call would find, and why."""

    function: str
    key: str
    verdict: Literal["fresh", "stale", "loading", "miss"]
    held: Literal["memory", "near", "redis"] | None = None
    """Where the value is that would be served, or what of it is left."""
    age: float | None = None
    """Seconds since it was stored. Of a plain entry in memory that is known up to the jitter of its ttl: its middle."""
    left: float | None = None
    """Seconds to the end of its ttl, below zero after it; of a load in another process, to the end of its lease."""
    load_time: float | None = None
    """Seconds that it took to load; not kept of plain entries in memory."""
    size: int | None = None
    """Bytes, in memory with bookkeeping."""
    tags: tuple[str, ...] = ()
    exception: bool = False
    """What would be served is a remembered exception (``cache_errors``)."""
    reason: Reason | None = None
    """Why it is a miss."""
    certain: bool = True
    """Whether that is known. Else it would explain the miss, if there was ever something to lose."""
    detail: str = ""
    since: float | None = None
    """Seconds since it came to that: since it expired, was declined, failed; since the load began."""
    by: Invalidation | None = None
    """What invalidated it."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @property
    def why(self) -> str:
        """The reason in words; empty if it is no miss."""
        return self._why(named=True)

    def _why(self, *, named: bool) -> str:
        if self.reason is None:
            return ""
        text = _WORDS[self.reason]
        text = text if self.certain else f"most likely {text}"
        if self.by is not None:
            return f"{text} {self.by.how(named=named)}"
        return text if self.since is None else f"{text}, {_span(self.since)} ago"

    def _headline(self, *, named: bool) -> str:
        parts: list[str] = [self.verdict]
        if self.held is not None and self.verdict in ("fresh", "stale"):
            parts[0] += f" in {'the near cache' if self.held == 'near' else self.held}"
        if self.verdict == "loading" and self.since is not None:
            parts[0] += f" for {_span(self.since)}"
        if self.verdict == "miss":
            return f"{self.verdict}: {self._why(named=named)}"
        if self.age is not None:
            parts.append(f"{_span(self.age)} old")
        if self.left is not None:
            parts.append(f"{_span(self.left)} left" if self.left >= 0 else f"expired {_span(-self.left)} ago")
        return ", ".join(parts)

    def _lines(self) -> Iterator[str]:
        yield f"{self.function}: {self._headline(named=True)}"
        if self.by is not None:
            yield f"  {self.by.whence()}"
        if self.detail:
            yield f"  {self.detail}"
        if self.exception:
            yield "  a remembered exception"
        yield f"  key        {self.key}"
        if self.tags:
            yield f"  tags       {', '.join(self.tags)}"
        if self.load_time is not None:
            yield f"  load time  {_span(self.load_time)}"
        if self.size is not None:
            yield f"  size       {self.size:,} bytes"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return f"<Explanation of {self.function}: {self._headline(named=False)}>"


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
