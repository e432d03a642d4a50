"""How long a chart takes to be answered, and how many bytes history has: a controller with a month of a fleet on disk.

The database is filled as a controller fills it: two hours as they came, seven days of minutes, thirty days of hours,
made by the same code from a sample each ten seconds. The samples are made up: a daily wave, a slow walk and noise for
each figure of a node with four peers over two paths. Of ten nodes a day is made; all other days and nodes are its
copies, in rows of their own. Then a controller as it is installed (`vagus-controller run`), beside a real mosquitto, is
asked by its API, while every node reports: each chart of another node each time, over a new connection.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import msgspec
import psutil
import sqlalchemy as sa
import table
from ingest import Brain as Controller
from ingest import Node, Publisher

from contract.mosquitto import Mosquitto
from vagus_controller import archive
from vagus_controller.config import Broker, Config, History, Mqtt
from vagus_controller.core import rollup
from vagus_controller.core.figures import METRICS, figures
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.rollup import HOUR, LEVELS, MINUTE, RAW, Chunk, Level, Sample, Sampler
from vagus_protocol.codec import decode, encode
from vagus_protocol.messages import Observed, ObservedState, Report

DAYS: Final = 30
_CONFIG: Final = Config(
    fleet="bench", name="brain", mqtt=Mqtt(brokers=(Broker(host="127.0.0.1"),)), fleet_key_file="/none"
)
_MADE: Final = 10
_STILL: Final = ("etcd_term", "etcd_leads", "throttled", "undervoltage", "disk_used", "direct", "relayed", "backup")


class Walk:
    """Samples of one made-up node, each ten seconds later than the one before."""

    def __init__(self, number: int, seed: int) -> None:
        self._rng = random.Random(seed + number)
        report = _report(number, self._rng)
        paths = {link.peer: "overlay" for link in report.links}
        state = Observed(
            v=1, node=report.node, session="", epoch=1, generation=1, state=ObservedState.APPLIED, paths=paths
        )
        self._middle = figures(report, state)
        self._drift = dict.fromkeys(self._middle, 0.0)
        self._sampler = Sampler()

    def sample(self, at: int) -> Sample:
        day = math.sin(at / 86400 * 2 * math.pi)
        noise = self._rng.uniform
        found = {}
        for key, middle in self._middle.items():
            if key.partition(":")[0] in _STILL:
                found[key] = middle
                continue
            drift = self._drift[key] = 0.999 * self._drift[key] + noise(-0.01, 0.01)
            found[key] = max(round(middle * (1 + 0.3 * day + drift + noise(-0.1, 0.1))), 0)
        return self._sampler.take("", at, found)


def _report(number: int, rng: random.Random) -> Report:
    packet = Node(number, 1000, rng).report()
    report = decode(packet[packet.index(b'{"v"') :], Report)
    assert isinstance(report, Report), report
    return report


def rows(number: int, seed: int, now: int) -> Iterator[tuple[Level, Chunk]]:
    """Everything that a controller would have of one node at `now`."""
    walk = Walk(number, seed)
    end = _end(HOUR, now)
    raw = [
        rollup.chunk_of([walk.sample(minute + second) for second in range(0, 60, 10)])
        for minute in range(end - 86400, _end(RAW, now), RAW.row_s)
    ]
    minutes = _rolled(raw, MINUTE, _end(MINUTE, now))
    hours = _rolled(minutes, HOUR, end)
    yield from ((RAW, chunk) for chunk in raw[-120:])
    yield from ((MINUTE, chunk) for chunk in minutes if chunk.start >= end)
    for day in range(DAYS):
        yield from ((HOUR, _days_before(chunk, day)) for chunk in hours)
        if day < 7:
            yield from ((MINUTE, _days_before(chunk, day)) for chunk in minutes if chunk.start < end)


def _end(level: Level, now: int) -> int:
    """When the newest whole row of the level ends."""
    return now // level.row_s * level.row_s


def _days_before(chunk: Chunk, days: int) -> Chunk:
    return msgspec.structs.replace(chunk, start=chunk.start - days * 86400)


def _rolled(finer: Sequence[Chunk], level: Level, end: int) -> list[Chunk]:
    rows = [rollup.roll(some, start, level) for start, some in groupby(finer, lambda chunk: _end(level, chunk.start))]
    return [row for row in rows if row is not None and row.start < end]


def fill(folder: Path, nodes: int, seed: int) -> dict[str, Any]:
    """A month of so many nodes beside `folder`/vagus.db; bytes of data per node and day, by level."""
    made = archive.Archive(f"sqlite:///{folder}/vagus.db", History())
    made._open()
    engine = made._engine
    assert engine is not None
    now, size, count = int(time.time()), dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
    for which in range(min(_MADE, nodes)):
        found = list(rows(which, seed, now))
        numbers = range(which, nodes, _MADE)
        with engine.begin() as connection:
            for number in numbers:
                connection.execute(sa.insert(archive._nodes).values(id=number + 1, name=f"node-{number:05}"))
            for level in LEVELS:
                for each, chunk in found:
                    if each is level:
                        made_row = archive._row(0, chunk)
                        size[level] += len(made_row["data"])  # type: ignore[arg-type]
                        count[level] += 1
                        made._insert(
                            connection,
                            level,
                            [{**archive._row(number + 1, chunk), "data": made_row["data"]} for number in numbers],
                        )
        _say(f"{len(numbers) * (which + 1)} of {nodes} nodes filled")
    with engine.begin() as connection:
        until = [{"level": level.name, "until": _end(level, now)} for level in (MINUTE, HOUR)]
        connection.execute(sa.insert(archive._marks), until)
    engine.dispose()
    file = folder / "vagus-history.db"
    # What waits in the WAL belongs to it.
    with sqlite3.connect(file) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return {
        "bytes_a_row": {level.name: size[level] / count[level] for level in LEVELS},
        "bytes_a_node_and_day": {level.name: size[level] / count[level] * 86400 / level.row_s for level in LEVELS},
        "file_bytes": file.stat().st_size,
    }


def ask(brain: Controller, paths: Callable[[int], str], requests: int) -> dict[str, Any]:
    """Milliseconds until the whole answer is there, those of CPU that the controller takes, and the answer's size."""
    brain._get(paths(0))
    process = psutil.Process(brain.process.pid)
    cpu = process.cpu_times()
    spent, length = [], 0
    for number in range(1, requests + 1):
        began = time.perf_counter()
        body = brain._get(paths(number))
        spent.append((time.perf_counter() - began) * 1000)
        length = max(length, len(body))
        answer = json.loads(body)
        if not (answer.get("at") or answer.get("nodes")):
            raise SystemExit(f"{paths(number)}: the answer is empty")
    after = process.cpu_times()
    used = after.user + after.system - cpu.user - cpu.system
    return {"ms": table.spread(spent), "cpu_ms": used / requests * 1000, "bytes": length}


def measure(nodes: int, requests: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="vagus-history-") as name, Mosquitto() as broker:
        folder = Path(name)
        figures_of_it = fill(folder, nodes, seed)
        fleet = [Node(number, nodes, rng) for number in range(nodes)]
        publisher = Publisher(broker.port, fleet, rng)
        publisher.announce()
        brain = Controller(broker.port, folder)
        try:
            with publisher.pace():
                brain.sees_all_well(nodes)
                order = rng.sample(fleet, len(fleet))

                def chart(of: str) -> Callable[[int], str]:
                    return lambda number: f"/api/v1/nodes/{order[number % nodes].name}/history?range={of}"

                def pair(number: int) -> str:
                    node = order[number % nodes]
                    first, second = sorted((node.name, node.peers[-1]))
                    return f"/api/v1/links/{first}--{second}/history?range=30d"

                asked = {
                    "node, 1 hour": chart("1h"),
                    "node, 24 hours": chart("24h"),
                    "node, 7 days": chart("7d"),
                    "node, 30 days": chart("30d"),
                    "node, 30 days, with links": lambda number: chart("30d")(number) + "&links=true",
                    "pair, 30 days": pair,
                    "sparklines of all": lambda _: "/api/v1/sparklines",
                }
                figures_of_it["requests"] = {}
                for what, paths in asked.items():
                    figures_of_it["requests"][what] = ask(brain, paths, requests)
                    _say(f"{what}: {figures_of_it['requests'][what]['ms']['median']:.0f} ms")
        finally:
            brain.stop()
            publisher.close()
    return figures_of_it


def cost(folder: Path, nodes: int, seed: int) -> dict[str, float]:
    """CPU microseconds of a sample, over 20 minutes of so many nodes that report: in the event loop, and in the writer,
    with everything that becomes of it on disk."""
    made, fleet = archive.Archive(f"sqlite:///{folder}/cost.db", History()), Fleet(_CONFIG)
    made._open()
    rng = random.Random(seed)
    reports = [_report(number, rng) for number in range(nodes)]
    began, taken, loop, writer = time.time() // 3600 * 3600, 0, 0.0, 0.0
    for second in range(1210):
        if second % 10 == 0:
            for report in reports:
                fresh = msgspec.structs.replace(report, seq=report.seq + second)
                fleet.on_report(fresh, float(second), encode(fresh))
        cpu = time.thread_time()
        made.take(fleet.nodes, float(second), began + second)
        loop += time.thread_time() - cpu
        taken += len(made._queue)
        cpu = time.thread_time()
        made.work()
        writer += time.thread_time() - cpu
    made.stop()
    return {"samples": taken, "loop_us": loop / taken * 1e6, "writer_us": writer / taken * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=300, help="of the fleet (default 300)")
    parser.add_argument("--requests", type=int, default=50, help="of each chart (default 50)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    seed = random.randrange(2**32)
    found = {"nodes": options.nodes, "days": DAYS, "seed": seed, "figures": len(METRICS)}
    with tempfile.TemporaryDirectory(prefix="vagus-history-") as folder:
        found["cost"] = cost(Path(folder), 50, seed)
    found |= measure(options.nodes, options.requests, seed)
    show(found)
    table.write(options.json, found)


def show(found: dict[str, Any]) -> None:
    table.show(
        f"{found['nodes']} nodes, {found['days']} days: {found['file_bytes'] / 1e6:,.0f} MB on disk",
        ["", "bytes a row", "kB a node and day"],
        [
            [level, f"{found['bytes_a_row'][level]:.0f}", f"{size / 1000:.1f}"]
            for level, size in found["bytes_a_node_and_day"].items()
        ],
    )
    table.show(
        "A chart, from request to last byte",
        ["", "median", "range", "CPU", "answer"],
        [
            [
                what,
                f"{each['ms']['median']:.0f} ms",
                f"{each['ms']['min']:.0f} to {each['ms']['max']:.0f} ms",
                f"{each['cpu_ms']:.0f} ms",
                f"{each['bytes'] / 1000:,.0f} kB",
            ]
            for what, each in found["requests"].items()
        ],
    )

    table.show(
        "CPU of a sample (a node has one in ten seconds)",
        ["", ""],
        [
            ["event loop", f"{found['cost']['loop_us']:.1f} µs"],
            ["writer: decoding, rows, minutes, hours", f"{found['cost']['writer_us']:.0f} µs"],
        ],
    )


def _say(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
