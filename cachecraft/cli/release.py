"""Whether an entry is what its function returns now in running processes, as they have published it; reads no value.

A process that has not published yet, or not this function, is not known of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cachecraft.cli.figures import many
from cachecraft.reports import Report


@dataclass(frozen=True, slots=True)
class Release:
    """One entry's schema, beside those that its function has in running processes."""

    function: str
    same: int
    """Processes in which it has the entry's,"""
    others: tuple[tuple[str, int], ...]
    """and in how many it has which other one: that of most processes first."""

    @property
    def current(self) -> bool | None:
        """Whether any process would take the entry for its own; ``None`` if none has told of the function."""
        return self.same > 0 if self.same or self.others else None

    def as_json(self) -> dict[str, Any]:
        others = [{"schema": schema, "processes": processes} for schema, processes in self.others]
        return {"function": self.function, "current": self.current, "processes": self.same, "others": others}

    def __str__(self) -> str:
        if self.current is None:
            return f"whether {self.function} still has it is unknown: no process has published that"
        has = f"the one that {self.function} has"
        others = ", ".join(f"{schema} in {_processes(processes)}" for schema, processes in self.others)
        beside = "to those it is a miss (other schema), unless they keep their own aside of it"
        if not self.others:
            return f"{has} in {_processes(self.same)}"
        if not self.same:
            return f"not {has} ({others}): {beside}"
        return f"{has} in {_processes(self.same)}, but not in others ({others}): {beside}"


def release_of(schema: bytes, function: str, reports: Iterable[Report]) -> Release:
    """What the processes tell of this function; closures of one name may have several schemas in one process."""
    processes = defaultdict[bytes, set[tuple[str, int]]](set)
    for report in reports:
        for each in report.schemas.get(function, ()):
            processes[each].add((report.host, report.pid))
    same = len(processes.pop(schema, ()))
    others = sorted(((each.hex(), len(who)) for each, who in processes.items()), key=lambda pair: (-pair[1], pair[0]))
    return Release(function, same, tuple(others))


def _processes(number: int) -> str:
    return many(number, "process", "processes")
