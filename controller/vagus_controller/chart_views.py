"""Figures over time, as the API and the page show them: see `views.py`, and `core/charts.py`, which makes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from vagus_controller.views import View


class Band(View, frozen=True, kw_only=True):
    """A figure over the slots of a chart: lowest, mean and highest; null where there is none."""

    low: list[float | None]
    mean: list[float | None]
    high: list[float | None]


class Column(Band, frozen=True, kw_only=True):
    """docs/metrics.md has the names. `of`: which disk, device or program, "" for the machine."""

    metric: str
    of: str
    unit: str


class LinkBands(View, frozen=True, kw_only=True):
    """A link as one end saw it; null: it told nothing in this time."""

    peer: str
    path: str
    rtt_s: Band | None
    jitter_s: Band | None
    loss: Band | None


class NodeHistory(View, frozen=True, kw_only=True):
    """A node over time. `at`: where each slot begins, wall-clock epoch seconds; each is `step_s` long. What the machine
    does not have has no column. Slots before the first that has anything, and after the last, are left out."""

    node: str
    step_s: int
    at: list[int]
    columns: list[Column]
    links: list[LinkBands]


class Shares(View, frozen=True, kw_only=True):
    """Shares of time that traffic went by the first path directly, by it through a relay, and by another network; the
    rest is not known. null: nothing is."""

    direct: float | None
    relayed: float | None
    backup: float | None


class Ways(View, frozen=True, kw_only=True):
    """`Shares` of each slot."""

    direct: list[float | None]
    relayed: list[float | None]
    backup: list[float | None]


class EndHistory(View, frozen=True, kw_only=True):
    """One end of a pair over time; `shares` of the whole time."""

    node: str
    paths: list[LinkBands]
    ways: Ways
    shares: Shares


class PairHistory(View, frozen=True, kw_only=True):
    """A pair over time, as both ends saw it. `at` and `step_s` as in `NodeHistory`."""

    pair: str
    step_s: int
    at: list[int]
    ends: tuple[EndHistory, EndHistory]


class Sparklines(View, frozen=True, kw_only=True):
    """Load per core of every node, means of `step_s`; the last one of each ends at `end`, epoch seconds."""

    step_s: int
    end: int
    nodes: dict[str, list[float | None]]


class Charts(Protocol):
    """What the API reads of figures over time. Any thread may call; times are wall-clock epoch seconds."""

    def knows(self, node: str) -> bool: ...
    def best_step(self, start: int, end: int) -> int: ...
    def node_history(
        self, node: str, start: int, end: int, step_s: int, *, links: bool = False, peers: Collection[str] = ()
    ) -> NodeHistory:
        """`links`: with all of its links, or those to `peers` when there are any."""

    def pair_history(self, a: str, b: str, start: int, end: int, step_s: int) -> PairHistory: ...
    def sparklines(self) -> Sparklines: ...
