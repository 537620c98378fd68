"""The near cache: what a hit costs beside one in memory and one in Redis, what it costs to listen, what it brings.

1. Hits. Contestants take turns round by round in one process, each in a loop compiled for it alone; a ratio is the
   median over the rounds. The same function, decorated alike, in memory, near, and in Redis alone.
2. To listen. One process invalidates, at a rate and as fast as it goes, while 0, 1, 4 or 16 others listen and do
   nothing else; and what they and the server cost while nobody writes.
3. Many processes at once, whose keys are wanted by Zipf's law, with near caches and without, by the share of writes.

All processes and the server share one machine: where it has few processors, they share those too.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._crowd import KEYS, Crowd, Use, Worker
from cachecraft import Cache
from tests.servers import RedisServer

LIMIT: Final = 1.15
CALLS: Final = 1_000
SLOWER: Final = 20
"""What asks Redis is measured in one round of so many, and of what takes microseconds there are so many fewer calls."""
ASKING: Final = 100
RATE: Final = 1_000
LISTENERS: Final = (0, 1, 4, 16)
SHARES: Final = (0.001, 0.01, 0.1)
PROCESSES: Final = 8
SECONDS: Final = 2.0

RUNNER: Final = asyncio.Runner()

# -- hits ------------------------------------------------------------------------------------------------------------


def plain(cached: Any) -> Any:
    @cached(ttl=3600)
    def f(x: int) -> int:
        return x

    return f


def mixed(cached: Any) -> Any:
    @cached(ttl=3600)
    def f(a: str, b: int, *, c: int = 1) -> int:
        return b

    return f


def rows(cached: Any) -> Any:
    @cached(ttl=3600)
    def f(x: int) -> list[int]:
        return [x] * 10

    return f


def method(cached: Any) -> Any:
    class Owner:
        id = 7

        @cached(ttl=3600, key="owner:{self.id}:{x}")
        def f(self, x: int) -> int:
            return x

    return Owner()


def plain_async(cached: Any) -> Any:
    @cached(ttl=3600)
    async def f(x: int) -> int:
        return x

    return f


def mixed_async(cached: Any) -> Any:
    @cached(ttl=3600)
    async def f(a: str, b: int, *, c: int = 1) -> int:
        return b

    return f


def method_async(cached: Any) -> Any:
    class Owner:
        id = 7

        @cached(ttl=3600, key="owner:{self.id}:{x}")
        async def f(self, x: int) -> int:
            return x

    return Owner()


CASES: Final[dict[str, tuple[Callable[[Any], Any], str, int]]] = {
    "f(int)": (plain, "f(5)", CALLS),
    "f(str, int, kw=)": (mixed, "f('a', 5, c=2)", CALLS),
    "f(int), a list": (rows, "f(5)", CALLS),
    "method, by key=": (method, "f.f(5)", CALLS // SLOWER),
    "async f(int)": (plain_async, "f(5)", CALLS),
    "async f(str, int, kw=)": (mixed_async, "f('a', 5, c=2)", CALLS),
    "async method, by key=": (method_async, "f.f(5)", CALLS // SLOWER),
}


def loop_of(call: str, target: Any, *, is_async: bool) -> Callable[[int], float]:
    """Seconds that so many calls take."""
    source = f"""
{"async " * is_async}def loop(count):
    begin = clock()
    for _ in range(count):
        {"await " * is_async}{call}
    return clock() - begin
"""
    space = {"f": target, "clock": time.perf_counter}
    exec(source, space)  # noqa: S102 - the text stands above
    loop: Any = space["loop"]
    return (lambda count: RUNNER.run(loop(count))) if is_async else loop


def hits(url: str, rounds: int) -> list[str]:
    """Answers what missed the limit."""
    print(f"a hit, x the same in memory: medians of {rounds} rounds; near is to be <= {LIMIT}")
    print(f"{'':24}{'in memory':>12}{'near':>8}{'in Redis':>10}{'near hits/s':>14}{'in Redis':>10}", flush=True)
    missed = []
    for name, (make, call, calls) in CASES.items():
        with Cache() as memory, Cache(url, namespace="a", near=True) as near, Cache(url, namespace="b") as far:
            is_async = name.startswith("async")
            loops = {
                each: loop_of(call, make(cache.cached), is_async=is_async)
                for each, cache in (("memory", memory), ("near", near), ("far", far))
            }
            for loop in loops.values():
                loop(10)
            while not near.stats.near_hits:
                loops["near"](1)
            times: dict[str, list[float]] = {each: [] for each in loops}
            asked = near.stats.hits - near.stats.near_hits
            for number in range(rounds):
                for each, loop in loops.items():
                    if each != "far":
                        times[each].append(loop(calls) / calls)
                    elif number % SLOWER == 0:
                        times[each].append(loop(ASKING) / ASKING)
            if is_async:
                for cache in (near, far):
                    RUNNER.run(cache.aclose())
            asked = near.stats.hits - near.stats.near_hits - asked
        ratio = median(a / b for a, b in zip(times["near"], times["memory"], strict=True))
        own, far_time = median(times["memory"]), median(times["far"])
        per_second = f"{1 / median(times['near']):14,.0f}{1 / far_time:10,.0f}"
        print(f"{name:24}{own * 1e9:9.0f} ns{ratio:8.2f}{far_time / own:10.0f}{per_second}", flush=True)
        if asked > rounds * calls / 100:
            print(f"  of these, {asked:.0f} calls asked Redis: the machine is too busy for this benchmark")
        if ratio > LIMIT:
            missed.append(f"{name}: {ratio:.3f} > {LIMIT}")
    return missed


# -- to listen -------------------------------------------------------------------------------------------------------


class Meter:
    """What the server did between two looks."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._began, self._seen = time.perf_counter(), self._look()

    def _look(self) -> dict[str, float]:
        told = self._server.cli("INFO")
        names = ("used_cpu_user", "used_cpu_sys", "total_net_output_bytes", "total_commands_processed")
        return {name: float(told[name]) for name in names}

    def read(self) -> tuple[float, float, float]:
        """Processors in use, bytes sent a second, commands a second."""
        now, seconds = self._look(), time.perf_counter() - self._began
        cpu, system, sent, commands = ((now[name] - self._seen[name]) / seconds for name in now)
        return cpu + system, sent, commands


def listening(server: RedisServer, crowd: Crowd, rounds: int) -> None:
    writer, figures = slice(0, 1), dict[tuple[str, int], list[tuple[float, ...]]]()
    for _ in range(rounds):
        for count in LISTENERS:
            others = slice(1, 1 + count)
            crowd.do(others, Worker.open, True)
            crowd.do(writer, Worker.open, False)
            for what in ("idle", "key", "tag"):
                resting, meter = crowd.begin(others, Worker.rest, SECONDS), Meter(server)
                if what == "idle":
                    crowd.do(writer, Worker.rest, SECONDS)
                else:
                    crowd.do(writer, Worker.write, SECONDS, RATE, what)
                rests: list[Use] = resting()
                cpu, sent, _ = meter.read()
                flat: list[Use] = [] if what == "idle" else crowd.do(writer, Worker.write, SECONDS / 2, 0, what)
                speed = sum(each.writes / each.seconds for each in flat)
                own = sum(each.cpu / each.seconds for each in rests) / max(1, count)
                heard = sum(each.received / each.seconds for each in rests) / max(1, count)
                figures.setdefault((what, count), []).append((cpu, sent, own, heard, speed))
            crowd.do(slice(0, 1 + count), Worker.close)
    names = {"idle": "nobody writes", "key": f"{RATE} keys/s", "tag": f"{RATE} tags/s, each set anew"}
    print(f"\nto listen; medians of {rounds} rounds. CPU in per cent of one processor")
    print(f"{'':28}{'listeners':>10}{'server':>8}{'each':>8}{'heard/s':>9}{'sent kB/s':>11}{'flat out, writes/s':>20}")
    for what, name in names.items():
        for count in LISTENERS:
            cpu, sent, own, heard, speed = (median(each) for each in zip(*figures[what, count], strict=True))
            listener = f"{own:8.2%}{heard:9.0f}" if count else f"{'-':>8}{'-':>9}"
            flat_out = f"{speed:20,.0f}" if speed else f"{'-':>20}"
            print(f"{name:28}{count:10}{cpu:8.1%}{listener}{sent / 1000:11.1f}{flat_out}", flush=True)


# -- what it brings --------------------------------------------------------------------------------------------------


def zipf(server: RedisServer, crowd: Crowd, rounds: int) -> None:
    everybody = slice(0, PROCESSES)
    figures: dict[tuple[float, bool], list[tuple[float, ...]]] = {}
    for _ in range(rounds):
        for near in (False, True):
            crowd.do(everybody, Worker.open, near)
            crowd.do(everybody if near else slice(0, 1), Worker.warm)
            for share in SHARES:
                crowd.do(everybody, Worker.zipf, SECONDS / 4, share)
                meter = Meter(server)
                uses: list[Use] = crowd.do(everybody, Worker.zipf, SECONDS, share)
                cpu, _, commands = meter.read()
                reads = sum(each.reads for each in uses)
                speed = sum(each.reads / each.seconds for each in uses)
                near_hits = sum(each.near_hits for each in uses) / reads
                figures.setdefault((share, near), []).append((speed, near_hits, commands, commands / speed, cpu))
            crowd.do(everybody, Worker.close)
    print(f"\n{PROCESSES} processes, {KEYS} keys by Zipf's law, as fast as they go; medians of {rounds} rounds")
    print(f"{'':14}{'':8}{'reads/s':>12}{'near hits':>11}{'Redis commands/s':>18}{'a read':>8}{'server':>8}")
    for share in SHARES:
        for near in (False, True):
            speed, near_hits, commands, each, cpu = map(median, zip(*figures[share, near], strict=True))
            title = f"{share:.1%} writes" if not near else ""
            print(
                f"{title:14}{'near' if near else 'Redis':8}{speed:12,.0f}{near_hits:11.1%}{commands:18,.0f}{each:8.2f}"
                f"{cpu:8.0%}",
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="of the hits; a fortieth of that for the rest")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    parser.add_argument("--only", choices=("hits", "listening", "zipf"))
    options, _ = parser.parse_known_args()
    few, missed = max(1, options.rounds // 40), list[str]()
    with RedisServer() as server:
        if options.only in (None, "hits"):
            missed = hits(server.url, options.rounds)
        if options.only != "hits":
            with Crowd(server.url, 1 + max(LISTENERS)) as crowd:
                if options.only in (None, "listening"):
                    listening(server, crowd, few)
                if options.only in (None, "zipf"):
                    zipf(server, crowd, few)
    for line in missed:
        print(f"missed: {line}")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
