"""Templates are checked at decoration, and no two calls that differ render alike (P5)."""

import datetime as dt
import string
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cachecraft._core.errors import OptionTypeError, PatternError, TemplateError, UnkeyableError
from cachecraft._core.keys import canonical, digest, matcher
from cachecraft._core.templates import Template, check_pattern

NAMES = ["user_id", "tenant", "a", "b", "c"]


def parse(text: str, annotations: dict[str, object] | None = None, option: str = "key") -> Template:
    return Template.parse(text, NAMES, option=option, annotations=annotations or {})


def pattern(text: str) -> Template:
    return parse(text, option="pattern")


@dataclass
class User:
    id: int


@pytest.mark.parametrize(
    ("text", "arguments", "rendered"),
    [
        ("all", {}, "all"),
        ("user:{user_id}", {"user_id": 7}, "user:7"),
        ("user:{user_id}:x", {"user_id": "a:b*%"}, "user:a%3Ab%2A%25:x"),
        ("{a}:{b}", {"a": True, "b": None}, "True:None"),
        ("u:{a.id}", {"a": User(7)}, "u:7"),
        ("u:{a[id]}", {"a": {"id": 7}}, "u:7"),
        ("u:{a[0]}", {"a": [7]}, "u:7"),
        ("u:{a[0].id}/{a[1][x]}", {"a": [User(7), {"x": "y/z"}]}, "u:7/y%2Fz"),
        ("p:{a:.2f}", {"a": 1.005}, "p:1.00"),
        ("p:{a:>4}", {"a": "x"}, "p:%20%20%20x"),
        ("d:{a:%Y-%m-%d %H:%M}", {"a": dt.datetime(2024, 1, 2, 3, 4)}, "d:2024-01-02%2003%3A04"),
        ("r:{a!r}", {"a": "x"}, "r:%27x%27"),
        ("r:{a!r:>4}", {"a": "x"}, "r:%20%27x%27"),
        ("s:{a!s}", {"a": 1}, "s:1"),
        ("s:{a!s}", {"a": "is at 0x1"}, "s:is%20at%200x1"),
        ("{{{a}}}:x", {"a": 1}, "{1}:x"),
        ("{{user}}:{a}", {"a": 1}, "{user}:1"),
    ],
)
def test_fields_render_as_format_does_and_their_values_are_escaped(
    text: str, arguments: dict[str, object], rendered: str
) -> None:
    assert parse(text).render(arguments) == rendered


def test_hash_keeps_types_apart_where_a_plain_field_does_not() -> None:
    plain, hashed = parse("{a}"), parse("{a:hash}")
    assert plain.render({"a": 1}) == plain.render({"a": "1"}) == "1"
    assert hashed.render({"a": 1}) == digest(canonical(1, "a")) != hashed.render({"a": "1"})


def test_literal_text_of_a_key_is_nothing_special_but_stays_readable() -> None:
    assert parse("a:/,=&#|+;!é_-.@").render({}) == "a:/,=&#|+;!é_-.@"
    assert parse("a*?[b]\\%~ \n").render({}) == "a%2A%3F%5Bb%5D%5C%25%7E%20%0A"


def test_a_template_tells_what_it_looks_at() -> None:
    template = Template.parse("{a.id}:{result}", ["a", "b"], extra=["result"])
    assert template.names == {"a", "result"}
    assert template.text == "{a.id}:{result}"
    assert not template.constant
    assert parse("{{a}}").constant
    assert repr(template) == "Template('{a.id}:{result}', names=['a', 'result'])"


def test_any_name_will_do_where_the_parameters_are_not_known() -> None:
    assert Template.parse("{anything}", None).render({"anything": 1}) == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("~x", "reserved"),
        ("{usr_id}", "'usr_id'.*there are: user_id, tenant, a, b, c.*Did you mean 'user_id'"),
        ("{zzz}", "'zzz', which is not a parameter; there are: user_id, tenant, a, b, c$"),
        ("{}", "positional"),
        ("{0}", "positional"),
        ("{[0]}", "positional"),
        ("{", "not well-formed"),
        ("}", "not well-formed"),
        ("{a", "not well-formed"),
        ("{a!x}", "conversion !x"),
        ("{a:{b}}", "within the format"),
        ("{a.}", "cannot be read"),
        ("{a b}", "'a b'"),
        ("{a}{b}", r"\{a\} ends and \{b\} begins.*Separate them with ':'.*\{a:hash\}"),
        ("{a}-{b}", "alike"),
        ("{a}_x.{b}", "alike"),
        ("{a}é{b}", "alike"),
        ("{a} {b}", "alike"),  # a blank is %20 in the key, and so it is in values
        ("{a}*%{b}", "alike"),
        ("x:{a}:{b}-{c}", r"\{b\} ends"),
        ("{a.id}-{b}", "alike"),
        ("{a:.2f}-{b}", "alike"),
        ("{a}-{b:hash}", "alike"),
    ],
)
def test_a_template_that_cannot_be_right_is_refused_at_decoration(text: str, message: str) -> None:
    for option in ("key", "tags"):
        with pytest.raises(TemplateError, match=message) as caught:
            parse(text, option=option)
        assert str(caught.value).startswith(f"{option}={text!r} ")


@pytest.mark.parametrize("text", ["{a}{b}", "{a}0{b}", "{a}12-{b}", "{a.id}-{b}", "{a:04}-{b}", "{a!s}-{b}"])
def test_an_int_ends_only_where_no_digit_follows_and_only_in_a_plain_field(text: str) -> None:
    with pytest.raises(TemplateError, match="alike"):
        parse(text, {"a": int, "b": int})


def test_a_template_must_be_text() -> None:
    with pytest.raises(OptionTypeError, match="key=7"):
        Template.parse(7, [])  # type: ignore[arg-type]


def test_annotations_may_be_anything() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TemplateError, match="alike"):
        parse("{a}-{b}", {"a": Odd()})


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("{a.id}", None, "'a'.*no attribute 'id'"),
        ("{a[id]}", {}, "'a'.*KeyError"),
        ("{a[0]}", [], "'a'.*IndexError"),
        ("{a[0]}", 7, "'a'.*not subscriptable"),
        ("{a:d}", "x", "'a'.*Unknown format code"),
        ("{a:d}", object(), "'a'.*unsupported format string"),
        ("{a!r}", object(), "'a'.*memory address"),
        ("{a!s}", [object()], "'a'.*container"),
        ("{a!r}", {"x", "y"}, "'a'.*hash seed"),
        ("{a}", object(), "'a'.*stable identity"),
        ("{a.x}", SimpleNamespace(x=object()), "'a.x'.*stable identity"),
        ("{a:hash}", object(), "'a'.*stable identity"),
    ],
)
def test_an_argument_that_does_not_fit_its_field_is_refused_by_name(text: str, value: object, message: str) -> None:
    with pytest.raises(UnkeyableError, match=message):
        parse(text).render({"a": value})


# Ambiguity. All parameters of one template, whatever their types, are to be told from the key.

texts = st.text(st.sampled_from("x5-:%_T é"), max_size=5)
mostly_ints = st.one_of(
    st.integers(-99, 99), st.booleans(), st.none(), st.sampled_from(["", "True", "-", "5", "-5"]), texts
)


def shown(values: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(map(str, values))


@given(
    st.tuples(texts, texts, texts), st.tuples(texts, texts, texts), st.sampled_from(["{a}:{b}:{c}", "{a}x:y{b}-/{c}"])
)
def test_texts_that_differ_render_differently(one: tuple[str, ...], two: tuple[str, ...], text: str) -> None:
    render = parse(text).render
    assert (render(dict(zip("abc", one, strict=True))) == render(dict(zip("abc", two, strict=True)))) == (one == two)


WEAK = ["{a}-{b}-{c}", "{a}x{b}_{c}", "{a}--{b}-{c}", "{a}T{b}é{c}", "{a} {b}%{c}", "{a}-{b}:{c}", "{a}:{b}-{c}"]


@pytest.mark.parametrize("text", WEAK)
@given(one=st.tuples(mostly_ints, mostly_ints, texts), two=st.tuples(mostly_ints, mostly_ints, texts))
def test_fields_announced_as_int_are_told_apart_even_if_they_are_not(
    text: str, one: tuple[object, ...], two: tuple[object, ...]
) -> None:
    assume(shown(one) != shown(two))
    render = parse(text, {"a": int, "b": "int"}).render
    assert render(dict(zip("abc", one, strict=True))) != render(dict(zip("abc", two, strict=True)))


@pytest.mark.parametrize("text", ["{a}{b}{c}", "{a}1{b}x{c}"])
@given(one=st.tuples(mostly_ints, mostly_ints, texts), two=st.tuples(mostly_ints, mostly_ints, texts))
def test_fields_announced_as_bool_are_told_apart_even_if_they_are_not(
    text: str, one: tuple[object, ...], two: tuple[object, ...]
) -> None:
    assume(shown(one) != shown(two))
    render = parse(text, {"a": bool, "b": "bool"}).render
    assert render(dict(zip("abc", one, strict=True))) != render(dict(zip("abc", two, strict=True)))


def test_values_whose_join_is_the_same_do_not_meet() -> None:
    render = parse("{a}-{b}-{c}", {"a": int, "b": int}).render
    assert render({"a": "1-x", "b": 5, "c": "c"}) != render({"a": 1, "b": "x", "c": "5-c"})
    assert render({"a": "", "b": 5, "c": "c"}) != render({"a": -5, "b": "", "c": "c"})
    assert render({"a": "x", "b": 1, "c": "2-3"}) != render({"a": "x-1", "b": 2, "c": "3"})
    render = parse("{a}{b}", {"a": bool}).render
    assert render({"a": 1, "b": 23}) != render({"a": 12, "b": 3})


def test_ints_and_hashes_need_no_strong_separator() -> None:
    assert parse("{a}-{b}", {"a": int}).render({"a": -5, "b": "x-y"}) == "-5-x-y"
    assert parse("{a}-{b}", {"a": "int"}).render({"a": "5", "b": "x"}) == "5-x"  # as `5`, in every plain field
    assert parse("{a}{b}", {"a": bool}).render({"a": True, "b": "x"}) == "Truex"
    assert parse("{a:hash}{b}").render({"a": 1, "b": "x"}) == digest(canonical(1, "a")) + "x"


# Patterns.


@pytest.mark.parametrize("text", ["", "*", "**", "?", "*?", "[ab]", "[a-z]*", "[^x", "[", "*[]a]*]"[:3], r"[\]]*"])
def test_a_pattern_of_wildcards_alone_is_refused_with_the_way_to_say_it(text: str) -> None:
    for check in (check_pattern, pattern):
        with pytest.raises(PatternError, match=r"clear\(\) is the way to say everything"):
            check(text)


@pytest.mark.parametrize(
    "text", ["a*", ":*", r"\*", "*a", "[a]b", "]", "{{*}}", "{a}", "{a}*", "[x]{a}", r"\[{a}", "{a}{b}"]
)
def test_a_pattern_that_names_something_is_taken(text: str) -> None:
    check_pattern(text)
    pattern(text)


def test_checking_a_pattern_takes_no_exponential_time() -> None:
    check_pattern("[" * 5000 + "]x")
    pattern("\\[" * 5000 + "{a}")


@pytest.mark.parametrize("text", ["x[{a}]", "x{b}[{a}]", "x[{a}", "x[ab{a}]", r"x[\]{a}]"])
def test_a_field_within_a_class_is_refused_for_its_value_would_be_a_wildcard(text: str) -> None:
    with pytest.raises(PatternError, match=r"\{a\}.*wildcard"):
        pattern(text)


def test_wildcards_written_in_a_pattern_stay_and_those_in_values_match_only_themselves() -> None:
    assert pattern("user:{a}*").render({"a": "*"}) == "user:%2A*"
    assert pattern("{a}").render({"a": "*"}) == "%2A"
    assert pattern("x[a-c]?{{*").render({}) == "x[a-c]?{*"


@given(texts, texts)
def test_a_pattern_finds_the_keys_of_its_value_and_no_others(one: str, two: str) -> None:
    key = parse("user x%:{a}:page:{b}").render({"a": two, "b": 1})
    assert matcher(pattern("user x%:{a}:*").render({"a": one}))(key) == (one == two)


@pytest.mark.parametrize("literal", [*string.printable, "é", "\x80"])
def test_literal_text_means_the_same_in_a_key_and_in_a_pattern(literal: str) -> None:
    key_text = literal * 2 if literal in "{}" else literal
    key = parse(f"a{key_text}:{{a}}").render({"a": 1})
    quoted = f"\\{literal}" if literal in "*?[]\\" else key_text
    found: Any = matcher(pattern(f"a{quoted}:*").render({}))
    assert found(key)
    assert not found("ab:1" if literal != "b" else "ac:1")
