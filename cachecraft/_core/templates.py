"""Key, tag and pattern templates: checked once at decoration, rendered at each call; knows no signature and no cache.

Two calls whose fields render differently never share a key: rendered values are escaped, and two fields are kept apart
by literal text that no escaped value can contain, or else the first of them ends by itself.
"""

from __future__ import annotations

import difflib
import itertools
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn, final

from cachecraft._core.errors import OptionTypeError, PatternError, TemplateError, UnkeyableError
from cachecraft._core.keys import Escaped, canonical, digest, escape, escape_literal, is_structure, render

_FIELD: Final = re.compile(r"(?P<name>[^.\[\]]*)(?P<path>(?:\.[^.\[\]]+|\[[^\[\]]+\])*)")
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]+)\]")
_WILDCARDS: Final = re.compile(r"(?:[*?]|\[(?:\\.|[^\]])*+\]?)*+", re.DOTALL)
_CLOSED_CLASSES: Final = re.compile(r"(?:\\.|\[(?:\\.|[^\]])*+\]|[^\[\\])*+\\?", re.DOTALL)
_PATTERN_PIECE: Final = re.compile(r"\\(.)|([*?\[\]])|[^\\*?\[\]]+|\\", re.DOTALL)
_CONVERSIONS: Final[dict[str, Callable[[object], str]]] = {"s": str, "r": repr, "a": ascii}

# Texts of which none is the beginning of another: of an int if no digit follows, of a bool always.
_SELF_ENDING_INT: Final = re.compile(r"-?[0-9]+|True|False|None")
_SELF_ENDING_BOOL: Final = re.compile(r"True|False|None")

_Arguments = Mapping[str, object]
_NO_ANNOTATIONS: Final[Mapping[str, object]] = MappingProxyType({})


def check_pattern(text: str) -> None:
    """Refuse a pattern that would mean everything.

    Raises:
        PatternError: it is empty or made of wildcards alone.
    """
    if not isinstance(text, str):
        raise OptionTypeError(f"pattern={text!r} must be text such as 'user:*'")
    if _WILDCARDS.fullmatch(text):
        raise PatternError(f"pattern={text!r} matches everything; clear() is the way to say everything")


@final
class Template:
    """A checked template; ``render`` makes text of it. ``names`` are the parameters it looks at."""

    __slots__ = ("_fields", "_head", "names", "text")

    def __init__(self, text: str, head: str, fields: Sequence[tuple[_Field, str]]) -> None:
        self.text = text
        self.names = frozenset(field.name for field, _ in fields)
        self._head = head
        self._fields = tuple((field.renderer(), tail) for field, tail in fields)

    @classmethod
    def parse(
        cls,
        text: str,
        parameters: Sequence[str] | None,
        *,
        option: str = "key",
        extra: Sequence[str] = (),
        annotations: Mapping[str, object] = _NO_ANNOTATIONS,
    ) -> Template:
        """The template of an option. ``parameters=None``: they are not known, any name will do.

        Raises:
            TemplateError: it does not fit the parameters, or could render two calls alike.
            PatternError: it is a pattern made of wildcards alone.
            OptionTypeError: it is not text.
        """
        return _Parser(option, text, parameters, extra, annotations).template()

    @property
    def constant(self) -> bool:
        return not self._fields

    def may_render(self, text: str) -> bool:
        """Whether there may be arguments for which it renders so, as far as what stands between its fields tells."""
        if not text.startswith(self._head):  # most of those that are asked about
            return False
        parts = [self._head, *(tail for _, tail in self._fields)]
        return re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None

    def render(self, arguments: _Arguments) -> str:
        """The text for these arguments.

        Raises:
            UnkeyableError: an argument has no stable identity, or not the attribute, item or format asked for.
        """
        text = self._head
        for field, tail in self._fields:
            text += field(arguments) + tail
        return text

    def __repr__(self) -> str:
        return f"Template({self.text!r}, names={sorted(self.names)})"


@dataclass(slots=True)
class _Field:
    """One ``{name.path!conversion:spec}``."""

    source: str
    name: str
    steps: tuple[tuple[str, str], ...]
    conversion: str | None
    spec: str
    ending: re.Pattern[str] | None = None
    """What its text must look like where nothing but the text itself tells where it ends."""

    @property
    def plain(self) -> bool:
        return not (self.steps or self.conversion or self.spec)

    def renderer(self) -> Callable[[_Arguments], str]:
        show = self._show_plain if self.plain else self._show
        if (ending := self.ending) is None:
            return show

        def show_ended(arguments: _Arguments) -> str:
            text = show(arguments)
            # An annotation is no proof. What is not as announced gets a beginning and an end that no other text has.
            return text if ending.fullmatch(text) else f"%{text}:"

        return show_ended

    def _show_plain(self, arguments: _Arguments) -> str:
        return render(arguments[self.name], self.name)

    def _show(self, arguments: _Arguments) -> str:
        value = self._value(arguments)
        if self.conversion is None and not self.spec:
            return render(value, self.source)
        if self.conversion is not None:
            value = self._text(value, _CONVERSIONS[self.conversion])
        if self.spec == "hash":
            return digest(canonical(value, self.source))
        return escape(self._text(value, lambda value: format(value, self.spec)))

    def _value(self, arguments: _Arguments) -> Any:
        value: Any = arguments[self.name]
        try:
            for attribute, item in self.steps:
                value = getattr(value, attribute) if attribute else value[int(item) if item.isdecimal() else item]
        except (AttributeError, LookupError, TypeError) as error:
            self._refuse(f"it has no such part: {error!r}", error)
        return value

    def _text(self, value: object, convert: Callable[[object], str]) -> str:
        kind = type(value)
        if is_structure(kind) and kind.__str__ is object.__str__ and kind.__format__ is object.__format__:
            self._refuse("the text of a container is not its identity; that of a set depends on the hash seed")
        try:
            text = convert(value)
        except (TypeError, ValueError) as error:
            self._refuse(f"it cannot be written so: {error}", error)
        if " at 0x" in text and not isinstance(value, (str, bytes)):
            self._refuse("its text holds a memory address")
        return text

    def _refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        raise UnkeyableError(
            f"parameter {self.name!r} does not fit the field {{{self.source}}}: {reason}. "
            f"Write {{{self.name}:hash}}, or name a part of it that is stable"
        ) from cause


class _Parser:
    """The reading of one template, with what its messages need to say."""

    def __init__(
        self,
        option: str,
        text: str,
        parameters: Sequence[str] | None,
        extra: Sequence[str],
        annotations: Mapping[str, object],
    ) -> None:
        if not isinstance(text, str):
            raise OptionTypeError(f"{option}={text!r} must be a template, such as 'user:{{user_id}}'")
        self.option = option
        self.text = text
        self.known = None if parameters is None else [*parameters, *extra]
        self.annotations = annotations

    def template(self) -> Template:
        is_pattern = self.option == "pattern"
        if is_pattern:
            check_pattern(self.text)
        if not self.text:
            self._fail("is empty; a key must name something")
        if self.text.startswith("~"):
            self._fail("begins with '~', which is reserved for the cache itself; begin with another character")
        head, fields = self._split()
        if is_pattern:
            self._check_classes(head, fields)
            return Template(self.text, escape_pattern(head), [(field, escape_pattern(tail)) for field, tail in fields])
        fields = [(field, escape_literal(tail)) for field, tail in fields]
        self._keep_apart(fields)
        return Template(self.text, escape_literal(head), fields)

    def _split(self) -> tuple[str, list[tuple[_Field, str]]]:
        """The literal text at the beginning, then each field with the literal text behind it."""
        head = ""
        fields: list[tuple[_Field, str]] = []
        try:
            pieces = list(string.Formatter().parse(self.text))
        except ValueError as error:
            self._fail(f"is not well-formed: {error}. Write {{{{ and }}}} for braces that are not fields")
        for literal, source, spec, conversion in pieces:
            if fields:
                field, tail = fields[-1]
                fields[-1] = field, tail + literal
            else:
                head += literal
            if source is not None:
                fields.append((self._field(source, conversion, spec or ""), ""))
        return head, fields

    def _field(self, source: str, conversion: str | None, spec: str) -> _Field:
        match = _FIELD.fullmatch(source)
        if match is None:
            self._fail(
                f"has a field {{{source}}} that cannot be read; write {{name}}, {{name.attribute}} or {{name[item]}}"
            )
        name = match["name"]
        if not name or name.isdecimal():
            self._fail(f"has a positional field {{{source}}}; name a parameter{self._choice()}")
        if not name.isidentifier() or (self.known is not None and name not in self.known):
            self._fail(f"names {name!r}, which is not a parameter{self._choice(name)}")
        if conversion is not None and conversion not in _CONVERSIONS:
            self._fail(f"has an unknown conversion !{conversion}; there are !s, !r and !a")
        if "{" in spec or "}" in spec:
            self._fail(f"has a field within the format of {{{source}}}; write the format out")
        steps = tuple((attribute, item) for attribute, item in _STEP.findall(match["path"]))
        return _Field(source, name, steps, conversion, spec)

    def _keep_apart(self, fields: list[tuple[_Field, str]]) -> None:
        for (field, literal), (following, _) in itertools.pairwise(fields):
            # "%" is in escaped values, too. Whatever else escape() changes is in none.
            if field.spec == "hash" or any(char != "%" and escape(char) != char for char in literal):
                continue
            field.ending = self._ending(field, literal)
            if field.ending is None:
                self._fail(
                    f"could render two calls alike: nothing tells where {{{field.source}}} ends and "
                    f"{{{following.source}}} begins. Separate them with ':', or write {{{field.source}:hash}}"
                )

    def _ending(self, field: _Field, literal: str) -> re.Pattern[str] | None:
        annotation = self.annotations.get(field.name) if field.plain else None
        if _says(annotation, bool):
            return _SELF_ENDING_BOOL
        if _says(annotation, int) and literal and literal[0] not in string.digits:
            return _SELF_ENDING_INT
        return None

    def _check_classes(self, head: str, fields: list[tuple[_Field, str]]) -> None:
        before = head
        for field, tail in fields:
            if not _CLOSED_CLASSES.fullmatch(before):
                raise PatternError(
                    f"pattern={self.text!r} has the field {{{field.source}}} within [...], where its value would act "
                    f"as a wildcard; close the bracket before it, or write \\[ for the character itself"
                )
            before += tail

    def _choice(self, name: str = "") -> str:
        if self.known is None:
            return ""
        close = difflib.get_close_matches(name, self.known, 1)
        return f"; there are: {', '.join(self.known) or 'none'}" + (f". Did you mean {close[0]!r}?" if close else "")

    def _fail(self, reason: str) -> NoReturn:
        raise TemplateError(f"{self.option}={self.text!r} {reason}")


def _says(annotation: object, kind: type) -> bool:
    return annotation is kind or (isinstance(annotation, str) and annotation == kind.__name__)


def escape_pattern(text: str) -> str:
    """Literal text of a pattern, so that it meets what ``escape_literal`` made of the same text in a key."""
    if isinstance(text, Escaped):
        return text
    return _PATTERN_PIECE.sub(_escape_piece, text)


def _escape_piece(match: re.Match[str]) -> str:
    escaped, wildcard = match.groups()
    if wildcard is not None:
        return wildcard
    if escaped is not None and escape_literal(escaped) == escaped:
        return match[0]
    return escape_literal(escaped if escaped is not None else match[0])
