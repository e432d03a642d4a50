"""Every pair of nodes over every path, judged from what both ends say.

| one end | the other | verdict |
| --- | --- | --- |
| down | down; or silent, or never had a reply | down |
| down | up, and has said so since | one-way |
| down | up, but said so before; or suspect | as before, until `confirm_within_s` is over; then down |
| no reply ever | anything but down | unproven |
| down, and hears the other's probes | down, and hears none | one-way |
| down, and its Tailscale says direct | down | direct-but-dead |
| up or degraded | up, degraded or silent | the first of the following that holds, else up |
| silent | silent | unknown |

A link that carries is: black-hole (large packets get lost one way); relayed; riding-backup (the overlay goes over the
backup network); overloaded (bad, and an end's own report says that its machine is); one-way-loss; degraded; slow (its
round trip made a step); reordering. `traits.py` has how these are told apart.

`suspect` is an end that is still finding out: its last settled word stands. An end that knows what is in the way of
traffic says so; the reason tells it, with the remedy. A path that is up and yet has such an obstacle (for the address
family that is not probed, for larger packets) is a warning.

Most links are up at both ends, most of the time, and stay so until an end says otherwise or falls silent: such a pair
is judged again only then. Every other pair is looked at each time; where they are many, in turn.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from vagus_controller.config import Config
from vagus_controller.core.detect.traits import Ends, Traits
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.node import LinkSeen, NodeState
from vagus_controller.core.verdict import Verdict, follow, seconds
from vagus_controller.views import Severity
from vagus_protocol.messages import Link, LinkState, Relay

_SEVERITY: Final = {
    "up": Severity.OK,
    "degraded": Severity.WARNING,
    "relayed": Severity.WARNING,
    "black-hole": Severity.CRITICAL,
    "overloaded": Severity.WARNING,
    "one-way-loss": Severity.WARNING,
    "slow": Severity.WARNING,
    "reordering": Severity.WARNING,
    "riding-backup": Severity.WARNING,
    "one-way": Severity.CRITICAL,
    "direct-but-dead": Severity.CRITICAL,
    "down": Severity.CRITICAL,
    "unproven": Severity.WARNING,
    "unknown": Severity.UNKNOWN,
}
DEAD: Final = ("one-way", "direct-but-dead", "down")
_CARRIES: Final = frozenset(_SEVERITY) - {*DEAD, "unproven", "unknown"}
_HINDERED: Final = ("up", "unproven")
_ALL_WELL: Final = "both ends see it up"
_BOTH_UP: Final = (LinkState.UP, LinkState.UP)
_ALIVE: Final = (LinkState.UP, LinkState.DEGRADED)
_RELAYED: Final = {
    Relay.DERP: "through a DERP relay",
    Relay.PEER_RELAY: "through a peer relay",
}
_RIDING: Final = "riding the backup network, so it is not independent of it"
_INDIRECT: Final = (*_RELAYED, Relay.RIDING_BACKUP)
# Tailscale trusts a path for 6.5 s after its last packet; an agent asks it every 5 s and reports every 2 s. Who says
# direct after that is wrong.
_TRUSTED_S: Final = 15.0
# An end that is so late with its own work, or where so many tasks wait for each core, is slow to answer.
_LATE_S: Final = 0.1
# What was bad for longer before its end was busy is not bad for that.
_FAULTS: Final = ("degraded", "slow", "one-way-loss")
_EXCUSED_S: Final = 30.0
_TASKS_PER_CORE: Final = 3.0
# Where this much of an end's own probes is lost, the other end's burst may all be, too.
_LOSES_NOW: Final = 0.1
_STARVED: Final = 0.6
# A slow (metered) path is proven by a reply as old as this many of its idle probes.
_METERED_PROBES: Final = 2.5
# Pairs that one evaluation looks at since their ends' words changed, and as many of those that are not well; some 20 µs
# each. A fleet of thousands of nodes may change at one moment, and the event loop must not wait for all of it.
_MOST: Final = 1000
# Pairs whose figures one evaluation looks at though nothing changed: all of a small fleet's within 5 s.
_MOST_SAMPLED: Final = 100
_SAMPLED_SHARE: Final = 0.1

Key = tuple[Pair, str]
States = tuple[LinkState | None, LinkState | None]


class _Memory:
    """What one (pair, path) was: its verdict, both ends' last settled states, since when the ends disagree."""

    __slots__ = ("disagree_since", "settled", "traits", "verdict")

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.verdict: Verdict | None = None
        self.settled: list[LinkState | None] = [None, None]
        self.disagree_since: float | None = None


class Links:
    """`verdicts`: of every pair and path. `judged`: the pairs that the last `evaluate` looked at; `news`: those of
    their verdicts that are not as they were."""

    def __init__(self, config: Config) -> None:
        self.verdicts: dict[Key, Verdict] = {}
        self.judged: list[Pair] = []
        self.news: list[Verdict] = []
        self._confirm_within_s = config.failover.confirm_within_s
        self._quality = config.failover.quality
        self._memory: dict[Key, _Memory] = {}
        # Pairs to look at, in this order: since something changed, and since they were not well.
        self._changed: dict[Pair, None] = {}
        self._again: dict[Pair, None] = {}
        self._dead: set[Pair] = set()
        self._hindered: set[Pair] = set()
        self._silent: set[str] = set()
        # those whose figures are looked at next
        self._turn: list[Pair] = []
        self._stirs = 0
        self._topology = 0

    def reconfigure(self, confirm_within_s: float) -> None:
        self._confirm_within_s = confirm_within_s

    def dead(self) -> list[Pair]:
        """The pairs with a path that is dead; sorted."""
        return sorted(self._dead)

    def hindered(self) -> list[Pair]:
        """The pairs with a path that is unproven, or that an end knows an obstacle of; sorted."""
        return sorted(self._hindered)

    def evaluate(self, fleet: Fleet, now: float, pair: Pair | None = None) -> dict[Key, Verdict]:
        """`verdicts`, brought up to date; with a pair only that one, and only its own are returned."""
        if pair is not None:
            return self._look_at(fleet, pair, now)
        if self._topology != fleet.topology:
            self._topology = fleet.topology
            self._forget_gone(fleet)
        names, self._stirs = fleet.stirred(self._stirs)
        silent = {state.name for state in fleet.overdue(now) if _is_silent(fleet, state, now)}
        names += silent ^ self._silent
        self._silent = silent
        self._changed.update((pair, None) for name in names for pair in fleet.pairs_of(name))
        self.judged = list(dict.fromkeys((*islice(self._changed, _MOST), *islice(self._again, _MOST))))
        self.news = []
        for each in self.judged:
            self._changed.pop(each, None)
            self._again.pop(each, None)
            self._look_at(fleet, each, now)
        self._sample(fleet, now)
        return self.verdicts

    def _sample(self, fleet: Fleet, now: float) -> None:
        """The figures of some pairs of which nobody said anything new, in turn."""
        if not self._turn:
            self._turn = fleet.pairs()[::-1]
        share = min(_MOST_SAMPLED, int(_SAMPLED_SHARE * len(fleet.pairs())) + 1)
        looked = set(self.judged)
        for _ in range(min(share, len(self._turn))):
            pair = self._turn.pop()
            if not (pair in looked or pair in self._changed or pair in self._again) and fleet.has(pair):
                self._look_at(fleet, pair, now)

    def _look_at(self, fleet: Fleet, pair: Pair, now: float) -> dict[Key, Verdict]:
        found: dict[Key, Verdict] = {}
        for path in fleet.paths_of(pair):
            key = (pair, path)
            memory = self._memory.get(key)
            if memory is None:
                memory = self._memory[key] = _Memory(Traits(self._quality))
            verdict = self._judge(fleet, pair, path, memory, now)
            if verdict is not memory.verdict:
                self.verdicts[key] = memory.verdict = verdict
                self.news.append(verdict)
            found[key] = verdict
        if any(verdict.state in DEAD for verdict in found.values()):
            self._dead.add(pair)
        else:
            self._dead.discard(pair)
        if any(verdict.state in _HINDERED and verdict.severity is Severity.WARNING for verdict in found.values()):
            self._hindered.add(pair)
        else:
            self._hindered.discard(pair)
        # A silent end may still be believed for a while, by a late event.
        if any(verdict.reason != _ALL_WELL for verdict in found.values()) or not self._silent.isdisjoint(pair):
            self._again[pair] = None
        else:
            self._again.pop(pair, None)
        return found

    def _forget_gone(self, fleet: Fleet) -> None:
        gone = [key for key in self._memory if not fleet.has(key[0]) or key[1] not in fleet.paths_of(key[0])]
        for key in gone:
            del self._memory[key]
            self.verdicts.pop(key, None)
            self._again.pop(key[0], None)
            self._dead.discard(key[0])
            self._hindered.discard(key[0])
            self._changed.pop(key[0], None)

    def _judge(self, fleet: Fleet, pair: Pair, path: str, memory: _Memory, now: float) -> Verdict:
        a, b = pair
        ends = (fleet.believed(a, b, path, now), fleet.believed(b, a, path, now))
        states = (_settle(ends[0], memory, 0), _settle(ends[1], memory, 1))
        memory.traits.observe(ends)
        if (
            memory.verdict is not None
            and memory.verdict.reason == _ALL_WELL
            and states == _BOTH_UP
            and not any(
                end is not None
                and (end.link.relay in _INDIRECT or end.link.obstacle or end.link.large_lost_s is not None)
                for end in ends
            )
            and not memory.traits.slow()
            and not memory.traits.reordering(pair)
        ):
            return memory.verdict  # most links, most of the time
        down = (states[0] is LinkState.DOWN, states[1] is LinkState.DOWN)
        if down[0] != down[1]:
            state, reason = self._disagreement(pair, ends, 0 if down[0] else 1, states, memory, now)
        else:
            memory.disagree_since = None
            state, reason = _agreement(fleet, pair, ends, states, memory, now)
        severity, known = _SEVERITY[state], obstacles(pair, ends)
        if known and state in _CARRIES:
            severity = Severity.WARNING if severity is Severity.OK else severity
            reason = f"{reason}, but {known}"
        elif known:
            reason = f"{reason}, because {known}"
        evidence = () if state == "up" else tuple(_tell(node, seen, now) for node, seen in zip(pair, ends, strict=True))
        subject = f"{a}--{b}/{path}" if memory.verdict is None else memory.verdict.subject
        return follow(memory.verdict, "link", subject, state, severity, reason, evidence, now)

    def _disagreement(
        self, pair: Pair, ends: Ends, index: int, states: States, memory: _Memory, now: float
    ) -> tuple[str, str]:
        """End `index` says down and the other does not."""
        here, there = ends[index], ends[1 - index]
        node, other = pair[index], pair[1 - index]
        assert here is not None
        began = here.at - here.link.since_s
        seen = _says_down(node, here, now)
        if states[1 - index] not in _ALIVE or there is None:
            memory.disagree_since = None
            return "down", f"{seen}; {other} {'is silent' if there is None else 'never had a reply'}"
        if here.link.peer_state is LinkState.DOWN and there.at <= here.at:
            memory.disagree_since = None
            return "down", f"{seen}; {other} agrees, as {node} hears from it"
        if memory.disagree_since is None:
            memory.disagree_since = now
        if now - memory.disagree_since < self._confirm_within_s:
            # Not yet known to be more than the moment between two ends' words: the verdict stays.
            before = "unknown" if memory.verdict is None else memory.verdict.state
            return before, f"{seen}; waiting for {other}'s word"
        if (there.link.loss_10s or 0.0) >= _LOSES_NOW and there.at > began + self._confirm_within_s:
            # It carries, and loses so much that one end lost all of a burst. (An end is called degraded by the loss of
            # a minute: that may be over.)
            lossy = f"{seen}, {other} sees it {there.link.state.value}{_because(there.link)}"
            direction = memory.traits.one_way_loss(pair)
            return ("one-way-loss", f"{direction}; {lossy}") if direction else ("degraded", lossy)
        if there.link.state in _ALIVE and there.at > began + self._confirm_within_s:
            return "one-way", (
                f"{seen}, {other} sees it {there.link.state.value}: {node}'s probes or their replies get lost, "
                f"{other}'s do not; look for a filter on one side"
            )
        return "down", f"{seen}; no word from {other} since"


def proven(fleet: Fleet, pair: Pair, path: str, now: float, within_s: float) -> tuple[bool, str]:
    """Whether both ends had a reply over `path` within `within_s` and call it up or degraded; else (False, why not).

    Packets decide: an obstacle that they passed is none. Where they did not, it is the first that is told.
    """
    seen = (fleet.link(*pair, path), fleet.link(*pair[::-1], path))
    return proven_by(fleet, pair, path, seen, now, within_s)


def proven_by(fleet: Fleet, pair: Pair, path: str, words: Ends, now: float, within_s: float) -> tuple[bool, str]:
    """The same, by what the ends said last."""
    a, b = pair
    missing = [
        why
        for node, peer, seen in ((a, b, words[0]), (b, a, words[1]))
        if (why := _unproven_end(fleet, node, peer, path, seen, now, within_s))
    ]
    if not missing:
        return True, ""
    ends = (fleet.believed(*pair, path, now), fleet.believed(*pair[::-1], path, now))
    known, seen = obstacles(pair, ends), "; ".join(missing)
    return False, f"{known} ({seen})" if known else seen


def obstacles(pair: Pair, ends: Ends) -> str:
    """What the ends know to be in the way, each with its host and remedy; "" when neither knows any."""
    return "; ".join(
        f"{node}: {seen.link.obstacle}"
        for node, seen in zip(pair, ends, strict=True)
        if seen is not None and seen.link.obstacle
    )


def _unproven_end(
    fleet: Fleet, node: str, peer: str, path: str, seen: LinkSeen | None, now: float, within_s: float
) -> str:
    """What is missing at `node`, "" when nothing is."""
    state = fleet.nodes.get(node)
    if state is None or state.first_seen is None:
        return f"{node} was never heard"
    if state.said_goodbye:
        return f"{node} is offline"
    if seen is None:
        return f"{node} has not told of {peer} over {path}"
    if now - seen.at > fleet.silent_after(state):
        return f"{node} is silent for {seconds(now - seen.at)}"
    if seen.link.state in (LinkState.DOWN, LinkState.SUSPECT):
        return f"{node} sees {path} {seen.link.state.value}" + (f" ({seen.link.reason})" if seen.link.reason else "")
    if seen.link.state is LinkState.UNKNOWN or seen.link.proven_s is None:
        return f"{node} never had a reply from {peer} over {path}"
    age = seen.link.proven_s + (now - seen.at)
    if age < within_s:
        return ""
    offer = state.path_offer(path)
    if offer is not None and offer.metered:
        within_s = max(within_s, _METERED_PROBES * offer.idle_interval_s)
    if age < within_s:
        return ""
    return f"{node} had its last reply over {path} {seconds(age)} ago, wanted within {seconds(within_s)}"


def _is_silent(fleet: Fleet, state: NodeState, now: float) -> bool:
    return state.report_at is None or now - state.report_at > fleet.silent_after(state)


def _settle(seen: LinkSeen | None, memory: _Memory, index: int) -> LinkState | None:
    """The end's state, with `suspect` replaced by what it was before; None while silent."""
    if seen is None:
        memory.settled[index] = None
        return None
    if seen.link.state is LinkState.SUSPECT:
        # A suspect link had replies before: suspicion starts from up or degraded.
        return memory.settled[index] or LinkState.UP
    memory.settled[index] = seen.link.state
    return seen.link.state


def _agreement(fleet: Fleet, pair: Pair, ends: Ends, states: States, memory: _Memory, now: float) -> tuple[str, str]:
    """Both ends say down, or none does."""
    if states[0] is LinkState.DOWN:
        assert ends[0] is not None
        assert ends[1] is not None
        # The end that has known it longer tells it.
        first = 0 if ends[0].at - ends[0].link.since_s <= ends[1].at - ends[1].link.since_s else 1
        told = ends[first]
        assert told is not None
        words = f"{_says_down(pair[first], told, now)}; {pair[1 - first]} agrees"
        passes = memory.traits.passes(pair)
        if passes:
            return "one-way", f"{words}; {passes}"
        direct = _direct_but_dead(pair, ends, now)
        return ("direct-but-dead", f"{words}; {direct}") if direct else ("down", words)
    silent = [node for node, state in zip(pair, states, strict=True) if state is None]
    if len(silent) == 2:
        return "unknown", "neither end tells"
    without = [node for node, state in zip(pair, states, strict=True) if state is LinkState.UNKNOWN]
    if without:
        return "unproven", f"{' and '.join(without)} never had a reply over it"
    tail = f"; {silent[0]} is silent" if silent else ""
    found = _impaired(fleet, pair, ends, states, memory, now)
    if found is not None:
        return found[0], found[1] + tail
    if silent:
        return "up", f"{pair[0] if silent[0] == pair[1] else pair[1]} sees it up{tail}"
    return "up", _ALL_WELL


def _impaired(
    fleet: Fleet, pair: Pair, ends: Ends, states: States, memory: _Memory, now: float
) -> tuple[str, str] | None:
    """How a link that carries does it badly; None: it does not."""
    traits, was = memory.traits, memory.verdict
    slow = traits.slow()
    step = f"; {slow}" if slow else ""
    worse = "; ".join(
        f"{node} sees it degraded{_because(seen.link)}"
        for node, seen, state in zip(pair, ends, states, strict=True)
        if seen is not None and state is LinkState.DEGRADED
    )
    if hole := traits.black_hole(pair, ends, now):
        return "black-hole", hole
    if relayed := _reached(pair, ends, _RELAYED):
        return "relayed", "; ".join([*relayed, worse] if worse else relayed) + step
    if riding := _reached(pair, ends, {Relay.RIDING_BACKUP: _RIDING}):
        return "riding-backup", "; ".join([*riding, worse] if worse else riding) + step
    excusable = was is None or was.state not in _FAULTS or now - was.since <= _EXCUSED_S
    if excusable and (worse or slow):
        for node in pair:
            if overload := _overload(fleet, node, now):
                what = "; ".join(each for each in (worse, slow) if each)
                return "overloaded", f"{node} is slow to answer, since it is overloaded: {overload}; {what}"
    if worse:
        direction = traits.one_way_loss(pair)
        return ("one-way-loss", f"{direction}; {worse}{step}") if direction else ("degraded", worse + step)
    if slow:
        return "slow", f"{slow}, though nothing is lost: another route, or a queue that fills"
    if reordering := traits.reordering(pair):
        return "reordering", reordering
    return None


def _reached(pair: Pair, ends: Ends, ways: dict[Relay, str]) -> list[str]:
    return [
        f"{node} reaches {peer} {ways[seen.link.relay]}"
        for (node, peer), seen in zip((pair, pair[::-1]), ends, strict=True)
        if seen is not None and seen.link.relay in ways
    ]


def _overload(fleet: Fleet, node: str, now: float) -> str:
    """That the node's machine is too busy to answer in time, as its own newest report has it; "" when it is not."""
    state = fleet.nodes.get(node)
    if state is None or state.report_at is None or now - state.report_at > fleet.silent_after(state):
        return ""
    report = state.report
    if report is None or report.system is None:
        return ""
    system = report.system
    tasks = (system.runnable or 0) / system.cores
    starved = system.psi_cpu is not None and system.psi_cpu.some >= _STARVED
    if not (report.lag_s >= _LATE_S or tasks >= _TASKS_PER_CORE or starved):
        return ""
    words = [f"its own report says load {system.load1:.0f} on {system.cores} cores"]
    words += [f"its agent is {report.lag_s:.1f} s late"] if report.lag_s >= _LATE_S else []
    return ", ".join(words)


def _direct_but_dead(pair: Pair, ends: Ends, now: float) -> str:
    for (node, peer), seen in zip((pair, pair[::-1]), ends, strict=True):
        if seen is not None and seen.link.relay is Relay.DIRECT and seen.link.since_s + now - seen.at >= _TRUSTED_S:
            return f"direct but dead: {node}'s Tailscale calls {peer} direct, and no packet of ours passes"
    return ""


def _says_down(node: str, seen: LinkSeen, now: float) -> str:
    return f"{node} sees it down for {seconds(seen.link.since_s + now - seen.at)}{_because(seen.link)}"


def _because(link: Link) -> str:
    return f": {link.reason}" if link.reason else ""


def _tell(node: str, seen: LinkSeen | None, now: float) -> str:
    """One end's own words, as evidence."""
    if seen is None:
        return f"{node}: silent, or has not told"
    link = seen.link
    words = [f"{node}: {link.state.value} for {seconds(link.since_s + now - seen.at)}"]
    if link.reason:
        words.append(link.reason)
    if link.relay is not None:
        words.append(link.relay.value)
    if link.rtt_s is not None:
        words.append(f"round trip {link.rtt_s * 1000:.0f} ms")
    if link.loss_60s is not None:
        words.append(f"{link.loss_60s:.0%} lost in 60 s")
    if link.proven_s is not None:
        words.append(f"last reply {seconds(link.proven_s + now - seen.at)} ago")
    return ", ".join(words)
