"""What a cache is made of, made of its settings: the keeper, the driver, and who publishes what they count.

It opens nothing, and knows neither when it is asked nor for how long the cache lives.
"""

from __future__ import annotations

from dataclasses import replace

from cachecraft._core.calls import prefix_of
from cachecraft._core.events import Hooks
from cachecraft._core.ports import Keeper
from cachecraft._crew import Crew
from cachecraft._drivers import Driver
from cachecraft._settings import Settings
from cachecraft._telling import Teller
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.guard import Guard
from cachecraft.backends.listener import listener_for
from cachecraft.backends.local_keeper import LocalKeeper
from cachecraft.backends.memory import Memory
from cachecraft.backends.near_keeper import NearKeeper
from cachecraft.backends.publisher import Publisher
from cachecraft.backends.redis import RedisBackend
from cachecraft.backends.remote_keeper import RemoteKeeper
from cachecraft.reports import Reporter
from cachecraft.serializers import MsgpackSerializer


def made(settings: Settings, hooks: Hooks, teller: Teller) -> tuple[Keeper, Driver, Publisher | None]:
    if settings.url.startswith("memory://"):
        return LocalKeeper(_memory(settings), hooks), Driver(None, Crew()), None
    serializer = settings.serializer or MsgpackSerializer()
    if settings.backend is not None:
        return RemoteKeeper(settings, settings.backend, serializer, hooks=hooks), Driver(settings.backend, Crew()), None
    addressed = dialling(settings)
    guard = _guarded(settings, addressed, hooks)
    listener = listener_for(addressed, guard)
    guard.changed = listener.changed
    remote, driver = RemoteKeeper(settings, guard, serializer, listener, hooks), Driver(guard, Crew())
    if settings.publish_stats is not None:
        remote.publisher = Publisher(
            addressed,
            Reporter(teller, remote.heat, remote.lately),
            prefix=prefix_of(settings.namespace),
            period=settings.publish_stats,
            may=lambda: not (guard.breaker.open or guard.journal),
        )
    near = settings.near
    if near is None:
        return remote, driver, remote.publisher
    memory = _memory(settings, near.max_entries, near.max_bytes)
    return NearKeeper(remote, memory, listener, near.staleness), driver, remote.publisher


def dialling(settings: Settings) -> Dialling:
    return Dialling(settings.url, settings.timeout, settings.connect_timeout, settings.pool_size)


def _memory(settings: Settings, max_entries: int | None = None, max_bytes: int | None = None) -> Memory:
    return Memory(
        max_entries=max_entries or settings.max_entries,
        max_bytes=max_bytes or settings.max_bytes,
        clock=settings.clock,
        random=settings.random,
    )


def _guarded(settings: Settings, addressed: Dialling, hooks: Hooks) -> Guard:
    trust = settings.on_failover == "trust"
    backend, spare = RedisBackend(addressed, trust=trust), RedisBackend(replace(addressed, pool_size=1), trust=trust)
    return Guard(backend, spare, loud=settings.on_unreachable == "raise", hooks=hooks)
