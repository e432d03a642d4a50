"""What each node's links say, by one of two models.

`CoarseLinks` draws the moment at which a link changes its state from the bounds that the prober keeps, in place of
twenty packets a second for each link. `ProbedLinks` runs the real prober of every node over the simulated wires.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from sim import settings
from sim.engine import Engine, Process
from sim.network import Network
from vagus_agent.config import Config
from vagus_agent.core.link import DEGRADED, DOWN, SUSPECT, UNKNOWN, UP, Change, Link
from vagus_agent.core.prober import Gap, Prober, Proof, Send
from vagus_protocol.messages import LinkState

Key = tuple[str, str, str]  # node, peer, path


class Owner(Protocol):
    """The node's agent."""

    @property
    def process(self) -> Process: ...

    @property
    def config(self) -> Config: ...

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Links changed; none: only what a peer thinks of one did."""

    def on_proof(self, proof: Proof) -> None: ...

    def on_gap(self, gap: Gap) -> None: ...

    def paths(self) -> Mapping[str, str]:
        """peer → the path that the kernel's own route gives now, "" for none."""


# At and above this loss of an echo no burst gets through.
_DEAD_LOSS = 0.9
# Below this, a link is up; above, degraded; above `_FLAPS`, it also goes down now and then.
_LOSSY = 0.04
_FLAPS = 0.35
# As the prober measures a gap.
_MEASURE_S = 3.6
# As the prober verifies: so many probes, in the first half of this time.
_VERIFY_PROBES = 5
_VERIFY_S = 1.0


class Links(Protocol):
    def begin(self, owner: Owner) -> Mapping[str, Sequence[Link]]:
        """The node's agent starts: peer → its links, in rung order."""

    def end(self, node: str) -> None: ...

    def touch(self, node: str) -> None:
        """The node's agent froze, thawed, started or ended: its peers will notice."""

    def refresh(self, node: str) -> None:
        """Bring `last_reply` up to date: before the agent looks at its links."""

    def verify(self, node: str, peer: str, path: str) -> None:
        """Prove that the node's packets to `peer` go by `path` and come back: one proof will be told."""

    def measure(self, node: str, peer: str, path: str) -> None:
        """Measure what traffic sees of a move that begins now: one gap will be told, unless another measurement of the
        same peer replaces it."""


class _CoarseLink(Link):
    """With the figures of this moment, where a real one has those of a minute."""

    lost = 0.0

    def loss(self, now: float, window: int) -> float | None:
        return self.lost if self.rtt is not None else None


class CoarseLinks:
    def __init__(self, engine: Engine, network: Network, rng: random.Random) -> None:
        self._engine, self._network, self._rng = engine, network, rng
        self._processes: dict[str, Process] = {}
        self._links: dict[Key, _CoarseLink] = {}
        # node → its own
        self._links_of: dict[str, list[tuple[Key, _CoarseLink]]] = {}
        self._owners: dict[str, Owner] = {}
        # (node, peer) → the number of the verification under way, and what went wrong in it so far
        self._verifying: dict[tuple[str, str], tuple[int, str]] = {}
        self._verifications = 0
        # (node, peer) → the number of the measurement under way
        self._measuring: dict[tuple[str, str], int] = {}
        # where each link is going, and the number of that intention: a newer one cancels it
        self._target: dict[Key, LinkState] = {}
        self._turn: dict[Key, int] = {}
        self._alive: dict[Key, bool] = {}
        network.watchers.append(self._wire_changed)

    def begin(self, owner: Owner) -> Mapping[str, Sequence[Link]]:
        process, config = owner.process, owner.config
        node = process.name
        self._processes[node] = process
        self._owners[node] = owner
        found: dict[str, list[Link]] = {}
        mine = self._links_of[node] = []
        for peer in config.peers:
            for path in config.paths_to(peer):
                key = (node, peer.name, path.name)
                link = _CoarseLink(peer.name, path.name, path.idle_interval_s, config.probe, process.now, [])
                self._links[key] = link
                mine.append((key, link))
                self._target[key] = UNKNOWN
                self._turn[key] = self._turn.get(key, 0) + 1
                self._alive[key] = False
                found.setdefault(peer.name, []).append(link)
        self.touch(node)
        return found

    def end(self, node: str) -> None:
        self._owners.pop(node, None)
        for key in [key for key in self._links if key[0] == node]:
            del self._links[key]
        self.touch(node)

    def touch(self, node: str) -> None:
        for other in self._network.nodes:
            if other != node:
                for path in self._network.paths:
                    self._wire_changed(node, other, path)

    def refresh(self, node: str) -> None:
        now = self._processes[node].now
        for key, link in self._links_of[node]:
            if self._alive[key] and link.state in (UP, DEGRADED):
                link.last_reply = now - 0.4 * link.idle_interval
                there, back = self._network.wires[key], self._network.wires[key[1], key[0], key[2]]
                link.rtt, link.lost = there.delay + back.delay, self._network.loss(*key)

    def answers(self, node: str, peer: str, path: str) -> bool:
        """Whether a probe of `node` to `peer` over `path` comes back."""
        there = self._processes.get(peer)
        knows = (peer, node, path) in self._links
        return knows and there is not None and there.awake and self._network.both_ways(node, peer, path)

    def _wire_changed(self, a: str, b: str, path: str) -> None:
        self._judge((a, b, path))
        self._judge((b, a, path))

    def _judge(self, key: Key) -> None:
        """Where the link goes from here, and when."""
        link = self._links.get(key)
        if link is None:
            return
        node, peer, path = key
        process = self._processes[node]
        loss = self._network.loss(node, peer, path)
        alive = self.answers(node, peer, path) and loss < _DEAD_LOSS
        if self._alive[key] and not alive:
            link.last_reply = process.now
        self._alive[key] = alive
        roll = self._rng.uniform
        idle = link.idle_interval
        if not alive:
            target = DOWN
            wait = roll(0.02, 0.14 + 0.65 * idle) if link.state is not UNKNOWN else roll(1.0, 1.5)
        else:
            target = UP if loss < _LOSSY else DEGRADED
            if link.state is DOWN:
                wait = roll(0.8, 1.05 + idle)
            elif link.state is UNKNOWN:
                wait = roll(0.2, 0.25 + min(idle, 1.0))
            elif link.state is SUSPECT:
                wait = roll(0.01, 0.1)
            else:
                wait = roll(3.0, 8.0) if target is not link.state else 0.0
        if target is self._target[key] and loss < _FLAPS:
            return
        self._target[key] = target
        self._turn[key] += 1
        process.after(wait, self._step, key, self._turn[key])

    def _step(self, key: Key, turn: int) -> None:
        link = self._links.get(key)
        if link is None or turn != self._turn[key]:
            return
        target = self._target[key]
        loss = self._network.loss(*key)
        roll = self._rng.uniform
        process = self._processes[key[0]]
        if target is DOWN and link.state in (UP, DEGRADED):
            # Time passed for us only: the first thing that we do is look again.
            self._set(key, SUSPECT, "no reply within 20 ms")
            process.after(roll(0.08, 0.25), self._step, key, turn)
        elif target is DOWN:
            self._set(key, DOWN, "5 of 5 burst probes lost")
        elif link.state in (DOWN, UNKNOWN):
            link.last_reply = process.now
            self._set(key, UP, "5 replies in a row")
            if target is not UP:
                process.after(roll(3.0, 8.0), self._step, key, turn)
        elif link.state is SUSPECT:
            self._set(key, link._before, "answered in 10 ms")
            if target is not link.state:
                process.after(roll(3.0, 8.0), self._step, key, turn)
        else:
            self._set(key, target, f"{loss:.0%} of the last minute's probes lost")
        if self._alive[key] and loss >= _FLAPS:
            self._target[key] = target = DOWN if link.state is not DOWN else DEGRADED
            process.after(roll(0.5, 4.0), self._step, key, turn)

    def _set(self, key: Key, state: LinkState, reason: str) -> None:
        link = self._links[key]
        if link.state is state:
            return
        node, peer, _ = key
        process = self._processes[node]
        if state is SUSPECT:
            link._before, link._before_reason = link.state, link.reason
        change = Change(link, link.state, state, reason, process.now)
        link.state, link.since, link.reason = state, process.now, reason
        self._engine.after(self._rng.uniform(0.005, 0.15), self._learn, peer, node)
        if state in (UP, DEGRADED):
            self._learn(node, peer)
        self._owners[node].on_changes([change])

    def _learn(self, node: str, peer: str) -> None:
        """`node` hears from `peer` what that one thinks of their links, over any path."""
        there, here = self._processes.get(peer), self._processes.get(node)
        if there is None or here is None or not there.awake or not here.awake:
            return
        if not any(self._network.carries(peer, node, path) for path in self._network.paths):
            return
        changed = False
        for path in self._network.paths:
            mine, theirs = self._links.get((node, peer, path)), self._links.get((peer, node, path))
            if mine is not None and theirs is not None:
                changed = changed or mine.peer_state is not theirs.told
                mine.peer_state = theirs.told
        if changed:
            self._owners[node].on_changes([])

    # --- verification ----------------------------------------------------------------------------------------------

    def verify(self, node: str, peer: str, path: str) -> None:
        self._verifications += 1
        number = self._verifications
        self._verifying[node, peer] = (number, "")
        process = self._processes[node]
        for probe in range(_VERIFY_PROBES):
            process.after(probe * _VERIFY_S / 2 / _VERIFY_PROBES, self._probe, node, peer, path, number)
        process.after(_VERIFY_S, self._missed, node, peer, path, number)

    def _probe(self, node: str, peer: str, path: str, number: int) -> None:
        if self._verifying.get((node, peer), (0, ""))[0] != number:
            return
        route = self._owners[node].paths()[peer]
        if not route:
            self._verifying[node, peer] = (number, "no route to the peer")
            return
        there = self._processes.get(peer)
        passes = self._network.passes(node, peer, route) and self._network.passes(peer, node, route)
        if passes and there is not None and there.awake:
            rtt = self._network.delay(node, peer, route) + self._network.delay(peer, node, route)
            self._processes[node].after(rtt, self._echoed, node, peer, path, number, route)

    def _echoed(self, node: str, peer: str, path: str, number: int, route: str) -> None:
        if self._verifying.get((node, peer), (0, ""))[0] != number:
            return
        if route != path:
            self._verifying[node, peer] = (number, f"packets by the kernel's own route went by {route}, not by {path}")
            return
        self._conclude(node, peer, path, True, "packets by the kernel's own route came back")

    def _missed(self, node: str, peer: str, path: str, number: int) -> None:
        known, trouble = self._verifying.get((node, peer), (0, ""))
        if known == number:
            self._conclude(node, peer, path, False, trouble or f"none of {_VERIFY_PROBES} packets came back on {path}")

    def _conclude(self, node: str, peer: str, path: str, ok: bool, reason: str) -> None:
        del self._verifying[node, peer]
        self._owners[node].on_proof(Proof(peer, path, ok, reason))

    def measure(self, node: str, peer: str, path: str) -> None:
        number = self._measuring[node, peer] = self._measuring.get((node, peer), 0) + 1
        self._processes[node].after(_MEASURE_S, self._measured, node, peer, path, number)

    def _measured(self, node: str, peer: str, path: str, number: int) -> None:
        if self._measuring[node, peer] == number:
            self._owners[node].on_gap(Gap(peer, path, self._rng.choice((0.0, 0.02, 0.2))))


class ProbedLinks:
    def __init__(self, engine: Engine, network: Network, rng: random.Random) -> None:
        self._engine, self._network, self._rng = engine, network, rng
        self._owners: dict[str, Owner] = {}
        self._probers: dict[str, Prober] = {}
        # node → datagrams that its kernel has received: when, from whom, on which path
        self._inbox: dict[str, list[tuple[float, str, str, bytes]]] = {}
        self._turn_at: dict[str, float] = {}
        # when the newest packet on each wire arrives
        self._arrives_at: dict[Key, float] = {}

    def begin(self, owner: Owner) -> Mapping[str, Sequence[Link]]:
        process = owner.process
        boot = self._rng.getrandbits(64)
        prober = Prober(owner.config, settings.PROBE_KEY, boot, process.now, self._rng.random())
        node = process.name
        self._owners[node], self._probers[node], self._inbox[node] = owner, prober, []
        self._turn_at[node] = math.inf
        process.after(0.0, self._turn, node)
        found: dict[str, list[Link]] = {}
        for link in prober.links:
            found.setdefault(link.peer, []).append(link)
        return found

    def end(self, node: str) -> None:
        self._owners.pop(node, None)
        self._probers.pop(node, None)
        self._inbox.pop(node, None)

    def touch(self, node: str) -> None:
        """Its peers notice by themselves."""

    def refresh(self, node: str) -> None:
        """The prober keeps everything up to date."""

    def verify(self, node: str, peer: str, path: str) -> None:
        self._probers[node].verify(peer, path, self._owners[node].process.now)
        self._wake(node)

    def measure(self, node: str, peer: str, path: str) -> None:
        self._probers[node].measure(peer, path, self._owners[node].process.now)
        self._wake(node)

    def _wake(self, node: str) -> None:
        """Have a turn when the prober asks for one."""
        process = self._owners[node].process
        due = self._probers[node].deadline - process.clock_offset
        if due < self._turn_at[node]:
            self._turn_at[node] = due
            process.after(max(due - self._engine.now, 0.0), self._timer, node, due)

    def _timer(self, node: str, due: float) -> None:
        # Another one was set for an earlier moment, and this one is forgotten.
        if self._turn_at[node] == due:
            self._turn_at[node] = math.inf
            self._turn(node)

    def _turn(self, node: str) -> None:
        """As the agent does it: read everything that is there, then look at the clock."""
        prober, owner = self._probers[node], self._owners[node]
        process = owner.process
        inbox, self._inbox[node] = self._inbox[node], []
        for at, sender, path, data in inbox:
            held = self._engine.now - at
            self._send(node, prober.received(data, sender, path, process.now - held, process.now, held))
        self._send(node, prober.poll(process.now))
        changes, proofs, peer_changed = list(prober.changes), list(prober.proofs), prober.peer_changed
        gaps = list(prober.gaps)
        prober.changes.clear()
        prober.proofs.clear()
        prober.gaps.clear()
        prober.peer_changed = False
        if changes or peer_changed:
            owner.on_changes(changes)
        for proof in proofs:
            owner.on_proof(proof)
        for gap in gaps:
            owner.on_gap(gap)
        if node in self._probers:
            self._wake(node)

    def _send(self, node: str, sends: Sequence[Send]) -> None:
        process, network = self._owners[node].process, self._network
        for send in sends:
            path = send.path if send.pinned else self._owners[node].paths()[send.peer]
            if not path or not network.interfaces[node, path]:
                why = f"there is no way out by {path or 'any path'}"
                if send.pinned:
                    self._send(node, self._probers[node].refused(send.peer, path, why, process.now))
                else:
                    self._probers[node].unroutable(send.peer, why)
            elif network.passes(node, send.peer, path):
                wire = (node, send.peer, path)
                copies = 2 if self._rng.random() < network.wires[wire].duplicate else 1
                for _ in range(copies):
                    at = self._engine.now + network.delay(*wire)
                    if not network.wires[wire].reorder:
                        # What was sent together is not overtaken by chance.
                        at = self._arrives_at[wire] = max(at, self._arrives_at.get(wire, 0.0))
                    self._engine.at(at, self._arrive, send.peer, node, path, send.data)

    def _arrive(self, node: str, sender: str, path: str, data: bytes) -> None:
        if node not in self._inbox or not self._network.interfaces[node, path]:
            return
        self._inbox[node].append((self._engine.now, sender, path, data))
        if len(self._inbox[node]) == 1:
            self._owners[node].process.at_once(self._turn, node)
