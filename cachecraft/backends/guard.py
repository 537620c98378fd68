"""A backend behind a circuit breaker, with a journal of the invalidations that could not reach it.

*No call waits for a server that is known to be gone, and no invalidation is silently lost.* It knows effects and how
they end; nothing of connections, functions and values.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from cachecraft._core.effects import Acquire, Delete, Release, Remote, Store, Sweep
from cachecraft._core.entry import PLACEHOLDER
from cachecraft._core.errors import BackendError, told
from cachecraft._core.ports import Backend
from cachecraft.backends.breaker import Breaker
from cachecraft.backends.failures import Kind, Suspended, kind_of
from cachecraft.backends.journal import Item, Journal
from cachecraft.backends.prober import Prober
from cachecraft.backends.redis import PROBE, ROOT

log: Final = logging.getLogger("cachecraft")

_BATCH: Final = 500
"""Keys that are replayed in one command."""
_ORPHANS: Final = 1000
"""Placeholders that are remembered; what is forgotten ends with its lease."""


UNGUARDED: Final = dict.fromkeys(("breaker_open", "breaker_opened", "journal", "journaled"), 0.0)
"""The counters where there is nothing to guard."""


class Renewable(Backend, Protocol):
    """A backend that can be told to begin anew."""

    @property
    def connected(self) -> bool:
        """Whether connections are kept open for the next question."""

    def renew(self) -> None:
        """Use no connection again that was made before now."""


class Guard:
    """Performs effects by ``backend`` while there is a use in it; ``spare``, of the same server, probes and replays."""

    def __init__(
        self,
        backend: Renewable,
        spare: Renewable,
        *,
        loud: bool = False,
        breaker: Breaker | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.backend = backend
        self._spare = spare
        self._loud = loud
        """Whether an invalidation that must wait is an error to its caller."""
        self._prefixes: list[str] = []
        self.changed: Callable[[Remote[Any]], None] | None = None
        """Told of each effect that changes something, before and after it."""
        self.breaker = breaker or Breaker()
        self.journal = journal or Journal(lambda: [prefix + ROOT for prefix in self._prefixes])
        self._orphans: deque[Release] = deque(maxlen=_ORPHANS)
        """Placeholders that may stand though nobody loads under them: whoever comes would wait for nothing."""
        self._refused: frozenset[Item] = frozenset()
        """What the server would not take when it was last offered."""
        self._prober = Prober(
            self._restore,
            needed=lambda: self.breaker.open or bool(self.journal or self._orphans),
            slowly=lambda: not self.breaker.open and len(self.journal) == len(self._refused),
        )

    def serve(self, prefix: str) -> None:
        if prefix not in self._prefixes:
            self._prefixes.append(prefix)
        self.backend.serve(prefix)
        self._spare.serve(prefix)

    # -- effects ---------------------------------------------------------------------------------------------

    def perform(self, effect: Remote[Any]) -> Any:
        changed = self.changed if effect.settles else None
        if changed is not None:
            changed(effect)
        try:
            if self.breaker.open or self.journal:
                self._admit(effect)
            answer = self.backend.perform(effect)
        except BaseException as error:
            return self._failed(effect, error)
        finally:
            if changed is not None:
                changed(effect)
        self.breaker.succeeded()
        return answer

    async def aperform(self, effect: Remote[Any]) -> Any:
        changed = self.changed if effect.settles else None
        if changed is not None:
            changed(effect)
        try:
            if self.breaker.open or self.journal:
                self._admit(effect)
            answer = await self.backend.aperform(effect)
        except BaseException as error:
            return self._failed(effect, error)
        finally:
            if changed is not None:
                changed(effect)
        self.breaker.succeeded()
        return answer

    def ping(self) -> float:
        """Seconds of one round trip, whatever the breaker thinks."""
        return self.backend.ping()

    async def aping(self) -> float:
        """As ``ping``."""
        return await self.backend.aping()

    def _admit(self, effect: Remote[Any]) -> None:
        if self.breaker.open:
            self._prober.wake()  # there is one already, but for a forked child
            raise Suspended("Redis did not answer lately; it is asked again in the background")
        if self.journal and self.journal.affects(effect):
            self._prober.wake()
            raise Suspended("an invalidation of this has yet to reach Redis")

    def _failed(self, effect: Remote[Any], error: BaseException) -> Any:
        """What is to be learnt from a failure. Raises it, but for an invalidation that is now in the journal."""
        kind = kind_of(error)
        invalidates = isinstance(effect, (Delete, Sweep))
        if isinstance(effect, (Delete, Sweep)):
            self._keep(effect, error)  # first of all: from here on nobody reads what it was to remove
        elif (orphan := _orphaned(effect, kind)) is not None:
            self._orphans.append(orphan)
            self._prober.wake(news=True)
        if kind is Kind.REFUSED:
            self.breaker.succeeded()
        elif kind in (Kind.DOWN, Kind.LOST):
            self._count(error, at_once=kind is Kind.DOWN)
        if invalidates and not self._loud and kind is not Kind.OURS:
            return 0  # how many entries will go, nobody knows yet
        raise error

    def _count(self, error: BaseException, *, at_once: bool) -> None:
        # A connection that breaks is one failure, however many were waiting on it: they share the error.
        marks = vars(error)
        if marks.get("counted"):
            return
        marks["counted"] = True
        if self.breaker.failed(at_once=at_once):
            self.backend.renew()
            log.warning("Redis is out of reach, and calls go on without it until it is back: %s", error)
            self._prober.wake(news=True)

    def _keep(self, effect: Delete | Sweep, error: BaseException) -> None:
        first = not self.journal
        if self.journal.add(effect):
            log.warning("too many invalidations wait for Redis: everything this cache holds there is to be dropped")
        elif first:
            log.warning("an invalidation may not have reached Redis; it is kept and made up for: %s", told(error))
        self._prober.wake(news=True)

    # -- in the background -----------------------------------------------------------------------------------

    def _restore(self) -> bool:
        """Probe the server, replay the journal, close the breaker. Answers whether nothing is left to do.

        Raises:
            BackendError: the server is still out of reach.
        """
        self._spare.renew()
        try:
            self._offer(Delete((self._prefixes[0] + PROBE,)))
            replayed = self._replay()
            self._release()
        except BackendError as error:
            self._count(error, at_once=kind_of(error) is Kind.DOWN)
            raise
        seconds = self.breaker.close()
        if seconds is not None:  # as loud as its beginning: who heard of that waits for this
            log.warning("Redis is back after %.1f s; %d invalidations were made up for", seconds, replayed)
        return not (self.journal or self._orphans)

    def _release(self) -> None:
        """Remove placeholders that nobody loads under, before anybody finds them."""
        while self._orphans:
            orphan = self._orphans.popleft()
            try:
                self._offer(orphan)
            except BackendError:
                self._orphans.append(orphan)
                raise

    def _replay(self) -> int:
        """Replay what waits, and what comes meanwhile; answers how much that was. What is refused stays."""
        replayed = 0
        refused: set[Item] = set()
        while waiting := [item for item in self.journal.pending() if item not in refused]:
            for batch in _batches(waiting):
                turned_away = self._replay_each(batch)
                refused.update(turned_away)
                replayed += len(batch) - len(turned_away)
        if refused and not self._refused:
            log.warning("Redis refuses %d invalidations; what they name is not served meanwhile", len(refused))
        self._refused = frozenset(refused)
        return replayed

    def _replay_each(self, batch: list[Item]) -> list[Item]:
        """Replay in one command, or each by itself if not all can be. Answers what was refused."""
        (_, effect), *more = batch
        if more:
            effect = Delete(tuple(key for _, each in batch if isinstance(each, Delete) for key in each.keys))
        if self._offer(effect):
            for item in batch:
                self.journal.done(item)
            return []
        return [refused for item in batch for refused in self._replay_each([item])] if more else batch

    def _offer(self, effect: Delete | Sweep | Release) -> bool:
        """Whether it was done. The server may refuse, and be in good health."""
        try:
            self._spare.perform(effect)
        except BackendError as error:
            if kind_of(error) in (Kind.REFUSED, Kind.OURS):
                return False
            raise
        return True

    # -- its life --------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, float]:
        """For the statistics of the cache."""
        return {
            "breaker_open": float(self.breaker.open),
            "breaker_opened": self.breaker.opened,
            "journal": len(self.journal),
            "journaled": self.journal.total,
        }

    @property
    def connected(self) -> bool:
        """Whether connections are kept open for the next question."""
        return self.backend.connected or self._spare.connected

    def after_fork(self) -> None:
        """In a forked child: what was to be invalidated in the parent is so here."""
        self.backend.after_fork()
        self._spare.after_fork()
        self.breaker.after_fork()
        self.journal.after_fork()
        self._orphans.clear()  # the parent's to remove
        self._prober.after_fork()

    def close(self) -> None:
        """Let go of every connection, having tried once more what waits."""
        self._finish()
        self._spare.close()
        self.backend.close()

    async def aclose(self) -> None:
        """As ``close``; what there is to try takes a thread's time, and not the event loop's."""
        if self.journal or self.breaker.open:
            await asyncio.to_thread(self._finish)
        else:
            self._finish()
        self._spare.close()
        await self.backend.aclose()

    def _finish(self) -> None:
        self._prober.close()
        if self.journal:
            try:
                self._restore()
            except BackendError:
                pass
        if self.journal:
            log.warning("closed with %d invalidations that never reached Redis", len(self.journal))

    def __repr__(self) -> str:
        return f"<Guard {self.breaker!r} {self.journal!r} {self.backend!r}>"


def _orphaned(effect: Remote[Any], kind: Kind) -> Release | None:
    """What is to be removed after an effect failed that would have put, replaced or removed a placeholder."""
    if isinstance(effect, Acquire):
        # Where it was not asked, or refused, there is none.
        return Release(effect.key, PLACEHOLDER + effect.token) if kind in (Kind.LOST, Kind.OURS) else None
    if isinstance(effect, (Store, Release)) and effect.held.startswith(PLACEHOLDER):
        return Release(effect.key, effect.held)
    return None


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    """What can be replayed in one command, in order: a sweep by itself, deletions up to a number of keys."""
    batch: list[Item] = []
    keys = 0
    for item in items:
        effect = item[1]
        size = len(effect.keys) if isinstance(effect, Delete) else _BATCH
        if batch and keys + size > _BATCH:
            yield batch
            batch, keys = [], 0
        batch.append(item)
        keys += size
    if batch:
        yield batch
