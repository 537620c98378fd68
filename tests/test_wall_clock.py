"""The wall clock may jump: no entry lives longer or shorter for it, in memory or in Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import Async, Sync
from tests.redis_kit import colour  # noqa: F401 - a fixture

Colour = Sync | Async

HOUR = 3600


@pytest.fixture(params=["memory", "Redis"])
def made(request: pytest.FixtureRequest) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, namespace="shop", jitter=None) as cache:
        yield cache


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
@pytest.mark.parametrize("options", [{}, {"stale": 60, "grace": 60}, {"refresh_ahead": 5}], ids=str)
def test_an_hour_more_or_less_changes_nothing(
    made: Cache, colour: Colour, monkeypatch: pytest.MonkeyPatch, by: int, options: dict[str, Any]
) -> None:
    """For entries from before the jump, from after it, and for both once the clock has been put right."""
    f = made.cached(ttl=60, key="n:{number}", tags=["t"], **options)(colour.loader(lambda number: number))
    assert colour(f(1)) == 1
    real, real_ns = time.time, time.time_ns
    with monkeypatch.context() as jumped:
        jumped.setattr(time, "time", lambda: real() + by)
        jumped.setattr(time, "time_ns", lambda: real_ns() + by * 10**9)
        assert [colour(f(number)) for number in (1, 2, 2)] == [1, 2, 2]
    assert [colour(f(number)) for number in (1, 2)] == [1, 2]
    assert (f.stats.loads, f.stats.hits, f.stats.stale, f.stats.refreshes) == (2, 4, 0, 0)


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
def test_an_entry_ends_with_its_ttl_all_the_same(
    made: Cache, colour: Colour, monkeypatch: pytest.MonkeyPatch, by: int
) -> None:
    f = made.cached(ttl=0.2, key="k")(colour.loader(lambda: 1))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + by)
    colour(f())
    time.sleep(0.25)  # Redis has a clock of its own, which no test can turn
    assert colour(f.get()) is MISSING
