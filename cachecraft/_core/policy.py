"""How long results are kept and what happens at the edges: durations, jitter and the options of one function.

It knows no clock: it is told the time left and a random number, and answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final

from cachecraft._core.errors import OptionError, OptionTypeError

Duration = float | int | str | timedelta
"""Seconds, a ``timedelta``, or text such as ``"90s"``, ``"5m"``, ``"1h30m"``, ``"7d"``."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_TEXT: Final = re.compile(rf"(?:{_PART.pattern})+")
_LONGEST: Final = 100 * 365 * 86400.0


def seconds(value: object, option: str, *, zero: bool = False) -> float:
    """Turn a duration into seconds.

    Raises:
        OptionError: it is not finite, negative, zero where ``zero`` is false, or text that is no duration.
        OptionTypeError: it is no number, text or ``timedelta``.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        text = value.strip().lower().replace(" ", "")
        if not _TEXT.fullmatch(text):
            raise OptionError(
                f'{option}={value!r} is not a duration; write a number of seconds, or text like "90s", "5m", "1h30m"'
                f" (units: {', '.join(_UNITS)})"
            )
        result = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        result = float(value)
    else:
        raise OptionTypeError(
            f"{option}={value!r} is a {type(value).__name__}; give seconds, a timedelta, or text like '5m'"
        )
    if not (math.isfinite(result) and result <= _LONGEST):
        raise OptionError(f"{option}={value!r} must be finite and at most a hundred years")
    if result < 0 or (result == 0 and not zero):
        raise OptionError(f"{option}={value!r} must be {'zero or more' if zero else 'more than zero'} seconds")
    return result


@dataclass(frozen=True, slots=True)
class Jitter:
    """Spread of a ttl, as fractions of it: a ttl ``t`` becomes uniform in ``t*(1+low) .. t*(1+high)``.

    Entries stored together then do not expire together. Negative bounds shorten.

    Raises:
        OptionError: ``low`` above ``high``, not finite, or ``low`` at or below -1 (nothing would be left).
    """

    low: float = 0.10
    high: float = 0.20

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise OptionTypeError(f"jitter {name}={value!r} must be a number, a fraction of the ttl")
            if not math.isfinite(value):
                raise OptionError(f"jitter {name}={value!r} must be finite")
        if self.low > self.high:
            raise OptionError(f"jitter low={self.low} is above high={self.high}; swap them")
        if self.low <= -1:
            raise OptionError(f"jitter low={self.low} must be above -1, or entries would expire at once")


class Tier(float):
    """A ttl in seconds that may bring a spread of its own."""

    spread: Jitter | None

    def __new__(cls, value: float, spread: Jitter | None = None) -> Tier:
        self = super().__new__(cls, value)
        self.spread = spread
        return self


HOT: Final = Tier(600, Jitter(-0.5, 0.5))
"""5 to 15 minutes, uniformly spread."""
MEDIUM: Final = Tier(3600)
"""One hour."""
COLD: Final = Tier(24 * 3600)
"""24 hours."""
STATIC: Final = Tier(7 * 24 * 3600)
"""Seven days."""


class _Inherit:
    """The option was not given: the cache's own value counts."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<as the cache>"


INHERIT: Final = _Inherit()


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A ttl with its jitter, ready to draw from: ``low + span * random()`` seconds."""

    low: float
    span: float

    @classmethod
    def of(cls, ttl: float, jitter: Jitter | None) -> Lifetime:
        low, high = (jitter.low, jitter.high) if jitter else (0.0, 0.0)
        return cls(ttl * (1 + low), ttl * (high - low))

    def draw(self, random: float) -> float:
        return self.low + self.span * random


Remembered = tuple[tuple[type[Exception], float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The options of one cached function, checked. Durations are in seconds.

    ``ttl`` and ``jitter`` may still be the cache's (``None`` and ``INHERIT``); ``under`` fills them in.
    """

    ttl: float | Callable[[Any], Duration] | None = None
    jitter: Jitter | _Inherit | None = INHERIT
    stale: float = 0.0
    grace: float = 0.0
    refresh_ahead: float = 0.0
    beta: float = 0.0
    lease: float = 5.0
    wait: float = 10.0
    soft_timeout: float | None = None
    timeout: float | None = None
    when: Callable[[Any], bool] | None = None
    cache_errors: Remembered | None = None
    isolate: bool | None = None
    version: str | None = None
    near: bool = True
    verify: float = 0.0

    @classmethod
    def of(cls, options: dict[str, Any]) -> Policy:
        """Check the options as a user wrote them.

        Raises:
            OptionError, OptionTypeError: naming the option and the remedy.
        """
        known = {field.name for field in fields(cls)}
        checked = {name: _CHECKS[name](value, name) for name, value in options.items() if name in known}
        policy = cls(**checked)
        policy._check_together()
        return policy

    def _check_together(self) -> None:
        for window in ("stale", "grace", "refresh_ahead", "beta"):
            if getattr(self, window) and self.ttl is None:
                raise OptionError(f"{window}= needs a ttl to count from; give ttl= as well")
        if self.soft_timeout is not None:
            if not self.grace:
                raise OptionError("soft_timeout= serves the old value, which only grace= keeps; give grace= as well")
            if self.timeout is not None and self.soft_timeout >= self.timeout:
                raise OptionError(f"soft_timeout={self.soft_timeout} must be below timeout={self.timeout}")
        if isinstance(self.ttl, float) and self.refresh_ahead >= self.ttl:
            raise OptionError(
                f"refresh_ahead={self.refresh_ahead} must be below ttl={self.ttl}, or every hit refreshes"
            )

    def under(self, ttl: float, jitter: Jitter | None) -> Policy:
        """The same policy with what it left open taken from the cache; a tier's own spread comes before that."""
        chosen = self.jitter
        if isinstance(chosen, _Inherit):
            spread = self.ttl.spread if isinstance(self.ttl, Tier) else None
            chosen = spread if spread is not None else jitter
        return replace(self, ttl=ttl if self.ttl is None else self.ttl, jitter=chosen)

    @property
    def keep(self) -> float:
        """How long an entry is kept beyond its ttl, in seconds, for ``stale`` and ``grace``."""
        return max(self.stale, self.grace)

    @property
    def aged(self) -> bool:
        """Whether an entry's age matters, rather than only whether it is there."""
        return bool(self.keep or self.refresh_ahead or self.beta)

    def remembered(self, error: Exception) -> tuple[type[Exception], float] | None:
        """The closest of an exception's classes that ``cache_errors`` names, and for how many seconds."""
        named = dict(self.cache_errors or ())
        return next(((kind, named[kind]) for kind in type(error).__mro__ if kind in named), None)

    def lifetime(self, result: object) -> Lifetime:
        """The lifetime of one result, whose ttl may depend on it."""
        jitter = None if isinstance(self.jitter, _Inherit) else self.jitter
        ttl = self.ttl
        if ttl is None:
            raise OptionError("this policy has no ttl yet; it belongs to no cache")
        if not isinstance(ttl, float):
            ttl = _made_ttl(ttl(result))
        return Lifetime.of(ttl, jitter)


def _made_ttl(made: object) -> float:
    """What a function made of a result, in seconds. What is no number may be the result itself, and is not shown."""
    try:
        return seconds(made, "ttl")
    except (OptionError, OptionTypeError):
        if isinstance(made, (int, float, timedelta)):
            raise
    raise OptionTypeError(
        f"ttl= returned {type(made).__qualname__} that is no duration; return seconds, a timedelta, or text like '5m'"
    )


def _ttl(value: object, option: str) -> float | Callable[[Any], Duration] | None:
    if value is None or isinstance(value, Tier):
        return value
    return value if callable(value) else seconds(value, option)


def jitter_of(value: object, option: str = "jitter") -> Jitter | _Inherit | None:
    if value is None or isinstance(value, (Jitter, _Inherit)):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return Jitter(*value)
    raise OptionTypeError(f"{option}={value!r} must be Jitter(low, high), a pair of fractions, or None")


def _window(value: object, option: str) -> float:
    return seconds(value, option, zero=True)


def _beta(value: object, option: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionTypeError(f"{option}={value!r} must be a number; 1.0 is the usual choice, 0 turns it off")
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"{option}={value!r} must be zero or more; 1.0 is the usual choice, 0 turns it off")
    return float(value)


def _share(value: object, option: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionTypeError(f"{option}={value!r} must be a number; 0.001 recomputes one hit in a thousand, 0 none")
    if not 0 <= value <= 1:
        raise OptionError(f"{option}={value!r} must be a share from 0 to 1; 0.001 recomputes one hit in a thousand")
    return float(value)


def _optional_seconds(value: object, option: str) -> float | None:
    return None if value is None else seconds(value, option)


def _lease(value: object, option: str) -> float:
    lease = seconds(value, option)
    if lease < 0.05:
        raise OptionError(f"{option}={value!r} is shorter than a round trip may take; give at least 0.05 seconds")
    return lease


def _predicate(value: object, option: str) -> Any:
    if value is not None and not callable(value):
        raise OptionTypeError(f"{option}={value!r} must be a function of the result, such as `lambda r: r is not None`")
    return value


def _errors(value: object, option: str) -> Remembered | None:
    """``cache_errors=ValueError``, ``(KeyError, OSError)``, or durations by class: ``{NotFound: "30s"}``."""
    if value is None:
        return None
    if not isinstance(value, dict):
        value = dict.fromkeys(value if isinstance(value, (tuple, list, set, frozenset)) else (value,), 10.0)
    if not value:
        raise OptionError(f"{option} names no exception; leave it out, or name the classes to remember")
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise OptionTypeError(f"{option}: {kind!r} is not an Exception class; name the classes to remember")
    return tuple((kind, seconds(ttl, option)) for kind, ttl in value.items())


def _tristate(value: object, option: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise OptionTypeError(f"{option}={value!r} must be None (containers are the caller's own), True or False")


def _yes_or_no(value: object, option: str) -> bool:
    if isinstance(value, bool):
        return value
    raise OptionTypeError(f"{option}={value!r} must be True or False; how much is held near is for Cache(near=...)")


def _version(value: object, option: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise OptionTypeError(f"{option}={value!r} must be text or a number")


_CHECKS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "ttl": _ttl,
    "jitter": jitter_of,
    "stale": _window,
    "grace": _window,
    "refresh_ahead": _window,
    "beta": _beta,
    "lease": _lease,
    "wait": _window,
    "soft_timeout": _optional_seconds,
    "timeout": _optional_seconds,
    "when": _predicate,
    "cache_errors": _errors,
    "isolate": _tristate,
    "version": _version,
    "near": _yes_or_no,
    "verify": _share,
}
