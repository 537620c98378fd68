"""The model of Redis answers as Redis does, to every command that the protocol is made of."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachecraft._core.behind import Buried, Delivered, Enqueue, Item, Pending, Queue, Waiting, Withdraw
from cachecraft._core.effects import Acquire, Claim, Delete, Fetch, Release, Remote, Renew, Stamp, Store
from cachecraft.backends import queue
from cachecraft.backends.commands import PLANS, SCRIPTS, Command, scan
from tests.servers import RedisServer
from tests.simulation.model import ModelRedis
from tests.simulation.queues import Stream

KEYS = st.sampled_from(["n:a", "n:b", "n:a~r"])
TAGS = st.lists(st.sampled_from(["n:~root", "n:~fn:f", "n:~tag:é"]), min_size=1, max_size=3, unique=True).map(tuple)
TOKENS = st.sampled_from([b"%016d" % number for number in range(3)])
HELD = st.builds(lambda letter, token: letter + token, st.sampled_from([b"L", b"V"]), TOKENS) | st.just(b"")
SECONDS = st.sampled_from([100.0, 5000.5])


@st.composite
def acquires(draw: st.DrawFn) -> Acquire:
    tags = draw(TAGS)
    each = {"min_size": len(tags), "max_size": len(tags)}
    stamps, missing = draw(st.lists(TOKENS, **each)), draw(st.lists(st.booleans(), **each))
    return Acquire(draw(KEYS), draw(HELD), draw(TOKENS), tags, tuple(stamps), tuple(missing), draw(SECONDS))


EFFECTS: st.SearchStrategy[Remote[Any]] = st.one_of(
    acquires(),
    st.builds(Fetch, KEYS, TAGS, st.just(True)),
    st.builds(Store, KEYS, HELD, st.builds(lambda token: b"V" + token + b"value", TOKENS), SECONDS),
    st.builds(Release, KEYS, HELD),
    st.builds(Renew, KEYS, HELD, SECONDS),
    st.builds(Claim, KEYS, HELD, SECONDS),
    TAGS.flatmap(lambda tags: st.builds(Stamp, st.just(tags), st.just((b"%016d" % 7,) * len(tags)))),
    st.builds(Delete, st.lists(KEYS, min_size=1, max_size=3).map(tuple)),
    st.builds(Delete, TAGS),
)
FENCE = st.sampled_from([("GET", "n:~runid"), ("SET", "n:~runid", b"1", "PX", 1_000_000), ("UNLINK", "n:~root")])
COMMANDS = EFFECTS.map(lambda effect: PLANS[type(effect)].commands(effect)) | FENCE.map(lambda command: [command])


@pytest.fixture
def connection(redis_server: RedisServer, redis_url: str) -> Iterator[redis.Connection]:
    connection = redis.Connection(port=redis_server.port, protocol=2)
    yield connection
    connection.disconnect()


def ask(connection: redis.Connection, command: Command) -> Any:
    connection.send_command(*command)
    try:
        return connection.read_response()
    except redis.exceptions.NoScriptError as error:
        return error


def answer(model: ModelRedis, command: Command) -> Any:
    try:
        return model.execute(command)
    except redis.exceptions.NoScriptError as error:
        return error


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pipelines=st.lists(COMMANDS | st.just("flush"), max_size=12))
def test_it_answers_as_redis_does(connection: redis.Connection, pipelines: list[Any]) -> None:
    ask(connection, ("FLUSHALL",))
    ask(connection, ("SCRIPT", "FLUSH"))
    model = ModelRedis()
    for pipeline in pipelines:
        if pipeline == "flush":
            ask(connection, ("SCRIPT", "FLUSH"))
            model.scripts.clear()
            continue
        for command in pipeline:
            real, modelled = ask(connection, command), answer(model, command)
            if isinstance(real, redis.exceptions.NoScriptError):
                assert isinstance(modelled, redis.exceptions.NoScriptError)
                in_full = ("EVAL", SCRIPTS[command[1]].source, *command[2:])
                real, modelled = ask(connection, in_full), answer(model, in_full)
            if command[0] == "PTTL":
                assert modelled - 5000 <= real <= modelled
            else:
                assert real == modelled, command
    for pattern in ("n:*", "n:a*", "n:b"):
        assert scanned_by(lambda command: ask(connection, command), pattern) == scanned_by(model.execute, pattern)


# -- queues --------------------------------------------------------------------------------------------------

QUEUE = Queue("n:", "f")
SOME = st.sampled_from([b"", b"1", b"2"])
WHICH = st.integers(0, 3)
#: Each with the items that wait by then.
ASKED: st.SearchStrategy[Callable[[list[Item]], Remote[Any]]] = st.one_of(
    st.builds(lambda *args: lambda _: Enqueue(QUEUE, *args), KEYS, SOME, SOME, st.sampled_from([3, 100])),
    st.builds(lambda key: lambda _: Pending(QUEUE, key), KEYS),
    st.builds(lambda count: lambda _: Waiting(QUEUE, b"", count), st.integers(1, 4)),
    st.builds(lambda at, count: lambda items: _after(items, at, count), WHICH, st.integers(1, 4)),
    st.builds(
        lambda key, ats: lambda items: Delivered(QUEUE, key, tuple(_item(items, at).id for at in ats)),
        KEYS,
        st.lists(WHICH, min_size=1, max_size=2),
    ),
    st.builds(lambda at: lambda items: _taken(items, at), WHICH),
    st.builds(lambda key, at: lambda items: Withdraw(QUEUE, key, _item(items, at).id), KEYS, WHICH),
    st.builds(lambda at: lambda items: Withdraw(QUEUE, _item(items, at).key, _item(items, at).id), WHICH),
    st.builds(lambda at: lambda items: Buried(QUEUE, _item(items, at), "why"), WHICH),
)


def _item(items: list[Item], at: int) -> Item:
    return items[at] if at < len(items) else Item(b"1-1", "n:a", b"")


def _after(items: list[Item], at: int, count: int) -> Remote[Any]:
    return Waiting(QUEUE, items[at].id if at < len(items) else b"", count)


def _taken(items: list[Item], at: int) -> Remote[Any]:
    item = _item(items, at)
    return Delivered(QUEUE, item.key, (item.id,))


@pytest.mark.plain_keys
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(ASKED, max_size=15))
def test_its_queues_answer_as_those_of_redis_do(connection: redis.Connection, asked: list[Any]) -> None:
    ask(connection, ("FLUSHALL",))
    model = ModelRedis()
    for script in queue.SCRIPTS:
        ask(connection, ("SCRIPT", "LOAD", script.source))
        model.scripts.add(script.sha)
    real, modelled = Server(partial(ask, connection)), Server(model.execute)
    everything = (
        *(Pending(QUEUE, key) for key in ("n:a", "n:b", "n:a~r")),
        Waiting(QUEUE, b"", 100),
    )
    for each in asked:
        assert real.answer(each(real.items())) == modelled.answer(each(modelled.items()))
        assert [real.answer(effect) for effect in everything] == [modelled.answer(effect) for effect in everything]
        dead = ("XRANGE", QUEUE.dead, "-", "+", "COUNT", 100)
        assert [_grave(each) for each in ask(connection, dead)] == [_grave(each) for each in model.execute(dead)]
        for name in (QUEUE.log, QUEUE.dead):
            left = ask(connection, ("PTTL", name))
            assert (-1 if left < 0 else 86_400_000) == model.queues.streams.get(name.encode(), Stream()).left


def _grave(entry: Any) -> Any:
    """What is put aside, but for ids."""
    return [field for at, field in enumerate(entry[1]) if at != 3]


class Server:
    """Answers effects. Ids are told as numbers, in the order in which they were first seen."""

    def __init__(self, execute: Callable[[Command], Any]) -> None:
        self._execute = execute
        self._ids: dict[bytes, int] = {}

    def answer(self, effect: Remote[Any]) -> Any:
        plan = PLANS[type(effect)]
        answer = plan.answer(effect, [self._execute(command) for command in plan.commands(effect)])
        if isinstance(effect, Waiting):
            return [(self._ids.setdefault(item.id, len(self._ids)), item.key, item.write) for item in answer]
        return answer

    def items(self) -> list[Item]:
        waiting = Waiting(QUEUE, b"", 100)
        (command,) = PLANS[Waiting].commands(waiting)
        return list(PLANS[Waiting].answer(waiting, [self._execute(command)]))


# -- the server ----------------------------------------------------------------------------------------------


def scanned_by(execute: Any, pattern: str) -> set[bytes]:
    met, cursor = set[bytes](), b"0"
    while True:
        cursor, keys = execute(scan(int(cursor), pattern))
        met.update(keys)
        if int(cursor) == 0:
            return met


def test_a_restart_is_known_by_its_run_id(connection: redis.Connection) -> None:
    model = ModelRedis()
    before = model.execute(("INFO", "server"))
    model.restart(model.snapshot())
    assert model.execute(("INFO", "server")) != before
    assert b"run_id:" in ask(connection, ("INFO", "server"))
    assert b"run_id:" in before
