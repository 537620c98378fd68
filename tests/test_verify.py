"""`verify=`: hits are compared with what the loader returns now, behind the scenes; and what is no difference."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import enum
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft._core import verification
from cachecraft._core.effects import Load, Sleep
from cachecraft._core.sameness import Incomparable, same
from tests.callers import Async, Gate, Sync, until
from tests.clock import FakeClock
from tests.redis_kit import colour  # noqa: F401 - a fixture

Colour = Sync | Async


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes end as soon as they have committed, unless a test says otherwise."""
    monkeypatch.setattr(verification, "PAUSE", 0.0)


@pytest.fixture(params=["memory", "redis", "near"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Cache]:
    """A cache of each kind, all hits of which are chosen if `verify` is 1."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, namespace="shop", near=request.param == "near" or None) as made:
        yield made


class Source:
    """What the loaders load."""

    def __init__(self) -> None:
        self.row: Any = "value-1"
        self.gate: Gate | None = None
        self.loads = 0

    def reader(self, cache: Cache, colour: Colour, **options: Any) -> Any:
        def name(user: int, secret: str = "hush") -> Any:
            self.loads += 1
            if self.gate is not None:
                yield self.gate
            return copy.deepcopy(self.row)

        made = {"ttl": 60, "key": "user:{user}:{secret}", "tags": ["t"], "verify": 1, **options}
        return cache.cached(**made)(colour.loader(name))


@pytest.fixture
def source() -> Source:
    return Source()


# -- what it finds -------------------------------------------------------------------------------------------


def test_a_write_that_forgot_to_invalidate_is_found_and_told_once(
    anywhere: Cache, colour: Colour, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    f = source.reader(anywhere, colour)
    assert colour(f(1)) == "value-1"
    source.row = "value-2"
    with caplog.at_level(logging.WARNING, "cachecraft"):
        until(lambda: colour(f(1)) == "value-1" and f.stats.differed >= 2)
    assert f.stats.verified >= f.stats.differed
    (record,) = [each for each in caplog.records if "differs" in each.getMessage()]
    assert f"{__name__}.Source.reader.<locals>.name" in record.getMessage()
    assert "user, secret" in record.getMessage()
    assert "hush" not in record.getMessage()
    assert "value" not in record.getMessage().replace("a kept result", "")
    assert colour(f.get(1)) == "value-1"  # it only tells


def test_what_is_equal_is_counted_and_no_difference(anywhere: Cache, colour: Colour, source: Source) -> None:
    source.row = {"name": ["a", math.nan], "at": (1, 2)}
    f = source.reader(anywhere, colour)
    for _ in range(2):
        result = colour(f(1))
        result["name"].clear()  # what a caller does with its own is no difference either
    until(lambda: colour(f(1)) and f.stats.verified >= 3)
    assert f.stats.differed == 0


def test_it_is_told_again_after_a_minute(
    make_cache: Callable[..., Cache], clock: FakeClock, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache()
    f = source.reader(cache, Sync(), ttl=1000)
    f(1)
    source.row = "value-2"
    for minutes, times in ((0, 1), (0.9, 1), (1.1, 2)):
        clock.advance(60 * minutes)
        differed = f.stats.differed
        until(lambda differed=differed: f(1) and f.stats.differed > differed)  # type: ignore[misc]  # bound now
        until(lambda times=times: sum("differs" in each.getMessage() for each in caplog.records) == times)  # type: ignore[misc]


def test_by_hand(anywhere: Cache, colour: Colour) -> None:
    by_hand, row = colour.on(anywhere), ["value-1"]

    def load() -> str:
        return row[0]

    by_hand.get_or_load("a", load, ttl=60, verify=1)
    row[0] = "value-2"
    until(lambda: by_hand.get_or_load("a", load, ttl=60, verify=1) == "value-1" and anywhere.stats.differed)


# -- what is no difference -----------------------------------------------------------------------------------


def test_what_was_invalidated_while_the_loader_ran_is_no_difference(
    anywhere: Cache, colour: Colour, source: Source
) -> None:
    """The loader saw what a write had just committed, and the invalidation came a moment later."""
    f = source.reader(anywhere, colour)
    colour(f(1))
    source.gate = gate = Gate()
    source.row = "value-2"
    assert colour(f(1)) == "value-1"
    gate.reached()
    colour(f.invalidate(1))
    gate.open()
    until(lambda: source.loads == 2 and settled(anywhere))
    assert (f.stats.verified, f.stats.differed) == (0, 0)


def test_what_was_invalidated_and_loaded_anew_while_the_loader_ran_is_no_difference(
    anywhere: Cache, colour: Colour, source: Source
) -> None:
    f = source.reader(anywhere, colour)
    colour(f(1))
    source.gate = gate = Gate()
    assert colour(f(1)) == "value-1"
    gate.reached()
    colour.on(anywhere).invalidate(tags=["t"])
    colour(f.set("value-3", 1))  # and the same key again, with something else
    gate.open()
    until(lambda: settled(anywhere))
    assert (f.stats.verified, f.stats.differed) == (0, 0)


WAYS = [
    lambda f, cache: f.invalidate(1),
    lambda f, cache: cache.invalidate(tags=["t"]),
    lambda f, cache: cache.invalidate(pattern="user:*"),
    lambda f, cache: f.invalidate_all(),
    lambda f, cache: cache.clear(),
    lambda f, cache: f.refresh(1),
]


@pytest.mark.parametrize("invalidate", WAYS)
@pytest.mark.parametrize("anywhere", ["memory", "redis"], indirect=True)
def test_a_write_takes_a_while_from_its_commit_to_its_invalidation(
    anywhere: Cache, source: Source, monkeypatch: pytest.MonkeyPatch, invalidate: Any
) -> None:
    """The loader has returned what was committed, nothing is invalidated yet, and then, in the pause, it is."""
    monkeypatch.setattr(verification, "PAUSE", 5.0)
    f = source.reader(anywhere, Sync())
    f(1)
    steps = verification_of(f, 1)
    source.row = "value-2"
    assert isinstance(steps.until(Load), Load)
    assert steps.until(Sleep).seconds == 5.0
    assert f.stats.differed == 0
    invalidate(f, anywhere)
    assert steps.until(Load) is None  # nor is it loaded once more
    assert (f.stats.verified, f.stats.differed) == (0, 0)


@pytest.mark.parametrize("anywhere", ["memory", "redis"], indirect=True)
def test_what_is_equal_after_the_pause_is_no_difference(
    anywhere: Cache, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that lagged behind, a transaction that was rolled back."""
    monkeypatch.setattr(verification, "PAUSE", 5.0)
    f = source.reader(anywhere, Sync())
    f(1)
    steps = verification_of(f, 1)
    source.row = "value-0"
    assert isinstance(steps.until(Load), Load)
    assert isinstance(steps.until(Sleep), Sleep)
    source.row = "value-1"
    assert isinstance(steps.until(Load), Load)
    assert steps.until(Load) is None
    assert (f.stats.verified, f.stats.differed) == (1, 0)


@pytest.mark.parametrize("anywhere", ["memory", "redis"], indirect=True)
def test_invalidated_at_the_last_moment_is_no_difference(
    anywhere: Cache, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PAUSE", 5.0)
    f = source.reader(anywhere, Sync())
    f(1)
    steps = verification_of(f, 1)
    source.row = "value-2"
    for kind in (Load, Sleep, Load):
        assert isinstance(steps.until(kind), kind)
    f.invalidate(1)  # while the loader runs for the second time
    assert steps.until(Load) is None
    assert (f.stats.verified, f.stats.differed) == (0, 0)


@pytest.mark.parametrize("anywhere", ["memory", "redis"], indirect=True)
def test_what_is_past_its_ttl_by_then_may_well_be_different(anywhere: Cache, source: Source) -> None:
    f = source.reader(anywhere, Sync(), ttl=0.1, jitter=None, stale=60)
    f(1)
    steps = verification_of(f, 1)
    source.row = "value-2"
    assert isinstance(steps.until(Load), Load)
    until(lambda: f.explain(1).verdict == "stale")
    assert steps.until(Sleep) is None
    assert (f.stats.verified, f.stats.differed) == (0, 0)


def test_a_loader_that_raises_is_no_difference(anywhere: Cache, colour: Colour) -> None:
    calls = []

    def load(x: int) -> int:
        calls.append(x)
        if len(calls) > 1:
            raise ConnectionError
        return x

    f = anywhere.cached(ttl=60, verify=1, key="k:{x}")(colour.loader(load))
    assert colour(f(1)) == 1
    until(lambda: colour(f(1)) == 1 and len(calls) > 3)
    until(lambda: settled(anywhere))
    assert (f.stats.verified, f.stats.differed) == (0, 0)
    assert f.stats.errors > 0


def test_a_remembered_exception_is_not_verified(anywhere: Cache, colour: Colour) -> None:
    calls = []

    def load(x: int) -> int:
        calls.append(x)
        raise KeyError

    f = anywhere.cached(ttl=60, verify=1, key="k:{x}", cache_errors=KeyError)(colour.loader(load))
    for _ in range(3):
        with pytest.raises(KeyError):
            colour(f(1))
    assert settled(anywhere)
    assert calls == [1]


# -- never in the way ----------------------------------------------------------------------------------------


def test_nobody_waits_for_it_and_two_run_at_a_time(anywhere: Cache, colour: Colour, source: Source) -> None:
    f = source.reader(anywhere, colour)
    for user in range(10):
        colour(f(user))
    source.gate = gate = Gate()
    for user in range(10):
        assert colour(f(user)) == "value-1"
    gate.reached(), gate.reached()
    assert source.loads == 12
    gate.open()
    until(lambda: settled(anywhere))
    assert f.stats.verified == 2
    until(lambda: colour(f(3)) and f.stats.verified > 2)


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}, {"stale": 10}, {"beta": 1.0}])
def test_the_share_is_that_of_all_hits(
    make_cache: Callable[..., Cache], colour: Colour, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the quick wrapper could serve them or not: it is not drawn twice."""
    monkeypatch.setattr(verification.Seats, "take", lambda self: drawn.append(1))  # all are declined, and counted
    drawn: list[int] = []
    numbers = iter([0.05, 0.5, 0.9] * 100_000)
    cache = make_cache(random=lambda: next(numbers))
    f = cache.cached(ttl=60, verify=0.1, **options)(colour.loader(lambda x: x))
    g = cache.cached(ttl=60, verify=0.1)(colour.loader(lambda x: x))
    colour(f(1)), colour(g([1]))
    for call in (lambda: colour(f(1)), lambda: colour(g([1]))):
        drawn.clear()
        for _ in range(300):
            call()
        if "beta" in options:
            assert len(drawn) <= 300  # it draws for itself from the same numbers
        else:
            assert len(drawn) == 100
    assert (f.stats.hits, f.stats.loads) == (300, 1)


def test_without_verify_the_wrapper_reads_the_clock_itself(cache: Cache) -> None:
    """What every hit pays: nothing."""
    f, g = cache.cached(lambda x: x), cache.cached(ttl=60, verify=0.5)(lambda x: x)
    f(1), g(1)
    assert f.__globals__["now"] is cache.settings.clock
    assert g.__globals__["now"] is not cache.settings.clock


# -- the same, or not ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: Any
    note: str = dataclasses.field(default="", compare=False)


class Colours(enum.Enum):
    RED = 1
    BLUE = 2


NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (1, 1, True), (1, 2, False), (1, True, False), (1, 1.0, False), ("1", b"1", False), (None, None, True),
        (NAN, float("nan"), True), ([NAN], [float("nan")], True),
        (decimal.Decimal("NaN"), decimal.Decimal("NaN"), True),
        (0.0, -0.0, True), ([1, [2]], [1, [2]], True), ([1], (1,), False), ([1], [True], False), ([1], [1, 2], False),
        ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"a": 1.0}, False), ({"a": 1}, {"b": 1}, False), ({1}, {1}, True),
        (Point(1), Point(1), True), (Point(1), Point(2), False), (Point(NAN), Point(float("nan")), True),
        (Point(1, "a"), Point(1, "b"), True), (Colours.RED, Colours.RED, True), (Colours.RED, Colours.BLUE, False),
        (int, str, False),
    ],
)  # fmt: skip
def test_the_same(one: Any, other: Any, answer: bool) -> None:
    assert same(one, other) is answer


class Rude:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = object.__hash__


class Vague:
    """As an array answers."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError

    __hash__ = object.__hash__


def endless() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize("make", [object, Rude, Vague, endless, lambda: [object()]])
def test_what_nobody_can_compare(make: Callable[[], Any]) -> None:
    with pytest.raises(Incomparable):
        same(make(), make())


def test_what_nobody_can_compare_is_not_counted(cache: Cache, colour: Colour) -> None:
    loads = []

    def load(x: int) -> Any:
        loads.append(x)
        return Rude()

    f = cache.cached(ttl=60, verify=1)(colour.loader(load))
    colour(f(1))
    until(lambda: colour(f(1)) and len(loads) > 2)
    until(lambda: settled(cache))
    assert (f.stats.verified, f.stats.differed) == (0, 0)


# -- how it is driven ----------------------------------------------------------------------------------------


def settled(cache: Cache) -> bool:
    """No verification is under way."""
    return seats(cache).taken == 0


def seats(cache: Cache) -> verification.Seats:
    keeper: Any = cache.keeper
    keeper = getattr(keeper, "remote", keeper)
    found: verification.Seats = keeper.seats if hasattr(keeper, "seats") else keeper.memory.seats
    return found


class Steps:
    """A flow, driven step by step."""

    def __init__(self, cache: Cache, flow: Any) -> None:
        self._cache, self._flow, self._answer = cache, flow, None
        self._loading: Any = None

    def until(self, kind: type) -> Any:
        """Go on until such an effect is asked for; `None` if the flow ends before. A load is performed after that."""
        while True:
            if self._loading is not None:
                self._answer, self._loading = self._loading.call(), None
            try:
                effect = self._flow.send(self._answer)
            except StopIteration:
                return None
            self._answer = None
            if isinstance(effect, Load):
                self._loading = effect
            elif not isinstance(effect, Sleep):
                self._answer = self._cache.driver._perform(effect)
            if isinstance(effect, kind):
                return effect


def verification_of(f: Any, *args: Any) -> Steps:
    """The verification of the next hit, which this test drives."""
    flows: list[Any] = []
    handle = f.__cachecraft__
    crew = handle.cache.driver.crew
    submit, crew.submit = crew.submit, lambda work, ended: flows.append(work.args[0]) is None
    try:
        f(*args)
    finally:
        crew.submit = submit
    return Steps(handle.cache, flows[0]())
