"""Fixtures for tests on a real Redis: a cache, the same cache as another process would have it, a line to listen on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from cachecraft import Cache
from tests.callers import PATIENCE, Async, Sync, running_loop
from tests.proxy import Proxy
from tests.servers import RedisServer


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Iterator[Sync | Async]:
    """As everywhere, but the loop ends as `asyncio.run` ends one: connections hang up then."""
    if request.param == "sync":
        yield Sync()
        return
    with running_loop() as loop:
        yield Async(loop)
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(PATIENCE)


@pytest.fixture
def cache(redis_url: str) -> Iterator[Cache]:
    """A cache on the shared server."""
    with Cache(redis_url, namespace="shop") as made:
        yield made


@pytest.fixture
def other(redis_url: str) -> Iterator[Cache]:
    """The same cache as another process would have it: nothing is shared with `cache` but the server."""
    with Cache(redis_url, namespace="shop") as made:
        yield made


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[Proxy]:
    """A line to the shared server that can be listened to and disturbed."""
    with Proxy(redis_server.port) as made:
        yield made


def in_child(status_of: object) -> int:
    """Fork, run `status_of()` in the child, and answer the status that it returned; the child ends with `os._exit`."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = status_of()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


__all__ = ["cache", "colour", "in_child", "other", "proxy"]
