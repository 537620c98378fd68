"""A shop's database, to be slow in front of: SQLite in a temporary directory, every query counted as it arrives.

The same seed makes the same orders. Reports read the whole table, as reports do; nothing sleeps to look slow.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

REGIONS: Final = ("north", "east", "south", "west")
PRODUCTS: Final = ("tea", "coffee", "cocoa", "mate", "chai", "rooibos")
CUSTOMERS: Final = 3_000
SLOT: Final = 0.050

_SCHEMA: Final = """
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, region TEXT, customer INTEGER, product TEXT, month INTEGER, cents INTEGER
)"""
_REVENUE: Final = """
SELECT month, count(*), sum(cents) FROM orders WHERE region = ? GROUP BY month ORDER BY month"""
_BEST_SELLERS: Final = """
SELECT product, count(*), sum(cents) FROM orders WHERE region = ? GROUP BY product ORDER BY sum(cents) DESC"""
_SPENT: Final = "SELECT sum(cents) FROM orders WHERE customer = ?"
_SPENT_BY_ALL: Final = "SELECT customer, sum(cents) FROM orders WHERE customer < ? GROUP BY customer"
_INSERT: Final = "INSERT INTO orders (region, customer, product, month, cents) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Report:
    """What a report found: how many orders, their total, and the total by line."""

    orders: int
    cents: int
    lines: tuple[tuple[str, int], ...]


class Meter:
    """When each query reached the database, and how many different ones there were."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._times: list[float] = []
        self._arguments: set[tuple[Any, ...]] = set()

    def count(self, arguments: tuple[Any, ...]) -> None:
        self._times.append(time.perf_counter())  # this and the next are atomic, each by itself
        self._arguments.add(arguments)

    @property
    def different(self) -> int:
        return len(self._arguments)

    @property
    def queries(self) -> int:
        return len(self._times)

    @property
    def busiest(self) -> int:
        """The most queries that arrived within any 50 ms."""
        times, first, most = sorted(self._times), 0, 0
        for last, at in enumerate(times):
            while at - times[first] > SLOT:
                first += 1
            most = max(most, last - first + 1)
        return most


class Shop:
    """The database and what a service asks of it: two reports, a customer's total, and new orders.

    ``meter`` counts the queries of the reports and totals. ``due`` is how many orders of a region anybody who asks
    now must be told of; whoever writes raises it when the write has returned.
    """

    def __init__(self, readers: int) -> None:
        self.meter = Meter()
        self.due = dict.fromkeys(REGIONS, 0)
        self._dir = tempfile.TemporaryDirectory(prefix="cachecraft-demo-", ignore_cleanup_errors=True)
        self._path = Path(self._dir.name) / "shop.sqlite"
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="shop")  # where tasks have their queries run

    # -- made and unmade -------------------------------------------------------------------------------------

    def build(self, rows: int, watch: Callable[[int], object]) -> None:
        """Fill the table, telling ``watch`` how many rows are there."""
        connection = self._connection()
        connection.execute("PRAGMA journal_mode = WAL")  # a writer keeps no reader waiting
        connection.execute("PRAGMA synchronous = OFF")  # it is thrown away in a minute
        connection.execute(_SCHEMA)
        orders, done = _orders(rows), 0
        while chunk := list(islice(orders, 10_000)):
            with connection:
                connection.executemany(_INSERT, chunk)
            done += len(chunk)
            watch(done)
        connection.execute("CREATE INDEX orders_by_customer ON orders (customer)")
        self.due.update(connection.execute("SELECT region, count(*) FROM orders GROUP BY region").fetchall())

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections:
            connection.close()
        self._dir.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
            connection.execute(f"PRAGMA mmap_size = {2**30}")  # all of them read the same pages
            self._connections.append(connection)
        return connection

    def _ask(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = self._connection()
        self.meter.count(arguments)
        return connection.execute(sql, arguments).fetchall()

    # -- what a service asks ---------------------------------------------------------------------------------

    def revenue(self, region: str) -> Report:
        """Revenue by month."""
        return _report(self._ask(_REVENUE, region))

    async def best_sellers(self, region: str) -> Report:
        """Revenue by product."""
        ask = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, _BEST_SELLERS, region)
        return _report(await ask)

    def spent(self, customer: int) -> int:
        """What one customer has spent, in cents."""
        return int(self._ask(_SPENT, customer)[0][0] or 0)

    def spent_by_all(self, customers: int) -> list[tuple[int, int]]:
        """What each of the first so many customers has spent: one query, as a nightly job would run it."""
        return [(int(customer), int(cents)) for customer, cents in self._ask(_SPENT_BY_ALL, customers)]

    def insert(self, region: str, cents: int) -> None:
        """A new order, committed."""
        with self._connection() as connection:
            connection.execute(_INSERT, (region, 0, PRODUCTS[0], 12, cents))


def _report(rows: list[tuple[Any, ...]]) -> Report:
    lines = tuple((str(name), int(cents)) for name, _, cents in rows)
    return Report(sum(int(count) for _, count, _ in rows), sum(cents for _, cents in lines), lines)


def _orders(rows: int) -> Iterator[tuple[str, int, str, int, int]]:
    draw = random.Random(20_240_229).random
    for _ in range(rows):
        yield (
            REGIONS[int(draw() * 4)],
            int(draw() * CUSTOMERS),
            PRODUCTS[int(draw() * 6)],
            1 + int(draw() * 12),
            100 + int(draw() * 9_900),
        )
