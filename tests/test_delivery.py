"""A worker among functions that behave oddly: none of them stops it, or holds up others; and it ends as it should."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache, OptionError
from cachecraft.worker import Worker
from tests.callers import Async, Gate, Sync, until
from tests.redis_kit import cache, colour, other  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async


def table_of(cache: Cache, colour: Colour, write: Callable[[int, str], Any], **options: Any) -> tuple[Any, Any]:
    """A cached function, and one that writes behind it what ``write`` does."""

    @cache.cached(ttl=60, key="user:{user_id}")
    @colour.loader
    def get(user_id: int) -> str:
        return "as the table has it"

    @cache.write_behind(get, value="name", **options)
    @colour.loader
    def save(user_id: int, name: str) -> None:
        return write(user_id, name)

    return get, save


@pytest.mark.plain_keys
@pytest.mark.parametrize("error", [asyncio.CancelledError, StopIteration, SystemExit, GeneratorExit, BaseException])
def test_whatever_a_write_raises_it_is_tried_again_and_then_put_aside(
    cache: Cache, colour: Colour, error: type[BaseException]
) -> None:
    tried, made = [], []

    def write(user_id: int, name: str) -> None:
        if name == "good":
            made.append(user_id)
            return
        tried.append(name)
        raise error

    _, save = table_of(cache, colour, write, retry_for=0.05)
    colour(save(1, "bad"))
    colour(save(1, "good"))
    colour(save(2, "good"))
    worker = Worker(cache)
    assert (worker.drain(), worker.given_up) == (3, 1)
    assert len(tried) > 1
    assert sorted(made) == [1, 2]


def test_the_time_for_which_it_is_tried_begins_with_the_first_attempt(cache: Cache, colour: Colour) -> None:
    """Not while it waits for its turn among writes that are slow."""
    begun: list[int] = []

    def fails_once(user_id: int, name: str) -> None:
        begun.append(user_id)
        if name == "slow":
            end = time.monotonic() + 0.6
            until(lambda: time.monotonic() > end)
        elif begun.count(user_id) == 1:
            raise ValueError

    _, save = table_of(cache, colour, fails_once, retry_for=0.5)
    colour(save(1, "slow"))
    colour(save(2, "slow"))
    colour(save(3, "quick"))
    worker = Worker(cache, concurrency=1)
    assert (worker.drain(), worker.given_up) == (3, 0)


@pytest.mark.plain_keys
def test_however_many_wait_behind_a_call_that_fails_others_go_on(cache: Cache, colour: Colour) -> None:
    made: list[int] = []

    def write(user_id: int, name: str) -> None:
        if user_id == 1:
            raise ValueError
        made.append(user_id)

    _, save = table_of(cache, colour, write)
    for number in range(30):
        colour(save(1, f"{number}"))
    for number in range(2, 8):
        colour(save(number, "other"))
    worker = Worker(cache, batch=2, poll=0.01)
    running = Sync().start(worker.run)
    until(lambda: len(made) == 6)
    worker.stop()
    running.result(10)


def test_however_many_wait_for_a_function_that_is_not_there_others_go_on(
    cache: Cache, other: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []

    def functions(cache: Cache) -> tuple[Any, Any]:
        return table_of(cache, colour, lambda user_id, name: made.append(user_id))

    get, save = functions(cache)

    @cache.write_behind(get, value="name")
    @colour.loader
    def rename(user_id: int, name: str) -> None:
        made.append(-user_id)

    for number in range(100, 130):
        colour(rename(number, "of another release"))
    for number in range(1, 7):
        colour(save(number, "known"))
        colour(save(100 + number, "behind it"))
    functions(other)
    worker = Worker(other, batch=2, poll=0.01)
    running = Sync().start(worker.run)
    until(lambda: len(made) == 6)
    until(lambda: "no such function" in caplog.text)
    worker.stop()
    running.result(10)
    assert sorted(made) == [1, 2, 3, 4, 5, 6]
    assert Worker(cache).drain() == 36


@pytest.mark.plain_keys
def test_calls_that_can_be_told_apart_by_nothing_are_made_for_neither(cache: Cache, colour: Colour) -> None:
    tables: dict[str, list[str]] = {"a": [], "b": []}

    def made_for(table: str, **options: Any) -> Any:
        @cache.cached(key=table + ":{user_id}", **options)
        @colour.loader
        def get(user_id: int) -> str: ...

        @cache.write_behind(get, value="name")
        @colour.loader
        def save(user_id: int, name: str) -> None:
            tables[table].append(name)

        return save

    kept = [made_for("a", namespace="a"), made_for("b", namespace="b")]
    for save, name in zip(kept, tables, strict=True):
        colour(save(1, f"for {name}"))
    Worker(cache).drain()
    assert tables == {"a": ["for a"], "b": ["for b"]}
    kept += [made_for("a"), made_for("b")]
    colour(kept[2](1, "ann"))
    with pytest.raises(OptionError, match=r"two functions called .*save.*namespace="):
        Worker(cache).drain()


@pytest.mark.plain_keys
def test_when_the_last_of_calls_that_coalesce_fails_the_one_before_it_is_made_and_then_what_followed(
    cache: Cache, colour: Colour
) -> None:
    made: list[str] = []

    def write(user_id: int, name: str) -> None:
        if name == "bad":
            raise ValueError
        made.append(name)

    get, save = table_of(cache, colour, write, coalesce=True, retry_for=0)

    @cache.write_behind(get, value="name")
    @colour.loader
    def rename(user_id: int, name: str) -> None:
        made.append(name)

    colour(save(1, "ann"))
    colour(save(1, "bad"))
    colour(rename(1, "cas"))
    Worker(cache).drain()
    assert made == ["ann", "cas"]


# -- its end ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_cancelled_waits_for_a_write_in_a_thread_before_another_may_go_on(cache: Cache) -> None:
    gate, told = Gate(), []

    def write(user_id: int, name: str) -> None:
        told.append(f"begins {name}")
        if len(told) == 1:
            gate.pass_through()
        told.append(f"ends {name}")

    _, save = table_of(cache, Sync(), write)
    save(1, "ann")
    save(1, "bob")

    async def scenario() -> None:
        task = asyncio.ensure_future(Worker(cache).arun())
        await asyncio.to_thread(gate.reached)
        task.cancel()
        drained = asyncio.ensure_future(Worker(cache, poll=0.01).adrain())
        await asyncio.wait([task, drained], timeout=0.3)
        assert told == ["begins ann"]
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await drained == 2

    asyncio.run(scenario())
    assert told[2:] == ["begins ann", "ends ann", "begins bob", "ends bob"]


@pytest.mark.plain_keys
def test_a_worker_that_is_cancelled_twice_keeps_no_lease(cache: Cache, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def write(user_id: int, name: str) -> None:
            begun.set()
            while not ended.is_set():
                try:
                    await ended.wait()
                except asyncio.CancelledError:
                    pass

        @cache.cached(key="user:{user_id}")
        async def get(user_id: int) -> str: ...

        save = cache.write_behind(get, value="name")(write)
        await save(1, "ann")
        task = asyncio.ensure_future(Worker(cache, lease=0.3).arun())
        await begun.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.wait([task], timeout=0.05)
        assert task.cancelled()
        await asyncio.to_thread(until, lambda: not redis_server.cli("KEYS", "*:lease"))
        ended.set()

    asyncio.run(scenario())


@pytest.mark.plain_keys
def test_a_worker_whose_cache_is_closed_says_so_and_goes_on(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    _, save = table_of(cache, Sync(), lambda user_id, name: gate.pass_through())
    save(1, "ann")
    save(1, "bob")
    worker = Worker(cache, poll=0.01)
    running = Sync().start(worker.run)
    gate.reached()
    cache.close()
    gate.open()
    until(lambda: "closed" in caplog.text)
    worker.stop()
    assert running.result(10) is None
    assert (worker.settled, worker.given_up) == (0, 0)


def test_a_worker_can_be_run_again(cache: Cache, redis_server: RedisServer) -> None:
    made: list[str] = []
    get, save = table_of(cache, Sync(), lambda user_id, name: made.append(name))
    worker = Worker(cache, poll=0.01)
    for name in ("ann", "bob"):
        # Another has its turn at first, so it waits: in a loop of its own each time.
        redis_server.cli("SET", get.__cachecraft__.behind.queue.lease, "another", "PX", 50)
        save(1, name)
        assert worker.drain() == 1
    running = Sync().start(worker.run)
    save(1, "cas")
    until(lambda: made == ["ann", "bob", "cas"])
    worker.stop()
    running.result(10)
    save(1, "dan")
    assert worker.drain() == 1


def test_the_first_failure_is_told_at_once_and_the_others_are_not(
    cache: Cache, colour: Sync | Async, caplog: pytest.LogCaptureFixture
) -> None:
    @cache.cached(key="item:{item}")
    @colour.loader
    def get(item: int) -> str:
        return "old"

    failures = iter([ValueError("secret"), ValueError("secret"), None])

    @cache.write_behind(get, value="name")
    @colour.loader
    def save(item: int, name: str) -> None:
        error = next(failures)
        if error is not None:
            raise error

    colour(save(1, "ann"))
    assert Worker(cache).drain() == 1
    assert caplog.text.count("fails, and is tried again: ValueError at ") == 1
    assert "secret" not in caplog.text
