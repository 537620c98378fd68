"""A loader that ends by what is no `Exception`: the very object comes out, and the next caller loads at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import flights_of

LEASE = 60
"""Seconds, more than the test takes: had the lease not been given back, the next caller would wait that long."""


class Stop(BaseException):
    """Somebody's own way out."""


EXITS: list[Callable[[], BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    asyncio.CancelledError,
    Stop,
    lambda: BaseExceptionGroup("several", [Stop(), ValueError()]),
]


@pytest.fixture(params=["memory", "Redis"])
def made(request: pytest.FixtureRequest) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, namespace="shop") as cache:
        yield cache


def _nothing_is_left(made: Cache) -> bool:
    keeper: Any = made.keeper
    return not (flights_of(made) if hasattr(keeper, "memory") else keeper.flights or keeper.leading)


@pytest.mark.parametrize("kind", EXITS, ids=lambda kind: getattr(kind, "__name__", "group"))
def test_the_exit_of_a_function_is_its_callers(made: Cache, kind: Callable[[], BaseException]) -> None:
    exits = [kind()]

    @made.cached(ttl=60, key="k", lease=LEASE, wait=LEASE, cache_errors=Exception)
    def load() -> int:
        if exits:
            raise exits[0]
        return 1

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is, it is looked at
        load()
    assert caught.value is exits.pop()
    assert _nothing_is_left(made)
    assert load.get() is MISSING
    assert load() == 1
    assert (load.stats.errors, load.stats.waits, load.stats.backend_errors) == (1, 0, 0)


@pytest.mark.parametrize("kind", EXITS, ids=lambda kind: getattr(kind, "__name__", "group"))
def test_the_exit_of_a_coroutine_is_its_callers(made: Cache, kind: Callable[[], BaseException]) -> None:
    exits, caught = [kind()], []

    @made.cached(ttl=60, key="k", lease=LEASE, wait=LEASE)
    async def load() -> int:
        await asyncio.sleep(0)
        if exits:
            raise exits[0]
        return 1

    async def call() -> None:
        try:
            await load()
        except BaseException as error:  # looked at here: the loop makes another of a cancellation
            caught.append(error)

    asyncio.run(call())
    assert caught == [exits.pop()]
    assert _nothing_is_left(made)
    assert asyncio.run(load()) == 1
    assert (load.stats.errors, load.stats.waits, load.stats.backend_errors) == (1, 0, 0)


def test_a_program_that_exits_in_a_task_exits(made: Cache) -> None:
    """Past the loop, which ends by it."""

    exits = [SystemExit(3)]

    @made.cached(ttl=60, key="k", lease=LEASE, wait=LEASE)
    async def load() -> int:
        await asyncio.sleep(0)
        if exits:
            raise exits.pop()
        return 1

    with pytest.raises(SystemExit, match="3"):
        asyncio.run(load())
    assert asyncio.run(load()) == 1
    assert _nothing_is_left(made)
