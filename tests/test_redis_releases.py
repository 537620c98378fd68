"""Two releases of a program on one Redis: each reads its own results, and what either invalidates is gone for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from cachecraft import MISSING, Cache
from tests.callers import PATIENCE, Gate, until
from tests.proxy import Proxy
from tests.redis_kit import cache, colour, other, proxy  # noqa: F401 - fixtures


@dataclass
class _User:
    name: str


_OldUser = _User


@dataclass
class _User:  # type: ignore[no-redef]  # the next release, in which it gained a field
    name: str
    team: str = "none"


def old_get(user: int) -> _OldUser:
    return _OldUser(f"old {user}")


def new_get(user: int) -> _User:
    return _User(f"new {user}", "blue")


old_get.__annotations__["return"] = _OldUser
new_get.__annotations__["return"] = _User
for function in (old_get, new_get):  # one function, as it was and as it is
    function.__name__ = function.__qualname__ = "get"

BY_SCHEMA: tuple[Any, ...] = (old_get, new_get, {}, {})
BY_VERSION: tuple[Any, ...] = (lambda user: f"old {user}", lambda user: f"new {user}", {}, {"version": 2})


class Releases:
    """The same function, as two processes have it that run different releases."""

    def __init__(self, colour: Any, caches: tuple[Cache, Cache], how: tuple[Any, ...]) -> None:
        self.loads: list[str] = []
        *functions, old, new = how
        self.old, self.new = (
            cache.cached(ttl=60, key="user:{user}", tags=["user:{user}", "all"], **options)(
                colour.loader(self._counting(function))
            )
            for cache, function, options in zip(caches, functions, (old, new), strict=True)
        )

    def _counting(self, function: Callable[[int], Any]) -> Callable[[int], Any]:
        def load(user: int) -> Any:
            value = function(user)
            self.loads.append(getattr(value, "name", value))
            return value

        load.__name__ = load.__qualname__ = "get"
        load.__annotations__["return"] = function.__annotations__.get("return")
        return load


@pytest.fixture(params=[BY_SCHEMA, BY_VERSION], ids=["a field more", "another version"])
def releases(request: pytest.FixtureRequest, cache: Cache, other: Cache, colour: Any) -> Releases:
    return Releases(colour, (cache, other), request.param)


@pytest.mark.parametrize("first", ["old", "new"])
def test_each_release_reads_its_own_results_whichever_came_first(releases: Releases, colour: Any, first: str) -> None:
    order = [releases.old, releases.new] if first == "old" else [releases.new, releases.old]
    seen = [colour(f(1)) for f in order]
    assert len(releases.loads) == 2
    for _ in range(3):
        assert [colour(f(1)) for f in order] == seen
        assert [type(colour(f(1))) for f in order] == [type(value) for value in seen]
    assert len(releases.loads) == 2
    assert order[1].stats.reasons == {"schema": 1}


@pytest.mark.parametrize("by", ["old", "new"])
@pytest.mark.parametrize("how", ["call", "key", "text", "pattern", "tag", "function", "clear"])
def test_what_one_release_invalidates_is_gone_for_the_other(releases: Releases, colour: Any, by: str, how: str) -> None:
    mine, theirs = (releases.old, releases.new) if by == "old" else (releases.new, releases.old)
    colour(releases.old(1))
    colour(releases.new(1))
    by_hand = colour.on(mine.cache)
    counted = {
        "call": lambda: colour(mine.invalidate(1)),
        "key": lambda: by_hand.invalidate(key=mine.key(1)),
        "text": lambda: by_hand.invalidate(key="user:1"),
        "pattern": lambda: by_hand.invalidate(pattern="user:*"),
        "tag": lambda: by_hand.invalidate(tags=["user:1"]),
        "function": lambda: colour(mine.invalidate_all()),
        "clear": by_hand.clear,
    }[how]()
    assert counted in (0, None) if how in ("tag", "function", "clear") else counted == 1
    assert colour(theirs.get(1)) is MISSING
    assert colour(mine.get(1)) is MISSING
    colour(theirs(1))
    colour(mine(1))
    assert len(releases.loads) == 4


def test_a_load_under_way_in_one_release_is_voided_by_the_other(releases: Releases, colour: Any) -> None:
    colour(releases.old(1))

    def load(user: int) -> Any:
        releases.old.cache.invalidate(key="user:1")  # while the new release loads, beside the old's entry
        return "late"

    async def aload(user: int) -> Any:
        await releases.old.cache.ainvalidate(key="user:1")
        return "late"

    inside = releases.new.cache.cached(ttl=60, key="user:{user}", version="3")(aload if colour.is_async else load)
    assert colour(inside(1)) == "late"
    assert colour(inside.get(1)) is MISSING


def test_what_a_release_writes_is_what_the_other_does_not_keep(releases: Releases, colour: Any) -> None:
    colour(releases.old(1))
    value = colour(releases.new(1))
    assert colour(releases.new.set(value, 1))
    assert colour(releases.old.get(1)) is MISSING  # its value was older than what has been written
    assert colour(releases.new.get(1)) == value


def test_a_refresh_leaves_the_others_entry_alone(releases: Releases, colour: Any) -> None:
    colour(releases.old(1))
    colour(releases.new.refresh(1))
    colour(releases.new.refresh(1))
    colour(releases.old(1))
    assert len(releases.loads) == 3


def test_a_hit_beside_anothers_entry_is_one_round_trip(proxy: Proxy, cache: Cache, colour: Any) -> None:
    with Cache(proxy.url, namespace="shop") as mine:
        releases = Releases(colour, (cache, mine), BY_VERSION)
        for user in range(5):
            colour(releases.old(user))
            colour(releases.new(user))
        proxy.forget()
        for user in range(5):
            assert colour(releases.new(user)) == f"new {user}"
        assert (proxy.round_trips, releases.new.stats.hits) == (5, 5)


def test_the_others_entry_keeps_its_own_ttl(releases: Releases, colour: Any, redis_url: str) -> None:
    colour(releases.old(1))
    with redis.Redis.from_url(redis_url) as server:
        before = server.pttl("shop:user:1")
        colour(releases.new(1))
        assert 0 < server.pttl("shop:user:1") <= before


def test_functions_that_share_a_key_keep_their_results_apart(cache: Cache, other: Cache, colour: Any) -> None:
    """As when a function is renamed: an invalidation of the whole of one could not reach entries of the other."""

    def find(user: int) -> str:
        return "found"

    def look(user: int) -> str:
        return "looked"

    one = cache.cached(ttl=60, key="user:{user}")(colour.loader(find))
    two = other.cached(ttl=60, key="user:{user}")(colour.loader(look))
    assert [colour(one(1)), colour(two(1)), colour(one(1)), colour(two(1))] == ["found", "looked"] * 2
    assert (one.stats.loads, two.stats.loads) == (1, 1)
    colour.on(cache).invalidate(key="user:1")
    assert [colour(one.get(1)), colour(two.get(1))] == [MISSING, MISSING]


def test_a_process_that_has_both_releases_joins_no_load_of_the_other(cache: Cache, colour: Any) -> None:
    def load_new(user: int) -> str:
        return "new"

    new = cache.cached(ttl=60, key="user:{user}", version=2)(colour.loader(load_new))

    async def nested(user: int) -> str:
        return f"old beside {await new(user)}"

    def nested_sync(user: int) -> str:
        return f"old beside {new(user)}"

    old = cache.cached(ttl=60, key="user:{user}", version=1, wait=0.5)(
        nested if colour.is_async else nested_sync  # a load of the key within a load of the key
    )
    assert colour(old(1)) == "old beside new"


def test_releases_whose_tags_differ_do_not_take_the_lease_from_each_other(
    cache: Cache, other: Cache, colour: Any
) -> None:
    """Each thought the other's load void, and took its place: every call loaded, and nothing was ever stored."""
    gates, loads = {"old": Gate(), "new": Gate()}, []

    def get(release: str) -> Any:
        def load(user: int) -> Any:
            loads.append(release)
            yield gates[release]
            return release

        return colour.loader(load)

    old = cache.cached(key="user:{user}", tags=["all"])(get("old"))
    new = other.cached(key="user:{user}", tags=["all", "user:{user}"])(get("new"))
    for function in (old, new):
        function.__cachecraft__.subject.label = "get"
        function.get(1) if not function.__cachecraft__.is_async else colour(function.get(1))
    callers = [colour.start(old, 1)]
    gates["old"].reached()
    callers.append(colour.start(new, 1))
    gates["new"].reached()
    callers += [colour.start(function, 1) for function in (old, new) * 5]
    until(lambda: old.stats.waits >= 5 and new.stats.waits >= 5)
    assert loads == ["old", "new"]
    gates["old"].open()
    until(callers[0].done)
    assert colour(old(1)) == "old", "the first to load has the key"
    gates["new"].open()
    assert sorted({caller.result(PATIENCE) for caller in callers}) == ["new", "old"]
    assert colour(new(1)) == "new"
    cache.invalidate(key="user:1")
    assert [colour(old.get(1)), colour(new.get(1))] == [MISSING, MISSING]
