"""Every example in docs/ runs as it stands, each in a process of its own: a reader copies one, not all."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.terminal import ROOT

EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_without_those_before_it(example: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4
