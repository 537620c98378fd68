"""Why nothing is served from under a key, as far as Redis can tell: its trail of invalidations, what it evicted, and
what processes have published of their last results.

What a process remembers beyond that is for ``f.explain`` there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final

from cachecraft._core.effects import Follow
from cachecraft._core.entry import key_digest
from cachecraft._core.errors import BackendError, BackendRefused
from cachecraft._core.explanation import Invalidation
from cachecraft._core.notes import Unkept
from cachecraft._core.trail import SPAN
from cachecraft.backends import footprints
from cachecraft.backends.commands import PLANS
from cachecraft.backends.explain_remote import shown_name
from cachecraft.cli.figures import many, span
from cachecraft.cli.published import Reader
from cachecraft.cli.queues import waits_behind
from cachecraft.cli.release import release_of
from cachecraft.cli.server import Server, granted
from cachecraft.cli.sighting import Sighting, Stored
from cachecraft.reports import Report

_PLAN: Final = PLANS[Follow]
_APART: Final = 1.0
"""Seconds by which the clocks of two machines may differ."""
_FATES: Final = {
    "declined": "its result was declined by when=",
    "refused": "its result could not be stored",
    "failed": "its load failed",
    "lost": "its result came too late to be stored: it was invalidated meanwhile, or its lease was lost",
    "dropped": "dropped by @updates: its write failed, or another came in between",
}


def explained(server: Server, seen: Sighting) -> Sighting:
    """The same, and by whom and from where it was invalidated, or what else it may be; what processes know of it."""
    found = _reports(server)
    function = next((each.name for each in seen.stamps if each.kind == "function"), None)
    functions = {name for report in found for name in report.counted.functions} | {function or ""} - {""}
    seen = replace(seen, waits=waits_behind(server, seen.key, functions))
    if seen.entry is not None and function is not None:
        seen = replace(seen, release=release_of(seen.entry.schema, function, found))
    if seen.state == "invalidated":
        return replace(seen, by=_invalidation(server, seen.key, [each.key for each in seen.stamps if not each.holds]))
    return _of_absent(server, seen, found) if seen.state == "absent" else seen


def _of_absent(server: Server, seen: Sighting, found: Sequence[Report]) -> Sighting:
    """The last that is known to have happened to it."""
    by, unkept, kept = _invalidation(server, seen.key, [seen.key]), _unkept(found, seen.key), _kept(found, seen.key)
    now = time.time()
    invalidated = now - by.ago if by is not None and by.ago is not None else -inf
    if unkept is not None and (kept is None or unkept.when >= kept.when):
        kept = None  # it is not the last that became of it
        if unkept.when >= invalidated:
            return replace(seen, unkept=unkept, reason=_words(unkept))
    if kept is not None:
        if kept.when - _APART < invalidated < kept.until:  # what had expired by then, no invalidation removed
            kept = kept._replace(fate="invalidated")
        else:
            kept = kept._replace(fate="expired" if kept.until <= now + _APART else "gone")
            return replace(seen, kept=kept, reason=_ended(server, kept))
    if by is not None:
        # The trail does not tell whether there was anything to remove.
        return replace(seen, by=by, kept=kept, reason="most likely invalidated")
    return replace(seen, reason=_nothing_known(server, found), remembered=_remembered(found))


def _reports(server: Server) -> list[Report]:
    try:
        return Reader(server.target).read()
    except BackendError:  # what a cache may do does not include it
        return []


def _unkept(found: Iterable[Report], key: str) -> Unkept | None:
    """The last result that was not kept under the key, if that was lately, and a process has published it."""
    return max((each for report in found for each in report.unkept if each.key == key), default=None)


def _kept(found: Iterable[Report], key: str) -> Stored | None:
    """The last one that was, and by whom."""
    digest = key_digest(key)
    told = [
        Stored(*kept, report.host, report.pid)
        for report in found
        if (kept := (report.kept or {}).get(digest)) is not None
    ]
    return max(told, default=None)


def _ended(server: Server, kept: Stored) -> str:
    ago, lasting = max(time.time() - kept.when, 0), max(kept.until - kept.when, 0)
    stored = f"stored {span(ago)} ago by {kept.host}:{kept.pid} for {span(lasting)}"
    if kept.fate == "expired":
        return f"{stored}: expired {span(max(ago - lasting, 0))} ago"
    lately = " in the last ten minutes" if ago > SPAN else ""
    return f"{stored} and no longer there, though no invalidation of it{lately} is known: {_taker(_info(server), ago)}"


def _taker(info: Mapping[str, str], ago: float) -> str:
    """Who may have taken what was there so long ago."""
    evicted, up = _number(info, "evicted_keys"), _number(info, "uptime_in_seconds")
    takers = ["removed by somebody else"]
    if evicted != 0:
        takers.insert(0, f"evicted{_evicted(evicted)}")
    if up is not None and up - 1 < ago:  # whole seconds, from one second's beginning to another's
        takers.insert(0, f"lost when the server began anew {span(up)} ago")
    text = ", or ".join(takers)
    return text if evicted != 0 else f"{text}; this server has evicted nothing"


def _evicted(evicted: int | None) -> str:
    return "" if evicted is None else f" (this server has evicted {many(evicted, 'key')})"


def _remembered(found: Iterable[Report]) -> int | None:
    """Of how many results the processes tell that they stored them; ``None`` if none tells."""
    told = [len(report.kept) for report in found if report.kept is not None]
    return sum(told) if told else None


def _words(unkept: Unkept) -> str:
    ago = f"{span(max(time.time() - unkept.when, 0))} ago"
    detail = f" ({unkept.detail})" if unkept.detail else ""
    return f"{_FATES.get(unkept.fate, 'its result was not kept')}{detail}, {ago}"


def _invalidation(server: Server, key: str, names: list[str]) -> Invalidation | None:
    prefix = server.target.prefix
    shown: Mapping[str, str] = {name: shown_name(prefix, name) for name in names}
    try:
        effect = Follow(footprints.places(prefix, names))
        found = _PLAN.answer(effect, list(map(granted, server.ask(*_PLAN.commands(effect)))))
    except BackendRefused:
        return None
    by = footprints.latest(found, shown, key, prefix, b"")
    return by and replace(by, elsewhere=False)  # to us, everybody is


def _nothing_known(server: Server, found: Sequence[Report]) -> str:
    evicted, remembered = _number(_info(server), "evicted_keys"), _remembered(found)
    never = "never stored,"
    if remembered is not None:
        never += f" as far as the running processes remember (their last {many(remembered, 'result')}); else"
    if evicted == 0:
        return f"{never} expired, or invalidated over ten minutes ago; this server has evicted nothing"
    return f"{never} expired, evicted{_evicted(evicted)}, or invalidated over ten minutes ago"


def _info(server: Server) -> Mapping[str, str]:
    """What the server tells of itself, if this user may ask."""
    try:
        return server.info()
    except BackendRefused:
        return {}


def _number(info: Mapping[str, str], field: str) -> int | None:
    told = info.get(field, "")
    return int(told) if told.isdecimal() else None
