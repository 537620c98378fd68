"""The steps in their order: which service meets which load, what is said of it, and what must have come out.

Each step has a cache of its own, so that none profits from the one before. What it leaves in Redis nobody asks
for again, and it expires within minutes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cachecraft._api import Cache
from cachecraft._core.errors import CacheError
from cachecraft.cli.demo import loads, services
from cachecraft.cli.demo.crowd import Crowd, Log, Watch
from cachecraft.cli.demo.loads import REGION, Plan
from cachecraft.cli.demo.outcome import Outcome
from cachecraft.cli.demo.services import Service, Totals
from cachecraft.cli.demo.shop import Report, Shop
from cachecraft.cli.demo.story import Story
from cachecraft.cli.figures import duration, many

COUNTERS: Final = {
    "loads": "loads",
    "waits": "joined a load",
    "hits": "hits",
    "stale": "served stale",
    "refreshes": "refreshes behind",
    "store_lost": "results not stored",
    "backend_errors": "backend errors",
}


class Steps:
    """Walks the tour and keeps what each step measured."""

    def __init__(self, url: str, namespace: str, plan: Plan, story: Story, shop: Shop, crowd: Crowd) -> None:
        self._url = url
        self._plan = plan
        self._story = story
        self._shop = shop
        self._crowd = crowd
        self._namespace = f"{namespace}-{secrets.token_hex(4)}"
        self.outcomes: list[Outcome] = []
        #: What must not have come out and did, in words; empty if all is well.
        self.broken = ""

    def walk(self) -> None:
        self._no_cache()
        self._dictionary()
        self._single_flight()
        self._jitter()
        self._stale()
        self._invalidation()

    # -- the steps -------------------------------------------------------------------------------------------

    def _no_cache(self) -> None:
        plan = self._plan
        self._begin(
            1,
            "No cache",
            f"Each caller reads its report {loads.READS} times, and an order comes in between;"
            f" {many(plan.waves, 'wave')} of that, here and below.",
        )
        out = self._waves("no cache", services.without, before=0)
        self._story.say(f"{out.calls:,} calls are {out.queries:,} queries, and they queue for the database.")
        self._story.say(
            "(worst 50 ms: the most queries that came within 50 ms; stale: answers that miss an order already placed)",
            "dim",
        )

    def _dictionary(self) -> None:
        self._begin(2, "A ttl", "The cache everybody has written once: a dictionary and a time.")
        out = self._waves("a dictionary", services.with_a_dictionary)
        each = out.queries // self._plan.waves
        self._story.say(
            "Reads that follow are free. But once the second is over, all find it empty at the same time:"
            f" {each} queries each time for two results. And {out.stale:,} answers did not know of the order just"
            " placed."
        )

    def _single_flight(self) -> None:
        self._begin(3, "Single flight", "One caller loads, whoever comes meanwhile waits for that load.")
        out = self._waves("ttl, single flight", services.with_single_flight)
        self._story.say(
            f"{many(out.queries, 'query', 'queries')} for {out.calls:,} calls: one for each of the two reports each"
            " time the ttl has passed, whether threads or tasks ask."
        )

    def _jitter(self) -> None:
        plan = self._plan
        self._begin(
            4,
            "Jitter",
            f"The totals of {plan.customers} customers, stored together by a nightly job. {plan.threads} threads read"
            " all of them, round and round, until each has been loaded again.",
        )
        bare = self._sweep("jitter=None", services.without_jitter)
        self._story.say(f"They end in one instant: {bare.busiest} of {bare.queries} queries came within 50 ms.")
        spread = self._sweep("jitter", services.with_jitter)
        self._story.say(
            f"The same work spread out: at most {spread.busiest} within 50 ms. You need not ask for it: by default an"
            " hour's ttl ends anywhere in six minutes."
        )

    def _stale(self) -> None:
        self._begin(
            5, "Stale while revalidating", "After the ttl the old result is served at once, and one load runs behind."
        )
        out = self._waves("ttl, stale", services.with_stale, after=loads.SETTLED)
        before = self.outcomes[2]
        self._story.say(
            f"Nobody waits for a load any more: p99 {duration(before.p99)} became {duration(out.p99)}. The price:"
            " at first each wave is told the past."
        )

    def _invalidation(self) -> None:
        self._begin(6, "Invalidation", "The write says what it changes; the two reports are cached as in step 3.")
        with self._cache() as cache:
            service = services.with_invalidation(self._shop, cache)
            self._story.code(service.shown)
            self._before_and_after(service)
            out = self._measured("invalidation", "waves", cache, self._waves_on(service), self._plan.calls)
            self._story.say(f"{many(out.stale, 'stale answer')}, for one more load of each report after each order.")
            self._story.blank()
            storm = self._measured("invalidation, storm", "storm", cache, self._storm_on(service), self._plan.writes)
        self._story.say(
            f"{many(self._plan.writes, 'order')} placed while {self._plan.callers} callers read without pause:"
            f" {storm.calls:,} answers, each held against the writes that had returned when it was asked for;"
            f" {many(storm.stale, 'stale answer')}."
        )
        if storm.stats["store_lost"]:
            self._story.say(
                f"{many(storm.stats['store_lost'], 'result')} went to who had asked but were not kept: an order came"
                " while they were loaded."
            )
        if out.stale or storm.stale:
            self.broken = f"{out.stale + storm.stale} answers were older than a write that had returned"

    def _before_and_after(self, service: Service) -> None:
        before = service.revenue(REGION)
        loads.place_order(self._shop, service, cents=4_200)
        after = service.revenue(REGION)
        self._story.say(f"before      revenue({REGION!r})  {_words(before)}")
        self._story.say(f"            place_order({REGION!r}, 4200)")
        self._story.say(f"right after revenue({REGION!r})  {_words(after)}")
        self._story.blank()
        if (after.orders, after.cents) != (before.orders + 1, before.cents + 4_200):
            self.broken = f"the read after the write found {_words(after)}, as if there had been none"

    # -- how a step is run -----------------------------------------------------------------------------------

    def _begin(self, number: int, title: str, text: str) -> None:
        self._story.heading(f"{number}  {title}")
        self._story.say(text)

    def _waves(self, title: str, build: Callable[[Shop, Cache], Service], **rest: float) -> Outcome:
        with self._cache() as cache:
            service = build(self._shop, cache)
            self._story.code(service.shown)
            return self._measured(title, "waves", cache, self._waves_on(service, **rest), self._plan.calls)

    def _waves_on(
        self, service: Service, *, before: float = loads.EXPIRED, after: float = 0.0
    ) -> Callable[[Watch], Log]:
        loads.warm_up(self._shop, service, self._crowd)
        return lambda watch: loads.waves(
            self._shop, service, self._crowd, self._plan, watch, before=before, after=after
        )

    def _storm_on(self, service: Service) -> Callable[[Watch], Log]:
        loads.warm_up(self._shop, service, self._crowd)
        return lambda watch: loads.storm(self._shop, service, self._crowd, self._plan, watch)

    def _sweep(self, title: str, build: Callable[[Shop, Cache], Totals]) -> Outcome:
        with self._cache() as cache:
            totals = build(self._shop, cache)
            self._story.code(totals.shown)
            loads.store_together(self._shop, totals, self._plan)
            return self._measured(
                title,
                "sweep",
                cache,
                lambda watch: loads.sweep(self._shop, totals, self._crowd, self._plan, watch),
                self._plan.customers,
            )

    def _measured(self, title: str, load: str, cache: Cache, run: Callable[[Watch], Log], total: int) -> Outcome:
        """Run a load and put its outcome down. The cache's counters are those of the load alone."""
        before = cache.stats.as_dict()
        self._shop.meter.reset()
        with self._story.progress(title, total) as watch:
            log = run(watch)
        after = cache.stats.as_dict()
        outcome = Outcome(
            title=title,
            load=load,
            calls=len(log.waits),
            queries=self._shop.meter.queries,
            busiest=self._shop.meter.busiest,
            p50=log.percentile(50),
            p99=log.percentile(99),
            stale=log.stale,
            stats={name: int(after[name] - before[name]) for name in COUNTERS},
        )
        self.outcomes.append(outcome)
        counted = ", ".join(
            f"{words} {outcome.stats[name]:,}" for name, words in COUNTERS.items() if outcome.stats[name]
        )
        self._story.outcome(outcome, f"cache.stats: {counted}" if counted else "")
        return outcome

    @contextmanager
    def _cache(self) -> Iterator[Cache]:
        namespace = f"{self._namespace}-{len(self.outcomes) + 1}"
        with Cache(self._url, namespace=namespace) as cache:
            try:
                yield cache
            finally:
                try:
                    cache.clear()
                except CacheError:
                    pass  # what is left expires by itself


def _words(report: Report) -> str:
    return f"{report.orders:,} orders, ${report.cents / 100:,.2f}"
