"""Hears from Redis what others invalidate and load: one daemon thread a server, for all caches of this process.

It knows who wants to hear, and how to have a connection for it; what is said there is in ``hearing``.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from typing import Any, Final

import tenacity

from cachecraft._core.effects import Remote
from cachecraft._core.errors import BackendTimeout, told
from cachecraft._core.flights import ABANDONED, FLYING, Flight
from cachecraft.backends.commands import done_channel
from cachecraft.backends.failures import failure
from cachecraft.backends.hearing import Bell, Ear, Session
from cachecraft.backends.lines import Line
from cachecraft.backends.prober import QUICK, SLOW
from cachecraft.backends.transports import Dialling

log: Final = logging.getLogger("cachecraft")

_LINGER: Final = 30.0
"""Seconds that the connection stays when there is nothing to hear: whoever waits for a load may come again."""
_PATIENCE: Final = 4.0
"""Seconds for which a proof lasts where no near cache says it."""
_FLEETING: Final = 1.0
"""Seconds below which a connection did not last: then the next comes a little later."""


class Listener:
    """The ears of this process at one server. Nothing of it blocks but ``close``."""

    def __init__(self, dialling: Dialling) -> None:
        self._dialling = dialling
        self._ears: list[Ear] = []
        self._owners: list[object] = []
        self._reset()

    def _reset(self) -> None:
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may close a cache.
        self._lock = threading.RLock()
        self._bells: dict[str, Bell] = {}
        self._proofs: list[Flight] = []
        self._thread: threading.Thread | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._complained = False

    def after_fork(self) -> None:
        """In a forked child: the thread is not here, and the connection is the parent's. ``wake`` starts anew."""
        self._reset()

    # -- what anybody may ask --------------------------------------------------------------------------------

    def attach(self, ear: Ear) -> None:
        with self._lock:
            if ear not in self._ears:
                self._ears = [*self._ears, ear]  # another list each time: ``changed`` takes no lock
        self.wake()

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
        self._waker = socket.socketpair()
        for end in self._waker:
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="cachecraft-listener", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending; whoever comes next tries again
            self._thread = None
            self._abandon()

    def changed(self, effect: Remote[Any]) -> None:
        """This process is about to do this, or has just done it: its near caches do not wait until they hear of it."""
        for ear in self._ears:
            ear.changed(effect)

    # -- the thread ------------------------------------------------------------------------------------------

    @property
    def _wanted(self) -> bool:
        return bool(self._ears or self._bells or self._proofs)

    def _run(self) -> None:
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Exception),
            wait=lambda state: (QUICK if state.attempt_number < 5 else SLOW)(state),
            sleep=self._nap,
            stop=lambda _: not self._wanted,
            retry_error_callback=lambda _: None,
        )
        while True:
            line = trying(self._dial) if self._wanted else None
            if line is not None:
                began = time.monotonic()
                self._listen(line)
                if time.monotonic() - began < _FLEETING:
                    self._nap(_FLEETING / 2)
            with self._lock:
                # Asked under the lock: who wants something after this finds no thread, and starts one.
                if not self._wanted:
                    self._thread = None
                    for end in self._waker or ():
                        end.close()
                    self._waker = None
                    return

    def _dial(self) -> Line:
        try:
            line = Line(self._dialling.url, self._dialling.options(), self._dialling.longest)
            try:
                # From here on replies and pushes can be told apart.
                hello = line.ask([("HELLO", 3)], self._dialling.timeout)[0]
                if isinstance(hello, Exception):
                    raise hello
            except BaseException:
                line.close()
                raise
        except Exception as error:
            self._complain(error)
            self._abandon()
            raise
        return line

    def _listen(self, line: Line) -> None:
        """Hear until the connection is lost, or there is nothing more to hear."""
        session = Session(line)
        try:
            self._converse(session, line)
        except Exception as error:  # whatever it is, nothing is heard any more
            self._complain(error)
        finally:
            for ear in self._ears:
                ear.lost()
            self._abandon()
            line.close()

    def _converse(self, session: Session, line: Line) -> None:
        assert self._waker is not None
        ends = select.poll()
        ends.register(line.fileno(), select.POLLIN)
        ends.register(self._waker[0].fileno(), select.POLLIN)
        wanted_at = time.monotonic()
        while True:
            now = time.monotonic()
            ears, staleness = self._ears, self._staleness()
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
                session.say(now, ears, bells, proofs, due=now - session.last >= staleness / 4)
            except BaseException:
                self._proofs += proofs
                raise
            for end, _ in ends.poll(1000 * max(0.001, session.last + staleness / 4 - time.monotonic())):
                if end == self._waker[0].fileno():
                    self._waker[0].recv(4096)
                else:
                    session.hear(ears, self._bells)
                    self._complained = False

    def _staleness(self) -> float:
        return min((ear.staleness for ear in self._ears), default=_PATIENCE)

    def _nap(self, seconds: float) -> None:
        """Until it is time, or nobody wants to hear any more."""
        assert self._waker is not None
        until = time.monotonic() + seconds
        while self._wanted and (left := until - time.monotonic()) > 0:
            if select.select([self._waker[0]], [], [], left)[0]:
                self._waker[0].recv(4096)

    def _abandon(self) -> None:
        """Whoever waits to hear something is told that it will not."""
        with self._lock:
            deaf: list[Flight] = [*self._bells.values(), *self._proofs]
            self._bells, self._proofs = {}, []
        for flight in deaf:
            if flight.state == FLYING:
                flight.settle(ABANDONED, None)

    def _complain(self, error: Exception) -> None:
        if self._ears and not self._complained:
            self._complained = True
            log.warning("near caches are off until Redis can be heard: %s", told(failure(error)))

    # -- its life --------------------------------------------------------------------------------------------

    def detach(self, ear: Ear) -> None:
        with self._lock:
            self._ears = [each for each in self._ears if each is not ear]

    def leave(self, owner: object) -> None:
        """Somebody has no more use for it. The last one waits until it has hung up."""
        with _lock:
            self._owners = [each for each in self._owners if each is not owner]
            if not self._owners:
                _listeners.pop(self._dialling.url, None)
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self.wake()
        # The garbage collector may be anywhere, in that very thread too.
        if not self._owners and thread is not threading.current_thread():
            thread.join(self._dialling.longest)

    def __repr__(self) -> str:
        return f"<Listener: {len(self._ears)} near caches, {len(self._bells)} bells>"


_listeners: Final[dict[str, Listener]] = {}
_lock: Final = threading.RLock()


def listener_for(dialling: Dialling, owner: object) -> Listener:
    """The listener at a server, until ``owner`` says ``leave``."""
    with _lock:
        listener = _listeners.setdefault(dialling.url, Listener(dialling))
        listener._owners.append(owner)
        return listener
