"""Delivers writes that wait behind cached functions: of each queue one worker at a time, in the order of the calls.

A write is made at least once: again, if its worker dies before it could say that it was made. Those of one key are made
one after the other; of different keys, side by side. It knows queues; how calls came to wait there is ``_behind``'s.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cachecraft._behind import Behind, Postponed
from cachecraft._cache import BareCache
from cachecraft._core.errors import BackendError, ClosedError, OptionError, OptionTypeError, told
from cachecraft._core.policy import seconds
from cachecraft._delivery import Delivery
from cachecraft._life import caches

log: Final = logging.getLogger("cachecraft")

_REST: Final = 1.0
"""Seconds until a queue is looked at again that could not be served: Redis is out of reach, or holds what we do not
know; and until functions are found that were decorated meanwhile."""


class Worker:
    """Delivers what waits behind the functions of some caches, or of all that this process has.

    Args:
        caches: whose functions; without any, all caches of this process, the default one among them.
        concurrency: so many writes, of different keys, are made side by side; 16 by default. Functions that are not
            async run in threads.
        batch: so many are read at a time; 100 by default.
        poll: seconds between two looks at a queue in which nothing waits; .2 by default.
        lease: seconds after which another worker goes on where this one died; 10 by default.

    Raises:
        OptionError, OptionTypeError: naming the option.
    """

    def __init__(
        self,
        *caches: BareCache,
        concurrency: int = 16,
        batch: int = 100,
        poll: float | str = 0.2,
        lease: float | str = 10.0,
    ) -> None:
        for name, value in (("concurrency", concurrency), ("batch", batch)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise OptionTypeError(f"{name}={value!r} must be a whole number")
            if value < 1:
                raise OptionError(f"{name}={value!r} must be at least 1")
        self._caches = caches
        self._concurrency = concurrency
        self._batch = batch
        self._poll = seconds(poll, "poll")
        self._lease = seconds(lease, "lease")
        self._deliveries: dict[Behind, Delivery] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    @property
    def functions(self) -> list[str]:
        """The cached functions behind which it delivers: those in Redis, as far as they are decorated by now."""
        return [each.handle.subject.label for each in self._behinds() if each.place() is not None]

    @property
    def caches(self) -> set[BareCache]:
        """The caches that these functions belong to."""
        return {each.cache for each in self._behinds() if each.place() is not None}

    @property
    def settled(self) -> int:
        """How many writes it has taken from their queue, those given up among them."""
        return sum(each.settled for each in self._deliveries.values())

    @property
    def given_up(self) -> int:
        """How many writes it has given up and put aside."""
        return sum(each.given_up for each in self._deliveries.values())

    def run(self) -> None:
        """Deliver until ``stop`` is called.

        Raises:
            OptionError: this process has two functions of one name, whose calls could not be told apart.
        """
        asyncio.run(self.arun())

    async def arun(self) -> None:
        """As ``run``. Cancelled, it ends async functions in the middle and waits for those in threads; another worker
        makes these writes again.

        Raises:
            OptionError: as ``run``.
        """
        self._begin()
        tasks: list[asyncio.Task[None]] = []
        try:
            while not self._ended.is_set():
                tasks += [asyncio.ensure_future(self._serve(each)) for each in self._found()]
                for task in tasks:
                    if task.done():
                        task.result()  # whatever it is, it is a fault of ours: be loud
                await self._nap(_REST)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await self._end(cut=not self._ended.is_set())

    def drain(self) -> int:
        """Deliver until nothing waits. Answers how many writes that were, those given up among them.

        Raises:
            BackendError: Redis cannot be reached.
            OptionError: something waits for a function that this process does not have, or has twice.
        """
        return asyncio.run(self.adrain())

    async def adrain(self) -> int:
        """As ``drain``."""
        self._begin()
        try:
            for each in self._found():
                while each.behind.place() is not None and not self._ended.is_set():
                    turn = await each.turn()
                    if not (await each.begin() if turn else await each.waiting()):
                        break
                    await (each.pause(self._poll) if turn else self._nap(self._poll))
                    if unknown := each.unknown():
                        raise OptionError(f"{_unknown(each, unknown)}; import the module that has it")
        finally:
            await self._end()
        return self.settled

    def stop(self) -> None:
        """Have ``run`` return once what is being delivered has been. From any thread, and from a signal's handler."""
        if self._loop is None:
            self._ended.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended.set)

    def _behinds(self) -> list[Behind]:
        handles = [handle for cache in self._caches or caches(unused=True) for handle in list(cache._handles)]
        return [handle.behind for handle in handles if handle.behind is not None]

    def _found(self) -> list[Delivery]:
        """The queues that were not there when it was last asked."""
        _check_names(self._behinds())
        new = [
            Delivery(each, seats=self._seats, threads=self._threads, batch=self._batch, lease=self._lease)
            for each in self._behinds()
            if each not in self._deliveries
        ]
        self._deliveries.update((each.behind, each) for each in new)
        return new

    async def _serve(self, each: Delivery) -> None:
        said = ""
        while not self._ended.is_set():
            try:
                stuck = await self._served(each)
            except (BackendError, ClosedError) as error:
                stuck = f"what waits behind {each.label} waits on: {told(error)}"
            if stuck and stuck != said:  # once, however long it lasts
                log.warning("%s", stuck)
            said = stuck or (said if each.stuck else "")
            if stuck:
                await self._nap(_REST)

    async def _served(self, each: Delivery) -> str:
        """Deliver what waits by now. Answers what stands in the way, if anything does."""
        if each.behind.place() is None:
            return f"what waits behind {each.label} waits on: its cache is closed, or turned off"
        if await each.turn() and await each.begin():
            await each.pause(self._poll)
        else:
            await self._nap(self._poll)
        if unknown := each.unknown():
            await each.leave()
            return f"{_unknown(each, unknown)}; it is left to a worker that has"
        return ""

    async def _nap(self, pause: float) -> None:
        try:
            await asyncio.wait_for(self._ended.wait(), pause)
        except TimeoutError:
            pass

    def _begin(self) -> None:
        if self._loop is not None:  # another run, perhaps in another loop
            self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._seats = asyncio.Semaphore(self._concurrency)
        self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="cachecraft-worker")
        self._deliveries.clear()

    async def _end(self, *, cut: bool = False) -> None:
        if cut:
            for each in self._deliveries.values():
                each.cancel()
        try:
            await asyncio.gather(*(each.leave() for each in self._deliveries.values()))
        finally:
            self._threads.shutdown(wait=False)

    def __repr__(self) -> str:
        return f"<Worker: {', '.join(self.functions) or 'nothing yet'}>"


def _check_names(behinds: list[Behind]) -> None:
    """Two of one name, made by calling one function twice, say, share a queue: calls would reach the wrong one.

    Raises:
        OptionError: there are two.
    """
    known: dict[tuple[str, str], Postponed] = {}
    for each in behinds:
        if each.place() is None:
            continue
        for writer in each.writers.values():
            if known.setdefault((each.queue.log, writer.label), writer) is not writer:
                raise OptionError(
                    f"this process has two functions called {writer.label} behind two called"
                    f" {each.handle.subject.label}, and their calls cannot be told apart; give the cached ones a"
                    " namespace= each, or other names"
                )


def _unknown(each: Delivery, function: str) -> str:
    return f"a call of {function} waits behind {each.label}, and this process has no such function"
