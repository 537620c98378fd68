"""What a user may do on a server: each right that a cache needs is tried, in a way that changes nothing.

A server looks at rights before it looks at anything else, so commands on a key that is never there tell enough.
"""

from __future__ import annotations

from typing import Final

from redis.exceptions import NoPermissionError

from cachecraft.cli.doctor.finding import BAD, GOOD, WARNING, Finding
from cachecraft.cli.figures import many
from cachecraft.cli.server import Server

NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "mget": ("{key}",),
    "pttl": ("{key}",),
    "set": ("{key}", "", "XX", "PX", 1000),  # only if it is there already
    "pexpire": ("{key}", 1000),
    "unlink": ("{key}",),
    "del": ("{key}",),
    "getrange": ("{key}", 0, 0),
    "eval": ("return 0", 1, "{key}"),
    "evalsha": ("0" * 40, 1, "{key}"),
    "publish": ("{key}", ""),  # on a channel of that name, where nobody listens
    "scan": (0, "MATCH", "{key}", "COUNT", 1),
    "info": ("server",),
    "ping": (),
}
"""By the name of the right: arguments with which the command does nothing."""
_SPARABLE: Final = {
    "scan": "no invalidation by pattern",
    "ping": "no cache.ping()",
    "publish": "near caches of other processes do not hear of invalidations",
}
"""What is missing without it; all others a cache cannot do without."""


def rights(server: Server) -> Finding:
    """Which rights are missing, and the command that grants them."""
    prefix = server.target.prefix
    key = f"{prefix}~doctor"
    commands = [
        (name, *(key if argument == "{key}" else argument for argument in arguments))
        for name, arguments in NEEDED.items()
    ]
    refusals = {
        name: str(reply)
        for name, reply in zip(NEEDED, server.ask(*commands), strict=True)
        if isinstance(reply, NoPermissionError)
    }
    missing = [name for name, text in refusals.items() if " key" not in text and " channel" not in text]
    out_of_reach = any(" key" in text for text in refusals.values())
    mute = any(" channel" in text for text in refusals.values())
    numbers = {"missing": missing, "keys_allowed": not out_of_reach}
    if not refusals:
        return Finding("rights", GOOD, f"all {len(NEEDED)} that a cache needs, on {prefix}*", numbers=numbers)
    words = [f"~{prefix}*"] * out_of_reach + [f"&{prefix}~*"] * mute + [f"+{name}" for name in missing]
    remedy = f"ACL SETUSER {server.user} {' '.join(words)}"
    if not out_of_reach and _SPARABLE.keys() >= set(missing):
        spared = dict.fromkeys(missing + ["publish"] * mute)
        return Finding("rights", WARNING, f"{', '.join(_SPARABLE[name] for name in spared)}", remedy, numbers)
    what = [f"no key of {prefix}* may be touched"] * out_of_reach
    what += [f"{many(len(missing), 'right')} missing: {', '.join(missing)}"] * bool(missing)
    return Finding("rights", BAD, "; ".join(what), remedy, numbers)
