"""The model of Redis answers as Redis does, to every command that the protocol is made of."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachecraft._core.effects import Acquire, Claim, Delete, Fetch, Release, Remote, Renew, Stamp, Store
from cachecraft.backends.commands import PLANS, SCRIPTS, Command, scan
from tests.servers import RedisServer
from tests.simulation.model import ModelRedis

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
