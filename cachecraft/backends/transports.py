"""The way to Redis for threads, a bounded pool of connections and a deadline; and what tasks share of it.

It knows commands and replies, no entry and no key. Nothing is retried beneath: what fails is a ``BackendError`` within
its deadline. A connection that anything went wrong on is closed, never used again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import redis

from cachecraft._core.errors import BackendError
from cachecraft.backends.combining import Combiner
from cachecraft.backends.commands import SCRIPTS, Command, is_beside
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.failures import failure
from cachecraft.backends.lines import Line

log: Final = logging.getLogger("cachecraft")


def answered(commands: Sequence[Command], replies: list[Any]) -> list[int]:
    """Which commands must be sent again, with their script's text. Raises what the server refused.

    With a script that the server did not know goes what was to see, or to tell, what that does. Nothing else: a stamp
    that was put before it may have fallen since, and is not to rise again.
    """
    again: list[int] = []
    for at, reply in enumerate(replies):
        if not isinstance(reply, Exception):
            if again and commands[at][0] in _AFTER:
                again.append(at)
        elif isinstance(reply, redis.exceptions.NoScriptError):
            again.append(at)
        elif isinstance(reply, redis.exceptions.ResponseError) and is_beside(commands[at], reply):
            _untold(commands[at], reply)
        else:
            raise reply
    return again


def _untold(command: Command, refusal: Exception) -> None:
    """What was to be done is done; only nobody elsewhere was told. Said once, where that matters."""
    if command[0] == "PUBLISH" and not _said:
        _said.append(refusal)
        log.warning(
            "Redis lets this user tell nobody what it invalidates, so near caches elsewhere keep it: %s", refusal
        )


_said: Final[list[Exception]] = []
_AFTER: Final = frozenset({"MGET", "PTTL", "PUBLISH"})


def in_full(command: Command) -> Command:
    return ("EVAL", SCRIPTS[command[1]].source, *command[2:]) if command[0] == "EVALSHA" else command


Talk = Generator[list[Command], Any, Any]
"""A conversation: yields commands to send, is sent the replies, or thrown what the server refused."""

Fences = tuple[int, int]
"""What a connection must have been greeted for: after how many outages, and for how many namespaces."""

_Greeted = tuple[Line, Fences]
"""A connection, and what it was greeted for."""

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
        self._total = 0
        """Connections that there are: idle, in use, or being dialled."""
        self._waiting = 0
        self._dials_until = 0.0
        """By when whoever dials has ended: a time, lest one interrupted before it began keeps all others from it."""
        _pools[id(self)] = self._idle
        dialling = self._dialling
        limit = 3 * dialling.longest  # to wait while another dials, to dial, to ask; with room to spare
        self._combiner = Combiner(self._ask, connections=dialling.pool_size, limit=limit)
        self._closed = False

    def after_fork(self) -> None:
        """In a forked child: redis-py closes inherited sockets without a word to the server when they are collected."""
        self._reset()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go, and read all replies.

        Raises:
            BackendError: anything went wrong, within the deadline.
        """
        try:
            replies = self._combiner.ask(commands)
            again = answered(commands, replies)
            if again:
                for at, reply in zip(again, self._combiner.ask([in_full(commands[at]) for at in again]), strict=True):
                    answered([commands[at]], [reply])
                    replies[at] = reply
            return replies
        except BackendError:
            raise
        except Exception as error:
            raise failure(error) from error

    def converse(self, talk: Talk) -> Any:
        """Hold a conversation over one connection, so that it has all been with the same server.

        Raises:
            BackendError: as ``execute``.
        """
        return self._on_one(lambda line: self._hold(line, talk), time.monotonic())

    def _ask(self, packed: bytes, count: int, since: float) -> list[Any]:
        def exchange(line: Line) -> list[Any]:
            began = time.monotonic()
            replies = line.exchange(packed, count, self._dialling.timeout)
            self._combiner.trip_took(time.monotonic() - began)
            return replies

        return self._on_one(exchange, since)  # type: ignore[no-any-return]  # as exchange answers

    def _on_one(self, work: Callable[[Line], Any], since: float) -> Any:
        """Do something over a connection that has been waited for since then."""
        greeted = self._taken(since)
        try:
            if greeted is None:
                greeted = self._dialled()
            result = work(greeted[0])
        except BaseException as error:
            # Where the server said no, in step, the connection is as good as before.
            if greeted is not None and isinstance(error, redis.exceptions.ResponseError):
                self._put_back(greeted)
            else:
                self._discard(greeted)
            if isinstance(error, Exception) and not isinstance(error, BackendError):
                raise failure(error) from error
            raise
        self._put_back(greeted)
        return result

    def _taken(self, since: float) -> _Greeted | None:
        """An idle connection, or ``None`` and leave to dial.

        Raises:
            Exhausted: there was neither in time.
        """
        while True:
            try:
                greeted: _Greeted | None = self._idle.pop()
            except IndexError:
                greeted = self._awaited(since)
            if greeted is None or self._usable(greeted):
                return greeted
            self._discard(greeted)

    def _awaited(self, since: float) -> _Greeted | None:
        """One thread dials at a time. When many come at once, most find the connection of one that is done already
        sooner than they could have had their own.
        """
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    if self._idle:
                        with contextlib.suppress(IndexError):  # those who need not wait take no lock
                            return self._idle.pop()
                    now = time.monotonic()
                    dials = self._dials_until > now
                    if self._total < self._dialling.pool_size and not dials:
                        self._dials_until = now + self._dialling.longest
                        self._total += 1
                        return None
                    left = since + (self._dialling.longest if dials else self._dialling.timeout) - now
                    if left <= 0:
                        raise self._dialling.exhausted()
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _put_back(self, greeted: _Greeted) -> None:
        self._idle.append(greeted)
        # Whoever is about to wait has said so before it looked for an idle one the last time.
        if self._waiting:
            with self._changed:
                self._changed.notify()
        if self._closed:
            self._hang_up()

    def _discard(self, greeted: _Greeted | None) -> None:
        if greeted is not None:
            greeted[0].close()
        with self._changed:
            self._total -= 1
            self._changed.notify()

    def _usable(self, greeted: _Greeted) -> bool:
        line, fences = greeted
        try:
            return fences == self.fences and line.is_usable()
        except Exception:  # whatever it is, this connection is not to be used
            return False

    def _exchange(self, line: Line, commands: Sequence[Command], until: float = math.inf) -> list[Any]:
        replies = line.ask(commands, self._left(until))
        for at in answered(commands, replies):
            replies[at] = line.ask([in_full(commands[at])], self._left(until))[0]
            answered([commands[at]], [replies[at]])
        return replies

    def _left(self, until: float) -> float:
        """Seconds that a round trip may take."""
        return min(self._dialling.timeout, until - time.monotonic())

    def _hold(self, line: Line, talk: Talk, until: float = math.inf) -> Any:
        try:
            commands = next(talk)
            while True:
                try:
                    replies = self._exchange(line, commands, until)
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
        fences = self.fences  # a namespace that comes while we greet is not greeted for
        until = time.monotonic() + self._dialling.longest
        line = Line(self._dialling.url, self._dialling.options(), self._dialling.longest)
        try:
            self._hold(line, self._greet(), until)
        except BaseException:
            line.close()
            raise
        return line, fences

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
        self._combiner.move()
        self._hang_up()

    def _hang_up(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._discard(self._idle.pop())

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _ending():
            for line, _ in _pools.pop(id(self), ()):  # they stay in sight: whose transport this is may ask yet
                line.close()

    def __repr__(self) -> str:
        return f"<Transport: {len(self._idle)} idle connections>"
