"""What the counters that processes have published advise, function by function; it looks at no entry.

Whether something is amiss, the sum over all processes tells. In which words, a process that says the same knows better:
it can name parameters and tags. What only a process can find at all is taken from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cachecraft import reports
from cachecraft._core.errors import BackendRefused
from cachecraft._core.tally import NUMBERS
from cachecraft.advice import COUNTED, Advice, Facts, advise
from cachecraft.cli.doctor.finding import GOOD, UNKNOWN, WARNING, Finding
from cachecraft.cli.figures import many
from cachecraft.cli.published import Reader, processes_shown
from cachecraft.cli.target import Target
from cachecraft.reports import Report
from cachecraft.stats import OTHERS, Counted


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
    warnings = [
        _warning(each)
        for name, function in sorted(counted.functions.items())
        if name != OTHERS  # what is true of many together is true of none of them
        for each in _advice(name, function, found)
    ]
    yield from warnings
    if not warnings:
        about = f"{many(len(counted.functions), 'function')} of {processes_shown(found)}"
        yield Finding("advice", GOOD, f"none: nothing stands out in what {about} counted")


def _advice(name: str, counted: Counted, found: Sequence[Report]) -> list[Advice]:
    """Each check once: in the words of the process that calls the function most, of those that say so."""
    tally = counted.tally
    numbers = {number: getattr(tally, number) for number in NUMBERS}
    summed = {each.check: each for each in advise(Facts(function=name, numbers=numbers, reasons=tally.reasons))}
    said: dict[str, Advice] = {}
    for report in sorted(found, key=lambda report: -_calls(report, name)):
        for each in report.advice:
            if each.function == name:
                where = f" (in {report.host}:{report.pid})"
                said.setdefault(each.check, replace(each, finding=each.finding + where))
    if tally.reasons.get("invalidated"):  # somebody does invalidate by these tags, or by a pattern
        said.pop("tags", None)
    beyond = {check: each for check, each in said.items() if check not in COUNTED}
    return [*(said.get(check, each) for check, each in summed.items()), *beyond.values()]


def _calls(report: Report, name: str) -> int:
    counted = report.counted.functions.get(name)
    return counted.requests if counted is not None else 0


def _warning(advice: Advice) -> Finding:
    told = {"function": advice.function, "about": advice.check}
    return Finding("advice", WARNING, f"{advice.function}: {advice.finding}", advice.remedy, told)
