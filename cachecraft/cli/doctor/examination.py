"""The checks in their order: what each asks of the server. It writes nothing, and ends whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from redis.exceptions import NoPermissionError

from cachecraft._core.errors import BackendRefused
from cachecraft.backends.commands import gone_channel
from cachecraft.cli.doctor import rules
from cachecraft.cli.doctor.advising import advised
from cachecraft.cli.doctor.finding import GOOD, UNKNOWN, Finding
from cachecraft.cli.doctor.rights import rights
from cachecraft.cli.figures import duration
from cachecraft.cli.queues import Standing, standings
from cachecraft.cli.server import Server
from cachecraft.cli.slots import is_internal
from cachecraft.cli.terminal import shown, text_of

PINGS: Final = 200
KEYS: Final = 10_000
"""Keys of the namespace to look at."""
PATIENCE: Final = 1.5
"""Seconds for the pings, and for the scan: of another namespace's million keys it need not meet all."""


def examine(server: Server, pool_size: int) -> Iterator[Finding]:
    """One finding after the other.

    Raises:
        BackendError: the server went away in the middle.
    """
    yield Finding(
        "connection",
        GOOD,
        f"made in {duration(server.took)}, as user {shown(server.user)!r}",
        numbers={"connect_ms": round(server.took * 1e3, 3), "user": server.user},
    )
    yield _latency(server)
    try:
        began = time.time()
        info = server.info()
        asked = (began + time.time()) / 2
    except BackendRefused:
        info, asked = {}, 0.0
    queues = _queues(server)
    yield rules.server(info) if info else _untold("server")
    yield rules.memory(info, behind=bool(queues)) if info else _untold("memory")
    yield rules.persistence(info, behind=bool(queues)) if info else _untold("persistence")
    yield rights(server)
    there = info.get("server_time_usec", "")
    yield rules.clock(int(there) / 1e6 - asked if there.isdigit() else None)
    yield rules.tracking(_tracking_refusal(server))
    yield _lasting(server)
    yield rules.pool(info, pool_size) if info else _untold("pool")
    yield rules.hit_rate(info) if info else _untold("hit rate")
    if queues:
        yield rules.behind(queues, info)
    yield from advised(server.target)


def _untold(check: str) -> Finding:
    return Finding(check, UNKNOWN, "this user may not ask for INFO")


def _latency(server: Server) -> Finding:
    pings: list[float] = []
    until = time.perf_counter() + PATIENCE
    try:
        while len(pings) < PINGS and time.perf_counter() < until:
            began = time.perf_counter()
            server.one("PING")
            pings.append(time.perf_counter() - began)
    except BackendRefused:
        return Finding("latency", UNKNOWN, "this user may not PING")
    return rules.latency(pings)


def _tracking_refusal(server: Server) -> str | None:
    """On a connection of its own, which ends with it: RESP3 stays, and invalidations would come unasked."""
    prefix = server.target.prefix
    with server.target.server() as another:
        for command in (
            ("HELLO", 3),
            ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", f"{prefix}~"),
            ("SUBSCRIBE", gone_channel(prefix)),
            ("UNSUBSCRIBE", gone_channel(prefix)),
        ):
            (reply,) = another.ask(command)
            if isinstance(reply, NoPermissionError):
                return "no permission"
            if isinstance(reply, Exception):
                return str(reply)
    return None


def _lasting(server: Server) -> Finding:
    prefix, until = server.target.prefix.encode(), time.perf_counter() + PATIENCE
    seen, lasting, whole = 0, [], True
    try:
        for names in server.scan(f"{server.target.prefix}*"):
            keys = [name for name in names if not is_internal(name, prefix)]
            for name, left in zip(keys, server.ask(*(("PTTL", key) for key in keys)) if keys else (), strict=True):
                seen += 1
                if left == _NEVER:
                    lasting.append(text_of(name))
            if seen >= KEYS or time.perf_counter() > until:
                whole = False
                break
    except BackendRefused:
        return Finding("ttl", UNKNOWN, "this user may not SCAN")
    return rules.lasting(seen, lasting, whole=whole)


_NEVER: Final = -1


def _queues(server: Server) -> list[Standing]:
    try:
        return standings(server, time.perf_counter() + PATIENCE)
    except BackendRefused:  # a cache need not be allowed to ask, and there are none then
        return []
