"""What commands, scripts and plans are, for those who write them; it knows no effect and no key, and sends nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Command = tuple[Any, ...]
Replies = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, sent by its hash."""

    source: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """How an effect is performed in one round trip."""

    commands: Callable[[Any], list[Command]]
    answer: Callable[[Any, Replies], Any]


def call(script_sha: str, key: str, *arguments: Any) -> Command:
    """Run a script on one key."""
    return ("EVALSHA", script_sha, 1, key, *arguments)


def milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def reply_of(_: Any, replies: Replies) -> Any:
    """The reply to the first command, as it is."""
    return replies[0]


def truth_of(_: Any, replies: Replies) -> bool:
    """Whether the first command answered anything but zero."""
    return bool(replies[0])
