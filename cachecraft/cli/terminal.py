"""The terminal a subcommand writes to: in colour where there is one, plain text in a pipe, silent beside ``--json``."""

from __future__ import annotations

import sys

from rich.console import Console


def open_console(*, json: bool = False) -> Console:
    """A console on stdout, or, where stdout belongs to JSON, on stderr if somebody is looking at it."""
    stream = sys.stderr if json else sys.stdout
    if hasattr(stream, "reconfigure"):
        # In a terminal that cannot show a sign, a question mark is better than a traceback.
        stream.reconfigure(errors="replace")
    return Console(stderr=json, quiet=json and not sys.stderr.isatty(), highlight=False)


def is_plain(console: Console) -> bool:
    """Whether only ASCII can be shown."""
    return not console.encoding.lower().startswith("utf")
