"""What the counters of a cache advise: short findings, each with its remedy, for ``cachecraft doctor`` and for people.

A finding says what was counted in this process, and nothing else; below a fair number of calls there is none. The rules
are pure: whoever has the counters of another process can ask them too (``advise``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cachecraft._cache import BareCache
from cachecraft._core.samples import never_alike

ENOUGH: Final = 100
"""Loads, or misses, below which nothing is said."""
FEW: Final = 10


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


def advice(cache: BareCache) -> list[Advice]:
    """All findings on the functions of a cache that is in use; none on one that is off, closed or not yet opened."""
    if not cache.enabled:
        return []
    facts = [_facts(cache, handle) for handle in list(cache._handles) if handle._function is not None]
    return [each for about in sorted(facts, key=lambda each: each.function) for each in advise(about)]


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


def _facts(cache: BareCache, handle: Any) -> Facts:
    function = handle._function
    place = getattr(function, "remote", function)  # of a near one, what it has in Redis
    ttl = place.policy.ttl
    return Facts(
        function=handle.subject.label,
        numbers=handle.stats.as_dict(),
        reasons=handle.stats.reasons,
        ttl=None if callable(ttl) else ttl,
        different=place.samples.always_different() or _different(handle.subject, getattr(place, "table", None)),
        refusal=place.notes.last("refused"),
        idle_tags=_idle_tags(handle.subject, place.prefix, cache.keeper.trail.tags),
    )


def _different(subject: Any, table: Any) -> list[str]:
    """Quick misses in memory draw no samples, and need none: what they asked for is there."""
    return [] if table is None else never_alike(subject.keyed, table.call_keys())


def _idle_tags(subject: Any, prefix: str, fallen: set[str] | None) -> list[str]:
    if fallen is None or not subject.tags:
        return []
    names = [tag.removeprefix(prefix).removeprefix("~tag:") for tag in set(fallen) if tag.startswith(prefix)]
    idle = [template for template in subject.tags if not any(map(template.may_render, names))]
    return [template.text for template in idle] if len(idle) == len(subject.tags) else []
