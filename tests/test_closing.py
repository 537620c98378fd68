"""A cache that is closed, or configured anew, while it is in use: decorated functions go on as plain calls."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft.backends.nodes import Named
from tests.callers import PATIENCE, Async, Gate, Sync, flights_of

Colour = Sync | Async


def close(cache: Cache) -> None:
    cache.close()


def configure(cache: Cache) -> None:
    cache._configure("memory://", {})


@pytest.mark.parametrize("end", [close, configure])
@pytest.mark.parametrize("fails", [False, True])
def test_a_load_under_way_ends_as_it_would_have(
    cache: Cache, colour: Colour, end: Callable[[Cache], None], fails: bool
) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        if fails:
            raise KeyError(x)
        return x

    load.key(1)  # bound by now, so that the wrapper leads by itself
    caller = colour.start(load, 1)
    gate.reached()
    end(cache)
    gate.open()
    assert isinstance(caller.exception(PATIENCE), KeyError) if fails else caller.result(PATIENCE) == 1


def test_a_load_that_began_before_a_configuration_leaves_one_that_began_after_it_alone(
    cache: Cache, colour: Colour
) -> None:
    gates, calls = [Gate(), Gate()], []

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        calls.append(x)
        number = len(calls)
        if number <= 2:
            yield gates[number - 1]
        return number

    load.key(1)
    before = colour.start(load, 1)
    gates[0].reached()
    configure(cache)
    load.key(1)
    after = colour.start(load, 1)
    gates[1].reached()
    gates[0].open()
    assert before.result(PATIENCE) == 1
    colour(load.invalidate(1))  # it is to reach the load that is still under way
    gates[1].open()
    assert after.result(PATIENCE) == 2
    assert colour(load(1)) == 3


def test_who_is_being_bound_while_the_cache_is_closed_goes_on_as_a_plain_call(redis_url: str, colour: Colour) -> None:
    class Closing:
        """A serializer that is told of a function as it is bound."""

        id = 77

        def allow(self, annotation: object) -> None:
            cache.close()

        def dumps(self, value: Any) -> bytes:
            return b""

        def loads(self, data: bytes) -> Any:
            return None

    cache = Cache(redis_url, serializer=Closing())

    @cache.cached(key="k:{x}")
    @colour.loader
    def load(x: int) -> int:
        return x

    load.__wrapped__.__annotations__["return"] = int
    assert [colour(load(1)), colour(load(2))] == [1, 2]


def test_a_destructor_may_use_a_cache_that_is_just_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()

    @cache.cached
    def load(x: int) -> int:
        return x

    class Leaving:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            load(2)

    def collecting(*args: Any, **kwargs: Any) -> Any:
        gc.collect()
        return made(*args, **kwargs)

    from cachecraft import _making

    made = _making.LocalKeeper
    monkeypatch.setattr(_making, "LocalKeeper", collecting)
    results: list[int] = []

    def call() -> None:
        Leaving()
        results.append(load(1))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert results == [1]
    assert cache.invalidate(pattern="*load*") == 2, "what was kept meanwhile is of this cache too"


def test_nobody_waits_for_a_load_that_a_signal_ended_while_it_was_stored(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    ticks: list[BaseException | None] = []

    def clock() -> float:
        error = ticks.pop() if ticks else None
        if error is not None:
            raise error
        return 0.0

    cache = make_cache(clock=clock)

    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        return x

    load.key(1)
    for at in range(1, 3):  # as the load begins, and as it lands
        ticks[:] = [KeyboardInterrupt(), *[None] * (at - 1)]
        with pytest.raises(KeyboardInterrupt):
            load(1) if isinstance(colour, Sync) else _drive(load(1))
        assert flights_of(cache) == []
        assert load.get is not None
    assert colour(load(1)) == 1
    assert load.stats.waits == 0


def _drive(coroutine: Any) -> None:
    """Run a coroutine that waits for nothing: a loop would end with what is raised here."""
    try:
        coroutine.send(None)
    except StopIteration:
        return


def test_an_entry_is_whole_when_it_can_be_found(cache: Cache, colour: Colour) -> None:
    """Whoever looks takes no lock."""
    seen = []

    class Watched(dict[Any, Any]):
        def __setitem__(self, key: Any, node: Any) -> None:
            super().__setitem__(key, node)
            seen.append(node.fallen)

    @cache.cached(tags=["t:{x}"])
    @colour.loader
    def load(x: int) -> int:
        return x

    load.key(1)
    load.__cachecraft__.function().table.shelf.nodes = Watched()
    assert colour(load(1)) == 1
    assert seen == [False]
    assert isinstance(next(iter(load.__cachecraft__.function().table.shelf.nodes.values())), Named)
