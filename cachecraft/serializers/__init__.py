"""Values to bytes and back, equal and of the same type or refused; knows nothing of keys, entries or backends.

_msgpack    the default; what it reads is bounded, and never runs code that was not registered
_tags       the builtin and standard-library types msgpack lacks
_classes    dataclasses, named tuples, enums and types with hooks of their own, by registered name
_schema     which classes a return annotation names, and their fingerprint
_json       opt-in: what JSON holds exactly
_pickle     opt-in: anything, signed
_compress   zlib and zstd, bounded on the way out
_encrypt    opt-in: AES-GCM, under keys that can be rotated
_limits     the options all of them share, and one step of a walk
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from cachecraft.serializers._classes import register_type
from cachecraft.serializers._compress import compress, decompress
from cachecraft.serializers._encrypt import Keyring
from cachecraft.serializers._json import JsonSerializer
from cachecraft.serializers._msgpack import MsgpackSerializer
from cachecraft.serializers._pickle import PickleSerializer
from cachecraft.serializers._schema import fingerprint

__all__ = [
    "JsonSerializer",
    "Keyring",
    "MsgpackSerializer",
    "PickleSerializer",
    "Serializer",
    "compress",
    "decompress",
    "fingerprint",
    "register_type",
]


@runtime_checkable
class Serializer(Protocol):
    """What a serializer must offer. It may be called by many threads at once."""

    id: int
    """One byte that every stored entry carries: 1 msgpack, 2 json, 3 pickle; 128 to 255 are for your own."""

    def dumps(self, value: object) -> bytes:
        """Encode a value. Raises UnserializableError if it would not come back equal and of the same type."""
        ...

    def loads(self, data: bytes) -> object:
        """Decode what `dumps` made, in bounded memory. Raises CorruptError for anything wrong, and nothing else."""
        ...
