"""What of Redis this process holds in memory, and until when it may serve it.

An entry is served from here only while it is proven that all invalidations up to ``max_staleness`` seconds ago have
been heard (``Fence``). It is held only if none was heard since before Redis was asked for it (``NearFill``). It hears
from the ``listener``, and knows neither connections nor loads.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from functools import partial
from math import inf
from operator import is_
from typing import Any, Final

from cachecraft._core.calls import Subject
from cachecraft._core.effects import Acquire, Delete, Flow, Join, Remote, Store, Sweep
from cachecraft._core.flights import FLYING, LANDED, Flight
from cachecraft._core.keys import matcher
from cachecraft._core.policy import Policy
from cachecraft._core.sight import ASIDE
from cachecraft._core.tally import Tally
from cachecraft.backends.commands import prefix_in
from cachecraft.backends.listener import Listener
from cachecraft.backends.local import Local
from cachecraft.backends.memory import Memory
from cachecraft.backends.near import GREETING, NearFill, NearPlace
from cachecraft.backends.nodes import Named
from cachecraft.backends.redis import ROOT
from cachecraft.backends.remote import ANY, FUNCTION
from cachecraft.backends.remote import Remote as RemotePlace
from cachecraft.backends.remote_keeper import RemoteKeeper
from cachecraft.backends.table import Table

_REASONS: Final = (
    "key",
    "pattern",
    "tag",
    "function",
    "namespace",
    "flush",
    "listener",
    "overtaken",
    "barrier",
    "fork",
)
"""Why entries had to go."""
FAR: Final = dict.fromkeys(
    (
        *("near_entries", "near_evictions", "near_received", "near_dropped", "near_deaf_seconds"),
        *(f"near_dropped_{reason}" for reason in _REASONS),
    ),
    0.0,
)
"""The counters where nothing is held near."""


_MADE: Final = 10_000
"""Stamps made here that are remembered until that is heard."""


class Fence:
    """Until when entries may be served from here. Each hit looks at it."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = -inf


class NearKeeper:
    """Keeps entries in Redis, and near. It is the ``Ear`` that hears of their end."""

    def __init__(self, remote: RemoteKeeper, memory: Memory, listener: Listener, staleness: float) -> None:
        self.remote = remote
        self.trail = remote.trail
        self.memory = memory
        self.clock = memory.clock
        self.fence = Fence()
        self.staleness = staleness
        self.prefixes: list[str] = []
        self._listener = listener
        self._fills: dict[str, NearFill] = {}
        """By wire key; guarded, as all that follows, by the memory's lock."""
        self._made: set[str] = set()
        """Stamps that were made here, which is yet to be heard."""
        self._listening = False
        self._greeting: Flight | None = None
        self._deaf_since: float | None = None
        self._deaf = 0.0
        self.received = 0
        """Keys, patterns and stamps that were heard to be gone."""
        self.drops: Counter[str] = Counter()
        """Entries that had to go, by reason."""
        self._places: weakref.WeakSet[NearPlace] = weakref.WeakSet()

    def function(
        self,
        subject: Subject,
        policy: Policy,
        tally: Tally,
        prefix: str,
        *,
        fn: Callable[..., Any] | None = None,
        serializer: Any = None,
    ) -> NearPlace | RemotePlace:
        remote = self.remote.function(subject, policy, tally, prefix, fn=fn, serializer=serializer)
        if not policy.near:
            return remote
        table = Table(self.memory, subject, prefix, shared=False)
        with self.memory.lock:
            table.index()
        # Whatever is not simply fresh is for Redis to judge.
        held = replace(policy, stale=0.0, grace=0.0, refresh_ahead=0.0, beta=0.0)
        local = Local(table, held, tally, self.remote.hooks, leads=False)
        table.bury_with(local)
        place = NearPlace(self, local, remote)
        with self.memory.lock:
            self._places.add(place)
            if prefix not in self.prefixes:
                self.prefixes = [*self.prefixes, prefix]
                self.lost()  # until that is listened to as well
        if self._greeting is not None:
            self._listener.wake()
        return place

    # -- serving and filling ---------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether what is held here may be served."""
        return self.clock() < self.fence.until

    def greet(self) -> Flight | None:
        """Begin to listen, if that is yet to be done; what the first callers may wait for."""
        greeting = self._greeting
        if greeting is None or self._listener.idle:
            with self.memory.lock:
                if self._greeting is None:
                    self._greeting = Flight.of("greeting", time.monotonic())
                    self._deaf_since = self.clock()
                greeting = self._greeting
            self._listener.attach(self)
        late = time.monotonic() - greeting.began > GREETING
        return greeting if greeting.state == FLYING and not late else None

    def put_on(self, fill: NearFill) -> NearFill | None:
        """Put it on the board. ``None`` if nothing is to be held now: another call is at it, or nothing is heard."""
        with self.memory.lock:
            if not self._listening or self._fills.setdefault(fill.wire, fill) is not fill:
                return None
        return fill

    def take_off(self, fill: NearFill) -> None:
        with self.memory.lock:
            if self._fills.get(fill.wire) is fill:
                del self._fills[fill.wire]
            # That it made them may be heard when it is over. Nothing that is held rests on an older stamp of that name.
            if len(self._made) > _MADE:
                self._made.clear()
            self._made.update(fill.creates)

    def hold(self, fill: NearFill, node: Named, tags: tuple[str, ...]) -> None:
        with self.memory.lock:
            if self._fills.get(fill.wire) is not fill:
                return  # it fell; or its call is over, and what goes on behind it nobody guards
            if not fill.heard.isdisjoint(tags):
                self.drops["overtaken"] += 1
            elif node.size <= self.memory.bound.largest and node.expires > self.clock():
                fill.place.table.put(node)

    # -- what is heard (see ``hearing.Ear``), and what this process itself invalidates -----------------------

    def begun(self, prefixes: Set[str]) -> None:
        with self.memory.lock:
            self._forget_all("listener")
            self._listening = set(self.prefixes) <= prefixes
            if not self._listening:
                return
            if self._deaf_since is not None:
                self._deaf += self.clock() - self._deaf_since
                self._deaf_since = None
        greeting = self._greeting
        if greeting is not None and greeting.state == FLYING:
            greeting.settle(LANDED, None)

    def proved(self, sent: float) -> None:
        with self.memory.lock:
            if self._listening:
                self.fence.until = max(self.fence.until, sent + self.staleness)

    def lost(self) -> None:
        with self.memory.lock:
            self.fence.until = -inf
            if self._listening:
                self._deaf_since = self.clock()
            self._listening = False
            self._forget_all("listener")

    def flushed(self) -> None:
        self.received += 1
        with self.memory.lock:
            self._forget_all("flush")

    def stamps_changed(self, keys: Sequence[str]) -> None:
        self.received += len(keys)
        with self.memory.lock:
            for key in keys:
                self._forget_stamp(key, tracked=True)

    def gone(self, prefix: str, pattern: str | None, keys: Sequence[str]) -> None:
        self.received += len(keys) if pattern is None else 1
        with self.memory.lock:
            if pattern is not None:
                self._forget_pattern(prefix, pattern)
            self._forget_each(keys)

    def changed(self, effect: Remote[Any]) -> None:
        with self.memory.lock:
            if isinstance(effect, Delete):
                self._forget_each(effect.keys)
            elif isinstance(effect, Sweep):
                self._forget_pattern(effect.prefix, effect.pattern)
            elif isinstance(effect, (Acquire, Store)) and effect.replaces:
                self._forget_key(effect.key)

    # -- the caller holds the lock ---------------------------------------------------------------------------

    def _void(self, concerned: Callable[[NearFill], bool]) -> None:
        for wire, fill in list(self._fills.items()):
            if concerned(fill):
                del self._fills[wire]
                self.drops["overtaken"] += 1

    def _forget_each(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key[len(prefix_in(key)) :].startswith("~"):
                self._forget_stamp(key)
            else:
                self._forget_key(key)

    def _forget_key(self, key: str) -> None:
        wire = key.partition(ASIDE)[0]
        if self._fills.pop(wire, None) is not None:
            self.drops["overtaken"] += 1
        self.drops["key"] += self.memory.invalidate_key(wire)

    def _forget_pattern(self, prefix: str, pattern: str) -> None:
        matches = matcher(prefix + pattern)
        self._void(lambda fill: matches(fill.wire))
        self.drops["pattern"] += self.memory.invalidate_pattern(prefix, pattern)

    def _forget_stamp(self, key: str, *, tracked: bool = False) -> None:
        if tracked and key in self._made:
            self._made.discard(key)
            return
        for fill in list(self._fills.values()):
            if tracked and key in fill.creates:
                fill.creates.discard(key)
            elif key in fill.tags:
                self._void(partial(is_, fill))
            else:
                fill.heard.add(key)
        prefix = prefix_in(key)
        name = key[len(prefix) :]
        if name == ROOT:
            self.drops["namespace"] += self._forget_places(lambda place: place.table.prefix == prefix)
        elif name.startswith(FUNCTION):
            self.drops["function"] += self._forget_places(lambda place: place.remote.own == key)
            self.drops["function"] += self.memory.invalidate_tags([key])  # read by hand, they carry it as a tag
        elif key != prefix + ANY:
            self.drops["tag"] += self.memory.invalidate_tags([key])

    def _forget_places(self, concerned: Callable[[NearPlace], bool]) -> int:
        return self.memory.invalidate_tables([place.table for place in list(self._places) if concerned(place)])

    def _forget_all(self, reason: str) -> None:
        self._void(lambda _: True)
        self._made.clear()
        self.drops[reason] += self.memory.invalidate_tables(list(self.memory.tables))

    # -- for the whole cache ---------------------------------------------------------------------------------

    def barrier(self, patience: float) -> Flow[None]:
        """From here on nothing is served that had been invalidated before, by whomever."""
        if not self._listening:
            return  # and nothing is held
        asked = self.clock()
        proof = self._listener.prove()
        yield from Join(proof, patience)
        with self.memory.lock:
            if self.fence.until < asked + self.staleness:
                # Not proved in time: then what is held is not served until it is.
                self._forget_all("barrier")

    def delete(self, wire: str) -> Flow[int]:
        return self.remote.delete(wire)

    def sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None = None) -> Flow[int]:
        return self.remote.sweep(prefix, pattern, progress)

    def untag(self, prefix: str, tags: Sequence[str]) -> Flow[int]:
        return self.remote.untag(prefix, tags)

    def clear(self, prefixes: Iterable[str]) -> Flow[None]:
        return self.remote.clear(prefixes)

    def heed(self) -> None:
        """There is a hook now: no wrapper of these loads by itself."""

    def counters(self) -> dict[str, float]:
        deaf = self._deaf + (self.clock() - self._deaf_since if self._deaf_since is not None else 0.0)
        return {
            "near_entries": len(self.memory),
            "near_evictions": self.memory.bound.evictions,
            "near_received": self.received,
            "near_dropped": self.drops.total(),
            "near_deaf_seconds": deaf,
            **{f"near_dropped_{reason}": self.drops[reason] for reason in _REASONS},
        }

    def after_fork(self) -> None:
        """In a forked child: empty, with a listener of its own."""
        self.fence.until = -inf
        self.memory.after_fork()
        self._listening, self._greeting = False, None
        self._fills.clear()
        with self.memory.lock:
            self._forget_all("fork")
        self.remote.after_fork()

    def close(self) -> None:
        self.fence.until = -inf
        self._listener.detach(self)
        self.remote.close()

    def __repr__(self) -> str:
        return f"<NearKeeper {self.memory!r} over {self.remote!r}>"
