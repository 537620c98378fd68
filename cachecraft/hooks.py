"""Hooks: functions that are told what happens in a cache, as ``Cache(hooks=[...])``; and the one that logs it.

    def watch(event: hooks.Event) -> None:
        match event:
            case hooks.LoadEnded(function=name, seconds=seconds) if seconds > 1:
                print(f"{name} took {seconds:.1f} s")
            case hooks.BreakerOpened():
                print("without Redis from here on")

Events come in the thread or task where they happen. A hook that raises harms nobody.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any, Final

from cachecraft._core.errors import told
from cachecraft._core.events import (
    BreakerClosed,
    BreakerOpened,
    Differed,
    Event,
    Hook,
    Invalidated,
    LoadEnded,
    LoadStarted,
    Missed,
    NotStored,
    RedisAsked,
    StaleServed,
    WaitEnded,
    WriteDelivered,
    WriteQueued,
)

log: Final = logging.getLogger("cachecraft")


def log_event(event: Event) -> None:
    """Log an event at debug level, its fields in ``extra``; of an error what is no secret: its class and place.

    A cache does so by itself if the logger ``cachecraft`` is at debug level when the cache is first used.
    """
    if not log.isEnabledFor(logging.DEBUG):
        return
    told_of: dict[str, Any] = {each.name: getattr(event, each.name) for each in fields(event)}
    for name, value in told_of.items():
        if isinstance(value, BaseException):
            told_of[name] = told(value)
    text = " ".join(f"{name}={value}" for name, value in told_of.items())
    log.debug("%s %s", type(event).__name__, text, extra={"event": type(event).__name__, **told_of})


__all__ = [
    "BreakerClosed",
    "BreakerOpened",
    "Differed",
    "Event",
    "Hook",
    "Invalidated",
    "LoadEnded",
    "LoadStarted",
    "Missed",
    "NotStored",
    "RedisAsked",
    "StaleServed",
    "WaitEnded",
    "WriteDelivered",
    "WriteQueued",
    "log_event",
]
