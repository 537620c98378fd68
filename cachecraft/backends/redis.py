"""The remote store on one Redis server: performs the effects, and fences each new connection.

It knows the protocol's commands and its two transports; no function, no policy, no value.
"""

from __future__ import annotations

import time
from typing import Any, Final

from redis.exceptions import ResponseError

from cachecraft._core.behind import QUEUES
from cachecraft._core.effects import Remote, Sweep
from cachecraft._core.refresh import claim_key
from cachecraft.backends.commands import PLANS, RELEASE, leave, scan, tell_swept, unlink_each
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.pipes import AsyncTransport
from cachecraft.backends.transports import Talk, Transport

ROOT: Final = "~root"
"""The stamp every entry of a namespace carries."""
PROBE: Final = "~probe"
"""A key that is never there: to delete it changes nothing, and only a server that takes invalidations does it."""
STATS: Final = "stats~:"
"""What the names of published reports begin with. Not with ``~``, as stamps do: nobody is to be woken by them."""
_RUN: Final = "~runid"


class RedisBackend:
    """Performs remote effects on a Redis or Valkey server, for threads and for tasks."""

    def __init__(self, dialling: Dialling, *, trust: bool = False) -> None:
        self._trust = trust
        self._prefixes: list[str] = []
        self._outages = 0
        self._sync = Transport(dialling, self._fence)
        self._async = AsyncTransport(dialling, self._fence)

    def serve(self, prefix: str) -> None:
        """Take note of a namespace: connections are fenced for it before they are used again."""
        if prefix not in self._prefixes:
            self._prefixes.append(prefix)
            self._sync.fences = self._async.fences = (self._outages, len(self._prefixes))

    def renew(self) -> None:
        """Distrust every connection made so far: the server was out of reach, and they may lead nowhere."""
        self._outages += 1
        self._async.fences = (self._outages, len(self._prefixes))
        self._sync.renew(self._async.fences)

    # -- effects ---------------------------------------------------------------------------------------------

    def perform(self, effect: Remote[Any]) -> Any:
        if isinstance(effect, Sweep):
            return self._sync.converse(_sweep(effect))
        plan = PLANS[type(effect)]
        return plan.answer(effect, self._sync.execute(plan.commands(effect)))

    async def aperform(self, effect: Remote[Any]) -> Any:
        if isinstance(effect, Sweep):
            return await self._async.converse(_sweep(effect))
        plan = PLANS[type(effect)]
        return plan.answer(effect, await self._async.execute(plan.commands(effect)))

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

    # -- connections -----------------------------------------------------------------------------------------

    def _fence(self) -> Talk:
        """Whoever finds another server than the namespace was last used on lets its root stamp fall.

        So neither a restart from an old snapshot nor a replica that lagged behind can bring back what was invalidated.
        The stamp falls before the server is remembered: who dies in between leaves it to the next to do both again.

        Only the stamp that was read before falls, and only if the server was not remembered yet: so of many who come
        at once, none takes down the stamp under which another has begun to load.
        """
        if self._trust or not self._prefixes:
            return
        (info,) = yield [("INFO", "server")]
        run = _field(info, b"run_id")
        prefixes = list(self._prefixes)
        # All namespaces in as many round trips as one takes. The roots first, and MGET of one key each: of both, it
        # would need one slot in a cluster; and a foreign type reads as nothing.
        found = yield [("MGET", prefix + name) for name in (ROOT, _RUN) for prefix in prefixes]
        roots, runs = found[: len(prefixes)], found[len(prefixes) :]
        new = [(prefix, root) for prefix, (root,), (known,) in zip(prefixes, roots, runs, strict=True) if known != run]
        fall = [("EVALSHA", RELEASE.sha, 1, prefix + ROOT, root) for prefix, root in new if root is not None]
        if fall:
            yield fall
        if new:
            try:
                yield [("SET", prefix + _RUN, run, "PX", _YEAR) for prefix, _ in new]
            except ResponseError:  # no memory left for it: whoever comes next lets the stamp fall again
                pass

    def after_fork(self) -> None:
        self._sync.after_fork()
        self._async.after_fork()

    @property
    def connected(self) -> bool:
        """Whether it holds connections that ``close`` would let go of."""
        return self._sync.connected or self._async.connected

    def close(self) -> None:
        self._sync.close()
        self._async.close()

    async def aclose(self) -> None:
        self.close()
        await self._async.aclose()

    def __repr__(self) -> str:
        return f"<RedisBackend {self._sync!r} {self._async!r}>"


_YEAR: Final = 365 * 86400 * 1000


def _sweep(effect: Sweep) -> Talk:
    """Remove what matches, found by SCAN. A key that is there from beginning to end of a scan is met by it.

    One connection for all of it: the cursor of a server that was restarted meanwhile would lead past entries.
    """
    cursor, removed = 0, 0
    prefix, claim = effect.prefix.encode(), claim_key("").encode()
    ours = (prefix + b"~", prefix + STATS.encode(), prefix + QUEUES.encode())
    while True:
        (cursor, keys), *_ = yield [scan(cursor, effect.prefix + effect.pattern)]
        doomed = [key for key in keys if not (key.startswith(ours) or key.endswith(claim))]
        if doomed:
            gone = yield unlink_each(doomed)
            # What is kept aside of another release's entry is no entry more.
            removed += sum(count for key, count in zip(doomed, gone, strict=True) if b"~" not in key[len(prefix) :])
        if effect.progress is not None:
            effect.progress(removed)
        cursor = int(cursor)
        if not cursor:
            yield [tell_swept(effect.prefix, effect.pattern), *leave(effect.trail)]
            return removed


def _field(info: Any, name: bytes) -> bytes:
    if isinstance(info, dict):  # redis-py may have parsed it
        return str(info[name.decode()]).encode()
    for line in info.splitlines():
        field, _, value = line.partition(b":")
        if field == name:
            return bytes(value.strip())
    return b"?"
