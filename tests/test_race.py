"""Between real processes on a real server: nobody gets what was invalidated before he asked. And the race can tell."""

from __future__ import annotations

import pytest

from tests.race.harness import race

pytestmark = pytest.mark.alone


def test_no_reader_gets_an_invalidated_value_between_processes() -> None:
    result = race(4.0, kinds=["threads", "tasks", "threads", "tasks"])
    assert result.violations == 0, str(result)
    assert result.errors == 0, str(result)
    assert result.reads > 500, str(result)
    assert result.writes > 20, str(result)


@pytest.mark.timeout(120)
def test_no_reader_gets_an_invalidated_value_under_faults() -> None:
    result = race(7.0, kinds=["threads", "tasks", "threads", "tasks"], faults=True, lease=0.3)
    assert result.violations == 0, str(result)
    assert result.errors == 0, str(result)
    assert len(result.faults) >= 4, str(result)


def test_the_race_finds_a_naive_cache_out() -> None:
    result = race(3.0, kinds=["naive"] * 4)
    assert result.violations > 20, str(result)
