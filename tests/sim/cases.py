"""What must hold of incidents and of what people are told, against what was really wrong, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vagus_controller.core.causes import Cause, Key, link_of
from vagus_controller.core.incident import Incident
from vagus_controller.core.incidents import HOLD_MOST_S, SETTLE_MOST_S
from vagus_controller.core.verdict import RANK
from vagus_controller.views import CauseView

if TYPE_CHECKING:
    from sim.chief import Chief
    from sim.world import World
    from vagus_controller.core.notices import Notice
    from vagus_controller.views import IncidentView, Severity

Pair = tuple[str, str]

# An incident is told this long after what was wrong has gone, at most: it may wait, and a detector may look back.
_LATELY_S: Final = SETTLE_MOST_S + 15.0
# What was lost of the last minute's probes makes a link degraded, and what came late in it reordering.
_MINUTE_S: Final = 65.0
_OF_AGENTS: Final = ("agent_freezes", "agent_thaws")
_OF_ETCD: Final = ("etcd_stops", "etcd_starts")
_OF_NODES_BROKER: Final = ("cut_broker", "mend_broker", "slow_broker", "isolate", "rejoin")
_OF_BROKER: Final = ("broker_stops", "broker_starts")
_OF_CONTROLLERS: Final = ("controller_freezes", "controller_thaws")


class Cases:
    """`fail(invariant, text)`."""

    def __init__(self, world: World, fail: Callable[[str, str], None]) -> None:
        self._world, self._fail = world, fail
        # what of the simulation → when it was last disturbed, or mended
        self._disturbed: dict[tuple[str, ...], float] = {}
        # those that have begun before
        self._agents: set[str] = set()
        # (controller, life of its disk, incident) → what people know of it: how bad, and whether that it is over
        self._told: dict[tuple[str, int, int], tuple[Severity, bool]] = {}
        self._known: set[tuple[str, int, int]] = set()
        world.network.watchers.append(lambda a, b, path: self._note("wire", *sorted((a, b)), path))

    # --- what happens ------------------------------------------------------------------------------------------------

    def _note(self, *what: str) -> None:
        self._disturbed[what] = self._world.engine.now

    def agent(self, node: str) -> None:
        """It began or ended. That it begins with the world is no reason for an alarm about its links."""
        self._note("agent", node)
        if node in self._agents:
            self._note("agent again", node)
        self._agents.add(node)

    def drill(self) -> None:
        """One is asked for."""
        self._note("drill")

    def fault(self, kind: str, args: tuple[object, ...]) -> None:
        names = [str(each) for each in args]
        if kind in _OF_AGENTS:
            self._note("agent", names[0])
            self._note("agent again", names[0])
        elif kind in _OF_NODES_BROKER:
            for name in names:
                self._note("broker", name)
        elif kind in _OF_BROKER:
            self._note("broker")
        elif kind in _OF_ETCD:
            self._note("etcd", names[0])
        elif kind in _OF_CONTROLLERS:
            self._note("controller", names[0])
        elif kind == "rest":
            for what in list(self._disturbed):
                self._note(*what)

    def remembers(self, chief: Chief, incidents: Sequence[int]) -> None:
        """An older disk has those of then."""
        self._known.update((chief.name, chief.disks, number) for number in incidents)

    def incident(self, chief: Chief, view: IncidentView) -> None:
        key = (chief.name, chief.disks, view.id)
        if view.id and key not in self._known:
            self._known.add(key)
            if not self._lately(chief, view.cause):
                self._fail("alarm-with-cause", f"{chief.name} opens incident {view.id}: {view.title}")

    def notice(self, chief: Chief, notice: Notice) -> None:
        key = (chief.name, chief.disks, notice.incident)
        before = self._told.get(key)
        over = notice.what == "over"
        if key not in self._known:
            self._fail("alarm-with-cause", f"{chief.name} tells of what is no incident: {notice.title}")
        if before is not None:
            worst, was_over = before
            again = {
                "began": True,
                "worse": was_over or RANK.index(notice.severity) <= RANK.index(worst),
                "lasts": was_over,
                "back": not was_over,
                "over": was_over,
            }[notice.what]
            if again:
                self._fail("told-once", f"{chief.name}: {notice.what}: {notice.title}")
            if not over:
                worst = max(worst, notice.severity, key=RANK.index)
            self._told[key] = (worst, over)
        else:
            self._told[key] = (notice.severity, over)

    # --- what time may break -----------------------------------------------------------------------------------------

    def look(self, chief: Chief) -> None:
        """Twice a second."""
        if chief.casebook is None:
            return
        homes: dict[Key, Incident] = {}
        causes: dict[Cause, Incident] = {}
        for incident in chief.casebook.incidents._homes.live.values():
            for trouble in incident.bad():
                other = homes.setdefault(trouble.key, incident)
                if other is not incident:
                    both = f"{other.cause} and {incident.cause}"
                    self._fail("one-incident", f"{chief.name} has {' '.join(trouble.key)} in {both}")
            if incident.is_open and causes.setdefault(incident.cause, incident) is not incident:
                self._fail("one-incident", f"{chief.name} has two open for {incident.cause}")

    def lingering(self) -> str:
        """What a controller still takes for bad, and is not; "" for nothing."""
        for chief in self._world.chiefs.values():
            if chief.casebook is None or not chief.hears:
                continue
            for incident in chief.casebook.incidents._homes.live.values():
                for trouble in incident.bad():
                    if not self._wrong(chief, trouble.key, trouble.state):
                        return f"{chief.name} holds {' '.join(trouble.key)} for {trouble.state}"
        return ""

    def at_the_end(self) -> None:
        lingering = self.lingering()
        if lingering:
            self._fail("incident-ends", lingering)
        for chief in self._world.chiefs.values():
            if chief.casebook is None or not chief.hears:
                continue
            chief.casebook.pass_time(*chief.clocks, HOLD_MOST_S + SETTLE_MOST_S)
            for incident in chief.casebook.incidents._homes.live.values():
                if not incident.bad():
                    self._fail("incident-ends", f"{chief.name} keeps incident {incident.kept.id} ({incident.cause})")
            self.look(chief)

    # --- what is so --------------------------------------------------------------------------------------------------

    def _pairs(self) -> list[Pair]:
        nodes = self._world.schedule.nodes
        return [(a, b) for a in nodes for b in nodes if a < b]

    def _impaired(self, pair: Pair, path: str = "") -> bool:
        network = self._world.network
        return any(network.impaired(*pair, each) for each in network.paths if path in ("", each))

    def _wrong(self, chief: Chief, key: Key, state: str) -> bool:
        """Whether something is wrong with it now."""
        kind, subject = key
        world = self._world
        if state == "unfit":
            # Until a drill passes.
            return ("drill",) in self._disturbed
        if kind in ("link", "stuck"):
            pair, path = link_of(subject)
            minute = self._disturbed.get(("wire", *pair, path), -_MINUTE_S) > world.engine.now - _MINUTE_S
            return self._impaired(pair, path) or (state in ("degraded", "reordering", "one-way-loss") and minute)
        if kind == "quorum":
            # Two members have none to spare.
            doubtful = len(world.etcd.members) < 3 or world.etcd.churned or not world.etcd.has_quorum
            return doubtful or any(map(self._impaired, self._pairs()))
        if kind == "liveness":
            return not (world.members[subject].able and world.members[subject].connected)
        return kind == "controller" and not chief.hears

    def _lately(self, chief: Chief, cause: CauseView) -> bool:
        """Whether anything was wrong with it, not long ago."""
        since = self._world.engine.now - _LATELY_S
        recent = {what for what, at in self._disturbed.items() if at >= since}
        pairs = self._pairs()
        if cause.scope == "pair":
            pairs = [link_of(cause.target)[0]]
        elif cause.scope == "node":
            pairs = [pair for pair in pairs if cause.target in pair]
        nodes = {node for pair in pairs for node in pair}
        agents = any(("agent", node) in recent for node in nodes)
        wires = any(
            ("wire", *pair, path) in recent or self._impaired(pair, path)
            for pair in pairs
            for path in self._world.network.paths
            if cause.path in ("", path)
        )
        if cause.kind == "stuck" and ("drill",) in recent:
            return True
        if cause.kind == "link":
            return wires or any(("agent again", node) in recent for node in nodes)
        if cause.kind == "stuck":
            return wires or agents
        if cause.kind == "liveness":
            away = not self._world.members[cause.target].process.awake or cause.target in self._world.broker.cut
            return away or ("agent", cause.target) in recent or ("broker", cause.target) in recent
        if cause.kind == "quorum":
            stopped = bool(self._world.etcd.stopped)
            etcd = any(("etcd", node) in recent for node in nodes)
            unheard = any(("broker", node) in recent for node in nodes) or bool(self._world.broker.cut)
            return wires or agents or etcd or stopped or unheard or ("broker",) in recent
        if cause.kind == "controller":
            cut = chief.name in self._world.broker.cut or not self._world.broker.up
            own = (("broker",), ("broker", chief.name), ("controller", chief.name))
            return cut or not recent.isdisjoint(own)
        return False
