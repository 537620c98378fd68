"""Durations are counted by length, so that percentiles can be told of them, and summed over processes."""

import random

import pytest

from cachecraft._core.durations import BOUNDS, QUICK, Durations
from cachecraft._core.tally import Tally


def test_a_duration_falls_into_the_first_bucket_that_reaches_as_far() -> None:
    durations = Durations()
    for seconds in (0.0, BOUNDS[0], BOUNDS[1], BOUNDS[1] * 1.001, 1e9):
        durations.add(seconds)
    assert durations.counts == [2, 1, 1, *[0] * (len(BOUNDS) - 3), 1]
    assert durations.seconds == pytest.approx(1e9)


def test_percentiles_are_right_to_the_bucket() -> None:
    seed = random.Random(1)
    took = sorted(seed.lognormvariate(-4, 1) for _ in range(5000))
    durations = Durations()
    for seconds in took:
        durations.add(seconds)
    for share in (0.1, 0.5, 0.9, 0.99):
        exact = took[int(share * len(took))]
        above = next(bound for bound in BOUNDS if bound >= exact)
        below = max([0.0, *(bound for bound in BOUNDS if bound < exact)])
        assert below <= durations.quantile(share) <= above


def test_there_is_no_percentile_of_nothing_and_none_beyond_the_last_bound() -> None:
    assert Durations().quantile(0.99) == 0.0
    endless = Durations()
    endless.add(1e6)
    assert endless.quantile(0.5) == BOUNDS[-1]


def test_the_quickest_loads_are_in_the_first_bucket_though_nobody_put_them_there() -> None:
    tally = Tally()
    for seconds in (0.0, QUICK, 0.003, 0.003):
        tally.loaded(seconds)
    assert tally.load_durations.counts[0] == 2
    assert tally.load_durations.count == tally.loads == 4
    assert tally.load_durations.seconds == tally.load_time
