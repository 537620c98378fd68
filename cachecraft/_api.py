"""The public face with its types: ``Cache`` with its decorators, and the default cache's own.

It adds types and documentation to what ``_cache`` and ``_decorators`` do, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from cachecraft._cache import BareCache
from cachecraft._core.entry import Missing
from cachecraft._core.errors import OptionTypeError
from cachecraft._core.explanation import Explanation
from cachecraft._core.policy import Duration, Policy
from cachecraft._core.ports import Backend
from cachecraft._decorators import CacheInfo, decorate
from cachecraft._options import CacheOptions, FunctionOptions, Ttl
from cachecraft._settings import environment
from cachecraft._write_behind import ROOM, writing_behind
from cachecraft._writes import invalidating, updating
from cachecraft.stats import Stats

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
C = TypeVar("C", bound=type)
D = TypeVar("D", bound="property | classmethod[Any, ..., Any]")
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any]")

# -- a decorated function, as type checkers see it; at runtime it is a function with these attributes --------
#
# ``P`` are the parameters, ``Q`` those that are left once the object is bound, ``R`` is the result. The two functions
# are no protocols, because pyright binds no protocol whose ``__get__`` takes ``self`` for a callable; ``self`` is one,
# because mypy chooses among overloads by the first parameter only then.


class _Callable(Protocol[P, R_co]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Face(Protocol[P]):
    """What every cached function has besides being called."""

    __name__: str
    __qualname__: str
    cache: Cache
    stats: Stats

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The wire key of a call."""
        ...

    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and currsize, as ``functools.lru_cache``."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """The options the function was decorated with."""
        ...


class SyncFace(Face[P], Protocol[P, R]):
    """What hangs on a decorated ``def``. On a bound method too, each takes all arguments, the object first."""

    @property
    def __wrapped__(self) -> Callable[P, R]: ...

    def get(self, *args: P.args, **kwargs: P.kwargs) -> R | Missing:
        """The value that is kept, or ``MISSING``; never loads."""
        ...

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Keep ``value`` as the result for these arguments. False if it was declined."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load anew, whatever is kept."""
        ...

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """What the next call would find, and if nothing, why; it loads nothing and counts nothing."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Drop the entry for these arguments; how many there were, where known."""
        ...

    def invalidate_all(self) -> int:
        """Drop all entries of this function; how many, where known."""
        ...

    def cache_clear(self) -> int:
        """Drop all entries of this function and begin its counters anew."""
        ...


class CachedMethod(SyncFace[P, R], _Callable[Q, R], Generic[Q, P, R]):
    """A ``CachedFunction``, bound to an object or a class."""


class CachedFunction(SyncFace[P, R], _Callable[P, R], Generic[P, R]):
    """A decorated ``def``: called as before, with the cache's methods beside it."""

    @overload  # a class method
    def __get__(
        self: Callable[Concatenate[C, Q], R], instance: object, owner: C
    ) -> CachedMethod[Q, Concatenate[C, Q], R]: ...
    @overload  # a method, on its class
    def __get__(self, instance: None, owner: type) -> CachedFunction[P, R]: ...
    @overload  # a method
    def __get__(
        self: Callable[Concatenate[S, Q], R], instance: S, owner: type
    ) -> CachedMethod[Q, Concatenate[S, Q], R]: ...
    @overload  # a static method: its first parameter cannot be the object
    def __get__(self, instance: object, owner: type) -> CachedFunction[P, R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any: ...


class AsyncFace(Face[P], Protocol[P, R]):
    """What hangs on a decorated ``async def``; as ``SyncFace``, to be awaited."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def get(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R | Missing]:
        """The value that is kept, or ``MISSING``; never loads."""
        ...

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """Keep ``value`` as the result for these arguments. False if it was declined."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Load anew, whatever is kept."""
        ...

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Explanation]:
        """What the next call would find, and if nothing, why; it loads nothing and counts nothing."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, int]:
        """Drop the entry for these arguments; how many there were, where known."""
        ...

    def invalidate_all(self) -> Coroutine[Any, Any, int]:
        """Drop all entries of this function; how many, where known."""
        ...

    def cache_clear(self) -> Coroutine[Any, Any, int]:
        """Drop all entries of this function and begin its counters anew."""
        ...


class AsyncCachedMethod(AsyncFace[P, R], _Callable[Q, Coroutine[Any, Any, R]], Generic[Q, P, R]):
    """An ``AsyncCachedFunction``, bound to an object or a class."""


class AsyncCachedFunction(AsyncFace[P, R], _Callable[P, Coroutine[Any, Any, R]], Generic[P, R]):
    """A decorated ``async def``: awaited as before, with the cache's methods, also to be awaited, beside it."""

    @overload  # as above
    def __get__(
        self: Callable[Concatenate[C, Q], Coroutine[Any, Any, R]], instance: object, owner: C
    ) -> AsyncCachedMethod[Q, Concatenate[C, Q], R]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], Coroutine[Any, Any, R]], instance: S, owner: type
    ) -> AsyncCachedMethod[Q, Concatenate[S, Q], R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> AsyncCachedFunction[P, R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any: ...


class CacheDecorator(Protocol):
    """What ``cached(...)`` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...  # type: ignore[overload-overlap]  # async comes first
    @overload
    def __call__(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, fn: D, /) -> D: ...


class WriteBehindDecorator(Protocol):
    """What ``write_behind(...)`` returns: the decorated function takes the same, and answers nothing."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, Any]], /) -> Callable[P, Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(self, fn: Callable[P, Any], /) -> Callable[P, None]: ...


class Cache(BareCache):
    __doc__ = BareCache.__doc__

    def __init__(self, url_or_backend: str | Backend | None = "memory://", **options: Unpack[CacheOptions]) -> None:
        super().__init__(url_or_backend, **options)

    @overload
    def cached(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...  # type: ignore[overload-overlap]  # async comes first
    @overload
    def cached(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def cached(self, fn: D, /) -> D: ...
    @overload
    def cached(self, ttl: Duration | None, /, **options: Unpack[FunctionOptions]) -> CacheDecorator: ...
    @overload
    def cached(self, /, *, ttl: Ttl | None = None, **options: Unpack[FunctionOptions]) -> CacheDecorator: ...
    def cached(self, given: Any = None, /, *, ttl: Any = None, **options: Any) -> Any:
        """Remember what a function returns.

        Use it bare (``@cached``) or with options. Durations are seconds, ``timedelta``, or text such as ``"5m"``.

        Args:
            ttl: how long a result is kept; the cache's ttl by default. A function is asked with each result.
            key: a template over the parameters (``"user:{user_id}"``), or a function of the arguments; by default
                all arguments count.
            tags: templates, or a function of the result and the arguments; ``invalidate(tags=...)`` drops by them.
            namespace: instead of the cache's own.
            version: part of the key; a new one leaves the old entries alone.
            verify: this share of hits (such as ``0.001``) is compared behind the caller's back with what the loader
                returns now; ``stats.differed`` and the log tell of a write that forgot to invalidate.
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
            cache_errors: exceptions to remember: classes (10 seconds), or ``{NotFound: "30s"}``. In memory their
                subclasses too, the closest class deciding; in Redis, which must not choose what class is made, only the
                very classes that are named: others count as ``refused``.
            vary: more for the key, asked at each call, such as ``tenant.get`` of a ``ContextVar``.
            serializer: for this function's values in Redis.
            isolate: ``None``: callers own the containers and dataclasses they get; ``True``: everything is copied
                deeply; ``False``: everything is shared.

        Raises:
            OptionError, OptionTypeError, TemplateError: naming the option and the remedy.
        """
        if ttl is not None:
            options["ttl"] = ttl
        if isinstance(given, (staticmethod, classmethod, property)) or (callable(given) and not options):
            return decorate(self, given, options)
        if given is not None:
            if callable(given) or ttl is not None:
                raise OptionTypeError("cached takes a function or options; a ttl that is a function is given as ttl=")
            options["ttl"] = given
        Policy.of(options)
        return lambda fn: decorate(self, fn, dict(options))

    def invalidates(
        self,
        *functions: Face[...] | property,
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

    @overload
    def updates(self, function: SyncFace[..., R], /) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    @overload
    def updates(
        self, function: SyncFace[..., R], /, *, value: Callable[[Any], R]
    ) -> Callable[[Callable[P, S]], Callable[P, S]]: ...
    @overload
    def updates(
        self, function: AsyncFace[..., R], /
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]: ...
    @overload
    def updates(
        self, function: AsyncFace[..., R], /, *, value: Callable[[Any], R]
    ) -> Callable[[Callable[P, Coroutine[Any, Any, S]]], Callable[P, Coroutine[Any, Any, S]]]: ...
    def updates(self, function: Any, /, *, value: Callable[[Any], Any] | None = None) -> Any:
        """Write through: what a function that writes returns is what ``function`` would now return.

        Args:
            function: the cached function, for the arguments the two share by name.
            value: makes the value to keep of the result, where it is not the result itself.

        Readers meanwhile wait for the write. If it raises, or two writes cross, the entry is dropped instead.
        """
        return updating(self, function, value)

    def write_behind(
        self,
        function: Face[...],
        /,
        *,
        value: str | Callable[..., Any],
        coalesce: bool = False,
        retry_for: float | str | timedelta = "5m",
        max_pending: int = ROOM,
        on_unqueued: Literal["write", "raise"] = "write",
    ) -> WriteBehindDecorator:
        """Write behind: a call waits in Redis until a worker (``cachecraft worker``) makes it, and returns at once.

        From then on, whoever asks ``function`` gets the value that waits, in every process that has this decorator;
        others what the database holds. Calls with the same arguments of ``function`` are made in their order, each at
        least once. The result of a call is lost, and its errors are the worker's: the call returns ``None``.

        Without Redis (``memory://``, or turned off) calls are made at once, and entries dropped as by ``invalidates``.

        Args:
            function: the cached function, for the arguments the two share by name.
            value: what ``function`` returns from now on: the name of a parameter, or a function of all arguments by
                name, defaults among them.
            coalesce: of calls that wait together for the same key only the last need be made.
            retry_for: a call that fails is tried again for so long, with growing pauses, then put aside (``cachecraft
                worker --status``); five minutes by default, 0 for once only. Later ones of its key wait meanwhile.
            max_pending: so many calls may wait behind ``function``.
            on_unqueued: what to do with a call that cannot wait, because Redis is out of reach, too many wait, or an
                argument cannot be serialized: ``"write"`` makes it at once, ``"raise"`` raises. What would overtake
                older calls is never made at once where that can be known; with Redis out of reach it cannot.

        Raises:
            OptionError, OptionTypeError, TemplateError: naming the option and the remedy.
            BackendError, UnserializableError: by a call that can neither wait nor be made at once.
        """
        options = {
            "value": value,
            "coalesce": coalesce,
            "retry_for": retry_for,
            "max_pending": max_pending,
            "on_unqueued": on_unqueued,
        }
        made: WriteBehindDecorator = writing_behind(self, function, options)
        return made


default = Cache(None)
cached = default.cached
invalidates = default.invalidates
updates = default.updates
write_behind = default.write_behind


def configure(url: str | None = None, **options: Unpack[CacheOptions]) -> Cache:
    """Set up the default cache, which the module-level decorators belong to; options are those of ``Cache``.

    Without a URL, ``CACHECRAFT_URL`` counts, else memory; without a namespace, ``CACHECRAFT_NAMESPACE``. It may be
    called after modules were decorated, and again: what was kept before is then out of reach.
    """
    options.setdefault("namespace", environment("NAMESPACE") or "")
    default._configure(url or environment("URL") or "memory://", dict(options))
    return default


__all__ = [
    "AsyncCachedFunction",
    "Cache",
    "CachedFunction",
    "cached",
    "configure",
    "invalidates",
    "updates",
    "write_behind",
]
