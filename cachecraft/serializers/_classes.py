"""Users' classes by the name they have on the wire; looks names up in a registry and nowhere else, and never imports.

A dataclass or NamedTuple is stored under `module:qualname(field,field)`: entries written before a field came or went
are not found under the new name, and so cannot be read into the wrong fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, Flag
from types import CoroutineType, MemberDescriptorType
from typing import Any, NamedTuple, is_typeddict

from cachecraft._core.errors import CorruptError, OptionError, OptionTypeError, UnserializableError
from cachecraft.serializers._limits import spell
from cachecraft.serializers._schema import field_names, reachable
from cachecraft.serializers._tags import LEAVES, NODES

_NATIVE = {type(None), bool, int, float, str, bytes, list}
_BUILT_IN = _NATIVE | {leaf.cls for leaf in LEAVES} | {node.cls for node in NODES}
_HEAP_TYPE = 1 << 9  # set on classes made by a class statement, not on those written in C


class Codec(NamedTuple):
    """How the values of one exact class are taken apart into storable values and put together again."""

    cls: type
    name: str
    split: Callable[[Any], list[Any]]
    join: Callable[[list[Any]], Any]


class Registry:
    """The classes that may be stored and read; what it lacks it looks for in its parent."""

    def __init__(self, parent: Registry | None = None) -> None:
        self._parent = parent
        self._by_class: dict[type, Codec] = {}
        self._by_name: dict[str, Codec] = {}

    def __len__(self) -> int:
        return len(self._by_class)

    def of(self, cls: type) -> Codec | None:
        return self._by_class.get(cls) or (self._parent.of(cls) if self._parent else None)

    def named(self, name: str) -> Codec | None:
        return self._by_name.get(name) or (self._parent.named(name) if self._parent else None)

    def register(
        self,
        cls: type,
        *,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], object] | None = None,
        name: str | None = None,
    ) -> None:
        """Let values of exactly this class be stored and read.

        A dataclass, NamedTuple or Enum needs no more; it is restored field by field, without running `__init__`.
        Any other class needs `encode`, which turns a value into something storable, and `decode`, which turns that
        into an equal value of the class again. `name` is what the class is called in stored bytes (default:
        `module:qualname`); give one to classes that may move. A name registered twice means the later class.

        Raises OptionTypeError if `cls` is no class, or one that needs hooks and has none; OptionError if only one
        hook is given, or if the class is stored as it is anyway.
        """
        if not isinstance(cls, type):
            raise OptionTypeError(f"a class can be registered, not {cls!r}")
        if cls in _BUILT_IN:
            raise OptionError(f"{spell(cls)} is stored as it is and needs no registration")
        if (encode is None) is not (decode is None):
            raise OptionError(f"encode and decode of {spell(cls)} belong together: give both or neither")
        name = name or f"{cls.__module__}:{cls.__qualname__}"
        if encode is not None and decode is not None:
            self._add(_hooked(cls, name, encode, decode))
        elif (codec := _structural(cls, name)) is not None:
            self._add(codec)
        else:
            raise OptionTypeError(f"{spell(cls)} is no plain dataclass, NamedTuple or Enum: give encode= and decode=")

    def allow(self, classes: Iterable[type]) -> None:
        """Register those classes that need no hooks, and pass over the others."""
        for cls in classes:
            if self.of(cls) is None and (codec := _structural(cls, f"{cls.__module__}:{cls.__qualname__}")):
                self._add(codec)

    def _add(self, codec: Codec) -> None:
        # After a reload, values of the old class would come back as values of the new one: refuse them instead.
        if (old := self._by_name.get(codec.name)) is not None:
            self._by_class.pop(old.cls, None)
        self._by_name[codec.name] = codec
        self._by_class[codec.cls] = codec


DEFAULT = Registry()
register_type = DEFAULT.register  # for all serializers of the process


def allowed_by(annotation: object) -> Iterable[type]:
    return (cls for cls in reachable(annotation) if not is_typeddict(cls))


def remedy(cls: type) -> str:
    """Why a class is refused, and what its owner can do."""
    if issubclass(cls, CoroutineType):
        return "a coroutine can be used only once; decorate the async def that makes it"
    if not is_typeddict(cls) and _structural(cls, "") is not None:
        return (
            f"{spell(cls)} is not registered: name it in the function's return annotation, or give it to"
            " cachecraft.serializers.register_type()"
        )
    return (
        f"values of type {spell(cls)} cannot be stored: return plain data (lists rather than iterators), or "
        f"cachecraft.serializers.register_type({cls.__name__}, encode=..., decode=...)"
    )


def _hooked(cls: type, name: str, encode: Callable[[Any], object], decode: Callable[[Any], object]) -> Codec:
    return Codec(cls, name, lambda value: [encode(value)], lambda items: decode(*items))


def _structural(cls: type, name: str) -> Codec | None:
    if issubclass(cls, Flag):  # a combination has no name
        return Codec(cls, name, lambda value: [value._value_], lambda items: cls(items[0]))
    if issubclass(cls, Enum):
        return Codec(cls, name, lambda value: [value._name_], lambda items: cls[items[0]])
    names = field_names(cls)
    if names is None:
        return None
    name = f"{name}({','.join(names)})"
    if issubclass(cls, tuple):
        return _named_tuple(cls, name, names)
    # What a base written in C holds (an exception's args, a dict's items) is in no field.
    if all(base is object or base.__flags__ & _HEAP_TYPE for base in cls.__mro__):
        return _dataclass(cls, name, names)
    return None


def _named_tuple(cls: type[tuple[Any, ...]], name: str, names: tuple[str, ...]) -> Codec:
    def split(value: tuple[Any, ...]) -> list[Any]:
        _refuse_extra(cls, getattr(value, "__dict__", ()))
        return list(value)

    def join(items: list[Any]) -> tuple[Any, ...]:
        if len(items) != len(names):
            raise CorruptError(f"{len(items)} items for the {len(names)} fields of {spell(cls)}")
        return tuple.__new__(cls, items)

    return Codec(cls, name, split, join)


def _dataclass(cls: type, name: str, names: tuple[str, ...]) -> Codec:
    known = frozenset(names)
    slots = {key for base in cls.__mro__ for key, at in vars(base).items() if isinstance(at, MemberDescriptorType)}
    hidden = slots - known

    def split(value: object) -> list[Any]:
        _refuse_extra(cls, getattr(value, "__dict__", {}).keys() - known)
        _refuse_extra(cls, [key for key in hidden if hasattr(value, key)])
        return [getattr(value, key) for key in names]

    def join(items: list[Any]) -> object:
        value: object = object.__new__(cls)
        for key, item in zip(names, items, strict=True):
            object.__setattr__(value, key, item)  # frozen classes refuse setattr()
        return value

    return Codec(cls, name, split, join)


def _refuse_extra(cls: type, extra: Iterable[str]) -> None:
    if extra:
        raise UnserializableError(
            f"this {spell(cls)} has attributes that are no fields ({', '.join(sorted(extra))}) and would lose them: "
            f"make them fields, or cachecraft.serializers.register_type({cls.__name__}, encode=..., decode=...)"
        )
