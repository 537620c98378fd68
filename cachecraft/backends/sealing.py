"""The payloads of one function's entries: compressed and encrypted on the way in, opened and decoded on the way out.

It knows the envelope, the serializer and the settings; neither what may be served nor how long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NoReturn

from cachecraft._core.entry import ENCRYPTED, FAILURE, ZLIB, ZSTD, Entry, bound_to, pack
from cachecraft._core.errors import CorruptError, OptionError
from cachecraft.backends.remembered import loaded
from cachecraft.serializers import Serializer, compress, decompress

_CODECS: Final = {"zlib": ZLIB, "zstd": ZSTD}
_FLAGS: Final = ZLIB | ZSTD | FAILURE | ENCRYPTED
_LIMIT: Final = 64 * 2**20
"""Bytes a compressed value may come to."""


class Sealing:
    """Makes entries of payloads, and of entries what hands out their values.

    Remembered exceptions are of the classes in ``errors``, and of plain values, which ``plain`` reads and writes.
    """

    def __init__(
        self,
        settings: Any,
        serializer: Serializer,
        schema: bytes,
        plain: Serializer,
        errors: Sequence[tuple[type[Exception], float]],
    ) -> None:
        self._settings = settings
        self._serializer = serializer
        self._schema = schema
        self._plain = plain
        self._errors = errors

    def sealed(
        self,
        key: str,
        tags: tuple[str, ...],
        stamps: tuple[bytes, ...],
        token: bytes,
        payload: bytes,
        flags: int,
        cost: float,
        keep: float,
    ) -> bytes:
        """The entry, as it is stored under ``key``.

        Raises:
            OptionError: it is larger than an entry may be.
        """
        settings = self._settings
        if settings.compress_above is not None and len(payload) > settings.compress_above:
            packed = compress(payload, codec=settings.compression)
            if len(packed) < len(payload):
                payload, flags = packed, flags | _CODECS[settings.compression]
        keyring = settings.encryption_keys
        flags |= ENCRYPTED if keyring is not None else 0
        entry = Entry(
            token, tags, stamps, flags, self._serializer.id, self._schema, time.time(), keep, max(cost, 0.0), payload
        )
        if keyring is not None:
            entry = replace(entry, payload=keyring.seal(payload, bound_to(key, entry)))
        if len(entry.payload) > settings.max_value_bytes:
            raise OptionError(f"{len(entry.payload)} bytes are above max_value_bytes={settings.max_value_bytes}")
        return pack(key, entry)

    def decrypted(self, key: str, entry: Entry) -> bytes:
        """The payload in the clear.

        Raises:
            CorruptError: it cannot be decrypted here; or we encrypt and it is not, so anybody may have written it.
        """
        keyring = self._settings.encryption_keys
        if bool(entry.flags & ENCRYPTED) != (keyring is not None):
            raise CorruptError(
                "it is encrypted, and there are no encryption_keys=" if keyring is None else "not encrypted"
            )
        if keyring is None:
            return entry.payload
        return keyring.open(entry.payload, bound_to(key, entry))  # type: ignore[no-any-return]  # settings are Any

    def reader(self, entry: Entry, payload: bytes) -> Callable[[], Any]:
        """Decode at once, so that what cannot be decoded is a miss. Answers what hands the value out, or raises it."""
        if entry.flags & ~_FLAGS:
            raise CorruptError(f"flags {entry.flags} are unknown here")
        for name, flag in _CODECS.items() if entry.flags else ():
            if entry.flags & flag:
                payload = decompress(payload, codec=name, limit=_LIMIT)  # type: ignore[arg-type]  # a known codec
        if entry.flags & FAILURE:
            return partial(_raise, loaded(self._errors[payload[0]][0], payload[1:], self._plain))
        if entry.serializer != self._serializer.id:
            raise CorruptError(f"serializer {entry.serializer} is not the one used here")
        value = self._serializer.loads(payload)
        return lambda: value


def _raise(error: Exception) -> NoReturn:
    raise error
