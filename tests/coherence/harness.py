"""Lets processes race, in rounds, and says what they read, from where, how old it was, and what was wrong."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from tests.coherence import history
from tests.coherence.faults import ALL, NearFaults
from tests.coherence.history import MOODS, Counter, History
from tests.coherence.mutants import MUTANTS
from tests.race.proxy import FaultyProxy
from tests.servers import RedisServer

ROOT: Final = Path(__file__).parent.parent.parent
KINDS: Final = ("threads", "tasks", "threads", "tasks")
_CALM: Final = 1.5
"""Seconds without faults at the end of a round, so that something is held that can be compared."""
_PATIENCE: Final = 60.0
"""Seconds that processes may take to come to the end of a phase."""
_BROKEN: Final = (
    *(Counter.OLD_HERE, Counter.OLD_ELSEWHERE, Counter.OLD_BEHIND_BARRIER),
    *(Counter.WRONG, Counter.DIFFERENT),
)


@dataclass
class Result:
    """What the workers counted, and which faults struck."""

    seconds: float = 0.0
    counts: Tally[Counter] = field(default_factory=Tally)
    worst: float = 0.0
    """Seconds by which a read was older than an invalidation of another process, at the most."""
    faults: Tally[str] = field(default_factory=Tally)

    @property
    def violations(self) -> dict[str, int]:
        """What must not be, where it was."""
        return {each.name.lower(): self.counts[each] for each in _BROKEN if self.counts[each]}

    def __add__(self, other: Result) -> Result:
        worst = max(self.worst, other.worst)
        return Result(
            self.seconds + other.seconds, self.counts + other.counts, worst, Tally(self.faults + other.faults)
        )

    def __str__(self) -> str:
        c = self.counts
        struck = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items())) or "none"
        return (
            f"{c[Counter.READS]:,} reads in {self.seconds:.1f} s, {c[Counter.HITS]:,} of them near;"
            f" {c[Counter.WRITES]:,} invalidations and writes, {c[Counter.FAILED]:,} of them at the second try;"
            f" {c[Counter.LOADS]:,} loads; {c[Counter.COMPARED]:,} entries compared in quiet;"
            f" worst staleness {1000 * self.worst:.1f} ms; violations: {self.violations or 'none'}; faults: {struck}"
        )


class Race:
    """Processes on one server, through a proxy that does to their lines what networks do. They wait between rounds."""

    def __init__(self, kinds: Sequence[str] = KINDS, *, staleness: float = 0.3) -> None:
        self.staleness = staleness
        self.server = RedisServer()
        self.proxy = FaultyProxy(self.server.port)
        self._history = History(self.server.dir / "history", len(kinds))
        self._phase = history.READY
        self._history.enter(self._phase)
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        self._workers = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.coherence.worker", str(self.server.dir / "history")),
                    *(str(number), str(len(kinds)), url, kind, str(staleness)),
                ],
                cwd=ROOT,
            )
            for number, kind in enumerate(kinds)
        ]

    def round(
        self,
        seconds: float,
        *,
        faults: Sequence[str] = (),
        pause: float = 0.2,
        mood: str = "calm",
        mutant: str | None = None,
    ) -> Result:
        """Race for so long, or until a mutant is found out; then compare. ``pause`` is the time between two faults."""
        self._await_all(self._phase)
        self._phase += 1
        began = time.monotonic()
        number = 0 if mutant is None else list(MUTANTS).index(mutant) + 1
        self._history.begin(self._phase, mutant=number, mood=MOODS.index(mood), faulty=bool(faults))
        strikes = NearFaults(self.server, self._workers, self.proxy, faults, staleness=self.staleness)
        strikes.random.seed(self._phase)
        next_strike = began
        while (now := time.monotonic()) < began + seconds and not (number and self._found):
            if faults and next_strike <= now and (number or now < began + seconds - _CALM):
                strikes.strike()
                next_strike = time.monotonic() + pause
            time.sleep(0.01)
        raced = time.monotonic() - began
        self.proxy.heal()
        for _ in range(2):
            self._phase += 1
            self._history.enter(self._phase)
            self._await_all(self._phase)
        counts = Tally({each: self._history.total(each) for each in Counter if each is not Counter.WORST})
        return Result(raced, counts, self._history.total(Counter.WORST) / 1e6, strikes.struck)

    @property
    def _found(self) -> bool:
        return any(map(self._history.total, _BROKEN))

    def _await_all(self, phase: int) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._history.all_done(phase):
            ended = [worker.returncode for worker in self._workers if worker.poll() is not None]
            if ended or time.monotonic() > until:
                raise RuntimeError(f"not all came to the end of phase {phase}; ended with {ended}")
            time.sleep(0.005)

    def close(self) -> None:
        self._history.enter(history.OVER)
        for worker in self._workers:
            try:
                worker.wait(timeout=5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.proxy.close()
        self._history.close()
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def found_out(race: Race, name: str, seconds: float = 15.0) -> Result:
    """Race with a mutant until it is found out."""
    mutant = MUTANTS[name]
    faults = [mutant.fault] if mutant.fault is not None else []
    return race.round(seconds, faults=faults, pause=mutant.pause, mood=mutant.mood, mutant=name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--round", type=float, default=8.0, help="seconds of a round")
    parser.add_argument("--staleness", type=float, default=0.3)
    parser.add_argument("--faults", nargs="*", default=ALL)
    parser.add_argument("--mutants", action="store_true", help="show that each guard that is off is found out")
    options = parser.parse_args()
    failed = False
    with Race(staleness=options.staleness) as race:
        if options.mutants:
            for name in MUTANTS:
                result = found_out(race, name)
                print(f"{name}: {result}", flush=True)
                failed |= not result.violations
            return int(failed)
        for faults in ((), options.faults):
            sums = Result()
            while sums.seconds < options.seconds / 2:
                moods = ("calm", "eager")
                sums += race.round(options.round, faults=faults, mood=moods[int(sums.seconds) // 8 % 2])
            print(f"{'with' if faults else 'without'} faults: {sums}", flush=True)
            failed |= bool(sums.violations)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
