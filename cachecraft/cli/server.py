"""One connection to look around with: what a server answers, or in words why it does not; it knows no entry.

Everything ends within ``TIMEOUT`` seconds an answer. It never asks for more than a namespace holds, and only by SCAN.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import hiredis
import redis
from redis import exceptions

from cachecraft._core.errors import BackendError, BackendRefused, BackendTimeout
from cachecraft.backends.commands import SCAN_COUNT, Command, scan
from cachecraft.backends.failures import failure
from cachecraft.backends.lines import Line
from cachecraft.cli.target import TIMEOUT

if TYPE_CHECKING:
    from cachecraft.cli.target import Target


class Server:
    """A connection, made at once.

    Raises:
        BackendError: it cannot be made, or breaks; the message says why, and what to do.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._given: dict[str, Any] = redis.connection.parse_url(target.url)  # type: ignore[no-untyped-call]  # so redis-py has it
        dialling = target.dialling()
        began = time.perf_counter()
        try:
            self._line = Line(target.url, dialling.options(), dialling.longest)
        except Exception as error:  # redis-py lets more out than its own errors
            raise self._plight(error) from error
        #: Seconds that it took to connect and log in.
        self.took = time.perf_counter() - began

    def ask(self, *commands: Command) -> list[Any]:
        """All replies, in one round trip; what was refused stands among them as an exception."""
        try:
            replies = self._line.ask([tuple(map(_raw, command)) for command in commands], TIMEOUT)
        except Exception as error:
            raise self._plight(error) from error
        for reply in replies:
            if isinstance(reply, _CLOSED) or str(reply).startswith("BUSY "):
                raise self._plight(reply) from reply
        return replies

    def one(self, *command: Any) -> Any:
        """The reply to one command.

        Raises:
            BackendRefused: the server would not do it.
        """
        return granted(*self.ask(command))

    def scan(self, pattern: str, watch: Callable[[float], object] | None = None) -> Iterator[list[bytes]]:
        """Names that match, a portion at a time. Whatever is there all the while is met, perhaps twice.

        ``watch`` is told how many names of the database, whoever's, have been passed by.
        """
        cursor = passed = 0
        while True:
            found, names = self.one(*scan(cursor, pattern))
            yield names
            passed += SCAN_COUNT
            if watch is not None:
                watch(passed)
            cursor = int(found)
            if not cursor:
                return

    def info(self) -> dict[str, str]:
        """What INFO tells, by field."""
        lines = self.one("INFO").decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    @property
    def user(self) -> str:
        """As whom we came."""
        return self._given.get("username") or "default"

    def names(self) -> int | None:
        """How many names its database holds, whoever's; none if that cannot be told."""
        try:
            info = self.info()
        except BackendRefused:
            return None
        field = info.get(f"db{self._given.get('db', 0)}", "")
        counts = dict(each.split("=", 1) for each in field.split(",") if "=" in each)
        return int(counts.get("keys", 0))

    def _plight(self, error: BaseException) -> BackendError:
        return BackendError(f"cannot use {self.target.where}: {_why(error)}")

    def close(self) -> None:
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server {self.target.where} {self._line!r}>"


def granted(reply: Any) -> Any:
    """The reply.

    Raises:
        BackendRefused: it is a refusal.
    """
    if isinstance(reply, Exception):
        raise BackendRefused(f"{failure(reply)}; `cachecraft doctor` tells which rights are missing") from reply
    return reply


def _raw(argument: Any) -> Any:
    """Bytes that are no text come from the command line as Python spells them, and leave as they were."""
    return argument.encode("utf-8", "surrogateescape") if isinstance(argument, str) else argument


# The server answers, and serves nobody, or not us.
_CLOSED: Final = (exceptions.BusyLoadingError, exceptions.AuthenticationError, exceptions.ClusterDownError)

_LATE: Final = (BackendTimeout, exceptions.TimeoutError, TimeoutError)
_FOREIGN: Final = (hiredis.ProtocolError, exceptions.InvalidResponse)
_WORDS: Final = {
    "refused": "nothing listens there; is the server up, and is that its port?",
    "max number of clients": "it has no room for another client; raise its maxclients, or close some",
    "-2 connecting": "nobody knows that name; is the host spelt right?",
    "-3 connecting": "the name cannot be looked up just now",
    "Error 2 connecting": "there is no such socket; is the server up?",
    "BUSY ": "it is busy with a script that does not end; SCRIPT KILL ends it",
    "out of range": "there is no such database; look at the number that ends the URL",
    "closed": "it closed the connection; does it want TLS (rediss://)?",
}


def _why(error: BaseException) -> str:
    """What is the matter, and what to do."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    text = str(failure(error)).removeprefix("Redis: ").strip()
    if "without any password" in text:
        return "it has no password; take it out of the URL"
    if any(isinstance(each, exceptions.AuthenticationError) for each in chain):
        return f"it does not let us in ({text}); the URL takes user:password@ before the host"
    if any(isinstance(each, exceptions.BusyLoadingError) for each in chain):
        return "it is loading its data; ask again in a while"
    if any(isinstance(each, ssl.SSLError) for each in chain):
        return f"no TLS there as expected ({text}); rediss:// is with TLS, redis:// without"
    if any(isinstance(each, _FOREIGN) for each in chain):
        return "what answers there is not Redis"
    if any(isinstance(each, _LATE) for each in chain):
        return (
            f"no answer within {TIMEOUT:g} seconds; it is frozen or overloaded, something on the way swallows what is"
            " sent, or one side speaks TLS and the other does not"
        )
    return next((words for sign, words in _WORDS.items() if sign in text), text)
