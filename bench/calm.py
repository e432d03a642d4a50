"""Counts automatic moves during weather that is no reason to move: 5 % random loss each way on both paths, a CPU hog at
load 25 on one node, two broker restarts. Beside it: how often one end alone called a link down, and about how many
single probes were missed, on which simpler rules would have acted.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import table

from lab.harness import HostSpec, Lab

HOSTS = (
    HostSpec("vps", "cloud", frozenset({"broker", "controller"})),
    *(HostSpec(f"pi-{name}", name, frozenset({"etcd"})) for name in "abc"),
)
_HOGGED = "pi-b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    seconds = options.minutes * 60
    with Lab(HOSTS, controller={"failover": {"failback_hold_s": 5.0}}) as lab:
        lab.start_broker()
        lab.start_agents()
        lab.start_controller()
        time.sleep(8)
        lab.start_etcd()
        time.sleep(5)
        began, wall = time.monotonic(), time.time()
        for path in ("overlay", "backup"):
            lab.loss(path, 0.05)
        lab[_HOGGED].hog(25, seconds)
        restarts = [seconds / 3, seconds * 2 / 3]
        loads = []
        while (elapsed := time.monotonic() - began) < seconds:
            if restarts and elapsed > restarts[0]:
                restarts.pop(0)
                lab.kill_broker()
                time.sleep(3)
                lab.start_broker()
                print(f"  {elapsed:.0f} s: broker killed and restarted", file=sys.stderr, flush=True)
            time.sleep(5)
            loads.append(float(Path("/proc/loadavg").read_text().split()[0]))
        figures = _count(lab, wall, seconds, max(loads))
    columns = ["minutes", "worst load1", "automatic moves", "down by one end", "pairs × paths", "suspicions, est."]
    keys = ["minutes", "load1", "moves", "downs", "links", "suspicions"]
    table.show("weather that is no reason to move", columns, [[figures[key] for key in keys]])
    table.write(options.json, figures)
    if figures["moves"]:
        raise SystemExit("moves:\n" + "\n".join(figures["why"]))


def _count(lab: Lab, wall: float, seconds: float, load1: float) -> dict[str, Any]:
    fleet = lab.api("/api/v1/fleet")
    links = [path for pair in fleet["pairs"] for path in pair["paths"]]
    ledger = [entry for entry in _all(lab, "ledger", wall) if entry["action"] in ("failover", "failback", "adopt")]
    downs: collections.Counter[str] = collections.Counter()
    for event in _all(lab, "events", wall):
        if event["kind"] == "link" and event["source"] != "controller" and " is down" in event["text"]:
            downs[event["subject"]] += 1
    # 5 probes a second at both ends; a probe or its echo is lost with 1 - 0.95²
    suspicions = round(len(links) * 2 * 5 * seconds * (1 - 0.95**2))
    return {
        "minutes": round(seconds / 60, 1),
        "load1": load1,
        "moves": len(ledger),
        "downs": downs.total(),
        "links": len(links),
        "suspicions": suspicions,
        "why": [f"{entry['subject']} {entry['action']}: {entry['reason']}" for entry in ledger],
    }


def _all(lab: Lab, what: str, wall: float) -> list[Any]:
    """Every entry since `wall`, page by page."""
    found: list[Any] = []
    before = ""
    while True:
        page = lab.api(f"/api/v1/{what}?limit=500{before}")
        items = page["items"] if isinstance(page, dict) else page
        found += [item for item in items if item["at"] >= wall]
        if not items or items[-1]["at"] < wall or len(items) < 500:
            return found
        before = f"&before={items[-1]['id']}"


if __name__ == "__main__":
    main()
