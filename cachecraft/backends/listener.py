"""Hears from Redis what others invalidate and load: one daemon thread a server, for all caches of this process.

It knows who wants to hear, and how to have a connection for it; what is said there is in ``hearing``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import select
import socket
import threading
import time
import weakref
from math import inf
from typing import Any, Final

import tenacity

from cachecraft._core.effects import Remote
from cachecraft._core.errors import BackendError, BackendTimeout, told
from cachecraft._core.flights import ABANDONED, FLYING, Flight
from cachecraft.backends.commands import done_channel
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.failures import Kind, failure, kind_of
from cachecraft.backends.hearing import Bell, Ear, Session
from cachecraft.backends.lines import Line
from cachecraft.backends.prober import QUICK, SLOW

log: Final = logging.getLogger("cachecraft")

_LINGER: Final = 30.0
"""Seconds that the connection stays when there is nothing to hear: whoever waits for a load may come again."""
_PATIENCE: Final = 4.0
"""Seconds for which a proof lasts where no near cache says it."""
_FLEETING: Final = 1.0
"""Seconds below which a connection did not last: then the next comes a little later."""
_UNABLE: Final = re.compile("NoPermission|unknown command|NOPROTO")
_REMEDY: Final = (
    "; they need Redis or Valkey 6.0 or newer, and a user with +client|tracking +subscribe +unsubscribe; else give"
    " near=False"
)


class Listener:
    """The ears of this process at one server. Nothing of it blocks but ``close``."""

    def __init__(self, dialling: Dialling) -> None:
        self._dialling = dialling
        # Weakly, so that a cache that nobody closed can be collected, with all that it holds and that leads back to it.
        self._refs: tuple[weakref.ref[Ear], ...] = ()
        self._owners: weakref.WeakSet[Any] = weakref.WeakSet()
        self._line: Line | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._reset()

    def _reset(self) -> None:
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may close a cache.
        self._lock = threading.RLock()
        self._bells: dict[str, Bell] = {}
        self._proofs: list[Flight] = []
        self._thread: threading.Thread | None = None
        self._complained = False
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        for end in self._waker or ():
            end.close()
        self._waker = None

    def after_fork(self) -> None:
        """In a forked child: the thread is not here, and the connection is the parent's. ``wake`` starts anew."""
        self._reset()

    # -- what anybody may ask --------------------------------------------------------------------------------

    def attach(self, ear: Ear) -> None:
        with self._lock:
            if ear not in self._ears:
                self._refs = (*self._refs, weakref.ref(ear))
        self.wake()

    @property
    def idle(self) -> bool:
        """There is no thread: none was needed yet, or there could be none."""
        return self._thread is None

    def prove(self) -> Flight:
        """A flight that lands when all that was invalidated before now has been heard; abandoned if it cannot be."""
        flight = Flight.of("proof", time.monotonic())
        with self._lock:
            self._proofs.append(flight)
        self.wake()
        return flight

    def bell(self, prefix: str, token: bytes) -> Bell:
        """A bell for the end of a load elsewhere; ``unhang`` it in the end."""
        channel = done_channel(prefix, token)
        with self._lock:
            bell = self._bells.get(channel)
            if bell is None:
                bell = self._bells[channel] = Bell()
                bell.key, bell.began = channel, time.monotonic()
        self.wake()
        return bell

    def unhang(self, bell: Bell) -> None:
        # The server is told with the next word: the message it may send meanwhile costs less than another wake-up.
        with self._lock:
            if self._bells.get(bell.key) is bell:
                del self._bells[bell.key]

    def wake(self) -> None:
        """Have the thread look at what has changed; from now on there is one."""
        with self._lock:
            if self._thread is None:
                self._start()
            elif self._waker is not None:
                try:
                    self._waker[1].send(b"!")
                except OSError:  # it has been woken often enough
                    pass

    def _start(self) -> None:
        try:
            self._waker = socket.socketpair()
            for end in self._waker:
                end.setblocking(False)
            self._thread = threading.Thread(target=self._run, name="cachecraft-listener", daemon=True)
            self._thread.start()
        except (OSError, RuntimeError):  # no more files or threads, or the interpreter is ending; the next tries again
            self._thread = None
            self._hang_up()
            self._abandon()

    def changed(self, effect: Remote[Any]) -> None:
        """This process is about to do this, or has just done it: its near caches do not wait until they hear of it."""
        for ear in self._ears:
            ear.changed(effect)

    # -- the thread ------------------------------------------------------------------------------------------

    @property
    def _ears(self) -> list[Ear]:
        # Without the lock: who adds or removes one makes another tuple.
        return [ear for ref in self._refs if (ear := ref()) is not None]

    @property
    def _wanted(self) -> bool:
        return bool(self._ears or self._bells or self._proofs)

    def _run(self) -> None:
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Exception),
            wait=_pause,
            sleep=self._nap,
            stop=lambda _: not self._wanted,
            retry_error_callback=lambda _: None,
        )
        while True:
            if self._wanted:
                trying(self._attend)
            with self._lock:
                # Asked under the lock: who wants something after this finds no thread, and starts one.
                if not self._wanted:
                    self._thread = None
                    self._hang_up()
                    return

    def _attend(self) -> None:
        """Connect, and hear until the connection is lost or there is nothing more to hear.

        Raises:
            Exception: there was no connection, or it did not last; the next is to come later.
        """
        began = inf
        try:
            self._line = self._dialled()
            began = time.monotonic()
            self._converse(self._line, began)
        except Exception as error:  # whatever it is, nothing is heard any more
            self._complain(failure(error))
            if time.monotonic() - began < _FLEETING:
                raise error.with_traceback(None)  # noqa: B904 - what it passed through holds what is to be collected
        finally:
            self._deafen()

    def _dialled(self) -> Line:
        line = Line(self._dialling.url, self._dialling.options(), self._dialling.longest)
        try:
            # From here on replies and pushes can be told apart.
            hello = line.ask([("HELLO", 3)], self._dialling.timeout)[0]
            if isinstance(hello, Exception):
                raise hello
        except BaseException:
            line.close()
            raise
        return line

    def _deafen(self) -> None:
        for ear in self._ears:
            ear.lost()
        self._abandon()
        if self._line is not None:
            self._line.close()
            self._line = None

    def _converse(self, line: Line, began: float) -> None:
        assert self._waker is not None
        session = Session(line)
        ends = select.poll()
        ends.register(line.fileno(), select.POLLIN)
        ends.register(self._waker[0].fileno(), select.POLLIN)
        wanted_at = time.monotonic()
        while True:
            now = time.monotonic()
            staleness = self._staleness()
            if self._wanted:
                wanted_at = now
            elif now - wanted_at >= _LINGER or not self._owners:
                return
            since = session.waits_since
            if since is not None and now - since > 2 * staleness:
                raise BackendTimeout("Redis: the listener's connection is silent")
            with self._lock:
                proofs, self._proofs = tuple(self._proofs), []
                bells = dict(self._bells)
            try:
                session.say(now, self._ears, bells, proofs, due=now - session.last >= staleness / 4)
            except BaseException:
                self._proofs += proofs
                raise
            # There is nothing to say until somebody wakes us, or the next probe is due.
            woken = False
            while not woken and (left := session.last + staleness / 4 - time.monotonic()) > 0:
                for end, _ in ends.poll(1000 * left):
                    if end == self._waker[0].fileno():
                        woken = bool(self._waker[0].recv(4096))
                    else:
                        session.hear(self._ears, self._bells)
                        self._well(time.monotonic() - began)

    def _staleness(self) -> float:
        return min((ear.staleness for ear in self._ears), default=_PATIENCE)

    def _nap(self, seconds: float) -> None:
        """Until it is time, or nobody wants to hear any more."""
        assert self._waker is not None
        ends = select.poll()
        ends.register(self._waker[0].fileno(), select.POLLIN)
        until = time.monotonic() + seconds
        while self._wanted and (left := until - time.monotonic()) > 0:
            if ends.poll(1000 * left):
                self._waker[0].recv(4096)

    def _abandon(self) -> None:
        """Whoever waits to hear something is told that it will not."""
        with self._lock:
            deaf: list[Flight] = [*self._bells.values(), *self._proofs]
            self._bells, self._proofs = {}, []
        for flight in deaf:
            if flight.state == FLYING:
                flight.settle(ABANDONED, None)

    def _complain(self, error: BackendError) -> None:
        if self._ears and not self._complained:
            self._complained = True
            remedy = _REMEDY if _UNABLE.search(str(error)) else ""
            log.warning("near caches are off until Redis can be heard: %s%s", told(error), remedy)

    def _well(self, lasts: float) -> None:
        if self._complained and lasts > _FLEETING:
            self._complained = False
            log.warning("Redis is heard again, and near caches are on")

    # -- its life --------------------------------------------------------------------------------------------

    def detach(self, ear: Ear) -> None:
        with self._lock:
            self._refs = tuple(ref for ref in self._refs if (each := ref()) is not None and each is not ear)

    def leave(self, owner: object) -> None:
        """Somebody has no more use for it. The last one waits until it has hung up, but in no event loop."""
        with _lock:
            self._owners.discard(owner)
            if not self._owners:
                _listeners.pop(self._dialling.url, None)
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self.wake()
        # The garbage collector may be anywhere, in that very thread too.
        if not self._owners and thread is not threading.current_thread() and asyncio._get_running_loop() is None:
            thread.join(self._dialling.longest)

    def __repr__(self) -> str:
        return f"<Listener: {len(self._ears)} near caches, {len(self._bells)} bells>"


def _pause(state: Any) -> float:
    """Soon again after what may pass by itself; what the server refuses, it will refuse again."""
    refused = kind_of(failure(state.outcome.exception())) is Kind.REFUSED
    return (SLOW if refused else QUICK)(state)


_listeners: Final[dict[str, Listener]] = {}
_lock = threading.RLock()


def after_fork() -> None:
    """In a forked child: a thread of the parent may have held the lock."""
    global _lock  # noqa: PLW0603 - there is one lock, and it must be a new one
    _lock = threading.RLock()


def listener_for(dialling: Dialling, owner: object) -> Listener:
    """The listener at a server, until ``owner`` says ``leave``."""
    with _lock:
        listener = _listeners.setdefault(dialling.url, Listener(dialling))
        listener._owners.add(owner)
        return listener
