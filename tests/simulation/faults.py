"""What may go wrong: each fault lists the moves it offers in a world as it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from cachecraft._core.entry import PLACEHOLDER
from cachecraft._core.errors import BackendError
from tests.simulation.jobs import LoaderError
from tests.simulation.network import Cancelled, Late, Sending, Waiting
from tests.simulation.process import PREFIX, Remembered

if TYPE_CHECKING:
    from tests.simulation.caller import Caller
    from tests.simulation.world import World

Move = tuple[str, Callable[[], object]]
Fault = Callable[["World"], Iterator[Move]]


def gone(world: World) -> Iterator[Move]:
    """A lease, an entry, a claim or a stamp expires or is evicted."""
    for key in world.redis.data:
        yield f"{key.decode()} is gone", partial(world.redis.take, key)


def lease_over(world: World) -> Iterator[Move]:
    """A lease ends under its holder."""
    for key, (value, _) in world.redis.data.items():
        if value.startswith(PLACEHOLDER) and not key.endswith(b"~r"):
            yield f"the lease of {key.decode()} is over", partial(world.redis.take, key)


def stamp_evicted(world: World) -> Iterator[Move]:
    for key in world.redis.data:
        if key.startswith(PREFIX.encode() + b"~"):
            yield f"{key.decode()} is evicted", partial(world.redis.take, key)


def aged(world: World) -> Iterator[Move]:
    """An entry comes to the end of its ttl, then passes it: it is kept for 50 seconds more."""
    for key, (_, left) in world.redis.data.items():
        if not key.startswith(PREFIX.encode() + b"~") and left > 40_000:
            yield f"{key.decode()} grows old", partial(world.redis.age, key, 60_000 if left > 60_000 else 40_000)


def lost(world: World) -> Iterator[Move]:
    """A connection breaks: what was sent is lost, or executed unheard, or executed late."""
    for caller in world.callers:
        if caller.point is not None and (isinstance(caller.point, Sending) or caller.point.label == "reply"):
            yield f"{caller.name} loses its connection", partial(caller.throw, BackendError("lost"))
            if isinstance(caller.point, Sending):
                yield f"{caller.name} times out", partial(late, world, caller, BackendError("timed out"))


def late(world: World, caller: Caller, error: BaseException) -> None:
    """The caller hears nothing more of what it has sent, but the server will."""
    point = caller.point
    if isinstance(point, Sending):
        world.late.append(Late(point.line, list(point.commands), point.forced))
    caller.throw(error)


def cancelled(world: World) -> Iterator[Move]:
    """A task is cancelled, or a thread interrupted."""
    for caller in world.callers:
        if caller.point is not None and caller.point.label != "start":
            yield f"{caller.name} is cancelled", partial(_cancel, world, caller)


def _cancel(world: World, caller: Caller) -> None:
    before = caller.point
    if isinstance(before, Sending):
        remaining = Late(before.line, list(before.commands), before.forced)
        caller.throw(Cancelled(caller))
        if caller.point is not before:  # it did not go on with what it had sent
            world.late.append(remaining)
    else:
        caller.throw(Cancelled(caller))


def abandoned(world: World) -> Iterator[Move]:
    """An event loop is thrown away with its tasks, while its process lives on."""
    for caller in world.callers:
        if caller.point is not None and caller.point.label != "start":
            yield f"{caller.name} is abandoned", caller.vanish


def killed(world: World) -> Iterator[Move]:
    """A whole process dies."""
    alive = [process for process in world.processes if process.alive]
    if len(alive) > 1:
        for process in alive:
            yield f"{process} is killed", partial(world.kill, process)


def paused(world: World) -> Iterator[Move]:
    """A caller stands still for as long as others can go on; or goes on after that."""
    for caller in world.callers:
        if caller.point is not None:
            yield f"{caller.name} {'goes on' if caller.frozen else 'pauses'}", partial(_toggle, caller)


def _toggle(caller: Caller) -> None:
    caller.frozen = not caller.frozen


def restarted(world: World) -> Iterator[Move]:
    """The server saves what it holds; or starts anew from what it has saved, and knows no script any more."""
    yield "the server saves", world.save
    for at in range(len(world.snapshots)):
        yield f"the server restarts from snapshot {at}", partial(world.restart, at)


def scripts_flushed(world: World) -> Iterator[Move]:
    if world.redis.scripts:
        yield "the scripts are flushed", world.redis.scripts.clear


def impatient(world: World) -> Iterator[Move]:
    """Who waits for a flight has waited long enough."""
    for caller in world.callers:
        if isinstance(caller.point, Waiting):
            yield f"{caller.name} waits no longer", partial(_give_up, caller)


def _give_up(caller: Caller) -> None:
    caller.go_on(0.0)


def failing(world: World) -> Iterator[Move]:
    """A loader raises."""
    for caller in world.callers:
        if caller.point is not None and caller.point.label == "load":
            yield f"the loader of {caller.name} raises", partial(caller.go_on, LoaderError)
            yield f"the loader of {caller.name} raises what is remembered", partial(caller.go_on, Remembered)


def beating(world: World) -> Iterator[Move]:
    """A process keeps its leases alive."""
    for process in world.processes:
        for beat in process.beats:
            yield f"{process} renews {beat.key}", partial(world.renew, process, beat)


def busy(world: World) -> Iterator[Move]:
    """A process has too much to do behind its callers' backs."""
    yield "refreshes are declined" if world.crew else "refreshes are taken again", partial(_busy, world)


def _busy(world: World) -> None:
    world.crew = not world.crew


ALL: Final[tuple[Fault, ...]] = (
    gone,
    gone,
    lease_over,
    stamp_evicted,
    aged,
    aged,
    lost,
    lost,
    cancelled,
    abandoned,
    killed,
    paused,
    paused,
    paused,
    restarted,
    restarted,
    scripts_flushed,
    impatient,
    failing,
    beating,
    busy,
)
