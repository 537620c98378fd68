"""``cachecraft top``: the hottest functions and keys of a namespace over all processes, live."""

from __future__ import annotations

import json as jsons
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cachecraft import reports
from cachecraft.cli.ending import DONE, ended
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.published import (
    Figures,
    Reader,
    by_function,
    number_table,
    processes_shown,
    quantile_shown,
    rate_shown,
)
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import open_console, shown
from cachecraft.reports import Report
from cachecraft.stats import Snapshot


@dataclass(slots=True)
class Frame:
    """What went on of late. Rates are per second."""

    processes: list[Report]
    functions: list[tuple[float, Figures]]
    """Calls, and the figures of the same time."""
    keys: list[tuple[str, float]]

    def as_json(self, namespace: str) -> dict[str, Any]:
        return {
            "namespace": namespace,
            "processes": len(self.processes),
            "functions": [{"per_second": round(rate, 1), **each.as_json()} for rate, each in self.functions],
            "keys": [{"key": key, "per_second": round(rate, 1)} for key, rate in self.keys],
        }


def top(
    url: ServerUrl = "",
    namespace: Namespace = "",
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 2.0,
    times: Annotated[int, typer.Option("--times", min=0, help="Looks before it ends; 0 for no end.")] = 0,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Functions and keys to show.")] = 15,
    json: Json = False,
) -> None:
    """The hottest functions and keys over all processes, live; it ends with Ctrl-C.

    The keys are those asked for in Redis: what is served from memory never comes that far.
    With --json, a line for each look.
    """
    raise typer.Exit(ended(lambda: _top(Reader(Target.of(url, namespace)), interval, times, rows, as_json=json)))


def _top(reader: Reader, interval: float, times: int, rows: int, *, as_json: bool) -> int:
    console = open_console(json=as_json)
    looks = frames(reader, interval, times)
    if console.is_terminal and not as_json:
        return _watch(console, reader.namespace, looks, rows)
    for frame in looks:
        if as_json:
            print(jsons.dumps(frame.as_json(reader.namespace)), flush=True)
        else:
            console.print(_shown(frame, reader.namespace, rows))
    return DONE


def _watch(console: Console, namespace: str, looks: Iterator[Frame], rows: int) -> int:
    """One frame over the other, until somebody has seen enough."""
    try:
        with Live(console=console, auto_refresh=False) as live:
            for frame in looks:
                live.update(_shown(frame, namespace, rows), refresh=True)
    except KeyboardInterrupt:
        pass
    return DONE


def frames(reader: Reader, interval: float, times: int) -> Iterator[Frame]:
    """A frame for each look; the first tells of all that has happened since each process began."""
    rates = Rates()
    for look in count(1):
        yield rates.after(reader.namespace, reader.read())
        if look == times:
            return
        time.sleep(interval)


class Rates:
    """What happened between the last two reports of each process."""

    def __init__(self) -> None:
        self._last: dict[bytes, Report] = {}
        self._since: dict[bytes, tuple[Snapshot, float]] = {}

    def after(self, namespace: str, found: list[Report]) -> Frame:
        """What the reports that are now there say of late."""
        present = {report.id: report for report in found}
        self._since = {each: since for each, since in self._since.items() if each in present}
        recent = Snapshot(namespace)
        rates: dict[str, float] = {}
        for report in found:
            since, seconds = self._since_of(report)
            recent.add(since)
            for function, counted in since.functions.items():
                rates[function] = rates.get(function, 0.0) + counted.requests / seconds
        self._last = present
        ranked = [(rates.get(each.function, 0.0), each) for each in by_function(recent)]
        return Frame(found, sorted(ranked, key=lambda pair: -pair[0]), reports.hottest(found))

    def _since_of(self, report: Report) -> tuple[Snapshot, float]:
        last = self._last.get(report.id)
        if last is None:
            self._since[report.id] = report.counted, max(report.up, 1e-3)
        elif report.up > last.up:
            since = Snapshot(report.counted.namespace)
            since.add(report.counted)
            since.forget(last.counted)
            self._since[report.id] = since, report.up - last.up
        return self._since[report.id]


def _shown(frame: Frame, namespace: str, rows: int) -> Group:
    title = f"{namespace or '(no namespace)'}: {processes_shown(frame.processes)}"
    functions = number_table("function", "calls/s", "hit rate", "loads", "errors", "load p50", "p99")
    for rate, each in frame.functions[:rows]:
        functions.add_row(
            Text(shown(each.function)),
            f"{rate:,.1f}",
            rate_shown(each),
            f"{each.loads:,}",
            f"{each.errors:,}",
            quantile_shown(each.load, 0.5),
            quantile_shown(each.load, 0.99),
        )
    keys = number_table("key", "asked/s")
    for key, rate in frame.keys[:rows]:
        keys.add_row(Text(shown(key)), f"{rate:,.1f}")
    return Group(Text(title), Text(), functions, Text(), keys)
