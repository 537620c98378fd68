"""What a cache may do in Redis, and no more: the exact ACL of the documentation, and what each missing right costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachecraft import MISSING, BackendError, Cache
from cachecraft.backends import transports
from cachecraft.worker import Worker
from tests import callers, states
from tests.callers import Async, Gate, Sync, until
from tests.redis_kit import colour  # noqa: F401 - a fixture
from tests.servers import RedisServer

Colour = Sync | Async

BUDGET = 3.0
"""Seconds that no call may take."""
DOCUMENTED = (Path(__file__).parent.parent / "docs" / "faults.md").read_text(encoding="utf-8")
(ACL,) = re.findall(r"^    ACL SETUSER app on >password (.*)$", DOCUMENTED, flags=re.MULTILINE)
RIGHTS = [word for word in ACL.split() if word.startswith("+")]
(TO_WRITE_BEHIND,) = re.findall(r"^    ACL SETUSER app (\+xadd.*)$", DOCUMENTED, flags=re.MULTILINE)
(TO_LISTEN,) = re.findall(r"^    ACL SETUSER app (\+client.*)$", DOCUMENTED, flags=re.MULTILINE)


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


def _let_in(server: RedisServer, *rules: str) -> str:
    """Make the user, and answer the URL by which it comes."""
    server.cli("ACL", "SETUSER", "app", "reset", "on", ">password", *rules)
    return server.url.replace("redis://", "redis://app:password@")


def _use_everything(server: RedisServer, made: Cache, colour: Colour) -> None:
    """All that a cache can be asked to do, but for a ping. Nothing of it may raise, whatever the server refuses."""
    by_hand = colour.on(made)
    price = [1]
    load = colour.loader(lambda item: price[0])
    f = made.cached(ttl=60, key="price:{item}", tags=["t:{item}"], refresh_ahead=59.99, jitter=None)(load)
    tagged = made.cached(ttl=60, key="tagged:{item}", tags=lambda result, item: ["made"])(load)
    assert [colour(each(1)) for each in (f, f, f.refresh, tagged, tagged)] == [1] * 5
    colour(f.set(1, 2))
    broken = made.cached(ttl=60, key="broken")(colour.loader(lambda: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        colour(broken())
    assert colour(made.updates(f)(colour.loader(lambda item: 1))(3)) == 1
    assert by_hand.get_or_load("by hand", colour.loader(lambda: 5), tags=["x"]) == 5
    price[0] = 2
    _let_the_stamps_come_of_age(server)
    colour(f.invalidate(1))
    assert colour(f(1)) == 2
    by_hand.invalidate(pattern="price:*", tags=["t:1"])
    by_hand.delete("by hand")
    colour(f.invalidate_all())
    by_hand.clear()
    assert colour(f(1)) == 2
    assert made.stats.errors == 1  # the loader's own


def _let_the_stamps_come_of_age(server: RedisServer) -> None:
    """The next load prolongs them."""
    server.cli("PEXPIRE", "shop:~root", 60_000)


def test_the_documented_rights_are_enough_for_everything(server: RedisServer, colour: Colour) -> None:
    url = _let_in(server, *ACL.split())
    with Cache(url, namespace="shop") as made:
        _use_everything(server, made, colour)
        assert colour.on(made).ping() > 0
        assert (made.stats.backend_errors, made.stats.journaled, made.stats.refused) == (0, 0, 0)
        assert made.stats.hits > 0
    assert server.cli("ACL", "LOG") == []


@pytest.mark.parametrize("missing", [right for right in RIGHTS if right != "+publish"])
def test_each_missing_right_is_a_counted_miss_and_no_error(server: RedisServer, colour: Colour, missing: str) -> None:
    """And so each of them is needed: no right is in the documentation for nothing."""
    url = _let_in(server, *(word for word in ACL.split() if word != missing))
    with Cache(url, namespace="shop") as made:
        _use_everything(server, made, colour)
        if missing == "+ping":
            with pytest.raises(BackendError):
                colour.on(made).ping()
        else:
            assert made.stats.backend_errors + made.stats.journaled > 0
        assert (made.stats.wait_timeouts, made.stats.waits) == (0, 0)


def _write_behind(made: Cache, colour: Colour) -> object:
    """One call waits and is delivered, another is given up. Answers what was seen of it."""
    table = ["old"]

    @made.cached(ttl=60, key="behind:{item}")
    @colour.loader
    def get(item: int) -> str:
        return table[-1]

    @made.write_behind(get, value="name", retry_for=0)
    @colour.loader
    def save(item: int, name: str) -> None:
        if name == "bad":
            raise ValueError
        table.append(name)

    colour(get(1))
    colour(save(1, "ann"))
    seen = [list(table), colour(get(1))]
    try:
        colour(save(1, "bad"))
        Worker(made).drain()
    except (BackendError, ValueError) as error:
        return [*seen, type(error)]
    return [*seen, list(table), colour(get(1)), made.stats.backend_errors]


WELL = [["old"], "ann", ["old", "ann"], "ann", 0]


@pytest.mark.plain_keys
def test_the_documented_rights_are_enough_to_write_behind(server: RedisServer, colour: Colour) -> None:
    url = _let_in(server, *ACL.split(), *TO_WRITE_BEHIND.split())
    with Cache(url, namespace="shop") as made:
        assert _write_behind(made, colour) == WELL
    assert server.cli("ACL", "LOG") == []


@pytest.mark.plain_keys
@pytest.mark.parametrize("missing", TO_WRITE_BEHIND.split())
def test_each_right_to_write_behind_is_needed(server: RedisServer, colour: Colour, missing: str) -> None:
    """Without it calls are made at once, or the worker says that it cannot work."""
    url = _let_in(server, *ACL.split(), *(word for word in TO_WRITE_BEHIND.split() if word != missing))
    with Cache(url, namespace="shop") as made:
        assert _write_behind(made, colour) != WELL


def test_without_the_right_to_tell_others_all_goes_on_and_it_is_said_once(
    server: RedisServer, colour: Colour, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "_said", [])
    url = _let_in(server, *(word for word in ACL.split() if word != "+publish"))
    with Cache(url, namespace="shop") as made:
        _use_everything(server, made, colour)
        assert (made.stats.backend_errors, made.stats.journaled, made.stats.refused) == (0, 0, 0)
    assert caplog.text.count("lets this user tell nobody") == 1


def _listen(server: RedisServer, made: Cache, colour: Colour) -> bool:
    """Have it hear all that a near cache hears. Whether it listens in the end, and on the same connection."""
    gate = Gate()
    listening = made.cached(ttl=60, key="near")(colour.loader(lambda: 1))

    @colour.loader
    def load() -> int:
        yield gate
        return 5

    def is_near() -> bool:
        colour(listening())
        return made.stats.near_entries > 0

    def id_of_listener() -> list[bytes]:
        return re.findall(rb"id=(\d+) .* sub=[1-9]", server.cli("CLIENT", "LIST"))

    with Cache(server.url, namespace="shop", timeout=5) as other:
        try:
            until(is_near)
        except AssertionError:
            return False
        before = id_of_listener()
        elsewhere = colour.start(other.cached(ttl=60, key="slow")(load))
        gate.reached()
        waiting = colour.start(made.cached(ttl=60, key="slow")(load))
        until(lambda: b"~done:" in b" ".join(server.cli("PUBSUB", "CHANNELS")))
        gate.open()
        assert elsewhere.result(BUDGET) == waiting.result(BUDGET) == 5
        until(lambda: before != id_of_listener() or b"~done:" not in b" ".join(server.cli("PUBSUB", "CHANNELS")))
        return before == id_of_listener()


def test_the_documented_rights_to_listen_are_enough(server: RedisServer, colour: Colour) -> None:
    url = _let_in(server, *ACL.split(), *TO_LISTEN.split())
    with Cache(url, namespace="shop", near=True, timeout=5) as made:
        assert _listen(server, made, colour)
        _use_everything(server, made, colour)
        assert (made.stats.backend_errors, made.stats.journaled, made.stats.refused) == (0, 0, 0)
    assert server.cli("ACL", "LOG") == []


@pytest.mark.parametrize("missing", TO_LISTEN.split())
def test_each_right_to_listen_is_needed(
    server: RedisServer, colour: Colour, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without it everything is as in a cache that does not listen."""
    monkeypatch.setattr(callers, "PATIENCE", 1.0)  # to see that something does not come
    url = _let_in(server, *ACL.split(), *(word for word in TO_LISTEN.split() if word != missing))
    with Cache(url, namespace="shop", near=True, timeout=5) as made:
        assert not _listen(server, made, colour)
        _use_everything(server, made, colour)
        assert (made.stats.backend_errors, made.stats.journaled, made.stats.refused) == (0, 0, 0)


def test_another_namespace_is_out_of_its_reach(server: RedisServer, colour: Colour) -> None:
    url = _let_in(server, *ACL.split())
    with Cache(url, namespace="bank") as made:
        f = made.cached(ttl=60, key="n")(colour.loader(lambda: 7))
        assert colour(f()) == colour(f()) == 7
        assert (f.stats.hits, f.stats.backend_errors) == (0, 2)
    assert server.cli("DBSIZE") == 0


def test_a_database_by_number_takes_one_right_more(server: RedisServer, colour: Colour) -> None:
    url = _let_in(server, *ACL.split(), "+select").removesuffix("/0") + "/3"
    with Cache(url, namespace="shop") as made:
        _use_everything(server, made, colour)
        assert made.stats.backend_errors == 0


def test_rights_lost_in_use_cost_a_miss_until_they_are_back(server: RedisServer, colour: Colour) -> None:
    url = _let_in(server, *ACL.split())
    with Cache(url, namespace="shop") as made:
        f: Any = made.cached(ttl=60, key="n")(colour.loader(lambda: 7))
        assert colour(f()) == colour(f.get()) == 7
        server.cli("ACL", "SETUSER", "app", "-mget")
        assert colour(f()) == 7
        assert colour(f.get()) is MISSING
        assert (f.stats.loads, f.stats.backend_errors) == (2, 2)
        server.cli("ACL", "SETUSER", "app", "+mget")
        assert colour(f()) == 7
        assert f.stats.hits == 1


def test_a_lease_that_was_won_beside_a_refusal_is_given_back(server: RedisServer, colour: Colour) -> None:
    """Some of the commands that left together were done, and nobody will load under that lease."""
    url = _let_in(server, *ACL.split(), "-pexpire")
    with Cache(url, namespace="shop") as made:
        f = made.cached(ttl=60, key="n", lease=60, wait=60)(colour.loader(lambda: 7))
        colour.on(made).set("another", 1)  # now the stamps are there
        _let_the_stamps_come_of_age(server)
        assert colour.start(f).result(BUDGET) == colour.start(f).result(BUDGET) == 7
        assert server.cli("EXISTS", "shop:n") == 0
        assert (f.stats.waits, f.stats.backend_errors) == (0, 2)


def test_a_password_that_was_changed_is_counted_and_named_nowhere(
    server: RedisServer, colour: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    url = _let_in(server, *ACL.split())
    with Cache(url, namespace="shop") as made:
        f: Any = made.cached(ttl=60, key="n")(colour.loader(lambda: 7))
        colour(f())
        server.cli("ACL", "SETUSER", "app", "resetpass", ">changed")
        states.hang_up_on_all(server)
        until(lambda: colour(f()) == 7 and made.stats.breaker_open)
        assert f.stats.backend_errors > 0
        server.cli("ACL", "SETUSER", "app", ">password")
        until(lambda: not made.stats.breaker_open)
        assert colour(f()) == colour(f.get()) == 7
    assert "invalid username-password pair" in caplog.text
    assert "app:password" not in caplog.text
    assert "changed" not in caplog.text
