"""Writing behind with one rule switched off, as ``mutants`` has it for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from cachecraft._core import behind, flights
from cachecraft._core.effects import Claim, Flow, Load, Renew
from cachecraft.backends.commands import Plan
from tests.simulation import behind as jobs
from tests.simulation.behind import bury, coalesce, deliver, save
from tests.simulation.faults import cancelled, killed, lost
from tests.simulation.jobs import drop, peek, read, renew, untag
from tests.simulation.model import ModelRedis
from tests.simulation.mutants import Mutant
from tests.simulation.queues import Queues
from tests.simulation.world import Scene

A: Final = read("a")
WRITERS: Final = (*(A,) * 5, read("b"), save("a"), save("a"), save("b"), drop("a"), untag, renew("a"), peek("a"))

#: Writers, readers and workers, and who may be which.
BEHIND: Final = Scene(jobs=(*WRITERS, deliver, deliver), worker=deliver)
GIVEN_UP: Final = Scene(jobs=(*WRITERS, coalesce, coalesce, bury), worker=coalesce)
#: A reader in a process that has no function that writes.
STRANGER: Final = Scene(
    threads=(2, 1, 1),
    jobs=[[save("a"), A, save("a")], [A, drop("a"), deliver], [deliver, A, deliver], [A, A, drop("a"), A]],
    worker=deliver,
    strangers=1,
)
#: What waits has been read, and little else happens: so what does may end anywhere.
SETTLED: Final = Scene(
    threads=(1, 1),
    prelude=(save("a"), A),
    jobs=(deliver, bury, A),
    each=2,
    faults=(killed, lost, cancelled),
    odds=4,
    worker=deliver,
)


def _falls_first(effect: Any, drop: Flow[Any]) -> Flow[Any]:
    yield from drop
    return (yield from effect)


def _does_not_ask(queue: Any, key: Any, opened: Any, run: Any, failed: Any) -> Flow[Any]:
    return (yield from Load(run))


def _does_not_fall(queue: Any, item: Any, drop: Any, outcome: Any) -> Flow[None]:
    drop.close()
    yield from behind.Withdraw(queue, item.key, item.id)
    yield from outcome


def _leaves_first(queue: Any, item: Any, drop: Any, outcome: Any) -> Flow[None]:
    yield from outcome
    yield from drop


def _not_withdrawn(queue: Any, item: Any, drop: Any, outcome: Any) -> Flow[None]:
    yield from drop
    yield from outcome


class _TakesAnyValue(Queues):
    def brought_by(self, waiting: bytes | None, id_: bytes) -> bool:
        return waiting is not None


class _TakesLaterValues(ModelRedis):
    make_queues = _TakesAnyValue


def _no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "still_ours", lambda caller, lease, held: True)


def _granted(effect: Any) -> list[Any]:
    return [("GET", effect.key)]


def _with(name: str, value: Any, module: Any = behind) -> Any:
    return lambda monkeypatch: monkeypatch.setattr(module, name, value)


MUTANTS_BEHIND: Final = (
    Mutant("the entry falls before the write waits", "P1", BEHIND, _with("waits", _falls_first)),
    Mutant("a load does not ask what waits", "P1", BEHIND, _with("loaded", _does_not_ask)),
    Mutant("who delivers takes a later value with it", "P1", BEHIND, mutation={"redis": _TakesLaterValues}),
    Mutant("the entry does not fall after the delivery", "P1", STRANGER, _with("settled", _does_not_fall)),
    Mutant(
        "two workers deliver at a time",
        "order",
        BEHIND,
        _no_lease,
        {"plans": {kind: Plan(_granted, lambda e, replies: True) for kind in (Claim, Renew)}},
    ),
    Mutant(
        "what was loaded without asking is kept",
        "P1",
        replace(BEHIND, faults=(lost,)),
        _with("void", lambda: None, flights),
    ),
    Mutant("the write leaves the queue before the entry falls", "P1", SETTLED, _with("settled", _leaves_first)),
    Mutant("the value of what is given up is not withdrawn", "P1", GIVEN_UP, _with("settled", _not_withdrawn)),
)
