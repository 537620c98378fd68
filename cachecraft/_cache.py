"""A cache without its decorators: where entries are kept, under which namespace and defaults, and the work by hand.

It opens nothing before it is first used, so a module can be decorated at import and configured later.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from inspect import Parameter, Signature, isawaitable, iscoroutinefunction
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, overload

from cachecraft._books import Books
from cachecraft._core import flights
from cachecraft._core.calls import MOST_TAGS, Key, Subject, check_tag, is_texts, prefix_of
from cachecraft._core.effects import Flow
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import BackendError, ClosedError, OptionError, OptionTypeError
from cachecraft._core.events import Hook, Hooks
from cachecraft._core.heat import Heat
from cachecraft._core.keys import escape_literal
from cachecraft._core.policy import Duration, Policy
from cachecraft._core.ports import Backend, Keeper
from cachecraft._core.templates import check_pattern, escape_pattern
from cachecraft._drivers import Crew, Driver
from cachecraft._options import LoadOptions
from cachecraft._settings import OPTIONS, Settings, environment, redacted, switched_off
from cachecraft.backends.guard import UNGUARDED, Guard
from cachecraft.backends.local import LocalKeeper
from cachecraft.backends.memory import EMPTY, Memory
from cachecraft.backends.publisher import Publisher
from cachecraft.backends.redis import RedisBackend
from cachecraft.backends.remote import RemoteKeeper
from cachecraft.backends.transports import Dialling
from cachecraft.hooks import log_event
from cachecraft.reports import Reporter
from cachecraft.serializers import MsgpackSerializer
from cachecraft.stats import BY_HAND, Snapshot, Stats

T = TypeVar("T")

log: Final = logging.getLogger("cachecraft")


class BareCache:
    """A cache of its own: a place to keep entries, a namespace and defaults.

    Args:
        url_or_backend: ``memory://`` (any object, in this process) or ``redis://``, ``rediss://``, ``unix://``; or a
            ``Backend`` of your own.
        namespace: what every key begins with; caches with different namespaces never see each other's entries.
        ttl: for functions that name none; one hour by default.
        jitter: spread of every ttl; ``Jitter(0.10, 0.20)`` by default, ``None`` for none.
        enabled: false turns every decorated function into a plain call, as ``CACHECRAFT_ENABLED=0`` does.
        max_entries, max_bytes: bounds of what is held in memory; 100,000 entries and 256 MiB by default.
        max_value_bytes: larger values are not stored in Redis; 1 MiB by default.
        compress_above: larger values are compressed in Redis (bytes; 16 KiB by default, ``None`` for never).
        compression: ``"zlib"``, or ``"zstd"`` with the extra ``cachecraft[zstd]``.
        timeout: deadline of one operation on Redis, in seconds; 0.25 by default.
        connect_timeout: deadline of connecting, in seconds; 0.5 by default.
        pool_size: the most connections to Redis for the threads of this process, and for each event loop; 32.
        on_failover: ``"flush"`` distrusts what a restarted or promoted Redis holds, ``"trust"`` serves it.
        on_unreachable: an invalidation that cannot reach Redis is kept in this process and replayed; its caller hears
            nothing (``"journal"``), or a ``BackendError`` as well (``"raise"``).
        serializer: for values in Redis; ``MsgpackSerializer()`` by default.
        encryption_keys: encrypts values in Redis with AES-GCM (extra ``cachecraft[crypto]``): a key of 16, 24 or 32
            random bytes, or several, of which the first encrypts and all decrypt. What is not encrypted with one of
            them is then a miss. Keys, tags, sizes and times stay readable.
        hooks: functions that are told of events (see ``cachecraft.hooks``), none of them on a hit in memory.
        publish_stats: how often this process publishes its counters to Redis, for ``cachecraft stats``; five seconds
            by default, ``None`` for never.
        clock, random: seconds that only grow, and a number in [0, 1); for tests.

    Raises:
        OptionError, OptionTypeError: an option cannot be used; the message names it and says the remedy.
    """

    _driver: Driver | None = None

    def __init__(
        self, url_or_backend: str | Backend | None = "memory://", *, near: None = None, **options: Any
    ) -> None:
        if near is not None:
            raise OptionError(f"near={near!r}: this version has no near cache yet; leave it out")
        # Without a URL, the environment is asked when it is first used: so begins the default cache.
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may use the cache.
        self._lock = threading.RLock()
        self._handles: weakref.WeakSet[Any] = weakref.WeakSet()
        self.books = Books()
        #: Whom to tell of events. Those who tell hold this very list.
        self._hooks: list[Hook] = []
        self._added: list[Hook] = []
        self._settings: Settings | None = None
        self._keeper: Keeper | None = None
        self._closed = False
        #: Counters of all that was asked of this cache, by functions and by hand.
        self.stats = Stats(self.books.tallies, self._counters)
        _caches.add(self)
        if url_or_backend is not None:
            self._configure(url_or_backend, options)

    def _configure(self, url: str | Backend, options: dict[str, Any]) -> None:
        unknown = options.keys() - OPTIONS
        if unknown:
            raise OptionTypeError(f"{min(unknown)}= is no option of a cache; there are {', '.join(sorted(OPTIONS))}")
        settings = Settings.of(url, options)
        if settings.backend is None and not settings.url.startswith("memory://"):
            _dialling(settings)  # looks at the URL, opens nothing
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
            keeper: Keeper
            if settings.url.startswith("memory://"):
                memory = Memory(
                    max_entries=settings.max_entries,
                    max_bytes=settings.max_bytes,
                    clock=settings.clock,
                    random=settings.random,
                )
                keeper, driver = LocalKeeper(memory, self._hooks), Driver(None, Crew())
            else:
                backend = settings.backend or _redis(settings, self._hooks)
                serializer = settings.serializer or MsgpackSerializer()
                keeper, driver = RemoteKeeper(settings, backend, serializer, self._hooks), Driver(backend, Crew())
                if isinstance(backend, Guard) and settings.publish_stats is not None:
                    keeper.publisher = _publisher(self, settings, backend, keeper.heat)
            record = self.books.enter(driver, BY_HAND)
            subject, policy = _loose_subject(), self._policy({})
            loose = keeper.function(subject, policy, record.tally, self._prefix, fn=None, serializer=None)
            record.settle(getattr(loose, "table", None), near=driver.backend is not None)
            if self._driver is None:  # else a destructor was here first, and functions are bound to what it made
                self._loose_tally, self._loose = record.tally, loose
                self._keeper, self._driver = keeper, driver
                if isinstance(keeper, RemoteKeeper) and keeper.publisher is not None:
                    keeper.publisher.start()

    @property
    def _prefix(self) -> str:
        return prefix_of(self.settings.namespace)

    def _policy(self, options: dict[str, Any]) -> Policy:
        unknown = options.keys() - Policy.__dataclass_fields__.keys()
        if unknown:
            raise OptionTypeError(
                f"{min(unknown)}= is no option here; there are {', '.join(Policy.__dataclass_fields__)}"
            )
        return Policy.of(options).under(self.settings.ttl, self.settings.jitter)

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
        memory = getattr(self._keeper, "memory", None)
        return {
            **(backend.counters() if isinstance(backend, Guard) else UNGUARDED),
            **(memory.counters() if memory is not None else EMPTY),
        }

    def snapshot(self) -> Snapshot:
        """All counters at this moment, function by function: for metrics, and for what is published."""
        snapshot = Snapshot(self.namespace, self.books.read(), self._counters())
        backend = self._driver.backend if self._driver is not None else None
        if isinstance(backend, Guard):
            snapshot.redis, snapshot.redis_errors = backend.timings.durations(), backend.timings.errors()
        return snapshot

    # -- by hand; each operation once, as a flow, and driven twice -------------------------------------------

    def _place(self, key: str, options: dict[str, Any], tags: Sequence[str] = ()) -> tuple[Any, Any]:
        """Where a key is kept, and under what: one that a function made leads to that function's own results."""
        wanted = _key(key)
        self._open()
        place: Any = self._loose
        values: Any = (wanted,)
        home = getattr(wanted, "home", None)
        if home is not None and home.cache is self:
            place, values = home.function(), wanted.values  # type: ignore[attr-defined]  # it is a Key
        if len(tags) > MOST_TAGS:
            raise OptionError(f"tags= names {len(tags)} tags; an entry carries {MOST_TAGS} at the most")
        return (place.variant(self._policy(options), _tags(tags)) if options or tags else place), values

    def _on(self) -> bool:
        """Whether it caches at all.

        Raises:
            ClosedError: it was closed.
        """
        if self._closed:
            raise ClosedError("this cache is closed; make another")
        return self.settings.enabled

    def get(self, key: str) -> Any:
        """The value under ``key``, or ``MISSING``."""
        return self._run(self._get(key)) if self._on() else MISSING

    async def aget(self, key: str) -> Any:
        """As ``get``."""
        return await self._arun(self._get(key)) if self._on() else MISSING

    def _get(self, key: str) -> Flow[Any]:
        place, values = self._place(key, {})
        return (yield from place.peek(values))

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[LoadOptions],
    ) -> bool:
        """Store a value for ``ttl`` (as the cache's by default). False if it could not be kept."""
        return bool(self._on() and self._run(self._set(key, value, ttl, tags, {**options})))

    async def aset(
        self,
        key: str,
        value: Any,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[LoadOptions],
    ) -> bool:
        """As ``set``."""
        return bool(self._on() and await self._arun(self._set(key, value, ttl, tags, {**options})))

    def _set(self, key: str, value: Any, ttl: Any, tags: Sequence[str], options: dict[str, Any]) -> Flow[bool]:
        place, values = self._place(key, _with_ttl(options, ttl), tags)
        return bool((yield from place.put(values, value)))

    def get_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[LoadOptions],
    ) -> T:
        """The value under ``key``, or what ``loader()`` returns, which is then stored. One load at a time.

        ``options`` are those of ``cached``: ``jitter``, ``stale``, ``grace``, ``wait``, ``when`` and so on.
        """
        _check_loader(loader)
        if iscoroutinefunction(loader):
            raise OptionTypeError("get_or_load() got an async loader; await aget_or_load() instead")
        if not self._on():
            return loader()
        place, values = self._place(key, _with_ttl({**options}, ttl), tags)
        found: T = self._run(place.recall(values, loader))
        return found

    @overload
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[LoadOptions],
    ) -> T: ...
    @overload
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[LoadOptions],
    ) -> T: ...
    async def aget_or_load(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[LoadOptions],
    ) -> Any:
        """As ``get_or_load``; the loader may be ``async`` or not."""

        async def run() -> Any:
            result = loader()
            return await result if isawaitable(result) else result

        if not self._on():
            return await run()
        place, values = self._place(key, _with_ttl({**options}, ttl), tags)
        return await self._arun(place.recall(values, run))

    def delete(self, key: str) -> bool:
        """Remove the entry under ``key``; whether there was one."""
        return bool(self._on() and self._run(self._delete(key)))

    async def adelete(self, key: str) -> bool:
        """As ``delete``."""
        return bool(self._on() and await self._arun(self._delete(key)))

    def _delete(self, key: str) -> Flow[int]:
        wanted = _key(key)
        wire = wanted if isinstance(wanted, Key) else self._prefix + escape_literal(wanted)
        return int((yield from self.keeper.delete(wire)))

    def invalidate(
        self,
        *,
        key: str | None = None,
        pattern: str | None = None,
        tags: Sequence[str] | str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Remove entries by key, by glob pattern within the namespace, by tags, or by several of these.

        Once it has returned, no call that starts later returns a value whose load began before it.

        Returns:
            How many entries went, as far as that is known: an invalidation by tag in Redis counts none. In memory it is
            exact up to a thousand. Above, those that had expired and still lay there count too, and of tags whose
            entries may be the same, or may have been invalidated just before, only those that are certain.

        Raises:
            PatternError: an empty pattern, or one of wildcards alone; ``clear()`` is the way to say that.
        """
        return self._run(self._invalidate(key, pattern, tags, progress)) if self._on() else 0

    async def ainvalidate(
        self,
        *,
        key: str | None = None,
        pattern: str | None = None,
        tags: Sequence[str] | str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """As ``invalidate``."""
        return await self._arun(self._invalidate(key, pattern, tags, progress)) if self._on() else 0

    def _invalidate(self, key: Any, pattern: Any, tags: Any, progress: Any) -> Flow[int]:
        if key is None and pattern is None and tags is None:
            raise OptionTypeError("invalidate() was told nothing to remove; give key=, pattern= or tags=")
        if pattern is not None:
            check_pattern(pattern)
        drops: list[Flow[int]] = []
        if key is not None:
            drops.append(self._delete(_key(key)))
        if pattern is not None:
            drops.append(self.keeper.sweep(self._prefix, escape_pattern(pattern), progress))
        if tags is not None:
            drops.append(self.keeper.untag(self._prefix, _tags([tags] if isinstance(tags, str) else tags)))
        count, failure = 0, None
        for drop in drops:
            try:
                count += yield from drop
            except BackendError as error:  # the others are to be tried all the same
                failure = failure or error
        self._loose_tally.invalidated += count
        if failure is not None:
            raise failure
        return count

    def clear(self) -> None:
        """Remove all entries of this cache: of its namespace, and of the namespaces its functions were given."""
        if self._on():
            self._run(self.keeper.clear(self._prefixes()))

    async def aclear(self) -> None:
        """As ``clear``."""
        if self._on():
            await self._arun(self.keeper.clear(self._prefixes()))

    def _prefixes(self) -> list[str]:
        return [self._prefix, *{handle.prefix for handle in list(self._handles)} - {self._prefix}]

    def ping(self) -> float:
        """Seconds of a round trip to the backend; 0 for memory.

        Raises:
            BackendError: it cannot be reached.
        """
        self._on()
        backend = self.driver.backend
        return 0.0 if backend is None else backend.ping()

    async def aping(self) -> float:
        """As ``ping``."""
        self._on()
        backend = self.driver.backend
        return 0.0 if backend is None else await backend.aping()

    def _run(self, flow: Flow[T]) -> T:
        return self.driver.run(flow)

    async def _arun(self, flow: Flow[T]) -> T:
        return await self.driver.arun(flow)

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
        self._driver = self._keeper = None
        return driver, keeper

    def __del__(
        self, _ending: Callable[[], bool] = sys.is_finalizing, _warn: Callable[..., None] = warnings.warn
    ) -> None:
        """Collected without having been closed: say so and close, as files do. The end of the process needs neither.

        It takes no lock: this may run in the middle of anything, in any thread.
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


def _dialling(settings: Settings) -> Dialling:
    return Dialling(settings.url, settings.timeout, settings.connect_timeout, settings.pool_size)


def _redis(settings: Settings, hooks: Hooks) -> Guard:
    dialling, trust = _dialling(settings), settings.on_failover == "trust"
    backend, spare = RedisBackend(dialling, trust=trust), RedisBackend(replace(dialling, pool_size=1), trust=trust)
    return Guard(backend, spare, loud=settings.on_unreachable == "raise", hooks=hooks)


def _publisher(cache: BareCache, settings: Settings, guard: Guard, heat: Heat) -> Publisher:
    counters = weakref.WeakMethod(cache.snapshot)  # it must not keep the cache alive

    def snapshot() -> Snapshot | None:
        count = counters()
        return None if count is None else count()

    return Publisher(
        _dialling(settings),
        Reporter(snapshot, heat),
        prefix=prefix_of(settings.namespace),
        period=settings.publish_stats or 0.0,
        may=lambda: not (guard.breaker.open or guard.journal),
    )


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise OptionTypeError(f"key= must be text, not {type(key).__qualname__}; f.key(...) makes one from arguments")
    if not key:
        raise OptionError("key='' is empty; name what is kept under it")
    return key


def _check_loader(loader: object) -> None:
    if not callable(loader):
        raise OptionTypeError(f"loader={loader!r} must be a function without arguments")


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    if not is_texts(tags):
        raise OptionTypeError(f"tags= must be a list of strings, not {type(tags).__qualname__}")
    return tuple(check_tag(escape_literal(tag)) for tag in tags)


def _with_ttl(options: dict[str, Any], ttl: Any) -> dict[str, Any]:
    return {**options, "ttl": ttl} if ttl is not None else options


def _loose_subject() -> Subject:
    """What is stored by hand: the key is the one argument."""
    signature = Signature([Parameter("key", Parameter.POSITIONAL_ONLY)])
    return Subject(signature, name=None, label="the cache", key=_itself, tags=(), vary=None, version=None)


def _itself(key: str) -> str:
    return key


_caches: Final[weakref.WeakSet[BareCache]] = weakref.WeakSet()


def caches() -> list[BareCache]:
    """Every cache of this process that has been configured."""
    return [cache for cache in list(_caches) if cache._settings is not None]


def _after_fork_in_child() -> None:
    flights.after_fork()
    for cache in list(_caches):
        cache._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
