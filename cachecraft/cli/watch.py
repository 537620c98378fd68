"""``cachecraft watch``: what is invalidated in a namespace, as it happens; it hears what near caches hear."""

from __future__ import annotations

import json as jsons
import select
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from cachecraft._core.effects import Remote
from cachecraft._core.errors import BackendError, BackendTimeout
from cachecraft.backends.failures import failure
from cachecraft.backends.hearing import Session
from cachecraft.backends.lines import Line
from cachecraft.backends.redis import ROOT
from cachecraft.cli.ending import DONE, ended
from cachecraft.cli.options import Json, Namespace, ServerUrl
from cachecraft.cli.target import TIMEOUT, Target
from cachecraft.cli.terminal import open_lines, shown

_AGAIN: Final = 0.2
"""Seconds within which the same key is the same news."""
_BEAT: Final = 0.5
"""Seconds between two signs of life."""


def watch(
    url: ServerUrl = "",
    namespace: Namespace = "",
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", min=0.0, help="Stop after so long; else with Ctrl-C.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="Stop after so many.")] = None,
    json: Json = False,
) -> None:
    """Show each invalidation and each value replaced in a namespace, as it happens, by whichever process.

    With --json, one object a line.
    """

    def work() -> int:
        target = Target.of(url, namespace)
        write, told = open_lines(), 0
        until = time.monotonic() + seconds if seconds is not None else None

        def tell(kind: str, text: str) -> None:
            nonlocal told
            now = datetime.now().astimezone()
            if json:
                write(jsons.dumps({"at": now.isoformat(timespec="milliseconds"), "kind": kind, "text": text}))
            else:
                write(f"{now:%H:%M:%S}.{now.microsecond // 1000:03}  {kind:<9}  {shown(text)}".rstrip())
            told += 1

        with target.server():  # it says in words why it cannot be reached
            _listen(
                target,
                _Watcher(target.prefix, tell),
                lambda: (count is not None and told >= count) or (until is not None and time.monotonic() >= until),
            )
        return DONE

    raise typer.Exit(ended(work))


def _listen(target: Target, watcher: _Watcher, enough: Callable[[], bool]) -> None:
    """Hear until it is enough.

    Raises:
        BackendError: the connection was lost, or the server does not tell what it is asked to tell.
    """
    dialling = target.dialling()
    try:
        line = Line(target.url, dialling.options(), dialling.longest)
        try:
            (hello,) = line.ask([("HELLO", 3)], TIMEOUT)
            if isinstance(hello, Exception):
                raise hello
            _converse(Session(line), line, watcher, enough)
        finally:
            line.close()
    except BackendError:
        raise
    except Exception as error:  # redis-py lets more out than its own errors
        raise failure(error) from error


def _converse(session: Session, line: Line, watcher: _Watcher, enough: Callable[[], bool]) -> None:
    heard = select.poll()
    heard.register(line.fileno(), select.POLLIN)
    while not enough():
        now = time.monotonic()
        since = session.waits_since
        if since is not None and now - since > TIMEOUT:
            raise BackendTimeout(f"no answer within {TIMEOUT:g} seconds")
        session.say(now, [watcher], {}, (), due=now - session.last >= _BEAT)
        if heard.poll(1000 * _BEAT / 5):
            session.hear([watcher], {})


class _Watcher:
    """An ``Ear`` that tells people."""

    staleness = 1.0
    clock = staticmethod(time.monotonic)

    def __init__(self, prefix: str, tell: Callable[[str, str], None]) -> None:
        self.prefixes = [prefix]
        self._tell = tell
        self._last = ("", 0.0)
        """The key told last, and when."""

    def gone(self, prefix: str, pattern: str | None, keys: list[str]) -> None:
        if pattern is not None:
            self._tell("pattern", pattern)
        for key in keys:
            name = key.removeprefix(prefix)
            front, kind = next(((front, kind) for front, kind in _KINDS.items() if name.startswith(front)), ("", "key"))
            if (front or not name.startswith("~")) and not self._same(name):
                self._tell(kind, name.removeprefix(front))

    def _same(self, name: str) -> bool:
        """Whether it is what was just told: a value that is replaced is announced when its place is taken and again
        when it is filled."""
        now = self.clock()
        last, at = self._last
        self._last = (name, now)
        return name == last and now - at < _AGAIN

    def flushed(self) -> None:
        self._tell("flush", "")

    # -- of no account to one who only tells what it hears ---------------------------------------------------

    def stamps_changed(self, keys: list[str]) -> None: ...
    def begun(self, prefixes: Any) -> None: ...
    def proved(self, sent: float) -> None: ...
    def changed(self, effect: Remote[Any]) -> None: ...
    def lost(self) -> None: ...


_KINDS: Final = {"~tag:": "tag", "~fn:": "function", ROOT: "clear"}
