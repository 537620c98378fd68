"""Tries in the background until it has worked: a daemon thread that is there while there is something to restore.

It knows when to try again, and how patient to be; not what is tried.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

import tenacity

log: Final = logging.getLogger("cachecraft")

# Soon at first, for a connection that merely broke; jittered, since many processes come back to one server.
QUICK: Final = tenacity.wait_exponential(multiplier=0.05, max=0.8) + tenacity.wait_random(0, 0.2)
SLOW: Final = tenacity.wait_exponential(multiplier=0.5, max=8) + tenacity.wait_random(0, 2)

_LONG: Final = 1.0
"""Seconds beyond which a pause gives way to news."""
_LAST: Final = 2.0
"""Seconds that ``close`` waits for an attempt under way."""


class Prober:
    """Calls ``attempt`` until it answers true, for as long as something is ``needed``.

    ``slowly`` says that what is left is not likely to work soon. Whatever an attempt raises, there will be another.
    """

    def __init__(self, attempt: Callable[[], bool], *, needed: Callable[[], bool], slowly: Callable[[], bool]) -> None:
        self._attempt = attempt
        self._needed = needed
        self._slowly = slowly
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._napping_long = False
        self._closed = False

    def after_fork(self) -> None:
        """In a forked child: the parent's thread is not here; another is started when it is needed."""
        self._reset()

    def wake(self, *, news: bool = False) -> None:
        """There is something to restore; with ``news``, something that a long pause may not put off."""
        if self._thread is not None and not (news and self._napping_long):
            return
        with self._changed:
            if self._thread is not None:
                self._changed.notify()
            elif not self._closed:
                self._thread = threading.Thread(target=self._run, name="cachecraft-prober", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no more threads, or the interpreter is ending; the next call tries again
                    self._thread = None

    def close(self) -> None:
        """Try no more; an attempt under way is waited for."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():  # the garbage collector may be anywhere
            thread.join(_LAST)

    def _run(self) -> None:
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Exception) | tenacity.retry_if_result(lambda done: not done),
            wait=self._pause,
            sleep=self._nap,
            stop=lambda _: self._closed,
            retry_error_callback=lambda _: None,
        )
        while True:
            trying(lambda: self._closed or self._attempt())
            with self._changed:
                # Asked under the lock: who needs it after this finds no thread, and starts one.
                if self._closed or not self._needed():
                    self._thread = None
                    return

    def _pause(self, state: Any) -> float:
        return (SLOW if self._slowly() else QUICK)(state)

    def _nap(self, seconds: float) -> None:
        with self._changed:
            self._napping_long = seconds > _LONG
            # Asked again after that: what came in between found no long nap to cut short.
            if not self._closed and (self._slowly() or not self._napping_long):
                self._changed.wait(seconds)
            self._napping_long = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._thread is None else "trying"
        return f"<Prober {state}>"
