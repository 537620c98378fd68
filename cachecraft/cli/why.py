"""Why nothing is served from under a key, as far as Redis can tell: its trail of invalidations, and what it evicted.

What a process remembers of its own results (declined, failed, expired) is for ``f.explain`` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cachecraft._core.effects import Follow
from cachecraft._core.errors import BackendRefused
from cachecraft._core.explanation import Invalidation
from cachecraft.backends import footprints
from cachecraft.backends.commands import PLANS
from cachecraft.backends.explain_remote import shown_name
from cachecraft.cli.figures import many
from cachecraft.cli.server import Server, granted
from cachecraft.cli.sighting import Sighting

_PLAN: Final = PLANS[Follow]


def explained(server: Server, seen: Sighting) -> Sighting:
    """The same, and by whom and from where it was invalidated, or what else it may be."""
    if seen.state == "invalidated":
        return replace(seen, by=_invalidation(server, seen.key, [each.key for each in seen.stamps if not each.holds]))
    if seen.state != "absent":
        return seen
    by = _invalidation(server, seen.key, [seen.key])
    # The trail does not tell whether there was anything to remove.
    return replace(seen, by=by, reason=_nothing_known(server) if by is None else "most likely invalidated")


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
