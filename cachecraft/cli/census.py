"""What a namespace holds in Redis, function by function, from a sample of the keys; it only reads.

``SCAN`` walks the keys in an order that has nothing to do with their names, so the first few thousand are a fair sample
of all. Each entry carries the stamp of its function among its tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import redis

from cachecraft._core.calls import prefix_of
from cachecraft._core.entry import ENTRY, read_tags
from cachecraft._core.errors import CorruptError
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.failures import failure
from cachecraft.backends.remote import FUNCTION
from cachecraft.stats import BY_HAND

SAMPLE: Final = 5000
"""Keys that are looked at, of whatever namespace: some megabytes at the most."""
_PIECE: Final = 500
_FRONT: Final = 2000
"""Bytes in which the tag names of an entry end, but for a very long list of them."""


@dataclass(slots=True)
class Holding:
    """What a function has in Redis."""

    entries: int = 0
    bytes: int = 0
    """Of keys and values; what Redis needs beside is not among them."""

    def times(self, factor: float) -> Holding:
        return Holding(round(self.entries * factor), round(self.bytes * factor))


def census(dialling: Dialling, namespace: str, sample: int = SAMPLE) -> tuple[dict[str, Holding], float]:
    """What each function has, and the share of all keys that this was worked out of; 1 is all of them.

    Raises:
        BackendError: Redis cannot be reached, or refuses to be asked.
    """
    prefix = prefix_of(namespace).encode()
    found: dict[str, Holding] = {}
    seen, cursor = 0, None
    try:
        with redis.Redis.from_url(dialling.url, **dialling.options()) as client:
            total: int = client.dbsize()
            while cursor != 0 and seen < sample:
                answer: Any = client.execute_command("SCAN", cursor or 0, "COUNT", _PIECE)
                cursor, keys = int(answer[0]), answer[1]
                seen += len(keys)
                _look_at(client, prefix, [key for key in keys if _is_entry(key, prefix)], found)
    except (redis.RedisError, OSError) as error:
        raise failure(error) from error
    share = min(1.0, seen / total) if cursor and total else 1.0
    return {name: each.times(1 / share) for name, each in found.items()}, share


def _is_entry(key: bytes, prefix: bytes) -> bool:
    """Also what is kept aside of another release's entry; stamps, claims and reports are none."""
    name = key[len(prefix) :]
    return key.startswith(prefix) and (b"~" not in name or b"~s" in name)


def _look_at(client: Any, prefix: bytes, keys: list[bytes], found: dict[str, Holding]) -> None:
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.execute_command("GETRANGE", key, 0, _FRONT - 1)
        pipe.execute_command("STRLEN", key)
    replies = pipe.execute(raise_on_error=False) if keys else []
    for key, front, size in zip(keys, replies[::2], replies[1::2], strict=True):
        if isinstance(front, redis.exceptions.NoPermissionError):
            raise front
        if not isinstance(front, bytes) or not isinstance(size, int) or not front.startswith(ENTRY):
            continue  # of another type, or a load under way
        holding = found.setdefault(_function_of(front, prefix), Holding())
        holding.entries += 1
        holding.bytes += size + len(key)


def _function_of(front: bytes, prefix: bytes) -> str:
    mark = f"{prefix.decode()}{FUNCTION}"
    try:
        named = [tag.removeprefix(mark) for tag in read_tags(front) if tag.startswith(mark)]
    except CorruptError:
        named = []
    return named[0] if named else BY_HAND
