"""The flow of a call whose results are kept in memory: serve, join, load, store; it never blocks and has no clock.

A plain hit or a plain load does not come this way: the generated wrapper does those by itself (``_wrappers``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from cachecraft._core import flights, noting
from cachecraft._core.alone import load_alone
from cachecraft._core.effects import Flow, Join, Load, Spawn, Stopped, passable
from cachecraft._core.entry import MISSING, Verdict
from cachecraft._core.events import Hooks
from cachecraft._core.flights import FAILED, FLYING, LANDED, Flight
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Found, Run
from cachecraft._core.tally import Tally
from cachecraft._core.verification import Verifier, verify_behind

__cachecraft_leader__: Final = "mine"  # see ``flights.LEADER``


class LocalPlace(Protocol):
    """What memory offers the flow: all of it quick, none of it blocking."""

    policy: Policy
    tally: Tally
    hooks: Hooks
    verifier: Verifier

    @property
    def label(self) -> str: ...
    def clock(self) -> float: ...
    def lookup(self, values: Any) -> Any: ...
    def look(self, lookup: Any) -> Found: ...
    def board(self, lookup: Any) -> tuple[Flight, Flight | None]: ...
    def concerns(self, flight: Flight, lookup: Any) -> bool: ...
    def land(self, flight: Flight, value: Any) -> Any: ...
    def fail(self, flight: Flight, error: BaseException) -> None: ...
    def give_up(self, flight: Flight) -> None: ...
    def seize(self, lookup: Any) -> Flight: ...
    def forget(self, lookup: Any) -> None: ...
    def postpone(self, lookup: Any) -> None: ...
    def share(self, flight: Flight) -> Any: ...
    def failed(self, error: Exception, doing: str) -> None: ...
    def missed(self, lookup: Any, reason: str) -> None: ...
    def chosen(self, lookup: Any, node: Any) -> bool: ...


def recall(place: LocalPlace, values: Any, run: Run) -> Flow[Any]:
    """Answer a call: with what is kept if that may be served, else with what the loader returns."""
    lookup = place.lookup(values)
    found = place.look(lookup)
    if found.verdict is Verdict.FRESH:
        if place.policy.verify and place.chosen(lookup, found.node):
            yield from verify_behind(place, run, partial(_still, place, lookup, found.node))
        return _taken(found)
    if found.verdict in (Verdict.EARLY, Verdict.STALE):
        yield from _refresh_behind(place, lookup, run)
        if found.verdict is Verdict.STALE:
            noting.served_stale(place, "stale")
        return _taken(found)
    place.missed(lookup, found.reason)
    try:
        if found.verdict is Verdict.GRACE:
            return (yield from _with_grace(place, lookup, run, found))
        return (yield from obtain(place, lookup, run))
    except Exception:
        place.tally.raised += 1
        raise


def obtain(place: LocalPlace, lookup: Any, run: Run, *, reuse: bool = True) -> Flow[Any]:
    """Load, or wait for whoever loads. ``reuse`` accepts an entry that has become fresh meanwhile.

    What is loaded under the same key for another function may not be for this call; then this one loads next.
    """
    patience = place.policy.wait
    while True:
        flight, mine = place.board(lookup)
        if mine is not None:
            found = place.look(lookup) if reuse else None
            if found is not None and found.verdict in (Verdict.FRESH, Verdict.EARLY):
                # Somebody landed between our first look and our boarding.
                place.give_up(mine)
                return _given(found)
            return (yield from _lead(place, mine, run))
        if not flights.may_wait(flight):
            break
        place.tally.waits += 1
        began = place.clock()
        try:
            patience = yield from Join(flight, patience)
        finally:
            flights.waited(flight)
            noting.wait_ended(place, began, in_time=flight.state != FLYING)
        if flight.state == FLYING:
            place.tally.wait_timeouts += 1
            break
        if not place.concerns(flight, lookup):
            continue
        if flight.state == LANDED:
            return place.share(flight)
        if flight.state == FAILED:
            raise passable(flight.result)
    return (yield from load_alone(place, run))


def renew(place: LocalPlace, lookup: Any, run: Run) -> Flow[Any]:
    """Load anew whatever is kept: a load that was already under way is waited for, not joined."""
    flight, mine = place.board(lookup)
    if mine is None and flights.may_wait(flight):
        try:
            yield from Join(flight, place.policy.wait)
        finally:
            flights.waited(flight)
        if flight.state != FLYING:
            return (yield from obtain(place, lookup, run, reuse=False))
    if mine is None:
        return (yield from load_alone(place, run))
    return (yield from _lead(place, mine, run))


def write(place: LocalPlace, lookup: Any, run: Run, made: Callable[[Any], Any]) -> Flow[Any]:
    """Run a function that writes, and keep what ``made`` makes of its result: whoever reads meanwhile waits for it.

    If it raises, or an invalidation or another write came in between, the entry is dropped: who can tell which of two
    writes the database took last?
    """
    mine = place.seize(lookup)
    flights.enter(mine)
    try:
        result = yield from Load(run, None, mine)
    except BaseException:
        place.forget(lookup)
        place.fail(mine, _NoAnswer())
        raise
    try:
        value = made(result)
    except Exception as error:
        place.failed(error, "making the value to keep for")
        place.forget(lookup)
        place.fail(mine, _NoAnswer())
        return result  # the write is done, and its caller is owed what it returned
    place.land(mine, value)
    if mine.void:
        place.forget(lookup)
    return result


class _NoAnswer(BaseException):
    """A write failed: that is no answer for those who wanted to read."""


def _still(place: LocalPlace, lookup: Any, node: Any) -> Flow[Any]:
    """The node's value, while it is fresh and stands; whatever invalidates it takes it away."""
    yield from ()
    found = place.look(lookup)
    served = found.verdict in (Verdict.FRESH, Verdict.EARLY) and found.node is node
    return node.value if served else MISSING


def _taken(found: Found) -> Any:
    assert found.take is not None
    return found.take()


def _given(found: Found) -> Any:
    """The value, to a call that has been counted as a miss."""
    return found.node.value


def _lead(place: LocalPlace, mine: Flight, run: Run) -> Flow[Any]:
    flights.enter(mine)
    mine.number = noting.load_started(place)
    try:
        return place.land(mine, (yield from Load(run, place.policy.timeout, mine)))
    except BaseException as error:
        place.fail(mine, error.stop if isinstance(error, Stopped) else error)
        raise


def _with_grace(place: LocalPlace, lookup: Any, run: Run, old: Found) -> Flow[Any]:
    """Load in the foreground; fall back on the old value if the loader fails or exceeds ``soft_timeout``."""
    soft = place.policy.soft_timeout
    try:
        if soft is None:
            return (yield from obtain(place, lookup, run))
        flight = yield from _refresh_behind(place, lookup, run)
        if flight is None:
            return (yield from obtain(place, lookup, run))
        yield from Join(flight, soft)
        if flight.state == FLYING:
            noting.served_stale(place, "grace")
            return _given(old)
        if not place.concerns(flight, lookup):
            return (yield from obtain(place, lookup, run))
        if flight.state == LANDED:
            return place.share(flight)
        raise passable(flight.result) if flight.state == FAILED else TimeoutError
    except Exception:
        if place.look(lookup).node is not old.node:
            raise  # invalidated meanwhile: the old value must not come back
        noting.served_stale(place, "grace")
        place.postpone(lookup)
        return _given(old)


def _refresh_behind(place: LocalPlace, lookup: Any, run: Run) -> Flow[Flight | None]:
    """Have the entry loaded anew behind the caller's back, once at a time. Answers the flight to watch."""
    flight, mine = place.board(lookup)
    if mine is None:
        return flight

    def refresh() -> Flow[None]:
        place.tally.refreshes += 1
        try:
            yield from _lead(place, mine, run)
        except Exception:
            place.postpone(lookup)

    def ended() -> None:
        if flight.state == FLYING:
            place.give_up(flight)

    if not (yield from Spawn(refresh, ended)):
        ended()
        return None
    return flight
