"""The truth beside the cache: what each load saw, what may still be returned, and how many loaders may run.

The database is one number. Whoever writes raises it, then invalidates; a loader reads it when it begins. So a value
whose load began before an invalidation shows a smaller number than the invalidation's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.caller import PUT, READ, REFRESH


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(eq=False)
class Loading:
    """One load: its value is its number."""

    number: int
    key: str
    kind: str
    tags: frozenset[str]
    version: int
    running: bool = True
    excused: str = ""
    """Why another loader may run beside it."""

    def __repr__(self) -> str:
        return f"{self.kind} load {self.number} of {self.key} (version {self.version})"


@dataclass
class Ledger:
    version: int = 0
    loads: list[Loading] = field(default_factory=list)
    floors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By key: values of a smaller version were invalidated, and that has returned."""
    violations: list[str] = field(default_factory=list)
    served: int = 0
    invalidated: int = 0

    # -- P1: fresh after invalidation -----------------------------------------------------------------------------------

    def commit(self) -> int:
        self.version += 1
        return self.version

    def returned(self, key: str, version: int) -> None:
        """An invalidation that began when the truth was ``version`` has returned."""
        self.invalidated += 1
        self.floors[key] = max(self.floors[key], version)

    def serve(self, who: object, key: str, value: Any, floor: int) -> None:
        """A call that started when ``floor`` counted has returned a value."""
        self.served += 1
        load = self.loads[value]
        if load.key != key:
            self.violated(f"P8: {who} asked for {key} and got {load}")
        if load.version < floor:
            self.violated(f"P1: {who} got {load}, though version {floor} was invalidated before the call")

    # -- P2: one load -----------------------------------------------------------------------------------------------------

    def begin(self, key: str, kind: str, tags: tuple[str, ...]) -> Loading:
        """A loader starts to run, and sees the truth as it is.

        Two may run for one key only if one of them is *excused*: its lease or the entry it refreshes is gone, by
        expiry, eviction or a restart; an invalidation took it; somebody forces a load or writes. Who loads alone, out
        of patience or without Redis, has no lease, and does not count; nor does who was told to load anew.
        """
        load = Loading(len(self.loads), key, kind, frozenset(tags), self.version)
        self.loads.append(load)
        if kind in (READ, REFRESH):
            for other in self.loads[:-1]:
                if other.running and not other.excused and other.key == key and other.kind in (READ, REFRESH):
                    self.violated(f"P2: {load} runs beside {other}")
        if kind == PUT:
            load.running = False
        return load

    def excuse_key(self, key: str | bytes, why: str = "forced") -> None:
        name = key.decode() if isinstance(key, bytes) else key
        for load in self.loads:
            if load.running and (
                name == load.key or name in load.tags or (name == f"{load.key}~r" and load.kind == REFRESH)
            ):
                load.excused = load.excused or why

    def excuse_all(self, why: str) -> None:
        for load in self.loads:
            load.excused = load.excused or why

    def violated(self, what: str) -> None:
        # Kept, since a flow may take an exception raised beneath it for the loader's.
        self.violations.append(what)
        raise Violation(what)
