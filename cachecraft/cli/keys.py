"""``cachecraft keys``: the keys of a namespace, one a line, as they come."""

from __future__ import annotations

import json as jsons
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cachecraft.cli.ending import DONE, FAILED, ended, explained
from cachecraft.cli.figures import size, span
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.server import Server
from cachecraft.cli.slots import Slot, glance, is_internal
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import open_lines, shown, text_of


def keys(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="A glob within the namespace, as in @invalidates: 'user:*'.")
    ] = "*",
    url: ServerUrl = "",
    namespace: Namespace = "",
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Also when each expires, its size, and whether it is a load under way.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Stop after so many.")] = None,
    internal: Annotated[
        bool, typer.Option("--internal", help="Also what the cache keeps for itself: stamps, claims, entries aside.")
    ] = False,
    json: Json = False,
) -> None:
    """List the keys of a namespace, in no order.

    Found by SCAN, so it can be run on a server in use. With --json, one object a line.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        write, count = open_lines(), 0
        with target.server() as server:
            for slot in _matching(server, pattern, internal=internal, details=long or json):
                write(jsons.dumps(_document(slot, target)) if json else _line(slot, long=long))
                count += 1
                if count == limit:
                    break
        return DONE if count else explained(_nothing(target, pattern), FAILED)

    raise typer.Exit(ended(work))


def _matching(server: Server, pattern: str, *, internal: bool, details: bool) -> Iterator[Slot]:
    prefix = server.target.prefix.encode()
    for names in server.scan(server.target.pattern(pattern, internal=internal)):
        wanted = [name for name in names if internal or not is_internal(name, prefix)]
        yield from glance(server, wanted) if details else (Slot(name, "", None, None, b"") for name in wanted)


def _line(slot: Slot, *, long: bool) -> str:
    key = shown(text_of(slot.key))
    if not long:
        return key
    left = "never" if slot.left is None else span(slot.left)
    return f"{slot.kind:<7}  {left:>13}  {'?' if slot.size is None else size(slot.size):>9}  {key}"


def _document(slot: Slot, target: Target) -> dict[str, Any]:
    return {
        "key": text_of(slot.key),
        "kind": slot.kind,
        "internal": is_internal(slot.key, target.prefix.encode()),
        "expires_in_s": slot.left,
        "bytes": slot.size,
    }


def _nothing(target: Target, pattern: str) -> str:
    if not target.namespace:
        return "no key matches, of those without a namespace; give --namespace, or set CACHECRAFT_NAMESPACE"
    hint = ""
    if pattern.startswith(target.prefix):
        hint = f"; patterns are within the namespace: try {pattern.removeprefix(target.prefix)!r}"
    return f"no key matches in the namespace {target.namespace!r}{hint}"
