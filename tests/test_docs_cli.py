"""What the documentation says of the command line: each command that it shows works, each option and field is told."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cachecraft.cli.app import app
from tests.cli_kit import Shop, shop  # noqa: F401 - a fixture
from tests.terminal import ROOT, cli

DOCS = [ROOT / "docs" / "cli.md", ROOT / "README.md"]
SHOWN = [
    pytest.param(line, id=line)
    for path in DOCS
    for line in dict.fromkeys(
        re.findall(r"^\$ cachecraft ((?!demo).*?)(?: +#.*)?$", path.read_text("utf-8"), re.MULTILINE)
    )
]


@pytest.mark.parametrize("line", SHOWN)
def test_what_the_documentation_shows_works(shop: Shop, line: str) -> None:
    words = shlex.split(line.partition(" | ")[0].replace("redis://localhost:6379/0", shop.url))
    hurry = {"bench": ["--seconds", "0.01", "--threads", "1", "--tasks", "1"], "invalidate": ["--yes"]}
    more = {"CACHECRAFT_URL": shop.url, "CACHECRAFT_NAMESPACE": "shop"}
    assert cli(*words, *hurry.get(words[0], ()), **more).code == 0


def test_every_option_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__
        assert f"`cachecraft {name}" in text, name
        options = set(re.findall(r"--[a-z][a-z-]+", cli(name, "--help").out)) - {"--help"}
        assert not {option for option in options if f"`{option}" not in text}, name


def test_every_field_of_the_json_is_in_the_documentation(shop: Shop) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")

    def fields(document: Any) -> set[str]:
        if isinstance(document, dict):
            return set(document) | {field for each in document.values() for field in fields(each)}
        return {field for each in document for field in fields(each)} if isinstance(document, list) else set()

    for command in (
        ["ttl"],
        ["inspect", "product:p1", "--aside"],
        ["invalidate", "--dry-run", "--key", "x"],
        ["bench", "--seconds", "0.01", "--threads", "1", "--tasks", ""],
        ["keys", "--limit", "1"],
    ):
        document = json.loads(cli(*command, *shop.where, "--json").out)
        assert not {field for field in fields(document) if f"`{field}`" not in text}, command


def test_the_pictures_that_are_shown_are_there() -> None:
    for path in DOCS:
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+\.svg)\)", path.read_text("utf-8")):
            assert (path.parent / Path(picture)).read_text("utf-8").startswith("<svg"), picture
