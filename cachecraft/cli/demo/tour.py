"""The tour from the front door: open the cache, build the shop, walk the steps, sum up, and end with an exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from cachecraft._api import Cache
from cachecraft._core.errors import BackendError
from cachecraft.cli.demo.crowd import Crowd
from cachecraft.cli.demo.loads import FULL, QUICK, Plan
from cachecraft.cli.demo.outcome import Outcome
from cachecraft.cli.demo.shop import Shop
from cachecraft.cli.demo.steps import Steps
from cachecraft.cli.demo.story import Story
from cachecraft.cli.ending import DONE, FAILED, explained
from cachecraft.cli.figures import duration
from cachecraft.cli.terminal import open_console


def tour(url: str, namespace: str, *, quick: bool, as_json: bool) -> int:
    """Run it all; the exit code."""
    began = time.perf_counter()
    plan = QUICK if quick else FULL
    obstacle = _obstacle(url, namespace)
    if obstacle:
        return explained(obstacle, FAILED)
    story = Story(open_console(json=as_json))
    story.opening(
        _shown(url),
        f"{plan.orders:,} orders in SQLite, two slow reports on them; "
        f"{plan.threads} threads read one, {plan.tasks} asyncio tasks the other.",
    )
    with Shop(plan.tasks) as shop, Crowd(plan.threads, plan.tasks) as crowd:
        with story.progress("building the database", plan.orders) as watch:
            shop.build(plan.orders, watch)
        steps = Steps(url, namespace, plan, story, shop, crowd)
        steps.walk()
    seconds = time.perf_counter() - began
    _sum_up(story, steps.outcomes, seconds)
    if as_json:
        print(json.dumps(_document(url, plan, steps.outcomes, seconds), indent=2))
    return explained(f"this is a bug, please report it: {steps.broken}", FAILED) if steps.broken else DONE


def _obstacle(url: str, namespace: str) -> str:
    """What keeps the tour from beginning, or nothing.

    Raises:
        OptionError: the URL has no scheme known here.
        BackendError: Redis cannot be reached.
    """
    with Cache(url, namespace=namespace) as cache:
        if not cache.enabled:
            return "CACHECRAFT_ENABLED turns caching off, so there is nothing to show; unset it"
        try:
            cache.ping()
        except BackendError as error:
            raise BackendError(f"cannot reach {_shown(url)}: {error}") from error
    return ""


def _shown(url: str) -> str:
    """The URL without a user and a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _sum_up(story: Story, outcomes: Sequence[Outcome], seconds: float) -> None:
    story.heading("In short")
    story.table(outcomes)
    waves = [outcome for outcome in outcomes if outcome.load == "waves"]
    sweeps = [outcome for outcome in outcomes if outcome.load == "sweep"]
    story.chart("queries", [(each.title, each.queries, f"{each.queries:,}") for each in waves])
    story.chart("p99 of what callers waited", [(each.title, each.p99, duration(each.p99)) for each in waves])
    story.chart("queries in the worst 50 ms", [(each.title, each.busiest, f"{each.busiest:,}") for each in sweeps])
    story.blank()
    story.say(f"{seconds:.0f} seconds; every number was measured just now.", "dim")


def _document(url: str, plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> dict[str, object]:
    return {
        "url": _shown(url),
        "orders": plan.orders,
        "threads": plan.threads,
        "tasks": plan.tasks,
        "waves": plan.waves,
        "writes": plan.writes,
        "customers": plan.customers,
        "seconds": round(seconds, 3),
        "steps": [outcome.as_json() for outcome in outcomes],
    }
