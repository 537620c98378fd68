"""Which keys are asked for most, as far as few counters can tell; knows nothing else about a key.

Misra and Gries, "Finding repeated elements", 1982, in batches: when there are twice as many keys as are wanted, what
the first of the others has is taken from all, and who has nothing left goes. So a key that was asked for more often
than one time in ``room`` is still there, and no count is too high.
"""

from __future__ import annotations

from typing import Final

ROOM: Final = 200


class Heat:
    """Counts of the keys asked for most since they were last taken. It takes no lock, and may lose some in a race."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._counts: dict[str, int] = {}

    def add(self, key: str) -> None:
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1
        if len(counts) > 2 * self._room:
            self._prune()

    def _prune(self) -> None:
        counts = dict(self._counts)
        if len(counts) > self._room:  # else somebody did so just now
            last = sorted(counts.values(), reverse=True)[self._room]
            self._counts = {key: count - last for key, count in counts.items() if count > last}

    def take(self, most: int) -> list[tuple[str, int]]:
        """The hottest keys, hottest first, and how often each was asked for, at the least. Begins anew."""
        counts, self._counts = self._counts, {}
        return sorted(dict(counts).items(), key=lambda each: (-each[1], each[0]))[:most]

    def __repr__(self) -> str:
        return f"<Heat: {len(self._counts)} keys>"
