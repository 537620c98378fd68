"""Performs what flows ask for, for threads (``run``) and for tasks (``arun``): the only home of asyncio and of waiting.

Flows decide, drivers do. Both drivers perform the same verbs; nothing here knows a key or a policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar, cast

from cachecraft._core.effects import Effect, Flow, Join, Load, Remote, Sleep, Spawn, Stopped, passable
from cachecraft._core.errors import told
from cachecraft._core.flights import FLYING, Flight, current
from cachecraft._core.ports import Backend

T = TypeVar("T")

log: Final = logging.getLogger("cachecraft")

_LINGER: Final = 10.0
"""Seconds that a thread stays without work."""


_Job = tuple[Callable[[], object], Callable[[], object]]
"""What to run, and what to call when that is over."""


class Crew:
    """Runs flows behind the callers' backs: daemon threads for the sync ones, tasks for the others; both bounded.

    ``close`` takes no lock: the garbage collector may call it in the middle of anything, in a thread that holds one.
    """

    def __init__(self, *, threads: int = 8, backlog: int = 1000) -> None:
        self._threads = threads
        self._backlog = backlog
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self._lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        self._todo: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle = 0
        self._workers = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def after_fork(self) -> None:
        """In a forked child: the threads and tasks of the parent are not here."""
        self._lock = threading.RLock()
        self._reset()

    def submit(self, work: Callable[[], object], ended: Callable[[], object]) -> bool:
        """Run ``work`` in a thread, in a copy of the caller's context, then ``ended``.

        False if the backlog is full, or there is no thread to be had.
        """
        context = contextvars.copy_context()
        with self._lock:
            if self._closed or self._todo.qsize() >= self._backlog:
                return False
            if self._idle <= self._todo.qsize() and self._workers < self._threads:
                self._workers += 1
                # Daemons: a refresh must not keep an interpreter from ending.
                thread = threading.Thread(target=self._work, name=f"cachecraft-{self._workers}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is ending
                    self._workers -= 1
                    if not self._workers:
                        return False
            self._todo.put((partial(context.run, work), ended))
        return True

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._todo.get(timeout=_LINGER)
            except Empty:
                job = None
            with self._lock:
                self._idle -= 1
                done = self._closed or (job is None and self._todo.empty())
                self._workers -= done
            if done and job is not None:
                job[1]()
            if done:
                return
            if job is not None:
                work, ended = job
                try:
                    work()
                except BaseException as error:  # a loader that wants to end its thread does not end ours
                    log.warning("a refresh behind the callers' backs ended with %s", told(error))
                finally:
                    ended()
                del job, work, ended

    def spawn(self, work: Awaitable[Any], ended: Callable[[], object]) -> bool:
        """Run a coroutine as a task of the running loop, then ``ended``. False if too many run already."""
        if len(self._tasks) >= self._backlog:
            self._tasks = {task for task in self._tasks if not task.get_loop().is_closed()}
        if self._closed or len(self._tasks) >= self._backlog:
            cast("Any", work).close()
            return False
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._done)
        task.add_done_callback(lambda _: ended())
        return True

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its flow has counted it

    def close(self) -> None:
        """Take no more work, and end what waits. What runs in a thread runs to its end."""
        self._closed = True
        with contextlib.suppress(Empty):
            while True:
                job = self._todo.get_nowait()
                if job is not None:
                    job[1]()
        for _ in range(self._workers):
            self._todo.put(None)  # wakes who waits for work
        for task in list(self._tasks):
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    def __repr__(self) -> str:
        return f"<Crew: {self._workers} threads, {self._todo.qsize()} waiting, {len(self._tasks)} tasks>"


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
            return time.sleep(effect.seconds)
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
            return await asyncio.sleep(effect.seconds)
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
