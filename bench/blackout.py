"""Silence of a UDP stream (5 ms) between two service addresses when the overlay is cut silently at a random moment, and
of going home, after it has healed.

Side by side on the same tunnels in one run: vagus with the controller deciding, vagus with reflex = "always", FRR (BGP
and BFD) at 300 ms × 3 and 100 ms × 3. Then cuts of the whole overlay under a three-member etcd with default timers:
whether it kept its leader and every linearizable read.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import frr
import table
from until import until

from lab.harness import HostSpec, Lab
from lab.harness.measure import EtcdWatch, UdpStream

A, B, VPS = "pi-a", "pi-b", "vps"
TWO = (HostSpec(VPS, "cloud", frozenset({"broker", "controller"})), HostSpec(A, "a"), HostSpec(B, "b"))
THREE_MEMBERS = (TWO[0], *(HostSpec(f"pi-{name}", name, frozenset({"etcd"})) for name in "abc"))
# BGP's own connect back-off can take two minutes to come home.
_SETTLE_S = 200.0
_HOME = "everything on the overlay"
_EVENTS, _LEDGER = "/api/v1/events?limit=200", "/api/v1/ledger?limit=20"
_HOLD_S = 2.0
# Of a cut that took longer, all that was said is printed: once it is over, nothing else tells why.
_SLOW_S = 0.4


# Seconds of silence of each cut, and of each way home.
Silences = tuple[list[float], list[float]]


def vagus(cuts: int, rng: random.Random, *, reflex: str, words: str) -> Silences:
    with Lab(TWO, agent={"reflex": reflex}, controller=_controller()) as lab:
        lab.start_broker()
        lab.start_agents()
        lab.start_controller()
        until(lambda: _settled(lab, "overlay"), _HOME, _SETTLE_S)
        return _cuts(lab, cuts, rng, lambda: _settled(lab, "overlay"), words, _SLOW_S)


def yardstick(cuts: int, rng: random.Random, interval_ms: int) -> Silences:
    with Lab(TWO[1:]) as lab:
        frr.start(lab, interval_ms)
        until(lambda: frr.is_ready(lab), _HOME, _SETTLE_S)
        return _cuts(lab, cuts, rng, lambda: frr.is_ready(lab), f"FRR {interval_ms} ms × 3")


def _cuts(
    lab: Lab, cuts: int, rng: random.Random, home: Callable[[], bool], words: str, slow_s: float = inf
) -> Silences:
    out, back = [], []
    with UdpStream(lab, A, B) as stream:
        for number in range(cuts):
            time.sleep(2 + rng.random())
            cut = lab.cut("overlay")
            time.sleep(3)
            out.append(stream.gap(cut, cut + 2.9).seconds)
            if out[-1] > slow_s:
                _tell(lab, cut)
            lab.mend("overlay")
            mended = time.monotonic()
            try:
                until(home, _HOME, _SETTLE_S)
            except TimeoutError as error:
                print(f"  {words}: {error}; going on with the {len(out)} cuts so far", file=sys.stderr, flush=True)
                break
            # The move home is over, and what it did to packets on their way has been seen.
            time.sleep(0.2)
            back.append(stream.gap(mended).seconds)
            silences = f"{table.milliseconds(out[-1])}, going home {table.milliseconds(back[-1])}"
            print(f"  {words}: cut {number + 1}/{cuts}: {silences}", file=sys.stderr, flush=True)
    return out, back


def _tell(lab: Lab, cut: float) -> None:
    """What agents and controller said from the cut on, each with its time since then."""
    ahead = time.time() - time.monotonic()
    said = [(each["at"], f"{each['subject']} {each['kind']}: {each['text']}") for each in lab.api(_EVENTS)]
    said += [(each["at"], f"{each['action']} {each['subject']}: {each['reason']}") for each in lab.api(_LEDGER)]
    for at, text in sorted(said):
        if at - ahead >= cut:
            print(f"    {table.milliseconds(at - ahead - cut)} {text}", file=sys.stderr)


def etcd(cuts: int, rng: random.Random) -> dict[str, object]:
    """Counts over `cuts` of the whole overlay: leaders lost, failed reads."""
    lost = failed = reads = 0
    with Lab(THREE_MEMBERS, controller=_controller()) as lab:
        lab.start_broker()
        lab.start_agents()
        lab.start_controller()
        until(lambda: _settled(lab, "overlay"), _HOME, _SETTLE_S)
        lab.start_etcd()
        time.sleep(3)
        with EtcdWatch(lab) as watch:
            for number in range(cuts):
                time.sleep(2 + rng.random())
                began = time.monotonic()
                before = watch.leaders(began - 1)
                lab.cut("overlay")
                time.sleep(4)
                after = watch.leaders(began)
                bad = len(watch.failed_reads(began))
                lost += after != before or len(before) != 1
                failed += bad
                reads += len(watch.readings(began))
                words = "kept" if after == before else f"LOST: {before} → {after}"
                print(
                    f"  etcd: cut {number + 1}/{cuts}: leader {words}, {bad} reads failed", file=sys.stderr, flush=True
                )
                lab.mend("overlay")
                until(lambda: _settled(lab, "overlay"), _HOME, _SETTLE_S)
    return {"cuts": cuts, "leaders_lost": lost, "failed_reads": failed, "reads": reads}


def _controller() -> dict[str, object]:
    # A short hold that stays short, and no damping of cut after cut, so that a run is minutes; what is measured is the
    # way out, not the way back.
    calm = {"half_life_s": 1.0, "longest_hold_s": _HOLD_S}
    return {"failover": {"failback_hold_s": _HOLD_S, "max_moves": 100_000, "damping": calm}}


def _settled(lab: Lab, path: str) -> bool:
    pairs = lab.api("/api/v1/fleet")["pairs"]
    return bool(pairs) and all(
        pair["observed"] == [path, path] and pair["status"] == "settled" and all(one["proven"] for one in pair["paths"])
        for pair in pairs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=20, help="cuts for each row (default 20)")
    parser.add_argument("--seed", type=int, default=None, help="for the moments of the cuts; random by default")
    parser.add_argument("--only", choices=["controller", "reflex", "frr", "etcd"], action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    chosen = options.only or ["controller", "reflex", "frr", "etcd"]
    measured: dict[str, Silences] = {}
    if "controller" in chosen:
        measured["vagus, controller decides"] = vagus(options.cuts, rng, reflex="off", words="controller")
    if "reflex" in chosen:
        measured['vagus, reflex = "always"'] = vagus(options.cuts, rng, reflex="always", words="reflex")
    if "frr" in chosen:
        for interval_ms in (300, 100):
            measured[f"FRR BGP+BFD {interval_ms} ms × 3"] = yardstick(options.cuts, rng, interval_ms)
    figures: dict[str, object] = {
        name: {"cut": {**table.spread(out), "gaps_s": out}, "home": {**table.spread(back), "gaps_s": back}}
        for name, (out, back) in measured.items()
    }
    for number, title in enumerate(("silence after a silent cut of the overlay", "silence of going home")):
        spreads = {name: table.spread(both[number]) for name, both in measured.items() if both[number]}
        rows = [
            [name, stats["count"], *(table.milliseconds(stats[key]) for key in ("median", "iqr", "min", "max"))]
            for name, stats in spreads.items()
        ]
        if rows:
            table.show(title, ["", "cuts", "median", "IQR", "best", "worst"], rows)
    if "etcd" in chosen:
        counts = figures["etcd"] = etcd(options.cuts, rng)
        table.show("etcd, three members, default timers", list(counts), [list(counts.values())])
    table.write(options.json, figures)


if __name__ == "__main__":
    main()
