"""The command `cachecraft` as people and scripts run it: in a real terminal, in a pipe, or quickly in this process."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cachecraft.cli.app import app
from tests.callers import PATIENCE

ROOT = Path(__file__).parent.parent
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_UNWANTED = re.compile("CACHECRAFT_|TTY_|FORCE_COLOR|NO_COLOR|PY_COLORS|GITHUB_ACTIONS|COLUMNS|LINES")


def environment(**more: str) -> dict[str, str]:
    """Without what would turn the cache off, or make rich believe in a terminal."""
    return {name: value for name, value in os.environ.items() if not _UNWANTED.match(name)} | more


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str = ""

    @property
    def document(self) -> Any:
        """What `--json` printed: one document and nothing else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def cli(*args: str, encoding: str = "utf-8", **more: str) -> Ended:
    """Run it in this process, stdout and stderr being no terminals; `more` is for the environment."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    code = 0
    surroundings = patch.dict(os.environ, environment(**more), clear=True)
    with surroundings, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(list(args))
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            out.flush()
            err.flush()
    return Ended(code, *(each.buffer.getvalue().decode() for each in (out, err)))  # type: ignore[attr-defined]


def piped(*args: str, **more: str) -> Ended:
    """Run it in a process of its own, between pipes."""
    command = [sys.executable, "-m", "cachecraft", *args]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Terminal:
    """A process in a terminal of so many columns. What it shows, colours and all, is `shown`."""

    def __init__(self, *args: str, columns: int = 80, **more: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cachecraft", *args],
            cwd=ROOT,
            env=environment(TERM="xterm-256color", **more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # so a terminal says that nobody is at its other end
            while data := os.read(self._ours, 65_536):
                with self._changed:
                    self.shown += data.decode("utf-8", "replace")
                    self._changed.notify_all()

    def await_text(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.shown, PATIENCE), f"no {text!r} in {self.shown!r}"

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> Ended:
        """Wait for it. `out` is what stays on the screen, without colours."""
        code = self._process.wait(60)
        self._reader.join(PATIENCE)
        os.close(self._ours)
        return Ended(code, screen(self.shown))


def in_terminal(*args: str, columns: int = 80, **more: str) -> Ended:
    return Terminal(*args, columns=columns, **more).end()


def screen(shown: str, *, colours: bool = False) -> str:
    """What is left after lines were erased and written anew (a progress bar)."""
    lines: list[str] = [""]
    for piece in re.findall(r"\x1b\[1A|\x1b\[2K|\x1b\[[0-9;?]*[A-Za-z]|\r\n|\n|\r|[^\x1b\r\n]+|\x1b", shown):
        if piece == "\x1b[1A":
            lines.pop()
        elif piece in ("\x1b[2K", "\r"):
            lines[-1] = ""
        elif piece in ("\r\n", "\n"):
            lines.append("")
        elif not CONTROL.fullmatch(piece) or (colours and piece.endswith("m")):
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
