"""``cachecraft worker``: delivers what waits behind the functions of a program, or tells how the queues stand."""

from __future__ import annotations

import json as jsons
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from cachecraft._cache import BareCache
from cachecraft._core.behind import Revive
from cachecraft._core.errors import BackendError, OptionError
from cachecraft.cli.ending import DONE, FAILED, ended
from cachecraft.cli.figures import many, span
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.queues import Standing, standings
from cachecraft.cli.target import Target
from cachecraft.cli.terminal import open_console, put, shown
from cachecraft.worker import Worker

_PORTION: Final = 100
"""Calls that are revived by one command: a call may be large, and the server does nothing else meanwhile."""


def worker(
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE[:CACHE]]...",
            help="Modules that have the functions, such as app.models; with :CACHE only those of that cache.",
        ),
    ] = None,
    url: ServerUrl = "",
    namespace: Namespace = "",
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="So many writes side by side.")
    ] = 16,
    lease: Annotated[
        float, typer.Option("--lease", metavar="S", help="Seconds until another goes on where this one died.")
    ] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Deliver what waits, and end.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Deliver nothing; tell how the queues stand.")] = False,
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Have what was given up wait again, after all that waits by now.")
    ] = False,
    json: Json = False,
) -> None:
    """Deliver the writes that wait behind cached functions (@write_behind).

    It imports the modules, and goes on until it is interrupted; then it ends
    what it has begun. Of several workers one delivers each queue, and another
    goes on where it ends or dies. --url and --namespace are for programs that
    leave them to the environment, and for --status.

    --status ends with 1 if something was given up, --once if it had to give up.
    """

    def work() -> int:
        if status or retry_dead:
            return _told(Target.of(url, namespace), retry_dead, json)
        found = Worker(*_caches(modules or [], url, namespace), concurrency=concurrency, lease=lease)
        return _delivered(found, once, json)

    raise typer.Exit(ended(work))


def _caches(modules: list[str], url: str, namespace: str) -> list[BareCache]:
    """The caches that were named; none for all that there are."""
    if not modules:
        raise OptionError("name the module that has the functions, as in `cachecraft worker app.models`; or --status")
    for name, value in (("URL", url), ("NAMESPACE", namespace)):
        if value:
            os.environ[f"CACHECRAFT_{name}"] = value
    sys.path.insert(0, os.getcwd())
    found = [_cache(*each.partition(":")[::2]) for each in modules]
    return [] if None in found else [cache for cache in found if cache is not None]


def _cache(module: str, name: str) -> BareCache | None:
    try:
        thing: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and lacks something else
        raise OptionError(f"there is no module {module!r} here; is this the directory to start from?") from error
    if not name:
        return None
    for part in name.split("."):
        thing = getattr(thing, part, None)
    if not isinstance(thing, BareCache):
        raise OptionError(f"{module}:{name} is no Cache; name one, or the module alone for all of them")
    return thing


def _delivered(found: Worker, once: bool, json: bool) -> int:
    console = open_console(json=json)
    logging.getLogger("cachecraft").addHandler(_stderr())
    functions = found.functions
    if not functions:
        raise OptionError(
            "nothing is to be delivered: none of these modules has a function under @write_behind and a cache in Redis"
        )
    for function, waiting in unheard_of(found.caches, functions):
        waits = many(waiting, "write waits", "writes wait")
        print(
            f"cachecraft: {waits} behind {shown(function)}, which none of these modules has; is it imported under"
            " another name?",
            file=sys.stderr,
        )
    if once:
        settled, given_up = found.drain(), found.given_up
        if json:
            print(jsons.dumps({"functions": functions, "settled": settled, "given_up": given_up}))
        console.print(f"{many(settled - given_up, 'write')} delivered, {given_up:,} given up", markup=False)
        return FAILED if given_up else DONE

    def stop(number: int, _: object) -> None:
        found.stop()
        signal.signal(number, signal.SIG_DFL)  # who does not want to wait for what hangs says it once more

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    console.print(f"delivering what waits behind {', '.join(functions)}", markup=False, soft_wrap=True)
    found.run()
    return DONE


def unheard_of(found: Iterable[BareCache], functions: Sequence[str]) -> Iterator[tuple[str, int]]:
    """What waits where these caches look, behind functions that are not known here; and how much.

    Nothing where that cannot be told: a worker is started before its server, too, and needs no right to look around.
    """
    places = {(cache.settings.url, cache.namespace) for cache in found if cache.settings.backend is None}
    for url, namespace in sorted(places):
        try:
            with Target.of(url, namespace).server() as server:
                found_there = standings(server)
        except BackendError:
            continue
        for each in found_there:
            if each.waiting and each.queue.function not in functions:
                yield each.queue.function, each.waiting


def _stderr() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def _told(target: Target, retry_dead: bool, json: bool) -> int:
    with target.server() as server:
        found = standings(server)
    if retry_dead:
        with target.cache(publish_stats=None) as cache:
            for each in found:
                left = each.dead  # whatever is given up meanwhile is not meant
                while left > 0:
                    portion = Revive(each.queue, min(left, _PORTION))
                    revived = cache.driver.backend.perform(portion)  # type: ignore[union-attr]  # it has one
                    left = left - revived if revived else 0
        with target.server() as server:
            found = standings(server)
    if json:
        print(jsons.dumps({"namespace": target.namespace, "queues": [each.as_json() for each in found]}, indent=2))
    else:
        _show(target, found)
    return FAILED if any(each.dead for each in found) else DONE


def _show(target: Target, found: list[Standing]) -> None:
    console = open_console(wrapped=False)
    if not found:
        console.print(f"Nothing waits, nor was given up, in the namespace {target.namespace!r}.", markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("behind", overflow="fold")
    for name in ("waiting", "oldest", "given up"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worker")
    for each in found:
        table.add_row(
            Text(shown(each.queue.function)),
            f"{each.waiting:,}",
            "-" if each.oldest is None else span(each.oldest),
            Text(f"{each.dead:,}", style="red" if each.dead else ""),
            Text("yes") if each.served else Text("none", style="red" if each.waiting else ""),
        )
    put(console, table)
    for each in found:
        for grave in each.graves:
            words = f"given up {span(grave.ago)} ago: {shown(grave.key)}: {shown(grave.error)}"
            put(console, Text(words, overflow="fold"))
