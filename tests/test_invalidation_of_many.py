"""An invalidation of very many entries is over in no time, and holds all the same: P1, the bounds, the counts."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from cachecraft.backends.memory import AT_ONCE
from tests.callers import PATIENCE, Async, Gate, Sync
from tests.clock import FakeClock

Colour = Sync | Async

MANY = AT_ONCE + 500
"""More than an invalidation drops by itself."""

WAYS: dict[str, Callable[[Cache, Any], Any]] = {
    "tag": lambda cache, load: cache.invalidate(tags="t"),
    "function": lambda cache, load: load.invalidate_all(),
    "clear": lambda cache, load: cache.clear(),
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "key": {"key": "k:{x}"},
    "made key": {"key": "k:{}".format},
    "vary": {"vary": lambda: "v"},
    "stale": {"ttl": 60, "stale": 60},
}
every_way = pytest.mark.parametrize("how", WAYS)
every_kind = pytest.mark.parametrize("kind", KINDS)


class Value:
    """Something whose end can be seen."""


def counting(cache: Cache, **options: Any) -> Any:
    """A cached function whose every result is new."""

    @cache.cached(**{"tags": ["t"], **options})
    def load(x: Any) -> Value:
        return Value()

    return load


def drain(cache: Cache) -> None:
    """Do what later calls do: enough of them to let go of everything."""
    other = cache.cached(lambda x: x)
    for x in range(2 * MANY):
        other(x)
    other.invalidate_all()
    while cache._keeper.memory.doomed:
        other.get(0)


@every_way
@every_kind
def test_nothing_of_it_is_served_again_and_all_is_counted(
    make_cache: Callable[..., Cache], how: str, kind: str
) -> None:
    cache = make_cache()
    load = counting(cache, **KINDS[kind])
    old = [load(x) for x in range(MANY)]
    assert [load(x) for x in range(MANY)] == old
    counted = WAYS[how](cache, load)
    assert counted == (None if how == "clear" else MANY)
    assert load.cache_info() == (MANY, MANY, 100_000, 0)
    assert load.get(3) is MISSING
    assert load.invalidate(4) == 0
    assert cache.invalidate(key=load.key(5)) == 0
    assert cache.invalidate(pattern="*:*", tags="t") == 0
    new = [load(x) for x in range(MANY)]
    assert not set(new) & set(old)
    assert [load(x) for x in range(MANY)] == new
    assert load.cache_info() == (2 * MANY, 2 * MANY, 100_000, MANY)
    drain(cache)
    assert [load(x) for x in range(MANY)] == new
    assert load.cache_info() == (3 * MANY, 2 * MANY, 100_000, MANY)
    assert len(cache._keeper.memory) == MANY


@every_way
@every_kind
def test_its_memory_is_given_back_by_later_calls(make_cache: Callable[..., Cache], how: str, kind: str) -> None:
    cache = make_cache()
    load = counting(cache, **KINDS[kind])
    values = [weakref.ref(load(x)) for x in range(MANY)]
    WAYS[how](cache, load)
    other = cache.cached(lambda x: x)
    for x in range(MANY):
        other(x)
    assert [each for each in values if each() is not None] == []
    memory = cache._keeper.memory
    assert len(memory) == other.cache_info().currsize == MANY
    assert (memory.names, memory.tags) == ({}, {})


@every_way
def test_a_few_are_given_back_at_once(make_cache: Callable[..., Cache], how: str) -> None:
    cache = make_cache()
    load = counting(cache)
    values = [weakref.ref(load(x)) for x in range(100)]
    WAYS[how](cache, load)
    assert [each for each in values if each() is not None] == []
    assert (len(cache._keeper.memory), cache._keeper.memory.bound.bytes) == (0, 0)


@every_way
@every_kind
@pytest.mark.parametrize("bound", ["entries", "bytes"])
def test_bounds_hold_and_what_is_gone_makes_room_before_what_is_kept(
    make_cache: Callable[..., Cache], how: str, kind: str, bound: str
) -> None:
    # Of 400 bytes of value each, the bookkeeping comes on top.
    most = {"max_entries": MANY + 300} if bound == "entries" else {"max_bytes": (MANY + 300) * 1000}
    cache = make_cache(**most)
    size = 1 if bound == "entries" else 600

    @cache.cached(tags=["t"], **KINDS[kind])
    def gone(x: int) -> bytes:
        return bytes(size)

    kept, new = cache.cached(lambda x: bytes(size)), cache.cached(key="new:{x}")(lambda x: bytes(size))
    for x in range(MANY):
        gone(x)
    if how == "clear":
        cache.clear()
    for x in range(200):
        kept(x)
    if how != "clear":
        WAYS[how](cache, gone)
    memory = cache._keeper.memory
    for x in range(MANY):
        new(x)
        assert len(memory) <= memory.bound.max_entries
        assert memory.bound.bytes <= memory.bound.max_bytes
    assert kept.cache_info().currsize == 200
    assert memory.bound.evictions == 0


@every_way
@pytest.mark.parametrize("kind", ["plain", "key", "stale"])
@pytest.mark.parametrize("tagged", [True, False])
def test_a_load_under_way_is_neither_stored_nor_joined_afterwards(
    make_cache: Callable[..., Cache], colour: Colour, how: str, kind: str, tagged: bool
) -> None:
    if how == "tag" and not tagged:
        pytest.skip("nothing to invalidate by")
    cache = make_cache()
    gate = Gate()
    calls: list[int] = []

    @cache.cached(tags=["t"] if tagged else (), **KINDS[kind])
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        mine = calls.count(x)
        if x == -1 and mine == 1:
            yield gate
        return mine

    for x in range(MANY):
        colour(load(x))
    first = colour.start(load, -1)
    gate.reached()
    result = WAYS[how](cache, load)
    if colour.is_async and how == "function":
        colour(result)
    assert colour(load(-1)) == 2
    gate.open()
    assert first.result(PATIENCE) == 1
    assert colour(load(-1)) == 2
    assert colour(load(0)) == 2


@pytest.mark.parametrize("how", ["tag", "function"])
@every_kind
def test_several_in_a_row_each_count_their_own(make_cache: Callable[..., Cache], how: str, kind: str) -> None:
    cache = make_cache()
    load = counting(cache, **KINDS[kind])
    for turn in range(1, 6):
        values = [load(x) for x in range(MANY)]
        assert [load(x) for x in range(MANY)] == values
        while cache._keeper.memory.doomed:
            load.get(-1)
        assert WAYS[how](cache, load) == MANY
        assert WAYS[how](cache, load) == 0
        assert load.cache_info() == (turn * MANY, turn * MANY, 100_000, 0)
        assert load.stats.invalidated == (0 if how == "tag" else turn * MANY)


@pytest.mark.parametrize("first", ["tag", "function"])
def test_one_kind_after_the_other_counts_nothing_twice(make_cache: Callable[..., Cache], first: str) -> None:
    cache = make_cache()
    load = counting(cache)
    for x in range(3 * MANY):
        load(x)
    assert WAYS[first](cache, load) == 3 * MANY
    for x in range(10):
        load(x)
    for how in ("tag", "function"):
        assert WAYS[how](cache, load) <= 10
    assert load.cache_info().currsize == 0


def test_tags_that_overlap_count_an_entry_once_and_at_least_those_of_the_largest(
    make_cache: Callable[..., Cache],
) -> None:
    cache = make_cache()
    load = counting(cache, tags=["all", "x:{x}"])
    two = counting(cache, tags=["all", "two"])
    for x in range(MANY):
        load(x), two(x)
    assert cache.invalidate(tags=["x:1", "x:2", "unknown"]) == 2
    assert 2 * MANY - 2 >= cache.invalidate(tags=["all", "two", "x:3"]) >= MANY
    assert (load.cache_info().currsize, two.cache_info().currsize) == (0, 0)
    assert cache.invalidate(tags=["two", "x:4", "x:5"]) == 0


def test_other_tags_keep_their_entries_and_are_as_quick_as_before_when_all_is_let_go_of(
    make_cache: Callable[..., Cache],
) -> None:
    cache = make_cache()
    load, other = counting(cache), counting(cache, tags=["other", "o:{x}"])
    kept = [other(x) for x in range(50)]
    for x in range(MANY):
        load(x)
    cache.invalidate(tags="t")
    for _ in range(10):
        assert [other(x) for x in range(50)] == kept
    assert other.cache_info()[:2] == (500, 50)
    assert not cache._keeper.memory.wary, "hits alone have let go of it"
    assert [other(x) for x in range(50)] == kept
    assert cache.invalidate(tags="o:7") == 1
    assert other(7) is not kept[7]


def test_what_was_given_tags_by_hand_goes_too(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    load = counting(cache, tags=())
    for x in range(MANY):
        cache.set(load.key(x), "by hand", tags=["hand"])
    assert load(0) == load(MANY - 1) == "by hand"
    assert cache.invalidate(tags="hand") == MANY
    assert load(0) != "by hand"
    assert load(0) is load(0)
    assert load.cache_info().currsize == 1


def test_functions_that_share_keys_keep_what_the_other_one_stored(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    one, two = counting(cache, key="k:{x}", tags=()), counting(cache, key="k:{x}", tags=())
    mine, others = [one(x) for x in range(MANY)], [two(x) for x in range(MANY, 2 * MANY)]
    assert two(1) is mine[1]
    assert one.invalidate_all() == MANY
    assert two.get(1) is one.get(1) is MISSING
    assert two(1) is one(1) is not mine[1]
    assert [two(x) for x in range(MANY, 2 * MANY)] == others
    assert one.get(MANY) is MISSING
    assert one.cache_info().currsize + two.cache_info().currsize == MANY + 1
    assert cache.invalidate(pattern="k:*") == MANY + 1
    drain(cache)
    assert one.get(1) is MISSING
    assert cache._keeper.memory.names == {}


def test_a_key_by_which_arguments_are_found_only_by_name_goes_too(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    load = counting(cache)
    old = [load([x]) for x in range(MANY)]
    assert load.invalidate_all() == MANY
    assert load([1]) is not old[1]
    assert load.cache_info().currsize == 1


def owner_of(cache: Cache) -> Any:
    class Own:
        @cache.cached
        def number(self, x: int) -> Value:
            return Value()

    return Own


@pytest.mark.parametrize("how", ["function", "clear"])
@pytest.mark.parametrize(("objects", "each"), [(MANY, 1), (3, MANY)])
def test_methods_of_many_objects(make_cache: Callable[..., Cache], how: str, objects: int, each: int) -> None:
    cache = make_cache()
    owner_type = owner_of(cache)
    number = owner_type.number
    owners = [owner_type() for _ in range(objects)]
    key = number.key(owners[1], 0)
    old = [[owner.number(x) for x in range(each)] for owner in owners]
    assert [[owner.number(x) for x in range(each)] for owner in owners] == old
    total = objects * each
    counted = WAYS[how](cache, number)
    assert counted is None or 1000 <= counted <= total
    assert number.cache_info() == (total, total, 100_000, 0)
    assert number.get(owners[0], 0) is MISSING
    assert number.key(owners[1], 0) == key
    assert cache.invalidate(key=key) == 0
    del key  # and the object in it
    new = [owner.number(0) for owner in owners]
    assert not set(new) & {value for values in old for value in values}
    assert [owner.number(0) for owner in owners] == new
    assert number.cache_info().currsize == objects
    values = [weakref.ref(value) for value in new]
    half = objects // 2
    del owners[:half], new
    gc.collect()
    assert number.cache_info().currsize == objects - half
    assert sum(value() is None for value in values) == half
    assert cache.invalidate(key=number.key(owners[0], 0)) == 1
    drain(cache)
    assert len(cache._keeper.memory) == number.cache_info().currsize == objects - half - 1
    assert number.cache_info().hits == total + objects


def test_objects_that_die_after_it_leave_nothing(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    owner_type = owner_of(cache)
    owners = [owner_type() for _ in range(MANY)]
    for owner in owners:
        owner.number(1)
    owner_type.number.invalidate_all()
    del owner, owners
    gc.collect()
    assert owner_type.number.cache_info() == (0, MANY, 100_000, 0)
    assert len(cache._keeper.memory) == 0
    drain(cache)
    assert owner_type().number(1) is not None


@every_way
def test_destructors_may_use_the_cache_while_it_is_let_go_of(make_cache: Callable[..., Cache], how: str) -> None:
    cache = make_cache(max_entries=MANY + 100)
    other = counting(cache, tags=["o"])

    class Busy:
        def __init__(self, x: int) -> None:
            self.x = x

        def __del__(self) -> None:
            other(self.x)
            if self.x % 7 == 0:
                load.invalidate(self.x - 1)
                other.invalidate_all()
            if self.x % 11 == 0:
                load.set(None, self.x)
            if self.x % 13 == 0:
                WAYS[how](cache, load)

    @cache.cached(tags=["t"])
    def load(x: int) -> Any:
        return Busy(x)

    for x in range(MANY):
        load(x)
    WAYS[how](cache, load)
    for x in range(MANY):
        other(-x)
    drain(cache)
    load.invalidate_all(), other.invalidate_all()
    gc.collect()
    drain(cache)
    memory = cache._keeper.memory
    assert len(memory) == load.cache_info().currsize + other.cache_info().currsize
    cache.clear()


def test_expired_entries_are_not_served_either_and_loads_begin_anew(
    make_cache: Callable[..., Cache], clock: FakeClock
) -> None:
    cache = make_cache()
    load = counting(cache, ttl=10, grace=10)
    old = [load(x) for x in range(MANY)]
    clock.advance(15)
    cache.invalidate(tags="t")
    assert load(1) is not old[1]


def test_a_closed_cache_tells_nobody_where_to_look(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    load = counting(cache)
    for x in range(MANY):
        load(x)
    place = load.__cachecraft__.function()
    cache.close()
    assert place.memory.invalidate_tables([place.table]) == MANY
    assert load(1) is not load(1)


@every_kind
@pytest.mark.parametrize("first", ["tag", "function"])
def test_what_still_takes_up_memory_counts_towards_the_bounds(
    make_cache: Callable[..., Cache], first: str, kind: str
) -> None:
    cache = make_cache()
    load = counting(cache, **KINDS[kind])
    values = [weakref.ref(load(x)) for x in range(2 * MANY)]
    WAYS[first](cache, load)
    for how in ("function", "tag"):
        values += [weakref.ref(load(x)) for x in range(8)]
        WAYS[how](cache, load)
        assert sum(value() is not None for value in values) == len(cache._keeper.memory) > MANY / 2


def test_a_full_memory_is_filled_anew_without_losing_what_has_just_come(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(max_entries=MANY)
    load = counting(cache, tags=())
    for x in range(2 * MANY):
        load(-x)
    load.invalidate_all()
    for step in (1, -1, 1):
        new = [load(x) for x in range(MANY)[::step]]
        assert [load(x) for x in range(MANY)[::step]] == new
        assert load.cache_info().currsize == len(cache._keeper.memory) == MANY
        load.invalidate_all()


def test_a_large_value_takes_the_room_of_many_that_are_gone(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(max_bytes=MANY * 1000)

    @cache.cached
    def blob(x: int) -> bytes:
        return bytes(x)

    @cache.cached
    def kept(x: int) -> bytes:
        return bytes(x)

    for x in range(100):
        kept(500 + x)
    gone = counting(cache, tags=())
    for x in range(MANY):
        gone(x)
    gone.invalidate_all()
    memory = cache._keeper.memory
    blob(memory.bound.largest - memory.bound.bytes + 100_000)
    assert memory.bound.bytes <= MANY * 1000
    assert kept.cache_info().currsize == 100
    assert memory.bound.evictions == 0


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_value_that_comes_just_after_all_of_its_method_went_is_kept(
    make_cache: Callable[..., Cache], by_hand: bool
) -> None:
    hooks: list[Callable[[], object]] = []

    def clock() -> float:
        if hooks:
            hooks.pop()()
        return 1.0

    cache = make_cache(clock=clock)

    class Own:
        @cache.cached
        def number(self, x: int) -> int:
            return x

    owner_type: Any = Own
    owners = [owner_type() for _ in range(MANY)]
    for owner in owners:
        owner.number(1)
    # The clock is read when it is known where the value is to stand, and before the load is known to others.
    hooks.append(owner_type.number.invalidate_all)
    if by_hand:
        owner_type.number.set("mine", owners[0], 2)
    else:
        owners[0].number(2)
    assert hooks == []
    drain(cache)
    assert owner_type.number.cache_info().currsize == len(cache._keeper.memory) == 1
    assert owner_type.number.get(owners[0], 2) is not MISSING


def test_very_many_tags_fall_at_once(make_cache: Callable[..., Cache]) -> None:
    """Each once looked at all that had fallen before it, with everybody else locked out: half a minute."""
    cache, many = make_cache(), 20 * AT_ONCE

    @cache.cached(tags=["t:{x}"])
    def load(x: int) -> int:
        return x

    for x in range(many):
        load(x)
    falling = Sync().start(cache.invalidate, tags=[f"t:{x}" for x in range(many)])
    assert falling.result(PATIENCE) >= AT_ONCE
    assert all(load.get(x) is MISSING for x in range(many))
