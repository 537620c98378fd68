"""``cachecraft doctor``: whether a server is fit to cache in, and what to do where it is not."""

from __future__ import annotations

import json as jsons
from collections import Counter
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cachecraft._core.errors import BackendError
from cachecraft.cli.doctor.examination import examine
from cachecraft.cli.doctor.finding import BAD, GOOD, UNKNOWN, WARNING, Finding, worst
from cachecraft.cli.ending import DONE, FAILED, UNREACHABLE, ended
from cachecraft.cli.figures import many
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import fit, open_console, put, shown

STYLES: Final = {GOOD: "green", WARNING: "yellow", BAD: "red", UNKNOWN: "dim"}


def doctor(
    url: ServerUrl = "",
    namespace: Namespace = "",
    pool_size: Annotated[
        int, typer.Option("--pool-size", min=1, help="What the programs give as Cache(pool_size=).")
    ] = 32,
    json: Json = False,
) -> None:
    """Look a server over: is it fit to cache in, and what is to be done where it is not?

    It writes nothing. It ends with 1 if something is bad, with 3 if the server
    cannot be reached or goes away meanwhile.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        findings, code = _examined(target, pool_size)
        if json:
            document = {
                "url": target.where,
                "namespace": target.namespace,
                "verdict": worst(findings),
                "checks": [finding.as_json() for finding in findings],
            }
            print(jsons.dumps(document, indent=2))
        else:
            _show(open_console(wrapped=False), target, findings)
        return code

    raise typer.Exit(ended(work))


def _examined(target: Target, pool_size: int) -> tuple[list[Finding], int]:
    findings: list[Finding] = []
    try:
        with target.server() as server:
            findings.extend(examine(server, pool_size))
    except BackendError as error:
        reason, _, remedy = str(error).partition("; ")
        gone = Finding("connection", BAD, reason, remedy or None)
        return [*(each for each in findings if each.check != gone.check), gone], UNREACHABLE
    return findings, FAILED if worst(findings) == BAD else DONE


def _show(console: Console, target: Target, findings: list[Finding]) -> None:
    place = f"the namespace {target.namespace!r}" if target.namespace else "no namespace"
    put(console, Text.assemble(("cachecraft doctor", "bold"), f"  {target.where}, {place}"))
    console.print()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        words = Text(fit(console, shown(finding.summary)))
        if finding.remedy:
            words.append(fit(console, f"\n→ {shown(finding.remedy)}"), style=STYLES[finding.level])
        table.add_row(Text(finding.level, style=STYLES[finding.level]), finding.check, words)
    put(console, table, indent=2)
    console.print()
    counts = Counter(finding.level for finding in findings)
    put(
        console,
        Text(f"{counts[GOOD]} good, {many(counts[WARNING], 'warning')}, {counts[BAD]} bad", style="bold"),
        indent=2,
    )
