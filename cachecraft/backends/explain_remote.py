"""Why a call finds in Redis what it finds; it looks as a call does, and counts and changes nothing.

That nothing is there has many causes, and Redis tells none. What became of its own results this process has noted, what
was invalidated it remembers, and what others invalidated they have told in the trail (``footprints``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from cachecraft._core.behind import AWARE
from cachecraft._core.calls import Values
from cachecraft._core.effects import Fetch, Flow, Follow
from cachecraft._core.entry import ENTRY, FAILURE, Verdict, handle, read_stamps, unpack
from cachecraft._core.errors import BackendError, CorruptError, told
from cachecraft._core.explanation import Explanation, Invalidation, Means
from cachecraft._core.notes import Note
from cachecraft._core.sight import Sight, look
from cachecraft.backends import footprints
from cachecraft.backends.explain_local import of_note
from cachecraft.backends.redis import ROOT

if TYPE_CHECKING:
    from cachecraft.backends.remote import Remote

_SERVED: Final = {Verdict.FRESH: "fresh", Verdict.EARLY: "fresh", Verdict.STALE: "stale"}
_TAG: Final = "~tag:"
_FUNCTION: Final = "~fn:"


class _Asks:
    """A near cache that keeps nothing: for its sake the time to live is asked for, and judged as without it."""

    def asked(self) -> None: ...
    def proposes(self, tags: Iterable[str]) -> None: ...
    def found(self, value: Any, tags: tuple[str, ...], left: float, cost: float) -> None: ...


def explained(place: Remote, values: Values) -> Flow[Explanation]:
    seek = place.seek(values)
    seek.fill = _Asks()
    about: dict[str, Any] = {"function": place.subject.label, "key": seek.key}
    try:
        sight = yield from look(place, seek)
        about |= _of_entry(place, sight)
        if sight.verdict in _SERVED:
            return Explanation(verdict=_SERVED[sight.verdict], **about)  # type: ignore[arg-type]  # one of those
        if sight.loading is not None:
            flight = place.flights.get(sight.loading)
            since = place.clock() - flight.began if flight is not None and flight.began else None
            return Explanation(verdict="loading", left=sight.reading.left, since=since, **about)
        return Explanation(verdict="miss", **about, **(yield from _why(place, sight, about.get("left"))))
    except BackendError as error:
        return Explanation(verdict="miss", reason="unreachable", detail=told(error), **about)


def _of_entry(place: Remote, sight: Sight) -> dict[str, Any]:
    """What an entry tells of itself, if there is one."""
    slot = sight.reading.slot
    if slot is None or slot[:1] != ENTRY:
        return {}
    about: dict[str, Any] = {"held": "redis", "size": len(slot)}
    try:
        entry = unpack(sight.seek.key, slot)
    except CorruptError as error:
        return {**about, "detail": str(error)}
    if sight.reading.left is not None:
        about["left"] = sight.reading.left - entry.keep
    users = (tag for tag in entry.tags if _TAG in tag and not tag.endswith(_TAG + AWARE))
    tags = tuple(shown_name(place.prefix, tag) for tag in users)
    about |= {"age": max(0.0, time.time() - entry.created), "load_time": entry.cost, "tags": tags}
    return {**about, "exception": bool(entry.flags & FAILURE)}


def _why(place: Remote, sight: Sight, left: float | None) -> Flow[dict[str, Any]]:
    if sight.verdict is Verdict.GRACE or sight.reason == "error":
        return {"reason": "expired", "since": None if left is None else -left}
    if sight.reason == "invalidated":
        return (yield from _why_invalidated(place, sight))
    if sight.reason in ("absent", "expired"):
        return (yield from _why_absent(place, sight))
    return {"reason": "changing" if sight.reason == "tags" else sight.reason}


def _why_absent(place: Remote, sight: Sight) -> Flow[dict[str, Any]]:
    key, now = sight.seek.key, place.keeper.settings.clock()
    note: Note | None = place.notes.get(key)
    lost = note is not None and note.fate == "lost"
    # A stamp that falls leaves the entry where it was; but a load that rests on it stores nothing.
    by = yield from _invalidation(place, key, [key, *sight.seek.tags] if lost else [key])
    ago = by.ago if by is not None and by.ago is not None else None
    if note is not None and note.fate != "kept" and (lost or ago is None or now - note.when < ago):
        return of_note(note, now, by)
    if by is not None and ago is not None and (note is None or ago <= now - note.when):
        # Others have not told whether there was anything to remove.
        return {"reason": "invalidated", "by": by, "certain": (by.by == "key" and not by.elsewhere) or note is not None}
    if note is None:
        return {"reason": "absent"}
    if note.until <= now:
        return {"reason": "expired", "since": now - note.until}
    return {"reason": "evicted", "detail": "gone before its time: evicted by Redis, or deleted by other hands"}


def _why_invalidated(place: Remote, sight: Sight) -> Flow[dict[str, Any]]:
    """Something stands there, and not all of the stamps it rests on."""
    slot = sight.reading.slot
    assert slot is not None
    under_way = slot[:1] != ENTRY
    tags = sight.seek.wanted if under_way else unpack(sight.seek.key, slot).tags
    now = yield from Fetch(sight.seek.key, tags, aged=True)
    if handle(now.slot) != handle(slot):
        return {"reason": "changing"}
    pairs = zip(tags, read_stamps(slot), now.stamps, strict=True)
    fallen = sorted((tag for tag, stamp, there in pairs if stamp != there), key=lambda tag: _TAG not in tag)
    by = yield from _invalidation(place, sight.seek.key, fallen)
    detail = "while it was loaded" if under_way else ""
    if by is None and fallen:
        by = Invalidation(by=_means(place, fallen[0]), name=shown_name(place.prefix, fallen[0]))
        if by.by == "clear":
            detail = "clear(), a server that came back with an old state, or a stamp that was evicted"
    return {"reason": "invalidated", "by": by, "detail": detail}


def _invalidation(place: Remote, key: str, names: Sequence[str]) -> Flow[Invalidation | None]:
    """The last that is known of these names; of what it did itself, this process knows better than the trail."""
    keeper, shown = place.keeper, {name: shown_name(place.prefix, name) for name in names}
    here = keeper.trail.latest(shown, key, place.prefix)
    there = yield from followed(place.prefix, key, shown, keeper.footprints.who)
    if here is None or there is None:
        return here or there
    return min(here, there, key=lambda each: each.ago or 0.0)


def followed(prefix: str, key: str, names: Mapping[str, str], who: bytes = b"") -> Flow[Invalidation | None]:
    """The last invalidation, of these names or by a pattern, that the trail in Redis tells of."""
    try:
        found = yield from Follow(footprints.places(prefix, list(names)))
    except BackendError:
        return None
    return footprints.latest(found, names, key, prefix, who)


def _means(place: Remote, stamp: str) -> Means:
    if stamp == place.prefix + ROOT:
        return "clear"
    return "tag" if _TAG in stamp else "function" if _FUNCTION in stamp else "key"


def shown_name(prefix: str, name: str) -> str:
    """A tag as a program says it; of keys and other stamps nothing, since who asks knows them."""
    own = name.removeprefix(prefix)
    return unquote(own.removeprefix(_TAG), errors="replace") if own.startswith(_TAG) else ""
