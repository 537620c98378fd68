"""cachecraft: decorate a function and its results are remembered, in memory or in Redis, right under every race.

The house, from the top; imports point down only:

    __init__          the public names
    cli               the command ``cachecraft``
    integrations      Prometheus, OpenTelemetry
    worker            delivers writes that wait in Redis; _delivery, one queue of them; _turn, whose turn it is
    _api              ``Cache`` and the decorators with their types and documentation
    _write_behind     what ``write_behind`` makes of one, whose calls wait in Redis; _behind, what waits there
    _writes           what ``invalidates`` and ``updates`` make of a function
    _decorators       what ``cached`` makes of one
    _cache            a cache without its decorators: what it is told, and the work by hand
    _life             how it is configured, opened, forked, closed
    _by_hand          what is done by hand, each operation once
    _making           what a cache is made of, made of its settings
    _books            the counters of each function, of those that are gone too
    _telling          what a cache tells others of itself
    _wrappers         writes the wrapper of each function: a hit in memory in a few lines
    _callables        what a callable says of itself: its parameters, its name, whether it is async
    _drivers, _crew   runs flows, for threads and for tasks, and what goes on behind the callers' backs
    backends          memory (table, nodes, eviction, isolation, local) and redis (commands, scripts, queue, dialling,
                      transports, combining, sealing, remote), which a guard (breaker, journal, prober) spares; near,
                      which pairs them, and its listener; and a publisher of what is counted
    serializers       values to bytes and back
    stats, keys       counters to read; keys to build by hand
    hooks, metrics, reports
                      what hooks are told; what is measured, by name; what a process publishes of itself
    advice            what the counters advise
    _core             the thinking part: no I/O, no clock, no colour
        local, flows  what happens in a call, for memory and for Redis, as generators that yield what may block
        writing       what happens in Redis when a value is renewed, brought or written through
        sight, load, refresh, alone
                      the steps: read and take the lease; load and store; load anew behind what is there; keep nothing
        effects       the verbs they yield; behind, those of the queue of writes
        verification  a hit against what the loader returns now; sameness, whether two values are the same
        flights       single flight: one load, and whoever joined it
        calls         what a call means: call key, wire key, tags
        keys          canonical identity of values; escaping, templates, globs
        policy        durations, jitter, the options of one function
        entry         what is stored, byte by byte, and whether it may be served
        explanation   why a call finds what it finds; from the trail of invalidations, their sites in the user's code,
                      and notes on what became of results
        noting, events    what is noted down of a call, and what hooks are told
        ports, tally, durations, heat, samples, errors

A call goes ``_wrappers`` (a hit ends here) -> ``_core`` flow -> ``_drivers`` -> ``backends``.
"""

from cachecraft import keys
from cachecraft._api import Cache, cached, configure, invalidates, updates, write_behind
from cachecraft._core.entry import MISSING
from cachecraft._core.errors import (
    BackendError,
    BackendTimeout,
    CacheError,
    ClosedError,
    OptionError,
    OptionTypeError,
    PatternError,
    TemplateError,
    UnkeyableError,
    UnserializableError,
)
from cachecraft._core.explanation import Explanation
from cachecraft._core.nearness import Near
from cachecraft._core.policy import COLD, HOT, MEDIUM, STATIC, Jitter, Policy
from cachecraft._core.ports import Backend
from cachecraft.serializers import Serializer

__version__ = "0.1.0"

__all__ = [
    "COLD",
    "HOT",
    "MEDIUM",
    "MISSING",
    "STATIC",
    "Backend",
    "BackendError",
    "BackendTimeout",
    "Cache",
    "CacheError",
    "ClosedError",
    "Explanation",
    "Jitter",
    "Near",
    "OptionError",
    "OptionTypeError",
    "PatternError",
    "Policy",
    "Serializer",
    "TemplateError",
    "UnkeyableError",
    "UnserializableError",
    "cached",
    "configure",
    "invalidates",
    "keys",
    "updates",
    "write_behind",
]
