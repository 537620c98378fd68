"""The command ``cachecraft``: reads a command line, does one thing, and answers with an exit code scripts can use.

It needs the extra ``cli``; without it, ``main`` says so in one line. 0 is success, 1 a failure that was explained,
2 a command line (or an installation) that cannot work, 130 an interrupt.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

REMEDY = "cachecraft: the command line needs typer and rich; install them with: pip install 'cachecraft[cli]'"


def main() -> None:
    """What the command ``cachecraft`` and ``python -m cachecraft`` run."""
    if find_spec("typer") is None or find_spec("rich") is None:
        print(REMEDY, file=sys.stderr)
        raise SystemExit(2)
    from cachecraft.cli.app import app

    app()
