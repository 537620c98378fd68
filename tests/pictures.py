"""Draws the pictures of the documentation (`make pictures`): commands in a real terminal, on a real server."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from unittest.mock import patch

from rich.console import Console
from rich.text import Text

from cachecraft import Cache
from cachecraft.worker import Worker
from tests.servers import RedisServer
from tests.terminal import ROOT, Terminal, screen

PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 92
COMMANDS = {
    "doctor": ["doctor"],
    "stats": ["stats"],
    "top": ["top", "--times", "1", "--rows", "5"],
    "ttl": ["ttl"],
    "inspect": ["inspect", "product:p7", "--value"],
    "keys": ["keys", "product:p77*", "--long"],
    "bench": ["bench", "--seconds", "0.5", "--threads", "1,8", "--tasks", "1,100"],
    "worker": ["worker", "--status"],
    "watch": ["watch", "--seconds", "3"],
    "invalidate": ["invalidate", "--tag", "range:tea", "--pattern", "price:*", "--yes"],
}


SHOP = """
def get_stock(sku):
    return 0

def set_stock(sku, count):
    if count < 0:
        raise ValueError(count)
"""


def fill(url: str) -> None:
    """A shop that was up for a moment, with one function whose author thought that it needs no jitter, and another that
    is never asked for the same thing twice.
    """
    with Cache(url, namespace="shop", publish_stats=3600) as cache:

        def get_product(sku: str, kind: str = "tea") -> dict[str, object]:
            time.sleep(0.002)
            return {"sku": sku, "price": 9.5, "in stock": True}

        def get_price(sku: str) -> float:
            return 9.5

        def get_report(month: str) -> list[str]:
            return [month]

        functions = []  # that are still there when the report is made
        for function, count, times, options in (
            (get_product, 900, 12, {"ttl": "1h", "key": "product:{sku}", "tags": ["range:{kind}"]}),
            (get_price, 400, 7, {"ttl": "10m", "key": "price:{sku}", "jitter": None}),
            (get_report, 120, 1, {"ttl": "1d", "key": "report:{month}", "stale": "1d"}),
        ):
            function.__module__, function.__qualname__ = "shop", function.__name__
            functions.append(kept := cache.cached(**options)(function))  # type: ignore[call-overload]  # options of several types
            for number in range(count):
                kept(f"p{number}")
            for rank in range(1, times):
                for _ in range(600 // rank):  # some are asked for more than others
                    kept(f"p{7 * rank}")
        cache.keeper.publisher.publish()  # type: ignore[attr-defined]  # a RemoteKeeper


def leave_waiting(url: str) -> None:
    """Calls that wait for a worker; one was given up."""
    with Cache(url, namespace="shop") as cache:
        shop = {"__name__": "shop"}
        exec(compile(SHOP, "shop.py", "exec"), shop)  # noqa: S102 - our own text, in a file that has no path
        kept = cache.cached(key="stock:{sku}")(shop["get_stock"])  # type: ignore[call-overload]  # a function
        write = cache.write_behind(kept, value="count", retry_for=0)(shop["set_stock"])
        write("p3", -1)
        logging.disable()
        Worker(cache).drain()
        for number in range(7):
            write(f"p{number}", number)


def disturb(url: str) -> None:
    """What a watch sees."""
    with Cache(url, namespace="shop") as cache:
        time.sleep(1)
        for change in ({"key": "product:p7"}, {"tags": ["range:coffee"]}, {"pattern": "price:p1*"}):
            cache.invalidate(**change)  # type: ignore[arg-type]  # one of several
            time.sleep(0.3)


def draw(name: str, command: list[str], where: dict[str, str]) -> None:
    """Run a command, and save what stays on the screen."""
    terminal = Terminal(*command, columns=COLUMNS, **where)
    terminal.end()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(f"$ cachecraft {' '.join(command)}\n{screen(terminal.shown, colours=True).rstrip()}"))
    drawn = console.export_svg(title="cachecraft", unique_id=name)
    drawn = re.sub(
        r" *@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL
    )  # fetched from elsewhere; any monospace will do
    drawn = drawn.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some readers drop leading blanks otherwise
    (PICTURES / f"{name}.svg").write_text("\n".join(map(str.rstrip, drawn.splitlines())) + "\n", encoding="utf-8")


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with RedisServer("--maxmemory-policy", "noeviction", "--maxmemory", "64mb") as server:
        with patch("socket.gethostname", return_value="web-1"):  # ours is nobody's business
            fill(server.url)
        leave_waiting(server.url)
        for name, command in COMMANDS.items():
            if name == "watch":
                threading.Thread(target=disturb, args=(server.url,)).start()
            draw(name, command, {"CACHECRAFT_URL": server.url, "CACHECRAFT_NAMESPACE": "shop"})


if __name__ == "__main__":
    main()
