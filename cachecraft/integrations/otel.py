"""OpenTelemetry: metrics that are read when they are exported, and spans for whoever wants them.

    from cachecraft.integrations import otel

    otel.measure(cache)  # metrics
    otel.trace(cache)  # spans: loads, waits, round trips to Redis

It needs the extra ``cachecraft[otel]``, and uses the providers that were set globally if it is given none. Counters are
read from the cache. Durations are recorded as loads, waits and round trips end; for a hit in memory nothing is done,
and there is no span.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from cachecraft._cache import BareCache
from cachecraft._core.durations import BOUNDS
from cachecraft.hooks import Event, LoadEnded, LoadStarted, RedisAsked, WaitEnded
from cachecraft.metrics import FAMILIES, LOADS, REDIS, WAITS, Family, gather
from cachecraft.stats import Snapshot

try:
    from opentelemetry import context
    from opentelemetry import metrics as otel_metrics
    from opentelemetry import trace as otel_trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
except ModuleNotFoundError as missing:
    if not (missing.name or "").startswith("opentelemetry"):
        raise
    raise ModuleNotFoundError(
        "cachecraft.integrations.otel needs opentelemetry-api; install cachecraft with its extra [otel]",
        name=missing.name,
    ) from None

_UNITS: Final = {"seconds": "s", "bytes": "By", "": "1"}
_MEMORY: Final = 0.5
"""Seconds for which what was read serves: one export asks for every instrument by itself."""


def measure(*caches: BareCache, meter_provider: otel_metrics.MeterProvider | None = None) -> None:
    """Have the metrics of these caches exported."""
    _named(caches)
    meter = otel_metrics.get_meter("cachecraft", meter_provider=meter_provider)
    read = _remembered(lambda: gather(caches))
    for family in FAMILIES:
        if family.kind != "histogram":
            make: Any = getattr(meter, f"create_observable_{family.kind}")
            make(_name(family), [_observer(family, read)], _UNITS[family.unit], family.help)
    histograms = {
        family.name: meter.create_histogram(
            _name(family), _UNITS[family.unit], family.help, explicit_bucket_boundaries_advisory=list(BOUNDS)
        )
        for family in (LOADS, WAITS, REDIS)
    }
    for cache in caches:
        cache.add_hook(_Recorder(cache.namespace, histograms))


def trace(*caches: BareCache, tracer_provider: otel_trace.TracerProvider | None = None) -> None:
    """Have a span made of each load, wait and round trip to Redis of these caches.

    What the loader traces lies within the span of its load. Spans name functions; neither keys nor values, nor the
    text of an exception.
    """
    _named(caches)
    tracer = otel_trace.get_tracer("cachecraft", tracer_provider=tracer_provider)
    for cache in caches:
        cache.add_hook(_Spans(tracer, cache.namespace))


def _named(caches: tuple[BareCache, ...]) -> None:
    if not caches:
        raise TypeError("name the caches that are meant, such as the one that configure() returned")


def _name(family: Family) -> str:
    return f"cachecraft.{family.name}"


def _remembered(read: Callable[[], list[Snapshot]]) -> Callable[[], list[Snapshot]]:
    last: tuple[float, list[Snapshot]] = (-1.0, [])

    def recent() -> list[Snapshot]:
        nonlocal last
        if time.monotonic() - last[0] > _MEMORY:
            last = time.monotonic(), read()
        return last[1]

    return recent


def _observer(family: Family, read: Callable[[], list[Snapshot]]) -> Callable[..., Iterable[otel_metrics.Observation]]:
    names = ("namespace", *family.labels)

    def observe(_: otel_metrics.CallbackOptions) -> Iterable[otel_metrics.Observation]:
        for snapshot in read():
            for labels, value in family.samples(snapshot):
                attributes = dict(zip(names, (snapshot.namespace, *labels), strict=True))
                yield otel_metrics.Observation(value, attributes)

    return observe


class _Recorder:
    """Records durations as they come to be known."""

    def __init__(self, namespace: str, histograms: dict[str, otel_metrics.Histogram]) -> None:
        self._namespace = namespace
        self._histograms = histograms

    def __call__(self, event: Event) -> None:
        match event:
            case LoadEnded(function=function, seconds=seconds):
                self._record(LOADS, seconds, function)
            case WaitEnded(function=function, seconds=seconds):
                self._record(WAITS, seconds, function)
            case RedisAsked(operation=operation, seconds=seconds):
                self._record(REDIS, seconds, operation)

    def _record(self, family: Family, seconds: float, label: str) -> None:
        (name,) = family.labels
        self._histograms[family.name].record(seconds, {"namespace": self._namespace, name: label})


class _Spans:
    """Makes spans of events."""

    def __init__(self, tracer: otel_trace.Tracer, namespace: str) -> None:
        self._tracer = tracer
        self._namespace = namespace
        self._loads: dict[int, tuple[Span, context.Context]] = {}
        """Those under way, each with the context that it began in."""

    def __call__(self, event: Event) -> None:
        match event:
            case LoadStarted():
                self._begin(event)
            case LoadEnded():
                self._end(event)
            case WaitEnded(function=function, seconds=seconds, in_time=in_time):
                attributes = {"cachecraft.function": function, "cachecraft.in_time": in_time}
                self._past(f"wait {function}", seconds, attributes)
            case RedisAsked(operation=operation) if operation != "renew":  # those belong to no call
                attributes = {"db.system.name": "redis", "db.operation.name": operation}
                self._past(f"redis {operation}", event.seconds, attributes, SpanKind.CLIENT, event.error)

    def _begin(self, event: LoadStarted) -> None:
        before = context.get_current()
        attributes = {"cachecraft.namespace": self._namespace, "cachecraft.function": event.function}
        span = self._tracer.start_span(f"load {event.function}", attributes=attributes)
        context.attach(otel_trace.set_span_in_context(span))
        self._loads[event.load] = span, before

    def _end(self, event: LoadEnded) -> None:
        span, before = self._loads.pop(event.load)
        # Not by detaching: a loader that was given up is ended from somewhere else, where there is nothing to restore.
        if otel_trace.get_current_span() is span:
            context.attach(before)
        _failed(span, event.error)
        span.end()

    def _past(
        self,
        name: str,
        seconds: float,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
        error: BaseException | None = None,
    ) -> None:
        """A span of what has just ended."""
        now = time.time_ns()
        attributes = {"cachecraft.namespace": self._namespace, **attributes}
        began = now - round(seconds * 1e9)
        span = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=began)
        _failed(span, error)
        span.end(now)


def _failed(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR))


__all__ = ["measure", "trace"]
