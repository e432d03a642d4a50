"""Everything that can be done to the fleet; a schedule names these methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim import settings
from vagus_agent.core.ladder import Route, Rule
from vagus_protocol import topics
from vagus_protocol.messages import Assignment, Desired, Relay
from vagus_protocol.signing import seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.broker import Broker
    from sim.chief import Chief
    from sim.engine import Engine
    from sim.etcd import Cluster
    from sim.member import Member
    from sim.network import Network


class Faults:
    engine: Engine
    network: Network
    broker: Broker
    etcd: Cluster
    members: dict[str, Member]
    chiefs: dict[str, Chief]
    trace: Callable[[str, str], None]

    def __init__(self) -> None:
        self._forged = 1000
        self._ambushes: list[tuple[float, str, tuple[object, ...]]] = []

    # --- in the middle of a move -------------------------------------------------------------------------

    def ambush(self, delay: float, kind: str, *args: object) -> None:
        """So long after the next trial is told, this happens."""
        self._ambushes.append((delay, kind, args))

    # --- wires -------------------------------------------------------------------------------------------

    def _both(self, a: str, b: str, path: str, **what: object) -> None:
        self.network.change((a, b, path), **what)
        self.network.change((b, a, path), **what)

    def cut(self, a: str, b: str, path: str) -> None:
        self._both(a, b, path, cut=True)

    def cut_one_way(self, a: str, b: str, path: str) -> None:
        self.network.change((a, b, path), cut=True)

    def mend(self, a: str, b: str, path: str) -> None:
        self._both(a, b, path, cut=False)

    def cut_everywhere(self, path: str) -> None:
        for wire in self.network.wires:
            if wire[2] == path:
                self.network.change(wire, cut=True)

    def mend_everywhere(self, path: str) -> None:
        for wire in self.network.wires:
            if wire[2] == path:
                self.network.change(wire, cut=False)

    def isolate(self, node: str) -> None:
        for wire in self.network.wires:
            if node in wire[:2]:
                self.network.change(wire, cut=True)
        self.broker.set_cut(node, True)

    def rejoin(self, node: str) -> None:
        for wire in self.network.wires:
            if node in wire[:2]:
                self.network.change(wire, cut=False)
        self.broker.set_cut(node, False)

    def split(self, *group: str) -> None:
        """Nothing passes between these nodes and the others; the broker is with the others."""
        for wire in self.network.wires:
            if (wire[0] in group) != (wire[1] in group):
                self.network.change(wire, cut=True)
        self.cut_broker(*group)

    def unite(self, *group: str) -> None:
        for wire in self.network.wires:
            if (wire[0] in group) != (wire[1] in group):
                self.network.change(wire, cut=False)
        self.mend_broker(*group)

    def lose(self, a: str, b: str, path: str, loss: float) -> None:
        self.network.change((a, b, path), loss=loss)

    def slow(self, a: str, b: str, path: str, delay: float) -> None:
        self._both(a, b, path, delay=delay)

    def relayed(self, a: str, b: str, there_is: bool) -> None:
        """The overlay has no direct way between two nodes any more, or has one again."""
        self._both(a, b, "overlay", relayed=there_is, delay=0.3 if there_is else 0.005)
        for node, peer in ((a, b), (b, a)):
            self.members[node].relays[peer, "overlay"] = Relay.DERP if there_is else Relay.DIRECT

    def disorder(self, a: str, b: str, path: str, share: float) -> None:
        self._both(a, b, path, reorder=share, duplicate=share)

    def interface_gone(self, node: str, path: str) -> None:
        self._interface(node, path, False)

    def interface_back(self, node: str, path: str) -> None:
        self._interface(node, path, True)

    def _interface(self, node: str, path: str, there: bool) -> None:
        if self.network.interfaces[node, path] == there:
            return
        member = self.members[node]
        member.kernel.set_interface(path, there)
        self.network.set_interface(node, path, there)
        member.kernel_event()

    # --- the broker --------------------------------------------------------------------------------------

    def cut_broker(self, *who: str) -> None:
        for name in who:
            self.broker.set_cut(name, True)

    def mend_broker(self, *who: str) -> None:
        for name in who:
            self.broker.set_cut(name, False)

    def slow_broker(self, who: str, delay: float) -> None:
        self.broker.delay[who] = delay

    def broker_repeats(self, share: float) -> None:
        self.broker.duplicate = share

    def broker_stops(self) -> None:
        if self.broker.up:
            self.broker.stop()

    def broker_starts(self, retained: str) -> None:
        if not self.broker.up:
            self.broker.start(retained)

    def replay(self, leaf: str, which: float) -> None:
        """Somebody publishes an old message again, retained; one of that leaf, if there is any."""
        history = [message for message in self.broker.history if message[0].endswith(leaf)]
        if history:
            topic, payload = history[int(which * len(history))]
            where = topics.parse(topic)
            speaker = self.chiefs.get(where.controller) if isinstance(where, topics.ControllerTopic) else None
            if speaker is not None and not speaker.hears:
                # Whom the broker lets speak for a controller is believed, until that one contradicts: it cannot now.
                return
            self.trace("fault", f"replays on {topic}")
            self.broker.inject(topic, payload)

    def forge(self, node: str) -> None:
        """A desired that is signed for another node, and one that nobody signed; both newer than all others."""
        other = next(name for name in self.members if name != node)
        for addressee, key in ((other, settings.key(other)), (node, b"?" * 32)):
            peers = self.members[node].config.peers
            desired = Desired(
                v=1,
                fleet=settings.FLEET,
                node=addressee,
                controller="mallory",
                epoch=self._forged,
                generation=1,
                assignments={peer.name: Assignment(path="backup") for peer in peers},
            )
            self._forged += 1
            self.broker.inject(topics.node(settings.FLEET, node, "desired"), seal(desired, key))

    # --- agents ------------------------------------------------------------------------------------------

    def agent_crashes(self, node: str, reboot: bool) -> None:
        self.members[node].crash(reboot)

    def agent_starts(self, node: str, disk: str) -> None:
        self.members[node].start(disk)

    def agent_dies_writing(self, node: str, writes: int) -> None:
        """After so many more writes to its kernel."""
        if self.members[node].process.running:
            self.members[node].write_fuse.left = writes

    def agent_dies_speaking(self, node: str, words: int) -> None:
        """After so many more things that it says or keeps."""
        if self.members[node].process.running:
            self.members[node].word_fuse.left = words

    def agent_freezes(self, node: str) -> None:
        self.members[node].freeze()

    def agent_thaws(self, node: str) -> None:
        self.members[node].thaw()

    def drift(self, node: str, what: str) -> None:
        """Somebody else's hand in the kernel."""
        member = self.members[node]
        kernel, steering = member.kernel, member.config.steering
        if what == "table":
            kernel.flush_table()
        elif what == "rule":
            kernel.delete_rules_at(steering.priority)
        else:
            kernel.put_route(Route(4, "10.99.0.77/32", 10, device="wg0"), steering.protocol)
            kernel.put_rule(Rule(4, steering.priority + 1, steering.table, protocol=steering.protocol))
        member.kernel_event()

    def kernel_refuses(self, node: str, refuses: bool) -> None:
        member = self.members[node]
        if member.kernel.refuses != refuses:
            member.kernel.refuses = refuses
            member.able_since = self.engine.now
            if not refuses:
                # What a recheck every 30 s would find.
                member.kernel_event()

    def kernel_slow(self, node: str, seconds: float) -> None:
        self.members[node].steering_s = seconds

    def service_deaf(self, node: str, peer: str, path: str) -> None:
        self.members[node].deaf_services.add((peer, path))

    def service_well(self, node: str, peer: str, path: str) -> None:
        self.members[node].deaf_services.discard((peer, path))

    def etcd_stops(self, node: str) -> None:
        self.etcd.stopped.add(node)

    def etcd_starts(self, node: str) -> None:
        self.etcd.stopped.discard(node)

    # --- controllers and persons -------------------------------------------------------------------------

    def controller_crashes(self, name: str) -> None:
        self.chiefs[name].crash()

    def leader_crashes(self) -> None:
        for chief in self.chiefs.values():
            if chief.leads:
                chief.crash()

    def controller_dies_speaking(self, name: str, words: int) -> None:
        """After so many more things that it says or keeps: perhaps between telling one end and the other."""
        if self.chiefs[name].process.running:
            self.chiefs[name].word_fuse.left = words

    def controller_starts(self, name: str, disk: str) -> None:
        self.chiefs[name].start(disk)

    def controller_freezes(self, name: str) -> None:
        self.chiefs[name].freeze()

    def controller_thaws(self, name: str) -> None:
        self.chiefs[name].process.thaw()

    def clock(self, moment: str | float, *names: str) -> None:
        """The wall clock of controllers jumps, to a moment or by so many seconds."""
        for name in names:
            self.chiefs[name].set_clock(moment)

    def command(self, what: str, *args: str) -> None:
        """A person asks the controller that leads, or says so."""
        for chief in self.chiefs.values():
            if chief.leads:
                chief.command(what, *args)
