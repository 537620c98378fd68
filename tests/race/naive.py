"""A cache as people write it at home: look, load, set; delete on write. The harness must find it out."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import redis


class NaiveItems:
    """The same surface as ``worker.Items``, without a lease and without a fence."""

    def __init__(self, url: str, load: Callable[[int], Any]) -> None:
        self._redis = redis.Redis.from_url(url)
        self._load = load

    def read(self, item: int) -> Any:
        found = self._redis.get(f"naive:{item}")
        if found is not None:
            return pickle.loads(found)  # type: ignore[arg-type]  # bytes, without decode_responses
        value = self._load(item)
        self._redis.set(f"naive:{item}", pickle.dumps(value), ex=60)
        return value

    def invalidate(self, item: int) -> None:
        self._redis.delete(f"naive:{item}")

    def close(self) -> None:
        self._redis.close()
