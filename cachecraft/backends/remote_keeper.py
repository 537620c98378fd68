"""The entries of a whole cache in Redis: what its functions share, and what is invalidated for all of them.

It knows functions only as it makes their places (``remote``); what an entry is made of is theirs to know.
"""

from __future__ import annotations

import inspect
import logging
import time
import typing
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from cachecraft._core import noting
from cachecraft._core.calls import Subject, prefix_of
from cachecraft._core.effects import Delete, Flow, Sweep
from cachecraft._core.errors import OptionError, told
from cachecraft._core.events import Hooks
from cachecraft._core.explanation import Means
from cachecraft._core.flights import Flight
from cachecraft._core.heat import Heat
from cachecraft._core.notes import Lately
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Backend
from cachecraft._core.sites import Cause, cause
from cachecraft._core.tally import Tally
from cachecraft._core.trail import Trail
from cachecraft._core.verification import Seats
from cachecraft.backends.claims import Claims
from cachecraft.backends.commands import prefix_in
from cachecraft.backends.footprints import Footprints
from cachecraft.backends.heart import Heart
from cachecraft.backends.listener import Listener
from cachecraft.backends.publisher import Publisher
from cachecraft.backends.redis import ROOT
from cachecraft.backends.remote import ANY, Remote, tag_key
from cachecraft.serializers import Serializer, fingerprint

log: Final = logging.getLogger("cachecraft")


class RemoteKeeper:
    """Keeps the entries of a whole cache in Redis."""

    def __init__(
        self,
        settings: Any,
        backend: Backend,
        serializer: Serializer,
        listener: Listener | None = None,
        hooks: Hooks = (),
    ) -> None:
        self.settings = settings
        self.hooks = hooks
        self.heat = Heat()
        self.lately = Lately()
        self.publisher: Publisher | None = None
        self.backend = backend
        self.serializer = serializer
        self.listener = listener
        self.heart = Heart(backend.perform)
        self.flights: dict[bytes, Flight] = {}
        self.leading: dict[tuple[str, tuple[str, ...]], Flight] = {}
        self.watches: dict[bytes, Flight] = {}
        self.refreshing: dict[bytes, Flight] = {}
        self.resting: dict[str, float] = {}
        self.trail = Trail(settings.clock)
        self.seats = Seats()
        self.footprints = Footprints(settings.clock)
        self.refused: set[str] = set()
        """Functions of which it has been said that a result cannot be stored."""
        self._claims = Claims()
        self._complained = 0.0

    def function(
        self,
        subject: Subject,
        policy: Policy,
        tally: Tally,
        prefix: str,
        *,
        fn: Callable[..., Any] | None = None,
        serializer: Serializer | None = None,
    ) -> Remote:
        if subject.stem and not subject.explicit and fn is not None:
            self._claim(subject, prefix, fn)
        self.backend.serve(prefix)
        annotation = getattr(fn, "__annotations__", {}).get("return")
        if annotation is not None and fn is not None:
            annotation = _resolved(fn)
        chosen = serializer or self.serializer
        if annotation is not None and hasattr(chosen, "allow"):
            chosen.allow(annotation)
        schema = fingerprint(annotation)
        if subject.version is not None:
            schema = blake2b(schema + subject.version.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return Remote(self, subject, policy, tally, prefix, chosen, schema)

    def _claim(self, subject: Subject, prefix: str, fn: Callable[..., Any]) -> None:
        if "<lambda>" in subject.stem and prefix == prefix_of(self.settings.namespace):
            raise OptionError(
                f"{subject.label} has no name that lasts, so in Redis its entries could be taken for another's; give"
                " key= or namespace="
            )
        self._claims.claim(f"{prefix}{subject.stem}{subject.version or ''}", fn)

    # Who asks for it is looked up here, and not in the flow: that may run in a task of its own.

    def delete(self, wire: str) -> Flow[int]:
        return self._told("key", self.fell(prefix_in(wire), "key", (wire,), cause()))

    def sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None = None) -> Flow[int]:
        return self._told("pattern", self._sweep(prefix, pattern, progress, cause()))

    def _sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None, cause: Cause) -> Flow[int]:
        text = prefix + pattern
        gone = yield from Sweep(
            prefix, pattern, progress, self.footprints.of(prefix, "pattern", (), cause, pattern=text)
        )
        self.trail.note("pattern", (), cause, pattern=text)
        return gone

    def untag(self, prefix: str, tags: Sequence[str]) -> Flow[int]:
        # The watched stamp falls first: who reads it standing knows that no tag had fallen.
        names = [tag_key(prefix, tag) for tag in tags]
        return self._told("tag", self.fell(prefix, "tag", names, cause(), (prefix + ANY,)))

    def clear(self, prefixes: Iterable[str]) -> Flow[None]:
        return self._clear(list(prefixes), cause())

    def _clear(self, prefixes: Sequence[str], cause: Cause) -> Flow[None]:
        roots = [prefix + ROOT for prefix in prefixes]
        trail = [
            each
            for prefix, root in zip(prefixes, roots, strict=True)
            for each in self.footprints.of(prefix, "clear", (root,), cause)
        ]
        yield from Delete(tuple(roots), tuple(trail))
        self.trail.note("clear", roots, cause)
        noting.invalidated(self.hooks, "clear", 0)

    def fell(
        self, prefix: str, by: Means, names: Sequence[str], cause: Cause, first: tuple[str, ...] = ()
    ) -> Flow[int]:
        """Remove what stands under these names (keys or stamps), after what is to go first; leave a trail.

        Answers how many entries went; of stamps nobody knows that.
        """
        gone = yield from Delete((*first, *names), self.footprints.of(prefix, by, names, cause))
        if by != "key":
            self.trail.note(by, names, cause)
            return 0
        self.trail.note(by, names, cause, count=gone)
        return gone

    def _told(self, by: Means, drop: Flow[int]) -> Flow[int]:
        count = yield from drop
        noting.invalidated(self.hooks, by, count)
        return count

    def heed(self) -> None:
        """There is a hook now: whoever has something to tell looks each time."""

    def complain(self, error: BaseException) -> None:
        """Say that Redis fails: at most once in half a minute."""
        now = time.monotonic()
        if now - self._complained > 30 or not self._complained:
            self._complained = now
            log.warning("the cache goes on without Redis: %s", told(error))

    def after_fork(self) -> None:
        # Emptied, not replaced: each function holds them too. Nobody here flies what the parent's threads do.
        for each in (self.flights, self.leading, self.watches, self.refreshing, self.resting):
            each.clear()
        self.seats.after_fork()
        self.footprints.after_fork()
        self.heart.after_fork()
        if self.listener is not None:
            self.listener.after_fork()
        self.backend.after_fork()
        if self.publisher is not None:
            self.publisher.after_fork()

    def close(self) -> None:
        self.heart.close()
        if self.publisher is not None:
            self.publisher.close()
        if self.listener is not None:
            self.listener.leave(self.backend)

    def __repr__(self) -> str:
        return f"<RemoteKeeper {self.backend!r}>"


def _resolved(fn: Callable[..., Any]) -> Any:
    """The return annotation, with names looked up where that is possible."""
    target = inspect.unwrap(fn)
    try:
        return typing.get_type_hints(target).get("return")
    except Exception:  # a name that exists for type checkers only
        return getattr(target, "__annotations__", {}).get("return")
