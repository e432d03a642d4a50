"""The fleet put together, and everything that can be done to it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable

from sim import settings
from sim.broker import Broker
from sim.chief import Chief
from sim.engine import Engine
from sim.invariants import Invariants, Violation
from sim.links import CoarseLinks, Links, ProbedLinks
from sim.member import Member
from sim.network import Network
from sim.schedule import Fault, Schedule
from vagus_agent.core.ladder import Route, Rule
from vagus_protocol import topics
from vagus_protocol.messages import Assignment, Desired
from vagus_protocol.signing import seal

# How long after the last fault everything must be well; see docs/architecture.md for the sum.
BOUND_S = 30.0
# When all is well, so much longer.
_STABLE_S = 3.0
_IMAGE_EVERY_S = 4.0
_STEERING_S = 0.002
# When the last controller goes, where one is to go in the middle of a move and none comes.
_ABANDONED_S = 15.0


class World:
    def __init__(self, schedule: Schedule, tell: Callable[[float, str, str], None] | None = None) -> None:
        """`tell(at, who, text)` gets the trace."""
        self.schedule = schedule
        self.engine = Engine()
        self.tell = tell
        rng = random.Random(schedule.seed ^ 0x5EED)
        self.network = Network(schedule.nodes, settings.PATHS, rng)
        self.broker = Broker(self.engine, rng, self.trace)
        links: Links = (ProbedLinks if schedule.probed else CoarseLinks)(self.engine, self.network, rng)
        self.rng = rng
        self.invariants = Invariants(self)
        self.members = {
            node: Member(
                self.engine,
                self.broker,
                links,
                settings.agent_config(node, schedule.nodes, schedule.reflex),
                rng,
                self.invariants,
                self.trace,
            )
            for node in schedule.nodes
        }
        self.chiefs = {
            name: Chief(self.engine, self.broker, name, rng, self.invariants, self.trace)
            for name in schedule.controllers
        }
        self.broker.witness = self.invariants.published
        self.last_fault_at = 0.0
        self._well_since: float | None = None
        self._forged = 1000
        self._ambushes: list[tuple[float, str, tuple[object, ...]]] = []

    def trace(self, who: str, text: str) -> None:
        if self.tell is not None:
            self.tell(self.engine.now, who, text)

    def run(self) -> Violation | None:
        """The first violation, or None when the schedule ended well."""
        for member in self.members.values():
            self.engine.after(self.rng.uniform(0.0, 0.5), member.start)
        for chief in self.chiefs.values():
            self.engine.after(self.rng.uniform(0.0, 0.5), chief.start)
        for fault in self.schedule.faults:
            self.engine.at(fault.at, self._do, fault)
        self.engine.at(self.schedule.last_fault_at + 0.1, self._rest)
        self.engine.after(_IMAGE_EVERY_S, self._take_images)
        self.engine.after(1.0, self._look)
        self.engine.after_each = self.invariants.check
        try:
            more = _ABANDONED_S if self.schedule.rest == "left on trial" else 0.0
            self.engine.run(self.schedule.last_fault_at + 0.1 + more + BOUND_S, self._over)
            self.invariants.at_the_end()
        except Violation as violation:
            return violation
        except Exception as error:
            at = traceback.format_exc(limit=-6)
            return Violation("no-exception", self.engine.now, f"{type(error).__name__}: {error}\n{at}")
        return None

    def _do(self, fault: Fault) -> None:
        if self.engine.now > self.schedule.last_fault_at + 0.1 and fault.kind != "_abandon":
            return
        self.trace("fault", str(fault))
        self.last_fault_at = self.engine.now
        self.invariants.fault()
        getattr(self, fault.kind)(*fault.args)

    def _take_images(self) -> None:
        """What a restore from a backup would bring."""
        self.broker.take_image()
        for member in self.members.values():
            member.image = member.disk
        for chief in self.chiefs.values():
            chief.image = chief.disk
        self.engine.after(_IMAGE_EVERY_S, self._take_images)

    # --- the end -------------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """Mend everything, but for what the schedule leaves broken."""
        self.trace("fault", f"the last: {self.schedule.rest}")
        self.last_fault_at = self.engine.now
        self.invariants.fault()
        for wire, condition in self.network.wires.items():
            self.network.change(wire, cut=False, loss=0.0, delay=min(condition.delay, 0.02), reorder=0.0)
        for node in self.schedule.nodes:
            for path in settings.PATHS:
                self.interface_back(node, path)
            self.kernel_refuses(node, False)
            self.kernel_slow(node, _STEERING_S)
            self.members[node].deaf_services.clear()
            self.members[node].write_fuse.left = self.members[node].word_fuse.left = None
        self._ambushes.clear()
        self.broker_repeats(0.0)
        self.mend_broker(*self.schedule.nodes, *self.schedule.controllers)
        self.broker.delay.clear()
        self.broker_starts("kept")
        for member in self.members.values():
            member.thaw()
            member.start()
        for chief in self.chiefs.values():
            chief.word_fuse.left = None
            chief.process.thaw()
            chief.start()
        rest = self.schedule.rest
        if rest in ("overlay dead", "nobody leads"):
            self.cut_everywhere("overlay")
        elif rest == "backup dead":
            self.cut_everywhere("backup")
        if rest == "nobody leads":
            self._abandon()
        elif rest == "leader and broker die":
            self.cut_everywhere("overlay")
            self.broker_stops()
            for chief in self.chiefs.values():
                if chief.leads or len(self.chiefs) == 1:
                    chief.crash()
            self.engine.after(0.5, self.broker_starts, "kept")
        elif rest == "left on trial":
            # Whatever moves next, nobody will confirm it. A person sees to it that something does.
            self.ambush(self.rng.choice((0.0, 0.005, 0.02, 0.1)), "_abandon")
            for wait in (0.1, 4.0, 8.0, 12.0):
                path = self.rng.choice(settings.PATHS)
                self.engine.after(wait, self.command, "switchover", "a--b", path, "force")
            self.engine.after(_ABANDONED_S, self._abandon)

    @property
    def abandoned(self) -> bool:
        return not any(chief.process.running for chief in self.chiefs.values())

    def _abandon(self) -> None:
        """No controller any more."""
        if not self.abandoned:
            self.last_fault_at = self.engine.now
        for chief in self.chiefs.values():
            chief.crash()

    def _look(self) -> None:
        """Now and then, also when nothing happens: whether all is well already."""
        self.invariants.check()
        quiet = self.engine.now > self.schedule.last_fault_at + 0.2
        if not (quiet and (self.schedule.rest != "left on trial" or self.abandoned) and self.invariants.all_well()):
            self._well_since = None
        elif self._well_since is None:
            self._well_since = self.engine.now
        self.engine.after(0.5, self._look)

    def _over(self) -> bool:
        return self._well_since is not None and self.engine.now - self._well_since >= _STABLE_S

    # --- faults: in the middle of a move -------------------------------------------------------------------------

    def ambush(self, delay: float, kind: str, *args: object) -> None:
        """So long after the next trial is told, this happens."""
        self._ambushes.append((delay, kind, args))

    def trial_told(self) -> None:
        ambushes, self._ambushes = self._ambushes, []
        for delay, kind, args in ambushes:
            self.engine.after(delay, self._do, Fault(self.engine.now + delay, kind, args))

    # --- faults: wires -------------------------------------------------------------------------------------------

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

    def lose(self, a: str, b: str, path: str, loss: float) -> None:
        self.network.change((a, b, path), loss=loss)

    def slow(self, a: str, b: str, path: str, delay: float) -> None:
        self._both(a, b, path, delay=delay)

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

    # --- faults: the broker --------------------------------------------------------------------------------------

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

    def replay(self, which: float) -> None:
        """Somebody publishes an old message again, retained."""
        if self.broker.history:
            topic, payload = self.broker.history[int(which * len(self.broker.history))]
            self.trace("fault", f"replays on {topic}")
            self.broker.inject(topic, payload)

    def forge(self, node: str) -> None:
        """A desired that is signed for another node, and one that nobody signed; both newer than all others."""
        other = next(name for name in settings.NODES if name != node)
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

    # --- faults: agents ------------------------------------------------------------------------------------------

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

    # --- faults: controllers and persons -------------------------------------------------------------------------

    def controller_crashes(self, name: str) -> None:
        self.chiefs[name].crash()

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

    def command(self, what: str, *args: str) -> None:
        """A person asks the controller that leads, or says so."""
        for chief in self.chiefs.values():
            if chief.leads:
                chief.command(what, *args)
