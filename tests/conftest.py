"""The fixtures every test may use: a real Redis, a clock in the test's hand, and `async def` tests."""

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
from redis.exceptions import RedisError

from cachecraft import Cache
from tests.callers import Async, Sync, flights_of, running_loop, until
from tests.clock import FakeClock
from tests.servers import RedisServer

hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("dev"), derandomize=True, max_examples=60)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Give pytest a plain function for an `async def` test, also for one inside hypothesis' `@given`."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _in_new_loop(pyfuncitem.obj)
    given = getattr(pyfuncitem.obj, "hypothesis", None)
    if given is not None and inspect.iscoroutinefunction(given.inner_test):
        given.inner_test = _in_new_loop(given.inner_test)


def _in_new_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        # In debug mode the loop refuses calls from foreign threads instead of racing with them.
        asyncio.run(test(*args, **kwargs), debug=True)

    return run


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Iterator[Sync | Async]:
    """The test runs twice: for functions and threads, and for coroutine functions and tasks."""
    if request.param == "sync":
        yield Sync()
    else:
        with running_loop() as loop:
            yield Async(loop)


@pytest.fixture
def make_cache(clock: FakeClock) -> Iterator[Callable[..., Cache]]:
    """Make a cache in memory without jitter, under the test's clock. Afterwards no load may be left under way."""
    caches = []

    def make(url: str = "memory://", **options: Any) -> Cache:
        caches.append(Cache(url, **{"clock": clock, "jitter": None, **options}))
        return caches[-1]

    yield make
    for cache in caches:
        until(lambda cache=cache: not flights_of(cache))
        cache.close()


@pytest.fixture
def cache(make_cache: Callable[..., Cache]) -> Cache:
    return make_cache()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The shared server. A test that reconfigures, freezes or kills one takes its own from `start_redis`."""
    with RedisServer() as server:
        yield server
        assert server.keys_without_ttl() == []


@pytest.fixture
def start_redis(request: pytest.FixtureRequest) -> Iterator[Callable[..., RedisServer]]:
    """`start_redis(*args)` starts a further server, which ends with the test, looked through as the shared one is."""
    started: list[RedisServer] = []
    with ExitStack() as servers:

        def start(*args: str) -> RedisServer:
            started.append(servers.enter_context(RedisServer(*args)))
            return started[-1]

        yield start
        for server in started:
            if server.paused:
                server.resume()
            with contextlib.suppress(RedisError, OSError):  # it was killed, or answers nobody any more
                _no_lasting_keys(server, request)


@pytest.fixture
def redis_url(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The shared server, empty. Afterwards every key must have a ttl (P6), unless marked `plain_keys`."""
    redis_server.cli("FLUSHALL")
    yield redis_server.url
    _no_lasting_keys(redis_server, request)


def _no_lasting_keys(server: RedisServer, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("plain_keys") is not None:
        server.cli("FLUSHALL")
    elif keys := server.keys_without_ttl():
        pytest.fail(f"keys without a ttl were left: {', '.join(keys)}", pytrace=False)
