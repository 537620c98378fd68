"""Where in a user's code something was asked for: the innermost frame that is not ours. Knows not what it was."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Final, NamedTuple

_OURS: Final = ("cachecraft.", "wrapt.")
_NOBODYS: Final = ("asyncio.", "uvloop", "concurrent.futures.", "threading")
"""Who calls what somebody else has handed over: who that was, the stack does not tell."""


class Cause(NamedTuple):
    """Who had something invalidated: a line of code, unknown where a thread or a task was handed the very call."""

    code: CodeType | None = None
    line: int = 0
    write: str | None = None
    """The function that ``invalidates`` decorates, called at that line."""

    @property
    def site(self) -> str | None:
        """``file:line function``."""
        return f"{self.code.co_filename}:{self.line} {self.code.co_qualname}" if self.code is not None else None


_UNKNOWN: Final = Cause()
writing: Final[ContextVar[Cause | None]] = ContextVar("cachecraft_writing", default=None)
"""Set while a function that ``invalidates`` decorates does so: that may be in a task of its own."""


def cause() -> Cause:
    """On whose behalf this runs."""
    return writing.get() or called_from()


def called_from(write: str | None = None) -> Cause:
    """Where our code was called from."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name is not None and not name.startswith(_OURS):  # the wrappers that we generate have no module
            if name.startswith(_NOBODYS):
                break
            return Cause(frame.f_code, frame.f_lineno, write)
        frame = frame.f_back
    return _UNKNOWN if write is None else Cause(write=write)
