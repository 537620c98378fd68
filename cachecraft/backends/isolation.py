"""Who owns a value in memory: what may be shared as it is, how the rest is copied, and how much it weighs.

Knows values only: no key, no node, no lock.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import re
import sys
import types
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, Final, cast

from cachecraft._core.errors import UnserializableError

SHARED: Final = frozenset(
    {
        *(int, float, complex, bool, str, bytes, type(None), type(...), type(NotImplemented), range, type, slice),
        *(datetime.date, datetime.time, datetime.timedelta, datetime.datetime, datetime.timezone),
        *(decimal.Decimal, fractions.Fraction, uuid.UUID, re.Pattern),
        *(pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath),
        *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network),
        *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
    }
)
"""Types whose values nobody can change, so that all callers may hold the same one."""

Copier = Callable[[Any], Any]
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_CONTAINERS: Final = (list, dict, set, deque, bytearray, OrderedDict, defaultdict)
_ONCE: Final = (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType, map, filter, zip)
"""What the first caller uses up: whoever came next would find it empty, or could not await it."""


def copier(value: Any, isolate: bool | None) -> Copier | None:
    """How each caller gets a ``value`` of its own, or ``None`` where all may share it.

    ``isolate=None`` copies containers and dataclasses and shares what is opaque, ``True`` copies all of it deeply,
    ``False`` shares everything.

    Raises:
        UnserializableError: the value can be used only once.
    """
    if isolate is False or type(value) in SHARED:
        return None
    if isinstance(value, _ONCE):
        coroutine = isinstance(value, types.CoroutineType)
        remedy = "decorate the async def that makes it" if coroutine else "return a list, or the value itself"
        raise UnserializableError(f"a {type(value).__qualname__} can be used only once; {remedy}")
    if isolate:
        return copy.deepcopy
    kind: Any = type(value)
    if kind in (list, dict, set) and SHARED.issuperset(map(type, value.values() if kind is dict else value)):
        return cast("Copier", kind.copy)
    return None if _copy(value, {}) is value else own


def copier_of_decoded(value: Any, isolate: bool | None) -> Copier | None:
    """As ``copier``, for what came out of bytes: its caller was to have all of it, so what is opaque is copied too."""
    return copier(value, True if isolate is None and _opaque(value) else isolate)


def _opaque(value: Any) -> bool:
    """Whether some part of it is neither immutable nor a container or dataclass."""
    todo, seen = [value], set[int]()
    while todo:
        each = todo.pop()
        if type(each) in SHARED or isinstance(each, enum.Enum) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            todo += [*each, *each.values()]
        elif isinstance(each, (*_SEQUENCES, bytearray)):
            todo += each
        elif dataclasses.is_dataclass(each):
            todo += [getattr(each, field.name, None) for field in dataclasses.fields(each)]
        else:
            return True
    return False


def own(value: Any) -> Any:
    """A copy whose containers and dataclasses are the caller's alone; opaque objects inside stay shared."""
    return _copy(value, {})


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in SHARED or isinstance(value, enum.Enum):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, _CONTAINERS):
        return _copy_container(value, memo)
    if isinstance(value, (tuple, frozenset)):
        items = [_copy(item, memo) for item in value]
        if all(map(_same, items, value)):
            return value
        return value._make(items) if hasattr(value, "_make") else kind(items)
    if dataclasses.is_dataclass(value):
        return _copy_dataclass(value, memo)
    return value


def _same(one: object, other: object) -> bool:
    return one is other


def _copy_container(value: Any, memo: dict[int, Any]) -> Any:
    twin = memo[id(value)] = value.copy() if type(value) in _CONTAINERS else _copy_subclass(value)
    if twin is value or isinstance(value, (set, bytearray)):  # what a set or a bytearray holds is hashable or a byte
        return twin
    for at, item in value.items() if isinstance(value, dict) else enumerate(value):
        mine = _copy(item, memo)
        if mine is not item:
            twin[at] = mine
    return twin


def _copy_subclass(value: Any) -> Any:
    """A container of a class of its own, or the very same where that class knows no copies."""
    try:
        twin = copy.copy(value)
    except Exception:
        return value
    return twin if type(twin) is type(value) else value


def _copy_dataclass(value: Any, memo: dict[int, Any]) -> Any:
    frozen = value.__dataclass_params__.frozen
    twin = memo[id(value)] = copy.copy(value)
    changed = not frozen
    for field in dataclasses.fields(value):
        old = getattr(value, field.name, None)
        new = _copy(old, memo)
        if new is not old:
            object.__setattr__(twin, field.name, new)
            changed = True
    if changed:
        return twin
    memo[id(value)] = value
    return value


def replica(error: Exception) -> Exception:
    """The same exception without its traceback, which keeps the frames it passed through, and all in them, alive."""
    kind = type(error)
    # Not copy.copy, which calls __init__ with what __init__ may already have changed.
    twin: Exception = kind.__new__(kind, *error.args)
    twin.__dict__.update(error.__dict__)
    for each in kind.__mro__[: kind.__mro__.index(BaseException)]:
        for name, member in vars(each).items():
            if isinstance(member, types.MemberDescriptorType) and (held := getattr(error, name, None)) is not None:
                setattr(twin, name, held)
    return twin


_QUICK: Final = frozenset({int, float, bool, type(None), str, bytes})
_PATIENCE: Final = 20_000


def weigh_key(key: Any) -> int:
    """The bytes of a call key or wire key beyond what every entry has: long texts, in short."""
    weight = 0
    for part in key if type(key) is tuple else (key,):
        kind = type(part)
        if kind is str or kind is bytes:
            weight += len(part)
        elif kind is type:
            break  # behind the values stand their types
    return weight


def weigh(value: object) -> int:
    """Roughly how many bytes a value holds.

    It looks into containers, dataclasses and plain objects; past 20,000 objects it extrapolates nothing and stops,
    so the weight of a larger structure is a lower bound.
    """
    if type(value) in _QUICK:
        return sys.getsizeof(value)
    total, todo, seen = 0, [value], set[int]()
    while todo and len(seen) < _PATIENCE:
        each = todo.pop()
        if id(each) in seen or isinstance(each, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(each))
        total += _shallow(each)
        if isinstance(each, dict):
            todo.extend(each)
            todo.extend(each.values())
        elif isinstance(each, (*_SEQUENCES,)):
            todo.extend(each)
        elif type(each) not in SHARED and isinstance(getattr(each, "__dict__", None), dict):
            todo.append(vars(each))
    return total


def _shallow(value: object) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:  # a foreign __sizeof__ may do anything, and the weight is an estimate
        return 64


@functools.lru_cache(maxsize=1024)
def plain_enum(kind: type) -> bool:
    """Whether members of this enumeration are told apart by identity, as far as ``==`` goes."""
    return issubclass(kind, enum.Enum) and kind.__eq__ is object.__eq__ and kind.__hash__ is enum.Enum.__hash__
