"""What a cache tells others of itself: its counters, what these advise, and the schema of what its functions return.

It keeps no cache alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Protocol

from cachecraft._core.calls import prefix_of
from cachecraft.advice import Advice, Advised, advice_on, places
from cachecraft.stats import Counted, Snapshot


class Telling(Advised, Protocol):
    """A cache that can be asked."""

    @property
    def namespace(self) -> str: ...
    def snapshot(self) -> Snapshot: ...


class Teller:
    """Answers for one cache, for as long as it is there."""

    def __init__(self, cache: Telling) -> None:
        self._cache = weakref.ref(cache)

    def snapshot(self) -> Snapshot | None:
        """What it has counted; ``None`` once it is gone."""
        cache = self._cache()
        return None if cache is None else cache.snapshot()

    def advice(self, functions: Mapping[str, Counted]) -> list[Advice]:
        """What these counters advise, and what only this process can add to them."""
        cache = self._cache()
        return [] if cache is None else advice_on(cache, functions)

    def schemas(self) -> dict[str, set[bytes]]:
        """Of each function in use whose entries are in the namespace of the cache, by name: one, but for closures."""
        cache = self._cache()
        told: dict[str, set[bytes]] = {}
        for handle, place in places(cache) if cache is not None else ():
            if place.prefix == prefix_of(cache.namespace):  # type: ignore[union-attr]  # it is there
                told.setdefault(handle.subject.label, set()).add(place.schema)
        return told

    def __repr__(self) -> str:
        return f"<Teller of {self._cache()!r}>"
