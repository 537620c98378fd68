"""The flow of a call whose results are kept in Redis: read, join, acquire, load, store. It never blocks, has no clock.

*Absence means invalid; every invalidation is a deletion; every store is fenced by a token of its own load.*

1. Read the key and the stamps of its tags in one round trip. An entry whose stamps are the ones just read is a hit.
2. A placeholder whose stamps are the ones just read is a load under way. If this process leads it, join it, else wait
   until it is something else. Only what a read saw that began after the caller arrived may be joined, or a load that
   itself began after that.
3. Anything else: put a placeholder there, if what was read is still there, and stamps under the tags that have none.
4. Load, with the placeholder kept alive meanwhile.
5. Store, if the placeholder is still there: an invalidation would have removed it.

A failure of the store itself never reaches the caller: the loader runs instead. The steps themselves are in ``sight``
(1 and 3), ``load`` (4 and 5) and ``refresh``; here is which of them comes next.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from cachecraft._core import flights, noting
from cachecraft._core.alone import load_alone
from cachecraft._core.effects import Flow, Join, Reading, Sleep
from cachecraft._core.entry import FRESH, MISSING, Verdict, handle
from cachecraft._core.errors import BackendError
from cachecraft._core.flights import ABANDONED, FAILED, FLYING, LANDED, Flight
from cachecraft._core.load import lead, share
from cachecraft._core.ports import Run
from cachecraft._core.refresh import refresh_behind, with_grace
from cachecraft._core.sight import Fill, RemotePlace, Seek, Sight, Won, acquire, fetch, look, off_the_board
from cachecraft._core.verification import verify_behind

_BACKSTOP: Final = 0.25
"""Seconds between two looks of one who would be told: whoever dies tells nobody."""
_FIRST_PAUSE: Final = 0.002
_PAUSE: Final = 0.1
_SLOWING: Final = 0.2
"""Whoever waits asks again after this part, at the most, of the time that has passed: so that a load is over is known
soon, measured by what it took."""
_TRIES: Final = 8
"""How often on end to find the key changed under our hands, with nobody to wait for; then we load for ourselves."""

_ALONE: Final = object()
"""The caller loads for itself, and nothing is stored."""


def recall(place: RemotePlace, values: Any, run: Run) -> Flow[Any]:
    """Answer a call: with what is kept if that may be served, else with what the loader returns."""
    return sought(place, place.seek(values), run)


def sought(place: RemotePlace, seek: Seek, run: Run) -> Flow[Any]:
    """As ``recall``."""
    arrived = place.clock()
    place.asked_for(seek.key)
    decision = yield from _decide(place, seek, run, arrived)
    # The loader runs out here, where its own errors cannot be mistaken for the store's.
    try:
        if isinstance(decision, Won):
            return (yield from lead(place, decision, run))
        if decision is _ALONE:
            return (yield from load_alone(place, run))
    except Exception:
        place.tally.raised += 1
        raise
    if isinstance(decision, Sight):
        return (yield from with_grace(place, seek, decision, run))
    return decision()


def _decide(place: RemotePlace, seek: Seek, run: Run, arrived: float) -> Flow[Any]:
    """What to do: hand out the value, load under a lease, load with an old value to fall back on, or load alone."""
    counted = False
    try:
        sight = yield from look(place, seek)
        if sight.verdict is FRESH and seek.fill is None and not place.policy.verify:
            place.tally.hits += 1  # as ``_settle`` has it, with two generators less
            return sight.take
        if sight.verdict in (Verdict.MISS, Verdict.GRACE):
            counted = True
            place.missed(seek, sight.reason)
        return (yield from _settle(place, seek, sight, run, counted, arrived))
    except BackendError as error:
        place.failed(error)
        if not counted:
            noting.missed(place, "unreachable")
        return _ALONE


def _settle(place: RemotePlace, seek: Seek, sight: Sight, run: Run, missed: bool, arrived: float) -> Flow[Any]:
    """Go on from a first sight until there is something to decide on; others may change it under our hands."""
    patience, tries = place.policy.wait, _TRIES
    while tries:
        if sight.verdict is Verdict.GRACE:
            return sight
        if sight.verdict is not Verdict.MISS:
            place.tally.hits += not missed
            return (yield from _serve(place, seek, sight, run))
        seen: Sight | None = None
        flight = _joinable(place, sight, arrived)
        if flight is not None:
            if not flights.may_wait(flight):
                return _ALONE
            patience = yield from _join(place, flight, patience)
            if flight.state in (LANDED, FAILED):
                place.tally.raised += flight.state == FAILED
                return partial(share, flight)
        elif sight.loading is not None:
            began = place.clock()
            try:
                patience, seen = yield from _watch(place, seek, sight, patience)
            finally:
                noting.wait_ended(place, began, in_time=patience > 0)
        else:
            found = yield from acquire(place, sight.seek, sight.reading)
            if isinstance(found, Won):
                return found
            sight, tries = (yield from _lost(place, seek, sight.seek, found)), tries - 1
            continue
        if patience <= 0:
            place.tally.wait_timeouts += 1
            return _ALONE
        sight, tries = seen or (yield from look(place, seek)), _TRIES
    return _ALONE


def _serve(place: RemotePlace, seek: Seek, sight: Sight, run: Run) -> Flow[Any]:
    if sight.verdict is not Verdict.FRESH:
        yield from refresh_behind(place, seek, sight, run)
        if sight.verdict is Verdict.STALE:
            noting.served_stale(place, "stale")
        return sight.take
    if seek.fill is not None:
        _keep_near(seek.fill, sight)
    share = place.policy.verify
    if share and sight.reason != "error" and (seek.verify or place.random() < share):
        yield from verify_behind(
            place, run, partial(_still, place, replace(seek, fill=None), handle(sight.reading.slot))
        )
    return sight.take


def _still(place: RemotePlace, seek: Seek, entry: bytes) -> Flow[Any]:
    """The value of this entry, while it is fresh and stands: nobody has removed it, nor let a stamp of it fall."""
    sight = yield from look(place, seek)
    served = sight.verdict in (Verdict.FRESH, Verdict.EARLY) and handle(sight.reading.slot) == entry
    return sight.take() if served and sight.take is not None else MISSING


def _keep_near(fill: Fill, sight: Sight) -> None:
    if sight.take is not None and sight.left is not None and sight.reason != "error":
        fill.found(sight.take(), sight.tags, sight.left, sight.cost)


def _joinable(place: RemotePlace, sight: Sight, arrived: float) -> Flight | None:
    """The load of this process that the caller may join: one it has seen in Redis, or one that began after it came."""
    if sight.loading is not None:
        flight = place.flights.get(sight.loading)
    else:
        flight = place.leading.get((sight.seek.key, sight.seek.wanted))
        if flight is not None and not arrived < flight.began:
            return None
    # Of one that was abandoned, the placeholder is about to go; what another version makes is not ours to hand out.
    if flight is None or flight.state == ABANDONED or flight.kind != place.schema:
        return None
    if flight.orphaned:
        off_the_board(place, flight.key)
        return None
    return flight


def _lost(place: RemotePlace, seek: Seek, sought: Seek, reading: Reading) -> Flow[Sight]:
    """Somebody was quicker: what is there now."""
    sight = place.judge(sought, sought.wanted, reading)
    # Aside, things may be different beside it too.
    return (yield from look(place, seek)) if sight.more is not None or sought.beside else sight


def _join(place: RemotePlace, flight: Flight, patience: float) -> Flow[float]:
    place.tally.waits += 1
    began = place.clock()
    try:
        return (yield from Join(flight, patience))
    finally:
        flights.waited(flight)
        noting.wait_ended(place, began, in_time=flight.state != FLYING)


def _watch(place: RemotePlace, seek: Seek, sight: Sight, patience: float) -> Flow[tuple[float, Sight | None]]:
    """Wait for a load in another process. Of all who wait for it here, one asks Redis, and tells the others.

    Answers the patience left, and what there is now, where that is known.
    """
    place.tally.waits += 1
    token, asked = sight.loading, fetch(place, seek)
    assert token is not None
    watch = place.watches.get(token)
    if watch is not None and not watch.orphaned:
        patience = yield from Join(watch, patience)
        # We came and saw the load under way; the look that saw it over came later, so what else it saw is for us too.
        if watch.state == LANDED and watch.lookup == asked:
            seen = place.judge(seek, asked.tags, watch.result)
            return patience, (seen if seen.more is None else None)
        return patience, None
    watch = place.watches[token] = Flight.of(token, place.clock())
    watch.lookup = asked
    bell = place.bell(token)
    told = False
    try:
        while patience > 0:
            nap = _BACKSTOP if told else max(_FIRST_PAUSE, min(_SLOWING * (place.clock() - watch.began), _PAUSE))
            nap = min(nap * (0.5 + 0.5 * place.random()), patience)
            rings = bell is not None and bell.state == FLYING
            yield from Sleep(nap, watch, bell if rings else None)
            patience -= nap
            # Before we look again, not after it: a load that ends once we have looked is then heard to end.
            told = rings and bell.heard and bell.state == FLYING
            reading = yield from asked
            seen = place.judge(seek, asked.tags, reading)
            if seen.more is not None:
                return patience, None
            if seen.loading != token or token in place.flights:  # it may turn out to be ours, seen too early
                place.watches.pop(token, None)
                watch.settle(LANDED, reading)
                return patience, seen
        return 0.0, None
    finally:
        if bell is not None:
            place.unhang(bell)
        place.watches.pop(token, None)
        if watch.state != LANDED:
            watch.settle(ABANDONED, None)


def peek(place: RemotePlace, values: Any) -> Flow[Any]:
    """The value that is kept, or ``MISSING``; never loads."""
    return glimpsed(place, place.seek(values))


def glimpsed(place: RemotePlace, seek: Seek) -> Flow[Any]:
    """As ``peek``."""
    try:
        sight = yield from look(place, seek)
    except BackendError as error:
        place.failed(error)
        return MISSING
    served = sight.verdict in (Verdict.FRESH, Verdict.EARLY, Verdict.STALE) and sight.reason != "error"
    if sight.verdict is FRESH and seek.fill is not None:
        _keep_near(seek.fill, sight)
    return sight.take() if served and sight.take is not None else MISSING
