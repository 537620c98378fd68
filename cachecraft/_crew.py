"""Runs work behind the callers' backs: threads for the sync one, tasks of the running loop for the other, both bounded.

It knows nothing of flows and of the cache: only what to run, and what to call when that is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

from cachecraft._core.errors import told

log: Final = logging.getLogger("cachecraft")

_LINGER: Final = 10.0
"""Seconds that a thread stays without work."""


_Job = tuple[Callable[[], object], Callable[[], object]]
"""What to run, and what to call when that is over."""


class Crew:
    """Daemon threads that come with work and go without, and the tasks under way."""

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
        """Take no more work, and end what waits. What runs in a thread runs to its end.

        The garbage collector may call this in the middle of anything. So it takes no lock of the crew's, and those that
        the ``ended`` of what waits may take are re-entrant.
        """
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
