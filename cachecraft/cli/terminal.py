"""The terminal a subcommand writes to: in colour where there is one, plain text in a pipe, silent beside ``--json``.

What comes from a server may hold anything, also what a terminal would obey: it is printed as ``shown`` shows it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding

_ASCII: Final = {ord("µ"): "u", ord("±"): "+-", ord("→"): "->"}
_UNWRAPPED: Final = 1000
"""Columns of what is no terminal: a line stays a line, for whoever searches it."""


def open_console(*, json: bool = False, wrapped: bool = True) -> Console:
    """A console on stdout, or, where stdout belongs to JSON, on stderr if somebody is looking at it.

    ``wrapped=False`` breaks lines in terminals only, or where ``COLUMNS`` says so.
    """
    stream = sys.stderr if json else sys.stdout
    _forgive(stream, "replace")
    width = None if wrapped or stream.isatty() or os.environ.get("COLUMNS") else _UNWRAPPED
    return _Console(stderr=json, quiet=json and not sys.stderr.isatty(), highlight=False, width=width)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the program, and with 1; which exit code that is, ``ending`` knows."""
        raise  # noqa: PLE0704 - rich calls this while it handles the BrokenPipeError


def _forgive(stream: TextIO, errors: str) -> None:
    """Where a sign cannot be shown, something else in its place is better than a traceback."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)


def open_lines() -> Callable[[str], None]:
    """Writes lines to stdout, plain ones, as quickly as they come."""
    _forgive(sys.stdout, "backslashreplace")
    return print


def is_plain(console: Console) -> bool:
    """Whether only ASCII can be shown."""
    return not console.encoding.lower().startswith("utf")


def fit(console: Console, words: str) -> str:
    """Our own words, in ASCII where nothing else can be shown."""
    return words.translate(_ASCII) if is_plain(console) else words


def put(console: Console, what: RenderableType, indent: int = 0) -> None:
    """Print; in a file, without blanks at the end of a line."""
    padded = Padding(what, (0, 0, 0, indent), expand=False)
    if console.is_terminal:
        console.print(padded)
        return
    for line in console.render_lines(padded, pad=False):
        console.out("".join(segment.text for segment in line).rstrip(), highlight=False)


def text_of(raw: bytes) -> str:
    """Bytes from a server as text; what is no UTF-8 is shown as ``\\xff``."""
    return raw.decode("utf-8", "backslashreplace")


def shown(text: str) -> str:
    """The text with all that does not simply print (controls, escapes, what turns the direction) spelt out."""
    if text.isprintable():
        return text
    text = text_of(text.encode("utf-8", "surrogateescape"))  # what the command line could not read as text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


@contextmanager
def progress(console: Console, label: str, total: float | None, indent: int = 0) -> Iterator[Callable[[float], None]]:
    """A bar while something goes on, told how much is done; nothing of it stays, and a pipe never sees it.

    Without a ``total`` it says only that something goes on, and how much of it.
    """
    if not console.is_interactive:
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    shape = Progress(
        TextColumn(" " * indent + "{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with shape:
        task = shape.add_task(label, total=total)
        yield lambda done: shape.update(task, completed=done if total is None else min(done, total))
