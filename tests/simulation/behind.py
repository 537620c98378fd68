"""What is done behind a cached function: writes that wait, and workers that deliver them, as jobs.

A call that cannot wait raises here: one that is made at once is a write like any other, which the other jobs show. A
worker asks whether it is still its turn and makes its write in one step: stopped in between for longer than its lease
it comes late, as ``docs/write-behind.md`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cachecraft._core import behind
from cachecraft._core.behind import Buried, Delivered, Enqueue, Fate, Item, Waiting
from cachecraft._core.effects import Claim, Release, Renew
from cachecraft._core.errors import BackendError
from tests.simulation.caller import FORCED, Caller
from tests.simulation.jobs import KEYS, Job, _named, wire
from tests.simulation.ledger import Violation
from tests.simulation.network import Point, Steps, perform
from tests.simulation.process import QUEUE, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

BATCH: Final = 3
LEASE: Final = 10.0
_MARK: Final = b"W"


class _Lost(Exception):
    """It is another's turn."""


def save(name: str) -> Job:
    """Have a write wait. Once that has returned, whoever knows of the queue reads it, or a later one."""

    def job(caller: Caller) -> Steps:
        place, table = caller.process.place, caller.world.ledger.table
        write = table.begin(wire(name))
        text = b"%d" % write
        flow = behind.waits(Enqueue(QUEUE, wire(name), text, text, 1000), place.drop((name,)))
        try:
            fate = yield from caller.drive(flow, FORCED, wire(name))
        except BackendError:
            return  # it waits, and it says itself that the entry may still be there
        if fate is Fate.QUEUED and not caller.world.scene.strangers:
            table.returned(write)

    return _named(job, f"save {name}")


def _worker(label: str, settle: Callable[[Caller, bytes, list[Item]], Steps]) -> Job:
    """A worker that has its turn once, if it gets it, and delivers what waits by then."""

    def job(caller: Caller) -> Steps:
        lease, held = QUEUE.lease, _MARK + caller.process.place.token()
        try:
            if not (yield from perform(caller, Claim(lease, held, LEASE))):
                return
            beat = caller.process.keep_alive(lease, held, LEASE)
            try:
                waiting = yield from perform(caller, Waiting(QUEUE, b"", BATCH))
                for key in dict.fromkeys(item.key for item in waiting):
                    yield from settle(caller, held, [item for item in waiting if item.key == key])
                yield from perform(caller, Release(lease, held))
            finally:
                beat.end()
        except (BackendError, _Lost):
            return  # what is not settled is delivered again, by whoever is next

    return _named(job, label)


def _one_by_one(caller: Caller, held: bytes, items: list[Item]) -> Steps:
    for item in items:
        yield from _delivered(caller, held, [item])


def _delivered(caller: Caller, held: bytes, items: list[Item]) -> Steps:
    """Make the last of these writes, all of one key: that is all that matters, if it is more than one."""
    item, table = items[-1], caller.world.ledger.table
    yield from _ours(caller, held)
    wrong = table.deliver(int(item.write))
    if wrong is not None:
        caller.world.ledger.violated(wrong)
    yield from _settled(caller, Delivered(QUEUE, item.key, tuple(each.id for each in items)), item)
    table.returned(int(item.write))


def _given_up(caller: Caller, held: bytes, items: list[Item]) -> Steps:
    """Give up the first of them."""
    item, table = items[0], caller.world.ledger.table
    yield from _ours(caller, held)
    table.forsaken.add(int(item.write))
    yield from _settled(caller, Buried(QUEUE, item, "why"), item)
    table.given_up.add(int(item.write))


def _ours(caller: Caller, held: bytes) -> Steps:
    lease = QUEUE.lease
    if not (yield from perform(caller, Renew(lease, held, LEASE))):
        raise _Lost
    yield Point("delivers")
    if not still_ours(caller, lease, held):
        raise _Lost


def still_ours(caller: Caller, lease: str, held: bytes) -> bool:
    return caller.world.redis.execute(("GET", lease)) == held  # type: ignore[no-any-return]  # replies are Any


def _settled(caller: Caller, outcome: Delivered | Buried, item: Item) -> Steps:
    flow = behind.settled(QUEUE, item, caller.process.keeper.delete(item.key), outcome)
    yield from caller.drive(flow, FORCED, item.key)


deliver: Final = _worker("deliver", _one_by_one)
coalesce: Final = _worker("deliver the last of each key", _delivered)
bury: Final = _worker("bury", _given_up)


def deliver_all(world: World, worker: Job) -> None:
    """In the end a new worker delivers what waits: then all has arrived, and nothing waits for nobody.

    Raises:
        Violation: it is not so.
    """
    process = Process(world, "P9", world.scene.flavour, trust=world.scene.trust)
    queues = world.redis.queues
    for _ in range(100):
        if not queues.xrange(QUEUE.log, count=1):
            break
        world.story.append("afterwards: deliver")
        world.bury()
        world.callers.append(Caller(process, "worker", worker))
        world.calm()
    else:
        raise Violation("no end: something waits, and no worker delivers it")
    wrong = world.ledger.table.settled({int(item[1][5]) for item in queues.xrange(QUEUE.dead)})
    if wrong is not None:
        raise Violation(wrong)
    for key in map(wire, KEYS):
        if queues.hget(QUEUE.pending, key) is not None:
            raise Violation(f"left: a value of {key} waits behind an empty queue")
