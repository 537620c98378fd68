"""What callers do, each as a generator of steps: read, invalidate, write, refresh, bring a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cachecraft._core import behind
from cachecraft._core.effects import Flow
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import BackendError
from cachecraft.backends.remote import tag_key
from tests.simulation.caller import FORCED, PUT, READ, Caller
from tests.simulation.ledger import Loading
from tests.simulation.network import Cancelled, Point, Steps
from tests.simulation.process import PREFIX, Remembered

KEYS: Final = ("a", "b")
Job = Callable[[Caller], Steps]


class LoaderError(Exception):
    """What a loader raises; it carries the number of its load."""


def wire(name: str) -> str:
    return f"{PREFIX}f:{name}"


def begin(caller: Caller, name: str, kind: str) -> Loading:
    place = caller.process.place
    aside = wire(name) + place.beside
    return caller.world.ledger.begin(wire(name), kind, (*place.seek((name,)).wanted, aside), caller.asked, place.schema)


def loader(name: str, *inner: str) -> Callable[[Caller, str], Steps]:
    """A loader that answers the number of its load, or raises it; and reads others first, which read still others."""

    def load(caller: Caller, kind: str) -> Steps:
        process, loading = caller.process, begin(caller, name, kind)
        try:
            if inner:
                nested = process.place.recall((inner[0],), loader(*inner))
                yield from caller.drive(nested, READ, wire(inner[0]))
            ask = _asking(loading)
            if process.queue is None:
                yield from ask(caller, kind)
            else:
                flow = behind.loaded(process.queue, loading.key, _opened(loading), ask, _unable(caller, loading))
                yield from caller.drive(flow, FORCED, loading.key)
            return loading.number
        finally:
            loading.running = False

    return load


def _asking(loading: Loading) -> Callable[[Caller, str], Steps]:
    """Ask the database."""

    def ask(caller: Caller, kind: str) -> Steps:
        loading.shows = caller.world.ledger.table.rows[loading.key]
        fails = yield Point("load")
        if fails is not None:
            raise fails(loading.number)

    return ask


def _opened(loading: Loading) -> Callable[[bytes], None]:
    def opened(waiting: bytes) -> None:
        loading.shows = int(waiting)

    return opened


def _unable(caller: Caller, loading: Loading) -> Callable[[Exception], object]:
    """Redis does not say what waits: what is loaded now is for this caller alone."""

    def failed(error: Exception) -> None:
        loading.only = caller.name
        caller.process.place.failed(error)

    return failed


def _named(job: Job, name: str) -> Job:
    job.__name__ = name
    return job


def read(name: str, *inner: str) -> Job:
    def job(caller: Caller) -> Steps:
        floor = caller.world.ledger.floor(wire(name))
        flow = caller.process.place.recall((name,), loader(name, *inner))
        try:
            value = yield from caller.drive(flow, READ, wire(name))
        except (LoaderError, Remembered) as error:
            value = error.args[0]
        caller.world.ledger.serve(caller.name, wire(name), value, floor, caller.process.place.schema)

    return _named(job, " in ".join(f"read {each}" for each in (*reversed(inner), name)))


def peek(name: str) -> Job:
    def job(caller: Caller) -> Steps:
        floor = caller.world.ledger.floor(wire(name))
        value = yield from caller.drive(caller.process.place.peek((name,)), READ, wire(name))
        if value is not MISSING:
            caller.world.ledger.serve(caller.name, wire(name), value, floor, caller.process.place.schema)

    return _named(job, f"peek {name}")


def renew(name: str) -> Job:
    def job(caller: Caller) -> Steps:
        floor = caller.world.ledger.floor(wire(name))
        flow = caller.process.place.renew((name,), loader(name))
        try:
            value = yield from caller.drive(flow, FORCED, wire(name))
        except (LoaderError, Remembered) as error:
            value = error.args[0]
        caller.world.ledger.serve(caller.name, wire(name), value, floor, caller.process.place.schema)

    return _named(job, f"renew {name}")


def put(name: str) -> Job:
    """Bring a value. It counts as loaded when its placeholder stands: before that, nothing fences it."""

    def job(caller: Caller) -> Steps:
        ledger = caller.world.ledger
        loading = begin(caller, name, PUT)
        loading.running = False

        def made() -> None:
            loading.version = ledger.version

        yield from caller.drive(caller.process.place.put((name,), loading.number), PUT, wire(name), made)

    return _named(job, f"put {name}")


def write(name: str) -> Job:
    """Write through: once it has returned, however it ended, nothing older than its commit is returned."""

    def job(caller: Caller) -> Steps:
        ledger = caller.world.ledger
        committed: list[Loading] = []
        raised: list[type[Exception]] = []

        def run(caller: Caller, kind: str) -> Steps:
            yield Point("load")
            ledger.commit()
            committed.append(begin(caller, name, FORCED))
            fails = yield Point("load")
            committed[0].running = False
            if fails is not None:
                raised.append(fails)
                raise fails(committed[0].number)
            return committed[0].number

        flow = caller.process.place.write((name,), run, lambda result: result)
        try:
            yield from caller.drive(flow, FORCED, wire(name))
        except (Cancelled, LoaderError, Remembered):
            pass
        except BackendError:
            if raised:
                ledger.violated(f"P3: {caller.name} does not hear what its write raised")
        if committed and caller.acknowledged:
            ledger.returned(wire(name), committed[0].version)

    return _named(job, f"write {name}")


def _invalidation(label: str, names: tuple[str, ...], flow: Callable[[Caller], Flow[Any]]) -> Job:
    def job(caller: Caller) -> Steps:
        version = caller.world.ledger.commit()
        yield Point("committed")
        try:
            yield from caller.drive(flow(caller), FORCED, "")
        except BackendError:
            return  # it says itself that it has not succeeded
        for name in names:
            caller.world.ledger.returned(wire(name), version)

    return _named(job, label)


def drop(name: str) -> Job:
    return _invalidation(f"drop {name}", (name,), lambda caller: caller.process.place.drop((name,)))


untag: Final = _invalidation("untag", KEYS, lambda caller: caller.process.keeper.untag(PREFIX, ["all"]))
drop_all: Final = _invalidation("drop all", KEYS, lambda caller: caller.process.place.drop_all())
clear: Final = _invalidation("clear", KEYS, lambda caller: caller.process.keeper.clear([PREFIX]))
sweep: Final = _invalidation("sweep", KEYS, lambda caller: caller.process.keeper.sweep(PREFIX, "f:*"))


TAG: Final = tag_key(PREFIX, "all")
INVALIDATIONS: Final = (drop("a"), untag, drop_all, clear, sweep)
EVERYTHING: Final = (
    *(read("a"),) * 8,
    *(read("b"),) * 3,
    *INVALIDATIONS,
    drop("a"),
    untag,
    peek("a"),
    renew("a"),
    put("a"),
    write("a"),
)
