"""Keys in the usual formats, for those who build them by hand; knows how values are shown and nothing of any cache."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from cachecraft._core.errors import OptionError, OptionTypeError
from cachecraft._core.keys import Escaped, canonical, render

__all__ = ["build", "list_key", "pattern", "versioned"]


def build(*parts: object) -> str:
    """``build("myapp", "user", 123) == "myapp:user:123"``. Separators and wildcards inside a part are escaped."""
    if not parts:
        raise OptionError("parts: a key needs at least one part, such as build('myapp', 'user', 123)")
    return Escaped(":".join(_shown(part, f"parts[{index}]") for index, part in enumerate(parts)))


def pattern(*parts: object) -> str:
    """``pattern("myapp", "user") == "myapp:user:*"``: every key that begins with these parts."""
    return Escaped(f"{build(*parts)}:*")


def versioned(*parts: object) -> str:
    """``versioned("myapp", "user", 123, 2) == "myapp:user:123:v2"``: the last part is the version."""
    if len(parts) < 2:
        raise OptionError("parts: a versioned key needs a part and a version, such as versioned('user', 2)")
    return Escaped(f"{build(*parts[:-1])}:v{_shown(parts[-1], 'version')}")


def list_key(*parts: object, length: int = 32) -> str:
    """``list_key("myapp", "posts", "tag=rust&sort=date")``: the last part is a query, and stands there as its SHA-256.

    A query may be text or a mapping, in which the order of the items means nothing. ``length`` is in hex digits.
    """
    if len(parts) < 2:
        raise OptionError("parts: a list key needs a part and a query, such as list_key('posts', 'sort=date')")
    if type(length) is not int:
        raise OptionTypeError(f"length={length!r} must be a number of hex digits, 16 to 64")
    if not 16 <= length <= 64:
        raise OptionError(f"length={length} must be between 16, below which keys could meet, and 64, which is all")
    return Escaped(f"{build(*parts[:-1])}:list:{sha256(_query(parts[-1])).hexdigest()[:length]}")


def _query(query: object) -> bytes:
    if isinstance(query, str):
        return query.encode("utf-8", "surrogatepass")
    if isinstance(query, Mapping):
        return b"\xff" + canonical(dict(query), "query")  # no text begins with this byte
    raise OptionTypeError(f"query= must be text or a mapping, not {type(query).__qualname__}")


def _shown(part: object, name: str) -> str:
    if text := render(part, name):
        return text
    raise OptionError(f"{name}={part!r} is empty; leave it out, or say what it stands for")
