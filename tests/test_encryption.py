"""With ``encryption_keys=``, Redis holds values that only who has a key can read, and nobody else can make."""

from __future__ import annotations

import dataclasses
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cachecraft import MISSING, Cache, CacheError, OptionError, OptionTypeError
from cachecraft._core import entry as envelope
from cachecraft.serializers import Keyring, PickleSerializer
from tests.redis_kit import cache, colour  # noqa: F401 - fixtures
from tests.servers import RedisServer

pytest.importorskip("cryptography")

OLD, NEW = b"o" * 32, b"n" * 16
SECRET = "the-plain-text-that-nobody-may-read"


@pytest.fixture
def sealing(redis_url: str) -> Iterator[Callable[..., Cache]]:
    """Makes caches on the shared server, in one namespace, each as another process would have it."""
    with ExitStack() as caches:

        def make(*keys: bytes, **options: Any) -> Cache:
            given: dict[str, Any] = {"encryption_keys": list(keys), **options}
            return caches.enter_context(Cache(redis_url, namespace="shop", **given))

        yield make


def everything_in(server: RedisServer) -> bytes:
    """All keys with all their bytes, as the server dumps them and as it holds them."""
    keys = server.cli("KEYS", "*")
    return b"".join(part for key in keys for part in (key, server.cli("DUMP", key), server.cli("GET", key)))


def _plain(number: int) -> dict[str, Any]:
    return {"number": number, "text": SECRET}


# -- what is in Redis ----------------------------------------------------------------------------------------


def test_what_was_stored_comes_back_in_every_process_that_has_the_key(
    sealing: Callable[..., Cache], colour: Any
) -> None:
    f, g = (sealing(OLD).cached(ttl=60, key="n:{number}")(colour.loader(_plain)) for _ in range(2))
    assert colour(f(1)) == colour(f(1)) == colour(g(1)) == _plain(1)
    assert (f.stats.loads, f.stats.hits, g.stats.loads, g.stats.hits) == (1, 1, 0, 1)
    assert colour(g.refresh(1)) == colour(f.get(1)) == _plain(1)


@pytest.mark.parametrize("size", [16, 24, 32])
def test_nothing_of_a_value_is_in_redis(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any, size: int
) -> None:
    made = sealing(os.urandom(size))
    f = made.cached(ttl=60, key="n:{number}", stale=5, cache_errors=LookupError)(colour.loader(_plain_or_fail))
    colour(f(1))
    for _ in range(2):
        with pytest.raises(LookupError, match=SECRET):
            colour(f(0))
    assert f.stats.loads == 2
    colour.on(made).set("by hand", SECRET.encode())
    raw = everything_in(redis_server)
    assert b"shop:n:1" in raw  # which a user is told
    assert SECRET.encode() not in raw
    assert b"LookupError" not in raw


def _plain_or_fail(number: int) -> dict[str, Any]:
    if not number:
        raise LookupError(SECRET)
    return _plain(number)


def test_the_same_value_is_never_sealed_alike(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any
) -> None:
    made = sealing(OLD)
    seen = set()
    for _ in range(20):
        colour.on(made).set("k", SECRET)
        payload = envelope.unpack("shop:k", redis_server.cli("GET", "shop:k")).payload
        seen.add(payload[8:])
    assert len({each[:12] for each in seen}) == len({each[12:] for each in seen}) == 20


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_large_values_are_compressed_before_they_are_encrypted(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any, codec: str
) -> None:
    if codec == "zstd":
        pytest.importorskip("zstandard")
    made = sealing(OLD, compression=codec, compress_above=1000)
    colour.on(made).set("k", SECRET * 1000)
    assert redis_server.cli("STRLEN", "shop:k") < 1000
    assert colour.on(made).get("k") == SECRET * 1000


def test_the_bound_on_values_counts_what_is_stored(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any
) -> None:
    made = sealing(OLD, max_value_bytes=1000, compress_above=None)
    assert colour.on(made).set("fits", b"x" * 950)
    assert not colour.on(made).set("too large", b"x" * 990)  # with nonce and tag
    assert made.stats.refused == 1
    assert redis_server.cli("EXISTS", "shop:fits", "shop:too large") == 1


def test_an_entry_opens_whatever_its_times_are() -> None:
    """They are numbers with a fraction where they are sealed, and whole ones in the header."""
    numbers = random.Random(7)
    for _ in range(2000):
        made = envelope.Entry(
            b"t" * 16, ("tag",), (b"s" * 16,), envelope.ENCRYPTED, 1, b"\0" * 8,
            created=1.8e9 + numbers.random() * 1e8, keep=numbers.random() * 1e5, cost=numbers.random(), payload=b"",
        )  # fmt: skip
        assert envelope.bound_to("k", envelope.unpack("k", envelope.pack("k", made))) == envelope.bound_to("k", made)


# -- who may read and write ----------------------------------------------------------------------------------


def test_keys_are_rotated_without_a_miss(sealing: Callable[..., Cache], colour: Any) -> None:
    before, between, after = sealing(OLD), sealing(NEW, OLD), sealing(NEW)
    colour.on(before).set("old", SECRET)
    assert colour.on(between).get("old") == SECRET
    assert colour.on(after).get("old") is MISSING
    colour.on(between).set("new", SECRET)
    assert colour.on(after).get("new") == SECRET
    assert colour.on(before).get("new") is MISSING


@pytest.mark.parametrize(
    ("writer", "reader"),
    [((OLD,), (NEW,)), ((OLD,), None), (None, (OLD,))],
    ids=["another key", "encrypted, read without keys", "not encrypted, read with keys"],
)
def test_what_cannot_be_trusted_is_a_counted_miss_that_heals(
    sealing: Callable[..., Cache], colour: Any, writer: Any, reader: Any
) -> None:
    writing, reading = (sealing(encryption_keys=keys) for keys in (writer, reader))
    f, g = (each.cached(ttl=60, key="k", stale=5)(colour.loader(lambda: SECRET)) for each in (writing, reading))
    assert colour(f()) == SECRET
    assert colour(g.get()) is MISSING
    assert colour(g()) == colour(g()) == SECRET
    assert g.stats.reasons == {"encryption": 1}
    assert (g.stats.loads, g.stats.hits, g.stats.refused, g.stats.backend_errors) == (1, 1, 0, 0)


def test_an_exception_that_somebody_else_wrote_is_not_raised(
    sealing: Callable[..., Cache], cache: Cache, colour: Any
) -> None:
    forging = [True]

    def load() -> int:
        if forging:
            raise LookupError(forging.pop())
        return 5

    f, g = (
        each.cached(ttl=60, key="k", cache_errors=LookupError)(colour.loader(load)) for each in (cache, sealing(OLD))
    )
    with pytest.raises(LookupError):
        colour(f())
    assert colour(g()) == 5
    assert g.stats.reasons == {"encryption": 1}


def _rewritten(server: RedisServer, key: str, to: str | None = None, **changes: Any) -> None:
    """Change a stored entry as somebody would who knows the format: all sums are right again."""
    stored = envelope.unpack(key, server.cli("GET", key))
    to = to or key
    server.cli("SET", to, envelope.pack(to, dataclasses.replace(stored, **changes)), "PX", 60_000)


def test_an_entry_moved_to_another_key_is_refused(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any
) -> None:
    made = sealing(OLD)
    f = made.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: number))
    colour(f(1))
    _rewritten(redis_server, f.key(1), to=f.key(2))
    assert colour(f.get(2)) is MISSING
    assert colour(f(2)) == 2
    assert f.stats.reasons == {"absent": 1, "encryption": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"serializer": 3}, {"flags": 0}, {"flags": envelope.ENCRYPTED | envelope.FAILURE},
        {"flags": envelope.ENCRYPTED | envelope.ZLIB}, {"flags": envelope.ENCRYPTED | 128},
        {"schema": b"\1" * 8}, {"keep": 1000.0}, {"cost": 5.0},
        {"created": 1.0}, {"token": b"t" * 16},
    ],
    ids=str,
)  # fmt: skip
def test_what_an_entry_says_about_its_payload_cannot_be_changed(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any, change: dict[str, Any]
) -> None:
    made = sealing(OLD)
    colour.on(made).set("k", SECRET)
    _rewritten(redis_server, "shop:k")
    assert colour.on(made).get("k") == SECRET, "rewriting alone changes nothing"
    _rewritten(redis_server, "shop:k", **change)
    assert colour.on(made).get("k") is MISSING


def test_an_entry_cannot_be_given_the_stamps_of_today(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any
) -> None:
    """Who kept an old entry could otherwise bring it back after its invalidation."""
    made = sealing(OLD)
    colour.on(made).set("k", "old", tags=["t"])
    kept = envelope.unpack("shop:k", redis_server.cli("GET", "shop:k"))
    colour.on(made).invalidate(tags=["t"])
    colour.on(made).set("k", "new", tags=["t"])
    now = envelope.unpack("shop:k", redis_server.cli("GET", "shop:k"))
    revived = envelope.pack("shop:k", dataclasses.replace(kept, stamps=now.stamps))
    redis_server.cli("SET", "shop:k", revived, "PX", 60_000)
    assert colour.on(made).get_or_load("k", colour.loader(lambda: "loaded")) == "loaded"
    assert made.stats.reasons["encryption"] == 1


def test_no_changed_bit_goes_unnoticed(sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any) -> None:
    made = sealing(OLD)
    colour.on(made).set("k", SECRET)
    good = envelope.unpack("shop:k", redis_server.cli("GET", "shop:k"))
    flips = random.Random(7)
    payloads = [good.payload[:cut] for cut in (0, 7, 8, 19, 20, 35, 36, len(good.payload) - 1)]
    for at in range(len(good.payload)):
        changed = good.payload[at] ^ (1 << flips.randrange(8))
        payloads.append(good.payload[:at] + bytes([changed]) + good.payload[at + 1 :])
    for payload in payloads:
        _rewritten(redis_server, "shop:k", payload=payload)
        assert colour.on(made).get("k") is MISSING
        redis_server.cli("SET", "shop:k", envelope.pack("shop:k", good), "PX", 60_000)
        assert colour.on(made).get("k") == SECRET


def test_nothing_is_decoded_before_it_is_authenticated(
    sealing: Callable[..., Cache], redis_server: RedisServer, colour: Any
) -> None:
    """Even a pickle with a right signature is not loaded where encryption is on and it is not encrypted."""
    pickles = PickleSerializer(secret=b"s")
    _Bomb.went_off = 0
    colour.on(sealing(encryption_keys=None, serializer=pickles)).set("k", _Bomb())
    assert colour.on(sealing(OLD, serializer=pickles)).get("k") is MISSING
    assert _Bomb.went_off == 0
    colour.on(sealing(encryption_keys=None, serializer=pickles)).get("k")
    assert _Bomb.went_off == 1


class _Bomb:
    went_off = 0

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    _Bomb.went_off += 1


# -- the option ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (b"short-and-secret", None), (b"not-so-secret", OptionError), ("text-secret" * 3, OptionTypeError),
        ([], OptionError), (["text-secret" * 3], OptionTypeError), ([b"x" * 32, b"another-secret"], OptionError),
        (b"", OptionError),
        (bytearray(b"b-secret" * 4), OptionTypeError), (17, OptionTypeError), ({b"k-secret" * 4}, OptionTypeError),
        ([None], OptionTypeError),
    ],
    ids=repr,
)  # fmt: skip
def test_keys_that_cannot_be_used_are_refused_and_not_shown(keys: Any, kind: type[CacheError] | None) -> None:
    if kind is None:
        Cache("redis://127.0.0.1:1/0", encryption_keys=keys)
        return
    with pytest.raises(kind, match="encryption_keys=") as raised:
        Cache("redis://127.0.0.1:1/0", encryption_keys=keys)
    assert "secret" not in str(raised.value)
    assert "urandom" in str(raised.value)
    assert raised.value.__context__ is None


def test_memory_has_nothing_to_encrypt() -> None:
    with pytest.raises(OptionError, match="memory:// stays in this process; leave it out"):
        Cache("memory://", encryption_keys=OLD)


def test_without_the_package_the_remedy_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(OptionError, match=r"install cachecraft with its extra \[crypto\]"):
        Cache("redis://127.0.0.1:1/0", encryption_keys=OLD)
    Cache("redis://127.0.0.1:1/0")


def test_a_keyring_shows_no_key() -> None:
    made = Cache("redis://127.0.0.1:1/0", encryption_keys=[b"k" * 32, b"l" * 32])
    assert repr(made.settings.encryption_keys) == "<Keyring: 2 keys>"
    for shown in (repr(made), repr(made.settings), repr(vars(Keyring(b"k" * 32)))):
        assert "kkk" not in shown
