"""Methods: whose entries they are, that they die with their object, and that no class takes another's."""

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cachecraft import MISSING, Cache, OptionTypeError, UnkeyableError
from tests.callers import PATIENCE, Async, Gate, Sync
from tests.clock import FakeClock

Colour = Sync | Async


def repository(cache: Cache, colour: Colour, **options: Any) -> Any:
    class Repository:
        def __init__(self, name: str) -> None:
            self.name = name
            self.calls: list[Any] = []

        @cache.cached(**options)
        @colour.loader
        def find(self, x: object, page: int = 1) -> str:
            self.calls.append(x)
            return f"{self.name}:{x!r}:{page}"

    return Repository


def test_each_object_has_entries_of_its_own(cache: Cache, colour: Colour) -> None:
    Repository = repository(cache, colour)  # noqa: N806
    one, two = Repository("one"), Repository("two")
    for x in (1, [1], 0.0):
        for _ in range(2):
            assert colour(one.find(x)) == f"one:{x!r}:1"
            assert colour(two.find(x)) == f"two:{x!r}:1"
    assert len(one.calls) == len(two.calls) == 3
    assert Repository.find.key(one, 1) != Repository.find.key(two, 1)


def test_the_methods_of_a_method_take_the_object_first(cache: Cache, colour: Colour) -> None:
    Repository = repository(cache, colour)  # noqa: N806
    one, two = Repository("one"), Repository("two")
    colour(one.find(1)), colour(two.find(1))
    assert colour(Repository.find.get(one, 1)) == "one:1:1"
    assert colour(Repository.find.invalidate(one, 1)) == 1
    assert colour(Repository.find.get(one, 1)) is MISSING
    assert colour(Repository.find.get(two, 1)) == "two:1:1"
    colour(Repository.find.set("new", one, 1))
    assert colour(one.find(1)) == "new"
    assert colour(Repository.find.refresh(one, 1)) == "one:1:1"
    assert colour(Repository.find.invalidate_all()) == 2


def test_forgetting_the_object_is_an_error_and_not_an_invalidation_of_nothing(cache: Cache, colour: Colour) -> None:
    one = repository(cache, colour)("one")
    colour(one.find(1, 2))
    with pytest.raises(OptionTypeError, match=r"Repository\.find\.invalidate\(obj"):
        one.find.invalidate(1, 2)
    assert len(one.calls) == 1


def test_a_cached_method_does_not_keep_its_object_alive_and_its_values_die_with_it(
    cache: Cache, colour: Colour
) -> None:
    class Value:
        pass

    class Owner:
        @cache.cached
        @colour.loader
        def value(self, x: object) -> Value:
            return Value()

    owner, other = Owner(), Owner()
    values = [weakref.ref(colour(owner.value(x))) for x in (1, "a", [1])]
    kept = weakref.ref(colour(other.value(1)))
    assert all(value() is not None for value in values)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    assert [value() for value in values] == [None] * 3
    assert kept() is not None
    assert Owner.value.cache_info().currsize == 1
    assert len(cache._keeper.memory) == 1


def test_entries_die_with_their_object_also_after_a_pattern_gave_them_names(cache: Cache, colour: Colour) -> None:
    Repository = repository(cache, colour)  # noqa: N806
    one, two = Repository("one"), Repository("two")
    colour(one.find(1)), colour(two.find(1))
    assert colour.on(cache).invalidate(pattern="*nothing-like-it*") == 0
    colour(one.find(2)), colour(two.find([2]))
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    assert Repository.find.cache_info().currsize == 2
    assert colour.on(cache).invalidate(pattern="*find:*") == 2


def test_a_remembered_exception_does_not_keep_the_object_alive(cache: Cache, colour: Colour) -> None:
    class Owner:
        @cache.cached(cache_errors=ValueError)
        @colour.loader
        def fail(self) -> None:
            raise ValueError("x")

    owner = Owner()
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            colour(owner.fail())
    assert Owner.fail.stats.loads == 1
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_entries_die_with_the_method_although_the_object_lives(cache: Cache) -> None:
    class Owner:
        @cache.cached
        def number(self, x: int) -> int:
            return x

    owner = Owner()
    owner.number(1)
    assert len(cache._keeper.memory) == 1
    del Owner.number
    gc.collect()
    assert len(cache._keeper.memory) == 0


def test_an_id_that_is_used_again_finds_nothing_of_the_object_that_died(cache: Cache) -> None:
    class Owner:
        def __init__(self, n: int) -> None:
            self.n = n

        @cache.cached
        def number(self) -> int:
            return self.n

    seen = set()
    for n in range(300):
        owner = Owner(n)
        seen.add(id(owner))
        assert [owner.number(), owner.number()] == [n, n]
        del owner
    assert len(seen) < 300, "ids were used again"


def test_an_id_used_again_before_the_dead_are_buried_finds_nothing_either(cache: Cache) -> None:
    class Owner:
        def __init__(self, n: int) -> None:
            self.n = n

        @cache.cached
        def number(self) -> int:
            return self.n

    Owner(0).number()
    tried = 0
    for n in range(1, 200):
        owner = Owner(n)
        owner.number()
        was = id(owner)
        locked, buried = threading.Event(), threading.Event()

        def change(locked: threading.Event = locked, buried: threading.Event = buried) -> None:
            with cache._keeper.memory.lock:  # whoever dies now cannot be buried at once
                locked.set()
                buried.wait(PATIENCE)

        changing = Sync().start(change)
        locked.wait(PATIENCE)
        del owner
        heir = Owner(-n)
        buried.set()
        changing.result(PATIENCE)
        tried += id(heir) == was
        assert [heir.number(), heir.number()] == [-n, -n]
        if tried > 3:
            break
    assert tried, "an id was used again"


def test_many_objects_die_without_a_search_through_all_that_live(cache: Cache) -> None:
    class Owner:
        @cache.cached
        def number(self) -> int:
            return 1

    alive = [Owner() for _ in range(200)]
    for owner in alive:
        owner.number()
    looked_at = 0

    class Shelves(dict[Any, Any]):
        def items(self) -> Any:
            nonlocal looked_at
            looked_at += len(self)
            return super().items()

    table = Owner.number.__cachecraft__.function().table
    table.shelves = Shelves(table.shelves)
    del alive[:100], owner
    gc.collect()
    assert Owner.number.cache_info().currsize == 100
    assert looked_at == 0


def test_an_object_that_allows_no_weak_reference_is_refused_with_the_remedies(cache: Cache, colour: Colour) -> None:
    class Slotted:
        __slots__ = ("x",)

        @cache.cached
        @colour.loader
        def number(self) -> int:
            return 1

    with pytest.raises(UnkeyableError, match=r"'self'.*Slotted.*key=.*__cache_key__.*__weakref__"):
        colour(Slotted().number())


def test_slots_with_a_weak_reference_will_do(cache: Cache) -> None:
    class Slotted:
        __slots__ = ("__weakref__",)

        @cache.cached
        def number(self) -> int:
            return 1

    assert Slotted().number() == 1


def test_a_template_that_names_something_stable_shares_between_objects(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    class User:
        def __init__(self, id: int) -> None:  # noqa: A002
            self.id = id

        @cache.cached(key="profile:{self.id}")
        @colour.loader
        def profile(self) -> int:
            calls.append(self.id)
            return self.id

    assert [colour(User(1).profile()), colour(User(1).profile()), colour(User(2).profile())] == [1, 1, 2]
    assert calls == [1, 2]


def test_a_cache_key_of_the_class_stands_for_its_objects(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    class User:
        def __init__(self, id: int) -> None:  # noqa: A002
            self.id = id

        def __cache_key__(self) -> int:
            return self.id

        @cache.cached
        @colour.loader
        def profile(self) -> int:
            calls.append(self.id)
            return self.id

    assert [colour(User(1).profile()), colour(User(1).profile()), colour(User(2).profile())] == [1, 1, 2]
    assert calls == [1, 2]


calls_of_points: list[Any] = []


def test_frozen_dataclasses_that_are_equal_share_their_entries(cache: Cache, colour: Colour) -> None:
    calls: list[Any] = []

    @dataclass(frozen=True)
    class Point:
        x: int

        @cache.cached
        @colour.loader
        def norm(self) -> int:
            calls.append(self.x)
            return abs(self.x)

    @dataclass
    class Mutable:
        x: int
        __hash__ = object.__hash__

        @cache.cached
        @colour.loader
        def norm(self) -> int:
            calls.append(self.x)
            return abs(self.x)

    assert [colour(Point(-1).norm()), colour(Point(-1).norm()), colour(Point(2).norm())] == [1, 1, 2]
    assert calls == [-1, 2]
    one, two = Mutable(-1), Mutable(-1)
    assert [colour(one.norm()), colour(one.norm()), colour(two.norm())] == [1, 1, 1]
    assert calls == [-1, 2, -1, -1]


class Left:
    calls = 0


def test_two_classes_methods_of_one_name_do_not_share(cache: Cache, colour: Colour) -> None:
    class One:
        @staticmethod
        @cache.cached
        @colour.loader
        def static(x: int) -> str:
            return "One"

        @cache.cached
        @staticmethod
        @colour.loader
        def outside(x: int) -> str:
            return "One"

        @classmethod
        @cache.cached
        @colour.loader
        def kind(cls, x: int) -> str:
            return cls.__name__

        @cache.cached
        @classmethod
        @colour.loader
        def kind_outside(cls, x: int) -> str:
            return cls.__name__

    class Two(One):
        @staticmethod
        @cache.cached
        @colour.loader
        def static(x: int) -> str:
            return "Two"

    for _ in range(2):
        assert [colour(One.static(1)), colour(Two.static(1)), colour(Two().static(1))] == ["One", "Two", "Two"]
        assert [colour(One.outside(1)), colour(One().outside(1))] == ["One", "One"]
        assert [colour(One.kind(1)), colour(Two.kind(1)), colour(Two().kind(1))] == ["One", "Two", "Two"]
        assert [colour(One.kind_outside(1)), colour(Two.kind_outside(1))] == ["One", "Two"]
    assert One.static.key(1) != Two.static.key(1)
    assert One.static.stats.loads == One.outside.stats.loads == 1
    assert One.kind.stats.loads == 2
    assert colour(One.kind.invalidate(One, 1)) == 1
    assert One.kind.stats.loads == 2
    assert colour(Two.kind.get(Two, 1)) == "Two"


def test_a_property_is_remembered_for_its_object(cache: Cache) -> None:
    class Circle:
        def __init__(self, radius: float) -> None:
            self.radius = radius
            self.calls = 0

        @cache.cached
        @property
        def area(self) -> float:
            """Three times its square."""
            self.calls += 1
            return 3 * self.radius**2

        @property
        @cache.cached
        def double(self) -> float:
            self.calls += 1
            return 2 * self.radius

    one, two = Circle(1), Circle(2)
    assert [one.area, one.area, two.area, one.double, one.double] == [3, 3, 12, 2, 2]
    assert (one.calls, two.calls) == (2, 1)
    assert Circle.area.__doc__ == "Three times its square."


def test_a_subclass_that_overrides_a_method_and_calls_the_base_gets_both(cache: Cache, colour: Colour) -> None:
    class Base:
        @cache.cached
        @colour.loader
        def name(self) -> str:
            return "base"

    class Derived(Base):
        @cache.cached
        @colour.loader
        def name(self) -> str:
            return "derived"

    derived = Derived()
    for _ in range(2):
        assert [colour(derived.name()), colour(Base.name(derived))] == ["derived", "base"]


def test_an_object_may_die_while_its_method_loads(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    class Owner:
        @cache.cached
        @colour.loader
        def number(self) -> Any:
            yield gate
            return 1

    owner = Owner()
    gone = weakref.ref(owner)
    caller = colour.start(owner.number)
    gate.reached()
    del owner
    gate.open()
    assert caller.result(10) == 1
    del caller
    gc.collect()
    assert gone() is None
    assert len(cache._keeper.memory) == 0


def test_a_destructor_may_use_the_cache(cache: Cache) -> None:
    @cache.cached
    def load(x: int) -> list[int]:
        return [x]

    class Owner:
        @cache.cached
        def number(self) -> int:
            return 1

        def __del__(self) -> None:
            load(1)
            load.invalidate(1)
            Owner.number.invalidate_all()

    for _ in range(50):
        owner = Owner()
        owner.number()
        owner.me = owner  # type: ignore[attr-defined]
    del owner
    gc.collect()
    assert cache._keeper.memory.bound.count == len(cache._keeper.memory) == 0


DESTRUCTORS = """
import contextvars, gc
from cachecraft import Cache

contextvars.ContextVar("another").set(1)

def scenario():
    cache = Cache()

    @cache.cached(tags=["t"])
    def load(x):
        return [x]

    class Owner:
        @cache.cached
        def number(self):
            return 1

        def __del__(self):
            load(1)
            load.invalidate(1)
            Owner.number.invalidate_all()

    for _ in range(60):
        owner = Owner()
        owner.number()
        owner.me = owner
    del owner
    gc.collect()
    assert len(cache._keeper.memory) == 0

for turn in range(150):
    gc.set_threshold(turn % 37 + 3, 2, 2)
    scenario()
"""


def test_destructors_that_run_in_the_middle_of_anything_break_nothing() -> None:
    """In a process of its own, since what broke was the interpreter."""
    run = subprocess.run([sys.executable, "-c", DESTRUCTORS], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_method_whose_self_is_named_otherwise_is_keyed_by_its_argument(cache: Cache) -> None:
    class Odd:
        @cache.cached
        def find(this, x: int) -> int:  # noqa: N805
            return x

    with pytest.raises(UnkeyableError, match="'this'"):
        Odd().find(1)


def test_stats_keep_the_hits_of_objects_that_are_gone(cache: Cache, clock: FakeClock) -> None:
    class Owner:
        @cache.cached
        def number(self) -> int:
            return 1

    for _ in range(5):
        owner = Owner()
        owner.number(), owner.number(), owner.number()
        del owner
    assert Owner.number.cache_info()[:2] == (10, 5)
    assert Owner.number.stats.hits == 10


def test_the_bound_holds_over_many_objects(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(max_entries=10)

    class Owner:
        @cache.cached
        def number(self, x: int) -> int:
            return x

    owners = [Owner() for _ in range(10)]
    for x in range(10):
        for owner in owners:
            assert owner.number(x) == x
            assert len(cache._keeper.memory) <= 10
