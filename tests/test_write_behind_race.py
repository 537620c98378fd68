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
    """Also beside a process that has not heard that writes may wait: what it reads shows that the race can tell."""
    result = race(start_redis(), 3.0, ["writer", "writer", "reader", "areader", "stranger"])
    assert (result.stale, result.back, result.undelivered) == (0, 0, 0), result
    assert result.of_strangers > 5, result
    assert result.reads > 500, result
    assert result.writes > 200, result
    assert result.kills >= 1, result
