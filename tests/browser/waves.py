"""views.Charts, made up: every figure is a wave of its own, the same each time it is asked for."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Collection

from vagus_controller.chart_views import NodeHistory, PairHistory, Sparklines
from vagus_controller.core import charts
from vagus_controller.core.figures import LINK_METRICS, METRICS, ROUTE_METRICS
from vagus_controller.core.rollup import Chunk
from vagus_controller.views import FleetView

_OF = {"disk_used": ("/",), "disk_busy": ("mmcblk0",), "process": ("tailscaled", "etcd")}
# What is no share, as its value at the wave's middle.
_MIDDLE = {
    "load": 0.8,
    "runnable": 2.0,
    "temperature": 52.0,
    "agent_lag": 0.004,
    "etcd_term": 7.0,
    "etcd_read": 0.004,
    "process": 0.2,
    "rtt": 0.03,
    "jitter": 0.002,
    "loss": 0.01,
}


class Waves:
    """Of the fleet that `fleet` gives. In the second sixth of any time there is nothing: the controller was off."""

    def __init__(self, fleet: Callable[[], FleetView]) -> None:
        self._fleet = fleet

    def knows(self, node: str) -> bool:
        return node in {each.name for each in self._fleet().nodes}

    def best_step(self, start: int, end: int) -> int:
        return next((step for step in (10, 60, 3600) if (end - start) / step <= 1500), 86400)

    def node_history(
        self, node: str, start: int, end: int, step_s: int, *, links: bool = False, peers: Collection[str] = ()
    ) -> NodeHistory:
        chunks = [self._chunk(node, start, end, step_s)]
        return charts.node_history(chunks, node, start, end, step_s, links=links, peers=peers)

    def pair_history(self, a: str, b: str, start: int, end: int, step_s: int) -> PairHistory:
        ends = [(node, [self._chunk(node, start, end, step_s)]) for node in (a, b)]
        return charts.pair_history(ends, start, end, step_s)

    def sparklines(self) -> Sparklines:
        end = int(time.time()) // charts.SPARK_S * charts.SPARK_S
        times = [end - charts.SPARK_S * back for back in range(charts.SPARK_POINTS, 0, -1)]
        nodes = {
            node.name: [round(_wave(f"{node.name} load", at, 0.8), 2) for at in times] for node in self._fleet().nodes
        }
        return Sparklines(step_s=charts.SPARK_S, end=end, nodes=nodes)

    def _chunk(self, node: str, start: int, end: int, step_s: int) -> Chunk:
        sixth = (end - start) // 6
        offsets = [offset for offset in range(0, end - start, step_s) if not sixth <= offset < 2 * sixth]
        chunk = Chunk(start, offsets, [step_s // 10] * len(offsets), {}, {}, {})
        for key in self._keys(node):
            name = key.partition(":")[0]
            scale, middle = METRICS[name].scale, _MIDDLE.get(name, 0.3)
            # Traffic goes one way at a time: all ways are of one wave.
            wave = f"{node} way {key.partition(':')[2]}" if name in ROUTE_METRICS else f"{node} {key}"
            values = [_wave(wave, start + offset, middle) for offset in offsets]
            if name in ROUTE_METRICS:
                values = [float((value > 0.4) is (name == "backup") and name != "relayed") for value in values]
            chunk.mean[key] = [round(value * scale) for value in values]
            if step_s > 10 and name not in ROUTE_METRICS:
                chunk.below[key] = [round(value * scale / 5) for value in values]
                chunk.above[key] = [round(value * scale / 2) for value in values]
        return chunk

    def _keys(self, node: str) -> list[str]:
        keys = [name for name in METRICS if name not in _OF and name not in (*LINK_METRICS, *ROUTE_METRICS)]
        system = next((each.report.system for each in self._fleet().nodes if each.name == node and each.report), None)
        if system is not None and system.temperature_c is None:
            keys = [key for key in keys if key not in ("temperature", "throttled", "undervoltage")]
        if system is not None and system.psi_cpu is None:
            keys = [key for key in keys if not key.startswith("psi_")]
        keys += [f"{name}:{of}" for name, several in _OF.items() for of in several]
        for pair in self._fleet().pairs:
            if node in pair.nodes:
                peer = pair.nodes[pair.nodes[0] == node]
                keys += [f"{name}:{peer}:{path.path}" for name in LINK_METRICS for path in pair.paths]
                keys += [f"{name}:{peer}" for name in ROUTE_METRICS]
        return keys


def _wave(what: str, at: float, middle: float) -> float:
    phase = zlib.crc32(what.encode()) % 628 / 100
    return middle * (1 + 0.4 * math.sin(at / 5000 + phase) + 0.2 * math.sin(at / 600 + 2 * phase))
