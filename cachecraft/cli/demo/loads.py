"""The three loads that the tour puts upon a service, and what each of them measures.

*Waves*: everybody reads, an order is placed, everybody reads on, the ttl passes. *Sweep*: many keys, read round and
round until each was loaded anew. *Storm*: everybody reads without pause while one order after another is placed.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from itertools import takewhile

from cachecraft.cli.demo.crowd import Crowd, Log, Watch
from cachecraft.cli.demo.services import Service, Totals
from cachecraft.cli.demo.shop import Shop

REGION = "north"
EXPIRED = 1.25  # seconds until a ttl of one second has passed, with the default jitter of up to 20 %
READS_BEFORE, READS_AFTER = 2, 3  # by each caller, of the order placed in each wave
READS = READS_BEFORE + READS_AFTER
SETTLED = 0.4  # seconds until a load behind the callers is over, on a busy machine
WRITE_EVERY = 0.08
PATIENCE = 5.0  # seconds until a sweep ends in any case


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    orders: int
    threads: int
    tasks: int
    waves: int
    customers: int
    writes: int

    @property
    def callers(self) -> int:
        return self.threads + self.tasks

    @property
    def calls(self) -> int:
        """Calls answered in the waves."""
        return self.callers * self.waves * READS


FULL = Plan(orders=250_000, threads=12, tasks=12, waves=2, customers=200, writes=20)
QUICK = Plan(orders=120_000, threads=8, tasks=8, waves=1, customers=200, writes=6)


class Readers:
    """Callers of the two reports, who know how many orders they must be told of."""

    def __init__(self, shop: Shop, service: Service) -> None:
        self._shop = shop
        self._service = service

    def by_thread(self, log: Log) -> None:
        due, began = self._shop.due[REGION], time.perf_counter()
        report = self._service.revenue(REGION)
        log.note(began, stale=report.orders < due)

    async def by_task(self, log: Log) -> None:
        due, began = self._shop.due[REGION], time.perf_counter()
        report = await self._service.best_sellers(REGION)
        log.note(began, stale=report.orders < due)


def warm_up(shop: Shop, service: Service, crowd: Crowd) -> None:
    """Have both reports kept, and everybody connected, as in a service that has been up for a while."""
    readers = Readers(shop, service)
    readers.by_thread(Log())
    crowd.ask(readers.by_task(Log()))
    crowd.send(readers.by_thread, readers.by_task, watch=_nobody)


def place_order(shop: Shop, service: Service, cents: int = 1_000) -> None:
    """A write; once it has returned, everybody who asks must be told of it."""
    service.place_order(REGION, cents)
    shop.due[REGION] += 1


def waves(shop: Shop, service: Service, crowd: Crowd, plan: Plan, watch: Watch, *, before: float, after: float) -> Log:
    """Everybody reads, an order is placed, everybody reads on; with so many seconds of rest before and after it."""
    readers, seen = Readers(shop, service), Log()

    def read() -> None:
        answered = len(seen.waits)
        seen.add(crowd.send(readers.by_thread, readers.by_task, watch=lambda calls: watch(answered + calls)))

    for _ in range(plan.waves):
        time.sleep(before)
        for _ in range(READS_BEFORE):
            read()
        place_order(shop, service)
        for _ in range(READS_AFTER):
            read()
        time.sleep(after)
    return seen


def store_together(shop: Shop, totals: Totals, plan: Plan) -> None:
    """Have the totals of many customers kept, as fast as that goes."""
    for customer, cents in shop.spent_by_all(plan.customers):
        totals.keep(cents, customer)


def sweep(shop: Shop, totals: Totals, crowd: Crowd, plan: Plan, watch: Watch) -> Log:
    """Read the totals that were stored together until each has expired and was loaded again."""
    customers = range(plan.customers)
    until = time.monotonic() + PATIENCE

    def going_on() -> bool:
        return shop.meter.different < len(customers) and time.monotonic() < until and not crowd.leaving.is_set()

    def by_thread(log: Log) -> None:
        mine = random.sample(customers, len(customers))
        while going_on():
            for customer in takewhile(lambda _: going_on(), mine):
                began = time.perf_counter()
                totals.spent(customer)
                log.note(began, stale=False)
            time.sleep(0.005)

    return crowd.send(by_thread, watch=lambda _: watch(shop.meter.different))


def storm(shop: Shop, service: Service, crowd: Crowd, plan: Plan, watch: Watch) -> Log:
    """Everybody reads without pause while orders are placed; each answer is held against the writes that returned."""
    readers = Readers(shop, service)
    over = False

    def going_on() -> bool:
        return not over and not crowd.leaving.is_set()

    def by_thread(log: Log) -> None:
        while going_on():
            readers.by_thread(log)
            time.sleep(0.002)

    async def by_task(log: Log) -> None:
        while going_on():
            await readers.by_task(log)
            await asyncio.sleep(0.002)

    def write() -> None:
        nonlocal over
        try:
            for number in range(plan.writes):
                time.sleep(WRITE_EVERY)
                place_order(shop, service)
                watch(number + 1)
            time.sleep(WRITE_EVERY)
        finally:
            over = True

    return crowd.send(by_thread, by_task, watch=_nobody, errand=write)


def _nobody(_: int) -> None:
    return None
