"""Where in a user's code something was asked for: the innermost frame that is not ours. Knows not what it was."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import FrameType
from typing import Final, NamedTuple

_OURS: Final = ("cachecraft.", "wrapt.")
_NOBODYS: Final = ("asyncio.", "uvloop", "concurrent.futures.", "threading")
"""Who calls what somebody else has handed over: who that was, the stack does not tell."""


class Site(NamedTuple):
    """A line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}"


class Cause(NamedTuple):
    """Who had something invalidated."""

    site: Site | None = None
    """Unknown where a thread, a task or an executor was handed the very call."""
    write: str | None = None
    """The function that ``invalidates`` decorates, called at the site."""


writing: Final[ContextVar[Cause | None]] = ContextVar("cachecraft_writing", default=None)
"""Set while a function that ``invalidates`` decorates does so: that may be in a task of its own."""


def cause() -> Cause:
    """On whose behalf this runs."""
    given = writing.get()
    return given if given is not None else Cause(site())


def site() -> Site | None:
    """Where our code was called from."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name is not None and not name.startswith(_OURS):  # the wrappers that we generate have no module
            if name.startswith(_NOBODYS):
                return None
            return Site(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back
    return None
