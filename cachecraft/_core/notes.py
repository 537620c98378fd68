"""What became of the last results, by function and for the whole cache; bounded, and of no use to any call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeVar

K = TypeVar("K")

ROOM: Final = 256
UNKEPT: Final = 30
"""Of so many results that were not kept the keys are remembered, to be told to others;"""
KEPT: Final = 100
"""and of so many that were."""

Fate = Literal["kept", "declined", "refused", "failed", "lost", "dropped"]


class Note(NamedTuple):
    """What became of one result."""

    when: float
    fate: Fate
    detail: str = ""
    until: float = 0.0
    """When what was kept ends."""


class Unkept(NamedTuple):
    """A result that is not to be found under its key."""

    when: float
    key: str
    fate: str
    detail: str


class Lately:
    """The last results of all functions of a cache, by key, to be told to others. It takes no lock."""

    __slots__ = ("kept", "unkept")

    def __init__(self) -> None:
        self.kept: dict[str, Note] = {}
        self.unkept: deque[Unkept] = deque(maxlen=UNKEPT)

    def add(self, key: str, note: Note) -> None:
        if note.fate == "kept":
            _renew(self.kept, key, note, KEPT)
        else:
            self.unkept.append(Unkept(note.when, key, note.fate, note.detail))

    def clear(self) -> None:
        self.kept.clear()
        self.unkept.clear()

    def __repr__(self) -> str:
        return f"<Lately: {len(self.kept)} results kept, {len(self.unkept)} not>"


class Notes:
    """The latest of one function, by the hash of their key. It takes no lock. All of them are told to ``lately``."""

    __slots__ = ("by_hash", "clock", "lately")

    def __init__(self, clock: Callable[[], float], lately: Lately | None = None) -> None:
        self.clock = clock
        self.lately = lately
        self.by_hash: dict[int, Note] = {}

    def add(self, key: object, fate: Fate, detail: str = "", *, until: float = 0.0) -> None:
        note = Note(self.clock(), fate, detail, until)
        _renew(self.by_hash, hash(key), note, ROOM)
        if self.lately is not None:
            self.lately.add(str(key), note)

    def get(self, key: object) -> Note | None:
        return self.by_hash.get(hash(key))

    def forget(self, key: object) -> None:
        if self.by_hash:
            self.by_hash.pop(hash(key), None)

    def last(self, fate: Fate) -> str:
        """The detail of the last result that came to this; empty if none did."""
        return next((note.detail for note in reversed(list(self.by_hash.values())) if note.fate == fate), "")

    def outlived(self, key: object) -> bool:
        """Whether it was kept, and its time is over."""
        note = self.get(key)
        return note is not None and note.fate == "kept" and note.until <= self.clock()

    def __repr__(self) -> str:
        return f"<Notes on {len(self.by_hash)} results>"


def _renew(notes: dict[K, Note], place: K, note: Note, room: int) -> None:
    """Have it be the latest of so many. Where threads meet, a note is lost at worst."""
    notes.pop(place, None)
    notes[place] = note
    if len(notes) > room:
        try:
            del notes[next(iter(notes))]
        except (KeyError, RuntimeError, StopIteration):  # another thread was at it
            pass
