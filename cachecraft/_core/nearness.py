"""The options of the near cache, checked; knows nobody who keeps anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cachecraft._core.errors import OptionError, OptionTypeError
from cachecraft._core.policy import Duration, seconds

_LEAST: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A near cache: entries of Redis that this process holds in memory as well.

    Args:
        max_entries, max_bytes: bounds of what is held here; the cache's own by default.
        max_staleness: seconds; 1.0 by default. What another process has invalidated is served here no longer than
            this, whatever the network does; as a rule it is gone within milliseconds. What this process itself
            invalidates is gone at once.

    Raises:
        OptionError, OptionTypeError: an option cannot be used; the message names it and says the remedy.
    """

    max_entries: int | None = None
    max_bytes: int | None = None
    max_staleness: Duration = 1.0

    def __post_init__(self) -> None:
        for name in ("max_entries", "max_bytes"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise OptionTypeError(f"{name}={value!r} of Near() must be a whole number, or None for the cache's own")
            if value < 1:
                raise OptionError(f"{name}={value!r} of Near() must be at least 1; for no near cache give near=False")
        if self.staleness < _LEAST:
            raise OptionError(
                f"max_staleness={self.max_staleness!r} of Near() is below {_LEAST} seconds, which no server can answer"
                " for; give near=False to functions that may serve nothing old"
            )

    @property
    def staleness(self) -> float:
        """``max_staleness`` in seconds."""
        return seconds(self.max_staleness, "max_staleness")


def near_of(value: Any) -> Near | None:
    """What was given as ``near=``.

    Raises:
        OptionTypeError: it is none of the things that can be given.
    """
    if value is None or value is False:
        return None
    if value is True:
        return Near()
    if isinstance(value, Near):
        return value
    raise OptionTypeError(f"near={value!r} must be True, False, or Near(max_entries=..., max_staleness=...)")
