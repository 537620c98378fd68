"""Values in memory (P4): what went in comes out, and no caller can change what another gets."""

import collections
import datetime as dt
import decimal
import enum
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from cachecraft import Cache
from tests.callers import PATIENCE, Async, Gate, Sync, until

Colour = Sync | Async


class Color(enum.Enum):
    RED = 1


@dataclass
class Mutable:
    name: str
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    name: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrozenWithList:
    tags: list[str]


@dataclass(slots=True)
class Slotted:
    tags: list[str]


class Point(NamedTuple):
    x: int
    parts: list[int]


class MyList(list[int]):
    pass


def keeper(cache: Cache, colour: Colour, make: Callable[[], Any], **options: Any) -> Any:
    @cache.cached(**options)
    @colour.loader
    def load() -> Any:
        return make()

    return load


IMMUTABLE: list[Any] = [
    None, True, 7, 2**100, 1.5, 1j, "text", b"bytes", (1, "a", (2,)), frozenset({1, (2,)}), range(3), Color.RED,
    decimal.Decimal("1.10"), uuid.UUID(int=5), PurePosixPath("/a"), dt.date(2024, 1, 2), dt.timedelta(1),
    dt.datetime(2024, 1, 2, tzinfo=dt.UTC), Frozen("a", ("b",)), len, dict,
]  # fmt: skip


@pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
def test_what_nobody_can_change_is_shared_as_it_is(cache: Cache, colour: Colour, value: object) -> None:
    load = keeper(cache, colour, lambda: value)
    assert all(colour(load()) is value for _ in range(3))


# How to make a value, and how a rude caller changes it.
MUTABLE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1, 2], lambda v: v.append(3)),
    "list in a list": (lambda: [[1], 2], lambda v: v[0].append(3)),
    "dict": (lambda: {"a": 1}, lambda v: v.update(b=2)),
    "list in a dict": (lambda: {"a": [1]}, lambda v: v["a"].append(2)),
    "set": (lambda: {1}, lambda v: v.add(2)),
    "bytearray": (lambda: bytearray(b"a"), lambda v: v.append(1)),
    "deque": (lambda: collections.deque([[1]], maxlen=5), lambda v: v[0].append(2)),
    "OrderedDict": (lambda: collections.OrderedDict(a=1), lambda v: v.pop("a")),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), lambda v: v["a"].append(1)),
    "Counter": (lambda: collections.Counter("aab"), lambda v: v.update("a")),
    "list in a tuple": (lambda: (1, [2]), lambda v: v[1].append(3)),
    "list in a named tuple": (lambda: Point(1, [2]), lambda v: v.parts.append(3)),
    "dataclass": (lambda: Mutable("a"), lambda v: setattr(v, "name", "b")),
    "list in a dataclass": (lambda: Mutable("a", ["x"]), lambda v: v.tags.append("y")),
    "list in a frozen dataclass": (lambda: FrozenWithList(["x"]), lambda v: v.tags.append("y")),
    "list in a slotted dataclass": (lambda: Slotted(["x"]), lambda v: v.tags.append("y")),
    "dataclass in a list in a tuple": (lambda: ([Mutable("a")],), lambda v: setattr(v[0][0], "name", "b")),
    "a subclass of list": (lambda: MyList([1]), lambda v: v.append(2)),
}


@pytest.mark.parametrize("options", [{}, {"key": "k"}, {"ttl": 60, "tags": ["t"], "stale": 60}, {"isolate": True}])
@pytest.mark.parametrize("kind", MUTABLE)
def test_a_caller_may_change_its_result_without_changing_anybody_elses(
    cache: Cache, colour: Colour, kind: str, options: dict[str, Any]
) -> None:
    make, change = MUTABLE[kind]
    load = keeper(cache, colour, make, **options)
    for _ in range(3):
        value = colour(load())
        assert value == make()
        assert type(value) is type(make())
        change(value)
        assert value != make()
    change(colour(load.get()))
    assert colour(load.get()) == make()
    mine = make()
    colour(load.set(mine))
    change(mine)
    assert colour(load()) == make()
    assert load.stats.loads == 1


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", MUTABLE)
def test_who_joined_a_load_does_not_see_what_its_leader_did_with_the_result(
    cache: Cache, colour: Colour, kind: str, kept: bool
) -> None:
    make, change = MUTABLE[kind]
    gate = Gate()

    @cache.cached(when=lambda value: kept)
    @colour.loader
    def load() -> Any:
        yield gate
        return make()

    def rude() -> Any:
        value = load()
        if colour.is_async:
            return changed(value)
        change(value)
        return value

    async def changed(result: Any) -> Any:
        value = await result
        change(value)
        return value

    callers = [colour.start(rude) for _ in range(8)]
    gate.reached()
    until(lambda: load.stats.waits == 7)
    gate.open()
    values = [caller.result(PATIENCE) for caller in callers]
    expected = make()
    change(expected)
    assert values == [expected] * 8
    assert len({id(value) for value in values}) == 8


def test_identity_within_a_value_survives_its_copy(cache: Cache, colour: Colour) -> None:
    shared = [1]
    cyclic: list[Any] = [2]
    cyclic.append(cyclic)
    load = keeper(cache, colour, lambda: {"a": shared, "b": shared, "c": cyclic})
    for _ in range(2):
        value = colour(load())
    assert value["a"] is value["b"] is not shared
    assert value["c"][1] is value["c"] is not cyclic


def test_opaque_objects_are_shared_unless_told_otherwise(cache: Cache, colour: Colour) -> None:
    frame = SimpleNamespace(rows=[1])
    default = keeper(cache, colour, lambda: frame)
    within = keeper(cache, colour, lambda: [frame])
    deep = keeper(cache, colour, lambda: frame, isolate=True)
    shared = keeper(cache, colour, lambda: [frame], isolate=False)
    for _ in range(2):
        assert colour(default()) is frame
        assert colour(within())[0] is frame
        assert colour(shared()) is colour(shared())
    mine = colour(deep())
    assert mine == frame
    assert colour(deep()) is not mine
    mine.rows.append(2)
    assert colour(deep()).rows == [1]


def test_what_cannot_be_copied_is_not_stored_and_the_caller_has_its_result(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    lock = threading.Lock()
    load = keeper(cache, colour, lambda: lock, isolate=True)
    assert [colour(load()), colour(load())] == [lock, lock]
    assert load.stats.refused == 2
    assert len([each for each in caplog.records if each.name == "cachecraft"]) == 1
    assert "TypeError at " in caplog.text


def test_what_cannot_be_copied_is_shared_with_nobody_who_joined(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached(isolate=True)
    @colour.loader
    def load() -> Any:
        yield gate
        return threading.Lock()

    callers = [colour.start(load) for _ in range(3)]
    gate.reached()
    gate.open()
    assert len({id(caller.result(PATIENCE)) for caller in callers}) == 3


def test_a_value_nested_too_deeply_to_copy_is_handed_out_and_not_stored(cache: Cache, colour: Colour) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    load = keeper(cache, colour, lambda: value)
    assert colour(load()) is value
    assert load.stats.refused == 1
    while value:
        value = value.pop()


def test_a_container_whose_class_knows_no_copies_is_shared(cache: Cache, colour: Colour) -> None:
    class Connected(dict[str, int]):
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError("one of a kind")

    value = Connected(a=1)
    load = keeper(cache, colour, lambda: value)
    assert colour(load()) is colour(load()) is value
    assert load.stats.loads == 1


def test_memory_holds_any_object(cache: Cache, colour: Colour) -> None:
    class Unpicklable:
        def __reduce__(self) -> Any:
            raise TypeError

    things: list[Any] = [Unpicklable(), iter([1]), lambda: 1, threading.Lock()]
    for thing in things:
        load = keeper(cache, colour, lambda thing=thing: thing)
        assert colour(load()) is colour(load()) is thing


def test_by_hand_values_are_isolated_too(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    mine = [1]
    by_hand.set("k", mine)
    mine.append(2)
    by_hand.get("k").append(3)
    by_hand.get_or_load("k", list).append(4)
    assert by_hand.get("k") == [1]
    by_hand.get_or_load("new", lambda: [1]).append(2)
    assert by_hand.get("new") == [1]
