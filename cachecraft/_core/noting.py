"""What a flow notes down of a call: the counters, and the events for whoever listens; decides nothing."""

from __future__ import annotations

from itertools import count
from typing import Final, Literal, Protocol

from cachecraft._core.events import (
    Hooks,
    Invalidated,
    LoadEnded,
    LoadStarted,
    Missed,
    NotStored,
    StaleServed,
    WaitEnded,
    tell,
)
from cachecraft._core.explanation import Means
from cachecraft._core.tally import Tally

_numbers: Final = count(1)
_BY: Final[dict[Means, Literal["key", "tags", "pattern", "function", "everything"]]] = {
    "key": "key",
    "tag": "tags",
    "pattern": "pattern",
    "function": "function",
    "clear": "everything",
}


class Noted(Protocol):
    """One function, as far as something is noted of it."""

    @property
    def label(self) -> str: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def hooks(self) -> Hooks: ...
    def clock(self) -> float: ...


def missed(place: Noted, reason: str) -> None:
    place.tally.missed(reason)
    if place.hooks:
        tell(place.hooks, Missed(place.label, reason))


def load_started(place: Noted) -> int:
    """Answers the number by which hooks know this load; 0 if there are none."""
    if not place.hooks:
        return 0
    number = next(_numbers)
    tell(place.hooks, LoadStarted(place.label, number))
    return number


def load_ended(place: Noted, number: int, seconds: float, error: BaseException | None = None) -> None:
    place.tally.loaded(seconds)
    place.tally.errors += error is not None
    if number:
        tell(place.hooks, LoadEnded(place.label, number, seconds, error))


def wait_ended(place: Noted, began: float, *, in_time: bool) -> None:
    seconds = place.clock() - began
    place.tally.waited(seconds)
    if place.hooks:
        tell(place.hooks, WaitEnded(place.label, seconds, in_time))


def served_stale(place: Noted, why: Literal["stale", "grace"]) -> None:
    place.tally.stale += 1
    place.tally.grace += why == "grace"
    if place.hooks:
        tell(place.hooks, StaleServed(place.label, why))


def declined(place: Noted) -> None:
    """``when=`` would not have it."""
    place.tally.not_kept += 1
    if place.hooks:
        tell(place.hooks, NotStored(place.label, "when"))


def refused(place: Noted, detail: str) -> None:
    """It cannot be stored."""
    place.tally.refused += 1
    if place.hooks:
        tell(place.hooks, NotStored(place.label, "refused", detail))


def lost(place: Noted) -> None:
    """An invalidation came meanwhile, or the lease was lost."""
    place.tally.store_lost += 1
    if place.hooks:
        tell(place.hooks, NotStored(place.label, "lost"))


def dropped(place: Noted, by: Literal["call", "function"], number: int) -> None:
    place.tally.invalidated += number
    if place.hooks:
        tell(place.hooks, Invalidated(by, place.label, number))


def invalidated(hooks: Hooks, by: Means, number: int) -> None:
    """Something was invalidated by hand, whichever functions it belongs to."""
    if hooks:
        tell(hooks, Invalidated(_BY[by], count=number))
