"""`advice(cache)`: each finding is provoked by what it warns of, and stays away otherwise; and what was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft.advice import Facts, advice, advice_on, advise
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock

Colour = Sync | Async


@pytest.fixture(params=["memory", "redis"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, namespace="shop", jitter=None, max_bytes=100_000, max_value_bytes=1000) as made:
        yield made


def checks(cache: Cache) -> list[str]:
    return [each.check for each in advice(cache)]


def test_a_cache_that_is_well_hears_nothing(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, key="k:{x}", tags=["t:{x}"])(lambda x: x)
    for turn in range(3):
        for x in range(100):
            f(x)
        anywhere.invalidate(tags=[f"t:{turn}"])
    assert advice(anywhere) == []


def test_nothing_is_said_of_a_cache_that_is_new_off_or_closed(make_cache: Callable[..., Cache]) -> None:
    cache, off = make_cache(), make_cache(enabled=False)
    for each in (cache, off):
        each.cached(lambda x: x)
        assert advice(each) == []
    cache.close()
    assert advice(cache) == []


# -- a ttl that is too short to help -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}", "tags": ["t"]}])
def test_a_ttl_that_is_too_short(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour, options: dict[str, Any]
) -> None:
    cache = make_cache()
    f = cache.cached(ttl=5, **options)(colour.loader(lambda x: x))
    for _ in range(110):
        colour(f(1))
        clock.advance(6)
    cache.invalidate(tags=["t"])
    (found,) = advice(cache)
    assert (found.check, found.function) == ("ttl", f.__cachecraft__.subject.label)
    assert "109 of 110 misses found a result that had expired, and there were 0 hits" in found.finding
    assert "longer ttl than 5 s" in found.remedy


def test_a_ttl_that_is_too_short_in_redis(redis_url: str) -> None:
    """Redis does not tell what has expired; who stored it knows."""
    clock = FakeClock()
    with Cache(redis_url, namespace="shop", jitter=None, clock=clock) as cache:
        f = cache.cached(ttl=0.001, key="k:{x}")(lambda x: x)
        for x in range(250):
            f(x % 125)
            clock.advance(1)
        until(lambda: [f(x) for x in range(125)] and "ttl" in checks(cache))


def test_a_short_ttl_that_helps_all_the_same(cache: Cache, clock: FakeClock) -> None:
    f = cache.cached(ttl=5)(lambda x: x)
    for _ in range(110):
        f(1), f(1), f(1)
        clock.advance(6)
    assert advice(cache) == []


# -- a key that never hits -----------------------------------------------------------------------------------


class Session:
    """One for each request, as frameworks inject them."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> int:
        return self.number


@pytest.mark.parametrize("make", [lambda n: n, str, Session, lambda n: datetime(2026, 1, 1, microsecond=n)])
def test_a_key_that_never_hits_names_the_parameter_that_is_always_different(anywhere: Cache, make: Any) -> None:
    f = anywhere.cached(ttl=60, namespace="n")(lambda user, session, page=1: user)
    for x in range(150):
        f(x % 3, make(x))
    (found,) = advice(anywhere)
    assert found.check == "hits"
    assert "0 hits for 150 loads" in found.finding
    assert "the same 'session'" in found.finding


def test_a_key_that_never_hits_for_no_single_parameter(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, namespace="n")(lambda a, b: a)
    for x in range(150):
        f(x % 10, x // 10)
    (found,) = advice(anywhere)
    assert found.check == "hits"
    assert "'a'" not in str(found)


def test_a_few_loads_say_nothing(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, namespace="n")(lambda x: x)
    for x in range(99):
        f(x)
    assert advice(anywhere) == []


# -- what is not kept ----------------------------------------------------------------------------------------


def test_results_that_are_too_large(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, key="k:{x}")(lambda x: bytes(range(256)) * (1000 if x % 2 else 1))
    for x in range(40):
        f(x)
    (found,) = advice(anywhere)
    assert found.check == "refused"
    assert "20 of 40 results could not be stored (the last: " in found.finding
    assert "max_" in found.finding


def test_a_rare_result_that_is_too_large(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, key="k:{x}")(lambda x: bytes(range(256)) * (1000 if x < 4 else 1))
    for _ in range(2):
        for x in range(90):
            f(x)
    assert advice(anywhere) == []


def test_results_that_when_declines(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, key="k:{x}", when=lambda result: result > 90)(lambda x: x)
    for x in range(100):
        f(x)
    (found,) = advice(anywhere)
    assert (found.check, found.finding) == ("declined", "when= declined 91 of 100 results")
    for _ in range(3):
        for x in range(91, 100):
            f(x)
    assert checks(anywhere) == ["declined"]
    for x in range(100, 200):
        f(x)
    assert advice(anywhere) == []


def test_results_that_are_lost_to_invalidations(anywhere: Cache) -> None:
    gates: list[Gate] = []
    colour = Sync()

    def load(x: int) -> Any:
        if gates:
            yield gates[-1]
        return x

    f = anywhere.cached(ttl=60, key="k:{x}")(colour.loader(load))
    for x in range(12):
        gates.append(Gate())
        caller = colour.start(f, x)
        gates[-1].reached()
        anywhere.invalidate(pattern="k:*")
        gates[-1].open()
        caller.result(PATIENCE)
    (found,) = advice(anywhere)
    assert found.check == "lost"
    assert "12 of 12 results were not stored" in found.finding
    gates.clear()
    for x in range(200):
        f(x), f(x)
    assert advice(anywhere) == []


# -- tags ----------------------------------------------------------------------------------------------------


def test_tags_that_nobody_invalidates_by(anywhere: Cache) -> None:
    f = anywhere.cached(ttl=60, key="k:{x}", tags=["user:{x}", "all"])(lambda x: x)
    for _ in range(2):
        for x in range(100):
            f(x)
    (found,) = advice(anywhere)
    assert found.check == "tags"
    assert "'user:{x}', 'all'" in found.finding
    anywhere.invalidate(tags=["other"])
    assert checks(anywhere) == ["tags"]
    anywhere.invalidate(tags=["user:7"])
    assert advice(anywhere) == []


def test_tags_that_another_process_invalidates_by(redis_url: str) -> None:
    with Cache(redis_url, namespace="shop") as cache, Cache(redis_url, namespace="shop") as other:
        f = cache.cached(ttl=60, key="k:{x}", tags=["all"])(lambda x: x)
        for x in range(100):
            f(x), f(x)
        assert checks(cache) == ["tags"]
        other.invalidate(tags=["all"])
        f(1)
        assert advice(cache) == []


# -- verify, order, and other processes' counters ------------------------------------------------------------


def test_a_difference_is_a_finding(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachecraft._core.verification.PAUSE", 0.0)
    row = [1]
    f = cache.cached(ttl=60, verify=1)(lambda x: row[0])
    f(1)
    row[0] = 2
    until(lambda: f(1) and f.stats.differed)
    assert checks(cache) == ["verify"]


def test_the_rules_need_counters_only() -> None:
    """So that they can be asked of what other processes have published."""
    assert list(advise(Facts(function="f", numbers={}))) == []
    (found,) = advise(Facts(function="f", numbers={"loads": 500, "hits": 2, "misses": 500}))
    assert (found.check, found.as_dict()["function"]) == ("hits", "f")
    assert str(found).startswith("f: its results are hardly ever asked for again")


def test_closures_of_one_name_are_one_function_of_which_is_told_what_they_agree_on(
    cache: Cache, clock: FakeClock
) -> None:
    def made(ttl: float) -> Any:
        @cache.cached(ttl=ttl, key=f"k{ttl}:{{x}}", tags=["t"])
        def find(x: int) -> int:
            return x

        for _ in range(60):
            find(1)
            clock.advance(10)
        return find

    kept = [made(5), made(6)]
    (found, idle) = advice_on(cache, cache.snapshot().functions)
    assert {each.function for each in (found, idle)} == {kept[0].__cachecraft__.subject.label}
    assert "118 of 120 misses found a result that had expired" in found.finding
    assert found.remedy.startswith("give it a longer ttl, with tags=")
    assert "by its tags 't' in this process, and 120 loads" in idle.finding


def test_it_tells_no_argument(cache: Cache) -> None:
    f = cache.cached(ttl=60, tags=["t:{secret}"])(lambda secret: secret)
    for x in range(200):
        f(f"hush-{x}")
    assert "hush" not in " ".join(map(str, advice(cache)))
    assert sorted(checks(cache)) == ["hits", "tags"]


# -- what was saved ------------------------------------------------------------------------------------------


def test_what_a_function_saved_and_holds(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    def load(x: int) -> str:
        clock.advance(x)
        return "x" * 1000

    f, g = (cache.cached(ttl=1000, key=key)(colour.loader(load)) for key in ("f:{x}", "g:{x}"))
    for x in (1, 3, 1, 1, 3):
        colour(f(x))
    assert f.stats.saved_seconds == 3 * (1 + 3) / 2
    assert f.stats.memory_entries == 2
    assert 2000 < f.stats.memory_bytes < 4000
    assert (g.stats.saved_seconds, g.stats.memory_bytes) == (0, 0)
    for x in (10, 10):
        colour(g(x))
    assert cache.stats.saved_seconds == 6 + 10  # each at its own mean
    assert cache.stats.as_dict()["saved_seconds"] == 16
