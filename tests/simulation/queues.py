"""The queues of writes behind, on the model of Redis: their streams and hashes, one script at a time.

Nobody evicts them and no restart loses them, as ``docs/write-behind.md`` asks of a real server; no id is given twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cachecraft.backends.queue import BURIED, DELIVERED, ENQUEUE, WITHDRAW

_DAY: Final = 86_400_000


@dataclass
class Stream:
    entries: dict[bytes, list[bytes]] = field(default_factory=dict)
    left: int = -1
    """Milliseconds until it ends, if it does."""


class Queues:
    """All streams and hashes of one server. ``queued`` is told what each write is, at the moment it begins to wait."""

    def __init__(self, queued: Callable[[bytes], object]) -> None:
        self.streams: dict[bytes, Stream] = {}
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self._queued = queued
        self._ids = 0
        self._bodies: dict[str, Callable[..., Any]] = {
            ENQUEUE.sha: self._enqueue,
            WITHDRAW.sha: self._withdraw,
            DELIVERED.sha: self._delivered,
            BURIED.sha: self._buried,
        }

    def run(self, sha: str, log: str, pending: str, dead: str, *arguments: Any) -> Any:
        """Run a script on the keys of one queue."""
        keys = [key.encode() for key in (log, pending, dead)]
        return self._bodies[sha](*keys, *(_bytes(each) for each in arguments))

    def hget(self, pending: str, key: str) -> bytes | None:
        return self.hashes.get(pending.encode(), {}).get(key.encode())

    def xrange(
        self, log: str, first: str | bytes = "-", _last: str = "+", _word: str = "COUNT", count: int | None = None
    ) -> list[Any]:
        stream = self.streams.get(log.encode(), Stream())
        found = [
            [id_, fields] for id_, fields in stream.entries.items() if first in ("-", b"-") or _at(id_) >= _at(first)
        ]
        return found[:count]

    # -- scripts ---------------------------------------------------------------------------------------------

    def _enqueue(
        self, log: bytes, pending: bytes, _: bytes, key: bytes, write: bytes, value: bytes, room: bytes
    ) -> int:
        waiting = self.hashes.get(pending, {})
        if len(self.streams.get(log, Stream()).entries) >= int(room):
            return 2 if key in waiting else 1
        id_ = self._add(log, [b"key", key, b"write", write])
        self.hashes.setdefault(pending, {})[key] = id_ + b"|" + value
        self._queued(write)
        return 0

    def _withdraw(self, _: bytes, pending: bytes, __: bytes, key: bytes, id_: bytes) -> None:
        waiting = self.hashes.get(pending, {})
        if self.brought_by(waiting.get(key), id_):
            waiting[key] = id_ + b"|"

    def _delivered(self, log: bytes, pending: bytes, _: bytes, key: bytes, *ids: bytes) -> None:
        for id_ in ids:
            self._take(log, pending, key, id_)

    def _buried(
        self, log: bytes, pending: bytes, dead: bytes, key: bytes, id_: bytes, write: bytes, error: bytes, _: bytes
    ) -> None:
        self._add(dead, [b"key", key, b"called", id_, b"write", write, b"error", error])
        self._take(log, pending, key, id_)

    def _add(self, name: bytes, fields: list[bytes]) -> bytes:
        self._ids += 1
        stream = self.streams.setdefault(name, Stream())
        stream.entries[b"%d-0" % self._ids] = fields
        stream.left = -1
        return b"%d-0" % self._ids

    def _take(self, log: bytes, pending: bytes, key: bytes, id_: bytes) -> None:
        waiting = self.hashes.get(pending, {})
        if self.brought_by(waiting.get(key), id_):
            del waiting[key]
        stream = self.streams.get(log, Stream())
        stream.entries.pop(id_, None)
        if not stream.entries:
            stream.left = _DAY

    def brought_by(self, waiting: bytes | None, id_: bytes) -> bool:
        """Whether the value that waits is that of this write."""
        return waiting is not None and waiting.startswith(id_ + b"|")


def _bytes(argument: Any) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


def _at(id_: str | bytes) -> tuple[int, ...]:
    return tuple(map(int, (id_ if isinstance(id_, str) else id_.decode()).split("-")))
