"""What one tick of the incidents costs, in CPU time: a ring of nodes with four peers each over two paths, in virtual
time, while all is well, while the overlay dies everywhere, and while it is dead; and the detectors of these ticks.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from time import process_time
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import table

from unit import fleet_builders as build
from vagus_controller.config import Failover as FailoverSettings
from vagus_controller.core.detect.link import Links
from vagus_controller.core.detect.liveness import Liveness
from vagus_controller.core.failover import Failover
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.incidents import Incidents

_TICK_S = 0.5
_TICKS_PER_REPORT = 4
_SITES = 20


class Ring:
    def __init__(self, size: int) -> None:
        names = [f"n{number:05}" for number in range(size)]
        self.peers = {
            name: [names[(place + step) % size] for step in (-2, -1, 1, 2)] for place, name in enumerate(names)
        }
        config = build.config()
        self.now, self.seq, self.ticks = 100.0, 0, 0
        self.fleet = Fleet(config)
        self.fleet.on_session(True, self.now, "bench")
        for place, name in enumerate(names):
            self.fleet.on_presence(build.presence(name, *self.peers[name], site=f"s{place % _SITES}"), self.now)
        self.links, self.liveness = Links(config), Liveness(config)
        ids = itertools.count(1)
        failover = Failover(FailoverSettings())
        self.incidents = Incidents(self.fleet, failover, frozenset, lambda _above: next(ids), dict)

    def run(self, seconds: float, dead: str = "") -> dict[str, list[float]]:
        """Milliseconds of each tick; `dead`: the path that is."""
        taken: dict[str, list[float]] = {"detectors": [], "incidents": []}
        for _ in range(round(seconds / _TICK_S)):
            if self.ticks % _TICKS_PER_REPORT == 0:
                self._report(dead)
            self.ticks += 1
            self.now += _TICK_S
            began = process_time()
            observer = self.liveness.controller(self.fleet, self.now)
            self.liveness.evaluate(self.fleet, self.now)
            self.links.evaluate(self.fleet, self.now)
            judged = process_time()
            self.incidents.verdicts((observer, *self.liveness.news, *self.links.news))
            self.incidents.tick(self.now, self.now)
            self.incidents.briefs(self.now)
            taken["detectors"].append((judged - began) * 1000)
            taken["incidents"].append((process_time() - judged) * 1000)
        return taken

    def _report(self, dead: str) -> None:
        self.seq += 1
        for name, peers in self.peers.items():
            told = tuple(
                build.link(peer, path, "down" if path == dead else "up") for peer in peers for path in build.PATHS
            )
            self.fleet.on_report(build.report(name, self.seq, links=told), self.now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000], help="sizes of the fleet")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    rows = []
    for size in options.nodes:
        ring = Ring(size)
        ring.run(20)
        for what, seconds, dead in (
            ("all well", 60, ""),
            ("overlay dies", 10, "overlay"),
            ("overlay dead", 60, "overlay"),
        ):
            taken = ring.run(seconds, dead)
            spread = {name: table.spread(values) for name, values in taken.items()}
            figures[f"{size} nodes, {what}"] = spread
            rows.append(
                [
                    f"{size:,} nodes, {what}",
                    *(f"{spread[name][key]:.2f}" for name in spread for key in ("median", "max")),
                    len(ring.incidents.open(ring.now)),
                ]
            )
    columns = ["", "detectors, median ms", "worst", "incidents, median ms", "worst", "open"]
    table.show("One tick of half a second, CPU time", columns, rows)
    table.write(options.json, figures)


if __name__ == "__main__":
    main()
