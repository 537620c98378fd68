"""`cachecraft keys`, `ttl`, `inspect`: what they tell of a real server, to people and scripts; they write nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft._core.entry import FAILURE, Entry, outline, pack, unpack
from cachecraft.cli.lifetimes import gather
from cachecraft.cli.slots import Slot
from tests.cli_kit import Shop, SlowLoad, server, shop  # noqa: F401 - fixtures
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.terminal import Ended, cli

WEIRD = b"shop:\x1b[31mred\xff\xe2\x80\xaeback"


def inspect(shop: Shop, key: str, *more: str) -> tuple[Ended, dict[str, Any]]:
    ended = cli("inspect", key, *shop.where, "--json", *more)
    assert ended.err == ""
    return ended, ended.document


# -- keys ------------------------------------------------------------------------------------------------------


def test_keys_lists_a_namespace_and_nothing_else(shop: Shop) -> None:
    ended = cli("keys", *shop.where)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(ended.lines) == sorted([shop.product.key(f"p{n}") for n in range(40)] + ["shop:a%20note"])


def test_a_pattern_means_what_it_means_to_a_program(shop: Shop) -> None:
    assert sorted(cli("keys", "product:p1*", *shop.where).lines) == sorted(
        shop.product.key(f"p{n}") for n in (1, *range(10, 20))
    )
    assert cli("keys", "a not?", *shop.where).lines == ["shop:a%20note"]


def test_json_tells_of_each_key_in_a_line(shop: Shop) -> None:
    (line,) = cli("keys", "a note", *shop.where, "--json").lines
    told = json.loads(line)
    assert told == {
        "key": "shop:a%20note",
        "kind": "entry",
        "internal": False,
        "expires_in_s": pytest.approx(70, abs=12),
        "bytes": pytest.approx(130, abs=60),
    }


def test_what_the_cache_keeps_for_itself_is_listed_when_asked_for(shop: Shop) -> None:
    kinds = {
        each["key"]: each["kind"] for each in map(json.loads, cli("keys", *shop.where, "--internal", "--json").lines)
    }
    assert kinds["shop:~root"] == kinds["shop:~tag:range:tea"] == "stamp"
    assert kinds["shop:~runid"] == "other"
    assert sorted(cli("keys", "~tag:*", *shop.where, "--internal").lines) == ["shop:~tag:range:tea", "shop:~tag:texts"]
    assert cli("keys", "~tag:*", *shop.where).code == 1


def test_a_load_under_way_is_told_from_an_entry(shop: Shop) -> None:
    with SlowLoad(shop.cache):
        assert cli("keys", "slow", *shop.where, "--long").out.startswith("load ")


def test_nothing_found_is_an_exit_code_with_a_hint(shop: Shop) -> None:
    nothing = cli("keys", "nope:*", *shop.where)
    assert (nothing.code, nothing.out) == (1, "")
    assert nothing.err == "cachecraft: no key matches in the namespace 'shop'\n"
    assert "try 'product:*'" in cli("keys", "shop:product:*", *shop.where).err
    assert "--namespace" in cli("keys", "--url", shop.url).err


def test_a_limit_is_kept(shop: Shop) -> None:
    assert len(cli("keys", *shop.where, "--limit", "3").lines) == 3


@pytest.mark.plain_keys
def test_what_a_terminal_would_obey_is_spelt_out(shop: Shop, redis_server: RedisServer) -> None:
    redis_server.cli("SET", WEIRD, WEIRD)
    for command in (["keys"], ["keys", "--long"], ["keys", "--json"], ["ttl"], ["ttl", "--json"], ["doctor"]):
        ended = cli(*command, *shop.where)
        assert "\x1b" not in ended.out
        assert "\u202e" not in ended.out
    assert "shop:\\x1b[31mred\\xff\\u202eback" in cli("keys", *shop.where).lines
    seen = cli("inspect", WEIRD.decode("utf-8", "surrogateescape"), *shop.where)
    assert (seen.code, "\x1b" in seen.out) == (1, False)
    assert "\\x1b[31mred\\xff\\u202eback  corrupt" in seen.out


# -- ttl -------------------------------------------------------------------------------------------------------


def test_ttl_tells_by_function_whether_entries_end_together(shop: Shop) -> None:
    @shop.cache.cached(ttl="2h", jitter=None, key="herd:{n}")
    def herd(n: int) -> int:
        return n

    for number in range(40):
        herd(number)
    ended = cli("ttl", *shop.where, "--json")
    assert ended.code == 1  # because of the herd
    told = {each["name"].rpartition(".")[2]: each for each in ended.document["functions"]}
    assert told["product"]["verdict"] == "spread"
    assert told["product"]["spread"] == pytest.approx(0.078, abs=0.02)
    assert 3960 - 60 < told["product"]["left_min_s"] < told["product"]["left_max_s"] <= 4320
    assert (told["herd"]["verdict"], told["herd"]["peak"]) == ("together", 1.0)
    assert told["herd"]["lifetime_s"] == pytest.approx(7200, abs=2)
    assert told["* by hand"]["verdict"] == "few"
    bars = {each["below_s"]: each["entries"] for each in ended.document["histogram"] if each["entries"]}
    assert bars == {300: 1, 7200: 80}
    assert "all at once" in (text := cli("ttl", *shop.where).out)
    assert "give it jitter=" in text


def test_ttl_is_content_where_the_jitter_works(shop: Shop) -> None:
    ended = cli("ttl", *shop.where)
    assert ended.code == 0
    assert "of 41 keys in the namespace 'shop'" in ended.out
    assert "The jitter spreads them" in ended.out


@pytest.mark.plain_keys
def test_ttl_names_keys_that_never_end(shop: Shop, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "shop:forever", "x")
    ended = cli("ttl", *shop.where)
    assert ended.code == 1
    assert "1 key without a ttl, which no cache of ours stored: shop:forever" in ended.out


def test_ttl_counts_what_is_kept_beyond_its_ttl_and_loads_apart(shop: Shop, redis_server: RedisServer) -> None:
    _let_go_stale(shop, redis_server)
    with SlowLoad(shop.cache):
        told = cli("ttl", *shop.where, "--json").document
    assert (told["past_ttl"], told["other"], told["keys"]) == (1, 1, 43)


def test_ttl_of_a_sample_says_so(shop: Shop) -> None:
    told = cli("ttl", *shop.where, "--sample", "10", "--json").document
    assert (told["keys"], told["sampled"]) == (10, True)
    assert "a sample of 10 keys" in cli("ttl", *shop.where, "--sample", "10").out


def test_ttl_of_nothing_is_an_exit_code(redis_url: str) -> None:
    ended = cli("ttl", "--url", redis_url, "--namespace", "empty")
    assert (ended.code, ended.out, ended.err) == (1, "", "cachecraft: there are no keys in the namespace 'empty'\n")


def _stored(number: int, *, age: float, left: float, flags: int = 0) -> Slot:
    tags = ("shop:~root", "shop:~fn:shop.f")
    made = Entry(bytes(16), tags, (bytes(16),) * 2, flags, 1, bytes(8), time.time() - age, 0.0, 0.1, b"value")
    key = f"shop:f:{number}"
    return Slot(key.encode(), "entry", left, None, pack(key, made))


@pytest.mark.parametrize(
    ("ages", "lifetimes", "verdict"),
    [
        (lambda n: 600, lambda n: 3600, "together"),
        (lambda n: 50 * n, lambda n: 3600, "apart"),
        (lambda n: 600, lambda n: 3960 + 7 * n, "spread"),
        (lambda n: 50 * n, lambda n: 3960 + 7 * n, "spread"),
    ],
)
def test_jitter_is_told_from_lifetimes_and_not_from_what_is_left_of_them(
    ages: Callable[[int], float], lifetimes: Callable[[int], float], verdict: str
) -> None:
    """What was stored at different times ends at different times too, and would not if it were stored anew at once."""
    slots = [_stored(n, age=ages(n), left=lifetimes(n) - ages(n)) for n in range(50)]
    slots += [_stored(n, age=0, left=30, flags=FAILURE) for n in range(50, 200)]  # of another ttl, and no matter here
    (group,) = gather(slots, "shop:").groups
    assert (group.name, len(group.left), group.verdict) == ("shop.f", 50, verdict)
    assert 3600 <= group.lifetime <= 4320


# -- inspect ---------------------------------------------------------------------------------------------------


def test_inspect_decodes_an_entry(shop: Shop) -> None:
    ended, told = inspect(shop, "product:p7")
    assert ended.code == 0
    assert (told["key"], told["state"], told["reason"]) == ("shop:product:p7", "fresh", None)
    assert 3900 < told["left_s"] <= 4320
    kinds = [(each["kind"], each["name"].rpartition(".")[2], each["holds"]) for each in told["stamps"]]
    assert kinds == [("namespace", "", True), ("function", "product", True), ("tag", "range:tea", True)]
    entry = told["entry"]
    assert 0 <= entry["age_s"] < 60
    assert 0 <= entry["load_time_s"] < 10
    assert (entry["serializer"], entry["compression"]) == ("msgpack", None)
    assert (entry["encrypted"], entry["exception"], entry["kept_after_ttl_s"]) == (False, False, 0)
    assert 0 < entry["payload_bytes"] < told["bytes"]
    assert "value" not in told


@pytest.mark.parametrize("key", ["a note", "shop:a%20note"])
def test_a_key_is_named_as_in_a_program_or_as_it_is_listed(shop: Shop, key: str) -> None:
    assert inspect(shop, key)[1]["key"] == "shop:a%20note"


def test_the_value_is_shown_when_asked_for_without_the_programs_classes(shop: Shop) -> None:
    told = inspect(shop, "product:p7", "--value")[1]
    assert (told["value"], told["value_error"]) == ({"sku": "p7", "price": 9.5}, None)
    assert "tests.cli_kit.Product(sku='p7', price=9.5)" in cli("inspect", "product:p7", *shop.where, "--value").out


def test_a_tag_that_fell_is_named(shop: Shop) -> None:
    shop.cache.invalidate(tags=["range:tea"])
    ended, told = inspect(shop, "product:p7")
    assert (ended.code, told["state"], told["reason"]) == (1, "invalidated", "by tag range:tea")
    assert [each["holds"] for each in told["stamps"]] == [True, True, False]


def _let_go_stale(shop: Shop, redis_server: RedisServer) -> None:
    """An entry under `stale` whose ttl ended half a minute ago, and that is kept for half a minute more."""
    shop.cache.cached(ttl=60, stale=60, jitter=None, key="stale")(lambda: 1)()
    redis_server.cli("PEXPIRE", "shop:stale", 30_000)


def test_an_entry_past_its_ttl_is_stale(shop: Shop, redis_server: RedisServer) -> None:
    _let_go_stale(shop, redis_server)
    ended, told = inspect(shop, "stale")
    assert (ended.code, told["state"]) == (0, "stale")
    assert -40 < told["left_s"] <= -30
    assert told["entry"]["kept_after_ttl_s"] == 60
    assert "none since 3" in cli("inspect", "stale", *shop.where).out


def test_a_load_under_way_is_a_placeholder_with_a_lease(shop: Shop) -> None:
    with SlowLoad(shop.cache):
        ended, told = inspect(shop, "slow")
        assert (ended.code, told["state"], told["entry"]) == (0, "loading", None)
        assert 0 < told["left_s"] <= 5
        shop.cache.clear()
        assert inspect(shop, "slow")[1]["state"] == "invalidated"


def test_what_another_release_keeps_aside_is_found_and_decoded(shop: Shop) -> None:
    other = shop.cache.cached(ttl=60, key="product:{sku}", version="2")(lambda sku: [sku])
    assert other("p7") == ["p7"]
    (aside,) = inspect(shop, "product:p7", "--aside")[1]["aside"]
    assert aside.startswith("shop:product:p7~s")
    told = inspect(shop, aside, "--value")[1]
    assert (told["state"], told["value"]) == ("fresh", ["p7"])
    assert told["stamps"][0] == {"kind": "entry", "name": "shop:product:p7", "holds": True}
    shop.product.invalidate("p7")
    assert inspect(shop, aside)[1]["reason"] == "by entry shop:product:p7"


def test_a_refresh_under_way_is_told(shop: Shop, redis_server: RedisServer) -> None:
    redis_server.cli("SET", "shop:product:p7~r", "x", "PX", 5000)
    assert inspect(shop, "product:p7")[1]["refreshing"] is True


def test_a_remembered_exception_is_shown_as_one(shop: Shop) -> None:
    def missing() -> None:
        raise LookupError("gone")

    remembered = shop.cache.cached(ttl=60, key="missing", cache_errors=[LookupError])(missing)
    with pytest.raises(LookupError):
        remembered()
    told = inspect(shop, "missing", "--value")[1]
    assert told["entry"]["exception"] is True
    assert told["value"] == "a remembered exception('gone')"


def test_compression_and_encryption_are_told_and_ciphertext_stays_closed(shop: Shop) -> None:
    pytest.importorskip("cryptography")
    with Cache(shop.url, namespace="shop", encryption_keys=[bytes(16)]) as sealed:
        sealed.set("sealed", "x" * 100_000)
    told = inspect(shop, "sealed", "--value")[1]
    assert (told["entry"]["compression"], told["entry"]["encrypted"]) == ("zlib", True)
    assert (told["value"], told["value_error"]) == (None, "it is encrypted, and only the program has the keys")


def test_a_pickle_is_never_opened(shop: Shop, redis_server: RedisServer) -> None:
    slot = redis_server.cli("GET", "shop:a%20note")
    entry = unpack("shop:a%20note", slot)
    entry.serializer = 3
    redis_server.cli("SET", "shop:a%20note", pack("shop:a%20note", entry), "PX", 9000)
    told = inspect(shop, "a note", "--value")[1]
    assert told["entry"]["serializer"] == "pickle"
    assert told["value_error"] == "it is a pickle, which is code"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda slot: slot[:-1] + b"?", "checksum does not match"),
        (lambda slot: slot[:30], "ends before its header does"),
        (lambda slot: b"V", "shorter than its handle"),
        (lambda slot: b"noise", "it begins like none of ours"),
    ],
    ids=["flipped", "cut", "short", "noise"],
)
def test_corrupt_bytes_are_told_as_such(shop: Shop, redis_server: RedisServer, damage: Any, reason: str) -> None:
    redis_server.cli("SET", "shop:a%20note", damage(redis_server.cli("GET", "shop:a%20note")), "PX", 9000)
    ended, told = inspect(shop, "a note", "--value")
    assert (ended.code, told["state"], told["reason"]) == (1, "corrupt", reason)


def test_a_forged_entry_with_stamps_and_no_tags_is_corrupt(shop: Shop, redis_server: RedisServer) -> None:
    entry = unpack("shop:a%20note", redis_server.cli("GET", "shop:a%20note"))
    entry.tags = ()
    redis_server.cli("SET", "shop:a%20note", pack("shop:a%20note", entry), "PX", 9000)
    assert inspect(shop, "a note")[1]["reason"] == "it has not as many stamps as tags"


def test_no_bytes_are_a_traceback_or_reach_the_terminal(shop: Shop, redis_server: RedisServer) -> None:
    slot = redis_server.cli("GET", "shop:product:p7")
    whole = unpack("shop:product:p7", slot)
    random = Random(7)
    slots = [slot[: random.randrange(len(slot))] for _ in range(8)]
    for _ in range(25):
        at = random.randrange(len(slot))
        slots.append(slot[:at] + random.randbytes(random.randrange(1, 4)) + slot[at + 1 :])
    evil = ("shop:~root\x1b[2J", "shop:~tag:\x07\u202e", "shop:~fn:\x9b31m")
    for flags, serializer in ((0, 1), (0, 2), (1, 1), (2, 1), (4, 1), (4, 2), (255, 255)):
        extreme = replace(
            whole, tags=evil, flags=flags, serializer=serializer, created=1.8e16, keep=1.8e16, cost=1.8e13
        )
        slots += [
            pack("shop:product:p7", replace(extreme, payload=load)) for load in (b"\xa4\x1b[2J", b"[[7]]", b"\xc1")
        ]
    for each in slots:
        redis_server.cli("SET", "shop:product:p7", each, "PX", 60_000)
        for command in (["inspect", "product:p7", "--value"], ["ttl"]):
            ended = cli(*command, *shop.where)
            assert ended.code in (0, 1), each
            assert all(line.isprintable() for line in ended.lines), each


def test_another_keys_entry_and_another_type_are_corrupt(shop: Shop, redis_server: RedisServer) -> None:
    redis_server.cli("COPY", "shop:a%20note", "shop:product:p7", "REPLACE")
    assert inspect(shop, "product:p7")[1]["reason"] == "names another key"
    redis_server.cli("DEL", "shop:product:p7")
    redis_server.cli("LPUSH", "shop:product:p7", "x")
    redis_server.cli("PEXPIRE", "shop:product:p7", 9000)
    assert inspect(shop, "product:p7")[1]["reason"] == "it holds no string, as none of ours does"


def test_what_is_not_there_is_an_exit_code(shop: Shop) -> None:
    ended, told = inspect(shop, "nope", "--value")
    assert (ended.code, told["state"], told["entry"], told["value"]) == (1, "absent", None, None)


def test_a_deeply_nested_value_is_refused_and_not_a_traceback(shop: Shop) -> None:
    deep: list[Any] = []
    for _ in range(190):
        deep = [deep]
    assert shop.cache.set("deep", deep)
    for more in ((), ("--json",)):
        assert cli("inspect", "deep", *shop.where, "--value", *more).code == 0


# -- all of them -----------------------------------------------------------------------------------------------


def test_looking_changes_nothing_and_asks_within_the_namespace_only(server: RedisServer) -> None:
    with Cache(server.url, namespace="shop") as cache:
        cache.set("item", 1, tags=["t"])
    before = {key: (server.cli("DUMP", key), server.cli("PEXPIRETIME", key)) for key in server.cli("KEYS", "*")}
    server.cli("CONFIG", "RESETSTAT")
    with Proxy(server.port) as proxy:
        where = ("--url", proxy.url, "--namespace", "shop")
        for command in (
            ["keys", "--long", "--internal"],
            ["ttl"],
            ["inspect", "item", "--aside", "--value"],
            ["doctor"],
            ["invalidate", "--dry-run", "--key", "item", "--pattern", "i*", "--tag", "t", "--all"],
        ):
            assert cli(*command, *where).code == 0, command
        scans = [command for command in proxy.commands if command[0].upper() == b"SCAN"]
        assert len(scans) >= 5
        assert all(command[3].startswith(b"shop:") for command in scans)
        assert all(b"XX" in command for command in proxy.commands if command[0].upper() == b"SET")
        assert not {"KEYS", "FLUSHALL", "FLUSHDB"} & proxy.names.keys()
    assert before == {key: (server.cli("DUMP", key), server.cli("PEXPIRETIME", key)) for key in server.cli("KEYS", "*")}


def test_the_outline_of_an_entry_is_what_all_of_it_says(shop: Shop, redis_server: RedisServer) -> None:
    slot = redis_server.cli("GET", "shop:product:p7")
    whole = unpack("shop:product:p7", slot)
    whole.payload = b""
    assert outline(slot[:300]) == whole
