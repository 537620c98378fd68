"""One function's results in memory under its policy: what may be served, what is stored, and for how long.

Knows its table and its policy; no colour. ``lead``, ``land`` and ``fail`` are what the generated wrapper calls, the
rest is for the flow (``_core.local``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any, Final

from cachecraft._core import flights, noting
from cachecraft._core import local as flow
from cachecraft._core.calls import Values
from cachecraft._core.effects import Flow
from cachecraft._core.entry import MISSING, Verdict, judge
from cachecraft._core.errors import told
from cachecraft._core.events import Hooks
from cachecraft._core.explanation import Explanation
from cachecraft._core.flights import ABANDONED, FAILED, FLYING, LANDED, Flight
from cachecraft._core.notes import Notes
from cachecraft._core.policy import Lifetime, Policy
from cachecraft._core.ports import Found, Run
from cachecraft._core.samples import Samples
from cachecraft._core.sites import Cause, cause
from cachecraft._core.tally import Tally
from cachecraft._core.verification import Verifier
from cachecraft.backends.eviction import DEAD, NO_KEY, Node
from cachecraft.backends.explain_local import all_of, explained
from cachecraft.backends.isolation import SHARED, copier, replica, weigh, weigh_key
from cachecraft.backends.nodes import Copied, Named, Raised, hold
from cachecraft.backends.quick import plain_land, plain_lead
from cachecraft.backends.table import Lookup, Table

log: Final = logging.getLogger("cachecraft")

THROTTLE: Final = 1.0
"""Seconds until a refresh that failed is tried again."""
_XFETCH_REACH: Final = 20.0
"""How many load times before the end the draw of XFetch begins; the odds beyond are below 1e-8."""

_MISS: Final = Found(Verdict.MISS)


def _never(*_: Any) -> None:
    return None


_ASK_THE_FLOW: Final = (_never, _never, _never)
"""The steps of a wrapper that is not to load by itself."""


def _late() -> float:
    """A time at which nothing is fresh."""
    return inf


class Local:
    """Keeps the results of one function in memory."""

    def __init__(self, table: Table, policy: Policy, tally: Tally, hooks: Hooks = (), *, leads: bool = True) -> None:
        self.table = table
        self.memory = table.memory
        self.clock = table.memory.clock
        self.hooks = hooks
        self.policy = policy
        self.tally = tally
        self.prefix = table.prefix
        self._tag = table.prefix.__add__
        self.lifetime: Lifetime | None = None if callable(policy.ttl) else policy.lifetime(None)
        self._tags: tuple[str, ...] = ()
        self._leads = leads
        """Whether loads are for this place to begin at all."""
        self._complained = False
        self._bind: Callable[..., None] | None = None
        subject = table.subject
        self._named = bool(
            policy.keep or policy.refresh_ahead or policy.beta or subject.named or subject.tags or subject.tag_maker
        )
        self.notes = Notes(self.clock)
        self.samples = Samples(subject.parameters, subject.keyed)
        self.verifier = Verifier(subject.label, subject.keyed, self.memory.seats, self.clock, tally)

    @property
    def label(self) -> str:
        return self.table.subject.label

    @property
    def quick(self) -> bool:
        """Whether the wrapper may load by itself: nothing about a miss needs a second thought, or is to be told."""
        return self._leads and not (self._named or self.policy.timeout or self.policy.verify or self.hooks)

    # -- the end of a load, for the wrapper and for the flow -------------------------------------------------

    def land(self, flight: Flight, value: Any) -> Any:
        """Store what was loaded, unless it was invalidated meanwhile; wake who joined; hand the value back."""
        now = self.memory.clock()
        flights.leave(flight)
        noting.load_ended(self, flight.number, now - flight.began)
        self.settle(flight, value, now)
        return value

    def connect(self, bind: Callable[..., None]) -> None:
        """Have the generated wrapper look here, by ``bind``, until ``disconnect``."""
        names: dict[str, Any] = {}
        if self.quick:
            names = {"steps": (plain_lead(self), plain_land(self), self._wrapper_failed)}
        with self.memory.lock:
            self._bind = bind
            self.table.watch(self._moved)
            self._moved(**names)

    def disconnect(self) -> None:
        with self.memory.lock:
            self._bind = None

    def _moved(self, **names: Any) -> None:
        table, memory, done = self.table, self.memory, False
        clock = self._now_or_late if self.policy.verify else self.clock
        if self.hooks:
            names["steps"] = _ASK_THE_FLOW
        while not done:
            nodes, wary = table.shelf.nodes, memory.wary
            if self._bind is not None:
                now = _late if wary and table.tagged else clock
                self._bind(table=nodes, owners=table.owners, now=now, **names)
            # A signal handler may have moved it all meanwhile.
            done = nodes is table.shelf.nodes and wary is memory.wary

    @property
    def _wary(self) -> bool:
        return self.memory.wary and self.table.tagged

    def _now_or_late(self) -> float:
        """The time for the wrapper; late, so that it asks the flow, for the share of hits to be verified."""
        return inf if self.memory.random() < self.policy.verify else self.clock()

    def chosen(self, lookup: Lookup, node: Node) -> bool:
        """Whether a hit is to be verified."""
        if isinstance(node, Raised):
            return False
        return (self._bind is not None and self.passed_over(lookup, node)) or self.memory.random() < self.policy.verify

    def passed_over(self, lookup: Lookup, node: Node) -> bool:
        """Whether the wrapper could have served it: then it did not for the very reason that it is to be verified."""
        found = lookup.key is not NO_KEY and lookup.shelf.nodes.get(lookup.key) is node and node.kind is lookup.kind
        return found and not self._wary and node.expires > self.clock()

    def _wrapper_failed(self, flight: Flight, error: BaseException) -> None:
        if flight.state == FLYING:
            self.tally.misses += 1
            self.tally.raised += isinstance(error, Exception)
        self.fail(flight, error)

    def settle(self, flight: Flight, value: Any, now: float) -> None:
        state, answer, node = ABANDONED, None, None
        try:
            answer = self._own(flight, value)
            # From here on there is something to share; what cannot be copied, everybody has to load for himself.
            state = LANDED
            node = self._node(flight, answer, now)
        except Exception as error:
            self.failed(error, "storing the result of")
            self.notes.add(flight.key, "refused", told(error))
        finally:
            if self.table.end(flight, state, answer, node):
                self.notes.forget(flight.key)
            elif node is not None:
                noting.lost(self)
                self.notes.add(flight.key, "lost")

    def _own(self, flight: Flight, value: Any) -> Any:
        """A value for the cache alone, of which every caller gets a copy; the value itself if all may share it."""
        copy = None if type(value) in SHARED else copier(value, self.policy.isolate)
        if copy is None:
            return value
        flight.copier = copy
        return copy(value)

    def fail(self, flight: Flight, error: BaseException) -> None:
        """The loader raised. Who joined gets its exception, unless it was the leader's own cancellation.

        Or a signal did, while the result was stored: then nobody is to wait for a load that has ended.
        """
        if flight.state != FLYING:
            return
        now = self.memory.clock()
        flights.leave(flight)
        noting.load_ended(self, flight.number, now - flight.began, error)
        if not isinstance(error, Exception):
            self.table.end(flight, ABANDONED, None)
            return
        node: Node | None = None
        # A result's tags follow from the result, and here is none: no invalidation by tag would find the exception.
        remembered = None if self.table.subject.tag_maker is not None else self.policy.remembered(error)
        if remembered is not None:
            node = self._raised(flight, error, now + remembered[1], now)
        self.notes.add(flight.key, "failed", told(error))
        self.table.end(flight, FAILED, error, node)

    def _raised(self, flight: Flight, error: Exception, expires: float, now: float) -> Node | None:
        """The node that remembers an exception: for its own time, with neither ``stale`` nor ``grace``."""
        try:
            node = self._named_node(Raised(), flight, replica(error), expires, now, weigh(None))
        except Exception as trouble:
            self.failed(trouble, "remembering the exception of")
            return None
        node.expires = node.until = expires
        return node

    def _node(self, flight: Flight, value: Any, now: float) -> Node | None:
        """The node for a result of which the cache owns ``value``, or ``None`` where it is not to be kept."""
        policy = self.policy
        if policy.when is not None and not policy.when(value):
            noting.declined(self)
            self.notes.add(flight.key, "declined")
            return None
        lifetime = self.lifetime or policy.lifetime(value)
        expires = now + lifetime.low + lifetime.span * self.memory.random()
        size = weigh(value) + weigh_key(flight.call_key)
        if size > self.memory.bound.largest:
            noting.refused(self, self.too_large(flight, size))
            return None
        if flight.copier is not None:
            node = Copied()
            node.copier = flight.copier
            return self._named_node(node, flight, value, expires, now, size)
        if self._named or self.table.wired or flight.call_key is NO_KEY:
            return self._named_node(Named(), flight, value, expires, now, size)
        plain = Node()
        plain.key, plain.kind = flight.call_key, flight.kind
        plain.value, plain.expires, plain.shelf, plain.size, plain.hits = value, expires, flight.shelf, size, 0
        return plain

    def too_large(self, flight: Flight, size: int) -> str:
        """Note down that there is no room for a result; answers that in words."""
        detail = f"{size:,} bytes are more than max_bytes={self.memory.bound.max_bytes:,}"
        self.notes.add(flight.key, "refused", detail)
        return detail

    def _named_node(self, node: Named, flight: Flight, value: Any, expires: float, now: float, size: int) -> Named:
        policy, table, lookup = self.policy, self.table, flight.lookup
        if lookup is None:
            node.key, node.kind = flight.call_key, flight.kind
            node.wire, node.tags = (table.flight_wire(flight) if table.wired else None), ()
        else:
            node.key, node.kind, node.wire, node.tags = lookup.key, lookup.kind, lookup.wire, lookup.tags
            if node.key is NO_KEY and node.wire is None:
                node.wire = table.flight_wire(flight)
            if table.subject.tag_maker is not None:
                made = map(self._tag, table.subject.tags_of_result(lookup.values, value))
                node.tags = tuple(dict.fromkeys((*node.tags, *made)))
        node.epoch, node.cost, node.born = flight.epoch, now - flight.began, now
        node.until = expires + policy.keep
        node.shelf, node.size, node.hits = flight.shelf, size + len(node.wire or ""), 0
        hold(node, value)
        # A hit that the wrapper may serve unasked ends where a refresh may be due.
        node.expires = expires - max(policy.refresh_ahead, _XFETCH_REACH * policy.beta * node.cost)
        node.fresh_until = expires
        return node

    def variant(self, policy: Policy, tags: tuple[str, ...]) -> Local:
        """The same place under another policy, with tags of its own: for what is stored by hand."""
        twin = Local(self.table, policy, self.tally, self.hooks)
        twin._tags = tuple(map(self._tag, tags))
        twin._named = True
        twin.notes, twin.samples, twin.verifier = self.notes, self.samples, self.verifier
        return twin

    # -- the flow's path -------------------------------------------------------------------------------------

    def missed(self, lookup: Lookup, reason: str) -> None:
        noting.missed(self, reason)
        self.samples.add(lookup.values)

    def lookup(self, values: Values) -> Lookup:
        self.memory.tidy()
        lookup = self.table.lookup(values)
        lookup.tags = self._tags + tuple(map(self._tag, self.table.subject.rendered_tags(values)))
        return lookup

    def look(self, lookup: Lookup) -> Found:
        node = self.table.find(lookup)
        if node is None or node.expires == DEAD:
            return _MISS
        now = self.memory.clock()
        if not isinstance(node, Named) or isinstance(node, Raised):
            verdict = Verdict.FRESH if node.expires > now else Verdict.MISS
        else:
            policy = self.policy
            verdict = judge(
                node.fresh_until - now,
                stale=policy.stale,
                grace=policy.grace,
                ahead=policy.refresh_ahead,
                beta=policy.beta,
                cost=node.cost,
                random=self.memory.random() if policy.beta else 0.0,
            )
            if verdict is not Verdict.FRESH and node.expires > now:
                verdict = Verdict.FRESH  # a refresh has just failed; this one is not tried again at once
        return Found(verdict, lambda: self._serve(node), "expired", node)

    def _serve(self, node: Node) -> Any:
        node.hits += 1
        return node.value

    def concerns(self, flight: Flight, lookup: Lookup) -> bool:
        """Whether the result of a flight, of another function perhaps, is one for this call."""
        return self.table.meant_for(lookup, flight)

    def board(self, lookup: Lookup) -> tuple[Flight, Flight | None]:
        return self.table.board(lookup)

    def seize(self, lookup: Lookup) -> Flight:
        """Take a key's place from what is kept there and from whoever loads it, who then stores nothing."""
        with self.memory.lock:
            self.memory.invalidate(lookup)
            return self.board(lookup)[0]

    def forget(self, lookup: Lookup) -> None:
        self.memory.invalidate(lookup)
        self.notes.add(lookup.flight_key, "dropped")

    def give_up(self, flight: Flight) -> None:
        self.table.end(flight, ABANDONED, None)

    def postpone(self, lookup: Lookup) -> None:
        """Let the old value be for a moment: a refresh has just failed."""
        node = self.table.find(lookup)
        if isinstance(node, Named) and node.expires != DEAD:
            with self.memory.lock:
                if node.expires != DEAD:
                    node.expires = min(self.memory.clock() + THROTTLE, node.until)

    def share(self, flight: Flight) -> Any:
        """The result of a flight, for somebody who joined it."""
        return flight.copier(flight.result) if flight.copier is not None else flight.result

    # -- what a cached function offers, as flows; none of them has anything to wait for, but ``recall`` and ``renew`` --

    def key(self, values: Values) -> str:
        lookup = self.table.lookup(values)
        return lookup.wire or self.table.subject.wire(self.table.prefix, values, lookup.shelf.serial or None)

    def recall(self, values: Values, run: Run) -> Flow[Any]:
        return flow.recall(self, values, run)

    def renew(self, values: Values, run: Run) -> Flow[Any]:
        return flow.renew(self, self.lookup(values), run)

    def peek(self, values: Values) -> Flow[Any]:
        """The value that is kept, or ``MISSING``."""
        yield from ()
        found = self.look(self.lookup(values))
        if found.verdict in (Verdict.MISS, Verdict.GRACE) or isinstance(found.node, Raised):
            return MISSING
        return found.node.value

    def put(self, values: Values, value: Any) -> Flow[bool]:
        """Keep a value that the caller brings; a load under way keeps its own to itself. False if it was declined."""
        yield from ()
        lookup = self.lookup(values)
        now = self.memory.clock()
        flight = Flight.of(lookup.flight_key, now)
        flight.lookup, flight.shelf, flight.epoch = lookup, lookup.shelf, self.memory.epoch
        flight.call_key, flight.kind = lookup.key, lookup.kind
        node = self._node(flight, self._own(flight, value), now)
        with self.memory.lock:
            self.memory.void(self.table, lookup)
            kept = node is not None and self.table.put(node)
            if not kept:
                self.memory.invalidate(lookup)  # declined, but what was kept is not the result any more
            else:
                self.notes.forget(flight.key)
        return kept

    def write(self, values: Values, run: Run, made: Callable[[Any], Any]) -> Flow[Any]:
        return flow.write(self, self.lookup(values), run, made)

    def explain(self, values: Values) -> Flow[Explanation]:
        yield from ()
        return explained(self, values)

    # Here, and not in the flow: it may run in a task of its own, and then nobody knows who asked for it.

    def drop(self, values: Values) -> Flow[int]:
        return self._drop(values, cause())

    def drop_all(self) -> Flow[int]:
        return self._drop_all(cause())

    def _drop(self, values: Values, by: Cause) -> Flow[int]:
        yield from ()
        lookup = self.lookup(values)
        dropped = self.memory.invalidate(lookup)
        self.memory.trail.note("key", (lookup.identity,), by, count=dropped)
        noting.dropped(self, "call", dropped)
        return dropped

    def _drop_all(self, by: Cause) -> Flow[int]:
        yield from ()
        dropped = self.memory.invalidate_tables([self.table])
        self.memory.trail.note("function", (all_of(self.table),), by)
        noting.dropped(self, "function", dropped)
        return dropped

    def failed(self, error: Exception, doing: str) -> None:
        """Count a failure that the caller is spared, and log it once."""
        noting.refused(self, told(error))
        if not self._complained:
            self._complained = True
            log.warning("%s %s failed; the caller got its result: %s", doing, self.label, told(error))

    def __repr__(self) -> str:
        return f"<Local {self.table!r}>"
