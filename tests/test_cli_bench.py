"""`cachecraft bench`: puts load on a server, tells what came of it, and leaves nothing behind."""

from __future__ import annotations

import pytest

from cachecraft import Cache
from cachecraft.cli.load import by_tasks, by_threads
from tests.servers import RedisServer
from tests.terminal import cli

BRIEF = ("--seconds", "0.05", "--threads", "1,4", "--tasks", "10")


def test_each_level_has_its_throughput_and_percentiles(redis_url: str, redis_server: RedisServer) -> None:
    ended = cli("bench", "--url", redis_url, "--namespace", "shop", *BRIEF, "--json")
    assert ended.err == ""
    told = ended.document
    assert ended.code == any(level["failed"] for level in told["levels"])  # a machine may be busy
    assert [(level["kind"], level["callers"]) for level in told["levels"]] == [
        ("threads", 1),
        ("threads", 4),
        ("tasks", 10),
    ]
    for level in told["levels"]:
        assert level["hits_per_second"] > 0
        assert 0 < level["p50_ms"] <= level["p99_ms"] <= level["max_ms"]
    assert [key for key in redis_server.cli("KEYS", "*") if b"~" not in key] == []


def test_people_get_a_table(redis_url: str) -> None:
    ended = cli("bench", "--url", redis_url, "--namespace", "shop", *BRIEF)
    assert "100 bytes, 32 connections at the most" in ended.lines[0]
    assert [line.split()[:2] for line in ended.lines[4:]] == [["1", "thread"], ["4", "threads"], [], ["10", "tasks"]]


@pytest.mark.parametrize("load", [by_threads, by_tasks])
def test_reads_that_fail_count_as_failed_and_not_as_speed(redis_url: str, load: object) -> None:
    with Cache(redis_url, namespace="shop") as cache:
        level = load(cache, ["not there"], 2, 0.02)  # type: ignore[operator]
    assert level.failed > 0
    assert level.per_second == 0


@pytest.mark.parametrize("option", [["--threads", "x"], ["--tasks", "0"], ["--threads", "", "--tasks", ""]])
def test_a_load_that_cannot_be_is_a_wrong_command_line(redis_url: str, option: list[str]) -> None:
    assert cli("bench", "--url", redis_url, *option).code == 2
