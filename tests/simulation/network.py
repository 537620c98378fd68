"""How an effect reaches the server: the real commands, over a connection that was fenced, a step for each of them.

A pipeline is sent in one go and executed one command at a time; others come in between. What was sent may be executed
after its sender has given up.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from cachecraft._core.effects import Remote, Sweep
from cachecraft._core.errors import BackendError
from cachecraft._core.flights import FLYING, Flight
from cachecraft.backends.commands import PLANS, PROLONG, Command, Plan
from cachecraft.backends.redis import ROOT, _sweep
from cachecraft.backends.transports import Talk, answered, in_full

if TYPE_CHECKING:
    from tests.simulation.caller import Caller
    from tests.simulation.process import Process
    from tests.simulation.world import World


class Cancelled(BaseException):
    """A task is cancelled, or a thread interrupted: the one of this caller."""

    def __init__(self, caller: object) -> None:
        super().__init__(caller)
        self.caller = caller


@dataclass(eq=False)
class Point:
    """Where a caller stands; ``reach`` performs what it stands before, and answers what comes of it."""

    label: str

    def ready(self) -> bool:
        return True

    def reach(self) -> Any:
        return None


@dataclass(eq=False)
class Waiting(Point):
    """For a flight to end."""

    flight: Flight
    patience: float

    def ready(self) -> bool:
        return self.flight.state != FLYING

    def reach(self) -> float:
        return self.patience * 0.9


@dataclass(eq=False)
class Line:
    """A connection: to the server as it ran when this was made."""

    world: World
    run: int

    def alive(self) -> bool:
        return self.run == self.world.redis.run


@dataclass(eq=False)
class Sending(Point):
    """Before the first of ``commands`` is executed; the others are on their way behind it."""

    line: Line
    commands: Sequence[Command]
    forced: bool
    """Whoever forces a load or a write voids the loads of others."""

    def reach(self) -> Any:
        return execute(self.line, self.commands[0], forced=self.forced)


def execute(line: Line, command: Command, *, forced: bool) -> Any:
    world = line.world
    if not line.alive():
        raise BackendError("connection lost")
    changes = command[0] in ("EVALSHA", "EVAL") and command[1] not in (PROLONG.sha, PROLONG.source)
    if changes and (forced or _is_root(command[3])):
        world.ledger.taken(command[3])  # by force, or by the fence
    try:
        reply = world.redis.execute(command)
    except NoScriptError as error:
        reply = error
    world.listener(world.current, command, reply)
    return reply


def _is_root(key: str | bytes) -> bool:
    return (key if isinstance(key, str) else key.decode()).endswith(ROOT)


@dataclass
class Late:
    """Commands whose sender has given up: they are still on their way."""

    line: Line
    commands: list[Command] = field(default_factory=list)
    forced: bool = False

    def deliver(self) -> None:
        command = self.commands.pop(0)
        if self.line.alive():
            execute(self.line, command, forced=self.forced)


Steps = Generator[Point, Any, Any]


def perform(caller: Caller, effect: Remote[Any], *, forced: bool = False) -> Steps:
    """One effect. A task that is cancelled goes through with what must be settled, as the driver does."""
    cut: list[Cancelled] = []
    shielded = caller.task and effect.settles
    steps = _exchange(caller.process, effect, forced)
    caller.acknowledged = False
    answer: Any = None
    error: BackendError | None = None
    try:
        while True:
            point = steps.send(answer) if error is None else steps.throw(error)
            answer = error = None
            while True:
                try:
                    answer = yield point
                except Cancelled as cancelled:
                    if not shielded:
                        raise
                    cut.append(cancelled)
                    continue
                except BackendError as failed:
                    error = failed
                break
    except StopIteration as end:
        caller.acknowledged = True
        if cut:
            raise cut[0] from None
        return end.value
    except BackendError:
        if cut:
            raise cut[0] from None
        raise


def _exchange(process: Process, effect: Remote[Any], forced: bool) -> Steps:
    if isinstance(effect, Sweep):
        talk: Talk = _sweep(effect)
    else:
        plan = process.world.plans.get(type(effect)) or PLANS[type(effect)]
        talk = _once(plan, effect)
    line = yield from _connection(process)
    answer = yield from _hold(line, talk, forced)
    process.idle.append(line)
    return answer


def _once(plan: Plan, effect: Remote[Any]) -> Talk:
    return plan.answer(effect, (yield plan.commands(effect)))


def _connection(process: Process) -> Steps:
    while process.idle:
        line = process.idle.pop()
        if line.alive():
            return line
    line = Line(process.world, process.world.redis.run)
    yield from _hold(line, process.backend._fence(), forced=False)
    return line


def _hold(line: Line, talk: Talk, forced: bool) -> Steps:
    """A conversation over one connection, as the transports hold it."""
    replies = None
    try:
        while True:
            replies = yield from _round_trip(line, talk.send(replies), forced)
    except StopIteration as end:
        return end.value


def _round_trip(line: Line, commands: Sequence[Command], forced: bool) -> Steps:
    replies = yield from _over(line, commands, forced)
    again = answered(commands, replies)  # what is sent again goes after all the rest, which has been sent by then
    for at, reply in zip(again, (yield from _over(line, [in_full(commands[at]) for at in again], forced)), strict=True):
        replies[at] = reply
    return replies


def _over(line: Line, commands: Sequence[Command], forced: bool) -> Steps:
    heard = [command for command in commands if command[0] != "PUBLISH"]  # nobody here has a near cache
    replies = []
    for at in range(len(heard)):
        replies.append((yield Sending(heard[at][0], line, heard[at:], forced)))  # noqa: PERF401 - it yields
    if commands:
        yield Point("reply")
    rest = iter(replies)
    return [0 if command[0] == "PUBLISH" else next(rest) for command in commands]
