"""One thread or task of a process: performs the real flows as the drivers do, and stops wherever others may come in."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from cachecraft._core.effects import Acquire, Effect, Fetch, Flow, Join, Load, Remote, Sleep, Spawn
from cachecraft._core.errors import BackendError
from cachecraft._core.flights import FLYING
from cachecraft._core.flows import _TRIES
from tests.simulation.network import Cancelled, Point, Steps, Waiting, perform

if TYPE_CHECKING:
    from tests.simulation.process import Process

READ, REFRESH, FORCED, PUT = "read", "refresh", "forced", "put"


class Caller:
    """Stands at a ``point``; ``step`` performs it and goes on to the next."""

    def __init__(self, process: Process, name: str, life: Callable[[Caller], Steps], *, task: bool = True) -> None:
        self.process = process
        self.world = process.world
        self.name = name
        self.task = task
        self.frozen = False
        self.acknowledged = True
        """Whether Redis has answered the last that it was asked."""
        self.asked = 0
        """When it last asked Redis what it now relies on."""
        self.context = Context()
        self._life = life(self)
        self.point: Point | None = next(self._life)

    def can_step(self) -> bool:
        return self.point is not None and not self.frozen and self.point.ready()

    def step(self) -> None:
        assert self.point is not None
        try:
            answer = self.point.reach()
        except BackendError as error:
            self.throw(error)
        else:
            self.go_on(answer)

    def go_on(self, answer: Any) -> None:
        try:
            self.point = self._life.send(answer)
        except StopIteration:
            self.point = None

    def throw(self, error: BaseException) -> None:
        try:
            self.point = self._life.throw(error)
        except StopIteration:
            self.point = None

    def vanish(self) -> None:
        """As when its process is killed, or its event loop thrown away: nothing more is asked of anybody."""
        self.point = None
        self._life.close()

    # -- the driver ------------------------------------------------------------------------------------------

    def drive(self, flow: Flow[Any], kind: str, key: str, made: Callable[[], object] = lambda: None) -> Steps:
        """Run a flow to its end. ``made`` is called when a placeholder of ours stands."""
        tally, leased, beaten = self.process.place.tally, False, 0
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                spared = tally.wait_timeouts + tally.backend_errors
                try:
                    if error is None:
                        effect = self.context.run(flow.send, value)
                    else:
                        effect = self.context.run(flow.throw, error)
                except StopIteration as end:
                    return end.value
                finally:
                    leased, self.world.held = leased or self.world.held, False
                value = error = None
                # Out of patience, without Redis, or beaten to a key that nobody loads for too often on end.
                forced = tally.wait_timeouts + tally.backend_errors > spared or beaten >= _TRIES
                try:
                    if isinstance(effect, Load):
                        value = yield from self._load(effect, kind, key, leased=leased, forced=forced)
                    else:
                        value = yield from self._perform(effect, kind, key)
                        if isinstance(effect, Acquire):
                            beaten += value is not None
                            if value is None:
                                made()
                        elif isinstance(effect, (Join, Sleep)):
                            beaten = 0
                except (Exception, Cancelled) as failed:
                    error = failed
        except GeneratorExit:
            self.context.run(flow.close)  # fails if the flow would still ask for something
            raise

    def _perform(self, effect: Effect[Any], kind: str, key: str) -> Steps:
        if isinstance(effect, Remote):
            if isinstance(effect, (Acquire, Fetch)):
                self.asked = self.world.ledger.moment
            return (yield from perform(self, effect, forced=kind in (FORCED, PUT)))
        if isinstance(effect, Join):
            self.world.listener(self, ("JOIN", effect.flight.key), "")
            if effect.flight.state != FLYING:
                return effect.patience
            return (yield Waiting("join", effect.flight, effect.patience))
        if isinstance(effect, Spawn):
            self.world.listener(self, ("SPAWN",), "")
            return self.world.spawn(self, effect, key)
        assert isinstance(effect, Sleep)
        self.world.listener(self, ("SLEEP",), "")
        yield Point("nap")
        return None

    def _load(self, effect: Load, kind: str, key: str, *, leased: bool, forced: bool) -> Steps:
        """The loader runs at once: so it sees the oldest truth it may see."""
        if kind == READ and not leased:
            kind = "alone"
            if not (forced or self.world.scene.alone_is_fine):
                self.world.ledger.violated(f"{self.name} loads {key} alone, and nothing has forced it to")
        self.world.listener(self, ("LOAD",), "")
        return (yield from effect.call(self, kind))  # type: ignore[call-arg]  # a loader of this world

    def __repr__(self) -> str:
        return f"{self.name} at {self.point.label if self.point else 'the end'}"
