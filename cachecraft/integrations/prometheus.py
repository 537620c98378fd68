"""Prometheus: a collector that reads the counters of caches when it is scraped, and at no other time.

    from cachecraft.integrations.prometheus import register

    register()  # every cache of this process; then expose prometheus_client's registry as ever

It needs the extra ``cachecraft[prometheus]``. A forked child goes on from what its parent had counted, as everything in
``prometheus_client`` does; its multiprocess mode does not know collectors, so scrape each worker, or see
``cachecraft stats``, which sums over processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from cachecraft._cache import BareCache
from cachecraft._core.durations import BOUNDS, Durations
from cachecraft._life import caches
from cachecraft.metrics import FAMILIES, Family, gather

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ModuleNotFoundError as missing:
    if not (missing.name or "").startswith("prometheus_client"):
        raise
    raise ModuleNotFoundError(
        "cachecraft.integrations.prometheus needs prometheus-client; install cachecraft with its extra [prometheus]",
        name=missing.name,
    ) from None

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_KINDS: Any = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
_BOUNDS = [*map(str, BOUNDS), "+Inf"]


class CacheCollector(Collector):
    """Reads the counters of ``caches``, of all that there are if none are named."""

    def __init__(self, *caches: BareCache) -> None:
        self._caches = caches

    def describe(self) -> Iterator[Metric]:
        """The names of all metrics, without samples: to register it reads nothing."""
        return map(_empty, FAMILIES)

    def collect(self) -> Iterator[Metric]:
        namespaces = gather(self._caches or caches())
        for family in FAMILIES:
            metric = _empty(family)
            for snapshot in namespaces:
                for labels, value in family.samples(snapshot):
                    _add(metric, [snapshot.namespace, *labels], value)
            yield metric


def register(*caches: BareCache, registry: CollectorRegistry = REGISTRY) -> CacheCollector:
    """Have a registry read these caches, all that there are and will be if none are named, at each scrape.

    Raises:
        ValueError: the registry has such a collector already.
    """
    collector = CacheCollector(*caches)
    registry.register(collector)
    return collector


def _empty(family: Family) -> Any:
    unit = f"_{family.unit}" if family.unit else ""
    name = f"cachecraft_{family.name.replace('.', '_')}{unit}"
    return _KINDS[family.kind](name, family.help, labels=["namespace", *family.labels])


def _add(metric: Any, labels: list[str], value: Any) -> None:
    if isinstance(value, Durations):
        buckets = list(zip(_BOUNDS, map(float, accumulate(value.counts)), strict=True))
        metric.add_metric(labels, buckets=buckets, sum_value=value.seconds)
    else:
        metric.add_metric(labels, value)


__all__ = ["CacheCollector", "register"]
