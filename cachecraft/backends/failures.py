"""What a failure of Redis means: who failed, and whether others would fail too; knows no connection and no effect."""

from __future__ import annotations

import asyncio
import re
from enum import Enum, auto
from typing import Any, Final

import hiredis
import redis
from redis import exceptions

from cachecraft._core.errors import BackendError, BackendRefused, BackendTimeout


class Kind(Enum):
    """Whose failure it is."""

    DOWN = auto()
    """The server itself says that it can serve nobody now, or not us: it is loading, a replica, locked."""
    LOST = auto()
    """No answer in time, no connection, or an answer that makes no sense."""
    REFUSED = auto()
    """The server said no to this, in step; it would answer other questions."""
    UNASKED = auto()
    """The server was not even asked: nothing can be said of it."""
    OURS = auto()
    """It went wrong in this process: what cannot be written, somebody's callback."""


class Unasked:
    """Marks the errors of this process that say nothing of the server."""


class Exhausted(Unasked, BackendTimeout):
    """No place in the pool, or in the queue, became free within the deadline."""


class Suspended(Unasked, BackendError):
    """Redis is not asked now: it did not answer lately, or an invalidation of this has yet to reach it."""


# A demoted primary is among them: what it still holds, an invalidation elsewhere can no longer reach.
_DOWN: Final = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,  # MASTERDOWN too
    exceptions.AuthenticationError,
)
_LOST: Final = (OSError, EOFError, asyncio.TimeoutError, exceptions.RedisError, hiredis.HiredisError)


def failure(error: BaseException) -> BackendError:
    """What any failure beneath becomes at the boundary. redis-py lets more out than its own errors."""
    if isinstance(error, BackendError):
        return error
    _hush(error)
    late = isinstance(error, (redis.TimeoutError, TimeoutError, asyncio.TimeoutError))
    refused = isinstance(error, exceptions.ResponseError)
    kind = BackendTimeout if late else BackendRefused if refused else BackendError
    wrapped = kind(f"Redis: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


refusal: Final[Any] = redis.connection.DefaultParser.parse_error
"""From what a server says in an error to redis-py's class for it."""

_ECHO: Final = re.compile(r",? with args beginning with.*", re.DOTALL)


def _hush(error: BaseException | None) -> None:
    """Cut off what a server echoes of a command that it does not know: of AUTH a password, of a script a value."""
    hushed: dict[int, BaseException] = {}
    while error is not None and id(error) not in hushed:  # they may well lead back to themselves
        if isinstance(error, redis.RedisError):
            error.args = tuple(_ECHO.sub("", each) if isinstance(each, str) else each for each in error.args)
        hushed[id(error)] = error
        error = error.__cause__ or error.__context__


def kind_of(error: BaseException) -> Kind:
    """Whose failure an error from the boundary is."""
    if isinstance(error, Unasked):
        return Kind.UNASKED
    if not isinstance(error, BackendError):
        return Kind.OURS
    cause = error.__cause__
    if isinstance(cause, _DOWN):
        return Kind.DOWN
    if isinstance(cause, exceptions.ResponseError):
        return Kind.DOWN if str(cause).startswith("BUSY ") else Kind.REFUSED  # a script that does not end
    if isinstance(cause, exceptions.DataError) or not (cause is None or isinstance(cause, _LOST)):
        return Kind.OURS
    return Kind.LOST
