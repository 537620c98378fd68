"""Which classes a return annotation names, and their fingerprint; knows nothing of how their values are stored."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Annotated, Any, ForwardRef, Literal, NewType, TypeVar, Union, get_args, get_origin, is_typeddict


def fingerprint(annotation: object) -> bytes:
    """The schema behind a return annotation, as 8 bytes that are the same in every process.

    Covers the fields, with their annotations, of every dataclass, NamedTuple and TypedDict, and the members of every
    Enum, that the annotation names directly or through other fields. Eight zero bytes if it names none. Ask at the
    first call rather than at decoration: a class defined further down in the module is not found before.
    """
    texts = sorted({_describe(cls) for cls in reachable(annotation)})
    return blake2b("\n".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest() if texts else bytes(8)


def reachable(annotation: object) -> Iterator[type]:
    """Every dataclass, NamedTuple, TypedDict and Enum the annotation names, or a field of one of them does."""
    # By identity, since metadata of Annotated need not be hashable; holding each part keeps its id its own.
    seen: dict[int, object] = {}
    todo = [annotation]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        todo += _parts(part)
        if isinstance(part, type) and get_origin(part) is None:
            if issubclass(part, Enum):
                yield part
            elif (names := field_names(part)) is not None:
                yield part
                todo += _field_types(part, names).values()


def field_names(cls: type) -> tuple[str, ...] | None:
    """The fields of a dataclass, NamedTuple or TypedDict; None for any other class."""
    if is_dataclass(cls):
        return tuple(field.name for field in fields(cls))
    if is_typeddict(cls):
        return tuple(cls.__annotations__)
    names = getattr(cls, "_fields", None)
    return names if issubclass(cls, tuple) and isinstance(names, tuple) else None


def _parts(annotation: object) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return [get_args(annotation)[0]]  # the rest is metadata, not types
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    if isinstance(annotation, TypeVar):
        return [annotation.__bound__, *annotation.__constraints__]
    if isinstance(annotation, NewType):
        return [annotation.__supertype__]
    if type(annotation).__name__ == "TypeAliasType":  # `type Users = list[User]` since Python 3.12, evaluated late
        try:
            return [annotation.__value__]  # type: ignore[attr-defined]  # known from 3.12 on
        except Exception:
            return []
    return [] if origin is None else [origin, *get_args(annotation)]


def _field_types(cls: type, names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        for name, annotation in inspect.get_annotations(owner).items():
            if name in names:
                found[name] = _resolve(annotation, owner)
    return {name: found.get(name, Any) for name in names}


def _resolve(annotation: object, owner: type) -> Any:
    """The annotation with its forward references resolved; as it is written where one of them cannot be."""
    module = sys.modules.get(owner.__module__)
    params = {param.__name__: param for param in getattr(owner, "__type_params__", ())}
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(
            holder, vars(module) if module else {}, {owner.__name__: owner, **params}, include_extras=True
        )["it"]
    except Exception:  # resolving runs whatever the annotation says, often names imported for type checkers only
        return annotation


def _describe(cls: type) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if issubclass(cls, Enum):
        return f"{name}{{{','.join(f'{key}={_literal(member.value)}' for key, member in cls.__members__.items())}}}"
    typed = _field_types(cls, field_names(cls) or ())
    return f"{name}({','.join(f'{key}:{_spell(annotation)}' for key, annotation in typed.items())})"


def _literal(value: object) -> str:
    # Any other repr may hold an address, which differs from process to process.
    if isinstance(value, Enum):
        return value.name
    return repr(value) if type(value) in {bool, bytes, float, int, str} else type(value).__qualname__


def _spell(annotation: Any) -> str:
    """An annotation as text without addresses, the same however typing has cached or reordered it."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _spell(args[0])
    if origin is Literal:
        return f"Literal[{','.join(map(_literal, args))}]"
    if origin in {Union, types.UnionType}:
        return f"Union[{','.join(sorted(map(_spell, args)))}]"
    if origin is not None:
        return f"{_spell(origin)}[{','.join(map(_spell, args))}]"
    if isinstance(annotation, list):  # the parameters of a Callable
        return f"[{','.join(map(_spell, annotation))}]"
    if isinstance(annotation, type):
        return f"{annotation.__module__}:{annotation.__qualname__}"
    return str(getattr(annotation, "__name__", type(annotation).__name__))
