"""A circuit breaker: counts failures on end, and says whether to ask at all; does no I/O and starts no thread.

Open is a plain attribute, so that to be turned away costs next to nothing. Time never closes it: who has probed the
server does. So no caller pays for a trial.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

THRESHOLD: Final = 3
"""Failures on end that open it."""


class Breaker:
    """Closed while the server serves, open while there is no use in asking it."""

    def __init__(self, *, threshold: int = THRESHOLD, clock: Callable[[], float] = time.monotonic) -> None:
        self.open = False
        self.opened = 0
        """How often it has opened."""
        self._threshold = threshold
        self._clock = clock
        self._failures = 0
        self._since = 0.0
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self._lock = threading.RLock()

    def after_fork(self) -> None:
        """In a forked child: it knows what the parent knew, and a thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def failed(self, *, at_once: bool = False) -> bool:
        """Count a failure, one that settles the matter ``at_once`` perhaps. Answers whether it opened by this one."""
        with self._lock:
            self._failures += 1
            if self.open or (self._failures < self._threshold and not at_once):
                return False
            self.open, self.opened, self._since = True, self.opened + 1, self._clock()
            return True

    def succeeded(self) -> None:
        """The server answered. One who asked before it opened may still come with an answer: that closes nothing."""
        if self._failures and not self.open:
            self._failures = 0

    def close(self) -> float | None:
        """The server was probed, and serves. Answers the seconds it was open; none if it was closed."""
        with self._lock:
            self._failures = 0
            if not self.open:
                return None
            self.open = False
            return self._clock() - self._since

    def __repr__(self) -> str:
        state = f"open for {self._clock() - self._since:.1f} s" if self.open else f"closed, {self._failures} failures"
        return f"<Breaker {state}, opened {self.opened} times>"
