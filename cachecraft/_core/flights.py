"""Single flight within a process: one load, whoever joined it, and who would wait for himself.

A flight knows neither threads nor tasks: those who wait leave a *waker*, a quick function that any thread may call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar, Token, copy_context
from threading import RLock
from types import FrameType
from typing import Any, Final

FLYING: Final = 0
LANDED: Final = 1
FAILED: Final = 2
ABANDONED: Final = 3
"""The leader went away without an answer (cancelled, interrupted): whoever waited starts over."""

LEADER: Final = "__cachecraft_leader__"
"""A global that tells in which of its variables a generated function has the flight it leads.

In a thread the stack knows who loads what, so a load need not write it down: reading the stack costs the one who is
about to wait. Tasks beget tasks, so theirs is in ``current``.
"""

# Re-entrant, because the garbage collector may run anybody's destructor, and that may wait for a load.
_lock = RLock()


class Flight:
    """One load under way. The defaults are class attributes, since a miss makes one of these each time."""

    state = FLYING
    result: Any = None
    """The value, or the exception once it failed."""
    void = False
    """The result is the caller's, and is not stored: an invalidation came, or it may be older than one (``void``)."""
    home: Any = None
    """The event loop whose task leads it, if one does: its thread must not block on it, and its end ends the load."""
    tags: frozenset[str] | None = None
    lost: frozenset[str] = frozenset()
    """Tags invalidated since the load began: it matters where the tags follow from the result."""
    epoch = 0
    lookup: Any = None
    shelf: Any = None
    call_key: Any = None
    kind: Any = None
    copier: Callable[[Any], Any] | None = None
    """Where the result is to stand, for the backend that made the flight."""
    wakers: list[Callable[[], object]] | None = None
    _awaits: tuple[Flight, ...] = ()
    """Flights that code within this load is waiting for, each as often as somebody does."""
    token: Token[Flight | None] | None = None

    key: Any
    began: float
    """Clock seconds."""
    took = 0.0
    """Seconds that the loader ran, once it has."""
    number = 0
    """By what hooks know this load, if there are any."""

    @property
    def parent(self) -> Flight | None:
        """The load that this one began in, as far as ``current`` tells."""
        outer = self.token.old_value if self.token is not None else None
        return outer if isinstance(outer, Flight) else None

    @classmethod
    def of(cls, key: Any, began: float) -> Flight:
        # No __init__: setting two attributes from outside costs a miss half as much.
        flight = cls()
        flight.key = key
        flight.began = began
        return flight

    def settle(self, state: int, result: Any) -> None:
        """End the flight and wake who joined. The state is set before the wakers are read (see ``subscribe``)."""
        self.result = result
        self.state = state
        if self.wakers is not None:
            while self.wakers:
                self.wakers.pop(0)()  # who has waited longest goes first

    @property
    def orphaned(self) -> bool:
        """Its loop was closed before it could end: nobody is left to end it."""
        return self.home is not None and self.state == FLYING and bool(self.home.is_closed())

    def subscribe(self, waker: Callable[[], object]) -> None:
        """Have ``waker`` called once when the flight ends; at once if it has. A second call is harmless."""
        with _lock:
            if self.wakers is None:
                self.wakers = []
        self.wakers.append(waker)
        # Either ``settle`` finds the waker in the list or this line finds the state: never neither.
        if self.state != FLYING:
            waker()

    def unsubscribe(self, waker: Callable[[], object]) -> None:
        try:
            (self.wakers or []).remove(waker)
        except ValueError:
            return

    def __repr__(self) -> str:
        name = ("flying", "landed", "failed", "abandoned")[self.state]
        return f"<Flight {self.key!r} {name}{' void' if self.void else ''}>"


current: Final[ContextVar[Flight | None]] = ContextVar("cachecraft_flight", default=None)
"""The load in which the running code finds itself, unless the stack tells (see ``LEADER``)."""


def enter(flight: Flight) -> None:
    """The caller begins to run the loader of this flight."""
    # Up to Python 3.11 the garbage collector may run in the middle of ``set`` and ``reset``, and somebody's destructor
    # come here too: it would free what they are reading. The copy, which costs next to nothing, holds on to that.
    held = copy_context()  # noqa: F841 - it need only be held
    flight.token = current.set(flight)


def leave(flight: Flight) -> None:
    if flight.token is not None:
        held = copy_context()  # noqa: F841 - as above
        try:
            current.reset(flight.token)
        except (ValueError, RuntimeError):
            pass  # a coroutine finished in another context, which ends with it; or a signal has it left once more


def void() -> None:
    """The load in which the running code finds itself may have seen what is over: nobody else is to get its result."""
    flight = current.get()
    if flight is not None:
        flight.void = True


def may_wait(flight: Flight) -> bool:
    """Whether the running code may wait for the flight; if so, it is noted until ``waited``.

    It may not when the flight waits, through whatever chain, for a load the running code is part of: a loader that
    calls itself, or two functions that call each other in opposite order.
    """
    chain = _chain()
    if not chain:
        return True
    with _lock:
        todo, seen = [flight], set[Flight]()
        while todo:
            each = todo.pop()
            if each in chain:
                return False
            if each not in seen:
                seen.add(each)
                todo.extend(each._awaits)
        for each in chain:
            each._awaits = (*each._awaits, flight)
    return True


def waited(flight: Flight) -> None:
    for each in _chain():
        with _lock:
            awaits = list(each._awaits)
            if flight in awaits:
                awaits.remove(flight)
            each._awaits = tuple(awaits)


def _chain() -> list[Flight]:
    """The loads that the running code is part of: those of its context, and those that its stack remembers."""
    chain: list[Flight] = []
    flight = current.get()
    while flight is not None:
        chain.append(flight)
        flight = flight.parent
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        name = frame.f_globals.get(LEADER)
        led = frame.f_locals.get(name) if name is not None else None
        if led is not None and led not in chain:
            chain.append(led)
        frame = frame.f_back
    return chain


def after_fork() -> None:
    """In a forked child: a thread of the parent may have held the lock, and it is not here to release it."""
    global _lock  # noqa: PLW0603 - there is one lock, and it must be a new one
    _lock = RLock()
    current.set(None)
