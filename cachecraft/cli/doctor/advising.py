"""What the counters that processes have published advise, function by function; it looks at no entry."""

from __future__ import annotations

from collections.abc import Iterator

from cachecraft import reports
from cachecraft._core.errors import BackendRefused
from cachecraft._core.tally import NUMBERS
from cachecraft.advice import Facts, advise
from cachecraft.cli.doctor.finding import GOOD, UNKNOWN, WARNING, Finding
from cachecraft.cli.figures import many
from cachecraft.cli.published import Reader, processes_shown
from cachecraft.cli.target import Target
from cachecraft.stats import OTHERS, Snapshot


def advised(target: Target) -> Iterator[Finding]:
    """A warning for each finding; one line that says so where there is none.

    Raises:
        BackendError: the server went away.
    """
    try:
        found = Reader(target).read()
    except BackendRefused:
        yield Finding("advice", UNKNOWN, "this user may not read what processes publish of themselves (MGET)")
        return
    if not found:
        yield Finding("advice", UNKNOWN, "no process publishes its counters here, so of functions nothing is known")
        return
    counted = reports.total(target.namespace, found)
    warnings = list(_warnings(counted))
    yield from warnings
    if not warnings:
        about = f"{many(len(counted.functions), 'function')} of {processes_shown(found)}"
        yield Finding("advice", GOOD, f"none: nothing stands out in what {about} counted")


def _warnings(counted: Snapshot) -> Iterator[Finding]:
    for name, function in sorted(counted.functions.items()):
        if name == OTHERS:  # what is true of many together is true of none of them
            continue
        tally = function.tally
        numbers = {number: getattr(tally, number) for number in NUMBERS}
        for each in advise(Facts(function=name, numbers=numbers, reasons=tally.reasons)):
            told = {"function": name, "about": each.check}
            yield Finding("advice", WARNING, f"{name}: {each.finding}", each.remedy, told)
