"""Keeps leases alive while their loaders run: one daemon thread a process, for threads and tasks alike.

A task that blocks its event loop thus keeps its lease, and a process that is stopped loses it. It knows keys and
handles, and how to renew; not what is loaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cachecraft._core.effects import Renew
from cachecraft._core.errors import BackendError


@dataclass(slots=True, eq=False)
class Beat:
    """One lease being kept alive."""

    heart: Heart
    key: str
    held: bytes
    lease: float
    due: float
    ended: bool = field(default=False)

    def end(self) -> None:
        self.ended = True
        self.heart.forget(self)


class Heart:
    """Renews each lease a third of the way to its end. Its thread starts with the first that lives so long."""

    def __init__(self, renew: Callable[[Renew], bool]) -> None:
        self._renew = renew
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._beats: set[Beat] = set()
        self._wake = threading.Event()
        self._alive = False
        self._closed = False

    def after_fork(self) -> None:
        self._reset()

    def hold(self, key: str, held: bytes, lease: float) -> Beat:
        beat = Beat(self, key, held, lease, time.monotonic() + lease / 3)
        with self._lock:
            self._beats.add(beat)
            if not self._alive and not self._closed:
                self._alive = True
                threading.Thread(target=self._run, name="cachecraft-heart", daemon=True).start()
        return beat

    def forget(self, beat: Beat) -> None:
        with self._lock:
            self._beats.discard(beat)

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                due = [beat for beat in self._beats if beat.due <= now]
                nap = min((beat.due - now for beat in self._beats if beat.due > now), default=1.0)
                # Nothing to do for a while: end, rather than wake an idle process for good.
                if self._closed or (not self._beats and self._idle_since(now)):
                    self._alive = False
                    return
            for beat in due:
                self._beat(beat)
            if not due:
                self._wake.wait(min(nap, 0.25))

    _last_busy = 0.0

    def _idle_since(self, now: float) -> bool:
        return now - self._last_busy > 5.0

    def _beat(self, beat: Beat) -> None:
        self._last_busy = time.monotonic()
        if beat.ended:
            return
        try:
            if not self._renew(Renew(beat.key, beat.held, beat.lease)):
                self.forget(beat)  # lost: the store will be refused, and there is nothing left to renew
                return
        except BackendError:
            pass  # the next beat may get through, before the lease ends
        beat.due = time.monotonic() + beat.lease / 3
