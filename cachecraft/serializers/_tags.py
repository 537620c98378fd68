"""The standard-library types msgpack lacks, each with its number on the wire; knows nothing of users' classes.

A leaf is a msgpack ext that holds the value in its bytes. A node is an array whose first item is an empty ext: nested
values stay native msgpack, so that neither side recurses in Python and nothing is packed twice. The numbers are part
of the stored format: never reuse one.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, NamedTuple, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from cachecraft._core.errors import CorruptError, UnserializableError

MAX_COLLISIONS = 64
CLASS_CODE = 127  # the node of a registered class; the rest are this module's


class Leaf(NamedTuple):
    code: int
    cls: type
    split: Callable[[Any], bytes]
    join: Callable[[bytes], Any]


class Node(NamedTuple):
    code: int
    cls: type
    split: Callable[[Any], list[Any]]
    join: Callable[[list[Any]], Any]


def _spread(keys: Collection[Any]) -> None:
    """Refuse keys that share a hash: most hashes can be forged, and n such keys take n² comparisons to insert."""
    if len(keys) > MAX_COLLISIONS and max(Counter(map(hash, keys)).values()) > MAX_COLLISIONS:
        raise CorruptError(f"more than {MAX_COLLISIONS} keys or set members share one hash")


def _split_set(value: Collection[Any]) -> list[Any]:
    _spread(value)
    return list(value)


def _join_set(cls: Callable[[Iterable[Any]], Any]) -> Callable[[list[Any]], Any]:
    def join(items: list[Any]) -> Any:
        _spread(items)
        return cls(items)

    return join


def _split_pairs(value: dict[Any, Any]) -> list[Any]:
    _spread(value.keys())
    return [item for pair in value.items() for item in pair]


def _join_pairs(items: list[Any]) -> dict[Any, Any]:
    _spread(items[::2])
    return dict(zip(items[::2], items[1::2], strict=True))


_FACTORIES: dict[str, type] = {cls.__name__: cls for cls in (bool, bytes, dict, float, int, list, set, str, tuple)}


def _split_defaultdict(value: defaultdict[Any, Any]) -> list[Any]:
    factory = value.default_factory
    name = getattr(factory, "__name__", None)
    if factory is not None and _FACTORIES.get(name or "") is not factory:
        raise UnserializableError(f"a defaultdict of {factory!r} cannot be stored; return a dict")
    return [name, *_split_pairs(value)]


def _join_defaultdict(items: list[Any]) -> defaultdict[Any, Any]:
    return defaultdict(None if items[0] is None else _FACTORIES[items[0]], _join_pairs(items[1:]))


def _split_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _split_text(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _join_text(cls: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: cls(data.decode("utf-8", "surrogatepass"))


def _join_fraction(text: str) -> Fraction:
    # Fraction(text) would also take "1e999999999", and compute it.
    numerator, denominator = text.split("/")
    return Fraction(int(numerator), int(denominator))


def _split_zone(zone: ZoneInfo) -> bytes:
    key = cast("str | None", zone.key)
    if key is None or ZoneInfo(key) is not zone:
        raise UnserializableError(f"{zone!r} has no key to find it by again; make it with ZoneInfo(key)")
    return key.encode()


def _split_timezone(zone: timezone) -> list[Any]:
    # The arguments it was made of; tzname() would make up a name where none was given.
    return list(zone.__getinitargs__())  # type: ignore[attr-defined]  # what pickle calls


def _split_datetime(v: datetime) -> list[Any]:
    return [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.tzinfo, v.fold]


def _split_time(v: time) -> list[Any]:
    return [v.hour, v.minute, v.second, v.microsecond, v.tzinfo, v.fold]


_TEXTS: dict[int, type] = {
    20: Decimal,
    21: PosixPath,
    22: WindowsPath,
    23: PurePosixPath,
    24: PureWindowsPath,
    25: IPv4Address,
    26: IPv4Interface,
    27: IPv4Network,
    28: IPv6Address,
    29: IPv6Interface,
    30: IPv6Network,
}

LEAVES: tuple[Leaf, ...] = (
    Leaf(1, int, _split_int, lambda data: int.from_bytes(data, "big", signed=True)),  # beyond 64 bits
    Leaf(2, bytearray, bytes, bytearray),
    Leaf(3, complex, lambda v: struct.pack(">dd", v.real, v.imag), lambda data: complex(*struct.unpack(">dd", data))),
    Leaf(4, UUID, lambda v: v.bytes, lambda data: UUID(bytes=data)),
    Leaf(5, date, lambda v: v.isoformat().encode(), lambda data: date.fromisoformat(data.decode())),
    Leaf(6, ZoneInfo, _split_zone, lambda data: ZoneInfo(data.decode())),
    Leaf(7, Fraction, lambda v: f"{v.numerator}/{v.denominator}".encode(), _join_text(_join_fraction)),
    *(Leaf(code, cls, _split_text, _join_text(cls)) for code, cls in _TEXTS.items()),
)

NODES: tuple[Node, ...] = (
    Node(64, tuple, list, tuple),
    Node(65, set, _split_set, _join_set(set)),
    Node(66, frozenset, _split_set, _join_set(frozenset)),
    Node(67, dict, _split_pairs, _join_pairs),  # one whose keys are not all str or bytes
    Node(68, OrderedDict, _split_pairs, lambda items: OrderedDict(_join_pairs(items))),
    Node(69, Counter, _split_pairs, lambda items: Counter(_join_pairs(items))),
    Node(70, defaultdict, _split_defaultdict, _join_defaultdict),
    Node(71, deque, lambda v: [v.maxlen, *v], lambda items: deque(items[1:], items[0])),
    Node(72, range, lambda v: [v.start, v.stop, v.step], lambda items: range(*items)),
    Node(73, datetime, _split_datetime, lambda items: datetime(*items[:-1], fold=items[-1])),
    Node(74, time, _split_time, lambda items: time(*items[:-1], fold=items[-1])),
    Node(75, timedelta, lambda v: [v.days, v.seconds, v.microseconds], lambda items: timedelta(*items)),
    Node(76, timezone, _split_timezone, lambda items: timezone(*items)),
)
