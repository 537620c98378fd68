"""What the flows need from those who keep entries; knows only the shapes, never who fills them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cachecraft._core.entry import Verdict
from cachecraft._core.policy import Policy

Run = Callable[[], Any]
"""Runs the loader of one call: answers its result, or something to await."""


class Backend(Protocol):
    """A remote store, seen from the drivers: it performs the effects that are ``Remote``.

    Whatever goes wrong leaves it as a ``BackendError``.
    """

    def perform(self, effect: Any) -> Any:
        """Perform one effect, within its deadline."""

    async def aperform(self, effect: Any) -> Any:
        """The same for a task."""

    def ping(self) -> float:
        """Seconds of a round trip."""

    async def aping(self) -> float:
        """The same for a task."""

    def serve(self, prefix: str) -> None:
        """Take note that entries whose keys begin with ``prefix`` will be asked for."""

    def after_fork(self) -> None:
        """In a forked child: what belongs to the parent, sockets and locks among it, is not to be touched."""

    def close(self) -> None:
        """Let go of every connection."""

    async def aclose(self) -> None:
        """The same for a task."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at one key came to."""

    verdict: Verdict
    take: Callable[[], Any] | None = None
    """Hands out the value, or raises the remembered exception; each caller gets its own."""
    reason: str = "absent"
    """Why it is a miss."""
    node: Any = None


class Lease(Protocol):
    """A placeholder or claim that is being kept alive."""

    def end(self) -> None:
        """Stop keeping it alive; what is there stays until its time is over."""


class Function(Protocol):
    """One cached function where its results are kept. Each answer is a flow for a driver to run."""

    policy: Policy

    def key(self, values: Any) -> str: ...
    def connect(self, bind: Callable[..., None]) -> None: ...
    def disconnect(self) -> None: ...
    def recall(self, values: Any, run: Run) -> Any: ...
    def renew(self, values: Any, run: Run) -> Any: ...
    def peek(self, values: Any) -> Any: ...
    def put(self, values: Any, value: Any) -> Any: ...
    def write(self, values: Any, run: Run, made: Callable[[Any], Any]) -> Any: ...
    def drop(self, values: Any) -> Any: ...
    def drop_all(self) -> Any: ...
    def explain(self, values: Any) -> Any: ...
    def variant(self, policy: Policy, tags: tuple[str, ...]) -> Function: ...


class Keeper(Protocol):
    """Where the entries of a whole cache are kept."""

    trail: Any
    """What was invalidated lately."""

    def function(
        self, subject: Any, policy: Policy, tally: Any, prefix: str, *, fn: Callable[..., Any] | None, serializer: Any
    ) -> Function: ...
    def delete(self, wire: str) -> Any: ...
    def sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None = None) -> Any: ...
    def untag(self, prefix: str, tags: Any) -> Any: ...
    def clear(self, prefixes: Any) -> Any: ...
    def heed(self) -> None: ...
    def after_fork(self) -> None: ...
    def close(self) -> None: ...
