"""What of the fleet's picture is worth telling again: all watchers have one picture, and this knows which.

Everything is compared with what was told last, so many small steps never add up to a lie. What changed in kind (a
state, a path, a proof) is told at the next look. Figures and words that only moved are told when they moved by
something that a person would see, and no sooner than `_CALM_S` after the last time.

Drawing costs more than comparing, and a look draws a bounded number: those that stirred and those that are not as they
should be, and of all a share, such that each has its turn within `_ROUND_S`. A small fleet is looked at whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller.views import Canvas, FleetChange, FleetView, LinkEnd, NodeView, Pair, PairView, PathView, Severity
from vagus_protocol.messages import Link, Report

_T = TypeVar("_T")

_CALM_S: Final = 2.0
_ROUND_S: Final = 5.0
_MOST: Final = 300
# A fleet of so many pairs and nodes is looked at whole.
_FEW: Final = 60
# More than ever stirred.
_ALL_ALONG: Final = 2**63
# Steps of figures that a person would see.
_RTT_SHARE: Final = 0.1
_RTT_S: Final = 0.001
_LOSS: Final = 0.01
# Of the head: what changes by itself, or all the time.
_AGES: Final = frozenset(
    ("since_s", "age_s", "uptime_s", "at", "expires_s", "read_s", "db_bytes", "raft_index", "applied_index")
)


class _ToldNode(NamedTuple):
    view: NodeView
    at: float


class _ToldPair(NamedTuple):
    view: PairView
    at: float


class Differences:
    """`look` and `rest` in any order; time is monotonic."""

    def __init__(self) -> None:
        self._nodes: dict[str, _ToldNode] = {}
        self._pairs: dict[Pair, _ToldPair] = {}
        # of those told, the ones that are not as they should be
        self._uneasy_nodes: set[str] = set()
        self._uneasy_pairs: set[Pair] = set()
        self._head: FleetView | None = None
        self._head_at = 0.0
        self._stirs = 0
        self._looked_at = 0.0
        # where the next round of looks goes on
        self._next_node = self._next_pair = 0

    def look(self, canvas: Canvas, now: float) -> FleetChange | None:
        """What everyone who has the picture must be told; None: nothing."""
        gone = self._take_leave(canvas)
        share = min((now - self._looked_at) / _ROUND_S, 1.0)
        self._looked_at = now
        names, pairs, self._stirs = canvas.stirred(self._stirs)
        some_names, self._next_node = _turn(canvas.names, self._next_node, share)
        some_pairs, self._next_pair = _turn(canvas.pairs, self._next_pair, share)
        # What is beyond the bound has its turn in the round.
        nodes = dict.fromkeys((*islice((*names, *self._uneasy_nodes), _MOST), *some_names))
        links = dict.fromkeys((*islice((*pairs, *self._uneasy_pairs), _MOST), *some_pairs))
        return self._compare(canvas, canvas.head, nodes, links, gone, now)

    def rest(self, canvas: Canvas, now: float, most: int) -> FleetChange | None:
        """The head, and of the nodes and of the pairs that nobody was told of yet at most so many: once there are none,
        what was told makes the whole picture."""
        names = tuple(islice((name for name in canvas.names if name not in self._nodes), most))
        pairs = tuple(islice((pair for pair in canvas.pairs if pair not in self._pairs), most))
        if self._head is None:
            # All of it is drawn now: the next look begins a round, and need not draw it once more.
            self._looked_at = now
            *_, self._stirs = canvas.stirred(_ALL_ALONG)
        # While more is to come, a head that was just told will do: a new one costs a look at every node.
        just_told = self._head if now - self._head_at < _CALM_S and (names or pairs) else None
        head = just_told or canvas.head
        return self._compare(canvas, head, names, pairs, self._take_leave(canvas), now)

    def _compare(
        self,
        canvas: Canvas,
        head: FleetView,
        names: Iterable[str],
        pairs: Iterable[Pair],
        gone: tuple[tuple[str, ...], tuple[str, ...]],
        now: float,
    ) -> FleetChange | None:
        gone_nodes, gone_pairs = gone
        nodes = [node for name in names if (node := self._node(canvas, name, now)) is not None]
        links = [link for pair in pairs if (link := self._pair(canvas, pair, now)) is not None]
        still = self._head is not None and now - self._head_at < _CALM_S and _alike(self._head, head)
        if still and not (nodes or links or gone_nodes or gone_pairs):
            return None
        self._head, self._head_at = head, now
        return FleetChange(
            head=head, nodes=tuple(nodes), pairs=tuple(links), gone_nodes=gone_nodes, gone_pairs=gone_pairs
        )

    def _take_leave(self, canvas: Canvas) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Forget what is not there any more."""
        gone_nodes: set[str] = set()
        gone_pairs: set[Pair] = set()
        if len(self._nodes) > len(canvas.names) or not self._nodes.keys() <= set(canvas.names):
            gone_nodes = self._nodes.keys() - set(canvas.names)
        if len(self._pairs) > len(canvas.pairs) or not self._pairs.keys() <= set(canvas.pairs):
            gone_pairs = self._pairs.keys() - set(canvas.pairs)
        for name in gone_nodes:
            del self._nodes[name]
        for pair in gone_pairs:
            del self._pairs[pair]
        self._uneasy_nodes -= gone_nodes
        self._uneasy_pairs -= gone_pairs
        return tuple(sorted(gone_nodes)), tuple(sorted("--".join(pair) for pair in gone_pairs))

    def _node(self, canvas: Canvas, name: str, now: float) -> NodeView | None:
        told, view = self._nodes.get(name), canvas.node(name)
        if told is not None and _node_waits(told, view, now - told.at):
            return None
        self._nodes[name] = _ToldNode(view, now)
        (self._uneasy_nodes.discard if _node_easy(view) else self._uneasy_nodes.add)(name)
        return lean(view)

    def _pair(self, canvas: Canvas, pair: Pair, now: float) -> PairView | None:
        told, view = self._pairs.get(pair), canvas.pair(pair)
        if told is not None and _pair_waits(told, view, now - told.at):
            return None
        self._pairs[pair] = _ToldPair(view, now)
        (self._uneasy_pairs.discard if _pair_easy(view) else self._uneasy_pairs.add)(pair)
        return view


class Whole:
    """A picture that is drawn already, as a Canvas."""

    def __init__(self, fleet: FleetView) -> None:
        self._nodes = {node.name: node for node in fleet.nodes}
        self._pairs = {pair.nodes: pair for pair in fleet.pairs}
        self.head = replace(fleet, nodes=(), pairs=())
        self.names = list(self._nodes)
        self.pairs = list(self._pairs)

    def node(self, name: str) -> NodeView:
        return self._nodes[name]

    def pair(self, pair: Pair) -> PairView:
        return self._pairs[pair]

    def stirred(self, since: int) -> tuple[Iterable[str], Iterable[Pair], int]:
        return self.names, self.pairs, since


def lean(node: NodeView) -> NodeView:
    """Without the links of its report, which are in the pairs."""
    if node.report is None or not node.report.links:
        return node
    return replace(node, report=replace(node.report, links=()))


def _turn(all_of: Sequence[_T], start: int, share: float) -> tuple[list[_T], int]:
    """The next ones of a round, and where the one after goes on."""
    count = len(all_of)
    if count <= _FEW:
        return list(all_of), 0
    start = start if start < count else 0
    end = start + min(max(int(count * share), _FEW), _MOST)
    return list(all_of[start:end]), end if end < count else 0


# --- is it another? --------------------------------------------------------------------------------------------------


def _node_waits(told: _ToldNode, view: NodeView, passed: float) -> bool:
    """Whether there is no need to tell it, or not yet."""
    return not _node_news(told.view, view) and (passed < _CALM_S or _node_same(told.view, view))


def _pair_waits(told: _ToldPair, view: PairView, passed: float) -> bool:
    return not _pair_news(told.view, view, passed) and (passed < _CALM_S or _pair_same(told.view, view))


def _node_easy(view: NodeView) -> bool:
    return view.liveness.severity is Severity.OK and view.load.severity is Severity.OK and not view.drift


def _node_news(told: NodeView, view: NodeView) -> bool:
    return (
        told.liveness.state != view.liveness.state
        or told.liveness.severity != view.liveness.severity
        or told.load.state != view.load.state
        or told.load.severity != view.load.severity
        or told.online != view.online
        or told.drift != view.drift
        or told.observed != view.observed
        or (told.report is None) != (view.report is None)
    )


def _node_same(told: NodeView, view: NodeView) -> bool:
    return (
        _same_report(told.report, view.report)
        and told.liveness.reason == view.liveness.reason
        and told.load.reason == view.load.reason
        and (told.epoch, told.generation, told.version, told.site)
        == (view.epoch, view.generation, view.version, view.site)
    )


def _same_report(told: Report | None, report: Report | None) -> bool:
    if told is None or report is None:
        return told is report
    return told is report or (told.seq == report.seq and told.session == report.session)


def _pair_easy(view: PairView) -> bool:
    return view.status == "settled" and all(path.verdict.severity is Severity.OK and path.proven for path in view.paths)


def _pair_news(told: PairView, view: PairView, passed: float) -> bool:
    return (
        told.status != view.status
        or told.assigned != view.assigned
        or told.observed != view.observed
        or told.origin != view.origin
        or told.drill != view.drill
        or told.since_s + passed - view.since_s > 1.0
        or len(told.paths) != len(view.paths)
        or any(_path_news(before, path) for before, path in zip(told.paths, view.paths, strict=True))
    )


def _path_news(told: PathView, path: PathView) -> bool:
    return (
        told.verdict.state != path.verdict.state
        or told.verdict.severity != path.verdict.severity
        or told.proven != path.proven
        or told.path != path.path
        or _end_news(told.ends[0].link, path.ends[0].link)
        or _end_news(told.ends[1].link, path.ends[1].link)
    )


def _end_news(told: Link | None, link: Link | None) -> bool:
    if told is None or link is None:
        return told is not link
    return (
        told.state is not link.state
        or told.relay is not link.relay
        or told.peer_state is not link.peer_state
        or told.obstacle != link.obstacle
    )


def _pair_same(told: PairView, view: PairView) -> bool:
    return told.reason == view.reason and all(
        (before.unproven, before.metered, before.idle_interval_s) == (path.unproven, path.metered, path.idle_interval_s)
        and before.verdict.reason == path.verdict.reason
        and before.verdict.evidence == path.verdict.evidence
        and _near(before.ends[0], path.ends[0])
        and _near(before.ends[1], path.ends[1])
        for before, path in zip(told.paths, view.paths, strict=True)
    )


def _near(told: LinkEnd, end: LinkEnd) -> bool:
    before, link = told.link, end.link
    if before is None or link is None:
        return before is link
    step = max(_RTT_SHARE * (before.rtt_s or 0.0), _RTT_S)
    return (
        before.reason == link.reason
        and (before.rtt_s is None) == (link.rtt_s is None)
        and abs((before.rtt_s or 0.0) - (link.rtt_s or 0.0)) <= step
        and abs((before.loss_10s or 0.0) - (link.loss_10s or 0.0)) <= _LOSS
        and abs((before.loss_60s or 0.0) - (link.loss_60s or 0.0)) <= _LOSS
    )


def _alike(a: object, b: object) -> bool:
    """Whether nothing but ages and the like differ."""
    if isinstance(a, Struct) and type(a) is type(b):
        return all(_alike(getattr(a, name), getattr(b, name)) for name in a.__struct_fields__ if name not in _AGES)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return a == b
