"""Passwords, values and arguments are in no log, no ``repr`` and no error, chains and tracebacks included.

Everything secret in here contains the word ``hush``; everything that is shown is searched for it.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecraft import Cache, CacheError, OptionError, OptionTypeError
from cachecraft._settings import redacted
from cachecraft.serializers import JsonSerializer, PickleSerializer
from tests.callers import Sync
from tests.proxy import Proxy
from tests.redis_kit import colour, proxy  # noqa: F401 - fixtures
from tests.servers import RedisServer

ARGUMENT = "hush-argument@example.org"
VALUE = {"card": "hush-value"}

Shown = list[str]


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Iterator[Shown]:
    """What a test saw of errors and reprs; afterwards it, and every log record, must be free of secrets."""
    caplog.set_level(logging.DEBUG)
    texts: Shown = []
    yield texts
    for record in caplog.get_records("call"):
        if record.name != "asyncio":  # in debug mode it logs whatever is slow
            texts.append(f"{record.getMessage()} {record.args!r} {record.exc_text}")
    for text in texts:
        assert "hush" not in text.lower()


def told(error: BaseException) -> str:
    """All that a traceback shows of an error and of those behind it, and their reprs."""
    texts = ["".join(traceback.format_exception(error))]
    behind: BaseException | None = error
    while behind is not None:
        texts.append(f"{behind!r} {behind.args!r}")
        behind = behind.__cause__ or behind.__context__
    # Lines of source are ours to read; the secrets of these tests are written there.
    return "\n".join(line for text in texts for line in text.splitlines() if not line.startswith("    "))


def everything(cache: Cache, *functions: Any) -> str:
    """The reprs of a cache and of all that it is made of."""
    made = [cache, cache.settings, cache.stats, cache.stats.as_dict(), cache.stats.reasons, cache.keeper, cache.driver]
    made += [cache.driver.crew]
    guard: Any = cache.driver.backend
    if guard is not None:
        backend = guard.backend
        made += [guard, guard.breaker, guard.journal, backend, backend._sync, backend._async, backend._sync._dialling]
        made += [cache.keeper.heart]  # type: ignore[attr-defined]  # a RemoteKeeper
    for each in functions:
        made += [each.__cachecraft__, each.__cachecraft__.function(), each.stats, each.cache_info(), each.cache]
    return " ".join(map(repr, made))


def _load(who: str) -> dict[str, str]:
    return VALUE


def use(cache: Cache, colour: Any, shown: Shown, load: Callable[[str], Any] = _load, **options: Any) -> Any:
    """Do with a cache what can be done, whether or not it works; the caller always gets the value."""
    f = cache.cached(ttl=60, key="u:{who}", tags=["t:{who}"], **options)(colour.loader(load))
    assert colour(f(ARGUMENT)) == colour(f(ARGUMENT)) == load(ARGUMENT)
    by_hand = colour.on(cache)
    by_hand.set(ARGUMENT, VALUE, tags=[ARGUMENT])
    by_hand.get(ARGUMENT)
    for call in (
        lambda: colour(f.refresh(ARGUMENT)),
        lambda: shown.append(repr(colour(f.explain(ARGUMENT)))),
        lambda: colour(f.invalidate(ARGUMENT)),
        lambda: by_hand.invalidate(key=ARGUMENT, pattern=f"{ARGUMENT}*", tags=[ARGUMENT]),
        lambda: by_hand.delete(ARGUMENT),
        lambda: shown.append(repr(colour(f.explain(ARGUMENT)))),
        by_hand.ping,
    ):
        try:
            call()
        except CacheError as error:
            shown.append(told(error))
    shown.append(everything(cache, f))
    return f


# -- passwords -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://me:hush@h:1/0", "redis://me:***@h:1/0"),
        ("redis://:hush@h/0", "redis://:***@h/0"),
        ("redis://hush@h/0", "redis://***@h/0"),
        ("redis://me:hu%2Fsh%40hush@h", "redis://me:***@h"),
        ("redis://me:hush://hush@hush@h", "redis://me:***@h"),
        ("redis://me:hush?hush@h", "redis://me:***@h"),
        ("redis://h/0?password=hush&username=me", "redis://h/0?password=***&username=me"),
        ("redis://h/0?password=hush@hush", "redis://***@***"),
        ("rediss://h/0?ssl_password=hush#x", "rediss://h/0?ssl_password=***#x"),
        ("unix://me:hush@/tmp/x.sock?PASSWORD=hush", "unix://me:***@/tmp/x.sock?PASSWORD=***"),
        ("redis+sentinel://a:hush@h:1,b:hush@h:2/m", "redis+sentinel://a:***@h:2/m"),
        ("me:hush@h:6379", "me:***@h:6379"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    shown = redacted(url)
    assert "hush" not in shown
    if "@hush" not in url or "://hush" in url:
        assert shown == expected


@pytest.mark.parametrize(
    "url",
    [
        "me:hush@h:6379", "nosuch://me:hush@h", "redis://me:hu/sh-hush@h:1/0", "redis://me:hush@h:port/0",
        "redis://h/0?password=hush&nosuch=1", "redis://h/port?password=hush&db=x", b"redis://:hush@h", 17,
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: Any, shown: Shown) -> None:
    with pytest.raises((OptionError, OptionTypeError), match="url=") as raised:
        Cache(url)
    shown.append(told(raised.value))


LOGINS = [
    "redis://:hush-pw@{}/0", "redis://default:hush-pw@{}/0", "redis://:%68ush%2Dpw@{}/0",
    "redis://{}/0?password=hush-pw",
]  # fmt: skip


@pytest.mark.parametrize("login", [*LOGINS, "redis://nobody:hush-pw@{}/0"])
@pytest.mark.parametrize("right", ["hush-pw", "hush-another", ""], ids=["right", "wrong", "none needed"])
def test_a_password_that_is_right_wrong_or_not_needed_is_not_shown(
    start_redis: Callable[..., RedisServer], colour: Any, shown: Shown, login: str, right: str
) -> None:
    server = start_redis()
    if right:
        server.cli("CONFIG", "SET", "requirepass", right)
    with Cache(login.format(f"127.0.0.1:{server.port}"), namespace="shop") as made:
        f = use(made, colour, shown)
        if right == "hush-pw" and login in LOGINS:
            assert f.stats.backend_errors == 0


@pytest.mark.parametrize("login", LOGINS)
def test_a_server_that_cannot_be_reached_gets_no_password_told(colour: Any, shown: Shown, login: str) -> None:
    """Refused; and an address that leads nowhere, to the end of the deadline."""
    for address in ("127.0.0.1:1", "192.0.2.1:6379"):
        with Cache(login.format(address), timeout=0.05, connect_timeout=0.05) as made:
            use(made, colour, shown)
    with Cache(login.format("").replace("redis://", "unix://", 1).replace("/0", "/nowhere.sock")) as made:
        use(made, colour, shown)


def test_a_server_that_echoes_what_it_does_not_know_tells_nothing(
    start_redis: Callable[..., RedisServer], colour: Any, shown: Shown
) -> None:
    """Redis answers "unknown command, with args beginning with: ...": of AUTH the password, of a script the value."""
    server = start_redis("--rename-command", "AUTH", "", "--rename-command", "EVALSHA", "")
    for url in (server.url, server.url.replace("127", ":hush-pw@127")):
        with Cache(url, namespace="shop") as made:
            f = use(made, colour, shown)
            assert f.stats.backend_errors > 0
    assert any("unknown command" in text for text in shown)


# -- values and arguments ------------------------------------------------------------------------------------


def test_a_silent_server_is_told_of_without_keys(proxy: Proxy, colour: Any, shown: Shown) -> None:
    with Cache(f"redis://127.0.0.1:{proxy.port}/0", namespace="shop", timeout=0.05) as made:
        use(made, colour, shown)
        proxy.frozen = True
        made.cached(ttl=60, key="frozen:{who}")(_load)(ARGUMENT)
        use(made, colour, shown)


def test_a_foreign_type_under_a_key(redis_url: str, redis_server: RedisServer, colour: Any, shown: Shown) -> None:
    with Cache(redis_url, namespace="shop") as made:
        f = made.cached(ttl=60, key="u:{who}", tags=["t:{who}"])(colour.loader(_load))
        redis_server.cli("RPUSH", f.key(ARGUMENT), "hush-item")
        redis_server.cli("PEXPIRE", f.key(ARGUMENT), 60_000)
        use(made, colour, shown)
        assert made.stats.backend_errors > 0


class Talkative:
    """Says what it holds whenever it can."""

    def __repr__(self) -> str:
        return "Talkative('hush')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Talkative)

    __hash__ = None  # type: ignore[assignment]  # nobody puts it in a set

    def __reduce__(self) -> Any:
        raise ValueError("hush: a row that cannot be pickled")


@pytest.mark.parametrize("serializer", [None, JsonSerializer(), PickleSerializer(secret=b"hush")], ids=repr)
@pytest.mark.parametrize(
    "value", [Talkative(), {"hush": [Talkative()]}, {1: "hush", "1": {"hush"}}], ids=["object", "nested", "keys"]
)
def test_a_value_that_cannot_be_stored(redis_url: str, colour: Any, shown: Shown, serializer: Any, value: Any) -> None:
    with Cache(redis_url, namespace="shop", serializer=serializer) as made:
        use(made, colour, shown, lambda who: value)


@pytest.mark.parametrize("option", ["when", "ttl", "tags"])
@pytest.mark.parametrize("where", ["memory://", "redis"])
def test_what_a_users_own_code_says_of_a_value(
    redis_url: str, colour: Any, shown: Shown, caplog: pytest.LogCaptureFixture, option: str, where: str
) -> None:
    def fail(result: Any, *_: Any, **__: Any) -> Any:
        raise ValueError(f"bad row {result!r}")

    def wrong(result: Any, *_: Any, **__: Any) -> Any:
        return result

    for given in (fail, wrong):
        with Cache(redis_url if where == "redis" else where, namespace="shop") as made:
            f = made.cached(key="u:{who}", **{option: given})(colour.loader(_load))
            assert colour(f(ARGUMENT)) == VALUE
            shown.append(everything(made, f))
    assert caplog.records


def test_a_value_that_is_too_large(redis_url: str, colour: Any, shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    with Cache(redis_url, namespace="shop", max_value_bytes=10) as made:
        f = use(made, colour, shown)
        assert f.stats.refused
    assert "max_value_bytes" in caplog.text


@pytest.mark.parametrize("keys", [None, b"k" * 32], ids=["plain", "encrypted"])
def test_an_entry_that_is_corrupt(
    redis_url: str, redis_server: RedisServer, colour: Any, shown: Shown, keys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Cache(redis_url, namespace="shop", encryption_keys=keys) as made:
        f = made.cached(ttl=60, key="u:{who}")(colour.loader(_load))
        for spoil in (b"V" + b"hush" * 50, b"L", b"hush"):
            colour(f(ARGUMENT))
            good = redis_server.cli("GET", f.key(ARGUMENT))
            for slot in (spoil, good[:-1] + b"?", good + b"hush"):
                redis_server.cli("SET", f.key(ARGUMENT), slot, "PX", 60_000)
                assert colour(f(ARGUMENT)) == VALUE
        assert f.stats.reasons["corrupt"] > 5
        shown.append(everything(made, f))
    assert "a corrupt entry of" in caplog.text


def test_a_refresh_that_fails_and_one_that_ends_its_thread(
    redis_url: str, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.callers import until

    def load(who: str) -> Any:
        if f.stats.loads:
            raise SystemExit(f"hush {who}")
        return VALUE

    with Cache(redis_url, namespace="shop") as made:
        f = made.cached(ttl=60, key="u:{who}", refresh_ahead=59.999, jitter=None)(load)
        until(lambda: (f(ARGUMENT), caplog.records)[1])
        shown.append(everything(made, f))


def test_an_invalidation_that_fails(colour: Any, shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    with Cache("redis://:hush@127.0.0.1:1/0", namespace="shop") as made:
        f = made.cached(ttl=60, key="u:{who}")(colour.loader(_load))

        @made.invalidates(f, pattern="u:{who}*", tags=["t:{result[card]}"])
        @colour.loader
        def write(who: str) -> Any:
            return VALUE

        assert colour(write(ARGUMENT)) == VALUE
    assert "an invalidation may not have reached Redis" in caplog.text


@pytest.mark.parametrize(
    "misuse",
    [
        lambda cache, f: cache.get(b"hush"), lambda cache, f: cache.set(["hush"], 1),
        lambda cache, f: f({"hush": Talkative()}),
        lambda cache, f: cache.invalidate(tags=[b"hush"]), lambda cache, f: cache.set("k", 1, tags={"hush": 1}),
        lambda cache, f: cache.cached(key=lambda who: who)(_load)(b"hush"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_by_its_type(misuse: Callable[[Cache, Any], Any], shown: Shown) -> None:
    made = Cache()
    f = made.cached(vary=Talkative)(lambda who: 1)
    with pytest.raises(CacheError) as raised:
        misuse(made, f)
    shown.append(told(raised.value))


def test_callers_that_are_cancelled_and_a_loop_that_ends_under_them(redis_url: str, shown: Shown) -> None:
    async def use_it() -> None:
        f = made.cached(ttl=60, key="u:{who}")(Sync.loader(Sync(), _aload))
        tasks = [asyncio.ensure_future(f(f"{ARGUMENT}{number}")) for number in range(20)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks[:10], return_exceptions=True)

    with Cache(redis_url, namespace="shop") as made:
        asyncio.run(use_it())
        shown.append(repr(made))


async def _aload(who: str) -> Any:
    return VALUE
