"""Paths that carry traffic badly: which are in trouble, and whether another would carry it better.

A path is in trouble by what both ends measure: loss, a round trip far above the path's own learned baseline, jitter, or
a relay in the way; between two etcd members also a round trip that etcd's timers do not bear. Each has a threshold to
enter and a lower one to leave, and trouble must last before it counts, and be over as long before it does not.

Whether another path is better is one figure, `reach_s`: the time within which 99 of 100 small messages are across and
answered, each lost one sent again as TCP does. It must be better by a margin, beyond what chance makes of the lost
probes of a minute, and over the same time.

Per path one learned figure and two counters: O(1) memory, whatever the time.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from vagus_controller import config
from vagus_controller.core.baseline import LEAST_EXCESS_S, Baseline
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.verdict import Hysteresis, ms
from vagus_protocol.messages import Link, LinkState, Relay

# Linux sends again after the round trip and four deviations (RFC 6298), and after 0.2 s at the least.
_LEAST_RTO_S: Final = 0.2
_DEVIATIONS: Final = 4.0
_UNANSWERED: Final = 0.01
# Standard deviations within which a share of lost probes is chance: many paths are compared, for years.
_CHANCE: Final = 3.0
# Of members: etcd's documentation wants the heartbeat at 0.5 to 1.5 round trips, and ten in an election timeout.
_HEARTBEATS: Final = 2.0
_ROUND_TRIPS_IN_ELECTION: Final = 10.0
_EXIT_SHARE: Final = 0.8
# Trouble between members counts after this many election timeouts.
_ELECTIONS: Final = 10.0
_DEAD: Final = (LinkState.DOWN, LinkState.UNKNOWN)
_RELAYED: Final = (Relay.DERP, Relay.PEER_RELAY)
# Two samples that lie further apart say nothing of the time between them.
_MOST_STEP_S: Final = 60.0

Mode = str


class Reading(NamedTuple):
    """What both ends measure of a path, the worse of the two; `baseline_s` None: not learned yet. `probes`: the number
    that the loss of 60 s was counted on, at least."""

    rtt_s: float
    jitter_s: float
    loss_10s: float
    loss_60s: float
    relayed: bool
    probes: int = 300
    baseline_s: float | None = None

    @property
    def reach_s(self) -> float:
        return self._reach(self.loss_60s)

    def _reach(self, loss: float) -> float:
        worst = self.rtt_s + _DEVIATIONS * self.jitter_s
        if loss <= _UNANSWERED:
            return worst
        if loss >= 1.0:
            return math.inf
        # Sent n times, one in a hundred is still unanswered; each time waits twice as long as the one before.
        sent = math.log(_UNANSWERED) / math.log(loss)
        return worst + max(worst, _LEAST_RTO_S) * (math.exp2(min(sent - 1.0, 30.0)) - 1.0)

    def better_than(self, other: Reading, margin: float) -> bool:
        """Whether it reaches sooner by the share `margin`. A difference in loss that chance explains is none."""
        mine, theirs = self.loss_60s, other.loss_60s
        mean = (mine * self.probes + theirs * other.probes) / (self.probes + other.probes)
        deviation = math.sqrt(mean * (1 - mean) * (1 / self.probes + 1 / other.probes))
        if abs(mine - theirs) < _CHANCE * deviation:
            mine = theirs = mean
        here, there = other._reach(theirs), self._reach(mine)
        return there <= here * (1.0 - margin) and here - there >= LEAST_EXCESS_S

    def words(self) -> str:
        loss = f"{self.loss_60s:.1%} lost in 60 s" + (", relayed" if self.relayed else "")
        usual = f" (usual {ms(self.baseline_s)})" if self.baseline_s is not None else ""
        return (
            f"round trip {ms(self.rtt_s)}{usual}, jitter {ms(self.jitter_s)}, {loss}: "
            f"99 of 100 messages within {ms(self.reach_s)}"
        )


class _Path:
    __slots__ = ("at", "baseline", "better", "kinds", "reading", "since", "than", "trouble")

    def __init__(self) -> None:
        self.at = -math.inf
        # from when on it has carried, as far as we heard: what it loses is counted since then
        self.since = math.inf
        self.reading: Reading | None = None
        self.baseline = Baseline()
        self.trouble: Hysteresis | None = None
        # the kinds of trouble that it is in, with words; sticky between the two thresholds
        self.kinds: dict[str, str] = {}
        # whether it has been better by the margin, and than which path
        self.better: Hysteresis | None = None
        self.than = ""

    def forget(self) -> None:
        """The samples had a gap; what was learned stays."""
        self.reading, self.kinds, self.trouble, self.better = None, {}, None, None


class Quality:
    def __init__(self, settings: config.Quality) -> None:
        self._settings = settings
        self._paths: dict[tuple[Pair, str], _Path] = {}
        # the pairs with a path in trouble, or about to be
        self.uneasy: set[Pair] = set()

    def mode(self, members: bool) -> Mode:
        return self._settings.members if members else self._settings.mode

    def dwell_s(self, members: bool) -> float:
        settings = self._settings
        return min(settings.for_s, _ELECTIONS * settings.etcd_election_s) if members else settings.for_s

    def observe(self, fleet: Fleet, pair: Pair, paths: list[str], current: str, members: bool, now: float) -> None:
        """Take what both ends say now of the pair's paths, if it is news."""
        if self.mode(members) == "off":
            return
        for path in paths:
            self._sample(fleet, pair, path, members, now)
        here = self._paths[pair, current] if current in paths else None
        for path in paths:
            if path != current and here is not None:
                self._compare(self._paths[pair, path], here, current, self.dwell_s(members))
        if any(self._paths[pair, path].kinds for path in paths):
            self.uneasy.add(pair)
        else:
            self.uneasy.discard(pair)

    def keep(self, fleet: Fleet) -> None:
        """Forget pairs and paths that are no more."""
        gone = [key for key in self._paths if not fleet.has(key[0]) or key[1] not in fleet.paths_of(key[0])]
        for key in gone:
            self.uneasy.discard(key[0])
            del self._paths[key]

    def begin_anew(self, pair: Pair, paths: list[str]) -> None:
        """A person moved the pair: what is wrong must last anew before it counts."""
        for path in paths:
            if (pair, path) in self._paths:
                self._paths[pair, path].forget()

    def is_better(self, pair: Pair, path: str, than: str) -> bool:
        """Whether `path` would carry the pair better by the margin, now."""
        here, there = self._paths.get((pair, than)), self._paths.get((pair, path))
        return here is not None and there is not None and self._is_better(there, here)

    def troubles(self, pair: Pair, path: str) -> tuple[str, ...]:
        """What is wrong with the path, long enough to count; empty when nothing is."""
        known = self._paths.get((pair, path))
        if known is None or known.trouble is None or not known.trouble.active:
            return ()
        return tuple(known.kinds.values())

    def reading(self, pair: Pair, path: str) -> Reading | None:
        known = self._paths.get((pair, path))
        return None if known is None else known.reading

    def unease(self, pair: Pair, path: str) -> tuple[str, ...]:
        """What is wrong with the path now, though perhaps not for long."""
        known = self._paths.get((pair, path))
        return () if known is None else tuple(known.kinds.values())

    def why_not(self, pair: Pair, path: str, current: str) -> str:
        """Why `path` would not carry the pair better than `current`; "" when it would, and long enough."""
        here, there = self._paths.get((pair, current)), self._paths.get((pair, path))
        if here is None or there is None or here.reading is None:
            return f"{current} has not been measured"
        if there.reading is None:
            return f"{path} has not been measured"
        if not self._is_better(there, here):
            worse = [words for kind, words in there.kinds.items() if kind not in here.kinds]
            if worse:
                return f"{path} {' and '.join(worse)}"
            share = f"{self._settings.margin:.0%}"
            figures = f"{ms(there.reading.reach_s)} against {ms(here.reading.reach_s)}"
            return f"{path} is not better by {share}: 99 of 100 messages within {figures}"
        if there.better is None or there.than != current or not there.better.active:
            return f"{path} has not been better for long enough"
        return ""

    # --- inside --------------------------------------------------------------------------------------------------

    def _sample(self, fleet: Fleet, pair: Pair, path: str, members: bool, now: float) -> None:
        memory = self._paths.get((pair, path))
        if memory is None:
            memory = self._paths[pair, path] = _Path()
        words = (fleet.believed(node, peer, path, now) for node, peer in (pair, pair[::-1]))
        ends = [word for word in words if word is not None]
        at = max((end.at for end in ends), default=-math.inf)
        step = at - memory.at
        if ends and step <= 0 and memory.reading is not None:
            return  # nothing new, most of the time
        if ends and (memory.since > at or any(end.link.state in _DEAD for end in ends)):
            memory.since = at
        counted_s = min(max(at - memory.since, 0.0), 60.0)
        reading = _read([end.link for end in ends], int(counted_s / _interval_s(fleet, pair, path)))
        if reading is None:
            memory.forget()
            return
        if step <= 0:
            return
        memory.at = at
        if memory.trouble is None or step > _MOST_STEP_S:
            memory.forget()
            memory.trouble = Hysteresis(self.dwell_s(members), self.dwell_s(members))
        memory.trouble.enter_s = memory.trouble.leave_s = self.dwell_s(members)
        memory.baseline.learn(reading.rtt_s, min(step, _MOST_STEP_S))
        memory.reading = reading = reading._replace(baseline_s=memory.baseline.rtt_s)
        memory.kinds = self._judge(reading, memory.kinds, members)
        memory.trouble.update(bool(memory.kinds), not memory.kinds, at)

    def _judge(self, reading: Reading, before: dict[str, str], members: bool) -> dict[str, str]:
        """Each kind of trouble that the reading shows; one that was there before stays until its lower threshold."""
        its = self._settings
        strict = 0.5 if members else 1.0
        found: dict[str, str] = {}
        loss_enter, loss_exit = its.loss_enter * strict, its.loss_exit * strict
        # A path that was dead loses nothing any more, though its last minute says so: loss that is over is no trouble.
        if reading.loss_10s > 0 and _sticks("loss" in before, reading.loss_60s, loss_enter, loss_exit):
            found["loss"] = f"loses {reading.loss_60s:.1%} in 60 s"
        base = reading.baseline_s
        if base is not None:
            enter, leave = (max(base * times, base + LEAST_EXCESS_S) for times in (its.rtt_enter, its.rtt_exit))
            if _sticks("slow" in before, reading.rtt_s, enter, leave):
                found["slow"] = f"takes {ms(reading.rtt_s)} for a round trip, usually {ms(base)}"
        if _sticks("jitter" in before, reading.jitter_s, its.jitter_enter_s, its.jitter_exit_s):
            found["jitter"] = f"jitters by {ms(reading.jitter_s)}"
        if reading.relayed and its.relayed:
            found["relayed"] = "is relayed"
        if members:
            limit = min(_HEARTBEATS * its.etcd_heartbeat_s, its.etcd_election_s / _ROUND_TRIPS_IN_ELECTION)
            if _sticks("timers" in before, reading.rtt_s, limit, limit * _EXIT_SHARE):
                found["timers"] = (
                    f"takes {ms(reading.rtt_s)} for a round trip between etcd members, whose timers bear {ms(limit)}"
                )
        return found

    def _is_better(self, there: _Path, here: _Path) -> bool:
        if there.reading is None or here.reading is None or there.kinds.keys() - here.kinds.keys():
            return False
        return there.reading.better_than(here.reading, self._settings.margin)

    def _compare(self, there: _Path, here: _Path, current: str, dwell_s: float) -> None:
        if there.reading is None or here.reading is None:
            there.better = None
            return
        if there.better is None or there.than != current:
            there.better, there.than = Hysteresis(dwell_s, 0.0), current
        better = self._is_better(there, here)
        there.better.update(better, not better, max(there.at, here.at))


def _interval_s(fleet: Fleet, pair: Pair, path: str) -> float:
    """Seconds: the longer of the ends' idle intervals on the path."""
    states = [fleet.nodes[node] for node in pair if node in fleet.nodes]
    offers = [offer for state in states if (offer := state.path_offer(path)) is not None]
    return max(max((offer.idle_interval_s for offer in offers), default=0.2), 0.01)


def _read(links: list[Link], probes: int) -> Reading | None:
    """The worse of what the ends say; None when neither has measured a round trip."""
    trips = [link.rtt_s for link in links if link.rtt_s is not None]
    if not trips:
        return None
    return Reading(
        rtt_s=max(trips),
        jitter_s=max(link.jitter_s or 0.0 for link in links),
        loss_10s=max(link.loss_10s or 0.0 for link in links),
        loss_60s=max(link.loss_60s or 0.0 for link in links),
        relayed=any(link.relay in _RELAYED for link in links),
        probes=max(probes, 1),
    )


def _sticks(there: bool, value: float, enter: float, leave: float) -> bool:
    return value >= enter or (there and value > leave)
