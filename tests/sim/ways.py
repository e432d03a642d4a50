"""Which way traffic goes, judged all the while: by a dead path for long, or by different ones at the two ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sim.member import Member
    from sim.world import World

Pair = tuple[str, str]

# Two to find it, five for a leader that knows itself and its fleet, and as much for a trial that failed.
_DEAD_S: Final = 12.0
# Of echoes lost: above, a path is not proven all the time.
_DOUBTFUL: Final = 0.3
# A write to the kernel that takes longer may come too late.
_SLOW_S: Final = 0.5
# A trial that an agent took up when it started has its time anew; the other end's may be over sooner.
_TRIAL_S: Final = 10.0
# A probe interval; and a message, by the broker to an agent, which has to connect first when it has just started.
_APART_S: Final = 0.25 + 0.15


class Ways:
    """`fail(invariant, text)`."""

    def __init__(self, world: World, fail: Callable[[str, str], None]) -> None:
        self._world, self._fail = world, fail
        # pair → since when its ends go by different paths
        self._apart_since: dict[Pair, float] = {}
        # pair on a dead path → since when, and what carries packets all the while
        self._dead: dict[Pair, tuple[float, frozenset[str]]] = {}

    # --- different paths ---------------------------------------------------------------------------------------------

    def steered(self, member: Member) -> float:
        """A node's kernel may have changed; when `check` must be called."""
        if not self._world.schedule.fencing:
            return float("inf")
        for peer in member.paths():
            pair = (member.name, peer) if member.name < peer else (peer, member.name)
            there, back = self._ways(pair)
            running = all(self._world.members[node].process.running for node in pair)
            # A machine that has just booted sends nothing yet.
            if running and there and back and there != back:
                again = max(self._world.members[node].process.began_again for node in pair)
                self._apart_since.setdefault(pair, max(self._world.engine.now, again + _TRIAL_S))
            else:
                self._apart_since.pop(pair, None)
        return self._due

    def agent_ended(self, member: Member) -> None:
        self._apart_since = {pair: since for pair, since in self._apart_since.items() if member.name not in pair}

    def check(self) -> float:
        """Once it is time; when it is again."""
        for pair, since in self._apart_since.items():
            lasted = self._world.engine.now - since
            if lasted > _APART_S:
                there, back = self._ways(pair)
                self._fail("ends-agree", f"{pair[0]} goes by {there} and {pair[1]} by {back} for {lasted:.2f} s")
        return self._due

    @property
    def _due(self) -> float:
        return min(self._apart_since.values(), default=float("inf")) + _APART_S

    # --- a dead path -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Twice a second."""
        now, nodes = self._world.engine.now, self._world.schedule.nodes
        for pair in ((a, b) for a in nodes for b in nodes if a < b):
            carries = self._way_out(pair)
            since, before = self._dead.get(pair, (now, carries))
            if not carries:
                self._dead.pop(pair, None)
            elif before & carries:
                self._dead[pair] = (since, before & carries)
            else:
                self._dead[pair] = (now, carries)
            if carries and now - self._dead[pair][0] > _DEAD_S:
                there, back = self._ways(pair)
                others = ", ".join(sorted(self._dead[pair][1]))
                text = f"{pair[0]} goes by {there} and {pair[1]} by {back} since {since:.1f} s, which is dead"
                self._fail("no-dead-path", f"{text}, and {others} is alive all the while")

    def _way_out(self, pair: Pair) -> frozenset[str]:
        """The paths that carry packets while those in use do not; none when nobody may or can do anything about it."""
        world, (a, b) = self._world, pair
        network, schedule = world.network, world.schedule
        there, back = self._ways(pair)
        if not (there and back) or (network.carries(a, b, there) and network.carries(b, a, back)):
            return frozenset()
        leading = [chief for chief in world.chiefs.values() if chief.leads]
        if len(leading) != 1 or not leading[0].speaks or schedule.mode != "auto" or schedule.opted_out in pair:
            return frozenset()
        leader = leading[0]
        if any(leader.paused(node) or leader.in_window(node) for node in pair):
            return frozenset()
        ends = [world.members[node] for node in pair]
        if not all(end.able and end.connected and end.steering_s <= _SLOW_S for end in ends):
            return frozenset()
        if any(world.broker.delay.get(name) for name in (a, b, leader.name)):
            return frozenset()
        return frozenset(
            path
            for path in world.offered(a, b)
            if network.both_ways(a, b, path) and network.loss(a, b, path) < _DOUBTFUL
        )

    def _ways(self, pair: Pair) -> Pair:
        """The paths that the two ends' kernels give."""
        (a, b), members = pair, self._world.members
        return members[a].paths()[b], members[b].paths()[a]
