"""What a cache is told, checked, and what the environment says; opens nothing."""

from __future__ import annotations

import os
import random as _random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from cachecraft._core.errors import OptionError, OptionTypeError
from cachecraft._core.events import Hook
from cachecraft._core.nearness import Near, near_of
from cachecraft._core.policy import INHERIT, Jitter, jitter_of, seconds
from cachecraft._core.ports import Backend
from cachecraft.serializers import Keyring, Serializer

MEGABYTE: Final = 2**20
DEFAULT_JITTER: Final = Jitter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a cache was told. Times are in seconds."""

    url: str = field(default="memory://", repr=False)  # it may hold a password
    backend: Backend | None = None
    """In place of a URL: somebody's own."""
    namespace: str = ""
    ttl: float = 3600.0
    jitter: Jitter | None = DEFAULT_JITTER
    enabled: bool = True
    max_entries: int = 100_000
    max_bytes: int | None = 256 * MEGABYTE
    max_value_bytes: int = MEGABYTE
    compress_above: int | None = 16 * 1024
    compression: str = "zlib"
    timeout: float = 0.25
    connect_timeout: float = 0.5
    pool_size: int = 32
    on_failover: str = "flush"
    on_unreachable: str = "journal"
    serializer: Serializer | None = None
    encryption_keys: Keyring | None = None
    near: Near | None = None
    hooks: Sequence[Hook] = ()
    publish_stats: float | None = 5.0
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = _random.random

    @classmethod
    def of(cls, url: object, options: dict[str, Any]) -> Settings:
        if all(callable(getattr(url, verb, None)) for verb in ("perform", "aperform")):
            return cls(url="backend://", backend=cast("Backend", url), **options)._filled()
        if not isinstance(url, str):
            raise OptionTypeError(
                f"url= must be text such as 'redis://localhost:6379/0', or a backend, not {type(url).__qualname__}"
            )
        scheme = url.partition("://")[0]
        if "://" not in url or scheme not in SCHEMES:
            raise OptionError(
                f"url={redacted(url)!r} has no scheme known here; there are {', '.join(f'{s}://' for s in SCHEMES)}"
            )
        return cls(url=url, **options)._filled()

    def _filled(self) -> Settings:
        jitter = jitter_of(self.jitter)
        return replace(
            self,
            ttl=seconds(self.ttl, "ttl"),
            jitter=DEFAULT_JITTER if jitter is INHERIT else cast("Jitter | None", jitter),
            timeout=seconds(self.timeout, "timeout"),
            connect_timeout=seconds(self.connect_timeout, "connect_timeout"),
            publish_stats=None if self.publish_stats is None else seconds(self.publish_stats, "publish_stats"),
            encryption_keys=_keyring(self.encryption_keys, self.url),
            near=near_of(self.near),
        )._checked()

    def _checked(self) -> Settings:
        if not isinstance(self.namespace, str):
            raise OptionTypeError(f"namespace={self.namespace!r} must be text")
        for name in ("max_entries", "max_bytes", "max_value_bytes", "pool_size"):
            value = getattr(self, name)
            if value is None and name == "max_bytes":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise OptionTypeError(f"{name}={value!r} must be a whole number")
            if value < 1:
                raise OptionError(f"{name}={value!r} must be at least 1; to turn caching off give enabled=False")
        if not isinstance(self.enabled, bool):
            raise OptionTypeError(f"enabled={self.enabled!r} must be True or False")
        above: Any = self.compress_above
        if above is not None and (isinstance(above, bool) or not isinstance(above, int) or above < 0):
            raise OptionTypeError(f"compress_above={above!r} must be a number of bytes, or None for never")
        self._check_given()
        if self.on_failover not in ("flush", "trust"):
            raise OptionError(f"on_failover={self.on_failover!r} must be 'flush' or 'trust'")
        if self.on_unreachable not in ("journal", "raise"):
            raise OptionError(f"on_unreachable={self.on_unreachable!r} must be 'journal' or 'raise'")
        if self.compression not in ("zlib", "zstd"):
            raise OptionError(f"compression={self.compression!r} must be 'zlib' or 'zstd'")
        return self

    def _check_given(self) -> None:
        """What is not plain text or a number, but somebody's own."""
        if self.near is not None and self.backend is not None:
            raise OptionError("near= listens to a Redis server, and a backend of your own is none; give a URL")
        given: tuple[Any, ...] = (self.clock, self.random)
        if not all(map(callable, given)):
            raise OptionTypeError("clock= and random= must be functions without arguments that answer a number")
        if not isinstance(self.hooks, (list, tuple)) or not all(map(callable, self.hooks)):
            raise OptionTypeError(f"hooks={self.hooks!r} must be a list of functions that take an event")
        check_serializer(self.serializer)


def check_serializer(serializer: object) -> None:
    if serializer is not None and not isinstance(serializer, Serializer):
        raise OptionTypeError(
            f"serializer={serializer!r} must have id, dumps and loads, as MsgpackSerializer() and JsonSerializer() do"
        )


def _keyring(keys: Any, url: str) -> Keyring | None:
    if keys is not None and url.startswith("memory://"):
        raise OptionError("encryption_keys= has nothing to encrypt: memory:// stays in this process; leave it out")
    return None if keys is None else Keyring(keys)


SCHEMES: Final = ("memory", "redis", "rediss", "unix")

OPTIONS: Final = frozenset(Settings.__dataclass_fields__) - {"url", "backend"}


def environment(name: str) -> str | None:
    return os.environ.get(f"CACHECRAFT_{name}") or None


def switched_off() -> bool:
    return (environment("ENABLED") or "1").strip().lower() in ("0", "false", "no", "off")


_PASSWORD: Final = re.compile(r"(password=)[^&#]*", re.IGNORECASE)


def redacted(url: str) -> str:
    """A URL without its password, wherever one may stand in it, and whether or not it is a URL."""
    text = _PASSWORD.sub(r"\1***", url)
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{mark}{user if colon else ''}{colon}{'***' if at else ''}{at}{host}"
