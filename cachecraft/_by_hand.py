"""The work by hand, under keys, patterns and tags that the caller names: each operation once, as a flow to be driven.

It knows the keeper of a cache that is open, and neither how it was opened nor who drives.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from datetime import timedelta
from inspect import Parameter, Signature
from types import NoneType
from typing import Any, Final

from cachecraft._books import Record
from cachecraft._core.calls import MOST_TAGS, Key, Subject, check_tag, is_texts, prefix_of
from cachecraft._core.effects import Flow
from cachecraft._core.errors import BackendError, OptionError, OptionTypeError
from cachecraft._core.explanation import Explanation
from cachecraft._core.keys import escape_literal
from cachecraft._core.policy import Jitter, Policy, Tier
from cachecraft._core.ports import Keeper
from cachecraft._core.templates import check_pattern, escape_pattern
from cachecraft._settings import Settings

_PLAIN: Final = frozenset({NoneType, bool, int, float, str, timedelta, Jitter, Tier})
_REMEMBERED: Final = 100
"""For so many sets of options, what is kept under them."""


class ByHand:
    """What may be done by hand to one cache, for as long as it is open."""

    def __init__(self, cache: object, settings: Settings, keeper: Keeper, record: Record) -> None:
        self._cache = weakref.ref(cache)  # weak, so that a cache nobody holds is collected at once
        self._settings = settings
        self._keeper = keeper
        self._prefix = prefix_of(settings.namespace)
        self._tally = record.tally
        #: What is kept under keys that no function made.
        self._loose = keeper.function(
            _loose_subject(), self._policy({}), record.tally, self._prefix, fn=None, serializer=None
        )
        self._under: dict[tuple[object, ...], Any] = {}
        record.settle(getattr(self._loose, "table", None), near=not settings.url.startswith("memory://"))

    def place(self, key: str, options: dict[str, Any], tags: Sequence[str] = ()) -> tuple[Any, Any]:
        """Where a key is kept, and under what: one that a function made leads to that function's own results."""
        wanted = _key(key)
        if len(tags) > MOST_TAGS:
            raise OptionError(f"tags= names {len(tags)} tags; an entry carries {MOST_TAGS} at the most")
        home = getattr(wanted, "home", None)
        if home is not None and home.cache is self._cache():
            place: Any = home.function()
            values = wanted.values  # type: ignore[attr-defined]  # it is a Key
            return (place.variant(self._policy(options), _tags(tags)) if options or tags else place), values
        place = self._loose_under(options) if options else self._loose
        return (place.variant(place.policy, _tags(tags)) if tags else place), (wanted,)

    def _loose_under(self, options: dict[str, Any]) -> Any:
        """What is kept by hand under these options. To make it takes longer than a hit, so it is remembered; not what
        holds on to objects of the caller's, a lambda and all that it sees.
        """
        named = tuple(
            (name, type(value), value, getattr(value, "spread", None))  # 1 equals True, and 600 HOT
            for name, value in options.items()
            if type(value) in _PLAIN
        )
        place = self._under.get(named) if len(named) == len(options) else None
        if place is None:
            place = self._loose.variant(self._policy(options), ())
            if len(named) == len(options):
                if len(self._under) >= _REMEMBERED:
                    self._under.clear()
                self._under[named] = place
        return place

    def get(self, key: str) -> Flow[Any]:
        place, values = self.place(key, {})
        return (yield from place.peek(values))

    def set(self, key: str, value: Any, options: dict[str, Any], tags: Sequence[str]) -> Flow[bool]:
        place, values = self.place(key, options, tags)
        return bool((yield from place.put(values, value)))

    def explain(self, key: str) -> Flow[Explanation]:
        place, values = self.place(key, {})
        flow: Flow[Explanation] = place.explain(values)
        return flow

    def delete(self, key: str) -> Flow[int]:
        wanted = _key(key)
        wire = wanted if isinstance(wanted, Key) else self._prefix + escape_literal(wanted)
        return int((yield from self._keeper.delete(wire)))

    def invalidate(self, key: Any, pattern: Any, tags: Any, progress: Any) -> Flow[int]:
        if key is None and pattern is None and tags is None:
            raise OptionTypeError("invalidate() was told nothing to remove; give key=, pattern= or tags=")
        if pattern is not None:
            check_pattern(pattern)
        drops: list[Flow[int]] = []
        if key is not None:
            drops.append(self.delete(_key(key)))
        if pattern is not None:
            drops.append(self._keeper.sweep(self._prefix, escape_pattern(pattern), progress))
        if tags is not None:
            drops.append(self._keeper.untag(self._prefix, _tags([tags] if isinstance(tags, str) else tags)))
        count, failure = 0, None
        for drop in drops:
            try:
                count += yield from drop
            except BackendError as error:  # the others are to be tried all the same
                failure = failure or error
        self._tally.invalidated += count
        if failure is not None:
            raise failure
        return count

    def _policy(self, options: dict[str, Any]) -> Policy:
        unknown = options.keys() - Policy.__dataclass_fields__.keys()
        if unknown:
            raise OptionTypeError(
                f"{min(unknown)}= is no option here; there are {', '.join(Policy.__dataclass_fields__)}"
            )
        return Policy.of(options).under(self._settings.ttl, self._settings.jitter)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise OptionTypeError(f"key= must be text, not {type(key).__qualname__}; f.key(...) makes one from arguments")
    if not key:
        raise OptionError("key='' is empty; name what is kept under it")
    return key


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    if not is_texts(tags):
        raise OptionTypeError(f"tags= must be a list of strings, not {type(tags).__qualname__}")
    return tuple(check_tag(escape_literal(tag)) for tag in tags)


def _loose_subject() -> Subject:
    """What is stored by hand: the key is the one argument."""
    signature = Signature([Parameter("key", Parameter.POSITIONAL_ONLY)])
    return Subject(signature, name=None, label="the cache", key=_itself, tags=(), vary=None, version=None)


def _itself(key: str) -> str:
    return key
