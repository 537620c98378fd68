"""A remembered exception (``cache_errors``) as plain values, and back: it knows no entry and no policy."""

from __future__ import annotations

from typing import Any

from cachecraft._core.errors import UnserializableError
from cachecraft.serializers import Serializer


def dumped(error: Exception, serializer: Serializer) -> bytes:
    """An exception in bytes that it can be made of again.

    Raises:
        UnserializableError: what would come back is not the same.
    """
    kind, parts = type(error), _taken_apart(error)
    payload = serializer.dumps(parts)
    if _told(_put_together(kind, parts)) != _told(error):
        raise UnserializableError(f"a {kind.__qualname__} is more than its arguments and attributes")
    return payload


def loaded(kind: type[Exception], payload: bytes, serializer: Serializer) -> Exception:
    """The exception again: of a class that the reader names, never the bytes."""
    return _put_together(kind, serializer.loads(payload))


def _taken_apart(error: Exception) -> list[Any]:
    """An exception as plain values: what it is made with, its arguments, and its attributes."""
    reduced: Any = error.__reduce__()
    return [list(reduced[1]), list(error.args), dict(vars(error))]


def _put_together(kind: type[Exception], parts: Any) -> Exception:
    # Not by calling the class: its __init__ may take something else than what became its arguments.
    made_with, arguments, attributes = parts
    error = kind.__new__(kind, *made_with)
    error.args = tuple(arguments)
    vars(error).update(attributes)
    return error


def _told(error: Exception) -> tuple[Any, ...]:
    """All that can be seen of an exception."""
    return type(error), str(error), repr(error), error.args, vars(error)
