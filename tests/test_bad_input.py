"""What cannot work is refused with a typed error that names the parameter and says the remedy, at decoration."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from cachecraft import (
    MISSING,
    Cache,
    CacheError,
    ClosedError,
    Jitter,
    OptionError,
    OptionTypeError,
    PatternError,
    TemplateError,
    UnkeyableError,
)
from tests.callers import Async, Sync, identity

Colour = Sync | Async


def generator(x: int) -> Any:
    yield x


async def async_generator(x: int) -> Any:
    yield x


def function(user_id: int, tenant: str = "main") -> None: ...


REFUSED_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"key": "user:{usr_id}"}, TemplateError, r"key='user:\{usr_id\}'.*'usr_id'.*Did you mean 'user_id'"),
    ({"key": "user:{}"}, TemplateError, r"key=.*positional.*name a parameter"),
    ({"key": "user:{user_id"}, TemplateError, r"key=.*\{\{ and \}\}"),
    ({"key": ""}, TemplateError, "key='' is empty"),
    ({"key": "{user_id}{tenant}"}, TemplateError, "two calls alike.*Separate"),
    ({"key": 5}, OptionTypeError, "key=5 must be a template.*or a function"),
    ({"ttl": 0}, OptionError, "ttl=0 must be more than zero"),
    ({"ttl": -5}, OptionError, "ttl=-5 must be more than zero"),
    ({"ttl": timedelta(0)}, OptionError, "ttl=.*more than zero"),
    ({"ttl": "0s"}, OptionError, "ttl='0s'.*more than zero"),
    ({"ttl": "5 parsecs"}, OptionError, "ttl='5 parsecs' is not a duration.*\"5m\""),
    ({"ttl": "5 minutes"}, OptionError, "ttl='5 minutes' is not a duration.*units: ms, s, m, h, d, w"),
    ({"ttl": "1m30"}, OptionError, "ttl='1m30' is not a duration"),
    ({"ttl": ""}, OptionError, "ttl='' is not a duration"),
    ({"ttl": float("inf")}, OptionError, "ttl=inf must be finite"),
    ({"ttl": float("nan")}, OptionError, "ttl=nan must be finite"),
    ({"ttl": True}, OptionTypeError, "ttl=True is a bool; give seconds"),
    ({"ttl": [5]}, OptionTypeError, r"ttl=\[5\] is a list"),
    ({"ttl": 5, "stale": -1}, OptionError, "stale=-1 must be zero or more"),
    ({"ttl": 5, "grace": "x"}, OptionError, "grace='x' is not a duration"),
    ({"ttl": 5, "refresh_ahead": 5}, OptionError, "refresh_ahead=5.* must be below ttl=5"),
    ({"ttl": 5, "beta": -1}, OptionError, "beta=-1 must be zero or more"),
    ({"ttl": 5, "beta": "1"}, OptionTypeError, "beta='1' must be a number"),
    ({"verify": 1.5}, OptionError, "verify=1.5 must be a share from 0 to 1; 0.001 recomputes"),
    ({"verify": -0.1}, OptionError, "verify=-0.1 must be a share"),
    ({"verify": float("nan")}, OptionError, "verify=nan must be a share"),
    ({"verify": True}, OptionTypeError, "verify=True must be a number; 0.001 recomputes one hit in a thousand"),
    ({"stale": 60}, OptionError, "stale= needs a ttl.*give ttl="),
    ({"ttl": None, "stale": 60}, OptionError, "stale= needs a ttl.*give ttl="),
    ({"grace": "5m"}, OptionError, "grace= needs a ttl.*give ttl="),
    ({"refresh_ahead": 5}, OptionError, "refresh_ahead= needs a ttl.*give ttl="),
    ({"beta": 1}, OptionError, "beta= needs a ttl.*give ttl="),
    ({"ttl": 5, "soft_timeout": 1}, OptionError, "soft_timeout=.*grace"),
    ({"ttl": 5, "grace": 5, "soft_timeout": 1, "timeout": 1}, OptionError, "soft_timeout=1.* must be below timeout=1"),
    ({"ttl": 5, "grace": 5, "soft_timeout": 2, "timeout": 1}, OptionError, "soft_timeout=2.* must be below timeout=1"),
    ({"timeout": 0}, OptionError, "timeout=0 must be more than zero"),
    ({"lease": 0.001}, OptionError, "lease=0.001.*at least"),
    ({"wait": -1}, OptionError, "wait=-1 must be zero or more"),
    ({"jitter": (0.2, 0.1)}, OptionError, "low=0.2 is above high=0.1; swap them"),
    ({"jitter": 0.1}, OptionTypeError, "jitter=0.1 must be Jitter"),
    ({"jitter": ("a", "b")}, OptionTypeError, "jitter low='a' must be a number"),
    ({"jitter": (-1, 0)}, OptionError, "low=-1 must be above -1"),
    ({"tags": "tag"}, OptionTypeError, r"tags='tag' must be a list of strings"),
    ({"tags": [1]}, OptionTypeError, r"tags=\[1\] must be a list of strings"),
    ({"tags": ["user:{usr_id}"]}, TemplateError, r"tags='user:\{usr_id\}'.*'usr_id'"),
    ({"tags": ["a"] * 251}, OptionError, "tags= names 251"),
    ({"when": True}, OptionTypeError, "when=True must be a function of the result"),
    ({"vary": "tenant"}, OptionTypeError, "vary='tenant' must be a function without arguments"),
    ({"cache_errors": "ValueError"}, OptionTypeError, "cache_errors: 'ValueError' is not an Exception class"),
    ({"cache_errors": BaseException}, OptionTypeError, "cache_errors.*not an Exception class"),
    ({"cache_errors": {}}, OptionError, "cache_errors names no exception"),
    ({"cache_errors": {ValueError: 0}}, OptionError, "cache_errors=0 must be more than zero"),
    ({"isolate": "deep"}, OptionTypeError, "isolate='deep' must be None"),
    ({"version": 1.5}, OptionTypeError, "version=1.5 must be text or a number"),
    ({"namespace": 5}, OptionTypeError, "namespace=5 must be text"),
    ({"tll": 5}, OptionTypeError, "tll= is no option of cached; there are.*ttl"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED_OPTIONS, ids=lambda value: str(value)[:40])
def test_an_option_that_cannot_work_is_refused_at_decoration_by_name(
    cache: Cache, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        cache.cached(**options)(function)
    assert isinstance(caught.value, CacheError)
    assert isinstance(caught.value, (ValueError, TypeError)), "each is also the builtin it resembles"


REFUSED_THINGS: list[tuple[Any, str]] = [
    (generator, "generator generator.*returns a list"),
    (async_generator, "generator async_generator.*returns a list"),
    (int, "class int.*decorate its methods"),
    (Cache, "class Cache"),
    (5, "5, which is not callable"),
    (None, "None, which is not callable"),
]


@pytest.mark.parametrize(("thing", "message"), REFUSED_THINGS, ids=identity)
def test_what_cannot_be_cached_is_refused_saying_what_to_do_instead(cache: Cache, thing: Any, message: str) -> None:
    with pytest.raises(OptionTypeError, match=message):
        cache.cached(ttl=5)(thing)


@pytest.mark.parametrize("thing", [generator, int, Cache])
def test_also_by_the_bare_decorator(cache: Cache, thing: Any) -> None:
    with pytest.raises(OptionTypeError, match=r"decorate"):
        cache.cached(thing)


@pytest.mark.parametrize(
    ("url", "options", "error", "message"),
    [
        ("memcached://x", {}, OptionError, "url='memcached://x' has no scheme known here.*memory://.*redis://"),
        ("localhost:6379", {}, OptionError, "no scheme"),
        ("", {}, OptionError, "url=''"),
        (5, {}, OptionTypeError, "url= must be .*text.*not int"),
        ("memory://", {"ttl": 0}, OptionError, "ttl=0 must be more than zero"),
        ("memory://", {"max_entries": 0}, OptionError, "max_entries=0 must be at least 1.*enabled=False"),
        ("memory://", {"max_entries": 1.5}, OptionTypeError, "max_entries=1.5 must be a whole number"),
        ("memory://", {"max_entries": True}, OptionTypeError, "max_entries=True"),
        ("memory://", {"max_bytes": -1}, OptionError, "max_bytes=-1"),
        ("memory://", {"jitter": (1, 0)}, OptionError, "low=1 is above high=0"),
        ("memory://", {"namespace": None}, OptionTypeError, "namespace=None must be text"),
        ("memory://", {"max_entires": 5}, OptionTypeError, "max_entires= is no option of a cache.*max_entries"),
    ],
)
def test_a_cache_refuses_settings_that_cannot_work(
    url: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Cache(url, **options)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Cache("redis://user:secret@host:6379/0"))


def test_jitter_refuses_bounds_out_of_order() -> None:
    with pytest.raises(OptionError, match=r"low=0.3 is above high=0.2"):
        Jitter(0.3, 0.2)
    assert Jitter(-0.5, -0.1).low == -0.5


def test_by_hand_keys_and_tags_are_checked(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    for call in (by_hand.get, by_hand.delete, lambda key: by_hand.set(key, 1), lambda key: by_hand.invalidate(key=key)):
        with pytest.raises(OptionTypeError, match="key= must be text, not int"):
            call(5)
        with pytest.raises(OptionError, match="key='' is empty"):
            call("")
    with pytest.raises(OptionTypeError, match="tags= must be a list of strings, not str"):
        by_hand.set("k", 1, tags="t")
    with pytest.raises(OptionError, match="ttl=0"):
        by_hand.set("k", 1, ttl=0)
    with pytest.raises(OptionError, match="empty tag"):
        by_hand.invalidate(tags=[""])
    with pytest.raises(PatternError, match=r"clear\(\)"):
        by_hand.invalidate(pattern="*")
    assert by_hand.get("k") is MISSING


def test_a_tag_that_becomes_empty_or_endless_is_refused_when_it_is_rendered(cache: Cache, colour: Colour) -> None:
    @cache.cached(key="k:{x}", tags=["{x}"])
    @colour.loader
    def load(x: str) -> str:
        return x

    with pytest.raises(OptionError, match="empty tag"):
        colour(load(""))
    with pytest.raises(OptionError, match=r"600 characters.*hash"):
        colour(load("x" * 600))
    assert colour(load("fine")) == "fine"


def test_a_function_of_no_lasting_name_needs_one(cache: Cache) -> None:
    import functools

    with pytest.raises(OptionError, match=r"partial\(.*function\).*no name that lasts.*key= or namespace="):
        cache.cached(functools.partial(function, 1))
    with pytest.raises(OptionError, match="give key= or namespace="):
        cache.cached("abc".count)


def test_an_unkeyable_argument_is_named_also_to_the_imperative_methods(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def load(session: object) -> None: ...

    for call in (load, load.get, load.refresh, load.invalidate, load.key):
        with pytest.raises(UnkeyableError, match="'session'"):
            colour(call(object()))


def test_a_closed_cache_says_so_by_hand(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache()
    by_hand = colour.on(cache)
    by_hand.set("k", 1)
    cache.close()
    with pytest.raises(ClosedError, match="closed; make another"):
        by_hand.get("k")


def test_a_ttl_of_its_own_makes_no_option_contradict_another(cache: Cache) -> None:
    fine: list[dict[str, Any]] = [
        {"ttl": 10, "stale": 100},
        {"ttl": 10, "grace": 5, "soft_timeout": 1, "timeout": 2},
        {"ttl": lambda r: 5, "refresh_ahead": 100},
        {"ttl": "1h30m", "jitter": None},
        {"ttl": " 5 M "},
        {"tags": ()},
        {"version": 3},
        {"cache_errors": (ValueError, KeyError)},
    ]
    for options in fine:
        assert callable(cache.cached(**options)(function))


def test_invalidates_and_updates_without_a_reader_ask_for_one(cache: Cache) -> None:
    with pytest.raises(OptionTypeError, match=r"not a cached function; name the one under @cached.*@invalidates\(f\)"):
        cache.invalidates(function)
    with pytest.raises(OptionTypeError, match=r"not a cached function; name the one under @cached.*@updates\(f\)"):
        cache.updates(function)


def test_what_was_not_awaited_is_called_by_its_name(cache: Cache) -> None:
    """Python warns of it: of the write that never happened, not of our insides."""

    @cache.cached
    async def reader(x: int) -> int:
        return x

    async def write(x: int) -> int:
        return x

    name = f"{__name__}.{reader.__qualname__}".replace("reader", "{}")
    for call, called in (
        (reader.get, "reader.get"),
        (partial(reader.set, 5), "reader.set"),
        (reader.refresh, "reader.refresh"),
        (reader.invalidate, "reader.invalidate"),
        (reader.explain, "reader.explain"),
        (cache.invalidates(reader)(write), "write"),
        (cache.updates(reader)(write), "write"),
    ):
        with pytest.warns(RuntimeWarning, match=f"coroutine '{re.escape(name.format(called))}' was never awaited"):
            call(1)
