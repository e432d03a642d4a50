"""What a large fleet costs the page: 1,000 nodes report every 5 s to a whole controller, and every figure of every
report is another than before.

- server: the page's HTML, and the first message of a stream, which is the whole picture drawn, encoded and
  compressed; from the request, on a connection that stands, to the last byte; what is done with it is not the server's;
  when nobody looked for a while, when one page leads to another, and when somebody else looks already;
- stream: 50 clients; from when a change was drawn until the last of them has it, and what it costs the controller;
- browser: the fleet page in Chromium; the work of its main thread per message of the stream, from a trace of all
  tasks, in the thread's own time, until what the message brought is drawn;
- weight: what a first visit fetches, the stream aside, and the compressed size of the first picture.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import httpx
import ingest
import psutil
import table
from playwright.sync_api import CDPSession, Page

from browser.chromium import chromium
from vagus_controller.api.stream import LINGER_S

REPORT_EVERY_S: Final = 5.0
# Longer than the time for which clients that come together are given the same picture.
_APART_S: Final = 2.3
# Longer than the time for which a picture is kept up for nobody.
_FORGOTTEN_S: Final = LINGER_S + 1.0
_AT: Final = re.compile(rb'"at":([0-9.]+),"nodes"')
# What a message brings is drawn by then: drawing waits for at most 250 ms.
_DRAWN_MS: Final = 600.0
_LONG_TASK_MS: Final = 50.0


class Lively(ingest.Node):
    """Every report has figures of its own."""

    def report(self) -> bytes:
        self._well = self._template()
        return super().report()


# --- server and stream ---------------------------------------------------------------------------------------------


def _request(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAccept-Encoding: gzip\r\n\r\n".encode()


def _answer(stream: BinaryIO) -> None:
    """Reads the head of an answer that is no refusal."""
    if b" 200 " not in (first := stream.readline()):
        raise SystemExit(f"refused: {first!r}")
    while stream.readline().strip():
        pass


def page_html(port: int, token: str, rounds: int) -> list[float]:
    """Seconds from the request to the last byte of the page's HTML."""
    took = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as client:
        client.get("/").raise_for_status()
        for _ in range(rounds):
            began = time.perf_counter()
            client.get("/").raise_for_status()
            took.append(time.perf_counter() - began)
    return took


def first_picture(port: int, token: str) -> tuple[float, int]:
    """Seconds from the request to the last byte of the first picture, and its bytes on the wire."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire, wire.makefile("rb") as stream:
        began = time.perf_counter()
        wire.sendall(_request("/api/v1/stream", token))
        _answer(stream)
        inflate, told, taken = zlib.decompressobj(16 + zlib.MAX_WBITS), b"", 0
        while size := int(stream.readline(), 16):
            packed = stream.read(size + 2)
            took = time.perf_counter() - began
            taken += size
            told += inflate.decompress(packed[:-2])
            if told.endswith(b"\n\n") and b'event: fleet\ndata: {"fleet"' in told:
                return took, taken
    raise SystemExit("the stream ended before its first picture")


def pictures(
    brain: ingest.Brain, token: str, rounds: int, apart_s: float
) -> tuple[list[tuple[float, int]], list[float]]:
    """Of so many first pictures what `first_picture` says, and the controller's CPU seconds meanwhile."""
    process = psutil.Process(brain.process.pid)
    found, costs = [], []
    for _ in range(rounds):
        time.sleep(apart_s)
        cpu = ingest._cpu_s(process)
        found.append(first_picture(brain._http, token))
        costs.append(ingest._cpu_s(process) - cpu)
    return found, costs


class Client:
    """One open stream: when each change came, by the moment at which it was drawn, and how many bytes in all."""

    def __init__(self) -> None:
        self.came: dict[bytes, float] = {}
        self.taken = 0

    async def run(self, port: int, token: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request("/api/v1/stream", token))
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(f"the stream is refused: {head!r}")
        inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while size := int(await reader.readline(), 16):
            packed = await reader.readexactly(size + 2)
            now = time.time()
            self.taken += size
            # What the server writes in one go is one chunk.
            for change in inflate.decompress(packed[:-2]).split(b"event: change\n")[1:]:
                found = _AT.search(change)
                assert found is not None
                self.came.setdefault(found[1], now)


async def _listen(port: int, token: str, clients: int, seconds: float) -> dict[str, Any]:
    listening = [Client() for _ in range(clients)]
    tasks = [asyncio.create_task(each.run(port, token)) for each in listening]
    await asyncio.sleep(seconds / 3)
    before, began = sum(each.taken for each in listening), time.monotonic()
    for each in listening:
        each.came.clear()
    print("begin", flush=True)
    await asyncio.sleep(seconds)
    taken, lasted = sum(each.taken for each in listening) - before, time.monotonic() - began
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    # The first and last of them may have been cut off by the beginning and the end.
    whole = set.intersection(*(set(each.came) for each in listening))
    return {
        "last_s": [max(each.came[at] for each in listening) - float(at) for at in whole],
        "changes": len(whole),
        "bytes_per_s": taken / lasted / clients,
    }


def listeners(brain: ingest.Brain, token: str, clients: int, seconds: float) -> subprocess.Popen[str]:
    """A process of so many clients, which have listened for a while, and do for so long."""
    argv = [
        sys.executable,
        __file__,
        "--listen",
        str(clients),
        "--port",
        str(brain._http),
        "--token",
        token,
        "--seconds",
        str(seconds),
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "begin\n":
        raise SystemExit("the listening clients did not begin")
    return process


def fan_out(brain: ingest.Brain, token: str, clients: int, seconds: float) -> dict[str, Any]:
    listening = listeners(brain, token, clients, seconds)
    assert listening.stdout is not None
    process = psutil.Process(brain.process.pid)
    cpu, began = ingest._cpu_s(process), time.monotonic()
    found: dict[str, Any] = json.loads(listening.stdout.readline())
    found["cpu_share"] = (ingest._cpu_s(process) - cpu) / (time.monotonic() - began)
    listening.wait(30)
    if not found["last_s"]:
        raise SystemExit("no change reached all clients")
    return found


# --- browser -------------------------------------------------------------------------------------------------------


class Trace:
    """All tasks of the page's main thread, in milliseconds of the trace's clock."""

    def __init__(self, session: CDPSession) -> None:
        self._session = session
        self._events: list[dict[str, Any]] = []
        self._over = False
        session.on("Tracing.dataCollected", lambda message: self._events.extend(message["value"]))
        session.on("Tracing.tracingComplete", lambda _: setattr(self, "_over", True))

    def take(self, page: Page, seconds: float) -> None:
        categories = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "blink.user_timing"]
        config = {"includedCategories": categories, "excludedCategories": ["*"]}
        self._session.send("Tracing.start", {"traceConfig": config, "transferMode": "ReportEvents"})
        page.wait_for_timeout(seconds * 1000)
        self._session.send("Tracing.end")
        while not self._over:
            page.wait_for_timeout(100)

    def tasks(self) -> list[tuple[float, float]]:
        """(begin, CPU time) of each task of the thread that drew the page."""
        marks = [each for each in self._events if each.get("name") == "vagus message"]
        if not marks:
            raise SystemExit("the trace has no message of the stream")
        threads = {(each["pid"], each["tid"]) for each in marks}
        return sorted(
            # Without what the trace itself costs, and in the thread's own time: how long the machine kept it waiting is
            # not the page's doing.
            (each["ts"] / 1000, each.get("tdur", each["dur"]) / 1000)
            for each in self._events
            if (each["pid"], each["tid"]) in threads
            and each.get("ph") == "X"
            and each["name"] == "ThreadControllerImpl::RunTask"
        )

    def messages(self) -> list[float]:
        return sorted(each["ts"] / 1000 for each in self._events if each.get("name") == "vagus message")


# Marks each change in the trace, before the page's own listener sees it.
_MARKS: Final = """
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (topic, listener, ...more) {
  if (topic !== 'change') return add.call(this, topic, listener, ...more);
  return add.call(this, topic, (message) => { performance.mark('vagus message'); listener(message); }, ...more);
};
"""


def browse(url: str, token: str, seconds: float) -> dict[str, Any]:
    with chromium() as browser:
        context = browser.new_context(
            viewport={"width": 1360, "height": 900}, extra_http_headers={"Authorization": f"Bearer {token}"}
        )
        page = context.new_page()
        page.add_init_script(_MARKS)
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        sizes: list[float] = []
        session.on("Network.loadingFinished", lambda message: sizes.append(message["encodedDataLength"]))
        page.goto(url + "/", timeout=60_000)
        page.wait_for_selector("#content:not([hidden])", timeout=60_000)
        page.wait_for_timeout(3000)
        weight = sum(sizes)
        trace = Trace(session)
        trace.take(page, seconds)
        rows = page.locator("#nodes tbody").count()
    tasks, messages = trace.tasks(), trace.messages()
    work, between = [], 0.0
    for begin, end in pairwise(messages):
        until = min(end, begin + _DRAWN_MS)
        work.append(sum(length for at, length in tasks if begin - 1 <= at < until - 1))
        between += sum(length for at, length in tasks if until - 1 <= at < end - 1)
    return {
        "weight_bytes": weight,
        "work_ms": work,
        "task_ms": [length for at, length in tasks if messages[0] <= at < messages[-1]],
        "between_ms": between,
        "messages": len(messages),
        "seconds": seconds,
        "rows": rows,
    }


# --- all of it -----------------------------------------------------------------------------------------------------


def measure(size: int, clients: int, seconds: float, rounds: int) -> dict[str, Any]:
    ingest.INTERVAL_S = REPORT_EVERY_S  # type: ignore[misc]
    rng = random.Random(size)
    nodes = [Lively(number, size, rng) for number in range(size)]
    with ingest._setting("controller", nodes, rng) as (brain, publisher), publisher.pace():
        assert isinstance(brain, ingest.Brain)
        url, token = f"http://127.0.0.1:{brain._http}", brain._token
        process = psutil.Process(brain.process.pid)
        shells = page_html(brain._http, token, rounds)
        first, costs = pictures(brain, token, rounds, _FORGOTTEN_S)
        _say(f"first pictures: {statistics.median(took for took, _ in first) * 1000:.0f} ms")
        led, led_costs = pictures(brain, token, rounds, _APART_S)
        _say(f"from one page to another: {statistics.median(took for took, _ in led) * 1000:.0f} ms")
        other = listeners(brain, token, 1, 2 * rounds * _APART_S)
        second, second_costs = pictures(brain, token, rounds, _APART_S)
        other.terminate()
        other.wait(30)
        _say(f"while another listens: {statistics.median(took for took, _ in second) * 1000:.0f} ms")
        time.sleep(_FORGOTTEN_S)
        cpu, began = ingest._cpu_s(process), time.monotonic()
        time.sleep(seconds / 2)
        alone = (ingest._cpu_s(process) - cpu) / (time.monotonic() - began)
        spread = fan_out(brain, token, clients, seconds)
        _say(f"{clients} clients: the last has a change after {statistics.median(spread['last_s']) * 1000:.0f} ms")
        seen = browse(url, token, seconds)
    return {
        "nodes": size,
        "clients": clients,
        "shell_s": table.spread(shells),
        "picture_s": table.spread([took for took, _ in first]),
        "picture_cpu_s": table.spread(costs),
        "picture_bytes": statistics.median(count for _, count in first),
        "led_picture_s": table.spread([took for took, _ in led]),
        "led_picture_cpu_s": table.spread(led_costs),
        "second_picture_s": table.spread([took for took, _ in second]),
        "second_picture_cpu_s": table.spread(second_costs),
        "last_client_s": table.spread(spread["last_s"]),
        "last_client_p95_s": _p95(spread["last_s"]),
        "client_bytes_per_s": spread["bytes_per_s"],
        "cpu_share_without": alone,
        "cpu_share_with": spread["cpu_share"],
        "weight_bytes": seen["weight_bytes"],
        "update_ms": table.spread(seen["work_ms"]),
        "update_p95_ms": _p95(seen["work_ms"]),
        "between_ms_per_s": seen["between_ms"] / seen["seconds"],
        "long_tasks": sum(length > _LONG_TASK_MS for length in seen["task_ms"]),
        "updates_per_s": seen["messages"] / seen["seconds"],
    }


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _row(name: str, spread: dict[str, float], bound: str = "") -> list[str]:
    return [name, table.milliseconds(spread["median"]), table.milliseconds(spread["max"]), bound]


def show(found: dict[str, Any]) -> None:
    last, update = found["last_client_s"], found["update_ms"]
    rows = [
        _row("the page's HTML", found["shell_s"], "150 ms"),
        _row("the whole picture, from request to last byte", found["picture_s"], "150 ms"),
        _row("CPU of the controller for it", found["picture_cpu_s"]),
        _row("the same, when another page led there", found["led_picture_s"], "150 ms"),
        _row("CPU of the controller for it", found["led_picture_cpu_s"]),
        _row("the same, while another client listens", found["second_picture_s"], "150 ms"),
        _row("CPU of the controller for it", found["second_picture_cpu_s"]),
        [
            f"a change, until the last of {found['clients']} clients has it",
            table.milliseconds(last["median"]),
            table.milliseconds(found["last_client_p95_s"]),
            "",
        ],
        [
            "CPU of the browser's main thread per message",
            f"{update['median']:.1f} ms",
            f"{found['update_p95_ms']:.1f} ms",
            "16 ms",
        ],
    ]
    table.show(
        f"{found['nodes']:,} nodes, each reports every {REPORT_EVERY_S:.0f} s",
        ["", "median", "worst or 95 %", "bound"],
        rows,
    )
    sizes = [
        ["a first visit, compressed", f"{found['weight_bytes'] / 1000:.0f} kB"],
        ["the first picture, compressed", f"{found['picture_bytes'] / 1000:.0f} kB"],
        ["each client, a second", f"{found['client_bytes_per_s'] / 1000:.0f} kB"],
        ["messages a second", f"{found['updates_per_s']:.1f}"],
        ["the browser between messages, a second", f"{found['between_ms_per_s']:.1f} ms"],
        ["tasks of the browser over 50 ms", found["long_tasks"]],
        ["controller, no client", f"{found['cpu_share_without']:.0%} of a core"],
        [f"controller, {found['clients']} clients", f"{found['cpu_share_with']:.0%} of a core"],
    ]
    table.show("What it costs", ["", ""], sizes)


def _say(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="of streaming, and of browsing (default 30)")
    parser.add_argument("--rounds", type=int, default=9, help="first pictures (default 9)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--listen", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listen:
        print(
            json.dumps(asyncio.run(_listen(options.port, options.token, options.listen, options.seconds))), flush=True
        )
        return
    figures = measure(options.nodes, options.clients, options.seconds, options.rounds)
    show(figures)
    table.write(options.json, figures)


if __name__ == "__main__":
    main()
