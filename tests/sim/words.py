"""What controllers say, judged: whether a pair may be sent elsewhere, and whether a drill may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from sim import settings
from vagus_protocol.messages import Assignment, Desired

if TYPE_CHECKING:
    from sim.chief import Chief
    from sim.world import World

Pair = tuple[str, str]

# For so long after something was wrong, decisions may rest on it.
_CAUSE_S: Final = 12.0
# A lost quorum is known to a controller that hears the members by then.
_QUORUM_KNOWN_S: Final = 8.0
# Two ticks, and a little.
_INTERRUPTED_S: Final = 1.2
# Faults that name agents whose links' ends notice.
_OF_AGENTS: Final = ("agent_freezes", "agent_thaws", "rest")


class Words:
    """`fail(invariant, text)`; `confirmed(node)`: peer → the path that the node's agent accepted as confirmed."""

    def __init__(
        self, world: World, fail: Callable[[str, str], None], confirmed: Callable[[str], Mapping[str, str]]
    ) -> None:
        self._world, self._fail, self._confirmed = world, fail, confirmed
        # until when what controllers say may be a person's command
        self.by_hand_until = -1.0
        # (controller, life, node) → peer → what it said last
        self._said: dict[tuple[str, int, str], Mapping[str, Assignment]] = {}
        # (pair, path) → when something about its wires changed last; node → the same of its agent
        self._wires_at: dict[tuple[Pair, str], float] = {}
        self._agents_at: dict[str, float] = {}
        # controller → since when it has a drill out, and another pair off its first path, or a pause
        self._disturbed_since: dict[str, float] = {}
        world.network.watchers.append(self._wire_changed)

    def fault(self, kind: str, args: tuple[object, ...]) -> None:
        if kind in _OF_AGENTS:
            for node in args:
                self.agent_changed(str(node))

    def agent_changed(self, node: str) -> None:
        self._agents_at[node] = self._now

    def _wire_changed(self, a: str, b: str, path: str) -> None:
        self._wires_at[_pair(a, b), path] = self._now

    def said(self, chief: Chief, desired: Desired) -> None:
        key = (chief.name, chief.lives, desired.node)
        before, self._said[key] = self._said.get(key), desired.assignments
        for peer, word in desired.assignments.items():
            old = before.get(peer) if before is not None else None
            if old is not None and (word.path != old.path or (word.drill and not old.drill)):
                self._sent(chief, desired.node, peer, old, word)

    def _sent(self, chief: Chief, node: str, peer: str, old: Assignment, word: Assignment) -> None:
        """A controller sends a node's traffic to a peer elsewhere than before."""
        world, path = self._world, word.path
        confirmed = self._confirmed(node).get(peer, settings.PATHS[0])
        if old.trial and (not word.trial or path == confirmed):
            return  # taken back
        what = f"{chief.name} sends {node} → {peer} from {old.path} to {path} ({word.reason})"
        pair = _pair(node, peer)
        if word.drill:
            self._begins(chief, pair, what)
        elif self._now <= self.by_hand_until:
            return
        ends = (world.members[node].paths()[peer], world.members[peer].paths()[node])
        if path == ends[0] or (word.drill and chief.drilled_by == "person"):
            return
        hold = self._held(chief, pair, old, word)
        if hold:
            self._fail("held-is-still", f"{what}, under {hold}")
        if (
            not word.drill
            and old.path == settings.PATHS[0]
            and path not in ends
            and not self.cause(node, peer, old.path)
        ):
            self._fail("only-with-cause", what)

    def _held(self, chief: Chief, pair: Pair, old: Assignment, word: Assignment) -> str:
        """Why the controller must not move the pair by itself; "" when it may."""
        schedule = self._world.schedule
        if any(map(chief.paused, pair)):
            return "a pause"
        if any(map(chief.in_window, pair)):
            return "maintenance"
        # What an agent did alone is taken over, and brought home.
        if schedule.opted_out in pair and "reflex" not in (old.origin, word.origin) and not self._alone(pair):
            return f"{schedule.opted_out}'s own configuration"
        if schedule.mode == "recommend" and not word.drill and word.origin != "reflex":
            return "a person who was not asked"
        return ""

    def _alone(self, pair: Pair) -> bool:
        """Whether an end holds the other on a path by itself."""
        members = self._world.members
        conducts = ((members[node].conduct, peer) for node, peer in (pair, pair[::-1]))
        return any(conduct is not None and peer in conduct.observed.reflex for conduct, peer in conducts)

    def cause(self, node: str, peer: str, path: str) -> bool:
        """Whether something is or was wrong with the path, or with an end."""
        pair = _pair(node, peer)
        since = self._now - _CAUSE_S
        return (
            self._world.network.impaired(*pair, path)
            or self._wires_at.get((pair, path), 0.0) > since
            or any(self._agents_at.get(node, 0.0) > since for node in pair)
        )

    def _begins(self, chief: Chief, pair: Pair, what: str) -> None:
        """A drill."""
        if chief.at_work:
            self._fail("drill-in-peace", f"{what}, under a pause")
        for node in self._world.schedule.nodes:
            for peer, word in self._said.get((chief.name, chief.lives, node), {}).items():
                if word.path != settings.PATHS[0] and _pair(node, peer) != pair:
                    self._fail("drill-in-peace", f"{what}, and {node} → {peer} goes by {word.path}")
        lost_since = self._world.etcd.lost_since
        if lost_since is not None and self._now - lost_since > _QUORUM_KNOWN_S:
            self._fail("drill-in-peace", f"{what}, without quorum for {self._now - lost_since:.1f} s")

    def goes_on(self, chief: Chief) -> None:
        """Look at the drill that the controller has out, if any."""
        out, away = [], []
        for node in self._world.schedule.nodes:
            for peer, word in self._said.get((chief.name, chief.lives, node), {}).items():
                if word.path != settings.PATHS[0]:
                    (out if word.drill else away).append(f"{node} → {peer}")
        paused = chief.at_work and chief.leads
        if not (out and ((away and chief.speaks) or paused)):
            self._disturbed_since.pop(chief.name, None)
        elif self._now - self._disturbed_since.setdefault(chief.name, self._now) > _INTERRUPTED_S:
            why = "under a pause" if paused else f"and {away[0]} is off its first path"
            self._fail("drill-in-peace", f"{chief.name} goes on drilling {out[0]}, {why}")

    @property
    def _now(self) -> float:
        return self._world.engine.now


def _pair(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)
