"""One test body for ``def`` and for ``async def``: loaders, callers and gates in both colours.

A loader is written once. Where it is to wait it yields a ``Gate``, and what it returns is its result::

    @cache.cached
    @colour.loader
    def load(x):
        yield gate
        return x

    caller = colour.start(load, 1)      # in a thread or a task of its own
    gate.reached()                      # now the loader waits at the gate
    gate.open()
    assert caller.result(10) == 1
    assert colour(load(1)) == 1         # or simply call it
"""

import asyncio
import functools
import inspect
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

PATIENCE = 10.0
"""Seconds after which a test has failed rather than being slow."""


class Gate:
    """Where loaders wait until the test lets them go on."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()

    def reached(self) -> None:
        """Return once a loader (one more than before) stands here."""
        assert self._arrived.acquire(timeout=PATIENCE), "no loader came to the gate"

    def open(self) -> None:
        self._opened.set()

    def pass_through(self) -> None:
        self._arrived.release()
        assert self._opened.wait(PATIENCE), "nobody opened the gate"

    async def apass_through(self) -> None:
        self._arrived.release()
        async with asyncio.timeout(PATIENCE):
            while not self._opened.is_set():
                await asyncio.sleep(0.0005)


def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds; for what gives no signal, such as a counter."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.0005)


class Sync:
    """Plain functions, called in threads."""

    is_async = False

    def __call__(self, result: Any) -> Any:
        return result

    def loader(self, body: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isgeneratorfunction(body):
            return body

        @functools.wraps(body)
        def load(*args: Any, **kwargs: Any) -> Any:
            steps = body(*args, **kwargs)
            while True:
                try:
                    gate = next(steps)
                except StopIteration as end:
                    return end.value
                gate.pass_through()

        return load

    def start(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def on(self, cache: Any) -> Any:
        """The methods of a cache in this colour."""
        return cache

    def __repr__(self) -> str:
        return "sync"


class Async:
    """Coroutine functions, called in tasks of one loop in a thread of its own."""

    is_async = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def __call__(self, result: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(result), self.loop).result(PATIENCE)

    def loader(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        async def load(*args: Any, **kwargs: Any) -> Any:
            if not inspect.isgeneratorfunction(body):
                return body(*args, **kwargs)
            steps = body(*args, **kwargs)
            while True:
                try:
                    gate = next(steps)
                except StopIteration as end:
                    return end.value
                await gate.apass_through()

        return load

    def start(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(fn(*args, **kwargs), self.loop)

    def on(self, cache: Any) -> Any:
        return _Twins(self, cache)

    def __repr__(self) -> str:
        return "async"


class _Twins:
    """Calls ``aget`` where the test says ``get``."""

    def __init__(self, colour: Async, cache: Any) -> None:
        self._colour = colour
        self._cache = cache

    def __getattr__(self, name: str) -> Callable[..., Any]:
        twin = getattr(self._cache, f"a{name}")
        return lambda *args, **kwargs: self._colour(twin(*args, **kwargs))


async def _awaited(result: Any) -> Any:
    return await result


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own, in debug mode."""
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = PATIENCE
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def identity(value: object) -> str:
    """What a parameter is called in a test's name: the same in every process, so without an address."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:60]


def flights_of(cache: Any) -> list[Any]:
    """The loads under way in a cache in memory."""
    memory = cache._keeper.memory if cache._keeper is not None else None
    if memory is None:
        return []
    boards = [memory.flights, *(table.flights for table in list(memory.tables))]
    return [flight for board in boards for flight in board.values()]
