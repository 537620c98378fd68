"""A TCP proxy that does to a line what networks do: late, slow, piecemeal, cut, or silent."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

_PIECE = 65536
_LATE = 0.3
"""Of all pieces, how many a lag concerns: some overtake others."""
_FAULTS = ("hold", "slow", "drip", "throttle", "swallow", "refuse", "lag", "silence", "stall")


class _Line:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.dead = False
        """What is said on it is lost: once bytes are missing, none may follow."""
        self.listens = False
        """It is a listener's, on which Redis pushes."""

    def cut(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class FaultyProxy:
    """Forwards to a server on loopback. Each fault lasts for some seconds, and several may last at once.

    What a client sent is never taken back: if it hangs up meanwhile, the server gets it late, as from a network.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._until = dict.fromkeys(_FAULTS, 0.0)
        self._delay = self._lag = 0.0
        self._lines: set[_Line] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    # -- faults ----------------------------------------------------------------------------------------------

    def hold(self, seconds: float) -> None:
        """Keep what clients send, and deliver it then, even if they have given up and gone."""
        self._begin("hold", seconds)

    def slow(self, seconds: float, delay: float) -> None:
        """Each piece of a reply comes later by up to ``delay``."""
        self._delay = delay
        self._begin("slow", seconds)

    def drip(self, seconds: float) -> None:
        """Replies come in small pieces."""
        self._begin("drip", seconds)

    def throttle(self, seconds: float) -> None:
        """A megabyte a second on each line."""
        self._begin("throttle", seconds)

    def swallow(self, seconds: float) -> None:
        """Half-open: what is said on the lines there are is lost for good, and so is what new ones say meanwhile."""
        self._begin("swallow", seconds)
        for line in list(self._lines):
            line.dead = True

    def lag(self, seconds: float, delay: float) -> None:
        """Now and then a piece of a reply comes later by up to ``delay``; but not what listeners hear."""
        self._lag = delay
        self._begin("lag", seconds)

    def silence(self, seconds: float) -> None:
        """As ``swallow``, of what listeners say and hear."""
        self._begin("silence", seconds)
        for line in list(self._lines):
            line.dead = line.dead or line.listens

    def stall(self, seconds: float) -> None:
        """What listeners say and hear arrives only then."""
        self._begin("stall", seconds)

    def refuse(self, seconds: float) -> None:
        """Take no new connection; those there are go on."""
        self._begin("refuse", seconds)

    def cut(self) -> None:
        """Break every connection, wherever it is in a reply."""
        for line in list(self._lines):
            line.cut()

    def heal(self) -> None:
        self._until = dict.fromkeys(self._until, 0.0)

    def close(self) -> None:
        self._closed = True
        self.heal()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _begin(self, fault: str, seconds: float) -> None:
        self._until[fault] = time.monotonic() + seconds

    def _lasts(self, fault: str) -> bool:
        return time.monotonic() < self._until[fault]

    # -- lines -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._lasts("refuse"):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = _Line(client, server)
            line.dead = self._lasts("swallow")
            self._lines.add(line)
            asking = threading.Thread(target=self._ask, args=(line,), daemon=True)
            asking.start()
            try:
                self._answer(line)
            finally:
                line.cut()
                self._lines.discard(line)
                asking.join()

    def _ask(self, line: _Line) -> None:
        client, server = line.ends
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE):
                if not line.listens and b"TRACKING" in data:
                    line.listens, line.dead = True, line.dead or self._lasts("silence")
                while self._lasts("hold") or (line.listens and self._lasts("stall")):
                    time.sleep(0.01)
                if not line.dead:
                    server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, line: _Line) -> None:
        client, server = line.ends
        gone = False
        while data := server.recv(_PIECE):
            if self._lasts("slow"):
                time.sleep(random.uniform(0, self._delay))
            if self._lasts("lag") and not line.listens and random.random() < _LATE:
                time.sleep(random.uniform(0, self._lag))
            while line.listens and self._lasts("stall"):
                time.sleep(0.01)
            while data and not line.dead and not gone:
                piece, data = self._next(data)
                try:
                    client.sendall(piece)
                except OSError:  # it has hung up; what it sent may still be on its way to the server
                    gone = True

    def _next(self, data: bytes) -> tuple[bytes, bytes]:
        """What goes out now, having waited for it as long as that takes on this line, and what is left."""
        size = len(data)
        if self._lasts("drip"):
            size = random.choice((1, 7, 100))
            time.sleep(0.001)
        elif self._lasts("throttle"):
            size = 16 * 1024
            time.sleep(min(size, len(data)) / 1e6)
        return data[:size], data[size:]
