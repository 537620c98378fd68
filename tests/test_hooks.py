"""Hooks are told what happens, have no say in it, and cost nothing where there are none."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachecraft import Cache, hooks
from cachecraft._core import noting
from cachecraft._core.errors import OptionTypeError
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock
from tests.servers import RedisServer

Colour = Sync | Async


class Ear:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[hooks.Event] = []

    def __call__(self, event: hooks.Event) -> None:
        self.events.append(event)

    def taken(self) -> list[hooks.Event]:
        events, self.events = self.events, []
        return events

    def of(self, *kinds: type[hooks.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], ear: Ear) -> Cache:
    return make_cache(hooks=[ear])


def named(function: Any) -> str:
    return str(function.__cachecraft__.subject.label)


def test_a_load_is_told_of_and_a_hit_is_not(cache: Cache, ear: Ear, clock: FakeClock, colour: Colour) -> None:
    @cache.cached(ttl=10)
    @colour.loader
    def load(x: int) -> int:
        clock.advance(2)
        return x

    colour(load(1))
    missed, began, ended = ear.taken()
    assert missed == hooks.Missed(named(load), "absent")
    assert isinstance(began, hooks.LoadStarted)
    assert ended == hooks.LoadEnded(named(load), began.load, 2.0)
    colour(load(1))
    assert ear.taken() == []
    clock.advance(11)
    colour(load(1))
    assert ear.events[0] == hooks.Missed(named(load), "expired")


def test_a_load_that_raises_tells_its_exception(cache: Cache, ear: Ear, colour: Colour) -> None:
    error = LookupError()

    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        raise error

    with pytest.raises(LookupError):
        colour(load(1))
    (ended,) = ear.of(hooks.LoadEnded)
    assert ended.error is error


def test_a_wait_is_told_of(cache: Cache, ear: Ear, clock: FakeClock, colour: Colour) -> None:
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    leader = colour.start(load, 1)
    gate.reached()
    waiter = colour.start(load, 1)
    until(lambda: load.stats.waits == 1)
    clock.advance(3)
    gate.open()
    assert leader.result(PATIENCE) == waiter.result(PATIENCE) == 1
    assert ear.of(hooks.WaitEnded) == [hooks.WaitEnded(named(load), 3.0, in_time=True)]


def test_old_values_are_told_of(cache: Cache, ear: Ear, clock: FakeClock, colour: Colour) -> None:
    broken = False

    @cache.cached(ttl=10, stale=10, grace=100)
    @colour.loader
    def load(x: int) -> int:
        if broken:
            raise ValueError
        return x

    colour(load(1))
    clock.advance(11)
    colour(load(1))
    until(lambda: load.stats.loads == 2)
    broken = True
    clock.advance(30)
    colour(load(1))
    assert [event.why for event in ear.of(hooks.StaleServed)] == ["stale", "grace"]


def test_what_is_not_stored_is_told_of(cache: Cache, ear: Ear, colour: Colour) -> None:
    gate = Gate()

    @cache.cached(when=lambda result: result > 0)
    @colour.loader
    def load(x: int) -> Any:
        if x == 7:
            yield gate
        return x

    colour(load(-1))
    caller = colour.start(load, 7)
    gate.reached()
    colour(load.invalidate(7))
    gate.open()
    caller.result(PATIENCE)
    assert [event.why for event in ear.of(hooks.NotStored)] == ["when", "lost"]


def test_invalidations_are_told_of(cache: Cache, ear: Ear, colour: Colour) -> None:
    @cache.cached(key="k:{x}", tags=["t"])
    @colour.loader
    def load(x: int) -> int:
        return x

    for x in (1, 2):
        colour(load(x))
    by_hand = colour.on(cache)
    colour(load.invalidate(1))
    by_hand.invalidate(key="k:9")
    by_hand.invalidate(pattern="k:*")
    by_hand.invalidate(tags=["t"])
    colour(load.invalidate_all())
    by_hand.clear()
    assert ear.of(hooks.Invalidated) == [
        hooks.Invalidated("call", named(load), 1),
        hooks.Invalidated("key"),
        hooks.Invalidated("pattern", count=1),
        hooks.Invalidated("tags"),
        hooks.Invalidated("function", named(load)),
        hooks.Invalidated("everything"),
    ]


def test_what_a_hook_raises_goes_nowhere_but_into_the_log_once(
    make_cache: Callable[..., Cache], ear: Ear, caplog: pytest.LogCaptureFixture, colour: Colour
) -> None:
    def broken(event: hooks.Event) -> None:
        raise RuntimeError("the secret that was loaded")

    broken.__qualname__ = f"broken_{colour!r}"
    cache = make_cache(hooks=[broken, ear])

    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        return x

    assert [colour(load(x)) for x in (1, 2)] == [1, 2]
    assert len(ear.of(hooks.LoadEnded)) == 2
    (record,) = caplog.records
    assert "broken_" in record.getMessage()
    assert "RuntimeError" in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize("options", [{}, {"key": "k:{x}"}])
def test_a_hook_may_come_late_and_nothing_is_dropped(
    make_cache: Callable[..., Cache], ear: Ear, colour: Colour, options: dict[str, Any]
) -> None:
    cache = make_cache()

    @cache.cached(**options)
    @colour.loader
    def load(x: int) -> int:
        return x

    colour(load(1))
    cache.add_hook(ear)
    colour(load(1))
    assert ear.events == []
    colour(load(2))
    assert len(ear.of(hooks.LoadEnded)) == 1
    colour(load.invalidate_all())
    colour(load(2))
    assert load.stats.hits == 1


def test_a_hook_that_came_late_stays_when_the_cache_is_configured_anew(ear: Ear, clock: FakeClock) -> None:
    with Cache(clock=clock) as cache:
        load = cache.cached(lambda x: x)
        cache.add_hook(ear)
        cache._configure("memory://", {"namespace": "other"})
        load(1)
        assert len(ear.of(hooks.LoadEnded)) == 1


def test_without_hooks_a_plain_miss_goes_by_the_shortest_way(
    make_cache: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes no event, and does not even look whether somebody listens."""

    def never(*_: Any) -> None:
        raise AssertionError("a plain miss came by here")

    monkeypatch.setattr(noting, "missed", never)
    monkeypatch.setattr(noting, "load_ended", never)
    load = make_cache().cached(lambda x: x)
    load.key(1)
    assert load.__cachecraft__.function().quick  # type: ignore[attr-defined]  # our own
    assert (load(1), load(1)) == (1, 1)


def test_hooks_must_be_functions() -> None:
    with pytest.raises(OptionTypeError, match="hooks="):
        Cache(hooks=["print"])  # type: ignore[list-item]  # that is the point
    with pytest.raises(OptionTypeError, match="hooks="):
        Cache(hooks=print)  # type: ignore[arg-type]  # that is the point


def test_events_are_logged_if_the_logger_is_at_debug_when_the_cache_is_first_used(
    make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture, colour: Colour
) -> None:
    """With functions as fields, and neither keys nor values."""

    @colour.loader
    def body(user: str) -> str:
        if user == "bob":
            raise LookupError("bob's password")
        return "ada's password"

    def use() -> Any:
        load = make_cache().cached(key="user:{user}")(body)
        colour(load("ada"))
        with pytest.raises(LookupError):
            colour(load("bob"))
        return load

    use()
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, logger="cachecraft"):
        load = use()
    ended = [record for record in caplog.records if getattr(record, "event", "") == "LoadEnded"]
    assert [record.function for record in ended] == [named(load)] * 2  # type: ignore[attr-defined]  # by extra=
    assert [bool(record.error) for record in ended] == [False, True]  # type: ignore[attr-defined]  # by extra=
    everything = " ".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "LookupError" in everything
    assert "password" not in everything
    assert "user:" not in everything
    assert {record.name for record in caplog.records} == {"cachecraft"}


def test_round_trips_and_the_breaker_are_told_of(
    start_redis: Callable[..., RedisServer], ear: Ear, colour: Colour
) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop", hooks=[ear], timeout=0.1) as cache:

        @cache.cached(key="k:{x}")
        @colour.loader
        def load(x: int) -> int:
            return x

        colour(load(1)), colour(load(1))
        assert [event.operation for event in ear.of(hooks.RedisAsked)] == ["fetch", "acquire", "store", "fetch"]
        assert all(0 < event.seconds < PATIENCE for event in ear.of(hooks.RedisAsked))
        server.pause()
        for x in range(2, 6):
            colour(load(x))
        assert len(ear.of(hooks.BreakerOpened)) == 1
        assert ear.of(hooks.Missed)[-1] == hooks.Missed(named(load), "unreachable")
        server.resume()
        until(lambda: ear.of(hooks.BreakerClosed))
        assert load.stats.reasons["unreachable"] == 4
        failed = [event for event in ear.of(hooks.RedisAsked) if event.error is not None]
        assert len(failed) == 3
        assert cache.snapshot().redis_errors == {"fetch": 3}
        assert cache.snapshot().redis["fetch"].count == 5


def test_the_load_of_a_verification_is_a_load_as_any_other(cache: Cache, ear: Ear, colour: Colour) -> None:
    @cache.cached(ttl=10, verify=1.0)
    @colour.loader
    def load(x: int) -> int:
        return x

    colour(load(1))
    ear.taken()
    colour(load(1))
    until(lambda: load.stats.verified == 1)
    began, ended = ear.of(hooks.LoadStarted, hooks.LoadEnded)
    assert (began.load, began.function) == (ended.load, named(load))
    assert load.__cachecraft__.record.sum().load_durations.count == load.stats.loads == 2
    assert ear.of(hooks.Differed) == []


@pytest.mark.parametrize("place", ["memory", "redis", "near"])
def test_a_served_value_that_differs_from_what_is_loaded_is_told_of(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, ear: Ear, colour: Colour, place: str
) -> None:
    monkeypatch.setattr("cachecraft._core.verification.PAUSE", 0.0)  # writes end as soon as they have committed
    url = "memory://" if place == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, namespace="shop", near=place == "near" or None, hooks=[ear]) as cache:
        row = ["old"]

        @cache.cached(ttl=60, key="k:{secret}", verify=1.0)
        @colour.loader
        def load(secret: str) -> str:
            return row[0]

        colour(load("hush"))
        row[0] = "new, and nobody was told"
        until(lambda: colour(load("hush")) == "old" and ear.of(hooks.Differed))
        assert set(ear.of(hooks.Differed)) == {hooks.Differed(named(load))}
        assert len(ear.of(hooks.Differed)) <= load.stats.differed  # counted before it is told


def test_every_event_is_in_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs" / "monitoring.md").read_text("utf-8")
    assert not [each.__name__ for each in hooks.Event.__subclasses__() if f"`{each.__name__}`" not in text]
    assert {each.__name__ for each in hooks.Event.__subclasses__()} < set(hooks.__all__)
