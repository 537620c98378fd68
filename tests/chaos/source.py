"""Where the values of a chaos run come from: a database that is slow, fails now and then, and names what it returns.

A value is a list of item, version and a body that follows from both and from the kind of function; so one that is
another's, torn or made up cannot pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

from tests.race.worker import Worker

_SIZES: Final = (10,) * 24 + (100,) * 16 + (1_000,) * 12 + (5_000,) * 7 + (30_000,) * 4 + (200_000,)
"""Bytes of a body, from ten to more than fit into one read of a socket; what is random cannot be compressed."""


class SourceError(Exception):
    """The database's own failure, which callers are to hear of."""


def made(kind: str, item: int, version: int) -> list[Any]:
    """The one value that is right for a version of an item."""
    name = f"{kind} {item} {version}".encode()
    size = _SIZES[hashlib.sha256(name).digest()[0] % len(_SIZES)]
    return [item, version, hashlib.shake_128(name).digest(size)]


def is_made(kind: str, item: int, value: Any) -> bool:
    """Whether a value is right for some version of the item."""
    if not isinstance(value, list) or len(value) != 3 or type(value[1]) is not int:
        return False
    return value == made(kind, item, value[1])


class Source:
    """Loaders and writers in both colours, over the truth that a worker knows."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.fails = True
        """Now and then."""

    def loader(self, kind: str, *, tasks: bool) -> Callable[[int], Any]:
        def load(item: int) -> list[Any]:
            version, nap = self.worker.began(item)
            time.sleep(nap)
            return self._loaded(kind, item, version)

        async def aload(item: int) -> list[Any]:
            version, nap = self.worker.began(item)
            await asyncio.sleep(nap)
            return self._loaded(kind, item, version)

        return aload if tasks else load

    def writer(self, kind: str, *, tasks: bool) -> Callable[[int], Any]:
        """One that commits, and may fail after that: then the commit stands all the same."""

        def write(item: int) -> list[Any]:
            time.sleep(self._nap())
            version = self.worker.truth.commit(item)
            time.sleep(self._nap())
            return self._ended(kind, item, version, 0.1)

        async def awrite(item: int) -> list[Any]:
            await asyncio.sleep(self._nap())
            version = self.worker.truth.commit(item)
            await asyncio.sleep(self._nap())
            return self._ended(kind, item, version, 0.1)

        return awrite if tasks else write

    def _nap(self) -> float:
        return self.worker.random.uniform(0, self.worker.slow)

    def _loaded(self, kind: str, item: int, version: int) -> list[Any]:
        return self._ended(kind, item, version, 0.02)

    def _ended(self, kind: str, item: int, version: int, risk: float) -> list[Any]:
        if self.fails and self.worker.random.random() < risk:
            raise SourceError(f"{kind} {item}")
        return made(kind, item, version)
