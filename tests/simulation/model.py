"""A Redis server of a few dozen lines: the commands that ``backends.commands`` makes, one atomic step each.

What waits in queues is in ``queues``, and no command for entries can meet it: their names are of no pattern.

It has no clock: a key has so many milliseconds left, and only the world takes them away. That it answers as Redis does
is shown by ``test_model.py``, against a real server.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import NoScriptError

from cachecraft._core.entry import ENTRY
from cachecraft._core.globs import matcher
from cachecraft.backends.commands import PROLONG, RELEASE, RENEW, SCRIPTS, SET, Command
from tests.simulation.queues import Queues

BUCKETS: Final = 4
"""Steps of a whole ``SCAN``; a key stays in its bucket, so one that is there all the time is met."""

Slot = tuple[bytes, int]
"""A value, and the milliseconds it has left."""


Snapshot = dict[bytes, Slot]


@dataclass
class ModelRedis:
    """One server.

    ``removed`` is told of every key that an ``UNLINK`` names, or the world takes; ``queued`` of each write that waits.
    """

    data: dict[bytes, Slot] = field(default_factory=dict)
    run: int = 1
    scripts: set[str] = field(default_factory=set)
    removed: Callable[[bytes], object] = lambda key: None
    queued: Callable[[bytes], object] = lambda write: None

    def __post_init__(self) -> None:
        self.queues = self.make_queues(self.queued)
        self._verbs: dict[str, Callable[..., Any]] = {
            "MGET": lambda *keys: [self._value(key) for key in keys],
            "GET": self._value,
            "SET": self._set,
            "PTTL": lambda key: self.data.get(encoded(key), (b"", -2))[1],
            "HGET": self.queues.hget,
            "XRANGE": self.queues.xrange,
            "PEXPIRE": self._pexpire,
            "UNLINK": lambda *keys: sum(self._unlink(key) for key in keys),
            "SCAN": self._scan,
            "EVALSHA": self._evalsha,
            "EVAL": lambda source, *rest: self._eval(SCRIPT_OF[source], *rest),
            "PUBLISH": lambda *_: 0,  # nobody listens
            "INFO": lambda _: b"# Server\r\nrun_id:%b\r\n" % run_id(self),
        }
        self._bodies: dict[str, Callable[..., int]] = {
            SET.sha: self._put,
            RELEASE.sha: self._drop,
            RENEW.sha: self._pexpire,
        }

    make_queues = Queues

    def execute(self, command: Command) -> Any:
        verb, *arguments = command
        return self._verbs[verb](*arguments)

    # -- what the world does ---------------------------------------------------------------------------------

    def take(self, key: bytes) -> None:
        """A key expires or is evicted: it cannot be told which."""
        del self.data[key]
        self.removed(key)

    def age(self, key: bytes, left: int) -> None:
        self.data[key] = (self.data[key][0], left)

    def snapshot(self) -> Snapshot:
        return dict(self.data)

    def restart(self, snapshot: Snapshot) -> None:
        self.data = dict(snapshot)
        self.run += 1
        self.scripts.clear()

    # -- commands --------------------------------------------------------------------------------------------

    def _value(self, key: str | bytes) -> bytes | None:
        slot = self.data.get(encoded(key))
        return None if slot is None else slot[0]

    def _set(self, key: str | bytes, value: bytes, *options: Any) -> bytes | None:
        *flags, px, milliseconds = options
        assert px == "PX", "P6: every key has a ttl"
        if flags == ["NX"] and encoded(key) in self.data:
            return None
        self._put(key, value, milliseconds)
        return b"OK"

    def _put(self, key: str | bytes, value: bytes, milliseconds: int) -> int:
        self.data[encoded(key)] = (bytes(value), milliseconds)
        return 1

    def _pexpire(self, key: str | bytes, milliseconds: int) -> int:
        if encoded(key) not in self.data:
            return 0
        self.age(encoded(key), milliseconds)
        return 1

    def _drop(self, key: str | bytes) -> int:
        return int(self.data.pop(encoded(key), None) is not None)

    def _unlink(self, key: str | bytes) -> int:
        self.removed(encoded(key))
        return self._drop(key)

    def _scan(self, cursor: int, _: str, pattern: str, *__: Any) -> list[Any]:
        matches = matcher(pattern)
        met = [key for key in sorted(self.data) if _bucket(key) == cursor and matches(key.decode())]
        return [b"%d" % ((cursor + 1) % BUCKETS), met]

    # -- scripts: but for one, all of them compare the first 17 bytes, then do one thing ---------------------

    def _evalsha(self, sha: str, *rest: Any) -> Any:
        if sha not in self.scripts:
            raise NoScriptError("No matching script. Please use EVAL.")
        return self._eval(sha, *rest)

    def _eval(self, sha: str, keys: int, *rest: Any) -> Any:
        self.scripts.add(sha)
        if keys == 3:
            return self.queues.run(sha, *rest)
        assert keys == 1, "a change of an entry touches one key"
        return self._change(sha, *rest)

    def _change(self, sha: str, key: str | bytes, held: bytes, *arguments: Any) -> int:
        if sha == PROLONG.sha:
            return self._prolong(key, int(held))
        if not self.holds(sha, key, held):
            return 0
        return self._bodies[sha](key, *arguments)

    def _prolong(self, key: str | bytes, milliseconds: int) -> int:
        left = self.data.get(encoded(key), (b"", -2))[1]
        return 0 if left < 0 or left > milliseconds / 2 else self._pexpire(key, milliseconds)

    def holds(self, sha: str, key: str | bytes, held: bytes) -> bool:
        """The comparison every script begins with; ``sha`` tells mutants which script it is."""
        return (self._value(key) or b"")[:17] == held


class Shared(ModelRedis):
    """A server of several releases: what one of them keeps beside an entry falls with it, whatever takes its place."""

    def _put(self, key: str | bytes, value: bytes, milliseconds: int) -> int:
        if (self._value(key) or b"")[:1] == ENTRY:
            self.removed(encoded(key))
        return super()._put(key, value, milliseconds)


SCRIPT_OF: Final = {script.source: sha for sha, script in SCRIPTS.items()}


def run_id(redis: ModelRedis) -> bytes:
    return b"%040d" % redis.run


def encoded(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)


def _bucket(key: bytes) -> int:
    return zlib.crc32(key) % BUCKETS
