"""A cache that is collected without having been closed says so, as a file does, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache, _crew
from cachecraft.backends import heart
from tests.callers import PATIENCE, Async, Sync, running_loop, until
from tests.redis_kit import colour, in_child  # noqa: F401 - fixtures
from tests.servers import RedisServer


@pytest.fixture(autouse=True)
def _nothing_of_others() -> None:
    gc.collect()


def collected(make: Callable[[], object]) -> list[str]:
    """What is warned of when nothing is left of what ``make`` did."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return [f"{each.category.__name__}: {each.message}" for each in caught]


@pytest.fixture
def clients(redis_server: RedisServer, redis_url: str) -> Callable[[], int]:
    """How many connections there are beyond those that were there before."""

    def count() -> int:
        return int(redis_server.cli("INFO", "clients")["connected_clients"])

    before = count()
    return lambda: count() - before


# -- it says so ------------------------------------------------------------------------------------------------


def test_it_warns_and_hangs_up(redis_url: str, clients: Callable[[], int], colour: Any) -> None:
    """In the async case the loop lives on, in another thread."""

    def use() -> None:
        made = Cache(redis_url, namespace="shop")
        assert colour.on(made).set("k", 1)
        assert clients() > 0

    (warning,) = collected(use)
    assert warning.startswith(f"ResourceWarning: unclosed <Cache {redis_url} namespace='shop'")
    until(lambda: clients() == 0)


def test_the_warning_shows_no_password(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    server.cli("CONFIG", "SET", "requirepass", "hunter2")
    (warning,) = collected(lambda: Cache(f"redis://:hunter2@127.0.0.1:{server.port}/0").set("k", 1))
    assert f"unclosed <Cache redis://:***@127.0.0.1:{server.port}/0 " in warning
    assert "hunter2" not in warning


def test_its_threads_end(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "_LINGER", PATIENCE * 10)
    monkeypatch.setattr(_crew, "_LINGER", PATIENCE * 10)
    before = set(threading.enumerate())

    def ours() -> set[str]:
        return {each.name for each in set(threading.enumerate()) - before}

    def use() -> None:
        made = Cache(redis_url, namespace="shop")
        f = made.cached(ttl=60, key="k", refresh_ahead=59.999, jitter=None)(lambda: 1)
        f()
        until(lambda: f.stats.refreshes if f() else 0)
        until(lambda: f.stats.loads >= 2 and not made.keeper.refreshing)  # type: ignore[attr-defined]  # a RemoteKeeper
        assert ours() >= {"cachecraft-heart", "cachecraft-1"}

    assert len(collected(use)) == 1
    until(lambda: not ours())


def test_a_function_keeps_its_cache_alive(redis_url: str, colour: Any) -> None:
    functions = []

    def use() -> None:
        functions.append(Cache(redis_url, namespace="shop").cached(ttl=60, key="k")(colour.loader(lambda: 1)))
        assert colour(functions[0]()) == 1

    assert collected(use) == []
    assert colour(functions[0]()) == 1
    assert functions[0].stats.hits == 1
    assert len(collected(functions.clear)) == 1


def test_a_cache_that_warned_is_gone(redis_url: str) -> None:
    """The warning names it, which must not bring it back."""
    left: list[Any] = []

    def use() -> None:
        made = Cache(redis_url, namespace="shop")
        made.set("k", 1)
        left.append(weakref.ref(made))

    collected(use)
    gc.collect()
    assert left[0]() is None


def test_if_warnings_are_errors_it_hangs_up_all_the_same(redis_url: str, clients: Callable[[], int]) -> None:
    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda what: unraisable.append(str(what.exc_value))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Cache(redis_url, namespace="shop").set("k", 1)
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert len(unraisable) == 1
    until(lambda: clients() == 0)


def test_the_collector_may_come_while_a_thread_is_in_the_middle_of_its_work(redis_url: str) -> None:
    """It runs wherever memory is asked for, in a thread that holds a lock as well: to wait for that is to hang."""
    made = Cache(redis_url, namespace="shop")
    made.set("k", 1)

    def collect() -> None:
        with made.driver.crew._lock, made.keeper.heart._changed, made._lock:  # type: ignore[attr-defined]  # a RemoteKeeper
            made.__del__()

    with pytest.warns(ResourceWarning, match="unclosed"):
        Sync().start(collect).result(PATIENCE)


# -- it has nothing to say -------------------------------------------------------------------------------------


def test_nothing_is_said_of_what_holds_nothing(redis_url: str, redis_server: RedisServer) -> None:
    def closed() -> None:
        with Cache(redis_url, namespace="shop") as made:
            made.set("k", 1)

    async def aclosed() -> None:
        async with Cache(redis_url, namespace="shop") as made:
            await made.aset("k", 1)
            made.set("k", 1)

    def memory() -> None:
        made = Cache()
        made.cached(ttl=60, stale=60)(lambda: 1)()
        made.set("k", 1)

    def unreachable() -> None:
        Cache("redis://127.0.0.1:1/0").set("k", 1)

    def refused() -> None:
        with pytest.raises(ValueError, match="url="):
            Cache("nosuch://x")

    for make in (closed, memory, unreachable, refused, lambda: Cache(redis_url), lambda: Cache(None)):
        assert collected(make) == []
    assert collected(lambda: asyncio.run(aclosed())) == []
    # The end of its loop has hung up already.
    assert collected(lambda: asyncio.run(Cache(redis_url, namespace="shop").aset("k", 1))) == []


def test_a_cache_of_somebody_elses_backend_is_nobodys_fault(redis_url: str) -> None:
    from cachecraft.backends.dialling import Dialling
    from cachecraft.backends.redis import RedisBackend

    class Plain:
        """A backend that knows no more than it must."""

        def __init__(self) -> None:
            self._inner = RedisBackend(Dialling(redis_url, 1, 1, 2))
            for name in ("perform", "aperform", "ping", "aping", "serve", "after_fork", "close", "aclose"):
                setattr(self, name, getattr(self._inner, name))

    assert collected(lambda: Cache(Plain()).set("k", 1)) == []  # type: ignore[arg-type]  # its methods come at runtime


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_answers_for_its_own_connections_only(redis_url: str) -> None:
    caches = [Cache(redis_url, namespace="shop")]
    caches[0].set("k", 1)

    def untouched() -> int:
        return len(collected(caches.clear))

    def used() -> int:
        return len(collected(lambda: caches.pop().set("k", 2)))

    assert in_child(untouched) == 0
    assert in_child(used) == 1
    assert caches[0].get("k") == 2
    caches[0].close()


@pytest.mark.parametrize("colour", ["cached", "asyncio"])
def test_the_end_of_the_interpreter_is_no_fault_of_the_default_cache(redis_url: str, colour: str) -> None:
    call = {"cached": "f()", "asyncio": "loop = asyncio.new_event_loop(); loop.run_until_complete(g())"}[colour]
    code = f"""
    import asyncio, gc
    from cachecraft import Cache, cached, configure
    configure({redis_url!r})
    own = Cache({redis_url!r}, namespace="own")
    @cached(key="f")
    def f():
        return 1
    @cached(key="g")
    async def g():
        return 1
    {call}
    own.set("k", 1)
    if "loop" in dir():
        loop.run_until_complete(loop.shutdown_asyncgens()); loop.close()
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=PATIENCE * 2, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# -- close ------------------------------------------------------------------------------------------------------


def test_close_hangs_up_on_the_loops_of_other_threads(redis_url: str, clients: Callable[[], int]) -> None:
    with running_loop() as loop:
        made = Cache(redis_url, namespace="shop")
        Async(loop).on(made).set("k", 1)
        assert clients() == 1
        made.close()
        until(lambda: clients() == 0)


def test_a_cache_forgets_the_loops_that_have_ended(redis_url: str) -> None:
    ended: list[Any] = []

    async def use() -> None:
        ended.append(weakref.ref(asyncio.get_running_loop()))
        await made.aset("k", 1)

    with Cache(redis_url, namespace="shop") as made:
        for _ in range(3):
            asyncio.run(use())
        gc.collect()
        assert [each() for each in ended] == [None] * 3
