"""The near cache with one of its guards off, in the worker's own process: a race that finds nothing then is no proof.

Each names the faults under which that shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

import pytest

from cachecraft._core.effects import Acquire, Store
from cachecraft.backends import commands, redis
from cachecraft.backends.commands import PLANS, Plan
from cachecraft.backends.near import NearFill
from cachecraft.backends.near_keeper import NearKeeper
from cachecraft.backends.nodes import Named

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A guard that is off, and when it would be missed: under which fault, every so many seconds, in which mood."""

    switch_on: Callable[[Patch], object]
    fault: str | None = None
    pause: float = 0.2
    mood: str = "eager"


def _nothing(*_: Any) -> None:
    pass


def _no_fill_marker(patch: Patch) -> None:
    """What is invalidated while it is read is held all the same."""

    def hold(keeper: NearKeeper, fill: NearFill, node: Named, tags: tuple[str, ...]) -> None:
        with keeper.memory.lock:
            fill.place.table.put(node)

    patch.setattr(NearKeeper, "hold", hold)


def _no_epoch(patch: Patch) -> None:
    """What was held when the listener was lost is served again once it is back."""
    forget_all = NearKeeper._forget_all

    def forgets(keeper: NearKeeper, reason: str) -> None:
        if reason != "listener":
            forget_all(keeper, reason)

    patch.setattr(NearKeeper, "_forget_all", forgets)


def _no_proof(patch: Patch) -> None:
    """One answer to a ``PING`` is enough for good."""
    patch.setattr(NearKeeper, "proved", lambda keeper, sent: setattr(keeper.fence, "until", inf))


def _own_are_only_heard(patch: Patch) -> None:
    """What this process invalidates leaves its own near cache when it is told of it."""
    patch.setattr(NearKeeper, "changed", _nothing)


def _nothing_is_told(patch: Patch) -> None:
    """Neither keys nor patterns are announced."""
    patch.setattr(commands, "tell_gone", lambda keys: ("PING",))
    patch.setattr(redis, "tell_swept", lambda prefix, pattern: ("PING",))


def _no_stamps(patch: Patch) -> None:
    """Keys and patterns are heard, tags and functions are not."""
    gone = NearKeeper.gone

    def keys_are_gone(keeper: NearKeeper, prefix: str, pattern: str | None, keys: Sequence[str]) -> None:
        gone(keeper, prefix, pattern, [key for key in keys if not key.startswith(f"{prefix}~")])

    patch.setattr(NearKeeper, "gone", keys_are_gone)
    patch.setattr(NearKeeper, "stamps_changed", _nothing)


def _replacements_are_not_told(patch: Patch) -> None:
    """A value is put in the place of another, and nobody hears of it."""
    for kind in (Acquire, Store):
        made = PLANS[kind].commands

        def untold(effect: Any, made: Callable[[Any], Any] = made) -> Any:
            return made(replace(effect, replaces=False))

        patch.setitem(PLANS, kind, Plan(untold, PLANS[kind].answer))


def _barriers_prove_nothing(patch: Patch) -> None:
    def barrier(keeper: NearKeeper, patience: float) -> Any:
        yield from ()

    patch.setattr(NearKeeper, "barrier", barrier)


MUTANTS: Final = {
    "no fill marker": Mutant(_no_fill_marker, "lag"),
    "no epoch": Mutant(_no_epoch, "kill_listeners", 0.4, "wide"),
    "no proof": Mutant(_no_proof, "silence", 1.5, "calm"),
    "own invalidations are only heard": Mutant(_own_are_only_heard),
    "nothing is told": Mutant(_nothing_is_told),
    "replacements are not told": Mutant(_replacements_are_not_told),
    "stamps are not heard": Mutant(_no_stamps),
    "barriers prove nothing": Mutant(_barriers_prove_nothing, "stall", 0.8),
}
