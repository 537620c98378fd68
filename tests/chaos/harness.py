"""Runs production under faults for some seconds, then calm, and says what was called, what was wrong, and how slow.

What it prints when something is wrong is made to find out why: the seed, which deals the same faults in the same order
again, and a log of all faults and all that the workers noted, in order of time.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos import ledger
from tests.chaos.faults import Hail
from tests.chaos.sabotage import SABOTAGE
from tests.race import truth as race
from tests.race.proxy import FaultyProxy
from tests.race.truth import Truth
from tests.servers import RedisServer

ROOT: Final = Path(__file__).parent.parent.parent
WORKERS: Final = 4
CALM: Final = 1.5
"""Seconds without faults at the end."""
_SETTLED: Final = 60.0
"""Seconds that a worker may take at the most to come to its end after that."""
_LEASE: Final = 7.0
"""Seconds until the lease of a process that was killed is over."""


@dataclass(frozen=True)
class Outcome:
    """What the workers found, and what was left on the server."""

    seed: int
    counts: dict[str, int]
    faults: Counter[str]
    left: list[str]
    log: list[str]

    @property
    def wrong(self) -> dict[str, int]:
        """What must not be, where it was."""
        found = {name: self.counts[name] for name in ("values", "errors", "violations", "leaks", "unwell", "crashed")}
        return {name: count for name, count in {**found, "keys": len(self.left)}.items() if count}

    def __str__(self) -> str:
        c = self.counts
        struck = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items())) or "none"
        lines = [
            f"{c['reads'] + c['writes']:,} calls: {c['reads']:,} reads, {c['writes']:,} writes; {c['loads']:,} loads,"
            f" {c['cancelled']} cancelled, {c['forks']} forks",
            f"{c['values']} wrong values, {c['errors']} exceptions from the cache, {c['violations']} violations of P1"
            f" ({c['untold']} reads were stale within what is documented)",
            f"slowest call over its loader: {c['slowest_alone'] / 1e6:.3f} s;"
            f" {c['slowest'] / 1e6:.3f} s where others' loads are waited for",
            f"{c['hits']:,} hits, {c['stale']} stale, {c['refreshes']} refreshes;"
            f" the breaker opened {c['breaks']} times, {c['journaled']} invalidations had to wait",
            f"after calm: {c['unwell']} functions uncached, {c['leaks']} things left over,"
            f" {c['crashed']} workers failed, {len(self.left)} keys too many {self.left or ''}",
            f"faults: {struck}",
        ]
        if self.wrong:
            lines = [*self.log, *lines, f"WRONG: {self.wrong}; again with --seed {self.seed}"]
        return "\n".join(lines)


_COUNTED: Final = {
    "reads": race.READS,
    "writes": race.WRITES,
    "violations": race.VIOLATIONS,
    "loads": race.LOADS,
    "errors": race.ERRORS,
    "values": ledger.WRONG,
    "untold": ledger.UNTOLD,
    "leaks": ledger.LEFT,
    "unwell": ledger.UNWELL,
    "hits": ledger.HITS,
    "stale": ledger.STALE,
    "breaks": ledger.BREAKS,
    "journaled": ledger.JOURNALED,
    "refreshes": ledger.REFRESHES,
    "forks": ledger.FORKS,
    "cancelled": ledger.CANCELLED,
}


class Stage:
    """A server, a proxy before it, and the workers."""

    def __init__(self, seconds: float, seed: int, sabotage: str) -> None:
        self.server = RedisServer()
        self.proxy = FaultyProxy(self.server.port)
        self.path, self.notes = self.server.dir / "truth", self.server.dir / "notes"
        self.truth = Truth(self.path)
        self.seed, self.sabotage = seed, sabotage
        self.until = time.time() + seconds
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, number: int) -> subprocess.Popen[bytes]:
        given = (self.path, self.notes, number, WORKERS, f"redis://127.0.0.1:{self.proxy.port}/0", self.until)
        arguments = [str(each) for each in (*given, self.seed, self.sabotage)]
        return subprocess.Popen([sys.executable, "-m", "tests.chaos.worker", *arguments], cwd=ROOT)

    def left(self) -> list[str]:
        """Keys that nobody will ever remove, and leases that nobody holds."""
        deadline = time.monotonic() + _LEASE
        while (leases := self._leases()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.server.keys_without_ttl() + [f"lease {key!r}" for key in leases]

    def _leases(self) -> list[bytes]:
        keys = [key for key in self.server.cli("KEYS", "*") if b"~tag:" not in key and b"~fn:" not in key]
        stamps = (b"~root", b"~any", b"~runid")
        return [key for key in keys if not key.endswith(stamps) and self.server.cli("GETRANGE", key, 0, 0) == b"L"]

    def log(self, struck: list[tuple[float, str]]) -> list[str]:
        noted = []
        if self.notes.exists():
            for line in self.notes.read_text().splitlines():
                at, _, text = line.partition(" ")
                noted.append((float(at), text))
        began = min((at for at, _ in struck), default=0.0)
        return [f"{at - began:8.3f} {text}" for at, text in sorted(noted + struck)]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.proxy.close()
        self.truth.close()
        self.server.close()


def chaos(
    seconds: float, *, seed: int, only: Sequence[str] = (), pause: float = 0.4, sabotage: str = "none"
) -> Outcome:
    """Run for so many seconds, ``only`` with these faults and a ``pause`` of up to so many seconds between them, with a
    cache broken by ``sabotage`` perhaps."""
    stage = Stage(seconds, seed, sabotage)
    # Ignored until a worker listens: what is ignored here is so in a process that has just been started.
    heard = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        stage.workers += [stage.start(number) for number in range(WORKERS)]
        hail = Hail(stage.server, stage.workers, stage.proxy, renew=stage.start, only=list(only), seed=seed)
        time.sleep(1.0)
        while time.time() < stage.until - CALM:
            hail.strike()
            time.sleep(hail.random.uniform(0.0, pause))
        hail.calm()
        crashed = 0
        for worker in stage.workers:
            try:
                crashed += worker.wait(max(0.0, stage.until - time.time()) + _SETTLED) != 0
            except subprocess.TimeoutExpired:
                crashed += 1
        counts = {name: stage.truth.total(counter) for name, counter in _COUNTED.items()}
        counts |= {"slowest": stage.truth.highest(ledger.SLOWEST), "crashed": crashed}
        counts |= {"slowest_alone": stage.truth.highest(ledger.SLOWEST_ALONE)}
        return Outcome(seed, counts, hail.struck, stage.left(), stage.log(hail.log))
    finally:
        stage.close()
        signal.signal(signal.SIGUSR1, heard)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--only", nargs="*", default=(), help="these faults, by name")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between faults, at the most")
    parser.add_argument("--sabotage", choices=("none", *SABOTAGE), default="none", help="show that a fault is found")
    parser.add_argument("--log", action="store_true", help="print the log in any case")
    options = parser.parse_args()
    outcome = chaos(
        options.seconds, seed=options.seed, only=options.only, pause=options.pause, sabotage=options.sabotage
    )
    if options.log and not outcome.wrong:
        print(*outcome.log, sep="\n")
    print(outcome)
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    sys.exit(main())
