"""One caller's cancellation harms nobody else (P7): leader or waiter, at any await point."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import PATIENCE, Async, Gate, Sync, flights_of, running_loop, until
from tests.clock import FakeClock

EVERY_WAY = [{}, {"key": "k:{x}"}, {"ttl": 60, "tags": ["t"], "stale": 60}, {"timeout": 60}]


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("options", EVERY_WAY)
async def test_a_cancelled_leader_cancels_nobody_who_joined_it(cache: Cache, options: dict[str, Any]) -> None:
    calls: list[int] = []
    gate = asyncio.Event()

    @cache.cached(**options)
    async def load(x: int) -> int:
        calls.append(x)
        await gate.wait()
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    leader = asyncio.create_task(load(1))
    await settled(lambda: calls)
    joined = [asyncio.create_task(load(1)) for _ in range(5)]
    await settled(lambda: load.stats.waits == 5)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    gate.set()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*joined) == [1] * 5
    assert calls == [1, 1], "one of them took over, and the others joined it"
    assert await load(1) == 1
    assert flights_of(cache) == []


@pytest.mark.parametrize("options", EVERY_WAY)
async def test_a_cancelled_waiter_leaves_the_load_and_the_others_alone(cache: Cache, options: dict[str, Any]) -> None:
    calls: list[int] = []
    gate = asyncio.Event()

    @cache.cached(**options)
    async def load(x: int) -> int:
        calls.append(x)
        await gate.wait()
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    leader = asyncio.create_task(load(1))
    await settled(lambda: calls)
    waiters = [asyncio.create_task(load(1)) for _ in range(4)]
    await settled(lambda: load.stats.waits == 4)
    for waiter in waiters[:2]:
        waiter.cancel()
    results = await asyncio.gather(*waiters[:2], return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert not (flights_of(cache)[0].wakers or [])[2:], "those who left are not woken"
    gate.set()
    assert await asyncio.gather(leader, *waiters[2:]) == [1, 1, 1]
    assert calls == [1]


async def test_cancelling_at_any_step_leaves_no_load_behind(cache: Cache) -> None:
    """Cancel after 0, 1, 2, ... turns of the loop, leader and waiter alike, until the callers outrun it."""

    @cache.cached
    async def load(x: int) -> int:
        for _ in range(5):
            await asyncio.sleep(0)
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    for who in range(3):
        for steps in range(16):
            x = who * 100 + steps
            callers = [asyncio.create_task(load(x)) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            callers[who].cancel()
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*callers, return_exceptions=True)
            others = [result for at, result in enumerate(results) if at != who]
            assert others == [x, x], f"caller {who}, after {steps} turns"
            assert flights_of(cache) == []
            assert await load(x) == x


async def test_all_callers_cancelled_leave_a_key_that_can_be_loaded(cache: Cache) -> None:
    gate = asyncio.Event()
    calls: list[int] = []

    @cache.cached
    async def load(x: int) -> int:
        calls.append(x)
        await gate.wait()
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    callers = [asyncio.create_task(load(1)) for _ in range(5)]
    await settled(lambda: load.stats.waits == 4)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert flights_of(cache) == []
    assert await load.get(1) is MISSING, "no cancelled task is kept as if it were a result"
    gate.set()
    assert await load(1) == 1


async def test_a_callers_own_timeout_is_its_own(cache: Cache) -> None:
    gate = asyncio.Event()

    @cache.cached
    async def load(x: int) -> int:
        await gate.wait()
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    patient = asyncio.create_task(load(1))
    await settled(lambda: flights_of(cache))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await load(1)
    gate.set()
    assert await patient == 1


def test_a_cancelled_task_leaves_the_threads_that_joined_it_to_load_for_themselves(cache: Cache) -> None:
    gate = Gate()

    async def aload() -> str:
        await gate.apass_through()
        return "task"

    with running_loop() as loop:
        leader = Async(loop).start(cache.aget_or_load, "k", aload)
        gate.reached()
        threads = [Sync().start(cache.get_or_load, "k", lambda: "thread") for _ in range(3)]
        until(lambda: cache.stats.waits == 3)
        leader.cancel()
        assert [thread.result(PATIENCE) for thread in threads] == ["thread"] * 3
        assert flights_of(cache) == []


async def test_a_cancelled_refresh_is_no_answer_and_can_be_begun_again(
    make_cache: Callable[..., Cache], clock: FakeClock
) -> None:
    cache = make_cache()
    calls: list[int] = []
    gate = asyncio.Event()

    @cache.cached(ttl=10, stale=100)
    async def load() -> int:
        calls.append(1)
        if len(calls) == 2:
            await gate.wait()
        return len(calls)

    await load()
    clock.advance(11)
    assert await load() == 1
    await settled(lambda: len(calls) == 2)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await settled(lambda: not flights_of(cache))
    assert await load() == 1
    await settled(lambda: len(calls) == 3 and not flights_of(cache))
    assert await load() == 3


async def test_a_coroutine_that_is_closed_halfway_frees_its_key(cache: Cache) -> None:
    @cache.cached
    async def load(x: int) -> int:
        await asyncio.sleep(0)
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    coroutine = load(1)
    coroutine.send(None)
    assert len(flights_of(cache)) == 1
    coroutine.close()
    assert flights_of(cache) == []
    assert await load(1) == 1


async def test_a_coroutine_that_is_never_awaited_begins_nothing(cache: Cache) -> None:
    @cache.cached
    async def load(x: int) -> int:
        return x

    load(1).close()
    assert flights_of(cache) == []


async def test_what_a_loader_leaves_running_does_not_keep_its_arguments_alive(cache: Cache) -> None:
    left: list[Any] = []

    class Argument:
        def __cache_key__(self) -> int:
            return 1

    @cache.cached
    async def load(x: object) -> int:
        left.append(asyncio.create_task(asyncio.sleep(60)))  # as a connection pool does
        return 1

    argument = Argument()
    await load(argument)
    gone = weakref.ref(argument)
    del argument
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    left[0].cancel()


async def test_a_cancelled_caller_is_not_kept_alive(cache: Cache) -> None:
    class Argument:
        def __cache_key__(self) -> int:
            return 1

    @cache.cached
    async def load(x: object) -> int:
        await asyncio.sleep(60)
        return 1

    argument = Argument()
    task = asyncio.create_task(load(argument))
    await settled(lambda: flights_of(cache))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gone = weakref.ref(argument)
    del argument, task
    await asyncio.sleep(0)  # until now the loop itself holds the outcome
    gc.collect()
    assert gone() is None
