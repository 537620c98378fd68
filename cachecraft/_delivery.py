"""One queue of writes behind while it is delivered: whose turn it is, in which order, how often each write is tried.

It knows one queue and the functions whose calls wait there; when to look, and for how long, is ``worker``'s business.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

import tenacity

from cachecraft._behind import Behind, Call, Unknown
from cachecraft._core.behind import Buried, Delivered, Item, Waiting, settled
from cachecraft._core.effects import Claim, Release, Remote, Renew
from cachecraft._core.entry import TOKEN
from cachecraft._core.errors import BackendError, told
from cachecraft._core.ports import Lease
from cachecraft._core.sites import Cause, writing
from cachecraft.backends.remote import Remote as Place

T = TypeVar("T")

log: Final = logging.getLogger("cachecraft")

_MARK: Final = b"W"
_PAUSES: Final = tenacity.wait_random_exponential(multiplier=0.1, max=5)
"""Seconds between two attempts."""


class _Lost(Exception):
    """It is another's turn."""


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
        self.settled = 0
        """How many writes have been taken from the queue."""
        self.given_up = 0
        """How many writes have been put aside."""

    # -- whose turn it is ------------------------------------------------------------------------------------

    async def turn(self) -> bool:
        """Whether it is ours to deliver, now."""
        name = self.behind.queue.lease
        if await self._ours():
            return True
        self._forget()
        held = _MARK + os.urandom(TOKEN)
        if not await self._ask(Claim(name, held, self._lease)):
            return False
        self._held, self._beat = held, self._place.hold(name, held, self._lease)
        return True

    async def _ours(self) -> bool:
        return bool(self._held) and await self._ask(Renew(self.behind.queue.lease, self._held, self._lease))

    async def leave(self) -> None:
        """Let another worker have its turn."""
        held = self._held
        self._forget()
        if held:
            await self._ask(Release(self.behind.queue.lease, held))

    def _forget(self) -> None:
        if self._beat is not None:
            self._beat.end()
        self._held, self._beat = b"", None

    # -- what waits ------------------------------------------------------------------------------------------

    async def waiting(self) -> tuple[Item, ...]:
        """The oldest that wait."""
        return await self._ask(Waiting(self.behind.queue, self._batch))

    async def deliver(self, items: Iterable[Item]) -> str | None:
        """Deliver them, those of one key in their order. Answers the name of a function that is not known here."""
        keys: dict[str, list[Item]] = {}
        for item in items:
            keys.setdefault(item.key, []).append(item)
        # Whatever one comes to, the others are through before anybody goes on.
        outcomes = await asyncio.gather(*map(self._in_order, keys.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, (_Lost, Unknown)):
                raise outcome
        return next((str(outcome) for outcome in outcomes if isinstance(outcome, Unknown)), None)

    async def _in_order(self, items: list[Item]) -> None:
        """Those of one key.

        Raises:
            Unknown: one is of a function that is not known here; it and what comes after it are left.
            _Lost: it is another's turn by now, and what is not yet made is left to it.
        """
        calls = [self._read(item) for item in items]
        passed_over: list[bytes] = []
        async with self._seats:
            for item, call, after in zip(items, calls, [*calls[1:], None], strict=True):
                if isinstance(call, Unknown):
                    raise call
                if _superseded(call, after):
                    passed_over.append(item.id)
                    continue
                await self._settle(item, call, passed_over)
                passed_over = []

    def _read(self, item: Item) -> Call | Exception:
        try:
            return self.behind.opened(item)
        except Exception as error:  # the bytes are untrusted
            return error

    async def _settle(self, item: Item, call: Call | Exception, passed_over: list[bytes]) -> None:
        """Make the write, or give it up; then have the database count."""
        error = call if isinstance(call, Exception) else await self._made(call)
        queue = self.behind.queue
        label = call.writer.label if isinstance(call, Call) else ""
        outcome: Delivered | Buried
        if error is None:
            outcome = Delivered(queue, item.key, (*passed_over, item.id))
        else:
            log.error("%s behind %s is given up and put aside: %s", label or "what waits", self.label, told(error))
            self.given_up += 1
            outcome = Buried(queue, item, f"{type(error).__qualname__}: {told(error)}")
        writing.set(Cause(write=label or self.label))
        drop = self._place.keeper.delete(item.key) if item.key.startswith(queue.prefix) else None
        await self.behind.cache.driver.arun(settled(queue, item, drop, outcome))
        self.settled += 1 + (len(passed_over) if error is None else 0)

    async def _made(self, call: Call) -> Exception | None:
        """Make a write, as often as it may be tried. Answers what it raised the last time."""
        trying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(call.writer.attempts),
            wait=_PAUSES,
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, Exception) and not isinstance(error, _Lost)
            ),
            reraise=True,
        )
        try:
            await trying(self._attempt, call)
        except _Lost:
            raise
        except Exception as error:
            return error
        return None

    async def _attempt(self, call: Call) -> None:
        # Who was stopped for longer than its lease finds here that another goes on in its place.
        try:
            ours = await self._ours()
        except BackendError:
            ours = False
        if not ours:
            raise _Lost
        await call.writer.deliver(call.args, call.kwargs, self._threads)

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
