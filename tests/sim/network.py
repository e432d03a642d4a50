"""The paths between nodes, and everybody's way to the broker: which direction carries what, how late, how much is lost.

A wire is one direction of one path between two nodes. A node's interface of a path may be gone, which cuts all its
wires of that path, at that end, and the kernel knows it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Wire = tuple[str, str, str]  # from, to, path
_USUAL_S = 0.02
_DELAYS = {"overlay": 0.005}


@dataclass
class Condition:
    cut: bool = False
    loss: float = 0.0
    delay: float = 0.01
    # of packets that overtake, and of packets that come twice
    reorder: float = 0.0
    duplicate: float = 0.0
    # by a relay of the overlay's
    relayed: bool = False

    @property
    def impaired(self) -> bool:
        return self.cut or self.loss > 0.0 or self.delay > _USUAL_S or self.reorder > 0.0 or self.relayed


class Network:
    def __init__(self, nodes: Iterable[str], paths: Iterable[str], rng: random.Random) -> None:
        self.nodes, self.paths = tuple(nodes), tuple(paths)
        self._rng = rng
        self.wires = {
            (a, b, path): Condition(delay=_DELAYS.get(path, 0.012))
            for a in self.nodes
            for b in self.nodes
            for path in self.paths
            if a != b
        }
        # (node, path) → whether its interface is there
        self.interfaces = {(node, path): True for node in self.nodes for path in self.paths}
        # called with the pair of nodes and the path whenever a condition changed
        self.watchers: list[Callable[[str, str, str], None]] = []

    def change(self, wire: Wire, **what: object) -> None:
        condition = self.wires[wire]
        for name, value in what.items():
            setattr(condition, name, value)
        self._tell(*wire)

    def set_interface(self, node: str, path: str, there: bool) -> None:
        self.interfaces[node, path] = there
        for other in self.nodes:
            if other != node:
                self._tell(node, other, path)

    def carries(self, a: str, b: str, path: str) -> bool:
        """Whether a packet from `a` can reach `b` over `path`."""
        return not self.wires[a, b, path].cut and self.interfaces[a, path] and self.interfaces[b, path]

    def passes(self, a: str, b: str, path: str) -> bool:
        """`carries`, and this one packet is not lost."""
        loss = self.wires[a, b, path].loss
        return self.carries(a, b, path) and (not loss or self._rng.random() >= loss)

    def both_ways(self, a: str, b: str, path: str) -> bool:
        return self.carries(a, b, path) and self.carries(b, a, path)

    def impaired(self, a: str, b: str, path: str) -> bool:
        """Whether anything is wrong with it, either way."""
        there = self.interfaces[a, path] and self.interfaces[b, path]
        return not there or self.wires[a, b, path].impaired or self.wires[b, a, path].impaired

    def loss(self, a: str, b: str, path: str) -> float:
        """Of an echo: the probe, or its answer."""
        there, back = self.wires[a, b, path].loss, self.wires[b, a, path].loss
        return 1 - (1 - there) * (1 - back)

    def delay(self, a: str, b: str, path: str) -> float:
        """Seconds that the next packet takes."""
        condition = self.wires[a, b, path]
        jitter = 1 + 0.2 * self._rng.random()
        if condition.reorder and self._rng.random() < condition.reorder:
            jitter += 3
        return condition.delay * jitter

    def _tell(self, a: str, b: str, path: str) -> None:
        for watcher in self.watchers:
            watcher(a, b, path)
