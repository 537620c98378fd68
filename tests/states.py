"""The states a real server can be in that are not "it works": each entered and left by a context manager.

It knows servers only. What a cache is to do in each of them, the tests say.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator

import redis

from tests.servers import RedisServer

NOWHERE = ("127.0.0.1", 1)
"""Where no primary is."""


@contextlib.contextmanager
def configured(server: RedisServer, name: str, value: object, after: object) -> Iterator[None]:
    """One setting is another for a while."""
    server.cli("CONFIG", "SET", name, str(value))
    yield
    server.cli("CONFIG", "SET", name, str(after))


def hang_up_on_all(server: RedisServer) -> None:
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@contextlib.contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def restarted_empty(server: RedisServer) -> Iterator[None]:
    server.restart()
    yield


@contextlib.contextmanager
def flushed(server: RedisServer) -> Iterator[None]:
    server.cli("FLUSHALL")
    yield


@contextlib.contextmanager
def scripts_flushed(server: RedisServer) -> Iterator[None]:
    server.cli("SCRIPT", "FLUSH")
    yield


@contextlib.contextmanager
def clients_killed(server: RedisServer) -> Iterator[None]:
    hang_up_on_all(server)
    yield


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    server.pause()
    yield
    server.resume()


@contextlib.contextmanager
def asleep(server: RedisServer) -> Iterator[None]:
    """`DEBUG SLEEP`, which needs `--enable-debug-command local`."""
    sleeping = threading.Thread(target=lambda: server.cli("DEBUG", "SLEEP", "1.2"))
    sleeping.start()
    time.sleep(0.05)  # until the server has gone to sleep; it cannot tell us
    yield
    sleeping.join()


@contextlib.contextmanager
def clients_paused(server: RedisServer) -> Iterator[None]:
    server.cli("CLIENT", "PAUSE", 1200)  # not to be ended by a command: it holds back that one too
    yield
    server.cli("PING")


@contextlib.contextmanager
def writes_paused(server: RedisServer) -> Iterator[None]:
    server.cli("CLIENT", "PAUSE", 60_000, "WRITE")
    yield
    server.cli("CLIENT", "UNPAUSE")


@contextlib.contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    """It was restarted and loads a snapshot, which takes as long as it takes us.

    It needs `--dbfilename` of its own and `--loading-process-events-interval-bytes 1024`.
    """
    server.cli("EVAL", "for i = 1, 3000 do redis.call('SET', 'large:' .. i, ('x'):rep(100), 'PX', 600000) end", 0)
    server.cli("CONFIG", "SET", "rdbcompression", "no")
    server.cli("SAVE")
    server.kill()
    server.with_options("--key-load-delay", "10000").start(loading=True)
    yield
    server.cli("CONFIG", "SET", "key-load-delay", 0)


@contextlib.contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """A script that does not end."""
    server.cli("CONFIG", "SET", "busy-reply-threshold", 10)

    def spin() -> None:
        with contextlib.suppress(redis.RedisError):
            server.cli("EVAL", "while true do end", 0)

    spinning = threading.Thread(target=spin)
    spinning.start()
    while True:
        try:
            server.cli("PING")
        except redis.ResponseError:
            break
    yield
    with contextlib.suppress(redis.RedisError):
        server.cli("SCRIPT", "KILL")
    spinning.join()


@contextlib.contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    with configured(server, "maxmemory", 1, 0):
        yield


@contextlib.contextmanager
def a_replica(server: RedisServer) -> Iterator[None]:
    """A primary that was made one: it answers reads and takes no writes."""
    server.cli("REPLICAOF", *NOWHERE)
    yield
    server.cli("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def without_its_primary(server: RedisServer) -> Iterator[None]:
    """A replica that may not answer from old data: `MASTERDOWN`."""
    with configured(server, "replica-serve-stale-data", "no", "yes"), a_replica(server):
        yield


@contextlib.contextmanager
def too_few_replicas(server: RedisServer) -> Iterator[None]:
    """It takes no writes: `NOREPLICAS`."""
    with configured(server, "min-replicas-to-write", 1, 0):
        yield


@contextlib.contextmanager
def unable_to_save(server: RedisServer) -> Iterator[None]:
    """A background save failed, so it takes no writes: `MISCONF`."""
    server.cli("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(server.dir)
    server.cli("BGSAVE")
    while server.cli("INFO", "persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.005)
    yield
    server.cli("CONFIG", "SET", "save", "")
    server.cli("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")


@contextlib.contextmanager
def full_of_clients(server: RedisServer) -> Iterator[None]:
    """Nobody can connect any more: `max number of clients reached`."""
    with redis.Redis(port=server.port, protocol=2) as last:
        last.ping()
        last.execute_command("CONFIG", "SET", "maxclients", 1)
        last.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield
        last.execute_command("CONFIG", "SET", "maxclients", 1000)


@contextlib.contextmanager
def locked(server: RedisServer) -> Iterator[None]:
    """It wants a password now, and its clients give none: `NOAUTH`."""
    with redis.Redis(port=server.port, protocol=2) as insider:
        insider.ping()
        insider.execute_command("CONFIG", "SET", "requirepass", "changed")
        insider.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield
        insider.execute_command("CONFIG", "SET", "requirepass", "")


@contextlib.contextmanager
def without_the_right_to_write(server: RedisServer) -> Iterator[None]:
    """`NOPERM` for what changes anything."""
    server.cli("ACL", "SETUSER", "default", "-@write", "-eval", "-evalsha")
    yield
    server.cli("ACL", "SETUSER", "default", "+@all")


@contextlib.contextmanager
def without_any_right(server: RedisServer) -> Iterator[None]:
    """`NOPERM` for all that a cache does."""
    server.cli("ACL", "SETUSER", "default", "-@all", "+acl")
    yield
    server.cli("ACL", "SETUSER", "default", "+@all")
