"""Whatever line of memory runs, a signal handler or a destructor may use the cache just then, in the same thread."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from cachecraft import Cache
from cachecraft.backends import doomed, eviction, local, memory, quick, table
from cachecraft.backends.eviction import ENTRY_BYTES, Node
from tests.callers import flights_of

WATCHED = frozenset(module.__file__ for module in (doomed, eviction, local, memory, quick, table))
ROOM = 4
NEW = 50
"""An argument that was not asked for yet."""


class World:
    """A small cache, full, and what its functions are to return: a number that changes with each invalidation."""

    def __init__(self) -> None:
        self.cache = Cache()

        @self.cache.cached(wait=0.01)
        def plain(x: int) -> str:
            return self.right(x)

        @self.cache.cached(wait=0.01, tags=["t:{x}"])
        def tagged(x: int) -> str:
            return self.right(x)

        self.plain, self.tagged = plain, tagged

    def begin(self) -> None:
        self.cache._configure("memory://", {"max_entries": ROOM, "random": lambda: 0.5})
        self.versions: dict[int, int] = {}
        for x in range(ROOM):
            for function in (self.plain, self.tagged):
                for _ in range(1 + x % 4):  # read often enough, some of them move on to the main queue
                    self.call(function, x)

    def right(self, x: int) -> str:
        return f"{x} in version {self.versions.get(x, 0)}"

    def call(self, function: Callable[[int], str], x: int) -> None:
        """A call returns what is right when it begins, or what has become so since."""
        before = self.right(x)
        assert function(x) in {before, self.right(x)}

    def call_all(self) -> None:
        for x in (NEW, NEW + 1, ROOM - 1):
            self.call(self.plain, x)
            self.call(self.tagged, x)

    def renew(self) -> None:
        for x in (*range(ROOM), NEW):
            self.versions[x] = self.versions.get(x, 0) + 1

    def change(self) -> None:
        self.renew()
        for x in (*range(ROOM), NEW):
            self.plain.invalidate(x)
        self.cache.invalidate(tags=[f"t:{x}" for x in (*range(ROOM), NEW)])
        self.call_all()

    def change_functions(self) -> None:
        self.renew()
        self.plain.invalidate_all()
        self.tagged.invalidate_all()
        self.call_all()

    def change_by_pattern(self) -> None:
        self.renew()
        self.cache.invalidate(pattern="test*")

    def use(self) -> None:
        self.call_all()
        self.plain.set(self.right(NEW), NEW)
        self.tagged.set(self.right(0), 0)

    def check(self) -> None:
        """Bound, rings and shelves tell of the same nodes; in the rings are also those yet to be let go of."""
        memory = self.cache._keeper.memory
        bound, tables = memory.bound, list(memory.tables)
        shelved = {node for each in tables for shelf in each.all_shelves for node in shelf.all()}
        retired = {node for each in tables for nodes in memory.doomed.places(each) for node in nodes.values()}
        rings = [*ring(bound._small), *ring(bound._main)]
        assert shelved <= set(rings) <= shelved | retired
        assert bound.count == len(rings) <= ROOM
        assert bound.bytes == sum(node.size + ENTRY_BYTES for node in rings)
        assert bound._in_small == len([*ring(bound._small)])
        assert not memory.late
        assert flights_of(self.cache) == []
        assert self.cache.stats.wait_timeouts == 0


def ring(head: Node) -> Iterator[Node]:
    node = head.next
    while node is not head:
        assert node.next.prev is node
        yield node
        node = node.next


OUTER: dict[str, Callable[[World], object]] = {
    "a call": lambda world: world.call(world.plain, NEW),
    "an invalidation": lambda world: world.plain.invalidate(ROOM - 1),
    "one with tags": lambda world: world.tagged.invalidate(ROOM - 1),
    "one by pattern": lambda world: world.cache.invalidate(pattern=f"{world.plain.key(0)}*"),
    "a call with tags": lambda world: world.call(world.tagged, NEW),
    "one by tag": lambda world: world.cache.invalidate(tags=[f"t:{ROOM - 1}"]),
    "one of a function": lambda world: world.tagged.invalidate_all(),
    "letting go of much": lambda world: (
        world.cache.invalidate(tags=["t:2"]),
        world.plain.invalidate_all(),
        world.tagged.get(NEW),
    ),
}
ONE_BY_ONE = [*OUTER][:-1]
AS_A_WHOLE = [*OUTER][-4:]
"""Where it makes a difference whether many entries are invalidated, or few."""
NESTED: dict[str, Callable[[World], object]] = {
    "calls": World.use,
    "changes": World.change,
    "changes of functions": World.change_functions,
    "changes by pattern": World.change_by_pattern,
}


def interrupted(outer: Callable[[], object], at: int, handler: Callable[[], object]) -> bool:
    """Run ``outer``, and ``handler`` before the line of memory that is the ``at``-th to be run. False if it ended."""
    lines = 0

    def line(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == at:
                handler()
        return line

    def enter(frame: FrameType, _event: str, _arg: object) -> Any:
        return line if frame.f_code.co_filename in WATCHED else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        outer()
    finally:
        sys.settrace(before)
    return lines >= at


@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize(
    ("outer", "at_once"), [*((each, 1000) for each in ONE_BY_ONE), *((each, 0) for each in AS_A_WHOLE)]
)
def test_the_cache_may_be_used_between_any_two_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch, outer: str, nested: str, at_once: int
) -> None:
    """Nothing is torn, nothing invalidated comes back, no error comes out, nobody waits for what it interrupted."""
    monkeypatch.setattr(memory, "AT_ONCE", at_once)
    world, at, going_on = World(), 0, True
    while going_on:
        at += 1
        world.begin()
        going_on = interrupted(lambda: OUTER[outer](world), at, lambda: NESTED[nested](world))
        world.check()
        for x in (ROOM - 1, NEW, *range(ROOM)):  # those first that the next calls may evict, or let go of
            assert (world.tagged(x), world.plain(x)) == (world.right(x),) * 2, f"after line {at}"
        world.check()
    assert at > 20
