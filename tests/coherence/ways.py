"""The ways to keep an item, and all that may be done to it: by key, pattern, tag, tag of the result, by hand, aside.

Everything here is written once for both colours: what an operation returns may have to be awaited, and ``drive`` knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import Any

from cachecraft import Cache
from tests.coherence.history import ITEMS

Step = Callable[[], Any]
Steps = Generator[Step, Any, Any]
"""Yields what is to be called, and is sent what that came to."""


def drive(steps: Steps) -> Any:
    """Perform the steps in this thread."""
    resume, value = steps.send, None
    while True:
        try:
            step = resume(value)
        except StopIteration as end:
            return end.value
        try:
            resume, value = steps.send, step()
        except Exception as error:
            resume, value = steps.throw, error


async def adrive(steps: Steps) -> Any:
    """As ``drive``, in this task."""
    resume, value = steps.send, None
    while True:
        try:
            step = resume(value)
        except StopIteration as end:
            return end.value
        try:
            result = step()
            resume, value = steps.send, await result if isawaitable(result) else result
        except Exception as error:
            resume, value = steps.throw, error


@dataclass
class Colour:
    """Functions and methods of one colour."""

    is_async: bool

    def on(self, cache: Cache, method: str) -> Callable[..., Any]:
        return getattr(cache, f"a{method}" if self.is_async else method)  # type: ignore[no-any-return]

    def pause(self, seconds: float) -> Any:
        return asyncio.sleep(seconds) if self.is_async else time.sleep(seconds)

    def function(self, name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        """A function of this colour, called the same in both: its results are then the same function's."""

        def load(item: int) -> Any:
            return drive(body(item))

        async def aload(item: int) -> Any:
            return await adrive(body(item))

        made = aload if self.is_async else load
        made.__qualname__ = made.__name__ = name
        return made


@dataclass
class Way:
    """One way to keep items, and what callers may do with one. ``peek`` asks Redis, and nothing nearer."""

    items: Sequence[int]
    reads: list[Callable[[int], Any]]
    peek: Callable[[int], Any]
    drops: list[Callable[[int], Any]]
    place: Callable[[], Any]
    """Where this process holds what it holds near."""
    writes: list[Callable[[int], Any]] = field(default_factory=list)
    """Each commits a version, answers it, and invalidates as it ends."""
    put: Callable[[Any, int], Any] | None = None
    rewrites: list[Callable[[int], Any]] = field(default_factory=list)
    """Each commits, and keeps the new value in the place of the old; what it answers does not tell whether it did."""
    drop_all: Callable[[], Any] | None = None


def ways(near: Cache, plain: Cache, colour: Colour, load: Callable[..., Any], commit: Callable[..., Any]) -> list[Way]:
    """All of them; ``load`` and ``commit`` are bodies, as generators. The items are dealt out among them."""
    invalidate = colour.on(near, "invalidate")
    loader, writer = colour.function("load", load), partial(colour.function, body=commit)

    def of_function(
        at: int, name: str, options: dict[str, Any], drop: Callable[[int], Any], how: dict[str, Any]
    ) -> Way:
        function = near.cached(**options)(colour.function(name, load))
        kept = plain.cached(**options)(Colour(False).function(name, load))
        committed = near.invalidates(function)(writer("commit"))

        def rewrite(item: int) -> Any:
            def steps() -> Steps:
                yield partial(colour.function("commit", commit), item)
                yield partial(function.refresh, item)

            return adrive(steps()) if colour.is_async else drive(steps())

        return Way(
            items=range(at, ITEMS, 6),
            reads=[function, function, function, function.get],
            peek=kept.get,
            drops=[function.invalidate, drop],
            place=function.__cachecraft__.function,  # type: ignore[attr-defined]  # how tests look inside
            writes=[committed, near.invalidates(**how)(writer("commit"))],
            put=function.set,
            rewrites=[rewrite, near.updates(function)(_valued(colour, commit))],
            drop_all=function.invalidate_all,
        )

    by_hand = Way(
        items=range(4, ITEMS, 6),
        reads=[
            lambda item: colour.on(near, "get_or_load")(f"hand:{item}", partial(loader, item)),
            lambda item: colour.on(near, "get")(f"hand:{item}"),
        ],
        peek=lambda item: plain.get(f"hand:{item}"),
        drops=[
            lambda item: colour.on(near, "delete")(f"hand:{item}"),
            lambda item: invalidate(key=f"hand:{item}"),
            lambda item: invalidate(pattern=f"hand:{item}"),
        ],
        place=lambda: near._by_hand._loose,
        put=lambda value, item: colour.on(near, "set")(f"hand:{item}", value),
    )
    # Two functions with one key, as two releases are: each keeps its own results beside the other's.
    aside = of_function(
        5,
        "aload" if colour.is_async else "load",
        {"ttl": 60, "key": "aside:{item}"},
        lambda item: invalidate(key=f"aside:{item}"),
        {"key": "aside:{item}"},
    )
    aside.drop_all = None  # that would be its own only,
    del aside.rewrites[0]  # and so would be its refresh
    return [
        of_function(
            0,
            "by_key",
            {"ttl": 60, "key": "key:{item}"},
            lambda item: invalidate(key=f"key:{item}"),
            {"key": "key:{item}"},
        ),
        of_function(
            1,
            "by_pattern",
            {"ttl": 2, "key": "pattern:{item}:x", "refresh_ahead": 0.5, "stale": 1},
            lambda item: invalidate(pattern=f"pattern:{item}:*"),
            {"pattern": "pattern:{item}:*"},
        ),
        of_function(
            2,
            "by_tag",
            {"ttl": 60, "tags": ["item:{item}", "all"]},
            lambda item: invalidate(tags=[f"item:{item}"]),
            {"tags": ["item:{item}"]},
        ),
        of_function(
            3,
            "by_result",
            {"ttl": 60, "tags": lambda result, item: [f"result:{result[0]}"]},
            lambda item: invalidate(tags=[f"result:{item}"]),
            {"tags": ["result:{item}"]},
        ),
        by_hand,
        aside,
    ]


def _valued(colour: Colour, commit: Callable[..., Any]) -> Callable[..., Any]:
    def body(item: int) -> Steps:
        version = yield from commit(item)
        return [item, version]

    return colour.function("commit", body)
