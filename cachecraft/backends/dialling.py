"""How to reach the server: address, deadlines, and what redis-py is told of them. It reaches for nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachecraft._core.errors import OptionError
from cachecraft.backends.failures import Exhausted

# redis-py tells each server of 7.2 and newer which library it is: for that alone, users would need one right more.
_INTRODUCTIONS: Final = ("driver_info",), ("lib_name", "lib_version")  # since redis-py 7, and before
_ANONYMOUS: Final[dict[str, None]] = next(
    (
        dict.fromkeys(names)
        for names in _INTRODUCTIONS
        if signature(redis.connection.AbstractConnection).parameters.keys() >= {*names}
    ),
    {},
)
_IDENTITY: Final = frozenset({"host", "port", "db", "username", "password", "path", "client_name"})


@dataclass(frozen=True, slots=True)
class Dialling:
    """How to reach the server. Times are in seconds."""

    url: str = field(repr=False)  # it may hold a password
    timeout: float
    connect_timeout: float
    pool_size: int

    def __post_init__(self) -> None:
        """Read the URL now, so that a wrong one is told where it was written.

        Raises:
            OptionError: it cannot be read, or it asks for what the transports decide themselves.
        """
        try:
            given = redis.connection.parse_url(self.url)  # type: ignore[no-untyped-call]  # so redis-py has it
        except ValueError:  # its text may hold a piece of the password
            raise OptionError("url= cannot be read; percent-encode what is special in its password") from None
        for name in given.keys() - _IDENTITY - {"connection_class"}:
            if not name.startswith("ssl_"):
                raise OptionError(f"url= may not say {name}=; leave it out, Cache() has timeouts and pool_size=")

    @property
    def longest(self) -> float:
        """Seconds until a new connection is there and greeted, or is given up."""
        return self.connect_timeout + self.timeout

    def exhausted(self) -> Exhausted:
        return Exhausted(f"Redis: none of {self.pool_size} connections came free in time; raise pool_size=")

    def options(self) -> dict[str, Any]:
        # RESP2: with RESP3, redis-py switches off its own check for unread replies, since pushes look alike.
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.connect_timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "health_check_interval": 0,
            **_ANONYMOUS,
        }
