"""``cachecraft inspect``: one entry, decoded."""

from __future__ import annotations

import datetime
import json as jsons
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from cachecraft._core.entry import ENCRYPTED, FAILURE, Entry
from cachecraft._core.errors import CacheError
from cachecraft.cli.ending import DONE, FAILED, ended
from cachecraft.cli.figures import duration, size, span
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.release import Release
from cachecraft.cli.sighting import Sighting, kept_aside, sight
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import fit, open_console, put, shown, text_of
from cachecraft.cli.values import as_json, compression, serializer, value_of
from cachecraft.cli.why import explained

SERVED: Final = ("fresh", "stale", "loading", "stamp", "refresh", "other")
STYLES: Final = {"fresh": "green", "stale": "yellow", "loading": "cyan", "invalidated": "red", "corrupt": "red"}


def inspect(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="As `keys` lists it, as f.key(...) says it, or as in cache.get().")
    ],
    url: ServerUrl = "",
    namespace: Namespace = "",
    value: Annotated[bool, typer.Option("--value", help="Also the value. Pickles are never opened.")] = False,
    aside: Annotated[
        bool, typer.Option("--aside", help="Also look for what other releases keep aside of it: takes a scan.")
    ] = False,
    json: Json = False,
) -> None:
    """Decode what is stored under one key: its age, ttl, tags, size, whether it may still be served, and why not.

    It ends with 1 if nothing is there, or nothing that would be served.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        with target.server() as server:
            seen = explained(server, sight(server, target.key(key)))
            names = kept_aside(server, seen.key) if aside else None
        shape = document(seen, target, names)
        if value:
            shape |= _value(seen.entry)
        if json:
            print(jsons.dumps(shape, indent=2))
        else:
            show(open_console(wrapped=False), seen, names, value=value)
        return DONE if seen.state in SERVED else FAILED

    raise typer.Exit(ended(work))


def document(seen: Sighting, target: Target, aside: list[str] | None) -> dict[str, Any]:
    """What ``--json`` prints."""
    entry = seen.entry
    return {
        "key": text_of(seen.key.encode("utf-8", "surrogateescape")),
        "namespace": target.namespace,
        "state": seen.state,
        "reason": seen.reason,
        "by": seen.by
        and {
            "means": seen.by.by,
            "name": seen.by.name,
            "ago_s": _rounded(seen.by.ago),
            "site": seen.by.site,
            "write": seen.by.write,
        },
        "unkept": seen.unkept
        and {
            "fate": seen.unkept.fate,
            "detail": seen.unkept.detail,
            "ago_s": _rounded(max(time.time() - seen.unkept.when, 0)),
        },
        "kept": seen.kept
        and {
            "fate": seen.kept.fate,
            "ago_s": _rounded(max(time.time() - seen.kept.when, 0)),
            "for_s": _rounded(seen.kept.until - seen.kept.when),
            "host": seen.kept.host,
            "pid": seen.kept.pid,
        },
        "remembered": seen.remembered,
        "left_s": _rounded(seen.left),
        "bytes": seen.size,
        "refreshing": seen.refreshing,
        "waits": seen.waits,
        "stamps": [{"kind": each.kind, "name": each.name, "holds": each.holds} for each in seen.stamps],
        "aside": aside,
        "entry": entry
        and {
            "created": _moment(entry.created),
            "age_s": _rounded(seen.age),
            "kept_after_ttl_s": _rounded(entry.keep),
            "load_time_s": entry.cost,
            "payload_bytes": len(entry.payload),
            "serializer": serializer(entry),
            "compression": compression(entry),
            "encrypted": bool(entry.flags & ENCRYPTED),
            "exception": bool(entry.flags & FAILURE),
            "schema": entry.schema.hex(),
        },
        "release": seen.release and seen.release.as_json(),
    }


def _value(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"value": None, "value_error": "there is no entry"}
    try:
        return {"value": as_json(value_of(entry)), "value_error": None}
    except (CacheError, RecursionError) as error:
        return {"value": None, "value_error": _why_not(error)}


def show(console: Console, seen: Sighting, aside: list[str] | None, *, value: bool) -> None:
    """Tell a person."""
    state = Text(seen.state, style=STYLES.get(seen.state, ""))
    put(
        console, Text.assemble((shown(seen.key), "bold"), "  ", state, f"  {shown(seen.reason)}" if seen.reason else "")
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(seen, aside):
        text.plain = fit(console, text.plain)
        table.add_row(name, text)
    if table.row_count:
        put(console, table, indent=2)
    if value and seen.entry is not None:
        _show_value(console, seen)


def _rows(seen: Sighting, aside: list[str] | None) -> Iterator[tuple[str, Text]]:
    entry = seen.entry
    if seen.by is not None:
        yield "by", Text(f"{shown(seen.by.how().removeprefix('by '))}\n{shown(seen.by.whence())}")
    if seen.state == "loading":
        yield "lease", Text(f"ends in {span(seen.left or 0)}, unless whoever loads renews it")
    if entry is not None:
        yield "age", Text(f"{span(max(seen.age or 0, 0))}, stored {_moment(entry.created) or 'at no time there is'}")
        yield "ttl left", Text(_left(seen))
        yield "load time", Text(duration(entry.cost))
    if seen.size:
        yield "size", Text(_size(seen))
    if entry is not None:
        yield "value", Text(_nature(seen))
        yield "schema", _schema(entry, seen.release)
    for each in seen.stamps:
        verdict = Text("holds ", style="green") if each.holds else Text("fallen", style="red")
        yield "stamp", verdict + Text(f"  {each.kind} {shown(each.name)}".rstrip())
    if seen.waits is not None:
        yield "waits", Text(f"a write behind {shown(seen.waits)}: whoever loads it gets the value that this brings")
    if seen.refreshing:
        yield "refresh", Text("under way, behind the callers' backs")
    for name in aside or ():
        yield "aside", Text(shown(name))
    if aside == []:
        yield "aside", Text("nothing")


def _schema(entry: Entry, release: Release | None) -> Text:
    text = Text(entry.schema.hex())
    if release is not None:
        text.append(f": {shown(str(release))}", style="yellow" if release.current is False else "")
    return text


def _left(seen: Sighting) -> str:
    if seen.left is None:
        return "it never ends, so it is not as the cache stored it"
    words = span(seen.left) if seen.left > 0 else f"none since {span(-seen.left)}"
    keep = seen.entry.keep if seen.entry else 0.0
    return f"{words}; kept {span(keep)} beyond, for stale= and grace=" if keep else words


def _size(seen: Sighting) -> str:
    entry = seen.entry
    return size(seen.size) if entry is None else f"{size(seen.size)}, of which {size(len(entry.payload))} are the value"


def _nature(seen: Sighting) -> str:
    entry = seen.entry
    assert entry is not None
    parts = [serializer(entry), compression(entry) or "not compressed"]
    if entry.flags & ENCRYPTED:
        parts.append("encrypted")
    if entry.flags & FAILURE:
        parts.append("a remembered exception")
    return ", ".join(parts)


def _show_value(console: Console, seen: Sighting) -> None:
    assert seen.entry is not None
    console.print()
    try:
        put(console, Pretty(value_of(seen.entry)), indent=2)
    except (CacheError, RecursionError) as error:
        put(console, Text(f"the value is not shown: {_why_not(error)}", style="yellow"), indent=2)


def _why_not(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else shown(str(error))


def _moment(seconds: float) -> str | None:
    try:
        return (
            datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(" ", "seconds").replace("+00:00", " UTC")
        )
    except (OverflowError, ValueError, OSError):  # the bytes are untrusted
        return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
