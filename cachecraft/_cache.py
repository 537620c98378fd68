"""A cache without its decorators: what it is told, and the work by hand, for threads and for tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar, Unpack, overload

from cachecraft._core.calls import prefix_of
from cachecraft._core.effects import Flow
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import ClosedError, OptionTypeError
from cachecraft._core.explanation import Explanation
from cachecraft._core.policy import Duration
from cachecraft._core.ports import Backend
from cachecraft._life import Life
from cachecraft._options import LoadOptions
from cachecraft.backends.near_keeper import NearKeeper

T = TypeVar("T")


class BareCache(Life):
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
        near: ``True``, or ``Near(max_entries=..., max_staleness=...)``: entries of Redis are held in this process
            too, and served at the speed of memory. What another process invalidates is served here for
            ``max_staleness`` more at the most (1 second), and as a rule for milliseconds. Memory is near by itself.
        hooks: functions that are told of events (see ``cachecraft.hooks``), none of them on a hit in memory.
        publish_stats: how often this process publishes its counters to Redis, for ``cachecraft stats``; five seconds
            by default, ``None`` for never.
        clock, random: seconds that only grow, and a number in [0, 1); for tests.

    Raises:
        OptionError, OptionTypeError: an option cannot be used; the message names it and says the remedy.
    """

    def __init__(self, url_or_backend: str | Backend | None = "memory://", **options: Any) -> None:
        super().__init__()
        # Without a URL, the environment is asked when it is first used: so begins the default cache.
        if url_or_backend is not None:
            self._configure(url_or_backend, options)

    # -- by hand; each operation is a flow, driven for threads and for tasks ---------------------------------

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
        return self._run(self._by_hand.get(key)) if self._on() else MISSING

    async def aget(self, key: str) -> Any:
        """As ``get``."""
        return await self._arun(self._by_hand.get(key)) if self._on() else MISSING

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
        return bool(self._on() and self._run(self._by_hand.set(key, value, _with_ttl({**options}, ttl), tags)))

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
        return bool(self._on() and await self._arun(self._by_hand.set(key, value, _with_ttl({**options}, ttl), tags)))

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
        place, values = self._by_hand.place(key, _with_ttl({**options}, ttl), tags)
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
        place, values = self._by_hand.place(key, _with_ttl({**options}, ttl), tags)
        return await self._arun(place.recall(values, run))

    def explain(self, key: str) -> Explanation:
        """What the next ``get(key)`` would find, and if nothing, why. It loads nothing and counts nothing.

        A key that ``f.key(...)`` made is explained as ``f.explain(...)`` would.
        """
        return self._run(self._by_hand.explain(key)) if self._on() else _off(key)

    async def aexplain(self, key: str) -> Explanation:
        """As ``explain``."""
        return await self._arun(self._by_hand.explain(key)) if self._on() else _off(key)

    def delete(self, key: str) -> bool:
        """Remove the entry under ``key``; whether there was one."""
        return bool(self._on() and self._run(self._by_hand.delete(key)))

    async def adelete(self, key: str) -> bool:
        """As ``delete``."""
        return bool(self._on() and await self._arun(self._by_hand.delete(key)))

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
        return self._run(self._by_hand.invalidate(key, pattern, tags, progress)) if self._on() else 0

    async def ainvalidate(
        self,
        *,
        key: str | None = None,
        pattern: str | None = None,
        tags: Sequence[str] | str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """As ``invalidate``."""
        return await self._arun(self._by_hand.invalidate(key, pattern, tags, progress)) if self._on() else 0

    def clear(self) -> None:
        """Remove all entries of this cache: of its namespace, and of the namespaces its functions were given."""
        if self._on():
            self._run(self.keeper.clear(self._prefixes()))

    async def aclear(self) -> None:
        """As ``clear``."""
        if self._on():
            await self._arun(self.keeper.clear(self._prefixes()))

    def _prefixes(self) -> list[str]:
        own = prefix_of(self.namespace)
        return [own, *{handle.prefix for handle in list(self._handles)} - {own}]

    def barrier(self) -> None:
        """From here on, nothing held near is served that any process had invalidated before: as strict as Redis.

        It takes one round trip, and returns within ``timeout`` whatever happens. Without a near cache it is no matter.
        """
        keeper = self.keeper if self._on() else None
        if isinstance(keeper, NearKeeper):
            self._run(keeper.barrier(self.settings.timeout))

    async def abarrier(self) -> None:
        """As ``barrier``."""
        keeper = self.keeper if self._on() else None
        if isinstance(keeper, NearKeeper):
            await self._arun(keeper.barrier(self.settings.timeout))

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


def _off(key: str) -> Explanation:
    return Explanation(function="the cache", key=key, verdict="miss", reason="off")


def _check_loader(loader: object) -> None:
    if not callable(loader):
        raise OptionTypeError(f"loader={loader!r} must be a function without arguments")


def _with_ttl(options: dict[str, Any], ttl: Any) -> dict[str, Any]:
    return {**options, "ttl": ttl} if ttl is not None else options
