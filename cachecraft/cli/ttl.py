"""``cachecraft ttl``: when entries end, and whether the jitter spreads them."""

from __future__ import annotations

import json as jsons
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from cachecraft.cli.ending import DONE, FAILED, ended, explained
from cachecraft.cli.figures import bar, many, percent, percentile, span, spark
from cachecraft.cli.lifetimes import Group, Lifetimes, even_edges, gather, histogram
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.server import Server
from cachecraft.cli.slots import FRONT, Slot, glance, is_internal
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import fit, is_plain, open_console, progress, put, shown, text_of

EDGES: Final = (
    10,
    60,
    300,
    900,
    1_800,
    3_600,
    7_200,
    6 * 3_600,
    12 * 3_600,
    86_400,
    2 * 86_400,
    7 * 86_400,
    30 * 86_400,
)
"""Seconds: people think of ttls in steps like these."""
SHOWN: Final = 12
"""Functions in the table; JSON has them all."""
STEPS: Final = 16
"""Signs of the small picture of one function."""
VERDICTS: Final = {
    "spread": ("spread", "green"),
    "together": ("all at once", "red"),
    "apart": ("no jitter", "yellow"),
    "few": ("too few to tell", "dim"),
}


def ttl(
    url: ServerUrl = "",
    namespace: Namespace = "",
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help="Look at so many keys, as SCAN meets them; 0 for all.")
    ] = 20_000,
    json: Json = False,
) -> None:
    """Show when entries expire, and whether the jitter spreads them.

    It ends with 1 if a function's entries would all expire at once, if keys never do, or if there are none.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        console = open_console(json=json, wrapped=False)
        with target.server() as server:
            slots, whole = _sampled(server, sample, console)
        if not slots:
            return explained(f"there are no keys in the namespace {namespace!r}", FAILED)
        found = gather(slots, target.prefix)
        if json:
            print(jsons.dumps(document(target, found, len(slots), whole=whole), indent=2))
        else:
            show(console, target, found, len(slots), whole=whole)
        return FAILED if found.together or found.lasting else DONE

    raise typer.Exit(ended(work))


def _sampled(server: Server, sample: int, console: Console) -> tuple[list[Slot], bool]:
    """So many keys of the namespace, and whether they are all."""
    prefix = server.target.prefix.encode()
    slots: list[Slot] = []
    with progress(console, "looking at keys", server.names()) as watch:
        for found in server.scan(f"{server.target.prefix}*", watch):
            slots += glance(server, [name for name in found if not is_internal(name, prefix)], front=FRONT)
            if sample and len(slots) >= sample:
                return slots[:sample], False
    return slots, True


def document(target: Target, found: Lifetimes, count: int, *, whole: bool) -> dict[str, Any]:
    """What ``--json`` prints."""
    left = found.left
    return {
        "namespace": target.namespace,
        "keys": count,
        "sampled": not whole,
        "without_ttl": len(found.lasting),
        "past_ttl": found.past,
        "other": found.others,
        "histogram": [
            {"below_s": edge, "entries": entries}
            for edge, entries in zip([*EDGES, None], histogram(left, [*EDGES, float("inf")]), strict=True)
        ],
        "functions": [
            {
                "name": group.name,
                "entries": len(group.left),
                "left_min_s": round(min(group.left), 3),
                "left_max_s": round(max(group.left), 3),
                "lifetime_s": round(group.lifetime, 3),
                "spread": round(group.spread, 4),
                "peak": round(group.peak, 4),
                "verdict": group.verdict,
            }
            for group in found.groups
        ],
    }


def show(console: Console, target: Target, found: Lifetimes, count: int, *, whole: bool) -> None:
    """Tell a person."""
    plain = is_plain(console)
    left = found.left
    seen = many(count, "key") if whole else f"a sample of {many(count, 'key')}"
    put(console, Text.assemble(("remaining ttl", "bold"), f" of {seen} in the namespace {target.namespace!r}"))
    if left:
        console.print()
        for line in _bars(left, plain, min(40, console.width - 40)):
            put(console, line, indent=2)
        console.print()
        for line in _lines(console, found.groups[:SHOWN]):
            put(console, line, indent=2)
        if len(found.groups) > SHOWN:
            put(console, Text(f"and {many(len(found.groups) - SHOWN, 'function')} more; --json has them all"), indent=2)
    console.print()
    for text, style in _remarks(found):
        put(console, Text(text, style=style), indent=2)


def _bars(left: list[float], plain: bool, width: int) -> Iterator[Text]:
    counts = histogram(left, [*EDGES, float("inf")])
    labels = [
        *(f"below {span(edge)}" if edge >= 60 else f"below {edge} s" for edge in EDGES),
        f"from {span(EDGES[-1])}",
    ]
    used = [at for at, count in enumerate(counts) if count]
    most = max(counts)
    for label, count in list(zip(labels, counts, strict=True))[used[0] : used[-1] + 1]:
        drawn = bar(count / most, width, plain=plain) if count else ""
        yield Text.assemble((f"{label:>13}  ", "dim"), (drawn, "cyan"), f" {count:,}" if drawn else f"{count:,}")


def _lines(console: Console, groups: list[Group]) -> Iterator[Text]:
    """Two lines a function: what it is called, and from when to when its entries end."""
    plain = is_plain(console)
    for group in groups:
        ordered = sorted(group.left)
        words, style = VERDICTS[group.verdict]
        drawn = spark(histogram(ordered, even_edges(ordered[0], ordered[-1], STEPS)), plain=plain)
        yield Text.assemble(shown(group.name), (f"  {many(len(ordered), 'entry', 'entries')}", "dim"))
        yield Text.assemble(
            f"  {span(ordered[0]):>11} ",
            (drawn if ordered[0] < ordered[-1] else drawn.strip().ljust(STEPS), "cyan"),
            f" {span(ordered[-1]):<11}  ",
            ("" if group.verdict == "few" else fit(console, f"lifetimes ±{percent(group.spread / 2)}: "), "dim"),
            (words, style),
        )


def _remarks(found: Lifetimes) -> Iterator[tuple[str, str]]:
    for group in found.together:
        yield (
            f"{shown(group.name)}: {percent(group.peak)} of its entries expire at once, and are then loaded at once;"
            " give it jitter= (by default 10 to 20 % of the ttl)",
            "red",
        )
    if found.lasting:
        names = ", ".join(shown(text_of(slot.key)) for slot in found.lasting[:3])
        yield f"{many(len(found.lasting), 'key')} without a ttl, which no cache of ours stored: {names}", "red"
    if not found.together and any(group.verdict == "spread" for group in found.groups):
        yield "The jitter spreads them: nothing that was stored together expires together.", "green"
    if found.past:
        yield f"{many(found.past, 'entry', 'entries')} past the ttl, kept for stale= and grace=", "dim"
    if found.others:
        yield f"{many(found.others, 'key')} that are no entries: loads under way, or not ours", "dim"
    if found.left and percentile(found.left, 50) < 1:
        yield "half of them expire within a second: is the ttl too short to help?", "yellow"
