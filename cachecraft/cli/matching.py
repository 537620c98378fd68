"""What an invalidation would reach, counted before it is done. Writes nothing.

It counts keys as they stand there: entries, loads under way, and what is void already and waits for its ttl.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cachecraft._core.entry import outline
from cachecraft._core.errors import CorruptError
from cachecraft._core.keys import escape_literal, matcher
from cachecraft.backends.remote import tag_key
from cachecraft.cli.server import Server, granted
from cachecraft.cli.slots import FRONT, Slot, glance, is_internal
from cachecraft.cli.target import Target

_GONE = -2


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to invalidate: keys and patterns and tags as a program says them, or everything."""

    keys: Sequence[str] = ()
    patterns: Sequence[str] = ()
    tags: Sequence[str] = ()
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.keys or self.patterns or self.tags or self.everything)

    def parts(self) -> Iterator[tuple[str, str]]:
        """Each by its kind and text."""
        yield from (("key", text) for text in self.keys)
        yield from (("pattern", text) for text in self.patterns)
        yield from (("tag", text) for text in self.tags)
        if self.everything:
            yield "all", ""


@dataclass(slots=True)
class Reach:
    """How many keys each part of a wish reaches, and all of them together."""

    counts: dict[tuple[str, str], int]
    total: int = 0
    examples: list[bytes] = field(default_factory=list)


def reach(server: Server, wish: Wish, watch: Callable[[float], object]) -> Reach:
    """Count. A scan, unless there are only keys; ``watch`` is told how far it has come, of all names there are."""
    found = Reach(dict.fromkeys(wish.parts(), 0))
    target = server.target
    seen = set()
    for text in wish.keys:
        key = target.key(text)
        if granted(*server.ask(("PTTL", key))) != _GONE:
            found.counts["key", text] = 1
            seen.add(key.encode("utf-8", "surrogateescape"))
    _note(found, sorted(seen))
    if wish.patterns or wish.tags or wish.everything:
        _scan(server, wish, found, seen, watch)
    return found


def _scan(server: Server, wish: Wish, found: Reach, seen: set[bytes], watch: Callable[[float], object]) -> None:
    target, prefix = server.target, server.target.prefix.encode()
    tests = _tests(target, wish)
    alone = len(tests) == 1 and not wish.tags and wish.patterns  # then the server need not tell of the others
    for names in server.scan(target.pattern(wish.patterns[0] if alone else "*"), watch):
        names = [name for name in names if not is_internal(name, prefix)]  # noqa: PLW2901 - what is left of them
        slots = glance(server, names, front=FRONT) if wish.tags else [Slot(name, "", None, None, b"") for name in names]
        for slot in slots:
            hit = [part for part, test in tests.items() if test(slot)]
            for part in hit:
                found.counts[part] += 1
            if hit and slot.key not in seen:
                _note(found, [slot.key])


def _note(found: Reach, names: Sequence[bytes]) -> None:
    found.total += len(names)
    found.examples += names[: max(0, 3 - len(found.examples))]


def _tests(target: Target, wish: Wish) -> dict[tuple[str, str], Callable[[Slot], bool]]:
    tests: dict[tuple[str, str], Callable[[Slot], bool]] = {}
    for text in wish.patterns:
        tests["pattern", text] = _named(matcher(target.pattern(text)))
    for text in wish.tags:
        tests["tag", text] = _tagged(tag_key(target.prefix, escape_literal(text)))
    if wish.everything:
        tests["all", ""] = lambda slot: True
    return tests


def _named(matches: Callable[[str], bool]) -> Callable[[Slot], bool]:
    return lambda slot: matches(slot.key.decode("utf-8", "surrogatepass"))


def _tagged(tag: str) -> Callable[[Slot], bool]:
    def test(slot: Slot) -> bool:
        try:
            return tag in outline(slot.front).tags
        except CorruptError:
            return False

    return test
