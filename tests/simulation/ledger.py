"""The truth beside the cache: what each load saw, what may still be returned, and how many loaders may run.

The database is one number. Whoever writes raises it, then invalidates; a loader reads it when it begins. So a value
whose load began before an invalidation shows a smaller number than the invalidation's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from cachecraft._core.refresh import claim_key
from tests.simulation.caller import READ, REFRESH
from tests.simulation.table import BEFORE, Promise, Table


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(eq=False)
class Loading:
    """One load: its value is its number."""

    number: int
    key: str
    kind: str
    grounds: frozenset[str]
    """What it rests on in Redis: its placeholder or the entry it refreshes, its stamps, its claim."""
    version: int
    asked: int
    """When its caller asked for the lease."""
    release: bytes = b""
    """The schema of what it makes."""
    running: bool = True
    shows: int = BEFORE
    """The write that it shows, where there is a queue."""
    only: str = ""
    """The caller for whom it is, if it is for nobody else."""

    def __repr__(self) -> str:
        return f"{self.kind} load {self.number} of {self.key} (version {self.version})"


Floor = tuple[int, Promise]
"""What a call may not fall below."""


@dataclass
class Ledger:
    version: int = 0
    table: Table = field(default_factory=Table)
    loads: list[Loading] = field(default_factory=list)
    floors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By key: values of a smaller version were invalidated, and that has returned."""
    violations: list[str] = field(default_factory=list)
    moment: int = 0
    served: int = 0
    invalidated: int = 0
    _taken: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _all_taken: int = 0

    # -- P1: fresh after invalidation ------------------------------------------------------------------------

    def commit(self) -> int:
        self.version += 1
        return self.version

    def returned(self, key: str, version: int) -> None:
        """An invalidation that began when the truth was ``version`` has returned."""
        self.invalidated += 1
        self.floors[key] = max(self.floors[key], version)

    def floor(self, key: str) -> Floor:
        """What a call that starts now may not fall below."""
        return self.floors[key], self.table.promise(key)

    def serve(self, who: object, key: str, value: Any, floor: Floor, release: bytes = b"") -> None:
        """A call that started when ``floor`` counted has returned a value."""
        version, promise = floor
        self.served += 1
        load = self.loads[value]
        if load.key != key:
            self.violated(f"P8: {who} asked for {key} and got {load}")
        if load.release != release:
            self.violated(f"P4: {who} got what another release made: {load}")
        if load.version < version:
            self.violated(f"P1: {who} got {load}, though version {version} was invalidated before the call")
        if load.only not in ("", who):
            self.violated(f"P1: {who} got {load}, which did not know what waits")
        wrong = self.table.wrong(load.shows, promise)
        if wrong is not None and not load.only:
            self.violated(f"{wrong}: {who} got {load}")

    # -- P2: one load ----------------------------------------------------------------------------------------

    def begin(self, key: str, kind: str, tags: tuple[str, ...], asked: int, release: bytes = b"") -> Loading:
        """A loader starts to run, and sees the truth as it is.

        Two may run for one key only if one of them has lost its grounds since it asked for its lease: by expiry,
        eviction or a restart, by an invalidation, or because somebody forced a load or wrote. Who loads alone, out of
        patience or without Redis, has no lease, and does not count; nor does who was told to load anew.
        """
        grounds = {key, *tags, *(claim_key(each) for each in (key, *tags) if kind == REFRESH)}
        load = Loading(len(self.loads), key, kind, frozenset(grounds), self.version, asked, release)
        self.loads.append(load)
        if kind in (READ, REFRESH):
            for other in self.loads[:-1]:
                if self._rivals(load, other):
                    self.violated(f"P2: {load} runs beside {other}")
        return load

    def _rivals(self, load: Loading, other: Loading) -> bool:
        if not other.running or (other.key, other.release) != (load.key, load.release):
            return False
        if other.kind not in (READ, REFRESH):
            return False
        return not (self._groundless(load) or self._groundless(other))

    def taken(self, key: str | bytes) -> None:
        """A key was removed, or its lease seized."""
        self.moment += 1
        self._taken[key.decode() if isinstance(key, bytes) else key] = self.moment

    def all_taken(self) -> None:
        self.moment += 1
        self._all_taken = self.moment

    def _groundless(self, load: Loading) -> bool:
        return max(self._all_taken, *(self._taken[key] for key in load.grounds)) > load.asked

    def violated(self, what: str) -> None:
        # Kept, since a flow may take an exception raised beneath it for the loader's.
        self.violations.append(what)
        raise Violation(what)
