"""The table of subcommands; what each does is its own module's business."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cachecraft.cli.bench import bench
from cachecraft.cli.demo import demo
from cachecraft.cli.doctor import doctor
from cachecraft.cli.inspect import inspect
from cachecraft.cli.invalidate import invalidate
from cachecraft.cli.keys import keys
from cachecraft.cli.stats import stats
from cachecraft.cli.top import top
from cachecraft.cli.ttl import ttl
from cachecraft.cli.watch import watch
from cachecraft.cli.worker import worker

app = typer.Typer(
    name="cachecraft",
    help="Memoization for def and async def, in memory and in Redis.",
    epilog="It ends with 0 if all is good, 1 if something is bad or not there, 2 if the command line cannot work,"
    " 3 if the server cannot be reached.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug of ours deserves the plain traceback, without the locals (and passwords)
)
for command in (doctor, stats, top, keys, ttl, inspect, invalidate, watch, bench, worker, demo):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        # Asked of the parent package, which is imported by now: a checkout on the path has no metadata to read.
        print(f"cachecraft {sys.modules['cachecraft'].__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # Without a callback typer would take a single subcommand for the whole command.
    """Memoization for def and async def, in memory and in Redis."""
