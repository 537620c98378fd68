"""The entries of a whole cache in memory: what its functions share, and what is invalidated for all of them.

It knows functions only as it makes their places (``local``); what an entry is made of is theirs to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cachecraft._core.calls import Subject
from cachecraft._core.effects import Flow
from cachecraft._core.events import Hooks, Invalidated, tell
from cachecraft._core.policy import Policy
from cachecraft._core.tally import Tally
from cachecraft.backends.local import Local
from cachecraft.backends.memory import Memory
from cachecraft.backends.table import Table


class LocalKeeper:
    """Keeps the entries of a whole cache in memory."""

    def __init__(self, memory: Memory, hooks: Hooks = ()) -> None:
        self.memory = memory
        self.hooks = hooks

    def heed(self) -> None:
        """There is a hook now: no wrapper may load by itself any more."""
        with self.memory.lock:
            for table in list(self.memory.tables):
                table.moved()

    def function(
        self,
        subject: Subject,
        policy: Policy,
        tally: Tally,
        prefix: str,
        *,
        fn: Callable[..., Any] | None = None,
        serializer: object = None,
    ) -> Local:
        """The place of one function. Memory holds any object, so nothing is asked of a serializer."""
        local = Local(Table(self.memory, subject, prefix), policy, tally, self.hooks)
        if not local.table.shared:
            local.table.bury_with(local)
        return local

    def delete(self, wire: str) -> Flow[int]:
        yield from ()
        return self._told("key", self.memory.invalidate_key(wire))

    def sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None = None) -> Flow[int]:
        yield from ()
        count = self.memory.invalidate_pattern(prefix, pattern)
        if progress is not None:
            progress(count)
        return self._told("pattern", count)

    def untag(self, prefix: str, tags: Sequence[str]) -> Flow[int]:
        yield from ()
        return self._told("tags", self.memory.invalidate_tags(prefix + tag for tag in tags))

    def clear(self, prefixes: Iterable[str]) -> Flow[int | None]:
        yield from ()
        wanted = frozenset(prefixes)
        tables = [table for table in list(self.memory.tables) if table.prefix in wanted]
        return self._told("everything", self.memory.invalidate_tables(tables))

    def _told(self, by: Any, count: int) -> int:
        if self.hooks:
            tell(self.hooks, Invalidated(by, count=count))
        return count

    def after_fork(self) -> None:
        self.memory.after_fork()

    def close(self) -> None:
        """Memory has nothing to let go of but itself."""

    def __repr__(self) -> str:
        return f"<LocalKeeper {self.memory!r}>"
