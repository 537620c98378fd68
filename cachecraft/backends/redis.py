"""The remote store on one Redis server: performs the effects, and fences each new connection.

It knows the protocol's commands and its two transports; no function, no policy, no value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Final

from cachecraft._core.effects import Remote, Sweep
from cachecraft.backends.commands import PLANS, Command, scan, unlink_each
from cachecraft.backends.transports import AsyncTransport, Dialling, Transport

ROOT: Final = "~root"
"""The stamp every entry of a namespace carries."""
_RUN: Final = "~runid"


class RedisBackend:
    """Performs remote effects on a Redis or Valkey server, for threads and for tasks."""

    def __init__(self, dialling: Dialling, *, trust: bool = False) -> None:
        self._trust = trust
        self._prefixes: list[str] = []
        self._sync = Transport(dialling, self._greet)
        self._async = AsyncTransport(dialling, self._agreet)

    def serve(self, prefix: str) -> None:
        """Take note of a namespace: connections are fenced for it before they are used again."""
        if prefix not in self._prefixes:
            self._prefixes.append(prefix)
            self._sync.fences = self._async.fences = len(self._prefixes)

    # -- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effect: Remote[Any]) -> Any:
        if isinstance(effect, Sweep):
            return self._run(_sweep(effect))
        plan = PLANS[type(effect)]
        return plan.answer(effect, self._sync.execute(plan.commands(effect)))

    async def aperform(self, effect: Remote[Any]) -> Any:
        if isinstance(effect, Sweep):
            return await self._arun(_sweep(effect))
        plan = PLANS[type(effect)]
        return plan.answer(effect, await self._async.execute(plan.commands(effect)))

    def _run(self, talk: _Talk) -> Any:
        replies = None
        try:
            while True:
                replies = self._sync.execute(talk.send(replies))
        except StopIteration as end:
            return end.value

    async def _arun(self, talk: _Talk) -> Any:
        replies = None
        try:
            while True:
                replies = await self._async.execute(talk.send(replies))
        except StopIteration as end:
            return end.value

    def ping(self) -> float:
        """Seconds of one round trip."""
        began = time.perf_counter()
        self._sync.execute([("PING",)])
        return time.perf_counter() - began

    async def aping(self) -> float:
        """As ``ping``."""
        began = time.perf_counter()
        await self._async.execute([("PING",)])
        return time.perf_counter() - began

    # -- connections -------------------------------------------------------------------------------------------------

    def _greet(self, send: Callable[[Command], Any]) -> None:
        talk = self._fence()
        reply = None
        try:
            while True:
                reply = send(talk.send(reply)[0])
        except StopIteration:
            return

    async def _agreet(self, send: Callable[[Command], Any]) -> None:
        talk = self._fence()
        reply = None
        try:
            while True:
                reply = await send(talk.send(reply)[0])
        except StopIteration:
            return

    def _fence(self) -> _Talk:
        """Whoever finds another server than the namespace was last used on lets its root stamp fall.

        So neither a restart from an old snapshot nor a replica that lagged behind can bring back what was invalidated.
        The stamp falls before the server is remembered: who dies in between leaves it to the next to do both again.
        """
        if self._trust or not self._prefixes:
            return
        info = yield [("INFO", "server")]
        run = _field(info, b"run_id")
        for prefix in self._prefixes:
            known = yield [("GET", prefix + _RUN)]
            if known != run:
                yield [("UNLINK", prefix + ROOT)]
                yield [("SET", prefix + _RUN, run, "PX", _YEAR)]

    def after_fork(self) -> None:
        self._sync.after_fork()
        self._async.after_fork()

    def close(self) -> None:
        self._sync.close()

    async def aclose(self) -> None:
        self._sync.close()
        await self._async.aclose()

    def __repr__(self) -> str:
        return f"<RedisBackend {self._sync!r} {self._async!r}>"


_Talk = Generator[list[Command], Any, Any]
"""A conversation: yields commands to send, is sent the replies."""

_YEAR: Final = 365 * 86400 * 1000


def _sweep(effect: Sweep) -> _Talk:
    """Remove what matches, found by SCAN. A key that is there from beginning to end of a scan is met by it."""
    cursor, removed = 0, 0
    reserved = effect.prefix.encode() + b"~"
    while True:
        (cursor, keys), *_ = yield [scan(cursor, effect.prefix + effect.pattern)]
        doomed = [key for key in keys if not key.startswith(reserved)]
        if doomed:
            removed += sum((yield unlink_each(doomed)))
        if effect.progress is not None:
            effect.progress(removed)
        cursor = int(cursor)
        if not cursor:
            return removed


def _field(info: Any, name: bytes) -> bytes:
    if isinstance(info, dict):  # redis-py may have parsed it
        return str(info[name.decode()]).encode()
    for line in info.splitlines():
        field, _, value = line.partition(b":")
        if field == name:
            return bytes(value.strip())
    return b"?"
