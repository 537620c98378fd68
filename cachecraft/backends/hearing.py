"""One connection on which Redis pushes what changes: what was said on it, and what an answer means.

The answer to a *probe* comes behind all that was pushed before it, so it proves that whatever had been invalidated when
the probe was *sent* has been heard. (Redis writes what a change pushes before it answers who made the change.) It is a
deletion of what is never there rather than a ``PING``: a primary that was demoted would answer that, and hear nothing.
It knows commands and who wants to hear; no thread, no entry and no function.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final, Protocol

import hiredis

from cachecraft._core.effects import Remote
from cachecraft._core.flights import LANDED, Flight
from cachecraft.backends.commands import Command, gone_channel, prefix_in, read_told
from cachecraft.backends.lines import Line
from cachecraft.backends.redis import PROBE

_STAMPS: Final = "~"
"""What the names of stamps begin with, behind their namespace: only these are tracked."""


class Ear(Protocol):
    """Who keeps what Redis holds, and must hear of its end. The listener's thread calls it, and it is quick."""

    prefixes: list[str]
    """The namespaces of which it keeps something; it may grow."""
    staleness: float
    """Seconds for which a proof lasts."""

    def clock(self) -> float: ...
    def begun(self, prefixes: Set[str]) -> None:
        """What is invalidated of these from now on will be heard; what came before was not."""

    def proved(self, sent: float) -> None:
        """What was invalidated before ``sent``, by its own clock, has been heard."""

    def stamps_changed(self, keys: list[str]) -> None: ...
    def gone(self, prefix: str, pattern: str | None, keys: list[str]) -> None: ...
    def flushed(self) -> None: ...
    def changed(self, effect: Remote[Any]) -> None:
        """This process itself is about to do this, or has just done it."""

    def lost(self) -> None:
        """From here on nothing is heard."""


class Bell(Flight):
    """Lands when a load elsewhere is over; is abandoned when that would not be heard any more."""

    heard = False
    """The server knows that we listen: a load that ends after this is heard to end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Probe:
    """A question on its way."""

    sent: float
    times: Mapping[Ear, float]
    """When it was sent, by the clock of each who then listened."""
    starts: tuple[Ear, ...]
    """Those who began to listen with it,"""
    prefixes: Set[str]
    """to all of these."""
    proofs: tuple[Flight, ...]


class Session:
    """What is heard on one connection, and by whom."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._prefixes: set[str] = set()
        self._channels: set[str] = set()
        self._expected: deque[_Probe | None] = deque()
        """The answers to come: to a probe, or to something that need only have worked."""
        self._listening: weakref.WeakKeyDictionary[Ear, frozenset[str]] = weakref.WeakKeyDictionary()
        """Who has said to listen, and to which namespaces."""
        self.last = 0.0
        """When the last probe was sent."""

    @property
    def waits_since(self) -> float | None:
        """Since when the oldest probe waits for its answer."""
        return next((each.sent for each in self._expected if each is not None), None)

    def say(
        self, now: float, ears: Iterable[Ear], bells: Mapping[str, Bell], proofs: tuple[Flight, ...], *, due: bool
    ) -> None:
        """Tell the server what is to be heard, as far as it does not know; and ask whether all has been heard."""
        listening = {ear: frozenset(ear.prefixes) for ear in ears}
        commands: list[Command] = []
        new = sorted(frozenset().union(*listening.values()) - self._prefixes)
        if new:
            self._prefixes.update(new)
            words = [word for prefix in new for word in ("PREFIX", prefix + _STAMPS)]
            commands += [("CLIENT", "TRACKING", "ON", "BCAST", *words), ("SUBSCRIBE", *map(gone_channel, new))]
            self._expected.append(None)
        starts = tuple(ear for ear, prefixes in listening.items() if self._listening.get(ear) != prefixes)
        for ear in starts:
            ear.lost()  # until the server has heard us, it may miss something of what it keeps
        self._listening = weakref.WeakKeyDictionary(listening)
        if wanted := bells.keys() - self._channels:
            commands.append(("SUBSCRIBE", *wanted))
        if unwanted := self._channels - bells.keys():
            commands.append(("UNSUBSCRIBE", *unwanted))
        self._channels = set(bells)
        if due or proofs or starts:
            commands.append(("UNLINK", min(self._prefixes) + PROBE) if self._prefixes else ("PING",))
            self._expected.append(
                _Probe(now, {ear: ear.clock() for ear in listening}, starts, frozenset(self._prefixes), proofs)
            )
            self.last = now
        if commands:
            self._line.send(commands)

    def hear(self, ears: list[Ear], bells: Mapping[str, Bell]) -> None:
        """Take what has come.

        Raises:
            Exception: the connection is lost, or the server does not do what it was asked.
        """
        for reply in self._line.receive():
            if isinstance(reply, hiredis.PushNotification):
                self._pushed(reply, ears, bells)
            elif isinstance(reply, Exception):
                raise reply
            elif (probe := self._expected.popleft()) is not None:
                self._answered(probe)

    def _answered(self, probe: _Probe) -> None:
        for ear in probe.starts:
            ear.begun(probe.prefixes)
        for ear, sent in probe.times.items():
            if ear in self._listening:
                ear.proved(sent)
        for proof in probe.proofs:
            proof.settle(LANDED, None)

    def _pushed(self, push: list[Any], ears: list[Ear], bells: Mapping[str, Bell]) -> None:
        match push:
            case [b"invalidate", None]:
                for ear in ears:
                    ear.flushed()
            case [b"invalidate", keys]:
                names = [key.decode("utf-8", "replace") for key in keys]
                for ear in ears:
                    ear.stamps_changed([name for name in names if prefix_in(name) in ear.prefixes])
            case [b"message", channel, message]:
                self._told(channel.decode("utf-8", "replace"), message, ears, bells)
            case [b"subscribe", channel, _] if (bell := bells.get(channel.decode("utf-8", "replace"))) is not None:
                bell.heard = True

    @staticmethod
    def _told(channel: str, message: bytes, ears: list[Ear], bells: Mapping[str, Bell]) -> None:
        bell = bells.get(channel)
        if bell is not None:
            bell.settle(LANDED, None)
            return
        prefix = prefix_in(channel)
        try:
            pattern, keys = read_told(message)
        except ValueError:
            return  # somebody else's
        if not all(key.startswith(prefix) for key in keys):
            return  # as well: no key of ours is told on another's channel
        for ear in ears:
            if prefix in ear.prefixes:
                ear.gone(prefix, pattern, keys)
