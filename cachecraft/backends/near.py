"""One function's results in Redis and, for as long as it is certain that nothing came between, in this process too.

It pairs the places that the two backends have for it, and knows the insides of neither. What may be served from here,
and what may be held, the keeper knows (``near_keeper``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from cachecraft._core import flows
from cachecraft._core.calls import Values
from cachecraft._core.effects import Flow, Join
from cachecraft._core.explanation import Explanation
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Run
from cachecraft._core.sight import Seek
from cachecraft.backends.eviction import Node
from cachecraft.backends.explain_local import of_node
from cachecraft.backends.isolation import SHARED, copier_of_decoded, weigh, weigh_key
from cachecraft.backends.local import Local
from cachecraft.backends.nodes import Copied, Named, hold
from cachecraft.backends.redis import ROOT
from cachecraft.backends.remote import Remote
from cachecraft.backends.table import Lookup

if TYPE_CHECKING:
    from cachecraft.backends.near_keeper import NearKeeper

_XFETCH_REACH: Final = 20.0
"""As in ``local``: so many load times before its end an entry may be loaded anew, which is for Redis to tell."""
GREETING: Final = 0.1
"""Seconds that the first calls wait for the listener: what they load is then held here too."""


class NearFill:
    """One entry on its way from Redis. On the board before Redis is asked, and off it once something of it falls."""

    __slots__ = ("_since", "creates", "heard", "lookup", "place", "tags", "wire")

    def __init__(self, place: NearPlace, lookup: Lookup, seek: Seek) -> None:
        self.place = place
        self.lookup = lookup
        self.wire = seek.key
        self.tags = frozenset(seek.tags)
        self.heard: set[str] = set()
        """Tags that fell meanwhile, which the entry may turn out to carry."""
        self.creates: set[str] = set()
        """Stamps that this very load has made, or is about to: the first change of each that is tracked is that, even
        if it has fallen in the same turn of the server's loop; whoever makes it fall announces that, too."""
        self._since = inf

    def asked(self) -> None:
        self._since = self.place.keeper.clock()

    def proposes(self, tags: Iterable[str]) -> None:
        self.creates = set(tags)

    def found(self, value: Any, tags: tuple[str, ...], left: float, cost: float) -> None:
        self.place.hold(self, value, tags, self._since + left, cost)


class NearPlace:
    """One function whose results are kept in Redis and, for a while, here."""

    def __init__(self, keeper: NearKeeper, local: Local, remote: Remote) -> None:
        self.keeper = keeper
        self.remote = remote
        #: Also by those who hold nothing: of all who wait for a load, one asks for all, and in one way.
        remote.aged = True
        self.policy = remote.policy
        self.tally = remote.tally
        self.table = local.table
        self._local = local
        self._wrapped = False
        #: The stamps that all of its entries carry: they fall with the table.
        self._standing = frozenset((remote.prefix + ROOT, remote.own))

    # -- calls -----------------------------------------------------------------------------------------------

    def recall(self, values: Values, run: Run) -> Flow[Any]:
        seek, node = yield from self._look(values)
        if node is not None:
            node.hits += 1
            return node.value
        return (yield from self._filled(seek, flows.sought(self.remote, seek, run)))

    def peek(self, values: Values) -> Flow[Any]:
        seek, node = yield from self._look(values)
        return node.value if node is not None else (yield from self._filled(seek, flows.glimpsed(self.remote, seek)))

    def _look(self, values: Values) -> Flow[tuple[Seek, Node | None]]:
        """What is held here. If nothing is, what is found in Redis may be, unless another call is at that."""
        keeper, seek = self.keeper, self.remote.seek(values)
        keeper.memory.tidy()
        lookup = self.table.lookup(values, seek.key)
        if keeper.open:
            node = self._held(lookup, seek)
            if node is not None and self.policy.verify and self._chosen(lookup, node):
                seek.verify = True  # and so that what stands in Redis is
                return seek, None
            if node is not None:
                return seek, node
        elif (greeting := keeper.greet()) is not None:
            yield from Join(greeting, GREETING)
        seek.fill = keeper.put_on(NearFill(self, lookup, seek))
        return seek, None

    def _chosen(self, lookup: Lookup, node: Node) -> bool:
        passed_over = self._wrapped and self._local.passed_over(lookup, node)
        return passed_over or self._local.memory.random() < self.policy.verify

    def _held(self, lookup: Lookup, seek: Seek) -> Node | None:
        node = self.table.find(lookup)
        if not isinstance(node, Named) or node.expires <= self.keeper.clock():
            return None
        # Without a tag that ours have, an invalidation meant for ours could not reach it.
        return node if self._standing.union(node.tags).issuperset(seek.tags) else None

    def explain(self, values: Values) -> Flow[Explanation]:
        """What stands in Redis tells more of itself than what is held here."""
        explanation = yield from self.remote.explain(values)
        seek = self.remote.seek(values)
        lookup = self.table.lookup(values, seek.key)
        node = self._held(lookup, seek) if self.keeper.open else None
        if node is None:
            return explanation
        about = {name: value for name, value in of_node(self._local, node).items() if name not in ("age", "tags")}
        known = {"age": explanation.age, "tags": explanation.tags} if explanation.held == "redis" else {}
        return Explanation(
            function=explanation.function, key=explanation.key, verdict="fresh", **{**about, **known, "held": "near"}
        )

    def _filled(self, seek: Seek, flow: Flow[Any]) -> Flow[Any]:
        try:
            return (yield from flow)
        finally:
            if isinstance(seek.fill, NearFill):
                self.keeper.take_off(seek.fill)

    def hold(self, fill: NearFill, value: Any, tags: tuple[str, ...], until: float, cost: float) -> None:
        """Keep what stands in Redis until then, unless something of it was invalidated since it was asked for."""
        try:
            copier = None if type(value) in SHARED else copier_of_decoded(value, self.policy.isolate)
            node: Named
            if copier is None:
                node = Named()
            else:
                node = Copied()
                node.copier = copier
                value = copier(value)
            size = weigh(value) + weigh_key(fill.lookup.key) + len(fill.wire)
        except Exception as error:  # what cannot be copied is for Redis to hand out
            self._local.failed(error, "holding near a result of")
            return
        lookup, policy = fill.lookup, self.policy
        node.key, node.kind, node.wire, node.shelf = lookup.key, lookup.kind, fill.wire, lookup.shelf
        node.tags = tuple(tag for tag in tags if tag not in self._standing and tag != fill.wire)
        node.cost, node.size, node.hits, node.born = cost, size, 0, None
        # Where it may be due to be loaded anew, Redis is to be asked.
        until -= max(policy.refresh_ahead, _XFETCH_REACH * policy.beta * cost)
        node.expires = node.fresh_until = node.until = until
        hold(node, value)
        self.keeper.hold(fill, node, tags)

    # -- what is only passed on ------------------------------------------------------------------------------

    def connect(self, bind: Callable[..., None]) -> None:
        self._wrapped = True
        bind(fence=self.keeper.fence)
        self._local.connect(bind)

    def disconnect(self) -> None:
        self._local.disconnect()

    def key(self, values: Values) -> str:
        return self.remote.key(values)

    def renew(self, values: Values, run: Run) -> Flow[Any]:
        return self.remote.renew(values, run)

    def put(self, values: Values, value: Any) -> Flow[bool]:
        return self.remote.put(values, value)

    def write(self, values: Values, run: Run, made: Callable[[Any], Any]) -> Flow[Any]:
        return self.remote.write(values, run, made)

    def drop(self, values: Values) -> Flow[int]:
        return self.remote.drop(values)

    def drop_all(self) -> Flow[int]:
        return self.remote.drop_all()

    def variant(self, policy: Policy, tags: tuple[str, ...]) -> NearPlace | Remote:
        remote = self.remote.variant(policy, tags)
        return NearPlace(self.keeper, self._local, remote) if policy.near else remote

    def __repr__(self) -> str:
        return f"<NearPlace {self.remote!r}>"
