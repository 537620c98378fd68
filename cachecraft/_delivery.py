"""One queue of writes behind while it is delivered: whose turn it is, in which order, how often each write is tried.

It knows one queue and the functions whose calls wait there; when to look, and for how long, is ``worker``'s business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, TypeVar

import tenacity

from cachecraft._behind import Behind, Call, Unknown
from cachecraft._core.behind import Buried, Delivered, Item, Waiting, settled
from cachecraft._core.effects import Claim, Release, Remote, Renew
from cachecraft._core.entry import TOKEN
from cachecraft._core.errors import BackendError, told
from cachecraft._core.events import WriteDelivered, tell
from cachecraft._core.ports import Lease
from cachecraft._core.sites import Cause, writing
from cachecraft.backends.remote import Remote as Place

T = TypeVar("T")

log: Final = logging.getLogger("cachecraft")

_MARK: Final = b"W"
_PAUSES: Final = tenacity.wait_random_exponential(multiplier=0.1, max=30)
"""Seconds between two attempts."""

_DEEP: Final = 10
"""Batches that are read at a time in search of what can be begun: many may wait behind a call that fails."""


class _Left(Exception):
    """What was not yet made is left in the queue: it is another's turn, or we are to end."""


class Delivery:
    """One queue and, while it is ours, the lease on it."""

    def __init__(
        self, behind: Behind, *, seats: asyncio.Semaphore, threads: Executor, batch: int, lease: float
    ) -> None:
        self.behind = behind
        self.label = behind.handle.subject.label
        self._seats = seats
        self._threads = threads
        self._batch = batch
        self._lease = lease
        self._held = b""
        self._beat: Lease | None = None
        self._busy: dict[str, asyncio.Task[None]] = {}
        """The keys of which something is being made. Nobody else begins with one of theirs."""
        self._leaving = asyncio.Event()
        self._trouble: BaseException | None = None
        """What somebody met who is not busy any more."""
        self.settled = 0
        """How many writes have been taken from the queue."""
        self.given_up = 0
        """How many writes have been put aside."""

    # -- whose turn it is ------------------------------------------------------------------------------------

    async def turn(self) -> bool:
        """Whether it is ours to deliver, now."""
        name = self.behind.queue.lease
        if await self._ours(self._held):
            return True
        self._forget()
        held = _MARK + os.urandom(TOKEN)
        if not await self._ask(Claim(name, held, self._lease)):
            return False
        self._held, self._beat = held, self._place.hold(name, held, self._lease)
        self._leaving.clear()
        return True

    async def _ours(self, held: bytes) -> bool:
        return bool(held) and await self._ask(Renew(self.behind.queue.lease, held, self._lease))

    async def leave(self) -> None:
        """End what is being made, and let another worker have its turn."""
        self._leaving.set()
        if self._busy:
            await asyncio.wait(self._busy.values())
        held = self._held
        self._forget()
        if held:
            await self._ask(Release(self.behind.queue.lease, held))

    def cancel(self) -> None:
        """End what is being made in the middle. What runs in a thread cannot be ended."""
        for task in self._busy.values():
            task.cancel()

    def _forget(self) -> None:
        if self._beat is not None:
            self._beat.end()
        self._held, self._beat = b"", None

    # -- what waits ------------------------------------------------------------------------------------------

    async def waiting(self, after: bytes = b"") -> tuple[Item, ...]:
        """The oldest that wait."""
        return await self._ask(Waiting(self.behind.queue, after, self._batch))

    async def begin(self) -> bool:
        """Begin to deliver the oldest that wait, but those whose key is busy. Answers whether anything waits."""
        met: set[str] = set()
        page = await self.waiting()
        waits, more = bool(page), _DEEP
        while page:
            keys: dict[str, list[Item]] = {}
            for item in page:
                keys.setdefault(item.key, []).append(item)
            # Of a key that was met, older ones may wait yet.
            for key in keys.keys() - met - self._busy.keys():
                task = self._busy[key] = asyncio.ensure_future(self._in_order(keys[key], self._held))
                task.add_done_callback(partial(self._ended, key))
            met |= keys.keys()
            more -= 1
            full = len(page) == self._batch and len(self._busy) < self._batch
            page = await self.waiting(page[-1].id) if full and more else ()
        return waits

    async def pause(self, seconds: float) -> None:
        """Until all that was begun is done, but no longer than this."""
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=seconds)

    def unknown(self) -> str | None:
        """The name of a function that something waits for and that is not known here, if that was met since.

        Raises:
            Exception: what else was met since.
        """
        trouble, self._trouble = self._trouble, None
        if trouble is None or isinstance(trouble, Unknown):
            return None if trouble is None else str(trouble)
        raise trouble

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        del self._busy[key]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _Left):
            self._trouble = error

    async def _in_order(self, items: list[Item], held: bytes) -> None:
        """Those of one key.

        Raises:
            Unknown: one is of a function that is not known here; it and what comes after it are left.
            _Left: what is not yet made is left.
        """
        calls = [self._read(item) for item in items]
        passed_over: list[bytes] = []
        for item, call, after in zip(items, calls, [*calls[1:], None], strict=True):
            if isinstance(call, Unknown):
                raise call
            if _superseded(call, after):
                passed_over.append(item.id)
                continue
            began = time.monotonic()
            error = call if isinstance(call, Exception) else await self._made(call, held)
            await self._settle(item, call, error, passed_over)
            self._tell(call, time.monotonic() - began, error)
            passed_over = []

    def _tell(self, call: Call | Exception, seconds: float, error: Exception | None) -> None:
        hooks = self._place.hooks
        if hooks and isinstance(call, Call):
            tell(hooks, WriteDelivered(self.label, call.writer.label, seconds, error))

    def _read(self, item: Item) -> Call | Exception:
        try:
            return self.behind.opened(item)
        except Exception as error:  # the bytes are untrusted
            return error

    async def _made(self, call: Call, held: bytes) -> Exception | None:
        """Make a write, for as long as it may be tried. Answers what it raised the last time."""
        trying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_delay(call.writer.retry_for),
            wait=_PAUSES,
            sleep=self._pause_between,
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, Exception) and not isinstance(error, _Left)
            ),
            reraise=True,
        )
        try:
            await trying(self._attempt, call, held)
        except _Left:
            raise
        except Exception as error:
            return error
        return None

    async def _attempt(self, call: Call, held: bytes) -> None:
        async with self._seats:
            # Who was stopped for longer than its lease finds here that another goes on in its place.
            try:
                ours = not self._leaving.is_set() and await self._ours(held)
            except BackendError as error:
                raise _Left from error
            if not ours:
                raise _Left
            await call.writer.deliver(call.args, call.kwargs, self._threads)

    async def _pause_between(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._leaving.wait(), seconds)
        except TimeoutError:
            return
        raise _Left

    async def _settle(
        self, item: Item, call: Call | Exception, error: Exception | None, passed_over: list[bytes]
    ) -> None:
        """It is made, or given up: have the database count."""
        queue = self.behind.queue
        name = call.writer.label if isinstance(call, Call) else "what waits"
        outcome: Delivered | Buried
        if error is None:
            outcome = Delivered(queue, item.key, (*passed_over, item.id))
        else:
            log.error("%s behind %s is given up and put aside: %s", name, self.label, told(error))
            self.given_up += 1
            passed_over = []
            outcome = Buried(queue, item, told(error))
        writing.set(Cause(write=name))
        drop = self._place.keeper.delete(item.key) if item.key.startswith(queue.prefix) else None
        await self.behind.cache.driver.arun(settled(queue, item, drop, outcome))
        self.settled += 1 + len(passed_over)

    @property
    def _place(self) -> Place:
        place = self.behind.place()
        if place is None:
            raise BackendError("the cache was closed or turned off")
        return place

    async def _ask(self, effect: Remote[T]) -> T:
        backend: Any = self.behind.cache.driver.backend
        answer: T = await backend.aperform(effect)
        return answer

    def __repr__(self) -> str:
        return f"<Delivery behind {self.label}{', ours' if self._held else ''}>"


def _superseded(call: Call | Exception, after: Call | Exception | None) -> bool:
    """Whether what follows under the same key is all that matters."""
    return isinstance(call, Call) and isinstance(after, Call) and call.writer is after.writer and call.writer.coalesce
