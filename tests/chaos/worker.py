"""One process of a chaos run: threads and tasks on the same caches, with the settings that everybody has by default."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from cachecraft import MISSING, Cache
from tests.chaos.calm import PATIENCE, settle
from tests.chaos.kinds import Kind, kinds
from tests.chaos.ledger import CANCELLED, FORKS, Ledger, Pulse
from tests.chaos.sabotage import SABOTAGE
from tests.chaos.source import Source, SourceError, made
from tests.race.truth import ITEMS, Truth
from tests.race.worker import Worker

CALLERS: Final = 4
"""Threads, and as many tasks."""
SLOW: Final = 0.01
"""Seconds that a loader takes on average, and a tenth of what it takes at the most."""
_ALONE: Final = 10
"""Keys that only one caller asks for."""

Turn = Generator[Callable[[], Any], Any, None]
"""What a caller does: yields calls, to be awaited or not, and is sent what they return, or thrown what they raise."""


class GaveUp(Exception):
    """The caller was cancelled, as it was to be."""


class Life:
    """What the callers of one process do, in both colours."""

    def __init__(self, worker: Worker, url: str, notes: Path, until: float) -> None:
        self.until = until
        self.random = worker.random
        self.cache = Cache(url, namespace="chaos")
        self.vault = Cache(url, namespace="vault", encryption_keys=b"k" * 32)
        self.caches = [self.cache, self.vault]
        self.ledger = Ledger(worker, notes, lambda: sum(cache.stats.journal for cache in self.caches))
        self.source = Source(worker)
        self.kinds, self.akinds = (kinds(self.source, *self.caches, tasks=tasks) for tasks in (False, True))
        self.pulse, self.apulse = Pulse(), Pulse()
        self.to_fork = threading.Event()
        self._ended = threading.Event()
        self._turns = {item: threading.Lock() for item in range(ITEMS)}
        """Who writes to an item: one at a time, thread or task."""

    # -- what a caller does ----------------------------------------------------------------------------------

    def turn(self, offered: list[Kind], pulse: Pulse) -> Turn:
        write, item = self.ledger.worker.pick()
        kind = offered[item % len(offered)]
        if write and self._turns[item].acquire(blocking=False):
            try:
                yield from self._write(kind, item)
            finally:
                self._turns[item].release()
        else:
            yield from self._read(kind, item, pulse)

    def _read(self, kind: Kind, item: int, pulse: Pulse) -> Turn:
        how = self.random.choice(kind.reads) if self.random.random() < 0.15 else kind.call
        name = "call" if how is kind.call else f"read {kind.reads.index(how)}"
        what = f"{name} of {kind.name} {item} in {'threads' if pulse is self.pulse else 'tasks'}"
        lost, floors = pulse.lost(), self.ledger.floors(item)
        try:
            value = yield partial(how, item)
        except (SourceError, GaveUp):
            return
        except BaseException as error:
            self.ledger.failed(f"{what}: {error!r}")
            return
        self.ledger.took(time.monotonic() - floors.at - (pulse.lost() - lost) - 10 * SLOW, what)
        if value is not MISSING:
            self.ledger.read(what, kind.name, item, floors, value)

    def _write(self, kind: Kind, item: int) -> Turn:
        before = self.ledger.truth.version(item)
        way = self.random.choice(kind.drops + kind.writes)
        writes = way in kind.writes
        if not writes:
            self.ledger.truth.commit(item)
        try:
            yield partial(way, item)
            ended = True
        except (SourceError, GaveUp):
            ended = writes  # however the function ended, what it wrote is no longer kept
        except BaseException as error:
            self.ledger.failed(f"a write of {kind.name} {item}: {error!r}")
            return
        version = self.ledger.truth.version(item)
        if ended and version > before:
            self.ledger.returned(item, version)
            if self.random.random() < 0.2:
                with contextlib.suppress(GaveUp):
                    yield partial(kind.set, made(kind.name, item, version), item)

    def alone(self, cache: Cache, pulse: Pulse, *, tasks: bool) -> Iterator[Turn]:
        """Calls that wait for nobody else's, so that what they cost over their loader is the cache's doing alone."""
        spent = [0.0]
        owner = os.getpid()  # another one's lease, if it was killed, is for others to wait for

        def load(item: int) -> int:
            began = time.monotonic()
            time.sleep(0.002)
            spent[0] += time.monotonic() - began
            return item

        async def aload(item: int) -> int:
            return load(item)

        f: Any = cache.cached(ttl=5, key=f"alone:{owner}:{tasks}:{{item}}")(aload if tasks else load)

        def turn(how: Callable[[int], Any], name: str, item: int) -> Turn:
            spent[0], began, lost = 0.0, time.monotonic(), pulse.lost()
            try:
                yield partial(how, item)
            except GaveUp:
                return
            except BaseException as error:
                self.ledger.failed(f"alone by {name}: {error!r}")
            cost = time.monotonic() - began - spent[0] - (pulse.lost() - lost)
            self.ledger.took(cost, f"{name} by {'tasks' if tasks else 'threads'}", alone=True)

        while True:
            name = self.random.choices(("__call__", "invalidate", "refresh", "get"), (6, 1, 1, 2))[0]
            yield turn(getattr(f, name), name, self.random.randrange(_ALONE))

    # -- threads ---------------------------------------------------------------------------------------------

    def run(self, turns: Iterator[Turn]) -> None:
        while time.time() < self.until:
            if self.to_fork.is_set():
                self.to_fork.clear()
                self._fork()
            _drive(next(turns))
            time.sleep(self.random.uniform(0, 0.004))

    def turns(self) -> Iterator[Turn]:
        while True:
            yield self.turn(self.kinds, self.pulse)

    def _watch(self) -> None:
        while not self._ended.is_set():
            time.sleep(self.pulse.every)
            self.pulse.beat()
            self.ledger.publish()

    # -- tasks -----------------------------------------------------------------------------------------------

    async def arun(self, turns: Iterator[Turn], *, patient: bool = False) -> None:
        while time.time() < self.until:
            await self._adrive(next(turns), patient=patient)
            await asyncio.sleep(self.random.uniform(0, 0.004))

    def aturns(self) -> Iterator[Turn]:
        while True:
            yield self.turn(self.akinds, self.apulse)

    async def _awatch(self) -> None:
        while not self._ended.is_set():
            await asyncio.sleep(self.apulse.every)
            self.apulse.beat()

    async def _adrive(self, turn: Turn, *, patient: bool) -> None:
        with contextlib.suppress(StopIteration):
            call = next(turn)
            while True:
                try:
                    result = await self._asked(call, patient=patient)
                except BaseException as error:
                    call = turn.throw(error)
                else:
                    call = turn.send(result)

    async def _asked(self, call: Callable[[], Any], *, patient: bool) -> Any:
        """Ask in a task of its own, and now and then cancel it at a random moment."""
        task = asyncio.ensure_future(call())
        if patient or self.random.random() > 0.08:
            return await task
        await asyncio.wait((task,), timeout=self.random.choice((0, 0.001, 0.01, 0.1)))
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            self.ledger.count(CANCELLED)
            raise GaveUp from None

    # -- forks -----------------------------------------------------------------------------------------------

    def _fork(self) -> None:
        """Fork in the middle of it all. The child uses the caches in both colours, and ends by itself."""
        self.ledger.count(FORKS)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._as_child()
                status = 0
            except BaseException as error:
                self.ledger.note(f"a child failed: {error!r}")
            finally:
                os._exit(status)
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        if ended[0] == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.ledger.failed("a forked child hung")
        elif ended[1]:
            self.ledger.failed(f"a forked child ended with {os.waitstatus_to_exitcode(ended[1])}")

    def _as_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.ledger.after_fork(self.ledger.worker.number + 32)
        self.pulse, self.apulse = Pulse(), Pulse()
        self.random.seed(os.getpid())
        self.until = time.time() + 0.3
        self.run(self.turns())
        self.until = time.time() + 0.3
        asyncio.run(self.arun(self.aturns()))

    # -- from beginning to end -------------------------------------------------------------------------------

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.ledger.failed(f"to the loop: {context}"))
        loop.add_signal_handler(signal.SIGUSR1, self.to_fork.set)
        alone = self.alone(self.cache, self.pulse, tasks=False)
        jobs = [partial(self.run, turns) for turns in (alone, *(self.turns() for _ in range(CALLERS)))]
        watch, *callers = [threading.Thread(target=job) for job in (self._watch, *jobs)]
        for thread in (watch, *callers):
            thread.start()
        awatch = asyncio.ensure_future(self._awatch())
        lonely = self.arun(self.alone(self.cache, self.apulse, tasks=True), patient=True)
        await asyncio.gather(lonely, *(self.arun(self.aturns()) for _ in range(CALLERS)))
        while any(thread.is_alive() for thread in callers):
            await asyncio.sleep(0.01)
        self._ended.set()
        await awatch
        watch.join()
        self.source.fails = False
        await settle(self.caches, self.kinds, self.akinds, self.ledger)


def _drive(turn: Turn) -> None:
    with contextlib.suppress(StopIteration):
        call = next(turn)
        while True:
            try:
                result = call()
            except BaseException as error:
                call = turn.throw(error)
            else:
                call = turn.send(result)


def main(argv: list[str]) -> None:
    name, notes, number, workers, url, until, seed, sabotage = argv
    logging.getLogger("cachecraft").addHandler(logging.NullHandler())
    truth = Truth(Path(name))
    worker = Worker(truth, int(number), int(workers), slow=SLOW)
    worker.random = random.Random(f"{seed} {number}")
    if sabotage != "none":
        SABOTAGE[sabotage]()
    life = Life(worker, url, Path(notes), float(until))
    threading.excepthook = lambda args: life.ledger.failed(f"a thread died: {args.exc_value!r}")
    sys.unraisablehook = lambda args: life.ledger.failed(f"unraisable: {args.exc_value!r} in {args.object!r}")
    asyncio.run(life.live())


if __name__ == "__main__":
    main(sys.argv[1:])
