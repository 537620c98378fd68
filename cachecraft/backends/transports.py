"""The way to Redis for threads, a bounded pool of redis-py's connections and a deadline; and what tasks share of it.

It knows commands and replies, no entry and no key. Nothing is retried beneath: what fails is a ``BackendError`` within
its deadline. A connection that anything went wrong on is closed, never used again.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachecraft._core.errors import BackendTimeout, OptionError
from cachecraft.backends.commands import SCRIPTS, Command
from cachecraft.backends.failures import Exhausted, failure

_IDENTITY: Final = frozenset({"host", "port", "db", "username", "password", "path", "client_name"})


@dataclass(frozen=True, slots=True)
class Dialling:
    """How to reach the server. Times are in seconds."""

    url: str = field(repr=False)  # it may hold a password
    timeout: float
    connect_timeout: float
    pool_size: int

    def __post_init__(self) -> None:
        """Read the URL now, so that a wrong one is told where it was written.

        Raises:
            OptionError: it cannot be read, or it asks for what the transports decide themselves.
        """
        try:
            given = redis.connection.parse_url(self.url)  # type: ignore[no-untyped-call]  # so redis-py has it
        except ValueError:  # its text may hold a piece of the password
            raise OptionError("url= cannot be read; percent-encode what is special in its password") from None
        for name in given.keys() - _IDENTITY - {"connection_class"}:
            if not name.startswith("ssl_"):
                raise OptionError(f"url= may not say {name}=; leave it out, Cache() has timeouts and pool_size=")

    @property
    def longest(self) -> float:
        """Seconds until a new connection is there and greeted, or is given up."""
        return self.connect_timeout + self.timeout

    def exhausted(self) -> Exhausted:
        return Exhausted(f"Redis: none of {self.pool_size} connections came free in time; raise pool_size=")

    def options(self) -> dict[str, Any]:
        # RESP2: with RESP3, redis-py switches off its own check for unread replies, since pushes look alike.
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.connect_timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "health_check_interval": 0,
        }


def answered(replies: list[Any]) -> list[int]:
    """Which commands must be sent again with their script's text. Raises what the server refused."""
    again = []
    for at, reply in enumerate(replies):
        if isinstance(reply, redis.exceptions.NoScriptError):
            again.append(at)
        elif isinstance(reply, Exception):
            raise reply
    return again


def in_full(command: Command) -> Command:
    return ("EVAL", SCRIPTS[command[1]].source, *command[2:])


Talk = Generator[list[Command], Any, Any]
"""A conversation: yields commands to send, is sent the replies, or thrown what the server refused."""

Fences = tuple[int, int]
"""What a connection must have been greeted for: after how many outages, and for how many namespaces."""

_Greeted = tuple[Any, Fences]
"""A connection, and what it was greeted for."""


_RedisParser: Any = redis.connection.DefaultParser


class _Parser(_RedisParser):  # type: ignore[misc]  # as above
    """Reads replies until a deadline: a socket's own timeout begins anew with every piece that drips in."""

    deadline = math.inf

    def read_from_socket(self, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() > self.deadline:
            raise BackendTimeout("Redis: the replies took longer than the deadline")
        return super().read_from_socket(*args, **kwargs)


_pools: Final[dict[int, deque[_Greeted]]] = {}
"""The idle connections of each transport. The garbage collector ends what it collects in any order; what is held here
is whole until its transport has hung up, and no socket complains that nobody closed it."""


class Transport:
    """For threads."""

    def __init__(self, dialling: Dialling, greet: Callable[[], Talk]) -> None:
        self._dialling = dialling
        self._greet = greet
        """What to say first on each new connection."""
        self.fences: Fences = (0, 0)
        """A connection greeted for others is not used again."""
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._idle: deque[_Greeted] = deque()
        self._open = 0
        """Connections that somebody uses or dials."""
        self._dials_until = 0.0
        """By when whoever dials has ended: a time, lest one interrupted before it began keeps all others from it."""
        _pools[id(self)] = self._idle
        self._closed = False

    def after_fork(self) -> None:
        """In a forked child: redis-py closes inherited sockets without a word to the server when they are collected."""
        self._reset()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go, and read all replies.

        Raises:
            BackendError: anything went wrong, within the deadline.
        """
        return self._on_one(self._exchange, commands)  # type: ignore[no-any-return]  # as _exchange answers

    def converse(self, talk: Talk) -> Any:
        """Hold a conversation over one connection, so that it has all been with the same server.

        Raises:
            BackendError: as ``execute``.
        """
        return self._on_one(self._hold, talk)

    def _on_one(self, work: Callable[[Any, Any], Any], subject: Any) -> Any:
        greeted = self._taken()
        try:
            if greeted is None:
                greeted = self._dialled()
            result = work(greeted[0], subject)
        except redis.exceptions.ResponseError as error:
            # The server said no, in step: the connection is as good as before.
            self._leave(greeted)
            raise failure(error) from error
        except BaseException as error:
            if greeted is not None:
                greeted[0].disconnect()
            self._leave(None)
            if isinstance(error, Exception):
                raise failure(error) from error
            raise
        else:
            self._leave(greeted)
            return result

    def _taken(self) -> _Greeted | None:
        """An idle connection, or ``None`` and leave to dial.

        One thread dials at a time. When many come at once, most find the connection of one that is done already sooner
        than they could have had their own.

        Raises:
            BackendTimeout: there was neither within the deadline.
        """
        # As long as a dial of one's own could take: whoever dials for all may be at the beginning of it.
        until = time.monotonic() + self._dialling.longest
        greeted: _Greeted | None
        while True:
            with self._changed:
                while not self._idle and not self._may_dial():
                    if not self._changed.wait(until - time.monotonic()):
                        raise self._dialling.exhausted()
                try:
                    greeted = self._idle.pop()
                except IndexError:
                    if not self._may_dial():
                        continue  # whoever hangs up takes no lock, and has just had the last one
                    self._dials_until = time.monotonic() + self._dialling.longest
                    greeted = None
                self._open += 1
            if greeted is None or self._usable(greeted):
                return greeted
            greeted[0].disconnect()
            self._leave(None)

    def _may_dial(self) -> bool:
        return self._open < self._dialling.pool_size and self._dials_until <= time.monotonic()

    def _leave(self, greeted: _Greeted | None) -> None:
        """Put a connection back, or its place if there is none to put back."""
        with self._changed:
            self._open -= 1
            if greeted is not None:
                self._idle.append(greeted)
            self._changed.notify()
        if self._closed:
            self._hang_up()

    def _usable(self, greeted: _Greeted) -> bool:
        connection, fences = greeted
        try:
            # Unread data means a reply to somebody else's question, or the end of the connection.
            return fences == self.fences and connection.is_connected and not connection.can_read()
        except Exception:  # whatever it is, this connection is not to be used
            return False

    def _exchange(self, connection: Any, commands: Sequence[Command], until: float = math.inf) -> list[Any]:
        replies = self._talk(connection, commands, until)
        for at in answered(replies):
            replies[at] = self._talk(connection, [in_full(commands[at])], until)[0]
            answered([replies[at]])
        return replies

    def _hold(self, connection: Any, talk: Talk, until: float = math.inf) -> Any:
        try:
            commands = next(talk)
            while True:
                try:
                    replies = self._exchange(connection, commands, until)
                except redis.exceptions.ResponseError as error:
                    commands = talk.throw(error)
                else:
                    commands = talk.send(replies)
        except StopIteration as end:
            return end.value

    def _dialled(self) -> _Greeted:
        try:
            return self._dial()
        finally:
            with self._changed:
                self._dials_until = 0.0
                self._changed.notify()

    def _dial(self) -> _Greeted:
        options = redis.connection.parse_url(self._dialling.url)  # type: ignore[no-untyped-call]  # as above
        kind: Any = options.pop("connection_class", redis.Connection)
        connection = kind(**{**options, **self._dialling.options()}, parser_class=_Parser)
        fences = self.fences  # a namespace that comes while we greet is not greeted for
        connection._parser.deadline = until = time.monotonic() + self._dialling.longest
        try:
            connection.connect()
            self._hold(connection, self._greet(), until)
        except BaseException:
            connection.disconnect()
            raise
        return connection, fences

    def _talk(self, connection: Any, commands: Sequence[Command], until: float) -> list[Any]:
        connection._parser.deadline = min(until, time.monotonic() + self._dialling.timeout)
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response(disconnect_on_error=False))
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies

    @property
    def connected(self) -> bool:
        """Whether connections are kept open for the next question."""
        return bool(self._idle)

    def close(self) -> None:
        self._closed = True
        self._hang_up()

    def renew(self, fences: Fences) -> None:
        """Use no connection again that was made before now."""
        self.fences = fences
        self._hang_up()

    def _hang_up(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop()[0].disconnect()

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _ending():
            for connection, _ in _pools.pop(id(self), ()):  # they stay in sight: whose transport this is may ask yet
                connection.disconnect()

    def __repr__(self) -> str:
        return f"<Transport: {len(self._idle)} idle connections>"
