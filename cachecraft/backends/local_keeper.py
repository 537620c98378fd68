"""The entries of a whole cache in memory: what its functions share, and what is invalidated for all of them.

It knows functions only as it makes their places (``local``); what an entry is made of is theirs to know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from cachecraft._core import noting
from cachecraft._core.calls import Subject
from cachecraft._core.effects import Flow
from cachecraft._core.events import Hooks
from cachecraft._core.explanation import Means
from cachecraft._core.policy import Policy
from cachecraft._core.sites import cause
from cachecraft._core.tally import Tally
from cachecraft.backends.explain_local import all_in
from cachecraft.backends.local import Local
from cachecraft.backends.memory import Memory
from cachecraft.backends.table import Table


class LocalKeeper:
    """Keeps the entries of a whole cache in memory."""

    def __init__(self, memory: Memory, hooks: Hooks = ()) -> None:
        self.memory = memory
        self.hooks = hooks
        self.trail = memory.trail

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

    # Who asks for it is looked up here, and not in the flow: that may run in a task of its own.

    def delete(self, wire: str) -> Flow[int]:
        return self._noted(lambda: self.memory.invalidate_key(wire), "key", (wire,))

    def sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None = None) -> Flow[int]:
        def drop() -> int:
            count = self.memory.invalidate_pattern(prefix, pattern)
            if progress is not None:
                progress(count)
            return count

        return self._noted(drop, "pattern", (), prefix + pattern)

    def untag(self, prefix: str, tags: Sequence[str]) -> Flow[int]:
        names = [prefix + tag for tag in tags]
        return self._noted(lambda: self.memory.invalidate_tags(names), "tag", names)

    def clear(self, prefixes: Iterable[str]) -> Flow[int]:
        wanted = frozenset(prefixes)

        def drop() -> int:
            return self.memory.invalidate_tables([each for each in list(self.memory.tables) if each.prefix in wanted])

        return self._noted(drop, "clear", tuple(map(all_in, wanted)))

    def _noted(self, drop: Callable[[], int], by: Means, names: Collection[object], pattern: str = "") -> Flow[int]:
        return self._dropped(drop, by, partial(self.trail.note, by, names, cause(), pattern=pattern))

    def _dropped(self, drop: Callable[[], int], by: Means, note: Callable[..., None]) -> Flow[int]:
        yield from ()
        count = drop()
        note(count=count)
        noting.invalidated(self.hooks, by, count)
        return count

    def after_fork(self) -> None:
        self.memory.after_fork()

    def close(self) -> None:
        """Memory has nothing to let go of but itself."""

    def __repr__(self) -> str:
        return f"<LocalKeeper {self.memory!r}>"
