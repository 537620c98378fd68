"""What a flow may ask for: the verbs that may block, as data; knows nobody who performs them.

A flow *calls* what never blocks and *yields* what may. ``left = yield from Join(flight, 2.0)`` is typed: iterating an
``Effect[T]`` yields the effect itself and returns what the driver answered.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from cachecraft._core.flights import Flight

T = TypeVar("T")

Flow = Generator["Effect[Any]", Any, T]
"""A generator that yields effects and returns a ``T``."""


class Effect(Generic[T]):
    """Something a flow waits for."""

    __slots__ = ()

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        return (yield self)  # type: ignore[no-any-return]  # what a driver answers is Any


@dataclass(slots=True, frozen=True)
class Load(Effect[Any]):
    """Run the loader. Answers its result or raises its exception; ``timeout`` (seconds) bounds it."""

    call: Callable[[], Any]
    timeout: float | None = None
    flight: Flight | None = None
    """The flight that this load will end."""


class Stopped(Exception):
    """A loader's ``StopIteration`` on its way through a flow, which as a generator could not let it pass."""

    def __init__(self, stop: StopIteration) -> None:
        super().__init__(stop)
        self.stop = stop


def passable(error: BaseException) -> BaseException:
    """The error as a flow may raise it; the driver hands the caller what the loader raised."""
    return Stopped(error) if isinstance(error, StopIteration) else error


@dataclass(slots=True, frozen=True)
class Join(Effect[float]):
    """Wait until a flight has ended, ``patience`` seconds at the most. Answers the seconds of patience left."""

    flight: Flight
    patience: float


@dataclass(slots=True, frozen=True)
class Sleep(Effect[None]):
    """Wait for so many seconds, or until the bell rings."""

    seconds: float
    flight: Flight | None = None
    """The flight that goes on when they are over."""
    bell: Flight | None = None
    """Ends the wait when it ends."""


@dataclass(slots=True, frozen=True)
class Spawn(Effect[bool]):
    """Run another flow behind the caller's back. Answers false when too many run already."""

    flow: Callable[[], Flow[Any]]
    ended: Callable[[], object]
    """Called when nothing more of it will run, or nothing ever did: nobody is to wait for it any more."""


class Remote(Effect[T]):
    """Something asked of the remote store; the backend performs it."""

    __slots__ = ()

    settles: ClassVar[bool] = False
    """Leaves something undone if it is cut short, so a caller's cancellation waits until it is through."""


@dataclass(slots=True)  # as ``Fetch``, made for each hit: frozen, they would cost it a microsecond
class Reading:
    """What one round trip saw: the bytes under the key, the stamps of its tags, and the key's time to live."""

    slot: bytes | None
    stamps: tuple[bytes | None, ...]
    left: float | None = None
    """Seconds until the key expires, where it was asked for."""
    aside: Reading | None = None
    """The same for the place aside, where that was asked for; the key's own stamp comes first there."""


@dataclass(slots=True)
class Fetch(Remote[Reading]):
    """Read the key and the stamps of its tags in one round trip, with the time left where ``aged``."""

    key: str
    tags: tuple[str, ...]
    aged: bool = False
    aside: str | None = None
    """The key's place aside (see ``_core.sight``), to be read as well."""


@dataclass(slots=True, frozen=True)
class Acquire(Remote[Reading | None]):
    """Put a placeholder where ``seen`` (a handle, or nothing) still stands, and a stamp under each missing tag.

    ``stamps`` are those read, and new ones in the places of ``missing``. Answers ``None`` if the lease was won and
    every stamp is the one proposed, else what is there now.
    """

    settles: ClassVar[bool] = True

    key: str
    seen: bytes
    token: bytes
    tags: tuple[str, ...]
    stamps: tuple[bytes, ...]
    missing: tuple[bool, ...]
    lease: float
    beside: str | None = None
    """The tag that is an entry of somebody else: compared, and otherwise left alone."""
    replaces: bool = False
    """On purpose, so that near caches are to let go of what they hold of the key: they are told."""


@dataclass(slots=True, frozen=True)
class Store(Remote[bool]):
    """Put an entry where ``held`` (the handle of a placeholder, or of the entry it refreshes) still stands."""

    settles: ClassVar[bool] = True

    key: str
    held: bytes
    entry: bytes
    ttl: float
    replaces: bool = False
    """As for ``Acquire``."""


@dataclass(slots=True, frozen=True)
class Release(Remote[None]):
    """Remove the placeholder, if it is still there."""

    settles: ClassVar[bool] = True

    key: str
    held: bytes


@dataclass(slots=True, frozen=True)
class Renew(Remote[bool]):
    """Give a placeholder another ``lease`` seconds. Answers whether it was still there."""

    key: str
    held: bytes
    lease: float


@dataclass(slots=True, frozen=True)
class Claim(Remote[bool]):
    """Claim the refresh of a key for ``lease`` seconds: saves work, decides nothing."""

    settles: ClassVar[bool] = True

    key: str
    token: bytes
    lease: float


@dataclass(slots=True, frozen=True)
class Stamp(Remote[tuple[bytes | None, ...]]):
    """Put ``fresh`` stamps under those tags that have none, then answer what stands under each, in order."""

    tags: tuple[str, ...]
    fresh: tuple[bytes, ...]


Footprint = tuple[str, bytes]
"""A place in the trail of invalidations, and what is told there. That it cannot be told is no failure."""
Followed = tuple[bytes, float]
"""What was told in the trail, and for how many seconds more it is."""


@dataclass(slots=True, frozen=True)
class Delete(Remote[int]):
    """Remove keys, in this order. Answers how many there were."""

    settles: ClassVar[bool] = True

    keys: tuple[str, ...]
    trail: tuple[Footprint, ...] = field(default=(), compare=False)


@dataclass(slots=True, frozen=True)
class Sweep(Remote[int]):
    """Remove every entry of a namespace whose key matches a glob pattern. Answers how many there were."""

    settles: ClassVar[bool] = True

    prefix: str
    pattern: str
    progress: Callable[[int], object] | None = None
    trail: tuple[Footprint, ...] = field(default=(), compare=False)


@dataclass(slots=True, frozen=True)
class Follow(Remote[tuple[Followed, ...]]):
    """Read what is told in these places of the trail."""

    places: tuple[str, ...]
