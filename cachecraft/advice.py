"""What the counters of a cache advise: short findings, each with its remedy, for ``cachecraft doctor`` and for people.

A finding says what was counted in this process, and nothing else; below a fair number of calls there is none. The rules
are pure: whoever has the counters of another process can ask them too (``advise``). Of a cache it knows
what it looks at, and no more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final, Protocol

from cachecraft._core.ports import Keeper
from cachecraft._core.samples import never_alike
from cachecraft._core.tally import NUMBERS
from cachecraft.stats import Counted

ENOUGH: Final = 100
"""Loads, or misses, below which nothing is said."""
FEW: Final = 10
_CLOSURES: Final = 10
"""Functions of one name that are asked what they know."""


class Advised(Protocol):
    """A cache, as far as it is looked at here."""

    @property
    def enabled(self) -> bool: ...
    @property
    def keeper(self) -> Keeper: ...
    @property
    def _handles(self) -> Iterable[Any]: ...


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding."""

    function: str
    check: str
    """What it is about, for programs: ``ttl``, ``hits``, ``refused``, ``declined``, ``lost``, ``tags``, ``verify``."""
    finding: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.function}: {self.finding}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one function. The counters are those of ``f.stats``; all else only its own process can tell."""

    function: str
    numbers: Mapping[str, float]
    reasons: Mapping[str, int] = field(default_factory=dict)
    ttl: float | None = None
    """Seconds, if it is the same for each result."""
    different: Sequence[str] = ()
    """Parameters that had another value in each call that was looked at."""
    refusal: str = ""
    """Why a result could not be stored the last time."""
    idle_tags: Sequence[str] = ()
    """Templates of tags of which none was ever invalidated."""

    def __getitem__(self, name: str) -> int:
        return int(self.numbers.get(name, 0))


def advice(cache: Advised) -> list[Advice]:
    """All findings on the functions of a cache that is in use; none on one that is off, closed or not yet opened."""
    fallen = _fallen(cache)
    facts = [
        Facts(
            function=handle.subject.label,
            numbers=handle.stats.as_dict(),
            reasons=handle.stats.reasons,
            **_known(handle, place, fallen),
        )
        for handle, place in places(cache)
    ]
    return [each for about in sorted(facts, key=lambda each: each.function) for each in advise(about)]


def advice_on(cache: Advised, functions: Mapping[str, Counted]) -> list[Advice]:
    """The findings on these counters, in their order: by name, so the closures that one factory made are one function.

    Of those is told what they agree on. Of what has hardly loaded anything, nothing is said.
    """
    named: dict[str, list[tuple[Any, Any]]] = {}
    for handle, place in places(cache):
        named.setdefault(handle.subject.label, []).append((handle, place))
    fallen, found = _fallen(cache), list[Advice]()
    for name, counted in functions.items():
        tally = counted.tally
        if name in named and tally.loads >= FEW:
            known, *others = [_known(*each, fallen) for each in islice(named[name], _CLOSURES)]
            agreed = {about: said for about, said in known.items() if all(each[about] == said for each in others)}
            numbers = {number: getattr(tally, number) for number in NUMBERS}
            found += advise(Facts(function=name, numbers=numbers, reasons=tally.reasons, **agreed))
    return found


def places(cache: Advised) -> Iterator[tuple[Any, Any]]:
    """The functions in use of a cache, each with where its results are kept: of a near one, what it has in Redis."""
    for handle in list(cache._handles) if cache.enabled else ():
        function = handle._function
        if function is not None:
            yield handle, getattr(function, "remote", function)


def advise(facts: Facts) -> Iterator[Advice]:
    """The findings on one function."""
    for check, rule in _RULES.items():
        found = rule(facts)
        if found is not None:
            yield Advice(facts.function, check, *found)


Found = tuple[str, str] | None


def _ttl(facts: Facts) -> Found:
    misses, expired, hits = facts["misses"], facts.reasons.get("expired", 0), facts["hits"]
    if misses < ENOUGH or 2 * expired < misses or hits >= misses:
        return None
    now = "" if facts.ttl is None else f" than {facts.ttl:g} s"
    return (
        f"its ttl is too short to help: {expired:,} of {misses:,} misses found a result that had expired, and there"
        f" were {hits:,} hits",
        f"give it a longer ttl{now}, with tags= or @invalidates for what changes; or do not cache it",
    )


def _hits(facts: Facts) -> Found:
    loads, hits = facts["loads"], facts["hits"]
    elsewhere = facts["errors"] + facts["not_kept"] + facts["refused"] + facts["store_lost"]
    gone = sum(facts.reasons.get(reason, 0) for reason in ("expired", "invalidated", "schema", "corrupt", "encryption"))
    if loads < ENOUGH or 100 * hits >= loads or 10 * (elsewhere + gone) >= loads:
        return None
    finding = f"its results are hardly ever asked for again: {hits:,} hits for {loads:,} loads"
    if not facts.different:
        return finding, "look at what its key is made of; if calls just do not repeat, do not cache it"
    names = " and ".join(f"{name!r}" for name in facts.different)
    return (
        f"{finding}, and no two calls that were looked at had the same {names}",
        "leave out of the key what does not change the result: key= with the other parameters",
    )


def _refused(facts: Facts) -> Found:
    loads, refused = facts["loads"], facts["refused"]
    if refused < FEW or 20 * refused < loads:
        return None
    last = f" (the last: {facts.refusal})" if facts.refusal else ""
    return (
        f"{refused:,} of {loads:,} results could not be stored{last}",
        "return less or in pieces, raise max_value_bytes= or max_bytes=, or give a serializer= that knows their type",
    )


def _declined(facts: Facts) -> Found:
    loads, declined = facts["loads"], facts["not_kept"]
    if loads < ENOUGH or 10 * declined < 9 * loads:
        return None
    return f"when= declined {declined:,} of {loads:,} results", "look at when=; or do not cache it"


def _lost(facts: Facts) -> Found:
    loads, lost = facts["loads"], facts["store_lost"]
    if lost < FEW or 10 * lost < loads:
        return None
    return (
        f"{lost:,} of {loads:,} results were not stored: invalidated while they were loaded, or their lease was lost",
        "invalidate less at a time (a key or a tag rather than a pattern), and see that lease= outlasts a busy process",
    )


def _tags(facts: Facts) -> Found:
    if facts["loads"] < ENOUGH or not facts.idle_tags or facts.reasons.get("invalidated", 0):
        return None
    tags = ", ".join(f"{tag!r}" for tag in facts.idle_tags)
    return (
        f"nothing was ever invalidated by its tags {tags} in this process, and {facts['loads']:,} loads carried them",
        "leave out tags that no process invalidates by: each costs memory, and each hit in Redis reads it",
    )


def _verify(facts: Facts) -> Found:
    if not facts["differed"]:
        return None
    return (
        f"{facts['differed']:,} of {facts['verified']:,} verified hits were not what the loader returned by then",
        "look for a write without @invalidates; f.explain() tells how old a result is",
    )


_RULES: Final = {
    "ttl": _ttl,
    "hits": _hits,
    "refused": _refused,
    "declined": _declined,
    "lost": _lost,
    "tags": _tags,
    "verify": _verify,
}
COUNTED: Final = frozenset(_RULES) - {"tags"}
"""Checks for which counters are enough, of whichever process."""


_Fallen = Callable[[str], Sequence[str] | None]
"""The tags that ever fell here, without the prefix that is given; ``None`` if there were too many to remember."""


def _fallen(cache: Advised) -> _Fallen:
    @functools.cache  # there may be many of either, functions and tags
    def under(prefix: str) -> list[str] | None:
        fallen = cache.keeper.trail.tags
        if fallen is None:
            return None
        return [name.removeprefix(prefix).removeprefix("~tag:") for name in set(fallen) if name.startswith(prefix)]

    return under


def _known(handle: Any, place: Any, fallen: _Fallen) -> dict[str, Any]:
    """What only its own process can tell of a function."""
    ttl = place.policy.ttl
    return {
        "ttl": None if callable(ttl) else ttl,
        "different": place.samples.always_different() or _different(handle.subject, getattr(place, "table", None)),
        "refusal": place.notes.last("refused"),
        "idle_tags": _idle_tags(handle.subject, fallen(place.prefix)),
    }


def _different(subject: Any, table: Any) -> list[str]:
    """Quick misses in memory draw no samples, and need none: what they asked for is there."""
    return [] if table is None else never_alike(subject.keyed, table.call_keys())


def _idle_tags(subject: Any, fallen: Sequence[str] | None) -> list[str]:
    if fallen is None or not subject.tags:
        return []
    idle = [template for template in subject.tags if not any(map(template.may_render, fallen))]
    return [template.text for template in idle] if len(idle) == len(subject.tags) else []
