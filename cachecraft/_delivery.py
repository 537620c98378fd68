"""One queue of writes behind while it is delivered: in which order, and how often each write is tried.

It knows one queue and the functions whose calls wait there. Whose turn it is is ``_turn``'s business; when to look, and
for how long, ``worker``'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from functools import partial
from typing import Final

import tenacity

from cachecraft._behind import Behind, Call, Unknown
from cachecraft._core.behind import Buried, Delivered, Item, Waiting, settled
from cachecraft._core.errors import BackendError, ClosedError, told
from cachecraft._core.events import WriteDelivered, tell
from cachecraft._core.sites import Cause, writing
from cachecraft._turn import Turn

log: Final = logging.getLogger("cachecraft")

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
        self._turn = Turn(behind, lease)
        self._busy: dict[str, asyncio.Task[None]] = {}
        """The keys of which something is being made. Nobody else begins with one of theirs."""
        self._stuck: dict[str, str] = {}
        """The keys of which nothing can be made here, with the function that is not known."""
        self._seen = b""
        """Up to here, what waits is of a key that is busy or stuck."""
        self._passed: dict[str, bytes] = {}
        """For busy keys of which more was seen: after which id."""
        self._searched = False
        """Whether all that waits was seen in this turn."""
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
        if await self._turn.ours(self._turn.held):
            return True
        if not await self._turn.take():
            return False
        self._leaving.clear()
        self._stuck.clear()
        self._seen, self._searched = b"", False
        return True

    async def leave(self) -> None:
        """End what is being made, and let another worker have its turn."""
        self._leaving.set()
        try:
            if self._busy:
                await asyncio.wait(self._busy.values())
        except BaseException:
            self._turn.forget()
            raise
        await self._turn.leave()

    def cancel(self) -> None:
        """End what is being made in the middle. What runs in a thread cannot be ended, and is waited for."""
        for task in self._busy.values():
            task.cancel()

    # -- what waits ------------------------------------------------------------------------------------------

    async def waiting(self, after: bytes = b"") -> tuple[Item, ...]:
        """The oldest that wait."""
        return await self.behind.ask(Waiting(self.behind.queue, after, self._batch))

    async def begin(self) -> bool:
        """Begin to deliver the oldest that wait, but those whose key is busy. Answers whether anything waits."""
        if not (self._busy or self._stuck):
            self._seen = b""
        for _ in range(_DEEP):
            seen, busy = self._seen, set(self._busy)
            page = await self.waiting(seen)
            ended = busy - self._busy.keys()
            if seen != self._seen or any(item.key in ended for item in page):
                continue  # of a key that ended meanwhile older ones may wait, or these were made
            keys: dict[str, list[Item]] = {}
            for item in page:
                keys.setdefault(item.key, []).append(item)
            for key, items in keys.items():
                self._begin(key, items, seen)
            self._seen = page[-1].id if page else seen
            self._searched |= len(page) < self._batch
            if len(page) < self._batch or len(self._busy) >= self._batch:
                break
        return bool(self._busy or self._stuck)

    def _begin(self, key: str, items: list[Item], seen: bytes) -> None:
        """Begin with those of one key, found after ``seen``, unless it is busy or stuck."""
        if key in self._busy:
            self._passed.setdefault(key, seen)
        elif key not in self._stuck:
            calls = [self._read(item) for item in items]
            if isinstance(calls[0], Unknown):
                self._stuck[key] = str(calls[0])
                return
            task = self._busy[key] = asyncio.ensure_future(self._in_order(items, calls, self._turn.held))
            task.add_done_callback(partial(self._ended, key, seen))

    async def pause(self, seconds: float) -> None:
        """Until all that was begun is done, but no longer than this."""
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=seconds)

    @property
    def stuck(self) -> bool:
        """Whether something was met in this turn that cannot be made here."""
        return bool(self._stuck)

    def unknown(self) -> str | None:
        """The name of a function that something waits for and that is not known here, once all that waits was seen.

        Raises:
            Exception: what was met since it was last asked.
        """
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        return next(iter(self._stuck.values()), None) if self._searched else None

    def _ended(self, key: str, seen: bytes, task: asyncio.Task[None]) -> None:
        del self._busy[key]
        passed = self._passed.pop(key, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _Left):
            self._trouble = error
        back = passed if error is None and not task.cancelled() else seen
        if back is not None:
            self._seen = min(self._seen, back, key=_age)

    async def _in_order(self, items: list[Item], calls: list[Call | Exception], held: bytes) -> None:
        """Those of one key.

        Raises:
            _Left: what is not yet made is left.
        """
        passed_over: list[bytes] = []
        for item, call, after in zip(items, calls, [*calls[1:], None], strict=True):
            if isinstance(call, Unknown):
                raise _Left
            if _superseded(call, after):
                passed_over.append(item.id)
                continue
            began = time.monotonic()
            error = call if isinstance(call, Exception) else await self._made(call, held)
            await self._settle(item, call, error, passed_over)
            self._tell(call, time.monotonic() - began, error)
            if error is not None and passed_over:
                raise _Left  # those come first now, before what came later
            passed_over = []

    def _tell(self, call: Call | Exception, seconds: float, error: BaseException | None) -> None:
        hooks = self.behind.needed().hooks
        if hooks and isinstance(call, Call):
            tell(hooks, WriteDelivered(self.label, call.writer.label, seconds, error))

    def _read(self, item: Item) -> Call | Exception:
        try:
            return self.behind.opened(item)
        except Exception as error:  # the bytes are untrusted
            return error

    async def _made(self, call: Call, held: bytes) -> BaseException | None:
        """Make a write, for as long as it may be tried. Answers what it raised the last time."""
        began = 0.0

        async def attempt() -> BaseException | None:
            nonlocal began
            async with self._seats:
                await self._check(held)
                began = began or time.monotonic()  # to wait for a seat is no attempt
                return await call.writer.deliver(call.args, call.kwargs, self._threads)

        trying = tenacity.AsyncRetrying(
            stop=lambda _: time.monotonic() - began >= call.writer.retry_for,
            wait=_PAUSES,
            sleep=self._pause_between,
            before_sleep=partial(self._complain, call),
            retry=tenacity.retry_if_result(lambda error: error is not None),
            retry_error_callback=_last,
        )
        return await trying(attempt)

    def _complain(self, call: Call, state: tenacity.RetryCallState) -> None:
        """Say at once that a write fails: it may be long until it is given up."""
        error = _last(state)
        if state.attempt_number == 1 and error is not None:
            log.warning("%s behind %s fails, and is tried again: %s", call.writer.label, self.label, told(error))

    async def _check(self, held: bytes) -> None:
        """Who was stopped for longer than its lease finds here that another goes on in its place.

        Raises:
            _Left: it is not ours any more.
        """
        try:
            ours = not self._leaving.is_set() and await self._turn.ours(held)
        except (BackendError, ClosedError) as error:
            raise _Left from error
        if not ours:
            raise _Left

    async def _pause_between(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._leaving.wait(), seconds)
        except TimeoutError:
            return
        raise _Left

    async def _settle(
        self, item: Item, call: Call | Exception, error: BaseException | None, passed_over: list[bytes]
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
        drop = self.behind.needed().keeper.delete(item.key) if item.key.startswith(queue.prefix) else None
        await self.behind.cache.driver.arun(settled(queue, item, drop, outcome))
        self.settled += 1 + len(passed_over)

    def __repr__(self) -> str:
        return f"<Delivery behind {self.label}{', ours' if self._turn.held else ''}>"


def _age(id_: bytes) -> tuple[int, int]:
    """By which ids are ordered; nothing comes before the first."""
    time_, _, number = id_.partition(b"-")
    return int(time_ or 0), int(number or 0)


def _last(state: tenacity.RetryCallState) -> BaseException | None:
    assert state.outcome is not None
    error: BaseException | None = state.outcome.result()
    return error


def _superseded(call: Call | Exception, after: Call | Exception | None) -> bool:
    """Whether what follows under the same key is all that matters."""
    return isinstance(call, Call) and isinstance(after, Call) and call.writer is after.writer and call.writer.coalesce
