"""Two thin ways to Redis, for threads and for tasks: a bounded pool of redis-py's connections, and a deadline.

They know commands and replies, no entry and no key. Nothing is retried beneath: what fails is a ``BackendError`` within
its deadline. A connection that anything went wrong on is closed, never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.asyncio.connection as aredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachecraft._core.errors import BackendError, BackendTimeout, OptionError
from cachecraft.backends.commands import SCRIPTS, Command

_IDENTITY: Final = frozenset({"host", "port", "db", "username", "password", "path", "client_name"})


@dataclass(frozen=True, slots=True)
class Dialling:
    """How to reach the server. Times are in seconds."""

    url: str
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
                raise OptionError(f"url= may not say {name}=; leave it out, Cache() has timeouts and pool_size= instead")

    def exhausted(self) -> BackendTimeout:
        return BackendTimeout(f"Redis: all {self.pool_size} connections are in use; raise pool_size=")

    def options(self, retry: object) -> dict[str, Any]:
        # RESP2: with RESP3, redis-py switches off its own check for unread replies, since pushes look alike.
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.connect_timeout,
            "retry": retry,
            "protocol": 2,
            "health_check_interval": 0,
        }


def failure(error: BaseException) -> BackendError:
    """What any failure beneath becomes at the boundary. redis-py lets more out than its own errors."""
    if isinstance(error, BackendError):
        return error
    late = isinstance(error, (redis.TimeoutError, TimeoutError, asyncio.TimeoutError))
    kind = BackendTimeout if late else BackendError
    wrapped = kind(f"Redis: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _answered(replies: list[Any]) -> list[int]:
    """Which commands must be sent again with their script's text. Raises what the server refused."""
    again = []
    for at, reply in enumerate(replies):
        if isinstance(reply, redis.exceptions.NoScriptError):
            again.append(at)
        elif isinstance(reply, Exception):
            raise reply
    return again


def _in_full(command: Command) -> Command:
    return ("EVAL", SCRIPTS[command[1]].source, *command[2:])


Talk = Generator[list[Command], Any, Any]
"""A conversation: yields commands to send, is sent the replies, or thrown what the server refused."""

_Greeted = tuple[Any, int]
"""A connection, and how many namespaces it was fenced for."""


class Transport:
    """For threads."""

    def __init__(self, dialling: Dialling, greet: Callable[[], Talk]) -> None:
        self._dialling = dialling
        self._greet = greet
        """What to say first on each new connection."""
        self.fences = 0
        """How many namespaces are to be fenced; a connection greeted for fewer is not used again."""
        self._reset()

    def _reset(self) -> None:
        self._idle: deque[_Greeted] = deque()
        self._places = threading.Semaphore(self._dialling.pool_size)
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
        if not self._places.acquire(timeout=self._dialling.timeout):
            raise self._dialling.exhausted()
        greeted = None
        try:
            greeted = self._connection()
            result = work(greeted[0], subject)
        except redis.exceptions.ResponseError as error:
            # The server said no, in step: the connection is as good as before.
            if greeted is not None:
                self._put_back(greeted)
            raise failure(error) from error
        except BaseException as error:
            if greeted is not None:
                greeted[0].disconnect()
            if isinstance(error, Exception):
                raise failure(error) from error
            raise
        else:
            self._put_back(greeted)
            return result
        finally:
            self._places.release()

    def _exchange(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        replies = self._talk(connection, commands)
        for at in _answered(replies):
            replies[at] = self._talk(connection, [_in_full(commands[at])])[0]
            _answered([replies[at]])
        return replies

    def _hold(self, connection: Any, talk: Talk) -> Any:
        try:
            commands = next(talk)
            while True:
                try:
                    replies = self._exchange(connection, commands)
                except redis.exceptions.ResponseError as error:
                    commands = talk.throw(error)
                else:
                    commands = talk.send(replies)
        except StopIteration as end:
            return end.value

    def _connection(self) -> _Greeted:
        while self._idle:
            try:
                greeted = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            connection, fences = greeted
            try:
                # Unread data means a reply to somebody else's question, or the end of the connection.
                if fences == self.fences and connection.is_connected and not connection.can_read():
                    return greeted
            except Exception:  # whatever it is, this connection is not to be used
                pass
            connection.disconnect()
        options = redis.connection.parse_url(self._dialling.url)  # type: ignore[no-untyped-call]  # as above
        kind: Any = options.pop("connection_class", redis.Connection)
        connection = kind(**{**options, **self._dialling.options(Retry(NoBackoff(), 0))})
        fences = self.fences  # a namespace that comes while we greet is not greeted for
        try:
            connection.connect()
            self._hold(connection, self._greet())
        except BaseException:
            connection.disconnect()
            raise
        return connection, fences

    def _talk(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        deadline = time.monotonic() + self._dialling.timeout
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                if replies and time.monotonic() > deadline:
                    raise BackendTimeout("Redis: the replies took longer than the deadline")
                replies.append(connection.read_response(disconnect_on_error=False))
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies

    def _put_back(self, greeted: _Greeted) -> None:
        self._idle.append(greeted)
        if self._closed:
            self._hang_up()

    def close(self) -> None:
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop()[0].disconnect()

    def __repr__(self) -> str:
        return f"<Transport: {len(self._idle)} idle connections>"


class _Pool:
    """The connections of one event loop."""

    def __init__(self, size: int) -> None:
        self.idle: deque[_Greeted] = deque()
        self.places = asyncio.Semaphore(size)
        self.ended = False
        self.end: AsyncGenerator[None, None] | None = None

    async def put_back(self, greeted: _Greeted) -> None:
        if self.ended:
            await _hang_up(greeted[0])
        else:
            self.idle.append(greeted)


class AsyncTransport:
    """For tasks: the same, with one pool for each event loop."""

    def __init__(self, dialling: Dialling, greet: Callable[[], Talk]) -> None:
        self._dialling = dialling
        self._greet = greet
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = weakref.WeakKeyDictionary()
        self.fences = 0

    def after_fork(self) -> None:
        """In a forked child: to collect the parent's connections would unregister them from the epoll both share."""
        _inherited.append(list(self._pools.items()))
        self._pools = weakref.WeakKeyDictionary()

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """As ``Transport.execute``. A caller that is cancelled takes its connection down with it."""
        return await self._on_one(self._exchange, commands)  # type: ignore[no-any-return]  # as _exchange answers

    async def converse(self, talk: Talk) -> Any:
        """As ``Transport.converse``."""
        return await self._on_one(self._hold, talk)

    async def _on_one(self, work: Callable[[Any, Any], Any], subject: Any) -> Any:
        pool = await self._pool()
        try:
            async with asyncio.timeout(self._dialling.timeout):
                await pool.places.acquire()
        except TimeoutError:
            raise self._dialling.exhausted() from None
        greeted = None
        try:
            greeted = await self._connection(pool)
            result = await work(greeted[0], subject)
        except redis.exceptions.ResponseError as error:
            if greeted is not None:
                await pool.put_back(greeted)
            raise failure(error) from error
        except BaseException as error:
            if greeted is not None:
                await _hang_up(greeted[0])
            if isinstance(error, Exception):
                raise failure(error) from error
            raise
        else:
            await pool.put_back(greeted)
            return result
        finally:
            pool.places.release()

    async def _exchange(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        async with asyncio.timeout(self._dialling.timeout):
            replies = await self._talk(connection, commands)
            for at in _answered(replies):
                replies[at] = (await self._talk(connection, [_in_full(commands[at])]))[0]
                _answered([replies[at]])
        return replies

    async def _hold(self, connection: Any, talk: Talk) -> Any:
        try:
            commands = next(talk)
            while True:
                try:
                    replies = await self._exchange(connection, commands)
                except redis.exceptions.ResponseError as error:
                    commands = talk.throw(error)
                else:
                    commands = talk.send(replies)
        except StopIteration as end:
            return end.value

    async def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = _Pool(self._dialling.pool_size)
            # asyncio.run ends asynchronous generators before it closes the loop: that is our moment to hang up.
            pool.end = _at_the_end(pool)
            await pool.end.asend(None)
        return pool

    async def _connection(self, pool: _Pool) -> _Greeted:
        while pool.idle:
            greeted = pool.idle.pop()
            connection, fences = greeted
            if fences == self.fences and await _is_clean(connection):
                return greeted
            await _hang_up(connection)
        options = aredis.parse_url(self._dialling.url)
        kind: Any = options.pop("connection_class", aredis.Connection)  # type: ignore[typeddict-item]  # so redis-py has it
        connection = kind(**{**options, **self._dialling.options(AsyncRetry(NoBackoff(), 0))})
        fences = self.fences

        try:
            async with asyncio.timeout(self._dialling.connect_timeout + self._dialling.timeout):
                await connection.connect()
                await self._hold(connection, self._greet())
        except BaseException:
            await _hang_up(connection)
            raise
        return connection, fences

    async def _talk(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(disconnect_on_error=False))
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies

    async def aclose(self) -> None:
        """Hang up on the running loop; other loops hang up when they end."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None and pool.end is not None:
            await pool.end.aclose()

    def __repr__(self) -> str:
        return f"<AsyncTransport: {len(self._pools)} event loops>"


_inherited: Final[list[Any]] = []


async def _at_the_end(pool: _Pool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        pool.ended = True
        while pool.idle:
            await _hang_up(pool.idle.pop()[0])


async def _is_clean(connection: Any) -> bool:
    """Whether nothing waits to be read: that would be a reply to somebody else's question, or the connection's end."""
    unread = getattr(connection, "can_read", None) or connection.can_read_destructive  # so until redis-py 8
    try:
        return connection.is_connected and not await unread()
    except Exception:  # whatever it is, this connection is not to be used
        return False
    except BaseException:
        await _hang_up(connection)
        raise


async def _hang_up(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.disconnect(nowait=True)
