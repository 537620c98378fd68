"""Every example in the README runs, section by section, and what it asserts holds."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from cachecraft import configure

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", README, flags=re.MULTILINE)


def blocks(section: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


EXAMPLES = [pytest.param(each, id=each.splitlines()[0].strip("# ")) for each in SECTIONS if blocks(each)]


@pytest.mark.parametrize("section", EXAMPLES)
def test_example_of_the_readme_runs(section: str, redis_url: str) -> None:
    try:
        module = types.ModuleType("readme")
        for block in blocks(section):
            source = block.replace("redis://localhost:6379/0", redis_url)
            exec(compile(source, "README.md", "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - our own text
    finally:
        configure("memory://").close()
        configure("memory://")


def test_the_readme_has_examples_for_every_topic() -> None:
    assert len(EXAMPLES) >= 8
