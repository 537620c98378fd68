"""Memory is bounded, by entries and by bytes, whatever threads do (P6)."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache
from tests.callers import Async, Sync, flights_of

Colour = Sync | Async


def one(cache: Cache, colour: Colour, **options: Any) -> Any:
    @cache.cached(**options)
    @colour.loader
    def load(x: object) -> Any:
        return x

    return load


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}, {"tags": ["t:{x}"]}, {"ttl": 60, "stale": 60}])
@pytest.mark.parametrize("most", [1, 2, 7, 100])
def test_the_bound_on_entries_is_exact(
    make_cache: Callable[..., Cache], colour: Colour, most: int, options: dict[str, Any]
) -> None:
    cache = make_cache(max_entries=most)
    load = one(cache, colour, **options)
    for x in range(most * 3):
        colour(load(x))
        assert len(cache._keeper.memory) == min(x + 1, most) == load.cache_info().currsize
    memory = cache._keeper.memory
    assert len(memory.names) <= most
    assert len(memory.tags) <= most


def test_all_functions_of_a_cache_share_one_bound(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(max_entries=10)
    loads = [one(cache, colour) for _ in range(4)]
    for x in range(10):
        for load in loads:
            colour(load(x))
    assert sum(load.cache_info().currsize for load in loads) == 10


def test_what_is_asked_for_again_and_again_stays_while_others_pass_by(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    cache = make_cache(max_entries=100)
    load = one(cache, colour)
    for x in range(5):
        for _ in range(4):
            colour(load(-x))
    for x in range(1, 1000):
        colour(load(x + 1000))
    loads = load.stats.loads
    for x in range(5):
        colour(load(-x))
    assert load.stats.loads == loads


def test_the_bound_on_bytes_holds(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(max_bytes=100_000)

    @cache.cached
    @colour.loader
    def blob(x: int) -> bytes:
        return bytes(x)

    for x in range(0, 5_000, 7):
        colour(blob(x))
        assert cache._keeper.memory.bound.bytes <= 100_000
    assert 10 < blob.cache_info().currsize < 100


def test_containers_weigh_what_is_in_them(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(max_bytes=200_000)

    @cache.cached
    @colour.loader
    def rows(x: int) -> Any:
        return {"rows": [{"text": f"{n}" + "x" * 1000} for n in range(10)]}

    for x in range(100):
        colour(rows(x))
    assert 5 < rows.cache_info().currsize < 20


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}, {"key": "k:{}".format}, {"tags": ["t"]}])
@pytest.mark.parametrize("answer", [1, [1]], ids=repr)
def test_long_texts_as_arguments_weigh_too(
    make_cache: Callable[..., Cache], colour: Colour, options: dict[str, Any], answer: object
) -> None:
    cache = make_cache(max_bytes=100_000)

    @cache.cached(**options)
    @colour.loader
    def size(x: str) -> object:
        return answer

    for n in range(100):
        colour(size(f"{n}" + "x" * 10_000))
    assert 1 <= size.cache_info().currsize <= 10


def test_a_value_larger_than_the_bound_is_handed_out_and_not_stored(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    cache = make_cache(max_bytes=10_000)
    load = one(cache, colour)
    colour(load(1))
    big = "x" * 20_000
    assert colour(load(big)) == big

    @cache.cached
    @colour.loader
    def constant(x: int) -> str:
        return big

    assert colour(constant(1)) == big
    assert constant.cache_info().currsize == 0
    assert colour(load.get(1)) == 1, "nobody had to go for it"
    assert constant.stats.refused == 1


def test_dropping_gives_room_back(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(max_entries=50)
    load = one(cache, colour, key="k:{x}", tags=["t"])
    for _ in range(3):
        for x in range(50):
            colour(load(x))
        colour.on(cache).invalidate(tags="t")
    memory = cache._keeper.memory
    assert (len(memory), memory.bound.bytes, memory.names, memory.tags) == (0, 0, {}, {})


def test_half_a_million_operations_of_eight_threads_never_exceed_the_bound_and_never_raise() -> None:
    most, operations = 500, 62_500
    cache = Cache(max_entries=most, max_bytes=most * 400)
    bound_of = lambda: cache._keeper.memory.bound  # noqa: E731 - read anew each time, in one word

    @cache.cached
    def plain(x: int) -> int:
        return -x

    @cache.cached(key="named:{x}", tags=["t:{x}"])
    def named(x: int) -> str:
        return str(-x)

    @cache.cached
    def containers(x: int, y: str = "y") -> list[int]:
        return [-x]

    class Owner:
        @cache.cached
        def method(self, x: int) -> int:
            return -x

    exceeded: list[Any] = []
    wrong: list[Any] = []

    def work(seed: int) -> None:  # noqa: PLR0912 - one branch for each kind of operation
        draw = random.Random(seed)
        owner = Owner()
        for turn in range(operations):
            x = int(draw.paretovariate(0.5)) % 2000
            kind = turn & 15
            if kind < 9:
                right = plain(x) == -x
            elif kind < 11:
                right = named(x) == str(-x)
            elif kind < 13:
                right = containers(x) == [-x]
            elif kind < 15:
                right = owner.method(x) == -x
            else:
                right = True
                rare = turn >> 4 & 63
                if rare == 0:
                    owner = Owner()
                elif rare == 1:
                    cache.invalidate(pattern=f"named:{x}*")
                elif rare == 2:
                    cache.invalidate(tags=[f"t:{x}"])
                elif rare == 3:
                    containers.invalidate_all()
                elif rare < 20:
                    plain.invalidate(x)
                elif rare < 30:
                    plain.set(-x, x)
            if not right:
                wrong.append((kind, x))
            bound = bound_of()
            if bound.count > most or bound.bytes > most * 400:
                exceeded.append((bound.count, bound.bytes))

    switch = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        for worker in [Sync().start(work, seed) for seed in range(8)]:
            worker.result(55)
    finally:
        sys.setswitchinterval(switch)
    assert exceeded == []
    assert wrong == []
    assert flights_of(cache) == []
    memory = cache._keeper.memory
    functions = [plain, named, containers, Owner.method]
    assert sum(function.cache_info().currsize for function in functions) == len(memory) <= most
    calls = sum(function.cache_info().hits + function.cache_info().misses for function in functions)
    assert calls == pytest.approx(8 * operations * 15 / 16, rel=0.01), "hits and misses add up, but for a few in races"


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}])
def test_a_bound_of_one_survives_threads(make_cache: Callable[..., Cache], options: dict[str, Any]) -> None:
    cache = make_cache(max_entries=1)
    load = one(cache, Sync(), **options)
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        barrier.wait()
        for x in range(5_000):
            assert load(x % 3 + seed) == x % 3 + seed

    for worker in [Sync().start(work, seed) for seed in range(4)]:
        worker.result(30)
    assert len(cache._keeper.memory) == 1


def test_a_million_keys_leave_a_bounded_memory_and_no_flights() -> None:
    with Cache(max_entries=1000) as made:

        @made.cached
        def load(x: int) -> int:
            return x

        @made.cached
        async def aload(x: int) -> int:
            return x

        async def many() -> int:
            return sum([await aload(x) == x for x in range(200_000)])

        assert sum(load(x) == x for x in range(800_000)) + asyncio.run(many()) == 1_000_000
        assert load.stats.loads + aload.stats.loads == 1_000_000
        memory = made._keeper.memory  # type: ignore[union-attr]  # used, so it is there
        assert len(memory) == 1000
        assert flights_of(made) == []
        assert sum(len(table.flights) for table in memory.tables) == 0
