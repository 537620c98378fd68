"""What strikes in a chaos run: the faults of the race, and those of networks, servers and operators; knows no cache."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from redis import RedisError

from tests.race.faults import Faults


class Hail(Faults):
    """Deals all faults in random order before any comes again, so that a short run has met each."""

    def __init__(self, *args: Any, renew: Callable[[int], subprocess.Popen[bytes]], only: list[str], seed: int) -> None:
        super().__init__(*args, seed=seed)
        self._renew = renew
        """Starts a worker again."""
        self._only = only
        self._deck: list[Callable[[], object]] = []
        self._began = time.time()
        self.log: list[tuple[float, str]] = []
        """When what struck, by the wall clock."""

    def faults(self) -> list[Callable[[], object]]:
        named = [
            *(self.freeze, self.crash, self.crash, self.restart, self.client_pause, self.flush_all, self.full),
            *(self.slow, self.drip, self.throttle, self.cut, self.swallow, self.refuse, self.late),
            *(self.stop, self.kill_worker, self.fork, self.kill, self.flush_scripts, self.evict, self.forbid),
        ]
        return [fault for fault in named if not self._only or fault.__name__ in self._only]

    def next(self) -> Callable[[], object]:
        if not self._deck:
            self._deck = self.faults()
            self.random.shuffle(self._deck)
        return self._deck.pop()

    def strike(self) -> None:
        fault = self.next()
        self._note(fault.__name__)
        with contextlib.suppress(RedisError):  # a server that a fault before has made refuse
            fault()
        self._note(f"{fault.__name__} done")
        self.struck[fault.__name__] += 1

    def _note(self, text: str) -> None:
        self.log.append((time.time(), text))

    def _for(self, low: float, high: float) -> float:
        """So many seconds, noted."""
        seconds = self.random.uniform(low, high)
        self._note(f"  for {seconds:.2f} s")
        return seconds

    # -- the server ------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        self.server.pause()
        time.sleep(self._for(0.2, 2.5))
        self.server.resume()

    def crash(self) -> None:
        """Come back empty, or with whatever snapshot there is; and not at once."""
        self.server.kill()
        time.sleep(self._for(0.0, 1.0))
        if self.random.random() < 0.5:
            (self.server.dir / "dump.rdb").unlink(missing_ok=True)
        self.server.start()

    def client_pause(self) -> None:
        seconds = self._for(0.1, 1.5)
        self.server.cli("CLIENT", "PAUSE", int(1000 * seconds), self.random.choice(("ALL", "WRITE")))
        time.sleep(seconds)

    def flush_all(self) -> None:
        self.server.cli("FLUSHALL")

    def full(self) -> None:
        """No memory left: stores are refused, or push out others; invalidations must get through."""
        self.server.cli("CONFIG", "SET", "maxmemory-policy", self.random.choice(("noeviction", "allkeys-random")))
        self.server.cli("CONFIG", "SET", "maxmemory", "1mb")
        time.sleep(self._for(0.2, 1.0))
        self.server.cli("CONFIG", "SET", "maxmemory", 0)

    def forbid(self) -> None:
        """An operator forbids deletions, and thinks better of it."""
        self.server.cli("ACL", "SETUSER", "default", "-unlink")
        time.sleep(self._for(0.3, 1.0))
        self.server.cli("ACL", "SETUSER", "default", "+@all")

    # -- the network -----------------------------------------------------------------------------------------

    def slow(self) -> None:
        self.proxy.slow(self._for(0.5, 2.0), self.random.choice((0.01, 0.1, 0.4)))

    def drip(self) -> None:
        self.proxy.drip(self._for(0.3, 1.0))

    def throttle(self) -> None:
        self.proxy.throttle(self._for(0.5, 2.0))

    def cut(self) -> None:
        self.proxy.cut()

    def swallow(self) -> None:
        self.proxy.swallow(self._for(0.0, 1.5))

    def refuse(self) -> None:
        self.proxy.refuse(self._for(0.3, 1.5))
        if self.random.random() < 0.5:
            self.proxy.cut()

    # -- the workers -----------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        number = self.random.randrange(len(self.workers))
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._renew(number)

    def fork(self) -> None:
        os.kill(self.random.choice(self.workers).pid, signal.SIGUSR1)

    # -- and then --------------------------------------------------------------------------------------------

    def calm(self) -> None:
        """Everything is as it should be."""
        self.proxy.heal()
        if self.server.paused:
            self.server.resume()
        self.server.cli("CLIENT", "UNPAUSE")
        self.server.cli("CONFIG", "SET", "maxmemory", 0)
        self.server.cli("ACL", "SETUSER", "default", "+@all")
        self._note("calm")
