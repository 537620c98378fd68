"""No interleaving and no fault breaks a promise between processes; and where a rule is switched off, one does.

``SIMULATION_EXAMPLES=20000`` goes deeper than CI does.
"""

import logging
import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.behind import deliver, save
from tests.simulation.faults import ALL, cancelled, gone, killed, lease_over, lost, restarted
from tests.simulation.jobs import drop, drop_all, put, read, renew, sweep, untag, write
from tests.simulation.ledger import Violation
from tests.simulation.mutants import MUTANTS, TWO_RELEASES, Mutant
from tests.simulation.mutants_behind import BEHIND, GIVEN_UP, MUTANTS_BEHIND, SETTLED, STRANGER
from tests.simulation.process import FLAVOURS
from tests.simulation.schedule import Walk, every_way
from tests.simulation.world import Scene, World

EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "300"))
"""Worlds for each scene."""
BUDGET = max(EXAMPLES, 1500)
"""Worlds until a mutant must be found out."""
CHOICES = st.binary(min_size=400, max_size=400)

pytestmark = pytest.mark.timeout(60 + EXAMPLES / 5)
deep = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Broken connections are what this is about; nobody needs to read of each."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# -- any interleaving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", FLAVOURS)
@deep
@given(choices=CHOICES)
def test_no_fault_breaks_a_promise(flavour: str, choices: bytes) -> None:
    World(Scene(flavour, prelude=(read("a"), drop("a")), faults=ALL), Walk(choices)).run()


@pytest.mark.parametrize("threads", [(3,), (2, 2), (1, 1, 1)], ids=str)
@deep
@given(choices=CHOICES)
def test_without_faults_nothing_is_left_behind(threads: tuple[int, ...], choices: bytes) -> None:
    World(
        Scene(threads=threads, jobs=(read("a"), read("a"), read("b"), drop("a"), untag, write("a")), each=4),
        Walk(choices),
    ).run()


@deep
@given(choices=CHOICES)
def test_one_key_under_every_hand(choices: bytes) -> None:
    jobs = (read("a"), read("a"), read("a"), drop("a"), renew("a"), write("a"), put("a"))
    World(Scene("stale", (3, 2), jobs, each=5, faults=(lease_over, lost, cancelled)), Walk(choices)).run()


@pytest.mark.parametrize("flavour", ["plain", "result", "stale", "grace"])
@deep
@given(choices=CHOICES)
def test_two_releases_on_one_server(flavour: str, choices: bytes) -> None:
    World(replace(TWO_RELEASES, flavour=flavour, faults=ALL), Walk(choices)).run()


@deep
@given(flavour=st.sampled_from(["plain", "stale", "grace", "remembered"]), choices=CHOICES)
def test_what_waits_is_read_and_arrives_whatever_happens(flavour: str, choices: bytes) -> None:
    World(replace(BEHIND, flavour=flavour, faults=ALL), Walk(choices)).run()


@pytest.mark.parametrize("scene", [GIVEN_UP, STRANGER], ids=["given up", "a stranger"])
@deep
@given(choices=CHOICES)
def test_so_it_is_where_writes_are_given_up_or_readers_do_not_know(scene: Scene, choices: bytes) -> None:
    World(replace(scene, faults=ALL), Walk(choices)).run()


@deep
@given(choices=CHOICES)
def test_so_it_is_wherever_a_worker_ends(choices: bytes) -> None:
    World(SETTLED, Walk(choices)).run()


# -- every interleaving --------------------------------------------------------------------------------------

A = read("a")
SMALL = {
    "two read": (2, Scene(threads=(1, 1), jobs=[[A], [A]])),
    "read, drop": (2, Scene(threads=(2,), jobs=[[A], [drop("a"), A]])),
    "read twice elsewhere, drop": (2, Scene(threads=(1, 1), jobs=[[A, A], [drop("a"), A]])),
    "read, untag": (2, Scene(threads=(1, 1), jobs=[[A], [untag, A]])),
    "two read, drop all": (1, Scene(threads=(2, 1), jobs=[[A], [A], [drop_all, A]])),
    "two read a tag of the result, untag": (1, Scene("result", (2, 1), [[A], [A], [untag, A]])),
    "two write": (1, Scene(threads=(1, 1, 1), jobs=[[A], [write("a")], [write("a"), A]])),
    "two releases, drop": (
        1,
        replace(TWO_RELEASES, threads=(1, 1), schemas=(b"1", b"2"), jobs=[[A, A], [A, drop("a"), A]]),
    ),
    "sweep": (1, Scene(threads=(1, 1), jobs=[[A, A], [sweep, A]])),
    "save, read elsewhere": (2, Scene(threads=(1, 1), jobs=[[A], [save("a"), A]], worker=deliver)),
    "save, deliver": (1, Scene(threads=(1, 1, 1), jobs=[[save("a"), A], [deliver, A], [deliver, A]], worker=deliver)),
    "two save, deliver": (
        1,
        Scene(threads=(1, 1, 1), jobs=[[save("a"), A], [save("a"), deliver], [A, A]], worker=deliver),
    ),
    "save, deliver, with a fault": (
        1,
        Scene(
            threads=(1, 1),
            jobs=[[save("a"), A], [deliver]],
            faults=(killed, cancelled, lost, gone),
            worker=deliver,
        ),
    ),
    "drop, with a fault": (
        1,
        Scene(threads=(1, 1), jobs=[[A], [drop("a"), A]], faults=(killed, cancelled, lost, lease_over, restarted)),
    ),
}
"""How often the straight way is left, and by whom."""


@pytest.mark.parametrize("name", SMALL)
def test_every_interleaving_of_a_few(name: str) -> None:
    deviations, scene = SMALL[name]
    ways = every_way(deviations, lambda way: World(scene, way).run())
    assert ways > 20


@pytest.mark.parametrize("threads", [(1,), (2,), (1, 1)], ids=str)
def test_loaders_that_call_each_other_or_themselves_come_to_an_end(threads: tuple[int, ...]) -> None:
    jobs = [[read("a", "b", "a")], [read("b", "a", "b")]][: sum(threads)]
    scene = Scene(threads=threads, jobs=jobs, alone_is_fine=True)
    every_way(1, lambda way: World(scene, way).run())


# -- every rule is needed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", [*MUTANTS, *MUTANTS_BEHIND], ids=lambda mutant: mutant.name)
def test_a_rule_switched_off_is_found_out(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        mutant.patch(patched)
        choices = next(choices for choices in _walks() if _broken(mutant.mutated, choices, mutant.breaks))
    # The same choices do no harm where the rule holds.
    World(mutant.scene, Walk(choices)).run()


def _walks() -> Iterator[bytes]:
    for seed in range(BUDGET):
        yield random.Random(seed).randbytes(400)
    pytest.fail("the mutant survives: this world is too weak")


def _broken(scene: Scene, choices: bytes, promise: str) -> bool:
    try:
        World(scene, Walk(choices)).run()
    except Exception as error:  # without its rule it may break in other ways as well
        return isinstance(error, Violation) and str(error).startswith(promise)
    return False
