"""Which function a name in Redis belongs to: two that differ may not share one, or they would share their results.

A factory gives all the closures it makes one name; so does a decorator without ``functools.wraps``. In memory that is
no matter, since each function has a table of its own. It knows functions and names; no entry and no argument.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import CellType, CodeType
from typing import Any, Final

from cachecraft._core.errors import OptionError

_VALUES: Final = (int, float, complex, str, bytes, bool, type(None))


class Claims:
    """The names of one cache, and the function that each belongs to."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[CodeType | None, weakref.ref[Any]]] = {}

    def claim(self, name: str, fn: Callable[..., Any]) -> None:
        """Take ``name`` for ``fn``.

        Raises:
            OptionError: another function has it, which does something else or closes over something else.
        """
        code = getattr(fn, "__code__", None)
        holder = self._holders.setdefault(name, (code, _ref(fn)))
        if holder[1]() is fn or _stands_for_itself(fn):
            self._holders[name] = (code, _ref(fn))  # of a module that was loaded again, say
        elif holder[0] is None or holder[0] != code or not _closes_over_the_same(holder[1](), fn):
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


def _closes_over_the_same(one: Any, other: Any) -> bool:
    if not other.__closure__:
        return True
    # What a function that is gone closed over, nobody can tell.
    return one is not None and all(
        _same(a, b, one, other) for a, b in zip(one.__closure__, other.__closure__, strict=True)
    )


def _same(a: CellType, b: CellType, one: Any, other: Any) -> bool:
    try:
        mine, yours = a.cell_contents, b.cell_contents
    except ValueError:  # not yet assigned
        return False
    if mine is yours or (type(mine) is type(yours) and type(mine) in _VALUES and mine == yours):
        return True
    # A function that calls itself closes over its own wrapper.
    return getattr(mine, "__wrapped__", None) is one and getattr(yours, "__wrapped__", None) is other
