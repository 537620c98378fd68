"""What is counted reaches Prometheus and OpenTelemetry under stable names, and the dashboard names what there is."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from cachecraft import Cache
from cachecraft._core.tally import NUMBERS
from cachecraft.integrations import otel
from cachecraft.integrations.prometheus import register
from cachecraft.metrics import _CACHE, _TOLD, FAMILIES
from cachecraft.stats import OUTCOMES
from tests.callers import PATIENCE, Async, Gate, Sync, until
from tests.clock import FakeClock

Colour = Sync | Async
MONITORING = Path(__file__).parent.parent / "docs" / "monitoring"


def label_of(function: Any) -> str:
    return str(function.__cachecraft__.subject.label)


class Scrape:
    """What Prometheus reads of some caches."""

    def __init__(self, *caches: Cache) -> None:
        self.registry = CollectorRegistry()
        register(*caches, registry=self.registry)

    @property
    def text(self) -> str:
        return str(generate_latest(self.registry).decode())

    def __call__(self, name: str, **labels: str) -> float | None:
        (value,) = [
            sample.value
            for family in parse(self.text)
            for sample in family.samples
            if sample.name == f"cachecraft_{name}" and labels.items() <= sample.labels.items()
        ] or [None]
        return value


# -- Prometheus ----------------------------------------------------------------------------------------------


def test_a_scrape_tells_of_each_function(make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour) -> None:
    cache = make_cache(namespace="shop")

    @cache.cached(ttl=10)
    @colour.loader
    def load(x: int) -> int:
        clock.advance(0.03)
        if x == 0:
            raise ValueError
        return x

    scrape, name = Scrape(cache), label_of(load)
    for x in (1, 1, 1, 2):
        colour(load(x))
    with pytest.raises(ValueError):  # noqa: PT011
        colour(load(0))
    clock.advance(11)
    colour(load(1))

    def of(metric: str, **labels: str) -> float | None:
        return scrape(metric, namespace="shop", function=name, **labels)

    assert {outcome: of("requests_total", outcome=outcome) for outcome in OUTCOMES} == {
        "hit": 2, "near_hit": 0, "stale": 0, "miss": 3, "error": 1,
    }  # fmt: skip
    assert of("misses_total", reason="absent") == 3
    assert of("misses_total", reason="expired") == 1
    assert of("load_errors_total") == 1
    assert of("load_duration_seconds_count") == 4
    assert of("load_duration_seconds_sum") == pytest.approx(0.12)
    assert of("load_duration_seconds_bucket", le="0.025") == 0
    assert of("load_duration_seconds_bucket", le="0.05") == of("load_duration_seconds_bucket", le="+Inf") == 4
    assert of("memory_entries") == 2
    assert 0 < (of("memory_size_bytes") or 0) < 2000
    assert scrape("breaker_open", namespace="shop") == 0


def test_a_scrape_tells_of_redis(redis_url: str, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop") as cache:

        @cache.cached(key="k:{x}")
        @colour.loader
        def load(x: int) -> int:
            return x

        colour(load(1)), colour(load(1))
        scrape = Scrape(cache)
        assert scrape("redis_duration_seconds_count", operation="fetch") == 2
        assert scrape("redis_duration_seconds_count", operation="store") == 1
        assert scrape("redis_errors_total", operation="fetch") == 0
        assert scrape("requests_total", outcome="hit") == 1
        assert scrape("journal_length") == 0


def test_a_scrape_tells_of_the_near_cache(redis_url: str, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop", near=True) as cache:

        @cache.cached(key="k:{x}")
        @colour.loader
        def load(x: int) -> int:
            return x

        scrape, name = Scrape(cache), label_of(load)
        calls = 0
        while not load.stats.near_hits:  # it is held once it is listened to
            colour(load(1))
            calls += 1
            assert calls < 1000
        told = {outcome: scrape("requests_total", outcome=outcome, function=name) for outcome in OUTCOMES}
        assert told == {"hit": calls - 2, "near_hit": 1, "stale": 0, "miss": 1, "error": 0}
        assert scrape("near_entries") == scrape("memory_entries", function=name) == 1
        assert scrape("near_dropped_total", reason="key") == 0
        colour(load.invalidate(1))
        assert scrape("near_entries") == 0
        assert scrape("near_dropped_total", reason="key") == 1
        assert (scrape("near_deaf_seconds_total") or 0) > 0  # until it was listened to
        assert scrape("near_evictions_total") == 0


def test_caches_of_one_namespace_are_summed_up_so_that_no_series_comes_twice(make_cache: Callable[..., Cache]) -> None:
    caches = [make_cache(namespace="shop") for _ in range(2)]
    for cache in caches:
        cache.get_or_load("k", lambda: 1)
    scrape = Scrape(*caches)
    assert scrape("requests_total", outcome="miss") == 2
    series = [line.rpartition(" ")[0] for line in scrape.text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_without_names_every_cache_is_read(make_cache: Callable[..., Cache]) -> None:
    make_cache(namespace="here and there").get_or_load("k", lambda: 1)
    assert Scrape()("requests_total", namespace="here and there", outcome="miss") == 1


def test_to_register_reads_nothing(make_cache: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache()
    monkeypatch.setattr(Cache, "snapshot", lambda _: pytest.fail("it was read"))
    registry = CollectorRegistry(auto_describe=True)
    register(cache, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        register(cache, registry=registry)


def test_as_openmetrics_too(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(namespace='a "quoted"\nname')
    cache.get_or_load("k", lambda: 1)
    text = generate_openmetrics(Scrape(cache).registry).decode()
    assert {family.name for family in parse_openmetrics(text)} >= {"cachecraft_requests", "cachecraft_journaled"}


def test_whatever_is_counted_is_exposed(make_cache: Callable[..., Cache]) -> None:
    exposed = {family.name for family in FAMILIES}
    cache = make_cache()
    cache.get("k")
    told_otherwise = {"memory_entries", "memory_bytes", "near_dropped", "near_deaf_seconds"}
    counted = {name for name in cache._counters() if not name.startswith("near_dropped_")}
    assert counted - told_otherwise == _CACHE.keys()
    assert set(NUMBERS) > _TOLD
    assert len(exposed) == len(FAMILIES)
    assert {"load.errors", "backend.errors", "refreshes"} < exposed


# -- OpenTelemetry: metrics ----------------------------------------------------------------------------------


def test_metrics_are_exported(make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour) -> None:
    cache = make_cache(namespace="shop")
    reader = InMemoryMetricReader()
    otel.measure(cache, meter_provider=MeterProvider([reader]))

    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        clock.advance(0.03)
        return x

    for x in (1, 1, 1, 2):
        colour(load(x))
    points = dict(exported(reader))
    assert points.keys() >= {f"cachecraft.{family.name}" for family in FAMILIES if family.kind == "gauge"}
    function = {"namespace": "shop", "function": label_of(load)}
    requests = {point.attributes["outcome"]: point.value for point in points["cachecraft.requests"]}
    assert requests == {"hit": 2, "near_hit": 0, "stale": 0, "miss": 2, "error": 0}
    (entries,) = points["cachecraft.memory.entries"]
    assert (entries.attributes, entries.value) == (function, 2)
    (loads,) = points["cachecraft.load.duration"]
    assert (loads.attributes, loads.count, loads.sum) == (function, 2, pytest.approx(0.06))
    assert loads.bucket_counts[loads.explicit_bounds.index(0.05)] == 2


def exported(reader: InMemoryMetricReader) -> Iterator[tuple[str, list[Any]]]:
    data: Any = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        yield metric.name, list(metric.data.data_points)


def test_otel_wants_to_know_which_cache() -> None:
    with pytest.raises(TypeError, match="name the caches"):
        otel.measure()
    with pytest.raises(TypeError, match="name the caches"):
        otel.trace()


# -- OpenTelemetry: spans ------------------------------------------------------------------------------------


class Spans:
    """The spans of some caches."""

    def __init__(self, *caches: Cache) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("the user's own")
        otel.trace(*caches, tracer_provider=provider)

    def taken(self) -> list[ReadableSpan]:
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans


def test_a_load_has_a_span_around_what_the_loader_traces_and_a_hit_has_none(
    make_cache: Callable[..., Cache], colour: Colour
) -> None:
    cache = make_cache(namespace="shop")
    spans = Spans(cache)

    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        with spans.tracer.start_as_current_span("SELECT"):
            return x

    def call() -> Any:
        return load(1)

    @cache.cached(key="outer")
    @colour.loader
    def outer() -> int:
        return 1

    colour(call())
    inner, around = spans.taken()
    assert (inner.name, around.name) == ("SELECT", f"load {label_of(load)}")
    assert inner.parent is not None
    assert around.context is not None
    assert inner.parent.span_id == around.context.span_id
    assert around.parent is None
    assert around.attributes == {"cachecraft.namespace": "shop", "cachecraft.function": label_of(load)}
    colour(call())
    assert spans.taken() == []
    colour(outer())
    (alone,) = spans.taken()
    assert alone.parent is None  # the context is what it was before
    assert otel_trace.get_current_span() is otel_trace.INVALID_SPAN


def test_a_span_tells_the_kind_of_an_error_and_not_its_text(make_cache: Callable[..., Cache], colour: Colour) -> None:
    cache = make_cache()
    spans = Spans(cache)

    @cache.cached
    @colour.loader
    def load(x: int) -> int:
        raise LookupError("a secret")

    with pytest.raises(LookupError):
        colour(load(1))
    (span,) = spans.taken()
    assert span.status.is_ok is False
    assert (span.attributes or {})["error.type"] == "LookupError"
    assert "secret" not in span.to_json()


def test_a_wait_has_a_span_as_long_as_it_took(
    make_cache: Callable[..., Cache], clock: FakeClock, colour: Colour
) -> None:
    cache = make_cache()
    spans = Spans(cache)
    gate = Gate()

    @cache.cached
    @colour.loader
    def load(x: int) -> Any:
        yield gate
        return x

    leader = colour.start(load, 1)
    gate.reached()
    waiter = colour.start(load, 1)
    until(lambda: load.stats.waits == 1)
    clock.advance(3)
    gate.open()
    leader.result(PATIENCE), waiter.result(PATIENCE)
    (wait,) = [span for span in spans.taken() if span.name.startswith("wait ")]
    assert (wait.end_time or 0) - (wait.start_time or 0) == 3_000_000_000


def test_round_trips_have_spans_within_the_callers_own(redis_url: str, colour: Colour) -> None:
    with Cache(redis_url, namespace="shop") as cache:
        spans = Spans(cache)

        @cache.cached(key="k:{x}")
        @colour.loader
        def load(x: int) -> int:
            return x

        async def atraced() -> None:
            with spans.tracer.start_as_current_span("request"):
                await load(1)

        def traced() -> None:
            with spans.tracer.start_as_current_span("request"):
                load(1)

        call = atraced if colour.is_async else traced
        colour(call())
        *made, request = spans.taken()
        assert [span.name for span in made] == ["redis fetch", "redis acquire", f"load {label_of(load)}", "redis store"]
        assert request.context is not None
        assert {span.parent and span.parent.span_id for span in made} == {request.context.span_id}
        assert not [span for span in made if "k:1" in span.to_json()]


# -- the dashboard and the alerts ----------------------------------------------------------------------------


def queries() -> list[Any]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    found = [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
    found += [(f"$ {variable['name']}", variable["definition"]) for variable in dashboard["templating"]["list"][1:]]
    found += [(rule["alert"], rule["expr"]) for group in alerts["groups"] for rule in group["rules"]]
    return [pytest.param(expression, id=f"{at} {title}") for at, (title, expression) in enumerate(found)]


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every series that can be there, with its labels."""
    series: dict[str, set[str]] = {}
    for family in FAMILIES:
        unit = f"_{family.unit}" if family.unit else ""
        name = f"cachecraft_{family.name.replace('.', '_')}{unit}"
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[family.kind]
        for end in ends:
            labels = {"namespace", "instance", *family.labels, *(["le"] if end == "_bucket" else [])}
            series[name + end] = labels
    return series


def test_the_names_are_those_of_the_exposition(exposed: dict[str, set[str]], redis_url: str) -> None:
    with Cache(redis_url, namespace="shop") as cache:
        cache.get_or_load("k", lambda: 1)
        found = {sample.name for family in parse(Scrape(cache).text) for sample in family.samples}
    assert found <= exposed.keys()
    assert exposed.keys() - found == {f"cachecraft_wait_duration_seconds_{end}" for end in ("bucket", "count", "sum")}


@pytest.mark.parametrize("expression", queries())
def test_a_query_names_what_there_is(expression: str, exposed: dict[str, set[str]]) -> None:
    named = re.findall(r"(cachecraft_\w+)(?:\{([^}]*)\})?", expression)
    assert named
    for metric, selectors in named:
        assert metric in exposed
        for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', selectors):
            assert label in exposed[metric]
            if label == "outcome":
                assert set(value.split("|")) <= set(OUTCOMES)
    labels = set.intersection(*(exposed[metric] for metric, _ in named))
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouped)) <= labels | {"le"}


def test_the_dashboard_shows_every_metric() -> None:
    text = (MONITORING / "dashboard.json").read_text(encoding="utf-8")
    for family in FAMILIES:
        assert f"cachecraft_{family.name.replace('.', '_')}" in text, family.name


def test_the_documentation_names_every_metric(exposed: dict[str, set[str]]) -> None:
    text = (MONITORING.parent / "monitoring.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(cachecraft_\w+)`", text))
    assert told == {re.sub("_(bucket|count|sum)$", "", name) for name in exposed}


# -- the extras ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("otel", "opentelemetry", "otel")],
)
def test_without_the_extra_it_says_what_to_install(module: str, package: str, extra: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import cachecraft.integrations.{module}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"install cachecraft with its extra [{extra}]" in ended.stderr.splitlines()[-1]


def test_cachecraft_itself_imports_neither() -> None:
    """Redis' own client looks for OpenTelemetry; that is not our doing."""
    unwanted = ("prometheus_client", "cachecraft.integrations")
    program = f"import cachecraft, sys; print([name for name in sys.modules if name.startswith({unwanted})])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
