"""The way to Redis for tasks: one connection an event loop, on which the questions of one tick leave together.

Nobody owns the connection, so nobody can leave it in a bad state: a caller that is cancelled lets go of its future, and
the reply is read and dropped in its turn. No task runs here, so none is left over when a loop ends. It knows commands
and replies, no entry and no key.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import hiredis
import redis
import redis.asyncio.connection as aredis

from cachecraft._core.errors import BackendError, BackendTimeout
from cachecraft.backends.commands import Command, only_reads
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.failures import Exhausted, failure, refusal
from cachecraft.backends.transports import Fences, Talk, answered, in_full

_MOST_WAITING: Final = 20_000


class _Question:
    """Commands on their way, the replies so far, and who waits for them: each has a future of its own to let go of."""

    __slots__ = ("answers", "count", "deadline", "replies")

    def __init__(self, count: int) -> None:
        self.answers: list[asyncio.Future[list[Any]]] = []
        self.count = count
        self.deadline = math.inf  # until it has been sent
        self.replies: list[Any] = []


class Pipe(asyncio.Protocol):
    """One connection. Replies come in the order of the questions; whatever breaks that order ends it for all."""

    def __init__(self, dialling: Dialling) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = dialling.timeout
        self._reader = hiredis.Reader(replyError=refusal)
        self._questions: deque[_Question] = deque()
        self._outbox: list[bytes] = []
        self._unsent: list[_Question] = []
        self._reads: dict[tuple[Command, ...], _Question] = {}
        """Of those, the ones that only read, by what they ask."""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.open = False
        self.fences: Fences = (-1, -1)
        """What it was greeted for."""

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands with all that this tick sends; the future gets their replies, refusals among them."""
        return self._answer(self._asked(commands))

    def read(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """As ``ask``, of commands that only read: of all that are the same in this tick, one question is sent."""
        same = tuple(commands)
        question = self._reads.get(same)
        if question is None:
            question = self._reads[same] = self._asked(commands)
        return self._answer(question)

    def _asked(self, commands: Sequence[Command]) -> _Question:
        if not self.open:
            raise BackendError("Redis: the connection is lost")
        if len(self._questions) >= _MOST_WAITING:
            raise Exhausted(f"Redis: {_MOST_WAITING} questions are waiting for an answer already")
        packed = list(map(hiredis.pack_command, commands))  # first: what cannot be packed must leave nothing behind
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.extend(packed)
        question = _Question(len(commands))
        self._questions.append(question)
        self._unsent.append(question)
        return question

    def _answer(self, question: _Question) -> asyncio.Future[list[Any]]:
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        question.answers.append(answer)
        return answer

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()
        self._reads.clear()
        # From now on, and not from when they were asked: how long this loop was busy since is not the server's doing.
        deadline = self._loop.time() + self._timeout
        for question in self._unsent:
            question.deadline = deadline
        self._unsent.clear()
        if self._timer is None and self.open:
            self._timer = self._loop.call_at(deadline, self._check)

    def _check(self) -> None:
        """The oldest question is due. If it has no answer, none of the later ones will come in time either."""
        self._timer = None
        if not self._questions:
            return
        due = self._questions[0].deadline
        if due <= self._loop.time():
            self.end(BackendTimeout(f"Redis: no answer within {self._timeout} seconds"))
        elif due < math.inf:  # else it is sent in this very turn, and the timer set anew
            self._timer = self._loop.call_at(due, self._check)

    def end(self, error: BackendError) -> None:
        """Hang up. Whoever waits is told why."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        questions, self._questions = self._questions, deque()
        self._reads.clear()
        for answer in (answer for question in questions for answer in question.answers):
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # nobody may be there any more to look at it

    # -- what asyncio calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                question = self._questions[0]
                question.replies.append(reply)
                if len(question.replies) == question.count:
                    self._questions.popleft()
                    for answer in question.answers:
                        if not answer.done():
                            answer.set_result(question.replies)
        except Exception as error:  # no RESP, or a reply that nobody asked for: the order is lost
            self.end(failure(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(failure(exc) if exc is not None else BackendError("Redis: the server closed the connection"))

    def __repr__(self) -> str:
        return f"<Pipe {'open' if self.open else 'closed'}, {len(self._questions)} questions>"


class _Line:
    """What one event loop has: its pipe, and a lock so that only one of its tasks dials."""

    def __init__(self) -> None:
        self.pipe: Pipe | None = None
        self.dialling = asyncio.Lock()
        self.end: AsyncGenerator[None, None] | None = None


class AsyncTransport:
    """For tasks: commands and conversations over the pipe of the running loop."""

    def __init__(self, dialling: Dialling, greet: Callable[[], Talk]) -> None:
        self._dialling = dialling
        self._greet = greet
        """What to say first on each new connection."""
        #: Each goes with its loop. Not held weakly: the collector clears weak references before it calls ``__del__``.
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self.fences: Fences = (0, 0)
        """A pipe of an earlier outage is not used again; one greeted for fewer namespaces is greeted again."""

    def after_fork(self) -> None:
        """In a forked child: to collect the parent's connections would unregister them from the epoll both share."""
        _inherited.append(list(self._lines.items()))
        self._lines = {}

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go, and return all replies. Who reads the same in the same tick shares them.

        Raises:
            BackendError: anything went wrong, within the deadline.
        """
        line = self._lines.get(asyncio.get_running_loop())
        pipe = line.pipe if line is not None else None
        try:
            if pipe is None or not pipe.open or pipe.fences != self.fences:
                pipe = await self._connected()
            replies = await (pipe.read(commands) if only_reads(commands) else pipe.ask(commands))
            return replies if not answered(commands, replies) else await _exchange(pipe, commands, replies)
        except BackendError:
            raise
        except Exception as error:
            raise failure(error) from error

    async def converse(self, talk: Talk) -> Any:
        """Hold a conversation over one connection, so that it has all been with the same server.

        Raises:
            BackendError: as ``execute``.
        """
        try:
            return await _hold(await self._connected(), talk)
        except BackendError:
            raise
        except Exception as error:
            raise failure(error) from error

    async def _connected(self) -> Pipe:
        line = await self._line()
        async with asyncio.timeout(self._dialling.longest), line.dialling:
            pipe, fences = line.pipe, self.fences  # a namespace that comes while we greet is not greeted for
            if pipe is not None and pipe.fences[0] != fences[0]:
                pipe.end(BackendError("Redis: the connection was made before the last outage"))
            if pipe is None or not pipe.open:
                pipe = await self._dial()
            if pipe.fences != fences:
                try:
                    await _hold(pipe, self._greet())
                except BaseException:
                    if pipe is not line.pipe:  # else others wait for answers on it; whoever comes next greets again
                        pipe.end(BackendError("Redis: the greeting failed"))
                    raise
                pipe.fences = fences
            line.pipe = pipe
            return pipe

    async def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            for each in list(self._lines):
                if each.is_closed():  # without having ended its asynchronous generators
                    self._lines.pop(each, None)
            line = self._lines[loop] = _Line()
            # asyncio.run ends asynchronous generators before it closes the loop: that is our moment to hang up.
            line.end = _at_the_end(self._lines, loop)
            await line.end.asend(None)
        return line

    async def _dial(self) -> Pipe:
        options: Any = aredis.parse_url(self._dialling.url)
        loop = asyncio.get_running_loop()

        def make() -> Pipe:
            return Pipe(self._dialling)

        async with asyncio.timeout(self._dialling.connect_timeout):
            if "path" in options:
                _, pipe = await loop.create_unix_connection(make, options["path"])
            else:
                secure = options.get("connection_class") is aredis.SSLConnection
                # redis-py's own reading of the ssl_* options of the URL.
                context = aredis.SSLConnection(**options).ssl_context.get() if secure else None
                host, port = options.get("host", "localhost"), int(options.get("port", 6379))
                _, pipe = await loop.create_connection(make, host, port, ssl=context)
        try:
            await _exchange(pipe, _introduction(options))
        except BaseException:
            pipe.end(BackendError("Redis: the connection was given up"))
            raise
        return pipe

    @property
    def connected(self) -> bool:
        """Whether a loop that has not ended has an open pipe."""
        return bool(self._open_pipes())

    def close(self) -> None:
        """Hang up on every loop, from whatever thread: each does so in its next turn."""
        for loop, pipe in self._open_pipes():
            with contextlib.suppress(RuntimeError):  # the loop has been closed since we looked
                loop.call_soon_threadsafe(pipe.end, BackendError("Redis: the cache was closed"))

    def _open_pipes(self) -> list[tuple[asyncio.AbstractEventLoop, Pipe]]:
        lines = list(self._lines.items())
        return [(loop, each.pipe) for loop, each in lines if each.pipe and each.pipe.open and not loop.is_closed()]

    async def aclose(self) -> None:
        """As ``close``; the running loop has hung up when it returns."""
        line = self._lines.get(asyncio.get_running_loop())
        if line is not None and line.end is not None:
            await line.end.aclose()

    def __repr__(self) -> str:
        return f"<AsyncTransport: {[line.pipe for line in self._lines.values()]}>"


_inherited: Final[list[Any]] = []


def _introduction(options: dict[str, Any]) -> list[Command]:
    commands: list[Command] = []
    if options.get("password"):
        login = [options["username"]] if options.get("username") else []
        commands.append(("AUTH", *login, options["password"]))
    if options.get("db"):
        commands.append(("SELECT", int(options["db"])))
    return commands or [("PING",)]


async def _exchange(pipe: Pipe, commands: Sequence[Command], replies: list[Any] | None = None) -> list[Any]:
    """Send commands, unless there are replies to them already, and those again whose script the server did not know."""
    if replies is None:
        replies = await pipe.ask(commands)
    again = answered(commands, replies)
    if again:
        for at, reply in zip(again, await pipe.ask([in_full(commands[at]) for at in again]), strict=True):
            answered([commands[at]], [reply])
            replies[at] = reply
    return replies


async def _hold(pipe: Pipe, talk: Talk) -> Any:
    try:
        commands = next(talk)
        while True:
            try:
                replies = await _exchange(pipe, commands)
            except redis.exceptions.ResponseError as error:
                commands = talk.throw(error)
            else:
                commands = talk.send(replies)
    except StopIteration as end:
        return end.value


async def _at_the_end(
    lines: dict[asyncio.AbstractEventLoop, _Line], loop: asyncio.AbstractEventLoop
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        line = lines.pop(loop, None)
        if line is not None and line.pipe is not None:
            line.pipe.end(BackendError("Redis: the event loop ends"))
            with contextlib.suppress(RuntimeError):
                await asyncio.sleep(0)  # the loop closes the socket in its next turn
