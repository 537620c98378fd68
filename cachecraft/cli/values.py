"""A stored value, to be looked at without the program that stored it: no class of it is needed, and no code of it runs.

Pickles are never opened, and what is encrypted stays closed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from cachecraft._core.entry import ENCRYPTED, FAILURE, ZLIB, ZSTD, Entry
from cachecraft._core.errors import CorruptError, OptionError
from cachecraft.cli.terminal import shown
from cachecraft.serializers import JsonSerializer, MsgpackSerializer, PickleSerializer, decompress
from cachecraft.serializers._classes import Codec, Registry

SERIALIZERS: Final = {MsgpackSerializer.id: "msgpack", JsonSerializer.id: "json", PickleSerializer.id: "pickle"}
LIMIT: Final = 64 * 2**20
"""Bytes that a compressed value may come to."""


class Instance:
    """Stands for an instance of a class that only the program knows."""

    def __init__(self, name: str, parts: Sequence[Any]) -> None:
        path, _, fields = name.partition("(")
        self.path = path.replace(":", ".")
        """Of the class: module and name."""
        self.fields = fields.rstrip(")").split(",") if fields else []
        self.parts = list(parts)

    def __repr__(self) -> str:
        named = len(self.fields) == len(self.parts)
        parts = map(repr, self.parts)
        inside = ", ".join(map("=".join, zip(self.fields, parts, strict=True)) if named else parts)
        return shown(f"{self.path}({inside})")


class _AnyClass(Registry):
    """Knows every class, by its name only."""

    def named(self, name: str) -> Codec:
        return Codec(Instance, name, lambda value: value.parts, partial(Instance, name))


def compression(entry: Entry) -> str | None:
    return "zlib" if entry.flags & ZLIB else "zstd" if entry.flags & ZSTD else None


def serializer(entry: Entry) -> str:
    return SERIALIZERS.get(entry.serializer, f"its own ({entry.serializer})")


def value_of(entry: Entry) -> Any:
    """The value as far as it can be shown.

    Raises:
        CorruptError: it is damaged.
        OptionError: it is not to be opened here; the message says why.
    """
    if entry.flags & ENCRYPTED:
        raise OptionError("it is encrypted, and only the program has the keys")
    payload = entry.payload
    codec = compression(entry)
    if codec is not None:
        payload = decompress(payload, codec=codec, limit=LIMIT)  # type: ignore[arg-type]  # one of the two
    if entry.flags & FAILURE:
        # What it was made with, its arguments, its attributes.
        match _read(entry.serializer, payload[1:]):
            case [_, [*arguments], attributes]:
                return Instance("a remembered exception", [*arguments, *([attributes] if attributes else [])])
        raise CorruptError("it is no exception as the cache remembers one")
    return _read(entry.serializer, payload)


def _read(serializer: int, payload: bytes) -> Any:
    if serializer == JsonSerializer.id:
        return JsonSerializer().loads(payload)
    if serializer != MsgpackSerializer.id:
        raise OptionError(
            "it is a pickle, which is code" if serializer == PickleSerializer.id else "no serializer of ours"
        )
    reader = MsgpackSerializer()
    reader._registry = _AnyClass()  # no option of it: programs are to read only what they have registered
    return reader.loads(payload)


def as_json(value: Any) -> Any:
    """The value in JSON where JSON can say it, else its text; an instance is an object of its fields."""
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, Instance) and len(value.fields) == len(value.parts):
        return {name: as_json(part) for name, part in zip(value.fields, value.parts, strict=True)}
    return str(value)
