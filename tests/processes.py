"""Another process with a cache of the namespace `shop`, which does as it is told and publishes when it is asked to."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.terminal import ROOT, environment

_PROGRAM = """
import sys
from dataclasses import make_dataclass
from cachecraft import Cache

url, *fields = sys.argv[1:]
cache = Cache(url, namespace="shop", jitter=None, publish_stats=3600)
User = make_dataclass("User", fields)

def get_user(user: int) -> User:
    return User(*map(str, range(len(fields))))

get_user.__module__ = "shop"
get_user = cache.cached(ttl=60, key="user:{user}")(get_user)
publish = lambda: cache.keeper.publisher.publish()

for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Process:
    """A program whose `get_user` returns a dataclass with the given fields."""

    def __init__(self, url: str, *fields: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, url, *fields],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.name = f"{socket.gethostname()}:{self._process.pid}"

    def do(self, statement: str) -> None:
        """Have it do something, and publish what it knows then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement}; publish()\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", statement

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate(timeout=10)

    def __repr__(self) -> str:
        return f"<Process {self.name}>"
