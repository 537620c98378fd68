"""How the tour looks: what each step says, its code and its numbers; at the end a table and a bar chart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from textwrap import dedent
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from cachecraft.cli.demo.crowd import Watch
from cachecraft.cli.demo.outcome import Outcome
from cachecraft.cli.figures import bar, duration
from cachecraft.cli.terminal import fit, is_plain, progress, put

INDENT = 3


class Story:
    """Tells the tour to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plain = is_plain(console)

    def opening(self, where: str, what: str) -> None:
        self._put(Text.assemble(("cachecraft demo", "bold"), f" on {where}"), indent=0)
        self._put(Text(what, style="dim"), indent=0)

    def progress(self, label: str, total: int) -> AbstractContextManager[Watch]:
        """A bar while something goes on; nothing of it stays, and there is none where no terminal is."""
        return progress(self._console, label, total, INDENT)

    def blank(self) -> None:
        self._console.print()

    def heading(self, title: str) -> None:
        self.blank()
        self._console.rule(Text(title, style="bold"), align="left", style="dim")

    def say(self, text: str, style: str = "") -> None:
        self._put(Text(text, style=style))

    def code(self, functions: Sequence[Callable[..., Any]]) -> None:
        """The source of functions, as it is run."""
        source = "\n".join(dedent(inspect.getsource(function)) for function in functions)
        shown = Syntax(source.rstrip(), "python", theme="ansi_dark", background_color="default")
        self.blank()
        self._put(shown, indent=2 * INDENT)
        self.blank()

    def outcome(self, outcome: Outcome, counters: str) -> None:
        numbers = {
            "queries": f"{outcome.queries:,}",
            "worst 50 ms": f"{outcome.busiest:,}",
            "p50": fit(self._console, duration(outcome.p50)),
            "p99": fit(self._console, duration(outcome.p99)),
            "stale": f"{outcome.stale:,}",
        }
        line = Text("   ").join(Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in numbers.items())
        self._put(line)
        if counters:
            self.say(counters, "dim")

    def table(self, outcomes: Sequence[Outcome]) -> None:
        table = Table(box=SIMPLE, pad_edge=False, show_edge=False, header_style="dim")
        table.add_column("")
        for title in ("queries", "worst 50 ms", "p50", "p99", "stale"):
            table.add_column(title, justify="right", no_wrap=True)
        for outcome, after in zip(outcomes, [*outcomes[1:], None], strict=True):
            table.add_row(
                outcome.title,
                f"{outcome.queries:,}",
                f"{outcome.busiest:,}",
                fit(self._console, duration(outcome.p50)),
                fit(self._console, duration(outcome.p99)),
                f"{outcome.stale:,}",
                end_section=after is not None and after.load != outcome.load,
            )
        self.blank()
        self._put(table)

    def chart(self, title: str, rows: Sequence[tuple[str, float, str]]) -> None:
        """Bars for rows of (label, value, the value in words), drawn to one linear scale."""
        labels = max(len(label) for label, _, _ in rows)
        width = max(10, min(40, self._console.width - INDENT - labels - 14))
        most = max(value for _, value, _ in rows) or 1.0
        self.blank()
        self.say(title, "dim")
        for label, value, words in rows:
            drawn = bar(value / most, width, plain=self._plain)
            line = Text.assemble(f"{label:<{labels}}  ", (drawn, "cyan"), f" {fit(self._console, words)}")
            self._put(line)

    def _put(self, what: RenderableType, indent: int = INDENT) -> None:
        put(self._console, what, indent)
