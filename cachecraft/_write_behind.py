"""What ``write_behind`` makes of a function that writes: one whose calls wait in Redis until a worker delivers them.

Where a call cannot wait it is made at once, as ``invalidates`` would have it. What a queue is, ``_behind`` knows; who
delivers, ``worker``.
"""

from __future__ import annotations

import asyncio
import logging
import typing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from cachecraft._behind import Behind
from cachecraft._cache import BareCache
from cachecraft._callables import check_callable, is_async, label_of, signature_of
from cachecraft._core.behind import Enqueue, Fate, Pending, waits
from cachecraft._core.effects import Flow
from cachecraft._core.errors import BackendError, OptionError, OptionTypeError, UnserializableError, told
from cachecraft._core.events import WriteQueued, tell
from cachecraft._core.keys import qualified_name
from cachecraft._core.policy import seconds
from cachecraft._core.sites import called_from, writing
from cachecraft._decorators import handle_of
from cachecraft._drivers import through
from cachecraft._writes import Write, Writer, telling
from cachecraft.backends.remote import Remote

log: Final = logging.getLogger("cachecraft")

ROOM: Final = 100_000
"""Writes that may wait behind one cached function, unless it is told otherwise."""
_NOTHING: Final = {"key": None, "pattern": None, "tags": None, "when": None, "on_success_only": False}


class WriteBehind:
    """One function whose calls wait behind a cached function."""

    def __init__(self, behind: Behind, fn: Callable[..., Any], options: Mapping[str, Any]) -> None:
        label = qualified_name(fn)
        if label is None:
            raise OptionError(
                f"write_behind got {label_of(fn)}, which has no name for a worker to find it by; give it one"
            )
        self.behind = behind
        self.fn = fn
        self.label = label
        self.is_async = is_async(fn)
        self.write = Write(behind.cache, [behind.handle.wrapper], fn, _NOTHING, decorator="write_behind")
        if next(iter(self.write.signature.parameters), "") in ("self", "cls"):
            raise OptionTypeError(
                f"write_behind got the method {label}, and its object is not there when the call is delivered; decorate"
                " a function or a static method"
            )
        self.value = self._value_of(options["value"])
        self.coalesce = options["coalesce"]
        if not isinstance(self.coalesce, bool):
            raise OptionTypeError(f"coalesce={self.coalesce!r} must be True or False")
        self.retry_for = seconds(options["retry_for"], "retry_for", zero=True)
        self.room = options["max_pending"]
        if isinstance(self.room, bool) or not isinstance(self.room, int):
            raise OptionTypeError(f"max_pending={self.room!r} must be a whole number")
        if self.room < 1:
            raise OptionError(f"max_pending={self.room!r} must be at least 1")
        self.on_unqueued = options["on_unqueued"]
        if self.on_unqueued not in ("write", "raise"):
            raise OptionError(f"on_unqueued={self.on_unqueued!r} must be 'write' or 'raise'")
        self._direct = telling(self.write, fn)
        self._allowed: object = None
        self._said: set[str] = set()

    def _value_of(self, value: Any) -> Callable[[dict[str, Any]], Any]:
        parameters = self.write.signature.parameters
        if isinstance(value, str):
            if value not in parameters:
                raise OptionError(
                    f"value={value!r} is no parameter of {self.label}, which has {', '.join(parameters)}; name the one"
                    f" that holds what {self.behind.handle.subject.label} is to return, or give a function of them"
                )
            return lambda arguments: arguments[value]
        if not callable(value):
            raise OptionTypeError(f"value={value!r} must be the name of a parameter, or a function of the arguments")
        try:
            signature_of(value).bind(**dict.fromkeys(parameters))
        except TypeError as error:
            raise OptionTypeError(
                f"value={value!r} gets all arguments of {self.label} by name ({', '.join(parameters)}), and cannot take"
                f" them: {error}"
            ) from None
        return lambda arguments: value(**arguments)

    def allow(self, place: Remote) -> None:
        """Have the serializer make what the parameters are annotated with; of its own accord it makes no class."""
        serializer: Any = place.keeper.serializer
        if self._allowed is not serializer and hasattr(serializer, "allow"):
            for annotation in _annotations(self.fn):
                serializer.allow(annotation)
        self._allowed = serializer

    # -- the call that is to wait ----------------------------------------------------------------------------

    def call(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        flow = self._flow(args, kwargs)
        if self.is_async:
            return self._acall(flow, partial(self._direct, wrapped, instance, args, kwargs))
        before = writing.set(called_from(self.label))
        try:
            queued = flow is not None and self.behind.cache.driver.run(flow)
        finally:
            writing.reset(before)
        if not queued:
            self._direct(wrapped, instance, args, kwargs)
        return None

    def _acall(self, flow: Flow[bool] | None, direct: Callable[[], Any]) -> Any:
        by = called_from(self.label)

        async def waits() -> None:
            async def queued() -> bool:
                writing.set(by)  # in a task of its own
                return flow is not None and await self.behind.cache.driver.arun(flow)

            if flow is None or not await through(queued()):
                await direct()

        waits.__qualname__ = self.label  # what Python calls it when nobody awaits it
        return waits()

    def _flow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow[bool] | None:
        """What has the call wait; none where there is nothing to wait in.

        What the arguments come to is worked out now: the caller may change them once it has its answer.
        """
        arguments = self.write.arguments(None, args, kwargs)
        place = self.behind.place()
        if place is None:
            return None
        values = self.behind.handle.shared(arguments)
        key = place.key(values)
        self.allow(place)
        bound = self.write.signature.bind(*args, **kwargs)
        try:
            sealed: Any = self.behind.sealed(
                place, key, self.label, (list(bound.args), bound.kwargs), self.value(arguments)
            )
        except (UnserializableError, OptionError) as error:
            sealed = self._unfit(place, arguments, error)
        return self._queued(place, values, key, sealed)

    def _unfit(self, place: Remote, arguments: Mapping[str, Any], error: Exception) -> Exception:
        """The same error, by the name of the parameter if one is to blame."""
        for name, value in arguments.items():
            try:
                place.keeper.serializer.dumps(value)
            except UnserializableError as refused:
                return UnserializableError(f"{name!r} of {self.label} cannot wait in Redis: {refused}")
        return type(error)(f"a call of {self.label} cannot wait in Redis: {error}")

    def _queued(self, place: Remote, values: Any, key: str, sealed: Any) -> Flow[bool]:
        """Have the call wait. False if it is to be made at once instead."""
        if isinstance(sealed, Exception):
            unfit, overtakes = sealed, (yield from self._waits(place, key))
        else:
            enqueue = Enqueue(self.behind.queue, key, sealed[0], sealed[1], self.room)
            fate = yield from waits(enqueue, place.drop(values))
            if fate is Fate.QUEUED:
                if place.hooks:
                    tell(place.hooks, WriteQueued(place.label, self.label))
                return True
            if isinstance(fate, BackendError):
                place.failed(fate)
            unfit, overtakes = fate if isinstance(fate, BackendError) else self._full(), fate is Fate.OVERTAKES
        # What is made at once must not be undone later by what has waited longer.
        if overtakes or self.on_unqueued == "raise":
            raise unfit
        self._complain(unfit)
        return False

    def _waits(self, place: Remote, key: str) -> Flow[bool]:
        """Whether anything waits under the key, as far as that can be known."""
        try:
            return (yield from Pending(self.behind.queue, key)) is not None
        except BackendError as error:
            place.failed(error)
            return False

    def _full(self) -> BackendError:
        return BackendError(
            f"{self.room} writes wait behind {self.behind.handle.subject.label}, and that is max_pending=; start (more)"
            " workers, see `cachecraft worker --status`"
        )

    def _complain(self, error: Exception) -> None:
        kind = type(error).__qualname__
        if kind not in self._said:
            self._said.add(kind)
            log.warning("calls of %s are made at once, and wait for no worker: %s", self.label, told(error))

    # -- the delivery ----------------------------------------------------------------------------------------

    async def deliver(self, args: Iterable[Any], kwargs: Mapping[str, Any], threads: Executor) -> BaseException | None:
        """Make the call that has waited, in this loop or, if it may block, in a thread.

        Answers what it raised, as a value: a future takes no ``StopIteration``, and a loop ends with a ``SystemExit``.
        """
        if not self.is_async:
            make = partial(copy_context().run, _raised, self.fn, args, kwargs)
            # Nobody can end a thread, and nobody is to go on with this key before it has ended.
            return await through(asyncio.get_running_loop().run_in_executor(threads, make))
        try:
            await self.fn(*args, **kwargs)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, KeyboardInterrupt) or (task is not None and task.cancelling()):
                raise  # that is for the worker
            return error
        return None

    def __repr__(self) -> str:
        return f"<WriteBehind {self.label}>"


def writing_behind(cache: BareCache, function: Any, options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Make the decorator of a function whose calls wait behind ``function``."""
    handle = handle_of(function, "write_behind")
    if handle.cache is not cache:
        raise OptionTypeError(
            f"write_behind({handle.subject.label}): that function belongs to another cache; use the write_behind of"
            " its own"
        )

    def decorator(fn: Any) -> Any:
        target = getattr(fn, "__func__", fn)
        check_callable(target, "write_behind")
        if isinstance(fn, classmethod):
            raise OptionTypeError(f"write_behind got the class method {label_of(target)}; decorate a static method")
        behind = Behind.of(handle)
        writer = WriteBehind(behind, target, options)
        behind.enter(writer)
        return Writer(fn, writer.call)

    return decorator


def _raised(fn: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> BaseException | None:
    try:
        fn(*args, **kwargs)
    except BaseException as error:
        return error
    return None


def _annotations(fn: Callable[..., Any]) -> list[Any]:
    try:
        return list(typing.get_type_hints(fn).values())
    except Exception:  # a name that exists for type checkers only
        return []
