"""Lets several processes of many callers loose on one missing key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent


class Stampede:
    """Processes that wait for ``go`` and then all ask at once."""

    def __init__(
        self, server: RedisServer, colours: Sequence[str], *, callers: int = 50, nap: float = 0.05, lease: float = 5.0
    ) -> None:
        self._noted = server.dir / "loads"
        self._noted.unlink(missing_ok=True)
        self._noted.touch()
        arguments = [str(callers), str(nap), str(lease)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.race.crowd", server.url, str(self._noted), colour, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for colour in colours
        ]
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def go(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def loads(self) -> list[int]:
        """The process of each load, in order."""
        return [int(line) for line in self._noted.read_text().split()]

    def waited(self) -> list[float]:
        """What the callers of the processes that came to an end have waited, in seconds."""
        every: list[float] = []
        for process in self.processes:
            out, _ = process.communicate(timeout=30)
            if process.returncode == 0:
                every += json.loads(out)
        return sorted(every)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
