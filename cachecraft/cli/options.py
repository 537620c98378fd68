"""The options that subcommands share, so that each means and says the same wherever it is given."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="Where entries are kept: memory:// or redis://HOST:PORT/DB.")
]
ServerUrl = Annotated[
    str,
    typer.Option(
        "--url", metavar="URL", envvar="CACHECRAFT_URL", help="The server: redis://HOST:PORT/DB, rediss://, unix://."
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        metavar="NAME",
        envvar="CACHECRAFT_NAMESPACE",
        help="The cache's namespace, as the program says it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout; whatever is for people goes to stderr.")]
