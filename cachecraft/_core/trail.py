"""What was invalidated lately, and on whose behalf: remembered for a short while, so that a miss can be explained.

It knows hashes of names: it keeps no argument alive, and takes no lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from cachecraft._core.explanation import Invalidation, Means
from cachecraft._core.keys import matcher
from cachecraft._core.sites import Cause

ROOM: Final = 1000
SPAN: Final = 600.0
"""Seconds."""
_TAGS: Final = 1000


_Mark = tuple[float, Means, tuple[int, ...], str, int | None, Cause]
"""When, how, the hashes of the names or a pattern, how many entries went, and on whose behalf."""


class Trail:
    """The latest invalidations of one cache in this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: deque[_Mark] = deque(maxlen=ROOM)
        self.tags: set[str] | None = set()
        """The tags that ever fell here, by their full names; ``None`` once there were too many to remember."""

    def note(
        self,
        by: Means,
        names: Collection[object],
        cause: Cause,
        *,
        pattern: str = "",
        count: int | None = None,
    ) -> None:
        """Something was invalidated; ``count`` is how many entries went, where known, ``pattern`` its full text."""
        self._marks.append((self._clock(), by, tuple(map(hash, names)), pattern, count, cause))
        if by == "tag" and self.tags is not None:
            self.tags.update(names)  # type: ignore[arg-type]  # tags are named by their names
            if len(self.tags) > _TAGS:
                self.tags = None

    def latest(self, names: Mapping[Any, str], wire: str, prefix: str, *, idle: bool = False) -> Invalidation | None:
        """The last invalidation of any of these names, or by a pattern that ``wire`` matches.

        ``names`` tells how to show each. What is known to have removed nothing counts only where ``idle``.
        """
        hashes = {hash(name): text for name, text in names.items()}
        now = self._clock()
        for when, by, marked, pattern, removed, cause in reversed(list(self._marks)):  # a copy: others append
            if now - when > SPAN:
                return None
            hit = next((each for each in marked if each in hashes), None)
            if (matcher(pattern)(wire) if pattern else hit is not None) and (idle or removed != 0):
                name = pattern.removeprefix(prefix) if pattern else hashes[hit]  # type: ignore[index]  # it was found
                return Invalidation(by=by, name=name, ago=now - when, site=cause.site, write=cause.write)
        return None

    def __repr__(self) -> str:
        return f"<Trail of {len(self._marks)} invalidations>"
