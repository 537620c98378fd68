"""What the numbers of a server mean for a cache. Pure: each rule is given what was asked, and answers a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cachecraft._settings import Settings
from cachecraft.cli.doctor.finding import BAD, GOOD, UNKNOWN, WARNING, Finding
from cachecraft.cli.figures import duration, many, percent, percentile, size, span
from cachecraft.cli.queues import Standing
from cachecraft.cli.terminal import shown

Info = Mapping[str, str]
"""INFO, by field."""

TIMEOUT: Final[float] = Settings().timeout
"""Seconds that a program's operation may take, unless it says otherwise."""
OLDEST: Final = (6, 0)
SKEW: Final = 1.0
FULL: Final = 0.95
NEARLY: Final = 0.8
LISTENING: Final = "+client|tracking +subscribe +unsubscribe"
"""The rights that a near cache takes beyond those of any cache; who waits for a load goes without if need be."""
LATE: Final = 60.0
"""Seconds after which a write that waits should have been delivered."""
LOOKUPS: Final = 1000
"""Fewer than that say nothing of a hit rate."""


def latency(pings: Sequence[float]) -> Finding:
    ordered = sorted(pings)
    p50, p99, most = percentile(ordered, 50), percentile(ordered, 99), ordered[-1]
    summary = f"p50 {duration(p50)}, p99 {duration(p99)}, worst {duration(most)} of {many(len(ordered), 'ping')}"
    numbers = {"p50_ms": round(p50 * 1e3, 4), "p99_ms": round(p99 * 1e3, 4), "max_ms": round(most * 1e3, 4)}
    level = BAD if p99 > TIMEOUT / 2 else WARNING if p99 > TIMEOUT / 10 else GOOD
    remedy = None
    if level != GOOD:
        remedy = (
            f"an operation has {duration(TIMEOUT)} (timeout=); look at SLOWLOG, at the network, at the server's load"
        )
    return Finding("latency", level, summary, remedy, numbers)


def server(info: Info) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "?")
    mode, role = info.get("redis_mode", "standalone"), info.get("role", "master")
    kind = "replica" if role == "slave" else "primary"
    summary = f"{name} {shown(version)}, {shown(mode)}, {kind}, up {span(_number(info, 'uptime_in_seconds'))}"
    numbers = {"version": version, "mode": mode, "role": kind, "uptime_s": _number(info, "uptime_in_seconds")}
    level, remedy = GOOD, None
    if _version(version) < OLDEST:
        level, remedy = BAD, "too old: cachecraft needs Redis or Valkey 6.0 or newer"
    elif mode == "cluster":
        level, remedy = BAD, "cachecraft does not follow a cluster's redirections yet; name a server that stands alone"
    elif mode == "sentinel":
        level, remedy = BAD, "a sentinel holds no data; name the primary that it watches"
    elif kind == "replica":
        primary = f"{shown(info.get('master_host', '?'))}:{shown(info.get('master_port', '?'))}"
        level, remedy = BAD, f"a replica refuses writes; name the primary, {primary}"
    return Finding("server", level, summary, remedy, numbers)


def memory(info: Info, *, behind: bool = False) -> Finding:
    """What is to become of a full server; where writes wait ``behind``, those are not to be evicted."""
    better = "volatile-lfu" if behind else "allkeys-lfu"
    used, most = _number(info, "used_memory"), _number(info, "maxmemory")
    policy, evicted = info.get("maxmemory_policy", "?"), int(_number(info, "evicted_keys"))
    numbers = {"used_bytes": int(used), "max_bytes": int(most), "policy": policy, "evicted_keys": evicted}
    if not most:
        return Finding(
            "memory",
            WARNING,
            f"{size(used)} used, no maxmemory: it grows until the machine has none left",
            f"CONFIG SET maxmemory 1gb and CONFIG SET maxmemory-policy {better}, so that a full cache evicts",
            numbers,
        )
    share = used / most
    summary = f"{size(used)} of {size(most)} used ({percent(share)}), {shown(policy)}, {many(evicted, 'key')} evicted"
    level, remedy = GOOD, None
    if policy == "noeviction":
        level = BAD if share >= FULL else WARNING
        remedy = f"once full it refuses to store; CONFIG SET maxmemory-policy {better} lets it evict"
    elif policy == "volatile-ttl":
        level, remedy = (
            WARNING,
            (
                "it evicts what ends soonest, which is the lease of any load under way: its result is then not stored;"
                f" CONFIG SET maxmemory-policy {better}"
            ),
        )
    return Finding("memory", level, summary, remedy, numbers)


def persistence(info: Info, *, behind: bool = False) -> Finding:
    """What a crash leaves; where writes wait ``behind``, those need it (see ``behind``)."""
    aof, saves = info.get("aof_enabled") == "1", int(_number(info, "rdb_saves"))
    delayed = int(_number(info, "aof_delayed_fsync"))
    rdb_status, aof_status = info.get("rdb_last_bgsave_status", "ok"), info.get("aof_last_write_status", "ok")
    numbers = {"aof": aof, "rdb_saves": saves, "rdb_status": rdb_status, "aof_status": aof_status}
    kept = " and ".join([*["an append-only file"] * aof, *["snapshots"] * bool(saves)])
    if rdb_status != "ok" or aof_status != "ok":
        which = "snapshot" if rdb_status != "ok" else "write to the append-only file"
        return Finding(
            "persistence",
            BAD,
            f"the last {which} failed, and a server refuses to store (MISCONF) after that",
            "its log says why (is the disk full?); a cache needs neither: CONFIG SET save '', CONFIG SET appendonly no",
            numbers,
        )
    if delayed:
        return Finding(
            "persistence",
            WARNING,
            f"{kept}; {many(delayed, 'write')} had to wait for the disk",
            "a cache does not need it: CONFIG SET appendonly no",
            numbers,
        )
    summary = (
        f"{kept}; what a restart brings back is distrusted (on_failover='flush')"
        if kept
        else ("none; a cache needs none, but writes that wait do" if behind else "none, and a cache needs none")
    )
    return Finding("persistence", GOOD, summary, None, numbers)


def clock(skew: float | None) -> Finding:
    if skew is None:
        return Finding("clock", UNKNOWN, "the server does not tell its time")
    numbers = {"skew_s": round(skew, 3)}
    if abs(skew) < SKEW:
        return Finding("clock", GOOD, f"within {duration(max(abs(skew), 1e-3))} of this machine's", None, numbers)
    return Finding(
        "clock",
        WARNING,
        f"{span(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this machine's",
        "nothing is decided by it, but ages that are shown are wrong by as much; let NTP set both",
        numbers,
    )


def tracking(refusal: str | None) -> Finding:
    """Whether ``Cache(near=True)`` could hear of invalidations. What only that needs is no fault."""
    numbers = {"supported": refusal is None}
    if refusal is None:
        summary = "the server tells of invalidations as they happen, as Cache(near=True) needs it"
        return Finding("tracking", GOOD, summary, None, numbers)
    if "permission" in refusal:
        summary = f"not for this user: with Cache(near=True) nothing would be held near without {LISTENING}"
        return Finding("tracking", GOOD, summary, None, numbers)
    return Finding(
        "tracking",
        WARNING,
        f"no client tracking ({shown(refusal)}), so with Cache(near=True) nothing would be held near",
        "near= needs Redis or Valkey 6.0 or newer; without near= nothing is amiss",
        numbers,
    )


def lasting(seen: int, names: Sequence[str], *, whole: bool) -> Finding:
    """Keys without a ttl. A cache stores none, so they are somebody else's."""
    numbers = {"keys": seen, "without_ttl": len(names), "sampled": not whole}
    if not seen:
        return Finding("ttl", GOOD, "there are no keys in the namespace", None, numbers)
    among = many(seen, "key") if whole else f"a sample of {many(seen, 'key')}"
    if not names:
        return Finding("ttl", GOOD, f"all of {among} have one", None, numbers)
    examples = ", ".join(map(shown, names[:3]))
    return Finding(
        "ttl",
        WARNING,
        f"{len(names):,} of {among} {'has' if len(names) == 1 else 'have'} none: {examples}",
        "no cache of ours stores such; find out who writes into this namespace, and give them another",
        numbers,
    )


def behind(queues: Sequence[Standing], info: Info) -> Finding:
    """Writes that wait are no cache: what is lost of them is lost."""
    waiting, dead = sum(each.waiting for each in queues), sum(each.dead for each in queues)
    oldest = max((each.oldest or 0.0 for each in queues), default=0.0)
    left = [each.queue.function for each in queues if each.waiting and not each.served]
    policy, aof = info.get("maxmemory_policy", "?"), info.get("aof_enabled") == "1"
    numbers = {"waiting": waiting, "oldest_s": round(oldest, 1), "dead": dead, "unserved": left}
    summary = f"{many(waiting, 'write waits', 'writes wait')} behind {many(len(queues), 'function')}"
    summary += f", the oldest for {span(oldest)}" * bool(waiting)
    faults: list[tuple[str, str, str]] = []
    if left and oldest > LATE:
        words = f"nobody delivers those behind {shown(', '.join(left))}"
        faults.append((BAD, words, "start `cachecraft worker` with the module of these"))
    elif oldest > LATE:
        faults.append((WARNING, "", "give the worker a higher --concurrency, or the function coalesce=True"))
    if policy.startswith("allkeys"):
        remedy = "CONFIG SET maxmemory-policy volatile-lfu: what waits has no ttl, and all else has"
        faults.append((BAD, f"{shown(policy)} may evict them", remedy))
    if info and not aof:
        remedy = "CONFIG SET appendonly yes: what waits is nowhere else"
        faults.append((WARNING, "a server that dies loses them", remedy))
    if dead:
        remedy = "`cachecraft worker --status` tells why; then --retry-dead"
        faults.append((WARNING, f"{dead:,} given up", remedy))
    level = max((level for level, _, _ in faults), key=(WARNING, BAD).index, default=GOOD)
    words = "; ".join([summary, *(words for _, words, _ in faults if words)])
    return Finding("writes behind", level, words, "; ".join(remedy for _, _, remedy in faults) or None, numbers)


def pool(info: Info, pool_size: int) -> Finding:
    most, used = int(_number(info, "maxclients")), int(_number(info, "connected_clients"))
    rejected = int(_number(info, "rejected_connections"))
    numbers = {"pool_size": pool_size, "maxclients": most, "connected": used, "rejected": rejected}
    if not most:
        return Finding(
            "pool", UNKNOWN, f"{many(used, 'client')} connected; the server does not tell its limit", None, numbers
        )
    each = pool_size + 2  # one more for the tasks of an event loop, one to probe with
    summary = (
        f"{used:,} of {most:,} connections in use; room for {many((most - used) // each, 'process', 'processes')} more"
    )
    summary += f" with pool_size={pool_size}"
    if each > most - used:
        return Finding("pool", BAD, summary, "CONFIG SET maxclients higher, or make pool_size= smaller", numbers)
    if used > NEARLY * most or rejected:
        summary += f"; {many(rejected, 'connection')} rejected since it started" * bool(rejected)
        return Finding("pool", WARNING, summary, "CONFIG SET maxclients higher, or make pool_size= smaller", numbers)
    return Finding("pool", GOOD, summary, None, numbers)


def hit_rate(info: Info) -> Finding:
    """Of the whole server: stamps count too, and so does whatever else it is used for."""
    hits, misses = int(_number(info, "keyspace_hits")), int(_number(info, "keyspace_misses"))
    lookups = hits + misses
    numbers = {"hits": hits, "misses": misses, "rate": round(hits / lookups, 4) if lookups else None}
    if lookups < LOOKUPS:
        return Finding(
            "hit rate", UNKNOWN, f"{many(lookups, 'lookup')} since it started say nothing yet", None, numbers
        )
    summary = f"{percent(hits / lookups)} of {many(lookups, 'lookup')}, of the whole server since it started"
    if hits * 2 >= lookups:
        return Finding("hit rate", GOOD, summary, None, numbers)
    remedy = "see `cachecraft stats`: a ttl too short to help, a key never the same twice, or maxmemory too small"
    return Finding("hit rate", WARNING, summary, remedy, numbers)


def _number(info: Info, field: str) -> float:
    try:
        return float(info.get(field, 0))
    except ValueError:
        return 0.0


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
