"""What travels to Redis and what stays there: round trips, ttls, namespaces, and what an invalidation reaches."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cachecraft import HOT, MISSING, STATIC, Cache, Jitter
from tests.callers import PATIENCE, until
from tests.proxy import Proxy
from tests.redis_kit import cache, colour, other, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer


@pytest.fixture
def heard(proxy: Proxy) -> Iterator[Cache]:
    """A cache whose line we listen to, warmed up."""
    with Cache(proxy.url, namespace="shop") as made:
        yield made


def _load(number: int) -> list[int]:
    return [number]


# -- round trips ---------------------------------------------------------------------------------------------


def test_a_new_connection_asks_for_no_right_that_is_not_documented(heard: Cache, proxy: Proxy, colour: Any) -> None:
    colour.on(heard).get("k")
    assert "MGET" in proxy.names
    assert "CLIENT" not in proxy.names


@pytest.mark.parametrize("options", [{}, {"stale": 60}], ids=["plain", "aged"])
@pytest.mark.parametrize("tags", [0, 3, 30])
def test_a_hit_is_one_round_trip_however_many_tags(
    heard: Cache, proxy: Proxy, colour: Any, tags: int, options: dict[str, Any]
) -> None:
    f = heard.cached(ttl=60, tags=[f"{at}:{{number}}" for at in range(tags)], **options)(colour.loader(_load))
    colour(f(1))
    proxy.forget()
    for _ in range(5):
        assert colour(f(1)) == [1]
    assert (f.stats.hits, proxy.round_trips) == (5, 5)
    assert proxy.names.keys() <= {"MGET", "PTTL"}


async def test_tasks_that_read_the_same_in_one_turn_ask_once_and_each_gets_a_value_of_its_own(
    heard: Cache, proxy: Proxy
) -> None:
    async def load(number: int) -> list[int]:
        return [number]

    f = heard.cached(ttl=60)(load)
    await f(1)
    await f(2)
    proxy.forget()
    readers = [asyncio.create_task(f(1 + at % 2)) for at in range(100)]
    await asyncio.sleep(0)
    readers[0].cancel()  # which is nobody else's business
    values = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(values[0], asyncio.CancelledError)
    assert values[1:] == [[1 + at % 2] for at in range(1, 100)]
    assert len({id(value) for value in values}) == 100
    assert proxy.names == {"MGET": 2}


async def test_what_is_on_its_way_is_asked_again_for_the_task_that_comes_later(
    proxy: Proxy, redis_server: RedisServer
) -> None:
    """P1: an invalidation may have ended between that reading and its coming."""
    prices = [1, 2]

    async def load() -> int:
        return prices.pop(0)

    def answered() -> int:
        return int(redis_server.cli("INFO", "commandstats")["cmdstat_mget"]["calls"])

    async with Cache(proxy.url, namespace="shop", timeout=PATIENCE) as cache:
        price = cache.cached(ttl=60, key="price")(load)
        await price()
        before = answered()
        proxy.hold_replies()
        first = asyncio.create_task(price())
        await asyncio.to_thread(until, lambda: answered() > before)
        redis_server.cli("UNLINK", price.key())
        second = asyncio.create_task(price())
        await asyncio.sleep(0)
        proxy.let_go()
        assert (await first, await second) == (1, 2)


@pytest.mark.parametrize("tags", [0, 3])
def test_a_miss_is_at_most_three_round_trips(heard: Cache, proxy: Proxy, colour: Any, tags: int) -> None:
    f = heard.cached(ttl=60, tags=[f"{at}:{{number}}" for at in range(tags)])(colour.loader(_load))
    colour(f(0))
    colour(f(1))  # the scripts are known from here on
    proxy.forget()
    colour(f(2))
    assert (f.stats.loads, proxy.round_trips) == (3, 3)
    colour(f.invalidate(2))
    proxy.forget()
    colour(f(2))
    assert (f.stats.loads, proxy.round_trips) == (4, 3)


def test_what_is_set_by_hand_is_a_hit_of_one_round_trip(heard: Cache, proxy: Proxy, colour: Any) -> None:
    colour.on(heard).set("k", 1)
    proxy.forget()
    assert colour.on(heard).get("k") == 1
    assert proxy.round_trips == 1


def test_an_invalidation_by_tag_is_one_round_trip_however_many_entries(heard: Cache, proxy: Proxy, colour: Any) -> None:
    f = heard.cached(ttl=60, tags=["all"])(colour.loader(_load))
    seen = []
    for entries in (1, 200):
        for number in range(entries):
            colour(f(number))
        proxy.forget()
        colour.on(heard).invalidate(tags=["all"])
        seen.append((proxy.round_trips, [len(command) for command in proxy.commands]))
    assert seen[0] == seen[1]
    assert seen[0][0] == 1
    assert all(colour(f.get(number)) is MISSING for number in range(200))


@pytest.mark.parametrize("all_of", ["function", "cache"])
def test_everything_goes_in_one_round_trip(heard: Cache, proxy: Proxy, colour: Any, all_of: str) -> None:
    f = heard.cached(ttl=60)(colour.loader(_load))
    for number in range(50):
        colour(f(number))
    proxy.forget()
    colour(f.invalidate_all()) if all_of == "function" else colour.on(heard).clear()
    assert proxy.round_trips == 1
    assert all(colour(f.get(number)) is MISSING for number in range(50))


def test_tags_that_follow_from_the_result_cost_a_second_look_once(heard: Cache, proxy: Proxy, colour: Any) -> None:
    teams = {1: "red"}

    def load(number: int) -> str:
        return teams[number]

    f = heard.cached(ttl=60, tags=lambda result, number: [f"team:{result}"])(colour.loader(load))
    colour(f(1))
    proxy.forget()
    assert [colour(f(1)) for _ in range(3)] == ["red"] * 3
    assert (f.stats.hits, proxy.round_trips) == (3, 4)  # from then on its tags are read with it
    teams[1] = "blue"
    colour.on(heard).invalidate(tags=["team:red"])
    assert [colour(f(1)) for _ in range(3)] == ["blue"] * 3
    colour.on(heard).invalidate(tags=["team:red"])
    assert colour(f.get(1)) == "blue"
    colour.on(heard).invalidate(tags=["team:blue"])
    assert colour(f.get(1)) is MISSING


def test_nothing_that_stops_a_server_or_empties_it_is_ever_sent(heard: Cache, proxy: Proxy, colour: Any) -> None:
    f = heard.cached(ttl=60, key="n:{number}", tags=["t"])(colour.loader(_load))
    by_hand = colour.on(heard)
    for number in range(3):
        colour(f(number))
    colour(f.refresh(1))
    colour(f.set([5], 1))
    by_hand.set("k", 1)
    by_hand.invalidate(key="k", pattern="n:*", tags=["t"])
    colour(f.invalidate_all())
    by_hand.clear()
    assert not {name for name in proxy.names if name in {"KEYS", "SCRIPT", "DEL"} or name.startswith("FLUSH")}
    assert proxy.names["EVAL"] <= 3  # each script once, when the server did not know it


# -- ttls ----------------------------------------------------------------------------------------------------


def _pttl(server: RedisServer, key: str) -> float:
    return server.cli("PTTL", key) / 1000


def test_the_default_hour_is_spread_over_66_to_72_minutes(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    f = cache.cached(key="n:{number}")(colour.loader(_load))
    lives = []
    for number in range(60):
        colour(f(number))
        lives.append(_pttl(redis_server, f.key(number)))
    assert all(3960 - 5 <= life <= 4320 for life in lives)
    assert max(lives) - min(lives) > 100  # sixty draws from 360 seconds, all within 100: one in 10**30


def test_ten_thousand_keys_expire_evenly_over_the_jitter(redis_url: str, redis_server: RedisServer) -> None:
    """Of an hour with 10 to 20 % on top: a fifth of them in each of the five parts of those six minutes."""

    async def fill() -> None:
        # With time enough for a thousand at once on the busiest machine.
        async with Cache(redis_url, namespace="shop", timeout=30, random=random.Random(7).random) as made:
            for part in range(10):
                await asyncio.gather(*(made.aset(f"n:{part}:{number}", 1) for number in range(1000)))

    asyncio.run(fill())  # not in debug mode, which takes ten times as long
    look = (
        "local left = {} for at, key in ipairs(redis.call('KEYS', 'shop:n:*')) do left[at] = redis.call('TTL', key) end"
    )
    parts = Counter((left - 3960) // 72 for left in redis_server.cli("EVAL", f"{look} return left", 0))
    assert parts.total() == 10_000
    # Some seconds of theirs are over by now, so that a few of each part are in the one before it.
    assert all(1600 < parts[part] < 2400 for part in range(5)), parts


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({"ttl": 100, "jitter": None}, 100, 100),
        ({"ttl": "1m30s", "jitter": Jitter(0.0, 0.1)}, 90, 99),
        ({"ttl": 100, "jitter": (-0.5, -0.4)}, 50, 60),
        ({"ttl": 100, "jitter": None, "stale": 50}, 150, 150),
        ({"ttl": 100, "jitter": None, "stale": 50, "grace": "5m"}, 400, 400),
        ({"ttl": HOT}, 300, 900),
        ({"ttl": STATIC, "jitter": None}, 7 * 86400, 7 * 86400),
    ],
    ids=str,
)
def test_ttl_jitter_stale_and_grace_become_the_life_of_the_key(
    cache: Cache, redis_server: RedisServer, colour: Any, options: dict[str, Any], low: float, high: float
) -> None:
    f = cache.cached(key="n:{number}", **options)(colour.loader(_load))
    colour(f(1))
    assert low - 5 <= _pttl(redis_server, f.key(1)) <= high


def test_the_ttl_may_follow_from_the_result(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    f = cache.cached(ttl=lambda result: result[0], jitter=None, key="n:{number}")(colour.loader(_load))
    for seconds in (50, 500):
        colour(f(seconds))
        assert seconds - 5 <= _pttl(redis_server, f.key(seconds)) <= seconds


def test_no_key_of_any_kind_is_without_a_ttl(
    cache: Cache, other: Cache, redis_server: RedisServer, redis_url: str, colour: Any
) -> None:
    """Entries, stamps, placeholders, claims of refreshes, and what the fence remembers."""
    seen: set[bytes] = set()
    lasting: list[str] = []

    def look(number: int) -> list[int]:
        seen.update(redis_server.cli("KEYS", "*"))
        lasting.extend(redis_server.keys_without_ttl())
        return [number]

    f = cache.cached(ttl=60, tags=["t:{number}"], refresh_ahead=59.99, jitter=None)(colour.loader(look))
    g = cache.cached(ttl=60, tags=lambda result, number: ["made"])(colour.loader(look))
    colour(g(1))
    colour(f(1))
    colour(f.refresh(1))
    colour(f(1))
    look(0)
    kinds = {b"~root", b"~fn:", b"~tag:t:1", b"~tag:made", b"~any", b"~runid", f.key(1).encode()}
    assert not {kind for kind in kinds if not any(kind in key for key in seen)}
    assert lasting == []


# -- what an invalidation reaches ----------------------------------------------------------------------------


def test_a_pattern_reaches_what_matches_and_says_how_much(cache: Cache, other: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="user:{user}:page:{page}")(colour.loader(lambda user, page: [user, page]))
    for user in ("a", "b", "a*"):
        for page in (1, 2):
            colour(f(user, page))
    assert colour.on(other).invalidate(pattern="user:a:*") == 2
    assert [colour(f.get(user, 1)) is MISSING for user in ("a", "b", "a*")] == [True, False, False]
    assert colour.on(other).invalidate(pattern="user:[bc]:page:?") == 2
    assert colour(f.get("a*", 1)) == ["a*", 1]


def test_a_glob_in_an_argument_is_no_glob_in_a_pattern(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="user:{user}")(colour.loader(lambda user: user))
    write = cache.invalidates(pattern="user:{user}*")(colour.loader(lambda user: None))
    for user in ("*", "b"):
        colour(f(user))
    colour(write("*"))
    assert [colour(f.get(user)) is MISSING for user in ("*", "b")] == [True, False]


NAMESPACES = ["shop", "shop:eu", "shop2", "", "s*", "[s]hop"]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_nothing_leaves_its_namespace(redis_server: RedisServer, redis_url: str, colour: Any, namespace: str) -> None:
    def gone() -> list[bool]:
        return [colour.on(each).get("eu:1") is MISSING for each in caches.values()]

    caches = {name: Cache(redis_url, namespace=name) for name in NAMESPACES}
    mine = [name == namespace for name in NAMESPACES]
    nothing = [False] * len(NAMESPACES)
    try:
        for invalidation in (
            lambda each: each.invalidate(pattern="eu:*"),
            lambda each: each.invalidate(pattern="*1"),
            lambda each: each.invalidate(pattern="*:*"),
            lambda each: each.invalidate(key="eu:1"),
            lambda each: each.invalidate(tags=["t"]),
            lambda each: each.clear(),
        ):
            for each in caches.values():
                colour.on(each).set("eu:1", 1, tags=["t"])
            assert gone() == nothing
            invalidation(colour.on(caches[namespace]))
            assert gone() == mine
    finally:
        for each in caches.values():
            each.close()


@pytest.mark.plain_keys
def test_keys_of_others_in_the_same_database_survive_everything(
    cache: Cache, redis_server: RedisServer, colour: Any
) -> None:
    foreign = ["shop", "shopping", "SHOP:n:1", "n:1", "user:1", "session", "shop2:n:1", ":n:1", "~root"]
    for key in foreign:
        redis_server.cli("SET", key, "mine")
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"])(colour.loader(_load))
    by_hand = colour.on(cache)
    for number in range(5):
        colour(f(number))
    by_hand.set("session", 1)
    by_hand.invalidate(key="session", pattern="n:*", tags=["t"])
    for pattern in ("*n*", "?:*", "[a-z]:*", "*1"):
        by_hand.invalidate(pattern=pattern)
    by_hand.delete("user:1")
    colour(f.invalidate_all())
    by_hand.clear()
    assert [redis_server.cli("GET", key) for key in foreign] == [b"mine"] * len(foreign)


def test_a_pattern_finds_its_entries_among_many(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    f = cache.cached(ttl=600, key="user:{number}")(colour.loader(_load))
    for number in range(30):
        colour(f(number))
    redis_server.cli("EVAL", "for i = 1, 12000 do redis.call('SET', 'shop:noise:' .. i, i, 'PX', 600000) end", 0)
    told: list[int] = []
    assert colour.on(cache).invalidate(pattern="user:*", progress=told.append) == 30
    assert all(colour(f.get(number)) is MISSING for number in range(30))
    assert len(told) > 5
    assert told == sorted(told)
    assert told[-1] == 30
    assert colour.on(cache).invalidate(pattern="noise:*") == 12000


def test_a_pattern_spares_stamps_and_counts_only_entries(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"])(colour.loader(_load))
    colour(f(1))
    redis_server.cli("SET", f"{f.key(1)}~r", "a refresh is claimed", "PX", 60_000)
    colour.on(cache).set("other", 1)
    assert colour.on(cache).invalidate(pattern="*n*") == 1
    assert colour.on(cache).get("other") == 1


async def test_an_invalidation_by_pattern_meets_a_load_under_way(cache: Cache, other: Cache) -> None:
    import asyncio

    loading, go_on = asyncio.Event(), asyncio.Event()

    @cache.cached(ttl=60, key="n:{number}")
    async def f(number: int) -> str:
        loading.set()
        await go_on.wait()
        return "old"

    caller = asyncio.create_task(f(1))
    await loading.wait()
    assert await other.ainvalidate(pattern="n:*") == 1
    go_on.set()
    assert await caller == "old"
    assert await f.get(1) is MISSING
    assert f.stats.store_lost == 1
