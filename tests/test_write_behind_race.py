"""Between processes, of which workers are killed: nobody reads what was written over, no write is lost or passed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.race.behind import race
from tests.servers import RedisServer

pytestmark = pytest.mark.alone


def test_whatever_becomes_of_workers_reads_are_fresh_and_writes_arrive_in_order(
    start_redis: Callable[..., RedisServer],
) -> None:
    result = race(start_redis(), 4.0, ["writer", "writer", "reader", "areader"])
    assert (result.stale, result.back, result.undelivered) == (0, 0, 0), result
    assert result.reads > 500, result
    assert result.writes > 200, result
    assert result.kills >= 1, result


def test_the_race_finds_out_who_does_not_ask_what_waits(start_redis: Callable[..., RedisServer]) -> None:
    result = race(start_redis(), 2.0, ["writer", "writer", "stranger"])
    assert result.of_strangers > 5, result


def test_whoever_does_not_ask_harms_nobody_who_does(start_redis: Callable[..., RedisServer]) -> None:
    result = race(start_redis(), 3.0, ["writer", "reader", "areader", "stranger"])
    assert (result.stale, result.back, result.undelivered) == (0, 0, 0), result
    assert result.of_strangers > 5, result
