"""Cancelled anywhere, thousands of times, on an uneven line: nobody gets another's reply, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.proxy import Proxy
from tests.redis_kit import other  # noqa: F401 - a fixture
from tests.servers import RedisServer

LEASE = 60
"""Seconds, more than the test takes: a lease that is gone by its end was given back."""


@pytest.fixture
def chance() -> random.Random:
    return random.Random(20)


@pytest.fixture
def uneven(redis_server: RedisServer, redis_url: str, chance: random.Random) -> Iterator[Proxy]:
    with Proxy(redis_server.port, delay=lambda: chance.choice((0.0, 0.0, 0.0, 0.002))) as line:
        yield line


def _leases(server: RedisServer) -> list[bytes]:
    keys = server.cli("KEYS", "shop:[nm]:*") or ["none"]
    return [key for key, slot in zip(keys, server.cli("MGET", *keys), strict=True) if slot and slot.startswith(b"L")]


def test_thousands_of_cancellations_leave_nothing_behind(
    uneven: Proxy, redis_server: RedisServer, chance: random.Random
) -> None:
    asyncio.run(_cancel_thousands(uneven, redis_server, chance))  # not in debug mode, which takes its time
    assert redis_server.keys_without_ttl() == []


async def _cancel_thousands(uneven: Proxy, redis_server: RedisServer, chance: random.Random) -> None:
    async with Cache(uneven.url, namespace="shop", timeout=5) as made:
        wrong: list[Any] = []

        @made.cached(ttl=60, key="n:{number}", tags=["t:{number}"], lease=LEASE, refresh_ahead=59.99, jitter=None)
        async def f(number: int) -> list[int]:
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            return [number] * 5

        @made.updates(f)
        async def write(number: int) -> list[int]:
            await asyncio.sleep(0)
            return [number] * 5

        async def use(number: int, what: int) -> None:
            value = await (f, f, f, f.refresh, f.get, write)[what](number)
            if value not in ([number] * 5, MISSING):
                wrong.append((number, value))
            if what == 2:
                await f.invalidate(number)

        async def round_(tasks: int) -> None:
            running = [asyncio.ensure_future(use(chance.randrange(30), chance.randrange(6))) for _ in range(tasks)]
            for _ in range(6):
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003)))
                for task in chance.sample(running, tasks // 8):
                    task.cancel()
            ends = await asyncio.gather(*running, return_exceptions=True)
            wrong.extend(end for end in ends if not (end is None or isinstance(end, asyncio.CancelledError)))

        for _ in range(80):
            await round_(64)
        assert wrong == []
        assert f.stats.reasons.get("corrupt", 0) == 0
        assert f.stats.backend_errors == 0
        keeper: Any = made.keeper
        boards = (keeper.flights, keeper.leading, keeper.watches, keeper.refreshing)
        async with asyncio.timeout(5):
            # What a task leaves to be done when it is over is done in the loop's next turn.
            while asyncio.all_tasks() - {asyncio.current_task()} or _leases(redis_server) or any(boards):
                await asyncio.sleep(0.005)
        assert [await f(number) for number in range(30)] == [[number] * 5 for number in range(30)]


def test_loops_that_end_in_the_middle_of_everything_leave_nothing_behind(
    uneven: Proxy, redis_server: RedisServer, chance: random.Random
) -> None:
    """`asyncio.run` cancels whatever still runs when its main coroutine is done. Threads go on beside it."""
    with Cache(uneven.url, namespace="shop", timeout=5) as made:
        wrong: list[Any] = []

        @made.cached(ttl=60, key="n:{number}", lease=LEASE)
        async def f(number: int) -> list[int]:
            await asyncio.sleep(0.002)
            return [number]

        g = made.cached(ttl=60, key="m:{number}", lease=LEASE)(lambda number: [number])

        async def main() -> None:
            for number in range(40):
                asyncio.ensure_future(f(number))  # noqa: RUF006 - the loop is to end on it
            await asyncio.sleep(chance.choice((0, 0.001, 0.005, 0.02)))

        def call() -> None:
            while not over.is_set():
                number = chance.randrange(20)
                if g(number) != [number]:
                    wrong.append(number)

        over = threading.Event()
        beside = threading.Thread(target=call)
        beside.start()
        for _ in range(25):
            asyncio.run(main())
        over.set()
        beside.join()
        assert wrong == []
        assert _leases(redis_server) == []
        keeper: Any = made.keeper
        assert [keeper.flights, keeper.leading, keeper.watches] == [{}] * 3
        assert made.stats.reasons.get("corrupt", 0) == 0
