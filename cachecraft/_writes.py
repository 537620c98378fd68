"""What ``invalidates`` and ``updates`` make of a function that writes: one that tells the cache when it has ended.

They know handles and templates; what an invalidation does is the keeper's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn

import wrapt

from cachecraft._cache import BareCache
from cachecraft._callables import check_callable, is_async, label_of, signature_of
from cachecraft._core.calls import prefix_of, rendered_tag
from cachecraft._core.effects import Flow
from cachecraft._core.errors import BackendError, OptionTypeError, TemplateError, told
from cachecraft._core.keys import qualified_name
from cachecraft._core.sites import Cause, called_from, writing
from cachecraft._core.templates import Template, check_pattern
from cachecraft._decorators import Handle, handle_of
from cachecraft._drivers import through

log: Final = logging.getLogger("cachecraft")


def _drop(handle: Handle, arguments: Mapping[str, Any]) -> Flow[Any]:
    flow: Flow[Any] = handle.function().drop(handle.shared(arguments))
    return flow


def _delete(cache: BareCache, prefix: str, key: Template, known: Mapping[str, Any]) -> Flow[Any]:
    flow: Flow[Any] = cache.keeper.delete(prefix + key.render(known))
    return flow


def _sweep(cache: BareCache, prefix: str, pattern: Template, known: Mapping[str, Any]) -> Flow[Any]:
    flow: Flow[Any] = cache.keeper.sweep(prefix, pattern.render(known))
    return flow


class Write:
    """What ``invalidates`` has to drop once a write has ended."""

    def __init__(
        self,
        cache: BareCache,
        functions: Sequence[Any],
        fn: Callable[..., Any],
        options: Mapping[str, Any],
        *,
        decorator: str = "invalidates",
    ) -> None:
        self.cache = cache
        self.decorator = decorator
        self.label = qualified_name(fn) or label_of(fn)
        self.signature = signature_of(fn)
        self.when = options["when"]
        self.on_success_only = options["on_success_only"]
        if not isinstance(self.on_success_only, bool):
            raise OptionTypeError(f"on_success_only={self.on_success_only!r} must be True or False")
        if self.when is not None and not callable(self.when):
            raise OptionTypeError(f"when={self.when!r} must be a function of the result")
        self.handles = [handle_of(function, "invalidates") for function in functions]
        for handle in self.handles:
            self._check_shares(handle)
        self.keys = self._templates("key", options["key"])
        self.patterns = self._templates("pattern", options["pattern"])
        self.tags = self._templates("tags", options["tags"])
        if not (self.handles or self.keys or self.patterns or self.tags):
            raise OptionTypeError(
                "invalidates was told nothing to drop; name functions, or give key=, pattern= or tags="
            )

    def _check_shares(self, handle: Handle) -> None:
        for name, parameter in handle.signature.parameters.items():
            optional = parameter.default is not parameter.empty or parameter.kind in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
            if name not in self.signature.parameters and not optional:
                remedy = (
                    "pattern= or tags=, or call invalidate() yourself" if self.decorator == "invalidates" else "it one"
                )
                raise TemplateError(
                    f"{self.decorator}({handle.subject.label}): {self.label} has no parameter {name!r} to share with"
                    f" it; give {remedy}"
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
        return [
            Template.parse(text, tuple(self.signature.parameters), option=option, extra=("result",)) for text in texts
        ]

    def arguments(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = self.signature.bind(*(args if instance is None else (instance, *args)), **kwargs)
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
            (each.cache, _later_flow(partial(_drop, each, arguments))) for each in self.handles if each.cache.enabled
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

    def report(self, errors: list[tuple[BareCache, Exception]], outcome: tuple[Any] | None) -> None:
        """Invalidations failed. The caller hears of a mistake in them, unless it has an error to hear of already.

        That the backend fails is no business of the caller's, whose write is done, unless the cache was told otherwise.
        """
        heard = []
        for cache, error in errors:
            log.warning("an invalidation after %s failed: %s", self.label, told(error))
            if not isinstance(error, BackendError) or cache.settings.on_unreachable == "raise":
                heard.append(error)
        if heard and outcome is not None:
            raise heard[0]


def _later_flow(make: Callable[[], Flow[Any]]) -> Flow[Any]:
    return (yield from make())


def _throw(error: Exception) -> NoReturn:
    raise error


class Writer(wrapt.FunctionWrapper):  # type: ignore[type-arg]  # wrapt's own types say nothing here
    """A function that writes, decorated. As any function, it is copied and pickled by reference."""

    def __reduce__(self) -> str:
        return str(self.__wrapped__.__qualname__)

    def __reduce_ex__(self, protocol: object) -> str:
        return self.__reduce__()

    def __copy__(self) -> Writer:
        return self

    def __deepcopy__(self, memo: object) -> Writer:
        return self


def invalidating(cache: BareCache, functions: Sequence[Any], options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Make the decorator of a function that writes."""
    for function in functions:
        handle_of(function, "invalidates")

    def decorator(fn: Any) -> Any:
        target = getattr(fn, "__func__", fn)
        check_callable(target, "invalidates")
        write = Write(cache, functions, target, options)
        return Writer(fn, telling(write, target))

    return decorator


def telling(write: Write, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper of ``fn`` that tells once it has ended."""
    return _awrite(write) if is_async(fn) else _write(write)


def _settle(write: Write, arguments: dict[str, Any], outcome: tuple[Any] | None, by: Cause) -> None:
    errors = []
    before = writing.set(by)
    try:
        for cache, flow in write.flows(arguments, outcome):
            try:
                cache.driver.run(flow)
            except Exception as error:
                errors.append((cache, error))
    finally:
        writing.reset(before)
    write.report(errors, outcome)


def _write(write: Write) -> Callable[..., Any]:
    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        arguments = write.arguments(instance, args, kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException:
            _settle(write, arguments, None, called_from(write.label))
            raise
        _settle(write, arguments, (result,), called_from(write.label))
        return result

    return call


def _awrite(write: Write) -> Callable[..., Any]:
    async def settle(arguments: dict[str, Any], outcome: tuple[Any] | None, by: Cause) -> None:
        writing.set(by)  # in a task of its own, so in a context that ends with it
        errors = []
        for cache, flow in write.flows(arguments, outcome):
            try:
                await cache.driver.arun(flow)
            except Exception as error:
                errors.append((cache, error))
        write.report(errors, outcome)

    async def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        arguments = write.arguments(instance, args, kwargs)
        try:
            result = await wrapped(*args, **kwargs)
        except GeneratorExit:
            # Its loop was closed, and nothing can be awaited any more; but the commit may have happened.
            _settle(write, arguments, None, called_from(write.label))
            raise
        except BaseException:
            # Cancelled, perhaps: the commit may have happened all the same.
            await through(settle(arguments, None, called_from(write.label)))
            raise
        await through(settle(arguments, (result,), called_from(write.label)))
        return result

    call.__qualname__ = write.label  # what Python calls it when nobody awaits it
    return call


def updating(cache: BareCache, function: Any, value: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Make the decorator of a function whose result is what a cached function would now return."""
    handle = handle_of(function, "updates")
    if value is not None and not callable(value):
        raise OptionTypeError(f"value={value!r} must be a function from the result of the write to the value to keep")
    made = value or (lambda result: result)

    def decorator(fn: Any) -> Any:
        target = getattr(fn, "__func__", fn)
        check_callable(target, "updates")
        if is_async(target) is not handle.is_async:
            raise OptionTypeError(
                f"updates({handle.subject.label}): one of the two functions is async, the other is not"
            )
        write = Write(
            cache,
            [function],
            target,
            {"key": None, "pattern": None, "tags": None, "when": None, "on_success_only": False},
            decorator="updates",
        )

        def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            if not handle.cache.enabled:
                return wrapped(*args, **kwargs)
            values = handle.shared(write.arguments(instance, args, kwargs))
            answer = handle._answer("set", handle.function().write(values, partial(wrapped, *args, **kwargs), made))
            if handle.is_async:
                answer.__qualname__ = write.label
            return answer

        return Writer(fn, call)

    return decorator
