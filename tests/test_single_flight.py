"""One load: threads share it, tasks share it, both share it, and nobody waits for himself or for the dead."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft._core.flights import LANDED, Flight
from tests.callers import PATIENCE, Async, Gate, Sync, flights_of, running_loop, until
from tests.clock import FakeClock

Colour = Sync | Async


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}, {"ttl": 60, "stale": 60, "tags": ["t"]}, {"isolate": True}])
def test_fifty_callers_share_one_load(cache: Cache, colour: Colour, options: dict[str, Any]) -> None:
    calls: list[int] = []
    gate = Gate()

    @cache.cached(**options)
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        yield gate
        return [x]

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    callers = [colour.start(load, 1) for _ in range(50)]
    gate.reached()
    until(lambda: load.stats.waits == 49)
    gate.open()
    assert [caller.result(PATIENCE) for caller in callers] == [[1]] * 50
    assert calls == [1]
    assert load.cache_info()[:2] == (0, 50), "who joined counts as a miss"
    assert flights_of(cache) == []


def test_threads_and_tasks_share_one_load_whoever_leads(cache: Cache) -> None:
    for leader in (0, 1):
        calls: list[str] = []
        gate = Gate()
        key = f"k{leader}"

        def load(gate: Gate = gate, calls: list[str] = calls) -> str:
            calls.append("thread")
            gate.pass_through()
            return "value"

        async def aload(gate: Gate = gate, calls: list[str] = calls) -> str:
            calls.append("task")
            await gate.apass_through()
            return "value"

        with running_loop() as one, running_loop() as other:
            sync, tasks, more = Sync(), Async(one), Async(other)
            starts: list[Callable[[], Any]] = [
                partial(sync.start, cache.get_or_load, key, load),
                partial(tasks.start, cache.aget_or_load, key, aload),
                partial(more.start, cache.aget_or_load, key, aload),
            ]
            waits = cache.stats.waits
            callers = [starts[leader]()]
            gate.reached()
            callers += [start() for start in starts for _ in range(16)]
            until(lambda waits=waits: cache.stats.waits == waits + 48)
            gate.open()
            assert [caller.result(PATIENCE) for caller in callers] == ["value"] * 49
        assert calls == [("thread", "task")[leader]]


def test_callers_of_other_keys_do_not_wait(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        if x == 1:
            yield gate
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    slow = colour.start(load, 1)
    gate.reached()
    assert colour(load(2)) == 2
    gate.open()
    assert slow.result(PATIENCE) == 1


def test_one_and_true_in_flight_at_once_are_two_loads(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: object) -> Any:
        yield gate
        return repr(x)

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    callers = [colour.start(load, x) for x in (1, True, 1.0)]
    for _ in callers:
        gate.reached()
    gate.open()
    assert [caller.result(PATIENCE) for caller in callers] == ["1", "True", "1.0"]
    assert [colour(load(x)) for x in (1, True, 1.0)] == ["1", "True", "1.0"]
    assert load.stats.loads == 3


def test_who_joins_gets_the_very_exception_of_the_loader_and_the_next_caller_loads(
    cache: Cache, colour: Colour
) -> None:
    gate = Gate()
    errors: list[ValueError] = []

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        errors.append(ValueError("no"))
        raise errors[-1]

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    callers = [colour.start(load, 1) for _ in range(10)]
    gate.reached()
    until(lambda: load.stats.waits == 9)
    gate.open()
    raised = [caller.exception(PATIENCE) for caller in callers]
    assert len(errors) == 1
    assert all(error is errors[0] for error in raised)
    with pytest.raises(ValueError, match="no"):
        colour(load(1))
    assert len(errors) == 2
    assert flights_of(cache) == []


class Interrupt(BaseException):
    """As KeyboardInterrupt: not an answer, but the end of who runs it."""


def test_a_leader_that_is_interrupted_leaves_the_load_to_the_next(cache: Cache, colour: Colour) -> None:
    gate = Gate()
    calls: list[int] = []

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        yield gate
        if len(calls) == 1:
            raise Interrupt
        return len(calls)

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    first = colour.start(load, 1)
    gate.reached()
    others = [colour.start(load, 1) for _ in range(9)]
    until(lambda: load.stats.waits >= 9)
    gate.open()
    assert isinstance(first.exception(PATIENCE), Interrupt)
    assert [other.result(PATIENCE) for other in others] == [2] * 9
    assert len(calls) == 2


def test_a_hook_that_is_interrupted_leaves_nobody_waiting(cache: Cache, colour: Colour) -> None:
    gate = Gate()
    interrupts = [Interrupt()]

    def when(result: object) -> bool:
        if interrupts:
            raise interrupts.pop()
        return True

    @cache.cached(when=when)
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    first = colour.start(load, 1)
    gate.reached()
    second = colour.start(load, 1)
    until(lambda: load.stats.waits == 1)
    gate.open()
    assert isinstance(first.exception(PATIENCE), Interrupt)
    assert second.result(PATIENCE) == 1


def test_who_waited_long_enough_loads_for_itself_and_stores_nothing(cache: Cache, colour: Colour) -> None:
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

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    first = colour.start(load, 1)
    gate.reached()
    assert colour(load(1)) == 2
    assert load.stats.wait_timeouts == 1
    gate.open()
    assert first.result(PATIENCE) == 1
    assert colour(load(1)) == 1, "the first is kept, not the impatient one"


def test_who_comes_to_a_flight_that_has_just_ended_is_woken_at_once() -> None:
    flight = Flight.of("k", 0.0)
    flight.settle(LANDED, 1)
    woken: list[bool] = []
    flight.subscribe(lambda: woken.append(True))
    assert woken == [True]


def test_an_entry_that_appears_between_the_look_and_the_load_is_served(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    hooks: list[Callable[[], object]] = []

    def clock() -> float:
        if hooks:
            hooks.pop()()
        return 1000.0

    cache = make_cache(clock=clock)

    @cache.cached
    @colour.loader
    def load(x: int) -> str:
        return "loaded"

    function = load.__cachecraft__.function()

    def store_by_somebody_else() -> None:
        with pytest.raises(StopIteration):  # the flow of ``set``, which has nothing to wait for
            function.put((1,), "set").send(None)

    # The clock is read when the wrapper has found nothing and is about to load.
    hooks.append(store_by_somebody_else)
    assert colour(load(1)) == "set"
    assert load.stats.loads == 0


# -- loads within loads --------------------------------------------------------------------------------------


def test_a_loader_that_calls_itself_with_the_same_arguments_runs(cache: Cache) -> None:
    depth: list[int] = []

    @cache.cached
    def load(x: int) -> int:
        depth.append(x)
        return load(x) + 1 if len(depth) < 3 else 0

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    assert load(1) == 2
    assert len(depth) == 3
    assert load.stats.waits == 0


async def test_a_coroutine_that_awaits_itself_with_the_same_arguments_runs(cache: Cache) -> None:
    depth: list[int] = []

    @cache.cached
    async def load(x: int) -> int:
        depth.append(x)
        await asyncio.sleep(0)
        return await load(x) + 1 if len(depth) < 3 else 0

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    assert await load(1) == 2
    assert load.stats.waits == 0


async def test_child_tasks_of_a_loader_may_ask_for_the_same_key(cache: Cache) -> None:
    depth: list[int] = []

    @cache.cached
    async def load(x: int) -> int:
        depth.append(x)
        if len(depth) > 1:
            return 1
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(load(x)) for _ in range(5)]
        return sum(task.result() for task in tasks)

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    async with asyncio.timeout(PATIENCE):
        assert await load(1) == 5
    assert load.stats.waits == 0


@pytest.mark.parametrize("colours", ["threads", "tasks"])
def test_functions_that_call_each_other_in_opposite_order_from_two_callers_end(cache: Cache, colours: str) -> None:
    nested: set[str] = set()

    if colours == "threads":
        barrier = threading.Barrier(2, timeout=PATIENCE)

        @cache.cached(wait=PATIENCE * 3)
        def one(x: int) -> str:
            if "one" in nested:
                return "inner one"
            nested.add("one")
            barrier.wait()
            return f"one({two(x)})"

        @cache.cached(wait=PATIENCE * 3)
        def two(x: int) -> str:
            if "two" in nested:
                return "inner two"
            nested.add("two")
            barrier.wait()
            return f"two({one(x)})"

        one.key(1), two.key(1)
        sync = Sync()
        callers = [sync.start(one, 1), sync.start(two, 1)]
        answers = {caller.result(PATIENCE) for caller in callers}
    else:

        async def main() -> set[str]:
            meeting = asyncio.Barrier(2)

            @cache.cached(wait=PATIENCE * 3)
            async def one(x: int) -> str:
                if "one" in nested:
                    return "inner one"
                nested.add("one")
                await meeting.wait()
                return f"one({await two(x)})"

            @cache.cached(wait=PATIENCE * 3)
            async def two(x: int) -> str:
                if "two" in nested:
                    return "inner two"
                nested.add("two")
                await meeting.wait()
                return f"two({await one(x)})"

            one.key(1), two.key(1)
            async with asyncio.timeout(PATIENCE):
                return set(await asyncio.gather(one(1), two(1)))

        answers = asyncio.run(main(), debug=True)
    # One of the two waited for the other, which saw that it must not, and ran the inner loader for itself.
    assert answers in (
        {"one(two(inner one))", "two(inner one)"},
        {"two(one(inner two))", "one(inner two)"},
    )


async def test_a_cycle_is_seen_although_one_of_two_who_wait_has_given_up(cache: Cache) -> None:
    started = asyncio.Event()
    nested: list[str] = []

    @cache.cached(wait=PATIENCE * 3)
    async def inner(x: int) -> str:
        await started.wait()
        return await outer(x)

    @cache.cached(wait=PATIENCE * 3)
    async def outer(x: int) -> str:
        nested.append("outer")
        if len(nested) > 1:
            return "alone"
        waiting = [asyncio.create_task(inner(x)) for _ in range(2)]
        while inner.stats.waits < 2:
            await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        started.set()
        return await waiting[1]

    leading = asyncio.create_task(inner(1))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        assert await outer(1) == "alone"
        assert await leading == "alone"


async def test_plain_code_in_a_loop_does_not_block_on_a_load_of_that_loop(cache: Cache) -> None:
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "task"

    task = asyncio.create_task(cache.aget_or_load("k", slow, wait=PATIENCE * 3))
    while not flights_of(cache):
        await asyncio.sleep(0)
    began = time.monotonic()
    assert cache.get_or_load("k", lambda: "thread", wait=PATIENCE * 3) == "thread"
    assert time.monotonic() - began < PATIENCE, "it would have waited in vain"
    gate.set()
    assert await task == "task"


# -- loops and processes -------------------------------------------------------------------------------------


def test_a_cached_coroutine_function_serves_one_loop_after_another(cache: Cache) -> None:
    calls: list[int] = []

    @cache.cached
    async def load(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        return x

    async def crowd(x: int) -> list[int]:
        return await asyncio.gather(*(load(x) for _ in range(5)))

    assert asyncio.run(crowd(1), debug=True) == [1] * 5
    assert asyncio.run(crowd(1), debug=True) == [1] * 5
    assert asyncio.run(crowd(2), debug=True) == [2] * 5
    assert calls == [1, 2]


def test_two_loops_in_two_threads_share_one_load(cache: Cache) -> None:
    gate = Gate()
    calls: list[int] = []

    @cache.cached
    async def load(x: int) -> int:
        calls.append(x)
        await gate.apass_through()
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself where it can
    with running_loop() as one, running_loop() as other:
        callers = [Async(one).start(load, 1)]
        gate.reached()
        callers += [Async(other).start(load, 1) for _ in range(5)]
        until(lambda: load.stats.waits == 5)
        gate.open()
        assert [caller.result(PATIENCE) for caller in callers] == [1] * 6
    assert calls == [1]


@pytest.mark.parametrize("options", [{}, {"ttl": 60, "tags": ["t"]}])
def test_a_load_whose_loop_was_closed_under_it_blocks_nobody(cache: Cache, options: dict[str, Any]) -> None:
    never: list[Any] = []
    calls: list[int] = []

    @cache.cached(wait=PATIENCE * 3, **options)
    async def load(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            never.append(asyncio.get_running_loop().create_future())
            await never[0]
        return x

    loop = asyncio.new_event_loop()
    task = loop.create_task(load(1))
    loop.call_later(0, loop.stop)
    loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))
    assert calls == [1]
    loop.close()  # and nobody cancelled the task

    async def again() -> int:
        async with asyncio.timeout(PATIENCE):
            return await load(1)

    if not options:
        # Led by the wrapper itself, which knows no loop: it ends when the task is let go of.
        task.get_coro().close()
    assert asyncio.run(again(), debug=True) == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()


def test_a_refresh_whose_loop_was_closed_under_it_is_begun_again(
    make_cache: Callable[..., Cache], clock: FakeClock
) -> None:
    cache = make_cache()
    calls: list[int] = []
    blocked: list[Any] = []

    @cache.cached(ttl=10, stale=100)
    async def load() -> int:
        calls.append(1)
        if len(calls) == 2:
            blocked.append(asyncio.get_running_loop().create_future())
            await blocked[0]
        return len(calls)

    assert asyncio.run(load()) == 1
    clock.advance(11)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(load()) == 1
    loop.run_until_complete(asyncio.sleep(0))
    tasks = asyncio.all_tasks(loop)
    loop.close()
    assert len(calls) == 2

    async def later() -> int:
        assert await load() == 1
        async with asyncio.timeout(PATIENCE):
            while len(calls) < 3 or flights_of(cache):
                await asyncio.sleep(0)
            return await load()

    assert asyncio.run(later(), debug=True) == 3
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()


def in_a_child(work: Callable[[], bool]) -> None:
    """Fork, and check that ``work`` is true in the child, which ends in any case."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        verdict = b"raised"
        try:
            watchdog = threading.Timer(PATIENCE, os._exit, (1,))
            watchdog.daemon = True
            watchdog.start()
            verdict = b"yes" if work() else b"no"
        finally:
            os.write(writer, verdict)
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"yes", "the child hung or was wrong"
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}, {"ttl": 60, "tags": ["t"]}])
def test_a_forked_child_does_not_wait_for_loads_of_its_parent(cache: Cache, options: dict[str, Any]) -> None:
    gate = Gate()

    @cache.cached(wait=PATIENCE * 3, **options)
    def load(x: int) -> Any:
        if os.getpid() == parent and x == 1:
            gate.pass_through()
        return os.getpid()

    parent = os.getpid()
    kept = load(2)
    caller = Sync().start(load, 1)
    gate.reached()
    in_a_child(lambda: load(1) == os.getpid() and load(1) == os.getpid() and load(2) == kept)
    gate.open()
    assert caller.result(PATIENCE) == parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}])
def test_a_fork_in_the_middle_of_a_change_leaves_the_child_an_empty_cache_that_works(
    make_cache: Callable[..., Cache], options: dict[str, Any]
) -> None:
    cache = make_cache(max_entries=10)

    @cache.cached(**options)
    def load(x: int) -> int:
        return os.getpid()

    for x in range(10):
        load(x)
    locked, forked = threading.Event(), threading.Event()

    def change() -> None:
        with cache._keeper.memory.lock:
            locked.set()
            assert forked.wait(PATIENCE)

    changing = Sync().start(change)
    assert locked.wait(PATIENCE)

    def works() -> bool:
        mine = [load(x) for x in range(30)] + [load(29)]
        return set(mine) == {os.getpid()} and load.cache_info().currsize == 10 and load.cache_info().hits == 1

    in_a_child(works)
    forked.set()
    changing.result(PATIENCE)
    assert load.cache_info().currsize == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_while_a_function_is_bound_does_not_lock_the_child_out(cache: Cache) -> None:
    @cache.cached
    def load(x: int) -> int:
        return x

    with load.__cachecraft__._lock:
        pid_lock = threading.Event()
        Sync().start(pid_lock.set).result(PATIENCE)
        in_a_child(lambda: load(1) == 1)
    assert load(1) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_loader_may_fork(cache: Cache) -> None:
    @cache.cached
    def load(x: int) -> int:
        if x:
            in_a_child(lambda: load(0) == 5)
        return 5

    assert load(1) == 5
    assert load.get(1) == 5
