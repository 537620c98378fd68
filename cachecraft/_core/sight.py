"""What a call sees of its key in Redis, and how it takes the lease; knows neither loaders nor values.

Where two releases of a program meet, each with results of its own shape, the first to store has the key. The other
keeps its results *aside*, under a name of its own, and the first one's entry is one more stamp to them: whatever
removes or replaces that makes them void, so an invalidation need not know who else there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from cachecraft._core.effects import Acquire, Effect, Fetch, Flow, Reading, Release
from cachecraft._core.entry import PLACEHOLDER, Verdict, handle
from cachecraft._core.errors import BackendError, BackendRefused
from cachecraft._core.events import Hooks
from cachecraft._core.flights import ABANDONED, FLYING, Flight
from cachecraft._core.notes import Notes
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Lease
from cachecraft._core.tally import Tally
from cachecraft._core.verification import Verifier

ASIDE: Final = "~s"
"""What comes before the schema in the name of an entry that is kept aside; ``~`` is escaped in keys."""
_READS: Final = 4
"""How often on end to find out that there is more to read."""
_REMEMBERED: Final = 10_000
"""Of so many keys, what more there was to read."""


class Fill(Protocol):
    """What a near cache wants to know of a call that it could not answer."""

    def asked(self) -> None:
        """Redis is about to be asked: what it will tell is at least as old as this moment."""

    def proposes(self, tags: Iterable[str]) -> None:
        """These stamps are about to be made, by this call and for this load: that is no invalidation."""

    def found(self, value: Any, tags: tuple[str, ...], left: float, cost: float) -> None:
        """This stands in Redis, for so many seconds from ``asked`` on."""


@dataclass(slots=True)  # these two are made for each call: frozen, they would cost a hit a microsecond
class Seek:
    """One call on its way: the key, the tags an entry must carry, and those to read beside them before a load."""

    key: str
    tags: tuple[str, ...]
    values: Any
    watched: tuple[str, ...] = ()
    beside: str | None = None
    """The key of another release's entry, where this is kept aside of it; it is the first of the tags."""
    fill: Fill | None = None
    """The near cache's, where what is found is to be kept there too."""
    verify: bool = False
    """What is found is to be verified."""

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.tags + self.watched

    def aside(self, name: str) -> Seek:
        return replace(self, key=name, tags=(self.key, *self.tags), beside=self.key)


@dataclass(slots=True)
class Sight:
    """What a reading of the key came to."""

    seek: Seek
    """What was looked for in the end: the key itself, or its place aside."""
    reading: Reading
    verdict: Verdict = Verdict.MISS
    take: Callable[[], Any] | None = None
    """Hands out the value, or raises the remembered exception."""
    loading: bytes | None = None
    """The token of a load under way."""
    more: tuple[str, ...] | None = None
    """It takes another reading: with these tags too, or of the place aside."""
    reason: str = "absent"
    cost: float = 0.0
    left: float | None = None
    """Seconds to the end of its ttl, where that was asked for."""
    tags: tuple[str, ...] = ()
    """Those the entry carries."""

    @property
    def stamps(self) -> tuple[bytes | None, ...]:
        """The stamps of what a load is to rest on."""
        return self.reading.stamps[: len(self.seek.wanted)]


class RemotePlace(Protocol):
    """One function, and what it knows about its results in Redis: quick answers only."""

    policy: Policy
    tally: Tally
    hooks: Hooks
    notes: Notes
    """What became of its last results, to be told."""
    verifier: Verifier
    aged: bool
    """Whether an entry's age matters, rather than only whether it is there."""
    schema: bytes
    """Results of another schema are not its own."""
    flights: dict[bytes, Flight]
    """Loads this process leads, by token."""
    leading: dict[tuple[str, tuple[str, ...]], Flight]
    """The same by what they are for: the newest of each key and its tags."""
    watches: dict[bytes, Flight]
    """Loads elsewhere that somebody here is watching."""
    extra: dict[str, tuple[str, ...]]
    """The tags that followed from the results last seen, by key: read at once the next time."""
    refreshing: dict[bytes, Flight]
    """Refreshes under way here, by the handle of the entry that they are to replace."""

    @property
    def label(self) -> str: ...
    def asked_for(self, key: str) -> None: ...
    def seek(self, values: Any) -> Seek: ...
    def aside(self, key: str) -> str | None: ...
    def judge(self, seek: Seek, tags: tuple[str, ...], reading: Reading) -> Sight: ...
    def token(self) -> bytes: ...
    def clock(self) -> float: ...
    def random(self) -> float: ...
    def pack(
        self, seek: Seek, tags: tuple[str, ...], stamps: tuple[bytes, ...], token: bytes, value: Any, cost: float
    ) -> tuple[bytes, float] | None: ...
    def pack_error(
        self, seek: Seek, stamps: tuple[bytes, ...], token: bytes, error: Exception, cost: float
    ) -> tuple[bytes, float] | None: ...
    def tags_of_result(self, seek: Seek, value: Any) -> tuple[str, ...] | None: ...
    def hold(self, key: str, held: bytes, lease: float, flight: Flight | None = None) -> Lease: ...
    def copier(self, value: Any) -> Callable[[Any], Any] | None: ...
    def failed(self, error: BaseException) -> None: ...
    def missed(self, seek: Seek, reason: str) -> None: ...
    def refuse(self, error: Exception) -> None: ...
    def bell(self, token: bytes) -> Any: ...
    def unhang(self, bell: Any) -> None: ...
    def may_refresh(self, key: str) -> bool: ...
    def rest(self, key: str, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Won:
    """What a load rests on: its place, its token, and the stamps read before it began."""

    seek: Seek
    token: bytes
    stamps: tuple[bytes, ...]

    @property
    def held(self) -> bytes:
        """The handle of the placeholder."""
        return PLACEHOLDER + self.token


def fetch(place: RemotePlace, seek: Seek, more: tuple[str, ...] = ()) -> Fetch:
    if seek.fill is not None:
        seek.fill.asked()
    aged = place.aged or seek.fill is not None
    return Fetch(seek.key, seek.tags + seek.watched + more, aged, place.aside(seek.key))


def look(place: RemotePlace, seek: Seek) -> Flow[Sight]:
    """Read and judge. An entry may carry tags that nobody could know before it was seen; then it is read with those."""
    more = place.extra.get(seek.key, ())
    tries = _READS
    while True:
        asked = fetch(place, seek, more)
        reading: Reading = yield asked  # without ``from``, which would cost each hit a generator
        sight = place.judge(seek, asked.tags, reading)
        if sight.more is None:
            return sight
        more, tries = more + sight.more, tries - 1
        if len(place.extra) > _REMEMBERED:
            place.extra.clear()
        place.extra[seek.key] = more
        if not tries:
            return Sight(seek, reading, reason="tags")


def acquire(place: RemotePlace, seek: Seek, seen: Reading, *, replaces: bool = False) -> Flow[Won | Reading]:
    """Put a placeholder where what was seen still stands. If it does not, answer what does.

    ``replaces`` says that a good entry may stand there, or be held in near caches.
    """
    read = seen.stamps[: len(seek.wanted)]
    stamps = tuple(stamp or place.token() for stamp in read)
    missing = tuple(stamp is None for stamp in read)
    won = Won(seek, place.token(), stamps)
    if seek.fill is not None:
        seek.fill.proposes(tag for tag, absent in zip(seek.wanted, missing, strict=True) if absent)
    # On the board before the placeholder can be seen: who sees it here joins, rather than take it for another's.
    _board(place, won)
    reading: Reading | None = seen
    try:
        reading = yield from Acquire(
            seek.key,
            handle(seen.slot),
            won.token,
            seek.wanted,
            stamps,
            missing,
            place.policy.lease,
            seek.beside,
            replaces,
        )
    except BackendRefused:
        # Of several commands, so that the lease may be ours: nobody would load under it.
        try:
            yield from Release(seek.key, won.held)
        except BackendError:
            pass  # of no more use than the first, and that one is counted
        raise
    except (GeneratorExit, BackendError):
        raise
    except BaseException:
        # Cancelled, and perhaps with the lease already ours: nobody would load under it.
        yield from spared(place, Release(seek.key, won.held))
        raise
    finally:
        if reading is not None:
            off_the_board(place, won.token)
            if seek.fill is not None:
                seek.fill.proposes(())
    return won if reading is None else reading


def _board(place: RemotePlace, won: Won) -> None:
    flight = Flight.of(won.token, place.clock())
    flight.kind, flight.lookup = place.schema, (won.seek.key, won.seek.wanted)
    place.flights[won.token] = place.leading[flight.lookup] = flight


def off_the_board(place: RemotePlace, token: bytes) -> None:
    """Have nobody join a load any more; who did, and has no answer, starts over."""
    flight = place.flights.pop(token, None)
    if flight is None:
        return
    if place.leading.get(flight.lookup) is flight:
        del place.leading[flight.lookup]
    if flight.state == FLYING:
        flight.settle(ABANDONED, None)


def spared(place: RemotePlace, effect: Effect[Any]) -> Flow[None]:
    """Do what may fail without anybody minding."""
    try:
        yield from effect
    except BackendError as error:
        place.failed(error)
