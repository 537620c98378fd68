"""``@invalidates``: a write tells the cache, however the write ended."""

import asyncio
import functools
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest

import cachecraft
from cachecraft import MISSING, Cache, OptionTypeError, PatternError, TemplateError, UnkeyableError
from tests.callers import PATIENCE, Async, Gate, Sync

Colour = Sync | Async


def users(cache: Cache, colour: Colour, **options: Any) -> Any:
    calls: list[Any] = []

    @cache.cached(**options)
    @colour.loader
    def get_user(user_id: int, tenant: str = "main") -> int:
        calls.append(user_id)
        return len(calls)

    return get_user


def test_a_named_function_is_dropped_for_the_arguments_it_shares(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)

    @cache.invalidates(get_user)
    @colour.loader
    def rename(user_id: int, name: str) -> str:
        return name

    assert [colour(get_user(1)), colour(get_user(2))] == [1, 2]
    assert colour(rename(1, "ann")) == "ann"
    assert [colour(get_user(1)), colour(get_user(2))] == [3, 2]
    colour(rename(name="bob", user_id=2))
    assert colour(get_user(2)) == 4


def test_several_functions_keys_patterns_and_tags_at_once(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour, key="user:{user_id}")
    by_hand = colour.on(cache)
    for key in ("one:1", "two:1", "list:1:a", "list:1:b", "list:2:a", "other:1"):
        by_hand.set(key, key)
    by_hand.set("tagged", 1, tags=["tenant:acme", "more"])

    @cache.invalidates(
        get_user, key=["one:{user_id}", "two:{user_id}"], pattern=["list:{user_id}:*", "oth*"], tags="tenant:{tenant}"
    )
    @colour.loader
    def rename(user_id: int, tenant: str) -> None: ...

    colour(get_user(1, "acme"))
    colour(rename(1, "acme"))
    assert colour(get_user.get(1, "acme")) is MISSING
    left = [
        key
        for key in ("one:1", "two:1", "list:1:a", "list:1:b", "list:2:a", "other:1", "tagged")
        if by_hand.get(key) is not MISSING
    ]
    assert left == ["list:2:a"]


@pytest.mark.parametrize(
    "written",
    ["def f(user_id, /): ...", "def f(*args, **kwargs): ...", "def f(user_id, *args, tenant='main', **more): ..."],
)
def test_every_kind_of_parameter_is_shared_by_name(cache: Cache, written: str) -> None:
    space: dict[str, Any] = {"__name__": "written"}
    exec(written.replace("...", "return object()"), space)  # noqa: S102
    get = cache.cached(space["f"])
    exec(written, space)  # noqa: S102
    write = cache.invalidates(get)(space["f"])
    kept = get(1)
    write(2)
    assert get(1) is kept
    write(1)
    assert get(1) is not kept


def test_a_value_is_escaped_in_a_pattern(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour, key="user:{user_id}")

    @cache.invalidates(pattern="user:{user_id}*")
    @colour.loader
    def rename(user_id: str) -> None: ...

    colour(get_user("ann")), colour(get_user("*")), colour(get_user("*x"))
    colour(rename("*"))
    assert colour(get_user.get("ann")) == 1
    assert colour(get_user.get("*")) is colour(get_user.get("*x")) is MISSING


def test_a_pattern_that_becomes_everything_from_its_argument_matches_only_itself(cache: Cache, colour: Colour) -> None:
    by_hand = colour.on(cache)
    by_hand.set("a", 1), by_hand.set("%2A", 1)

    @cache.invalidates(pattern="{name}")
    @colour.loader
    def write(name: str) -> None: ...

    colour(write("*"))
    assert by_hand.get("a") == 1


def test_templates_see_the_result(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour, key="user:{user_id}")

    @cache.invalidates(key="user:{result[id]}")
    @colour.loader
    def create(name: str) -> dict[str, Any]:
        return {"id": 7, "name": name}

    colour(get_user(7))
    assert colour(create("ann")) == {"id": 7, "name": "ann"}
    assert colour(get_user.get(7)) is MISSING


def test_when_is_asked_of_the_result(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)

    @cache.invalidates(get_user, when=lambda changed: changed)
    @colour.loader
    def rename(user_id: int, changed: bool) -> bool:
        return changed

    colour(get_user(1))
    colour(rename(1, False))
    assert colour(get_user.get(1)) == 1
    colour(rename(1, True))
    assert colour(get_user.get(1)) is MISSING


def test_a_write_that_raises_invalidates_all_the_same_but_what_needs_its_result(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)
    by_hand = colour.on(cache)

    @cache.invalidates(get_user, key=["a:{user_id}", "b:{result}"], when=lambda result: True)
    @colour.loader
    def rename(user_id: int) -> int:
        raise ConnectionError("after the commit, perhaps")

    colour(get_user(1)), by_hand.set("a:1", 1), by_hand.set("b:1", 1)
    with pytest.raises(ConnectionError, match="after the commit"):
        colour(rename(1))
    assert colour(get_user.get(1)) is by_hand.get("a:1") is MISSING
    assert by_hand.get("b:1") == 1


def test_on_success_only_leaves_a_failed_write_alone(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)

    @cache.invalidates(get_user, on_success_only=True)
    @colour.loader
    def rename(user_id: int, fail: bool) -> None:
        if fail:
            raise ValueError("the write")

    colour(get_user(1))
    with pytest.raises(ValueError, match="the write"):
        colour(rename(1, True))
    assert colour(get_user.get(1)) == 1
    colour(rename(1, False))
    assert colour(get_user.get(1)) is MISSING


async def test_a_cancelled_write_invalidates_before_the_cancellation_goes_on(cache: Cache) -> None:
    started = asyncio.Event()

    @cache.cached
    async def get_user(user_id: int) -> int:
        return user_id

    @cache.invalidates(get_user, pattern="*get_user*")
    async def rename(user_id: int) -> None:
        started.set()
        await asyncio.sleep(60)

    await get_user(1)
    task = asyncio.create_task(rename(1))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await get_user.get(1) is MISSING


async def test_a_second_cancellation_cannot_cut_the_invalidation_short(cache: Cache) -> None:
    ended = asyncio.Event()

    @cache.cached
    async def get_user(user_id: int) -> int:
        return user_id

    @cache.invalidates(get_user)
    async def rename(user_id: int) -> None:
        ended.set()

    await get_user(1)
    task = asyncio.create_task(rename(1))
    await ended.wait()
    task.cancel()  # the write is done, its invalidation has yet to begin
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), "and then the cancellation goes on"
    assert await get_user.get(1) is MISSING


@pytest.mark.parametrize("outcome", ["returns", "raises", "is cancelled"])
def test_a_load_that_began_before_the_write_ended_is_not_kept(cache: Cache, colour: Colour, outcome: str) -> None:
    if outcome == "is cancelled" and not colour.is_async:
        pytest.skip("threads are not cancelled")
    load_gate, write_gate = Gate(), Gate()
    database = {"name": "old"}

    @cache.cached
    @colour.loader
    def get(user_id: int) -> Any:
        name = database["name"]
        yield load_gate
        return name

    @cache.invalidates(get)
    @colour.loader
    def rename(user_id: int) -> Any:
        database["name"] = "new"
        yield write_gate
        if outcome == "raises":
            raise ValueError("after the commit")

    reader = colour.start(get, 1)
    load_gate.reached()
    writer = colour.start(rename, 1)
    write_gate.reached()
    if outcome == "is cancelled":
        writer.cancel()
        colour(asyncio.sleep(0.01))  # type: ignore[arg-type]
    write_gate.open()
    if outcome == "raises":
        assert isinstance(writer.exception(PATIENCE), ValueError)
    elif outcome == "returns":
        writer.result(PATIENCE)
    late = colour.start(get, 1)
    load_gate.reached()
    load_gate.open()
    assert reader.result(PATIENCE) == "old"
    assert late.result(PATIENCE) == "new"
    assert colour(get(1)) == "new"


def test_one_invalidation_that_cannot_be_worked_out_does_not_stop_the_others(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    get_user = users(cache, colour)
    by_hand = colour.on(cache)

    @cache.invalidates(get_user, key=["a:{result.id}", "b:{user_id}"])
    @colour.loader
    def rename(user_id: int) -> None: ...

    colour(get_user(1)), by_hand.set("b:1", 1)
    with pytest.raises(UnkeyableError, match=r"result\.id"):
        colour(rename(1))
    assert colour(get_user.get(1)) is by_hand.get("b:1") is MISSING
    assert "an invalidation after" in caplog.text


def test_a_when_that_raises_invalidates_and_is_heard_of(cache: Cache, colour: Colour) -> None:
    get_user = users(cache, colour)

    @cache.invalidates(get_user, when=lambda result: result.changed)
    @colour.loader
    def rename(user_id: int) -> None: ...

    colour(get_user(1))
    with pytest.raises(AttributeError, match="changed"):
        colour(rename(1))
    assert colour(get_user.get(1)) is MISSING


def test_an_invalidation_that_fails_does_not_hide_the_error_of_the_write(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    @cache.invalidates(key="a:{user.id}")
    @colour.loader
    def rename(user: object) -> None:
        raise ValueError("the write")

    with caplog.at_level(logging.WARNING, "cachecraft"), pytest.raises(ValueError, match="the write"):
        colour(rename(object()))
    assert "an invalidation after" in caplog.text


# -- methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through_class", [False, True])
@pytest.mark.parametrize("name", ["self", "this"])
def test_a_method_invalidates_another_method_of_its_object(
    cache: Cache, colour: Colour, name: str, through_class: bool
) -> None:
    class Repository:
        @cache.cached
        @colour.loader
        def get(self, user_id: int) -> object:
            return object()

        @cache.invalidates(get)
        @colour.loader
        def rename(self, user_id: int) -> str:
            return "renamed"

        @cache.invalidates(key="user:{user_id}", pattern="user:{this.name}:*")
        @colour.loader
        def delete(this, user_id: int) -> str:  # noqa: N805
            return "deleted"

        name = "ann"

    one, two = Repository(), Repository()
    kept = [colour(one.get(1)), colour(two.get(1))]
    assert colour(Repository.rename(one, 1) if through_class else one.rename(1)) == "renamed"
    assert colour(one.get(1)) is not kept[0]
    assert colour(two.get(1)) is kept[1]
    by_hand = colour.on(cache)
    by_hand.set("user:1", 1), by_hand.set("user:ann:x", 1)
    assert colour(Repository.delete(one, 1) if through_class else one.delete(1)) == "deleted"
    assert by_hand.get("user:1") is by_hand.get("user:ann:x") is MISSING


def test_class_and_static_methods_and_functions_without_a_signature(cache: Cache) -> None:
    class Repository:
        @staticmethod
        @cache.cached
        def get(user_id: int) -> object:
            return object()

        @cache.invalidates(get)
        @staticmethod
        def one(user_id: int) -> None: ...

        @staticmethod
        @cache.invalidates(get)
        def two(user_id: int) -> None: ...

        @cache.invalidates(get)
        @classmethod
        def three(cls, user_id: int) -> None: ...

        @classmethod
        @cache.invalidates(get)
        def four(cls, user_id: int) -> None: ...

    for write in (
        Repository.one,
        Repository.two,
        Repository.three,
        Repository.four,
        Repository().one,
        Repository().four,
    ):
        kept = Repository.get(1)
        assert Repository.get(1) is kept
        write(1)
        assert Repository.get(1) is not kept

    cache.set("len", 1)
    assert cache.invalidates(key="len")(len)("abc") == 3
    assert cache.get("len") is MISSING
    cache.set("k", 1)
    items: list[int] = []
    cache.invalidates(key="k")(items.append)(1)
    assert (items, cache.get("k")) == ([1], MISSING)
    cache.set("k", 1)
    cache.invalidates(key="k")(functools.partial(int, "7"))()
    assert cache.get("k") is MISSING


def test_a_sync_write_may_name_an_async_function_and_the_other_way_round(cache: Cache) -> None:
    @cache.cached
    async def get(user_id: int) -> int:
        return user_id

    @cache.invalidates(get)
    def rename(user_id: int) -> None: ...

    asyncio.run(get(1))
    rename(1)
    assert asyncio.run(get.get(1)) is MISSING


def test_a_write_with_a_parameter_called_result_keeps_its_meaning_for_what_is_shared(
    cache: Cache, colour: Colour
) -> None:
    calls: list[Any] = []

    @cache.cached
    @colour.loader
    def get(user_id: int, result: str = "all") -> int:
        calls.append(user_id)
        return len(calls)

    @cache.invalidates(get)
    @colour.loader
    def rename(user_id: int) -> str:
        return "something"

    colour(get(1))
    colour(rename(1))
    assert colour(get(1)) == 2


def test_a_function_of_another_cache_is_dropped_in_that_one(make_cache: Callable[..., Cache], colour: Colour) -> None:
    one, two = make_cache(), make_cache()
    get_user = users(one, colour)

    @two.invalidates(get_user)
    @colour.loader
    def rename(user_id: int) -> None: ...

    colour(get_user(1))
    colour(rename(1))
    assert colour(get_user.get(1)) is MISSING
    assert two._keeper is None


def test_it_keeps_the_name_the_signature_and_the_kind_of_the_function(cache: Cache) -> None:
    @cache.invalidates(key="a")
    async def write(user_id: int) -> None:
        """Write."""

    assert asyncio.iscoroutinefunction(write)
    assert (write.__name__, write.__doc__) == ("write", "Write.")
    with pytest.raises(TypeError, match="user_id"):
        asyncio.run(write())  # type: ignore[call-arg]


def test_with_the_cache_off_it_is_a_plain_call(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache(enabled=False)
    get_user = users(cache, colour)

    @cache.invalidates(get_user, key="a:{user_id}", pattern="b*", tags="t")
    @colour.loader
    def rename(user_id: int) -> int:
        return user_id

    assert colour(rename(1)) == 1
    assert cache._driver is None


# -- what is refused at decoration ---------------------------------------------------------------------------


def test_what_cannot_work_is_refused_at_decoration_by_name(cache: Cache) -> None:
    @cache.cached
    def get(user_id: int, tenant: str) -> None: ...

    def write(user_id: int) -> None: ...

    def decorate(*args: Any, **options: Any) -> None:
        cache.invalidates(*args, **options)(write)

    with pytest.raises(TemplateError, match=r"get.*write has no parameter 'tenant'.*pattern="):
        decorate(get)
    with pytest.raises(TemplateError, match=r"key='user:\{usr\}'.*'usr'.*Did you mean 'user_id'"):
        decorate(key="user:{usr}")
    with pytest.raises(PatternError, match="clear"):
        decorate(pattern="*")
    with pytest.raises(OptionTypeError, match=r"not a cached function.*@cached"):
        decorate(write)
    with pytest.raises(OptionTypeError, match=r"functions.*key=, pattern= or tags="):
        decorate()
    with pytest.raises(OptionTypeError, match="tags=5"):
        decorate(tags=5)
    with pytest.raises(OptionTypeError, match="when=5"):
        decorate(key="a", when=5)
    with pytest.raises(OptionTypeError, match="class"):
        cache.invalidates(key="a")(int)
    with pytest.raises(OptionTypeError, match="generator"):
        cache.invalidates(key="a")(lambda: (yield))


def test_the_module_level_decorators_belong_to_the_default_cache() -> None:
    @cachecraft.cached
    def get(user_id: int) -> object:
        return object()

    @cachecraft.invalidates(get)
    def write(user_id: int) -> None: ...

    kept = get(1)
    assert get(1) is kept
    write(1)
    assert get(1) is not kept


def test_a_write_whose_event_loop_was_closed_invalidates_all_the_same(cache: Cache) -> None:
    """Nobody cancelled it, and it is collected in the middle."""

    @cache.cached
    def load(x: int) -> int:
        return x

    @cache.invalidates(load)
    async def write(x: int) -> None:
        await asyncio.Event().wait()

    assert load(1) == 1
    loop = asyncio.new_event_loop()
    task = loop.create_task(write(1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task
    gc.collect()
    assert load.get(1) is MISSING
