"""Real `redis-server` processes, to be started, frozen, killed and restarted by tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

REMEDY = "redis-server is not on PATH: run .ci/ensure-redis, or install it (apt-get install redis-server)"
DEADLINE = 15.0  # seconds for a server to start or to stop; it takes milliseconds


class RedisServer:
    """One server on a free loopback port, with a directory of its own that survives `stop`, `kill` and `restart`.

    `args` are further options, for example `RedisServer("--maxmemory", "8mb")`.
    """

    def __init__(self, *args: str) -> None:
        self.port = 0
        self.paused = False
        self.dir = Path(tempfile.mkdtemp(prefix="cachecraft-redis-"))
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self!r} does not run")
        return self._process.pid

    def cli(self, *args: str | bytes | float, db: int = 0) -> Any:
        """Run one command on a connection of its own. Replies are bytes, shaped by redis-py."""
        with Redis(port=self.port, db=db, protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*args)

    def keys_without_ttl(self) -> list[str]:
        """Every lasting key of every database, as `db:key`."""
        return [
            f"{name.removeprefix('db')}:{key!r}"
            for name, counts in self.cli("INFO", "keyspace").items()
            if counts["keys"] != counts["expires"]
            for key in self.cli("KEYS", "*", db=int(name.removeprefix("db")))
            if self.cli("TTL", key, db=int(name.removeprefix("db"))) == -1
        ]

    def log(self) -> str:
        return (self.dir / "redis.log").read_text(errors="replace")

    def with_options(self, *args: str) -> Self:
        """Add options for the next start."""
        self._args += args
        return self

    def start(self, *, loading: bool = False) -> None:
        """Start, the first time on a free port, later on the same one, and return when it answers.

        With ``loading``, when it answers that it loads its snapshot.
        """
        if self._process is not None:
            raise RuntimeError(f"{self!r} runs already")
        if (program := shutil.which("redis-server")) is None:
            raise RuntimeError(REMEDY)
        deadline, port = time.monotonic() + DEADLINE, self.port
        while True:
            self.port = port or _free_port()
            options = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.dir))
            command = (program, *options, "--save", "", "--appendonly", "no", *self._args)
            with (self.dir / "redis.log").open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the tests; they stop the server
                )
            if self._answers(deadline, loading):
                return
            self.kill()
            # Somebody may take the port between our look and the server's bind: look again.
            if "Address already in use" not in self.log() or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start:\n{self.log()}")

    def stop(self) -> None:
        """Ask it to shut down, insist after a while."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would: nothing is saved, connections break."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections stay open and nobody answers."""
        if not self.paused:
            os.kill(self.pid, signal.SIGSTOP)
            os.waitpid(self.pid, os.WUNTRACED)  # the signal takes effect a moment after `kill` returned
            self.paused = True

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def restart(self) -> None:
        """Stop and start on the same port and directory, with a new `run_id`."""
        self.stop()
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "stopped" if self._process is None else f"pid={self._process.pid}"
        return f"<RedisServer port={self.port} {'paused ' if self.paused else ''}{state}>"

    def _answers(self, deadline: float, loading: bool) -> bool:
        """Wait until our own process answers: on a clash, another server would answer on that port."""
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                if self.cli("PING") and self.cli("INFO", "server")["process_id"] == self.pid:
                    return True
            except BusyLoadingError:
                if loading:
                    return True
            except (RedisError, OSError):
                pass  # not listening yet
            time.sleep(0.005)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)  # a frozen process hears of SIGTERM only when it wakes
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(DEADLINE)
        self._process, self.paused = None, False


def _free_port() -> int:
    """A port free just now, and low enough for a cluster node to add 10,000 for its bus."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := probe.getsockname()[1]) <= 55_535:
                return int(port)
