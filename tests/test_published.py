"""Each process publishes its counters to Redis, in nobody's way, and whoever asks sums them up."""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest

from cachecraft import Cache, reports
from cachecraft._core.entry import key_digest
from cachecraft._core.errors import BackendError, OptionError
from cachecraft._core.heat import Heat
from cachecraft._core.notes import KEPT, Lately
from cachecraft._core.tally import NUMBERS
from cachecraft.advice import Advice
from cachecraft.backends import publisher as publishing
from cachecraft.backends.dialling import Dialling
from cachecraft.backends.publisher import PLACES, Board, Publisher
from cachecraft.reports import FUNCTIONS, Report, Reporter
from cachecraft.stats import OTHERS, Counted, Snapshot
from tests.callers import PATIENCE, until
from tests.proxy import Proxy
from tests.redis_kit import cache, colour, in_child, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer
from tests.test_redis_rights import ACL

OFTEN = 0.05


@pytest.fixture
def read(redis_url: str) -> Iterator[Callable[[], list[Report]]]:
    """What is published on the shared server, as `cachecraft stats` reads it."""
    board = Board(Dialling(redis_url, 1.0, 1.0, 1), "shop:")
    yield lambda: [report for _, data in board.read() if (report := reports.read(data, "shop"))]
    board.close()


@pytest.fixture
def busy(redis_url: str) -> Iterator[Cache]:
    """A cache that publishes often."""
    with Cache(redis_url, namespace="shop", publish_stats=OFTEN) as made:
        yield made


def publisher_of(cache: Cache) -> Publisher:
    publisher = cache.keeper.publisher  # type: ignore[attr-defined]  # a RemoteKeeper
    assert isinstance(publisher, Publisher)
    return publisher


def calls(report: Report) -> Counter[str]:
    return Counter({outcome: n for each in report.counted.functions.values() for outcome, n in each.outcomes.items()})


def label_of(function: Any) -> str:
    return str(function.__cachecraft__.subject.label)


def failing(publisher: Publisher) -> list[BackendError]:
    """What it raises from now on, which nobody hears of otherwise."""
    failures: list[BackendError] = []
    publish = publisher.publish

    def watched() -> None:
        try:
            publish()
        except BackendError as error:
            failures.append(error)
            raise

    publisher.publish = watched  # type: ignore[method-assign]  # to listen
    return failures


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "cachecraft-stats"]


def test_processes_are_summed_up(busy: Cache, redis_url: str, read: Callable[[], list[Report]], colour: Any) -> None:
    with Cache(redis_url, namespace="shop", publish_stats=OFTEN) as other:
        for each in (busy, other):

            @each.cached(key="k:{x}")
            @colour.loader
            def load(x: int) -> int:
                return x

            for _ in range(3):
                colour(load(1))
        until(lambda: len(read()) == 2 and sum(map(calls, read()), Counter()).total() == 6)
        everything = reports.total("shop", read())
        (counted,) = everything.functions.values()
        assert counted.outcomes == {"hit": 5, "miss": 1}
        assert counted.loads.count == counted.tally.loads == 1
        assert everything.redis["fetch"].count == 6
        assert {report.pid for report in read()} == {os.getpid()}
        until(lambda: not reports.hottest(read()))  # nobody asked for anything of late


def test_a_report_comes_back_as_it_was(busy: Cache, read: Callable[[], list[Report]]) -> None:
    load = busy.cached(key="k:{x}")(lambda x: 1 // x)
    for x in (1, 1, 2):
        load(x)
    with pytest.raises(ZeroDivisionError):
        load(0)
    load.invalidate(1)
    until(lambda: sum(map(calls, read()), Counter()).total() == 4)
    (told,), (counted,) = read()[0].counted.functions.items(), busy.snapshot().functions.items()
    assert told[0] == counted[0] == label_of(load)
    there, here = told[1], counted[1]
    assert (there.outcomes, there.tally.reasons) == (here.outcomes, here.tally.reasons)
    assert there.outcomes == {"hit": 1, "miss": 2, "error": 1}
    for name in NUMBERS:
        assert getattr(there.tally, name) == getattr(here.tally, name), name
    assert (there.loads.counts, there.loads.seconds) == (here.loads.counts, here.loads.seconds)
    assert there.loads.count == 3


def test_the_first_report_comes_after_a_period_and_not_at_each_call(proxy: Proxy) -> None:
    with Cache(proxy.url, namespace="shop") as made:
        assert made.settings.publish_stats == 5.0
        for _ in range(50):
            made.get_or_load("k", lambda: 1)
        assert threads() == ["cachecraft-stats"]
        assert not [command for command in proxy.commands if b"stats~" in b" ".join(command)]
    until(lambda: not threads())


def test_what_has_not_changed_is_written_to_keep_it_alive_only(proxy: Proxy) -> None:
    def written() -> int:
        return sum(b"shop:stats~:" in b" ".join(command) for command in proxy.commands)

    with Cache(proxy.url, namespace="shop", publish_stats=3600) as made:
        made.get_or_load("k", lambda: 1)
        publisher = publisher_of(made)
        publisher.publish()
        publisher.publish()  # the keys of late are none now
        before = written()
        for _ in range(5):
            publisher.publish()
        assert written() == before
        publisher._written -= 1.6 * 3600
        publisher.publish()
        assert written() == before + 1
        made.get_or_load("k", lambda: 1)
        publisher.publish()
        assert written() == before + 2


def test_one_process_has_one_place_that_expires(redis_server: RedisServer, redis_url: str) -> None:
    with Cache(redis_url, namespace="shop", publish_stats=2) as made:
        made.get_or_load("k", lambda: 1)
        for _ in range(5):
            publisher_of(made).publish()
        (name,) = redis_server.cli("KEYS", "*stats*")
        assert 4000 < redis_server.cli("PTTL", name) <= 6000
        assert not name.startswith(b"shop:~")


def test_a_process_that_lost_its_place_takes_another(
    redis_server: RedisServer, redis_url: str, read: Callable[[], list[Report]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PLACES", 2)
    monkeypatch.setattr(publishing, "_TRIES", 2)
    with Cache(redis_url, namespace="shop", publish_stats=3600) as one, Cache(redis_url, namespace="shop") as two:
        for each in (one, two):
            each.get_or_load("k", lambda: 1)
            publisher_of(each).publish()
        assert len(read()) == 2
        with Cache(redis_url, namespace="shop") as three:  # there is none for it
            three.get_or_load("k", lambda: 1)
            publisher_of(three).publish()
            assert len(read()) == 2
            redis_server.cli("FLUSHALL")
            publisher_of(three).publish()
            one.get_or_load("k", lambda: 1)
            publisher_of(one).publish()
            assert len(read()) == 2


def test_neither_a_pattern_nor_clear_nor_a_user_reaches_a_place(
    redis_server: RedisServer, redis_url: str, colour: Any
) -> None:
    with Cache(redis_url, namespace="shop", publish_stats=3600) as made:
        by_hand = colour.on(made)
        by_hand.set("stats~:1", "mine")
        publisher_of(made).publish()
        (name,) = redis_server.cli("KEYS", "shop:stats~*")
        for pattern in ("s*", "*s*", "stats*", "stats~:*", "[s]t*"):
            by_hand.invalidate(pattern=pattern)
        by_hand.clear()
        by_hand.invalidate(key=name.decode().removeprefix("shop:"))
        assert redis_server.cli("KEYS", "shop:stats~*") == [name]
        assert reports.read(redis_server.cli("GET", name)[17:], "shop") is not None


def test_a_server_that_is_known_to_be_gone_is_not_asked(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    with Cache(server.url, namespace="shop", publish_stats=OFTEN, timeout=0.1, connect_timeout=0.1) as made:
        load = made.cached(key="k:{x}")(lambda x: x)
        load(1)
        publisher = publisher_of(made)
        until(lambda: publisher._number is not None)
        server.pause()
        for x in range(5):
            load(x)
        assert made.stats.breaker_open
        asked = threading.Event()
        publisher.publish = asked.set  # type: ignore[method-assign]  # nobody is to come by
        assert not asked.wait(5 * OFTEN)
        server.resume()
        assert asked.wait(PATIENCE)


def test_a_failure_is_of_no_consequence(start_redis: Callable[..., RedisServer]) -> None:
    """Nobody waits for it, nothing is counted, and the next report comes as if nothing had been."""
    server = start_redis()
    with Cache(server.url, namespace="shop", publish_stats=OFTEN, timeout=0.1, connect_timeout=0.1) as made:
        made.get_or_load("k", lambda: 1)
        publisher = publisher_of(made)
        until(lambda: publisher._number is not None)
        failures = failing(publisher)
        server.kill()
        written = publisher._written
        until(lambda: len(failures) >= 2)
        assert made.stats.backend_errors == made.stats.breaker_opened == 0
        server.start()
        until(lambda: publisher._written > written)
        assert server.cli("KEYS", "shop:stats~*")


def test_a_forked_child_reports_its_own_and_not_what_it_inherited(
    busy: Cache, read: Callable[[], list[Report]]
) -> None:
    load = busy.cached(key="k:{x}")(lambda x: x)
    load(1), load(1), load(1)
    until(lambda: len(read()) == 1)

    def child() -> int:
        load(1)
        until(lambda: len(read()) == 2)
        mine = [report for report in read() if report.pid == os.getpid()]
        return int([calls(report) for report in mine] != [{"hit": 1}])

    assert in_child(child) == 0
    (parents,) = [report for report in read() if report.pid == os.getpid()]
    assert calls(parents) == {"hit": 2, "miss": 1}


def test_it_ends_with_the_cache(busy: Cache, redis_url: str) -> None:
    busy.get("k")
    assert threads()
    busy.close()
    until(lambda: not threads())


def test_none_means_never_and_memory_has_nothing_to_publish(redis_url: str) -> None:
    for made in (Cache(redis_url, publish_stats=None), Cache()):
        with made:
            made.get("k")
            assert not threads()
    with pytest.raises(OptionError, match="publish_stats"):
        Cache(redis_url, publish_stats=0)


def test_the_least_rights_of_a_cache_do(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    server.cli("ACL", "SETUSER", "app", "reset", "on", ">password", *ACL.split())
    url = server.url.replace("redis://", "redis://app:password@")
    with Cache(url, namespace="shop", publish_stats=3600) as made:
        made.get_or_load("k", lambda: 1)
        publisher_of(made).publish()
        board = Board(Dialling(url, 1.0, 1.0, 1), "shop:")
        ((_, data),) = board.read()
        board.close()
        assert calls(reports.read(data, "shop") or pytest.fail("no report")) == {"miss": 1}
        assert server.cli("ACL", "LOG") == []


def test_a_report_is_bounded() -> None:
    functions = {f"f{n}": Counted(outcomes=Counter(hit=n)) for n in range(3 * FUNCTIONS)}
    kept = reports.bounded(functions)
    assert len(kept) == FUNCTIONS + 1
    assert kept[f"f{3 * FUNCTIONS - 1}"].requests == 3 * FUNCTIONS - 1
    assert sum(each.requests for each in kept.values()) == sum(range(3 * FUNCTIONS))
    assert kept[OTHERS].requests == sum(range(2 * FUNCTIONS))


def test_of_all_results_that_were_kept_the_last_hundred_are_told_by_a_digest(
    redis_url: str, read: Callable[[], list[Report]]
) -> None:
    """However long their keys are, and however often one is stored."""
    with Cache(redis_url, namespace="shop", publish_stats=3600) as cache:
        load = cache.cached(key="k:{x}")(lambda x: x)
        for x in range(150):
            load(f"{x:0500}")
        for _ in range(200):
            load.refresh(f"{50:0500}")  # the next to be forgotten, else
        load(f"{150:0500}")
        publisher_of(cache).publish()
        kept = read()[0].kept or {}
        assert set(kept) == {key_digest(load.key(f"{x:0500}")) for x in (50, *range(52, 151))}
    assert all(0 < until - when <= 3600 * 1.2 for when, until in kept.values())
    assert len(kept) == KEPT


class Untold:
    """What a report is made of, some of which cannot be told."""

    def __init__(self, **counted: Counted) -> None:
        self.counted = counted

    def snapshot(self) -> Snapshot:
        return Snapshot("shop", dict(self.counted))

    def advice(self, functions: Any) -> list[Advice]:
        raise RuntimeError("no advice")

    def schemas(self) -> dict[str, set[bytes]]:
        raise RuntimeError("set changed size during iteration")


def test_counters_are_told_where_advice_and_schemas_cannot_be() -> None:
    reporter = Reporter(Untold(f=Counted(outcomes=Counter(hit=3))), Heat(), Lately())
    report = reports.read(reporter.dated(reporter.content() or b""), "shop")
    assert report is not None
    assert (calls(report), report.advice, report.schemas) == ({"hit": 3}, [], {})


class Talkative(Untold):
    def advice(self, functions: Any) -> list[Advice]:
        return [Advice(name, "hits", "x" * 10_000, "y" * 10_000) for name in functions for _ in range(50)]

    def schemas(self) -> dict[str, set[bytes]]:
        return {name: {bytes([n]) * 8 for n in range(100)} for name in self.counted}


def test_advice_and_schemas_are_bounded() -> None:
    reporter = Reporter(Talkative(f=Counted(outcomes=Counter(hit=3))), Heat(), Lately())
    content = reporter.content() or b""
    assert len(content) < 20_000
    report = reports.read(reporter.dated(content), "shop")
    assert report is not None
    assert len(report.advice) == reports.FINDINGS
    assert len(report.schemas["f"]) == 4


def test_a_report_of_an_older_and_of_a_newer_release_is_read(busy: Cache) -> None:
    """A newer one may say more, of each thing and besides; an older one says nothing of what it did not know."""
    function = busy.cached(key="k:{x}")(lambda x: x)  # while it is there its schema is told
    function(1)
    source: Any = publisher_of(busy)._source
    content = msgpack.unpackb(source.content())
    newer = content | {"more": 1, "advice": [["f", "hits", "few", "more", "and more"]]}
    newer["kept"] = [[*each, "and more"] for each in content["kept"]]
    older = {name: each for name, each in content.items() if name not in ("kept", "advice")}
    older["functions"] = {
        name: {what: each for what, each in told.items() if what != "schemas"}
        for name, told in content["functions"].items()
    }
    new, old = (reports.read(source.dated(msgpack.packb(each)), "shop") for each in (newer, older))
    assert new is not None
    assert old is not None
    assert calls(new) == calls(old) == {"miss": 1}
    assert new.advice == [Advice("f", "hits", "few", "more")]
    assert (len(new.kept or ()), len(new.schemas)) == (1, 1)
    assert (old.kept, old.advice, old.schemas) == (None, [], {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept": [[b"digest", float("inf"), 1.0]]},
        {"kept": [[b"digest", 1.0, float("nan")]]},
        {"kept": [[10**12, 1.0, 2.0]]},
        {"unkept": [[float("-inf"), "key", "failed", ""]]},
        {"advice": [["too", "few"]]},
        {"functions": {"f": {"schemas": [10**12]}}},
    ],
    ids=str,
)
def test_what_is_wrong_in_part_is_no_report(wrong: dict[str, Any]) -> None:
    """Whoever shows it may rely on moments that can be shown, and on bytes that are bytes."""
    content = Reporter(Talkative(), Heat(), Lately()).content() or b""
    assert reports.read(bytes(8) + content, "shop") is not None
    assert reports.read(bytes(8) + msgpack.packb(msgpack.unpackb(content) | wrong), "shop") is None


def test_a_forked_child_advises_and_remembers_nothing_of_its_parents(
    redis_url: str, read: Callable[[], list[Report]]
) -> None:
    with Cache(redis_url, namespace="shop", publish_stats=OFTEN) as parent:
        load = parent.cached(key="k:{x}")(lambda x: x)
        for x in range(150):
            load(x)
        until(lambda: read() and read()[0].advice)

        def child() -> int:
            load(1000)
            until(lambda: [report for report in read() if report.pid == os.getpid() and calls(report)])
            (mine,) = [report for report in read() if report.pid == os.getpid()]
            return int(bool(mine.advice) or len(mine.kept or ()) != 1 or len(mine.schemas) != 1)

        assert in_child(child) == 0


@pytest.mark.plain_keys
def test_bytes_that_are_no_report_are_none(
    busy: Cache, redis_server: RedisServer, read: Callable[[], list[Report]], caplog: pytest.LogCaptureFixture
) -> None:
    busy.get("k")
    until(lambda: len(read()) == 1)
    (name,) = redis_server.cli("KEYS", "shop:stats~*")
    good = redis_server.cli("GET", name)
    wrong = [good[:cut] for cut in range(0, len(good), 7)]
    wrong += [good.replace(b"format\x01", b"format\x02"), good.replace(b"functions", b"functionz"), b"S" * 1000]
    wrong += [good[:25] + b"\x91" * 5000, b"S" * 17 + bytes(8) + b"\xc1"]
    for number, slot in enumerate(wrong):
        redis_server.cli("SET", f"shop:stats~:{number}", slot)
    redis_server.cli("LPUSH", f"shop:stats~:{PLACES - 1}", "x") if name != b"shop:stats~:1023" else None
    found = read()
    assert len(found) <= 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_hottest_keys_are_told_with_how_often_they_are_asked_for(
    busy: Cache, read: Callable[[], list[Report]], colour: Any
) -> None:
    @busy.cached(key="k:{x}")
    @colour.loader
    def load(x: int) -> int:
        return x

    def are_told() -> bool:
        for x in (1, 2, 2, 2, 3, 3):
            colour(load(x))
        found = reports.hottest(read())
        rates = [rate for _, rate in found]
        return [key for key, _ in found] == ["shop:k:2", "shop:k:3", "shop:k:1"] and len(set(rates)) == 3

    until(are_told)


def test_a_key_that_grows_hot_late_is_found_too() -> None:
    heat = Heat(room=50)
    for early in range(50):
        for _ in range(100 + early):
            heat.add(f"early:{early}")
    for n in range(20_000):
        heat.add(f"cold:{n}")
        if n % 5 == 0:
            heat.add("late")
    assert heat.take(1)[0][0] == "late"


def test_few_counters_find_the_hot_keys_among_many() -> None:
    heat = Heat(room=50)
    for n in range(30_000):
        heat.add(f"cold:{n}")
        if n % 10 == 0:
            heat.add("hot")
        if n % 20 == 0:
            heat.add("warm")
    assert len(heat._counts) <= 100
    (hot, most), (warm, more), *_ = heat.take(10)
    assert (hot, warm) == ("hot", "warm")
    assert 2000 < most <= 3000
    assert 500 < more <= 1500
    assert heat.take(10) == []
