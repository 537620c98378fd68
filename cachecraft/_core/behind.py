"""Writes that wait for their delivery: what is asked of their queue, and what a load does while one waits.

A queue belongs to one cached function, so that all that is written behind it is delivered in the order in which it was
called. It says what waits, and which value each key has once that is delivered; it knows neither whose writes they are
nor who delivers them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final

from cachecraft._core import flights
from cachecraft._core.effects import Flow, Load, Remote
from cachecraft._core.errors import BackendError
from cachecraft._core.ports import Run

AWARE: Final = "~behind"
"""The tag of entries made by those who ask what waits; no tag of a user is called so."""
QUEUES: Final = "behind~:"
"""What the names of queues begin with: no entry is called so, and no pattern of a user reaches it. Not with ``~``, as
stamps do: nobody is to be woken by them."""


@dataclass(slots=True, frozen=True)
class Queue:
    """The names of one queue. The braces put all of them into one slot of a cluster."""

    prefix: str
    function: str

    @classmethod
    def named(cls, prefix: str, log: str) -> Queue | None:
        """The queue with this ``log``, if it is one."""
        front, back = f"{prefix}{QUEUES}{{", "}:log"
        if not (log.startswith(front) and log.endswith(back)):
            return None
        return cls(prefix, log[len(front) : -len(back)])

    @property
    def log(self) -> str:
        """A stream of the writes, oldest first."""
        return f"{self.prefix}{QUEUES}{{{self.function}}}:log"

    @property
    def pending(self) -> str:
        """A hash: under each key for which something waits, the value that the last of it brings."""
        return f"{self.prefix}{QUEUES}{{{self.function}}}:pending"

    @property
    def dead(self) -> str:
        """A stream of the writes that were given up."""
        return f"{self.prefix}{QUEUES}{{{self.function}}}:dead"

    @property
    def lease(self) -> str:
        """Whose turn it is to deliver."""
        return f"{self.prefix}{QUEUES}{{{self.function}}}:lease"


@dataclass(slots=True, frozen=True)
class Item:
    """A write that waits."""

    id: bytes
    """Its place in the log; the first part is the server's time in milliseconds."""
    key: str
    """The key of what it changes. Writes of one key are delivered one after the other."""
    write: bytes
    """Which function is to be called, and with what."""


class Fate(Enum):
    """What became of a write that was to wait."""

    QUEUED = 0
    FULL = 1
    """There is no room, and nothing waits under its key."""
    OVERTAKES = 2
    """There is no room, and older writes wait under its key."""


@dataclass(slots=True, frozen=True)
class Enqueue(Remote[Fate]):
    """Have a write wait, with the value that its key has from now on, if less than ``room`` wait already."""

    settles: ClassVar[bool] = True

    queue: Queue
    key: str
    write: bytes
    value: bytes
    room: int


@dataclass(slots=True, frozen=True)
class Pending(Remote[bytes | None]):
    """Read the value that the last write waiting under a key brings, if one waits; empty if it was withdrawn."""

    queue: Queue
    key: str


@dataclass(slots=True, frozen=True)
class Waiting(Remote[tuple[Item, ...]]):
    """Read the oldest writes that wait; those that came ``after`` one, if it is given."""

    queue: Queue
    after: bytes
    count: int


@dataclass(slots=True, frozen=True)
class Withdraw(Remote[None]):
    """Let nobody read the value of a write any more, though it still waits, unless a later one has brought another."""

    settles: ClassVar[bool] = True

    queue: Queue
    key: str
    id: bytes


@dataclass(slots=True, frozen=True)
class Delivered(Remote[None]):
    """Take writes of one key from the queue; their value too, unless one that came later has brought another."""

    settles: ClassVar[bool] = True

    queue: Queue
    key: str
    ids: tuple[bytes, ...]


@dataclass(slots=True, frozen=True)
class Buried(Remote[None]):
    """As ``Delivered``, for one that is given up: it is put aside, with what became of it."""

    settles: ClassVar[bool] = True

    queue: Queue
    item: Item
    error: str


@dataclass(slots=True, frozen=True)
class Revive(Remote[int]):
    """Have the oldest writes that were given up wait again, after all others. Answers how many."""

    queue: Queue
    count: int


def waits(effect: Enqueue, drop: Flow[Any]) -> Flow[Fate | BackendError]:
    """Have a write wait, and once it does let the entry of its key fall by ``drop``. Answers why it cannot wait, if so.

    In this order: a load that begins after the entry fell finds the value that waits, and one that began before finds
    that it may not be stored.
    """
    try:
        fate = yield from effect
    except BackendError as error:
        return error
    if fate is Fate.QUEUED:
        yield from drop
    return fate


def settled(queue: Queue, item: Item, drop: Flow[Any] | None, outcome: Delivered | Buried) -> Flow[None]:
    """A write was made, or is given up: from now on the database counts.

    In this order: what is loaded after the entry fell (by ``drop``) is no longer the value that has waited, and the
    write leaves its queue last, so that whoever goes on after a worker that died here does it all again.
    """
    yield from Withdraw(queue, item.key, item.id)
    if drop is not None:  # else the key is none of ours
        yield from drop
    yield from outcome


def loaded(
    queue: Queue, key: str, opened: Callable[[bytes], Any], run: Run, failed: Callable[[Exception], object]
) -> Flow[Any]:
    """What the loader will return once all that waits is delivered: the value that waits, else what it returns now.

    Where Redis cannot tell, that is what the loader returns now, for this one caller: who can ask is to hear what
    waits. Where what it tells cannot be read, it is what everybody gets until that is delivered.
    """
    try:
        waiting = yield from Pending(queue, key)
        if waiting:
            return opened(waiting)
    except Exception as error:  # the bytes are untrusted
        if isinstance(error, BackendError):
            flights.void()
        failed(error)
    return (yield from Load(run))
