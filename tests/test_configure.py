"""The default cache: decorate at import, configure later, or let the environment do it."""

from collections.abc import Iterator
from typing import Any

import pytest

import cachecraft
from cachecraft import MISSING, Cache, cached, configure
from cachecraft._api import default
from tests.callers import Async, Sync
from tests.clock import FakeClock

Colour = Sync | Async


@pytest.fixture(autouse=True)
def _as_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default cache as it is before anybody used it, and afterwards as well."""
    for name in ("URL", "NAMESPACE", "ENABLED"):
        monkeypatch.delenv(f"CACHECRAFT_{name}", raising=False)
    configure()
    default._settings = None
    yield
    monkeypatch.undo()
    configure()


def counting(colour: Colour, **options: Any) -> Any:
    calls: list[Any] = []

    @cached(**options)
    @colour.loader
    def load(x: int) -> int:
        calls.append(x)
        return len(calls)

    return load


def test_without_configuration_results_are_kept_in_memory(colour: Colour) -> None:
    load = counting(colour)
    assert [colour(load(1)), colour(load(1))] == [1, 1]
    assert load.key(1).startswith(":tests.test_configure.counting.")


def test_a_function_decorated_before_configure_obeys_it(clock: FakeClock, colour: Colour) -> None:
    load = counting(colour, key="k:{x}")
    assert repr(default) == "<Cache not yet configured>"
    configure("memory://", namespace="shop", ttl=10, jitter=None, clock=clock)
    assert load.key(1) == "shop:k:1"
    colour(load(1))
    clock.advance(10)
    assert colour(load(1)) == 2


def test_configure_after_calls_puts_what_was_kept_out_of_reach(colour: Colour) -> None:
    load = counting(colour, key="k:{x}")
    assert [colour(load(1)), colour(load(1))] == [1, 1]
    configure(namespace="new")
    assert load.key(1) == "new:k:1"
    assert colour(load.get(1)) is MISSING
    assert [colour(load(1)), colour(load(1))] == [2, 2]
    assert load.cache is default


def test_configure_can_switch_off_and_on(colour: Colour) -> None:
    load = counting(colour)
    configure(enabled=False)
    assert [colour(load(1)), colour(load(1))] == [1, 2]
    configure(enabled=True)
    assert [colour(load(1)), colour(load(1))] == [3, 3]


def test_the_environment_switches_the_default_cache_off(monkeypatch: pytest.MonkeyPatch, colour: Colour) -> None:
    monkeypatch.setenv("CACHECRAFT_ENABLED", "0")
    load = counting(colour)
    assert [colour(load(1)), colour(load(1))] == [1, 2]
    configure(enabled=True)
    assert colour(load(1)) == 3, "whoever runs the process has the last word"


def test_the_environment_names_url_and_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHECRAFT_URL", "memory://")
    monkeypatch.setenv("CACHECRAFT_NAMESPACE", "env")
    load = counting(Sync(), key="k:{x}")
    assert load.key(1) == "env:k:1"
    configure()
    assert load.key(1) == "env:k:1"
    configure(namespace="code")
    assert load.key(1) == "code:k:1"


def test_an_unknown_url_in_the_environment_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHECRAFT_URL", "nosuch://x")
    with pytest.raises(cachecraft.OptionError, match="nosuch://x"):
        counting(Sync())(1)


def test_a_closed_default_cache_can_be_configured_again(colour: Colour) -> None:
    load = counting(colour)
    colour(load(1))
    default.close()
    assert [colour(load(1)), colour(load(1))] == [2, 3]
    configure()
    assert [colour(load(1)), colour(load(1))] == [4, 4]


def test_a_wrong_configuration_leaves_the_old_one_in_place(colour: Colour) -> None:
    load = counting(colour)
    colour(load(1))
    with pytest.raises(cachecraft.OptionError, match="ttl=0"):
        configure(ttl=0)
    assert colour(load(1)) == 1


def test_a_cache_of_its_own_has_decorators_of_its_own(colour: Colour) -> None:
    own = Cache(namespace="own")

    @own.cached(key="k")
    @colour.loader
    def load() -> int:
        return 1

    assert load.key() == "own:k"
    assert load.cache is own
    colour(load())
    configure()
    assert colour(load.get()) == 1


def test_namespaces_are_literal() -> None:
    one = Cache(namespace="shop").cached(key="eu:1")(lambda: 1)
    other = Cache(namespace="shop:eu").cached(key="1")(lambda: 1)
    assert one.key() == "shop:eu:1"
    assert other.key() == "shop%3Aeu:1"


def test_the_public_names_are_there() -> None:
    for name in cachecraft.__all__:
        assert getattr(cachecraft, name) is not None
    assert set(cachecraft.__all__) <= set(dir(cachecraft))
