"""The harness keeps its own promises, so that a red test means a red cachecraft."""

import asyncio
import time
from collections.abc import Callable

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import FakeClock
from tests.servers import RedisServer


async def test_async_tests_run_in_a_loop_in_debug_mode(clock: FakeClock) -> None:
    before = clock()
    clock.advance(1.5)
    assert clock() == before + 1.5
    assert asyncio.get_running_loop().get_debug()


ran: list[int] = []


@given(number=st.integers())
async def test_async_properties_are_awaited(number: int) -> None:
    await asyncio.sleep(0)
    ran.append(number)
    assert ran


def test_each_test_gets_an_empty_server(redis_server: RedisServer, redis_url: str) -> None:
    assert redis_server.cli("DBSIZE") == 0
    with redis.Redis.from_url(redis_url) as client:
        client.set("k", b"\xff", px=60_000)
    assert redis_server.cli("GET", "k") == b"\xff"
    assert redis_server.keys_without_ttl() == []


@pytest.mark.plain_keys
def test_lasting_keys_are_found_in_every_database(redis_server: RedisServer, redis_url: str) -> None:
    redis_server.cli("SET", "brief", 1, "PX", 60_000, db=3)
    redis_server.cli("SET", "lasting", 1, db=3)
    assert redis_server.keys_without_ttl() == ["3:b'lasting'"]


def test_a_paused_server_is_silent_until_resumed(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    with redis.Redis.from_url(server.url, socket_timeout=0.05) as client:
        client.set("k", 1, px=60_000)
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.execute_command("GET", "k")
        server.resume()
    assert server.cli("GET", "k") == b"1"


def test_a_restarted_server_keeps_its_address_and_loses_its_memory(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--maxmemory", "8mb")
    url, pid = server.url, server.pid
    server.cli("SET", "k", 1)
    server.pause()
    server.restart()
    assert server.url == url
    assert server.pid != pid
    assert server.cli("GET", "k") is None
    server.kill()
    with pytest.raises(redis.ConnectionError):
        server.cli("PING")


def test_a_server_that_cannot_start_says_why_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="Bad directive"):
        RedisServer("--no-such-option", "1")
    assert time.monotonic() - began < 5


def test_a_machine_without_redis_is_told_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="ensure-redis"):
        RedisServer()
