"""What a subcommand is about: one server and one namespace on it; opens nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from cachecraft._api import Cache
from cachecraft._core.calls import prefix_of
from cachecraft._core.errors import OptionError
from cachecraft._core.keys import escape_literal
from cachecraft._core.templates import escape_pattern
from cachecraft._settings import Settings, redacted
from cachecraft.backends.dialling import Dialling

if TYPE_CHECKING:
    from cachecraft.cli.server import Server

TIMEOUT: Final = 2.0
"""Seconds for a connection, and for each answer: a person waits longer than a request may, and never without an end."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server by its URL, and a namespace."""

    url: str = field(repr=False)  # it may hold a password
    namespace: str

    @classmethod
    def of(cls, url: str, namespace: str) -> Self:
        """Read what was given on the command line or by the environment.

        Raises:
            OptionError: there is no URL, or none of a server.
        """
        if not url:
            raise OptionError("no server was named; give --url redis://HOST:PORT/DB, or set CACHECRAFT_URL")
        settings = Settings.of(url, {"namespace": namespace})
        if settings.url.startswith("memory://"):
            raise OptionError("memory:// is inside one process, where nobody else can look; give --url of a server")
        target = cls(url, namespace)
        target.dialling()
        return target

    @property
    def prefix(self) -> str:
        """What every key of the namespace begins with."""
        return prefix_of(self.namespace)

    @property
    def where(self) -> str:
        """For people; without a password."""
        return redacted(self.url)

    def key(self, text: str) -> str:
        """The key in Redis: ``text`` itself if it begins with the namespace, else what a program's key comes to."""
        return text if text.startswith(self.prefix) else self.prefix + escape_literal(text)

    def pattern(self, text: str, *, internal: bool = False) -> str:
        """A pattern within the namespace, as a program says it, for SCAN; ``~`` means itself where ``internal``."""
        return self.prefix + ("~".join(map(escape_pattern, text.split("~"))) if internal else escape_pattern(text))

    def dialling(self) -> Dialling:
        return Dialling(self.url, TIMEOUT, TIMEOUT, 1)

    def server(self) -> Server:
        """A connection to look around with; it writes nothing by itself.

        Raises:
            BackendError: it cannot be made; the message says why, and what to do.
        """
        from cachecraft.cli.server import Server

        return Server(self)

    def cache(self, **options: Any) -> Cache:
        """The cache that programs have there, for what must hold as it does for them.

        Raises:
            OptionError: caching is turned off, so it would do nothing and say nothing.
            BackendError: the server cannot be used; the message says why, sooner and better than a cache would.
        """
        with self.server() as server:
            server.ask(("PING",))
        made = Cache(self.url, namespace=self.namespace, on_unreachable="raise", **options)
        if not made.enabled:
            raise OptionError("CACHECRAFT_ENABLED turns caching off, so this would do nothing; unset it")
        return made
