"""What went into Redis comes out equal and of the same type, or is not stored; bytes found there are not trusted."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import logging
import pathlib
import random
import re
import uuid
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from cachecraft import MISSING, Cache
from cachecraft._core import entry as envelope
from cachecraft.serializers import JsonSerializer, MsgpackSerializer
from tests.callers import until
from tests.redis_kit import cache, colour, other, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer


class Shade(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Line:
    ends: list[Point]
    shade: Shade = Shade.RED


@dataclass(frozen=True)
class User:
    id: int
    lines: tuple[Line, ...] = ()


def _user(number: int) -> User:
    return User(number, (Line([Point(number, 2)]),))


# -- values --------------------------------------------------------------------------------------------------

VALUES = [
    None, False, True, 0, 0.0, -0.0, "", b"", [], {}, (), set(), frozenset(),
    2**63, -(2**200), 1.5, float("inf"), 1 + 2j, "é\ud800", bytearray(b"x"), {1: 2, None: (3,)}, [(1, [2, {3}])],
    datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), datetime.date(2024, 1, 1), datetime.timedelta(1, 2, 3),
    decimal.Decimal("1.10"), uuid.UUID(int=5), pathlib.PurePosixPath("/a"), OrderedDict(a=1),
]  # fmt: skip


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}:{value!a:.30}")
def test_a_hit_is_equal_to_the_miss_and_of_the_same_type(cache: Cache, other: Cache, colour: Any, value: Any) -> None:
    loads: list[Any] = []

    def load() -> Any:
        loads.append(1)
        return value

    for each in (cache, cache, other):
        assert _same(colour(each.cached(ttl=60)(colour.loader(load))()), value)
    assert len(loads) == 1


def test_dataclasses_named_tuples_and_enums_of_the_annotation_come_back_as_they_were(
    cache: Cache, other: Cache, colour: Any
) -> None:
    here, there = (each.cached(ttl=60)(colour.loader(_user)) for each in (cache, other))
    assert colour(here(1)) == colour(there(1)) == _user(1)
    assert (there.stats.hits, there.stats.refused) == (1, 0)
    colour(there(1)).lines[0].ends.clear()
    assert colour(here(1)) == _user(1)  # what one caller does to its own, nobody else sees


@pytest.mark.parametrize("value", [object(), lambda: 1, [1, object()]], ids=["object", "function", "nested"])
def test_what_cannot_be_stored_is_the_callers_all_the_same_and_said_once(
    cache: Cache, other: Cache, colour: Any, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    caplog.set_level(logging.WARNING)
    f = cache.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: value))
    for number in (1, 1, 2):
        assert colour(f(number)) is value
    assert (f.stats.refused, f.stats.hits, f.stats.loads) == (3, 0, 3)
    assert len(caplog.records) == 1
    assert "is not stored" in caplog.text
    # Nobody waits for a lease that its holder will not use.
    assert colour(other.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: 5))(1)) == 5


def test_a_refusal_by_hand_is_said_once_whatever_the_options(
    cache: Cache, colour: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for ttl in (5, 6, 7):
        assert colour.on(cache).set("k", object(), ttl=ttl) is False
    assert len(caplog.records) == 1
    assert colour.on(cache).get("k") is MISSING
    assert cache.stats.refused == 3


def test_what_is_too_large_is_not_stored(redis_url: str, redis_server: RedisServer, colour: Any) -> None:
    with Cache(redis_url, namespace="shop", max_value_bytes=1000, compress_above=None) as small:
        f = small.cached(ttl=60, key="n:{size}")(colour.loader(lambda size: "x" * size))
        for _ in range(2):
            assert len(colour(f(2000))) == 2000
            assert len(colour(f(900))) == 900
        assert (f.stats.refused, f.stats.hits, f.stats.loads) == (2, 1, 3)
        assert redis_server.cli("EXISTS", f.key(2000)) == 0


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_large_values_are_compressed_and_small_or_noisy_ones_are_not(
    redis_url: str, redis_server: RedisServer, colour: Any, codec: str
) -> None:
    if codec == "zstd":
        pytest.importorskip("zstandard")
    noise = random.Random(1).randbytes(20_000)
    with Cache(redis_url, namespace="shop", compression=codec, compress_above=1000) as squeezing:
        for name, value, least, most in [
            ("plain", b"x" * 20_000, 0, 1000),
            ("noise", noise, 20_000, 20_500),
            ("small", b"x" * 900, 900, 1200),
        ]:
            colour.on(squeezing).set(name, value)
            assert least <= redis_server.cli("STRLEN", f"shop:{name}") <= most
            assert colour.on(squeezing).get(name) == value


def test_an_entry_compressed_as_one_cannot_read_here_is_a_miss(
    redis_url: str, cache: Cache, colour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard")
    with Cache(redis_url, namespace="shop", compression="zstd", compress_above=10) as squeezing:
        colour.on(squeezing).set("k", "x" * 1000)
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert colour.on(cache).get_or_load("k", colour.loader(lambda: 5)) == 5
    assert cache.stats.reasons == {"corrupt": 1}


def test_when_decides_what_is_kept(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="n:{number}", when=lambda result: result > 1)(colour.loader(lambda number: number))
    for number in (1, 1, 2, 2):
        colour(f(number))
    assert (f.stats.hits, f.stats.loads, f.stats.not_kept) == (1, 3, 2)


@pytest.mark.parametrize("option", ["when", "ttl", "tags"])
def test_an_option_that_raises_costs_the_caller_nothing(cache: Cache, colour: Any, option: str) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    f = cache.cached(key="n:{number}", **{option: broken})(colour.loader(lambda number: number))
    assert colour(f(1)) == 1
    assert (f.stats.refused, f.stats.errors) == (1, 0)


def test_more_tags_than_an_entry_can_carry_cost_the_caller_nothing(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=lambda result, number: [f"t{at}" for at in range(result)])(
        colour.loader(lambda number: number)
    )
    assert colour(f(300)) == 300
    assert f.stats.refused == 1
    assert colour(f(200)) == colour(f(200)) == 200
    assert f.stats.hits == 1


def test_long_tags_that_do_not_fit_cost_the_caller_nothing(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=[f"{at}{'x' * 490}" for at in range(200)])(
        colour.loader(lambda number: number)
    )
    assert colour(f(1)) == 1
    assert f.stats.refused == 1


def test_another_serializer_reads_only_its_own(redis_url: str, cache: Cache, colour: Any) -> None:
    plain = cache.cached(ttl=60, key="k")(colour.loader(_eleven))
    json = cache.cached(ttl=60, key="k", serializer=JsonSerializer())(colour.loader(_eleven))
    colour(plain())
    assert colour(json.get()) is MISSING
    assert colour(json()) == 11
    assert json.stats.reasons == {"corrupt": 1}
    assert colour(plain.get()) is MISSING


def _eleven() -> int:
    return 11


class _Moody:
    """Somebody's serializer, whose bytes are readable on good days."""

    id = 200

    def dumps(self, value: object) -> bytes:
        return repr(value).encode()

    def loads(self, data: bytes) -> object:
        raise KeyError("not what a serializer should raise")


def test_a_serializer_that_raises_what_it_likes_is_a_miss(cache: Cache, colour: Any) -> None:
    f = cache.cached(ttl=60, serializer=_Moody())(colour.loader(_eleven))
    assert colour(f()) == colour(f()) == 11
    assert f.stats.reasons == {"absent": 1, "corrupt": 1}


# -- beta ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "chance", "early"),
    [(10, 0.5, False), (10, 0.7, True), (50, 0.9, False), (50, 0.995, True), (500, 0.999999, False)],
)
def test_with_beta_an_early_refresh_comes_exactly_when_the_formula_says(
    redis_url: str, redis_server: RedisServer, colour: Any, left: int, chance: float, early: bool
) -> None:
    """A load that took ten seconds is refreshed with ``left`` seconds to go if ``-10 ln(1 - chance) >= left``."""
    with Cache(redis_url, namespace="shop", random=lambda: chance) as made:
        f = made.cached(ttl=600, key="k", beta=1.0, jitter=None)(colour.loader(_eleven))
        colour(f())
        stored = envelope.unpack(f.key(), redis_server.cli("GET", f.key()))
        slow = envelope.pack(f.key(), dataclasses.replace(stored, cost=10.0))
        redis_server.cli("SET", f.key(), slow, "PX", left * 1000)
        assert colour(f()) == 11
        until(lambda: f.stats.loads == 1 + early and not made.keeper.refreshing)  # type: ignore[attr-defined]  # a RemoteKeeper
        assert (f.stats.refreshes, f.stats.hits, f.stats.stale) == (early, 1, 0)
        assert (redis_server.cli("TTL", f.key()) > 550) == early


# -- remembered exceptions -----------------------------------------------------------------------------------


class NotFound(Exception):
    def __init__(self, number: int, *, hint: str) -> None:
        super().__init__(f"no {number}")
        self.number = number
        self.hint = hint


def _find(number: int) -> int:
    if number == 1:
        raise NotFound(number, hint="try 2")
    if number == 2:
        raise FileNotFoundError(2, "gone", "a.txt")
    if number == 3:
        raise KeyError("sub")
    raise ConnectionRefusedError("a subclass of OSError, but not named")


def test_a_remembered_exception_is_raised_in_other_processes_as_it_was(
    cache: Cache, other: Cache, colour: Any, redis_server: RedisServer
) -> None:
    options = {"ttl": 600, "key": "n:{number}", "cache_errors": {NotFound: "30s", FileNotFoundError: 5, KeyError: 5}}
    f, g = (each.cached(**options)(colour.loader(_find)) for each in (cache, other))
    for number, kind in ((1, NotFound), (2, FileNotFoundError), (3, KeyError)):
        caught = []
        for each in (f, g, g):
            with pytest.raises(kind) as raised:
                colour(each(number))
            caught.append(raised.value)
        first, second, third = caught
        assert type(second) is type(first)
        assert (str(second), second.args, vars(second)) == (str(first), first.args, vars(first))
        assert second is not third  # each caller its own, with a traceback of its own
    assert (f.stats.loads, g.stats.loads, g.stats.hits) == (3, 0, 6)
    assert 25 < redis_server.cli("TTL", f.key(1)) <= 30
    assert colour(g.get(1)) is MISSING


def test_subclasses_are_not_remembered_and_the_log_says_what_to_name(
    cache: Cache, other: Cache, colour: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for each in (cache, other):
        f = each.cached(ttl=600, key="n:{number}", cache_errors=OSError)(colour.loader(_find))
        with pytest.raises(ConnectionRefusedError):
            colour(f(9))
        assert (f.stats.loads, f.stats.refused) == (1, 1)
    said = "ConnectionRefusedError is a subclass of OSError.*name it in cache_errors"
    assert len([line for line in caplog.messages if re.search(said, line)]) == 2, "each cache says so once"


def test_the_very_class_that_is_named_decides_how_long(cache: Cache, colour: Any, redis_server: RedisServer) -> None:
    named = {OSError: 100, FileNotFoundError: 50}
    f = cache.cached(ttl=600, key="n:{number}", cache_errors=named)(colour.loader(_find))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            colour(f(2))
    assert f.stats.loads == 1
    assert 40 < redis_server.cli("TTL", f.key(2)) <= 50


def _fail_oddly() -> None:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "cannot be made without __init__")


def test_an_exception_that_would_come_back_different_is_not_remembered(cache: Cache, other: Cache, colour: Any) -> None:
    for each in (cache, other):
        f = each.cached(ttl=600, cache_errors=UnicodeDecodeError)(colour.loader(_fail_oddly))
        with pytest.raises(UnicodeDecodeError, match="cannot be made"):
            colour(f())
        assert (f.stats.loads, f.stats.refused) == (1, 1)


# -- bytes found there ---------------------------------------------------------------------------------------


def _damaged(good: bytes, foreign: bytes) -> list[tuple[str, bytes]]:
    """Bytes that may stand under a key, with valid stamps wherever they are long enough to have any."""
    stamps = good[envelope.HANDLE]
    start = envelope.HANDLE + 1 + 16 * stamps
    made = [
        ("empty", b""),
        ("text", b"somebody's text"),
        ("letter", b"V"),
        ("handle", good[:17]),
        ("lone placeholder", b"L"),
        ("placeholder cut off", b"L" + good[1:30]),
        ("placeholder of 255 stamps", b"L" + b"t" * 16 + b"\xff" + b"s" * 100),
        ("pickle", b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR."),
        ("newer format", good[:start] + b"\x02" + good[start + 1 :]),
        ("older format", good[:start] + b"\x00" + good[start + 1 :]),
        ("another key's entry", foreign),
        ("too long", good + b"x"),
    ]
    made += [(f"cut at {at}", good[:at]) for at in (start, start + 3, start + 40, len(good) - 1)]
    flips = random.Random(7)
    for _ in range(60):
        at = flips.randrange(start, len(good))
        made.append((f"flipped at {at}", good[:at] + bytes([good[at] ^ (1 << flips.randrange(8))]) + good[at + 1 :]))
    return made


def test_damaged_foreign_and_unknown_bytes_are_counted_misses(
    cache: Cache, redis_server: RedisServer, colour: Any
) -> None:
    f = cache.cached(ttl=60, key="n:{number}", tags=["t"])(colour.loader(_user_like))
    colour(f(1))
    colour(f(2))
    good, foreign = (redis_server.cli("GET", f.key(number)) for number in (1, 2))
    for name, slot in _damaged(good, foreign):
        redis_server.cli("SET", f.key(1), slot, "PX", 60_000)
        misses = f.stats.misses
        assert colour(f(1)) == _user_like(1), name
        assert f.stats.misses == misses + 1, name
        assert redis_server.cli("GET", f.key(1))[envelope.HANDLE :] is not None, name
        assert colour(f.get(1)) == _user_like(1), name  # and it is whole again
    assert f.stats.reasons["corrupt"] > 50
    assert f.stats.backend_errors == 0


def _user_like(number: int) -> dict[str, Any]:
    return {"id": number, "name": "x" * 20, "tags": [1.5, None, (1, 2)]}


def test_another_keys_entry_is_never_served_though_all_else_fits(
    cache: Cache, redis_server: RedisServer, colour: Any
) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: number))
    for number in (1, 2):
        colour(f(number))
    redis_server.cli("COPY", f.key(2), f.key(1), "REPLACE")
    assert colour(f.get(1)) is MISSING
    assert colour(f(1)) == 1
    assert f.stats.reasons["corrupt"] == 1


def test_flags_of_a_later_release_are_a_miss(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    colour.on(cache).set("k", [1])
    stored = envelope.unpack("shop:k", redis_server.cli("GET", "shop:k"))
    later = envelope.pack("shop:k", dataclasses.replace(stored, flags=128))
    redis_server.cli("SET", "shop:k", later, "PX", 60_000)
    assert colour.on(cache).get("k") is MISSING


def test_a_bomb_stays_small(cache: Cache, redis_server: RedisServer, colour: Any) -> None:
    colour.on(cache).set("k", [1])
    stored = envelope.unpack("shop:k", redis_server.cli("GET", "shop:k"))
    payload = zlib.compress(MsgpackSerializer(max_bytes=2**28).dumps(b"\0" * (100 * 2**20)))
    bomb = envelope.pack("shop:k", dataclasses.replace(stored, flags=envelope.ZLIB, payload=payload))
    redis_server.cli("SET", "shop:k", bomb, "PX", 60_000)
    assert colour.on(cache).get_or_load("k", colour.loader(lambda: 5)) == 5
    assert cache.stats.reasons["corrupt"] == 1


@pytest.mark.parametrize("command", [("RPUSH", "x"), ("HSET", "a", "b"), ("SADD", "x")], ids=lambda each: each[0])
def test_a_foreign_type_under_our_key_never_raises(
    cache: Cache, redis_server: RedisServer, colour: Any, command: tuple[str, ...]
) -> None:
    f = cache.cached(ttl=60, key="n:{number}")(colour.loader(lambda number: number))
    redis_server.cli(command[0], f.key(1), *command[1:])
    redis_server.cli("PEXPIRE", f.key(1), 60_000)
    for _ in range(3):
        assert colour(f(1)) == 1
    assert colour(f.get(1)) is MISSING
    assert (f.stats.hits, f.stats.misses, f.stats.loads) == (0, 3, 3)
    assert f.stats.backend_errors > 0
    assert colour(f.refresh(1)) == 1
    assert colour(f.invalidate(1)) == 1  # which is how it gets out of the way
    colour(f(1))
    assert colour(f.get(1)) == 1
