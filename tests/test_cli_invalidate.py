"""`cachecraft invalidate`: counts, asks, and then keeps every promise that a program's own invalidation keeps."""

from __future__ import annotations

import pytest

from cachecraft import MISSING, Cache
from tests.cli_kit import Shop, SlowLoad, server, shop  # noqa: F401 - fixtures
from tests.servers import RedisServer
from tests.terminal import Terminal, cli


def test_by_key_pattern_and_tag_what_is_named_is_gone_and_nothing_else(shop: Shop) -> None:
    assert cli("invalidate", *shop.where, "--yes", "--key", "product:p0", "--key", shop.product.key("p1")).code == 0
    assert shop.product.get("p0") is shop.product.get("p1") is MISSING
    ended = cli("invalidate", *shop.where, "--yes", "--pattern", "product:p2*")
    assert (ended.code, ended.out) == (0, "11 entries removed\n")
    assert shop.product.get("p2") is shop.product.get("p20") is MISSING
    assert shop.product.get("p3") is not MISSING
    ended = cli("invalidate", *shop.where, "--yes", "--tag", "range:tea")
    assert ended.out.startswith("1 tag invalidated; what carries it is void from now on")
    assert shop.product.get("p3") is MISSING
    assert shop.cache.get("a note") == "hello"
    assert cli("invalidate", *shop.where, "--yes", "--all").code == 0
    assert shop.cache.get("a note") is MISSING
    with Cache(shop.url, namespace="bank") as bank:
        assert bank.get("account") == 1


def test_a_load_under_way_is_not_stored_after_it(shop: Shop) -> None:
    for option in (["--key", "slow"], ["--pattern", "sl*"], ["--all"]):
        with SlowLoad(shop.cache):
            assert cli("invalidate", *shop.where, "--yes", *option).code == 0
        assert shop.cache.get("slow") is MISSING


def test_a_dry_run_counts_and_changes_nothing(shop: Shop) -> None:
    ended = cli(
        "invalidate", *shop.where, "--dry-run", "--key", "a note", "--key", "nope", "--key", "product:p1", "--pattern",
        "product:p1*", "--tag", "range:tea", "--json",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    told = ended.document
    assert (told["dry_run"], told["matched"]) == (True, 41)
    assert [(part["kind"], part["text"], part["matched"], part["removed"]) for part in told["parts"]] == [
        ("key", "a note", 1, None),
        ("key", "nope", 0, None),
        ("key", "product:p1", 1, None),
        ("pattern", "product:p1*", 11, None),
        ("tag", "range:tea", 40, None),
    ]
    assert shop.product.get("p1") is not MISSING
    assert cli("invalidate", *shop.where, "--dry-run", "--all", "--json").document["matched"] == 41


def test_json_tells_what_went(shop: Shop) -> None:
    told = cli("invalidate", *shop.where, "--yes", "--pattern", "product:*", "--tag", "texts", "--json").document
    assert (told["namespace"], told["dry_run"], told["matched"]) == ("shop", False, None)
    assert [(part["kind"], part["matched"], part["removed"]) for part in told["parts"]] == [
        ("pattern", None, 40),
        ("tag", None, None),
    ]


def test_in_a_terminal_it_counts_asks_and_does_as_it_is_told(shop: Shop) -> None:
    terminal = Terminal("invalidate", *shop.where, "--pattern", "product:p3*")
    terminal.await_text("[y/N]")
    assert "11 keys to go: shop:product:p3" in terminal.shown
    terminal.type("n\n")
    ended = terminal.end()
    assert (ended.code, ended.lines[-1]) == (1, "cachecraft: nothing was invalidated")
    assert shop.product.get("p3") is not MISSING
    terminal = Terminal("invalidate", *shop.where, "--pattern", "product:p3*")
    terminal.await_text("[y/N]")
    terminal.type("y\n")
    ended = terminal.end()
    assert (ended.code, ended.lines[-1]) == (0, "11 entries removed")
    assert "━" in terminal.shown  # a progress bar was there, and is gone
    assert "━" not in ended.out
    assert shop.product.get("p3") is MISSING


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing to invalidate; give --key, --pattern or --tag"),
        (["--yes", "--pattern", "*"], "--pattern '*' matches everything; --all is the way to say that"),
        (["--yes", "--pattern", ""], "--pattern '' matches everything"),
        (["--yes", "--key", ""], "--key is empty"),
        (["--yes", "--key", "shop:~root"], "the cache keeps for itself"),
        (["--yes", "--tag", "x" * 600], "512 are the limit"),
        (["--key", "a note"], "nobody is there to be asked; give --yes, or --dry-run"),
        (["--key", "a note", "--json"], "nobody is there to be asked"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(shop: Shop, options: list[str], words: str) -> None:
    ended = cli("invalidate", *shop.where, *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert shop.cache.get("a note") == "hello"


def test_a_cache_that_is_turned_off_does_not_pretend(shop: Shop) -> None:
    ended = cli("invalidate", *shop.where, "--yes", "--key", "a note", CACHECRAFT_ENABLED="0")
    assert (ended.code, ended.out) == (2, "")
    assert "CACHECRAFT_ENABLED" in ended.err


def test_a_server_that_refuses_is_a_failure_that_says_so(server: RedisServer) -> None:
    with Cache(server.url, namespace="shop") as cache:
        cache.set("item", 1)
        server.cli("ACL", "SETUSER", "app", "on", ">password", "~shop:*", "+@all", "-unlink")
        where = ("--url", server.url.replace("redis://", "redis://app:password@"), "--namespace", "shop")
        ended = cli("invalidate", *where, "--yes", "--key", "item")
        assert (ended.code, ended.out) == (1, "")
        assert "'unlink'" in ended.err
        assert "may still be served, so run it again" in ended.err
        assert "password" not in ended.err
        assert cache.get("item") == 1
