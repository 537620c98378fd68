"""`cachecraft worker`: delivers what a program's calls have left waiting, and tells how the queues stand."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from rich.cells import cell_len

from tests.callers import until
from tests.servers import RedisServer
from tests.terminal import ROOT, Ended, Terminal, cli, environment
from tests.test_redis_rights import ACL, TO_WRITE_BEHIND

APP = """
    from pathlib import Path
    from threading import Event

    from cachecraft import cached, write_behind

    TABLE = Path(__file__).with_name("table")

    @cached(ttl=60, key="user:{user_id}")
    def get_user(user_id: int) -> str:
        return "as the table has it"

    @write_behind(get_user, value="name", retry_for=0)
    def save_user(user_id: int, name: str) -> None:
        if name == "bad":
            raise ValueError("no such name")
        if name == "hang":
            TABLE.with_name("hangs").touch()
            Event().wait()
        with TABLE.open("a") as table:
            table.write(f"{user_id} {name}\\n")
"""


class Program:
    """A program in a directory of its own, that leaves it to the environment where it caches."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.started: subprocess.Popen[str] | None = None
        self.where = ("--url", url, "--namespace", "shop")
        (directory / "people.py").write_text(dedent(APP))

    def run(self, code: str) -> None:
        told = {"CACHECRAFT_URL": self.url, "CACHECRAFT_NAMESPACE": "shop"}
        subprocess.run([sys.executable, "-c", code], cwd=self.directory, env=self._environment(**told), check=True)

    def save(self, *names: str) -> None:
        self.run(f"import people; [people.save_user(n, name) for n, name in enumerate({names!r})]")

    @property
    def table(self) -> list[str]:
        path = self.directory / "table"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, *args: str) -> subprocess.Popen[str]:
        self.started = subprocess.Popen(
            [sys.executable, "-m", "cachecraft", "worker", *args],
            cwd=self.directory,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.started

    def worker(self, *args: str) -> Ended:
        process = self.start(*args)
        out, err = process.communicate(timeout=30)
        return Ended(process.returncode, out, err)

    def _environment(self, **more: str) -> dict[str, str]:
        return environment(PYTHONPATH=str(ROOT), **more)


@pytest.fixture
def program(tmp_path: Path, redis_url: str) -> Iterator[Program]:
    made = Program(tmp_path, redis_url)
    yield made
    if made.started is not None:
        with made.started as left:
            left.kill()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_delivers_until_it_is_told_to_end(program: Program, end: signal.Signals) -> None:
    worker = program.start("people", *program.where)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "delivering what waits behind people.get_user\n"
    program.save("ann", "bob")
    until(lambda: len(program.table) == 2)
    worker.send_signal(end)
    assert worker.communicate(timeout=10) == ("", "")
    assert worker.returncode == 0
    assert sorted(program.table) == ["0 ann", "1 bob"]


def test_told_to_end_twice_it_ends_in_the_middle_of_a_write_that_hangs(program: Program) -> None:
    program.save("hang")
    with program.start("people", *program.where, "--lease", "0.5") as worker:
        until((program.directory / "hangs").exists)
        worker.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.3)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == -signal.SIGTERM
    (program.directory / "people.py").write_text(dedent(APP).replace('"hang"', '"nobody"'))
    # Its lease ends by itself.
    assert program.worker("people", *program.where, "--once").out == "1 write delivered, 0 given up\n"
    assert program.table == ["0 hang"]


def test_once_delivers_what_waits_and_ends(program: Program) -> None:
    program.save("ann")
    assert program.worker("people", *program.where, "--once").out == "1 write delivered, 0 given up\n"
    assert program.table == ["0 ann"]
    told = program.worker("people", *program.where, "--once", "--json").document
    assert told == {"functions": ["people.get_user"], "settled": 0, "given_up": 0}


@pytest.mark.plain_keys
def test_status_tells_what_waits_and_what_was_given_up(program: Program) -> None:
    assert "Nothing waits" in cli("worker", "--status", *program.where).out
    program.save("ann", "bad")
    (queue,) = cli("worker", "--status", "--json", *program.where).document["queues"]
    assert 0 <= queue.pop("oldest_seconds") < 30
    assert queue == {"function": "people.get_user", "waiting": 2, "dead": 0, "served": False, "last_dead": []}
    ended = program.worker("people", *program.where, "--once")
    assert (ended.code, ended.out) == (1, "1 write delivered, 1 given up\n")
    assert "people.save_user" in ended.err
    ended = cli("worker", "--status", *program.where)
    assert ended.code == 1
    assert "people.get_user" in ended.out
    assert "shop:user:1: ValueError" in ended.out
    assert "no such name" not in ended.out  # it may hold anything


@pytest.mark.plain_keys
def test_what_was_given_up_can_be_tried_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachecraft.cli.worker._PORTION", 2)
    program.save("bad", "bad", "bad", "bad", "bad")
    program.worker("people", *program.where, "--once")
    (program.directory / "people.py").write_text(dedent(APP).replace('"bad"', '"worse"'))
    told = cli("worker", "--retry-dead", "--json", *program.where).document["queues"]
    assert [(each["waiting"], each["dead"]) for each in told] == [(5, 0)]
    assert program.worker("people", *program.where, "--once").code == 0
    assert sorted(program.table) == [f"{number} bad" for number in range(5)]


def test_who_dies_is_replaced(program: Program, redis_server: RedisServer) -> None:
    first = program.start("people", *program.where, "--lease", "0.5")
    assert first.stdout is not None
    first.stdout.readline()
    until(lambda: redis_server.cli("EXISTS", "shop:behind~:{people.get_user}:lease"))
    with first:
        first.kill()
    program.save("ann")
    ended = program.worker("people", *program.where, "--once")  # once the lease is over
    assert ended.code == 0
    assert program.table == ["0 ann"]


@pytest.mark.plain_keys
def test_what_waits_for_a_function_that_is_not_here_is_left_alone(program: Program, redis_server: RedisServer) -> None:
    program.save("ann")
    (program.directory / "people.py").write_text(dedent(APP).replace("save_user", "store_user"))
    ended = program.worker("people", *program.where, "--once")
    assert ended.code == 2
    assert "people.save_user" in ended.err
    assert "import the module" in ended.err
    assert program.table == []
    (queue,) = cli("worker", "--status", "--json", *program.where).document["queues"]
    assert (queue["waiting"], queue["dead"]) == (1, 0)


def test_what_waits_behind_functions_of_another_name_is_told(program: Program) -> None:
    """As a module that is imported as `people` here, and as `app.people` there."""
    program.save("ann")
    (program.directory / "folk.py").write_text((program.directory / "people.py").read_text())
    ended = program.worker("folk", *program.where, "--once")
    assert (ended.code, ended.out) == (0, "0 writes delivered, 0 given up\n")
    assert "1 write waits behind people.get_user, which none of these modules has" in ended.err
    assert program.worker("people", *program.where, "--once").err == ""


def test_the_documented_rights_are_enough_for_it(program: Program, redis_server: RedisServer) -> None:
    program.save("ann")
    redis_server.cli("ACL", "SETUSER", "app", "reset", "on", ">password", *ACL.split(), *TO_WRITE_BEHIND.split())
    try:
        url = program.url.replace("redis://", "redis://app:password@")
        ended = program.worker("people", "--url", url, "--namespace", "shop", "--once")
    finally:
        redis_server.cli("ACL", "DELUSER", "app")
    assert (ended.code, ended.out, ended.err) == (0, "1 write delivered, 0 given up\n", "")


def test_it_waits_for_a_server_that_is_not_there_yet(program: Program) -> None:
    worker = program.start("people", "--url", "redis://127.0.0.1:1", "--namespace", "shop")
    assert worker.stdout is not None
    assert worker.stderr is not None
    assert worker.stdout.readline() == "delivering what waits behind people.get_user\n"
    assert "what waits behind people.get_user waits on" in worker.stderr.readline()
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=10)
    assert worker.returncode == 0


def test_inspect_tells_that_a_write_waits(program: Program) -> None:
    program.run("import people; people.get_user(0); people.save_user(0, 'ann'); people.get_user(0)")
    told = cli("inspect", "user:0", "--json", *program.where).document
    assert (told["state"], told["waits"]) == ("fresh", "people.get_user")
    assert "a write behind people.get_user" in cli("inspect", "user:0", *program.where).out
    program.worker("people", *program.where, "--once")
    assert cli("inspect", "user:0", "--json", *program.where).document["waits"] is None


@pytest.mark.plain_keys
def test_in_a_terminal_it_fits_and_ends_by_ctrl_c(program: Program) -> None:
    program.save("ann", "bad")
    program.worker("people", *program.where, "--once")
    program.save("bob")
    shown = Terminal("worker", "--status", *program.where, columns=60)
    ended = shown.end()
    assert ended.code == 1
    assert max(map(cell_len, ended.lines)) <= 60
    assert "\x1b[31m" in shown.shown  # red: something was given up, and nobody delivers
    where = {"CACHECRAFT_URL": program.url, "CACHECRAFT_NAMESPACE": "shop", "PYTHONPATH": str(program.directory)}
    working = Terminal("worker", "people", **where)
    working.await_text("delivering what waits behind people.get_user")
    until(lambda: "0 bob" in program.table)
    working.interrupt()
    assert working.end().code == 0


def test_a_cache_can_be_named(program: Program) -> None:
    (program.directory / "people.py").write_text(
        "from cachecraft import Cache\n"
        f"cache = Cache({program.url!r}, namespace='shop')\n" + dedent(APP).replace("@", "@cache.")
    )
    program.save("ann")
    assert program.worker("people:cache", "--once").out == "1 write delivered, 0 given up\n"
    ended = program.worker("people:TABLE", "--once")
    assert (ended.code, ended.err) == (
        2,
        "cachecraft: people:TABLE is no Cache; name one, or the module alone for all of them\n",
    )


def test_what_cannot_be_is_told_in_a_line(program: Program) -> None:
    for args, words in (
        ([], "name the module"),
        (["nowhere.at_all"], "no module 'nowhere.at_all'"),
        (["json"], "nothing is to be delivered"),
        (["people", "--url", "memory://"], "and a cache in Redis"),
    ):
        ended = program.worker(*args, "--once")
        assert ended.code == 2, ended
        assert words in ended.err
        assert len(ended.err.splitlines()) == 1
    assert cli("worker", "--status", "--url", "redis://127.0.0.1:1").code == 3
    assert program.worker("people", "--once", "--url", "redis://127.0.0.1:1").code == 3
