"""How soon load spikes are found, how often in vain, and whether the cause is right: the product's own detector on
generated reports of Raspberry Pis (`load_traces.py`: background, cron, boots, working hours; spikes of 8 to 30 tasks).
Beside it, what others do on the same traces. Then its general detector on the Numenta Anomaly Benchmark, one threshold
for all series, by the benchmark's own rules. `--cost`: what a sample and a series cost instead.

The detectors were tuned on seeds below 100; figures are to be taken from others.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, Final, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

import load_rivals
import load_traces
import nab
import table
from load_traces import CORES, REPORT_S, Node, Spike

from unit import fleet_builders as build
from vagus_controller.core.detect.familiar import FIGURES
from vagus_controller.core.detect.load import LoadDetector
from vagus_controller.core.detect.novelty import Novelty
from vagus_protocol.messages import DiskIo, Link, LinkState, Process, Relay, Report, System, Throttling

# An alert within this of a spike's end is still about it.
_AFTER_S: Final = 15.0
_LARGE: Final = 15
_MEMORY: Final = 4 << 30


class Found(NamedTuple):
    """Of one node: each spike with its delay (None: missed) and what was told first; alerts about nothing; how long
    after a spike's end the one that told it was over."""

    busy: bool
    days: float
    spikes: list[tuple[Spike, float | None, str]]
    false: list[float]
    over: tuple[float, ...] = ()


def reports(node: Node, *, counts: bool) -> Iterable[tuple[float, Report]]:
    """As the node's agent would send them; not `counts`: from a kernel that tells load1 alone."""
    spikes = iter(node.spikes)
    spike = next(spikes, None)
    calm, again = _parts(None), 0.0
    parts, within = calm, False
    columns = (node.at, node.running, node.blocked, node.load1, node.load15, node.uptime)
    for seq, (at, running, blocked, load1, load15, uptime) in enumerate(
        zip(*(c.tolist() for c in columns), strict=True)
    ):
        if spike is not None and (at >= spike.at) != within:
            within, parts = True, _parts(spike)
        if spike is not None and at > spike.at + spike.lasts_s:
            spike, within, parts = next(spikes, None), False, calm
        again += parts.again * REPORT_S
        system = System(
            cores=CORES, load1=load1, load5=load1, load15=load15, uptime_s=uptime,
            runnable=running if counts else None, blocked=blocked if counts else None,
            tcp_retransmits=int(again), tcp_segments=seq * 4000, memory_bytes=_MEMORY, **parts.system,
        )  # fmt: skip
        yield (
            at,
            Report(
                v=1, node="pi", session="s", seq=seq, boot_id="b", interval_s=REPORT_S, system=system, links=parts.links
            ),
        )


class _Parts(NamedTuple):
    system: dict[str, Any]
    links: tuple[Link, ...]
    again: float


def _parts(spike: Spike | None) -> _Parts:
    signs = load_traces.figures(spike)
    shares = {name: signs[name] for name in ("cpu_user", "cpu_system", "cpu_iowait", "cpu_steal", "cpu_idle")}
    disk = DiskIo(device=signs["device"], busy=signs["disk_busy"], await_s=signs["await_s"])
    relay = Relay.DERP if signs["relayed"] else Relay.DIRECT
    system = {
        **shares,
        "temperature_c": signs["temperature_c"],
        "memory_available_bytes": int(signs["memory_left"] * _MEMORY),
        "disk_io": (disk,),
        "throttling": Throttling(undervoltage=signs["undervoltage"], throttled=signs["throttled"]),
        "processes": tuple(
            Process(name=name, count=1, cpu=cpu, rss_bytes=1 << 26) for name, cpu in signs["processes"].items()
        ),
    }
    return _Parts(
        system, (Link(peer="tokyo-1", path="overlay", state=LinkState.UP, relay=relay),), signs["retransmits"]
    )


def vagus(node: Node, *, counts: bool) -> list[tuple[float, str]]:
    """Alerts, with the kind told first and its words."""
    return [(at, words) for at, words, _ in lasting(node, counts=counts)]


def lasting(node: Node, *, counts: bool) -> list[tuple[float, str, float]]:
    """Alerts, and until when they lasted."""
    detector = LoadDetector(build.config())
    alerts: list[tuple[float, str, float]] = []
    began, words = None, ""
    at = 0.0
    for at, report in reports(node, counts=counts):
        spike = detector.on_report("pi", report, at).state == "spike"
        if spike and began is None:
            first = detector.found["pi"][0]
            began, words = at, f"{first.kind}: {first.words}"
        elif began is not None and not spike:
            alerts.append((began, words, at))
            began = None
    return alerts if began is None else [*alerts, (began, words, at)]


def ends(node: Node, alerts: Sequence[tuple[float, str, float]]) -> tuple[float, ...]:
    """Of each alert that lasted until after its spike had ended: for how long."""
    over = [spike.at + spike.lasts_s for spike in node.spikes]
    return tuple(until - end for end in over for began, _, until in alerts if began <= end < until)


def judge(node: Node, alerts: Sequence[tuple[float, str]], days: float) -> Found:
    """The first alert within a spike finds it; one that is within none is false."""
    spikes: list[tuple[Spike, float | None, str]] = []
    left = list(alerts)
    for spike in node.spikes:
        own = [alert for alert in left if spike.at <= alert[0] <= spike.at + spike.lasts_s + _AFTER_S]
        spikes.append((spike, own[0][0] - spike.at if own else None, own[0][1] if own else ""))
        left = [alert for alert in left if alert not in own]
    return Found(node.busy, days, spikes, [at for at, _ in left])


RIVALS: Final[dict[str, Callable[[Node], list[float]]]] = {
    **{name: partial(load_rivals.static, threshold=a, dwell_s=b) for name, (a, b) in load_rivals.RULES.items()},
    "EWMA, 3 sigma": load_rivals.ewma,
    "median + MAD": load_rivals.median_mad,
}
OURS: Final = {"vagus": True, "vagus, by load1 alone": False}


def run_node(number: int, seed: int, days: float, only: str = "") -> dict[str, Found]:
    node = load_traces.node(seed, number, days)
    found = {}
    for name, counts in OURS.items():
        if only in ("", name):
            alerts = lasting(node, counts=counts)
            judged = judge(node, [(at, words) for at, words, _ in alerts], days)
            found[name] = judged._replace(over=ends(node, alerts))
    for name, rival in RIVALS.items():
        if only in ("", name):
            found[name] = judge(node, [(at, "") for at in rival(node)], days)
    return found


def _right(spike: Spike, told: str) -> bool:
    kind, _, words = told.partition(": ")
    return kind == spike.kind and (kind != "process" or spike.process in words)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def summary(found: list[Found]) -> dict[str, float]:
    spikes = [each for node in found for each in node.spikes]
    delays = {spike: delay for spike, delay, _ in spikes if delay is not None}
    steps = [delay for spike, delay in delays.items() if not spike.rise_s]
    large = [delay for spike, delay in delays.items() if not spike.rise_s and spike.tasks >= _LARGE]
    ramps = [delay for spike, delay in delays.items() if spike.rise_s]
    kinds = [_right(spike, told) for spike, delay, told in spikes if delay is not None]
    over = [after for node in found for after in node.over]
    days = {busy: sum(node.days for node in found if node.busy is busy) for busy in (False, True)}
    false = {busy: sum(len(node.false) for node in found if node.busy is busy) for busy in (False, True)}
    return {
        "node_days": sum(days.values()),
        "spikes": len(spikes),
        "recall": len(delays) / max(1, len(spikes)),
        "steps_median_s": statistics.median(steps or [float("nan")]),
        "steps_p95_s": _percentile(steps, 0.95),
        "large_p95_s": _percentile(large, 0.95),
        "ramps_median_s": statistics.median(ramps or [float("nan")]),
        "ramps_p95_s": _percentile(ramps, 0.95),
        "false_per_node_day": sum(false.values()) / max(1e-9, sum(days.values())),
        "false_idle": false[False] / max(1e-9, days[False]),
        "false_busy": false[True] / max(1e-9, days[True]),
        "right_kind": sum(kinds) / max(1, len(kinds)),
        "over_median_s": statistics.median(over or [float("nan")]),
        "over_p95_s": _percentile(over, 0.95),
    }


def loads(nodes: int, seed: int, days: float, jobs: int, only: str = "") -> dict[str, dict[str, float]]:
    work = partial(run_node, seed=seed, days=days, only=only)
    with ProcessPoolExecutor(jobs) as pool:
        results = list(pool.map(work, range(nodes)))
    return {name: summary([result[name] for result in results]) for name in results[0]}


def show_loads(figures: dict[str, dict[str, float]]) -> None:
    first = next(iter(figures.values()))
    columns = [
        "",
        "recall",
        "steps",
        "95 %",
        "≥ 15, 95 %",
        "ramps",
        "95 %",
        "false a node-day",
        "idle",
        "busy",
        "right kind",
        "over after",
        "95 %",
    ]
    rows = []
    for name, each in figures.items():
        times = [
            f"{each[key]:.1f} s"
            for key in ("steps_median_s", "steps_p95_s", "large_p95_s", "ramps_median_s", "ramps_p95_s")
        ]
        false = [f"{each[key]:.4f}" for key in ("false_per_node_day", "false_idle", "false_busy")]
        kind = [f"{each['right_kind']:.3f}"] if name in OURS else []
        kind += [f"{each[key]:.1f} s" for key in ("over_median_s", "over_p95_s")] if name in OURS else [""] * 3
        rows.append([name, f"{each['recall']:.3f}", *times, *false, *kind])
    table.show(
        f"Load spikes: {first['spikes']:.0f} in {first['node_days']:.0f} node-days, a quarter of the nodes busy",
        columns,
        rows,
    )


# --- the Numenta Anomaly Benchmark ---------------------------------------------------------------------------------


def detections(series: nab.Series) -> list[int]:
    novelty = Novelty()
    return [
        row for row, (at, value) in enumerate(zip(series.at, series.values, strict=True))
        if novelty.take(value, at)
    ]  # fmt: skip


def benchmark(directory: Path) -> dict[str, Any]:
    every, profiles = nab.load(directory)
    found = {series.name: detections(series) for series in every}
    windows = sum(len(series.windows) for series in every)
    figures: dict[str, Any] = {"series": len(every), "windows": windows}
    for name, profile in profiles.items():
        raw = null = 0.0
        for series in every:
            rows = len(series.values)
            raw += nab.score(rows, series.windows, found[series.name], profile, series.probation)
            null += nab.score(rows, series.windows, (), profile, series.probation)
        figures[name] = nab.normalised(raw, null, windows, profile)
    figures["detections"] = sum(row >= series.probation for series in every for row in found[series.name])
    figures["rows"] = sum(len(series.values) for series in every)
    return figures


def show_benchmark(figures: dict[str, Any]) -> None:
    names = [name for name in figures if name not in ("series", "windows", "detections", "rows")]
    title = (
        f"Numenta Anomaly Benchmark: {figures['series']} series, {figures['windows']} windows, one threshold for all"
    )
    rows: list[list[object]] = [["vagus", *(f"{figures[name]:.1f}" for name in names), figures["detections"]]]
    published = {"numenta": 70.1, "relative entropy": 54.6, "windowed Gaussian": 39.6, "random": 16.8, "nothing": 0.0}
    rows += [[f"{name} (published, all 58)", f"{value:.1f}", *[""] * len(names)] for name, value in published.items()]
    table.show(title, ["", *(name.replace("_", " ") for name in names), "detections"], rows)


# --- the cost ------------------------------------------------------------------------------------------------------


def cost() -> dict[str, float]:
    """Microseconds of CPU a sample, bytes a series."""
    rng = load_traces.np.random.default_rng(1)
    values = (20.0 + rng.gamma(2.0, 2.0, 200_000)).tolist()
    samples = [(value, 300.0 * row) for row, value in enumerate(values)]
    figures = {"novelty_us": min(_us(samples, Novelty().take) for _ in range(3))}
    node = load_traces.node(1, 0, 0.5)
    told = [(report, at) for at, report in reports(node, counts=True)]
    detector = LoadDetector(build.config())
    figures["report_us"] = min(_us(told, partial(detector.on_report, "pi")) for _ in range(3))
    figures["novelty_bytes"] = _bytes(partial(_fed, samples[:2000]), 100)
    detector = LoadDetector(build.config())
    numbers = itertools.count()
    figures["node_bytes"] = _bytes(lambda: _heard(detector, f"pi-{next(numbers)}", told[:2000]), 20)
    # with the agent's lateness, TCP, three processes, and the load itself
    figures["series"] = len(FIGURES) + 2 + 3 + 1
    figures["fleet_core_share"] = 10_000 / REPORT_S * figures["report_us"] * 1e-6
    figures["every_report_core_share"] = 10_000 / REPORT_S * 12 * figures["novelty_us"] * 1e-6
    return figures


def _us(samples: Sequence[tuple[Any, float]], take: Callable[[Any, float], object]) -> float:
    gc.collect()
    began = process_time()
    for value, at in samples:
        take(value, at)
    return (process_time() - began) / len(samples) * 1e6


def _fed(samples: Sequence[tuple[float, float]]) -> Novelty:
    novelty = Novelty()
    for value, at in samples:
        novelty.take(value, at)
    return novelty


def _heard(detector: LoadDetector, node: str, told: Sequence[tuple[Report, float]]) -> None:
    for report, at in told:
        detector.on_report(node, report, at)
    detector.take_news()


def _bytes(make: Callable[[], object], count: int) -> float:
    """What one more of it takes."""
    gc.collect()
    tracemalloc.start()
    kept = [make()]
    before = tracemalloc.get_traced_memory()[0]
    kept += [make() for _ in range(count)]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / count


def show_cost(figures: dict[str, float]) -> None:
    rows = [
        [
            "general detector, a sample",
            f"{figures['novelty_us']:.2f} µs",
            f"{figures['novelty_bytes']:.0f} bytes a series",
        ],
        [
            "a node's report, all of its series",
            f"{figures['report_us']:.2f} µs",
            f"{figures['node_bytes']:.0f} bytes a node",
        ],
    ]
    table.show("What detection costs", ["", "CPU", "memory"], rows)
    fleet, every = figures["fleet_core_share"], figures["every_report_core_share"]
    print(f"  10,000 nodes at 2 s, {figures['series']:.0f} series each, as the controller does: {fleet:.1%} of a core")
    print(f"  10,000 nodes × 12 series, each with every report: {every:.1%} of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=80)
    parser.add_argument("--days", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=3003)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help='one detector, as "vagus"')
    parser.add_argument("--nab", type=Path, default=ROOT.parent / "shared" / "nab", metavar="DIRECTORY")
    parser.add_argument("--no-load", action="store_true", help="the Numenta Anomaly Benchmark alone")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.cost:
        figures["cost"] = cost()
        show_cost(figures["cost"])
    else:
        if not options.no_load:
            figures["load"] = loads(options.nodes, options.seed, options.days, options.jobs, options.only)
            show_loads(figures["load"])
        try:
            figures["nab"] = benchmark(options.nab)
            show_benchmark(figures["nab"])
        except nab.Missing as missing:
            print(f"\nThe Numenta Anomaly Benchmark was not run: {missing}")
    table.write(options.json, figures)


if __name__ == "__main__":
    main()
