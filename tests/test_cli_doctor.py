"""`cachecraft doctor`: each line right about a real server, with a remedy that mends; and an end, whatever happens."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft.cli.doctor import rules
from cachecraft.cli.doctor.finding import Finding
from cachecraft.cli.doctor.rights import NEEDED
from cachecraft.worker import Worker
from tests import states
from tests.callers import until
from tests.cli_kit import Shop, impatient, server, shop  # noqa: F401 - fixtures
from tests.clock import FakeClock
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.terminal import ROOT, Ended, cli
from tests.test_redis_rights import ACL, RIGHTS

CHECKS = [
    "connection", "latency", "server", "memory", "persistence", "rights", "clock", "tracking", "ttl", "pool",
    "hit rate", "advice",
]  # fmt: skip


UNHURRIED = 60.0


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """How quick the machine is that the tests run on is no matter here."""
    monkeypatch.setattr(rules, "TIMEOUT", UNHURRIED)


def examined(url: str, *more: str, namespace: str = "shop") -> tuple[Ended, dict[str, Any]]:
    ended = cli("doctor", "--url", url, "--namespace", namespace, "--json", *more)
    assert ended.err == ""
    return ended, {check["check"]: check for check in ended.document["checks"]}


def let_in(server: RedisServer, *rules: str) -> str:
    server.cli("ACL", "SETUSER", "app", "reset", "on", ">password", *rules)
    return server.url.replace("redis://", "redis://app:password@")


def test_a_plain_server_is_good_but_for_its_unbounded_memory(server: RedisServer) -> None:
    ended, checks = examined(server.url)
    assert list(checks) == CHECKS
    assert ended.code == 0
    assert ended.document["verdict"] == "warning"
    levels = {name: check["level"] for name, check in checks.items()}
    assert levels == dict.fromkeys(CHECKS, "good") | {"memory": "warning"} | dict.fromkeys(
        ("hit rate", "advice"), "unknown"
    )
    assert re.search(r"(Redis|Valkey) \d+\.\d+\.\d+, standalone, primary", checks["server"]["summary"])
    assert 0 < checks["latency"]["numbers"]["p50_ms"] <= checks["latency"]["numbers"]["p99_ms"]
    assert abs(checks["clock"]["numbers"]["skew_s"]) < 1
    assert checks["pool"]["numbers"]["maxclients"] > 0
    for line in checks.values():
        assert (line["remedy"] is None) == (line["level"] in ("good", "unknown"))


def test_the_remedy_for_the_memory_is_one(server: RedisServer) -> None:
    for command in re.findall(r"CONFIG SET \S+ [\w-]+", examined(server.url)[1]["memory"]["remedy"]):
        server.cli(*command.split())
    assert examined(server.url)[1]["memory"]["level"] == "good"
    server.cli("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    assert "lease" in examined(server.url)[1]["memory"]["remedy"]
    server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert examined(server.url)[1]["memory"]["level"] == "warning"
    server.cli("CONFIG", "SET", "maxmemory", "500kb")
    ended, checks = examined(server.url)
    assert (ended.code, checks["memory"]["level"]) == (1, "bad")


def test_the_rights_it_looks_for_are_those_of_the_documentation() -> None:
    assert [f"+{name}" for name in NEEDED] == RIGHTS


def test_a_user_with_the_documented_rights_is_well(server: RedisServer) -> None:
    ended, checks = examined(let_in(server, *ACL.split()))
    assert ended.code == 0
    assert {check["level"] for check in checks.values()} == {"good", "warning", "unknown"}
    assert checks["rights"]["level"] == checks["tracking"]["level"] == "good"
    assert checks["connection"]["numbers"]["user"] == "app"
    assert "password" not in ended.out


@pytest.mark.parametrize("missing", [*RIGHTS, "~shop:*", "&shop:~*", "+eval +mget ~shop:*"])
def test_a_missing_right_is_named_with_the_command_that_grants_it(server: RedisServer, missing: str) -> None:
    url = let_in(server, *(word for word in ACL.split() if word not in missing.split()))
    ended, checks = examined(url)
    optional = missing in ("+scan", "+ping", "+publish", "&shop:~*")
    assert (ended.code, checks["rights"]["level"]) == ((0, "warning") if optional else (1, "bad"))
    remedy = checks["rights"]["remedy"]
    assert sorted(remedy.removeprefix("ACL SETUSER app ").split()) == sorted(missing.split())
    server.cli(*remedy.split())
    assert examined(url)[1]["rights"]["level"] == "good"


@pytest.mark.parametrize("missing", ["-client|tracking", "-subscribe", "-unsubscribe", "resetchannels"])
def test_each_right_that_a_near_cache_needs_is_tried(server: RedisServer, missing: str) -> None:
    url = let_in(server, *ACL.split(), *rules.LISTENING.split(), missing)
    assert examined(url)[1]["tracking"]["numbers"] == {"supported": False}


def test_what_a_near_cache_needs_is_said_and_is_no_fault(server: RedisServer) -> None:
    found = examined(server.url)[1]["tracking"]
    assert (found["level"], found["numbers"]) == ("good", {"supported": True})
    assert "near=True" in found["summary"]
    url = let_in(server, *ACL.split(), "-client", "-subscribe", "-unsubscribe")
    found = examined(url)[1]["tracking"]
    assert (found["level"], found["numbers"]) == ("good", {"supported": False})
    assert found["summary"].endswith(rules.LISTENING)
    server.cli("ACL", "SETUSER", "app", *rules.LISTENING.split())
    assert examined(url)[1]["tracking"]["numbers"] == {"supported": True}
    with Cache(url, namespace="shop", near=True) as cache:
        kept = cache.cached(key="k:{x}")(lambda x: x)
        until(lambda: kept(1) == 1 and kept.stats.near_hits)
    found = rules.tracking("unknown command 'HELLO'").as_json()
    assert (found["level"], "6.0" in found["remedy"]) == ("warning", True)


def test_the_rights_to_listen_are_those_of_the_documentation() -> None:
    assert f"ACL SETUSER app {rules.LISTENING}" in (ROOT / "docs" / "faults.md").read_text("utf-8")


def test_a_replica_is_bad_and_its_primary_is_named(server: RedisServer) -> None:
    server.cli("REPLICAOF", *states.NOWHERE)
    ended, checks = examined(server.url)
    assert (ended.code, checks["server"]["level"]) == (1, "bad")
    assert "127.0.0.1:1" in checks["server"]["remedy"]


def test_a_clients_limit_that_is_too_small_is_bad(server: RedisServer) -> None:
    server.cli("CONFIG", "SET", "maxclients", 20)
    assert examined(server.url)[1]["pool"]["level"] == "bad"
    assert examined(server.url, "--pool-size", "4")[1]["pool"]["level"] == "good"


@pytest.mark.plain_keys
def test_keys_without_a_ttl_are_named(shop: Shop, redis_server: RedisServer) -> None:
    assert examined(shop.url)[1]["ttl"]["summary"] == "all of 41 keys have one"
    redis_server.cli("SET", "shop:forever", "x")
    redis_server.cli("SET", "elsewhere", "x")
    found = examined(shop.url)[1]["ttl"]
    assert (found["level"], found["summary"]) == ("warning", "1 of 42 keys has none: shop:forever")


def pool_of_32(info: dict[str, str]) -> Finding:
    return rules.pool(info, 32)


@pytest.mark.parametrize(
    ("rule", "info", "level", "words"),
    [
        (rules.server, {"redis_version": "5.0.7"}, "bad", "6.0"),
        (rules.server, {"redis_version": "7.2.4", "valkey_version": "8.0.1"}, "good", "Valkey 8.0.1"),
        (rules.server, {"redis_version": "7.0.0", "redis_mode": "cluster"}, "bad", "redirections"),
        (rules.server, {"redis_version": "7.0.0", "redis_mode": "sentinel"}, "bad", "no data"),
        (rules.persistence, {"rdb_last_bgsave_status": "err"}, "bad", "MISCONF"),
        (rules.persistence, {"aof_enabled": "1", "aof_last_write_status": "err"}, "bad", "append-only"),
        (rules.persistence, {"aof_enabled": "1", "aof_delayed_fsync": "7"}, "warning", "7 writes"),
        (rules.persistence, {"aof_enabled": "1"}, "good", "distrusted"),
        (rules.hit_rate, {"keyspace_hits": "10", "keyspace_misses": "90"}, "unknown", "100 lookups"),
        (rules.hit_rate, {"keyspace_hits": "100", "keyspace_misses": "900"}, "warning", "10 %"),
        (rules.hit_rate, {"keyspace_hits": "900", "keyspace_misses": "100"}, "good", "90 %"),
        (pool_of_32, {"maxclients": "100", "connected_clients": "60"}, "good", "room for 1 process"),
        (pool_of_32, {"maxclients": "1000", "connected_clients": "900"}, "warning", "900 of 1,000"),
        (pool_of_32, {"maxclients": "1000", "rejected_connections": "3"}, "warning", "3 connections"),
        (lambda info: rules.clock(3600.0), {}, "warning", "1 h ahead of"),
        (lambda info: rules.clock(-90.0), {}, "warning", "1 min 30 s behind"),
        (lambda info: rules.latency([0.1 * UNHURRIED + 1] * 100), {}, "warning", "p99 7.00 s"),
        (lambda info: rules.latency([0.5 * UNHURRIED + 1] * 100), {}, "bad", "timeout="),
    ],
)  # fmt: skip
def test_what_cannot_be_brought_about_here_is_judged_right(
    rule: Callable[[Any], Any], info: dict[str, str], level: str, words: str
) -> None:
    found = rule(info)
    assert found.level == level
    assert words in f"{found.summary} {found.remedy}"


def advice_of(url: str) -> list[dict[str, Any]]:
    ended = cli("doctor", "--url", url, "--namespace", "shop", "--json")
    assert ended.code == 0
    return [check for check in ended.document["checks"] if check["check"] == "advice"]


def publish(*caches: Cache) -> None:
    for cache in caches:
        cache.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper


def test_a_key_that_never_hits_and_a_value_too_large_are_found_in_what_processes_publish(redis_url: str) -> None:
    """Neither process alone has enough loads to say so."""
    options: dict[str, Any] = {"namespace": "shop", "publish_stats": 3600, "max_value_bytes": 1000}
    with Cache(redis_url, **options) as one, Cache(redis_url, **options) as other:
        for start, cache in enumerate((one, other)):

            @cache.cached(key="page:{user}:{session}")
            def page(user: int, session: int) -> int:
                return session

            @cache.cached(key="report:{month}")
            def report(month: int) -> bytes:
                return bytes(range(256)) * 1000  # compressed or not

            @cache.cached(key="well:{x}")
            def well(x: int) -> int:
                return x

            for session in range(60):
                page(1, 60 * start + session)
                well(session), well(session)
            for month in range(6):
                report(month)
        publish(one)
        assert [each["level"] for each in advice_of(redis_url)] == ["good"]
        publish(other)
        page_found, report_found = advice_of(redis_url)
    assert {page_found["level"], report_found["level"]} == {"warning"}
    assert page_found["numbers"] == {"function": page.__cachecraft__.subject.label, "about": "hits"}  # type: ignore[attr-defined]
    assert "0 hits for 120 loads" in page_found["summary"]
    assert "key" in page_found["remedy"]
    assert report_found["numbers"]["about"] == "refused"
    assert report_found["summary"].endswith("report: 12 of 12 results could not be stored")
    assert "max_value_bytes=" in report_found["remedy"]


def pages(cache: Cache, calls: int, sessions: int, start: int = 0) -> Any:
    """Calls of a function with a session in its key. What is collected advises nothing, so keep it."""

    @cache.cached(key="page:{user}:{session}", tags=["user:{user}"])
    def page(user: int, session: int) -> int:
        return session

    for call in range(calls):
        page(1, start + call % sessions)
    return page


def test_a_process_names_the_parameter_that_keeps_a_key_from_hitting_and_its_idle_tags(redis_url: str) -> None:
    """Of two that say the same, the one that calls the function more often; and each finding once."""
    options: dict[str, Any] = {"namespace": "shop", "publish_stats": 3600}
    with Cache(redis_url, **options) as one, Cache(redis_url, **options) as other:
        kept = pages(one, 150, 150), pages(other, 170, 170, start=1000)
        publish(one, other)
        name = kept[0].__cachecraft__.subject.label
        hits, tags = advice_of(redis_url)
    assert hits["numbers"] == {"function": name, "about": "hits"}
    assert "0 hits for 170 loads, and no two calls that were looked at had the same 'session'" in hits["summary"]
    assert hits["summary"].endswith(f" (in {socket.gethostname()}:{os.getpid()})")
    assert "key=" in hits["remedy"]
    assert tags["numbers"] == {"function": name, "about": "tags"}
    assert "nothing was ever invalidated by its tags 'user:{user}' in this process" in tags["summary"]


def test_a_process_tells_the_last_refusal_and_the_ttl(redis_url: str) -> None:
    clock = FakeClock()
    options: dict[str, Any] = {"jitter": None, "clock": clock, "publish_stats": 3600, "max_value_bytes": 1000}
    with Cache(redis_url, namespace="shop", **options) as cache:

        @cache.cached(key="report:{month}")
        def report(month: int) -> Any:
            return object()

        brief = cache.cached(ttl=0.001, key="brief:{x}")(lambda x: x)
        for x in range(250):
            brief(x % 125), report(x)
            clock.advance(1)
        until(lambda: [brief(x) for x in range(125)] and 2 * brief.stats.reasons["expired"] > brief.stats.misses)
        publish(cache)
        found = {each["numbers"]["about"]: each for each in advice_of(redis_url)}
    assert "longer ttl than 0.001 s" in found["ttl"]["remedy"]
    assert "(the last: values of type object" in found["refused"]["summary"]


def test_what_all_processes_together_do_not_bear_out_is_no_advice(redis_url: str) -> None:
    """One that only warms the cache up never hits; and what one invalidates by no other need."""
    options: dict[str, Any] = {"namespace": "shop", "publish_stats": 3600}
    with Cache(redis_url, **options) as warmer, Cache(redis_url, **options) as web:
        kept = [pages(warmer, 150, 150)]
        publish(warmer)
        assert {each["numbers"]["about"] for each in advice_of(redis_url)} == {"hits", "tags"}
        kept.append(pages(web, 300, 150))
        publish(web)
        assert [each["numbers"]["about"] for each in advice_of(redis_url)] == ["tags"]
        web.invalidate(tags=["user:1"])
        kept.append(pages(web, 1, 1))
        publish(web)
        assert [each["level"] for each in advice_of(redis_url)] == ["good"]


def test_a_ttl_too_short_to_help_is_a_line_for_people(redis_url: str) -> None:
    clock = FakeClock()
    with Cache(redis_url, namespace="shop", jitter=None, clock=clock, publish_stats=3600) as cache:
        f = cache.cached(ttl=0.001, key="k:{x}")(lambda x: x)
        for x in range(250):
            f(x % 125)
            clock.advance(1)
        until(lambda: [f(x) for x in range(125)] and 2 * f.stats.reasons["expired"] > f.stats.misses)
        publish(cache)
        (found,) = advice_of(redis_url)
        shown = cli("doctor", "--url", redis_url, "--namespace", "shop").out
    assert found["numbers"]["about"] == "ttl"
    assert re.search(rf"warning +advice +{re.escape(found['summary'])}", shown)
    assert f"→ {found['remedy']}" in shown


@pytest.mark.plain_keys
def test_writes_that_wait_are_a_line_once_there_are_any(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.cli("CONFIG", "SET", "appendonly", "yes")

    def judged() -> tuple[str, str]:
        found = examined(server.url)[1]["writes behind"]
        return found["level"], f"{found['summary']}; {found['remedy']}"

    with Cache(server.url, namespace="shop") as cache:
        get = cache.cached(key="item:{item}")(lambda item: "old")

        @cache.write_behind(get, value="name", retry_for=0)
        def save(item: int, name: str) -> None:
            if name == "bad":
                raise ValueError

        assert "writes behind" not in examined(server.url)[1]
        save(1, "ann")
        level, words = judged()
        assert level == "good"
        assert "1 write waits behind 1 function, the oldest for" in words
        server.cli("CONFIG", "SET", "appendonly", "no")
        assert judged()[0] == "warning"
        assert "appendonly yes" in judged()[1]
        server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert judged()[0] == "bad"
        assert "may evict them" in judged()[1]
        monkeypatch.setattr(rules, "LATE", 0.0)
        assert judged()[0] == "bad"
        assert "cachecraft worker" in judged()[1]
        server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        save(1, "bad")
        Worker(cache).drain()
        assert judged()[0] == "warning"
        assert "1 given up" in judged()[1]
        assert "volatile-lfu" in examined(server.url)[1]["memory"]["remedy"]


def test_where_nobody_publishes_there_is_no_advice_and_no_warning(redis_url: str) -> None:
    (found,) = advice_of(redis_url)
    assert (found["level"], found["remedy"]) == ("unknown", None)
    assert "no process publishes" in found["summary"]


def test_a_server_that_goes_away_in_the_middle_is_told_with_what_was_found(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
) -> None:
    monkeypatch.setattr("cachecraft.cli.doctor.examination.PINGS", 10)
    with Cache(server.url, namespace="shop") as cache:
        cache.ping()
    with Proxy(server.port) as proxy:
        proxy.hold_replies(after=1000)  # so far the pings come, and not all that INFO has to say
        ended, checks = examined(proxy.url)
    assert ended.code == 3
    assert ended.document["verdict"] == "bad"
    assert checks["latency"]["level"] == "good"
    assert "no answer within" in checks["connection"]["summary"]
