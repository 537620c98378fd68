"""Who moves next: a walk that bytes decide, or every way that leaves the straight one a few times.

A string of bytes is made and shrunk by hypothesis, or comes from a seed; zeros mean that nobody interferes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.simulation.caller import Caller
    from tests.simulation.faults import Move
    from tests.simulation.world import World


class Schedule(Protocol):
    warm: bool
    """Whether all are connected when it begins."""

    def pick(self, options: int) -> int:
        """A number below ``options``."""

    def move(self, world: World) -> Move | None:
        """What happens next; nothing if calm is to set in."""


class Walk:
    """Mostly whoever moved last goes on; at some odds somebody else, or a fault."""

    def __init__(self, choices: bytes) -> None:
        self._choices = choices
        self._at = 0
        self._haste = (2, 4, 8, 16)[self.pick(4)]
        """Steps that a caller takes on end, on average: some races want a crowd, some a long pause."""
        self.warm = self.pick(2) == 0

    def pick(self, options: int) -> int:
        if options <= 1 or self._at >= len(self._choices):
            return 0
        self._at += 1
        return self._choices[self._at - 1] % options

    def move(self, world: World) -> Move | None:
        if self._at >= len(self._choices):
            return None
        return self._fault(world) or self._turn(world)

    def _fault(self, world: World) -> Move | None:
        scene = world.scene
        if not scene.faults or self.pick(scene.odds) != scene.odds - 1:
            return None
        moves = list(scene.faults[self.pick(len(scene.faults))](world))
        if not moves:
            return None
        world.faulty = True
        return moves[self.pick(len(moves))]

    def _turn(self, world: World) -> Move:
        ready = world.ready()
        current = world.current
        if current is not None and current in ready:
            # Loaders take their time.
            haste = 2 if _at(current, "load") else self._haste
            if self.pick(haste) != haste - 1:
                return world.turn_of(current)
        turns = [world.turn_of(caller) for caller in ready] + world.deliveries()
        return turns[self.pick(len(turns))] if turns else ("everybody goes on", world.thaw)


class Ways:
    """One way of all those that leave the straight one at most ``deviations`` times: a given beginning, then straight.

    Straight means: whoever moved last goes on until it ends or waits; then there is a free choice.
    """

    warm = True

    def __init__(self, beginning: list[int], deviations: int) -> None:
        self._taken = beginning
        self._widths: list[int] = []
        self._left = deviations

    def pick(self, options: int) -> int:
        at = len(self._widths)
        self._widths.append(options)
        if at == len(self._taken):
            self._taken.append(0)
        return self._taken[at]

    def move(self, world: World) -> Move | None:
        ready = world.ready()
        if not ready:
            return None
        current = world.current
        if current is not None and current in ready and not _at(current, "nap"):
            free, others = [current], [caller for caller in ready if caller is not current]
        else:
            free, others = [caller for caller in ready if caller is not current] or ready, []
        turns = [world.turn_of(caller) for caller in free]
        if self._left:
            turns += [world.turn_of(caller) for caller in others]
            turns += [move for fault in world.scene.faults for move in fault(world)]
        chosen = self.pick(len(turns))
        if chosen >= len(free):
            self._left -= 1
            world.faulty = world.faulty or chosen >= len(free) + len(others)
        return turns[chosen]

    def next(self) -> list[int] | None:
        """The beginning of the next way, depth first; ``None`` after the last."""
        taken = self._taken[: len(self._widths)]
        while taken:
            last = taken.pop()
            if last + 1 < self._widths[len(taken)]:
                return [*taken, last + 1]
        return None


def every_way(deviations: int, go: Callable[[Ways], object]) -> int:
    """Go every way there is; answers how many there were."""
    count, beginning = 0, list[int]()
    while True:
        ways = Ways(beginning, deviations)
        go(ways)
        count += 1
        following = ways.next()
        if following is None:
            return count
        beginning = following


def _at(caller: Caller, label: str) -> bool:
    return caller.point is not None and caller.point.label == label


__all__ = ["Schedule", "Walk", "Ways", "every_way"]
