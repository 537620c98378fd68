"""Four processes of fifty callers each, one missing key: one load, and one more if its process is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.race.stampede import Stampede
from tests.servers import RedisServer

pytestmark = pytest.mark.alone

CROWDS = {"threads": ["threads"] * 4, "tasks": ["tasks"] * 4, "mixed": ["threads", "tasks"] * 2}


@pytest.mark.parametrize("colours", CROWDS.values(), ids=CROWDS)
def test_a_stampede_over_four_processes_is_one_load(
    colours: list[str], start_redis: Callable[..., RedisServer]
) -> None:
    stampede = Stampede(start_redis(), colours)
    try:
        stampede.go()
        waited = stampede.waited()
    finally:
        stampede.close()
    assert len(waited) == 200
    assert len(stampede.loads()) == 1


@pytest.mark.parametrize("colours", CROWDS.values(), ids=CROWDS)
def test_a_killed_loader_is_replaced_once(colours: list[str], start_redis: Callable[..., RedisServer]) -> None:
    stampede = Stampede(start_redis(), colours, nap=1.0, lease=1.0)
    try:
        stampede.go()
        deadline = time.monotonic() + 20
        while not stampede.loads() and time.monotonic() < deadline:
            time.sleep(0.01)  # another process's file; there is no event to wait for
        os.kill(stampede.loads()[0], signal.SIGKILL)
        waited = stampede.waited()
    finally:
        stampede.close()
    first, *further = stampede.loads()
    assert len(further) == 1
    assert further[0] != first
    assert len(waited) == 150
