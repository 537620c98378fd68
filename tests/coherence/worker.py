"""One process of the race: threads or tasks that read through the near cache, write, and check what they read."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from cachecraft import MISSING, BackendError, Cache, Near
from tests.coherence import history as h
from tests.coherence.history import MOODS, Counter, History
from tests.coherence.mutants import MUTANTS
from tests.coherence.ways import Colour, Steps, Way, adrive, drive, ways

CALLERS: Final = 10
_NOTES: Final = 5
"""What went wrong is said so many times in a round."""


@dataclass(frozen=True)
class Mood:
    """How callers choose: among ``hot`` items, but for a share of ``cold``, and how often they do more than read."""

    burst: int
    """Reads at a time."""
    hot: int
    cold: float
    writes: float
    barriers: float


_MOODS: Final = {
    "calm": Mood(24, 24, 0.4, 0.2, 0.02),
    "eager": Mood(6, 8, 0.05, 0.6, 0.3),
    "wide": Mood(12, 60, 0.1, 0.4, 0.3),
}


class Worker:
    """Knows the truth, and how to read, write and check."""

    def __init__(self, history: History, number: int, processes: int, *, colour: Colour, near: Near, url: str) -> None:
        self.history = history
        self.number = number
        self.processes = processes
        self.colour = colour
        self.near = near
        self.url = url
        self.random = random.Random(number)
        self.ways: list[Way] = []
        self.mood = _MOODS["calm"]
        self._bound = int(near.staleness * 1e6)
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._turns: dict[int, int] = {}
        self._noted = 0

    def count(self, counter: Counter, by: int = 1) -> None:
        with self._lock:
            self.history.count(self.number, counter, by)

    def note(self, text: str) -> None:
        self._noted += 1
        if self._noted <= _NOTES:
            print(f"process {self.number}: {text}", file=sys.stderr, flush=True)

    # -- what the cache is told ------------------------------------------------------------------------------

    def load(self, item: int) -> Steps:
        """A loader: reads the version as it begins, and takes its time."""
        self.count(Counter.LOADS)
        version = self.history.version(item)
        yield partial(self.colour.pause, min(self.random.expovariate(500), 0.02))
        return [item, version]

    def commit(self, item: int) -> Steps:
        version = self.history.commit(item)
        yield partial(self.colour.pause, 0)
        return version

    # -- callers ---------------------------------------------------------------------------------------------

    def caller(self, phase: int) -> Steps:
        """Read in bursts, and write now and then, for as long as the phase lasts."""
        mood = self.mood
        while self.history.phase == phase:
            for _ in range(mood.burst):
                way, item = self.pick()
                yield from self.attempt(self.read(self.random.choice(way.reads), item))
            if self.random.random() < mood.writes:
                yield from self.attempt(self.change(*self.pick()))
            if self.random.random() < mood.barriers:
                yield from self.attempt(self.behind_barrier(*self.pick()))
            if self.random.random() < mood.writes / 100:
                yield from self.attempt(self.drop_all())
            yield partial(self.colour.pause, 0.001)

    def attempt(self, steps: Steps) -> Steps:
        try:
            yield from steps
        except BackendError:
            self.count(Counter.FAILED)
        except Exception as error:
            self.count(Counter.WRONG)
            self.note(repr(error))

    def pick(self) -> tuple[Way, int]:
        item = self.random.randrange(h.ITEMS if self.random.random() < self.mood.cold else self.mood.hot)
        return self.ways[item % len(self.ways)], item

    def read(self, read: Callable[[int], Any], item: int, *, strictly: bool = False) -> Steps:
        began = self.history.now()
        if strictly:
            yield self.barrier
        value = yield partial(read, item)
        if value is not MISSING:
            self.check(item, value, began, strictly=strictly)

    def behind_barrier(self, way: Way, item: int) -> Steps:
        """Nothing that was invalidated before the barrier, by whomever, is read behind it."""
        return self.read(way.reads[0], item, strictly=True)

    def check(self, item: int, value: Any, began: int, *, strictly: bool) -> None:
        self.count(Counter.READS)
        if value[0] != item or len(value) != 2:
            self.count(Counter.WRONG)
            self.note(f"{value!r} for item {item}")
        version = value[1]
        value.append("the caller's own")
        if version >= self.history.version(item):
            return
        for each in range(self.processes):
            since = self.history.since(each, item, version, began)
            if since is not None:
                self.judge(item, version, each, began - since, strictly=strictly)

    def judge(self, item: int, version: int, by: int, age: int, *, strictly: bool) -> None:
        """A read began when something newer had been published for ``age`` microseconds."""
        if by == self.number:
            broken = Counter.OLD_HERE
        elif strictly:
            broken = Counter.OLD_BEHIND_BARRIER
        else:
            with self._lock:
                self.history.raise_to(self.number, Counter.WORST, age)
            if age <= self._bound:
                return
            broken = Counter.OLD_ELSEWHERE
        self.count(broken)
        self.note(
            f"{broken.name}: version {version} of item {item}, {age / 1000:.1f} ms after {by} published a newer one;"
            f" Redis serves {self.ways[item % len(self.ways)].peek(item)}"
        )

    # -- writes ----------------------------------------------------------------------------------------------

    def change(self, way: Way, item: int) -> Steps:
        """Anybody may invalidate; only its owner changes an item, one caller at a time."""
        if item % self.processes == self.number and self._take(item):
            try:
                yield from self.write(way, item)
            finally:
                self._busy.discard(item)
        else:
            yield from self.drop(way, item)
        if self.random.random() < 0.5:
            yield from self.read(way.reads[0], item)

    def _take(self, item: int) -> bool:
        with self._lock:
            free = item not in self._busy
            self._busy.add(item)
        return free

    def write(self, way: Way, item: int) -> Steps:
        kept = False
        choices = [self.put, self.drop_committed, *[self.committed for _ in way.writes]]
        choices += [self.rewritten for _ in way.rewrites]
        try:
            kept = yield from self.random.choice(choices)(way, item)
        finally:
            if kept:
                self.count(Counter.WRITES)
                self.publish(item, self.history.version(item))
            else:
                yield from self.drop_at_last(way, item)

    def drop_committed(self, way: Way, item: int) -> Steps:
        self.history.commit(item)
        return (yield from self.drop(way, item))

    def committed(self, way: Way, item: int) -> Steps:
        yield partial(self.random.choice(way.writes), item)
        return True

    def put(self, way: Way, item: int) -> Steps:
        assert way.put is not None
        return (yield partial(way.put, [item, self.history.commit(item)], item))

    def rewritten(self, way: Way, item: int) -> Steps:
        """Whether it was kept nobody says, so Redis is asked; where entries get lost, that would not prove it."""
        version = self.history.version(item)
        yield partial(self.random.choice(way.rewrites), item)
        kept = MISSING if self.history.faulty else way.peek(item)
        return kept is not MISSING and kept[1] > version

    def drop(self, way: Way, item: int) -> Steps:
        version = self.history.version(item)
        yield partial(self.random.choice(way.drops), item)
        self.count(Counter.WRITES)
        self.publish(item, version)
        return True

    def drop_at_last(self, way: Way, item: int) -> Steps:
        """What was committed is invalidated in the end, however often that takes."""
        until = time.monotonic() + 20
        while True:
            try:
                return (yield from self.drop(way, item))
            except BackendError:
                self.count(Counter.FAILED)
                if time.monotonic() > until:
                    raise
                yield partial(self.colour.pause, 0.05)

    def drop_all(self) -> Steps:
        """Of one way, or now and then of all."""
        every = [way for way in self.ways if way.drop_all is not None]
        chosen = [self.random.choice(every)] if self.random.random() < 0.8 else self.ways
        versions = [(item, self.history.version(item)) for way in chosen for item in way.items]
        yield self.clear if chosen is self.ways else chosen[0].drop_all
        self.count(Counter.WRITES)
        for item, version in versions:
            self.publish(item, version)

    def publish(self, item: int, version: int) -> None:
        with self._lock:
            turn = self._turns[item] = self._turns.get(item, -1) + 1
            self.history.publish(self.number, item, version, turn)

    # -- rounds ----------------------------------------------------------------------------------------------

    def run(self) -> Steps:
        phase = yield from self.round(h.READY)  # which is over at once, and leaves everything imported
        while True:
            phase = yield from self.after(phase)
            if phase == h.OVER:
                return
            with pytest.MonkeyPatch.context() as patch:
                if self.history.mutant:
                    list(MUTANTS.values())[self.history.mutant - 1].switch_on(patch)
                phase = yield from self.round(phase)

    def after(self, phase: int) -> Steps:
        """Say that this one is done, and wait for the next."""
        self.history.done(self.number, phase)
        while self.history.phase == phase:
            yield partial(self.colour.pause, 0.002)
        return self.history.phase

    def round(self, racing: int) -> Steps:
        """Race with new caches, end, compare. Answers the last phase."""
        options: dict[str, Any] = {"namespace": "near", "timeout": 1.0, "on_unreachable": "raise"}
        near, plain = Cache(self.url, near=self.near, **options), Cache(self.url, **options)
        self.barrier, self.clear = self.colour.on(near, "barrier"), self.colour.on(near, "clear")
        self.ways = ways(near, plain, self.colour, self.load, self.commit)
        self.mood, self._noted = _MOODS[MOODS[self.history.mood]], 0
        try:
            for way in self.ways:
                yield from self.attempt(self.read(way.reads[0], way.items[0]))
            if racing == h.READY:
                return racing
            yield partial(self.crowd, racing)
            yield from self.settle(near)
            comparing = yield from self.after(racing + 1)
            yield from self.compare()
            self.history.raise_to(self.number, Counter.HITS, int(near.stats.near_hits))
            return comparing
        finally:
            yield self.colour.on(near, "close")
            plain.close()

    def crowd(self, phase: int) -> Any:
        if self.colour.is_async:
            return asyncio.gather(*(adrive(self.caller(phase)) for _ in range(CALLERS)))
        threads = [threading.Thread(target=drive, args=(self.caller(phase),)) for _ in range(CALLERS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return None

    def settle(self, near: Cache) -> Steps:
        """Wait until nothing of what was done is under way any more."""
        until = time.monotonic() + 20
        while (near.stats.journal or near.stats.breaker_open) and time.monotonic() < until:
            yield partial(self.colour.pause, 0.02)
        yield partial(self.colour.pause, 0.05)

    def compare(self) -> Steps:
        """Is what this process holds what Redis serves?"""
        yield self.barrier
        for way in self.ways:
            for value in held(way):
                kept = way.peek(value[0])
                self.count(Counter.COMPARED)
                # What Redis has lost may be served from here for as long as it was never invalidated.
                if kept != value if kept is not MISSING else value[1] < self.history.floor(value[0]):
                    self.count(Counter.DIFFERENT)
                    self.note(f"holds {value}, Redis serves {kept}")


def held(way: Way) -> list[Any]:
    """What this process holds near and would serve."""
    table = way.place().table
    with table.memory.lock:
        now = table.memory.clock()
        return [node.value for node in table.standing() if node.expires > now and not node.fallen]


def main(argv: list[str]) -> None:
    path, number, processes, url, colour, staleness = argv
    logging.getLogger("cachecraft").setLevel(logging.CRITICAL)
    worker = Worker(
        History(Path(path), int(processes)),
        int(number),
        int(processes),
        colour=Colour(colour == "tasks"),
        near=Near(max_staleness=float(staleness)),
        url=url,
    )
    if colour == "tasks":
        asyncio.run(adrive(worker.run()))
    else:
        drive(worker.run())


if __name__ == "__main__":
    main(sys.argv[1:])
