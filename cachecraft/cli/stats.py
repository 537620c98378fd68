"""``cachecraft stats``: what all processes of a namespace have counted, function by function."""

from __future__ import annotations

import json as jsons
from collections.abc import Callable, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachecraft import reports
from cachecraft._core.errors import BackendError
from cachecraft.cli.census import Holding, census
from cachecraft.cli.ending import DONE, ended
from cachecraft.cli.figures import size
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.published import (
    Figures,
    Reader,
    by_function,
    near_shown,
    number_table,
    overall,
    processes_shown,
    quantile_shown,
    rate_shown,
    redis_json,
    saved_shown,
)
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import open_console, shown
from cachecraft.reports import Report
from cachecraft.stats import Snapshot


def stats(url: ServerUrl = "", namespace: Namespace = "", json: Json = False) -> None:
    """Hit rate, loads, errors and latencies, function by function, over all processes that run.

    Each process publishes its counters every few seconds (publish_stats=), from its start on;
    what has ended is not counted any more. What is in Redis is worked out of a sample of its keys.
    """
    raise typer.Exit(ended(lambda: _stats(Target.of(url, namespace), as_json=json)))


def _stats(target: Target, *, as_json: bool) -> int:
    reader = Reader(target)
    found = reader.read()
    counted = reports.total(reader.namespace, found)
    try:
        holdings, share = census(target.dialling(), target.namespace)
    except BackendError:  # to read counters takes fewer rights than to look at entries
        holdings, share = {}, 0.0
    if as_json:
        print(jsons.dumps(_document(reader.namespace, found, counted, holdings, share), indent=2))
    else:
        show(open_console(), reader.namespace, found, counted, holdings, share)
    return DONE


def _document(
    namespace: str, found: list[Report], counted: Snapshot, holdings: dict[str, Holding], share: float
) -> dict[str, Any]:
    functions = []
    for each in by_function(counted):
        held = holdings.get(each.function, Holding())
        functions.append({**each.as_json(), "redis": {"entries": held.entries, "bytes": held.bytes}})
    return {
        "namespace": namespace,
        "processes": [{"host": each.host, "pid": each.pid, "up_seconds": round(each.up, 1)} for each in found],
        "total": overall(counted).as_json(),
        "functions": functions,
        "redis": redis_json(counted),
        "cache": counted.cache,
        "sampled": round(share, 4),
    }


def show(
    console: Console,
    namespace: str,
    found: list[Report],
    counted: Snapshot,
    holdings: dict[str, Holding],
    share: float,
) -> None:
    """Tell a person."""
    if not found:
        console.print(f"No process publishes its counters under the namespace {namespace!r} here.", markup=False)
        console.print("A cache on Redis begins to, five seconds after its first use, unless publish_stats=None.")
        return
    console.print(f"{namespace or '(no namespace)'}: {processes_shown(found)}", markup=False)
    functions, everything = by_function(counted), overall(counted)
    rows = [*functions, everything] if len(functions) != 1 else functions
    console.print(_calls_table(rows))
    console.print("", _ledger_table(rows, holdings, share), "", _redis_table(counted), sep="\n")
    if counted.cache.get("breaker_open"):
        console.print(f"Out of reach of Redis: {counted.cache['breaker_open']:.0f} of them", style="red")
    if counted.cache.get("journal"):
        console.print(f"Invalidations that wait for Redis: {counted.cache['journal']:.0f}", style="red")


def _calls_table(rows: Sequence[Figures]) -> Table:
    columns: dict[str, Callable[[Figures], str]] = {
        "calls": lambda each: f"{each.requests:,}",
        "hit rate": rate_shown,
        "near": near_shown,
        "loads": lambda each: f"{each.loads:,}",
        "errors": lambda each: f"{each.errors:,}",
        "load p50": lambda each: quantile_shown(each.load, 0.5),
        "p99": lambda each: quantile_shown(each.load, 0.99),
        "wait p99": lambda each: quantile_shown(each.wait, 0.99),
    }
    return _function_table("function", rows, columns)


def _ledger_table(rows: Sequence[Figures], holdings: dict[str, Holding], share: float) -> Table:
    """What each function saves, and what that costs."""

    def in_redis(each: Figures) -> str:
        named = [row.function for row in (rows if _is_sum(each, rows) else [each])]
        held = sum(holdings[name].bytes for name in named if name in holdings)
        return f"{'~' * (share < 1)}{size(held)}" if held else ""

    columns: dict[str, Callable[[Figures], str]] = {
        "loads avoided": lambda each: f"{each.avoided:,}",
        "time saved": saved_shown,
        "stale": lambda each: f"{each.stale:,}" if each.stale else "",
        "verified": lambda each: f"{each.verified:,}" if each.verified else "",
        "differed": lambda each: f"{each.differed:,}" if each.differed else "",
        "memory": lambda each: size(each.bytes) if each.bytes else "",
        "in Redis": in_redis,
    }
    return _function_table("ledger", rows, columns)


def _function_table(title: str, rows: Sequence[Figures], columns: dict[str, Callable[[Figures], str]]) -> Table:
    """A row for each function; columns that say nothing of any are left out."""
    cells = {name: [cell(each) for each in rows] for name, cell in columns.items()}
    told = {name: column for name, column in cells.items() if any(column)}
    table = number_table(title, *told)
    for each, *row in zip(rows, *told.values(), strict=True):
        table.add_row(Text(shown(each.function)), *row, style="bold" if _is_sum(each, rows) else None)
    return table


def _is_sum(row: Figures, rows: Sequence[Figures]) -> bool:
    """Whether it is the last one, of all; a single function is its own sum."""
    return row is rows[-1] and len(rows) > 1


def _redis_table(counted: Snapshot) -> Table:
    table = number_table("Redis", "round trips", "errors", "p50", "p99")
    for name, each in sorted(counted.redis.items(), key=lambda pair: -pair[1].count):
        errors = counted.redis_errors[name]
        times = (quantile_shown(each, 0.5), quantile_shown(each, 0.99))
        table.add_row(Text(shown(name)), f"{each.count:,}", f"{errors:,}", *times)
    return table
