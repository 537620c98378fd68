"""Which function a name in Redis belongs to: two that differ may not share one, or they would share their results.

A factory gives all the closures it makes one name; so does a decorator without ``functools.wraps``. In memory that is
no matter, since each function has a table of its own. It knows functions and names; no entry and no argument.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import CellType, CodeType
from typing import Any, Final, NamedTuple

from cachecraft._core.errors import OptionError

_VALUES: Final = (int, float, complex, str, bytes, bool, type(None))


_UNTOLD: Final = object()


class _Holder(NamedTuple):
    """Who has a name."""

    code: CodeType | None
    fn: weakref.ref[Any]
    around: tuple[Any, ...]


class Claims:
    """The names of one cache, and the function that each belongs to."""

    def __init__(self) -> None:
        self._holders: dict[str, _Holder] = {}

    def claim(self, name: str, fn: Callable[..., Any]) -> None:
        """Take ``name`` for ``fn``.

        Raises:
            OptionError: another function has it, which does something else or closes over something else.
        """
        mine = _Holder(getattr(fn, "__code__", None), _ref(fn), _around(fn))
        holder = self._holders.setdefault(name, mine)
        if holder.fn() is fn or _stands_for_itself(fn):
            self._holders[name] = mine  # of a module that was loaded again, say
        elif holder.code is None or holder.code != mine.code or not _closes_over_the_same(holder, fn):
            raise OptionError(
                f"another function of this cache is called {name} too, or is the same with other variables around it;"
                " in Redis they would share their results. Give each a key= or a namespace= of its own"
            )

    def __repr__(self) -> str:
        return f"<Claims: {len(self._holders)} names>"


def _ref(fn: Any) -> weakref.ref[Any]:
    try:
        return weakref.ref(fn)
    except TypeError:  # builtins; there is one of each
        return lambda: fn  # type: ignore[return-value]  # called as a reference is


def _stands_for_itself(fn: Any) -> bool:
    """Whether the name leads to this function, through whatever decorates it: then it is no other's."""
    found: Any = sys.modules.get(getattr(fn, "__module__", None) or "")
    for part in getattr(fn, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    while found is not None and found is not fn:
        found = getattr(found, "__wrapped__", None)
    return found is fn


def _around(fn: Any) -> tuple[Any, ...]:
    """What a function closes over, as far as that can be told once the function is gone: plain values."""
    return tuple(map(_plain, getattr(fn, "__closure__", None) or ()))


def _plain(cell: CellType) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # not yet assigned
        return _UNTOLD
    return (type(value), value) if type(value) in _VALUES else _UNTOLD


def _closes_over_the_same(holder: _Holder, other: Any) -> bool:
    one, around = holder.fn(), _around(other)
    if one is None:
        return _UNTOLD not in around and around == holder.around
    return not around or all(_same(a, b, one, other) for a, b in zip(one.__closure__, other.__closure__, strict=True))


def _same(a: CellType, b: CellType, one: Any, other: Any) -> bool:
    try:
        mine, yours = a.cell_contents, b.cell_contents
    except ValueError:  # not yet assigned
        return False
    if mine is yours or (type(mine) is type(yours) and type(mine) in _VALUES and mine == yours):
        return True
    # A function that calls itself closes over its own wrapper.
    return getattr(mine, "__wrapped__", None) is one and getattr(yours, "__wrapped__", None) is other
