"""Writing to a key in Redis on purpose: load anew, bring a value, write through. Each takes the key's place first,
another release's entry there or not. Near caches are told when the place is taken, and once more when it is filled:
meanwhile another release may have kept something beside it, and hold that near.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cachecraft._core.alone import load_alone
from cachecraft._core.effects import Delete, Flow, Load, Reading
from cachecraft._core.entry import ENTRY, handle
from cachecraft._core.errors import BackendError
from cachecraft._core.load import lead, store
from cachecraft._core.ports import Run
from cachecraft._core.refresh import resting_on
from cachecraft._core.sight import RemotePlace, Seek, Won, acquire, fetch, look, off_the_board, spared

_TRIES: Final = 8
"""How often on end to find the key changed under our hands."""


def renew(place: RemotePlace, values: Any, run: Run) -> Flow[Any]:
    """Load anew whatever is kept. What is kept stays until the new value takes its place."""
    seek = place.seek(values)
    won: Won | None
    try:
        sight = yield from look(place, seek)
        held = handle(sight.reading.slot)
        if held[:1] == ENTRY and sight.take is not None and None not in sight.stamps:
            won = resting_on(place, sight)
        else:
            won, held = (yield from _seize(place, sight.seek, sight.reading)), b""
    except BackendError as error:
        place.failed(error)
        won, held = None, b""
    if won is None:
        return (yield from load_alone(place, run))
    return (yield from lead(place, won, run, held=held or None, replaces=True))


def _seize(place: RemotePlace, seek: Seek, reading: Reading) -> Flow[Won | None]:
    """Put our placeholder there whatever is there; a load under way then stores nothing."""
    for _ in range(_TRIES):
        found = yield from acquire(place, seek, reading, replaces=True)
        if isinstance(found, Won):
            off_the_board(place, found.token)  # a write is no load to join
            return found
        reading = found
    return None


def put(place: RemotePlace, values: Any, value: Any) -> Flow[bool]:
    """Keep a value that the caller brings. False if it was declined, or invalidated in the same moment."""
    seek = place.seek(values)
    try:
        won = yield from _seize(place, seek, (yield from fetch(place, seek)))
        return won is not None and (yield from store(place, won, value, 0.0, won.held, replaces=True))
    except BackendError as error:
        place.failed(error)
        return False


def write(place: RemotePlace, values: Any, run: Run, made: Callable[[Any], Any]) -> Flow[Any]:
    """Run a function that writes, and keep what ``made`` makes of its result: whoever reads meanwhile waits for it.

    If it raises, or an invalidation or another write came in between, the entry is dropped: who can tell which of two
    writes the database took last?
    """
    seek = place.seek(values)
    won: Won | None = None
    try:
        won = yield from _seize(place, seek, (yield from fetch(place, seek)))
    except BackendError as error:
        place.failed(error)
    lease = place.hold(seek.key, won.held, place.policy.lease) if won is not None else None
    stored = False
    try:
        result = yield from Load(run)
        if won is not None:
            stored = yield from _keep_written(place, won, result, made)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _drop(place, seek)  # what the write raised is what its caller hears
        raise
    finally:
        if lease is not None:
            lease.end()
    if not stored:
        yield from _drop(place, seek)
    return result


def _drop(place: RemotePlace, seek: Seek) -> Flow[None]:
    place.notes.add(seek.key, "dropped")
    yield from spared(place, Delete((seek.key,)))


def _keep_written(place: RemotePlace, won: Won, result: Any, made: Callable[[Any], Any]) -> Flow[bool]:
    """The write is done: whatever fails from here on is not its caller's business."""
    try:
        value = made(result)
    except Exception as error:  # a user's own code
        place.refuse(error)
        return False
    try:
        return (yield from store(place, won, value, 0.0, won.held, replaces=True))
    except BackendError as error:
        place.failed(error)
        return False
