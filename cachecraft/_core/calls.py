"""What a call of one cached function means: its arguments in order, its call key, its wire key and its tags.

It never calls the function and knows no entry. A *wire key* names a result everywhere, ``{namespace}:{name}:{digest}``
or ``{namespace}:{template}``; a *call key* is the in-process tuple that finds it without making a string.
"""

from __future__ import annotations

import datetime
import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from cachecraft._core.errors import OptionError, OptionTypeError, UnkeyableError
from cachecraft._core.keys import canonical, canonical_many, digest, escape, escape_literal
from cachecraft._core.templates import Template

Values = tuple[Any, ...]
"""The arguments of a call in the order of the parameters, defaults filled in."""

LONGEST_TAG: Final = 512
MOST_TAGS: Final = 250
"""Tags of one entry: their number is one byte there, and some are the cache's own."""

ATOMIC: Final = frozenset({int, str, bytes, bool, type(None), datetime.date, uuid.UUID})
"""Types whose equal values mean the same, given the type: what a call key may hold.

``float`` is not among them (0.0 equals -0.0), nor ``Decimal`` (1.0 equals 1.00), nor aware datetimes (the same
instant in two zones), nor containers (``(1,)`` equals ``(True,)``); those find their entry by the wire key.
"""


class Key(str):
    """A wire key as ``f.key(...)`` makes it. The imperative methods of a cache take it as it is, with no prefix."""

    __slots__ = ("home", "values")

    home: Any
    """The function whose call this is the key of, and its arguments: its results are kept as that function says."""
    values: Values

    def __reduce__(self) -> tuple[Any, ...]:
        return Key, (str(self),)


def prefix_of(namespace: str) -> str:
    """What every key of a namespace begins with; escaped, so that no namespace is the beginning of another."""
    return escape(namespace) + ":"


class Subject:
    """The identity of one decorated function: how its calls become keys."""

    def __init__(
        self,
        signature: inspect.Signature,
        *,
        name: str | None,
        label: str,
        key: str | Callable[..., str] | None,
        tags: Sequence[str] | Callable[..., Sequence[str]],
        vary: Callable[[], object] | None,
        version: str | None,
    ) -> None:
        self.by_hand = name is None
        """It stands for what is stored by hand, under keys that the user makes."""
        self.stem = f"{name}:" if name else ""
        """What the keys of this function begin with, where no template says otherwise."""
        self.label = label
        self.parameters = tuple(signature.parameters)
        self._kinds = tuple(each.kind for each in signature.parameters.values())
        annotations = {each.name: each.annotation for each in signature.parameters.values()}
        self.maker = key if callable(key) else None
        self.template = (
            Template.parse(key, self.parameters, option="key", annotations=annotations)
            if isinstance(key, str)
            else None
        )
        if key is not None and not callable(key) and not isinstance(key, str):
            raise OptionTypeError(f"key={key!r} must be a template such as 'user:{{user_id}}', or a function")
        self.tag_maker = tags if callable(tags) else None
        self.tags = () if callable(tags) else self._tag_templates(tags, annotations)
        self.vary = vary
        self.version = version
        #: The first parameter is the object a method belongs to, and nothing else names that object.
        self.owned = bool(self.parameters) and self.parameters[0] in ("self", "cls") and key is None
        self._names = self.parameters[1:] if self.owned else self.parameters
        #: The parameters that a call key is made of: those the templates name, else all that say something. Those of
        #: the tags are among them, since no call is answered with what lacks its tags.
        self.keyed = self._names if self.template is None else self._named_by(self.template, *self.tags)
        self._at = tuple(self.parameters.index(name) for name in self.keyed)

    def _tag_templates(self, tags: Sequence[str], annotations: Mapping[str, object]) -> tuple[Template, ...]:
        if not is_texts(tags):
            raise OptionTypeError(f"tags={tags!r} must be a list of strings, such as tags=['tenant:{{tenant}}']")
        if len(tags) > MOST_TAGS:
            raise OptionError(f"tags= names {len(tags)} tags; an entry carries {MOST_TAGS} at the most")
        return tuple(Template.parse(tag, self.parameters, option="tags", annotations=annotations) for tag in tags)

    def _named_by(self, *templates: Template) -> tuple[str, ...]:
        return tuple(name for name in self.parameters if any(name in each.names for each in templates))

    @property
    def explicit(self) -> bool:
        """Whether the user wrote the key, so that functions whose keys are the same share their entries."""
        return self.template is not None or self.maker is not None

    @property
    def named(self) -> bool:
        """Whether calls that differ may mean the same key, so that only the wire key tells."""
        return self.explicit or self.vary is not None

    def arguments(self, values: Values) -> dict[str, Any]:
        return dict(zip(self.parameters, values, strict=True))

    def owner(self, values: Values) -> object:
        """The object whose method this is, where entries belong to it rather than to something stable in it."""
        return values[0] if self.owned and not stable(values[0]) else None

    def call_key(self, values: Values) -> tuple[Any, object]:
        """``(key, kind)`` as the generated wrapper makes them; the kind is ``None`` unless there is one argument."""
        rest = [values[at] for at in self._at]
        if len(rest) == 1:
            return rest[0], type(rest[0])
        return (*rest, *map(type, rest)), None

    def wire(self, prefix: str, values: Values, serial: int | None = None) -> Key:
        """The wire key of a call. ``serial`` stands for an owner that has no stable identity of its own.

        Raises:
            UnkeyableError: an argument has no stable identity; the message names it.
        """
        if self.template is not None:
            body = self.template.render(self.arguments(values))
        elif self.maker is not None:
            body = self._made(values)
            if isinstance(body, Key):
                return body
        else:
            body = self._digest(values, serial)
        if self.vary is not None:
            body = f"{body}:{digest(canonical(self.vary(), 'vary'))}"
        return Key(prefix + body)

    def _made(self, values: Values) -> str:
        assert self.maker is not None
        args, kwargs = self._as_called(values)
        made: object = self.maker(*args, **kwargs)
        if not isinstance(made, str) or not made:
            raise UnkeyableError(f"key= of {self.label} returned {_kind(made)}; it must return text that is not empty")
        return made if isinstance(made, Key) else escape_literal(made)

    def _digest(self, values: Values, serial: int | None) -> str:
        if not self.owned:
            return f"{self.stem}{digest(canonical_many(values, self.parameters))}"
        rest = digest(canonical_many(values[1:], self._names))
        if serial is not None:
            return f"{self.stem}@{serial}:{rest}"
        return f"{self.stem}{digest(canonical(values[0], self.parameters[0]))}:{rest}"

    def rendered_tags(self, values: Values) -> tuple[str, ...]:
        """The tags that follow from the arguments alone."""
        if not self.tags:
            return ()
        arguments = self.arguments(values)
        return tuple(dict.fromkeys(rendered_tag(tag, arguments) for tag in self.tags))

    def tags_of_result(self, values: Values, result: object) -> tuple[str, ...]:
        """The tags that a callable makes of the result and the arguments; the result comes first."""
        if self.tag_maker is None:
            return ()
        args, kwargs = self._as_called(values)
        made = self.tag_maker(result, *args, **kwargs)
        if not is_texts(made):
            raise OptionTypeError(f"tags= of {self.label} returned {_kind(made)}; it must return a list of strings")
        return tuple(dict.fromkeys(check_tag(escape_literal(tag)) for tag in made))

    def _as_called(self, values: Values) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the function itself is given them: by position, by keyword, and the rest of both."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, kind, value in zip(self.parameters, self._kinds, values, strict=True):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args += value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                kwargs |= value
            elif kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return args, kwargs

    def __repr__(self) -> str:
        return f"<Subject {self.label}>"


def stable(value: object) -> bool:
    """Whether an object can stand in a key by itself, rather than by being that very object."""
    kind = type(value)
    if isinstance(value, type):
        return "<locals>" not in value.__qualname__
    if hasattr(kind, "__cache_key__"):
        return True
    params = getattr(kind, "__dataclass_params__", None)
    return (params is not None and params.frozen) or kind in ATOMIC or issubclass(kind, (str, int, float, tuple))


def rendered_tag(template: Template, arguments: Mapping[str, object]) -> str:
    """The tag for these arguments, as ``invalidate(tags=...)`` makes it of the same text.

    Nothing in a tag separates, so what a template escapes in its values would only keep the two from meeting.
    """
    return check_tag(escape_literal(unquote(template.render(arguments), errors="surrogatepass")))


def is_texts(thing: object) -> bool:
    """Whether it is a collection of strings, and not a string itself."""
    return isinstance(thing, (list, tuple, set, frozenset)) and all(isinstance(each, str) for each in thing)


def check_tag(tag: str) -> str:
    if not tag:
        raise OptionError("tags= rendered an empty tag; a tag must say what it stands for")
    if len(tag) > LONGEST_TAG:
        raise OptionError(f"tags= rendered {len(tag)} characters; {LONGEST_TAG} are the limit, hash long values")
    return tag


def _kind(made: object) -> str:
    return "''" if made == "" else type(made).__qualname__
