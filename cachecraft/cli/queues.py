"""The queues of writes behind in a namespace, as they stand; it only reads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cachecraft._core.behind import QUEUES, Queue
from cachecraft.cli.server import Server, granted
from cachecraft.cli.terminal import text_of

GRAVES: Final = 5
"""Writes that were given up and are told of, the latest."""


@dataclass(frozen=True, slots=True)
class Grave:
    """A write that was given up."""

    key: str
    error: str
    ago: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one queue stands."""

    queue: Queue
    waiting: int
    oldest: float | None
    """Seconds that the oldest has waited."""
    dead: int
    served: bool
    """Whether a worker has it."""
    graves: Sequence[Grave] = field(default=())

    def as_json(self) -> dict[str, Any]:
        return {
            "function": self.queue.function,
            "waiting": self.waiting,
            "oldest_seconds": None if self.oldest is None else round(self.oldest, 1),
            "dead": self.dead,
            "served": self.served,
            "last_dead": [
                {"key": each.key, "error": each.error, "ago_seconds": round(each.ago, 1)} for each in self.graves
            ],
        }


def standings(server: Server, until: float = float("inf")) -> list[Standing]:
    """All queues in the namespace, by name; only those that were found until then, by ``time.perf_counter``.

    Raises:
        BackendRefused: this user may not look.
    """
    queues = {queue.function: queue for queue in _queues(server, until)}
    return [_standing(server, queue) for _, queue in sorted(queues.items())]


def waits_behind(server: Server, key: str, functions: Iterable[str]) -> str | None:
    """Behind which of these functions a write waits that brings the value of this key."""
    names = sorted(functions)
    asked = [("HGET", Queue(server.target.prefix, name).pending, key) for name in names]
    for name, reply in zip(names, server.ask(*asked) if asked else (), strict=True):
        if isinstance(reply, bytes) and reply.partition(b"|")[2]:  # else it is withdrawn, or we may not ask
            return name
    return None


def _queues(server: Server, until: float) -> Iterator[Queue]:
    target = server.target
    for names in server.scan(target.pattern(f"{QUEUES}*", internal=True)):
        for name in names:
            # A queue that is empty has graves, if anything.
            log = text_of(name).removesuffix(":dead").removesuffix(":log") + ":log"
            queue = Queue.named(target.prefix, log)
            if queue is not None:
                yield queue
        if time.perf_counter() > until:
            return


def _standing(server: Server, queue: Queue) -> Standing:
    replies = server.ask(
        ("XLEN", queue.log),
        ("XRANGE", queue.log, "-", "+", "COUNT", 1),
        ("XLEN", queue.dead),
        ("XREVRANGE", queue.dead, "+", "-", "COUNT", GRAVES),
        ("EXISTS", queue.lease),
        ("TIME",),
    )
    waiting, first, dead, graves, served, (seconds, micros) = map(granted, replies)
    now = int(seconds) + int(micros) / 1e6
    return Standing(
        queue,
        waiting,
        _ago(now, first[0][0]) if first else None,
        dead,
        bool(served),
        [_grave(now, *each) for each in graves],
    )


def _grave(now: float, id_: bytes, told: Sequence[bytes]) -> Grave:
    fields = dict(zip(told[::2], told[1::2], strict=False))
    return Grave(text_of(fields.get(b"key", b"?")), text_of(fields.get(b"error", b"?")), _ago(now, id_))


def _ago(now: float, id_: bytes) -> float:
    """By the server's own clock, of which ids are made."""
    return max(0.0, now - int(id_.partition(b"-")[0]) / 1e3)
