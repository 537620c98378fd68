"""JSON for those who want to read their cache with other tools; knows only the values JSON holds exactly."""

from __future__ import annotations

import json
from typing import Any

from cachecraft._core.errors import CorruptError, UnserializableError
from cachecraft.serializers._limits import (
    MAX_BYTES,
    check_incoming,
    check_outgoing,
    keys_in,
    positive,
    spell,
    values_below,
)

_TYPES = frozenset({type(None), bool, int, float, str, list, dict})
_MAX_DEPTH = 200


class JsonSerializer:
    """Stores None, bool, int, finite float, str, list and dict with str keys; refuses what JSON would change.

    `max_bytes` bounds what is written and read (default 64 MiB). Values nest at most 200 deep.
    Raises OptionError or OptionTypeError for a `max_bytes` out of range.
    """

    id: int = 2

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = positive("max_bytes", max_bytes)

    def __repr__(self) -> str:
        return f"<JsonSerializer: at most {self._max_bytes} bytes>"

    def dumps(self, value: object) -> bytes:
        """Encode a value. Raises UnserializableError, which names the type, if JSON cannot hold it exactly."""
        _refuse_inexact(value, self._max_bytes)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
            data = text.encode()
        except UnicodeEncodeError as error:
            raise UnserializableError("JSON cannot hold a str with lone surrogates; return bytes") from error
        except Exception as error:  # NaN, infinity, ints of more digits than Python converts
            raise UnserializableError(f"JSON cannot hold this {spell(type(value))}: {error}") from error
        return check_outgoing(data, self._max_bytes)

    def loads(self, data: bytes) -> object:
        """Decode what `dumps` made. Raises CorruptError for anything wrong, and nothing else."""
        try:
            check_incoming(data, self._max_bytes)
            return json.loads(str(data, "utf-8"), parse_constant=_refuse_constant)
        except CorruptError:
            raise
        except Exception as error:
            raise CorruptError(f"stored bytes are not the JSON we write: {error}") from error


def _refuse_inexact(value: object, room: int) -> None:
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH + 1):
        if strange := set(map(type, level)) - _TYPES:
            names = ", ".join(sorted(map(spell, strange)))
            raise UnserializableError(f"JSON would not give back {names}; return plain data or use msgpack")
        if strange := set(map(type, keys_in(level))) - {str}:
            names = ", ".join(sorted(map(spell, strange)))
            raise UnserializableError(f"JSON would turn dict keys of type {names} into str; use msgpack or str keys")
        if not (level := values_below(level, room)):
            return
    raise UnserializableError(f"the value nests deeper than {_MAX_DEPTH}, or contains itself; return a flatter one")


def _refuse_constant(name: str) -> Any:
    raise CorruptError(f"{name} is no JSON we write")
