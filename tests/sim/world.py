"""The fleet put together, and how a schedule runs and ends."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable

from sim import settings
from sim.broker import Broker
from sim.chief import Chief
from sim.engine import Engine
from sim.etcd import Cluster
from sim.faults import Faults
from sim.invariants import Invariants, Violation
from sim.links import CoarseLinks, Links, ProbedLinks
from sim.member import Member
from sim.network import Network
from sim.schedule import Fault, Schedule

# How long after the last fault everything must be well; see docs/architecture.md for the sum.
BOUND_S = 30.0
# What was lost of a path's last minute counts against it for so long: no member goes there, quorum or not.
_MINUTE_S = 65.0
# When all is well, so much longer.
_STABLE_S = 3.0
_IMAGE_EVERY_S = 4.0
_STEERING_S = 0.002
# When the last controller goes, where one is to go in the middle of a move and none comes.
_ABANDONED_S = 15.0


class World(Faults):
    def __init__(self, schedule: Schedule, tell: Callable[[float, str, str], None] | None = None) -> None:
        """`tell(at, who, text)` gets the trace."""
        super().__init__()
        self.schedule = schedule
        self.engine = Engine()
        self.tell = tell
        rng = random.Random(schedule.seed ^ 0x5EED)
        self.network = Network(schedule.nodes, schedule.paths, rng)
        self.broker = Broker(self.engine, rng, self.trace)
        links: Links = (ProbedLinks if schedule.probed else CoarseLinks)(self.engine, self.network, rng)
        self.rng = rng
        self.invariants = Invariants(self)
        self.members: dict[str, Member] = {}
        self.etcd = Cluster(
            self.engine,
            self.network,
            schedule.nodes if schedule.etcd else (),
            lambda a, b: self.members[a].paths()[b],
            rng,
        )
        for node in schedule.nodes:
            lacks = schedule.without is not None and schedule.without[0] == node
            config = settings.agent_config(
                node,
                schedule.nodes,
                schedule.reflex,
                node != schedule.opted_out,
                schedule.etcd,
                schedule.paths,
                schedule.without[1:] if schedule.without is not None and lacks else None,
            )
            self.members[node] = Member(
                self.engine, self.broker, links, config, self.etcd.facts, rng, self.invariants, self.trace
            )
        self.chiefs = {
            name: Chief(
                name,
                self.engine,
                self.broker,
                settings.controller_config(
                    schedule.controllers[0] if schedule.twins else name, schedule.mode, schedule.adopts
                ),
                rng,
                self.invariants,
                self.trace,
            )
            for name in schedule.controllers
        }
        self.broker.witness = self.invariants.published
        self.last_fault_at = 0.0
        self._well_since: float | None = None

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
            if self.invariants.quorumless():
                self.engine.run(self.engine.now + _MINUTE_S, self._over)
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
        self.invariants.fault(fault.kind, fault.args)
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
        self.invariants.fault("rest", self.schedule.nodes)
        for wire, condition in self.network.wires.items():
            self.network.change(wire, cut=False, loss=0.0, delay=min(condition.delay, 0.02), reorder=0.0, relayed=False)
        self.clock("right", *self.schedule.controllers)
        for node in self.schedule.nodes:
            self.etcd_starts(node)
            self.members[node].relays.clear()
            for path in self.schedule.paths:
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
        elif rest == "overlay impaired":
            self._impair()
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
                path = self.rng.choice(self.schedule.paths)
                self.engine.after(wait, self.command, "switchover", "a--b", path, "force")
            self.engine.after(_ABANDONED_S, self._abandon)

        if self.schedule.mode == "recommend":
            self.engine.after(1.0, self._approve)

    def _impair(self) -> None:
        """What carries packets, and no etcd: a tenth or two of the packets lost, or a relay far away."""
        relayed = self.rng.random() < 0.4
        for a, b, path in self.network.wires:
            if path == "overlay" and relayed and a < b:
                self.relayed(a, b, True)
            elif path == "overlay" and not relayed:
                self.network.change((a, b, path), loss=0.15)

    def _approve(self) -> None:
        """A person who sits there, and wants all that is recommended."""
        self.command("approve")
        self.engine.after(1.0, self._approve)

    def offered(self, a: str, b: str) -> list[str]:
        """The paths that both ends of a pair have."""
        without = self.schedule.without
        return [path for path in self.schedule.paths if without is None or without not in ((a, b, path), (b, a, path))]

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
        self.invariants.look()
        quiet = self.engine.now > self.schedule.last_fault_at + 0.2
        if not (quiet and (self.schedule.rest != "left on trial" or self.abandoned) and self.invariants.all_well()):
            self._well_since = None
        elif self._well_since is None:
            self._well_since = self.engine.now
        self.engine.after(0.5, self._look)

    def _over(self) -> bool:
        stable = self._well_since is not None and self.engine.now - self._well_since >= _STABLE_S
        return stable and not self.invariants.lingering()

    def trial_told(self) -> None:
        ambushes, self._ambushes = self._ambushes, []
        for delay, kind, args in ambushes:
            self.engine.after(delay, self._do, Fault(self.engine.now + delay, kind, args))
