"""Where the processes of a namespace lay down their reports in Redis, and find those of the others.

There is a fixed number of places, so that all of them are read in a few commands however large Redis is; a process
takes a free one, and keeps it as a lease is kept. It knows bytes; not what they tell.

A place is called ``{namespace}:stats~:{number}``: ``~`` is escaped in keys, so no entry is called so, and no pattern of
a user reaches it. It holds ``S | id 16 | report`` and lives for three periods.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from cachecraft._core.effects import Store
from cachecraft._core.entry import HANDLE, TOKEN
from cachecraft._core.errors import BackendError, told
from cachecraft.backends.commands import PLANS
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.redis import STATS
from cachecraft.backends.transports import Talk, Transport

log: Final = logging.getLogger("cachecraft")

PLACES: Final = 1024
_MARK: Final = b"S"
_TRIES: Final = 3
"""Places that are tried at a time: where nearly all are taken, the next period is another chance."""
_AT_ONCE: Final = 256
"""Places that are read by one command."""


def place_key(prefix: str, number: int) -> str:
    return f"{prefix}{STATS}{number}"


class Source(Protocol):
    """Who makes the reports."""

    def content(self) -> bytes | None: ...
    def dated(self, content: bytes) -> bytes: ...
    def after_fork(self) -> None: ...


class Publisher:
    """Lays down a report every so many seconds, if it has changed or would expire.

    It has a daemon thread and a connection of its own, so that no call ever waits for it. Whatever goes wrong is of no
    consequence: it is tried again a period later.
    """

    def __init__(
        self, dialling: Dialling, source: Source, *, prefix: str, period: float, may: Callable[[], bool]
    ) -> None:
        self._transport = Transport(replace(dialling, pool_size=1), _no_greeting)
        self._source = source
        self._prefix = prefix
        self._period = period
        self._may = may
        """Whether Redis is to be asked at all."""
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._held = _MARK + os.urandom(TOKEN)
        self._number: int | None = None
        """The place it has."""
        self._last = b""
        self._written = 0.0

    def after_fork(self) -> None:
        """In a forked child: another process, which has a place of its own."""
        closed = self._closed
        self._reset()
        self._transport.after_fork()
        self._closed = closed
        if not closed:
            self._source.after_fork()
            self.start()

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="cachecraft-stats", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is ending: then nothing is published
            pass

    def close(self) -> None:
        """End the thread. What is there expires."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._transport.close()

    def _run(self) -> None:
        # Many processes that begin together are not to publish together.
        due = time.monotonic() + self._period * (1 + 0.2 * random.random())
        while True:
            with self._changed:
                while not self._closed and (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._closed:
                    return
            due = time.monotonic() + self._period
            try:
                if self._may():
                    self.publish()
            except BackendError:
                pass
            except Exception as error:
                log.warning("the counters of this process are not published: %s", told(error))
                return

    def publish(self) -> None:
        """Lay down a report, if there is something to say.

        Raises:
            BackendError: it could not be done.
        """
        content = self._source.content()
        if content is None:
            return
        now = time.monotonic()
        if content == self._last and now - self._written < 1.5 * self._period:
            return
        report = self._held + self._source.dated(content)
        if self._number is None or not self._put(self._number, self._held, report):
            free = random.sample(range(PLACES), _TRIES)
            self._number = next((number for number in free if self._put(number, b"", report)), None)
        if self._number is not None:
            self._last, self._written = content, now

    def _put(self, number: int, held: bytes, report: bytes) -> bool:
        # As entries are stored, but not by way of the guard: this is no traffic of the cache, to be timed and counted.
        effect = Store(place_key(self._prefix, number), held, report, 3 * self._period)
        plan = PLANS[Store]
        return bool(plan.answer(effect, self._transport.execute(plan.commands(effect))))

    def __repr__(self) -> str:
        return f"<Publisher {'closed' if self._closed else f'every {self._period:g} s'}, place {self._number}>"


class Board:
    """All places of a namespace, for those who read them."""

    def __init__(self, dialling: Dialling, prefix: str) -> None:
        self._transport = Transport(dialling, _no_greeting)
        self._keys = [place_key(prefix, number) for number in range(PLACES)]

    def read(self) -> list[tuple[bytes, bytes]]:
        """The reports that are there, each with the id of who wrote it.

        Raises:
            BackendError: they cannot be read.
        """
        chunks = [self._keys[at : at + _AT_ONCE] for at in range(0, PLACES, _AT_ONCE)]
        found = [slot for reply in self._transport.execute([("MGET", *keys) for keys in chunks]) for slot in reply]
        return [(slot[1:HANDLE], slot[HANDLE:]) for slot in found if slot is not None and slot.startswith(_MARK)]

    def close(self) -> None:
        self._transport.close()

    def __repr__(self) -> str:
        return f"<Board {self._transport!r}>"


def _no_greeting() -> Talk:
    return
    yield
