"""Threads that ask at the same time ask as one: a few lead, each over a connection, and take along who waits.

It knows questions and threads; no connection, no entry and no key. Whose a question is, a ``deque`` decides: who takes
it out has it answered. Who leads is decided by nobody: when two threads lead where one would have done, that costs time
only. So there is no lock here to be interrupted under or to wait for oneself at, and no lead that could be lost for
longer than the patience of those who wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import hiredis

from cachecraft._core.errors import BackendError, BackendTimeout
from cachecraft.backends.commands import Command, only_reads

_CROWD: Final = 3
"""So many questions at once, for each that may lead, go out each by itself: company pays only where it is large."""
_NEAR: Final = 0.0001
"""Seconds of a round trip that allow for one leader more: to wait for company on a distant server saves nothing."""
_GLANCE: Final = 0.05
"""Seconds until one that was taken along looks again, whether it was woken or not."""
_MOST: Final = 255
"""Questions that a leader takes along."""

Exchange = Callable[[bytes, int, float], list[Any]]
"""Sends bytes and reads so many replies, refusals among them, over a connection waited for since that moment."""


class _Question:
    """Commands, packed, and in the end their replies, or why there are none.

    The defaults are class attributes, since a hit makes one of these each time.
    """

    replies: list[Any] | None = None
    error: BackendError | None = None
    over = False
    """Its thread is gone, with the answer or without."""
    twin: _Question | None = None
    """One that was asked for both."""
    gate: threading.Lock
    """Opened to have the waiting thread look."""

    def __init__(self, commands: Sequence[Command], asked: float) -> None:
        self.commands = commands
        self.packed = b"".join(map(hiredis.pack_command, commands))
        self.thread = threading.get_ident()
        self.asked = asked


class Combiner:
    """Asks for threads, as few times as it can.

    By its own deadlines, a leader needs less than ``limit`` seconds. A question that nobody takes along within
    ``patience``, times those before it, leads itself: by then somebody has been interrupted, or is stuck.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        connections: int,
        limit: float,
        patience: float = 0.005,
    ) -> None:
        self._exchange = exchange
        self._connections = connections
        self._limit = limit
        self._patience = patience
        self._waiting: deque[_Question] = deque()
        self._asking: set[_Question] = set()
        """All that somebody waits for the answer to."""
        self._leading: set[_Question] = set()
        """Of those, the ones that keep a leader's place."""
        self.move()

    def move(self) -> None:
        """Forget how far away the server is: it may be another."""
        self._trip = math.inf
        self._leaders = 1

    def trip_took(self, seconds: float) -> None:
        """Take note of a round trip. The quickest counts: what another took longer, it may have waited for the GIL."""
        if seconds < self._trip:
            self._trip = seconds
            self._leaders = min(1 + int(seconds / _NEAR), self._connections)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands, refusals among them.

        Raises:
            BackendError: there are none. Of those who asked together all get the same.
            Exception: they cannot be packed, and were not asked.
        """
        question = _Question(commands, time.monotonic())
        asking, leading = self._asking, self._leading
        try:
            asking.add(question)
            if len(asking) <= _CROWD * self._leaders or not self._enough() or not self._answered(question):
                leading.add(question)
                self._lead(question)
        finally:
            question.over = True
            asking.discard(question)
            if question in leading:
                leading.discard(question)
                if self._waiting:
                    self._hand_on()
        if question.error is not None:
            raise question.error
        return question.replies  # type: ignore[return-value]  # one of the two there is

    def _enough(self) -> bool:
        """Whether so many lead that one of them will soon be back."""
        if len(self._leading) < self._leaders:
            return False
        me, now = threading.get_ident(), time.monotonic()
        for each in tuple(self._leading):
            if each.over or now - each.asked > self._limit:
                self._leading.discard(each)
            elif each.thread == me:  # we are a signal handler or a destructor in the middle of it: it waits for us
                return False
        return len(self._leading) >= self._leaders

    # -- who waits -------------------------------------------------------------------------------------------

    def _answered(self, question: _Question) -> bool:
        """Wait to be answered, or to lead."""
        question.gate = threading.Lock()
        question.gate.acquire()
        try:
            self._waiting.append(question)
            patience = self._patience * len(self._waiting)
            if len(self._leading) < self._leaders:  # the last one back looked for who waits before we came
                patience = 0.0
            while True:
                question.gate.acquire(timeout=patience)
                if question.replies is not None or question.error is not None:
                    return True
                with suppress(ValueError):  # somebody took it along
                    self._waiting.remove(question)
                    return False
                if time.monotonic() - question.asked > self._limit:
                    raise BackendTimeout("Redis: the thread that asked for several has not come back")
                patience = _GLANCE
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove(question)
            raise

    def _hand_on(self) -> None:
        """Let one of those who wait lead. It keeps the place, so that whoever comes meanwhile joins it."""
        with suppress(IndexError):
            heir = self._waiting[0]
            self._leading.add(heir)
            _wake(heir)

    # -- who leads -------------------------------------------------------------------------------------------

    def _lead(self, question: _Question) -> None:
        """Ask, and take along who waits."""
        batch = [question]
        try:
            since = time.monotonic()
            if self._waiting:
                with suppress(IndexError):  # in one go: nobody is out of the one before he is in the other
                    batch.extend(islice(iter(self._waiting.popleft, None), _MOST))
                self._leading.difference_update(batch[1:])
                since = min(question.asked, batch[-1].asked)
            self._answer(batch, since)
        except BaseException as error:
            if not isinstance(error, BackendError):
                _fail(batch, BackendError("Redis: the thread that asked for several was interrupted"))
                raise
            _fail(batch, error)
        finally:
            if len(batch) > 1:
                # The last to go on keeps the place: by then the others may have asked again, and go together.
                self._leading.add(batch[-1])
                self._leading.discard(question)
                for each in batch[1:]:
                    _wake(each)

    def _answer(self, batch: list[_Question], since: float) -> None:
        if len(batch) == 1:
            (question,) = batch
            question.replies = self._exchange(question.packed, len(question.commands), since)
            return
        first: dict[bytes, _Question] = {}
        different: list[_Question] = []
        for each in batch:
            twin = first.setdefault(each.packed, each)
            if twin is each or not only_reads(each.commands):
                different.append(each)
            else:
                each.twin = twin
        count = sum([len(each.commands) for each in different])
        replies = self._exchange(b"".join([each.packed for each in different]), count, since)
        at = 0
        for each in different:
            end = at + len(each.commands)
            each.replies, at = replies[at:end], end
        for each in batch:
            if each.twin is not None:
                each.replies = each.twin.replies

    def __repr__(self) -> str:
        return f"<Combiner: {len(self._asking)} asking, {len(self._waiting)} of them wait for a leader to be back>"


def _fail(batch: list[_Question], error: BackendError) -> None:
    for each in batch:
        if each.replies is None:
            each.error = error


def _wake(question: _Question) -> None:
    """Have a thread look at what has become of its question."""
    with suppress(RuntimeError):  # it has been woken already
        question.gate.release()
