"""A load for one caller, whose result nobody keeps: what a function does without a cache, but noted as each load is."""

from __future__ import annotations

from typing import Any, Protocol

from cachecraft._core import noting
from cachecraft._core.effects import Flow, Load
from cachecraft._core.policy import Policy
from cachecraft._core.ports import Run


class Loading(noting.Noted, Protocol):
    """One function, as far as it is loaded."""

    policy: Policy


def load_alone(place: Loading, run: Run) -> Flow[Any]:
    """Run the loader, and keep nothing."""
    number, began = noting.load_started(place), place.clock()
    try:
        value = yield from Load(run, place.policy.timeout)
    except BaseException as error:
        noting.load_ended(place, number, place.clock() - began, error)
        raise
    noting.load_ended(place, number, place.clock() - began)
    return value
