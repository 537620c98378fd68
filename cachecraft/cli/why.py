"""Why nothing is served from under a key, as far as Redis can tell: its trail of invalidations, what it evicted, and
what processes have published of results that were not kept.

What a process remembers beyond that (what expired, what was there before) is for ``f.explain`` there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cachecraft._core.effects import Follow
from cachecraft._core.errors import BackendError, BackendRefused
from cachecraft._core.explanation import Invalidation
from cachecraft._core.notes import Unkept
from cachecraft.backends import footprints
from cachecraft.backends.commands import PLANS
from cachecraft.backends.explain_remote import shown_name
from cachecraft.cli.figures import many, span
from cachecraft.cli.published import Reader
from cachecraft.cli.server import Server, granted
from cachecraft.cli.sighting import Sighting

_PLAN: Final = PLANS[Follow]
_FATES: Final = {
    "declined": "its result was declined by when=",
    "refused": "its result could not be stored",
    "failed": "its load failed",
    "lost": "its result came too late to be stored: it was invalidated meanwhile, or its lease was lost",
    "dropped": "dropped by @updates: its write failed, or another came in between",
}


def explained(server: Server, seen: Sighting) -> Sighting:
    """The same, and by whom and from where it was invalidated, or what else it may be."""
    if seen.state == "invalidated":
        return replace(seen, by=_invalidation(server, seen.key, [each.key for each in seen.stamps if not each.holds]))
    if seen.state != "absent":
        return seen
    by, unkept = _invalidation(server, seen.key, [seen.key]), _unkept(server, seen.key)
    if unkept is not None and (by is None or by.ago is None or time.time() - unkept.when <= by.ago):
        return replace(seen, unkept=unkept, reason=_words(unkept))
    # The trail does not tell whether there was anything to remove.
    return replace(seen, by=by, reason=_nothing_known(server) if by is None else "most likely invalidated")


def _unkept(server: Server, key: str) -> Unkept | None:
    """The last result that was not kept under the key, if that was lately, and a process has published it."""
    try:
        found = [each for report in Reader(server.target).read() for each in report.unkept if each.key == key]
    except BackendError:  # what a cache may do does not include it
        return None
    return max(found, default=None)


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


def _nothing_known(server: Server) -> str:
    try:
        evicted = int(server.info().get("evicted_keys", ""))
    except (BackendRefused, ValueError):
        evicted = -1
    if not evicted:
        return "never stored, expired, or invalidated over ten minutes ago; this server has evicted nothing"
    told = f" (this server has evicted {many(evicted, 'key')})" if evicted > 0 else ""
    return f"never stored, expired, evicted{told}, or invalidated over ten minutes ago"
