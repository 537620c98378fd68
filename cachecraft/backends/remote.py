"""One function's results in Redis under its policy: what an entry is made of, and what may be made of one.

It knows the envelope, the serializer and the policy; the flows (``_core.flows``) decide, the backend talks.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NoReturn

from cachecraft._core import flows, noting, writing
from cachecraft._core.calls import Subject, Values, prefix_of
from cachecraft._core.effects import Delete, Flow, Reading, Sweep
from cachecraft._core.entry import (
    ENCRYPTED,
    ENTRY,
    FAILURE,
    MISSING,
    PLACEHOLDER,
    TOKEN,
    ZLIB,
    ZSTD,
    Entry,
    Verdict,
    bound_to,
    is_for,
    judge,
    pack,
    read_stamps,
    unpack,
)
from cachecraft._core.errors import CorruptError, OptionError, UnkeyableError, UnserializableError, told
from cachecraft._core.events import Hooks, Invalidated, tell
from cachecraft._core.flights import Flight
from cachecraft._core.heat import Heat
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Backend, Lease, Run
from cachecraft._core.sight import ASIDE, Seek, Sight
from cachecraft._core.tally import Tally
from cachecraft.backends.claims import Claims
from cachecraft.backends.heart import Heart
from cachecraft.backends.isolation import Copier, copier
from cachecraft.backends.publisher import Publisher
from cachecraft.backends.redis import ROOT
from cachecraft.serializers import Serializer, compress, decompress, fingerprint

log: Final = logging.getLogger("cachecraft")

FUNCTION: Final = "~fn:"
"""What the name of the stamp that all entries of a function carry begins with."""
ANY: Final = "~any"
"""The stamp that falls with every tag: read before a load whose tags are known only after it."""
_CODECS: Final = {"zlib": ZLIB, "zstd": ZSTD}
_FLAGS: Final = ZLIB | ZSTD | FAILURE | ENCRYPTED
_LIMIT: Final = 64 * 2**20
"""Bytes a compressed value may come to."""


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
        self.policy = policy
        self.tally = tally
        self.hooks: Hooks = keeper.hooks
        self.asked_for = keeper.heat.add
        self.prefix = prefix
        self.serializer = serializer
        self.schema = schema
        self.aged = policy.aged
        #: The stamps all of its entries carry: the namespace's and its own.
        self.own = f"{prefix}{FUNCTION}{subject.label}"
        #: What its keys end in while another release's entry, or another function's, has the key itself.
        self.beside = f"{ASIDE}{blake2b(schema + self.own.encode(), digest_size=8).hexdigest()}"
        self._mixed = False
        """It has met such an entry, so from now on each reading covers both places."""
        #: What is stored by hand belongs to no function, and whatever is there can be looked at by hand.
        self.by_hand = subject.by_hand
        self._standing: tuple[str, ...] = (prefix + ROOT,) if self.by_hand else (prefix + ROOT, self.own)
        self._watched = (prefix + ANY,) if subject.tag_maker is not None else ()
        self.flights: dict[bytes, Flight] = keeper.flights
        self.leading: dict[tuple[str, tuple[str, ...]], Flight] = keeper.leading
        self.extra: dict[str, tuple[str, ...]] = {}
        self.watches: dict[bytes, Flight] = keeper.watches
        self.refreshing: dict[bytes, Flight] = keeper.refreshing

    # -- what the flow asks ----------------------------------------------------------------------------------

    def seek(self, values: Values) -> Seek:
        subject = self.subject
        if subject.owner(values) is not None:
            raise UnkeyableError(
                f"{subject.parameters[0]!r} of {subject.label} is a {type(values[0]).__qualname__} with no stable"
                " identity, and in Redis entries outlive objects; give key= (such as 'item:{self.id}'), define"
                " __cache_key__(), or make it a frozen dataclass"
            )
        tags = self._standing
        if subject.tags:
            tags += tuple(tag_key(self.prefix, tag) for tag in subject.rendered_tags(values))
        return Seek(subject.wire(self.prefix, values), tags, values, self._watched)

    def aside(self, key: str) -> str | None:
        return key + self.beside if self._mixed else None

    def judge(self, seek: Seek, tags: tuple[str, ...], reading: Reading) -> Sight:
        slot = reading.slot
        if slot is None:
            return Sight(seek, reading, reason="schema" if seek.beside else "absent")
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
            payload = self._decrypted(seek, entry)
        except CorruptError as error:
            log.debug("an entry of %s does not open: %s", self.subject.label, error)
            return Sight(seek, reading, reason="encryption")
        take = self._reader(entry, payload)
        if not self.aged:
            verdict = Verdict.FRESH
        else:
            policy = self.policy
            left = (reading.left if reading.left is not None else 0.0) - entry.keep
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
        return Sight(seek, reading, verdict, take, reason=reason, cost=entry.cost)

    def _decrypted(self, seek: Seek, entry: Entry) -> bytes:
        """The payload in the clear.

        Raises:
            CorruptError: it cannot be decrypted here; or we encrypt and it is not, so anybody may have written it.
        """
        keyring = self.keeper.settings.encryption_keys
        if bool(entry.flags & ENCRYPTED) != (keyring is not None):
            raise CorruptError(
                "it is encrypted, and there are no encryption_keys=" if keyring is None else "not encrypted"
            )
        if keyring is None:
            return entry.payload
        return keyring.open(entry.payload, bound_to(seek.key, entry))  # type: ignore[no-any-return]  # settings are Any

    def _reader(self, entry: Entry, payload: bytes) -> Callable[[], Any]:
        """Decode at once, so that what cannot be decoded is a miss."""
        if entry.flags & ~_FLAGS:
            raise CorruptError(f"flags {entry.flags} are unknown here")
        for name, flag in _CODECS.items() if entry.flags else ():
            if entry.flags & flag:
                payload = decompress(payload, codec=name, limit=_LIMIT)  # type: ignore[arg-type]  # a known codec
        if entry.flags & FAILURE:
            return partial(_raise, self._restored(payload))
        if entry.serializer != self.serializer.id:
            raise CorruptError(f"serializer {entry.serializer} is not the one used here")
        value = self.serializer.loads(payload)
        return lambda: value

    def token(self) -> bytes:
        return os.urandom(TOKEN)

    clock = staticmethod(time.monotonic)

    def random(self) -> float:
        return self.keeper.settings.random()  # type: ignore[no-any-return]  # settings are Any

    def copier(self, value: Any) -> Copier | None:
        return copier(value, self.policy.isolate)

    def hold(self, key: str, held: bytes, lease: float, flight: Flight | None = None) -> Lease:
        return self.keeper.heart.hold(key, held, lease, flight)

    # -- making entries --------------------------------------------------------------------------------------

    def pack(
        self, seek: Seek, tags: tuple[str, ...], stamps: tuple[bytes, ...], token: bytes, value: Any, cost: float
    ) -> tuple[bytes, float] | None:
        policy = self.policy
        try:
            if policy.when is not None and not policy.when(value):
                noting.declined(self)
                return None
            payload = self.serializer.dumps(value)
            ttl = policy.lifetime(value).draw(self.random())
            return self._sealed(seek, tags, stamps, token, payload, 0, cost, ttl, policy.keep)
        except Exception as error:  # whatever a user's own code raises here, the caller has its result
            self.refuse(error)
            return None

    def _sealed(
        self,
        seek: Seek,
        tags: tuple[str, ...],
        stamps: tuple[bytes, ...],
        token: bytes,
        payload: bytes,
        flags: int,
        cost: float,
        ttl: float,
        keep: float,
    ) -> tuple[bytes, float]:
        settings = self.keeper.settings
        if settings.compress_above is not None and len(payload) > settings.compress_above:
            packed = compress(payload, codec=settings.compression)
            if len(packed) < len(payload):
                payload, flags = packed, flags | _CODECS[settings.compression]
        keyring = settings.encryption_keys
        flags |= ENCRYPTED if keyring is not None else 0
        entry = Entry(
            token, tags, stamps, flags, self.serializer.id, self.schema, time.time(), keep, max(cost, 0.0), payload
        )
        if keyring is not None:
            entry = replace(entry, payload=keyring.seal(payload, bound_to(seek.key, entry)))
        if len(entry.payload) > settings.max_value_bytes:
            raise OptionError(f"{len(entry.payload)} bytes are above max_value_bytes={settings.max_value_bytes}")
        return pack(seek.key, entry), ttl + keep

    def pack_error(
        self, seek: Seek, stamps: tuple[bytes, ...], token: bytes, error: Exception, cost: float
    ) -> tuple[bytes, float] | None:
        for at, (kind, ttl) in enumerate(self.policy.cache_errors or ()):
            if type(error) is kind:
                try:
                    parts = _taken_apart(error)
                    payload = bytes([at]) + self.keeper.serializer.dumps(parts)
                    if _told(_put_together(kind, parts)) != _told(error):
                        raise UnserializableError(f"a {kind.__qualname__} is more than its arguments and attributes")
                    return self._sealed(seek, seek.tags, stamps, token, payload, FAILURE, cost, ttl, 0.0)
                except Exception as refused:
                    self.refuse(refused)
                    return None
        return None

    def _restored(self, payload: bytes) -> Exception:
        """The remembered exception: only of a class that this function names, and made of plain values."""
        return _put_together((self.policy.cache_errors or ())[payload[0]][0], self.keeper.serializer.loads(payload[1:]))

    def tags_of_result(self, seek: Seek, value: Any) -> tuple[str, ...] | None:
        """The tags that follow from the result; ``None`` if they cannot be told: nothing could then invalidate it."""
        try:
            return tuple(tag_key(self.prefix, tag) for tag in self.subject.tags_of_result(seek.values, value))
        except Exception as error:
            self.refuse(error)
            return None

    def refuse(self, error: Exception) -> None:
        noting.refused(self, told(error))
        if self.subject.label not in self.keeper.refused:
            self.keeper.refused.add(self.subject.label)
            log.warning("a result of %s is not stored: %s", self.subject.label, told(error))

    def failed(self, error: BaseException) -> None:
        self.tally.backend_errors += 1
        self.keeper.complain(error)

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

    def drop(self, values: Values) -> Flow[int]:
        dropped = yield from Delete((self.seek(values).key,))
        noting.dropped(self, "call", dropped)
        return dropped

    def drop_all(self) -> Flow[int]:
        yield from Delete((self.own,))
        noting.dropped(self, "function", 0)
        return 0

    def variant(self, policy: Policy, tags: tuple[str, ...]) -> Remote:
        twin = Remote(self.keeper, self.subject, policy, self.tally, self.prefix, self.serializer, self.schema)
        twin._standing = (*self._standing, *(tag_key(self.prefix, tag) for tag in tags))
        return twin

    def __repr__(self) -> str:
        return f"<Remote {self.subject.label}>"


class RemoteKeeper:
    """Keeps the entries of a whole cache in Redis."""

    def __init__(self, settings: Any, backend: Backend, serializer: Serializer, hooks: Hooks = ()) -> None:
        self.settings = settings
        self.hooks = hooks
        self.heat = Heat()
        self.publisher: Publisher | None = None
        self.backend = backend
        self.serializer = serializer
        self.heart = Heart(backend.perform)
        self.flights: dict[bytes, Flight] = {}
        self.leading: dict[tuple[str, tuple[str, ...]], Flight] = {}
        self.watches: dict[bytes, Flight] = {}
        self.refreshing: dict[bytes, Flight] = {}
        self.resting: dict[str, float] = {}
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

    def delete(self, wire: str) -> Flow[int]:
        return self._told("key", (yield from Delete((wire,))))

    def sweep(self, prefix: str, pattern: str, progress: Callable[[int], object] | None = None) -> Flow[int]:
        return self._told("pattern", (yield from Sweep(prefix, pattern, progress)))

    def untag(self, prefix: str, tags: Sequence[str]) -> Flow[int]:
        # The watched stamp falls first: who reads it standing knows that no tag had fallen.
        fallen = Delete((prefix + ANY, *(tag_key(prefix, tag) for tag in tags)))
        yield from fallen
        return self._told("tags", 0)

    def clear(self, prefixes: Iterable[str]) -> Flow[None]:
        yield from Delete(tuple(prefix + ROOT for prefix in prefixes))
        self._told("everything", 0)

    def _told(self, by: Any, count: int) -> int:
        if self.hooks:
            tell(self.hooks, Invalidated(by, count=count))
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
        self.heart.after_fork()
        self.backend.after_fork()
        if self.publisher is not None:
            self.publisher.after_fork()

    def close(self) -> None:
        self.heart.close()
        if self.publisher is not None:
            self.publisher.close()

    def __repr__(self) -> str:
        return f"<RemoteKeeper {self.backend!r}>"


def _raise(error: Exception) -> NoReturn:
    raise error


def _taken_apart(error: Exception) -> list[Any]:
    """An exception as plain values: what it is made with, its arguments, and its attributes."""
    reduced: Any = error.__reduce__()
    return [list(reduced[1]), list(error.args), dict(vars(error))]


def _put_together(kind: type[Exception], parts: Any) -> Exception:
    # Not by calling the class: its __init__ may take something else than what became its arguments.
    made_with, arguments, attributes = parts
    error = kind.__new__(kind, *made_with)
    error.args = tuple(arguments)
    vars(error).update(attributes)
    return error


def _told(error: Exception) -> tuple[Any, ...]:
    """All that can be seen of an exception."""
    return type(error), str(error), repr(error), error.args, vars(error)


def _resolved(fn: Callable[..., Any]) -> Any:
    """The return annotation, with names looked up where that is possible."""
    import inspect
    import typing

    target = inspect.unwrap(fn)
    try:
        return typing.get_type_hints(target).get("return")
    except Exception:  # a name that exists for type checkers only
        return getattr(target, "__annotations__", {}).get("return")


__all__ = ["ANY", "MISSING", "Remote", "RemoteKeeper", "tag_key"]
