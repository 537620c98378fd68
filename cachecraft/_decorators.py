"""What ``cached`` makes of a function: a wrapper, and a handle with all that hangs on it.

What it is given is checked when it decorates; it binds to its cache when it is first called.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple

from cachecraft._cache import BareCache
from cachecraft._callables import check_callable, has_method, is_async, label_of, lambda_name, signature_of
from cachecraft._core.calls import Key, Subject, prefix_of
from cachecraft._core.effects import Flow
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import ClosedError, OptionError, OptionTypeError
from cachecraft._core.explanation import Explanation
from cachecraft._core.keys import qualified_name
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Function
from cachecraft._settings import check_serializer
from cachecraft._wrappers import generate
from cachecraft.stats import Stats

log: Final = logging.getLogger("cachecraft")


class CacheInfo(NamedTuple):
    """As ``functools.lru_cache`` reports it; whoever joined a load counts as a miss."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


_OPTIONS: Final = frozenset(Policy.__dataclass_fields__) | {"key", "tags", "namespace", "vary", "serializer"}


class Handle:
    """One decorated function: what hangs on the wrapper as ``f.key``, ``f.get``, ``f.invalidate`` and so on."""

    def __init__(self, cache: BareCache, fn: Callable[..., Any], options: dict[str, Any]) -> None:
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise OptionTypeError(f"{min(unknown)}= is no option of cached; there are {', '.join(sorted(_OPTIONS))}")
        self.cache = cache
        self.fn = fn
        self.is_async = is_async(fn)
        self.policy = Policy.of(options)
        self.serializer = options.get("serializer")
        check_serializer(self.serializer)
        self._namespace = _namespace(options.get("namespace"))
        self._parameters = {name: value for name, value in options.items() if name != "serializer"}
        signature = self.signature = signature_of(fn)
        key, vary = options.get("key"), options.get("vary")
        if vary is not None and not callable(vary):
            raise OptionTypeError(f"vary={vary!r} must be a function without arguments, such as a ContextVar's get")
        name = qualified_name(fn) or lambda_name(fn)
        if name is None and key is None and self._namespace is None:
            raise OptionError(
                f"{label_of(fn)} has no name that lasts, so its entries could be taken for another's; give key="
                " or namespace="
            )
        self.subject = Subject(
            signature,
            name=name or "",
            label=name or label_of(fn),
            key=key,
            tags=options.get("tags") or (),
            vary=vary,
            version=self.policy.version,
        )
        self.record = cache.books.enter(self, self.subject.label)
        self.tally = self.record.tally
        # Re-entrant, because the garbage collector may run anybody's destructor, and that may call the function.
        self._lock = threading.RLock()
        self._function: Function | None = None
        self.behind: Any = None
        """What is written behind it, if anything: whoever loads asks that first, and who does not know of it, does not
        load for us."""
        made = generate(
            fn,
            signature,
            self.subject.keyed,
            owned=self.subject.owned,
            is_async=self.is_async,
            label=self.subject.label,
        )
        self._order, self._call, self._bind = made.values, made.call, made.bind
        self._order.__qualname__ = self.subject.label  # what Python calls it when arguments do not fit
        self.wrapper = functools.update_wrapper(made.wrapper, fn, functools.WRAPPER_ASSIGNMENTS)
        self.stats = Stats(lambda: [self.record.sum()], self._held)
        for method in ("key", "get", "set", "refresh", "explain", "invalidate", "invalidate_all"):
            setattr(self.wrapper, method, getattr(self, method))
        for method in ("cache_info", "cache_clear", "cache_parameters", "stats", "cache"):
            setattr(self.wrapper, method, getattr(self, method))
        self.wrapper.__cachecraft__ = self  # type: ignore[attr-defined]  # how invalidates finds its way back
        self.unbind()
        cache.adopt(self)

    # -- binding ---------------------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        return prefix_of(self._namespace if self._namespace is not None else self.cache.namespace)

    def unbind(self) -> None:
        """Forget the cache's insides; the next call looks at them anew."""
        with self._lock:
            function, self._function = self._function, None
            if function is not None:
                function.disconnect()
                self.record.leave()
            self._bind(table={}, owners={}, now=_late, fence=None, steps=_NEVER, slow=self._slow_unbound)

    def function(self) -> Function:
        """The function where its results are kept, bound on first use."""
        function = self._function
        if function is not None:
            return function
        with self._lock:
            if self._function is None:
                policy = self.policy.under(self.cache.settings.ttl, self.cache.settings.jitter)
                function = self.cache.keeper.function(
                    self.subject, policy, self.tally, self.prefix, fn=self.fn, serializer=self.serializer
                )
                if self.behind is not None:
                    function = self.behind.apart(function)
                near = self.cache.driver.backend is not None
                if self._function is None:  # else a destructor was here first
                    function.connect(partial(self._bind, slow=self._slow_of(function)))
                    self._function = function
                    self.record.settle(getattr(function, "table", None), near=near)
            return self._function

    def _slow_unbound(self, values: tuple[Any, ...]) -> Any:
        if not self.cache.enabled:
            return self._call(values)
        try:
            function, driver = self.function(), self.cache.driver
        except ClosedError:  # a moment ago: then this is a plain call, as those that follow
            return self._call(values)
        flow: Flow[Any] = function.recall(values, self._loader(values))
        return driver.arun(flow) if self.is_async else driver.run(flow)

    def _slow_of(self, function: Function) -> Callable[[tuple[Any, ...]], Any]:
        driver, recall, call = self.cache.driver, function.recall, self._call
        run: Callable[[Flow[Any]], Any] = driver.arun if self.is_async else driver.run
        if self.behind is not None:
            return lambda values: run(recall(values, self._loader(values)))
        return lambda values: run(recall(values, partial(call, values)))

    def _loader(self, values: tuple[Any, ...]) -> Callable[[], Any]:
        call = partial(self._call, values)
        return call if self.behind is None else partial(self.behind.load, values, call)

    def _answer(self, method: str, flow: Flow[Any]) -> Any:
        driver = self.cache.driver
        if not self.is_async:
            return driver.run(flow)
        coroutine: Any = driver.arun(flow)
        coroutine.__qualname__ = f"{self.subject.label}.{method}"  # what Python calls it when nobody awaits it
        return coroutine

    def _plain(self, result: Any) -> Any:
        return _later(result) if self.is_async else result

    # -- what hangs on the wrapper ---------------------------------------------------------------------------

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        values = self._order(*args, **kwargs)
        if self.subject.owned and not has_method(values[0], self.fn):
            label = self.fn.__qualname__
            raise OptionTypeError(
                f"{self.subject.parameters[0]!r} of the method {label} is a {type(values[0]).__qualname__}, which has"
                f" no such method; pass the object first, as in {label}.invalidate(obj, ...)"
            )
        return values

    def key(self, /, *args: Any, **kwargs: Any) -> str:
        """The wire key of a call."""
        values = self._values(args, kwargs)
        key = Key(self.function().key(values))
        key.home, key.values = self, values
        return key

    def get(self, /, *args: Any, **kwargs: Any) -> Any:
        """The value kept for these arguments, or ``MISSING``; never loads."""
        values = self._values(args, kwargs)
        return self._answer("get", self.function().peek(values)) if self.cache.enabled else self._plain(MISSING)

    def set(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep ``value`` as the result for these arguments. False if it was declined."""
        values = self._values(args, kwargs)
        return self._answer("set", self.function().put(values, value)) if self.cache.enabled else self._plain(False)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Load anew, keep the result and return it; a load that began before this call is not joined."""
        values = self._values(args, kwargs)
        if not self.cache.enabled:
            return self._call(values)
        return self._answer("refresh", self.function().renew(values, self._loader(values)))

    def explain(self, /, *args: Any, **kwargs: Any) -> Any:
        """What the next call would find, and if nothing, why; it loads nothing and counts nothing."""
        values = self._values(args, kwargs)
        if self.cache.enabled:
            return self._answer("explain", self.function().explain(values))
        return self._plain(Explanation(function=self.subject.label, key="", verdict="miss", reason="off"))

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        """Drop the entry for these arguments; answers how many there were, where known."""
        values = self._values(args, kwargs)
        return self._answer("invalidate", self.function().drop(values)) if self.cache.enabled else self._plain(0)

    def invalidate_all(self) -> Any:
        """Drop all entries of this function; answers how many, where known (of very many objects', only at least)."""
        return self._answer("invalidate_all", self.function().drop_all()) if self.cache.enabled else self._plain(0)

    def cache_info(self) -> CacheInfo:
        """Hits, misses, bound and size in memory, as ``functools.lru_cache`` tells them."""
        function = self._function
        table = getattr(function, "table", None)
        settings = self.cache.settings
        return CacheInfo(
            int(self.stats.hits),
            self.tally.misses,
            settings.max_entries if settings.url.startswith("memory://") else None,
            table.count if table is not None else 0,
        )

    def cache_clear(self) -> Any:
        """Drop all entries of this function and begin its counters anew."""
        if self.cache.enabled:
            return self._answer("cache_clear", self._cleared(self.function().drop_all()))
        self._forget_counts()
        return self._plain(0)

    def _cleared(self, drop: Flow[int]) -> Flow[int]:
        dropped = yield from drop
        self._forget_counts()
        return dropped

    def _forget_counts(self) -> None:
        self.cache.books.begin_anew(self.record)

    def cache_parameters(self) -> dict[str, Any]:
        """The options this function was decorated with."""
        return dict(self._parameters)

    def _held(self) -> dict[str, float]:
        place = self.record.place
        return {
            "memory_entries": place.count if place is not None else 0,
            "memory_bytes": place.bytes if place is not None else 0,
        }

    def shared(self, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of a call with those of ``arguments`` that this function has a parameter for."""
        known = {name: value for name, value in arguments.items() if name in self.subject.parameters}
        call = inspect.BoundArguments(self.signature, OrderedDict(known))
        call.apply_defaults()
        return tuple(call.arguments[name] for name in self.subject.parameters)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<cached {self.subject.label}>"


def _never(*_: Any) -> None:
    return None


_NEVER: Final = (_never, _never, _never)


def _late() -> float:
    return inf


async def _later(result: Any) -> Any:
    return result


def decorate(cache: BareCache, fn: Any, options: dict[str, Any]) -> Any:
    """Decorate a function, or what wraps one in a class body."""
    if isinstance(fn, (staticmethod, classmethod)):
        return type(fn)(decorate(cache, fn.__func__, options))
    if isinstance(fn, property):
        return property(decorate(cache, fn.fget, options), fn.fset, fn.fdel, fn.__doc__)
    check_callable(fn, "cached")
    return Handle(cache, fn, options).wrapper


def _namespace(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise OptionTypeError(f"namespace={value!r} must be text")


def handle_of(function: Any, decorator: str) -> Handle:
    inner = getattr(function, "__func__", function)
    inner = getattr(inner, "fget", inner)
    handle = getattr(inner, "__cachecraft__", None)
    if not isinstance(handle, Handle):
        raise OptionTypeError(
            f"{decorator} got {function!r}, which is not a cached function; name the one under @cached that reads what"
            f" this one writes, as in @{decorator}(f)"
        )
    return handle
