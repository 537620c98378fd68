"""What is written behind one cached function: its queue in Redis, whose calls wait there, and what they look like.

*The write waits first, then the entry falls.* From there on a load finds the value that waits, whatever the database
still holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from cachecraft._cache import BareCache
from cachecraft._core import effects
from cachecraft._core.behind import AWARE, Item, Queue, loaded
from cachecraft._core.entry import TOKEN, unpack
from cachecraft._core.errors import BackendError, CorruptError, OptionError
from cachecraft._core.ports import Function
from cachecraft._decorators import Handle
from cachecraft.backends.remote import Remote
from cachecraft.backends.sealing import Sealing

T = TypeVar("T")

_CALLS: Final = bytes(8)
"""The schema of what is not a result but a call."""


class Postponed(Protocol):
    """A function whose calls wait."""

    label: str
    """By this name a worker finds it."""
    retry_for: float
    coalesce: bool

    def allow(self, place: Remote) -> None:
        """Have the serializer make what the parameters are annotated with."""

    async def deliver(self, args: Iterable[Any], kwargs: Mapping[str, Any], threads: Executor) -> BaseException | None:
        """Make a call that has waited. Answers what it raised."""


class Unknown(Exception):
    """A write waits for a function that this process does not have."""


class Call(NamedTuple):
    """A write that waits, as it is to be made."""

    writer: Postponed
    args: list[Any]
    kwargs: dict[str, Any]


class Behind:
    """What is written behind one cached function: its queue, and the functions whose calls may wait there."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.writers: dict[str, Postponed] = {}

    @classmethod
    def of(cls, handle: Handle) -> Behind:
        if handle.behind is None:
            handle.behind = cls(handle)
            handle.unbind()  # from now on, who loads asks first what waits
        return handle.behind  # type: ignore[no-any-return]  # the handle knows of it only that it loads

    def enter(self, writer: Postponed) -> None:
        """Take note of a function whose calls wait here.

        Raises:
            OptionError: there is another of the same name, and a worker could not tell the two apart.
        """
        if self.writers.setdefault(writer.label, writer) is not writer:
            raise OptionError(
                f"another function called {writer.label} is written behind {self.handle.subject.label} already; give it"
                " another name"
            )

    @property
    def cache(self) -> BareCache:
        return self.handle.cache

    @property
    def queue(self) -> Queue:
        return Queue(self.handle.prefix, self.handle.subject.label)

    @property
    def _is_remote(self) -> bool:
        cache = self.cache
        return cache.enabled and cache.settings.backend is None and cache.driver.backend is not None

    def place(self) -> Remote | None:
        """Where results are kept in Redis; none where there is no Redis for writes to wait in."""
        if not self._is_remote:
            return None
        function: Any = self.handle.function()
        place = getattr(function, "remote", function)  # of what is held near, that in Redis
        return place if isinstance(place, Remote) else None

    def needed(self) -> Remote:
        """As ``place``.

        Raises:
            BackendError: there is none.
        """
        place = self.place()
        if place is None:
            raise BackendError("the cache was closed, turned off, or configured anew without Redis")
        return place

    async def ask(self, effect: effects.Remote[T]) -> T:
        """Have Redis do something about the queue.

        Raises:
            BackendError: it cannot.
        """
        self.needed()
        answer: T = await self.cache.driver.backend.aperform(effect)  # type: ignore[union-attr]  # it is needed
        return answer

    def apart(self, function: Function) -> Function:
        """The function, keeping apart what it loads from what others do, who have not heard that writes may wait.

        They load what the database holds, and store that for all who go by the same tags; so ours carry one more.
        """
        return function.variant(function.policy, (AWARE,)) if self._is_remote else function

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
