"""AES-GCM under keys that can be rotated; what it seals, and what it binds that to, are bytes and no more to it.

Sealed bytes are ``key id 8 | nonce 12 | ciphertext | tag 16``. The id is a hash of the key, so that the right one is
found at once; the nonce is random, which AES-GCM allows for 2**32 seals a key.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from cachecraft._core.errors import CorruptError, OptionError, OptionTypeError

_ID: Final = 8
_NONCE: Final = 12
_SIZES: Final = (16, 24, 32)


class Keyring:
    """Seals with the first of its keys, and opens with all of them.

    Raises OptionTypeError or OptionError for keys that are none, and OptionError without the package it needs.
    """

    def __init__(self, keys: bytes | Sequence[bytes]) -> None:
        cipher = _cipher()
        given = [keys] if isinstance(keys, bytes) else keys
        # The messages say nothing of a key but its type and size.
        if not isinstance(given, (list, tuple)) or not all(isinstance(key, bytes) for key in given):
            raise OptionTypeError("encryption_keys= must be bytes, or a list of bytes; os.urandom(32) makes a key")
        if not given:
            raise OptionError("encryption_keys= names no key; os.urandom(32) makes one, None turns encryption off")
        for at, key in enumerate(given):
            if len(key) not in _SIZES:
                raise OptionError(
                    f"encryption_keys= has {len(key)} bytes as key {at + 1}; give 16, 24 or 32 random ones,"
                    " as os.urandom(32) makes them"
                )
        self._ciphers: dict[bytes, Any] = {_id_of(key): cipher(key) for key in given}
        self._first = _id_of(given[0])

    def seal(self, data: bytes, bound: bytes) -> bytes:
        """Encrypt, so that it opens only beside the same `bound` bytes."""
        nonce = os.urandom(_NONCE)
        sealed: bytes = self._ciphers[self._first].encrypt(nonce, data, bound)
        return self._first + nonce + sealed

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """Decrypt what `seal` made. Raises CorruptError for anything else, and for what another key sealed."""
        cipher = self._ciphers.get(sealed[:_ID])
        if cipher is None:
            raise CorruptError("sealed with a key that is not in encryption_keys=")
        try:
            data: bytes = cipher.decrypt(sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :], bound)
        except Exception as error:  # its own for a wrong tag, others for bytes too short to have one
            raise CorruptError("changed since it was sealed, or moved from where it was") from error
        return data

    def __repr__(self) -> str:
        return f"<Keyring: {len(self._ciphers)} keys>"


def _id_of(key: bytes) -> bytes:
    return blake2b(key, digest_size=_ID, person=b"cachecraft keyid").digest()


def _cipher() -> Any:
    try:
        return importlib.import_module("cryptography.hazmat.primitives.ciphers.aead").AESGCM
    except ImportError as error:
        raise OptionError(
            "encryption_keys= needs the cryptography package: install cachecraft with its extra [crypto]"
        ) from error
