"""What goes through a serializer comes out equal and of the same type, or is refused; and bytes are untrusted."""

import asyncio
import collections
import contextlib
import dataclasses
import enum
import ipaddress
import math
import os
import pathlib
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import types
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from datetime import time as clock_time
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachecraft._core.errors import CorruptError, OptionError, OptionTypeError, UnserializableError
from cachecraft.serializers import (
    JsonSerializer,
    MsgpackSerializer,
    PickleSerializer,
    Serializer,
    compress,
    decompress,
    fingerprint,
    register_type,
)


class Color(enum.Enum):
    RED = "red"
    BLUE = ("b", 1)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: "int | None" = None


@dataclass
class Address:
    city: str


@dataclass
class User:
    id: int
    color: Color = Color.RED
    address: Address | None = None
    friends: "list[User]" = field(default_factory=list)
    loud: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.loud = self.id > 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    cents: int
    currency: str


class Text(str):
    __slots__ = ()


class Number(float):
    pass


class Temperature:
    def __init__(self, celsius: float) -> None:
        self.celsius = celsius

    def __eq__(self, other: object) -> bool:
        return type(other) is Temperature and other.celsius == self.celsius

    __hash__ = None  # type: ignore[assignment]


CLASSES = [Color, Level, Mode, Point, Address, User, Money]


@pytest.fixture(scope="module")
def packer() -> MsgpackSerializer:
    return MsgpackSerializer(types=CLASSES)


def same(left: object, right: object) -> bool:
    """Equal and of the same type, recursively; NaN is the same as NaN, and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float | complex):
        return repr(left) == repr(right)
    if isinstance(left, dict):
        assert isinstance(right, dict)
        return same(list(left.items()), list(right.items()))
    if isinstance(left, list | tuple | collections.deque):
        assert isinstance(right, list | tuple | collections.deque)
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, set | frozenset):
        assert isinstance(right, set | frozenset)
        return len(left) == len(right) and all(any(same(one, other) for other in right) for one in left)
    if dataclasses.is_dataclass(left):
        names = [f.name for f in dataclasses.fields(left)]
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    if isinstance(left, datetime | clock_time):
        assert isinstance(right, datetime | clock_time)
        return same(left.tzinfo, right.tzinfo) and left.fold == right.fold and left.isoformat() == right.isoformat()
    if isinstance(left, Decimal):
        return repr(left) == repr(right)
    return left == right


def survives(serializer: Serializer, value: object) -> bool:
    return same(serializer.loads(serializer.dumps(value)), value)


def deep(depth: int, wrap: Callable[[object], object] = lambda inner: [inner]) -> object:
    value: object = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@contextlib.contextmanager
def at_most_mb(megabytes: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < megabytes, f"{peak:.0f} MB"


# --- msgpack: what survives -------------------------------------------------------------------------------------------

IN_BERLIN = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))

EXACT: list[object] = [
    None, True, False, 0, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**4000, -(10**4000), 1.5, -0.0,
    math.nan, math.inf, "", "é\U0001f600", "\ud800", "\ud83d\ude00", {"\udcff": "\udcff"}, b"", b"\xc1\xff", [], {},
    [1, [2, [3]]], {"a": {"b": []}}, {1: 2}, {1: "a", "1": "b", None: 0, b"1": 1, (1, "x"): [], 2.5: {}},
    {"b": 1, "a": 2}, {2: 1, 1: 2}, {b"k": 1, "k": 2}, (), (1,), ((), [()], {"k": ()}), {1, "a", (2,)}, set(),
    frozenset({frozenset({1}), 2}), bytearray(), bytearray(b"ab"), [bytearray(b"x"), {"k": bytearray(b"y")}],
    {1: bytearray(b"x"), "k": {2: {3: (bytearray(b"z"),)}}}, complex(1, -0.0), range(1, 10, 3), Fraction(-7, 3),
    Decimal("1.10"), Decimal("-0"), Decimal("NaN"), Decimal("sNaN12"), Decimal("1E+999999"), Decimal(10) ** 50,
    uuid.UUID(int=7), uuid.uuid1(), date(2024, 2, 29), timedelta(days=-3, microseconds=7), timedelta.max,
    datetime(2024, 1, 2, 3, 4, 5, 6), datetime(2024, 1, 2, tzinfo=UTC), datetime.min, datetime.max,
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=45), "NPT")), datetime(2024, 1, 2, fold=1),
    datetime(1, 1, 1, tzinfo=timezone(-timedelta(seconds=1))), IN_BERLIN, IN_BERLIN.replace(fold=1),
    clock_time(1, 2, 3, 4, tzinfo=ZoneInfo("UTC"), fold=1), clock_time(), UTC, ZoneInfo("Asia/Tokyo"),
    pathlib.Path("a/b"), pathlib.Path(os.fsdecode(b"\xff")), pathlib.PurePosixPath("/x"),
    pathlib.PureWindowsPath("C:\\x"), ipaddress.ip_address("::1%eth0"), ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_interface("10.0.0.1/8"), collections.deque([1, (2,)], maxlen=3), collections.OrderedDict({2: 1, 1: 2}),
    collections.Counter("abba"), collections.defaultdict(list, {"a": [1]}), collections.defaultdict(None, {1: 2}),
    Color.RED, Color.BLUE, Level.HIGH, Mode.READ, Mode.READ | Mode.WRITE, Mode(0), Point(1), Point(1, 2),
    Money(cents=1, currency="EUR"), User(200, Color.BLUE, Address("Rome"), [User(1)]),
    {Point(1, 2): {Money(cents=1, currency="EUR")}, Color.RED: Level.LOW}, {Level.LOW: 1}, [{"u": User(1)}, (User(2),)],
]  # fmt: skip


@pytest.mark.parametrize("value", EXACT, ids=lambda value: type(value).__name__)
def test_msgpack_gives_back_equal_values_of_the_same_type(packer: MsgpackSerializer, value: object) -> None:
    assert survives(packer, value)
    assert survives(packer, [value, {"k": (value, [value])}])


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.decimals()
    | st.text(st.characters(exclude_categories=())) | st.complex_numbers() | st.uuids() | st.dates() | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones()) | st.times() | st.fractions()
    | st.ip_addresses() | st.sampled_from([*Color, *Level, Mode.READ | Mode.WRITE])
)  # fmt: skip
# A signalling NaN cannot be hashed; other NaNs can, but then equal nothing.
KEYS = st.recursive(
    SCALARS.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()) and value == value),  # noqa: PLR0124
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.builds(Point, inner, inner),
    max_leaves=4,
)
VALUES = st.recursive(
    SCALARS | st.builds(bytearray, st.binary()),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.dictionaries(KEYS, inner, max_size=5)
        | st.sets(KEYS, max_size=5) | st.builds(tuple, st.lists(inner)) | st.builds(collections.deque, st.lists(inner))
        | st.builds(Point, inner, inner) | st.builds(User, st.integers(), st.sampled_from(Color), inner)
        | st.builds(Money, cents=inner, currency=inner)
    ),
)  # fmt: skip


@given(VALUES)
def test_whatever_msgpack_stores_comes_back_equal_and_of_the_same_type(value: object) -> None:
    assert survives(MsgpackSerializer(types=CLASSES), value)


def test_plain_data_is_plain_msgpack(packer: MsgpackSerializer) -> None:
    value = {"rows": [{"id": 1, "name": "é", "score": 0.5, "raw": b"\x00"}] * 3, "next": None}
    assert packer.dumps(value) == msgpack.packb(value)


def test_values_that_came_back_share_nothing_with_what_went_in(packer: MsgpackSerializer) -> None:
    inner: list[int] = []
    first, second = packer.loads(packer.dumps([inner, inner]))  # type: ignore[misc]
    first.append(1)
    assert (inner, second) == ([], [])


def test_dataclasses_are_restored_without_running_their_code(
    packer: MsgpackSerializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = packer.dumps(User(200))
    monkeypatch.setattr(User, "__init__", None)
    monkeypatch.setattr(User, "__post_init__", None)
    restored = packer.loads(stored)
    assert isinstance(restored, User)
    assert restored.loud


def test_one_serializer_serves_many_threads(packer: MsgpackSerializer) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        value = {number: [User(number), (number,) * 20, bytearray(b"x")]}
        wrong.extend(value for _ in range(200) if not survives(packer, value))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- msgpack: what is refused -----------------------------------------------------------------------------------------


@dataclass
class Unregistered:
    x: int


class UnregisteredColor(enum.Enum):
    RED = 1


class UnregisteredPoint(NamedTuple):
    x: int


class Moscow(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=3)


async def coroutine() -> None: ...


REFUSED: dict[str, Callable[[], object]] = {
    "generator": lambda: (x for x in "ab"),
    "function": lambda: detonate,
    "module": lambda: math,
    "lock": threading.Lock,
    "object": object,
    "memoryview": lambda: memoryview(b"x"),
    "ExtType": lambda: msgpack.ExtType(64, b""),
    "Timestamp": lambda: msgpack.Timestamp(1, 2),
    "Text": lambda: Text("x"),
    "Number": lambda: Number(1.0),
    "Temperature": lambda: Temperature(1.0),
    "Moscow": lambda: datetime(2024, 1, 1, tzinfo=Moscow()),
    "mappingproxy": lambda: types.MappingProxyType({}),
    "dict_keys": {}.keys,
    "Unregistered": lambda: Unregistered(1),
    "UnregisteredColor": lambda: UnregisteredColor.RED,
    "UnregisteredPoint": lambda: UnregisteredPoint(1),
    "defaultdict": lambda: collections.defaultdict(lambda: 1),
    "ZoneInfo": lambda: ZoneInfo.no_cache("Europe/Rome"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    "wrap",
    [lambda v: v, lambda v: [1, {"k": [v]}], lambda v: {1: (v,)}, lambda v: User(1, friends=[v])],
    ids=["bare", "nested", "tagged", "in a dataclass"],
)
def test_msgpack_refuses_by_name_what_would_not_survive(
    packer: MsgpackSerializer, name: str, wrap: Callable[[object], object]
) -> None:
    value = REFUSED[name]()
    with pytest.raises(UnserializableError, match=name):
        packer.dumps(wrap(value))


def test_msgpack_refuses_a_coroutine_by_name(packer: MsgpackSerializer) -> None:
    value = coroutine()
    with pytest.raises(UnserializableError, match="coroutine"):
        packer.dumps({"k": value})
    value.close()


def test_keys_of_a_subclass_are_refused_rather_than_degraded(packer: MsgpackSerializer) -> None:
    with pytest.raises(UnserializableError, match="Text"):
        packer.dumps({Text("a"): 1})
    with pytest.raises(UnserializableError, match="Text"):
        packer.dumps({"a": {Text("a"), "b"}})


def test_the_refusal_of_a_class_says_the_remedy(packer: MsgpackSerializer) -> None:
    with pytest.raises(UnserializableError, match="return annotation"):
        packer.dumps(Unregistered(1))
    with pytest.raises(UnserializableError, match=r"register_type\(Temperature, encode="):
        packer.dumps(Temperature(1))
    coroutine = asyncio.sleep(0)
    with pytest.raises(UnserializableError, match="decorate the async def that makes it"):
        packer.dumps(coroutine)
    coroutine.close()


def test_a_dataclass_that_would_lose_attributes_is_refused(packer: MsgpackSerializer) -> None:
    class Base:
        __slots__ = ("hidden",)

    @dataclass(slots=True)
    class Slotted(Base):
        x: int

    class Loose(Point):  # has a __dict__, for want of __slots__
        pass

    packer.register(Slotted)
    packer.register(Loose)
    extra, slotted, loose = Address("Rome"), Slotted(1), Loose(1)
    assert survives(packer, loose)
    loose.label = "x"  # type: ignore[attr-defined]
    assert survives(packer, slotted)
    extra.cached = 1  # type: ignore[attr-defined]
    slotted.hidden = 1  # type: ignore[attr-defined]
    with pytest.raises(UnserializableError, match=r"Address.*cached"):
        packer.dumps(extra)
    with pytest.raises(UnserializableError, match=r"Slotted.*hidden"):
        packer.dumps(slotted)
    with pytest.raises(UnserializableError, match=r"Loose.*label"):
        packer.dumps(loose)


def test_a_dataclass_with_an_unset_field_is_refused(packer: MsgpackSerializer) -> None:
    broken = Address("Rome")
    del broken.city
    with pytest.raises(UnserializableError, match="Address"):
        packer.dumps(broken)


def test_only_the_exact_class_is_allowed(packer: MsgpackSerializer) -> None:
    class Derived(Address):
        pass

    with pytest.raises(UnserializableError, match="Derived"):
        packer.dumps(Derived("Rome"))


def test_values_that_contain_themselves_are_refused_soon(packer: MsgpackSerializer) -> None:
    line: list[Any] = []
    line.append(line)
    fan: list[Any] = [bytearray()]
    fan += [fan, fan]
    plain_fan: list[Any] = []
    plain_fan += [plain_fan, plain_fan]
    tupled: list[Any] = []
    tupled.append((tupled, tupled))
    keyed: dict[Any, Any] = {}
    keyed[1] = keyed
    user = User(1)
    user.friends.append(user)
    laughs = deep(40, lambda inner: (inner, inner))
    small = MsgpackSerializer(types=CLASSES, max_bytes=100_000)
    for value in (line, fan, plain_fan, tupled, keyed, user, laughs):
        for serializer in (small, packer) if value in (line, keyed) else (small,):
            with pytest.raises(UnserializableError, match="contain"):
                serializer.dumps(value)


@pytest.mark.parametrize(
    "wrap",
    [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: {1: v}, Address, lambda v: {1: ([v],)}],
    ids=["list", "dict", "tuple", "int keys", "dataclass", "mixed"],
)
def test_nesting_survives_up_to_max_depth_and_is_refused_beyond(wrap: Callable[[object], object]) -> None:
    levels = 3 if wrap(0) == {1: ([0],)} else 1
    serializer = MsgpackSerializer(types=CLASSES, max_depth=100 * levels)
    stored = serializer.dumps(deep(100, wrap))
    assert serializer.dumps(serializer.loads(stored)) == stored
    for depth in (101, 2000, 100_000):
        with pytest.raises(UnserializableError, match="max_depth="):
            serializer.dumps(deep(depth, wrap))


def test_what_takes_more_than_max_bytes_is_refused_both_ways(packer: MsgpackSerializer) -> None:
    small = MsgpackSerializer(max_bytes=100)
    with pytest.raises(UnserializableError, match="max_bytes"):
        small.dumps("x" * 100)
    with pytest.raises(CorruptError, match="max_bytes"):
        small.loads(packer.dumps("x" * 100))


def test_a_value_of_as_many_parts_as_bytes_is_stored_however_it_nests() -> None:
    value: object = [bytearray(), list(range(100)) * 9]
    for key in range(20):
        value = {key: value, "k": (value,)} if key < 3 else {key: value}
    size = len(MsgpackSerializer().dumps(value))
    assert survives(MsgpackSerializer(max_bytes=size), value)


def test_what_holds_more_than_max_objects_is_refused_both_ways(packer: MsgpackSerializer) -> None:
    small = MsgpackSerializer(max_objects=100)
    for value in ([[]] * 100, [{}] * 100, [uuid.UUID(int=1)] * 100, [()] * 100):
        with pytest.raises(UnserializableError, match="max_objects"):
            small.dumps(value)
        with pytest.raises(CorruptError, match="max_objects"):
            small.loads(packer.dumps(value))
    assert survives(small, [[]] * 99)


def test_a_value_that_swells_by_sharing_is_refused_before_it_has_swollen() -> None:
    shared = ([0] * 50_000,)
    with at_most_mb(20), pytest.raises(UnserializableError, match="max_bytes"):
        MsgpackSerializer(max_bytes=100_000).dumps([shared] * 1000)


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_depth": 0}, {"max_depth": 501}, {"max_objects": -1}], ids=repr
)
def test_limits_out_of_range_are_refused_by_name(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        MsgpackSerializer(**options)  # type: ignore[arg-type]
    with pytest.raises(OptionTypeError, match="max_bytes"):
        MsgpackSerializer(max_bytes=1.5)  # type: ignore[arg-type]


# --- msgpack: classes -------------------------------------------------------------------------------------------------


def test_a_class_with_hooks_is_stored_by_them() -> None:
    serializer = MsgpackSerializer()
    serializer.register(Temperature, encode=lambda t: (t.celsius,), decode=lambda state: Temperature(*state), name="t")
    assert survives(serializer, {1: [Temperature(1.5)]})


def test_the_default_registry_serves_every_serializer() -> None:
    class Mine:
        def __eq__(self, other: object) -> bool:
            return type(other) is Mine

        __hash__ = None  # type: ignore[assignment]

    serializer = MsgpackSerializer()
    register_type(Mine, encode=lambda _: None, decode=lambda _: Mine())
    assert survives(serializer, Mine())


def test_a_decode_hook_that_fails_or_lies_makes_corrupt_entries() -> None:
    def fail(_: object) -> object:
        raise KeyboardInterrupt if not fails else ZeroDivisionError

    fails = True
    serializer = MsgpackSerializer()
    serializer.register(Temperature, encode=lambda t: t.celsius, decode=fail)
    stored = serializer.dumps(Temperature(1))
    with pytest.raises(CorruptError, match="ZeroDivisionError"):
        serializer.loads(stored)
    serializer.register(Temperature, encode=lambda t: t.celsius, decode=float)
    with pytest.raises(CorruptError, match="float"):
        serializer.loads(stored)


def test_an_encode_hook_that_fails_refuses_the_value() -> None:
    serializer = MsgpackSerializer()
    serializer.register(Temperature, encode=lambda t: t.missing, decode=float)
    with pytest.raises(UnserializableError, match="AttributeError"):
        serializer.dumps([Temperature(1)])


def test_registrations_that_cannot_work_are_refused() -> None:
    serializer = MsgpackSerializer()

    @dataclass
    class Failure(Exception):
        code: int

    with pytest.raises(OptionTypeError, match="class"):
        serializer.register(1)  # type: ignore[arg-type]
    with pytest.raises(OptionTypeError, match="encode= and decode="):
        serializer.register(Temperature)
    with pytest.raises(OptionTypeError, match="Failure"):
        serializer.register(Failure)  # what Exception keeps is in no field
    with pytest.raises(OptionError, match="both"):
        serializer.register(Temperature, encode=float)
    with pytest.raises(OptionError, match="Decimal"):
        serializer.register(Decimal, encode=str, decode=Decimal)


def test_decoding_looks_in_the_registry_and_never_imports(packer: MsgpackSerializer) -> None:
    stored = packer.dumps(Address("Rome"))
    name = f"{__name__}:Address(city)".encode()
    assert name in stored
    with pytest.raises(CorruptError, match="not registered"):
        MsgpackSerializer().loads(stored)
    module = "antigravity"
    with pytest.raises(CorruptError, match="not registered"):
        packer.loads(packed_instance(f"{module}:fly", []))
    assert module not in sys.modules


def packed_instance(name: str, items: list[object]) -> bytes:
    data: bytes = msgpack.packb([msgpack.ExtType(127, b""), name, *items])
    return b"\xc1" + data


def test_entries_of_a_class_whose_fields_changed_are_not_read_into_the_wrong_ones() -> None:
    def version(*names: str) -> type:
        cls = dataclasses.make_dataclass("Versioned", [(name, int) for name in names])
        cls.__module__ = __name__
        return cls

    old = version("width", "height")
    stored = MsgpackSerializer(types=[old]).dumps(old(1, 2))
    for fields in (("height", "width"), ("width",), ("width", "height", "depth")):
        with pytest.raises(CorruptError, match="fields"):
            MsgpackSerializer(types=[version(*fields)]).loads(stored)


@pytest.mark.parametrize("items", [[], [1], [1, 2, 3]], ids=repr)
def test_an_entry_with_other_than_one_item_per_field_is_corrupt(packer: MsgpackSerializer, items: list[object]) -> None:
    for name in ("Point(x,y)", "Money(cents,currency)"):
        with pytest.raises(CorruptError):
            packer.loads(packed_instance(f"{__name__}:{name}", items))
        assert packer.loads(packed_instance(f"{__name__}:{name}", [1, 2]))


def test_values_of_a_class_that_was_reloaded_are_refused_not_swapped() -> None:
    old, new = (dataclasses.make_dataclass("Reloaded", ["x"]) for _ in range(2))
    serializer = MsgpackSerializer(types=[old, new])
    assert survives(serializer, new(1))
    with pytest.raises(UnserializableError, match="Reloaded"):
        serializer.dumps(old(1))


T = TypeVar("T")
Bound = TypeVar("Bound", bound=Address)
UserId = NewType("UserId", Money)


@dataclass
class Page(Generic[T]):
    items: list[T]
    next: "Page[T] | None" = None
    unknown: "Missing | None" = None  # type: ignore[name-defined]  # noqa: F821


class Row(TypedDict):
    user: "Address"


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (User, User(1, Color.RED, Address("Rome"), [User(2)])),
        (list[User], [User(1)]),
        (User | None, User(1)),
        (Optional[User], User(1)),  # noqa: UP045
        (dict[str, tuple[Address, ...]], {"a": (Address("Rome"),)}),
        (Annotated[list[Address], ["unhashable"]], [Address("Rome")]),
        (Page[Address], Page([Address("Rome")], Page([]))),
        (Bound, Address("Rome")),
        (UserId, Money(cents=1, currency="EUR")),
        (Literal[Color.RED], Color.RED),
        (Row, {"user": Address("Rome")}),
        (list["Point"] | Mode, Mode.READ),
        (Callable[[Address], Color], [Color.BLUE]),
        (Point, Point(1)),
    ],
    ids=str,
)
def test_the_classes_a_return_annotation_names_are_allowed(annotation: object, value: object) -> None:
    serializer = MsgpackSerializer()
    with pytest.raises(UnserializableError):
        serializer.dumps(value)
    serializer.allow(annotation)
    assert survives(serializer, value)


def test_a_class_local_to_a_function_may_refer_to_itself() -> None:
    @dataclass
    class Tree:
        branches: "list[Tree | Address]"

    serializer = MsgpackSerializer()
    serializer.allow(Tree)
    assert survives(serializer, Tree([Address("Rome"), Tree([])]))


def test_inherited_fields_count_among_a_class_s_own() -> None:
    @dataclass
    class Visitor(User):
        badge: int = 0

    serializer = MsgpackSerializer()
    serializer.allow(Visitor)
    assert survives(serializer, Visitor(1, Color.BLUE, Address("Rome"), badge=7))


@pytest.mark.parametrize(
    "annotation", [None, int, "User", Any, T, list, 5, [], Temperature, object()], ids=lambda each: type(each).__name__
)
def test_annotations_that_name_no_class_allow_nothing(annotation: object) -> None:
    serializer = MsgpackSerializer()
    serializer.allow(annotation)
    assert "0 classes" in repr(serializer)
    assert fingerprint(annotation) == bytes(8)


# --- msgpack: untrusted bytes -----------------------------------------------------------------------------------------


def value_or_corrupt(serializer: Serializer, data: bytes) -> None:
    try:
        serializer.loads(data)
    except CorruptError:
        pass


STORED = {
    "msgpack": (MsgpackSerializer(types=CLASSES), MsgpackSerializer(types=CLASSES).dumps(EXACT)),
    "json": (JsonSerializer(), JsonSerializer().dumps({"a": [1, 2.5, None, True, "é", {"b": []}]})),
    "pickle": (PickleSerializer(secret="s"), PickleSerializer(secret="s").dumps(EXACT)),
}


@pytest.mark.parametrize("name", STORED)
def test_cut_off_bytes_are_corrupt(name: str) -> None:
    serializer, stored = STORED[name]
    for end in {*range(min(len(stored), 200)), *range(0, len(stored), 7), len(stored) - 1}:
        with pytest.raises(CorruptError):
            serializer.loads(stored[:end])


@pytest.mark.parametrize("name", STORED)
def test_trailing_bytes_are_corrupt(name: str) -> None:
    serializer, stored = STORED[name]
    for extra in (b"\x00", b"\xc0", b"1", stored):
        with pytest.raises(CorruptError):
            serializer.loads(stored + extra)


@pytest.mark.parametrize("name", STORED)
def test_flipped_bits_give_corrupt_errors_or_values_and_nothing_else(name: str) -> None:
    serializer, stored = STORED[name]
    chance = random.Random(7)
    for _ in range(3000):
        damaged = bytearray(stored)
        for _ in range(chance.choice((1, 1, 3))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        value_or_corrupt(serializer, bytes(damaged))


@pytest.mark.parametrize("name", STORED)
@given(data=st.binary(max_size=200), tagged=st.booleans())
@example(data=b"", tagged=False)
@example(data=b"", tagged=True)
def test_random_bytes_give_corrupt_errors_or_values_and_nothing_else(name: str, data: bytes, tagged: bool) -> None:
    value_or_corrupt(STORED[name][0], b"\xc1" * tagged + data)


NODES = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats() | st.binary()
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=12))
    | st.sampled_from([f"{__name__}:{name}" for name in ("Color", "Mode", "Point(x,y)", "Address(city)")]),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(), inner) | st.builds(
        lambda code, items: [msgpack.ExtType(code, b""), *items],
        st.sampled_from([*range(64, 77), 127]), st.lists(inner, max_size=9),
    ),
)  # fmt: skip


@given(NODES)
def test_well_formed_nonsense_gives_corrupt_errors_or_values_and_nothing_else(value: object) -> None:
    value_or_corrupt(STORED["msgpack"][0], b"\xc1" + msgpack.packb(value))
    value_or_corrupt(STORED["msgpack"][0], msgpack.packb(value))


def test_tags_never_leak_into_values(packer: MsgpackSerializer) -> None:
    mark = msgpack.ExtType(64, b"")
    for value in (mark, [1, mark], {"k": mark}, [mark, mark], [[mark], mark]):
        with pytest.raises(CorruptError):
            packer.loads(b"\xc1" + msgpack.packb(value))
    with pytest.raises(CorruptError, match="says it has none"):
        packer.loads(msgpack.packb([mark]))


@pytest.mark.parametrize("key", [1, None, 1.5, True, [1]], ids=repr)
def test_native_maps_with_other_keys_than_str_and_bytes_are_corrupt(packer: MsgpackSerializer, key: object) -> None:
    pair = b"\x81" + msgpack.packb(key) + b"\x01"
    for data in (pair, b"\xc1" + pair):
        with pytest.raises(CorruptError):
            packer.loads(data)


@pytest.mark.parametrize("name", ["msgpack", "json", "pickle"])
@pytest.mark.parametrize("data", [None, 5, "text", [1]], ids=repr)
def test_what_is_not_bytes_at_all_is_corrupt(name: str, data: Any) -> None:
    with pytest.raises(CorruptError):
        STORED[name][0].loads(data)


@pytest.mark.parametrize("depth", [1025, 2000, 1_000_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa0", b"\xdd\x00\x00\x00\x01", b"\x92\xc7\x00\x40"], ids=repr)
def test_nesting_beyond_all_limits_is_corrupt(packer: MsgpackSerializer, opening: bytes, depth: int) -> None:
    for head in (b"", b"\xc1"):
        with pytest.raises(CorruptError):
            packer.loads(head + opening * depth + b"\x00")


@pytest.mark.parametrize(
    "header", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
               b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xdd\x00\x1f\xff\x00"], ids=repr
)  # fmt: skip
def test_headers_that_claim_more_than_there_is_cost_no_memory(packer: MsgpackSerializer, header: bytes) -> None:
    for head in (b"", b"\xc1"):
        for count in (1, 1000):
            data = head + header * count + bytes(2**21)
            with at_most_mb(30), pytest.raises(CorruptError):
                packer.loads(data)


@pytest.mark.parametrize(
    "item",
    [
        b"\x90",
        b"\x80",
        b"\x81\xa0\xc0",
        b"\x92\xc7\x00\x47\xc0",
        b"\x91\xc7\x00\x41",
        b"\xd4\x15a",
        b"\xcf" + b"\xff" * 8,
    ],
    ids=["lists", "dicts", "one-key dicts", "deques", "sets", "paths", "ints"],
)
def test_small_bytes_that_swell_are_bounded(item: bytes) -> None:
    size = 3 * 2**20
    count = size // len(item)
    data = b"\xc1\xdd" + count.to_bytes(4, "big") + item * count
    serializer = MsgpackSerializer(max_objects=100_000)
    with at_most_mb(25 * size / 2**20 + 100):
        value_or_corrupt(serializer, data)
    if item[0] != 0xCF:
        with pytest.raises(CorruptError, match="max_objects"):
            serializer.loads(data)


def test_the_stated_factor_holds_where_nothing_is_counted(packer: MsgpackSerializer) -> None:
    count = 100_000
    for item in (b"\x90", b"\x80", b"\x81\xa0\xc0", b"\x92\xc7\x00\x47\xc0", b"\x91\xc7\x00\x41", b"\xd4\x15a"):
        data = b"\xc1\xdd" + count.to_bytes(4, "big") + item * count
        with at_most_mb(210 * len(data) / 2**20):
            packer.loads(data)


def colliding_keys(count: int) -> list[tuple[int, ...]]:
    """Distinct keys of one hash, since hash(-1) == hash(-2)."""
    return [tuple(-1 - (number >> bit & 1) for bit in range(17)) for number in range(count)]


@pytest.mark.parametrize("code", [65, 66, 67, 68, 69, 70])
def test_keys_forged_to_collide_are_corrupt_rather_than_slow(packer: MsgpackSerializer, code: int) -> None:
    mark, inner = msgpack.ExtType(code, b""), msgpack.ExtType(64, b"")
    keys = [[inner, *key] for key in colliding_keys(50_000)]
    items = keys if code < 67 else [None] * (code == 70) + [part for key in keys for part in (key, 1)]
    data = b"\xc1" + msgpack.packb([mark, *items])
    began = time.monotonic()
    with pytest.raises(CorruptError, match="hash"):
        packer.loads(data)
    assert time.monotonic() - began < 10  # quadratic, it takes minutes


def test_what_could_not_be_read_back_for_its_hashes_is_not_stored(packer: MsgpackSerializer) -> None:
    few, many = colliding_keys(64), colliding_keys(65)
    assert survives(packer, dict.fromkeys(few))
    for value in (dict.fromkeys(many), set(many), frozenset(many)):
        with pytest.raises(UnserializableError, match="hash"):
            packer.dumps(value)


def test_numbers_that_would_take_forever_are_corrupt(packer: MsgpackSerializer) -> None:
    for text in (b"1e999999999/1", b"1e999999999", b"1" * 5000 + b"/7"):
        with pytest.raises(CorruptError):
            packer.loads(b"\xc1" + msgpack.packb(msgpack.ExtType(7, text)))


def test_zone_keys_do_not_leave_the_zone_database(packer: MsgpackSerializer) -> None:
    for key in (b"../../../etc/passwd", b"/etc/passwd", b"Nowhere/Land", b"Europe"):
        with pytest.raises(CorruptError):
            packer.loads(b"\xc1" + msgpack.packb(msgpack.ExtType(6, key)))


# --- JSON -------------------------------------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@example({"b": 1, "a": [-0.0, 1e308, "é\u2028"]})
def test_json_gives_back_what_it_takes(value: object) -> None:
    assert survives(JsonSerializer(), value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ((1,), "tuple"), ({1: 2}, "int"), ({None: 1}, "NoneType"), ({"a": [{True: 1}]}, "bool"), (math.nan, "float"),
        ([math.inf], "JSON"), (b"x", "bytes"), ({1}, "set"), (Text("x"), "Text"), ({Text("x"): 1}, "Text"),
        (Level.LOW, "Level"), (Number(1), "Number"), (Address("Rome"), "Address"), ("\ud83d\ude00", "surrogates"),
        ([10**5000], "list"), (collections.OrderedDict(), "OrderedDict"), (deep(201), "deeper"),
        (deep(100_000), "deeper"),
    ],
)  # fmt: skip
def test_json_refuses_by_name_what_it_would_change(value: object, named: str) -> None:
    with pytest.raises(UnserializableError, match=named):
        JsonSerializer().dumps(value)


def test_json_refuses_values_that_contain_themselves() -> None:
    line: list[Any] = []
    line.append(line)
    fan: list[Any] = []
    fan += [fan, fan]
    for value in (line, fan):
        with pytest.raises(UnserializableError, match="contain"):
            JsonSerializer(max_bytes=100_000).dumps(value)


@pytest.mark.parametrize("data", [b"NaN", b"[Infinity]", b"\xff", b'"\\ud800', b"[" * 100_000, b"1" * 5000, b"{1:2}"])
def test_json_calls_foreign_bytes_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        JsonSerializer().loads(data)


def test_json_bounds_its_bytes_both_ways() -> None:
    with pytest.raises(UnserializableError, match="max_bytes"):
        JsonSerializer(max_bytes=10).dumps("x" * 10)
    with pytest.raises(CorruptError, match="max_bytes"):
        JsonSerializer(max_bytes=10).loads(b'"xxxxxxxxxx"')


# --- pickle -----------------------------------------------------------------------------------------------------------


def detonate() -> str:
    Bomb.gone_off = True
    return "boom"


class Bomb:
    gone_off = False

    def __reduce__(self) -> Any:
        return detonate, ()


def test_pickle_never_unpickles_what_it_did_not_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bomb, "gone_off", False)
    serializer, bomb = PickleSerializer(secret="mine"), pickle.dumps(Bomb())
    for data in (
        bomb,
        bytes(32) + bomb,
        PickleSerializer(secret="theirs").dumps(Bomb()),
        serializer.dumps(1)[:32] + bomb,
    ):
        with pytest.raises(CorruptError, match="signature"):
            serializer.loads(data)
    assert not Bomb.gone_off
    assert serializer.loads(serializer.dumps(Bomb())) == "boom"  # so the flag would have told
    assert Bomb.gone_off


def test_every_flipped_bit_breaks_the_signature() -> None:
    serializer = PickleSerializer(secret="s")
    stored = serializer.dumps({"a": 1})
    for bit in range(len(stored) * 8):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptError, match="signature"):
            serializer.loads(bytes(damaged))


def test_secrets_rotate() -> None:
    old, both, new = (PickleSerializer(secret=secret) for secret in ("old", [b"new", "old"], b"new"))
    assert both.loads(old.dumps(1)) == 1
    assert new.loads(both.dumps(2)) == 2
    with pytest.raises(CorruptError):
        old.loads(both.dumps(2))


@pytest.mark.parametrize("secret", ["", b"", [], [""], ["a", b""], None])
def test_pickle_without_a_secret_is_refused(secret: Any) -> None:
    with pytest.raises(OptionError, match="secret"):
        PickleSerializer(secret=secret)
    with pytest.raises(OptionTypeError, match="secret"):
        PickleSerializer(secret=[1])  # type: ignore[list-item]


def test_no_repr_shows_a_secret() -> None:
    assert "hush" not in repr(PickleSerializer(secret="hush"))
    assert "hush" not in str(vars(PickleSerializer)).replace("secret", "")


def test_pickle_refuses_by_name_what_does_not_pickle() -> None:
    with pytest.raises(UnserializableError, match="function"):
        PickleSerializer(secret="s").dumps(lambda: 1)
    with pytest.raises(UnserializableError, match="lock"):
        PickleSerializer(secret="s").dumps(threading.Lock())
    with pytest.raises(UnserializableError, match="list"):
        PickleSerializer(secret="s").dumps(deep(100_000))


def test_a_signed_pickle_that_no_longer_loads_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    serializer = PickleSerializer(secret="s")
    stored = serializer.dumps(Address("Rome"))
    assert survives(serializer, Address("Rome"))
    monkeypatch.delattr(sys.modules[__name__], "Address")
    with pytest.raises(CorruptError, match="AttributeError"):
        serializer.loads(stored)


def test_pickle_bounds_its_bytes_both_ways() -> None:
    with pytest.raises(UnserializableError, match="max_bytes"):
        PickleSerializer(secret="s", max_bytes=50).dumps("x" * 50)
    with pytest.raises(CorruptError, match="max_bytes"):
        PickleSerializer(secret="s", max_bytes=50).loads(PickleSerializer(secret="s").dumps("x" * 50))


# --- compression ------------------------------------------------------------------------------------------------------

CODECS: list[Literal["zlib", "zstd"]] = ["zlib", "zstd"]


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary())
def test_what_is_compressed_expands_again_to_the_byte(codec: Literal["zlib", "zstd"], data: bytes) -> None:
    assert decompress(compress(data, codec=codec), codec=codec, limit=len(data)) == data
    if data:
        with pytest.raises(CorruptError, match="expand"):
            decompress(compress(data, codec=codec), codec=codec, limit=len(data) - 1)


@pytest.mark.parametrize("codec", CODECS)
def test_zip_bombs_are_corrupt_in_bounded_memory(codec: Literal["zlib", "zstd"]) -> None:
    bomb = compress(bytes(2**28), codec=codec)
    with at_most_mb(4), pytest.raises(CorruptError, match="expand"):
        decompress(bomb, codec=codec, limit=2**20)


def test_a_zstd_frame_that_hides_or_belies_its_size_is_corrupt() -> None:
    zstandard = pytest.importorskip("zstandard")
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    lying = bytearray(compress(b"x" * 200, codec="zstd"))
    lying[5] -= 1
    for data in (hidden, bytes(lying)):
        with pytest.raises(CorruptError):
            decompress(data, codec="zstd", limit=1000)


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_compressed_bytes_are_corrupt_or_expand_within_the_limit(codec: Literal["zlib", "zstd"]) -> None:
    stored, chance = compress(random.Random(1).randbytes(50) * 40, codec=codec), random.Random(7)
    for end in range(len(stored)):
        with pytest.raises(CorruptError):
            decompress(stored[:end], codec=codec, limit=5000)
    for extra in (b"\x00", stored):
        with pytest.raises(CorruptError):
            decompress(stored + extra, codec=codec, limit=5000)
    for _ in range(2000):
        damaged = bytearray(stored)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(CorruptError):
            assert len(decompress(bytes(damaged), codec=codec, limit=5000)) <= 5000


def test_zlib_is_the_format_other_tools_read() -> None:
    assert zlib.decompress(compress(b"abc", codec="zlib")) == b"abc"


def test_zstd_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(OptionError, match=r"its extra \[zstd\]"):
        compress(b"", codec="zstd")
    with pytest.raises(OptionError, match=r"its extra \[zstd\]"):
        decompress(b"", codec="zstd", limit=1)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(OptionError, match="lzma"):
        compress(b"", codec="lzma")  # type: ignore[arg-type]


# --- fingerprints -----------------------------------------------------------------------------------------------------


def shaped(source: str, annotation: str = "Shape") -> bytes:
    """The fingerprint of an annotation in a module of this source."""
    module = types.ModuleType("shapes")
    sys.modules["shapes"] = module
    head = (
        "from dataclasses import dataclass\nfrom enum import Enum\nfrom typing import *\n"
        "class Inner(NamedTuple):\n    a: int\n"
    )
    try:
        exec(head + textwrap.dedent(source), vars(module))  # noqa: S102
        return fingerprint(eval(annotation, vars(module)))  # noqa: S307
    finally:
        del sys.modules["shapes"]


BASE = "@dataclass\nclass Shape:\n    x: int\n    y: 'list[Inner] | None'\n"


@pytest.mark.parametrize(
    "changed",
    [
        BASE + "    z: int\n",
        BASE.replace("x: int", "w: int"),
        BASE.replace("x: int", "x: str"),
        BASE.replace("list[Inner] | None", "list[Inner]"),
        BASE.replace("list[Inner]", "tuple[Inner]"),
        "class Inner(NamedTuple):\n    a: int\n    b: int\n" + BASE,
        "class Shape(Enum):\n    A = 1\n",
        "class Shape(TypedDict):\n    x: int\n",
    ],
    ids=["added", "renamed", "retyped", "not optional", "other container", "inner changed", "enum", "typed dict"],
)
def test_the_fingerprint_changes_with_the_schema(changed: str) -> None:
    assert shaped(changed) != shaped(BASE)
    assert shaped(changed) == shaped(changed)


def test_the_fingerprint_sees_members_of_enums() -> None:
    one, more, other = (f"class Shape(Enum):\n    {body}" for body in ("A = 1", "A = 1; B = 2", "A = 2"))
    assert len({shaped(one), shaped(more), shaped(other)}) == 3


def test_the_fingerprint_holds_no_addresses() -> None:
    member = "class Shape(Enum):\n    A = object()\n"
    metadata = BASE + "    z: Literal['a', 1] | Annotated[int, object()] = 1\n"
    for source in (member, metadata):
        assert len({shaped(f"kept = [object() for _ in range({n})]\n{source}") for n in range(50)}) == 1


def test_the_fingerprint_ignores_what_changes_no_value() -> None:
    same_schema = [
        BASE,
        BASE.replace("'list[Inner] | None'", "list[Inner] | None"),
        BASE.replace("'list[Inner] | None'", "Optional[Annotated[list[Inner], object()]]"),
        BASE.replace("'list[Inner] | None'", "Union[None, list[Inner]]"),
        BASE + "    def area(self): ...\n    count: ClassVar[int] = 0\n",
    ]
    # An alias of typing and the class behind it are one origin.
    assert len({shaped(source) for source in same_schema}) == 1
    assert shaped(BASE, "list[Shape]") == shaped(BASE, "dict[str, Shape | None]")


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    script = (
        "import tests.test_serializers as t; from cachecraft.serializers import fingerprint;"
        "print(fingerprint(t.Page[t.User] | t.Row | t.Mode).hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert seen == {fingerprint(Page[User] | Row | Mode).hex()}


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_the_serializers_keep_the_protocol_and_their_ids() -> None:
    serializers: list[Serializer] = [MsgpackSerializer(), JsonSerializer(), PickleSerializer(secret="s")]
    assert [serializer.id for serializer in serializers] == [1, 2, 3]
    assert all(isinstance(serializer, Serializer) for serializer in serializers)
    assert all("max_bytes" in repr(each) or "bytes" in repr(each) for each in serializers)
