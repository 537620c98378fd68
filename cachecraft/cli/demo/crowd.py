"""The callers: so many threads and so many tasks of one event loop, let loose at the same moment, each with its log.

It knows nothing of what they call.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

Watch = Callable[[int], object]
"""Is told how many calls have been answered."""


@dataclass(slots=True)
class Log:
    """What callers saw: how long each call waited, in seconds, and how many answers were out of date."""

    waits: list[float] = field(default_factory=list)
    stale: int = 0

    def note(self, began: float, *, stale: bool) -> None:
        self.waits.append(time.perf_counter() - began)
        self.stale += stale

    def add(self, other: Log) -> None:
        self.waits += other.waits
        self.stale += other.stale

    def percentile(self, percent: float) -> float:
        """How long the given percentage of calls waited at most, in seconds."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


class Crowd:
    """Threads and tasks that can be sent again and again. ``leaving`` is set once they are to go home early."""

    def __init__(self, threads: int, tasks: int) -> None:
        self.threads = threads
        self.tasks = tasks
        self.leaving = threading.Event()
        self._gate = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="caller")
        self._loop = asyncio.new_event_loop()
        self._runner = threading.Thread(target=self._loop.run_forever, name="event-loop", daemon=True)
        self._runner.start()

    def __len__(self) -> int:
        return self.threads + self.tasks

    def send(
        self,
        by_thread: Callable[[Log], object],
        by_task: Callable[[Log], Awaitable[object]] | None = None,
        *,
        watch: Watch,
        errand: Callable[[], object] | None = None,
    ) -> Log:
        """Have every thread and every task make its calls, all starting at once; what they saw, taken together.

        ``errand`` runs meanwhile in the calling thread.
        """
        threads = [Log() for _ in range(self.threads)]
        tasks = [Log() for _ in range(self.tasks)] if by_task else []
        self._gate.clear()
        futures: list[Future[Any]] = [self._pool.submit(self._behind_gate, by_thread, log) for log in threads]
        if by_task:
            futures.append(asyncio.run_coroutine_threadsafe(_gather(by_task, tasks), self._loop))
        self._gate.set()
        if errand:
            errand()
        total = Log()
        running: set[Future[Any]] = set(futures)
        while running:
            running = wait(running, timeout=0.05).not_done
            watch(sum(len(log.waits) for log in (*threads, *tasks)))
        for future in futures:
            future.result()
        for log in (*threads, *tasks):
            total.add(log)
        return total

    def _behind_gate(self, calls: Callable[[Log], object], log: Log) -> None:
        self._gate.wait()
        if not self.leaving.is_set():
            calls(log)

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """What a coroutine answers, in the crowd's event loop."""
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    def close(self) -> None:
        """Send everybody home, in the middle of their calls if need be, and wait until they are gone."""
        self.leaving.set()
        self._gate.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.ask(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._runner.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _gather(calls: Callable[[Log], Awaitable[object]], logs: list[Log]) -> None:
    await asyncio.gather(*(calls(log) for log in logs))


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
