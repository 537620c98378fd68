"""What type checkers are told is what there is: the options, and what hangs on a cached function."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from cachecraft import Cache, _api, _decorators, _options, _settings


def test_the_options_of_cached_that_checkers_know_are_those_it_takes() -> None:
    assert {"ttl", *_options.FunctionOptions.__annotations__} == _decorators._OPTIONS


def test_the_options_of_a_cache_that_checkers_know_are_those_it_takes() -> None:
    assert _options.CacheOptions.__annotations__.keys() == _settings.OPTIONS


@pytest.mark.parametrize("options", [_options.FunctionOptions, _options.CacheOptions])
def test_the_types_of_options_can_be_read_at_runtime(options: type) -> None:
    assert get_type_hints(options).keys() == options.__annotations__.keys()


@pytest.mark.parametrize("face", [_api.SyncFace, _api.AsyncFace])
def test_all_that_checkers_see_on_a_cached_function_hangs_on_it(face: type) -> None:
    def load(user_id: int, *, name: str = "") -> str:
        return name

    cached = Cache().cached(load)

    told = {name for each in face.__mro__ for name in vars(each).keys() | inspect.get_annotations(each).keys()}
    wanted = {name for name in told if not name.startswith("_")} | {"__name__", "__qualname__", "__wrapped__"}
    assert "invalidate" in wanted
    assert {name for name in wanted if not hasattr(cached, name)} == set()


def test_a_cached_function_shows_the_signature_it_had() -> None:
    def load(a: int, /, b: str = "x", *rest: float, c: bool, **more: object) -> list[int]:
        return []

    async def aload(user_id: int) -> str:
        return ""

    cache = Cache()
    for fn in (load, aload):
        decorated = cache.cached(ttl=60)(fn)
        assert inspect.signature(decorated) == inspect.signature(fn)
        assert inspect.iscoroutinefunction(decorated) is inspect.iscoroutinefunction(fn)
        assert decorated.__wrapped__ is fn
