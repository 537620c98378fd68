"""The flow of a call whose results are kept in Redis: read, join, acquire, load, store. It never blocks, has no clock.

*Absence means invalid; every invalidation is a deletion; every store is fenced by a token of its own load.*

1. Read the key and the stamps of its tags in one round trip. An entry whose stamps are the ones just read is a hit.
2. A placeholder whose stamps are the ones just read is a load under way. If this process leads it, join it, else wait
   until it is something else. Only what a read saw that began after the caller arrived may be joined.
3. Anything else: put a placeholder there, if what was read is still there, and stamps under the tags that have none.
4. Load, with the placeholder kept alive meanwhile.
5. Store, if the placeholder is still there: an invalidation would have removed it.

A failure of the store itself never reaches the caller: the loader runs instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cachecraft._core import flights
from cachecraft._core.effects import (
    Acquire,
    Claim,
    Delete,
    Effect,
    Fetch,
    Flow,
    Join,
    Load,
    Reading,
    Release,
    Renew,
    Sleep,
    Spawn,
    Stamp,
    Store,
)
from cachecraft._core.entry import ENTRY, MISSING, PLACEHOLDER, Verdict, handle
from cachecraft._core.errors import BackendError
from cachecraft._core.flights import ABANDONED, FAILED, FLYING, LANDED, Flight
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Lease, Run
from cachecraft._core.tally import Tally

THROTTLE: Final = 1.0
"""Seconds until a refresh that failed is tried again."""
_FIRST_PAUSE: Final = 0.002
_PAUSE: Final = 0.05
_TRIES: Final = 8
"""How often on end to find the key changed under our hands, with nobody to wait for; then we load for ourselves."""


@dataclass(frozen=True, slots=True)
class Seek:
    """One call on its way: the key, the tags an entry must carry, and those to read beside them before a load."""

    key: str
    tags: tuple[str, ...]
    values: Any
    watched: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.tags + self.watched


@dataclass(frozen=True, slots=True)
class Sight:
    """What a reading of the key came to."""

    reading: Reading
    verdict: Verdict
    take: Callable[[], Any] | None = None
    """Hands out the value, or raises the remembered exception."""
    loading: bytes | None = None
    """The token of a load under way."""
    more: tuple[str, ...] = ()
    """Tags the entry carries beyond those read: read these too."""
    reason: str = "absent"
    cost: float = 0.0


class RemotePlace(Protocol):
    """One function, and what it knows about its results in Redis: quick answers only."""

    policy: Policy
    tally: Tally
    flights: dict[bytes, Flight]
    """Loads this process leads, by token."""
    watches: dict[bytes, Flight]
    """Loads elsewhere that somebody here is watching."""
    refreshing: dict[bytes, Flight]
    """Refreshes under way here, by the handle of the entry that they are to replace."""

    def seek(self, values: Any) -> Seek: ...
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
    def hold(self, key: str, held: bytes, lease: float) -> Lease: ...
    def copier(self, value: Any) -> Callable[[Any], Any] | None: ...
    def failed(self, error: BaseException) -> None: ...
    def refuse(self, error: Exception) -> None: ...
    def may_refresh(self, key: str) -> bool: ...
    def rest(self, key: str, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Won:
    """A placeholder of ours stands under the key."""

    token: bytes
    stamps: tuple[bytes, ...]

    @property
    def held(self) -> bytes:
        return PLACEHOLDER + self.token


_ALONE: Final = object()
"""The caller loads for itself, and nothing is stored."""


# -- the call ------------------------------------------------------------------------------------------------


def recall(place: RemotePlace, values: Any, run: Run) -> Flow[Any]:
    """Answer a call: with what is kept if that may be served, else with what the loader returns."""
    seek = place.seek(values)
    decision = yield from _decide(place, seek, run)
    # The loader runs out here, where its own errors cannot be mistaken for the store's.
    if isinstance(decision, _Won):
        return (yield from _lead(place, seek, decision, run))
    if isinstance(decision, Sight):
        return (yield from _with_grace(place, seek, decision, run))
    if decision is _ALONE:
        return (yield from _load_alone(place, run))
    return decision()


def _decide(place: RemotePlace, seek: Seek, run: Run) -> Flow[Any]:
    """What to do: hand out the value, load under a lease, load with an old value to fall back on, or load alone."""
    counted = False
    try:
        sight = yield from look(place, seek)
        if sight.verdict in (Verdict.MISS, Verdict.GRACE):
            counted = True
            place.tally.misses += 1
            place.tally.reasons[sight.reason] += 1
        return (yield from _settle(place, seek, sight, run, counted))
    except BackendError as error:
        place.failed(error)
        place.tally.misses += not counted
        return _ALONE


def _settle(place: RemotePlace, seek: Seek, sight: Sight, run: Run, missed: bool) -> Flow[Any]:
    """Go on from a first sight until there is something to decide on; others may change it under our hands."""
    patience, tries = place.policy.wait, _TRIES
    while tries:
        if sight.verdict is Verdict.FRESH:
            place.tally.hits += not missed
            return sight.take
        if sight.verdict in (Verdict.EARLY, Verdict.STALE):
            yield from _refresh_behind(place, seek, sight, run)
            place.tally.hits += not missed
            place.tally.stale += sight.verdict is Verdict.STALE
            return sight.take
        if sight.verdict is Verdict.GRACE:
            return sight
        if sight.loading is None:
            found = yield from _acquire(place, seek, sight)
            if isinstance(found, _Won):
                return found
            sight, tries = found, tries - 1
            continue
        flight = place.flights.get(sight.loading)
        if flight is None or flight.state == ABANDONED:  # its placeholder is about to go
            patience = yield from _watch(place, seek, sight.loading, patience)
        elif flights.may_wait(flight):
            patience = yield from _join(place, flight, patience)
            if flight.state == LANDED:
                return lambda flight=flight: _share(flight)
            if flight.state == FAILED:
                return lambda flight=flight: _raise(flight.result)
        else:
            return _ALONE
        if patience <= 0:
            place.tally.wait_timeouts += 1
            return _ALONE
        sight, tries = (yield from look(place, seek)), _TRIES
    return _ALONE


def look(place: RemotePlace, seek: Seek) -> Flow[Sight]:
    """Read and judge. An entry may carry tags that nobody could know before it was seen; then it is read with those."""
    tags, tries = seek.wanted, 3
    while True:
        reading = yield from Fetch(seek.key, tags, place.policy.aged)
        sight = place.judge(seek, tags, reading)
        if not sight.more:
            return sight
        tags, tries = seek.wanted + sight.more, tries - 1
        if not tries:
            return Sight(reading, Verdict.MISS, reason="tags")


def _acquire(place: RemotePlace, seek: Seek, sight: Sight) -> Flow[_Won | Sight]:
    read = sight.reading.stamps[: len(seek.wanted)]
    stamps = tuple(stamp or place.token() for stamp in read)
    won = _Won(place.token(), stamps)
    missing = tuple(stamp is None for stamp in read)
    seen = handle(sight.reading.slot)
    # On the board before the placeholder can be seen: who sees it here joins, rather than take it for another's.
    place.flights[won.token] = Flight.of(won.token, place.clock())
    reading: Reading | None = sight.reading
    try:
        reading = yield from Acquire(seek.key, seen, won.token, seek.wanted, stamps, missing, place.policy.lease)
    except (GeneratorExit, BackendError):
        raise
    except BaseException:
        # Cancelled, and perhaps with the lease already ours: nobody would load under it.
        yield from _spared(place, Release(seek.key, won.held))
        raise
    finally:
        if reading is not None:
            _off_the_board(place, won.token)
    if reading is None:
        return won
    sight = place.judge(seek, seek.wanted, reading)
    return (yield from look(place, seek)) if sight.more else sight


def _off_the_board(place: RemotePlace, token: bytes) -> None:
    flight = place.flights.pop(token, None)
    if flight is not None:
        flight.settle(ABANDONED, None)


def _join(place: RemotePlace, flight: Flight, patience: float) -> Flow[float]:
    place.tally.waits += 1
    try:
        return (yield from Join(flight, patience))
    finally:
        flights.waited(flight)


def _watch(place: RemotePlace, seek: Seek, token: bytes, patience: float) -> Flow[float]:
    """Wait for a load in another process. Of all who wait for it here, one asks Redis, and tells the others."""
    place.tally.waits += 1
    watch = place.watches.get(token)
    if watch is not None:
        return (yield from Join(watch, patience))
    watch = place.watches[token] = Flight.of(token, place.clock())
    pause, began = _FIRST_PAUSE, place.clock()
    try:
        while patience > 0:
            nap = min(pause * (0.75 + 0.5 * place.random()), patience)
            yield from Sleep(nap)
            patience -= nap
            sight = yield from look(place, seek)
            if sight.loading != token or token in place.flights:  # it may turn out to be ours, seen too early
                return patience
            # Quick at first, for loads of some tens of milliseconds; then about twenty commands a second.
            pause = min(pause * 2, _PAUSE if place.clock() - began > 0.25 else _PAUSE / 3)
        return 0.0
    finally:
        place.watches.pop(token, None)
        watch.settle(ABANDONED, None)


# -- the load ------------------------------------------------------------------------------------------------


def _lead(place: RemotePlace, seek: Seek, won: _Won, run: Run, *, held: bytes | None = None) -> Flow[Any]:
    """Run the loader under a lease, then store what it returned if the lease still stands.

    ``held`` is what the store must find, where it is not the placeholder: the entry that is being refreshed.
    """
    flight = place.flights.setdefault(won.token, Flight.of(won.token, 0.0))
    flight.began = place.clock()
    lease = place.hold(seek.key, won.held, place.policy.lease) if held is None else None
    flights.enter(flight)
    try:
        value = yield from Load(run, place.policy.timeout, flight)
    except BaseException as error:
        cost = _ended(place, flight)
        place.tally.errors += 1
        flight.settle(FAILED if isinstance(error, Exception) else ABANDONED, error)
        if held is None and not isinstance(error, GeneratorExit):
            yield from _give_back(place, seek, won, error, cost)
        raise
    else:
        cost = _ended(place, flight)
        # Copied now: the caller may change its own the moment it has it.
        flight.copier = place.copier(value)
        flight.settle(LANDED, value if flight.copier is None else flight.copier(value))
        try:
            yield from _store(place, seek, won, value, cost, held or won.held)
        except BackendError as error:
            place.failed(error)
        return value
    finally:
        if lease is not None:
            lease.end()
        place.flights.pop(won.token, None)


def _ended(place: RemotePlace, flight: Flight) -> float:
    flights.leave(flight)
    cost = place.clock() - flight.began
    place.tally.loads += 1
    place.tally.load_time += cost
    return cost


def _store(place: RemotePlace, seek: Seek, won: _Won, value: Any, cost: float, held: bytes) -> Flow[bool]:
    tags, stamps = seek.tags, won.stamps[: len(seek.tags)]
    packed = None
    if not seek.watched:
        packed = place.pack(seek, tags, stamps, won.token, value, cost)
    elif (tagged := place.tags_of_result(seek, value)) is not None:
        made = tuple(tag for tag in tagged if tag not in tags)
        later = yield from Stamp(made + seek.watched, tuple(place.token() for _ in made + seek.watched))
        # The watched stamp falls with every tag: if it still stands, no tag fell while the loader ran.
        if later[len(made) :] != won.stamps[len(seek.tags) :] or None in later:
            place.tally.store_lost += 1
        else:
            known = tuple(stamp for stamp in later[: len(made)] if stamp is not None)
            packed = place.pack(seek, tags + made, stamps + known, won.token, value, cost)
    if packed is None:
        if held == won.held:
            yield from Release(seek.key, held)
        return False
    entry, ttl = packed
    stored = yield from Store(seek.key, held, entry, ttl)
    place.tally.store_lost += not stored
    return stored


def _give_back(place: RemotePlace, seek: Seek, won: _Won, error: BaseException, cost: float) -> Flow[None]:
    """The loader raised: remember that if it is to be remembered, else let the next caller try at once."""
    packed = None
    if isinstance(error, Exception):
        packed = place.pack_error(seek, won.stamps[: len(seek.tags)], won.token, error, cost)
    keep = packed is not None and not seek.watched
    yield from _spared(place, Store(seek.key, won.held, *packed) if keep and packed else Release(seek.key, won.held))


def _load_alone(place: RemotePlace, run: Run) -> Flow[Any]:
    """Run the loader for this caller only, and keep nothing."""
    place.tally.loads += 1
    began = place.clock()
    try:
        return (yield from Load(run, place.policy.timeout))
    except Exception:
        place.tally.errors += 1
        raise
    finally:
        place.tally.load_time += place.clock() - began


def _share(flight: Flight) -> Any:
    return flight.result if flight.copier is None else flight.copier(flight.result)


def _raise(error: BaseException) -> Any:
    raise error


# -- refreshing what is there --------------------------------------------------------------------------------


def _refresh_behind(place: RemotePlace, seek: Seek, sight: Sight, run: Run) -> Flow[Flight | None]:
    """Have the entry loaded anew behind the caller's back, by one process at a time. Answers the flight to watch.

    It is known by the entry, not by the key: the refresh of an entry that was invalidated since may be older than the
    invalidation, and nobody who came after that may be given its result.
    """
    entry = handle(sight.reading.slot)
    flight = place.refreshing.get(entry)
    # One that was taken and never began went down with its event loop.
    if flight is not None and (flight.token is not None or place.clock() - flight.began < THROTTLE):
        return flight
    if not place.may_refresh(seek.key):
        return None
    flight = place.refreshing[entry] = Flight.of(entry, place.clock())

    def refresh() -> Flow[None]:
        flights.enter(flight)
        try:
            value = yield from _refresh(place, seek, sight, run)
            flight.copier = place.copier(value)
            flight.settle(LANDED, value)
        except Exception as error:
            flight.settle(FAILED, error)
        finally:
            flights.leave(flight)
            place.refreshing.pop(entry, None)
            if flight.state == FLYING:
                flight.settle(ABANDONED, None)

    if not (yield from Spawn(refresh)):
        place.refreshing.pop(entry, None)
        flight.settle(ABANDONED, None)
        return None
    return flight


def _refresh(place: RemotePlace, seek: Seek, sight: Sight, run: Run) -> Flow[Any]:
    """Load anew under a claim, and store if the old entry is still there. The claim only saves work.

    Answers the value, or ``MISSING`` where another process is at it.
    """
    claim, name = place.token(), claim_key(seek.key)
    try:
        if not (yield from Claim(name, PLACEHOLDER + claim, place.policy.lease)):
            place.rest(seek.key, _PAUSE * 2)
            return MISSING
        # Whoever had the claim before us may have done the work since we looked, or it may have been invalidated.
        now = yield from look(place, seek)
        if now.take is None or handle(now.reading.slot) != handle(sight.reading.slot):
            yield from Release(name, PLACEHOLDER + claim)
            return now.take() if now.verdict is Verdict.FRESH and now.take is not None else MISSING
    except BackendError as error:
        place.failed(error)
        place.rest(seek.key, THROTTLE)
        return MISSING
    place.tally.refreshes += 1
    lease = place.hold(name, PLACEHOLDER + claim, place.policy.lease)
    stamps = tuple(stamp for stamp in sight.reading.stamps[: len(seek.wanted)] if stamp is not None)
    won = _Won(place.token(), stamps)
    try:
        value = yield from _lead(place, seek, won, run, held=handle(sight.reading.slot))
    except GeneratorExit:
        raise
    except BaseException:
        place.rest(seek.key, THROTTLE)
        yield from _spared(place, Renew(name, PLACEHOLDER + claim, THROTTLE))
        raise
    else:
        yield from _spared(place, Release(name, PLACEHOLDER + claim))
        return value
    finally:
        lease.end()


def _spared(place: RemotePlace, effect: Effect[Any]) -> Flow[None]:
    """Do what may fail without anybody minding."""
    try:
        yield from effect
    except BackendError as error:
        place.failed(error)


def claim_key(key: str) -> str:
    """Where the refresh of a key is claimed; no entry can be called so, since ``~`` is escaped in keys."""
    return f"{key}~r"


def _with_grace(place: RemotePlace, seek: Seek, sight: Sight, run: Run) -> Flow[Any]:
    """Load in the foreground; fall back on the old value if the loader fails, or exceeds ``soft_timeout``."""
    assert sight.take is not None
    soft = place.policy.soft_timeout
    flight = yield from _refresh_behind(place, seek, sight, run)
    if flight is not None and flights.may_wait(flight):
        try:
            yield from Join(flight, place.policy.wait if soft is None else soft)
        finally:
            flights.waited(flight)
        if flight.state == LANDED and flight.result is not MISSING:
            return _share(flight)
    place.tally.stale += 1
    return sight.take()


# -- writing -------------------------------------------------------------------------------------------------


def renew(place: RemotePlace, values: Any, run: Run) -> Flow[Any]:
    """Load anew whatever is kept. What is kept stays until the new value takes its place."""
    seek = place.seek(values)
    try:
        sight = yield from look(place, seek)
        entry = sight.reading.slot is not None and sight.reading.slot[:1] == ENTRY and sight.take is not None
        if entry and None not in sight.reading.stamps[: len(seek.wanted)]:
            stamps = tuple(stamp for stamp in sight.reading.stamps[: len(seek.wanted)] if stamp is not None)
            won, held = _Won(place.token(), stamps), handle(sight.reading.slot)
        else:
            found = yield from _seize(place, seek, sight)
            if found is None:
                return (yield from _load_alone(place, run))
            won, held = found, b""
    except BackendError as error:
        place.failed(error)
        return (yield from _load_alone(place, run))
    return (yield from _lead(place, seek, won, run, held=held or None))


def _seize(place: RemotePlace, seek: Seek, sight: Sight) -> Flow[_Won | None]:
    """Put our placeholder there whatever is there; a load under way then stores nothing."""
    for _ in range(_TRIES):
        found = yield from _acquire(place, seek, sight)
        if isinstance(found, _Won):
            _off_the_board(place, found.token)  # a write is no load to join
            return found
        sight = found
    return None


def put(place: RemotePlace, values: Any, value: Any) -> Flow[bool]:
    """Keep a value that the caller brings. False if it was declined, or invalidated in the same moment."""
    seek = place.seek(values)
    try:
        won = yield from _seize(place, seek, (yield from look(place, seek)))
        return won is not None and (yield from _store(place, seek, won, value, 0.0, won.held))
    except BackendError as error:
        place.failed(error)
        return False


def write(place: RemotePlace, values: Any, run: Run, made: Callable[[Any], Any]) -> Flow[Any]:
    """Run a function that writes, and keep what ``made`` makes of its result: whoever reads meanwhile waits for it.

    If it raises, or an invalidation or another write came in between, the entry is dropped: who can tell which of two
    writes the database took last?
    """
    seek = place.seek(values)
    won: _Won | None = None
    try:
        won = yield from _seize(place, seek, (yield from look(place, seek)))
    except BackendError as error:
        place.failed(error)
    lease = place.hold(seek.key, won.held, place.policy.lease) if won is not None else None
    stored = False
    try:
        result = yield from Load(run)
        if won is not None:
            stored = yield from _keep_written(place, seek, won, result, made)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _spared(place, Delete((seek.key,)))  # what the write raised is what its caller hears
        raise
    finally:
        if lease is not None:
            lease.end()
    if not stored:
        yield from _spared(place, Delete((seek.key,)))
    return result


def _keep_written(place: RemotePlace, seek: Seek, won: _Won, result: Any, made: Callable[[Any], Any]) -> Flow[bool]:
    """The write is done: whatever fails from here on is not its caller's business."""
    try:
        value = made(result)
    except Exception as error:  # a user's own code
        place.refuse(error)
        return False
    try:
        return (yield from _store(place, seek, won, value, 0.0, won.held))
    except BackendError as error:
        place.failed(error)
        return False


def peek(place: RemotePlace, values: Any) -> Flow[Any]:
    """The value that is kept, or ``MISSING``; never loads."""
    seek = place.seek(values)
    try:
        sight = yield from look(place, seek)
    except BackendError as error:
        place.failed(error)
        return MISSING
    served = sight.verdict in (Verdict.FRESH, Verdict.EARLY, Verdict.STALE) and sight.reason != "error"
    return sight.take() if served and sight.take is not None else MISSING
