"""Whatever state a server is in, callers get what their loader returns: on real servers, with what is counted in each.

One story for all states (they are entered and left in ``tests.states``): a cache is warm, the state begins, every way
of asking is tried, the source changes and is invalidated, the state ends. Nothing may have been raised, nothing old
served, and in the end results are kept again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from cachecraft import MISSING, BackendError, Cache
from tests import states
from tests.callers import Async, Sync, until
from tests.redis_kit import colour  # noqa: F401 - a fixture
from tests.servers import RedisServer

Colour = Sync | Async

BUDGET = 3.0
"""Seconds that no call may take: far above what is promised, far below what redis-py would do."""


@dataclass(frozen=True)
class State:
    """How to bring a server into it, and what is to be expected there; `None` where either is right."""

    of: Callable[[RedisServer], AbstractContextManager[None]]
    hits: bool | None
    """Whether what was kept is served."""
    counts: bool | None
    """Whether `backend_errors` grows."""
    waits: bool | None
    """Whether an invalidation has to wait in the journal."""
    options: tuple[str, ...] = ()
    """What its server is started with."""
    timeout: float = 2.0
    """Seconds an answer may take: where one comes, time enough for the busiest machine."""


LOADING = ("--dbfilename", "large.rdb", "--loading-process-events-interval-bytes", "1024")
DEBUG = ("--enable-debug-command", "local")
STATES = {
    "LOADING": State(states.loading, hits=False, counts=True, waits=True, options=LOADING),
    "READONLY": State(states.a_replica, hits=True, counts=True, waits=True),
    "MASTERDOWN": State(states.without_its_primary, hits=False, counts=True, waits=True),
    "OOM": State(states.out_of_memory, hits=True, counts=True, waits=False),
    "BUSY": State(states.busy, hits=False, counts=True, waits=True),
    "NOAUTH": State(states.locked, hits=False, counts=True, waits=True),
    "NOPERM": State(states.without_any_right, hits=False, counts=True, waits=True),
    "NOPERM to write": State(states.without_the_right_to_write, hits=True, counts=True, waits=True),
    "NOREPLICAS": State(states.too_few_replicas, hits=True, counts=True, waits=True),
    "MISCONF": State(states.unable_to_save, hits=True, counts=True, waits=True),
    "MAXCLIENTS": State(states.full_of_clients, hits=False, counts=True, waits=True),
    "SCRIPT FLUSH": State(states.scripts_flushed, hits=True, counts=False, waits=False),
    "FLUSHALL": State(states.flushed, hits=False, counts=False, waits=False),
    "CLIENT KILL": State(states.clients_killed, hits=None, counts=None, waits=None),
    # The first two end by themselves, so nobody knows whether it was before the invalidation.
    "CLIENT PAUSE": State(states.clients_paused, hits=False, counts=True, waits=None, timeout=0.2),
    "DEBUG SLEEP": State(states.asleep, hits=False, counts=True, waits=None, options=DEBUG, timeout=0.2),
    "CLIENT PAUSE WRITE": State(states.writes_paused, hits=True, counts=True, waits=True, timeout=0.2),
    "SIGSTOP": State(states.frozen, hits=False, counts=True, waits=True, timeout=0.2),
    "SIGKILL": State(states.killed, hits=False, counts=True, waits=True),
    "restart": State(states.restarted_empty, hits=None, counts=None, waits=None),
}


def _call(colour: Colour, fn: Callable[..., Any], *args: Any) -> Any:
    return colour.start(fn, *args).result(BUDGET)


def _is_well(cache: Cache) -> bool:
    return not (cache.stats.breaker_open or cache.stats.journal)


def _keeps_again(colour: Colour, f: Any, item: int) -> bool:
    colour(f(item))
    return colour(f.get(item)) is not MISSING


@pytest.mark.parametrize("name", STATES)
def test_no_state_of_the_server_reaches_the_caller(
    start_redis: Callable[..., RedisServer], colour: Colour, name: str
) -> None:
    state = STATES[name]
    server = start_redis(*state.options)
    price = [1]
    load = colour.loader(lambda item: price[0])
    with (
        Cache(server.url, namespace="shop", timeout=state.timeout) as here,
        Cache(server.url, namespace="shop", timeout=state.timeout) as there,
    ):
        f, g = (each.cached(ttl=60, key="price:{item}", tags=["t:{item}"])(load) for each in (here, there))
        for each in (f, g):
            assert [colour(each(item)) for item in (1, 2)] == [1, 1]
        hits = f.stats.hits
        with state.of(server):
            assert _call(colour, f, 1) == 1
            assert state.hits in (None, f.stats.hits == hits + 1)
            assert _call(colour, f, 3) == 1
            assert _call(colour, f.get, 9) is MISSING
            assert _call(colour, f.set, 1, 8) in (True, False)
            assert _call(colour, f.refresh, 2) == 1
            price[0] = 2
            assert _call(colour, f.invalidate, 1) in (0, 1)
            assert _call(colour, f, 1) == 2  # what was invalidated is not served, however it stands with the server
            assert f.stats.errors == 0
            assert state.counts in (None, f.stats.backend_errors > 0)
            assert state.waits in (None, here.stats.journaled > 0)
        until(lambda: _is_well(here))
        assert colour(g(1)) == colour(f(1)) == 2
        until(lambda: _keeps_again(colour, f, 5))
        until(lambda: _keeps_again(colour, g, 6))


# -- where the URL itself leads astray -------------------------------------------------------------------------------


@pytest.mark.parametrize("astray", ["a database that is not there", "encrypted, to a server that is not"])
def test_a_url_that_leads_astray_costs_little_and_is_counted(
    start_redis: Callable[..., RedisServer], colour: Colour, astray: str
) -> None:
    server = start_redis()
    url = f"{server.url}99" if "database" in astray else server.url.replace("redis://", "rediss://")
    with Cache(url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: number))
        assert [_call(colour, f, number) for number in range(5)] == list(range(5))
        assert f.stats.backend_errors == f.stats.misses == f.stats.loads == 5
        with pytest.raises(BackendError):
            colour.on(made).ping()


# -- what happens to a load that is under way ------------------------------------------------------------------------


def test_a_flush_during_a_load_costs_the_store_and_nothing_else(
    start_redis: Callable[..., RedisServer], colour: Colour
) -> None:
    server = start_redis()

    @colour.loader
    def load(number: int) -> int:
        if not f.stats.loads:
            server.cli("FLUSHALL")
        return number

    with Cache(server.url, namespace="shop") as made:
        f: Any = made.cached(ttl=60, key="n:{number}", tags=["t"])(load)
        assert colour(f(1)) == 1
        assert (f.stats.store_lost, f.stats.backend_errors) == (1, 0)
        assert colour(f.get(1)) is MISSING
        assert colour(f(1)) == colour(f.get(1)) == 1
