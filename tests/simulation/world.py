"""The world: processes with their callers on one server, and who moves next; at its end, whether all is well.

First the schedule decides, and faults happen. Then calm sets in: nobody interferes, leases of the dead run out, and
everybody has to come to an end within a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from cachecraft._core.effects import Spawn
from cachecraft._core.entry import PLACEHOLDER
from cachecraft._core.errors import BackendError
from cachecraft._core.refresh import claim_key
from cachecraft.backends.commands import SCRIPTS
from cachecraft.backends.redis import _RUN
from tests.simulation.behind import deliver_all
from tests.simulation.caller import REFRESH, Caller
from tests.simulation.faults import Fault, Move
from tests.simulation.jobs import EVERYTHING, KEYS, Job, LoaderError, read
from tests.simulation.ledger import Ledger, Violation
from tests.simulation.model import ModelRedis, Snapshot, run_id
from tests.simulation.network import Cancelled, Late, Line, Point, Steps, perform
from tests.simulation.process import PREFIX, QUEUE, Beat, Place, Process, Remembered
from tests.simulation.schedule import Schedule

CLAIM: Final = claim_key("").encode()
LEASE: Final = b":lease"
"""What the lease on a queue ends in."""
BOUND: Final = 3000
"""Steps in the calm until everybody must have come to an end."""


@dataclass(frozen=True)
class Scene:
    """Who is there, what they do, and what may happen to them."""

    flavour: str = "plain"
    threads: Sequence[int] = (2, 2)
    """Callers, by process."""
    jobs: Sequence[Job] | Sequence[Sequence[Job]] = EVERYTHING
    """What each caller chooses from; or, caller by caller, exactly what it does."""
    each: int = 3
    """Jobs of a caller that chooses."""
    prelude: Sequence[Job] = ()
    """What was done before, one after the other; the server has saved what it held after each."""
    faults: Sequence[Fault] = ()
    odds: int = 8
    """A fault in so many steps."""
    alone_is_fine: bool = False
    """Whether a caller may load alone for reasons of its own: it would wait for itself."""
    trust: bool = False
    schemas: Sequence[bytes] = ()
    """Of the results of each process, where they are of several releases."""
    worker: Job | None = None
    """Delivers in the end what waits behind the function, if writes do."""
    strangers: int = 0
    """Processes, the last ones, that know nothing of these writes."""
    place: type[Place] = Place
    redis: type[ModelRedis] = ModelRedis
    plans: dict[Any, Any] = field(default_factory=dict)
    """How a mutant performs some effects."""


class World:
    def __init__(self, scene: Scene, schedule: Schedule) -> None:
        self.scene = scene
        self.schedule = schedule
        self.place_class = scene.place
        self.plans = scene.plans
        self.ledger = Ledger()
        self.redis = scene.redis(removed=self.ledger.taken, queued=self.ledger.table.queued)
        self.snapshots: list[Snapshot] = [{}]
        self.late: list[Late] = []
        self.listener: Callable[[Caller | None, tuple[Any, ...], Any], object] = lambda caller, what, answer: None
        self.story: list[str] = []
        self.now = 1000.0
        self.steps = 0
        self.tokens = 0
        self.held = False
        self.crew = True
        self.faulty = False
        schemas = scene.schemas or [bytes(8)] * len(scene.threads)
        self.processes = [
            Process(self, f"P{at}", scene.flavour, trust=scene.trust, schema=schema)
            for at, schema in enumerate(schemas)
        ]
        for process in self.processes[: len(self.processes) - scene.strangers]:
            process.queue = QUEUE if scene.worker is not None else None
        self.callers: list[Caller] = []
        self.current: Caller | None = None
        if schedule.warm:
            self._warm_up()
        self._prelude()
        for process, count in zip(self.processes, scene.threads, strict=True):
            for _ in range(count):
                at = len(self.callers)
                self.callers.append(Caller(process, f"{process}.{at}", self._life(at), task=at % 2 == 0))

    def _warm_up(self) -> None:
        """Everybody is connected, and the scripts are there."""
        self.redis.scripts.update(SCRIPTS)
        self.redis.execute(("SET", PREFIX + _RUN, run_id(self.redis), "PX", 1_000_000))
        for process, count in zip(self.processes, self.scene.threads, strict=True):
            process.idle += [Line(self, self.redis.run) for _ in range(count)]

    def _prelude(self) -> None:
        for job in self.scene.prelude:
            caller = Caller(self.processes[0], "before", job)
            while caller.point is not None:
                self.step(caller)
            self.save()

    def _life(self, at: int) -> Callable[[Caller], Steps]:
        def life(caller: Caller) -> Steps:
            jobs: Any = self.scene.jobs
            chosen = jobs[at] if not callable(jobs[0]) else None
            for number in range(self.scene.each if chosen is None else len(chosen)):
                yield Point("start")
                job = chosen[number] if chosen is not None else jobs[self.schedule.pick(len(jobs))]
                self.story.append(f"{caller.name}: {job.__name__}")
                yield from _ended(caller, job(caller))

        return life

    def spawn(self, who: Caller, effect: Spawn, key: str) -> bool:
        if self.crew:
            name = f"{who.process}.{len(self.callers)}"
            caller = Caller(who.process, name, lambda me: _behind(me, effect, key))
            caller.asked = who.asked
            self.callers.append(caller)
        return self.crew

    # -- one step after another ------------------------------------------------------------------------------

    def run(self) -> World:
        """Let it all happen.

        Raises:
            Violation: a promise was broken; the message tells how it came about.
        """
        try:
            while self._somebody() and (move := self.schedule.move(self)) is not None:
                self.pass_time()
                self._do(move)
                self._check()
            self.calm()
            self._aftermath()
        except Violation as violation:
            raise Violation("\n  ".join([str(violation), *self.story])) from None
        return self

    def _somebody(self) -> bool:
        return any(caller.point is not None for caller in self.callers)

    def ready(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.can_step()]

    def turn_of(self, caller: Caller) -> Move:
        assert caller.point is not None
        return f"{caller.name} {caller.point.label}", partial(self.step, caller)

    def deliveries(self) -> list[Move]:
        return [(f"what came late: {late.commands[0][0]}", late.deliver) for late in self.late]

    def step(self, caller: Caller) -> None:
        self.current = caller
        caller.step()

    def _do(self, move: Move) -> None:
        self.story.append(move[0])
        move[1]()
        self.late = [late for late in self.late if late.commands]

    def pass_time(self) -> None:
        self.now += 0.001
        self.steps += 1

    def _check(self) -> None:
        if self.ledger.violations:
            raise Violation(self.ledger.violations[0])

    # -- what faults do --------------------------------------------------------------------------------------

    def thaw(self) -> None:
        if not any(caller.frozen for caller in self.callers):
            raise Violation(f"nobody can go on: {[each for each in self.callers if each.point is not None]}")
        for caller in self.callers:
            caller.frozen = False

    def save(self) -> None:
        self.snapshots.append(self.redis.snapshot())

    def restart(self, at: int) -> None:
        self.redis.restart(self.snapshots[at])
        self.ledger.all_taken()

    def kill(self, process: Process) -> None:
        process.alive = False
        for caller in self.callers:
            if caller.process is process:
                caller.vanish()
        process.beats.clear()

    def renew(self, process: Process, beat: Beat) -> None:
        """A heart has a connection like anybody else; here, a step of its own."""
        self.callers.append(Caller(process, f"{process}.heart", lambda me: _beat(me, beat)))

    # -- the end ---------------------------------------------------------------------------------------------

    def calm(self) -> None:
        for caller in self.callers:
            caller.frozen = False
        self.story.append("-- calm --")
        for turn in range(BOUND):
            if not self._somebody():
                break
            self.pass_time()
            ready = [caller for caller in self.callers if caller.can_step()]
            if not ready:
                raise Violation(f"nobody can go on: {[each for each in self.callers if each.point is not None]}")
            for late in self.late:
                late.deliver()
            self.late = [late for late in self.late if late.commands]
            caller = ready[turn % len(ready)]
            self.story.append(f"{caller.name} {caller.point.label}")  # type: ignore[union-attr]  # it is ready
            self.step(caller)
            self._check()
            if turn % 50 == 49:
                self.bury()
        else:
            raise Violation(f"no end: {[each for each in self.callers if each.point is not None]}")
        for process in self.processes:
            if process.alive and process.leftovers():
                raise Violation(f"{process} has left behind {process.leftovers()}")

    def bury(self) -> None:
        """The leases of those who are not there any more run out."""
        held = {beat.held for process in self.processes for beat in process.beats}
        for key, (value, _) in list(self.redis.data.items()):
            # A claim is kept alive only once its holder has looked again, which is well within its time.
            leased = (value.startswith(PLACEHOLDER) and not key.endswith(CLAIM)) or key.endswith(LEASE)
            if leased and value[:17] not in held:
                self.redis.take(key)

    def _aftermath(self) -> None:
        """Whoever asks now gets what is true now; and with no fault, nothing lies around."""
        if not self.faulty:
            for key, (value, _) in self.redis.data.items():
                if value.startswith(PLACEHOLDER):
                    raise Violation(f"a placeholder was left under {key.decode()}")
        if self.scene.worker is not None:
            deliver_all(self, self.scene.worker)
        last = [process for process in self.processes if process.alive][-1]
        for name in KEYS:
            self.story.append(f"afterwards: read {name}")
            self.callers.append(Caller(last, "afterwards", read(name)))
        self.calm()

    def token(self, process: Process) -> bytes:
        """A new one each time; it begins with its process, so that a mutant can forget the rest."""
        self.tokens += 1
        return process.name.encode() + b"%014d" % self.tokens


def _beat(caller: Caller, beat: Beat) -> Steps:
    try:
        yield from perform(caller, beat.renewal())
    except (BackendError, Cancelled):
        return  # the next beat may get through


def _behind(caller: Caller, effect: Spawn, key: str) -> Steps:
    try:
        yield Point("starts behind")
        yield from _ended(caller, caller.drive(effect.flow(), REFRESH, key))
    except Cancelled:
        return  # before it began: nothing of it has run
    finally:
        effect.ended()


def _ended(caller: Caller, job: Steps) -> Steps:
    """A job to its end, whichever of its own ends that is; the cache itself has none to add."""
    try:
        yield from job
    except (LoaderError, Remembered):
        return
    except Cancelled as cancelled:
        if cancelled.caller is not caller:
            raise Violation(f"P7: {caller.name} meets the cancellation of {cancelled.caller}") from cancelled
    except BackendError as error:
        raise Violation(f"P3: a caller meets {error!r}") from error
