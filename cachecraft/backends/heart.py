"""Keeps leases alive while their loaders run: one daemon thread a process, for threads and tasks alike.

A task that blocks its event loop thus keeps its lease, and a process that is stopped loses it. It knows keys and
handles, and how to renew; not what is loaded.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cachecraft._core.effects import Renew
from cachecraft._core.errors import BackendError
from cachecraft._core.flights import Flight

_LINGER: Final = 5.0
"""Seconds that the thread stays without work: to start another costs more than a quick load."""


@dataclass(slots=True, eq=False)
class Beat:
    """One lease being kept alive."""

    heart: Heart
    key: str
    held: bytes
    lease: float
    due: float
    flight: Flight | None = None
    ended: bool = field(default=False)

    def end(self) -> None:
        self.ended = True
        self.heart.forget(self)


class Heart:
    """Renews each lease a third of the way to its end. Its thread is there while there is something to renew."""

    def __init__(self, renew: Callable[[Renew], bool]) -> None:
        self._renew = renew
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._beats: set[Beat] = set()
        self._wakes = math.inf
        """When the thread looks again by itself; never, if there is none."""
        self._alive = False
        self._closed = False

    def after_fork(self) -> None:
        self._reset()

    def hold(self, key: str, held: bytes, lease: float, flight: Flight | None = None) -> Beat:
        """Keep a lease alive until it is ended, or the event loop that ``flight`` is led in has been closed."""
        beat = Beat(self, key, held, lease, time.monotonic() + lease / 3, flight)
        with self._changed:
            self._beats.add(beat)
            if not self._alive and not self._closed:
                self._alive = True
                try:
                    threading.Thread(target=self._run, name="cachecraft-heart", daemon=True).start()
                except RuntimeError:  # no more threads, or the interpreter is ending; the lease lasts as long as it is
                    self._alive = False
            elif beat.due < self._wakes:
                self._changed.notify()
        return beat

    def forget(self, beat: Beat) -> None:
        with self._changed:
            self._beats.discard(beat)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            for beat in due:
                self._beat(beat)

    def _next(self) -> list[Beat] | None:
        """The leases that are due, waiting for them if need be; none when it is time to end."""
        with self._changed:
            idle_from = time.monotonic()
            while not self._closed:
                now = time.monotonic()
                beats = list(self._beats)  # a destructor that the collector runs here may load, too
                due = [beat for beat in beats if beat.due <= now]
                if due:
                    return due
                if beats:
                    self._wakes = min(beat.due for beat in beats)
                    idle_from = now
                elif now - idle_from < _LINGER:
                    self._wakes = idle_from + _LINGER
                else:
                    break
                self._changed.wait(self._wakes - now)
            self._alive = False
            return None

    def _beat(self, beat: Beat) -> None:
        if beat.ended:
            return
        if beat.flight is not None and beat.flight.orphaned:
            self.forget(beat)
            return
        try:
            if not self._renew(Renew(beat.key, beat.held, beat.lease)):
                self.forget(beat)  # lost: the store will be refused, and there is nothing left to renew
                return
        except BackendError:
            pass  # the next beat may get through, before the lease ends
        beat.due = time.monotonic() + beat.lease / 3

    def __repr__(self) -> str:
        return f"<Heart: {len(self._beats)} leases>"
