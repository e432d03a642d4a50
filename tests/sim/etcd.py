"""The cluster's etcd: who has a quorum behind it, by what the kernels' routes and the wires carry; no log and no data.

Two members hear each other when packets pass both ways, by the way that each one's kernel gives at that moment, and in
time for etcd's timers. A leader that does not hear a majority for an election timeout is none, and whoever hears one is
elected. Time passes when somebody asks, and agents ask every two seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from sim.engine import Engine
from sim.network import Network
from vagus_protocol.messages import Etcd, EtcdMember

_ELECTION_S: Final = 1.0
# Of echoes: beyond these a leader's heartbeats come too late.
_LOSS: Final = 0.2
_ROUND_TRIP_S: Final = 0.4


class Cluster:
    """`route(a, b)`: the path that a's kernel gives to b, or "". Without members there is none."""

    def __init__(
        self,
        engine: Engine,
        network: Network,
        members: tuple[str, ...],
        route: Callable[[str, str], str],
        rng: random.Random,
    ) -> None:
        self.members = members
        self.stopped: set[str] = set()
        self.leader = ""
        self._term = 0
        self._doubted_since: float | None = None
        # since when nobody leads
        self.lost_since: float | None = None
        self._engine, self._network, self._route, self._rng = engine, network, route, rng
        self._list = tuple(EtcdMember(id=f"{name}-id", name=name) for name in members)

    def facts(self, node: str) -> Etcd | None:
        """What the node's member answers; None without one."""
        if node not in self.members:
            return None
        self._pass_time()
        if node in self.stopped:
            return Etcd(answering=False, reason="connection refused")
        if self.leader and (node == self.leader or self._hear(node, self.leader)):
            return Etcd(
                answering=True,
                member_id=f"{node}-id",
                leader_id=f"{self.leader}-id",
                term=self._term,
                members=self._list,
                read_s=0.002,
            )
        return Etcd(
            answering=True,
            member_id=f"{node}-id",
            term=self._term,
            members=self._list,
            read_error="context deadline exceeded",
        )

    @property
    def has_quorum(self) -> bool:
        return bool(self.leader) and self._leads(self.leader)

    @property
    def churned(self) -> bool:
        """Whether leaders changed so often that somebody may still say so."""
        return self._term > 3

    def _pass_time(self) -> None:
        now = self._engine.now
        if self.leader and self._leads(self.leader):
            self._doubted_since = None
            return
        if self._doubted_since is None:
            self._doubted_since = now
        if now - self._doubted_since < _ELECTION_S:
            return
        able = [name for name in self.members if self._leads(name)]
        self.leader = self._rng.choice(able) if able else ""
        if able:
            self._term += 1
            self._doubted_since = self.lost_since = None
        elif self.lost_since is None:
            self.lost_since = now

    def _leads(self, name: str) -> bool:
        """Whether the member hears a majority, itself included."""
        if name in self.stopped:
            return False
        heard = sum(other == name or self._hear(name, other) for other in self.members)
        return heard > len(self.members) // 2

    def _hear(self, a: str, b: str) -> bool:
        if a in self.stopped or b in self.stopped:
            return False
        there, back = self._route(a, b), self._route(b, a)
        network = self._network
        if not (there and back and network.carries(a, b, there) and network.carries(b, a, back)):
            return False
        out, home = network.wires[a, b, there], network.wires[b, a, back]
        return (1 - out.loss) * (1 - home.loss) >= 1 - _LOSS and out.delay + home.delay <= _ROUND_TRIP_S
