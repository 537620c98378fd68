"""Processes read through their near caches and write at random: nobody reads what is older than promised.

And the race can tell: with any guard of the near cache off, the same race finds it out. `make coherence SECONDS=600`
is the same for longer.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.coherence.faults import ALL
from tests.coherence.harness import Race, found_out
from tests.coherence.history import Counter
from tests.coherence.mutants import MUTANTS

pytestmark = [pytest.mark.timeout(120), pytest.mark.alone]


@pytest.fixture(scope="module")
def racers() -> Iterator[Race]:
    with Race() as made:
        yield made


def test_no_reader_gets_what_is_older_than_promised(racers: Race) -> None:
    result = racers.round(2.0)
    assert result.violations == {}, str(result)
    assert result.worst <= racers.staleness, str(result)
    # And it did race, mostly near:
    assert result.counts[Counter.HITS] > 1000, str(result)
    assert result.counts[Counter.WRITES] > 50, str(result)
    assert result.counts[Counter.COMPARED] > 100, str(result)


def test_no_reader_gets_what_is_older_than_promised_under_faults(racers: Race) -> None:
    result = racers.round(5.0, faults=ALL)
    assert result.violations == {}, str(result)
    assert result.worst <= racers.staleness, str(result)
    assert len(result.faults) > 4, str(result)
    assert result.counts[Counter.HITS] > 500, str(result)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_guard_that_is_off_is_found_out(racers: Race, name: str) -> None:
    result = found_out(racers, name, seconds=30.0)
    assert result.violations, str(result)
