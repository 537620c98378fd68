"""The service of each step, written as its user would write it: what the tour prints is the source of what it runs.

Each builder takes the shop and a fresh cache. Its decorators are those of that cache, under the names that
``from cachecraft import cached, invalidates`` gives them for the default cache.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from cachecraft._api import Cache
from cachecraft._core.policy import Jitter
from cachecraft.cli.demo.shop import Report, Shop


@dataclass(frozen=True, kw_only=True)
class Service:
    """Two reports, one read by threads and one by tasks, and the write that changes both."""

    revenue: Callable[[str], Report]
    best_sellers: Callable[[str], Awaitable[Report]]
    place_order: Callable[[str, int], None]
    shown: tuple[Callable[..., Any], ...]
    """The functions whose source tells the step."""


def without(shop: Shop, cache: Cache) -> Service:
    def revenue(region: str) -> Report:
        return shop.revenue(region)

    async def best_sellers(region: str) -> Report:
        return await shop.best_sellers(region)

    return Service(revenue=revenue, best_sellers=best_sellers, place_order=shop.insert, shown=(revenue, best_sellers))


def with_a_dictionary(shop: Shop, cache: Cache) -> Service:
    memo: dict[str, tuple[float, Report]] = {}
    memo_of_tasks: dict[str, tuple[float, Report]] = {}

    def revenue(region: str) -> Report:
        if region not in memo or memo[region][0] < time.monotonic():
            report = shop.revenue(region)
            memo[region] = time.monotonic() + 1, report
        return memo[region][1]

    async def best_sellers(region: str) -> Report:
        if region not in memo_of_tasks or memo_of_tasks[region][0] < time.monotonic():
            report = await shop.best_sellers(region)
            memo_of_tasks[region] = time.monotonic() + 1, report
        return memo_of_tasks[region][1]

    return Service(revenue=revenue, best_sellers=best_sellers, place_order=shop.insert, shown=(revenue,))


def with_single_flight(shop: Shop, cache: Cache) -> Service:
    cached = cache.cached

    @cached(ttl=1)
    def revenue(region: str) -> Report:
        return shop.revenue(region)

    @cached(ttl=1)
    async def best_sellers(region: str) -> Report:
        return await shop.best_sellers(region)

    return Service(revenue=revenue, best_sellers=best_sellers, place_order=shop.insert, shown=(revenue, best_sellers))


def with_stale(shop: Shop, cache: Cache) -> Service:
    cached = cache.cached

    @cached(ttl=1, stale="1m")
    def revenue(region: str) -> Report:
        return shop.revenue(region)

    @cached(ttl=1, stale="1m")
    async def best_sellers(region: str) -> Report:
        return await shop.best_sellers(region)

    return Service(revenue=revenue, best_sellers=best_sellers, place_order=shop.insert, shown=(revenue,))


def with_invalidation(shop: Shop, cache: Cache) -> Service:
    cached, invalidates = cache.cached, cache.invalidates

    @cached(ttl=1)
    def revenue(region: str) -> Report:
        return shop.revenue(region)

    @cached(ttl=1)
    async def best_sellers(region: str) -> Report:
        return await shop.best_sellers(region)

    @invalidates(revenue, best_sellers)
    def place_order(region: str, cents: int) -> None:
        shop.insert(region, cents)

    return Service(revenue=revenue, best_sellers=best_sellers, place_order=place_order, shown=(place_order,))


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The total of each customer, for many customers: what is stored together may expire together."""

    spent: Callable[[int], int]
    keep: Callable[[int, int], object]
    """Have the cache remember a total for a customer."""
    shown: tuple[Callable[..., Any], ...]


def without_jitter(shop: Shop, cache: Cache) -> Totals:
    cached = cache.cached

    @cached(ttl=0.5, jitter=None)
    def spent(customer: int) -> int:
        return shop.spent(customer)

    return Totals(spent=spent, keep=spent.set, shown=(spent,))


def with_jitter(shop: Shop, cache: Cache) -> Totals:
    cached = cache.cached

    @cached(ttl=0.5, jitter=Jitter(0, 1))
    def spent(customer: int) -> int:
        return shop.spent(customer)

    return Totals(spent=spent, keep=spent.set, shown=(spent,))
