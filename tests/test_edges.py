"""Where two features meet: tags of results and joiners, built keys and templates, writes and a cache that fails."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

from cachecraft import HOT, MISSING, Cache, Jitter, OptionTypeError, invalidates, keys
from cachecraft.serializers import PickleSerializer
from tests.servers import RedisServer


def test_who_comes_after_a_tag_fell_does_not_join_a_load_whose_tags_nobody_knows_yet() -> None:
    cache, version = Cache(), [0]
    reached, go_on = threading.Event(), threading.Event()

    @cache.cached(tags=lambda result: ["t"])
    def f() -> int:
        seen = version[0]
        if not seen:
            reached.set()
            go_on.wait(10)
        return seen

    first = threading.Thread(target=f)
    first.start()
    assert reached.wait(10)
    version[0] = 1
    cache.invalidate(tags=["t"])
    assert f() == 1
    go_on.set()
    first.join()
    assert f() == 1


@pytest.mark.parametrize("text", ["a b", "p%q", "x\ty", "é:ü"])
def test_a_pattern_meets_keys_whose_literal_text_is_escaped(text: str) -> None:
    cache = Cache()
    cache.set(f"{text}:1", 1)
    assert cache.invalidate(pattern=f"{text}:*") == 1
    assert cache.get(f"{text}:1") is MISSING


@pytest.mark.parametrize("part", ["plain", "a:b*", "x y", "50%"])
def test_built_keys_and_patterns_meet_those_of_templates(part: str) -> None:
    cache = Cache()

    @cache.cached(key="user:{name}")
    def f(name: str) -> str:
        return name

    f(part)
    assert cache.get(keys.build("user", part)) == part
    assert cache.invalidate(pattern=keys.pattern("user")) == 1
    f(part)
    assert cache.invalidate(key=keys.build("user", part)) == 1
    assert f.get(part) is MISSING


def test_a_key_function_is_called_as_the_function_is() -> None:
    cache = Cache()

    @cache.cached(key=lambda a, *rest, b, **more: f"{a}/{rest}/{b}/{sorted(more)}")
    def f(a: int, *rest: int, b: int = 2, **more: int) -> list[Any]:
        return [a, rest, b, more]

    assert f(1) == [1, (), 2, {}]
    assert f(1, 5, b=3, c=4) == [1, (5,), 3, {"c": 4}]
    assert f.stats.loads == 2


def test_parameters_may_be_called_like_those_of_our_own_methods() -> None:
    cache = Cache()

    @cache.cached
    def f(*, value: int, ttl: int) -> int:
        return value + ttl

    assert f.set(5, value=1, ttl=2)
    assert f(value=1, ttl=2) == 5


written: list[int] = []


@invalidates(pattern="edges:*")
def write(number: int) -> None:
    written.append(number)


def test_a_write_is_copied_and_pickled_by_reference_as_functions_are() -> None:
    assert copy.copy(write) is write
    assert copy.deepcopy(write) is write
    assert pickle.loads(pickle.dumps(write)) is write


def test_a_write_through_that_finds_no_redis_is_still_a_write() -> None:
    with Cache("redis://127.0.0.1:1/0") as cache:

        @cache.cached
        def read(number: int) -> int:
            return number

        @cache.updates(read)
        def put(number: int) -> int:
            return number

        assert put(7) == 7


@pytest.mark.parametrize("url", ["memory://", "redis"])
def test_what_fails_once_a_write_is_done_is_not_its_callers_business(url: str, redis_url: str) -> None:
    with Cache(redis_url if url == "redis" else url) as cache:

        @cache.cached
        def read(number: int) -> int:
            return number

        @cache.updates(read, value=lambda result: 1 // 0)
        def put(number: int) -> str:
            return "done"

        assert put(7) == "done"
        assert read(7) == 7


def test_what_a_function_stored_in_redis_can_be_looked_at_by_hand(redis_url: str) -> None:
    with Cache(redis_url) as cache:

        @cache.cached(key="user:{number}", tags=["all"])
        def f(number: int) -> str:
            return "loaded"

        f(1)
        assert cache.get("user:1") == "loaded"
        assert cache.get(f.key(1)) == "loaded"
        cache.invalidate(tags=["all"])
        assert cache.get("user:1") is MISSING


def test_a_jitter_that_is_given_comes_before_that_of_a_tier(redis_server: RedisServer, redis_url: str) -> None:
    with Cache(redis_url) as cache:

        @cache.cached(ttl=HOT, jitter=Jitter(0.10, 0.20))
        def f() -> int:
            return 1

        f()
        assert 655_000 < redis_server.cli("PTTL", f.key()) <= 720_000


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: Cache().cached(tags=5)(abs), "tags=5"),
        (lambda: Cache().invalidate(pattern=5), "pattern=5"),
        (lambda: Cache().get_or_load("a", 5), "loader=5"),
        (lambda: Cache().cached(serializer="json")(abs), "serializer='json'"),
        (lambda: Cache(enabled="no"), "enabled='no'"),
        (lambda: Cache(compress_above=-1), "compress_above=-1"),
        (lambda: Cache().invalidates(abs), "not a cached function"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(wrong: Any, named: str) -> None:
    with pytest.raises(OptionTypeError) as refused:
        wrong()
    assert named in str(refused.value)


def test_pickles_without_a_secret_are_refused() -> None:
    with pytest.raises(ValueError, match="secret="):
        PickleSerializer()
