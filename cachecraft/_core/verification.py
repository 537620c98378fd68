"""Verifying: a hit's value against what the loader returns now, behind the caller's back. It finds what was forgotten
to invalidate.

That the two differ proves nothing yet: the source may have changed, and the invalidation be on its way. It comes when
the write *function* ends, and that may be a while after its commit. So a difference is only one if the very entry still
stands after the loader returned, and once more after a pause longer than writes take; and if the loader, asked again,
still says something else. An entry that stands has not been invalidated: whatever invalidates, removes it or lets one
of its stamps fall, and a new one is another entry.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from cachecraft._core.alone import Loading, load_alone
from cachecraft._core.effects import Flow, Sleep, Spawn
from cachecraft._core.entry import MISSING
from cachecraft._core.events import Differed, tell
from cachecraft._core.ports import Run
from cachecraft._core.sameness import same
from cachecraft._core.tally import Tally

log: Final = logging.getLogger("cachecraft")

PAUSE: Final = 5.0
"""Seconds that a write may take from its commit to its end."""
_MOST: Final = 2
"""Verifications under way in one cache: most threads of its crew are left to refreshes."""
_QUIET: Final = 60.0
"""Seconds between two reports of one function."""

Kept = Callable[[], Flow[Any]]
"""The value that is being verified, or ``MISSING`` once another entry stands in its place, or none."""


class Seats:
    """So many may verify at a time. Neither method blocks, wherever a signal or the garbage collector calls it."""

    def __init__(self) -> None:
        self._free: deque[None] = deque()
        self.after_fork()

    def take(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def give_back(self) -> None:
        self._free.append(None)

    @property
    def taken(self) -> int:
        return _MOST - len(self._free)

    def after_fork(self) -> None:
        """In a forked child: whoever verified in the parent is not here."""
        self._free = deque([None] * _MOST)


class Verifier:
    """The verification of one function's hits."""

    def __init__(
        self, label: str, parameters: Sequence[str], seats: Seats, clock: Callable[[], float], tally: Tally
    ) -> None:
        self.seats = seats
        self.tally = tally
        self.clock = clock
        self._label = label
        self._parameters = ", ".join(parameters)
        self._reported: float | None = None

    def differed(self) -> None:
        """Count a difference, and say so."""
        self.tally.differed += 1
        now = self.clock()
        if self._reported is None or now - self._reported >= _QUIET:
            self._reported = now
            log.warning(
                "a kept result of %s differs from what its loader returns now, and nothing has invalidated it: is"
                " there a write without @invalidates? Its key is told by: %s",
                self._label,
                self._parameters or "nothing",
            )


class Verified(Loading, Protocol):
    """One function, as far as it is verified."""

    verifier: Verifier


def verify_behind(place: Verified, run: Run, kept: Kept) -> Flow[None]:
    """Verify a hit behind the caller's back, unless others are at that already."""
    seats = place.verifier.seats
    if not seats.take():
        return
    if not (yield from Spawn(lambda: verify(place, run, kept), seats.give_back)):
        seats.give_back()


def verify(place: Verified, run: Run, kept: Kept) -> Flow[None]:
    """As far as it comes to a result, count it. That the loader raises, or Redis does not answer, is none."""
    try:
        equal = yield from _compare(place, run, kept)
    except Exception:
        return
    if equal is None:
        return
    place.verifier.tally.verified += 1
    if not equal:
        place.verifier.differed()
        if place.hooks:
            tell(place.hooks, Differed(place.label))


def _compare(place: Verified, run: Run, kept: Kept) -> Flow[bool | None]:
    """Whether the loader returns what is kept; ``None`` where that is not kept any more, so nobody can tell."""
    for pause in (0.0, PAUSE):
        if pause:
            yield from Sleep(pause)
            if (yield from kept()) is MISSING:
                return None
        value = yield from load_alone(place, run)
        # Not the value that was seen at first: its caller may have changed it.
        stands = yield from kept()
        if stands is MISSING:
            return None
        if same(stands, value):
            return True
    return False
