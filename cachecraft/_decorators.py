"""The decorators: ``cached`` makes a function remember, ``invalidates`` and ``updates`` make a write tell.

They check what they are given when they decorate, and bind to their cache when they are first called.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

import wrapt

from cachecraft._cache import BareCache
from cachecraft._core.calls import Key, Subject, prefix_of, rendered_tag
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
            raise OptionTypeError(f"{min(unknown)}= is no option of cached; there are {', '.join(sorted(_OPTIONS))}")
        self.cache = cache
        self.fn = fn
        self.is_async = _is_async(fn)
        self.policy = Policy.of(options)
        self.serializer = options.get("serializer")
        self._namespace = _namespace(options.get("namespace"))
        self._parameters = {name: value for name, value in options.items() if name != "serializer"}
        signature = self.signature = _signature(fn)
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
        self._order, self._call, self._bind = made.values, made.call, made.bind
        self._order.__qualname__ = self.subject.label  # what Python calls it when arguments do not fit
        self.wrapper = functools.update_wrapper(made.wrapper, fn, functools.WRAPPER_ASSIGNMENTS)
        self.stats = Stats(lambda: [(self.tally, self.memory_hits())])
        for method in ("key", "get", "set", "refresh", "invalidate", "invalidate_all"):
            setattr(self.wrapper, method, getattr(self, method))
        for method in ("cache_info", "cache_clear", "cache_parameters", "stats", "cache"):
            setattr(self.wrapper, method, getattr(self, method))
        self.wrapper.__cachecraft__ = self  # type: ignore[attr-defined]  # how invalidates finds its way back
        self.unbind()
        cache.adopt(self, self.tally)

    # -- binding ---------------------------------------------------------------------------------------------

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
            return self._function

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

    # -- what hangs on the wrapper ---------------------------------------------------------------------------

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        values = self._order(*args, **kwargs)
        if self.subject.owned and not _has_method(values[0], self.fn):
            label = self.fn.__qualname__
            raise OptionTypeError(
                f"{self.subject.parameters[0]!r} of the method {label} is {values[0]!r}, whose class has no such method;"
                f" pass the object first, as in {label}.invalidate(obj, ...)"
            )
        return values

    def key(self, *args: Any, **kwargs: Any) -> str:
        """The wire key of a call."""
        values = self._values(args, kwargs)
        key = Key(self.function().key(values))
        key.home, key.values = self, values
        return key

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """The value kept for these arguments, or ``MISSING``; never loads."""
        values = self._values(args, kwargs)
        return self._answer(self.function().peek(values)) if self.cache.enabled else self._plain(MISSING)

    def set(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep ``value`` as the result for these arguments. False if it was declined."""
        values = self._values(args, kwargs)
        return self._answer(self.function().put(values, value)) if self.cache.enabled else self._plain(False)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Load anew, keep the result and return it; a load that began before this call is not joined."""
        values = self._values(args, kwargs)
        if not self.cache.enabled:
            return self._call(values)
        return self._answer(self.function().renew(values, partial(self._call, values)))

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Drop the entry for these arguments; answers how many there were, where known."""
        values = self._values(args, kwargs)
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
        if self.cache.enabled:
            return self._answer(self._cleared(self.function().drop_all()))
        self._forget_counts()
        return self._plain(0)

    def _cleared(self, drop: Flow[int]) -> Flow[int]:
        dropped = yield from drop
        self._forget_counts()
        return dropped

    def _forget_counts(self) -> None:
        table = getattr(self._function, "table", None)
        if table is not None:
            table.forget_hits()
        self.tally.__init__()  # type: ignore[misc]  # the same object, since others hold it

    def cache_parameters(self) -> dict[str, Any]:
        """The options this function was decorated with."""
        return dict(self._parameters)

    def memory_hits(self) -> int:
        table = getattr(self._function, "table", None)
        return table.hits if table is not None else 0

    def shared(self, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of a call with those of ``arguments`` that this function has a parameter for."""
        known = {name: value for name, value in arguments.items() if name in self.subject.parameters}
        call = inspect.BoundArguments(self.signature, OrderedDict(known))
        call.apply_defaults()
        return tuple(call.arguments[name] for name in self.subject.parameters)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<cached {self.subject.label}>"


def _never(*_: Any) -> None:
    return None


async def _later(result: Any) -> Any:
    return result


def _has_method(owner: Any, fn: Any) -> bool:
    """Whether ``owner`` may be the object (or class) that the method ``fn`` is called on, as far as names tell."""
    home, _, name = fn.__qualname__.rpartition(".")
    if not home or home.endswith("<locals>") or name.startswith(("<", "__")):
        return True  # no method of a class, or one that is found under another name
    mro = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
    return any(name in vars(each) or each.__qualname__ == home for each in mro)


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


# -- functions that write ------------------------------------------------------------------------------------


def _delete(cache: BareCache, prefix: str, key: Template, known: Mapping[str, Any]) -> Flow[Any]:
    flow: Flow[Any] = cache.keeper.delete(prefix + key.render(known))
    return flow


def _sweep(cache: BareCache, prefix: str, pattern: Template, known: Mapping[str, Any]) -> Flow[Any]:
    flow: Flow[Any] = cache.keeper.sweep(prefix, pattern.render(known))
    return flow


class Write:
    """What ``invalidates`` has to drop once a write has ended."""

    def __init__(
        self, cache: BareCache, functions: Sequence[Any], fn: Callable[..., Any], options: Mapping[str, Any]
    ) -> None:
        self.cache = cache
        self.label = qualified_name(fn) or _label(fn)
        self.signature = _signature(fn)
        self.builtin = inspect.isbuiltin(fn)
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
        for name, parameter in handle.signature.parameters.items():
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
        # A builtin is "bound" to its module, or to an object that its signature does not mention.
        owned = instance is not None and not self.builtin
        bound = self.signature.bind(*((instance, *args) if owned else args), **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def flows(self, arguments: dict[str, Any], outcome: tuple[Any] | None) -> list[tuple[BareCache, Flow[Any]]]:
        """What to run, given the arguments and, if the write returned, its result.

        Each flow works out by itself what to drop: where one cannot, the others go on.
        """
        if outcome is None and self.on_success_only:
            return []
        jobs: list[tuple[BareCache, Flow[Any]]] = []
        try:
            if outcome is not None and self.when is not None and not self.when(outcome[0]):
                return []
        except Exception as error:  # nobody knows whether to drop: then drop, and tell
            jobs.append((self.cache, _later_flow(partial(_throw, error))))
        jobs += [
            (each.cache, _later_flow(lambda each=each: each.function().drop(each.shared(arguments))))  # type: ignore[misc]  # a default binds the loop's handle
            for each in self.handles
            if each.cache.enabled
        ]
        known = arguments if outcome is None else {"result": outcome[0], **arguments}
        drops = self._drops(known) if self.cache.enabled else ()
        return [*jobs, *((self.cache, _later_flow(drop)) for drop in drops)]

    def _drops(self, known: dict[str, Any]) -> Iterator[Callable[[], Flow[Any]]]:
        """What the templates say to drop; without a result, those that need none."""
        cache, prefix = self.cache, prefix_of(self.cache.namespace)

        def usable(templates: list[Template]) -> list[Template]:
            return [each for each in templates if "result" in known or "result" not in each.names]

        for key in usable(self.keys):
            yield partial(_delete, cache, prefix, key, known)
        for pattern in usable(self.patterns):
            yield partial(_sweep, cache, prefix, pattern, known)
        tags = usable(self.tags)
        if tags:
            yield lambda: cache.keeper.untag(prefix, [rendered_tag(tag, known) for tag in tags])

    def report(self, errors: list[Exception], outcome: tuple[Any] | None) -> None:
        """Invalidations failed. The caller hears of it, unless there is an error already that it must hear of."""
        for error in errors:
            log.warning("an invalidation after %s failed: %r", self.label, error)
        if errors and outcome is not None:
            raise errors[0]


def _later_flow(make: Callable[[], Flow[Any]]) -> Flow[Any]:
    return (yield from make())


def _throw(error: Exception) -> NoReturn:
    raise error


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
    def settle(arguments: dict[str, Any], outcome: tuple[Any] | None) -> None:
        errors = []
        for cache, flow in write.flows(arguments, outcome):
            try:
                cache.driver.run(flow)
            except Exception as error:
                errors.append(error)
        write.report(errors, outcome)

    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        arguments = write.arguments(instance, args, kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException:
            settle(arguments, None)
            raise
        settle(arguments, (result,))
        return result

    return call


def _awrite(write: Write) -> Callable[..., Any]:
    async def settle(arguments: dict[str, Any], outcome: tuple[Any] | None) -> None:
        errors = []
        for cache, flow in write.flows(arguments, outcome):
            try:
                await cache.driver.arun(flow)
            except Exception as error:
                errors.append(error)
        write.report(errors, outcome)

    async def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        arguments = write.arguments(instance, args, kwargs)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException:
            # Cancelled, perhaps: the commit may have happened all the same.
            await through(settle(arguments, None))
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


