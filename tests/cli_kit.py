"""Fixtures for tests of the command line: a namespace with something of everything in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cachecraft import Cache
from tests.servers import RedisServer


@dataclass
class Product:
    sku: str
    price: float


@dataclass
class Shop:
    """A cache in the namespace `shop`, with entries, and beside it the namespace `bank`."""

    url: str
    cache: Cache
    product: Any
    where: tuple[str, ...]
    """The options that lead there."""


@pytest.fixture
def shop(redis_url: str) -> Iterator[Shop]:
    with Cache(redis_url, namespace="shop") as cache, Cache(redis_url, namespace="bank") as bank:

        @cache.cached(ttl="1h", key="product:{sku}", tags=["range:{kind}"])
        def product(sku: str, kind: str = "tea") -> Product:
            return Product(sku, 9.5)

        for number in range(40):
            product(f"p{number}")
        cache.set("a note", "hello", ttl=60, tags=["texts"])
        bank.set("account", 1)
        yield Shop(redis_url, cache, product, ("--url", redis_url, "--namespace", "shop"))


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes two seconds of a person's time takes a tenth of that in a test."""
    for module in ("server", "target"):
        monkeypatch.setattr(f"cachecraft.cli.{module}.TIMEOUT", 0.2)


class SlowLoad:
    """A load of the key `slow` that is under way until it is let go."""

    def __init__(self, cache: Cache) -> None:
        began, self._let_go = threading.Event(), threading.Event()

        def load() -> str:
            began.set()
            assert self._let_go.wait(10)
            return "old"

        self._thread = threading.Thread(target=lambda: cache.get_or_load("slow", load))
        self._thread.start()
        assert began.wait(10)

    def finish(self) -> None:
        self._let_go.set()
        self._thread.join()

    def __enter__(self) -> SlowLoad:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.finish()


__all__ = ["Product", "Shop", "SlowLoad", "impatient", "server", "shop"]
