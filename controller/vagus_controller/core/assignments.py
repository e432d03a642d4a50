"""What each node was told last, sealed, when it must be told again, and what its answer makes of that."""

from __future__ import annotations

from typing import NamedTuple

from vagus_controller.core.failover import Failover
from vagus_controller.core.fleet import Fleet
from vagus_protocol.messages import Assignment, Desired, Observed, Origin
from vagus_protocol.signing import node_key, seal

Term = tuple[int, int]


class Told(NamedTuple):
    """A node's newest desired: its payload, peer → what it is told, without the reason; and its (epoch, generation)."""

    payload: bytes
    words: dict[str, tuple[str, Origin, bool]]
    term: Term


class Assignments:
    def __init__(self, fleet_name: str, controller: str, fleet_key: bytes, session: str = "") -> None:
        self._fleet_name = fleet_name
        self._controller = controller
        self._session = session
        self._fleet_key = fleet_key
        self._keys: dict[str, bytes] = {}
        self._generation = 0
        self.told: dict[str, Told] = {}

    def begin_epoch(self) -> None:
        """Everybody must be told under the new epoch."""
        self._generation = 0
        self.told.clear()

    def renew(
        self, node: str, fleet: Fleet, failover: Failover, epoch: int, orders: int = 0, *, anew: bool = False
    ) -> tuple[Told, bool] | None:
        """The node's desired by the intents of its pairs, and whether it is news; None for a node without peers.
        `orders`: the generation of the standing orders; `anew`: it is news in any case."""
        state = fleet.nodes.get(node)
        if state is None or state.presence is None or not state.presence.peers:
            return None
        assignments = {}
        for peer in state.presence.peers:
            if not peer.paths:
                # Nothing that could be assigned. No agent of ours says so, but nobody stumbles over one that does.
                continue
            intent = failover.intent(fleet, (min(node, peer.name), max(node, peer.name)))
            path = intent.path if intent.path in peer.paths else peer.paths[0]
            trial = intent.trial_from != "" and path == intent.path
            drill = trial and intent.drill
            assignments[peer.name] = Assignment(
                path=path, reason=intent.reason, origin=intent.origin, trial=trial, drill=drill
            )
        words = {peer: (word.path, word.origin, word.trial) for peer, word in assignments.items()}
        known = self.told.get(node)
        if known is not None and known.words == words and not anew:
            return known, False
        self._generation += 1
        desired = Desired(
            v=1,
            fleet=self._fleet_name,
            node=node,
            controller=self._controller,
            session=self._session,
            epoch=epoch,
            generation=self._generation,
            assignments=assignments,
            orders=orders,
        )
        told = self.told[node] = Told(seal(desired, self.key(node)), words, (epoch, self._generation))
        return told, True

    def answered(self, observed: Observed) -> bool:
        """Whether the node has taken or refused the newest that it was told."""
        told = self.told.get(observed.node)
        taken, refused = (observed.epoch, observed.generation), (observed.refused_epoch, observed.refused_generation)
        return told is None or taken >= told.term or refused == told.term

    def contested(self, observed: Observed, epoch: int) -> bool:
        """Whether the node follows another under our `epoch`: nothing that we say under it would be taken.

        It may have been given twice when neither we nor the broker remembered it, or while we were cut off.
        """
        told = self.told.get(observed.node)
        if told is None or not observed.epoch == told.term[0] == epoch:
            return False
        refused = (observed.refused_epoch, observed.refused_generation)
        return observed.generation > told.term[1] or refused == told.term

    def key(self, node: str) -> bytes:
        key = self._keys.get(node)
        if key is None:
            key = self._keys[node] = node_key(self._fleet_key, node)
        return key
