"""Two thin ways to Redis, for threads and for tasks: a bounded pool of redis-py's connections, and a deadline.

They know commands and replies, no entry and no key. Nothing is retried beneath: what fails is a ``BackendError`` within
its deadline. A connection that anything went wrong on is closed, never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.asyncio.connection as aredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachecraft._core.errors import BackendError, BackendTimeout
from cachecraft.backends.commands import SCRIPTS, Command

_NOTHING_READ: Final = object()


@dataclass(frozen=True, slots=True)
class Dialling:
    """How to reach the server. Times are in seconds."""

    url: str
    timeout: float
    connect_timeout: float
    pool_size: int

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


def _answered(commands: Sequence[Command], replies: list[Any]) -> list[int]:
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


class Transport:
    """For threads."""

    def __init__(self, dialling: Dialling, greet: Callable[[Callable[[Command], Any]], object]) -> None:
        self._dialling = dialling
        self._greet = greet
        """Called with each new connection, and a way to send one command over it."""
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Any] = deque()
        self._places = threading.Semaphore(self._dialling.pool_size)
        self._closed = False
        self.fences = 0

    def after_fork(self) -> None:
        """In a forked child: redis-py closes inherited sockets without a word to the server when they are collected."""
        self._reset()

    def execute(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Send commands in one go, and read all replies.

        Raises:
            BackendError: anything went wrong, within the deadline.
        """
        deadline = time.monotonic() + (timeout or self._dialling.timeout)
        if not self._places.acquire(timeout=self._dialling.timeout):
            raise BackendTimeout(f"Redis: all {self._dialling.pool_size} connections are in use; raise pool_size=")
        connection = None
        try:
            connection = self._connection()
            replies = self._talk(connection, commands, deadline)
            for at in _answered(commands, replies):
                replies[at] = self._talk(connection, [_in_full(commands[at])], deadline)[0]
                _answered((), [replies[at]])
        except redis.exceptions.ResponseError as error:
            # The server said no, in step: the connection is as good as before.
            self._put_back(connection)
            raise failure(error) from error
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if isinstance(error, Exception):
                raise failure(error) from error
            raise
        else:
            self._put_back(connection)
            return replies
        finally:
            self._places.release()

    def _connection(self) -> Any:
        while self._idle:
            try:
                connection, fences = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            try:
                # Unread data means a reply to somebody else's question, or the end of the connection.
                if fences == self.fences and connection.is_connected and not connection.can_read():
                    return connection
            except Exception:  # whatever it is, this connection is not to be used
                pass
            connection.disconnect()
        connection = self._dial()
        connection.connect()
        try:
            self._greet(lambda command: self._talk(connection, [command], time.monotonic() + self._dialling.timeout)[0])
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _dial(self) -> Any:
        options = redis.connection.parse_url(self._dialling.url)
        kind = options.pop("connection_class", redis.Connection)
        return kind(**{**options, **self._dialling.options(Retry(NoBackoff(), 0))})

    def _talk(self, connection: Any, commands: Sequence[Command], deadline: float) -> list[Any]:
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

    def _put_back(self, connection: Any) -> None:
        if self._closed or connection is None:
            if connection is not None:
                connection.disconnect()
            return
        self._idle.append((connection, self.fences))

    def close(self) -> None:
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop()[0].disconnect()

    def __repr__(self) -> str:
        return f"<Transport: {len(self._idle)} idle connections>"


class _Pool:
    """The connections of one event loop."""

    def __init__(self, size: int) -> None:
        self.idle: deque[Any] = deque()
        self.places = asyncio.Semaphore(size)
        self.end: AsyncGenerator[None, None] | None = None


class AsyncTransport:
    """For tasks: the same, with one pool for each event loop."""

    def __init__(self, dialling: Dialling, greet: Callable[[Callable[[Command], Any]], Any]) -> None:
        self._dialling = dialling
        self._greet = greet
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = weakref.WeakKeyDictionary()
        self.fences = 0

    def after_fork(self) -> None:
        """In a forked child: to collect the parent's connections would unregister them from the epoll both share."""
        _inherited.append(list(self._pools.items()))
        self._pools = weakref.WeakKeyDictionary()

    async def execute(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """As ``Transport.execute``. A caller that is cancelled takes its connection down with it."""
        pool = await self._pool()
        connection = None
        try:
            async with asyncio.timeout(self._dialling.timeout):
                await pool.places.acquire()
        except TimeoutError:
            raise BackendTimeout(f"Redis: all {self._dialling.pool_size} connections are in use; raise pool_size=") from None
        try:
            connection = await self._connection(pool)
            async with asyncio.timeout(timeout or self._dialling.timeout):
                replies = await self._talk(connection, commands)
                for at in _answered(commands, replies):
                    replies[at] = (await self._talk(connection, [_in_full(commands[at])]))[0]
                    _answered((), [replies[at]])
        except redis.exceptions.ResponseError as error:
            if connection is not None:
                pool.idle.append((connection, self.fences))
            raise failure(error) from error
        except BaseException as error:
            if connection is not None:
                await _hang_up(connection)
            if isinstance(error, Exception):
                raise failure(error) from error
            raise
        else:
            pool.idle.append((connection, self.fences))
            return replies
        finally:
            pool.places.release()

    async def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = _Pool(self._dialling.pool_size)
            # asyncio.run ends asynchronous generators before it closes the loop: that is our moment to hang up.
            pool.end = _at_the_end(pool)
            await pool.end.asend(None)
        return pool

    async def _connection(self, pool: _Pool) -> Any:
        while pool.idle:
            connection, fences = pool.idle.pop()
            try:
                if fences == self.fences and connection.is_connected and not await connection.can_read_destructive():
                    return connection
            except Exception:  # whatever it is, this connection is not to be used
                pass
            await _hang_up(connection)
        options = aredis.parse_url(self._dialling.url)
        kind: Any = options.pop("connection_class", aredis.Connection)  # type: ignore[typeddict-item]  # so redis-py has it
        connection = kind(**{**options, **self._dialling.options(AsyncRetry(NoBackoff(), 0))})

        async def send(command: Command) -> Any:
            return (await self._talk(connection, [command]))[0]

        try:
            async with asyncio.timeout(self._dialling.connect_timeout + self._dialling.timeout):
                await connection.connect()
                await self._greet(send)
        except BaseException:
            await _hang_up(connection)
            raise
        return connection

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
        while pool.idle:
            await _hang_up(pool.idle.pop()[0])


async def _hang_up(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.disconnect(nowait=True)
