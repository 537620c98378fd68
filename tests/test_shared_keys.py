"""Functions whose keys are the same are served each other's results, as far as they stay fresh for them (P1)."""

from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from tests.callers import PATIENCE, Async, Gate, Sync, until

Colour = Sync | Async


def naming(cache: Cache, colour: Colour, name: str, **options: Any) -> Any:
    """A cached function that answers with its name, and how often it ran."""
    calls: list[int] = []

    @cache.cached(key="k:{x}", **options)
    @colour.loader
    def load(x: int) -> str:
        calls.append(x)
        return f"{name}{len(calls)}"

    return load


def gated(cache: Cache, colour: Colour, gate: Gate, **options: Any) -> Any:
    """A cached function that waits at a gate."""

    @cache.cached(key="k:{x}", **options)
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return "gated"

    return load


def test_a_result_is_shared_with_a_function_whose_tags_it_has(cache: Cache, colour: Colour) -> None:
    both, one = naming(cache, colour, "both", tags=["a", "b:{x}"]), naming(cache, colour, "one", tags=["b:{x}"])
    assert [colour(both(1)), colour(one(1))] == ["both1", "both1"]
    assert colour.on(cache).invalidate(tags=["b:1"]) == 1
    assert [colour(one(1)), colour(both(1)), colour(one(1))] == ["one1", "both2", "both2"]


@pytest.mark.parametrize("tags", [["b"], ["a", "b"], lambda result, x: ["b"]], ids=["other", "more", "of the result"])
def test_a_tag_that_only_the_asker_has_reaches_what_it_is_served(cache: Cache, colour: Colour, tags: Any) -> None:
    a, b = naming(cache, colour, "a", tags=["a"]), naming(cache, colour, "b", tags=tags)
    colour(a(1))
    colour.on(cache).invalidate(tags=["b"])
    assert colour(b.get(1)) is MISSING
    assert colour(b(1)) == "b1"


def test_nor_does_such_a_function_join_the_others_load(cache: Cache, colour: Colour) -> None:
    gate = Gate()
    a, b = gated(cache, colour, gate, tags=["a"]), naming(cache, colour, "b", tags=["b"])
    first = colour.start(a, 1)
    gate.reached()
    colour.on(cache).invalidate(tags=["b"])
    second = colour.start(b, 1)
    until(lambda: b.stats.waits == 1)
    assert b.stats.loads == 0, "one load of a key at a time"
    gate.open()
    assert [first.result(PATIENCE), second.result(PATIENCE)] == ["gated", "b1"]
    assert colour(b(1)) == "b1"


def test_nor_with_a_soft_timeout(make_cache: Callable[..., Cache], clock: Any, colour: Colour) -> None:
    gate, cache = Gate(), make_cache()
    b = naming(cache, colour, "b", tags=["b"], ttl=10, grace=60, soft_timeout=PATIENCE)
    a = gated(cache, colour, gate, tags=["a"])
    colour(b(1))
    clock.advance(11)
    first = colour.start(a, 1)
    gate.reached()
    second = colour.start(b, 1)
    gate.open()
    assert [first.result(PATIENCE), second.result(PATIENCE)] == ["gated", "b2"]


@pytest.mark.parametrize("joined", [False, True], ids=["stored", "under way"])
def test_after_all_of_a_function_was_invalidated_it_is_served_nothing_older(
    cache: Cache, colour: Colour, joined: bool
) -> None:
    gate = Gate()
    a, b = gated(cache, colour, gate), naming(cache, colour, "b")
    first = colour.start(a, 1)
    gate.reached()
    if not joined:
        gate.open()
        first.result(PATIENCE)
    colour(b.invalidate_all())
    if joined:
        second = colour.start(b, 1)
        until(lambda: b.stats.waits == 1)
        gate.open()
        assert second.result(PATIENCE) == "b1"
        return
    assert colour(a(1)) == "gated", "of the other function nothing was invalidated"
    assert [colour(b.get(1)), colour(b(1)), colour(a(1))] == [MISSING, "b1", "b1"]


def test_all_of_it_invalidated_it_is_served_again_what_is_loaded_later(cache: Cache, colour: Colour) -> None:
    a, b = naming(cache, colour, "a"), naming(cache, colour, "b")
    colour(b.invalidate_all())
    assert [colour(a(1)), colour(b(1))] == ["a1", "a1"]


def test_to_invalidate_a_call_reaches_what_is_there_whatever_its_tags(cache: Cache, colour: Colour) -> None:
    a, b = naming(cache, colour, "a", tags=["a"]), naming(cache, colour, "b", tags=["b"])
    colour(a(1))
    assert colour(b.invalidate(1)) == 1
    assert colour(a(1)) == "a2"


def test_calls_of_one_function_whose_tags_differ_are_not_answered_with_one_another(
    cache: Cache, colour: Colour
) -> None:
    calls: list[str] = []

    @cache.cached(key="user:{user}", tags=["tenant:{tenant}"])
    @colour.loader
    def load(user: int, tenant: str) -> str:
        calls.append(tenant)
        return f"{tenant}{len(calls)}"

    assert [colour(load(1, "a")), colour(load(1, "a"))] == ["a1", "a1"]
    colour.on(cache).invalidate(tags=["tenant:b"])
    assert [colour(load(1, "b")), colour(load(1, "b"))] == ["b2", "b2"]
    assert load.cache_info().currsize == 1, "one entry of a key"


def test_what_is_loaded_by_hand_under_tags_is_not_what_has_none(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    by_hand.set("k", "untagged")
    by_hand.invalidate(tags=["t"])
    assert by_hand.get_or_load("k", lambda: "tagged", tags=["t"]) == "tagged"
    assert [by_hand.get("k"), by_hand.get_or_load("k", lambda: "again", tags=["t"])] == ["tagged", "tagged"]
