"""Performs what flows ask for, for threads (``run``) and for tasks (``arun``); waits where a flow has to wait.

Flows decide, drivers do. Both drivers perform the same verbs; nothing here knows a key or a policy.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

from cachecraft._core.effects import Effect, Flow, Join, Load, Remote, Sleep, Spawn, Stopped, passable
from cachecraft._core.flights import FLYING, Flight, current
from cachecraft._core.ports import Backend
from cachecraft._crew import Crew

T = TypeVar("T")


class Driver:
    """Runs flows with one backend and one crew."""

    def __init__(self, backend: Backend | None, crew: Crew) -> None:
        self.backend = backend
        self.crew = crew

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end in this thread."""
        send, value = flow.send, None
        while True:
            try:
                effect = send(value)
                while True:
                    try:
                        value = self._perform(effect)
                        break
                    except BaseException as error:
                        effect = flow.throw(passable(error))
            except StopIteration as end:
                return cast("T", end.value)
            except Stopped as stopped:
                raise stopped.stop from None

    async def arun(self, flow: Flow[T]) -> T:
        """Run a flow to its end in this task."""
        send, value, backend = flow.send, None, self.backend
        while True:
            try:
                effect = send(value)
                while True:
                    try:
                        if isinstance(effect, Remote) and not effect.settles and backend is not None:
                            value = await backend.aperform(effect)  # a hit in Redis, with one frame less to go through
                        else:
                            value = await self._aperform(effect)
                        break
                    except BaseException as error:
                        effect = flow.throw(passable(error))
            except StopIteration as end:
                return cast("T", end.value)
            except Stopped as stopped:
                raise stopped.stop from None

    # -- threads ---------------------------------------------------------------------------------------------

    def _perform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, Remote):
            assert self.backend is not None
            return self.backend.perform(effect)
        if isinstance(effect, Load):
            return effect.call() if effect.timeout is None else self._load_within(effect.call, effect.timeout)
        if isinstance(effect, Join):
            return self._join(effect.flight, effect.patience)
        if isinstance(effect, Spawn):
            return self.crew.submit(partial(self._alone, effect.flow), effect.ended)
        if isinstance(effect, Sleep):
            if effect.bell is None:
                return time.sleep(effect.seconds)
            return self._join(effect.bell, effect.seconds)
        raise TypeError(f"a flow asked for {effect!r}, which no driver knows")

    def _alone(self, flow: Callable[[], Flow[Any]]) -> Any:
        current.set(None)  # nobody waits for this, so it takes part in no chain of loads
        return self.run(flow())

    def _join(self, flight: Flight, patience: float) -> float:
        if flight.state != FLYING:
            return patience
        if flight.home is not None and flight.home is _loop_here():
            return 0.0  # to block here would be to block the very task that is waited for
        gate = threading.Lock()
        gate.acquire()
        opened = _Once(gate.release)
        flight.subscribe(opened)
        until = time.monotonic() + patience
        try:
            gate.acquire(timeout=patience)
        finally:
            flight.unsubscribe(opened)
        return max(0.0, until - time.monotonic())

    def _load_within(self, call: Callable[[], Any], timeout: float) -> Any:
        """Wait for a loader no longer than ``timeout``; a thread cannot be stopped, so it runs on unheard."""
        done = threading.Event()
        outcome: list[tuple[bool, Any]] = []

        def load() -> None:
            try:
                outcome.append((True, call()))
            except BaseException as error:
                outcome.append((False, error))
            done.set()

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(load,), name="cachecraft-load", daemon=True).start()
        if not done.wait(timeout):
            raise TimeoutError(f"the loader took longer than timeout={timeout} seconds")
        worked, result = outcome[0]
        if worked:
            return result
        raise result

    # -- tasks -----------------------------------------------------------------------------------------------

    async def _aperform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, Remote):
            assert self.backend is not None
            if effect.settles:
                return await through(self.backend.aperform(effect))
            return await self.backend.aperform(effect)
        if isinstance(effect, Load):
            if effect.flight is not None:
                effect.flight.home = _loop_here()
            if effect.timeout is None:
                return await effect.call()
            async with asyncio.timeout(effect.timeout):
                return await effect.call()
        if isinstance(effect, Join):
            return await self._ajoin(effect.flight, effect.patience)
        if isinstance(effect, Spawn):
            return self.crew.spawn(self._aalone(effect.flow), effect.ended)
        if isinstance(effect, Sleep):
            if effect.flight is not None:
                effect.flight.home = _loop_here()
            if effect.bell is None:
                return await asyncio.sleep(effect.seconds)
            return await self._ajoin(effect.bell, effect.seconds)
        raise TypeError(f"a flow asked for {effect!r}, which no driver knows")

    async def _aalone(self, flow: Callable[[], Flow[Any]]) -> Any:
        current.set(None)  # as for threads
        return await self.arun(flow())

    async def _ajoin(self, flight: Flight, patience: float) -> float:
        if flight.state != FLYING:
            return patience
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not landed.done():
                landed.set_result(None)

        def opened() -> None:
            if _loop_here() is loop:
                wake()
                return
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:
                return  # the loop has been closed, and nobody waits there any more

        flight.subscribe(opened)
        until = loop.time() + patience
        try:
            await asyncio.wait((landed,), timeout=patience)
        finally:
            flight.unsubscribe(opened)
        return max(0.0, until - loop.time())


class _Once:
    """Calls a function the first time only."""

    __slots__ = ("_calls",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._calls = [call]

    def __call__(self) -> None:
        try:
            call = self._calls.pop()
        except IndexError:
            return
        call()


def _loop_here() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()


async def through(work: Awaitable[T]) -> T:
    """Await to the end, even if the caller is cancelled meanwhile; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:
            pass
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()
