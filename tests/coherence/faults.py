"""What strikes near caches, at random or one and the same again and again, beside what strikes any cache."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.race.faults import Faults
from tests.race.proxy import FaultyProxy
from tests.servers import RedisServer

ALL: Final = (
    *("lag", "lag", "lag", "kill_listeners", "kill_listeners", "silence", "silence", "stall", "stall"),
    *("evict_stamps", "evict_stamps", "evict", "evict", "stop", "stop", "freeze", "kill", "kill", "late", "restart"),
    *("flush", "flush_scripts"),
)
"""Twice what is to come twice as often."""


class NearFaults(Faults):
    """Those that are named. ``staleness`` is what near caches promise: how long things last is measured by that."""

    def __init__(
        self,
        server: RedisServer,
        workers: list[subprocess.Popen[bytes]],
        proxy: FaultyProxy,
        names: Sequence[str],
        *,
        staleness: float,
    ) -> None:
        super().__init__(server, workers, proxy)
        self._staleness = staleness
        self._chosen: list[Callable[[], object]] = [getattr(self, name) for name in names]

    def faults(self) -> list[Callable[[], object]]:
        return self._chosen

    def kill_listeners(self) -> None:
        self.server.cli("CLIENT", "KILL", "TYPE", "pubsub")

    def lag(self) -> None:
        """What is read comes late, so that what invalidates it overtakes it."""
        self.proxy.lag(self.random.uniform(0.5, 1.0), 0.02)

    def silence(self) -> None:
        """Of what the listeners are told, and what they ask, nothing arrives any more; nor do they hear of that."""
        self.proxy.silence(self._staleness)

    def stall(self) -> None:
        """The same, and all of it arrives later."""
        self.proxy.stall(self.random.uniform(0.2, 3) * self._staleness)

    def freeze(self) -> None:
        self.server.pause()
        time.sleep(self.random.uniform(0.5, 2) * self._staleness)
        self.server.resume()

    def flush(self) -> None:
        self.server.cli("FLUSHALL")

    def evict_stamps(self) -> None:
        stamps = self.server.cli("KEYS", "near:~[tfar]*")
        for stamp in self.random.sample(stamps, min(5, len(stamps))):
            self.server.cli("UNLINK", stamp)
