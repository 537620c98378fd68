"""The kinds of functions in use in a chaos run: how each is read, and all the ways to drop what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cachecraft import Cache
from tests.chaos.source import Source

Way = Callable[[int], Any]

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"ttl": 60},
    "stale": {"ttl": 0.1, "stale": 2},
    "grace": {"ttl": 0.1, "grace": 5, "soft_timeout": 0.02},
    "ahead": {"ttl": 0.5, "refresh_ahead": 0.4, "beta": 1.0},
    "result": {"ttl": 60, "tags": lambda result, item: [f"item:{result[0]}"]},
    "mixed": {"ttl": 60},
    "vault": {"ttl": 60},
    "written": {"ttl": 60},
    "hand": {"ttl": 60},
}


@dataclass
class Kind:
    """One function, in one colour. Every way takes an item."""

    name: str
    cache: Cache
    call: Way
    get: Way
    reads: list[Way]
    """Beside calls; each answers a value, or ``MISSING``."""
    drops: list[Way]
    """After a commit."""
    writes: list[Way]
    """They commit, and drop what is kept, by themselves."""
    set: Callable[[Any, int], Any]


def kinds(source: Source, cache: Cache, vault: Cache, *, tasks: bool) -> list[Kind]:
    """Every kind in one colour. Those of the other are the same functions, but for ``mixed``."""
    return [
        by_hand(source, cache, tasks=tasks)
        if name == "hand"
        else decorated(name, source, vault if name == "vault" else cache, tasks=tasks)
        for name in OPTIONS
    ]


def decorated(name: str, source: Source, cache: Cache, *, tasks: bool) -> Kind:
    load = source.loader(name, tasks=tasks)
    load.__qualname__ = f"load_{name}_{tasks}" if name == "mixed" else f"load_{name}"
    f: Any = cache.cached(**{"key": f"{name}:{{item}}", "tags": ["item:{item}"], **OPTIONS[name]})(load)
    drops = [f.invalidate, *_by_name(name, cache, tasks=tasks)]
    if name != "mixed":  # where the other colour is another function, that would not be reached
        drops.append(lambda item: f.invalidate_all())
    write = source.writer(name, tasks=tasks)
    writes = [cache.updates(f)(write)] * 4 if name == "written" else [cache.invalidates(f)(write)]
    return Kind(name, cache, f, f.get, [f.get, f.refresh], drops, writes, f.set)


def by_hand(source: Source, cache: Cache, *, tasks: bool) -> Kind:
    load = source.loader("hand", tasks=tasks)
    get_or_load: Any = cache.aget_or_load if tasks else cache.get_or_load
    get: Any = cache.aget if tasks else cache.get
    put: Any = cache.aset if tasks else cache.set
    invalidate: Any = cache.ainvalidate if tasks else cache.invalidate

    def call(item: int) -> Any:
        return get_or_load(f"hand:{item}", partial(load, item), ttl=60, tags=[f"item:{item}"])

    def look(item: int) -> Any:
        return get(f"hand:{item}")

    drops = [lambda item: invalidate(key=f"hand:{item}"), *_by_name("hand", cache, tasks=tasks)]
    write = cache.invalidates(key="hand:{item}")(source.writer("hand", tasks=tasks))
    return Kind(
        "hand",
        cache,
        call,
        look,
        [look],
        drops,
        [write],
        lambda value, item: put(f"hand:{item}", value, ttl=60, tags=[f"item:{item}"]),
    )


def _by_name(name: str, cache: Cache, *, tasks: bool) -> list[Way]:
    invalidate: Any = cache.ainvalidate if tasks else cache.invalidate
    return [
        lambda item: invalidate(pattern=f"{name}:{item}*"),
        lambda item: invalidate(tags=[f"item:{item}"]),
        lambda item: invalidate(key=f"{name}:{item}", tags=["another"]),
    ]
