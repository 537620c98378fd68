"""One connection of a thread to Redis: redis-py opens it and logs in, and from then on bytes go and come here.

redis-py's own reading of a reply costs as much as all the rest of a hit. It knows commands and replies, no entry and no
key. A line that anything went wrong on is closed, never used again.
"""

from __future__ import annotations

import ipaddress
import math
import select
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import hiredis
import redis

from cachecraft._core.errors import BackendTimeout
from cachecraft.backends.commands import Command
from cachecraft.backends.failures import refusal

_PIECE: Final = 65_536
_RedisParser: Any = redis.connection.DefaultParser


class _Parser(_RedisParser):  # type: ignore[misc]  # redis-py's types say nothing here
    """Reads what is said at login until a deadline: a socket's timeout begins anew with every piece that drips in."""

    deadline = math.inf

    def read_from_socket(self, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() > self.deadline:
            raise BackendTimeout("Redis: the login took longer than the deadline")
        return super().read_from_socket(*args, **kwargs)


def _connect(connection: Any, host: str | None, within: float) -> None:
    """Open a connection. A name is looked up without a deadline of ours, so that is waited for in another thread."""
    if host is None or _is_address(host):
        connection.connect()
        return
    done, given_up = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            connection.connect()
        except BaseException as error:
            errors.append(error)
        done.set()
        if given_up.is_set():
            connection.disconnect()

    threading.Thread(target=connect, name="cachecraft-connect", daemon=True).start()
    if not done.wait(within):
        given_up.set()
        raise BackendTimeout("Redis: connecting took longer than the deadline")
    if errors:
        raise errors[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Line:
    """Questions and their replies, one after the other."""

    def __init__(self, url: str, options: dict[str, Any], within: float) -> None:
        given = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]  # so redis-py has it
        kind: Any = given.pop("connection_class", redis.Connection)
        self._connection = kind(**{**given, **options}, parser_class=_Parser)
        self._connection._parser.deadline = time.monotonic() + within
        try:
            _connect(self._connection, given.get("host"), within)
        except BaseException:
            self.close()
            raise
        self._socket = self._connection._sock
        self._reader = hiredis.Reader(replyError=refusal)
        self._unread = select.poll()
        self._unread.register(self._socket, select.POLLIN)

    def ask(self, commands: Sequence[Command], within: float) -> list[Any]:
        """Send commands in one go, and read all replies, refusals among them, within so many seconds."""
        return self.exchange(b"".join(map(hiredis.pack_command, commands)), len(commands), within)

    def exchange(self, packed: bytes, count: int, within: float) -> list[Any]:
        """As ``ask``, for so many commands that have been packed already."""
        until = time.monotonic() + within
        self._socket.sendall(packed)
        replies: list[Any] = []
        gets = self._reader.gets
        for _ in range(count):
            while (reply := gets()) is False:
                # Asked before the next piece, not after it: what is here in time may find this thread busy elsewhere.
                if time.monotonic() > until:
                    raise BackendTimeout("Redis: the replies took longer than the deadline")
                data = self._socket.recv(_PIECE)
                if not data:
                    raise redis.ConnectionError("the server closed the connection")
                self._reader.feed(data)
            replies.append(reply)
        return replies

    # -- for a connection on which there is more to hear than answers ---------------------------------------

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands without waiting for their replies."""
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))

    def receive(self) -> list[Any]:
        """What has come, replies and pushes, as far as it is complete. Blocks where nothing has."""
        while True:
            data = self._socket.recv(_PIECE)
            if not data:
                raise redis.ConnectionError("the server closed the connection")
            self._reader.feed(data)
            # What TLS has decrypted already, ``poll`` does not know of.
            if not getattr(self._socket, "pending", int)():
                break
        replies: list[Any] = []
        while (reply := self._reader.gets()) is not False:  # not ``iter(gets, False)``: a reply may be 0
            replies.append(reply)
        return replies

    def is_usable(self) -> bool:
        """Whether nothing has come unasked: a reply to somebody else's question, or the end of the connection."""
        return not self._unread.poll(0)

    def close(self) -> None:
        self._connection.disconnect()

    def __repr__(self) -> str:
        return f"<Line {'open' if self._connection._sock is not None else 'closed'}>"
