"""What `cachecraft inspect` knows from running processes alone: what became of a key, and whose an entry is."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from cachecraft import Cache, reports
from cachecraft._core.entry import HANDLE
from tests.callers import Async, Sync, until
from tests.cli_kit import server  # noqa: F401 - a fixture
from tests.processes import Process
from tests.redis_kit import colour  # noqa: F401 - a fixture
from tests.servers import RedisServer
from tests.terminal import Ended, cli


@pytest.fixture
def process(redis_url: str) -> Iterator[Process]:
    with Process(redis_url, "name") as made:
        yield made


def look(url: str, key: str = "user:1", *more: str) -> Ended:
    return cli("inspect", key, "--url", url, "--namespace", "shop", *more)


def told(url: str, key: str = "user:1") -> Any:
    return look(url, key, "--json").document


def publish(cache: Cache) -> None:
    cache.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper


# -- a key that is not there ---------------------------------------------------------------------------------


def test_what_expired_is_told_by_whom_it_was_stored_and_when_it_ended(redis_url: str, process: Process) -> None:
    process.do("cache.set('user:1', 1, ttl=0.05)")
    until(lambda: told(redis_url)["state"] == "absent")
    seen = told(redis_url)
    assert (seen["by"], seen["unkept"], seen["remembered"]) == (None, None, None)
    kept = seen["kept"]
    assert (kept["fate"], f"{kept['host']}:{kept['pid']}") == ("expired", process.name)
    assert 0.04 < kept["for_s"] <= 0.05 < kept["ago_s"] < 60
    assert re.fullmatch(
        rf"stored [\d.]+ s ago by {re.escape(process.name)} for [\d.]+ s: expired [\d.]+ s ago", seen["reason"]
    )
    ended = look(redis_url)
    assert ended.code == 1
    assert re.search(r"shop:user:1  absent  stored [\d.]+ s ago by ", ended.out)


def test_what_is_gone_before_its_time_was_removed_by_somebody_else(
    redis_server: RedisServer, redis_url: str, colour: Sync | Async
) -> None:
    with Cache(redis_url, namespace="shop", jitter=None, publish_stats=3600) as cache:
        f = cache.cached(ttl=60, key="user:{x}")(colour.loader(lambda x: x))
        colour(f(1))
        publish(cache)
        redis_server.cli("DEL", "shop:user:1")
        seen = told(redis_url)
    assert (seen["kept"]["fate"], seen["kept"]["host"]) == ("gone", socket.gethostname())
    assert 59 < seen["kept"]["for_s"] <= 60
    assert " for 1 min and no longer there, though no invalidation of it is known: " in seen["reason"]
    assert seen["reason"].endswith("removed by somebody else; this server has evicted nothing")


def test_what_is_gone_from_a_server_that_evicts_was_perhaps_evicted(server: RedisServer) -> None:
    with Process(server.url, "name") as process, redis.Redis.from_url(server.url) as client:
        process.do("get_user(1)")
        server.cli("CONFIG", "SET", "maxmemory", "1500kb", "maxmemory-policy", "allkeys-random")
        number = 0
        while client.exists("shop:user:1"):
            number += 1
            client.set(f"other:{number}", "x" * 1000, ex=60)
        server.cli("CONFIG", "SET", "maxmemory", "0")
        evicted = server.cli("INFO", "stats")["evicted_keys"]
        process.do("get_user(2)")  # its report may have been among them
        seen = told(server.url)
    assert seen["kept"]["fate"] == "gone"
    (told_of,) = re.findall(r"evicted \(this server has evicted (\d+) keys?\), or removed by", seen["reason"])
    assert int(told_of) == evicted


def test_what_a_server_lost_when_it_began_anew(server: RedisServer) -> None:
    with Process(server.url, "name") as process:
        process.do("get_user(1)")
        server.kill()
        server.start()
        process.do("cache.ping(); get_user(2)")
        seen = told(server.url)
    assert seen["kept"]["fate"] == "gone"
    assert re.search(r": lost when the server began anew [\d.]+ s ago, or removed by somebody else;", seen["reason"])


def test_what_was_invalidated_is_told_so_and_that_it_had_been_stored(redis_url: str, process: Process) -> None:
    process.do("get_user(1); cache.invalidate(key='user:1')")
    seen = told(redis_url)
    assert (seen["reason"], seen["by"]["means"], seen["kept"]["fate"]) == (
        "most likely invalidated",
        "key",
        "invalidated",
    )


def test_what_had_expired_before_it_was_invalidated_expired(redis_url: str, process: Process) -> None:
    process.do("cache.set('user:1', 1, ttl=0.05)")
    until(lambda: told(redis_url)["state"] == "absent")
    process.do("cache.invalidate(key='user:1')")
    seen = told(redis_url)
    assert (seen["by"], seen["kept"]["fate"]) == (None, "expired")


def test_of_several_processes_the_last_that_stored_it_is_believed(redis_url: str, process: Process) -> None:
    with Process(redis_url, "name") as later:
        process.do("get_user(1)")
        later.do("get_user.refresh(1)")
        with redis.Redis.from_url(redis_url) as client:
            client.delete("shop:user:1")
        kept = told(redis_url)["kept"]
        assert f"{kept['host']}:{kept['pid']}" == later.name


def test_what_failed_after_it_was_stored_is_told_by_that(redis_url: str, process: Process) -> None:
    process.do("cache.set('k', 1, ttl=0.05)")
    until(lambda: told(redis_url, "k")["state"] == "absent")
    process.do("cache.get_or_load('k', lambda: None, when=bool)")
    seen = told(redis_url, "k")
    assert (seen["unkept"]["fate"], seen["kept"]) == ("declined", None)


def test_what_no_process_stored_is_said_to_be_so_as_far_as_they_remember(redis_url: str, process: Process) -> None:
    process.do("[get_user(x) for x in range(7)]")
    seen = told(redis_url, "user:8")
    assert (seen["kept"], seen["remembered"]) == (None, 7)
    assert seen["reason"].startswith(
        "never stored, as far as the running processes remember (their last 7 results); else expired"
    )
    with Process(redis_url, "name") as other:
        other.do("[get_user(x) for x in range(100, 220)]")
        assert told(redis_url, "user:8")["remembered"] == 107
        assert told(redis_url, "user:101")["state"] == "fresh"


def test_of_what_is_there_nothing_is_told_that_became_of_it(redis_url: str, process: Process) -> None:
    process.do("get_user(1)")
    seen = told(redis_url)
    assert (seen["state"], seen["kept"], seen["remembered"]) == ("fresh", None, None)


# -- whose an entry is ---------------------------------------------------------------------------------------


def schema_line(url: str) -> str:
    (line,) = [line for line in look(url).lines if line.strip().startswith("schema")]
    return line.strip()


def test_an_entry_of_the_running_release_is_said_to_be_so(redis_url: str, process: Process) -> None:
    process.do("get_user(1)")
    seen = told(redis_url)
    assert seen["release"] == {"function": "shop.get_user", "current": True, "processes": 1, "others": []}
    assert (
        schema_line(redis_url) == f"schema     {seen['entry']['schema']}: the one that shop.get_user has in 1 process"
    )


def test_an_entry_of_another_release_is_a_miss_to_the_processes_that_run(redis_url: str) -> None:
    with Process(redis_url, "name") as old:
        old.do("get_user(1)")
        with Process(redis_url, "name", "team") as new, Process(redis_url, "name", "team") as twin:
            for each in (new, twin):
                each.do("get_user(2)")
            mixed = told(redis_url)["release"]
            other = told(redis_url, "user:2")["entry"]["schema"]
            assert (mixed["current"], mixed["processes"]) == (True, 1)
            assert mixed["others"] == [{"schema": other, "processes": 2}]
            assert f"has in 1 process, but not in others ({other} in 2 processes): to those it is" in schema_line(
                redis_url
            )
            forget(redis_url, old)
            seen = told(redis_url)
            assert (seen["state"], seen["release"]["current"]) == ("fresh", False)
            assert (
                f": not the one that shop.get_user has ({other} in 2 processes): to those it is a miss (other schema)"
                in (schema_line(redis_url))
            )


def forget(url: str, process: Process) -> None:
    """As when it has ended, and its report expired."""
    pid = int(process.name.rpartition(":")[2])
    with redis.Redis.from_url(url) as client:
        for name in client.scan_iter("shop:stats~:*"):
            report = reports.read(client.get(name)[HANDLE:], "shop")  # type: ignore[index]  # it is there
            if report is not None and report.pid == pid:
                client.delete(name)


def test_whose_an_entry_is_nobody_can_tell_before_a_process_has_published(redis_url: str) -> None:
    with Cache(redis_url, namespace="shop") as cache:
        cache.cached(ttl=60, key="user:{x}")(lambda x: x)(1)
        cache.set("by hand", 1)
        release = told(redis_url)["release"]
        assert (release["current"], release["processes"], release["others"]) == (None, 0, [])
        assert "is unknown: no process has published that" in schema_line(redis_url)
        assert told(redis_url, "by hand")["release"] is None


def test_a_function_of_the_same_name_in_another_namespace_is_another(redis_url: str) -> None:
    """As the closures that one factory makes for its tenants."""

    def made(cache: Cache, namespace: str) -> Any:
        f = cache.cached(ttl=60, key="user:{x}", namespace=namespace)(lambda x: x)
        f(1)
        publish(cache)
        return f

    with Cache(redis_url, namespace="shop", publish_stats=3600) as cache, Cache(redis_url, publish_stats=3600) as other:
        kept = [made(other, "shop")]
        assert told(redis_url)["release"]["current"] is None
        kept.append(made(cache, "elsewhere"))
        assert told(redis_url)["release"]["current"] is None
        kept.append(made(cache, "shop"))
        assert told(redis_url)["release"]["current"] is True


def test_a_version_makes_another_release_of_it_too(redis_url: str, colour: Sync | Async) -> None:
    def made(cache: Cache, version: int) -> Callable[[int], Any]:
        f = cache.cached(ttl=60, key="user:{x}", version=version)(colour.loader(lambda x: x))
        colour(f(1))
        publish(cache)
        return f

    with Cache(redis_url, namespace="shop", publish_stats=3600) as cache:
        kept = made(cache, 1)
        assert told(redis_url)["release"]["current"] is True
    with redis.Redis.from_url(redis_url) as client:
        client.delete(*client.scan_iter("shop:stats~:*"))
    with Cache(redis_url, namespace="shop", publish_stats=3600) as cache:
        kept = made(cache, 2)
        assert told(redis_url)["release"]["current"] is False
        del kept
