"""Whatever a loader returns: a later call gets the same in value and type, or nothing is stored (P4)."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import PATIENCE, Async, Gate, Sync
from tests.redis_kit import colour  # noqa: F401 - a fixture

Colour = Sync | Async


class Level(enum.IntEnum):
    HIGH = 1


class Text(str):
    """A text that is more than its letters."""


def _annotated() -> Level:
    return Level.HIGH


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _generator() -> Iterator[int]:
    yield 1


async def _coroutine() -> int:
    return 1


def _same(one: Any, other: Any) -> bool:
    """Equal and of one type all the way down. What can be used only once is the same while nobody has used it."""
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and repr(one) == repr(other) and one == other


STORED: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "False": lambda: False,
    "zero": lambda: 0,
    "no text": lambda: "",
    "a key that is no text": lambda: {1: 2, None: 3},
    "an enum of the annotation": _annotated,
    "2**64": lambda: 2**64,
    "lone surrogates": lambda: "\ud800\udfff\udc80",
    "NaN": lambda: math.nan,
    "minus zero": lambda: -0.0,
    "depth 100": lambda: _nested(100),
}
EITHER: dict[str, Callable[[], Any]] = {
    "an enum of no annotation": lambda: Level.HIGH,
    "a subclass of str": lambda: Text("x"),
    "a function": lambda: len,
}
REFUSED: dict[str, Callable[[], Any]] = {
    "depth 2000": lambda: _nested(2000),
    "a generator": _generator.__call__,
    "a coroutine": _coroutine.__call__,
    "a map": lambda: map(str, [1]),
}


@pytest.fixture(params=["memory", "Redis"])
def made(request: pytest.FixtureRequest) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, namespace="shop") as cache:
        yield cache


def _dispose(*results: Any) -> None:
    for result in results:
        if hasattr(result, "close"):
            result.close()


def _loader(colour: Colour, make: Callable[[], Any]) -> Callable[..., Any]:
    def load() -> Any:
        return make()

    load.__annotations__ = dict(getattr(make, "__annotations__", {}))
    return colour.loader(load)


@pytest.mark.parametrize("name", STORED)
def test_a_hit_equals_the_miss(made: Cache, colour: Colour, name: str) -> None:
    f = made.cached(ttl=60, key="k")(_loader(colour, STORED[name]))
    first, second, third = colour(f()), colour(f()), colour(f.get())
    assert _same(first, second)
    assert _same(first, third)
    assert (f.stats.loads, f.stats.hits, f.stats.refused) == (1, 1, 0)


@pytest.mark.parametrize("name", EITHER)
def test_what_only_memory_can_keep_is_equal_there_and_not_stored_in_redis(
    made: Cache, colour: Colour, name: str
) -> None:
    f = made.cached(ttl=60, key="k")(_loader(colour, EITHER[name]))
    assert _same(colour(f()), colour(f()))
    assert (f.stats.hits, f.stats.refused) in ((1, 0), (0, 2))


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_be_the_same_again_is_not_stored(made: Cache, colour: Colour, name: str) -> None:
    f = made.cached(ttl=60, key="k")(_loader(colour, REFUSED[name]))
    first, second = colour(f()), colour(f())
    try:
        assert type(first) is type(second)
        assert first is not second
        assert colour(f.get()) is MISSING
        assert (f.stats.loads, f.stats.hits, f.stats.refused, f.stats.errors) == (2, 0, 2, 0)
    finally:
        _dispose(first, second)


@pytest.mark.parametrize("name", REFUSED)
def test_nor_is_it_shared_with_those_who_waited_for_it(made: Cache, colour: Colour, name: str) -> None:
    gate = Gate()

    @colour.loader
    def load() -> Any:
        yield gate
        return REFUSED[name]()

    f = made.cached(ttl=60, key="k")(load)
    callers = [colour.start(f) for _ in range(3)]
    gate.reached()
    gate.open()
    results = [caller.result(PATIENCE) for caller in callers]
    assert len({id(result) for result in results}) == 3
    _dispose(*results)


def test_a_generator_may_be_shared_by_whoever_insists(colour: Colour) -> None:
    with Cache() as made:
        f = made.cached(ttl=60, isolate=False)(_loader(colour, _generator))
        assert colour(f()) is colour(f())


@pytest.mark.parametrize("options", [{}, {"max_value_bytes": 1000}], ids=["", "a small bound"])
def test_what_is_too_large_for_redis_is_the_callers_and_is_counted(
    redis_url: str, colour: Colour, options: dict[str, Any]
) -> None:
    large = b"x" * (2000 if options else 50_000_000)
    with Cache(redis_url, namespace="shop", compress_above=None, **options) as made:
        f = made.cached(ttl=60, key="k")(colour.loader(lambda: large))
        assert colour(f()) is large
        assert colour(f()) is large
        assert (f.stats.loads, f.stats.refused, f.stats.hits, f.stats.backend_errors) == (2, 2, 0, 0)


def test_what_is_too_large_for_memory_is_the_callers_and_is_counted(colour: Colour) -> None:
    large = b"x" * 50_000_000
    with Cache(max_bytes=40_000_000) as made:
        f = made.cached(ttl=60, key="k")(colour.loader(lambda: large))
        assert colour(f()) is colour(f()) is large
        assert (f.stats.loads, f.stats.refused, f.stats.hits) == (2, 2, 0)
