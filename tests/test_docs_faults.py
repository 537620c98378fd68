"""The table of faults in the documentation: long enough, complete in each row, and every test it names is there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split(" | ")]
    for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| fault |")
]
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)(?:\[([^\]]+)\])?`")


@functools.cache
def _module(name: str) -> ast.Module:
    return ast.parse((TESTS / name).read_text(encoding="utf-8"))


def test_at_least_forty_faults_are_told_of_each_once() -> None:
    assert len(ROWS) >= 40
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_whole_and_its_tests_exist(row: list[str]) -> None:
    """A name in brackets is one of the test's parameters, and written in its file."""
    assert len(row) == 5
    assert all(row)
    tests = NAMED.findall(row[-1])
    assert len(tests) == row[-1].count("`") // 2 > 0
    for file, name, parameter in tests:
        body = _module(file).body
        functions = {each.name for each in body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
        assert name in functions, f"{file} has no {name}"
        texts = {each.value for each in ast.walk(_module(file)) if isinstance(each, ast.Constant)}
        assert not parameter or parameter in texts, f"{name} in {file} has no parameter {parameter!r}"


def test_the_table_is_found_from_where_one_looks() -> None:
    assert "(docs/faults.md)" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(faults.md)" in (DOCS / "outages.md").read_text(encoding="utf-8")
