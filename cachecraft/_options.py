"""The options by name and type, as type checkers see them; what they do is told by ``cached`` and ``Cache``.

Whether an option can be used is decided where it is read, in ``_core.policy`` and ``_settings``; a test holds the names
here against the names there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from cachecraft._core.events import Hook
from cachecraft._core.nearness import Near
from cachecraft._core.policy import Duration, Jitter
from cachecraft.serializers import Serializer

Ttl = Duration | Callable[[Any], Duration]
"""How long a result is kept, or a function that is asked with each result."""


class LoadOptions(TypedDict, total=False):
    """How one result is loaded and kept, besides its ttl."""

    jitter: Jitter | tuple[float, float] | None
    stale: Duration
    grace: Duration
    refresh_ahead: Duration
    beta: float
    lease: Duration
    wait: Duration
    soft_timeout: Duration | None
    timeout: Duration | None
    when: Callable[[Any], bool] | None
    cache_errors: type[Exception] | tuple[type[Exception], ...] | Mapping[type[Exception], Duration] | None
    isolate: bool | None
    near: bool
    verify: float


class FunctionOptions(LoadOptions, total=False):
    """Of ``cached``, besides ``ttl``."""

    key: str | Callable[..., str] | None
    tags: Sequence[str] | Callable[..., Sequence[str]]
    namespace: str | None
    version: str | int | None
    vary: Callable[[], object] | None
    serializer: Serializer | None


class CacheOptions(TypedDict, total=False):
    """Of ``Cache`` and ``configure``, besides the URL."""

    namespace: str
    ttl: Duration
    jitter: Jitter | tuple[float, float] | None
    enabled: bool
    max_entries: int
    max_bytes: int | None
    max_value_bytes: int
    compress_above: int | None
    compression: Literal["zlib", "zstd"]
    timeout: Duration
    connect_timeout: Duration
    pool_size: int
    on_failover: Literal["flush", "trust"]
    on_unreachable: Literal["journal", "raise"]
    serializer: Serializer | None
    encryption_keys: bytes | Sequence[bytes] | None
    near: bool | Near | None
    hooks: Sequence[Hook]
    publish_stats: Duration | None
    clock: Callable[[], float]
    random: Callable[[], float]
