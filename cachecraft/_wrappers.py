"""Generates the wrapper of a cached function from its signature: a hit in memory is a few lines, written out.

``attrs`` builds ``__init__`` the same way. A generated function takes keywords and defaults at the interpreter's own
speed; a ``*args`` closure takes a third longer. It knows no cache: ``bind`` tells it where to look and whom to ask.
It reads all steps of a load at once: one that is under way when the cache is closed ends where it began.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cachecraft._core.calls import ATOMIC
from cachecraft._core.flights import LEADER, current

_SOURCE: Final = """\
{async_}def wrapper({signature}):
    try:
        node = {found}
    except Exception:
        node = {absent}
    if {present}{same_kind}node.expires > now(){proven}:
        node.hits += 1
        return node.value
    lead, land, fail = steps
    flight = lead({lead}) if {atomic} else None
    if flight is None:
        return {await_}slow({values})
    try:
        {enter}value = {await_}fn({call})
        return land(flight, value)
    except BaseException as error:
        fail(flight, error)
        raise

def values({signature}):
    return {values}

def call(values):
    {unpack}return fn({call})
"""
_INTERNAL: Final = (
    *(
        "find",
        "owners",
        "fence",
        "atomic",
        "enter",
        "now",
        "steps",
        "lead",
        "land",
        "fail",
        "slow",
        "node",
        "flight",
        "value",
        "error",
    ),
    *("nothing", "fn", "defaults", "type", "id", "values", "call", "wrapper", "Exception", "BaseException"),
)


class _Nothing:
    """What a method finds where there is no node: of no kind that could be asked for."""

    kind = None


_BUILTINS: Final = {"nothing": _Nothing, "type": type, "id": id, "Exception": Exception, "BaseException": BaseException}


@dataclass(frozen=True, slots=True)
class Generated:
    """What is made of one signature."""

    wrapper: Callable[..., Any]
    values: Callable[..., tuple[Any, ...]]
    """The arguments of a call in the order of the parameters, defaults filled in."""
    call: Callable[[tuple[Any, ...]], Any]
    """The wrapped function, called with such values."""
    bind: Callable[..., None]


def generate(
    fn: Callable[..., Any],
    signature: inspect.Signature,
    keyed: Sequence[str],
    *,
    owned: bool,
    is_async: bool,
    label: str,
) -> Generated:
    """Write and compile the wrapper. ``keyed`` names the parameters a call key is made of."""
    parameters = list(signature.parameters.values())
    taken = {each.name for each in parameters}
    own = {name: _free(name, taken) for name in _INTERNAL}
    names = [each.name for each in parameters]
    single = len(keyed) == 1
    kinds = [f"{own['type']}({name})" for name in keyed]
    key = keyed[0] if single else f"({', '.join([*keyed, *kinds])})"
    lead = [key, kinds[0] if single else "None"]
    parts = {
        "async_": "async " if is_async else "",
        "await_": "await " if is_async else "",
        "signature": _signature(parameters, own["defaults"]),
        "enter": f"{own['flight']}.token = {own['enter']}({own['flight']}); " if is_async else "",
        # A method has two look-ups to pay, so it takes the quicker one, which costs its misses an exception.
        "found": f"{own['owners']}[{own['id']}({names[0]})][{key}]" if owned else f"{own['find']}({key})",
        "absent": own["nothing"] if owned and single else "None",
        "present": "" if owned and single else f"{own['node']} is not None and ",
        "atomic": " and ".join(f"{kind} in {own['atomic']}" for kind in kinds) or "True",
        "key": key,
        "same_kind": f"{own['node']}.kind is {kinds[0]} and " if single else "",
        "lead": ", ".join([*lead, names[0]] if owned else lead),
        "values": f"({', '.join(names)},)" if names else "()",
        "call": _call(parameters),
        "unpack": f"({', '.join(names)},) = {own['values']}; " if names else "",
    }
    defaults = {each.name: each.default for each in parameters}
    # Globals of their own rather than a closure: a call need not copy them, and binding is an update.
    space: dict[str, Any] = {LEADER: own["flight"]}

    def write(into: dict[str, Any], proven: str, filename: str) -> Callable[..., Any]:
        # Names of the template itself give way to parameters that are called the same.
        source = _rename(_SOURCE, own).format(**parts, proven=proven)
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        exec(compile(source, filename, "exec"), into)  # noqa: S102 - made from a signature alone, as dataclasses do
        return into[own["wrapper"]]  # type: ignore[no-any-return]  # the source defines it

    def bind(**names: Any) -> None:
        if "fence" in names:
            wrapper.__code__ = plain if names["fence"] is None else near().__code__
        if "table" in names:
            # To ask beats to try: where a miss raises, it costs twice a hit.
            names["find"] = names.pop("table").get
        space.update({own[name]: thing for name, thing in names.items()})

    # Alone, None is no call key (see ``Node.key``).
    atomic = ATOMIC - {type(None)} if single else ATOMIC
    bind(**_BUILTINS, fn=fn, defaults=defaults, atomic=atomic, enter=current.set)
    wrapper = write(space, "", f"<cachecraft {label}>")
    plain = wrapper.__code__

    @functools.cache
    def near() -> Callable[..., Any]:
        # Another code for the same wrapper: who has no near cache does not pay for looking whether it is proven.
        return write(dict(space), f" < {own['fence']}.until", f"<cachecraft {label}, near>")

    return Generated(wrapper, space[own["values"]], space[own["call"]], bind)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"_{name}"
    return name


def _rename(source: str, names: dict[str, str]) -> str:
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return source
    fields = re.split(r"(\{\w+\})", source)
    word = re.compile(rf"(?<!\.)\b({'|'.join(changed)})\b")
    return "".join(part if part.startswith("{") else word.sub(lambda m: changed[m[1]], part) for part in fields)


_STARS: Final[dict[inspect._ParameterKind, str]] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def _signature(parameters: Sequence[inspect.Parameter], defaults: str) -> str:
    parts: list[str] = []
    last: inspect._ParameterKind | None = None
    starred = False
    for each in parameters:
        if last is each.POSITIONAL_ONLY and each.kind is not each.POSITIONAL_ONLY:
            parts.append("/")
        if each.kind is each.VAR_POSITIONAL:
            starred = True
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        mark = _STARS.get(each.kind, "")
        default = "" if each.default is each.empty else f"={defaults}[{each.name!r}]"
        parts.append(f"{mark}{each.name}{default}")
        last = each.kind
    if last is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def _call(parameters: Sequence[inspect.Parameter]) -> str:
    marks: dict[inspect._ParameterKind, str] = {
        inspect.Parameter.VAR_POSITIONAL: "*{0}",
        inspect.Parameter.VAR_KEYWORD: "**{0}",
        inspect.Parameter.KEYWORD_ONLY: "{0}={0}",
    }
    return ", ".join(marks.get(each.kind, "{0}").format(each.name) for each in parameters)
