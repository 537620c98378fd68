"""Fresh after invalidation (P1): by key, pattern, tag, function or all, also against loads under way."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import MISSING, Cache, OptionTypeError, PatternError
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock

Colour = Sync | Async


def numbered(cache: Cache, colour: Colour, **options: Any) -> Any:
    """A cached function that answers how often it ran."""
    calls: list[Any] = []

    @cache.cached(**options)
    @colour.loader
    def load(x: object) -> int:
        calls.append(x)
        return len(calls)

    return load


def test_by_arguments_only_that_entry_goes(cache: Cache, colour: Colour) -> None:
    load = numbered(cache, colour)
    assert [colour(load(1)), colour(load(2))] == [1, 2]
    assert [colour(load.invalidate(1)), colour(load.invalidate(1))] == [1, 0]
    assert [colour(load(2)), colour(load(1))] == [2, 3]
    assert load.stats.invalidated == 1


def test_an_expired_entry_does_not_count_as_dropped(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    load = numbered(cache, colour, ttl=10)
    colour(load(1))
    clock.advance(10)
    assert colour(load.invalidate(1)) == 0


@pytest.mark.parametrize("argument", [1, "a:*", 0.0, [1, "b"], {"k": None}])
@pytest.mark.parametrize("indexed_before", [False, True])
def test_by_the_key_that_the_function_tells(
    cache: Cache, colour: Colour, argument: object, indexed_before: bool
) -> None:
    load = numbered(cache, colour)
    by_hand = colour.on(cache)
    if indexed_before:
        by_hand.invalidate(pattern="*load:*")
    assert [colour(load(argument)), colour(load("other"))] == [1, 2]
    assert by_hand.invalidate(key=load.key(argument)) == 1
    assert [colour(load(argument)), colour(load("other"))] == [3, 2]
    assert by_hand.delete(load.key(argument)) is True
    assert by_hand.delete(load.key(argument)) is False


def test_by_a_key_written_by_hand_in_the_caches_namespace(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(namespace="shop")
    load = numbered(cache, colour, key="user:{x}")
    colour(load(1))
    assert colour.on(cache).invalidate(key="user:1") == 1
    assert colour(load(1)) == 2


def test_all_entries_of_one_function(cache: Cache, colour: Colour) -> None:
    one, two = numbered(cache, colour), numbered(cache, colour)
    for x in (1, "a", [1], 0.0, True):
        colour(one(x)), colour(two(x))
    assert colour(one.invalidate_all()) == 5
    assert one.cache_info().currsize == 0
    assert [colour(one(1)), colour(two(1))] == [6, 1]


def test_clear_drops_what_every_function_keeps_also_in_namespaces_of_their_own(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    cache = make_cache(namespace="shop")
    one, two = numbered(cache, colour), numbered(cache, colour, namespace="own")
    by_hand = colour.on(cache)
    by_hand.set("k", 1)
    colour(one(1)), colour(two(1))
    by_hand.clear()
    assert by_hand.get("k") is MISSING
    assert [colour(one(1)), colour(two(1))] == [2, 2]


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("user:*", {"user:1:a", "user:1:b", "user:12:a"}),
        ("user:1:*", {"user:1:a", "user:1:b"}),
        ("user:1?:a", {"user:12:a"}),
        ("user:[0-1]:a", {"user:1:a"}),
        ("*:a", {"user:1:a", "user:12:a", "post:1:a"}),
        ("user:1:a", {"user:1:a"}),
        ("nothing:*", set()),
    ],
)
def test_a_pattern_drops_what_it_matches_and_nothing_else(
    cache: Cache, colour: Colour, pattern: str, gone: set[str]
) -> None:
    by_hand = colour.on(cache)
    keys = {"user:1:a", "user:1:b", "user:12:a", "post:1:a"}
    for key in keys:
        by_hand.set(key, key)
    assert by_hand.invalidate(pattern=pattern) == len(gone)
    assert {key for key in keys if by_hand.get(key) is MISSING} == gone


def test_patterns_never_leave_their_namespace(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(namespace="shop")
    mine = numbered(cache, colour, key="eu:{x}")
    others = [numbered(cache, colour, key="{x}", namespace=name) for name in ("shop:eu", "shop:", "shop*", "sho", "")]
    mine_too = numbered(cache, colour, key="eu:{x}", namespace="shop")
    colour(mine(1))
    assert colour(mine_too(1)) == 1, "the same namespace, the same key"
    for other in others:
        assert colour(other(1)) == 1, "no other namespace meets it"
    assert len({each.key(1) for each in (mine, *others)}) == 6
    assert colour.on(cache).invalidate(pattern="*1") == 1
    assert colour(mine.get(1)) is MISSING
    assert [colour(other.get(1)) for other in others] == [1] * 5


def test_what_is_special_in_a_value_matches_only_itself(cache: Cache, colour: Colour) -> None:
    load = numbered(cache, colour, key="user:{x}")
    for x in ("*", "a", "a:b", "[a]"):
        colour(load(x))
    assert colour.on(cache).invalidate(pattern="user:a") == 1
    assert [colour(load.get(x)) for x in ("*", "a:b", "[a]")] == [1, 3, 4]


@pytest.mark.parametrize("pattern", ["", "*", "**", "?*"])
def test_a_pattern_that_means_everything_is_refused(cache: Cache, colour: Colour, pattern: str) -> None:
    with pytest.raises(PatternError, match=r"clear\(\)"):
        colour.on(cache).invalidate(pattern=pattern)


def test_invalidating_nothing_in_particular_is_refused(cache: Cache, colour: Colour) -> None:
    with pytest.raises(OptionTypeError, match="key=, pattern= or tags="):
        colour.on(cache).invalidate()


def test_a_pattern_finds_entries_with_default_keys_kept_before_and_after_it_was_first_used(
    cache: Cache, colour: Colour
) -> None:
    load = numbered(cache, colour)
    colour(load(1))
    assert colour.on(cache).invalidate(pattern="*load:*") == 1
    colour(load(2)), colour(load([3]))
    assert load.cache_info().currsize == 2
    assert colour.on(cache).invalidate(pattern="*load:*") == 2
    assert load.cache_info().currsize == 0
    assert load.cache_info().hits == 0


def test_naming_the_entries_for_a_pattern_loses_no_hits(cache: Cache, colour: Colour) -> None:
    load = numbered(cache, colour)
    for _ in range(5):
        colour(load(1))
    colour.on(cache).invalidate(pattern="*load:no-such*")
    assert colour(load(1)) == 1
    assert load.cache_info()[:2] == (5, 1)


@pytest.mark.parametrize("options", [{}, {"key": "user:{x}"}, {"ttl": 60, "stale": 60}])
def test_a_tag_drops_the_entries_that_carry_it(cache: Cache, colour: Colour, options: dict[str, Any]) -> None:
    one = numbered(cache, colour, tags=["users", "user:{x}"], **options)
    two = numbered(cache, colour, tags=["posts"])
    by_hand = colour.on(cache)
    assert [colour(one(1)), colour(one(2)), colour(two(1))] == [1, 2, 1]
    assert by_hand.invalidate(tags=["user:1"]) == 1
    assert [colour(one.get(1)), colour(one.get(2))] == [MISSING, 2]
    assert by_hand.invalidate(tags="users") == 1
    assert [colour(one.get(2)), colour(two.get(1))] == [MISSING, 1]
    colour(one(3))
    assert by_hand.invalidate(tags=["users", "posts", "unused"]) == 2


@pytest.mark.parametrize("value", ["a+b@x.org", "a:b", "/path?x=1", "ü %41 *", "100%"])
def test_a_tag_is_dropped_by_the_text_one_would_write(cache: Cache, colour: Colour, value: str) -> None:
    load = numbered(cache, colour, tags=["user:{x}"])
    by_hand = numbered(cache, colour, tags=lambda result, x: [f"user:{x}"])
    colour(load(value)), colour(by_hand(value))
    assert colour.on(cache).invalidate(tags=[f"user:{value}"]) == 2


def test_tags_may_follow_from_the_result(cache: Cache, colour: Colour) -> None:
    @cache.cached(key="doc:{doc}", tags=lambda result, doc: [f"author:{result}"])
    @colour.loader
    def author(doc: int) -> str:
        return "ann" if doc < 3 else "bob"

    for doc in (1, 2, 3):
        colour(author(doc))
    assert colour.on(cache).invalidate(tags=["author:ann"]) == 2
    assert colour(author.get(3)) == "bob"


def test_tags_belong_to_a_namespace(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(namespace="shop")
    mine = numbered(cache, colour, tags=["t"])
    other = numbered(cache, colour, tags=["t"], namespace="other")
    colour(mine(1)), colour(other(1))
    assert colour.on(cache).invalidate(tags=["t"]) == 1
    assert colour(other.get(1)) == 1


def test_an_evicted_entry_leaves_no_tag_behind(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(max_entries=10)
    load = numbered(cache, Sync(), tags=["user:{x}"], key="u:{x}")
    for x in range(100):
        load(x)
    memory = cache._keeper.memory
    assert len(memory.tags) == len(memory.names) == 10


# -- loads under way -----------------------------------------------------------------------------------------

INVALIDATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "f.invalidate": lambda colour, cache, load: colour(load.invalidate(1)),
    "f.invalidate_all": lambda colour, cache, load: colour(load.invalidate_all()),
    "f.cache_clear": lambda colour, cache, load: colour(load.cache_clear()),
    "by key": lambda colour, cache, load: colour.on(cache).invalidate(key=load.key(1)),
    "delete": lambda colour, cache, load: colour.on(cache).delete(load.key(1)),
    "by pattern": lambda colour, cache, load: colour.on(cache).invalidate(pattern=load.key(1)[1:-1] + "*"),
    "by tag": lambda colour, cache, load: colour.on(cache).invalidate(tags=["t:1"]),
    "by tag of the result": lambda colour, cache, load: colour.on(cache).invalidate(tags=["r:v"]),
    "clear": lambda colour, cache, load: colour.on(cache).clear(),
    "f.set": lambda colour, cache, load: colour(load.set("set", 1)),
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "load:{x}"},
        {"vary": lambda: "v"},
        {"ttl": 60, "stale": 60, "grace": 60},
        {"cache_errors": ValueError},
        {"isolate": True},
    ],
    ids=lambda options: "+".join(options) or "plain",
)
@pytest.mark.parametrize("how", INVALIDATIONS)
def test_what_was_loading_during_an_invalidation_is_not_stored_nor_joined_later(
    cache: Cache, colour: Colour, how: str, options: dict[str, Any]
) -> None:
    if how == "by tag":
        options = {**options, "tags": ["t:{x}"]}
    if how == "by tag of the result":
        options = {**options, "tags": lambda result, x: [f"r:{result[0]}"]}
    old, new = Gate(), Gate()
    calls: list[int] = []

    @cache.cached(**options)
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        mine = len(calls)
        yield [old, new][mine - 1]
        return f"v{mine}"

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    first = colour.start(load, 1)
    old.reached()
    INVALIDATIONS[how](colour, cache, load)
    if how == "f.set":
        assert colour(load(1)) == "set"
    elif how != "by tag of the result":
        # Whoever comes after the invalidation neither joins the old load nor is disturbed by its end.
        second = colour.start(load, 1)
        new.reached()
        old.open()
        assert first.result(PATIENCE) == "v1"
        assert colour(load.get(1)) is MISSING
        third = colour.start(load, 1)
        new.open()
        assert second.result(PATIENCE) == third.result(PATIENCE) == "v2"
        assert colour(load(1)) == "v2"
        assert load.stats.loads == 2
    else:
        # Its tags are known when it is there; whoever joined it may have come before, and gets it.
        old.open()
        assert first.result(PATIENCE) == "v1"
        assert colour(load.get(1)) is MISSING
    old.open()
    assert first.result(PATIENCE) == "v1"
    expected = {"f.set": "set", "by tag of the result": MISSING}.get(how, "v2")
    assert colour(load.get(1)) == expected


@pytest.mark.parametrize("how", ["f.invalidate", "f.invalidate_all", "by key", "by pattern", "by tag", "clear"])
def test_a_refresh_behind_the_callers_back_does_not_store_what_was_invalidated(
    cache: Cache, clock: FakeClock, colour: Colour, how: str
) -> None:
    gate = Gate()
    calls: list[int] = []

    @cache.cached(ttl=10, stale=100, tags=["t:{x}"])
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        mine = len(calls)
        if mine == 2:
            yield gate
        return f"v{mine}"

    colour(load(1))
    clock.advance(11)
    assert colour(load(1)) == "v1"
    gate.reached()
    INVALIDATIONS[how](colour, cache, load)
    assert colour(load.get(1)) is MISSING, "the stale value is gone at once"
    gate.open()
    until(lambda: load.stats.store_lost == 1)
    assert colour(load.get(1)) is MISSING
    assert colour(load(1)) == "v3"


def test_a_load_for_another_key_is_stored_all_the_same(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached(tags=["t:{x}"])
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    caller = colour.start(load, 1)
    gate.reached()
    colour(load.invalidate(2))
    colour.on(cache).invalidate(tags=["t:2"])
    colour.on(cache).invalidate(pattern=load.key(2)[1:] + "*")
    gate.open()
    caller.result(PATIENCE)
    assert colour(load.get(1)) == 1


def test_functions_that_share_a_key_share_its_invalidation_in_flight(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached(key="user:{x}")
    @colour.loader
    def slow(x: int) -> Any:
        yield gate
        return "old"

    @cache.cached(key="user:{y}")
    @colour.loader
    def quick(y: int) -> str:
        return "new"

    caller = colour.start(slow, 1)
    gate.reached()
    colour(quick.invalidate(1))
    assert colour(quick(1)) == "new"
    gate.open()
    assert caller.result(PATIENCE) == "old"
    assert colour(slow(1)) == "new"


def test_a_load_that_lands_while_entries_are_given_names_gets_one_too(make_cache: Callable[..., Cache]) -> None:
    hooks: list[Callable[[], object]] = []

    def random() -> float:
        if hooks:
            hooks.pop()()
        return 0.5

    cache = make_cache(random=random)
    load = numbered(cache, Sync())
    load(0)
    # The time to live is drawn when the load has ended and before it is stored: just then entries get their names.
    hooks.append(lambda: cache.invalidate(pattern="*load:no-such*"))
    assert load(1) == 2
    assert hooks == []
    assert cache.invalidate(key=load.key(1)) == 1
    assert load(1) == 3


def test_f_set_and_invalidation_leave_either_the_value_or_nothing(cache: Cache, colour: Colour) -> None:
    load = numbered(cache, colour, key="u:{x}", tags=["t"])
    assert colour(load.set("mine", 1)) is True
    assert colour(load(1)) == "mine"
    colour.on(cache).invalidate(tags="t")
    assert colour(load(1)) == 1


def test_setting_a_value_that_is_declined_leaves_no_old_one(cache: Cache, colour: Colour) -> None:
    load = numbered(cache, colour, when=lambda result: result != "no")
    assert colour(load(1)) == 1
    assert colour(load.set("no", 1)) is False
    assert colour(load.get(1)) is MISSING


def test_refresh_loads_anew_and_joins_no_load_that_began_before(cache: Cache, colour: Colour) -> None:
    gate = Gate()
    calls: list[int] = []

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        mine = len(calls)
        if mine == 1:
            yield gate
        return mine

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    first = colour.start(load, 1)
    gate.reached()
    second = colour.start(load.refresh, 1)
    assert not second.done()
    gate.open()
    assert [first.result(PATIENCE), second.result(PATIENCE)] == [1, 2]
    assert colour(load(1)) == 2
    assert colour(load.refresh(1)) == 3
    assert colour(load(1)) == 3


def test_refresh_that_has_waited_long_enough_loads_for_itself(cache: Cache, colour: Colour) -> None:
    gate = Gate()
    calls: list[int] = []

    @cache.cached(wait=0.01)
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        mine = len(calls)
        if mine == 1:
            yield gate
        return mine

    first = colour.start(load, 1)
    gate.reached()
    assert colour(load.refresh(1)) == 2
    gate.open()
    assert first.result(PATIENCE) == 1


def test_invalidations_amid_loads_of_many_threads_neither_fail_nor_leave_old_values(
    make_cache: Callable[..., Cache],
) -> None:
    cache = make_cache()
    truth = dict.fromkeys(range(8), 0)
    seen: list[str] = []

    def loader(options: dict[str, Any]) -> Any:
        @cache.cached(**options)
        def load(x: int) -> int:
            return truth[x]

        return load

    loads = [
        loader(options) for options in ({}, {"tags": ["t:{x}"]}, {"key": "u:{x}"}, {"tags": lambda r, x: [f"t:{x}"]})
    ]
    ways: list[Callable[[Any, int], Any]] = [
        lambda load, x: load.invalidate(x),
        lambda load, x: cache.invalidate(key=load.key(x)),
        lambda load, x: cache.invalidate(pattern=load.key(x)[1:] + "*"),
        lambda load, x: load.invalidate_all(),
    ]
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for x in truth:
                for load in loads:
                    load(x)

    def write(mine: int) -> None:
        for turn in range(300):
            x = mine * 2 + turn % 2
            truth[x] += 1
            for load in loads:
                ways[turn % 4](load, x)
                if load(x) < truth[x]:
                    seen.append(f"{load.__cachecraft__} after {turn % 4}")

    readers = [Sync().start(read) for _ in range(2)]
    writers = [Sync().start(write, mine) for mine in range(4)]
    for writer in writers:
        writer.result(PATIENCE * 3)
    stop.set()
    for reader in readers:
        reader.result(PATIENCE)
    assert seen == []
