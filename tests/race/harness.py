"""Runs the race for some seconds, with faults if wanted, and says what was read, written and violated."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.race.faults import Faults
from tests.race.proxy import FaultyProxy
from tests.race.truth import ERRORS, FAILED_WRITES, LOADS, READS, VIOLATIONS, WRITES, Truth
from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Result:
    """What the workers counted, and which faults struck."""

    reads: int
    writes: int
    violations: int
    loads: int
    errors: int
    failed_writes: int
    faults: dict[str, int]

    def __str__(self) -> str:
        struck = ", ".join(f"{count} x {name}" for name, count in self.faults.items()) or "none"
        return (
            f"{self.reads:,} reads, {self.writes:,} writes, {self.loads:,} loads, {self.violations} violations,"
            f" {self.errors} errors, {self.failed_writes} writes that said they failed; faults: {struck}"
        )


def race(seconds: float, *, kinds: list[str], faults: bool = False, lease: float = 1.0, slow: float = 0.01) -> Result:
    server = RedisServer()
    path = server.dir / "truth"
    truth = Truth(path)
    proxy = FaultyProxy(server.port)
    url = f"redis://127.0.0.1:{proxy.port}/0" if faults else server.url
    until = time.time() + seconds
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.race.worker", str(path), str(number), str(len(kinds))),
                *(url, kind, str(until), str(lease), str(slow)),
            ],
            cwd=ROOT,
        )
        for number, kind in enumerate(kinds)
    ]
    strikes = Faults(server, workers, proxy)
    try:
        while faults and time.time() < until - 1:
            time.sleep(0.15)
            strikes.strike()
        for worker in workers:
            worker.wait(timeout=seconds + 60)
        totals = [truth.total(each) for each in (READS, WRITES, VIOLATIONS, LOADS, ERRORS, FAILED_WRITES)]
        return Result(*totals, strikes.struck)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        proxy.close()
        truth.close()
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("--naive", action="store_true", help="show that the harness finds a naive cache out")
    options = parser.parse_args()
    kinds = ["naive"] * 4 if options.naive else ["threads", "tasks", "threads", "tasks"]
    result = race(options.seconds, kinds=kinds, faults=not (options.no_faults or options.naive), lease=0.3)
    print(result)
    return int(bool(result.violations or result.errors) and not options.naive)


if __name__ == "__main__":
    sys.exit(main())
