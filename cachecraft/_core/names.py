"""What functions, classes and modules are called in every process; knows no argument and no key."""

from __future__ import annotations

import functools
import sys
import types
from pathlib import PurePath

_MAIN = frozenset({"__main__", "__mp_main__"})
"""The script that was started, and what a child of ``multiprocessing`` calls that script."""


def qualified_name(fn: object) -> str | None:
    """``module.qualname`` of a function, or None if that would not tell it from another.

    Closures do have a name here, shared by all that one factory made.
    """
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if isinstance(fn, (types.MethodType, functools.partial)) or not (module and isinstance(qualname, str)):
        return None
    return None if "<lambda>" in qualname else f"{module_name(module)}.{qualname}"


def class_path(kind: type) -> str:
    return f"{module_name(kind.__module__)}:{kind.__qualname__}"


def module_name(name: str) -> str:
    """The name a module has when it is imported, also while it is the script that runs."""
    if name not in _MAIN:
        return name
    main = sys.modules.get(name)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return PurePath(file).stem if file else "__main__"


def resolves(thing: object) -> bool:
    """Whether ``module.qualname`` leads back to this very object, so that the name stands for it."""
    found: object = sys.modules.get(getattr(thing, "__module__", None) or "")
    for part in getattr(thing, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is thing
