"""The life of a cache: configured, opened when it is first used, forked, closed, and collected if nobody did.

It knows what a cache is made of, and what that has counted; of functions only that they are to be told.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from cachecraft._books import Books
from cachecraft._by_hand import ByHand
from cachecraft._core import flights
from cachecraft._core.errors import ClosedError, OptionTypeError
from cachecraft._core.events import Hook
from cachecraft._core.ports import Backend, Keeper
from cachecraft._drivers import Driver
from cachecraft._making import dialling, made
from cachecraft._settings import OPTIONS, Settings, environment, redacted, switched_off
from cachecraft._telling import Teller
from cachecraft.backends import listener
from cachecraft.backends.guard import UNGUARDED, Guard
from cachecraft.backends.memory import EMPTY
from cachecraft.backends.near_keeper import FAR, NearKeeper
from cachecraft.hooks import log_event
from cachecraft.stats import BY_HAND, Snapshot, Stats

log: Final = logging.getLogger("cachecraft")


class Life:
    """A cache as far as it lives. It opens nothing before it is first used."""

    # Here too, since a destructor runs even where ``__init__`` raised.
    _driver: Driver | None = None

    def __init__(self) -> None:
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self._lock = threading.RLock()
        #: The functions that are bound to what it is made of.
        self._handles: weakref.WeakSet[Any] = weakref.WeakSet()
        self.books = Books()
        #: Counters of all that was asked of this cache, by functions and by hand.
        self.stats = Stats(self.books.tallies, self._counters)
        #: Whom to tell of events. Those who tell hold this very list.
        self._hooks: list[Hook] = []
        self._added: list[Hook] = []
        self._settings: Settings | None = None
        self._keeper: Keeper | None = None
        self._hand: ByHand | None = None
        self._closed = False
        _caches.add(self)

    def _configure(self, url: str | Backend, options: dict[str, Any]) -> None:
        unknown = options.keys() - OPTIONS
        if unknown:
            raise OptionTypeError(f"{min(unknown)}= is no option of a cache; there are {', '.join(sorted(OPTIONS))}")
        settings = Settings.of(url, options)
        if settings.backend is None and not settings.url.startswith("memory://"):
            dialling(settings)  # looks at the URL, opens nothing
        if switched_off():
            settings = replace(settings, enabled=False)
        with self._lock:
            self._settings = settings
            self._hooks[:] = [*settings.hooks, *self._added]
            self._closed = False
            old = self._taken_down()
        for handle in list(self._handles):
            handle.unbind()
        _let_go(*old)

    # -- what it is made of, made when first needed ----------------------------------------------------------

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._configure(environment("URL") or "memory://", {"namespace": environment("NAMESPACE") or ""})
        return self._settings  # type: ignore[return-value]  # set just above

    @property
    def namespace(self) -> str:
        return self.settings.namespace

    @property
    def enabled(self) -> bool:
        """Whether it caches at all: not if it was told not to, nor after ``close``."""
        return self.settings.enabled and not self._closed

    @property
    def keeper(self) -> Keeper:
        # Somebody may configure it anew in between.
        while (keeper := self._keeper) is None:
            self._open()
        return keeper

    @property
    def driver(self) -> Driver:
        while (driver := self._driver) is None:
            self._open()
        return driver

    @property
    def _by_hand(self) -> ByHand:
        while (hand := self._hand) is None:
            self._open()
        return hand

    def _open(self) -> None:
        if self._driver is not None:
            return
        with self._lock:
            if self._driver is not None:
                return
            settings = self.settings
            if self._closed:
                raise ClosedError("this cache is closed; make another")
            if log_event not in self._hooks and log.isEnabledFor(logging.DEBUG):
                self._hooks.append(log_event)
            keeper, driver, publisher = made(settings, self._hooks, Teller(self))
            hand = ByHand(self, settings, keeper, self.books.enter(driver, BY_HAND))
            if self._driver is None:  # else a destructor was here first, and functions are bound to what it made
                self._hand, self._keeper, self._driver = hand, keeper, driver
                if publisher is not None:
                    publisher.start()

    # -- what it tells, and what it counts -------------------------------------------------------------------

    def add_hook(self, hook: Hook) -> None:
        """Have ``hook`` told of events from now on, whatever the cache is configured to later; see ``hooks=``."""
        with self._lock:
            self._added.append(hook)
            self._hooks.append(hook)
            if self._keeper is not None:
                self._keeper.heed()

    def adopt(self, handle: Any) -> None:
        """Take note of a decorated function."""
        self._handles.add(handle)

    def _counters(self) -> dict[str, float]:
        """What is counted for the cache as a whole; a new number here is one more line."""
        backend = self._driver.backend if self._driver is not None else None
        keeper = self._keeper
        memory = getattr(keeper, "memory", None)
        return {
            **(backend.counters() if isinstance(backend, Guard) else UNGUARDED),
            **(memory.counters() if memory is not None else EMPTY),
            **(keeper.counters() if isinstance(keeper, NearKeeper) else FAR),
        }

    def snapshot(self) -> Snapshot:
        """All counters at this moment, function by function: for metrics, and for what is published."""
        snapshot = Snapshot(self.namespace, self.books.read(), self._counters())
        backend = self._driver.backend if self._driver is not None else None
        if isinstance(backend, Guard):
            snapshot.redis, snapshot.redis_errors = backend.timings.durations(), backend.timings.errors()
        return snapshot

    # -- its end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what runs behind, and let go of every connection. Decorated functions go on as plain calls."""
        backend = self._retire()
        if backend is not None:
            backend.close()

    async def aclose(self) -> None:
        """As ``close``; what it has to wait for, the event loop does not."""
        backend = self._retire()
        if backend is not None:
            await backend.aclose()

    def _retire(self) -> Backend | None:
        with self._lock:  # lest somebody who is about to open it does so after this
            self._closed = True
            old = self._taken_down()
        for handle in list(self._handles):
            handle.unbind()  # first, so that nobody goes on to ask what is being shut
        return _shut(*old)

    def _taken_down(self) -> tuple[Driver | None, Keeper | None]:
        driver, keeper = self._driver, self._keeper
        self._driver = self._keeper = self._hand = None
        return driver, keeper

    def __del__(
        self, _ending: Callable[[], bool] = sys.is_finalizing, _warn: Callable[..., None] = warnings.warn
    ) -> None:
        """Collected without having been closed: say so and close, as files do. The end of the process needs neither.

        This may run in the middle of anything, in a thread that holds a lock. It does not take the cache's own; those
        of what it shuts are re-entrant, and other threads hold them for moments only.
        """
        driver = self._driver
        if driver is None or _ending():
            return
        try:
            if getattr(driver.backend, "connected", False):  # a backend of somebody's own need not know
                _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        finally:
            _let_go(*self._taken_down())

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self.books.after_fork()
        for handle in list(self._handles):
            handle.after_fork()
        if self._driver is not None:
            self._driver.crew.after_fork()
        if self._keeper is not None:
            self._keeper.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if self._settings is None:
            return "<Cache not yet configured>"
        state = (
            "closed" if self._closed else "off" if not self.settings.enabled else repr(self._keeper or "not yet open")
        )
        return f"<Cache {redacted(self.settings.url)} namespace={self.settings.namespace!r} {state}>"


def _shut(driver: Driver | None, keeper: Keeper | None) -> Backend | None:
    """End what runs behind. Answers the backend, which is yet to be closed."""
    if keeper is not None:
        keeper.close()
    if driver is None:
        return None
    driver.crew.close()
    return driver.backend


def _let_go(driver: Driver | None, keeper: Keeper | None) -> None:
    backend = _shut(driver, keeper)
    if backend is not None:
        backend.close()


_caches: Final[weakref.WeakSet[Life]] = weakref.WeakSet()


def caches(*, unused: bool = False) -> list[Life]:
    """Every cache of this process that has been configured; with ``unused``, those too that are yet to be."""
    return [cache for cache in list(_caches) if unused or cache._settings is not None]


def _after_fork_in_child() -> None:
    flights.after_fork()
    listener.after_fork()
    for cache in list(_caches):
        cache._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
