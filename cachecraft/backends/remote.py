"""One function's results in Redis under its policy: what is to be kept of one, and whether what is there may be served.

It knows stamps, schema and policy; the flows (``_core.flows``) decide, ``sealing`` makes bytes, the backend talks.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from cachecraft._core import flows, noting, writing
from cachecraft._core.calls import Subject, Values
from cachecraft._core.effects import Flow, Reading
from cachecraft._core.entry import (
    ENTRY,
    FAILURE,
    FRESH,
    PLACEHOLDER,
    TOKEN,
    Entry,
    is_for,
    judge,
    read_stamps,
    unpack,
)
from cachecraft._core.errors import CorruptError, UnkeyableError, UnserializableError, told
from cachecraft._core.events import Hooks
from cachecraft._core.explanation import Explanation
from cachecraft._core.flights import Flight
from cachecraft._core.notes import Notes
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Lease, Run
from cachecraft._core.samples import Samples
from cachecraft._core.sight import ASIDE, Seek, Sight
from cachecraft._core.sites import Cause, cause
from cachecraft._core.tally import Tally
from cachecraft._core.verification import Verifier
from cachecraft.backends.explain_remote import explained
from cachecraft.backends.hearing import Bell
from cachecraft.backends.isolation import Copier, copier
from cachecraft.backends.redis import ROOT
from cachecraft.backends.remembered import dumped
from cachecraft.backends.sealing import Sealing
from cachecraft.serializers import Serializer

if TYPE_CHECKING:
    from cachecraft.backends.remote_keeper import RemoteKeeper

log: Final = logging.getLogger("cachecraft")

FUNCTION: Final = "~fn:"
"""What the name of the stamp that all entries of a function carry begins with."""
ANY: Final = "~any"
"""The stamp that falls with every tag: read before a load whose tags are known only after it."""


def tag_key(prefix: str, tag: str) -> str:
    return f"{prefix}~tag:{tag}"


class Remote:
    """Keeps the results of one function in Redis."""

    def __init__(
        self,
        keeper: RemoteKeeper,
        subject: Subject,
        policy: Policy,
        tally: Tally,
        prefix: str,
        serializer: Serializer,
        schema: bytes,
    ) -> None:
        self.keeper = keeper
        self.subject = subject
        self.label = subject.label
        self.tally = tally
        self.hooks: Hooks = keeper.hooks
        self.asked_for = keeper.heat.add
        self.prefix = prefix
        self.serializer = serializer
        self.schema = schema
        self._adopt(policy)
        #: The stamps all of its entries carry: the namespace's and its own.
        self.own = f"{prefix}{FUNCTION}{subject.label}"
        #: What its keys end in while another release's entry, or another function's, has the key itself.
        self.beside = f"{ASIDE}{blake2b(schema + self.own.encode(), digest_size=8).hexdigest()}"
        self._mixed = False
        """It has met such an entry, so from now on each reading covers both places."""
        #: What is stored by hand belongs to no function, and whatever is there can be looked at by hand.
        self.by_hand = subject.by_hand
        self.standing: tuple[str, ...] = (prefix + ROOT,) if self.by_hand else (prefix + ROOT, self.own)
        self._watched = (prefix + ANY,) if subject.tag_maker is not None else ()
        self.flights: dict[bytes, Flight] = keeper.flights
        self.leading: dict[tuple[str, tuple[str, ...]], Flight] = keeper.leading
        self.extra: dict[str, tuple[str, ...]] = {}
        self.watches: dict[bytes, Flight] = keeper.watches
        self.refreshing: dict[bytes, Flight] = keeper.refreshing
        clock: Callable[[], float] = keeper.settings.clock
        self.notes = Notes(clock, keeper.lately)
        self.samples = Samples(subject.parameters, subject.keyed)
        self.verifier = Verifier(subject.label, subject.keyed, keeper.seats, clock, tally)

    def _adopt(self, policy: Policy) -> None:
        keeper, errors = self.keeper, policy.cache_errors or ()
        self.policy = policy
        self.aged = policy.aged
        self.sealing = Sealing(keeper.settings, self.serializer, self.schema, keeper.serializer, errors)
        self._named_errors = [kind for kind, _ in errors]

    # -- what the flow asks ----------------------------------------------------------------------------------

    def seek(self, values: Values) -> Seek:
        subject = self.subject
        if subject.owner(values) is not None:
            raise UnkeyableError(
                f"{subject.parameters[0]!r} of {subject.label} is a {type(values[0]).__qualname__} with no stable"
                " identity, and in Redis entries outlive objects; give key= (such as 'item:{self.id}'), define"
                " __cache_key__(), or make it a frozen dataclass"
            )
        tags = self.standing
        if subject.tags:
            tags += tuple(tag_key(self.prefix, tag) for tag in subject.rendered_tags(values))
        return Seek(subject.wire(self.prefix, values), tags, values, self._watched)

    def aside(self, key: str) -> str | None:
        return key + self.beside if self._mixed else None

    def judge(self, seek: Seek, tags: tuple[str, ...], reading: Reading) -> Sight:
        slot = reading.slot
        if slot is None:
            outlived = self.notes.outlived(seek.key)
            return Sight(seek, reading, reason="schema" if seek.beside else "expired" if outlived else "absent")
        try:
            if slot[:1] == PLACEHOLDER:
                return self._judge_placeholder(seek, tags, reading, slot)
            if slot[:1] == ENTRY:
                return self._judge_entry(seek, tags, reading, unpack(seek.key, slot))
        except Exception as error:  # the bytes are untrusted, and serializers may be anybody's
            log.debug("a corrupt entry of %s: %s", self.subject.label, told(error))
        return Sight(seek, reading, reason="corrupt")

    def _judge_placeholder(self, seek: Seek, tags: tuple[str, ...], reading: Reading, slot: bytes) -> Sight:
        valid = read_stamps(slot) == reading.stamps[: len(seek.wanted)]
        if not valid and seek.beside is None and not is_for(slot, seek.wanted):
            # Under other tags: whether it is void, its own release knows. Whoever took it from each other would load
            # both, and neither could store.
            return self._beside(seek, tags, reading)
        return Sight(
            seek,
            reading,
            loading=slot[1 : 1 + TOKEN] if valid else None,
            reason="loading" if valid else "invalidated",
        )

    def _judge_entry(self, seek: Seek, tags: tuple[str, ...], reading: Reading, entry: Entry) -> Sight:
        mine = entry.schema == self.schema or self.by_hand
        if entry.tags == tags:
            current = entry.stamps == reading.stamps
        else:
            # Without a tag that ours have, an invalidation meant for ours could not reach it.
            mine = mine and set(seek.tags) <= set(entry.tags)
            stamps = dict(zip(tags, reading.stamps, strict=True))
            more = tuple(tag for tag in entry.tags if tag not in stamps)
            if more:
                return Sight(seek, reading, more=more)
            current = all(stamps[tag] == stamp for tag, stamp in zip(entry.tags, entry.stamps, strict=True))
        if not current:
            return Sight(seek, reading, reason="invalidated")
        return self._judge_age(seek, reading, entry) if mine else self._beside(seek, tags, reading)

    def _beside(self, seek: Seek, tags: tuple[str, ...], reading: Reading) -> Sight:
        """The key has a good entry, and it is another's: ours are aside of it."""
        if seek.beside is not None:
            return Sight(seek, reading, reason="schema")
        if reading.aside is None:
            self._mixed = True
            return Sight(seek, reading, more=())
        return self.judge(seek.aside(seek.key + self.beside), (seek.key, *tags), reading.aside)

    def _judge_age(self, seek: Seek, reading: Reading, entry: Entry) -> Sight:
        try:
            payload = self.sealing.decrypted(seek.key, entry)
        except CorruptError as error:
            log.debug("an entry of %s does not open: %s", self.subject.label, error)
            return Sight(seek, reading, reason="encryption")
        take = self.sealing.reader(entry, payload)
        left = reading.left - entry.keep if reading.left is not None else None
        if not self.aged or left is None:  # it was not there a moment ago
            verdict = FRESH
        else:
            policy = self.policy
            verdict = judge(
                left,
                stale=policy.stale,
                grace=policy.grace,
                ahead=policy.refresh_ahead,
                beta=policy.beta,
                cost=entry.cost,
                random=self.random() if policy.beta else 0.0,
            )
        reason = "error" if entry.flags & FAILURE else "expired"
        # By position, since this is made for each hit, and names would double its price.
        return Sight(seek, reading, verdict, take, None, None, reason, entry.cost, left, entry.tags)

    def token(self) -> bytes:
        return os.urandom(TOKEN)

    clock = staticmethod(time.monotonic)

    def random(self) -> float:
        return self.keeper.settings.random()  # type: ignore[no-any-return]  # settings are Any

    def copier(self, value: Any) -> Copier | None:
        return copier(value, self.policy.isolate)

    def hold(self, key: str, held: bytes, lease: float, flight: Flight | None = None) -> Lease:
        return self.keeper.heart.hold(key, held, lease, flight)

    def bell(self, token: bytes) -> Bell | None:
        listener = self.keeper.listener
        return listener.bell(self.prefix, token) if listener is not None else None

    def unhang(self, bell: Bell) -> None:
        if self.keeper.listener is not None:
            self.keeper.listener.unhang(bell)

    # -- making entries --------------------------------------------------------------------------------------

    def pack(
        self, seek: Seek, tags: tuple[str, ...], stamps: tuple[bytes, ...], token: bytes, value: Any, cost: float
    ) -> tuple[bytes, float] | None:
        policy = self.policy
        try:
            if policy.when is not None and not policy.when(value):
                noting.declined(self)
                self.notes.add(seek.key, "declined")
                return None
            payload = self.serializer.dumps(value)
            ttl = policy.lifetime(value).draw(self.random())
            keep = policy.keep
            return self.sealing.sealed(seek.key, tags, stamps, token, payload, 0, cost, keep), ttl + keep
        except Exception as error:  # whatever a user's own code raises here, the caller has its result
            self.refuse(error)
            self.notes.add(seek.key, "refused", told(error))
            return None

    def pack_error(
        self, seek: Seek, stamps: tuple[bytes, ...], token: bytes, error: Exception, cost: float
    ) -> tuple[bytes, float] | None:
        remembered = self.policy.remembered(error)
        if remembered is None:
            return None
        kind, ttl = remembered
        try:
            if type(error) is not kind:  # what Redis holds must not choose the class that is made
                raise UnserializableError(
                    f"a {type(error).__qualname__} is a subclass of {kind.__qualname__}, and Redis keeps exceptions"
                    " only of the very class that is named; name it in cache_errors= too"
                )
            payload = bytes([self._named_errors.index(kind)]) + dumped(error, self.keeper.serializer)
            return self.sealing.sealed(seek.key, seek.tags, stamps, token, payload, FAILURE, cost, 0.0), ttl
        except Exception as refused:
            self.refuse(refused)
            return None

    def tags_of_result(self, seek: Seek, value: Any) -> tuple[str, ...] | None:
        """The tags that follow from the result; ``None`` if they cannot be told: nothing could then invalidate it."""
        try:
            return tuple(tag_key(self.prefix, tag) for tag in self.subject.tags_of_result(seek.values, value))
        except Exception as error:
            self.refuse(error)
            self.notes.add(seek.key, "refused", told(error))
            return None

    def refuse(self, error: Exception) -> None:
        noting.refused(self, told(error))
        if self.subject.label not in self.keeper.refused:
            self.keeper.refused.add(self.subject.label)
            log.warning("a result of %s is not stored: %s", self.subject.label, told(error))

    def failed(self, error: BaseException) -> None:
        self.tally.backend_errors += 1
        self.keeper.complain(error)

    def missed(self, seek: Seek, reason: str) -> None:
        noting.missed(self, reason)
        self.samples.add(seek.values)

    def may_refresh(self, key: str) -> bool:
        return self.keeper.resting.get(key, 0.0) <= self.clock()

    def rest(self, key: str, seconds: float) -> None:
        resting = self.keeper.resting
        if len(resting) > 10_000:
            resting.clear()
        resting[key] = self.clock() + seconds

    # -- what a cached function offers, as flows -------------------------------------------------------------

    def connect(self, bind: Callable[..., None]) -> None:
        bind()

    def disconnect(self) -> None:
        """The wrapper was never told where to look."""

    def key(self, values: Values) -> str:
        return self.seek(values).key

    def recall(self, values: Values, run: Run) -> Flow[Any]:
        return flows.recall(self, values, run)

    def renew(self, values: Values, run: Run) -> Flow[Any]:
        return writing.renew(self, values, run)

    def write(self, values: Values, run: Run, made: Callable[[Any], Any]) -> Flow[Any]:
        return writing.write(self, values, run, made)

    def peek(self, values: Values) -> Flow[Any]:
        return flows.peek(self, values)

    def put(self, values: Values, value: Any) -> Flow[bool]:
        return writing.put(self, values, value)

    def explain(self, values: Values) -> Flow[Explanation]:
        return explained(self, values)

    # Here, and not in the flow: it may run in a task of its own, and then nobody knows who asked for it.

    def drop(self, values: Values) -> Flow[int]:
        return self._drop(values, cause())

    def drop_all(self) -> Flow[int]:
        return self._drop_all(cause())

    def _drop(self, values: Values, by: Cause) -> Flow[int]:
        dropped = yield from self.keeper.fell(self.prefix, "key", (self.seek(values).key,), by)
        noting.dropped(self, "call", dropped)
        return dropped

    def _drop_all(self, by: Cause) -> Flow[int]:
        yield from self.keeper.fell(self.prefix, "function", (self.own,), by)
        noting.dropped(self, "function", 0)
        return 0

    def variant(self, policy: Policy, tags: tuple[str, ...]) -> Remote:
        """The same place under another policy, with tags of its own besides: for what is stored by hand."""
        twin = object.__new__(Remote)
        twin.__dict__.update(self.__dict__)
        twin._adopt(policy)
        twin.standing = (*self.standing, *(tag_key(self.prefix, tag) for tag in tags))
        return twin

    def __repr__(self) -> str:
        return f"<Remote {self.subject.label}>"
