"""A stage for transcripts: callers moved by hand, and what is said between them and the server, in words.

Bytes get names in the order in which they first appear: ``#1`` is a token or a stamp, ``L#2(#1)`` a placeholder with
the token ``#2`` and the stamp ``#1``, ``V#2(#1)`` an entry, ``-`` nothing. ``SWAP key: this -> that`` is the script
that puts something where something still stands, ``DROP`` the one that removes it, ``KEEP`` the one that renews it;
``PROLONG`` renews a stamp that has less than half its time left. What is told to near caches is not shown.
"""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from cachecraft._core.entry import read_stamps
from cachecraft.backends.commands import PROLONG, RELEASE, RENEW, SET
from tests.simulation.caller import Caller
from tests.simulation.jobs import wire
from tests.simulation.model import SCRIPT_OF
from tests.simulation.world import Scene, World


class ByHand:
    """A schedule for a test that moves everybody itself."""

    warm = True

    def pick(self, options: int) -> int:
        return 0

    def move(self, world: World) -> None:
        return None


class Stage:
    """Callers ``A``, ``B``, … in the processes that ``threads`` counts, each with its jobs, and what they say."""

    def __init__(self, *jobs: list[Any], threads: tuple[int, ...] | None = None, flavour: str = "plain") -> None:
        self.world = World(Scene(flavour, threads or (len(jobs),), jobs), ByHand())
        self.world.listener = self._hear
        self.lines: list[str] = []
        self._names: dict[bytes, str] = {}

    def run(self, who: str, until: str = "", *, at_once: bool = False) -> None:
        """Move one caller to its end, or until it stands before something; ``at_once``: before anything was said."""
        caller = self[who]
        while caller.point is not None and not (until and caller.point.label == until and (self.lines or at_once)):
            assert caller.can_step(), f"{who} stands at {caller.point}"
            self.world.pass_time()
            self.world.step(caller)

    def __getitem__(self, who: str) -> Caller:
        return self.world.callers["ABCDE".index(who)]

    def age(self, name: str, seconds: int) -> None:
        self.world.redis.age(wire(name).encode(), seconds * 1000)

    def says(self, text: str) -> None:
        assert self.said() == dedent(text).strip()

    def said(self) -> str:
        """All that was said since this was last asked."""
        lines, self.lines = self.lines, []
        return "\n".join(lines)

    def _hear(self, caller: Caller | None, what: tuple[Any, ...], answer: Any) -> None:
        assert caller is not None
        who = "ABCDE"[self.world.callers.index(caller)]
        self.lines.append(f"{who} {self._command(what):<46} {self._answer(what, answer)}".rstrip())

    def _command(self, what: tuple[Any, ...]) -> str:
        verb, *rest = what
        if verb in ("EVALSHA", "EVAL"):
            sha, _, key, held, *new = rest
            sha = SCRIPT_OF.get(sha, sha)  # sent whole, where the server has forgotten it
            if sha == PROLONG.sha:
                return f"PROLONG {self._show(key)}"
            name = {SET.sha: "SWAP", RELEASE.sha: "DROP", RENEW.sha: "KEEP"}[sha]
            becomes = f" -> {self._show(new[0])}" if sha == SET.sha else ""
            return f"{name} {self._show(key)}: {self._show(held)}{becomes}"
        if verb == "SCAN":
            return f"SCAN {self._show(rest[2])}"
        words = [word for word in rest if word != "PX" and not isinstance(word, int)]
        return " ".join([verb, *map(self._show, words)])

    def _answer(self, what: tuple[Any, ...], answer: Any) -> str:
        if what[0] in ("EVALSHA", "EVAL"):
            if isinstance(answer, Exception):
                return "which script?"
            if what[1] in (PROLONG.sha, PROLONG.source):
                return "done" if answer else "long enough"
            return "done" if answer else "refused"
        if what[0] == "PTTL":
            return f"{answer // 1000} s"
        if what[0] == "SCAN":
            answer = answer[1] or [None]
        if what[0] == "INFO":
            answer = answer.split(b":")[1].strip()
        if isinstance(answer, list):
            return " ".join(self._show(each) for each in answer)
        return self._show(answer)

    def _show(self, value: Any) -> str:
        if value is None or value == b"":
            return "-"
        if not isinstance(value, bytes):
            return str(value).removeprefix("n:")
        if value[:1] in (b"L", b"V") and len(value) >= 17:
            stamps = read_stamps(value) if len(value) > 17 else ()
            text = f"({' '.join(map(self._show, stamps))})" if stamps else ""
            return value[:1].decode() + self._show(value[1:17]) + text
        if len(value) == 16:
            return self._names.setdefault(value, f"#{len(self._names) + 1}")
        if len(value) == 40:
            return f"run-{int(value)}"
        return value.decode().removeprefix("n:")
