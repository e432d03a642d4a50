"""Charts from chunks of figures: columns as a page draws them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from vagus_controller.chart_views import Band, Column, EndHistory, LinkBands, NodeHistory, PairHistory, Shares, Ways
from vagus_controller.core.figures import LINK_METRICS, METRICS, ROUTE_METRICS
from vagus_controller.core.rollup import Cells, Chunk, gather

SPARK_S: Final = 120
SPARK_POINTS: Final = 30
_OF_LINKS: Final = frozenset((*LINK_METRICS, *ROUTE_METRICS))
_ORDER: Final = {name: number for number, name in enumerate(METRICS)}


def node_history(
    chunks: Iterable[Chunk],
    node: str,
    start: int,
    end: int,
    step_s: int,
    *,
    links: bool,
    peers: Collection[str] = (),
) -> NodeHistory:
    """`links`: with all of its links, or those to `peers` when there are any."""
    wanted = _with_links(peers) if links and peers else _known if links else _of_the_machine
    cells, samples = gather(chunks, start, end, step_s, wanted)
    first, last = _used(samples)
    columns = [
        Column(
            metric=metric,
            of=of,
            unit=METRICS[metric].unit,
            **_parts(key, cells[key], first, last),
        )
        for key in sorted(cells, key=_place)
        for metric, _, of in (key.partition(":"),)
        if metric not in _OF_LINKS
    ]
    return NodeHistory(
        node=node,
        step_s=step_s,
        at=_times(start, step_s, first, last),
        columns=columns,
        links=_links(cells, first, last),
    )


def pair_history(ends: Sequence[tuple[str, Iterable[Chunk]]], start: int, end: int, step_s: int) -> PairHistory:
    """`ends`: each node's name and its chunks."""
    (a, _), (b, _) = ends
    gathered = [
        gather(chunks, start, end, step_s, _about(peer)) for (_, chunks), peer in zip(ends, (b, a), strict=True)
    ]
    first, last = _used([x + y for x, y in zip(gathered[0][1], gathered[1][1], strict=True)])
    histories = [
        _end(node, peer, cells, samples, first, last)
        for (node, peer), (cells, samples) in zip(((a, b), (b, a)), gathered, strict=True)
    ]
    return PairHistory(
        pair=f"{a}--{b}", step_s=step_s, at=_times(start, step_s, first, last), ends=(histories[0], histories[1])
    )


def _end(node: str, peer: str, cells: dict[str, Cells], samples: list[int], first: int, last: int) -> EndHistory:
    ways = {name: cells.get(f"{name}:{peer}") or Cells(len(samples)) for name in ROUTE_METRICS}
    counted = sum(ways[ROUTE_METRICS[0]].counts)
    scale = METRICS[ROUTE_METRICS[0]].scale
    return EndHistory(
        node=node,
        paths=_links(cells, first, last),
        ways=Ways(**{name: _parts(f"{name}:{peer}", each, first, last)["mean"] for name, each in ways.items()}),
        shares=Shares(**{name: sum(each.totals) / counted / scale if counted else None for name, each in ways.items()}),
    )


def _links(cells: dict[str, Cells], first: int, last: int) -> list[LinkBands]:
    found: dict[tuple[str, str], dict[str, Band]] = {}
    for key in sorted(cells):
        metric, _, which = key.partition(":")
        if metric in LINK_METRICS:
            peer, _, path = which.partition(":")
            found.setdefault((peer, path), {})[metric] = Band(**_parts(key, cells[key], first, last))
    return [
        LinkBands(peer=peer, path=path, rtt_s=bands.get("rtt"), jitter_s=bands.get("jitter"), loss=bands.get("loss"))
        for (peer, path), bands in sorted(found.items())
    ]


def _known(key: str) -> bool:
    """A later version may have written others."""
    return key.partition(":")[0] in METRICS


def _of_the_machine(key: str) -> bool:
    return _known(key) and key.partition(":")[0] not in _OF_LINKS


def _with_links(peers: Collection[str]) -> Callable[[str], bool]:
    def wanted(key: str) -> bool:
        metric, _, which = key.partition(":")
        return which.partition(":")[0] in peers if metric in _OF_LINKS else metric in METRICS

    return wanted


def _about(peer: str) -> Callable[[str], bool]:
    """Whether a key is about the link to `peer`, or the way that traffic to it takes."""

    def wanted(key: str) -> bool:
        metric, _, which = key.partition(":")
        return metric in _OF_LINKS and which.partition(":")[0] == peer

    return wanted


def _used(samples: Sequence[int]) -> tuple[int, int]:
    """The slots from the first that has anything to after the last."""
    used = [slot for slot, count in enumerate(samples) if count]
    return (used[0], used[-1] + 1) if used else (0, 0)


def _times(start: int, step_s: int, first: int, last: int) -> list[int]:
    return [start + slot * step_s for slot in range(first, last)]


def _parts(key: str, cells: Cells, first: int, last: int) -> dict[str, list[float | None]]:
    scale = METRICS[key.partition(":")[0]].scale
    parts: dict[str, Sequence[float | None]] = {"low": cells.low, "mean": cells.means(), "high": cells.high}
    return {
        name: [None if figure is None else round(figure) / scale for figure in column[first:last]]
        for name, column in parts.items()
    }


def _place(key: str) -> tuple[int, str]:
    metric, _, of = key.partition(":")
    return _ORDER[metric], of


class Spark:
    """The last hour of one figure, in a few bytes."""

    __slots__ = ("_counts", "_last", "_totals")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._last = 0
        self._totals = array("q", bytes(8 * SPARK_POINTS))
        self._counts = array("i", bytes(4 * SPARK_POINTS))

    def add(self, at: int, figure: int, count: int = 1) -> None:
        slot = at // SPARK_S
        if slot < self._last - SPARK_POINTS:
            # The clock was set back: what comes now is the last hour.
            self._clear()
        for passed in range(max(self._last, slot - SPARK_POINTS) + 1, slot + 1):
            self._totals[passed % SPARK_POINTS] = self._counts[passed % SPARK_POINTS] = 0
        self._last = max(self._last, slot)
        if slot > self._last - SPARK_POINTS:
            self._totals[slot % SPARK_POINTS] += figure * count
            self._counts[slot % SPARK_POINTS] += count

    def means(self, now_slot: int) -> list[float | None]:
        """The points that end with that of `now_slot`."""
        found: list[float | None] = []
        for slot in range(now_slot - SPARK_POINTS + 1, now_slot + 1):
            count = self._counts[slot % SPARK_POINTS] if self._last - SPARK_POINTS < slot <= self._last else 0
            found.append(self._totals[slot % SPARK_POINTS] / count if count else None)
        return found
