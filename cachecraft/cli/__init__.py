"""The command ``cachecraft``: reads a command line, does one thing, and answers with an exit code scripts can use.

It needs the extra ``cli``; without it, ``main`` says so in one line. 0 is good; 1 means that something is bad, or not
there; 2 a command line (or an installation) that cannot work; 3 a server that cannot be reached; 130 an interrupt.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

NEEDED = ("rich", "typer")


def main() -> None:
    """What the command ``cachecraft`` and ``python -m cachecraft`` run."""
    for package in NEEDED:
        try:
            import_module(package)
        except ModuleNotFoundError as missing:
            if missing.name != package:  # it is there and broken, which is another story
                raise
            print(
                f"cachecraft: the command line needs {package}; install cachecraft with its extra [cli]",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
    from cachecraft.cli.app import app

    logging.getLogger("cachecraft").addHandler(logging.NullHandler())  # a command says itself what went wrong
    app()
