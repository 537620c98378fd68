"""When the entries of a namespace end, by function, and whether they would end together. Pure: it is given slots.

*Lifetime* is what an entry was given when it was stored, jitter included; *left* is what remains of it. Entries whose
lifetimes differ end apart even if they were stored together; that is what jitter is for.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cachecraft._core.entry import FAILURE, outline
from cachecraft._core.errors import CorruptError
from cachecraft.cli.figures import percentile
from cachecraft.cli.slots import Slot

FEW: Final = 20
"""Entries of which no more can be said."""
SPREAD: Final = 0.02
"""Lifetimes that differ by this share are spread; the default jitter comes to 0.08."""
TOGETHER: Final = 0.25
"""Entries of which so large a share ends at once would be loaded anew at once."""
_MOMENT: Final = 0.01
"""Of a lifetime: what counts as at once."""


@dataclass(slots=True)
class Group:
    """The entries of one function, or of one kind of key stored by hand."""

    name: str
    left: list[float] = field(default_factory=list)
    lifetimes: list[float] = field(default_factory=list)

    @property
    def lifetime(self) -> float:
        """The middle one."""
        return percentile(sorted(self.lifetimes), 50)

    @property
    def spread(self) -> float:
        """By how much lifetimes differ, but for the outermost twentieth at each end, as a share of the middle one."""
        ordered = sorted(self.lifetimes)
        middle = percentile(ordered, 50)
        return (percentile(ordered, 95) - percentile(ordered, 5)) / middle if middle > 0 else 0.0

    @property
    def peak(self) -> float:
        """The largest share that ends at once: within a hundredth of a lifetime, and at least a second."""
        ordered, window = sorted(self.left), max(1.0, self.lifetime * _MOMENT)
        most = max((bisect_left(ordered, start + window) - at for at, start in enumerate(ordered)), default=0)
        return most / len(ordered) if ordered else 0.0

    @property
    def verdict(self) -> str:
        """``spread`` by jitter, ``together``, ``apart`` (no jitter, but stored at different times), or ``few``."""
        if len(self.left) < FEW:
            return "few"
        if self.spread >= SPREAD:
            return "spread"
        return "together" if self.peak >= TOGETHER else "apart"


@dataclass(slots=True)
class Lifetimes:
    """All that was seen."""

    groups: list[Group]
    """The largest first."""
    lasting: list[Slot]
    """Keys that never end. The cache stores none."""
    past: int
    """Entries past their ttl, kept for ``stale`` and ``grace``."""
    others: int
    """Keys that are no entries: loads under way, or somebody else's."""

    @property
    def left(self) -> list[float]:
        return sorted(left for group in self.groups for left in group.left)

    @property
    def together(self) -> list[Group]:
        """Those that would end together."""
        return [group for group in self.groups if group.verdict == "together"]


def gather(slots: Iterable[Slot], prefix: str) -> Lifetimes:
    """Sort what was found."""
    groups: defaultdict[str, Group] = defaultdict(lambda: Group(""))
    found = Lifetimes([], [], 0, 0)
    now = time.time()
    for slot in slots:
        if slot.left is None:
            found.lasting.append(slot)
            continue
        try:
            entry = outline(slot.front)
        except CorruptError:
            found.others += 1
            continue
        left = slot.left - entry.keep
        if left <= 0:
            found.past += 1
        elif not entry.flags & FAILURE:  # a remembered exception has a ttl of its own
            group = groups[_name(slot.key, entry.tags, prefix)]
            group.left.append(left)
            group.lifetimes.append(now - entry.created + left)
    for name, group in groups.items():
        group.name = name
    found.groups = sorted(groups.values(), key=lambda group: (-len(group.left), group.name))
    return found


def _name(key: bytes, tags: Sequence[str], prefix: str) -> str:
    """The function, or, of what was stored by hand, what the key begins with."""
    mark = f"{prefix}~fn:"
    function = next((tag.removeprefix(mark) for tag in tags if tag.startswith(mark)), None)
    if function is not None:
        return function
    stem, colon, _ = key[len(prefix) :].decode("utf-8", "backslashreplace").rpartition(":")
    return f"{stem}{colon}* by hand"


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many of the sorted values are below each edge, and not below the one before."""
    below = [bisect_left(values, edge) for edge in edges]
    return [high - low for low, high in zip([0, *below], below, strict=False)]


def even_edges(low: float, high: float, count: int) -> list[float]:
    """Edges of equal steps, the last a little above ``high``."""
    step = max(high - low, 1e-9) / count
    return [*(low + step * number for number in range(1, count)), high + step / 1e6 + 1e-9]
