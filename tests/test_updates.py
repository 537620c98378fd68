"""``@updates``: what a write returns is what the cached function would now return."""

import asyncio
import threading
from typing import Any

import pytest

from cachecraft import MISSING, Cache, OptionTypeError, TemplateError
from tests.callers import PATIENCE, Async, Gate, Sync, flights_of, until

Colour = Sync | Async


def users(cache: Cache, colour: Colour, **options: Any) -> Any:
    @cache.cached(**options)
    @colour.loader
    def get_user(user_id: int) -> str:
        return "loaded"

    return get_user


def test_the_result_of_the_write_is_served_from_then_on(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> str:
        return name

    assert colour(get_user(1)) == "loaded"
    assert colour(rename(1, "ann")) == "ann"
    assert [colour(get_user(1)), colour(get_user(2))] == ["ann", "loaded"]
    assert get_user.stats.hits == 1


def test_value_makes_what_is_kept_of_the_result(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)

    @cache.updates(get_user, value=lambda result: result["name"])
    @colour.loader
    def rename(user_id: int, name: str) -> dict[str, str]:
        return {"name": name}

    assert colour(rename(1, "ann")) == {"name": "ann"}
    assert colour(get_user(1)) == "ann"


def test_a_method_updates_a_method_of_its_object(cache: Cache, colour: Colour) -> None:
    class Repository:
        @cache.cached
        @colour.loader
        def get(self, user_id: int) -> str:
            return "loaded"

        @cache.updates(get)
        @colour.loader
        def rename(self, user_id: int, name: str) -> str:
            return name

    one, two = Repository(), Repository()
    colour(one.rename(1, "ann"))
    assert [colour(one.get(1)), colour(two.get(1))] == ["ann", "loaded"]


def test_readers_wait_for_the_write_rather_than_getting_the_old_value(cache: Cache, colour: Colour) -> None:
    gate = Gate()
    get_user = users(cache, colour)

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> Any:
        yield gate
        return name

    colour(get_user(1))
    writer = colour.start(rename, 1, "ann")
    gate.reached()
    readers = [colour.start(get_user, 1) for _ in range(5)]
    until(lambda: get_user.stats.waits == 5)
    gate.open()
    assert writer.result(PATIENCE) == "ann"
    assert [reader.result(PATIENCE) for reader in readers] == ["ann"] * 5
    assert get_user.stats.loads == 2


@pytest.mark.parametrize("how", ["raises", "is cancelled", "is interrupted"])
def test_a_write_that_fails_leaves_nothing_and_readers_load(cache: Cache, colour: Colour, how: str) -> None:
    if how == "is cancelled" and not colour.is_async:
        pytest.skip("threads are not cancelled")
    gate = Gate()
    get_user = users(cache, colour)

    class Interrupt(BaseException):
        pass

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> Any:
        yield gate
        raise ValueError("after the commit, perhaps") if how == "raises" else Interrupt

    colour(get_user.set("old", 1))
    writer = colour.start(rename, 1, "ann")
    gate.reached()
    reader = colour.start(get_user, 1)
    until(lambda: get_user.stats.waits == 1)
    if how == "is cancelled":
        writer.cancel()
    else:
        gate.open()
        assert isinstance(writer.exception(PATIENCE), (ValueError, Interrupt))
    assert reader.result(PATIENCE) == "loaded"
    assert colour(get_user(1)) == "loaded"
    assert flights_of(cache) == []


def test_a_load_that_began_before_the_write_does_not_overwrite_it(cache: Cache, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def get_user(user_id: int) -> Any:
        yield gate
        return "old"

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> str:
        return name

    reader = colour.start(get_user, 1)
    gate.reached()
    colour(rename(1, "ann"))
    gate.open()
    assert reader.result(PATIENCE) == "old"
    assert colour(get_user(1)) == "ann"


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_of_two_writes_that_cross_neither_is_kept(cache: Cache, colour: Colour, first_to_end: int) -> None:
    gates = {"ann": Gate(), "bob": Gate()}
    get_user = users(cache, colour)

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> Any:
        yield gates[name]
        return name

    writers = []
    for name, gate in gates.items():
        writers.append(colour.start(rename, 1, name))
        gate.reached()
    order = ["ann", "bob"] if first_to_end == 0 else ["bob", "ann"]
    for name in order:
        gates[name].open()
        assert writers[list(gates).index(name)].result(PATIENCE) == name
    assert colour(get_user.get(1)) is MISSING


@pytest.mark.parametrize("how", ["by arguments", "by tag", "by tag of the result"])
def test_an_invalidation_during_the_write_wins(cache: Cache, colour: Colour, how: str) -> None:
    gate = Gate()
    tags: Any = (lambda result, user_id: [f"r:{result}"]) if how == "by tag of the result" else ["t"]
    get_user = users(cache, colour, tags=tags)

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> Any:
        yield gate
        return name

    colour(get_user(1))
    writer = colour.start(rename, 1, "ann")
    gate.reached()
    if how == "by arguments":
        colour(get_user.invalidate(1))
    else:
        colour.on(cache).invalidate(tags=["t", "r:ann"])
    gate.open()
    assert writer.result(PATIENCE) == "ann"
    assert colour(get_user.get(1)) is MISSING


def test_a_value_that_is_declined_leaves_no_old_one(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour, when=lambda value: value != "nobody")

    @cache.updates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> str:
        return name

    colour(get_user(1))
    colour(rename(1, "nobody"))
    assert colour(get_user.get(1)) is MISSING


def test_a_value_that_cannot_be_made_costs_the_entry_and_not_the_result(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    get_user = users(cache, colour)

    @cache.updates(get_user, value=lambda result: result["no such"])
    @colour.loader
    def rename(user_id: int, name: str) -> dict[str, str]:
        return {"name": name}

    colour(get_user(1))
    assert colour(rename(1, "ann")) == {"name": "ann"}
    assert colour(get_user.get(1)) is MISSING
    assert "KeyError at " in caplog.text
    assert "test_updates.py" in caplog.text
    assert flights_of(cache) == []


def test_the_caller_may_change_what_the_write_returned(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def get_tags(user_id: int) -> list[str]:
        return []

    @cache.updates(get_tags)
    @colour.loader
    def set_tags(user_id: int, tags: list[str]) -> list[str]:
        return tags

    mine = ["a"]
    colour(set_tags(1, mine)).append("b")
    mine.append("c")
    assert colour(get_tags(1)) == ["a"]


def test_what_cannot_work_is_refused_at_decoration(cache: Cache) -> None:
    @cache.cached
    def get(user_id: int) -> None: ...

    with pytest.raises(OptionTypeError, match="async"):

        @cache.updates(get)
        async def write(user_id: int) -> None: ...

    with pytest.raises(TemplateError, match="user_id"):

        @cache.updates(get)
        def other(name: str) -> None: ...

    with pytest.raises(OptionTypeError, match="not a cached function"):
        cache.updates(len)
    with pytest.raises(OptionTypeError, match="value=5"):
        cache.updates(get, value=5)  # type: ignore[arg-type]


def test_many_threads_that_write_and_read_end_with_what_was_written_last(cache: Cache) -> None:
    database = {"n": 0}
    lock = threading.Lock()

    @cache.cached
    def get(user_id: int) -> int:
        return database["n"]

    @cache.updates(get)
    def bump(user_id: int) -> int:
        with lock:
            database["n"] += 1
            return database["n"]

    def work() -> None:
        for _ in range(200):
            assert bump(1) <= get(1), "a read after a write is not older than it"

    for worker in [Sync().start(work) for _ in range(6)]:
        worker.result(PATIENCE * 2)
    assert get(1) == database["n"] == 1200


def test_an_update_within_a_loop_keeps_the_loop_running(cache: Cache) -> None:
    @cache.cached
    async def get(user_id: int) -> str:
        return "loaded"

    @cache.updates(get)
    async def rename(user_id: int, name: str) -> str:
        assert await get(user_id) == "loaded", "a write may read what it is about to replace"
        await asyncio.sleep(0)
        return name

    async def main() -> str:
        async with asyncio.timeout(PATIENCE):
            await rename(1, "ann")
            return await get(1)

    assert asyncio.run(main(), debug=True) == "ann"
