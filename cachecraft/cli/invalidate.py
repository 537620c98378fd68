"""``cachecraft invalidate``: what a program's own invalidation does, with all its promises, from a terminal."""

from __future__ import annotations

import json as jsons
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from cachecraft._api import Cache
from cachecraft._core.calls import Key, check_tag
from cachecraft._core.errors import BackendError, OptionError
from cachecraft._core.keys import escape_literal
from cachecraft._core.templates import check_pattern
from cachecraft.cli.ending import DONE, FAILED, ended, explained
from cachecraft.cli.figures import many
from cachecraft.cli.matching import Reach, Wish, reach
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.target import TIMEOUT, Target
from cachecraft.cli.terminal import open_console, progress, put, shown, text_of

Several = list[str] | None


def invalidate(
    url: ServerUrl = "",
    namespace: Namespace = "",
    key: Annotated[
        Several, typer.Option("--key", metavar="KEY", help="One entry; may be repeated, as the next two.")
    ] = None,
    pattern: Annotated[
        Several, typer.Option("--pattern", metavar="GLOB", help="Within the namespace, as in @invalidates: 'user:*'.")
    ] = None,
    tag: Annotated[Several, typer.Option("--tag", metavar="TAG", help="All entries that carry it.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the namespace.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not count and ask first.")] = False,
    json: Json = False,
) -> None:
    """Invalidate entries by key, pattern or tag, after counting them and asking.

    Once it has ended with 0, no call that starts later, in any process, returns a value from before.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        wish = Wish(key or (), pattern or (), tag or (), everything)
        _check(target, wish, asks=not (yes or dry_run), json=json)
        console = open_console(json=json, wrapped=False)
        with target.cache(timeout=TIMEOUT, connect_timeout=TIMEOUT) as cache:
            found = None if yes and not dry_run else _counted(target, wish, console)
            if found is not None and not json:
                _tell(console, found, dry_run=dry_run)
            if dry_run:
                return _end(target, found, None, json=json)
            if not yes and not _confirmed():
                return explained("nothing was invalidated", FAILED)
            try:
                removed = _invalidated(cache, target, wish, found, console)
            except BackendError as error:
                error.args = (f"{error}; what was named may still be served, so run it again",)
                raise
            if not json:
                put(console, Text(_summary(wish, removed)))
            return _end(target, found, removed, json=json)

    raise typer.Exit(ended(work))


def _check(target: Target, wish: Wish, *, asks: bool, json: bool) -> None:
    """Refuse at once what could only fail in the middle.

    Raises:
        OptionError: it says nothing, or everything by a pattern; or there is nobody to ask.
    """
    if not wish:
        raise OptionError("nothing to invalidate; give --key, --pattern or --tag (or --all)")
    for pattern in wish.patterns:
        try:
            check_pattern(pattern)
        except OptionError:
            raise OptionError(
                f"--pattern {shown(pattern)!r} matches everything; --all is the way to say that"
            ) from None
    for tag in wish.tags:
        check_tag(escape_literal(tag))
    for key in wish.keys:
        if not key:
            raise OptionError("--key is empty; name an entry")
        if "~" in target.key(key):
            raise OptionError(f"--key {shown(key)!r} is a name that the cache keeps for itself; name an entry")
    if asks and (json or not sys.stdin.isatty()):
        raise OptionError("nobody is there to be asked; give --yes, or --dry-run to count only")


def _counted(target: Target, wish: Wish, console: Console) -> Reach:
    with target.server() as server, progress(console, "counting", server.names()) as watch:
        return reach(server, wish, watch)


def _tell(console: Console, found: Reach, *, dry_run: bool) -> None:
    for (kind, text), count in found.counts.items():
        put(console, Text(f"{count:>9,}  {kind} {shown(text)}".rstrip()))
    examples = ", ".join(shown(text_of(name)) for name in found.examples)
    more = " ..." if found.total > len(found.examples) else ""
    would = "would go" if dry_run else "to go"
    put(console, Text(f"{many(found.total, 'key')} {would}{f': {examples}{more}' if examples else ''}", style="bold"))


def _confirmed() -> bool:
    print("invalidate? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _invalidated(
    cache: Cache, target: Target, wish: Wish, found: Reach | None, console: Console
) -> dict[Any, int | None]:
    """Do it by the public methods of a cache. How many entries went, by part; none where nobody counts them."""
    removed: dict[Any, int | None] = {}
    for text in wish.keys:
        removed["key", text] = cache.invalidate(key=Key(target.key(text)))
    for text in wish.patterns:
        total = found.counts["pattern", text] if found is not None else None
        with progress(console, f"removing {shown(text)}", total) as watch:
            removed["pattern", text] = cache.invalidate(pattern=text, progress=watch)
    if wish.tags:
        cache.invalidate(tags=wish.tags)
        removed |= dict.fromkeys((("tag", text) for text in wish.tags), None)
    if wish.everything:
        cache.clear()
        removed["all", ""] = None
    return removed


def _summary(wish: Wish, removed: dict[Any, int | None]) -> str:
    gone = sum(count or 0 for count in removed.values())
    parts = []
    if wish.keys or wish.patterns:
        parts.append(f"{many(gone, 'entry', 'entries')} removed")
    if wish.tags:
        parts.append(f"{many(len(wish.tags), 'tag')} invalidated")
    if wish.everything:
        parts.append("everything in the namespace invalidated")
    them = "it" if len(wish.tags) == 1 else "them"
    void = f"; what carries {them} is void from now on, and leaves Redis when its ttl ends" if wish.tags else ""
    return f"{', '.join(parts)}{void}"


def _end(target: Target, found: Reach | None, removed: dict[Any, int | None] | None, *, json: bool) -> int:
    if json:
        parts = found.counts if found is not None else removed or {}
        document = {
            "namespace": target.namespace,
            "dry_run": removed is None,
            "matched": None if found is None else found.total,
            "parts": [
                {
                    "kind": kind,
                    "text": text,
                    "matched": None if found is None else found.counts[kind, text],
                    "removed": None if removed is None else removed[kind, text],
                }
                for kind, text in parts
            ],
        }
        print(jsons.dumps(document, indent=2))
    return DONE
