"""A TCP proxy that can hold back what clients send, and deliver it after they have given up and gone."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time


class LateProxy:
    """Forwards to a server on loopback. While it holds, commands wait here; a client that hangs up does not take back
    what it sent: the server gets it late, as a network may do it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._hold_until = 0.0
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, seconds: float) -> None:
        self._hold_until = time.monotonic() + seconds

    def close(self) -> None:
        self._closed = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        address = ("127.0.0.1", self._target)
        with contextlib.suppress(OSError), client, socket.create_connection(address) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        gone = False
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while not self._closed:
                for key, _ in selector.select(0.5):
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]  # both are sockets
                    if key.fileobj is server:
                        if not data:
                            return
                        if not gone:
                            with contextlib.suppress(OSError):
                                client.sendall(data)
                    elif data:
                        time.sleep(max(0.0, self._hold_until - time.monotonic()))
                        server.sendall(data)
                    else:
                        gone = True
                        selector.unregister(client)
                        server.shutdown(socket.SHUT_WR)
