"""Production under faults of every kind: no wrong value, no exception, nothing stale that was promised fresh.

`make chaos SECONDS=600` is the same for longer.
"""

from __future__ import annotations

import pytest

from tests.chaos.harness import chaos

pytestmark = pytest.mark.alone


@pytest.mark.timeout(180)
def test_a_hail_of_faults_harms_no_caller() -> None:
    outcome = chaos(8.0, seed=1)
    assert outcome.wrong == {}, str(outcome)
    # And it did hail, on a cache that was of use:
    assert len(outcome.faults) > 8, str(outcome)
    assert outcome.counts["breaks"] > 0, str(outcome)
    assert outcome.counts["journaled"] > 0, str(outcome)
    assert outcome.counts["hits"] > 500, str(outcome)
    assert outcome.counts["writes"] > 50, str(outcome)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("sabotage", "fault", "found", "seconds"),
    [
        ("blind", "forbid", "violations", 4.0),
        ("trusting", "restart", "violations", 7.0),  # long enough to meet an old snapshot more than once
        ("careless", "fork", "values", 4.0),
    ],
)
def test_a_cache_that_is_broken_on_purpose_is_found_out(sabotage: str, fault: str, found: str, seconds: float) -> None:
    outcome = chaos(seconds, seed=1, only=[fault], sabotage=sabotage)
    assert outcome.wrong.get(found, 0) > 0, str(outcome)
