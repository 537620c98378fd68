"""Keys are never silently wrong (P5): the identity of arguments, the escaping of their text, and glob patterns."""

import collections
import datetime as dt
import enum
import fractions
import functools
import ipaddress
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import textwrap
import threading
import uuid
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecraft import keys as public
from cachecraft._core.errors import OptionError, OptionTypeError, UnkeyableError
from cachecraft._core.keys import (
    canonical,
    canonical_many,
    digest,
    escape,
    escape_literal,
    matcher,
    qualified_name,
    render,
)
from tests.callers import identity
from tests.servers import RedisServer


def key(value: object) -> bytes:
    return canonical(value, "x")


class Color(enum.Enum):
    RED = "r"
    CRIMSON = "r"  # noqa: PIE796 (an alias)
    BLUE = "b"


class Word(enum.StrEnum):
    RED = "red"


class Opaque(enum.Enum):
    ONE = object()
    TWO = object()  # noqa: PIE796 (another object)


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Meters(int):
    pass


class Feet(int):
    pass


class Labelled(float):
    __slots__ = ("unit",)
    unit: str


class Point(NamedTuple):
    x: int
    y: int


class Pair(NamedTuple):
    x: int
    y: int


@dataclass
class User:
    id: int
    cached_at: float = field(default=0.0, compare=False)


@dataclass
class Admin:
    id: int


class Keyed(dict[str, int]):
    def __init__(self, id: int, noise: object) -> None:  # noqa: A002
        super().__init__()
        self.id, self.noise = id, noise

    def __cache_key__(self) -> object:
        return self.id


class Attribute(NamedTuple):
    name: str
    eq: bool


class LikeAttrs:
    __attrs_attrs__ = (Attribute("id", True), Attribute("noise", False))

    def __init__(self, id: int, noise: object) -> None:  # noqa: A002
        self.id, self.noise = id, noise


class LikePydantic:
    model_fields: dict[str, object] = {"id": None}  # noqa: RUF012
    __pydantic_extra__: dict[str, object] | None

    def __init__(self, id: int, **extra: object) -> None:  # noqa: A002
        self.id, self.__pydantic_extra__ = id, extra
        vars(self).update(extra)

    def __str__(self) -> str:
        return "only what has repr=True"


class Shown:
    def __str__(self) -> str:
        return "shown:1"


class Spoken(str):
    __slots__ = ()


class ShownKeyed(Shown):
    def __cache_key__(self) -> object:
        return 1


class Session:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...


def function() -> None: ...


def unordered(*items: object) -> "collections.OrderedDict[Any, object]":
    return collections.OrderedDict((item, None) for item in items)


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
MOMENT = dt.datetime(2024, 10, 27, 2, 30)
PLUS_ONE = dt.timezone(dt.timedelta(hours=1))

# No two of these mean the same.
DIFFERENT: list[object] = [
    *(None, "None", True, 1, 1.0, "1", b"1", "True", -1, 0, False, 0.0, -0.0, math.inf, math.nan),
    *(1 + 0j, complex(1, -0.0)),
    *(2**63, 2**64, -(2**63) - 1, 2**64 - 1, 2**70, float(2**70), str(2**70), -(2**70)),
    *([], (), {}, set(), frozenset(), "", b"", bytearray(), [[]], [()], ([],), [1], (1,), {1}, frozenset({1}), {1: 1}),
    *([1.0], [True], (True,), {True}, {1.0}, {1: True}, {1.0: 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}),
    *([["a", 1], ["b", 2]], [("a", 1), ("b", 2)]),
    *(["a", "b"], "a:b", ["a:b"], ["a", ["b"]], [["a"], "b"], ["ab"], ["a", "b", None], {"a": "b"}, {"a", "b"}),
    *(unordered("a", "b"), unordered("b", "a"), {"a": None, "b": None}, collections.Counter("a"), {"a": 1}),
    *(collections.defaultdict(list, a=1), collections.defaultdict(set, a=1)),
    *(bytearray(b"1"), "?", "??", "\ud800", "\ud801", "\ud83d\ude00", "\U0001f600"),
    *(range(3), range(0, 3, 2), slice(3), slice(0, 3), ...),
    *(Decimal(1), Decimal("1.0"), Decimal("NaN"), Decimal("-0"), fractions.Fraction(1), fractions.Fraction(1, 2)),
    *(MOMENT, MOMENT.replace(fold=1), MOMENT.replace(tzinfo=BERLIN), MOMENT.replace(tzinfo=BERLIN, fold=1)),
    *(MOMENT.replace(tzinfo=PLUS_ONE), MOMENT.replace(tzinfo=dt.UTC), MOMENT.isoformat(), MOMENT.date(), MOMENT.time()),
    *(MOMENT.replace(tzinfo=zoneinfo.ZoneInfo("UTC")), MOMENT.time().replace(tzinfo=dt.UTC), dt.timedelta(1), BERLIN),
    *(dt.timezone(dt.timedelta(hours=1), "X"), PLUS_ONE, uuid.UUID(int=1), str(uuid.UUID(int=1))),
    *(pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), pathlib.Path("a"), pathlib.PurePosixPath("/a")),
    *(ipaddress.ip_address("::1"), ipaddress.ip_address("0.0.0.1"), ipaddress.ip_network("0.0.0.1")),
    *(ipaddress.ip_interface("0.0.0.1"), ipaddress.ip_address("fe80::1%a"), ipaddress.ip_address("fe80::1%b")),
    *(re.compile("a"), re.compile(b"a"), re.compile("a", re.IGNORECASE)),
    *(Opaque.ONE, Opaque.TWO),
    *(Color.RED, Color.BLUE, Word.RED, "red", Right.READ, Right.WRITE, Right.READ | Right.WRITE, Right(0)),
    *(Meters(1), Feet(1), Point(1, 2), Pair(1, 2), (1, 2), User(1), User(2), Admin(1), {"id": 1}),
    *(User, Admin, int, bool, type(None), function, Session.static, len, math.sqrt),
    *(Keyed(1, 0), Keyed(2, 0), LikeAttrs(1, 0), LikeAttrs(2, 0), LikePydantic(1), LikePydantic(1, a=2)),
]  # fmt: skip

REFUSED: list[object] = [
    *(object(), Session(), Session().method, lambda: 1, (x for x in ()), threading.Lock(), functools.partial(function)),
    *([].append, iter([]), memoryview(b""), NotImplemented, [Session()], {"a": {1: (Session(),)}}, {Session()}),
    *(collections.defaultdict(lambda: 1), User(Session()), type("Local", (), {}), str.upper),  # type: ignore[arg-type]
]


def test_no_two_values_that_differ_share_their_bytes() -> None:
    seen: dict[bytes, object] = {}
    for value in DIFFERENT:
        assert key(value) not in seen, (value, seen[key(value)])
        seen[key(value)] = value


def test_the_same_values_as_argument_lists_differ_too() -> None:
    lists = [[value] for value in DIFFERENT] + [[value, 1] for value in DIFFERENT] + [[1, value] for value in DIFFERENT]
    made = {canonical_many(values, ["a", "b"][: len(values)]) for values in lists}
    assert len(made) == len(lists) - 1  # [1, 1] is there twice


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_has_no_stable_identity_is_refused_by_name_with_the_remedies(value: object) -> None:
    with pytest.raises(UnkeyableError, match=r"'db'.*key=.*\{db\.id\}.*leave the parameter out.*__cache_key__"):
        canonical_many([1, value], ["id", "db"])
    with pytest.raises(UnkeyableError, match="'db'"):
        canonical(value, "db")
    with pytest.raises(UnkeyableError, match="'db'"):
        render(value, "db")


def test_the_refusal_names_the_type() -> None:
    with pytest.raises(UnkeyableError, match=rf"{__name__}\.Session"):
        key(Session())


def test_cycles_and_bottomless_nesting_are_refused() -> None:
    cycle: list[object] = []
    cycle.append({"a": cycle})
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(UnkeyableError, match="'x' contains itself or is nested"):
            key(value)


def test_a_cache_key_without_end_is_refused_rather_than_a_recursion_error() -> None:
    class Endless:
        def __cache_key__(self) -> object:
            return self.__cache_key__()

    with pytest.raises(UnkeyableError, match="nested too deeply"):
        key(Endless())


def test_nesting_as_deep_as_data_comes_is_fine() -> None:
    value: object = 1
    for _ in range(60):
        value = {"a": [value]}
    assert key(value) == key(value)


def test_equal_meaning_gives_equal_bytes() -> None:
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key({3, 1, 2}) == key({2, 3, 1})
    assert key(math.nan) == key(-math.nan) == key(math.inf - math.inf)
    assert canonical_many([-math.nan, 1], "ab") == canonical_many([math.nan, 1], "ab")
    assert key(User(1, cached_at=1.0)) == key(User(1, cached_at=2.0))
    assert key(Color.RED) == key(Color.CRIMSON)
    assert key(Keyed(1, noise=object())) == key(Keyed(1, noise=object()))
    assert key(LikeAttrs(1, noise=object())) == key(LikeAttrs(1, noise=object()))
    assert key(LikePydantic(1, a=1, b=2)) == key(LikePydantic(1, b=2, a=1))


def test_a_pydantic_model_is_its_fields() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", id=(int, ...), name=(str, "n"))
    assert key(model(id=1)) == key(model(id=1, name="n")) != key(model(id=2))
    assert render(model(id=1), "x") == digest(key(model(id=1)))


def test_state_of_a_subclass_is_part_of_its_identity() -> None:
    one, two, three = Meters(1), Meters(1), Labelled(1.0)
    two.note = "by hand"  # type: ignore[attr-defined]
    four = Labelled(1.0)
    three.unit, four.unit = "m", "ft"
    assert len({key(Meters(1)), key(two), key(three), key(four), key(Labelled(1.0))}) == 5
    assert key(one) == key(Meters(1))


def test_what_a_subclass_overrides_does_not_reach_its_key() -> None:
    class Liar(str):
        def __str__(self) -> str:
            return "the same"

        def __iter__(self) -> Any:
            return iter("")

        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return True

    assert key(Liar("a")) != key(Liar("b"))


def test_hidden_state_in_c_is_refused_rather_than_overlooked() -> None:
    # A list with a number behind it, which CPython keeps as an example; pandas.Timestamp hides its nanoseconds so.
    spam = pytest.importorskip("xxsubtype").spamlist([1])
    spam.setstate(7)
    with pytest.raises(UnkeyableError, match="state of its own in C"):
        key(spam)


def test_an_unset_field_is_refused() -> None:
    user = User(1)
    del user.id
    with pytest.raises(UnkeyableError, match="field 'id' is not set"):
        key(user)


def test_a_function_that_its_name_does_not_lead_to_is_refused() -> None:
    def inner() -> None: ...

    impostor = functools.wraps(function)(inner)
    assert impostor.__qualname__ == "function"
    for unnamed in (inner, impostor):
        with pytest.raises(UnkeyableError, match="cannot be found by its name"):
            key(unnamed)


def test_cache_key_is_asked_of_the_class_before_the_built_in_rules() -> None:
    tricked = LikeAttrs(1, 0)
    tricked.__cache_key__ = lambda: 7  # type: ignore[attr-defined]
    assert key(tricked) == key(LikeAttrs(1, 0))
    filled = Keyed(1, 0)
    filled["a"] = 1
    filled.__cache_key__ = lambda: 7  # type: ignore[method-assign]
    assert key(filled) == key(Keyed(1, 0))


# Regression tests: bugs of this field.


def test_one_and_the_text_one_do_not_share_a_default_key() -> None:
    assert len({canonical_many([value], ["x"]) for value in (1, "1", 1.0, True, b"1", Decimal(1))}) == 6


def test_a_list_of_two_and_the_joined_text_do_not_share_a_key() -> None:
    assert key(["a", "b"]) != key("a:b")
    assert canonical_many(["a", "b"], "xy") != canonical_many(["a:b"], "x") != canonical_many([["a", "b"]], "x")
    assert public.build("a", "b") != public.build("a:b")


KEYS_SCRIPT = """
    import datetime, enum, json, sys
    from cachecraft._core.keys import canonical_many, qualified_name, render
    class Kind(enum.Enum):
        A = 1
    def named(): ...
    words = {"alpha", "beta", "gamma", "delta", "epsilon"}
    values = [words, frozenset(words), {w: w for w in words}, [Kind.A, named, Kind], datetime.date(2024, 1, 1)]
    print(canonical_many(values, "abcde").hex(), render(words, "words"), qualified_name(named))
"""


def run_script(path: pathlib.Path, *arguments: str, seed: str = "0") -> str:
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}{os.pathsep}{path.parent}"}
    command = [sys.executable, *(arguments or (str(path),))]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=50).stdout


def test_keys_are_the_same_in_every_process_whatever_its_hash_seed_and_main_module(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script_of_keys.py"
    script.write_text(textwrap.dedent(KEYS_SCRIPT))
    outputs = [run_script(script, seed=seed) for seed in ("0", "1", "2")]
    outputs.append(run_script(script, "-c", "import script_of_keys"))
    outputs.append(run_script(script, "-m", "script_of_keys"))
    assert len(set(outputs)) == 1
    assert outputs[0].endswith("script_of_keys.named\n")


def test_a_module_run_with_m_is_called_as_when_it_is_imported(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "package_of_keys"
    package.mkdir()
    (package / "worker.py").write_text(textwrap.dedent(KEYS_SCRIPT))
    started = run_script(package, "-m", "package_of_keys.worker")
    assert started == run_script(package, "-c", "import package_of_keys.worker")
    assert started.endswith("package_of_keys.worker.named\n")


def test_two_scripts_do_not_share_and_a_moved_function_keeps_its_name(tmp_path: pathlib.Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text(textwrap.dedent(KEYS_SCRIPT))
    two.write_text(textwrap.dedent(KEYS_SCRIPT))
    before = run_script(one)
    assert run_script(two) != before
    one.write_text("\n\n\n" + textwrap.dedent(KEYS_SCRIPT))
    assert run_script(one) == before


def test_a_function_is_called_the_same_in_a_child_of_multiprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    main = type(sys)("__mp_main__")
    main.__file__ = "/srv/worker.py"
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    child = type("Child", (), {"__module__": "__mp_main__", "__qualname__": "load"})
    assert qualified_name(child) == "worker.load"


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (function, f"{__name__}.function"),
        (Session.static, f"{__name__}.Session.static"),
        (Session.method, f"{__name__}.Session.method"),
        (len, "builtins.len"),
        (math.sqrt, "math.sqrt"),
        (lambda: 1, None),
        (functools.partial(function), None),
        (functools.update_wrapper(functools.partial(function), function), None),
        (Session().method, None),
        (Session(), None),
        ([].append, None),
    ],
    ids=identity,
)
def test_a_function_is_named_by_module_and_qualname_or_not_at_all(fn: Callable[..., object], name: str | None) -> None:
    assert qualified_name(fn) == name


# Properties.

scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), st.sampled_from([0.0, -0.0, 1.0])),
    *(st.text(st.characters(), max_size=4), st.binary(max_size=4), st.dates(), st.decimals(allow_nan=False)),
)
hashables = st.recursive(
    scalars, lambda s: st.one_of(st.tuples(s), st.tuples(s, s), st.frozensets(s, max_size=3)), max_leaves=4
)
values = st.recursive(
    hashables,
    lambda s: st.one_of(st.lists(s, max_size=3), st.tuples(s, s), st.dictionaries(hashables, s, max_size=3)),
    max_leaves=8,
)


def same(one: object, two: object) -> bool:
    """Equal, and of equal types, all the way down: an oracle that has nothing in common with the code under test."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return repr(one) == repr(two)
    if isinstance(one, Decimal):
        return one.as_tuple() == two.as_tuple()  # type: ignore[attr-defined]
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))  # type: ignore[arg-type]
    if isinstance(one, frozenset):
        return one_to_one(list(one), list(two), same)  # type: ignore[call-overload]
    if isinstance(one, dict):
        return one_to_one(list(one.items()), list(two.items()), same)  # type: ignore[attr-defined]
    return one == two


def one_to_one(ones: list[Any], twos: list[Any], equal: Callable[[object, object], bool]) -> bool:
    if len(ones) != len(twos):
        return False
    for one in ones:
        found = next((index for index, two in enumerate(twos) if equal(one, two)), None)
        if found is None:
            return False
        twos.pop(found)
    return True


def shuffled(value: object, chance: random.Random) -> object:
    """The same meaning, built in another order."""
    if isinstance(value, (list, tuple)):
        return type(value)(shuffled(each, chance) for each in value)
    if isinstance(value, (dict, frozenset)):
        items = list(value.items() if isinstance(value, dict) else value)
        chance.shuffle(items)
        return type(value)(items)
    return value


@given(values, values)
def test_bytes_are_equal_exactly_when_values_and_types_are(one: object, two: object) -> None:
    assert (key(one) == key(two)) == same(one, two)


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_building_means_nothing(value: object, chance: random.Random) -> None:
    assert key(shuffled(value, chance)) == key(value)


@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_argument_lists_are_unambiguous_as_a_whole(one: list[object], two: list[object]) -> None:
    assert (canonical_many(one, "abcd"[: len(one)]) == canonical_many(two, "abcd"[: len(two)])) == same(one, two)


@given(st.text(st.characters()), st.text(st.characters()))
def test_escaping_is_injective_and_leaves_nothing_special(one: str, two: str) -> None:
    assert (escape(one) == escape(two)) == (one == two)
    assert re.fullmatch(r"(?:[A-Za-z0-9_.@-]|%[0-9A-F]{2}|[^\x00-\x7f])*", escape(one))
    escape(one).encode()


@given(st.text("%2Aa*:\x80é\ud800", max_size=4), st.text("%2Aa*:\x80é\ud800", max_size=4))
def test_escaping_is_injective_where_it_is_hardest(one: str, two: str) -> None:
    assert (escape(one) == escape(two)) == (one == two)


def test_escaping_leaves_plain_text_as_it_is() -> None:
    plain = "Grüße_-.@09AZaz漢字"
    assert escape(plain) is plain
    assert escape("a:b*c?[d]\\{}~ %\n/") == "a%3Ab%2Ac%3F%5Bd%5D%5C%7B%7D%7E%20%25%0A%2F"
    assert escape("\ud800") == "%ED%A0%80"
    assert escape_literal("a:b/c,d=e*?[f]\\~ %\n") == "a:b/c,d=e%2A%3F%5Bf%5D%5C%7E%20%25%0A"


def test_a_digest_is_32_hex_digits() -> None:
    assert re.fullmatch("[0-9a-f]{32}", digest(b"x"))
    assert digest(b"x") != digest(b"y")


# Rendering.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        ("1", "1"),
        (True, "True"),
        (None, "None"),
        (1e30, "1e%2B30"),
        ("a:b", "a%3Ab"),
        (b"a", "b%27a%27"),
        ("it is at 0x7", "it%20is%20at%200x7"),
        (Word.RED, "red"),
        (Spoken("it is at 0x7"), "it%20is%20at%200x7"),
        (Meters(3), "3"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (pathlib.PurePosixPath("a/b"), "a%2Fb"),
        (Shown(), "shown%3A1"),
    ],
    ids=identity,
)
def test_a_plain_field_renders_as_str_does(value: object, text: str) -> None:
    assert render(value, "x") == text


@pytest.mark.parametrize(
    "value",
    [
        *(
            [1],
            (1,),
            {1},
            frozenset({1}),
            {"a": 1},
            Point(1, 2),
            User(1),
            LikeAttrs(1, 0),
            LikePydantic(1),
            Keyed(1, 0),
        ),
        *(User, ShownKeyed(), range(2), re.compile("a"), function, 10**5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_text_of_its_own_renders_as_the_digest_of_its_identity(value: object) -> None:
    assert render(value, "x") == digest(key(value))


def test_a_text_that_shows_an_address_is_refused() -> None:
    class Chatty:
        def __str__(self) -> str:
            return object.__repr__(self)

    with pytest.raises(UnkeyableError, match="'chatty'"):
        render(Chatty(), "chatty")


# Patterns.

ALPHABET = "abc-]^*?[\\x\né"


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("user:1*", ["user:1", "user:10", "user:1\n"], ["user:", "xuser:1"]),
        ("a?c", ["abc", "a\nc"], ["ac", "abbc", "aéc"]),
        ("[a-c][^x]", ["ab", "cy"], ["ax", "dy", "a"]),
        (r"\*a", ["*a"], ["xa", r"\*a"]),
        ("*a*b", ["ab", "xaxb", "aabab"], ["aba", "ba"]),
        ("[c-a]", ["b"], ["-"]),
        ("[]a", [], ["]a", "a"]),
        ("[ab", ["a", "b"], ["[ab"]),
        ("a.b|c$", ["a.b|c$"], ["axb"]),
    ],
)
def test_patterns_mean_what_they_mean_in_redis(pattern: str, matching: list[str], other: list[str]) -> None:
    match = matcher(pattern)
    assert [text for text in [*matching, *other] if match(text)] == matching


def test_patterns_match_what_a_real_redis_matches(redis_server: RedisServer) -> None:
    redis = pytest.importorskip("redis")
    chance = random.Random(7)
    names = {"".join(chance.choices(ALPHABET, k=chance.randint(1, 5))) for _ in range(200)}
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.mset(dict.fromkeys(names, b""))
        # No letter beyond ASCII in the patterns: a range that ends in one depends on the CPU that Redis runs on.
        patterns = ["".join(chance.choices("abc*?[]^-\\x\n", k=chance.randint(1, 8))) for _ in range(1500)]
        found = [{name.decode() for name in client.keys(pattern)} for pattern in patterns]
        client.flushall()
    for pattern, theirs in zip(patterns, found, strict=True):
        match = matcher(pattern)
        assert {name for name in names if match(name)} == theirs, pattern


def test_a_pattern_of_many_stars_does_not_explode() -> None:
    assert not matcher("*a" * 40 + "*b")("a" * 5000)


@given(st.text(st.characters()), st.text(st.characters()))
def test_an_escaped_value_matches_only_itself(one: str, two: str) -> None:
    assert matcher(escape(one))(escape(two)) == (one == two)


# The public helpers.


def test_keys_in_the_usual_formats() -> None:
    assert public.build("myapp", "user", 123) == "myapp:user:123"
    assert public.pattern("myapp", "user") == "myapp:user:*"
    assert public.versioned("myapp", "user", 123, 2) == "myapp:user:123:v2"
    query = "tag=rust&sort=date"
    assert public.list_key("myapp", "posts", query) == "myapp:posts:list:0cad9359642c708f754da3158f591f7c"


def test_separators_and_wildcards_within_a_part_are_escaped() -> None:
    assert public.build("a:b", "*") == "a%3Ab:%2A"
    assert public.pattern("a*") == "a%2A:*"


def test_a_query_may_be_a_mapping_in_any_order() -> None:
    one, two = {"tag": "rust", "sort": "date"}, {"sort": "date", "tag": "rust"}
    assert public.list_key("posts", one) == public.list_key("posts", two)
    assert public.list_key("posts", one) != public.list_key("posts", {"tag": "rust"})
    assert len(public.list_key("posts", one, length=16)) == len("posts:list:") + 16


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (public.build, OptionError),
        (lambda: public.build("a", ""), OptionError),
        (public.pattern, OptionError),
        (lambda: public.pattern(""), OptionError),
        (lambda: public.versioned("a"), OptionError),
        (lambda: public.versioned("a", ""), OptionError),
        (lambda: public.list_key("a"), OptionError),
        (lambda: public.list_key("a", "q", length=15), OptionError),
        (lambda: public.list_key("a", "q", length=65), OptionError),
        (lambda: public.list_key("a", "q", length=True), OptionTypeError),
        (lambda: public.list_key("a", "q", length=32.0), OptionTypeError),  # type: ignore[arg-type]
        (lambda: public.list_key("a", 1), OptionTypeError),
        (lambda: public.build("a", object()), UnkeyableError),
    ],
)
def test_parts_that_make_no_key_are_refused(make: Callable[[], str], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
