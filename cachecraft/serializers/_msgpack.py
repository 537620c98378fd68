"""The default serializer: native msgpack where that is exact, tags where it is not; knows no type but by its tables.

A payload without tags is plain msgpack that any tool reads. One with tags begins with 0xC1, a byte msgpack never uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgpack import ExtType, Packer, Timestamp, Unpacker, unpackb

from cachecraft._core.errors import CorruptError, UnserializableError, told
from cachecraft.serializers._classes import DEFAULT, Registry, allowed_by, remedy
from cachecraft.serializers._limits import (
    MAX_BYTES,
    check_incoming,
    check_outgoing,
    keys_in,
    positive,
    spell,
    too_many_parts,
    values_below,
)
from cachecraft.serializers._tags import CLASS_CODE, LEAVES, NODES

_TAGGED = b"\xc1"
_UNCHECKED_BYTES = 4096  # headers that lie cannot claim much in so few

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN = _SCALARS | {list, dict}
# msgpack would take these for bytes, or for tags of ours.
_TRAPS = frozenset({bytearray, memoryview, ExtType, Timestamp})
# Python hashes these with a secret, so that nobody can forge keys that collide.
_KEYS = frozenset({str, bytes})

_LEAF_OF = {leaf.cls: leaf for leaf in LEAVES}
_LEAF_JOINS = {leaf.code: leaf.join for leaf in LEAVES}
_NODE_OF = {node.cls: (ExtType(node.code, b""), node.split) for node in NODES}
_CLASS_MARK = ExtType(CLASS_CODE, b"")


class MsgpackSerializer:
    """The default. Stores plain data, most of the standard library's values, and classes it has been told of.

    `types` are registered at once. `max_bytes` bounds what is written and read (default 64 MiB), `max_depth` how deep
    a stored value nests (1 to 500, default 200; on reading msgpack's own limit of 1024 holds), `max_objects` how many
    containers and tagged values one payload may hold (default 2**20). Reading n bytes takes at most some 200 × n bytes
    of memory, however hostile they are, and at most some 80 × n plus 1 KB per object.

    Raises OptionError or OptionTypeError for limits out of range and for types that cannot be registered.
    """

    id: int = 1

    def __init__(
        self,
        *,
        types: Iterable[type] = (),
        max_bytes: int = MAX_BYTES,
        max_depth: int = 200,
        max_objects: int = 2**20,
    ) -> None:
        self._max_bytes = positive("max_bytes", max_bytes)
        self._max_depth = positive("max_depth", max_depth, at_most=500)
        self._max_objects = positive("max_objects", max_objects)
        self._registry = Registry(DEFAULT)
        for cls in types:
            self._registry.register(cls)

    def __repr__(self) -> str:
        return f"<MsgpackSerializer: {len(self._registry)} classes of its own, at most {self._max_bytes} bytes>"

    def register(
        self,
        cls: type,
        *,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], object] | None = None,
        name: str | None = None,
    ) -> None:
        """As `register_type`, for this serializer alone."""
        self._registry.register(cls, encode=encode, decode=decode, name=name)

    def allow(self, annotation: object) -> None:
        """Register the dataclasses, NamedTuples and Enums a return annotation names, also through their fields.

        Forward references that cannot be resolved are passed over; call it at the first use rather than at decoration,
        when all classes of a module are there.
        """
        self._registry.allow(allowed_by(annotation))

    def dumps(self, value: object) -> bytes:
        """Encode a value. Raises UnserializableError, which names the type and the remedy, if it would not survive."""
        try:
            try:
                data = self._pack(value)
            except UnicodeEncodeError:  # lone surrogates; always allowing for them takes twice as long
                data = self._pack(value, "surrogatepass")
            if len(check_outgoing(data, self._max_bytes)) > self._max_objects:
                self._read(data)  # only so many bytes can hold too many objects
        except UnserializableError:
            raise
        except Exception as error:  # hooks and properties of the value may raise anything
            raise UnserializableError(f"a {spell(type(value))} cannot be stored: {told(error)}") from error
        return data

    def loads(self, data: bytes) -> object:
        """Decode what `dumps` made. Raises CorruptError for anything wrong, and nothing else."""
        try:
            check_incoming(data, self._max_bytes)
            return self._read(data)
        except CorruptError:
            raise
        except Exception as error:  # the bytes are untrusted, and decode hooks may raise anything
            raise CorruptError(f"stored bytes cannot be decoded: {told(error)}") from error

    def _pack(self, value: object, unicode_errors: str | None = None) -> bytes:
        writer = _Writer(self._registry, self._max_depth, self._max_bytes)
        packer = Packer(default=writer.tag, strict_types=True, unicode_errors=unicode_errors)
        data: bytes = packer.pack(writer.screen([value], 0)[0])
        return _TAGGED + data if writer.tagged else data

    def _read(self, data: bytes) -> object:
        tagged = data[:1] == _TAGGED
        body = memoryview(data)[1:] if tagged else data
        if len(body) > _UNCHECKED_BYTES:
            _check_headers(body)
        if not tagged and len(data) <= self._max_objects:  # too few bytes for too many objects: no need to count
            return unpackb(body, unicode_errors="surrogatepass", ext_hook=_no_ext)
        reader = _Reader(self._registry, self._max_objects)
        value = unpackb(
            body,
            unicode_errors="surrogatepass",
            ext_hook=reader.ext,
            list_hook=reader.array,
            object_hook=reader.map,
        )
        if reader.open_marks:
            raise CorruptError("a tag stands where none may be")
        return value


class _Boxed:
    """Hides a value from msgpack, which would pack it as something else, so that it asks for its tag."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class _Writer:
    """One `dumps`: finds what msgpack would not keep as it is, and answers msgpack's questions about it."""

    __slots__ = ("_depths", "_max_depth", "_registry", "_room", "tagged")

    def __init__(self, registry: Registry, max_depth: int, room: int) -> None:
        self._registry = registry
        self._max_depth = max_depth
        self._room = room  # values that may yet follow; each takes a byte at least
        self._depths: dict[int, int] = {}  # how deep the values stand that msgpack will ask about, by id
        self.tagged = False

    def screen(self, items: list[Any], depth: int) -> list[Any]:
        """The items, or copies in which whatever msgpack would silently pack as something else is boxed."""
        level, top, trapped = items, depth, False
        while not _SCALARS.issuperset(kinds := set(map(type, level))):
            if not kinds <= _PLAIN:
                trapped = trapped or not kinds.isdisjoint(_TRAPS)
                self._depths.update((id(value), depth) for value in level if type(value) not in _PLAIN)
            if depth >= self._max_depth and not kinds.isdisjoint((list, dict)):
                raise self._too_deep()
            if not _KEYS.issuperset(map(type, keys_in(level))):
                trapped = True
                level = [value for value in level if not _is_odd(value)]  # those are screened when they get their tag
            level = values_below(level, self._room)
            self._spend(len(level))
            depth += 1
        return [self._box(value, top) for value in items] if trapped else items

    def _box(self, value: Any, depth: int) -> Any:
        if type(value) is list:
            return [self._box(item, depth + 1) for item in value]
        if type(value) is dict and not _is_odd(value):
            return {key: self._box(item, depth + 1) for key, item in value.items()}
        if type(value) is dict or type(value) in _TRAPS:
            value = _Boxed(value)
            self._depths[id(value)] = depth
        return value

    def tag(self, value: Any) -> Any:
        """What msgpack shall pack in place of a value it does not know."""
        self.tagged = True
        depth = self._depths.get(id(value), 0)
        if type(value) is _Boxed:
            value = value.value
        cls = type(value)
        if (leaf := _LEAF_OF.get(cls)) is not None:
            return ExtType(leaf.code, leaf.split(value))
        if depth >= self._max_depth:
            raise self._too_deep()
        if (node := _NODE_OF.get(cls)) is not None:
            mark, items = node[0], node[1](value)
        elif (codec := self._registry.of(cls)) is not None:
            mark, items = _CLASS_MARK, [codec.name, *codec.split(value)]
        else:
            raise UnserializableError(remedy(cls))
        self._spend(len(items) + 1)
        return [mark, *self.screen(items, depth + 1)]

    def _spend(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise too_many_parts()

    def _too_deep(self) -> UnserializableError:
        return UnserializableError(
            f"the value nests deeper than max_depth={self._max_depth}, or contains itself; return a flatter one"
        )


def _is_odd(value: object) -> bool:
    """Whether it is a dict with keys that msgpack would write but not read, or that need a tag."""
    return type(value) is dict and not _KEYS.issuperset(map(type, value))


class _Mark:
    """The head of a node, between `_Reader.ext` and `_Reader.array`."""

    __slots__ = ("join",)

    def __init__(self, join: Callable[[list[Any]], Any] | None) -> None:
        self.join = join


_MARKS = {node.code: _Mark(node.join) for node in NODES} | {CLASS_CODE: _Mark(None)}


class _Reader:
    """One `loads` of tagged data: turns tags back into values, and counts."""

    __slots__ = ("_registry", "_room", "open_marks")

    def __init__(self, registry: Registry, room: int) -> None:
        self._registry = registry
        self._room = room
        self.open_marks = 0  # heads seen that no array has claimed; none may be left over

    def ext(self, code: int, data: bytes) -> Any:
        if (mark := _MARKS.get(code)) is not None:
            self.open_marks += 1
            return mark
        self._spend()
        return _LEAF_JOINS.get(code, _unknown)(data)

    def array(self, items: list[Any]) -> Any:
        self._spend()
        if not items or type(items[0]) is not _Mark:
            return items
        self.open_marks -= 1
        join = items[0].join
        return self._instance(items[1], items[2:]) if join is None else join(items[1:])

    def map(self, value: dict[Any, Any]) -> Any:
        self._spend()
        return value

    def _instance(self, name: str, items: list[Any]) -> object:
        codec = self._registry.named(name)
        if codec is None:
            raise CorruptError("stored under a class that is not registered here, or whose fields have changed")
        value = codec.join(items)
        if type(value) is not codec.cls:
            raise CorruptError(f"decode made a {spell(type(value))} of a {spell(codec.cls)}")
        return value

    def _spend(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise CorruptError("more objects than max_objects allows")


def _check_headers(body: bytes | memoryview) -> None:
    """Refuse headers that claim more items than follow: a thousand of them, nested, would each reserve their claim."""
    unpacker = Unpacker(None, read_size=1, max_buffer_size=len(body), strict_map_key=False)
    unpacker.feed(body)
    unpacker.skip()


def _no_ext(code: int, data: bytes) -> Any:
    raise CorruptError("a tag in data that says it has none")


def _unknown(data: bytes) -> Any:
    raise CorruptError("an unknown tag")
