"""What hooks are told, and how: a hook is a function of one event; it is told, and has no say.

Events name functions, never keys and never values. A hit is no event: where nobody listens nothing is made, and on the
way of a hit in memory nobody is even asked whether somebody does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cachecraft._core.errors import told

log: Final = logging.getLogger("cachecraft")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a cache."""


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """A call found nothing that could be served."""

    function: str
    reason: str
    """absent, expired, invalidated, loading, corrupt, encryption, schema, unreachable, ..."""


@dataclass(frozen=True, slots=True)
class LoadStarted(Event):
    """A loader is about to run, in the thread or task that is told of it."""

    function: str
    load: int
    """The ``LoadEnded`` of the same number follows, whatever happens, in the same thread or task."""


@dataclass(frozen=True, slots=True)
class LoadEnded(Event):
    """A loader has returned, raised or been cancelled."""

    function: str
    load: int
    seconds: float
    error: BaseException | None = None
    """What it raised. Its text may hold anything the loader knows."""


@dataclass(frozen=True, slots=True)
class WaitEnded(Event):
    """A call has waited for somebody else's load."""

    function: str
    seconds: float
    in_time: bool
    """Whether that load ended within ``wait=``."""


@dataclass(frozen=True, slots=True)
class StaleServed(Event):
    """A call was given a value past its ttl."""

    function: str
    why: Literal["stale", "grace"]
    """By which option: a refresh runs behind, or loading failed or took too long."""


@dataclass(frozen=True, slots=True)
class NotStored(Event):
    """A result was handed to its callers, and not kept."""

    function: str
    why: Literal["when", "refused", "lost"]
    """Declined by ``when=``; it cannot be stored; or invalidated while it was loaded, or its lease lost."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Differed(Event):
    """A value that was served is not what its loader returns by now, and nothing has invalidated it (``verify=``)."""

    function: str


@dataclass(frozen=True, slots=True)
class Invalidated(Event):
    """Entries were invalidated."""

    by: Literal["call", "function", "key", "pattern", "tags", "everything"]
    function: str = ""
    """Whose, where one was named."""
    count: int = 0
    """How many there were, where known."""


@dataclass(frozen=True, slots=True)
class WriteQueued(Event):
    """A call of a function under ``write_behind`` waits for a worker."""

    function: str
    """The cached function behind which it waits."""
    write: str


@dataclass(frozen=True, slots=True)
class WriteDelivered(Event):
    """A worker has made a call that waited, or given it up."""

    function: str
    write: str
    seconds: float
    """From the first attempt to the last, the pauses between them too."""
    error: BaseException | None = None
    """For what it was given up."""


@dataclass(frozen=True, slots=True)
class RedisAsked(Event):
    """A round trip to Redis has ended, or was given up."""

    operation: str
    seconds: float
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class BreakerOpened(Event):
    """Redis is out of reach, and is not asked until it is back."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class BreakerClosed(Event):
    """Redis is back."""

    seconds: float
    """How long it was not asked."""
    replayed: int
    """Invalidations made up for."""


class Hook(Protocol):
    """Is told of events, in the thread or task where they happen: be quick, and do not block.

    What a hook raises is logged once and goes no further.
    """

    def __call__(self, event: Event, /) -> object: ...


Hooks = Sequence[Hook]

_failed: Final[set[str]] = set()


def tell(hooks: Hooks, event: Event) -> None:
    """Tell everybody. Ask first whether there is anybody: ``if hooks: tell(hooks, SomeEvent(...))``."""
    for hook in tuple(hooks):
        try:
            hook(event)
        except Exception as error:
            name = getattr(hook, "__qualname__", type(hook).__qualname__)
            if name not in _failed:
                _failed.add(name)
                log.warning("the hook %s failed, and is told of events all the same: %s", name, told(error))
