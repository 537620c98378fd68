"""What ``write_behind`` makes of a function that writes: one whose calls wait in Redis until a worker delivers them.

*The write waits first, then the entry falls.* From there on a load finds the value that waits, whatever the database
still holds. Where a call cannot wait it runs at once, as ``invalidates`` would have it. Who delivers is ``worker``'s
business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from cachecraft._cache import BareCache
from cachecraft._callables import check_callable, is_async, label_of
from cachecraft._core.behind import Enqueue, Fate, Item, Pending, Queue, loaded, waits
from cachecraft._core.effects import Flow
from cachecraft._core.entry import TOKEN, unpack
from cachecraft._core.errors import (
    BackendError,
    CorruptError,
    OptionError,
    OptionTypeError,
    UnserializableError,
    told,
)
from cachecraft._core.events import WriteQueued, tell
from cachecraft._core.keys import qualified_name
from cachecraft._core.policy import seconds
from cachecraft._core.sites import called_from, writing
from cachecraft._decorators import Handle, handle_of
from cachecraft._drivers import through
from cachecraft._writes import Write, Writer, telling
from cachecraft.backends.remote import Remote
from cachecraft.backends.sealing import Sealing

log: Final = logging.getLogger("cachecraft")

ROOM: Final = 100_000
"""Writes that may wait behind one cached function, unless it is told otherwise."""
_CALLS: Final = bytes(8)
"""The schema of what is not a result but a call."""
_NOTHING: Final = {"key": None, "pattern": None, "tags": None, "when": None, "on_success_only": False}


class Unknown(Exception):
    """A write waits for a function that this process does not have."""


class Call(NamedTuple):
    """A write that waits, as it is to be made."""

    writer: WriteBehind
    args: list[Any]
    kwargs: dict[str, Any]


class Behind:
    """What is written behind one cached function: its queue, and the functions whose calls may wait there."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.writers: dict[str, WriteBehind] = {}

    @classmethod
    def of(cls, handle: Handle) -> Behind:
        if handle.behind is None:
            handle.behind = cls(handle)
            handle.unbind()  # from now on, who loads asks first what waits
        return handle.behind  # type: ignore[no-any-return]  # the handle knows of it only that it loads

    @property
    def cache(self) -> BareCache:
        return self.handle.cache

    @property
    def queue(self) -> Queue:
        return Queue(self.handle.prefix, self.handle.subject.label)

    def place(self) -> Remote | None:
        """Where results are kept in Redis; none where there is no Redis for writes to wait in."""
        cache = self.cache
        if not cache.enabled or cache.settings.backend is not None or cache.driver.backend is None:
            return None
        function: Any = self.handle.function()
        place = getattr(function, "remote", function)  # of what is held near, that in Redis
        return place if isinstance(place, Remote) else None

    # -- the value that waits --------------------------------------------------------------------------------

    def load(self, values: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """What the loader of the cached function returns once all that waits is delivered."""
        place = self.place()
        if place is None:
            return call()
        key = place.key(values)
        flow = loaded(self.queue, key, partial(_opened, place, key), call, place.failed)
        driver = self.cache.driver
        return driver.arun(flow) if self.handle.is_async else driver.run(flow)

    # -- the calls -------------------------------------------------------------------------------------------

    def sealed(self, place: Remote, key: str, label: str, call: Any, value: Any) -> tuple[bytes, bytes]:
        """A call and the value that it brings, as they wait."""
        payload = _envelopes(place).sealed(
            f"{key}~w", (), (), os.urandom(TOKEN), place.keeper.serializer.dumps([label, *call]), 0, 0.0, 0.0
        )
        kept = place.sealing.sealed(key, (), (), os.urandom(TOKEN), place.serializer.dumps(value), 0, 0.0, 0.0)
        return payload, kept

    def opened(self, item: Item) -> Call:
        """The call that waits.

        Raises:
            Unknown: this process has no such function.
            Exception: it cannot be read.
        """
        place = self.place()
        if place is None:
            raise CorruptError("there is no Redis to wait in")
        for writer in self.writers.values():
            writer.allow(place)
        sealing, entry = _envelopes(place), unpack(f"{item.key}~w", item.write)
        match sealing.reader(entry, sealing.decrypted(f"{item.key}~w", entry))():
            case [str() as label, list() as args, dict() as kwargs]:
                if label not in self.writers:
                    raise Unknown(label)
                return Call(self.writers[label], args, kwargs)
        raise CorruptError("this is no call")

    def __repr__(self) -> str:
        return f"<Behind {self.handle.subject.label}: {', '.join(self.writers)}>"


def _opened(place: Remote, key: str, kept: bytes) -> Any:
    entry = unpack(key, kept)
    if entry.schema != place.schema:
        raise CorruptError("the value that waits is of another schema")
    return place.sealing.reader(entry, place.sealing.decrypted(key, entry))()


def _envelopes(place: Remote) -> Sealing:
    plain = place.keeper.serializer
    return Sealing(place.keeper.settings, plain, _CALLS, plain, ())


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
        self.write = Write(behind.cache, [behind.handle.wrapper], fn, _NOTHING)
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

    async def deliver(self, args: Iterable[Any], kwargs: Mapping[str, Any], threads: Executor) -> None:
        """Make the call that has waited, in this loop or, if it may block, in a thread."""
        if self.is_async:
            await self.fn(*args, **kwargs)
            return
        make = partial(copy_context().run, self.fn, *args, **kwargs)
        await asyncio.get_running_loop().run_in_executor(threads, make)

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
        behind.writers[writer.label] = writer
        return Writer(fn, writer.call)

    return decorator


def _annotations(fn: Callable[..., Any]) -> list[Any]:
    try:
        return list(typing.get_type_hints(fn).values())
    except Exception:  # a name that exists for type checkers only
        return []
