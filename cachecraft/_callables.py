"""What a callable says of itself: whether it can be decorated, is async, what it takes and what it is called.

It knows no cache, and calls nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from cachecraft._core.errors import OptionTypeError


def check_callable(fn: Any, decorator: str) -> None:
    if isinstance(fn, type):
        raise OptionTypeError(
            f"{decorator} got the class {fn.__qualname__}; decorate its methods, or a function that makes it"
        )
    if not callable(fn):
        raise OptionTypeError(f"{decorator} got {fn!r}, which is not callable; decorate a function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise OptionTypeError(
            f"{decorator} got the generator {label_of(fn)}, whose items come only once; decorate a function that"
            " returns a list of them"
        )


def is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - asked what it is, not whether


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError):  # some builtins tell nobody what they take
        return inspect.signature(lambda *args, **kwargs: None)


def label_of(fn: Any) -> str:
    inner = getattr(fn, "func", fn)
    return getattr(fn, "__qualname__", None) or f"{type(fn).__name__}({getattr(inner, '__qualname__', inner)!s})"


def lambda_name(fn: Any) -> str | None:
    """A lambda has a name of a sort: enough in memory, where each function has a table of its own."""
    return f"{fn.__module__}.{fn.__qualname__}" if getattr(fn, "__name__", None) == "<lambda>" else None


def has_method(owner: Any, fn: Any) -> bool:
    """Whether ``owner`` may be the object (or class) that the method ``fn`` is called on, as far as names tell."""
    home, _, name = fn.__qualname__.rpartition(".")
    if not home or home.endswith("<locals>") or name.startswith(("<", "__")):
        return True  # no method of a class, or one that is found under another name
    mro = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
    return any(name in vars(each) or each.__qualname__ == home for each in mro)
