"""Arguments as bytes: equal meaning gives equal bytes everywhere, what differs differs; knows no template and no key.

None, bool, 64-bit int, float, str, bytes and list are what msgpack makes of them. All else is an extension
``(code, array of parts)``, so that no two types meet. The codes are stored in shared caches: never renumber one.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import ipaddress
import math
import operator
import pathlib
import re
import struct
import types
import uuid
import zoneinfo
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, Flag
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from msgpack import ExtType, Packer

from cachecraft._core.errors import UnkeyableError
from cachecraft._core.names import class_path, module_name, resolves

_MAX_DEPTH: Final = 200
_NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})
_BIG_INT: Final = 0
_WORD: Final = struct.calcsize("P")


class _Refused(Exception):
    """A value without identity was met, somewhere inside an argument whose name is not known here."""


class _Rule(NamedTuple):
    """How the values of a type come apart: what its parts are, and whether their order means something."""

    code: int
    parts: Callable[[Any], Iterable[object]]
    ordered: bool = True


class _As(NamedTuple):
    """A value to be taken for an instance of its base class."""

    value: object
    base: type


def canonical(value: object, name: str) -> bytes:
    """The canonical bytes of an argument.

    Raises:
        UnkeyableError: it has no stable identity; the message names the parameter and the remedies.
    """
    return _pack(_named_tree(value, name))


def canonical_many(values: Sequence[object], names: Sequence[str]) -> bytes:
    """The canonical bytes of a list of arguments as a whole; quick if they are all plain scalars."""
    kinds = set(map(type, values))
    if kinds <= _NATIVE and (float not in kinds or all(map(operator.eq, values, values))):  # no NaN among them
        try:
            return _pack(values)
        except OverflowError:
            pass  # an integer of more than 64 bits
    return _pack([_named_tree(value, name) for value, name in zip(values, names, strict=True)])


_DIGEST: Final = blake2b(digest_size=16)


def digest(data: bytes) -> str:
    made = _DIGEST.copy()  # half the price of making one
    made.update(data)
    return made.hexdigest()


def is_structure(kind: type) -> bool:
    """Whether values of the type are the sum of their parts, which their text may not show in full."""
    return issubclass(kind, (list, tuple, dict, set, frozenset)) or _members(kind) is not None


def _pack(tree: object) -> bytes:
    # `msgpack.packb` would take a buffer of a quarter of a megabyte each time, which costs more than the packing.
    packed: bytes = Packer(buf_size=256, unicode_errors="surrogatepass").pack(tree)
    return packed


def _named_tree(value: object, name: str) -> object:
    try:
        return _tree(value, 0)
    except _Refused as refused:
        reason = str(refused)
    except RecursionError:
        reason = "is nested too deeply"
    raise UnkeyableError(
        f"parameter {name!r} {reason}, so no key can be made of it. Give key= a template that leaves it out or names "
        f"something stable in it, such as {{{name}.id}}; or leave the parameter out; or define __cache_key__() on its "
        f"class, to return what identifies it"
    )


def _tree(value: object, depth: int) -> object:
    """The value as msgpack can pack it. ``depth`` ends cycles, too."""
    kind = type(value)
    if kind is _As:
        assert isinstance(value, _As)
        value, kind = value
    if (scalar := _SCALARS.get(kind)) is not None:
        return scalar(value)
    if depth > _MAX_DEPTH:
        raise _Refused(f"contains itself or is nested more than {_MAX_DEPTH} levels deep")
    rule = _RULES.get(kind) or _rule_for(value, kind)
    trees = [_tree(part, depth + 1) for part in rule.parts(value)]
    if kind is list:
        return trees
    return ExtType(rule.code, _pack(trees if rule.ordered else sorted(map(_pack, trees))))


def _integer(value: int) -> object:
    value = int.__pos__(value)
    if -(2**63) <= value < 2**64:
        return value
    return ExtType(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _float(value: float) -> float:
    return math.nan if value != value else float.__pos__(value)  # noqa: PLR0124 - nan is what differs from itself


# Each is also given instances of subclasses and makes them plain, without running anything they override.
_SCALARS: Final[dict[type, Callable[[Any], object]]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _integer,
    float: _float,
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
}


def _decimal(value: decimal.Decimal) -> list[object]:
    # Not str(), whose "E" is a matter of the thread's decimal context.
    sign, digits, exponent = value.as_tuple()
    return [sign, "".join(map(str, digits)), exponent]


def _datetime(value: datetime.datetime) -> list[object]:
    clock = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    # The offset, too: rules of a zone differ between releases of the zone database.
    return [value.year, value.month, value.day, *clock, value.tzinfo, value.utcoffset()]


def _zone(value: zoneinfo.ZoneInfo) -> list[object]:
    if value.key is None:
        raise _Refused("is in a time zone read from a file, without a name")
    return [value.key]


_RULES: Final[dict[type, _Rule]] = {
    list: _Rule(1, list.__iter__),
    tuple: _Rule(2, tuple.__iter__),
    set: _Rule(3, set.__iter__, ordered=False),
    frozenset: _Rule(4, frozenset.__iter__, ordered=False),
    dict: _Rule(5, dict.items, ordered=False),
    OrderedDict: _Rule(6, OrderedDict.items),
    bytearray: _Rule(7, lambda value: [bytes(memoryview(value))]),
    complex: _Rule(8, lambda value: [complex.__pos__(value).real, complex.__pos__(value).imag]),
    range: _Rule(9, lambda value: [value.start, value.stop, value.step]),
    slice: _Rule(10, lambda value: [value.start, value.stop, value.step]),
    type(...): _Rule(11, lambda value: []),
    decimal.Decimal: _Rule(12, _decimal),
    fractions.Fraction: _Rule(13, lambda value: [value.numerator, value.denominator]),
    datetime.datetime: _Rule(14, _datetime),
    datetime.date: _Rule(15, lambda value: [value.year, value.month, value.day]),
    datetime.time: _Rule(
        16, lambda value: [value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo]
    ),
    datetime.timedelta: _Rule(17, lambda value: [value.days, value.seconds, value.microseconds]),
    datetime.timezone: _Rule(18, lambda value: [value.utcoffset(None), value.tzname(None)]),
    zoneinfo.ZoneInfo: _Rule(19, _zone),
    uuid.UUID: _Rule(20, lambda value: [value.bytes]),
    pathlib.PurePosixPath: _Rule(21, lambda value: [str(value)]),
    pathlib.PureWindowsPath: _Rule(22, lambda value: [str(value)]),
    pathlib.PosixPath: _Rule(23, lambda value: [str(value)]),
    pathlib.WindowsPath: _Rule(24, lambda value: [str(value)]),
    ipaddress.IPv4Address: _Rule(25, lambda value: [str(value)]),
    ipaddress.IPv6Address: _Rule(26, lambda value: [str(value)]),
    ipaddress.IPv4Network: _Rule(27, lambda value: [str(value)]),
    ipaddress.IPv6Network: _Rule(28, lambda value: [str(value)]),
    ipaddress.IPv4Interface: _Rule(29, lambda value: [str(value)]),
    ipaddress.IPv6Interface: _Rule(30, lambda value: [str(value)]),
    re.Pattern: _Rule(31, lambda value: [value.pattern, value.flags]),
}

_KEYED = _Rule(64, lambda value: [class_path(type(value)), type(value).__cache_key__(value)])
_MEMBER = _Rule(65, lambda value: [class_path(type(value)), value.value if isinstance(value, Flag) else value.name])
_CLASS = _Rule(66, lambda value: [class_path(value)])
_FUNCTION = _Rule(67, lambda value: [f"{module_name(value.__module__)}:{value.__qualname__}"])
_SUBCLASS = 68
_RECORD = 69
_ZONE = _Rule(70, lambda value: [class_path(type(value)), repr(value)])


def _rule_for(value: Any, kind: type) -> _Rule:
    """The rule of a type that is not in the table; its own ``__cache_key__`` goes before all."""
    if callable(getattr(kind, "__cache_key__", None)):
        return _KEYED
    if isinstance(value, Enum):
        return _MEMBER
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return _named_rule(value)
    base = next((each for each in kind.__mro__ if each in _SCALARS or each in _RULES), None)
    if base is uuid.UUID:
        return _RULES[base]  # a driver's own UUID is the same 128 bits
    if base is not None:
        return _Rule(_SUBCLASS, lambda value: [class_path(kind), _As(value, base), _state(value, kind, base)])
    if (members := _members(kind)) is not None:
        return _Rule(_RECORD, lambda value: [class_path(kind), *((name, _get(value, name)) for name in members(value))])
    if isinstance(value, datetime.tzinfo) and " at 0x" not in repr(value):
        return _ZONE
    raise _Refused(f"is or holds a {class_path(kind).replace(':', '.')}, which has no stable identity")


def _named_rule(value: Any) -> _Rule:
    if isinstance(value, type):
        if resolves(value) or value.__module__ == "builtins":  # NoneType is in builtins, but not to be found there
            return _CLASS
    elif resolves(value):
        return _FUNCTION
    raise _Refused(f"is or holds {value!r}, which cannot be found by its name (made in a function, a lambda, or bound)")


def _state(value: object, kind: type, base: type) -> dict[str, object] | None:
    """What an instance of a subclass holds besides its base value: its ``__dict__`` and its slots."""
    below = kind.__mro__[: kind.__mro__.index(base)]
    slots = {
        name: member
        for each in reversed(below)
        for name, member in vars(each).items()
        if isinstance(member, types.MemberDescriptorType)
    }
    extras = (kind.__dictoffset__ != base.__dictoffset__) + (kind.__weakrefoffset__ != base.__weakrefoffset__)
    if kind.__basicsize__ > base.__basicsize__ + _WORD * (len(slots) + extras):
        # Like the nanoseconds of a pandas.Timestamp, which no rule here could tell apart.
        raise _Refused(f"is or holds a {class_path(kind).replace(':', '.')}, which keeps state of its own in C")
    state = dict(getattr(value, "__dict__", ()))
    for name, member in slots.items():
        if (held := _slot(value, member)) is not MISSING:
            state[name] = held
    return state or None


def _slot(value: object, member: types.MemberDescriptorType) -> object:
    try:
        return member.__get__(value)
    except AttributeError:
        return MISSING


def _members(kind: type) -> Callable[[Any], Iterable[str]] | None:
    """The names of the fields by which instances of a record type (dataclass, attrs, pydantic) are equal."""
    if is_dataclass(kind):
        return lambda value: [field.name for field in fields(value) if field.compare]
    if isinstance(attributes := getattr(kind, "__attrs_attrs__", None), tuple):
        return lambda value: [each.name for each in attributes if each.eq]
    if isinstance(model := getattr(kind, "model_fields", None), dict):
        return lambda value: [*model, *(sorted(getattr(value, "__pydantic_extra__", None) or ()))]
    return None


def _get(value: object, name: str) -> object:
    try:
        return getattr(value, name)
    except AttributeError:
        path = class_path(type(value)).replace(":", ".")
        raise _Refused(f"is or holds a {path} whose field {name!r} is not set") from None
