"""Which nodes live, and whether the controller is fit to say so.

| a node's state | its reports | its peers |
| --- | --- | --- |
| fresh, late | in time; overdue by a little | not asked |
| offline | ended by a clean goodbye | not asked |
| cut off | silent | one still gets its probes answered |
| node down | silent | all that probe it say down, on every path |
| unknown | silent | none can tell, or the controller is in doubt about itself |
| rebooted | in time, of another boot than before, and it had not said goodbye | not asked |
| duplicate | of two agents of this name, by turns; or each silent for a while | not asked |
| cloned | in time, of two machines with one machine id | not asked |

Patience follows evidence, as in Lifeguard (memberlist): the more sites from which no path reaches a silent node, the
sooner it is down; and a controller that is late with its own work waits longer for others (`Fleet.patience`).

The observer is doubted first: with its broker session gone, just back, or much of the fleet silent at one moment, the
likelier cause is its own uplink, and no node is declared down.
"""

from __future__ import annotations

import math
from typing import Final

from vagus_controller.config import Config
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.node import DEFAULT_INTERVAL_S, LinkSeen, NodeState
from vagus_controller.core.verdict import Verdict, follow, seconds, some
from vagus_controller.views import Severity
from vagus_protocol.messages import LinkState

# A silent node counts as alive when a peer had its reply within this, and two idle probes of a slow (metered) path.
_REACHED_WITHIN_S: Final = 5.0
# Silences that began within so many report intervals of each other began at once.
_AT_ONCE_INTERVALS: Final = 2.0
# From so many sites, patience is the shortest: that of being late.
_MOST_WITNESSES: Final = 3
# For so long, in report intervals, a new boot is not judged, nor after the earlier one has spoken again: two agents of
# one name are told from a reboot by their turns.
_REBOOT_INTERVALS: Final = 3.5
_REBOOTED_S: Final = 20.0

_SEVERITY: Final = {
    "fresh": Severity.OK,
    "late": Severity.INFO,
    "offline": Severity.INFO,
    "cut off": Severity.WARNING,
    "node down": Severity.CRITICAL,
    "unknown": Severity.UNKNOWN,
    "rebooted": Severity.WARNING,
    "cloned": Severity.WARNING,
    "duplicate": Severity.CRITICAL,
}
_IN_DOUBT: Final = ("blind", "settling")


def witnesses(fleet: Fleet, node: str, now: float) -> tuple[bool | None, list[str]]:
    """Whether `node`'s fresh peers reach it (None: they cannot tell), and what each says."""
    reached = False
    unreached = False
    contradicted = False
    said: list[str] = []
    for witness in fleet.fresh_watchers(node, now):
        words = []
        alive = dead = False
        for seen in witness.links_to(node):
            link = seen.link
            words.append(f"{link.path} {link.state.value}")
            if link.state in (LinkState.UP, LinkState.DEGRADED):
                alive = True
                age = answered(witness, seen, now)
                if age is not None:
                    reached = True
                    words[-1] += f", answered {seconds(age)} ago"
            elif link.state in (LinkState.DOWN, LinkState.SUSPECT):
                dead = True
        if not words:
            continue
        said.append(f"{witness.name}: {'; '.join(words)}")
        contradicted = contradicted or alive
        unreached = unreached or (dead and not alive)
    if reached:
        return True, said
    if contradicted or not unreached:
        return None, said
    return False, said


def answered(witness: NodeState, seen: LinkSeen, now: float) -> float | None:
    """How long ago the witness had its newest reply over a path; None: it had none, or none that still counts."""
    if seen.link.proven_s is None:
        return None
    age = seen.link.proven_s + (now - seen.at)
    offer = witness.path_offer(seen.link.path)
    within = _REACHED_WITHIN_S + (2 * offer.idle_interval_s if offer is not None else 0.0)
    return age if age <= within else None


def _patience(fleet: Fleet, state: NodeState, now: float) -> float:
    """How long a node may be silent: as long as configured while nobody can tell, down to that of being late as
    witnesses at more and more sites reach it on no path."""
    least, most = fleet.late_after(state) * fleet.patience, fleet.silent_after(state) * fleet.patience
    if state.lost_connection:
        # A last will makes late silent at once; alone it proves nothing.
        return least
    sites = set()
    for witness in fleet.fresh_watchers(state.name, now):
        links = [link.state for link, _ in witness.links_to(state.name)]
        if any(link in (LinkState.UP, LinkState.DEGRADED) for link in links):
            return most
        if links and all(link in (LinkState.DOWN, LinkState.SUSPECT) for link in links):
            # Of one site they share what may be wrong.
            sites.add(witness.site or witness.name)
    share = math.log(len(sites) + 1) / math.log(_MOST_WITNESSES + 1)
    return max(least, most - (most - least) * min(share, 1.0))


class Liveness:
    """`verdicts`: of every node, as of the last `evaluate`; `news`: those that it changed."""

    def __init__(self, config: Config) -> None:
        self._controller_name = config.name
        self._blind_share = config.liveness.blind_share
        self.verdicts: dict[str, Verdict] = {}
        self.news: list[Verdict] = []
        self._not_fresh: set[str] = set()
        # those whose machine rebooted a moment ago
        self._booted: set[str] = set()
        self._stirs = 0
        self._controller: Verdict | None = None
        self._controller_at: float | None = None

    def reconfigure(self, blind_share: float) -> None:
        self._blind_share = blind_share

    # --- nodes ---------------------------------------------------------------------------------------------------

    def evaluate(self, fleet: Fleet, now: float) -> dict[str, Verdict]:
        """`verdicts`, brought up to date. Work is done only for nodes that are, or may be, not fresh."""
        doubt = self.controller(fleet, now)
        names, self._stirs = fleet.stirred(self._stirs)
        overdue = [state.name for state in fleet.overdue(now)]
        self.news = []
        # A reboot is judged some seconds after it was seen.
        for name in dict.fromkeys((*overdue, *self._not_fresh, *names, *self._booted)):
            before = self.verdicts.get(name)
            verdict = self._judge(fleet, fleet.nodes[name], before, doubt, now)
            if verdict is not before:
                self.verdicts[name] = verdict
                self.news.append(verdict)
            self._wait_for(fleet.nodes[name], now)
            if verdict.state == "fresh":
                self._not_fresh.discard(name)
            else:
                self._not_fresh.add(name)
        return self.verdicts

    def _wait_for(self, state: NodeState, now: float) -> None:
        until = _REBOOT_INTERVALS * state.interval_s + _REBOOTED_S
        if state.rebooted_at is not None and now - state.rebooted_at <= until:
            self._booted.add(state.name)
        else:
            self._booted.discard(state.name)

    def _judge(self, fleet: Fleet, state: NodeState, previous: Verdict | None, doubt: Verdict, now: float) -> Verdict:
        name = state.name
        found, reason, evidence = "fresh", "reports in time", some([])
        if state.rivals is not None and state.rivals.last(state.interval_s, now):
            # Each is heard seldom, and what the last one says of itself is not what the other's peers see.
            found = "duplicate"
            reason = f"two agents report as {name}, {state.rivals.words}: give one of them another name"
        elif fleet.is_fresh(state, now):
            odd = _odd(fleet, state, now)
            if odd is not None:
                found, reason = odd
            elif previous is not None and previous.state == "fresh":
                return previous
        else:
            found, reason, evidence = _overdue(fleet, state, doubt, now)
        return follow(previous, "liveness", name, found, _SEVERITY[found], reason, evidence, now)

    # --- the observer --------------------------------------------------------------------------------------------

    def controller(self, fleet: Fleet, now: float) -> Verdict:
        """connected, settling (just connected: too early to miss anyone) or blind."""
        if self._controller is None or self._controller_at != now:
            state, severity, reason, evidence = self._observe(fleet, now)
            self._controller = follow(
                self._controller, "controller", self._controller_name, state, severity, reason, evidence, now
            )
            self._controller_at = now
        return self._controller

    def _observe(self, fleet: Fleet, now: float) -> tuple[str, Severity, str, tuple[str, ...]]:
        if fleet.session_at is None:
            return "blind", Severity.CRITICAL, "not connected to a broker yet", ()
        lasted = now - fleet.session_at
        if not fleet.connected:
            reason = f"no broker session for {seconds(lasted)}: {fleet.session_reason}"
            return "blind", Severity.CRITICAL, reason, ()
        if lasted < fleet.most_interval_s and lasted < max(
            (state.interval_s for state in fleet.nodes.values() if _is_online(state)), default=DEFAULT_INTERVAL_S
        ):
            return (
                "settling",
                Severity.INFO,
                f"listens for {seconds(lasted)} ({fleet.session_reason}); the nodes' reports are on their way",
                (),
            )
        hushed = self._silent_at_once(fleet, now)
        if hushed:
            names, of = hushed
            reason = f"{len(names)} of {of} nodes fell silent at once: more likely our own uplink than all of them"
            return "blind", Severity.CRITICAL, reason, some([f"silent: {name}" for name in names])
        return "connected", Severity.OK, "connected to the broker, and the fleet is heard", ()

    def _silent_at_once(self, fleet: Fleet, now: float) -> tuple[list[str], int] | None:
        """The largest group of nodes whose silence began within one window, and of how many, when it is too large."""
        silent = []
        for state in fleet.overdue(now):
            if _is_online(state) and now - _waited_since(fleet, state) > fleet.silent_after(state):
                silent.append((_heard(state), state.name, state.interval_s))
        if len(silent) < 2:
            return None
        silent.sort()
        window = _AT_ONCE_INTERVALS * max(interval for _, _, interval in silent)
        talking = sum(_is_online(state) for state in fleet.nodes.values()) - len(silent)
        first = 0
        best: tuple[int, int] | None = None
        for last, (heard, _, _) in enumerate(silent):
            while heard - silent[first][0] > window:
                first += 1
            # Those that were silent long before are no part of what fell silent at this moment.
            count, of = last - first + 1, talking + len(silent) - first
            if count >= 2 and count >= self._blind_share * of and (best is None or count > best[1] - best[0]):
                best = (first, last + 1)
        if best is None:
            return None
        names = sorted(name for _, name, _ in silent[best[0] : best[1]])
        return names, talking + len(silent) - best[0]


def _is_online(state: NodeState) -> bool:
    """Whether its reports are to be expected."""
    if state.first_seen is None or state.said_goodbye:
        return False
    # A last will from before our time is no node that we lost.
    return not (state.lost_connection and state.report_at is None)


def _waited_since(fleet: Fleet, state: NodeState) -> float:
    """From when the node's next report is due: when it was heard, or we connected."""
    return max(_heard(state), fleet.session_at or 0.0)


def _heard(state: NodeState) -> float:
    """When the node last reported; before its first report, when we first heard of it."""
    return (state.report_at if state.report_at is not None else state.presence_at) or 0.0


def _odd(fleet: Fleet, state: NodeState, now: float) -> tuple[str, str] | None:
    """(state, reason) of a node that reports in time, and yet is not as it should be."""
    if state.rebooted_at is not None:
        told_at = state.rebooted_at + _REBOOT_INTERVALS * state.interval_s
        heard = state.rebooted_at if state.rivals is None else max(state.rebooted_at, state.rivals.heard_at)
        if heard + _REBOOT_INTERVALS * state.interval_s <= now <= told_at + _REBOOTED_S:
            return "rebooted", (
                f"its machine rebooted without a goodbye, and was away for {seconds(state.away_s)}: power, watchdog, "
                "or a kernel that stopped"
            )
    clones = fleet.clones.get(state.name)
    if clones:
        return "cloned", (
            f"{', '.join(clones)} on another machine has the same /etc/machine-id: a cloned SD card; give one of them "
            "a new one (systemd-machine-id-setup, after removing the file) and new SSH host keys"
        )
    return None


def _overdue(fleet: Fleet, state: NodeState, doubt: Verdict, now: float) -> tuple[str, str, tuple[str, ...]]:
    """(state, reason, evidence) of a node that is not fresh."""
    if state.said_goodbye:
        assert state.presence is not None
        return "offline", f"its agent said goodbye: {state.presence.reason or 'stopped'}", ()
    every = f"expected every {seconds(state.interval_s)}"
    if state.report_at is None:
        last = "has not reported"
    else:
        last = f"last report {seconds(now - state.report_at)} ago, {every}"
    patience = _patience(fleet, state, now)
    waited = now - _waited_since(fleet, state)
    if doubt.state not in _IN_DOUBT and waited <= patience:
        if state.report_at is not None and waited == now - state.report_at:
            return "late", last, ()
        return "unknown", f"{last}; none since the controller connected", ()
    if doubt.state in _IN_DOUBT:
        if state.report_at is not None and now - state.report_at <= patience:
            return "late", last, ()
        return "unknown", f"{last}; but the controller is {doubt.state}: {doubt.reason}", ()
    if state.lost_connection:
        last += "; the broker lost its connection"
    reached, said = witnesses(fleet, state.name, now)
    if reached:
        return "cut off", f"silent, but its peers still reach it: {last}", some(said)
    if reached is None:
        who = "its peers' words do not agree" if said else "no fresh peer probes it"
        return "unknown", f"silent, and {who}: {last}", some(said)
    return "node down", f"silent, and no peer reaches it on any path: {last}", some(said)
