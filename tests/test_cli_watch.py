"""`cachecraft watch`: whatever is invalidated in a namespace is shown as it happens, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from tests.callers import PATIENCE, until
from tests.cli_kit import Shop, shop  # noqa: F401 - a fixture
from tests.servers import RedisServer
from tests.terminal import Ended, Terminal, cli


def _watching(server: RedisServer) -> bool:
    return b"sub=1" in server.cli("CLIENT", "LIST", "TYPE", "PUBSUB")  # type: ignore[operator]  # bytes


@pytest.fixture
def heard(shop: Shop, redis_server: RedisServer) -> Callable[[Callable[[], object], int], list[dict[str, str]]]:
    """What `watch --json` tells of what is done, so many lines."""

    def hear(do: Callable[[], object], count: int) -> list[dict[str, str]]:
        ends: list[Ended] = []
        watcher = threading.Thread(
            target=lambda: ends.append(cli("watch", *shop.where, "--json", "--count", str(count)))
        )
        watcher.start()
        until(lambda: _watching(redis_server))
        do()
        watcher.join(PATIENCE)
        assert ends[0].code == 0
        return [json.loads(line) for line in ends[0].lines]

    return hear


def test_it_tells_of_every_kind_of_invalidation(
    shop: Shop, heard: Callable[[Callable[[], object], int], list[dict[str, str]]]
) -> None:
    def invalidate() -> None:
        shop.product.invalidate("p1")
        shop.cache.invalidate(pattern="product:p2*")
        shop.cache.invalidate(tags=["range:tea"])
        shop.product.invalidate_all()
        shop.cache.clear()
        shop.cache.set("a note", "new")

    told = heard(invalidate, 6)
    assert [(each["kind"], each["text"]) for each in told] == [
        ("key", "product:p1"),
        ("pattern", "product:p2*"),
        ("tag", "range:tea"),
        ("function", shop.product.__cachecraft__.subject.label),
        ("clear", ""),
        ("key", "a%20note"),
    ]
    assert all(each["at"][:2] == "20" for each in told)


def test_loads_and_hits_are_no_invalidations(
    shop: Shop, heard: Callable[[Callable[[], object], int], list[dict[str, str]]]
) -> None:
    def work() -> None:
        shop.product("new", "coffee")  # a tag that was never there
        shop.product("p1")
        shop.product.invalidate("p2")

    assert [each["text"] for each in heard(work, 1)] == ["product:p2"]


def test_in_a_terminal_until_it_is_interrupted(shop: Shop, redis_server: RedisServer) -> None:
    terminal = Terminal("watch", *shop.where)
    until(lambda: _watching(redis_server))
    shop.product.invalidate("p1")
    terminal.await_text("key        product:p1")
    terminal.interrupt()
    assert terminal.end().code == 130


def test_a_server_that_goes_away_ends_it(start_redis: Callable[..., RedisServer]) -> None:
    server, ends = start_redis(), list[Ended]()
    watcher = threading.Thread(target=lambda: ends.append(cli("watch", "--url", server.url, "--namespace", "shop")))
    watcher.start()
    until(lambda: _watching(server))
    server.kill()
    watcher.join(PATIENCE)
    assert ends[0].code == 3
    assert ends[0].err.startswith("cachecraft: ")
