"""Whether two values are the same, as far as that can be told; knows nothing of where they come from."""

from __future__ import annotations

import dataclasses
import enum
from collections import OrderedDict, deque
from typing import Any, Final

_SEQUENCES: Final = (list, tuple, deque)


class Incomparable(Exception):
    """Nobody can tell: they compare by identity, or their ``==`` raises or answers no truth."""


def same(one: Any, other: Any) -> bool:
    """Whether they are equal and of the same type, through containers and dataclasses; a NaN is the same as another.

    Raises:
        Incomparable: nobody can tell.
    """
    try:
        return _same(one, other)
    except Incomparable:
        raise
    except Exception as error:  # whatever a foreign __eq__ does, or a structure without a bottom
        raise Incomparable from error


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other) or isinstance(one, (enum.Enum, type)):  # of these there is one of each
        return False
    if isinstance(one, _SEQUENCES):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        if isinstance(one, OrderedDict) and list(one) != list(other):
            return False
        # The keys are looked up as their dict would, so 1 and True are one.
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if dataclasses.is_dataclass(one) and kind.__dataclass_params__.eq:
        names = [each.name for each in dataclasses.fields(one) if each.compare]
        return all(_same(getattr(one, name), getattr(other, name)) for name in names)
    if kind.__eq__ is object.__eq__:  # type: ignore[comparison-overlap]  # as classes without one of their own have it
        raise Incomparable
    return bool(one == other) or bool(one != one and other != other)  # noqa: PLR0124 - so only a NaN is
