"""The public face with its types: ``Cache`` with its decorators, and the default cache's own.

It adds types and documentation to what ``_cache`` and ``_decorators`` do, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from cachecraft._cache import BareCache, environment
from cachecraft._core.entry import Missing
from cachecraft._core.policy import Duration, Jitter, Policy
from cachecraft._decorators import CacheInfo, decorate, invalidating, updating
from cachecraft.serializers import Serializer
from cachecraft.stats import Stats

P = ParamSpec("P")
Q = ParamSpec("Q")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)

Ttl = Duration | Callable[[Any], Duration]


class _Face(Protocol[P]):
    """What every cached function has besides being called."""

    __name__: str
    __qualname__: str
    cache: Cache
    stats: Stats

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The wire key of a call."""

    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and currsize, as ``functools.lru_cache``."""

    def cache_parameters(self) -> dict[str, Any]:
        """The options the function was decorated with."""


class CachedFunction(_Face[P], Protocol[P, R_co]):
    """A decorated ``def``: called as before, with the cache's methods beside it."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: Any) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S_contra, Q], T], instance: S_contra, owner: Any
    ) -> CachedFunction[Q, T]: ...

    def get(self, *args: P.args, **kwargs: P.kwargs) -> R_co | Missing:
        """The value that is kept, or ``MISSING``; never loads."""

    def set(self, value: Any, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Keep ``value`` as the result for these arguments."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Load anew, whatever is kept."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Drop the entry for these arguments; how many there were, where known."""

    def invalidate_all(self) -> int:
        """Drop all entries of this function; how many, where known."""

    def cache_clear(self) -> Any:
        """Drop all entries of this function and begin its counters anew."""


class AsyncCachedFunction(_Face[P], Protocol[P, R_co]):
    """A decorated ``async def``: awaited as before, with the cache's methods, also to be awaited, beside it."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    @overload
    def __get__(self, instance: None, owner: Any) -> AsyncCachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S_contra, Q], T], instance: S_contra, owner: Any
    ) -> AsyncCachedFunction[Q, T]: ...

    def get(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co | Missing]:
        """The value that is kept, or ``MISSING``; never loads."""

    def set(self, value: Any, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """Keep ``value`` as the result for these arguments."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Load anew, whatever is kept."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, int]:
        """Drop the entry for these arguments; how many there were, where known."""

    def invalidate_all(self) -> Coroutine[Any, Any, int]:
        """Drop all entries of this function; how many, where known."""

    def cache_clear(self) -> Any:
        """Drop all entries of this function and begin its counters anew; to be awaited."""


class CacheDecorator(Protocol):
    """What ``cached(...)`` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...


class Cache(BareCache):
    __doc__ = BareCache.__doc__

    @overload
    def cached(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...
    @overload
    def cached(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def cached(
        self,
        ttl: float | str | timedelta | None = None,
        *,
        key: str | Callable[..., str] | None = None,
        tags: Sequence[str] | Callable[..., Sequence[str]] = (),
        namespace: str | None = None,
        version: str | int | None = None,
        jitter: Jitter | tuple[float, float] | None = ...,
        stale: Duration = 0,
        grace: Duration = 0,
        refresh_ahead: Duration = 0,
        beta: float = 0,
        lease: Duration = 5,
        wait: Duration = 10,
        soft_timeout: Duration | None = None,
        timeout: Duration | None = None,
        when: Callable[[Any], bool] | None = None,
        cache_errors: type[Exception] | tuple[type[Exception], ...] | Mapping[type[Exception], Duration] | None = None,
        vary: Callable[[], object] | None = None,
        serializer: Serializer | None = None,
        isolate: bool | None = None,
    ) -> CacheDecorator: ...
    @overload
    def cached(self, ttl: Callable[[Any], Duration], *, key: str | Callable[..., str] | None = ..., **options: Any) -> CacheDecorator: ...
    def cached(self, ttl: Any = None, **options: Any) -> Any:
        """Remember what a function returns.

        Use it bare (``@cached``) or with options. Durations are seconds, ``timedelta``, or text such as ``"5m"``.

        Args:
            ttl: how long a result is kept; the cache's ttl by default. A function is asked with each result.
            key: a template over the parameters (``"user:{user_id}"``), or a function of the arguments; by default
                all arguments count.
            tags: templates, or a function of the result and the arguments; ``invalidate(tags=...)`` drops by them.
            namespace: instead of the cache's own.
            version: part of the key; a new one leaves the old entries alone.
            jitter: spread of the ttl; the cache's by default, ``None`` for none.
            stale: after the ttl, serve the old value for so long while one refresh runs behind.
            grace: after the ttl, fall back on the old value for so long if the loader fails.
            refresh_ahead: refresh behind the caller's back when a hit comes this close to the end of the ttl.
            beta: refresh early by chance, the likelier the closer to the end (XFetch); 1.0 is usual, 0 is off.
            lease: how long another process waits before it replaces a loader that died (Redis); 5 seconds.
            wait: how long a caller waits for another's load before it loads for itself; 10 seconds.
            soft_timeout: with ``grace``: serve the old value when the loader takes longer.
            timeout: raise ``TimeoutError`` when the loader takes longer. A thread's loader runs on unheard.
            when: keep only results of which this is true.
            cache_errors: exceptions to remember: classes (10 seconds), or ``{NotFound: "30s"}``.
            vary: more for the key, asked at each call, such as ``tenant.get`` of a ``ContextVar``.
            serializer: for this function's values in Redis.
            isolate: ``None``: callers own the containers and dataclasses they get; ``True``: everything is copied
                deeply; ``False``: everything is shared.

        Raises:
            OptionError, OptionTypeError, TemplateError: naming the option and the remedy.
        """
        if callable(ttl) and not options and not _is_ttl(ttl):
            return decorate(self, ttl, {})
        if isinstance(ttl, (staticmethod, classmethod, property)):
            return decorate(self, ttl, options)
        if ttl is not None:
            options["ttl"] = ttl
        _check(options)
        return lambda fn: decorate(self, fn, dict(options))

    def invalidates(
        self,
        *functions: Any,
        key: str | Sequence[str] | None = None,
        pattern: str | Sequence[str] | None = None,
        tags: str | Sequence[str] | None = None,
        when: Callable[[Any], bool] | None = None,
        on_success_only: bool = False,
    ) -> Callable[[F], F]:
        """Drop entries when a function that writes has ended, however it ended: its commit may have happened.

        Args:
            functions: cached functions, dropped for the arguments they share with this one by name.
            key, pattern, tags: templates over the parameters and ``result``; several of each may be given.
            when: drop only if this is true of the result.
            on_success_only: not if the function raised or was cancelled. Templates with ``result`` need success.

        Raises:
            OptionTypeError, TemplateError, PatternError: naming the option and the remedy.
        """
        options = {"key": key, "pattern": pattern, "tags": tags, "when": when, "on_success_only": on_success_only}
        return invalidating(self, functions, options)

    def updates(self, function: Any, /, *, value: Callable[[Any], Any] | None = None) -> Callable[[F], F]:
        """Write through: what a function that writes returns is what ``function`` would now return.

        Args:
            function: the cached function, for the arguments the two share by name.
            value: makes the value to keep of the result, where it is not the result itself.

        Readers meanwhile wait for the write. If it raises, or two writes cross, the entry is dropped instead.
        """
        return updating(self, function, value)


def _is_ttl(thing: Any) -> bool:
    """``cached(fn)`` decorates; ``cached(lambda r: ...)`` cannot be told from it, so a ttl function is a keyword."""
    return False


def _check(options: dict[str, Any]) -> None:
    Policy.of(options)


default = Cache(None)
cached = default.cached
invalidates = default.invalidates
updates = default.updates


def configure(url: str | None = None, **options: Any) -> Cache:
    """Set up the default cache, which the module-level decorators belong to; options are those of ``Cache``.

    Without a URL, ``CACHECRAFT_URL`` counts, else memory; without a namespace, ``CACHECRAFT_NAMESPACE``. It may be
    called after modules were decorated, and again: what was kept before is then out of reach.
    """
    options.setdefault("namespace", environment("NAMESPACE") or "")
    default._configure(url or environment("URL") or "memory://", options)
    return default


__all__ = ["AsyncCachedFunction", "Cache", "CachedFunction", "cached", "configure", "invalidates", "updates"]
