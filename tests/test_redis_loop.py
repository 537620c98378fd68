"""The event loop goes on turning whatever Redis does: no call of ours holds it up for 50 ms."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from cachecraft import Cache
from tests import states
from tests.servers import RedisServer

MOST = 0.05
"""Seconds that one turn of the loop may take."""


@contextmanager
def _well(server: RedisServer) -> Iterator[None]:
    yield


@contextmanager
def _silent_port(server: RedisServer) -> Iterator[None]:
    """In the server's place somebody takes connections and says nothing."""
    server.kill()
    with socket.create_server(("127.0.0.1", server.port), backlog=200):
        yield
    server.start()


STATES = {
    "well": _well,
    "SIGSTOP": states.frozen,
    "SIGKILL": states.killed,
    "DEBUG SLEEP": states.asleep,
    "CLIENT PAUSE": states.clients_paused,
    "CLIENT PAUSE WRITE": states.writes_paused,
    "a port that accepts nothing": _silent_port,
}


async def _longest_turn(made: Cache) -> float:
    """Use the cache in every way, in forty tasks at once. Answers how long a bystander had to wait for its turn."""

    @made.cached(ttl=60, key="n:{number}", tags=["t:{number}"])
    async def f(number: int) -> int:
        return number

    async def use(number: int) -> None:
        assert await f(number) == number
        await f.get(number)
        await f.refresh(number)
        await f.set(number, number)
        await f.invalidate(number)
        await made.ainvalidate(pattern=f"n:{number}*", tags=[f"t:{number}"])

    users = asyncio.gather(*(use(number) for number in range(40)))
    longest, before = 0.0, time.perf_counter()
    while not users.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    await users
    return longest


@pytest.mark.parametrize("name", STATES)
def test_no_state_of_the_server_holds_up_the_event_loop(start_redis: Callable[..., RedisServer], name: str) -> None:
    """What blocks does so each time, and a machine that stutters does not: the best of three counts."""
    state: Callable[[RedisServer], AbstractContextManager[None]] = STATES[name]
    turns = []
    for _ in range(3):
        server = start_redis("--enable-debug-command", "local")
        with Cache(server.url, namespace="shop", timeout=0.2) as made, asyncio.Runner() as loop:
            loop.run(_longest_turn(made))
            with state(server):
                turns.append(loop.run(_longest_turn(made)))
        if turns[-1] <= MOST:
            return
    pytest.fail(f"the loop was held up for {min(turns) * 1000:.0f} ms at the least")
