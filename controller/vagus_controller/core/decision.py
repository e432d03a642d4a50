"""What the failover policy speaks of: intents, decisions, and the situation they are made in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from vagus_controller.core.fleet import Pair
from vagus_controller.core.verdict import Verdict
from vagus_protocol.messages import Origin

Kind = Literal["failover", "failback", "switchover", "adopt", "revert", "recommend", "hold", "drill"]


class Intent(Struct, frozen=True, kw_only=True):
    """The path that both ends of a pair are told to use. `since`: monotonic. `trial_from`: the path that is left, while
    the move is on trial, and the origin of that; `drill`: it is nothing but rehearsed."""

    path: str
    origin: Origin = "default"
    reason: str = ""
    since: float = 0.0
    trial_from: str = ""
    trial_from_origin: Origin = "default"
    drill: bool = False


class Decision(Struct, frozen=True, kw_only=True):
    """`hold` and `recommend` change nothing; the others make `path` the pair's intent. `was`: the path that is left."""

    kind: Kind
    pair: Pair
    path: str
    origin: Origin
    reason: str
    evidence: tuple[str, ...] = ()
    was: str = ""
    # decided here, not by a person
    automatic: bool = False
    # why it waits, in a few words; "" for what moves
    brief: str = ""
    # no canary goes first: the path that it leaves is dead, or an agent has moved already
    urgent: bool = False
    # on degraded evidence alone: the path that it leaves carries traffic, and another would carry it better
    degraded: bool = False
    # etcd has no quorum, and the path that it leaves is impaired
    quorumless: bool = False

    @property
    def moves(self) -> bool:
        return self.kind not in ("hold", "recommend")


class Situation(Struct, frozen=True, kw_only=True):
    """What the other detectors say, and the pauses: `paused(node)` is the pause's reason or "".

    `busy`: the plan under way that is not urgent, in words, or ""; `planned`: the pairs that wait in its later stages.
    `heard(node)`: whether the node has answered the newest that it was told; what it did alone before is no news.
    `wall`: wall-clock epoch seconds, for maintenance windows alone; None: not known, and then no window covers
    anything.
    """

    controller: Verdict
    quorum: Verdict
    quorum_lost_since: float | None
    members: frozenset[str]
    links: Mapping[tuple[Pair, str], Verdict]
    paused: Callable[[str], str]
    busy: str = ""
    planned: frozenset[Pair] = frozenset()
    heard: Callable[[str], bool] = lambda _: True
    wall: float | None = None
