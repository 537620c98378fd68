"""What became of the last results of one function, by the hash of their key; bounded, and of no use to any call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

ROOM: Final = 256
UNKEPT: Final = 30
"""Of so many results that were not kept the keys are remembered, to be told to others."""

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


class Notes:
    """The latest of them. It takes no lock: at worst a note is lost. What was not kept is noted in ``unkept`` too."""

    __slots__ = ("by_hash", "clock", "unkept")

    def __init__(self, clock: Callable[[], float], unkept: deque[Unkept] | None = None) -> None:
        self.clock = clock
        self.unkept = unkept
        self.by_hash: dict[int, Note] = {}

    def add(self, key: object, fate: Fate, detail: str = "", *, until: float = 0.0) -> None:
        notes, place = self.by_hash, hash(key)
        notes.pop(place, None)  # what is noted anew is the latest
        notes[place] = note = Note(self.clock(), fate, detail, until)
        if self.unkept is not None and fate != "kept":
            self.unkept.append(Unkept(note.when, str(key), fate, detail))
        if len(notes) > ROOM:
            try:
                del notes[next(iter(notes))]
            except (KeyError, RuntimeError, StopIteration):  # another thread was at it
                pass

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
