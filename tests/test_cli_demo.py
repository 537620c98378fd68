"""The command `cachecraft demo`, run as a user runs it: what it prints, what it counts, and how it ends."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import cachecraft
from cachecraft.cli.demo.story import Story
from cachecraft.cli.figures import duration
from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent
TIMEOUT = 60
READS = 5  # by each caller in each wave
STEPS = [
    "no cache",
    "a dictionary",
    "ttl, single flight",
    "jitter=None",
    "jitter",
    "ttl, stale",
    "invalidation",
    "invalidation, storm",
]
INTERRUPTIBLE = """
import signal
from cachecraft.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it ignored
main()
"""


def environment(**more: str) -> dict[str, str]:
    """Without what would turn the cache off, or make rich believe in a terminal."""
    unwanted = re.compile("CACHECRAFT_|TTY_|FORCE_COLOR|PY_COLORS|GITHUB_ACTIONS|COLUMNS")
    return {name: value for name, value in os.environ.items() if not unwanted.match(name)} | more


def run(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cachecraft", *args]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, encoding="utf-8", timeout=TIMEOUT, check=False
    )


@pytest.fixture(scope="module")
def tour() -> dict[str, Any]:
    """What `demo --quick --json` prints, with the steps by name."""
    ended = run("demo", "--quick", "--json")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    document: dict[str, Any] = json.loads(ended.stdout)
    assert [step["step"] for step in document["steps"]] == STEPS
    document["steps"] = {step["step"]: step for step in document["steps"]}
    return document


def test_without_a_cache_each_call_is_a_query(tour: dict[str, Any]) -> None:
    step = tour["steps"]["no cache"]
    assert step["queries"] == step["calls"] == (tour["threads"] + tour["tasks"]) * READS * tour["waves"]
    assert step["stale_answers"] == 0


def test_a_dictionary_has_every_task_query_at_once(tour: dict[str, Any]) -> None:
    # All tasks look into it before the first answer can come; how many threads do is up to the scheduler.
    assert tour["steps"]["a dictionary"]["queries"] >= tour["tasks"] * tour["waves"]


def test_single_flight_has_one_query_for_each_report(tour: dict[str, Any]) -> None:
    step = tour["steps"]["ttl, single flight"]
    assert step["queries"] == step["stats"]["loads"] == 2 * tour["waves"]
    assert step["queries"] + step["stats"]["waits"] + step["stats"]["hits"] == step["calls"]


def test_each_key_of_the_sweep_is_loaded_again(tour: dict[str, Any]) -> None:
    for name in ("jitter=None", "jitter"):
        assert tour["steps"][name]["queries"] >= tour["customers"]


def test_stale_loads_behind_the_callers(tour: dict[str, Any]) -> None:
    step = tour["steps"]["ttl, stale"]
    assert step["queries"] == step["stats"]["refreshes"] == 2 * tour["waves"]
    assert step["stats"]["waits"] == 0


def test_nobody_is_told_the_past_once_the_write_has_returned(tour: dict[str, Any]) -> None:
    step, storm = tour["steps"]["invalidation"], tour["steps"]["invalidation, storm"]
    assert step["queries"] == 2 * 2 * tour["waves"]
    assert step["stale_answers"] == storm["stale_answers"] == 0
    assert storm["calls"] > 0


def test_percentiles_are_in_order(tour: dict[str, Any]) -> None:
    for step in tour["steps"].values():
        assert 0 <= step["p50_ms"] <= step["p99_ms"]


def test_on_redis_it_tells_the_same_story_in_plain_text(redis_url: str, redis_server: RedisServer) -> None:
    ended = run("demo", "--quick", "--url", redis_url, "--namespace", "tour")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "\x1b" not in ended.stdout
    assert "\r" not in ended.stdout
    assert not [line for line in ended.stdout.splitlines() if line != line.rstrip()]
    assert "@invalidates(revenue, best_sellers)" in ended.stdout
    assert all(f"   {step}" in ended.stdout for step in STEPS)
    assert "backend errors" not in ended.stdout
    left = redis_server.cli("KEYS", "*")
    assert left
    assert all(key.startswith(b"tour") for key in left)


def test_where_only_ascii_can_be_shown_it_draws_in_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    story = Story(Console(file=file, width=80))
    story.heading("In short")
    story.chart("p99", [("no cache", 1.0, duration(1.0)), ("ttl", 1e-6, duration(1e-6))])
    file.seek(0)
    assert file.read().splitlines()[-2:] == [f"   no cache  {'#' * 40} 1.00 s", "   ttl       | 1.0 us"]


def test_an_unknown_scheme_is_a_wrong_command_line() -> None:
    ended = run("demo", "--quick", "--url", "ftp://nowhere")
    assert ended.returncode == 2
    assert re.fullmatch(r"cachecraft: .*ftp://nowhere.*\n", ended.stderr)
    assert ended.stdout == ""


def test_an_unreachable_redis_is_explained_without_its_password() -> None:
    ended = run("demo", "--quick", "--url", "redis://user:secret@127.0.0.1:1/0")
    assert ended.returncode == 3
    assert re.fullmatch(r"cachecraft: cannot reach redis://127\.0\.0\.1:1/0: .*\n", ended.stderr)
    assert "secret" not in ended.stderr


def test_a_cache_that_is_turned_off_has_nothing_to_show() -> None:
    ended = run("demo", "--quick", CACHECRAFT_ENABLED="0")
    assert ended.returncode == 1
    assert re.fullmatch(r"cachecraft: .*CACHECRAFT_ENABLED.*\n", ended.stderr)


def test_an_interrupt_ends_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "demo", "--quick"],
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("2 ") for line in process.stdout)  # in the middle of it
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (130, "cachecraft: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_the_version_is_told() -> None:
    ended = run("--version")
    assert (ended.returncode, ended.stdout) == (0, f"cachecraft {cachecraft.__version__}\n")


@pytest.mark.parametrize("package", ["rich", "typer"])
def test_without_the_extra_it_says_what_to_install(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; from cachecraft.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "demo"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch(r"cachecraft: .*install cachecraft with its extra \[cli\]\n", ended.stderr)
