"""Pickle for those who ask for it, signed; knows that unpickling runs code, so verifies before it unpickles."""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Sequence
from typing import Any

from cachecraft._core.errors import CorruptError, OptionError, OptionTypeError, UnserializableError, told
from cachecraft.serializers._limits import MAX_BYTES, check_incoming, check_outgoing, positive, spell

_MAC_BYTES = 32
_PROTOCOL = 5  # fixed, so that processes of different Python versions read each other


class PickleSerializer:
    """Stores whatever pickles. Who knows the secret can run code in every process that reads.

    `secret` signs each payload by HMAC-SHA256. Of several, the first signs and all verify: to rotate, put the new one
    first and drop the old one after the longest ttl. `max_bytes` bounds what is written and read (default 64 MiB).
    A signature vouches for the value, not for the key it is stored under.

    Raises OptionError without a secret or with an empty one, OptionTypeError if one is neither bytes nor str.
    """

    id: int = 3

    def __init__(self, *, secret: bytes | str | Sequence[bytes | str] = (), max_bytes: int = MAX_BYTES) -> None:
        self._secrets = _to_secrets(secret)
        self._max_bytes = positive("max_bytes", max_bytes)

    def __repr__(self) -> str:
        return f"<PickleSerializer: {len(self._secrets)} secrets, at most {self._max_bytes} bytes>"

    def dumps(self, value: object) -> bytes:
        """Pickle and sign a value. Raises UnserializableError if it cannot be pickled."""
        try:
            payload = pickle.dumps(value, _PROTOCOL)
        except Exception as error:  # a class decides how it is pickled, and may raise anything
            raise UnserializableError(f"a {spell(type(value))} cannot be pickled: {told(error)}") from error
        return check_outgoing(_sign(self._secrets[0], payload) + payload, self._max_bytes)

    def loads(self, data: bytes) -> object:
        """Unpickle what `dumps` made, once its signature is verified. Raises CorruptError for anything wrong."""
        try:
            check_incoming(data, self._max_bytes)
            mac, payload = bytes(data[:_MAC_BYTES]), bytes(data[_MAC_BYTES:])
            if not any(hmac.compare_digest(mac, _sign(secret, payload)) for secret in self._secrets):
                raise CorruptError("the signature is not by any secret of this serializer")
            return pickle.loads(payload)  # noqa: S301  # the signature says we wrote it
        except CorruptError:
            raise
        except Exception as error:  # a class may be gone or changed since
            raise CorruptError(f"the signed pickle cannot be loaded: {told(error)}") from error


def _to_secrets(secret: bytes | str | Sequence[bytes | str]) -> list[bytes]:
    given: list[Any] = [secret] if isinstance(secret, bytes | str) else list(secret or ())
    if not given or not all(given):
        raise OptionError("secret= must not be empty: pickle runs code, so what is read must be signed")
    if wrong := [type(each) for each in given if not isinstance(each, bytes | str)]:
        raise OptionTypeError(f"secret= takes bytes or str, not {spell(wrong[0])}")
    return [each.encode() if isinstance(each, str) else each for each in given]


def _sign(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, payload, "sha256")
