"""Whose turn it is to deliver what waits in a queue: a lease in Redis, kept alive while it is held."""

from __future__ import annotations

import os
from typing import Final

from cachecraft._behind import Behind
from cachecraft._core.effects import Claim, Release, Renew
from cachecraft._core.entry import TOKEN
from cachecraft._core.errors import BackendError, ClosedError
from cachecraft._core.ports import Lease

_MARK: Final = b"W"


class Turn:
    """The lease on one queue, while it is ours. Each time that it is taken it is another."""

    def __init__(self, behind: Behind, lease: float) -> None:
        self._behind = behind
        self._lease = lease
        self.held = b""
        self._beat: Lease | None = None

    async def ours(self, held: bytes) -> bool:
        """Whether the lease is still the one that was taken as ``held``."""
        return bool(held) and await self._behind.ask(Renew(self._behind.queue.lease, held, self._lease))

    async def take(self) -> bool:
        """Take it, if nobody has it."""
        self.forget()
        held, name = _MARK + os.urandom(TOKEN), self._behind.queue.lease
        if not await self._behind.ask(Claim(name, held, self._lease)):
            return False
        self.held, self._beat = held, self._behind.needed().hold(name, held, self._lease)
        return True

    async def leave(self) -> None:
        """Let another have it."""
        held = self.held
        self.forget()
        if held:
            try:
                await self._behind.ask(Release(self._behind.queue.lease, held))
            except (BackendError, ClosedError):
                pass  # it ends by itself

    def forget(self) -> None:
        """Keep it alive no longer."""
        if self._beat is not None:
            self._beat.end()
        self.held, self._beat = b"", None

    def __repr__(self) -> str:
        return f"<Turn at {self._behind!r}{', ours' if self.held else ''}>"
