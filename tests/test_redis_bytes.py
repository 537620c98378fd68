"""Entries that somebody forged, with everything right but their payload: counted misses in bounded memory (P9)."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import tracemalloc
import zlib
from typing import Any

import pytest

from cachecraft import MISSING, Cache
from cachecraft._core import entry as envelope
from cachecraft.serializers import PickleSerializer
from tests.callers import Async, Sync
from tests.redis_kit import cache, colour  # noqa: F401 - fixtures
from tests.servers import RedisServer

Colour = Sync | Async

VALUE = {"id": 1, "name": "x" * 20, "tags": [1.5, None, (1, 2)]}


def _forge(server: RedisServer, key: str, **changes: Any) -> None:
    """Put the present entry there with changes, its digest, stamps and checksum as they should be."""
    stored = envelope.unpack(key, server.cli("GET", key))
    server.cli("SET", key, envelope.pack(key, dataclasses.replace(stored, **changes)), "PX", 60_000)


class Mine:
    """A pickle that would leave a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


BOMBS = {
    "a list, 100,000 deep": b"\x91" * 100_000 + b"\xc0",
    "a map, 100,000 deep": b"\x81\xa1k" * 100_000 + b"\xc0",
    "tags, 100,000 deep": b"\xc1" + b"\xc7\x01\x01" * 100_000,
    "a list of 2**32 items": b"\xdd\xff\xff\xff\xff" + b"\xc0" * 9000,
    "a map of 2**32 pairs": b"\xdf\xff\xff\xff\xff" + b"\xc0" * 9000,
    "a text of 4 GB": b"\xdb\xff\xff\xff\xff" + b"x" * 9000,
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff" + b"x" * 9000,
    "a thing of its own of 4 GB": b"\xc9\xff\xff\xff\xff\x01" + b"x" * 9000,
    "lists in lists, each of 2**16": b"\xdc\xff\xff" * 3000,
    "nothing": b"",
    "a pickle": pickle.dumps(VALUE),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_payload_that_lies_is_a_counted_miss_in_bounded_memory(
    cache: Cache, redis_server: RedisServer, colour: Colour, name: str
) -> None:
    f = cache.cached(ttl=60, key="k")(colour.loader(lambda: VALUE))
    assert colour(f()) == VALUE
    _forge(redis_server, f.key(), payload=BOMBS[name], flags=0)
    tracemalloc.start()
    try:
        assert colour(f()) == VALUE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * max(len(BOMBS[name]), 10_000)
    assert (f.stats.reasons, f.stats.loads, f.stats.backend_errors) == ({"absent": 1, "corrupt": 1}, 2, 0)
    assert colour(f.get()) == VALUE  # and it is whole again


@pytest.fixture(scope="module")
def swelling() -> bytes:
    """100 MB in 100 KB; what a compressed value may come to is 64 MB."""
    return zlib.compress(b"\xc4\xff" + bytes(100 * 2**20), 1)


@pytest.mark.parametrize("bomb", ["zlib", "zlib in zlib", "cut off", "no zlib"])
def test_a_payload_that_swells_is_a_counted_miss_in_bounded_memory(
    cache: Cache, redis_server: RedisServer, colour: Colour, swelling: bytes, bomb: str
) -> None:
    f = cache.cached(ttl=60, key="k")(colour.loader(lambda: VALUE))
    colour(f())
    payload = {
        "zlib": swelling,
        "zlib in zlib": zlib.compress(swelling),
        "cut off": swelling[:-9],
        "no zlib": b"x" * 99,
    }
    _forge(redis_server, f.key(), payload=payload[bomb], flags=envelope.ZLIB)
    tracemalloc.start()
    try:
        assert colour(f()) == VALUE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150 * 2**20
    assert f.stats.reasons == {"absent": 1, "corrupt": 1}


def test_a_pickle_is_not_run_unless_it_is_signed(
    cache: Cache, redis_url: str, redis_server: RedisServer, colour: Colour, tmp_path: Any
) -> None:
    """Neither by a cache that knows no pickles, nor by one that signs its own."""
    mark = str(tmp_path / "run")
    mine = pickle.dumps(Mine(mark))
    signing = PickleSerializer(secret="s" * 32)
    forged = PickleSerializer(secret="t" * 32).dumps(VALUE)
    with Cache(redis_url, namespace="shop", serializer=signing) as pickling:
        for each, payloads in ((cache, [mine]), (pickling, [mine, b"\0" * 64 + mine, forged[:-9], forged])):
            f = each.cached(ttl=60, key="k")(colour.loader(lambda: VALUE))
            for payload in payloads:
                colour(f.refresh())
                for serializer in (1, signing.id):
                    _forge(redis_server, f.key(), payload=payload, serializer=serializer, flags=0)
                    assert colour(f.get()) is MISSING
                    assert colour(f()) == VALUE
            assert f.stats.reasons["corrupt"] == 2 * len(payloads)
    assert not os.path.exists(mark)


def test_fuzzed_slots_never_raise_and_never_become_another_value(
    cache: Cache, redis_server: RedisServer, colour: Colour
) -> None:
    """Whole slots, handle and stamps included: flips, cuts, repeats, swaps and noise."""
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"], wait=0.0)(
        colour.loader(lambda number: dict(VALUE, id=number))
    )
    colour(f(1)), colour(f(2))
    slots = [redis_server.cli("GET", f.key(number)) for number in (1, 2)]
    chance = random.Random(99)
    for turn in range(300):
        slot = bytearray(slots[chance.random() < 0.2])
        for _ in range(chance.randrange(1, 4)):
            at, to = sorted(chance.randrange(len(slot) + 1) for _ in range(2))
            how = chance.randrange(5)
            if how == 0 and at < len(slot):
                slot[at] ^= 1 << chance.randrange(8)
            elif how == 1:
                del slot[at:to]
            elif how == 2:
                slot[at:at] = slot[at:to]
            elif how == 3:
                slot[at:to] = chance.randbytes(to - at)
            else:
                slot[at:] = slots[1][at:]
        redis_server.cli("SET", f.key(1), bytes(slot), "PX", 60_000)
        assert colour(f(1))["id"] == 1, (turn, bytes(slot))
    assert f.stats.errors == f.stats.backend_errors == 0


TYPES = [("RPUSH", "x"), ("HSET", "a", "b"), ("SADD", "x"), ("ZADD", 1, "x"), ("XADD", "*", "a", "b"), ("PFADD", "x")]


@pytest.mark.parametrize("command", TYPES, ids=lambda each: each[0])
@pytest.mark.parametrize("place", ["~root", "~tag:t", "~runid", "k"])
def test_a_foreign_type_under_any_of_our_keys_never_raises(
    cache: Cache, redis_server: RedisServer, colour: Colour, command: tuple[Any, ...], place: str
) -> None:
    redis_server.cli(command[0], f"shop:{place}", *command[1:])
    redis_server.cli("PEXPIRE", f"shop:{place}", 60_000)
    f = cache.cached(ttl=60, key="k", tags=["t"], wait=0.1)(colour.loader(lambda: VALUE))
    assert [colour(f()) for _ in range(3)] == [VALUE] * 3
    assert f.stats.errors == 0
    colour(f.invalidate())
    colour.on(cache).invalidate(tags=["t"])
    colour.on(cache).clear()  # which is how all of it gets out of the way
    assert colour(f()) == VALUE
    assert colour(f.get()) == VALUE
