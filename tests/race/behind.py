"""A race of writes behind: processes that write, read and deliver, workers that are killed; the truth in shared memory.

Each key has a version that only grows. Nobody may read an older one than had been written, by a call that returned,
before he asked; and the table may never fall back to an older one.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import mmap
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachecraft import Cache
from cachecraft.worker import Worker
from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent
KEYS = 4
LEASE = 0.5
_ASSIGNED, _RETURNED, _TABLE, _BACK = range(4)
"""Of each key: the version written last, by a call that has returned, as delivered; how often the table fell back."""
_CELL = struct.Struct("<q")


class Truth:
    """What has happened, for all processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(4 * KEYS * _CELL.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def get(self, key: int, what: int) -> int:
        return int(_CELL.unpack_from(self._memory, (4 * key + what) * _CELL.size)[0])

    def set(self, key: int, what: int, value: int) -> None:
        _CELL.pack_into(self._memory, (4 * key + what) * _CELL.size, value)

    @contextmanager
    def locked(self, key: int) -> Iterator[None]:
        """Only one process at a time."""
        with Path(f"{self.path}.{key}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def deliver(self, key: int, version: int) -> None:
        if version < self.get(key, _TABLE):
            self.set(key, _BACK, self.get(key, _BACK) + 1)
        time.sleep(random.random() * 0.002)
        self.set(key, _TABLE, version)


def functions(cache: Cache, truth: Truth, *, is_async: bool, behind: bool = True) -> tuple[Any, Any]:
    """The cached function and the one that writes behind it, called the same in every process."""

    def get(key: int) -> int:
        return truth.get(key, _TABLE)

    async def aget(key: int) -> int:
        version = truth.get(key, _TABLE)
        await asyncio.sleep(0.001)
        return version

    def save(key: int, version: int) -> None:
        truth.deliver(key, version)

    async def asave(key: int, version: int) -> None:
        truth.deliver(key, version)

    for fn, name in ((get, "get"), (aget, "get"), (save, "save"), (asave, "save")):
        fn.__module__, fn.__qualname__ = "race", name
    cached = cache.cached(ttl=0.2, key="k:{key}")(aget if is_async else get)
    if not behind:
        return cached, None
    return cached, cache.write_behind(cached, value="version")(asave if is_async else save)


def write(cache: Cache, truth: Truth, until: float) -> dict[str, int]:
    _, save = functions(cache, truth, is_async=False)
    count = 0
    while time.monotonic() < until:
        key = random.randrange(KEYS)
        with truth.locked(key):
            version = truth.get(key, _ASSIGNED) + 1
            truth.set(key, _ASSIGNED, version)
            save(key, version)
            truth.set(key, _RETURNED, version)
        count += 1
        time.sleep(random.random() * 0.004)
    return {"writes": count}


def read(cache: Cache, truth: Truth, until: float, *, behind: bool = True) -> dict[str, int]:
    get, _ = functions(cache, truth, is_async=False, behind=behind)
    reads = stale = 0
    while time.monotonic() < until:
        key = random.randrange(KEYS)
        before = truth.get(key, _RETURNED)
        stale += get(key) < before
        reads += 1
        if random.random() < 0.02:
            get.invalidate(key) if random.random() < 0.7 else get.invalidate_all()
    return {"reads": reads, "stale" if behind else "of_strangers": stale}


async def aread(cache: Cache, truth: Truth, until: float) -> dict[str, int]:
    get, _ = functions(cache, truth, is_async=True)

    async def one() -> tuple[int, int]:
        reads = stale = 0
        while time.monotonic() < until:
            key = random.randrange(KEYS)
            before = truth.get(key, _RETURNED)
            stale += await get(key) < before
            reads += 1
        return reads, stale

    counts = await asyncio.gather(*(one() for _ in range(4)))
    await cache.aclose()
    return {"reads": sum(each[0] for each in counts), "stale": sum(each[1] for each in counts)}


def main(role: str, url: str, path: str, seconds: str) -> None:
    cache, truth = Cache(url, namespace="race", timeout=2.0), Truth(Path(path))
    if role.endswith("worker"):
        functions(cache, truth, is_async=role.startswith("async"))
        worker = Worker(cache, lease=LEASE, poll=0.02)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        print("ready", flush=True)
        worker.run()
        return
    print("ready", flush=True)
    until = time.monotonic() + float(seconds)
    if role == "writer":
        result = write(cache, truth, until)
    elif role == "areader":
        result = asyncio.run(aread(cache, truth, until))
    else:
        result = read(cache, truth, until, behind=role != "stranger")
    print(json.dumps(result), flush=True)


@dataclass
class Result:
    reads: int = 0
    writes: int = 0
    stale: int = 0
    """Reads of an older version than had been written."""
    of_strangers: int = 0
    """The same, by those who do not ask what waits."""
    back: int = 0
    """How often the table fell back."""
    undelivered: int = 0
    """Keys whose last version never reached the table."""
    kills: int = 0


def race(server: RedisServer, seconds: float, roles: list[str]) -> Result:
    """Let processes of these roles loose, and kill one of the two workers every now and then."""
    truth = Truth(server.dir / "truth")

    def start(role: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.race.behind", role, server.url, str(truth.path), str(seconds)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    result = Result()
    workers = [start("worker"), start("async-worker")]
    crowd = [start(role) for role in roles]
    try:
        while any(each.poll() is None for each in crowd):
            time.sleep(0.7)
            victim = random.randrange(2)
            with workers[victim]:
                workers[victim].kill()
            workers[victim] = start(random.choice(["worker", "async-worker"]))
            result.kills += 1
        for each in crowd:
            assert each.stdout is not None
            for name, count in json.loads(each.stdout.readline()).items():
                setattr(result, name, getattr(result, name) + count)
        with Cache(server.url, namespace="race") as cache:
            functions(cache, truth, is_async=False)
            Worker(cache, lease=LEASE, poll=0.02).drain()
        result.back = sum(truth.get(key, _BACK) for key in range(KEYS))
        result.undelivered = sum(truth.get(key, _TABLE) != truth.get(key, _ASSIGNED) for key in range(KEYS))
    finally:
        for each in [*workers, *crowd]:
            with each:  # which closes and waits
                each.kill()
    return result


def told() -> None:
    """`make race-behind`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    with RedisServer() as server:
        print(race(server, parser.parse_args().seconds, ["writer", "writer", "reader", "areader", "stranger"]))


if __name__ == "__main__":
    told() if len(sys.argv) < 2 or sys.argv[1].startswith("-") else main(*sys.argv[1:])
