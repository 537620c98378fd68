"""Ways to break the cache on purpose, in the worker's own process: a chaos run that finds nothing then is no proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cachecraft.backends.journal import Journal
from cachecraft.backends.redis import RedisBackend
from cachecraft.serializers import MsgpackSerializer


def blind() -> None:
    """What waits in the journal is served all the same."""
    Journal.affects = lambda self, effect: False  # type: ignore[method-assign]


def forgetful() -> None:
    """What cannot be invalidated now never is, and the caller hears nothing."""
    Journal.add = lambda self, effect: False  # type: ignore[method-assign]


def trusting() -> None:
    """A server that comes back with an old state is believed."""

    def fence(self: Any) -> Any:
        return
        yield

    RedisBackend._fence = fence  # type: ignore[method-assign]


def careless() -> None:
    """Now and then a value is answered that was asked for before."""
    right, before = MsgpackSerializer.loads, []

    def loads(self: Any, data: Any) -> Any:
        before.append(right(self, data))
        return before.pop(0) if len(before) > 5 else before[-1]

    MsgpackSerializer.loads = loads  # type: ignore[method-assign]


SABOTAGE: Final[dict[str, Callable[[], None]]] = {
    each.__name__: each for each in (blind, forgetful, trusting, careless)
}
