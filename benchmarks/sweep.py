"""Invalidations on a Redis with a million keys: seconds they take, and what others wait for a ``GET`` meanwhile.

One key in a hundred matches the pattern. The bystander is a process of its own that asks for one key after another; of
what it waits, the worst and the 99.9th percentile are shown, and on one core the machine's own hiccups with them: the
row ``nothing`` is the bystander alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import redis

sys.path.insert(0, str(Path(__file__).parent.parent))

from cachecraft import Cache
from tests.servers import RedisServer

FILL: Final = """
for i = ARGV[1], ARGV[2] do
    redis.call('SET', 'shop:' .. (i % 100 == 0 and 'user:' or 'other:') .. i, ARGV[3], 'PX', 3600000)
end
"""
SLICE: Final = 20_000


def bystander(url: str, started: Any, stop: Any, answer: Any) -> None:
    client = redis.Redis.from_url(url)
    waits: list[float] = []
    client.get("shop:other:1")
    started.set()
    while not stop.is_set():
        began = time.perf_counter()
        client.get("shop:other:1")
        waits.append(time.perf_counter() - began)
    waits.sort()
    answer.put((waits[-1] * 1e3, waits[int(len(waits) * 0.999)] * 1e3))


def watched(url: str, work: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds the work takes, and milliseconds that the bystander waits: the worst, and the 99.9th percentile."""
    context = multiprocessing.get_context("spawn")
    started, stop, answer = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=bystander, args=(url, started, stop, answer))
    process.start()
    started.wait()
    began = time.perf_counter()
    work()
    taken = time.perf_counter() - began
    stop.set()
    worst, most = answer.get()
    process.join()
    return taken, worst, most


def fill(client: redis.Redis, entries: int) -> None:
    for start in range(0, entries, SLICE):
        client.eval(FILL, 0, start, min(start + SLICE, entries) - 1, "x" * 100)


def by_scan(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    for key in client.scan_iter(match="shop:user:*", count=1000):
        pipe.unlink(key)
    pipe.execute()


def by_keys(client: redis.Redis) -> None:
    client.unlink(*client.keys("shop:user:*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options, _ = parser.parse_known_args()
    with (
        RedisServer() as server,
        redis.Redis.from_url(server.url) as client,
        Cache(server.url, namespace="shop") as cache,
    ):
        cases: dict[str, Callable[[], object]] = {
            "nothing": lambda: time.sleep(1),
            "pattern": lambda: cache.invalidate(pattern="user:*"),
            "pattern, redis-py SCAN 1000": lambda: by_scan(client),
            "pattern, redis-py KEYS": lambda: by_keys(client),
            "tag": lambda: cache.invalidate(tags=["all"]),
            "everything": cache.clear,
        }
        cache.get("warm")
        print(
            f"{options.entries:,} keys, medians of {options.rounds} rounds: seconds, and ms that a GET waits meanwhile"
        )
        print(f"{'':30}{'seconds':>10}{'worst':>10}{'99.9 %':>10}")
        for name, work in cases.items():
            rounds = []
            for _ in range(options.rounds):
                fill(client, options.entries)
                rounds.append(watched(server.url, work))
            taken, worst, most = map(median, zip(*rounds, strict=True))
            print(f"{name:30}{taken:10.4f}{worst:10.1f}{most:10.2f}", flush=True)


if __name__ == "__main__":
    main()
