"""``@cached``: what is remembered, for which calls, and what kinds of functions can be decorated."""

import copy
import functools
import gc
import inspect
import operator
import pickle
import textwrap
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

import cachecraft
from cachecraft import MISSING, Cache, UnkeyableError
from tests.callers import Async, Sync
from tests.clock import FakeClock

Colour = Sync | Async


def test_a_second_call_is_served_from_memory(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    @cache.cached
    @colour.loader
    def double(x: int) -> int:
        """Twice as much."""
        calls.append(x)
        return 2 * x

    assert [colour(double(2)), colour(double(2)), colour(double(3))] == [4, 4, 6]
    assert calls == [2, 3]
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert inspect.iscoroutinefunction(double) is colour.is_async
    assert list(inspect.signature(double).parameters) == ["x"]


@pytest.mark.parametrize("value", [None, False, 0, "", (), 0.0])
def test_none_and_falsy_results_are_values(cache: Cache, colour: Colour, value: object) -> None:
    calls: list[int] = []

    @cache.cached
    @colour.loader
    def find(x: int) -> object:
        calls.append(x)
        return value

    assert [colour(find(1)), colour(find(1)), colour(find.get(1))] == [value, value, value]
    assert calls == [1]


def test_a_miss_is_told_from_a_kept_none(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def find(x: int) -> None: ...

    assert colour(find.get(1)) is MISSING
    colour(find(1))
    assert colour(find.get(1)) is None


def test_positions_keywords_and_defaults_mean_the_same_call(cache: Cache, colour: Colour) -> None:
    calls: list[Any] = []

    @cache.cached
    @colour.loader
    def search(query: str, page: int = 1, *, size: int = 20) -> int:
        calls.append((query, page, size))
        return len(calls)

    ways = [
        search("a"),
        search("a", 1),
        search("a", page=1),
        search(query="a", page=1, size=20),
        search(size=20, query="a"),
    ]
    assert [colour(way) for way in ways] == [1] * 5
    assert colour(search("a", 2)) == 2
    assert colour(search("a", size=21)) == 3


DIFFERENT = [1, 1.0, True, "1", b"1", Decimal(1), (1,), [1], {1}, frozenset({1}), {"1": 1}, "[1]", None, "None"]
SUBTLE = [
    0.0,
    -0.0,
    float("nan"),
    Decimal("1.0"),
    Decimal("1.00"),
    ["a", "b"],
    "a:b",
    ["a:b"],
    ("a", ("b",)),
    ["a", ["b"]],
]


@pytest.mark.parametrize("others", [(), (7,)], ids=["alone", "beside another argument"])
def test_arguments_that_differ_never_share_an_entry(cache: Cache, colour: Colour, others: tuple[int, ...]) -> None:
    @cache.cached
    @colour.loader
    def show(x: object, *rest: int) -> str:
        return repr(x)

    @cache.cached
    @colour.loader
    def show_two(x: object, y: int = 0) -> str:
        return repr(x)

    for _ in range(2):
        for value in DIFFERENT + SUBTLE:
            assert colour(show(value, *others)) == repr(value)
            assert colour(show_two(value, *others)) == repr(value)


def test_one_then_true_are_two_entries_that_can_be_dropped_one_by_one(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def show(x: object) -> str:
        return repr(x)

    assert [colour(show(x)) for x in (1, True, 1.0, 1, True, 1.0)] == ["1", "True", "1.0"] * 2
    assert show.cache_info().currsize == show.stats.loads == 3
    assert colour(show.invalidate(True)) == 1
    assert [colour(show.get(x)) for x in (1, True, 1.0)] == ["1", MISSING, "1.0"]


def test_sets_and_dicts_are_keyed_whatever_their_order(cache: Cache, colour: Colour) -> None:
    calls: list[Any] = []

    @cache.cached
    @colour.loader
    def count(words: set[str], weights: dict[str, int]) -> int:
        calls.append(words)
        return len(words)

    colour(count({"a", "b"}, {"x": 1, "y": 2}))
    colour(count({"b", "a"}, {"y": 2, "x": 1}))
    assert len(calls) == 1


def test_an_argument_without_identity_is_refused_by_name_with_the_remedies(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def handle(session: object, x: int) -> int:
        return x

    with pytest.raises(UnkeyableError, match=r"'session'.*key=.*__cache_key__") as caught:
        colour(handle(object(), 1))
    assert isinstance(caught.value, TypeError)


def test_a_key_that_leaves_the_session_out_hits_with_another_session(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    @cache.cached(key="user:{user_id}")
    @colour.loader
    def user(session: object, user_id: int) -> int:
        calls.append(user_id)
        return user_id

    assert [colour(user(object(), 1)), colour(user(object(), 1))] == [1, 1]
    assert calls == [1]


def test_a_template_key_is_as_written_and_one_and_its_text_meet_there(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    cache = make_cache(namespace="shop")
    calls: list[Any] = []

    @cache.cached(key="user:{user_id}")
    @colour.loader
    def user(user_id: object) -> int:
        calls.append(user_id)
        return len(calls)

    assert user.key(7) == "shop:user:7"
    assert user.key("a:*") == "shop:user:a%3A%2A"
    assert [colour(user(7)), colour(user("7")), colour(user(7.5))] == [1, 1, 2]


def test_two_functions_with_the_same_key_share_entries_and_invalidations(cache: Cache, colour: Colour) -> None:
    @cache.cached(key="user:{user_id}")
    @colour.loader
    def by_id(user_id: int) -> str:
        return "by_id"

    @cache.cached(key="user:{uid}")
    @colour.loader
    def by_uid(uid: int) -> str:
        return "by_uid"

    assert [colour(by_id(1)), colour(by_uid(1))] == ["by_id", "by_id"]
    colour(by_uid.invalidate(1))
    assert [colour(by_uid(1)), colour(by_id(1))] == ["by_uid", "by_uid"]


def test_a_key_may_be_a_function_of_the_arguments(cache: Cache, colour: Colour) -> None:
    calls: list[Any] = []

    @cache.cached(key=lambda request, user: f"u:{user['id']}")
    @colour.loader
    def load(request: object, user: dict[str, int]) -> int:
        calls.append(user)
        return user["id"]

    assert [colour(load(object(), {"id": 1})), colour(load(object(), {"id": 1, "seen": 2}))] == [1, 1]
    assert len(calls) == 1
    assert load.key(None, {"id": 1}).endswith("u:1")


def test_a_key_function_that_returns_no_text_is_refused(cache: Cache) -> None:
    @cache.cached(key=lambda x: 5)
    def load(x: int) -> int:
        return x

    with pytest.raises(UnkeyableError, match=r"key= of .*load returned int"):
        load(1)


def test_a_version_leaves_the_entries_of_the_other_alone(cache: Cache, colour: Colour) -> None:
    def price(version: str) -> Any:
        @cache.cached(key="price:{item}", version=version)
        @colour.loader
        def load(item: str) -> str:
            return version

        return load

    one, two = price("1"), price("2")
    assert [colour(one("x")), colour(two("x")), colour(one("x")), colour(two("x"))] == ["1", "2", "1", "2"]
    # The key names what is kept, whichever version keeps it: so an invalidation need not know who else there is.
    cache.invalidate(key="price:x")
    assert [colour(one.get("x")), colour(two.get("x"))] == [MISSING, MISSING]


tenant: ContextVar[str] = ContextVar("tenant", default="main")


def test_vary_adds_the_context_to_the_key(cache: Cache) -> None:
    @cache.cached(vary=tenant.get)
    def greeting(name: str) -> str:
        return f"{tenant.get()}:{name}"

    assert greeting("a") == "main:a"
    token = tenant.set("acme")
    assert [greeting("a"), greeting("a")] == ["acme:a", "acme:a"]
    assert greeting.invalidate("a") == 1
    tenant.reset(token)
    assert greeting.get("a") == "main:a"
    assert greeting.cache_info().hits == 1


async def test_vary_is_asked_in_the_callers_task(cache: Cache) -> None:
    @cache.cached(vary=tenant.get)
    async def greeting(name: str) -> str:
        return f"{tenant.get()}:{name}"

    tenant.set("acme")
    assert [await greeting("a"), await greeting("a")] == ["acme:a", "acme:a"]
    tenant.set("other")
    assert await greeting("a") == "other:a"


def test_when_decides_what_is_kept(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    @cache.cached(when=lambda result: result is not None)
    @colour.loader
    def find(x: int) -> int | None:
        calls.append(x)
        return x or None

    assert [colour(find(0)), colour(find(0)), colour(find(1)), colour(find(1))] == [None, None, 1, 1]
    assert calls == [0, 0, 1]
    assert find.stats.not_kept == 2


def test_a_when_that_raises_costs_the_entry_and_not_the_result(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    @cache.cached(when=lambda result: result.no_such_thing)
    @colour.loader
    def find(x: int) -> int:
        return x

    assert [colour(find(1)), colour(find(1))] == [1, 1]
    assert find.stats.refused == 2
    assert len([record for record in caplog.records if "find" in record.message]) == 1


class NotFound(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(f"no {key}")
        self.key = key


def test_chosen_exceptions_are_remembered_for_their_own_time(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    calls: list[str] = []

    @cache.cached(ttl=3600, cache_errors={NotFound: "30s"})
    @colour.loader
    def find(key: str) -> str:
        calls.append(key)
        raise NotFound(key) if key == "x" else ValueError(key)

    for _ in range(3):
        with pytest.raises(NotFound, match=r"^no x$") as caught:
            colour(find("x"))
        assert caught.value.key == "x"
        with pytest.raises(ValueError, match="y"):
            colour(find("y"))
    assert calls == ["x", "y", "y", "y"]
    assert colour(find.get("x")) is MISSING
    clock.advance(30)
    with pytest.raises(NotFound):
        colour(find("x"))
    assert calls.count("x") == 2


def test_an_exception_whose_tags_nobody_knows_is_not_remembered(cache: Cache, colour: Colour) -> None:
    """Tags that follow from the result cannot reach an exception, so an invalidation by tag would miss it."""

    @cache.cached(cache_errors=NotFound, tags=lambda result, key: [f"owner:{result.owner}"])
    @colour.loader
    def find(key: str) -> Any:
        raise NotFound(key)

    for _ in range(2):
        with pytest.raises(NotFound):
            colour(find("x"))
    assert (find.stats.loads, find.stats.refused) == (2, 0)


def test_a_remembered_exception_is_dropped_by_its_tag(cache: Cache, colour: Colour) -> None:
    @cache.cached(cache_errors=NotFound, tags=["t:{key}"])
    @colour.loader
    def find(key: str) -> Any:
        raise NotFound(key)

    for _ in range(2):
        with pytest.raises(NotFound):
            colour(find("x"))
    assert find.stats.loads == 1
    assert colour.on(cache).invalidate(tags=["t:x"]) == 1
    with pytest.raises(NotFound):
        colour(find("x"))
    assert find.stats.loads == 2


def test_a_remembered_exception_is_not_served_stale(cache: Cache, clock: FakeClock, colour: Colour) -> None:
    answers: list[Any] = [NotFound("x"), "found"]

    @cache.cached(ttl=60, stale=3600, grace=3600, refresh_ahead=30, cache_errors={NotFound: 10})
    @colour.loader
    def find() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    for _ in range(3):
        with pytest.raises(NotFound):
            colour(find())
    assert len(answers) == 1
    clock.advance(11)
    assert colour(find()) == "found"


def test_a_remembered_os_error_keeps_its_number_and_file(cache: Cache) -> None:
    @cache.cached(cache_errors=OSError)
    def read(path: str) -> str:
        with open(path) as file:
            return file.read()

    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=r"\[Errno 2\].*'/no/such/file'") as caught:
            read("/no/such/file")
        assert (caught.value.errno, caught.value.filename) == (2, "/no/such/file")
    assert read.stats.loads == 1


@pytest.mark.parametrize("named", [{OSError: 10, FileNotFoundError: 30}, {FileNotFoundError: 30, OSError: 10}])
def test_of_the_classes_named_the_closest_decides_how_long(
    cache: Cache, clock: FakeClock, colour: Colour, named: dict[type[Exception], int]
) -> None:
    @cache.cached(cache_errors=named)
    @colour.loader
    def read(path: str) -> str:
        raise FileNotFoundError(path) if path == "gone" else PermissionError(path)

    def ask() -> None:
        for path, kind in (("gone", FileNotFoundError), ("mine", PermissionError)):
            with pytest.raises(kind):
                colour(read(path))

    for passed, loads in ((0, 2), (9, 2), (1, 3), (19, 4)):
        clock.advance(passed)
        ask()
        assert read.stats.loads == loads


def test_a_loader_whose_next_finds_nothing_raises_stop_iteration(cache: Cache) -> None:
    @cache.cached(ttl=60, tags=["t"])
    def first(items: tuple[int, ...]) -> int:
        return next(iter(items))

    with pytest.raises(StopIteration):
        first(())


# -- switched off --------------------------------------------------------------------------------------------


def test_a_cache_that_is_off_makes_plain_calls(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(enabled=False)
    calls: list[int] = []

    @cache.cached
    @colour.loader
    def load(x: object) -> object:
        calls.append(1)
        return x

    unkeyable = object()
    assert [colour(load(unkeyable)), colour(load(unkeyable)), colour(load.refresh(1))] == [unkeyable, unkeyable, 1]
    assert len(calls) == 3
    assert colour(load.get(1)) is MISSING
    assert colour(load.set(5, 1)) is False
    assert colour(load.invalidate(1)) == colour(load.invalidate_all()) == 0
    assert colour.on(cache).get("k") is MISSING
    assert colour.on(cache).set("k", 1) is False
    assert cache._driver is None, "nothing was opened"


@pytest.mark.parametrize("value", ["0", "false", "OFF", " no "])
def test_the_environment_switches_every_cache_off(
    monkeypatch: pytest.MonkeyPatch, make_cache: Callable[..., Cache], value: str
) -> None:
    monkeypatch.setenv("CACHECRAFT_ENABLED", value)
    cache = make_cache(enabled=True)
    calls: list[int] = []

    @cache.cached
    def load() -> None:
        calls.append(1)

    load(), load()
    assert len(calls) == 2
    assert not cache.enabled


# -- what can be decorated -----------------------------------------------------------------------------------


def test_closures_of_one_factory_do_not_share(cache: Cache, colour: Colour) -> None:
    def make(n: int) -> Any:
        @cache.cached
        @colour.loader
        def load(x: object) -> int:
            return n

        return load

    one, two = make(1), make(2)
    for argument in (0, 0.0, "x", [1], {"a": 1}):
        assert [colour(one(argument)), colour(two(argument))] == [1, 2]
        assert [colour(one(argument)), colour(two(argument))] == [1, 2]
    assert colour.on(cache).invalidate(pattern="*.load:*") == 10, "a pattern finds the entries of both"
    assert colour(one.get([1])) is MISSING


def test_partials_builtins_and_bound_methods_can_be_decorated_given_a_name(cache: Cache) -> None:
    calls: list[Any] = []

    def power(base: int, exponent: int) -> int:
        calls.append(base)
        return int(base**exponent)

    square = cache.cached(key="square:{base}")(functools.partial(power, exponent=2))
    assert [square(3), square(3), square(base=3)] == [9, 9, 9]
    assert calls == [3]

    length = cache.cached(len)
    assert [length("abc"), length("abc"), length((1,))] == [3, 3, 1]
    assert length.cache_info()[:2] == (1, 2)
    biggest = cache.cached(key=lambda *args, **kwargs: f"max:{args}")(max)
    assert [biggest(1, 5), biggest(1, 5)] == [5, 5]
    getter = cache.cached(namespace="getters")(operator.itemgetter(0))
    assert [getter("ab"), getter("ab")] == ["a", "a"]

    words = ["b", "a"]
    counted = cache.cached(key="count:{value}")(words.count)
    assert [counted("a"), counted("a")] == [1, 1]
    shouting = cache.cached(namespace="lambdas")(lambda text: text.upper())
    assert shouting("a") == "A"


async def test_a_partial_of_a_coroutine_function_is_awaited(cache: Cache) -> None:
    calls: list[int] = []

    async def power(base: int, exponent: int) -> int:
        calls.append(base)
        return int(base**exponent)

    square = cache.cached(key="square:{base}")(functools.partial(power, exponent=2))
    assert [await square(3), await square(3)] == [9, 9]
    assert calls == [3]


def test_an_object_that_can_be_called_is_decorated_and_its_state_is_its_own_affair(cache: Cache) -> None:
    class Counter:
        calls = 0

        def __call__(self, x: int) -> int:
            self.calls += 1
            return x

    counter = Counter()
    cached = cache.cached(key="c:{x}")(counter)
    assert [cached(1), cached(1)] == [1, 1]
    assert counter.calls == 1


def test_parameters_may_be_called_like_anything_in_the_generated_code(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def load(node: int, find: int, value: int, *, miss: int = 4, fn: int = 5, wrapper: int = 6, type: int = 7) -> Any:  # noqa: A002
        return node, find, value, miss, fn, wrapper, type

    @cache.cached
    @colour.loader
    def one(value: int) -> int:
        return value

    assert colour(load(1, 2, 3, fn=9)) == colour(load(1, 2, 3, fn=9)) == (1, 2, 3, 4, 9, 6, 7)
    assert [colour(one(1)), colour(one(1))] == [1, 1]
    assert load.stats.hits == one.stats.hits == 1


def test_every_kind_of_parameter_reaches_the_function(cache: Cache, colour: Colour) -> None:
    @cache.cached
    @colour.loader
    def load(a: int, /, b: int, *rest: int, c: int, d: int = 4, **more: int) -> Any:
        return a, b, rest, c, d, more

    assert colour(load(1, 2, 3, c=5, e=6)) == colour(load(1, 2, 3, c=5, e=6)) == (1, 2, (3,), 5, 4, {"e": 6})
    assert load.cache_info()[:2] == (1, 1)


def test_wrong_arguments_are_refused_in_the_functions_own_name(cache: Cache) -> None:
    @cache.cached
    def load(x: int) -> int:
        return x

    with pytest.raises(TypeError, match=r"load\(\) missing 1 required positional argument: 'x'"):
        load()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="load"):
        load.invalidate(1, 2)  # type: ignore[call-arg]


def test_a_function_without_parameters_has_one_entry(cache: Cache, colour: Colour) -> None:
    calls: list[int] = []

    @cache.cached
    @colour.loader
    def load() -> int:
        calls.append(1)
        return len(calls)

    assert [colour(load()), colour(load())] == [1, 1]
    colour(load.invalidate())
    assert colour(load()) == 2


# -- wrappers as objects -------------------------------------------------------------------------------------


@cachecraft.cached
def at_module_level(x: int) -> int:
    return x


class Holder:
    @cachecraft.cached
    def method(self) -> int:
        return 1

    @staticmethod
    @cachecraft.cached
    def static(x: int) -> int:
        return x


def test_wrappers_are_copied_and_pickled_by_reference() -> None:
    for wrapper in (at_module_level, Holder.method, Holder.static):
        assert copy.copy(wrapper) is wrapper
        assert copy.deepcopy(wrapper) is wrapper
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(wrapper, protocol)) is wrapper


def test_a_wrapper_can_be_weakly_referenced_and_is_collected_with_its_entries(cache: Cache, colour: Colour) -> None:
    class Value:
        pass

    @cache.cached
    @colour.loader
    def load(x: object) -> Value:
        return Value()

    values = [weakref.ref(colour(load(x))) for x in (1, [1])]
    wrapper = weakref.ref(load)
    assert values[0]() is not None
    del load
    gc.collect()
    assert wrapper() is None
    assert len(cache._keeper.memory) == 0
    assert [value() for value in values] == [None, None]


def test_entries_with_keys_of_their_own_outlive_a_function_made_anew_for_each_request(cache: Cache) -> None:
    calls: list[int] = []

    def request(user_id: int) -> int:
        @cache.cached(key="user:{user_id}")
        def load(user_id: int) -> int:
            calls.append(user_id)
            return user_id

        return load(user_id)

    request(1)
    gc.collect()
    assert request(1) == 1
    assert calls == [1]


def test_decorating_twice_caches_under_both(cache: Cache) -> None:
    calls: list[int] = []

    def load(x: int) -> int:
        calls.append(x)
        return x

    inner = cache.cached(load)
    outer = cache.cached(key="outer:{x}")(inner)
    assert [outer(1), outer(1), inner(1)] == [1, 1, 1]
    outer.invalidate(1)
    assert [outer(1), len(calls)] == [1, 1]
    assert outer.__wrapped__ is inner


def test_moving_a_function_a_line_keeps_its_keys() -> None:
    source = textwrap.dedent("""
        from cachecraft import Cache
        cache = Cache()
        @cache.cached
        def load(x): return x
        """)
    keys = []
    for text in (source, "\n\n# moved\n" + source):
        space: dict[str, Any] = {"__name__": "some_module"}
        exec(text, space)  # noqa: S102
        keys.append(space["load"].key(1))
    assert keys[0] == keys[1]
    assert keys[0].startswith(":some_module.load:")


@dataclass(frozen=True)
class Query:
    text: str
    page: int = 1


def test_dataclasses_that_are_equal_share_an_entry(cache: Cache, colour: Colour) -> None:
    calls: list[Query] = []

    @cache.cached
    @colour.loader
    def search(query: Query) -> int:
        calls.append(query)
        return query.page

    assert [colour(search(Query("a"))), colour(search(Query("a", 1))), colour(search(Query("a", 2)))] == [1, 1, 2]
    assert len(calls) == 2
