"""One process of the cache: the real keeper and the real places, with tokens, clock and heart in the world's hand."""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from cachecraft._core.behind import Queue
from cachecraft._core.calls import Subject
from cachecraft._core.effects import Footprint, Renew
from cachecraft._core.flights import Flight
from cachecraft._core.policy import Policy
from cachecraft._core.tally import Tally
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.footprints import Footprints
from cachecraft.backends.redis import RedisBackend
from cachecraft.backends.remote import Remote
from cachecraft.backends.remote_keeper import RemoteKeeper
from cachecraft.serializers import MsgpackSerializer

if TYPE_CHECKING:
    from tests.simulation.network import Line
    from tests.simulation.world import World

PREFIX: Final = "n:"
QUEUE: Final = Queue(PREFIX, "f")
"""Where writes wait behind the one function that there is."""
_SETTINGS: Final = SimpleNamespace(
    compress_above=None, compression="zlib", max_value_bytes=2**20, encryption_keys=None, clock=time.monotonic
)
_DIALLING: Final = Dialling("redis://model", 1.0, 1.0, 32)
_SERIALIZER: Final = MsgpackSerializer()


class Remembered(Exception):
    """A loader's error that is kept as a result is."""


def _by_result(result: object, k: str) -> list[str]:
    return ["all"]


@dataclass(frozen=True)
class Flavour:
    """How a function is decorated."""

    tags: Any = ("all",)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return Policy.of({"ttl": 100, "wait": 2, **self.options}).under(100.0, None)

    def subject(self, name: str) -> Subject:
        def function(k: str) -> None: ...

        return Subject(
            inspect.signature(function),
            name=name,
            label=name,
            key=f"{name}:{{k}}",
            tags=self.tags,
            vary=None,
            version=None,
        )


FLAVOURS: Final = {
    "plain": Flavour(),
    "result": Flavour(tags=_by_result),
    "stale": Flavour(options={"stale": 50, "refresh_ahead": 20}),
    "grace": Flavour(options={"grace": 50}),
    "remembered": Flavour(options={"cache_errors": {Remembered: 60}, "stale": 50}),
    "result, stale": Flavour(tags=_by_result, options={"stale": 50}),
}
_MADE: Final = {kind: (flavour.subject("f"), flavour.policy) for kind, flavour in FLAVOURS.items()}


class Place(Remote):
    """The place of one function, as it is in Redis, without a clock and a private generator."""

    world: World

    process: Process

    def token(self) -> bytes:
        return self.world.token(self.process)

    def clock(self) -> float:
        return self.world.now

    def random(self) -> float:
        return 0.5


@dataclass(eq=False)
class Beat:
    """A lease that a process keeps alive, whenever the world lets it."""

    process: Process
    key: str
    held: bytes
    lease: float

    def end(self) -> None:
        self.process.beats.discard(self)

    def renewal(self) -> Renew:
        return Renew(self.key, self.held, self.lease)


class _NoFootprints(Footprints):
    """What is told of invalidations decides nothing: here it would only be more steps."""

    def of(self, *args: Any, **kwargs: Any) -> tuple[Footprint, ...]:
        return ()


class Process:
    """What the callers of one process share."""

    queue: Queue | None = None
    """Where writes wait, if it has the functions that make them."""

    def __init__(self, world: World, name: str, flavour: str, *, trust: bool = False, schema: bytes = bytes(8)) -> None:
        self.world = world
        self.schema = schema
        self.name = name
        self.backend = RedisBackend(_DIALLING, trust=trust)
        self.backend.serve(PREFIX)
        self.keeper = RemoteKeeper(_SETTINGS, self.backend, _SERIALIZER)
        self.keeper.footprints = _NoFootprints(time.monotonic)
        self.keeper.heart = self  # type: ignore[assignment]  # a heart that the world makes beat
        self.beats: set[Beat] = set()
        self.idle: list[Line] = []
        self.alive = True
        self.place = self.make_place(*_MADE[flavour])

    def make_place(self, subject: Subject, policy: Policy) -> Place:
        place = self.world.place_class(self.keeper, subject, policy, Tally(), PREFIX, _SERIALIZER, self.schema)
        place.world, place.process = self.world, self
        return place

    def hold(self, key: str, held: bytes, lease: float, flight: Flight | None = None) -> Beat:
        self.world.held = True
        return self.keep_alive(key, held, lease)

    def keep_alive(self, key: str, held: bytes, lease: float) -> Beat:
        beat = Beat(self, key, held, lease)
        self.beats.add(beat)
        return beat

    def leftovers(self) -> list[object]:
        """What nobody flies, watches or keeps alive any more, and still lies here."""
        keeper = self.keeper
        # One that was taken by its crew and never began is replaced when it is missed.
        refreshing = [flight for flight in keeper.refreshing.values() if flight.token is not None]
        return [*keeper.flights.values(), *keeper.leading.values(), *keeper.watches.values(), *refreshing, *self.beats]

    def __repr__(self) -> str:
        return self.name
