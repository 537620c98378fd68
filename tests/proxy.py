"""A TCP proxy between a cache and its Redis: counts what passes, delays, holds back or swallows it, cuts lines."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self

import hiredis


class _Line:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.requests = hiredis.Reader()
        self.said: set[bytes] = set()
        """The names of the commands that it has sent."""
        self.dead = False
        """Something was swallowed: whatever followed would be out of step."""
        self.answered = True
        """The client had an answer since it last spoke, so that what it says next is another round trip."""

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens on `port` and hands everything on to the server at `target`, and back.

    `commands` is every command seen since `forget`, in order; `round_trips` counts bursts of them that were followed
    by an answer. Each connection's greeting counts too: warm up, then `forget`.
    """

    def __init__(
        self, target: int, *, delay: Callable[[], float] | None = None, answers: Mapping[bytes, bytes] | None = None
    ) -> None:
        self.target = target
        self.answers = answers or {}
        """What is answered to bursts with such a command, in the server's place."""
        self.delay = delay
        """Seconds by which each piece is late, in either direction; lines overtake each other."""
        self.commands: list[tuple[bytes, ...]] = []
        self.round_trips = 0
        self.lines_made = 0
        self._changed = threading.Condition()
        self._lines: set[_Line] = set()
        self._room: int | None = None
        """Bytes of replies that may still pass; none means all."""
        self._swallows: Callable[[_Line], bool] = _nothing
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def forget(self) -> None:
        with self._changed:
            self.commands.clear()
            self.round_trips = 0
            self.lines_made = 0

    @property
    def names(self) -> Counter[str]:
        """How often each command was seen; scripts by their name in Redis, `EVALSHA`."""
        with self._changed:
            return Counter(command[0].decode().upper() for command in self.commands)

    def wait_for(self, wanted: Callable[[tuple[bytes, ...]], bool], *, timeout: float = 10.0) -> None:
        """Until such a command has come by."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(map(wanted, self.commands)), timeout):
                raise TimeoutError(f"no such command among {self.commands}")

    def hold_replies(self, after: int = 0) -> None:
        """Let `after` more bytes of replies through, and keep the rest until `let_go`."""
        with self._changed:
            self._room = after
            self._changed.notify_all()

    def let_go(self) -> None:
        """Deliver what was held back, late, and all that follows."""
        with self._changed:
            self._room = None
            self._changed.notify_all()

    def swallow(self, *said: bytes) -> None:
        """Lose what is said, both ways, with all connections open: of those that have sent all such commands."""
        with self._changed:
            self._swallows = lambda line: line.said.issuperset(said)

    def heal(self) -> None:
        """Swallow nothing more. What has lost something is cut, as a network does once it is whole again."""
        with self._changed:
            self._swallows = _nothing
            dead = [line for line in self._lines if line.dead]
        for line in dead:
            line.cut()

    def cut(self) -> None:
        """Break every connection."""
        with self._changed:
            lines, self._lines = self._lines, set()
        for line in lines:
            line.cut()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.let_go()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Proxy {self.port} -> {self.target}: {len(self._lines)} lines, {self.round_trips} round trips>"

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = _Line(client, server)
            with self._changed:
                self._lines.add(line)
                self.lines_made += 1
            for pump in (self._ask, self._answer):
                threading.Thread(target=self._run, args=(pump, line), daemon=True).start()

    def _run(self, pump: Callable[[_Line], Any], line: _Line) -> None:
        try:
            pump(line)
        except OSError:
            pass
        finally:
            line.cut()
            with self._changed:
                self._lines.discard(line)

    def _ask(self, line: _Line) -> None:
        while data := line.client.recv(65536):
            line.requests.feed(data)
            with self._changed:
                self.round_trips += line.answered
                line.answered = False
                answer = None
                while (command := line.requests.gets()) is not False:
                    self.commands.append(tuple(command))
                    line.said.add(command[0].upper())
                    answer = answer or self.answers.get(command[0].upper())
                self._changed.notify_all()
                line.dead = line.dead or self._swallows(line)
            if line.dead:
                continue
            if answer is not None:
                line.client.sendall(answer)
                continue
            if self.delay is not None:
                time.sleep(self.delay())
            line.server.sendall(data)

    def _answer(self, line: _Line) -> None:
        while data := line.server.recv(65536):
            line.dead = line.dead or self._swallows(line)
            if line.dead:
                continue
            line.answered = True
            if self.delay is not None:
                time.sleep(self.delay())
            while data:
                with self._changed:
                    self._changed.wait_for(lambda: self._room is None or self._room > 0)
                    now = len(data) if self._room is None else min(self._room, len(data))
                    if self._room is not None:
                        self._room -= now
                line.client.sendall(data[:now])
                data = data[now:]


def _nothing(line: _Line) -> bool:
    return False
