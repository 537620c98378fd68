"""Near caches in several processes, step by step, where a race would take its time to come to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis

from cachecraft import Cache, Near
from cachecraft._core.effects import Fetch
from cachecraft.backends.commands import PLANS
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.proxy import Proxy
from tests.redis_kit import colour  # noqa: F401 - a fixture
from tests.servers import RedisServer
from tests.test_near import REPLACEMENTS, Source, forget_in_redis, held, priced, source  # noqa: F401 - a fixture

Colour = Sync | Async


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def here(server: RedisServer) -> Iterator[Cache]:
    with Cache(server.url, namespace="shop", near=Near(max_staleness=60), timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def there(server: RedisServer) -> Iterator[Cache]:
    """As another process would have it: it shares neither listener nor address with `here`."""
    with (
        Proxy(server.port) as line,
        Cache(line.url, namespace="shop", near=Near(max_staleness=60), timeout=PATIENCE) as made,
    ):
        yield made


@pytest.fixture
def in_thread() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def test_a_tag_that_comes_and_goes_in_one_turn_of_the_server_is_invalidated_all_the_same(
    here: Cache,
    there: Cache,
    colour: Colour,
    source: Source,
    server: RedisServer,
    in_thread: Callable[..., Future[Any]],
) -> None:
    """The server tells both changes of its stamp as one, and then of no deletion, since there is nothing to delete."""

    def invalidate() -> None:
        there.invalidate(tags=["shelf:1"])

    def waiting() -> int:
        return int(server.cli("INFO", "clients")["blocked_clients"])

    f = priced(here, colour, source)
    for _ in range(2):  # so that the server knows the scripts, and nothing is sent twice below
        colour(f(1))
        invalidate()
    server.cli("CLIENT", "PAUSE", 60_000, "WRITE")
    caller = colour.start(f, 1)  # makes the stamp
    until(lambda: waiting() == 1)
    invalidation = in_thread(invalidate)
    until(lambda: waiting() == 2)
    server.cli("CLIENT", "UNPAUSE")
    invalidation.result(PATIENCE)
    assert caller.result(PATIENCE) == 1
    source.price = 2
    invalidate()
    colour.on(here).barrier()
    assert colour(f(1)) == 2


@pytest.mark.parametrize("how", REPLACEMENTS)
def test_what_redis_has_evicted_and_others_hold_is_replaced_for_them_too(
    here: Cache, there: Cache, colour: Colour, source: Source, server: RedisServer, how: str
) -> None:
    f, g = priced(here, colour, source), priced(there, colour, source)
    assert held(f, colour, 1) == held(g, colour, 1) == 1
    forget_in_redis(server, here, "price:1")
    source.price = 9
    REPLACEMENTS[how](there, g, colour)
    colour.on(here).barrier()
    assert colour(f(1)) == 9


def test_a_write_reaches_what_another_release_holds_beside_it(
    here: Cache, there: Cache, colour: Colour, source: Source
) -> None:
    """It came to hold that while the write was under way, for which it had no reason to wait."""
    gate = Gate()

    def price(item: int) -> int:
        return source.load()

    def write(item: int) -> Any:
        yield gate
        source.price = 9
        return 9

    price.__qualname__ = "the other release's price"
    f = priced(here, colour, source, tags=())
    g = there.cached(ttl=60, key="price:{item}")(colour.loader(price))
    caller = colour.start(there.updates(g)(colour.loader(write)), 1)
    gate.reached()
    assert held(f, colour, 1) == 1
    gate.open()
    assert caller.result(PATIENCE) == 9
    colour.on(here).barrier()
    assert colour(f(1)) == 9


def test_a_function_of_a_namespace_that_another_near_cache_has_is_held_near(
    here: Cache, colour: Colour, source: Source, server: RedisServer
) -> None:
    f = priced(here, colour, source)
    held(f, colour, 1)
    with Cache(server.url, namespace="bank", near=True) as bank:
        held(priced(bank, colour, source), colour, 1)
        g = priced(bank, colour, source, namespace="shop")
        assert held(g, colour, 1) == 1
        source.price = 2
        colour(f.invalidate(1))
        assert colour(g(1)) == 2


def test_an_entry_is_not_given_the_time_of_the_one_that_takes_its_place(server: RedisServer) -> None:
    """Somebody else's command may come between any two of ours, where a packet is cut."""
    with redis.Redis.from_url(server.url) as client:
        client.set("k", "old", px=1_000)
        plan, replies = PLANS[Fetch], []
        for command in plan.commands(Fetch("k", ("t",), aged=True)):
            replies.append(client.execute_command(*command))
            client.set("k", "new", px=60_000)
        reading = plan.answer(Fetch("k", ("t",), aged=True), replies)
    assert reading.slot == b"new"
    assert reading.left <= 1
