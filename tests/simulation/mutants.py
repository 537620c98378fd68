"""The cache with one rule of the protocol switched off: the world must find out, or it is too weak a world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from cachecraft._core import flows, load, sight, writing
from cachecraft._core.effects import Acquire, Delete, Flow, Reading, Remote, Stamp, Store
from cachecraft._core.entry import ENTRY, PLACEHOLDER, handle, pack_placeholder
from cachecraft._core.sight import Seek, Sight, Won
from cachecraft.backends import commands, redis, remote, remote_keeper
from cachecraft.backends.commands import PLANS, RELEASE, STAMP_TTL, Plan, milliseconds
from tests.simulation import network
from tests.simulation.faults import aged, failing, lease_over, lost, restarted, stamp_evicted
from tests.simulation.jobs import drop, put, read, renew, sweep, untag, write
from tests.simulation.model import ModelRedis, Shared, encoded
from tests.simulation.process import Place
from tests.simulation.world import Scene

Patch = Callable[[pytest.MonkeyPatch], object]


@dataclass(frozen=True)
class Mutant:
    """A rule that is off, where that shows, and which promise it breaks."""

    name: str
    breaks: str
    scene: Scene
    patch: Patch = lambda monkeypatch: None
    mutation: dict[str, Any] = field(default_factory=dict)
    """What differs in the scene."""

    @property
    def mutated(self) -> Scene:
        return replace(self.scene, **self.mutation)


READERS: Final = (read("a"), read("a"), read("a"), read("b"))
BY_KEY: Final = Scene(jobs=(*READERS, drop("a")))
BY_TAG: Final = Scene(jobs=(*READERS, untag))

#: More of one release than of the other, so that either may have the key.
TWO_RELEASES: Final = Scene(
    threads=(2, 1, 1),
    jobs=(read("a"), read("a"), read("a"), read("b"), drop("a"), untag, sweep, renew("a"), put("a"), write("a")),
    each=4,
    schemas=(b"release1", b"release1", b"release2"),
    redis=Shared,
)

RESTARTED: Final = Scene(prelude=(read("a"), drop("a")), jobs=(read("a"),), faults=(restarted, lost))


# -- the store -----------------------------------------------------------------------------------------------


def _store_anyhow(effect: Store) -> list[Any]:
    return [("SET", effect.key, effect.entry, "PX", milliseconds(effect.ttl))]


def _store_over_any_entry(effect: Store) -> list[Any]:
    return _store_anyhow(effect) if effect.held[:1] == ENTRY else PLANS[Store].commands(effect)


def _stamps_after_the_load(
    place: Any, won: Won, value: Any, cost: float, held: bytes, *, replaces: bool = False
) -> Flow[bool]:
    seek = won.seek
    now = yield from Stamp(seek.tags, tuple(place.token() for _ in seek.tags))
    if None in now:
        return False
    packed = place.pack(seek, seek.tags, now, won.token, value, cost)
    return (yield from Store(seek.key, held, *packed))


def _tags_of_the_result_unwatched(
    place: Any, won: Won, value: Any, cost: float, held: bytes, *, replaces: bool = False
) -> Flow[bool]:
    seek = won.seek
    made = place.tags_of_result(seek, value)
    stamps = yield from Stamp(made, tuple(place.token() for _ in made))
    if None in stamps:
        return False
    packed = place.pack(seek, seek.tags + made, won.stamps[: len(seek.tags)] + stamps, won.token, value, cost)
    return (yield from Store(seek.key, held, *packed))


# -- the lease -----------------------------------------------------------------------------------------------


class _TokenPerProcess(Won):
    def __init__(self, seek: Seek, token: bytes, stamps: tuple[bytes, ...]) -> None:
        super().__init__(seek, token[:2] + b"0" * 14, stamps)


class _ReleasesAnything(ModelRedis):
    def holds(self, sha: str, key: str | bytes, held: bytes) -> bool:
        return sha == RELEASE.sha or super().holds(sha, key, held)


def _acquire_anyhow(effect: Acquire) -> list[Any]:
    *before, _, read_back, left = PLANS[Acquire].commands(replace(effect, replaces=False))
    placeholder = pack_placeholder(effect.token, effect.stamps, effect.tags)
    return [*before, ("SET", effect.key, placeholder, "PX", milliseconds(effect.lease)), read_back, left]


# -- joining -------------------------------------------------------------------------------------------------


class _JoinsByKey(Place):
    def judge(self, seek: Seek, tags: tuple[str, ...], reading: Reading) -> Sight:
        for beat in self.process.beats:
            if beat.key == seek.key and beat.held[1:] in self.flights:
                return Sight(seek, reading, loading=beat.held[1:])
        return super().judge(seek, tags, reading)


class _JoinsByToken(Place):
    def judge(self, seek: Seek, tags: tuple[str, ...], reading: Reading) -> Sight:
        if (reading.slot or b"").startswith(PLACEHOLDER) and reading.slot[1:17] in self.flights:  # type: ignore[index]  # not None
            return Sight(seek, reading, loading=reading.slot[1:17])  # type: ignore[index]  # as above
        return super().judge(seek, tags, reading)


class _JoinsWhatFlies(Place):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.leading = _BegunJustNow()


class _BegunJustNow(dict[Any, Any]):
    def get(self, key: Any, default: Any = None) -> Any:
        flight = super().get(key, default)
        if flight is not None:
            flight.began = float("inf")
        return flight


class _TakesAnyRelease(Place):
    def _judge_entry(self, seek: Seek, tags: tuple[str, ...], reading: Reading, entry: Any) -> Sight:
        return super()._judge_entry(seek, tags, reading, replace(entry, schema=self.schema))


class _RefreshesByKey(Place):
    """Where there is only one key, this is any refresh."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.refreshing = _Any()


class _Any(dict[bytes, Any]):
    def get(self, key: bytes, default: Any = None) -> Any:
        return next(iter(self.values()), default)


# -- stamps --------------------------------------------------------------------------------------------------

_ONE: Final = b"%016d" % 1


@dataclass(slots=True, frozen=True)
class _Bump(Remote[int]):
    tags: tuple[str, ...]


class _Counts(ModelRedis):
    def __post_init__(self) -> None:
        super().__post_init__()
        self._verbs["BUMP"] = self._bump

    def _bump(self, key: str) -> int:
        count = int(self._value(key) or 0) + 1
        self.removed(encoded(key))
        return self._put(key, b"%016d" % count, STAMP_TTL)


def _acquire_with_counters(place: Any, seek: Seek, seen: Reading) -> Flow[Any]:
    read = seen.stamps[: len(seek.wanted)]
    won = Won(seek, place.token(), tuple(stamp or _ONE for stamp in read))
    missing = tuple(stamp is None for stamp in read)
    held = handle(seen.slot)
    reading = yield from Acquire(seek.key, held, won.token, seek.wanted, won.stamps, missing, place.policy.lease)
    return won if reading is None else reading


def _bump(keeper: Any, prefix: str, tags: Any) -> Flow[int]:
    return (yield from _Bump(tuple(remote.tag_key(prefix, tag) for tag in tags)))


def _counters(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (flows, writing):
        monkeypatch.setattr(module, "acquire", _acquire_with_counters)
    monkeypatch.setattr(remote_keeper.RemoteKeeper, "untag", _bump)


_COUNTED: Final = {
    "redis": _Counts,
    "plans": {_Bump: Plan(lambda e: [("BUMP", tag) for tag in e.tags], lambda e, replies: len(replies))},
}


# -- the server ----------------------------------------------------------------------------------------------


def _remembers_first(backend: Any) -> Iterator[Any]:
    (info,) = yield [("INFO", "server")]
    run = redis._field(info, b"run_id")
    for prefix in backend._prefixes:
        (known,) = yield [("GET", prefix + redis._RUN)]
        if known != run:
            yield [("SET", prefix + redis._RUN, run, "PX", 1000)]
            yield [("UNLINK", prefix + redis.ROOT)]


def _first_page(effect: Any) -> Iterator[Any]:
    ((_, keys),) = yield [redis.scan(0, effect.prefix + effect.pattern)]
    yield redis.unlink_each(keys)


def _forgets_the_watched(keeper: Any, prefix: str, tags: Any) -> Flow[int]:
    return (yield from Delete(tuple(remote.tag_key(prefix, tag) for tag in tags)))


def _replacing(where: Any, name: str, value: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(where, name, value)


def _plan(kind: type[Remote[Any]], commands: Callable[[Any], list[Any]]) -> dict[str, Any]:
    return {"plans": {kind: Plan(commands, PLANS[kind].answer)}}


MUTANTS: Final = (
    Mutant("no compare on store", "P1", BY_KEY, mutation=_plan(Store, _store_anyhow)),
    Mutant("stamps read after the load", "P1", BY_TAG, _replacing(load, "store", _stamps_after_the_load)),
    Mutant("join by key", "P1", BY_TAG, mutation={"place": _JoinsByKey}),
    Mutant("join by token without stamps", "P1", BY_TAG, mutation={"place": _JoinsByToken}),
    Mutant("join a load that began before the caller came", "P1", BY_TAG, mutation={"place": _JoinsWhatFlies}),
    Mutant("a token per process", "P1", BY_KEY, _replacing(sight, "Won", _TokenPerProcess)),
    Mutant(
        "counters for stamps, with eviction",
        "P1",
        replace(BY_TAG, faults=(stamp_evicted,)),
        _counters,
        _COUNTED,
    ),
    Mutant("no fence on restart", "P1", RESTARTED, mutation={"trust": True}),
    Mutant(
        "release without compare",
        "P2",
        Scene(jobs=(read("a"),), faults=(lease_over, failing), odds=4),
        mutation={"redis": _ReleasesAnything},
    ),
    # Not in the issue, and as easily got wrong:
    Mutant("acquire without compare", "P2", BY_KEY, mutation=_plan(Acquire, _acquire_anyhow)),
    Mutant(
        "a refresh stores over any entry",
        "P1",
        replace(BY_KEY, flavour="stale", faults=(aged,)),
        mutation=_plan(Store, _store_over_any_entry),
    ),
    Mutant(
        "a refresh is joined by key",
        "P1",
        Scene(flavour="grace", threads=(3,), jobs=(*(read("a"),) * 4, drop("a")), each=5, faults=(aged,), odds=4),
        mutation={"place": _RefreshesByKey},
    ),
    Mutant(
        "the fence remembers before the stamp falls",
        "P1",
        RESTARTED,
        _replacing(redis.RedisBackend, "_fence", _remembers_first),
    ),
    Mutant(
        "tags of the result are read after the load",
        "P1",
        replace(BY_TAG, flavour="result"),
        _replacing(load, "store", _tags_of_the_result_unwatched),
    ),
    Mutant(
        "the watched stamp does not fall",
        "P1",
        replace(BY_TAG, flavour="result"),
        _replacing(remote_keeper.RemoteKeeper, "untag", _forgets_the_watched),
    ),
    Mutant(
        "a sweep of one page",
        "P1",
        replace(BY_KEY, jobs=(*READERS, sweep)),
        _replacing(network, "_sweep", _first_page),
    ),
    Mutant(
        "what is kept aside outlives what it is kept beside",
        "P1",
        TWO_RELEASES,
        _replacing(commands, "_stamp_of", lambda value: None if value is None else _ONE),
    ),
    Mutant("a release takes the other's results", "P4", TWO_RELEASES, mutation={"place": _TakesAnyRelease}),
    Mutant(
        "a write that lost its lease drops nothing",
        "P1",
        Scene(jobs=(read("a"), read("a"), write("a"))),
        mutation=_plan(Delete, lambda effect: [("PTTL", effect.keys[0])]),
    ),
)
