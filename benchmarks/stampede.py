"""Four processes of fifty callers, one missing key, a 50 ms loader: how many loads, and what the callers wait.

Contestants take turns, round by round. ``bare`` are as many threads that use no cache: in each process one naps for the
50 ms and wakes the others, each of which waits at a lock. Faster than that no threads can be on this machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.race.stampede import Stampede
from tests.servers import RedisServer

LIMIT = 0.070


def stampede(colour: str) -> tuple[int, float, float]:
    """How often was loaded, and the median and 99th percentile of what the callers waited, in seconds."""
    with RedisServer() as server:
        crowd = Stampede(server, [colour] * 4)
        try:
            crowd.go()
            waited = crowd.waited()
            return len(crowd.loads()), waited[len(waited) // 2], waited[int(len(waited) * 0.99)]
        finally:
            crowd.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    colours = ("bare", "threads", "tasks")
    rounds = [{colour: stampede(colour) for colour in colours} for _ in range(options.rounds)]
    print(f"medians of {options.rounds} rounds; the loader takes 50 ms, and p99 is to be <= {LIMIT * 1e3:.0f} ms")
    print(f"{'callers':10} {'loads':>5} {'p50':>8} {'p99':>8} {'p99 x bare':>11} {'within the limit':>17}")
    for colour in colours:
        loads = max(each[colour][0] for each in rounds)
        p50, p99 = (median(each[colour][at] for each in rounds) * 1e3 for at in (1, 2))
        ratio = median(each[colour][2] / each["bare"][2] for each in rounds)
        within = sum(each[colour][2] <= LIMIT for each in rounds)
        print(
            f"{colour:10} {loads or '-':>5} {p50:6.0f}ms {p99:6.0f}ms {ratio:11.2f} {f'{within} of {len(rounds)}':>17}"
        )


if __name__ == "__main__":
    main()
