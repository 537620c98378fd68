"""``cachecraft bench``: how many hits a server and this client make together, by how many ask at once."""

from __future__ import annotations

import json as jsons
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachecraft._core.errors import OptionError
from cachecraft.cli.ending import DONE, FAILED, ended
from cachecraft.cli.figures import bar, duration, many
from cachecraft.cli.load import Level, by_tasks, by_threads, filled
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import fit, is_plain, open_console, progress, put

KINDS: Final = {"threads": by_threads, "tasks": by_tasks}
MOST: Final = 10_000


def bench(
    url: ServerUrl = "",
    namespace: Namespace = "",
    threads: Annotated[
        str, typer.Option("--threads", metavar="N,N,...", help="Callers at once; '' for none.")
    ] = "1,8,32,64",
    tasks: Annotated[
        str, typer.Option("--tasks", metavar="N,N,...", help="Callers at once; '' for none.")
    ] = "1,10,100,1000",
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, max=600, help="How long each.")] = 1.0,
    size: Annotated[int, typer.Option("--size", min=1, max=1_000_000, help="Bytes of each value.")] = 100,
    pool_size: Annotated[
        int, typer.Option("--pool-size", min=1, help="The most connections, as Cache(pool_size=).")
    ] = 32,
    json: Json = False,
) -> None:
    """Put load on the server: hits per second, p50 and p99, by how many callers ask at once.

    It stores 64 small values in the namespace, reads them with the client that
    programs use, and removes them. It ends with 1 if reads failed.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        plan = [("threads", each) for each in _numbers("--threads", threads)]
        plan += [("tasks", each) for each in _numbers("--tasks", tasks)]
        if not plan:
            raise OptionError("nobody is to call; give --threads or --tasks a number")
        console = open_console(json=json, wrapped=False)
        with (
            target.cache(pool_size=pool_size) as cache,
            filled(cache, size) as names,
            progress(console, f"{many(len(plan), 'level')} of {seconds:g} s", len(plan)) as watch,
        ):
            levels = _walk(plan, watch, lambda kind, callers: KINDS[kind](cache, names, callers, seconds))
        if json:
            print(jsons.dumps(_document(target, levels, seconds=seconds, size=size, pool_size=pool_size), indent=2))
        else:
            _show(console, target, levels, f"hits of {many(size, 'byte')}, {many(pool_size, 'connection')} at the most")
        return FAILED if any(level.failed for level in levels) else DONE

    raise typer.Exit(ended(work))


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(each) for each in text.split(",") if each.strip()]
    except ValueError:
        numbers = [0]
    if not all(0 < number <= MOST for number in numbers):
        raise OptionError(f"{option} takes numbers from 1 to {MOST:,} with commas between, such as 1,8,64")
    return numbers


def _walk(
    plan: list[tuple[str, int]], watch: Callable[[float], object], run: Callable[[str, int], Level]
) -> list[Level]:
    levels = []
    for done, (kind, callers) in enumerate(plan):
        watch(done)
        levels.append(run(kind, callers))
    return levels


def _document(target: Target, levels: list[Level], **settings: float) -> dict[str, Any]:
    return {
        "namespace": target.namespace,
        **settings,
        "levels": [
            {
                "kind": level.kind,
                "callers": level.callers,
                "hits_per_second": round(level.per_second, 1),
                "p50_ms": round(level.p50 * 1e3, 4),
                "p99_ms": round(level.p99 * 1e3, 4),
                "max_ms": round(level.worst * 1e3, 4),
                "failed": level.failed,
            }
            for level in levels
        ],
    }


def _show(console: Console, target: Target, levels: list[Level], what: str) -> None:
    plain = is_plain(console)
    put(console, Text.assemble(("bench", "bold"), f" of {target.where}: {what}"))
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False, header_style="dim")
    for title in ("callers", "hits/s", "p50", "p99", "max", "failed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    most = max(level.per_second for level in levels) or 1.0
    for level, after in zip(levels, [*levels[1:], None], strict=True):
        times = [fit(console, duration(each)) for each in (level.p50, level.p99, level.worst)]
        table.add_row(
            f"{level.callers:,} {level.kind if level.callers > 1 else level.kind[:-1]}",
            f"{level.per_second:,.0f}",
            *times,
            Text(f"{level.failed:,}", style="red" if level.failed else ""),
            Text(bar(level.per_second / most, 16, plain=plain), style="cyan"),
            end_section=after is not None and after.kind != level.kind,
        )
    console.print()
    put(console, table)
    if any(level.failed for level in levels):
        console.print()
        put(console, Text("What failed had no connection or no answer in time; see `cachecraft doctor`.", style="red"))
