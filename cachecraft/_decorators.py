"""The decorators: ``cached`` makes a function remember, ``invalidates`` and ``updates`` make a write tell.

They check what they are given when they decorate, and bind to their cache when they are first called.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import wrapt

from cachecraft._cache import BareCache
from cachecraft._core.calls import Subject, check_tag, prefix_of
from cachecraft._core.effects import Flow
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import OptionError, OptionTypeError, TemplateError
from cachecraft._core.keys import qualified_name
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Function
from cachecraft._core.tally import Tally
from cachecraft._core.templates import Template, check_pattern
from cachecraft._drivers import through
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
            raise OptionTypeError(f"{sorted(unknown)[0]}= is no option of cached; there are {', '.join(sorted(_OPTIONS))}")
        self.cache = cache
        self.fn = fn
        self.is_async = _is_async(fn)
        self.policy = Policy.of(options)
        self.serializer = options.get("serializer")
        self._namespace = _namespace(options.get("namespace"))
        self._parameters = {name: value for name, value in options.items() if name != "serializer"}
        signature = _signature(fn)
        key, vary = options.get("key"), options.get("vary")
        if vary is not None and not callable(vary):
            raise OptionTypeError(f"vary={vary!r} must be a function without arguments, such as a ContextVar's get")
        name = qualified_name(fn) or _lambda_name(fn)
        if name is None and key is None and self._namespace is None:
            raise OptionError(
                f"{_label(fn)} has no name that lasts, so its entries could be taken for another's; give key= or namespace="
            )
        self.subject = Subject(
            signature,
            name=name or "",
            label=name or _label(fn),
            key=key,
            tags=options.get("tags") or (),
            vary=vary,
            version=self.policy.version,
        )
        self.tally = Tally()
        self._lock = threading.Lock()
        self._function: Function | None = None
        made = generate(
            fn, signature, self.subject.keyed, owned=self.subject.owned, is_async=self.is_async, label=self.subject.label
        )
        self._values, self._call, self._bind = made.values, made.call, made.bind
        self.wrapper = functools.update_wrapper(made.wrapper, fn, functools.WRAPPER_ASSIGNMENTS)
        self.stats = Stats(lambda: [(self.tally, self.memory_hits())])
        for method in ("key", "get", "set", "refresh", "invalidate", "invalidate_all"):
            setattr(self.wrapper, method, getattr(self, method))
        for method in ("cache_info", "cache_clear", "cache_parameters", "stats", "cache"):
            setattr(self.wrapper, method, getattr(self, method))
        self.wrapper.__cachecraft__ = self  # type: ignore[attr-defined]  # how invalidates finds its way back
        self.unbind()
        cache.adopt(self, self.tally)

    # -- binding -----------------------------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        return prefix_of(self._namespace if self._namespace is not None else self.cache.namespace)

    def unbind(self) -> None:
        """Forget the cache's insides; the next call looks at them anew."""
        self._function = None
        self._bind(table={}, owners={}, now=None, lead=_never, land=None, fail=None, slow=self._slow_unbound)

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
                self._connect(function)
                self._function = function
            return self._function  # type: ignore[return-value]  # set just above

    def _connect(self, function: Any) -> None:
        self._bind(slow=self._slow, **function.wrapper_calls())

    def _slow_unbound(self, values: tuple[Any, ...]) -> Any:
        if not self.cache.enabled:
            return self._call(values)
        self.function()
        return self._slow(values)

    def _slow(self, values: tuple[Any, ...]) -> Any:
        return self._answer(self.function().recall(values, partial(self._call, values)))

    def _answer(self, flow: Flow[Any]) -> Any:
        driver = self.cache.driver
        return driver.arun(flow) if self.is_async else driver.run(flow)

    def _plain(self, result: Any) -> Any:
        return _later(result) if self.is_async else result

    # -- what hangs on the wrapper -----------------------------------------------------------------------------------

    def key(self, *args: Any, **kwargs: Any) -> str:
        """The wire key of a call."""
        values = self._values(*args, **kwargs)
        return self.function().key(values)  # type: ignore[attr-defined,no-any-return]  # every function has it

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """The value kept for these arguments, or ``MISSING``; never loads."""
        values = self._values(*args, **kwargs)
        return self._answer(self.function().peek(values)) if self.cache.enabled else self._plain(MISSING)

    def set(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep ``value`` as the result for these arguments. False if it was declined."""
        values = self._values(*args, **kwargs)
        return self._answer(self.function().put(values, value)) if self.cache.enabled else self._plain(False)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Load anew, keep the result and return it; a load that began before this call is not joined."""
        values = self._values(*args, **kwargs)
        if not self.cache.enabled:
            return self._call(values)
        return self._answer(self.function().renew(values, partial(self._call, values)))

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Drop the entry for these arguments; answers how many there were, where known."""
        values = self._values(*args, **kwargs)
        return self._answer(self.function().drop(values)) if self.cache.enabled else self._plain(0)

    def invalidate_all(self) -> Any:
        """Drop all entries of this function; answers how many, where known."""
        return self._answer(self.function().drop_all()) if self.cache.enabled else self._plain(0)

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
        dropped = self.invalidate_all()
        if self._function is not None and getattr(self._function, "table", None) is not None:
            self._function.table.forget_hits()  # type: ignore[attr-defined]  # as just tested
        self.tally.__init__()  # type: ignore[misc]  # the same object, since others hold it
        return dropped

    def cache_parameters(self) -> dict[str, Any]:
        """The options this function was decorated with."""
        return dict(self._parameters)

    def memory_hits(self) -> int:
        table = getattr(self._function, "table", None)
        return table.hits if table is not None else 0

    def shared(self, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of a call with those of ``arguments`` that this function has a parameter for."""
        return self._values(**{name: value for name, value in arguments.items() if name in self.subject.parameters})

    def __repr__(self) -> str:
        return f"<cached {self.subject.label}>"


def _never(*_: Any) -> None:
    return None


async def _later(result: Any) -> Any:
    return result


def decorate(cache: BareCache, fn: Any, options: dict[str, Any]) -> Any:
    """Decorate a function, or what wraps one in a class body."""
    if isinstance(fn, (staticmethod, classmethod)):
        return type(fn)(decorate(cache, fn.__func__, options))
    if isinstance(fn, property):
        return property(decorate(cache, fn.fget, options), fn.fset, fn.fdel, fn.__doc__)
    _check_callable(fn, "cached")
    return Handle(cache, fn, options).wrapper


def _check_callable(fn: Any, decorator: str) -> None:
    if isinstance(fn, type):
        raise OptionTypeError(f"{decorator} got the class {fn.__qualname__}; decorate its methods, or a function that makes it")
    if not callable(fn):
        raise OptionTypeError(f"{decorator} got {fn!r}, which is not callable; decorate a function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise OptionTypeError(
            f"{decorator} got the generator {_label(fn)}, whose items come only once; decorate a function that returns a"
            " list of them"
        )


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - asked what it is, not whether


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError):  # some builtins tell nobody what they take
        return inspect.signature(lambda *args, **kwargs: None)


def _label(fn: Any) -> str:
    inner = getattr(fn, "func", fn)
    return getattr(fn, "__qualname__", None) or f"{type(fn).__name__}({getattr(inner, '__qualname__', inner)!s})"


def _lambda_name(fn: Any) -> str | None:
    """A lambda has a name of a sort: enough in memory, where each function has a table of its own."""
    return f"{fn.__module__}.{fn.__qualname__}" if getattr(fn, "__name__", None) == "<lambda>" else None


def _namespace(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise OptionTypeError(f"namespace={value!r} must be text")


# -- functions that write ------------------------------------------------------------------------------------------------


class Write:
    """What ``invalidates`` has to drop once a write has ended."""

    def __init__(
        self, cache: BareCache, functions: Sequence[Any], fn: Callable[..., Any], options: Mapping[str, Any]
    ) -> None:
        self.cache = cache
        self.label = qualified_name(fn) or _label(fn)
        self.signature = _signature(fn)
        self.when = options["when"]
        self.on_success_only = options["on_success_only"]
        if self.when is not None and not callable(self.when):
            raise OptionTypeError(f"when={self.when!r} must be a function of the result")
        self.handles = [_handle(function, "invalidates") for function in functions]
        for handle in self.handles:
            self._check_shares(handle)
        self.keys = self._templates("key", options["key"])
        self.patterns = self._templates("pattern", options["pattern"])
        self.tags = self._templates("tags", options["tags"])
        if not (self.handles or self.keys or self.patterns or self.tags):
            raise OptionTypeError("invalidates was told nothing to drop; name functions, or give key=, pattern= or tags=")

    def _check_shares(self, handle: Handle) -> None:
        for name in handle.subject.parameters:
            parameter = _signature(handle.fn).parameters[name]
            optional = parameter.default is not parameter.empty or parameter.kind in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
            if name not in self.signature.parameters and not optional:
                raise TemplateError(
                    f"invalidates({handle.subject.label}): {self.label} has no parameter {name!r} to share with it; give"
                    " pattern= or tags=, or call invalidate() yourself"
                )

    def _templates(self, option: str, given: object) -> list[Template]:
        if given is None:
            return []
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise OptionTypeError(f"{option}={given!r} must be a template, or a list of them")
        if option == "pattern":
            for text in texts:
                check_pattern(text)
        return [Template.parse(text, tuple(self.signature.parameters), option=option, extra=("result",)) for text in texts]

    def arguments(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        first = next(iter(self.signature.parameters), None)
        bound = self.signature.bind(*((instance, *args) if instance is not None and first in ("self", "cls") else args), **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def flows(self, arguments: dict[str, Any], outcome: tuple[Any] | None) -> list[tuple[BareCache, Flow[Any]]]:
        """What to run, given the arguments and, if the write returned, its result."""
        if outcome is None and self.on_success_only:
            return []
        if outcome is not None and self.when is not None and not self.when(outcome[0]):
            return []
        known = arguments if outcome is None else {"result": outcome[0], **arguments}

        def rendered(templates: list[Template]) -> list[str]:
            return [each.render(known) for each in templates if outcome is not None or "result" not in each.names]

        cache, jobs = self.cache, list[tuple[BareCache, Flow[Any]]]()
        jobs += [(each.cache, each.function().drop(each.shared(known))) for each in self.handles if each.cache.enabled]
        if not cache.enabled:
            return jobs
        prefix = prefix_of(cache.namespace)
        jobs += [(cache, cache.keeper.delete(prefix + key)) for key in rendered(self.keys)]
        jobs += [(cache, cache.keeper.sweep(prefix, pattern)) for pattern in rendered(self.patterns)]
        tags = [check_tag(tag) for tag in rendered(self.tags)]
        return [*jobs, (cache, cache.keeper.untag(prefix, tags))] if tags else jobs

    def spare(self, error: BaseException) -> None:
        log.warning("an invalidation after %s failed: %r", self.label, error)


def _handle(function: Any, decorator: str) -> Handle:
    inner = getattr(function, "__func__", function)
    inner = getattr(inner, "fget", inner)
    handle = getattr(inner, "__cachecraft__", None)
    if not isinstance(handle, Handle):
        raise OptionTypeError(f"{decorator} got {function!r}, which is not a cached function; decorate it with @cached first")
    return handle


def invalidating(cache: BareCache, functions: Sequence[Any], options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Make the decorator of a function that writes."""

    def decorator(fn: Any) -> Any:
        target = getattr(fn, "__func__", fn)
        _check_callable(target, "invalidates")
        write = Write(cache, functions, target, options)
        return wrapt.FunctionWrapper(fn, _awrite(write) if _is_async(target) else _write(write))

    return decorator


def _write(write: Write) -> Callable[..., Any]:
    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        arguments = write.arguments(instance, args, kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException:
            try:
                for cache, flow in write.flows(arguments, None):
                    cache.driver.run(flow)
            except Exception as error:
                write.spare(error)
            raise
        for cache, flow in write.flows(arguments, (result,)):
            cache.driver.run(flow)
        return result

    return call


def _awrite(write: Write) -> Callable[..., Any]:
    async def settle(arguments: dict[str, Any], outcome: tuple[Any] | None) -> None:
        for cache, flow in write.flows(arguments, outcome):
            await cache.driver.arun(flow)

    async def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        arguments = write.arguments(instance, args, kwargs)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException:
            # Cancelled, perhaps: the commit may have happened all the same.
            try:
                await through(settle(arguments, None))
            except Exception as error:
                write.spare(error)
            raise
        await through(settle(arguments, (result,)))
        return result

    return call


def updating(cache: BareCache, function: Any, value: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Make the decorator of a function whose result is what a cached function would now return."""
    handle = _handle(function, "updates")
    if value is not None and not callable(value):
        raise OptionTypeError(f"value={value!r} must be a function from the result of the write to the value to keep")
    made = value or (lambda result: result)

    def decorator(fn: Any) -> Any:
        target = getattr(fn, "__func__", fn)
        _check_callable(target, "updates")
        if _is_async(target) is not handle.is_async:
            raise OptionTypeError(f"updates({handle.subject.label}): one of the two functions is async, the other is not")
        write = Write(cache, [function], target, {"key": None, "pattern": None, "tags": None, "when": None, "on_success_only": False})

        def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            if not handle.cache.enabled:
                return wrapped(*args, **kwargs)
            values = handle.shared(write.arguments(instance, args, kwargs))
            return handle._answer(handle.function().write(values, partial(wrapped, *args, **kwargs), made))

        return wrapt.FunctionWrapper(fn, call)

    return decorator


