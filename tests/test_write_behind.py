"""``@write_behind``: a call waits in Redis until a worker makes it, and whoever reads gets what it brings at once."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cachecraft import (
    MISSING,
    BackendError,
    Cache,
    OptionError,
    OptionTypeError,
    TemplateError,
    UnserializableError,
    hooks,
)
from cachecraft.worker import Worker
from tests.callers import Async, Gate, Sync, until
from tests.proxy import Proxy
from tests.redis_kit import cache, colour, other, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async


@dataclass
class User:
    id: int
    name: str


@dataclass
class Users:
    """A table, the cached function that reads it and the function that writes behind it."""

    get: Any
    save: Any
    table: dict[int, User] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    """In the order in which they were made."""
    raises: Callable[[User], object] = lambda user: None
    """Called before each write."""


def users_of(cache: Cache, colour: Colour, **options: Any) -> Users:
    @cache.cached(ttl=60, key="user:{user_id}")
    @colour.loader
    def get_user(user_id: int) -> User:
        return made.table[user_id]

    @cache.write_behind(get_user, value="user", **options)
    @colour.loader
    def save_user(user_id: int, user: User, *, note: str = "") -> str:
        made.raises(user)
        made.writes.append(user.name)
        made.table[user_id] = user
        return "a result that nobody gets"

    made = Users(get_user, save_user)
    made.table[1] = User(1, "old")
    return made


def test_a_call_returns_at_once_and_a_worker_makes_it(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    assert colour(users.save(1, User(1, "ann"), note="by ann")) is None
    assert users.writes == []
    assert Worker(cache).drain() == 1
    assert users.table[1] == User(1, "ann")
    assert Worker(cache).drain() == 0


def test_from_then_on_everybody_reads_what_waits(cache: Cache, other: Cache, colour: Colour) -> None:
    here, there = users_of(cache, colour), users_of(other, colour)
    assert [colour(each.get(1)).name for each in (here, there)] == ["old", "old"]
    colour(here.save(1, User(1, "ann")))
    assert [colour(each.get(1)) for each in (here, there)] == [User(1, "ann")] * 2
    # Nor does it matter what becomes of the entry.
    for _ in range(2):
        colour(there.get.invalidate(1))
        assert colour(here.get(1)) == colour(there.get.refresh(1)) == User(1, "ann")
    colour(there.get.invalidate_all())
    assert colour(there.get(1)) == User(1, "ann")
    colour(here.save(1, User(1, "bob")))
    assert [colour(each.get(1)).name for each in (here, there)] == ["bob", "bob"]
    assert here.table[1] == there.table[1] == User(1, "old")
    assert Worker(cache).drain() == 2


def test_who_has_not_heard_of_it_loads_for_nobody_else(cache: Cache, other: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)

    @other.cached(ttl=60, key="user:{user_id}")
    @colour.loader
    def get_user(user_id: int) -> User:
        return users.table[user_id]

    get_user.__cachecraft__.subject.label = users.get.__cachecraft__.subject.label  # the same, in another program
    assert colour(users.get(1)).name == colour(get_user(1)).name == "old"
    colour(users.save(1, User(1, "ann")))
    assert colour(get_user(1)).name == "old"  # as the database has it
    assert colour(users.get(1)).name == "ann"
    Worker(cache).drain()
    assert [colour(each(1)).name for each in (users.get, get_user)] == ["ann", "ann"]


def test_explain_tells_of_the_entry_and_of_no_tag_that_the_user_did_not_give(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    colour(users.get(1))
    assert colour(users.get.explain(1)).tags == ()
    colour(users.save(1, User(1, "ann")))
    gone = colour(users.get.explain(1))
    assert (gone.verdict, gone.reason) == ("miss", "invalidated")
    assert gone.by.write == f"{__name__}.users_of.<locals>.save_user"
    Worker(cache).drain()


def test_a_load_that_began_before_the_call_is_not_kept(cache: Cache, colour: Colour) -> None:
    gate, table = Gate(), {1: "old"}

    @cache.cached(ttl=60, key="user:{user_id}")
    @colour.loader
    def get_user(user_id: int) -> Any:
        name = table[user_id]
        yield gate
        return name

    @cache.write_behind(get_user, value="name")
    @colour.loader
    def save_user(user_id: int, name: str) -> None:
        table[user_id] = name

    early = colour.start(get_user, 1)
    gate.reached()
    colour(save_user(1, "ann"))
    gate.open()
    assert early.result(10) == "old"  # it asked before
    assert colour(get_user.get(1)) is MISSING
    assert colour(get_user(1)) == "ann"
    Worker(cache).drain()


def test_once_it_is_made_what_the_database_holds_counts(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    colour(users.save(1, User(1, "ann")))
    assert colour(users.get(1)).name == "ann"
    Worker(cache).drain()
    users.table[1] = User(1, "as the database has it")
    assert colour(users.get.get(1)) is MISSING
    assert colour(users.get(1)).name == "as the database has it"


def test_a_later_call_that_waits_outlasts_the_delivery_of_an_earlier_one(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    between = threading.Event()

    def raises(user: User) -> None:
        if user.name == "ann" and not between.is_set():
            between.set()
            second.result(10)

    users.raises = raises
    colour(users.save(1, User(1, "ann")))
    drained = Sync().start(Worker(cache, batch=1).drain)
    second = Sync().start(lambda: between.wait(10) and colour(users.save(1, User(1, "bob"))))
    assert drained.result(20) == 2
    assert users.writes == ["ann", "bob"]
    assert cache.driver.backend is not None
    assert colour(users.get(1)).name == "bob"


def test_calls_of_one_key_are_made_in_their_order(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    for number in range(30):
        colour(users.save(1, User(1, f"{number}")))
        colour(users.save(2, User(2, "another")))
    assert Worker(cache, batch=7).drain() == 60
    assert [name for name in users.writes if name != "another"] == [f"{number}" for number in range(30)]


def test_with_coalesce_only_the_last_of_those_that_wait_is_made(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour, coalesce=True)
    for number in range(10):
        colour(users.save(1, User(1, f"{number}")))
    colour(users.save(2, User(2, "another")))
    assert Worker(cache).drain() == 11
    assert sorted(users.writes) == ["9", "another"]
    assert colour(users.get(1)).name == "9"


def test_two_functions_write_behind_one_in_the_order_of_their_calls(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour, coalesce=True)

    @cache.write_behind(users.get, value=lambda user_id, name: User(user_id, name.lower()), coalesce=True)
    @colour.loader
    def rename(user_id: int, name: str) -> None:
        users.writes.append(f"renamed to {name}")

    colour(users.save(1, User(1, "ann")))
    colour(rename(1, "bea"))
    assert colour(users.get(1)) == User(1, "bea")
    colour(users.save(1, User(1, "cas")))
    Worker(cache).drain()
    assert users.writes == ["ann", "renamed to bea", "cas"]


def test_a_write_that_fails_is_tried_again(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    failures = iter([ValueError("busy"), ConnectionError("gone")])

    def raises(user: User) -> None:
        for error in failures:
            raise error

    users.raises = raises
    colour(users.save(1, User(1, "ann")))
    worker = Worker(cache)
    assert (worker.drain(), worker.given_up) == (1, 0)
    assert users.writes == ["ann"]


@pytest.mark.plain_keys
def test_a_write_that_keeps_failing_is_put_aside_and_nobody_reads_its_value_any_more(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    users = users_of(cache, colour, retry_for=0.05)
    tried: list[str] = []

    def raises(user: User) -> None:
        tried.append(user.name)
        if user.name == "bad":
            raise ValueError("secret words of the database")

    users.raises = raises
    colour(users.save(1, User(1, "bad")))
    colour(users.save(2, User(2, "good")))
    assert colour(users.get(1)).name == "bad"
    worker = Worker(cache)
    assert (worker.drain(), worker.given_up) == (2, 1)
    assert tried.count("good") == 1
    assert tried.count("bad") > 1
    assert colour(users.get(1)).name == "old"
    assert users.table[2].name == "good"
    assert "is given up" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.plain_keys
def test_bytes_that_are_no_call_are_put_aside_and_hold_up_nobody(
    cache: Cache, colour: Colour, redis_server: RedisServer
) -> None:
    users = users_of(cache, colour)
    colour(users.save(1, User(1, "ann")))
    log = users.save.__wrapped__ and f"shop:behind~:{{{users.get.__cachecraft__.subject.label}}}:log"
    redis_server.cli("XADD", log, "*", "key", "shop:user:1", "write", b"\x00\xff foreign")
    redis_server.cli("XADD", log, "*", "neither", b"\xff")
    colour(users.save(1, User(1, "bob")))
    worker = Worker(cache)
    assert (worker.drain(), worker.given_up) == (4, 2)
    assert users.writes == ["ann", "bob"]


@pytest.mark.plain_keys
def test_a_value_that_waits_and_cannot_be_read_is_loaded(
    cache: Cache, colour: Colour, redis_server: RedisServer
) -> None:
    users = users_of(cache, colour)
    colour(users.save(1, User(1, "ann")))
    pending = f"shop:behind~:{{{users.get.__cachecraft__.subject.label}}}:pending"
    (field,) = redis_server.cli("HKEYS", pending)
    redis_server.cli("HSET", pending, field, b"1-1|nonsense")
    assert colour(users.get(1)).name == "old"


def test_what_is_loaded_while_nobody_can_tell_what_waits_is_for_that_caller_alone(
    cache: Cache, colour: Colour, redis_server: RedisServer
) -> None:
    table: dict[int, str] = {}

    @cache.cached(ttl=60, key="user:{user_id}", cache_errors={KeyError: 60})
    @colour.loader
    def get_user(user_id: int) -> str:
        return table[user_id]

    @cache.write_behind(get_user, value="name")
    @colour.loader
    def save_user(user_id: int, name: str) -> None:
        table[user_id] = name

    table[1] = "old"
    for user_id in (1, 2):
        colour(save_user(user_id, "ann"))
    redis_server.cli("ACL", "SETUSER", "default", "-hget")
    try:
        assert colour(get_user(1)) == "old"
        with pytest.raises(KeyError):
            colour(get_user(2))
    finally:
        redis_server.cli("ACL", "SETUSER", "default", "+@all")
    assert colour(get_user(1)) == colour(get_user(2)) == "ann"
    Worker(cache).drain()


def test_no_pattern_and_no_clear_reaches_what_waits(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    colour(users.save(1, User(1, "ann")))
    cache.invalidate(pattern="*behind*")
    cache.invalidate(pattern="*:*")
    cache.clear()
    assert colour(users.get(1)).name == "ann"
    assert Worker(cache).drain() == 1


def test_near_caches_elsewhere_let_go_when_the_call_waits_and_when_it_is_made(redis_url: str, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop", near=True) as one, Cache(redis_url, namespace="shop", near=True) as two:
        here, there = users_of(one, colour), users_of(two, colour)
        until(lambda: colour(there.get(1)) and there.get.stats.near_hits)
        colour(here.save(1, User(1, "ann")))
        assert colour(here.get(1)).name == "ann"
        two.barrier()
        assert colour(there.get(1)).name == "ann"
        there.table[1] = User(1, "as the database has it")
        Worker(one).drain()
        two.barrier()
        assert colour(there.get(1)).name == "as the database has it"


# -- where a call cannot wait ----------------------------------------------------------------------------------------


def test_without_redis_a_call_is_made_at_once(colour: Colour) -> None:
    for options in ({"url_or_backend": "memory://"}, {"url_or_backend": "redis://127.0.0.1:1", "enabled": False}):
        with Cache(**options) as local:  # type: ignore[arg-type]
            users = users_of(local, colour)
            assert colour(users.get(1)).name == "old"
            assert colour(users.save(1, User(1, "ann"))) is None
            assert users.writes == ["ann"]
            assert colour(users.get(1)).name == "ann"
            assert Worker(local).drain() == 0


def test_out_of_reach_of_redis_a_call_is_made_at_once(colour: Colour, caplog: pytest.LogCaptureFixture) -> None:
    with Cache("redis://127.0.0.1:1", namespace="shop") as lost:
        users = users_of(lost, colour)
        colour(users.save(1, User(1, "ann")))
        assert users.writes == ["ann"]
        assert colour(users.get(1)).name == "ann"
        assert "are made at once" in caplog.text


def test_or_raises_if_it_was_told_to(colour: Colour) -> None:
    with Cache("redis://127.0.0.1:1", namespace="shop") as lost:
        users = users_of(lost, colour, on_unqueued="raise")
        with pytest.raises(BackendError):
            colour(users.save(1, User(1, "ann")))
        assert users.writes == []


def test_too_many_that_wait_are_made_at_once_unless_they_would_overtake(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour, max_pending=2)
    colour(users.save(1, User(1, "ann")))
    colour(users.save(2, User(2, "bob")))
    colour(users.save(3, User(3, "cas")))
    assert users.writes == ["cas"]
    with pytest.raises(BackendError, match="max_pending"):
        colour(users.save(1, User(1, "dan")))
    assert users.writes == ["cas"]
    assert Worker(cache).drain() == 2
    assert users.table[1].name == "ann"


class Odd:
    pass


def test_what_cannot_be_serialized_is_made_at_once_unless_it_would_overtake(
    cache: Cache, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    users = users_of(cache, colour)
    colour(users.save(1, User(1, "ann"), note=Odd()))
    assert users.writes == ["ann"]
    assert "'note'" in caplog.text
    assert "Odd" in caplog.text
    colour(users.save(1, User(1, "bob")))
    with pytest.raises(UnserializableError, match=r"'note' of .*save_user"):
        colour(users.save(1, User(1, "cas"), note=Odd()))
    assert users.writes == ["ann"]
    Worker(cache).drain()
    strict = users_of(cache, colour, on_unqueued="raise")
    with pytest.raises(UnserializableError, match="'note'"):
        colour(strict.save(1, User(1, "dan"), note=Odd()))


def test_the_caller_may_change_its_arguments_once_the_call_has_returned(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    user = User(1, "ann")
    colour(users.save(1, user))
    user.name = "changed"
    assert colour(users.get(1)).name == "ann"
    Worker(cache).drain()
    assert users.table[1].name == "ann"


def test_what_waits_is_encrypted_where_values_are(redis_url: str, redis_server: RedisServer, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop", encryption_keys=bytes(range(32))) as sealed:
        users = users_of(sealed, colour)
        colour(users.save(1, User(1, "a telling name")))
        keys = redis_server.cli("KEYS", "shop:behind~:*")
        raw = b"".join(redis_server.cli("DUMP", key) for key in keys)
        assert len(keys) == 2
        assert b"a telling name" not in raw
        assert colour(users.get(1)).name == "a telling name"
        Worker(sealed).drain()
        assert users.table[1].name == "a telling name"


def test_a_cancelled_call_that_waits_lets_the_entry_fall_all_the_same(proxy: Proxy, redis_server: RedisServer) -> None:
    with Cache(proxy.url, namespace="shop", timeout=5) as slow:

        async def scenario() -> None:
            users = users_of(slow, Async(asyncio.get_running_loop()))
            assert (await users.get(1)).name == "old"
            proxy.hold_replies()
            call = asyncio.ensure_future(users.save(1, User(1, "ann")))
            while not redis_server.cli("KEYS", "shop:behind~:*:log"):
                await asyncio.sleep(0.001)
            call.cancel()
            proxy.let_go()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await users.get.get(1) is MISSING
            assert (await users.get(1)).name == "ann"
            assert await Worker(slow).adrain() == 1

        asyncio.run(scenario())


# -- what it is told ------------------------------------------------------------------------------------------------


def test_bad_input_is_told_at_decoration(cache: Cache, other: Cache) -> None:
    @cache.cached(key="user:{user_id}")
    def get_user(user_id: int) -> str: ...

    def save(user_id: int, user: str) -> None: ...

    def says(error: type[Exception], words: str, fn: Any = save, **options: Any) -> None:
        with pytest.raises(error, match=words):
            cache.write_behind(get_user, **{"value": "user", **options})(fn)

    says(OptionError, "no parameter of .*save.*user_id, user", value="name")
    says(OptionTypeError, "value=7", value=7)
    says(OptionTypeError, "coalesce=1", coalesce=1)
    says(OptionError, "retry_for=-1", retry_for=-1)
    says(OptionTypeError, "retry_for=None", retry_for=None)
    says(OptionTypeError, "max_pending='many'", max_pending="many")
    says(OptionError, "on_unqueued='drop'", on_unqueued="drop")
    says(OptionError, "no name", lambda user_id, user: None)
    says(TemplateError, "write_behind.*no parameter 'user_id' to share with it; give it one", lambda_free)
    says(OptionTypeError, r"by name \(user_id, user\), and cannot take.*'user", value=lambda user_id: None)
    with pytest.raises(OptionTypeError, match="not a cached function"):
        cache.write_behind(save, value="user")  # type: ignore[arg-type]
    with pytest.raises(OptionTypeError, match="another cache"):
        other.write_behind(get_user, value="user")
    cache.write_behind(get_user, value="user")(save)
    says(OptionError, "another function called .*save")
    with pytest.raises(OptionTypeError, match="its object is not there"):

        class Repository:
            @cache.write_behind(get_user, value="user")
            def save(self, user_id: int, user: str) -> None: ...


def lambda_free(user: str) -> None: ...


def test_a_static_method_can_be_decorated(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)

    class Repository:
        @cache.write_behind(users.get, value="user")
        @staticmethod
        @colour.loader
        def put(user_id: int, user: User) -> None:
            users.writes.append(f"static {user.name}")

    colour(Repository.put(1, User(1, "ann")))
    colour(Repository().put(1, User(1, "bob")))
    Worker(cache).drain()
    assert users.writes == ["static ann", "static bob"]


def test_where_an_invalidation_that_cannot_reach_redis_raises_a_call_that_waits_is_not_made_twice(
    redis_url: str, redis_server: RedisServer, colour: Colour
) -> None:
    with Cache(redis_url, namespace="shop", on_unreachable="raise") as strict:
        users = users_of(strict, colour)
        colour(users.get(1))
        redis_server.cli("ACL", "SETUSER", "default", "-unlink")
        try:
            with pytest.raises(BackendError):
                colour(users.save(1, User(1, "ann")))
        finally:
            redis_server.cli("ACL", "SETUSER", "default", "+@all")
        assert users.writes == []
        Worker(strict).drain()
        assert users.writes == ["ann"]


@pytest.mark.plain_keys
def test_a_worker_that_cannot_let_the_entry_fall_leaves_the_call_to_be_settled_again(
    redis_url: str, redis_server: RedisServer, colour: Colour
) -> None:
    with Cache(redis_url, namespace="shop", on_unreachable="raise") as strict:
        users = users_of(strict, colour, retry_for=0, max_pending=1)

        def raises(user: User) -> None:
            raise ValueError("no")

        users.raises = raises
        colour(users.save(1, User(1, "ann")))
        assert colour(users.get(1)).name == "ann"
        redis_server.cli("ACL", "SETUSER", "default", "-unlink")
        try:
            with pytest.raises(BackendError):
                Worker(strict).drain()
        finally:
            redis_server.cli("ACL", "SETUSER", "default", "+@all")
        with pytest.raises(BackendError, match="max_pending"):  # it waits still, and nobody may overtake it
            colour(users.save(1, User(1, "bob")))
        assert Worker(strict).drain() == 1
        assert colour(users.get(1)).name == "old"


# -- a worker's life ------------------------------------------------------------------------------------------------


def test_a_worker_in_a_program_of_its_own_goes_on_through_an_outage(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop") as cache:
        users = users_of(cache, Sync())
        worker = Worker(cache, poll=0.01)
        running = Sync().start(worker.run)
        users.save(1, User(1, "ann"))
        until(lambda: worker.settled == 1)  # before that it may be made again
        server.pause()
        until(lambda: "waits on" in caplog.text)
        server.resume()
        until(lambda: not cache.stats.breaker_open and users.get(1).name == "ann")
        users.save(1, User(1, "bob"))
        until(lambda: users.writes == ["ann", "bob"])
        worker.stop()
        running.result(10)
        assert caplog.text.count("waits on") == 1
        assert server.cli("KEYS", "*:lease") == []  # another may go on at once


def test_of_two_workers_one_delivers_and_the_other_goes_on_when_it_ends(cache: Cache) -> None:
    users = users_of(cache, Sync())
    one, two = Worker(cache, poll=0.01), Worker(cache, poll=0.01)
    first = Sync().start(one.run)
    users.save(1, User(1, "ann"))
    until(lambda: one.settled == 1)
    second = Sync().start(two.run)
    users.save(1, User(1, "bob"))
    until(lambda: users.writes == ["ann", "bob"])
    assert two.settled == 0
    one.stop()
    first.result(10)
    users.save(1, User(1, "cas"))
    until(lambda: two.settled == 1)
    two.stop()
    second.result(10)
    assert users.writes == ["ann", "bob", "cas"]


def test_a_worker_that_is_cancelled_leaves_what_it_had_begun_to_be_made_again(cache: Cache) -> None:
    async def scenario() -> None:
        begun: list[str] = []
        never = asyncio.Event()
        colour = Async(asyncio.get_running_loop())
        users = users_of(cache, colour)

        @cache.write_behind(users.get, value="user")
        async def hang(user_id: int, user: User) -> None:
            begun.append(user.name)
            if len(begun) == 1:
                await never.wait()

        await hang(1, User(1, "ann"))
        task = asyncio.ensure_future(Worker(cache).arun())
        while not begun:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await users.get(1)).name == "ann"
        assert await Worker(cache).adrain() == 1
        assert begun == ["ann", "ann"]

    asyncio.run(scenario())


def test_functions_decorated_while_it_runs_are_delivered_too(cache: Cache) -> None:
    worker = Worker(cache, poll=0.01)
    running = Sync().start(worker.run)
    users = users_of(cache, Sync())
    users.save(1, User(1, "ann"))
    until(lambda: users.writes == ["ann"])
    worker.stop()
    running.result(10)


def test_a_worker_that_cannot_be_is_told() -> None:
    with pytest.raises(OptionError, match="concurrency=0"):
        Worker(concurrency=0)
    with pytest.raises(OptionTypeError, match="batch='x'"):
        Worker(batch="x")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="lease=-1"):
        Worker(lease=-1)


def test_a_write_that_keeps_failing_holds_up_those_of_its_key_and_no_others(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    failing = threading.Event()
    failing.set()

    def raises(user: User) -> None:
        if user.id == 1 and failing.is_set():
            raise ValueError

    users.raises = raises
    worker = Worker(cache, batch=2, poll=0.01)
    running = Sync().start(worker.run)
    for name in ("ann", "ava", "amy"):
        colour(users.save(1, User(1, name)))
    for number in range(2, 8):
        colour(users.save(number, User(number, "other")))
    until(lambda: len(users.writes) == 6)
    assert set(users.writes) == {"other"}
    assert colour(users.get(1)).name == "amy"
    failing.clear()
    until(lambda: len(users.writes) == 9)
    assert users.writes[6:] == ["ann", "ava", "amy"]
    worker.stop()
    running.result(10)


@pytest.mark.plain_keys
def test_a_worker_that_is_told_to_end_does_not_wait_for_the_next_attempt(cache: Cache, colour: Colour) -> None:
    users = users_of(cache, colour)
    tried = threading.Semaphore(0)

    def raises(user: User) -> None:
        tried.release()
        raise ValueError

    users.raises = raises
    colour(users.save(1, User(1, "ann")))
    worker = Worker(cache)
    running = Sync().start(worker.run)
    for _ in range(4):
        assert tried.acquire(timeout=10)
    worker.stop()
    running.result(2)
    assert (worker.settled, worker.given_up) == (0, 0)
    assert colour(users.get(1)).name == "ann"


@pytest.mark.plain_keys
def test_hooks_are_told_what_waits_and_what_became_of_it(cache: Cache, colour: Colour) -> None:
    told: list[Any] = []
    users = users_of(cache, colour, retry_for=0)
    cache.add_hook(told.append)
    names = (users.get.__cachecraft__.subject.label, f"{__name__}.users_of.<locals>.save_user")

    def raises(user: User) -> None:
        if user.name == "bad":
            raise ValueError

    users.raises = raises
    colour(users.save(1, User(1, "ann")))
    colour(users.save(1, User(1, "bad")))
    assert [event for event in told if isinstance(event, hooks.WriteQueued)] == [hooks.WriteQueued(*names)] * 2
    Worker(cache).drain()
    made, given_up = (event for event in told if isinstance(event, hooks.WriteDelivered))
    assert (made.function, made.write, made.error) == (*names, None)
    assert 0 <= made.seconds < 10
    assert isinstance(given_up.error, ValueError)
