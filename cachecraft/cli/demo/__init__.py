"""``cachecraft demo``: one slow report under concurrent load, and one feature at a time put upon it."""

from __future__ import annotations

from typing import Annotated

import typer

from cachecraft.cli.ending import ended
from cachecraft.cli.options import Json, Url


def demo(
    url: Url = "memory://",
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NAME", help="What the namespaces of the tour begin with.")
    ] = "cachecraft-demo",
    quick: Annotated[bool, typer.Option("--quick", help="Less data and fewer callers: a few seconds, for CI.")] = False,
    json: Json = False,
) -> None:
    """A guided tour: real SQL under concurrent load, one feature at a time.

    Each step shows the queries that reached the database, what callers waited,
    and how many answers were out of date.

    It puts load on the cache, so it goes where --url says; the environment is not asked.
    What it leaves there is out of use, and expires within minutes.
    """
    from cachecraft.cli.demo.tour import tour

    raise typer.Exit(ended(lambda: tour(url, namespace, quick=quick, as_json=json)))
