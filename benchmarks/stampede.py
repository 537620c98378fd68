"""Four processes of fifty callers, one missing key, a 50 ms loader: how many loads, and what the callers wait."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.race.stampede import Stampede
from tests.servers import RedisServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"median of {options.rounds} rounds; the loader takes 50 ms")
    print(f"{'callers':10} {'loads':>5} {'p50':>8} {'p99':>8}")
    for colour in ("threads", "tasks"):
        p50s, p99s, loads = [], [], []
        for _ in range(options.rounds):
            with RedisServer() as server:
                stampede = Stampede(server, [colour] * 4)
                try:
                    stampede.go()
                    waited = stampede.waited()
                    loads.append(len(stampede.loads()))
                finally:
                    stampede.close()
            p50s.append(waited[len(waited) // 2])
            p99s.append(waited[int(len(waited) * 0.99)])
        p50, p99 = statistics.median(p50s) * 1e3, statistics.median(p99s) * 1e3
        print(f"{colour:10} {max(loads):5} {p50:6.0f}ms {p99:6.0f}ms")


if __name__ == "__main__":
    main()
