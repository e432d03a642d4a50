"""Random faults for an hour, one every 5 to 30 s, each mended by itself: is there silence that a proven path could have
spared, and do the daemons grow?

The lab knows what it broke, so it knows for every pair and moment which paths were sound. A silence counts as far as
one path had been sound for so long that both ends must have proven it. It is led while controller, broker and both
agents ran, alone while controller or broker was away (the agents' reflex is what is left), and headless while an agent
of the pair was dead or frozen: nothing can save those, they are shown and not judged.

Agents and controller are killed in the first quarter only: who is restarted again and again shows no growth.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import table

from lab.harness import HostSpec, Lab
from lab.harness.measure import UdpStream

_PIS = ("pi-a", "pi-b", "pi-c")
_NODES = ("vps", *_PIS)
_HOSTS = (HostSpec("vps", "cloud", frozenset({"broker", "controller"})), *(HostSpec(name, name) for name in _PIS))
_PAIRS = tuple(itertools.combinations(sorted(_NODES), 2))
_STREAM_S = 0.02
# A path that has been sound for so long has answered at both ends, and said so.
_PROVEN_AFTER_S = 8.0
# What a fault does to those who lead lasts beyond its end: a restarted daemon has to find its place first.
_AFTERMATH_S = 10.0
_SETTLE_S = 30.0
_WARM_UP_S = 600.0
_DEADLY_SHARE = 0.25

Span = tuple[float, float]


@dataclasses.dataclass
class Fault:
    """`unsound`: (pair, path) that it breaks; `leaderless`: it takes controller or broker; `headless`: the nodes whose
    agents it takes."""

    words: str
    do: Callable[[], object]
    undo: Callable[[], object]
    unsound: frozenset[tuple[tuple[str, str], str]] = frozenset()
    leaderless: bool = False
    headless: frozenset[str] = frozenset()
    start: float = 0.0
    end: float = float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--led", type=float, default=1.0, metavar="S", help="longest led silence (default 1.0)")
    parser.add_argument("--alone", type=float, default=12.0, metavar="S", help="longest silence alone (default 12)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    # Pairs go home within the hour, or the second cut of a pair would find it on the backup.
    calm = {"half_life_s": 30.0, "longest_hold_s": 10.0}
    settings = {"failover": {"failback_hold_s": 10.0, "max_moves": 100_000, "damping": calm}}
    with Lab(_HOSTS, controller=settings) as lab, ExitStack() as stack:
        lab.start_broker()
        lab.start_agents()
        lab.start_controller()
        lab.wait_routed()
        time.sleep(_PROVEN_AFTER_S)
        streams = {pair: stack.enter_context(UdpStream(lab, *pair, interval_s=_STREAM_S)) for pair in _PAIRS}
        began, wall = time.monotonic(), time.time()
        sizes: dict[str, list[tuple[float, int]]] = {}
        faults = _weather(lab, random.Random(options.seed), began, options.minutes * 60, sizes)
        time.sleep(_SETTLE_S)
        ended = time.monotonic()
        settled = all(
            one["observed"][0] == one["observed"][1] == one["assigned"] for one in lab.api("/api/v1/fleet")["pairs"]
        )
        silences = [
            (kind, seconds, pair, at - began)
            for pair, stream in streams.items()
            for kind, seconds, at in _silences(pair, stream, faults, began, ended)
        ]
        bounds = {"led": options.led, "alone": options.alone}
        too_long = [one for one in silences if one[1] > bounds.get(one[0], float("inf"))]
        told = {f"{'--'.join(pair)} at {at:.0f} s": _told(lab, wall + at) for _, _, pair, at in too_long}
    _report(options, faults, silences, sizes, began, settled, told)


def _told(lab: Lab, at: float) -> list[str]:
    """What the controller has in its books around the wall-clock time `at`: enough to see why a silence was long."""
    lines = []
    for book in ("events", "ledger"):
        query = f"since={at - 15:.3f}&until={at + 15:.3f}&limit=200"
        for one in lab.api(f"/api/v1/{book}?{query}"):
            words = one["text"] if book == "events" else f"{one['action']}: {one['reason']} → {one['outcome']}"
            lines.append(f"{one['at'] - at:+7.2f} s {one['subject']}: {words}")
    return sorted(lines, key=lambda line: float(line.split()[0]))


# --- the weather -----------------------------------------------------------------------------------------------------


def _weather(
    lab: Lab, rng: random.Random, began: float, seconds: float, sizes: dict[str, list[tuple[float, int]]]
) -> list[Fault]:
    """Breaks and mends until the time is over; everything is mended at the end."""
    faults: list[Fault] = []
    mending: list[tuple[float, int, Fault]] = []
    due, sample, end = began + rng.uniform(5, 15), began, began + seconds
    while mending or time.monotonic() < end:
        now = time.monotonic()
        if mending and now >= mending[0][0]:
            fault = heapq.heappop(mending)[2]
            fault.undo()
            fault.end = time.monotonic()
        elif now >= due and now < end:
            due = now + rng.uniform(5, 30)
            standing = {fault.words for _, _, fault in mending}
            fault = _some_fault(lab, rng, deadly=now - began < seconds * _DEADLY_SHARE)
            # Two faults of one kind at one place would mend each other.
            if not any(fault.words.split()[0] == other.split()[0] for other in standing):
                fault.start = time.monotonic()
                fault.do()
                print(f"  {now - began:6.0f} s: {fault.words}", file=sys.stderr, flush=True)
                faults.append(fault)
                heapq.heappush(mending, (now + rng.uniform(3, 25), len(faults), fault))
        elif now >= sample:
            sample = now + 10
            _weigh(lab, sizes, now)
        else:
            time.sleep(0.1)
    return faults


def _some_fault(lab: Lab, rng: random.Random, *, deadly: bool) -> Fault:
    host, path, pair = rng.choice(_NODES), rng.choice(("overlay", "overlay", "backup")), rng.choice(_PAIRS)
    where = rng.choice(((), (host,), pair, pair))
    cut = _pairs_of(where)
    unsound = frozenset((one, path) for one in cut)

    def kill_agent() -> object:
        return lab.process(host, "agent").kill()

    makers: tuple[Callable[[], Fault], ...] = (
        lambda: Fault(
            f"{path}-cut {' '.join(where) or 'everywhere'}",
            lambda: lab.cut(path, *where),  # type: ignore[arg-type]
            lambda: lab.mend(path, *where),  # type: ignore[arg-type]
            unsound,
        ),
        lambda: Fault(
            f"{path}-cut one way {' '.join(pair)}",
            lambda: lab.cut(path, *pair, one_way=True),  # type: ignore[arg-type]
            lambda: lab.mend(path, *pair),  # type: ignore[arg-type]
            frozenset({(pair, path)}),
        ),
        lambda: Fault(
            f"degrade {' '.join(pair)}",
            lambda: lab.degrade(*pair, delay_s=0.05),
            lambda: lab.mend("overlay", *pair),
            frozenset({(pair, "overlay")}),
        ),
        lambda: Fault(f"agent-kill {host}", kill_agent, lambda: lab.start_agents(host), headless=frozenset({host})),
        lambda: Fault(
            f"agent-freeze {host}",
            lambda: lab.process(host, "agent").freeze(),
            lambda: lab.process(host, "agent").thaw(),
            headless=frozenset({host}),
        ),
        lambda: Fault("controller-kill", lab.kill_controller, lab.start_controller, leaderless=True),
        lambda: Fault("broker-kill", lab.kill_broker, lab.start_broker, leaderless=True),
    )
    # Cuts are what it is all about: half of all faults.
    return rng.choices(makers, weights=(5, 1, 1, deadly, 1, deadly, 1))[0]()


def _pairs_of(where: Sequence[str]) -> list[tuple[str, str]]:
    if len(where) == 2:
        return [(where[0], where[1])]
    return [pair for pair in _PAIRS if not where or where[0] in pair]


def _weigh(lab: Lab, sizes: dict[str, list[tuple[float, int]]], now: float) -> None:
    """Resident KiB of every daemon that runs, by who it is and in which life."""
    for host in lab.hosts.values():
        for name in ("agent", "controller"):
            process = host.processes.get(name)
            if process is None or not process.alive:
                continue
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    sizes.setdefault(f"{name} {host.name} {process.pid}", []).append((now, int(line.split()[1])))


# --- what came of it -------------------------------------------------------------------------------------------------


def _silences(
    pair: tuple[str, str], stream: UdpStream, faults: Sequence[Fault], began: float, ended: float
) -> Iterator[tuple[str, float, float]]:
    """(kind, seconds, start) of the silences of a pair as far as a path was proven, those above a quarter second."""
    bad = {path: [(f.start, f.end + _PROVEN_AFTER_S) for f in faults if (pair, path) in f.unsound] for path in _PATHS}
    leaderless = [(f.start, f.end + _AFTERMATH_S) for f in faults if f.leaderless]
    headless = [(f.start, f.end + _AFTERMATH_S) for f in faults if f.headless & set(pair)]
    arrivals = [began, *(one.arrived for one in stream.arrivals() if began <= one.arrived <= ended), ended]
    for one, two in itertools.pairwise(arrivals):
        if two - one < 0.25:
            continue
        # What is left of the silence without the moments at which no path was proven.
        for start, end in _without((one, two), _both(bad["overlay"], bad["backup"])):
            if end - start < 0.25:
                continue
            kind = "led"
            if any(low < end and start < high for low, high in headless):
                kind = "headless"
            elif any(low < end and start < high for low, high in leaderless):
                kind = "alone"
            yield kind, end - start, start


_PATHS = ("overlay", "backup")


def _both(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """Where a span of each overlaps."""
    return [(max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) < min(b, d)]


def _without(span: Span, holes: Sequence[Span]) -> list[Span]:
    rest = [span]
    for low, high in holes:
        rest = [
            piece
            for start, end in rest
            for piece in ((start, min(end, low)), (max(start, high), end))
            if piece[1] > piece[0]
        ]
    return rest


def _report(
    options: Any,
    faults: Sequence[Fault],
    silences: Sequence[tuple[str, float, tuple[str, str], float]],
    sizes: dict[str, list[tuple[float, int]]],
    began: float,
    settled: bool,
    told: dict[str, list[str]],
) -> None:
    rows = []
    for kind, bound in (("led", options.led), ("alone", options.alone), ("headless", None)):
        found = sorted(seconds for what, seconds, _, _ in silences if what == kind)
        worst = f"{found[-1]:.2f} s" if found else "none"
        rows.append([kind, len(found), worst, f"{bound:.1f} s" if bound is not None else "not judged"])
    table.show(f"silence above 0.25 s, {len(faults)} faults", ["while", "silences", "worst", "bound"], rows)
    growth = {}
    for who, readings in sizes.items():
        later = [(at, size) for at, size in readings if at - readings[0][0] >= min(_WARM_UP_S, options.minutes * 6)]
        if len(later) >= 12:
            tenth = max(len(later) // 10, 3)
            first, last = (sorted(size for _, size in part)[tenth // 2] for part in (later[:tenth], later[-tenth:]))
            growth[who] = (last - first) / first
    table.show("resident memory after warming up", ["daemon", "growth"], [[k, f"{v:+.1%}"] for k, v in growth.items()])
    table.write(
        options.json,
        {
            "seed": options.seed,
            "faults": [f"{fault.start - began:.0f} s: {fault.words}" for fault in faults],
            "silences": [
                {"while": kind, "seconds": seconds, "pair": "--".join(pair), "at": at}
                for kind, seconds, pair, at in silences
            ],
            "growth": growth,
            "resident_kib": {who: [(round(at - began), size) for at, size in of] for who, of in sizes.items()},
            "told": told,
            "settled": settled,
        },
    )
    wrong = [
        f"{'--'.join(pair)} was silent for {seconds:.2f} s at {at:.0f} s ({kind})"
        for kind, seconds, pair, at in silences
        if seconds > {"led": options.led, "alone": options.alone}.get(kind, float("inf"))
    ]
    wrong += [f"{who} grew by {share:.1%}" for who, share in growth.items() if share > 0.02]
    if not settled:
        wrong.append("the two ends of a pair did not end on the path that they were told")
    for where, lines in told.items():
        print(f"\n{where}, as the controller has it:", *lines, sep="\n  ", file=sys.stderr)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
