"""Checks every serializer shares, and one step of a walk through lists and dicts; knows no format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from cachecraft._core.errors import CorruptError, OptionError, OptionTypeError, UnserializableError

MAX_BYTES = 64 * 2**20


def positive(name: str, number: int, *, at_most: int | None = None) -> int:
    """The number, if it is a positive int no greater than `at_most`."""
    if type(number) is not int:
        raise OptionTypeError(f"{name} must be an int, not {type(number).__name__}")
    if number < 1 or (at_most is not None and number > at_most):
        raise OptionError(f"{name} must be at least 1{f' and at most {at_most}' if at_most else ''}, not {number}")
    return number


def spell(cls: type) -> str:
    """A class as an error message names it: `int`, `decimal.Decimal`."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def check_outgoing(data: bytes, max_bytes: int) -> bytes:
    """The data, unless nobody could read it back."""
    if len(data) > max_bytes:
        raise UnserializableError(f"the value takes {len(data)} bytes; raise max_bytes={max_bytes} or return less")
    return data


def check_incoming(data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise CorruptError(f"{len(data)} stored bytes exceed max_bytes={max_bytes}")


def too_many_parts() -> UnserializableError:
    return UnserializableError("the value has more parts than max_bytes has room for; does it contain itself?")


def keys_in(level: Sequence[Any]) -> Iterator[Any]:
    """The keys of all dicts among the values of one level."""
    return chain.from_iterable([value for value in level if type(value) is dict])


def values_below(level: Sequence[Any], room: int) -> list[Any]:
    """All values one level further down.

    Whole levels go through the C speed of itertools; visiting values one by one would cost more than packing them.
    Refuses more than `room` values, so that a value which contains itself twice cannot fill the memory.
    """
    dicts = [value for value in level if type(value) is dict]
    lists = [value for value in level if type(value) is list]
    if sum(map(len, lists)) + sum(map(len, dicts)) > room:
        raise too_many_parts()
    return [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, dicts))]
