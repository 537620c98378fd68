"""Refreshing an entry that is still there: behind the caller's back, or before it falls back on the old value.

One process refreshes at a time, by a claim that only saves work. What fences the store is the old entry itself: an
invalidation, or a newer entry, in its place wins.
"""

from __future__ import annotations

from typing import Any, Final

from cachecraft._core import flights, noting
from cachecraft._core.effects import Claim, Flow, Join, Release, Renew, Spawn
from cachecraft._core.entry import MISSING, PLACEHOLDER, Verdict, handle
from cachecraft._core.errors import BackendError
from cachecraft._core.flights import ABANDONED, FAILED, FLYING, LANDED, Flight
from cachecraft._core.load import land, lead, share
from cachecraft._core.ports import Run
from cachecraft._core.sight import RemotePlace, Seek, Sight, Won, look, spared

THROTTLE: Final = 1.0
"""Seconds until a refresh that failed is tried again."""
_ELSEWHERE: Final = 0.1
"""Seconds until it is asked again whether another process, which has the claim, is done."""


def claim_key(key: str) -> str:
    """Where the refresh of a key is claimed; no entry can be called so, since ``~`` is escaped in keys."""
    return f"{key}~r"


def refresh_behind(place: RemotePlace, seek: Seek, sight: Sight, run: Run) -> Flow[Flight | None]:
    """Have the entry loaded anew behind the caller's back, by one process at a time. Answers the flight to watch.

    It is known by the entry, not by the key: the refresh of an entry that was invalidated since may be older than the
    invalidation, and nobody who came after that may be given its result.
    """
    entry = handle(sight.reading.slot)
    flight = place.refreshing.get(entry)
    # One that was taken and never began went down with its event loop, as one whose load is orphaned.
    begun = flight is not None and flight.token is not None and not (flight.lookup and flight.lookup.orphaned)
    if flight is not None and (begun or place.clock() - flight.began < THROTTLE):
        return flight
    if not place.may_refresh(sight.seek.key):
        return None
    flight = place.refreshing[entry] = Flight.of(entry, place.clock())

    def refresh() -> Flow[None]:
        flights.enter(flight)
        try:
            value = yield from _refresh(place, seek, sight, run, flight)
            land(place, flight, value)
        except Exception as error:
            flight.settle(FAILED, error)
        finally:
            flights.leave(flight)

    def ended() -> None:
        if place.refreshing.get(entry) is flight:
            del place.refreshing[entry]
        if flight.state == FLYING:
            flight.settle(ABANDONED, None)

    if not (yield from Spawn(refresh, ended)):
        ended()
        return None
    return flight


def _refresh(place: RemotePlace, seek: Seek, sight: Sight, run: Run, flight: Flight) -> Flow[Any]:
    """Load anew under a claim, and store if the old entry is still there. The claim only saves work.

    Answers the value, or ``MISSING`` where there is none to hand out: another process is at it, or it may be too old.
    """
    key, old = sight.seek.key, handle(sight.reading.slot)
    claim, name = PLACEHOLDER + place.token(), claim_key(key)
    try:
        if not (yield from Claim(name, claim, place.policy.lease)):
            place.rest(key, _ELSEWHERE)
            return MISSING
        # Whoever had the claim before us may have done the work since we looked, or it may have been invalidated.
        now = yield from look(place, seek)
        if now.take is None or handle(now.reading.slot) != old:
            yield from Release(name, claim)
            return now.take() if now.verdict is Verdict.FRESH and now.take is not None else MISSING
    except BackendError as error:
        place.failed(error)
        place.rest(key, THROTTLE)
        return MISSING
    place.tally.refreshes += 1
    won = resting_on(place, sight)
    flight.lookup = place.flights[won.token] = Flight.of(won.token, 0.0)
    lease = place.hold(name, claim, place.policy.lease, flight.lookup)
    try:
        value = yield from lead(place, won, run, held=old)
    except GeneratorExit:
        raise
    except BaseException:
        place.rest(key, THROTTLE)
        yield from spared(place, Renew(name, claim, THROTTLE))
        raise
    else:
        yield from spared(place, Release(name, claim))
        return MISSING if flight.lookup.void else value
    finally:
        lease.end()


def resting_on(place: RemotePlace, sight: Sight) -> Won:
    """A load that rests on the entry seen, and not on a placeholder of its own."""
    return Won(sight.seek, place.token(), tuple(stamp for stamp in sight.stamps if stamp is not None))


def with_grace(place: RemotePlace, seek: Seek, sight: Sight, run: Run) -> Flow[Any]:
    """Load in the foreground; fall back on the old value if the loader fails, or exceeds ``soft_timeout``."""
    assert sight.take is not None
    soft = place.policy.soft_timeout
    flight = yield from refresh_behind(place, seek, sight, run)
    if flight is not None and flights.may_wait(flight):
        try:
            yield from Join(flight, place.policy.wait if soft is None else soft)
        finally:
            flights.waited(flight)
        if flight.state == LANDED and flight.result is not MISSING:
            return share(flight)
    noting.served_stale(place, "grace")
    return sight.take()
