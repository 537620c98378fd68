"""From values to the text of keys: rendering and escaping; knows no template and no entry."""

from __future__ import annotations

import re
from typing import Any, Final

from cachecraft._core.canonical import canonical, canonical_many, digest, is_structure
from cachecraft._core.globs import matcher
from cachecraft._core.names import qualified_name

__all__ = [
    "Escaped",
    "canonical",
    "canonical_many",
    "digest",
    "escape",
    "escape_literal",
    "is_structure",
    "matcher",
    "qualified_name",
    "render",
]

# Beyond ASCII: controls and blanks that nobody could see in a key, and lone surrogates, which no UTF-8 can carry.
_INVISIBLE: Final = r"\x80-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff\ud800-\udfff"
_SPECIAL: Final = re.compile(rf"[\x00-,/:-?\[-^`{{-\x7f{_INVISIBLE}]")
_SPECIAL_LITERAL: Final = re.compile(rf"[\x00-\x20%*?\[\]\\~\x7f{_INVISIBLE}]")


class Escaped(str):
    """Text of which every part is escaped already, as ``cachecraft.keys`` makes it."""

    __slots__ = ()


def escape(text: str) -> str:
    """The text with all but letters, digits and ``_ - . @`` percent-encoded: no separator, no glob. Injective."""
    return _SPECIAL.sub(_percent, text) if _SPECIAL.search(text) else text


def escape_literal(text: str) -> str:
    """Text that a programmer wrote into a key: separators stay, all that is special in a pattern is encoded."""
    if isinstance(text, Escaped):
        return text
    return _SPECIAL_LITERAL.sub(_percent, text)


def render(value: object, name: str) -> str:
    """How a plain template field ``{name}`` shows a value: as ``str`` does, so ``1`` and ``"1"`` meet; or a digest.

    Raises:
        UnkeyableError: the value has neither a text nor parts that identify it.
    """
    kind = type(value)
    if kind is str:
        return escape(value)  # type: ignore[arg-type]  # a str, by its exact type
    if kind is int:
        try:
            return str(value)
        except ValueError:  # beyond sys.get_int_max_str_digits()
            return digest(canonical(value, name))
    return escape(_text(value, kind, name))


def _text(value: object, kind: Any, name: str) -> str:
    if hasattr(kind, "__cache_key__") or is_structure(kind):
        return digest(canonical(value, name))
    if isinstance(value, (bytes, bytearray)):
        return repr(value)
    if kind.__str__ is not object.__str__ or issubclass(kind, (int, float, complex, type(None))):
        text = str(value)
        if " at 0x" not in text or issubclass(kind, str):
            return text
    return digest(canonical(value, name))


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
