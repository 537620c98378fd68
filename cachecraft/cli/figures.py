"""How numbers read: durations, counts, sizes, shares and bars; knows nothing of what they count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
RISING: Final = "▁▂▃▄▅▆▇█"
_RISING_PLAIN: Final = ".:-=+*#@"
_SPANS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Two or three digits, in the unit that suits them: ``1.34 s``, ``47.1 ms``, ``0.3 µs``."""
    unit, value = next(
        ((unit, seconds * factor) for unit, factor in (("s", 1.0), ("ms", 1e3)) if seconds * factor >= 0.9995),
        ("µs", seconds * 1e6),
    )
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 or unit == "µs" else 2
    return f"{value:.{digits}f} {unit}"


def span(seconds: float) -> str:
    """A length of time as people say it, in its two largest units: ``6 d 4 h``, ``59 min 12 s``, ``0.4 s``."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest, words = round(seconds), list[str]()
    for unit, size in _SPANS:
        count, rest = divmod(rest, size)
        if count or words:
            words.append(f"{count} {unit}" if count else "")
        if len(words) == 2:
            break
    return " ".join(filter(None, words))


def many(number: int, thing: str, things: str = "") -> str:
    """``1 query``, ``2 queries``."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def size(count: float) -> str:
    """Bytes, in powers of 1024: ``812 B``, ``1.2 KiB``, ``3.4 GiB``."""
    unit, *larger = "B", "KiB", "MiB", "GiB", "TiB"
    while count >= 1023.5 and larger:
        count, unit, *larger = count / 1024, *larger
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"


def percent(share: float) -> str:
    """``0.3 %``, ``47 %``."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.1 or not share else f"{share:.1%}".replace("%", " %")


def percentile(ordered: Sequence[float], percentage: float) -> float:
    """The value that the given percentage of the sorted values does not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percentage / 100))] if ordered else 0.0


def bar(share: float, width: int, *, plain: bool) -> str:
    """A bar of at most ``width`` signs; what is there at all is seen."""
    if plain:
        return "#" * round(share * width) or "|"
    eighths = max(1, round(share * width * 8))
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def spark(counts: Sequence[int], *, plain: bool) -> str:
    """One sign for each count, the higher the more; a blank for none."""
    signs, most = _RISING_PLAIN if plain else RISING, max(counts, default=0)
    return "".join(signs[(count * len(signs) - 1) // most] if count else " " for count in counts)
