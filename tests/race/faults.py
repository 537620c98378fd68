"""What strikes at random: workers stopped, connections killed, scripts flushed, keys evicted, the server restarted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable

from tests.race.proxy import FaultyProxy
from tests.servers import RedisServer


class Faults:
    """One after another; each is over, or has been set going for a while, when ``strike`` returns."""

    def __init__(
        self, server: RedisServer, workers: list[subprocess.Popen[bytes]], proxy: FaultyProxy, *, seed: int = 7
    ) -> None:
        self.server = server
        self.workers = workers
        self.proxy = proxy
        self.random = random.Random(seed)
        self.struck: Counter[str] = Counter()

    def faults(self) -> list[Callable[[], object]]:
        """What there is; twice what is to come twice as often."""
        return [self.stop, self.stop, self.kill, self.flush_scripts, self.evict, self.evict, self.late, self.restart]

    def next(self) -> Callable[[], object]:
        return self.random.choice(self.faults())

    def strike(self) -> None:
        fault = self.next()
        fault()
        self.struck[fault.__name__] += 1

    def stop(self) -> None:
        worker = self.random.choice(self.workers)
        os.kill(worker.pid, signal.SIGSTOP)
        time.sleep(self.random.uniform(0.05, 0.6))
        os.kill(worker.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def flush_scripts(self) -> None:
        self.server.cli("SCRIPT", "FLUSH")

    def evict(self) -> None:
        for _ in range(5):
            key = self.server.cli("RANDOMKEY")
            if key:
                self.server.cli("UNLINK", key)

    def late(self) -> None:
        self.proxy.hold(self.random.uniform(0.5, 1.5))

    def restart(self) -> None:
        """Come back with an old state: what was invalidated since the snapshot would be there again."""
        self.server.cli("SAVE")
        time.sleep(self.random.uniform(0.05, 0.5))
        self.server.kill()  # without a last save, so the snapshot is old
        self.server.start()
