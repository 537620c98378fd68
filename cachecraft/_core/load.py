"""A load under a lease, or alone: run the loader, share its result with who joined, store it if the lease stands."""

from __future__ import annotations

from typing import Any, Final

from cachecraft._core import flights, noting
from cachecraft._core.effects import Flow, Load, Release, Stamp, Store
from cachecraft._core.errors import BackendError, told
from cachecraft._core.flights import ABANDONED, FAILED, LANDED, Flight
from cachecraft._core.ports import Run
from cachecraft._core.sight import RemotePlace, Won, off_the_board, spared

_ROUNDED_OFF: Final = 0.001
"""Seconds: Redis is told whole milliseconds."""


def lead(place: RemotePlace, won: Won, run: Run, *, held: bytes | None = None, replaces: bool = False) -> Flow[Any]:
    """Run the loader under a lease, then store what it returned if the lease still stands.

    ``held`` is what the store must find, where it is not the placeholder: the entry that is being refreshed.
    ``replaces`` says that this is done on purpose, and not because nothing good is there: near caches are told.
    """
    flight = place.flights.setdefault(won.token, Flight.of(won.token, 0.0))
    flight.kind = place.schema
    lease = place.hold(won.seek.key, won.held, place.policy.lease, flight) if held is None else None
    try:
        value = yield from _fly(place, flight, run)
        try:
            if not flight.void:
                yield from store(place, won, value, flight.took, held or won.held, replaces=replaces)
            elif held is None:
                yield from Release(won.seek.key, won.held)
        except BackendError as error:
            place.failed(error)
        except GeneratorExit:
            raise
        except BaseException:
            # Cancelled, and perhaps not yet stored: the others are not to wait for the end of the lease.
            if held is None:
                yield from spared(place, Release(won.seek.key, won.held))
            raise
        return value
    except GeneratorExit:
        raise
    except BaseException as error:
        if held is None and flight.state != LANDED:
            yield from _give_back(place, won, error, flight)
        raise
    finally:
        if lease is not None:
            lease.end()
        off_the_board(place, won.token)


def _fly(place: RemotePlace, flight: Flight, run: Run) -> Flow[Any]:
    """Run the loader, and have those who joined get what it comes to."""
    flight.began = place.clock()
    flights.enter(flight)
    flight.number = noting.load_started(place)
    try:
        value = yield from Load(run, place.policy.timeout, flight)
    except BaseException as error:
        _ended(place, flight, error)
        flight.settle(FAILED if isinstance(error, Exception) and not flight.void else ABANDONED, error)
        raise
    _ended(place, flight)
    if flight.void:
        flight.settle(ABANDONED, None)
    else:
        land(place, flight, value)
    return value


def land(place: RemotePlace, flight: Flight, value: Any) -> None:
    """Hand a result to those who joined. What cannot be copied for them, each has to load for itself."""
    try:
        copier = place.copier(value)
        # Copied now: the caller may change its own the moment it has it.
        shared = value if copier is None else copier(value)
    except Exception:  # a foreign __copy__ may raise anything, and nesting may be bottomless
        flight.settle(ABANDONED, None)
    else:
        flight.copier = copier
        flight.settle(LANDED, shared)


def _ended(place: RemotePlace, flight: Flight, error: BaseException | None = None) -> None:
    flights.leave(flight)
    flight.took = place.clock() - flight.began
    noting.load_ended(place, flight.number, flight.took, error)


def store(place: RemotePlace, won: Won, value: Any, cost: float, held: bytes, *, replaces: bool = False) -> Flow[bool]:
    """Keep a value where ``held`` still stands. Answers whether it is kept. ``replaces`` as for ``lead``."""
    seek = won.seek
    tags, stamps = seek.tags, won.stamps[: len(seek.tags)]
    packed, made = None, tags
    if not seek.watched:
        packed = place.pack(seek, tags, stamps, won.token, value, cost)
    elif (tagged := place.tags_of_result(seek, value)) is not None:
        more = tuple(tag for tag in tagged if tag not in tags)
        later = yield from Stamp(more + seek.watched, tuple(place.token() for _ in more + seek.watched))
        # The watched stamp falls with every tag: if it still stands, no tag fell while the loader ran.
        if later[len(more) :] != won.stamps[len(seek.tags) :] or None in later:
            noting.lost(place)
            place.notes.add(seek.key, "lost")
        else:
            known = tuple(stamp for stamp in later[: len(more)] if stamp is not None)
            made = tags + more
            packed = place.pack(seek, made, stamps + known, won.token, value, cost)
    if packed is None:
        if held == won.held:
            yield from Release(seek.key, held)
        return False
    entry, ttl = packed
    if seek.fill is not None:
        seek.fill.asked()
    asked = place.notes.clock()
    stored = yield from Store(seek.key, held, entry, ttl, replaces)
    if not stored:
        noting.lost(place)
        place.notes.add(seek.key, "lost")
        return False
    place.notes.add(seek.key, "kept", until=asked + ttl - _ROUNDED_OFF)
    if seek.fill is not None:
        seek.fill.found(value, made, ttl - place.policy.keep, cost)
    return True


def _give_back(place: RemotePlace, won: Won, error: BaseException, flight: Flight) -> Flow[None]:
    """The loader raised: remember that if it is to be remembered, else let the next caller try at once."""
    seek, packed = won.seek, None
    if isinstance(error, Exception):
        place.notes.add(seek.key, "failed", told(error))
        packed = place.pack_error(seek, won.stamps[: len(seek.tags)], won.token, error, flight.took)
    keep = packed is not None and not seek.watched and not flight.void
    yield from spared(place, Store(seek.key, won.held, *packed) if keep and packed else Release(seek.key, won.held))


def share(flight: Flight) -> Any:
    """The outcome of a flight, for somebody who joined it."""
    if flight.state == FAILED:
        raise flight.result
    return flight.result if flight.copier is None else flight.copier(flight.result)
