"""The queue of writes behind, as commands and scripts: a stream of what waits, and a hash of the values it brings.

Each change is one script, so that a write and its value come and go together. A field of the hash holds ``id | value``,
so that who takes a write from the queue removes no value that a later one brought; ``id |`` alone says that a write
still waits whose value was withdrawn. What waits has no ttl, as it is no cache; a log in which nothing waits ends in a
day, and until then no id is given twice.
"""

from __future__ import annotations

from typing import Any, Final

from cachecraft._core.behind import Buried, Delivered, Enqueue, Fate, Item, Pending, Queue, Revive, Waiting, Withdraw
from cachecraft._core.effects import Remote
from cachecraft.backends.scripts import Command, Plan, Replies, Script, reply_of

GRAVES: Final = 10_000
"""Writes that were given up and are kept, roughly; the oldest go."""

_DAY: Final = 86_400_000
"""Milliseconds."""
_KEY: Final = b"key"
_WRITE: Final = b"write"

ENQUEUE: Final = Script(
    "if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4])"
    " then return redis.call('HGET', KEYS[2], ARGV[1]) and 2 or 1 end"
    " local id = redis.call('XADD', KEYS[1], '*', 'key', ARGV[1], 'write', ARGV[2])"
    " redis.call('HSET', KEYS[2], ARGV[1], id .. '|' .. ARGV[3]) redis.call('PERSIST', KEYS[1]) return 0"
)
WITHDRAW: Final = Script(
    "local waiting = redis.call('HGET', KEYS[2], ARGV[1])"
    " if waiting and waiting:sub(1, #ARGV[2] + 1) == ARGV[2] .. '|'"
    " then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. '|') end"
)
_REST: Final = (
    f"local function rest(log) if redis.call('XLEN', log) == 0 then redis.call('PEXPIRE', log, {_DAY}) end end "
)
# The value goes first: without the right to do both, what waits is made again rather than read for ever.
_TAKE: Final = _REST + (
    "local function take(id) local waiting = redis.call('HGET', KEYS[2], ARGV[1])"
    " if waiting and waiting:sub(1, #id + 1) == id .. '|' then redis.call('HDEL', KEYS[2], ARGV[1]) end"
    " redis.call('XDEL', KEYS[1], id) end "
)
DELIVERED: Final = Script(_TAKE + "for at = 2, #ARGV do take(ARGV[at]) end rest(KEYS[1])")
BURIED: Final = Script(
    _TAKE
    + "redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'key', ARGV[1], 'called', ARGV[2], 'write', ARGV[3],"
    " 'error', ARGV[4]) take(ARGV[2]) rest(KEYS[1])"
    " redis.call('PERSIST', KEYS[3])"
)

REVIVE: Final = Script(
    _REST + "local dead = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', ARGV[1])"
    " for _, entry in ipairs(dead) do local fields = {}"
    " for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end"
    " redis.call('XADD', KEYS[1], '*', 'key', fields.key, 'write', fields.write)"
    " redis.call('XDEL', KEYS[3], entry[1]) end"
    " if #dead > 0 then redis.call('PERSIST', KEYS[1]) rest(KEYS[3]) end return #dead"
)

SCRIPTS: Final = (ENQUEUE, WITHDRAW, DELIVERED, BURIED, REVIVE)
_ENQUEUE, _WITHDRAW, _DELIVERED, _BURIED, _REVIVE = (script.sha for script in SCRIPTS)


def _call(sha: str, queue: Queue, *arguments: Any) -> list[Command]:
    return [("EVALSHA", sha, 3, queue.log, queue.pending, queue.dead, *arguments)]


def _next(id_: bytes) -> bytes:
    """The least id above one; servers before 6.2 know no other way to say "after"."""
    time, _, number = id_.partition(b"-")
    return b"%b-%d" % (time, int(number) + 1) if id_ else b"-"


def _waiting(_: Waiting, replies: Replies) -> tuple[Item, ...]:
    return tuple(_item(*entry) for entry in replies[0])


def _item(id_: bytes, told: Any) -> Item:
    fields = dict(zip(told[::2], told[1::2], strict=False))
    return Item(id_, fields.get(_KEY, b"").decode("utf-8", "replace"), fields.get(_WRITE, b""))


def _pending(_: Pending, replies: Replies) -> bytes | None:
    told: bytes | None = replies[0]
    return None if told is None else told.partition(b"|")[2]


PLANS: Final[dict[type[Remote[Any]], Plan]] = {
    Enqueue: Plan(lambda e: _call(_ENQUEUE, e.queue, e.key, e.write, e.value, e.room), lambda e, r: Fate(r[0])),
    Pending: Plan(lambda e: [("HGET", e.queue.pending, e.key)], _pending),
    Waiting: Plan(lambda e: [("XRANGE", e.queue.log, _next(e.after), "+", "COUNT", e.count)], _waiting),
    Withdraw: Plan(lambda e: _call(_WITHDRAW, e.queue, e.key, e.id), reply_of),
    Delivered: Plan(lambda e: _call(_DELIVERED, e.queue, e.key, *e.ids), reply_of),
    Buried: Plan(
        lambda e: _call(_BURIED, e.queue, e.item.key, e.item.id, e.item.write, e.error, GRAVES),
        reply_of,
    ),
    Revive: Plan(lambda e: _call(_REVIVE, e.queue, e.count), reply_of),
}
