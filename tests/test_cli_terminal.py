"""The commands as they are run in earnest: real terminals, narrow and wide, pipes, and servers that do not answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from tests import states
from tests.callers import until
from tests.cli_kit import Shop, impatient, server, shop  # noqa: F401 - fixtures
from tests.servers import RedisServer
from tests.terminal import ROOT, Terminal, cli, environment, in_terminal, piped

LOOKS: dict[str, list[str]] = {
    "doctor": ["doctor"],
    "ttl": ["ttl"],
    "inspect": ["inspect", "product:p1", "--value"],
}


@pytest.mark.parametrize("command", LOOKS)
def test_it_fits_the_terminal_it_is_in(shop: Shop, command: str) -> None:
    """At 80 columns in colour; at 200, told by the environment where to look and to do without colour."""
    narrow = Terminal(*LOOKS[command], *shop.where, columns=80)
    wide = Terminal(*LOOKS[command], columns=200, NO_COLOR="1", CACHECRAFT_URL=shop.url, CACHECRAFT_NAMESPACE="shop")
    ended = narrow.end()
    assert ended.code == 0
    assert "\x1b[32m" in narrow.shown  # green
    assert max(map(cell_len, ended.lines)) <= 80
    ended = wide.end()
    assert ended.code == 0
    assert not re.search(r"\x1b\[(3|4|9)\dm", wide.shown)
    assert "shop" in ended.out


def test_in_a_pipe_lines_are_whole_and_plain(shop: Shop) -> None:
    ended = piped("doctor", *shop.where)
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    assert any("allkeys-lfu, so that a full cache evicts" in line for line in ended.lines)  # not broken in two
    assert not [line for line in ended.lines if line != line.rstrip()]


def test_where_only_ascii_can_be_shown_only_ascii_is(shop: Shop) -> None:
    for command in LOOKS.values():
        ended = cli(*command, *shop.where, encoding="ascii")
        assert ended.code == 0
        assert ended.out.isascii()
        assert "?" not in ended.out
    shop.cache.set("caffè", 1)
    assert cli("keys", "caff*", *shop.where, encoding="ascii").out == "shop:caff\\xe8\n"


def test_a_reader_that_has_seen_enough_ends_it_quietly(shop: Shop) -> None:
    for number in range(1000):  # more than a pipe holds back
        shop.product(f"a long name of a product, so that there is something to print: {number:060}")
    command = [sys.executable, "-m", "cachecraft", "keys", *shop.where]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


@pytest.mark.parametrize("command", [["doctor"], ["ttl"], ["stats"], ["keys"]], ids=" ".join)
def test_a_reader_that_has_gone_before_anything_was_said_as_well(shop: Shop, command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "cachecraft", *command, *shop.where],
            cwd=ROOT, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


EACH: dict[str, list[str]] = {
    **LOOKS,
    "keys": ["keys"],
    "invalidate": ["invalidate", "--key", "x", "--yes"],
    "bench": ["bench"],
}


@pytest.mark.parametrize("command", EACH)
@pytest.mark.parametrize("json_too", [False, True], ids=["", "json"])
def test_a_dead_server_is_said_to_be_dead(command: str, json_too: bool) -> None:
    ended = cli(*EACH[command], "--url", "redis://user:secret@127.0.0.1:1/0", *["--json"] * json_too)
    assert ended.code == 3
    told = ended.out if command == "doctor" else ended.err
    assert "nothing listens there" in told
    assert "secret" not in ended.out + ended.err
    assert ended.err == "" if command == "doctor" else ended.out == ""


@pytest.mark.parametrize("command", EACH)
def test_a_frozen_server_is_said_not_to_answer_in_time(
    server: RedisServer,
    command: str,
    impatient: None,
) -> None:
    server.pause()
    ended = cli(*EACH[command], "--url", server.url)
    assert ended.code == 3
    assert "no answer within" in ended.out + ended.err


def test_a_frozen_server_costs_a_person_two_seconds(server: RedisServer) -> None:
    server.pause()
    began = time.monotonic()
    ended = in_terminal("doctor", "--url", server.url, "--namespace", "shop")
    assert ended.code == 3
    assert "no answer within 2 seconds" in " ".join(ended.out.split())
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no server was named; give --url redis://HOST:PORT/DB, or set CACHECRAFT_URL"),
        ("memory://", "inside one process"),
        ("ftp://somewhere", "no scheme known here"),
        ("redis://h/0?socket_timeout=1", "url= may not say socket_timeout="),
    ],
)
@pytest.mark.parametrize("command", EACH)
def test_a_url_that_leads_to_no_server_is_a_wrong_command_line(command: str, url: str, words: str) -> None:
    ended = cli(*EACH[command], *(("--url", url) if url else ()))
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


def test_a_wrong_password_and_a_database_that_is_not_there_are_told(server: RedisServer) -> None:
    server.cli("CONFIG", "SET", "requirepass", "right")
    where = server.url.removeprefix("redis://")
    try:
        ended = cli("keys", "--url", f"redis://:wrong@{where}")
        assert (ended.code, "it does not let us in" in ended.err, "wrong@" in ended.err) == (3, True, False)
        assert "it does not let us in" in cli("keys", "--url", server.url).err
        assert "no such database" in cli("keys", "--url", f"redis://:right@{where}99").err
    finally:
        server.stop()


def test_a_server_that_loads_its_data_or_is_busy_says_so(start_redis: Callable[..., RedisServer]) -> None:
    made = start_redis("--dbfilename", "other.rdb", "--loading-process-events-interval-bytes", "1024")
    with states.loading(made):
        ended = cli("keys", "--url", made.url)
        assert (ended.code, "it is loading its data; ask again in a while" in ended.err) == (3, True)
    until(lambda: cli("keys", "--url", made.url).code == 1)
    with states.busy(made):
        ended = cli("keys", "--url", made.url)
        assert (ended.code, "SCRIPT KILL ends it" in ended.err) == (3, True)
