"""`cachecraft stats` and `cachecraft top`, run as a user runs them, on a real server and what processes published."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cachecraft import Cache
from cachecraft._core.durations import BOUNDS, Durations
from cachecraft._core.tally import Tally
from cachecraft.backends.dialling import Dialling
from cachecraft.cli.app import app
from cachecraft.cli.census import Holding, census
from cachecraft.cli.stats import show
from cachecraft.cli.top import Rates
from cachecraft.reports import Report
from cachecraft.stats import BY_HAND, Counted, Snapshot
from tests.callers import PATIENCE, until
from tests.servers import RedisServer
from tests.test_cli_demo import INTERRUPTIBLE, ROOT, TIMEOUT, environment, run


def here(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As `run`, but in this process, which is sooner done."""
    unwanted = {name: None for name in os.environ if name.startswith("CACHECRAFT_")}
    ended = CliRunner().invoke(app, args, env={**unwanted, **more}, catch_exceptions=False)
    return subprocess.CompletedProcess(args, ended.exit_code, ended.stdout, ended.stderr)


@pytest.fixture
def shop(redis_url: str) -> Iterator[Cache]:
    """A cache that was used, and has said so."""
    with Cache(redis_url, namespace="shop", publish_stats=3600) as made:

        @made.cached(key="product:{sku}", tags=["products"])
        def product(sku: str) -> str:
            return sku * 100

        @made.cached
        def total(year: int) -> int:
            if year < 2000:
                raise LookupError
            return year

        for sku in ("tea", "tea", "tea", "oil"):
            product(sku)
        total(2026)
        with pytest.raises(LookupError):
            total(1999)
        made.set("by hand", "x")
        made.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper
        yield made


def at(cache: Cache) -> tuple[str, ...]:
    return ("--url", cache.settings.url, "--namespace", "shop")


def document(*args: str, **more: str) -> Any:
    ended = here(*args, "--json", **more)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return json.loads(ended.stdout)


def by_name(told: Any) -> dict[str, Any]:
    return {each["function"].rpartition(".")[2]: each for each in told["functions"]}


def test_stats_tells_of_each_function_over_all_processes(shop: Cache) -> None:
    told = document("stats", CACHECRAFT_URL=shop.settings.url, CACHECRAFT_NAMESPACE="shop")
    functions = by_name(told)
    assert [process["pid"] for process in told["processes"]] == [os.getpid()]
    assert functions["product"]["requests"] == 4
    assert functions["product"]["hit_rate"] == 0.5
    assert functions["product"]["loads"] == 2
    assert functions["product"]["redis"]["entries"] == 2
    assert 600 < functions["product"]["redis"]["bytes"] < 2000
    assert functions["total"]["errors"] == 1
    assert functions["total"]["outcomes"] == {"miss": 1, "error": 1}
    assert 0 < functions["total"]["load_seconds"]["p50"] <= functions["total"]["load_seconds"]["p99"] < PATIENCE
    assert told["total"]["requests"] == 6
    assert told["redis"]["fetch"]["count"] >= 6
    assert told["sampled"] == 1.0


def test_stats_tells_what_each_function_saves_and_holds(
    redis_url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachecraft._core.verification.PAUSE", 0.0)
    row = ["old"]
    with Cache(redis_url, namespace="shop", jitter=None, publish_stats=3600) as cache:

        @cache.cached(ttl=60, stale=60, key="slow:{x}")
        def slow(x: int) -> int:
            time.sleep(0.005)
            return x

        @cache.cached(ttl=60, key="quick:{x}", verify=1)
        def quick(x: int) -> str:
            return row[0]

        for _ in range(6):
            slow(1)
        redis_server.cli("PEXPIRE", "shop:slow:1", 30_000)  # past its ttl
        slow(1)
        until(lambda: slow.stats.refreshes == 1 and slow.stats.loads == 2)
        quick(1)
        row[0] = "new"
        until(lambda: quick(1) and quick.stats.differed)
        cache.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper
        told = document("stats", *at(cache))
        table = here("stats", *at(cache), COLUMNS="200").stdout
    functions = by_name(told)
    saved = functions["slow"]["saved_seconds"]
    assert saved == pytest.approx(6 * functions["slow"]["load_seconds"]["mean"], rel=0.01)
    assert saved >= 6 * 0.005
    assert [functions["slow"][name] for name in ("loads_avoided", "stale_serves", "verified")] == [6, 1, 0]
    assert functions["quick"]["verified"] >= functions["quick"]["differed"] >= 1
    each_at_its_own_mean = saved + functions["quick"]["saved_seconds"]
    assert told["total"]["saved_seconds"] == pytest.approx(each_at_its_own_mean, abs=5e-6)
    assert re.search(r"^ledger +loads avoided +time saved +stale +verified +differed +in Redis *$", table, re.MULTILINE)
    assert re.search(r"slow +6 +\d\S* m?s +1 +\d+ B *$", table, re.MULTILINE)
    assert re.search(r"^all +\d+ +\d\S* m?s +1 +\d+ +\d+ +\d+ B *$", table, re.MULTILINE)


def test_stats_is_readable_at_100_columns_however_large_the_numbers_and_long_the_names() -> None:
    durations = Durations([0] * 8 + [5_000_000, 5_000_000] + [0] * (len(BOUNDS) - 9), 123_456.7)
    tally = Tally(hits=987_654_321, near_hits=87_654_321, loads=10**7, load_time=123_456.7)
    tally.stale = tally.verified = tally.differed = 1_234_567
    outcomes = Counter(hit=900_000_000, near_hit=87_654_321, miss=10**7)
    counted = Counted(tally, outcomes, durations, durations, entries=10**6, bytes=123_456_789)
    names = [f"warehouse.catalogue.repositories.ProductRepository.by_{what}" for what in ("sku", "supplier")]
    snapshot = Snapshot("shop", {name: deepcopy(counted) for name in names})
    holdings = {name: Holding(10**6, 987_654_321) for name in names}
    console = Console(width=100, file=io.StringIO())
    show(console, "shop", [Report(b"", "host", 1, 1.0, snapshot)], snapshot, holdings, share=0.5)
    told = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert max(map(len, told.splitlines())) <= 100
    assert "…" not in told
    assert {"987,654,321", "1,975,308,642", "10,000,000", "1,234,567", "~1.8"} <= set(told.split())
    assert "ProductRepository.by_supplier" in "".join(told.split())


def test_stats_in_a_pipe_is_plain_text(shop: Cache) -> None:
    ended = run("stats", *at(shop), COLUMNS="120")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    assert ended.stdout.startswith("shop: 1 process on 1 host\n")
    assert re.search(r"product +4 +50.0% +2 +0 ", ended.stdout)
    assert re.search(r"^fetch +\d+ +0 ", ended.stdout, re.MULTILINE)


def test_where_nobody_publishes_stats_says_so(redis_url: str) -> None:
    ended = here("stats", "--url", redis_url, "--namespace", "nobody", COLUMNS="120")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "No process publishes its counters under the namespace 'nobody'" in ended.stdout
    assert document("top", "--url", redis_url, "--times", "1")["functions"] == []


def test_top_prints_a_line_for_each_look(shop: Cache) -> None:
    ended = here("top", *at(shop), "--json", "--times", "2", "--interval", "0.1")
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second = map(json.loads, ended.stdout.splitlines())
    assert by_name(first).keys() == by_name(second).keys() == {"product", "total"}
    assert by_name(first)["product"]["per_second"] > by_name(first)["total"]["per_second"] > 0
    assert [key["key"] for key in first["keys"][:1]] == ["shop:product:tea"]


def test_top_in_a_terminal_goes_on_until_it_is_interrupted(shop: Cache) -> None:
    parent, child = pty.openpty()
    more = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-c", INTERRUPTIBLE, "top", *at(shop), "--interval", "0.1"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdin=child, stdout=child, stderr=child
    ) as process:
        try:
            os.close(child)
            seen = ""
            while seen.count("shop: 1 process on 1 host") < 2:
                seen += heard(parent)
            process.send_signal(signal.SIGINT)
            while piece := heard(parent):
                seen += piece
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    os.close(parent)
    assert "Traceback" not in seen
    assert "shop:product:tea" in seen
    assert "\x1b[" in seen


def heard(terminal: int) -> str:
    """What has been written to a terminal; nothing once nobody is there to write any more."""
    assert select.select([terminal], [], [], TIMEOUT)[0], "it says nothing"
    try:
        return os.read(terminal, 10_000).decode(errors="replace")
    except OSError:  # as Linux tells that the other end is closed
        return ""


def test_an_unreachable_redis_is_explained_without_its_password() -> None:
    for command in ("stats", "top"):
        ended = here(command, "--url", "redis://user:secret@127.0.0.1:1/0")
        assert ended.returncode == 3
        assert re.fullmatch(r"cachecraft: .+\n", ended.stderr)
        assert "secret" not in ended.stderr


def test_memory_publishes_nothing_so_it_is_a_wrong_command_line() -> None:
    ended = here("stats", "--url", "memory://")
    assert ended.returncode == 2
    assert "inside one process" in ended.stderr


def test_rates_are_of_the_time_between_two_reports() -> None:
    def report(pid: int, up: float, hits: int) -> Report:
        counted = Counted(outcomes=Counter(hit=hits))
        return Report(bytes([pid]), "host", pid, up, Snapshot("shop", {"f": counted}))

    rates = Rates()

    def per_second(*found: Report) -> float:
        ((rate, _),) = rates.after("shop", list(found)).functions
        return rate

    assert per_second(report(1, 10, 100)) == 10  # since it began
    assert per_second(report(1, 15, 200)) == 20
    assert per_second(report(1, 15, 200)) == 20  # nothing new: it goes on as it did
    assert per_second(report(1, 20, 200), report(2, 1, 7)) == 7
    assert per_second(report(2, 2, 7)) == 0


def test_the_census_attributes_entries_to_their_functions(shop: Cache, redis_server: RedisServer) -> None:
    @shop.cached(key="more:{x}", tags=[f"tag:{n}" for n in range(5)])
    def more(x: int) -> str:
        return "x" * 100

    for x in range(300):
        more(x)
    redis_server.cli("RPUSH", "shop:not-ours", "x")
    redis_server.cli("PEXPIRE", "shop:not-ours", 60_000)
    redis_server.cli("SET", "elsewhere:k", "x", "EX", 60)
    dialling = Dialling(shop.settings.url, 1.0, 1.0, 1)
    found, share = census(dialling, "shop")
    assert share == 1.0
    entries = {name.rpartition(".")[2]: held.entries for name, held in found.items()}
    assert entries == {"product": 2, "total": 1, "more": 300, BY_HAND: 1}
    guessed, share = census(dialling, "shop", sample=1)
    assert share <= 1.0
    assert 200 < sum(held.entries for held in guessed.values()) < 400


def test_stats_tells_what_the_near_caches_served(redis_url: str) -> None:
    with Cache(redis_url, namespace="shop", near=True, publish_stats=3600) as cache:

        @cache.cached(key="product:{sku}")
        def product(sku: str) -> str:
            return sku

        while not product.stats.near_hits:
            product("tea")
        cache.keeper.remote.publisher.publish()  # type: ignore[attr-defined]  # a NearKeeper
        told = document("stats", *at(cache))
        assert by_name(told)["product"]["outcomes"]["near_hit"] == 1
        assert told["cache"]["near_entries"] == 1
        assert re.search(r"hit rate +near +loads", here("stats", *at(cache), COLUMNS="120").stdout)


def test_text_out_of_redis_does_not_move_the_cursor(shop: Cache) -> None:
    @shop.cached(key="odd:{x}")
    def odd(x: int) -> int:
        return x

    odd.__cachecraft__.record.label = "f\x1b[2J"  # type: ignore[attr-defined]  # a name of somebody else's making
    odd(1)
    shop.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper
    ended = here("stats", *at(shop), COLUMNS="120")
    assert "f\\x1b[2J" in ended.stdout
    assert "\x1b" not in ended.stdout
