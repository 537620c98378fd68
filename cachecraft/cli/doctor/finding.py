"""What a check came to, and the worst of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

GOOD: Final = "good"
WARNING: Final = "warning"
BAD: Final = "bad"
UNKNOWN: Final = "unknown"
"""It could not be told, and that is no fault of the server's."""
_ORDER: Final = (UNKNOWN, GOOD, WARNING, BAD)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's."""

    check: str
    level: str
    summary: str
    remedy: str | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    """What it was told from, for programs."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def worst(findings: Iterable[Finding]) -> str:
    """The level of them all."""
    return max((finding.level for finding in findings), key=_ORDER.index, default=UNKNOWN)
