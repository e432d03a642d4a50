"""What every node said, and when we heard it.

Two rules decide what is believed. Within one session (one life of an agent process) the higher sequence number wins. Of
two sessions the one that was seen later wins, and an older one is taken again only when the newer has gone silent: so a
late report never undoes a newer one, and two machines with one name are found by their sessions' taking turns
(`rivals.py`).

`on_report` is the hot path: it keeps a report's bytes, to decode when asked; thousands of decoded ones fit no cache.

What changed is remembered per node, so that whoever judges the fleet need not look at all of it each time: `stirred`
names the nodes whose word changed anything but figures, `overdue` those that time alone may have changed.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from msgspec.structs import replace

from vagus_controller.config import Config
from vagus_controller.core.node import DEFAULT_INTERVAL_S, LAST_WILL, NO_SEQ, LinkSeen, NodeState
from vagus_controller.core.rivals import Rivals
from vagus_controller.views import Severity
from vagus_protocol.messages import Event, EventKind, Observed, Presence, Report

NoticeKind = Literal["joined", "offline", "restart", "reboot", "gap", "dropped", "duplicate", "refused", "session"]
Pair = tuple[str, str]

# The same notice about the same node is not repeated sooner.
_REPEAT_S: Final = 60.0
_OLD_SESSIONS: Final = 8
_MAX_NOTED: Final = 4096
# Retained births arrive at once after connecting and are no news.
_RETAINED_S: Final = 5.0


class Notice(NamedTuple):
    """Something worth a line in the history."""

    kind: NoticeKind
    subject: str
    text: str
    severity: Severity


class Fleet:
    """Every node's newest word. Methods that take a message return what is worth telling."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.connected = False
        # when our broker session last came or went; None: never yet
        self.session_at: float | None = None
        self.session_reason = ""
        self._expected = frozenset(config.nodes)
        self._nodes = {name: NodeState(name) for name in sorted(config.nodes)}
        self._sorted = True
        # counts changes of which pairs and paths there are
        self.topology = 0
        self._pairs: set[Pair] = set()
        self._sorted_pairs: list[Pair] | None = []
        self._paths: dict[Pair, list[str]] = {}
        # node → the peers that it names, with the paths it offers to each
        self._named: dict[str, dict[str, tuple[str, ...]]] = {}
        # node → the nodes that name it
        self._watchers: dict[str, set[str]] = {}
        # node → the count of stirs at its latest, in that order
        self._stirs: dict[str, int] = {}
        self._stir_count = 0
        # no node reports more often, none less
        self._least_interval_s = self.most_interval_s = DEFAULT_INTERVAL_S
        self._noted: dict[tuple[str, str], float] = {}
        # by how much our own lateness stretches our patience with nodes that are silent
        self.patience = 1.0
        # node → those with the same machine id that run on another machine
        self.clones: dict[str, tuple[str, ...]] = {}
        # machine id → the nodes that have it
        self._machines: dict[str, set[str]] = {}

    # --- what comes in -------------------------------------------------------------------------------------------

    def on_session(self, connected: bool, now: float, reason: str) -> tuple[Notice, ...]:
        """Our own broker session came or went."""
        if connected == self.connected and self.session_at is not None:
            return ()
        self.connected, self.session_at, self.session_reason = connected, now, reason
        if connected:
            return (Notice("session", self.config.name, f"connected to the broker: {reason}", Severity.INFO),)
        text = f"the controller's broker session is gone: {reason}"
        return (Notice("session", self.config.name, text, Severity.CRITICAL),)

    def on_sleep(self, slept_s: float, now: float) -> None:
        """We did nothing for so long: as good as a new session, since what is heard next was said in the meantime."""
        if self.connected:
            self.session_at, self.session_reason = now, f"after standing still for {slept_s:.0f} s"

    def on_report(self, report: Report, now: float, payload: bytes = b"") -> tuple[Notice, ...]:
        """`payload`: what the report was decoded from, where it is at hand."""
        state = self._nodes.get(report.node)
        if (
            state is not None
            and report.seq == state.seq + 1
            and report.session == state.session
            and report.boot_id == state.boot_id
            and report.dropped_events == state.dropped_events
            and state.says_only_figures(report)
        ):
            state.take(report, payload, now)
            return ()
        return self._on_unusual_report(report, now, payload)

    def _on_unusual_report(self, report: Report, now: float, payload: bytes) -> tuple[Notice, ...]:
        """First of its node or session, after a gap, out of order, or with links that changed."""
        notices: list[Notice] = []
        state = self._admit(report.node, now, notices)
        if state is None:
            return tuple(notices)
        if not self._takes_session(state, report.session, report.seq, report.boot_id, now, notices):
            return tuple(notices)
        if report.seq <= state.seq and not self._silent(state, now):
            return tuple(notices)
        lost = report.seq - state.seq - 1
        if state.seq >= 0 and lost > 0 and not self._deaf_since(state.report_at):
            state.lost_reports += lost
            if self._is_due("gap", state.name, now):
                text = f"{lost} report{'s' * (lost > 1)} lost on the way (sequence {state.seq} to {report.seq})"
                notices.append(Notice("gap", state.name, text, Severity.INFO))
        if report.dropped_events > state.dropped_events and self._is_due("dropped", state.name, now):
            text = f"the agent dropped {report.dropped_events - state.dropped_events} events from its full backlog"
            notices.append(Notice("dropped", state.name, text, Severity.WARNING))
        state.dropped_events = report.dropped_events
        state.take(report, payload, now)
        state.note(report)
        self._least_interval_s = min(self._least_interval_s, state.interval_s)
        self.most_interval_s = max(self.most_interval_s, state.interval_s)
        peers: dict[str, tuple[str, ...]] = {}
        for link in report.links:
            peers[link.peer] = (*peers.get(link.peer, ()), link.path)
        if not peers.items() <= state.known_peers.items():
            state.known_peers = {**state.known_peers, **peers}
            self._place(state)
        self._stir(state.name)
        return tuple(notices)

    def on_presence(self, presence: Presence, now: float) -> tuple[Notice, ...]:
        notices: list[Notice] = []
        state = self._admit(presence.node, now, notices)
        if state is None:
            return tuple(notices)
        before = state.presence
        if state.rivals is not None and presence.online and presence.session == state.session:
            state.rivals.spoke = False
        if before == presence:
            return tuple(notices)
        if presence.session in state._old_sessions and not presence.online:
            return tuple(notices)  # the last will of a session that was replaced
        if not self._takes_session(state, presence.session, NO_SEQ, presence.boot_id, now, notices):
            state._rival_presence = presence
            return tuple(notices)
        if presence.online or before is None:
            state.presence = presence
            self._place(state)
        else:
            # A will or goodbye may be bare: what the birth offered still stands.
            state.presence = replace(before, session=presence.session, online=False, reason=presence.reason)
        state.presence_at = now
        self._find_clones(before, state.presence)
        self._stir(state.name)
        if not presence.online and before is not None and before.online:
            severity = Severity.WARNING if presence.reason == LAST_WILL else Severity.INFO
            text = f"offline: {presence.reason or 'said goodbye'}"
            notices.append(Notice("offline", state.name, text, severity))
        return tuple(notices)

    def on_event(self, event: Event, now: float) -> tuple[Notice, ...]:
        """Take a link event's view of every path to one peer, when it is fresher than the report's."""
        notices: list[Notice] = []
        state = self._admit(event.node, now, notices)
        if state is None or event.kind is not EventKind.LINK or not event.peer or not event.links:
            return tuple(notices)
        if state.session == "":
            state.session = event.session
        if event.session != state.session:
            return tuple(notices)
        at = now - event.age_s
        told = state._events.get(event.peer)
        if event.seq <= (state.event_seq if told is None else told[0]):
            return tuple(notices)
        links = tuple(link for link in event.links if link.peer == event.peer)
        state._events[event.peer] = (event.seq, at, links)
        if state.offers(event.peer) is None:
            state.known_peers[event.peer] = tuple(link.path for link in links)
            self._place(state)
        self._stir(state.name)
        return tuple(notices)

    def on_observed(self, observed: Observed, now: float) -> tuple[Notice, ...]:
        notices: list[Notice] = []
        state = self._admit(observed.node, now, notices)
        if state is None:
            return tuple(notices)
        last = state.observed
        # What a replaced session said last may come late, but never with a greater term: such a word is the agent's
        # own, and somebody else has spoken under its name.
        newer = last is None or (observed.epoch, observed.generation) > (last.epoch, last.generation)
        if newer or observed.session not in state._old_sessions:
            state.observed = observed
            self._stir(state.name)
        return tuple(notices)

    # --- what is asked -------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[str, NodeState]:
        """Every node, by name, sorted."""
        if not self._sorted:
            self._nodes = dict(sorted(self._nodes.items()))
            self._sorted = True
        return self._nodes

    def interval(self, node: str) -> float:
        """Seconds between the node's reports, as it says."""
        state = self._nodes.get(node)
        return DEFAULT_INTERVAL_S if state is None else state.interval_s

    def late_after(self, state: NodeState) -> float:
        return self.config.liveness.late_intervals * state.interval_s

    def silent_after(self, state: NodeState) -> float:
        return self.config.liveness.silent_intervals * state.interval_s

    def is_fresh(self, state: NodeState, now: float) -> bool:
        """Its newest report is in time, and no goodbye came since."""
        if state.report_at is None or state.said_goodbye:
            return False
        return now - state.report_at <= self.late_after(state)

    def link(self, node: str, peer: str, path: str) -> LinkSeen | None:
        """The newest that `node` said of its link to `peer` over `path`, however old."""
        state = self._nodes.get(node)
        return None if state is None else state.link(peer, path)

    def believed(self, node: str, peer: str, path: str, now: float) -> LinkSeen | None:
        """`link`, unless the node said goodbye or its word is so old that it counts as silent."""
        state = self._nodes.get(node)
        if state is None:
            return None
        seen = state.link(peer, path)
        if seen is None or now - seen.at > self.silent_after(state) or state.said_goodbye:
            return None
        return seen

    def proven_age(self, node: str, peer: str, path: str, now: float) -> float | None:
        """Seconds since `node` had its newest reply from `peer` over `path`; None: no reply that we know of."""
        seen = self.link(node, peer, path)
        if seen is None or seen.link.proven_s is None:
            return None
        return seen.link.proven_s + (now - seen.at)

    def pairs(self) -> list[Pair]:
        """Every (a, b), a < b, where at least one names the other as a peer; sorted."""
        if self._sorted_pairs is None:
            self._sorted_pairs = sorted(self._pairs)
        return self._sorted_pairs

    def has(self, pair: Pair) -> bool:
        return pair in self._pairs

    def pairs_of(self, node: str) -> list[Pair]:
        """The pairs that `node` is in."""
        peers = self._named.get(node, {}).keys() | self._watchers.get(node, set())
        return [(node, peer) if node < peer else (peer, node) for peer in peers]

    def paths_of(self, pair: Pair) -> list[str]:
        """The paths that both ends name, in a's order of rungs; one end's own while the other has not told."""
        found = self._paths.get(pair)
        if found is None:
            found = self._find_paths(pair)
            if pair in self._pairs:
                self._paths[pair] = found
        return found

    def watchers(self, node: str) -> list[str]:
        """The nodes that name `node` as a peer; sorted."""
        return sorted(self._watchers.get(node, ()))

    def fresh_watchers(self, node: str, now: float) -> list[NodeState]:
        """Those of them that can tell of it."""
        watchers = (self._nodes.get(name) for name in self.watchers(node))
        return [state for state in watchers if state is not None and self.is_fresh(state, now)]

    def stirred(self, since: int) -> tuple[list[str], int]:
        """The nodes of which anything but figures changed since an earlier call gave that number (at first: 0); and the
        number for the next call."""
        names = []
        for name, count in reversed(self._stirs.items()):
            if count <= since:
                break
            names.append(name)
        return names, self._stir_count

    def overdue(self, now: float) -> list[NodeState]:
        """Every node that may be late, or never reported; those that are left out are not."""
        limit = now - self.config.liveness.late_intervals * self._least_interval_s
        return [state for state in self._nodes.values() if state.report_at is None or state.report_at < limit]

    # --- inside --------------------------------------------------------------------------------------------------

    def _admit(self, name: str, now: float, notices: list[Notice]) -> NodeState | None:
        """The node's state, made at first sight; None, with a notice, when the configuration does not list it."""
        state = self._nodes.get(name)
        if state is None:
            if self._expected:
                if self._is_due("refused", name, now):
                    text = f"refused: {name} is not in this controller's `nodes`; add it there, or stop its agent"
                    notices.append(Notice("refused", name, text, Severity.WARNING))
                return None
            state = self._nodes[name] = NodeState(name)
            self._sorted = False
        if state.first_seen is None:
            state.first_seen = now
            self._place(state)
            self._stir(name)
            if self.connected and self.session_at is not None and now - self.session_at > _RETAINED_S:
                notices.append(Notice("joined", name, f"{name} is heard for the first time", Severity.INFO))
        return state

    def _takes_session(
        self, state: NodeState, session: str, seq: int, boot_id: str, now: float, notices: list[Notice]
    ) -> bool:
        """Whether a message of `session` is the node's newest word; moves the node to a newer session."""
        back = session != state.session and session in state._old_sessions
        if back:
            new = seq > state._old_sessions[session]
            if new or seq == NO_SEQ:
                self._hear_rival(state, session, boot_id, now, notices)
            if not self._silent(state, now):
                state._old_sessions[session] = max(seq, state._old_sessions[session])
                return False
            if new and state.rivals is not None:
                state.rivals.believed()
            del state._old_sessions[session]
        if session != state.session:
            known = state.session != ""
            if known:
                state._old_sessions[state.session] = state.seq
                while len(state._old_sessions) > _OLD_SESSIONS:
                    del state._old_sessions[next(iter(state._old_sessions))]
            state.session, state.session_at = session, now
            state.seq = NO_SEQ
            state.dropped_events = state.event_seq = 0
            state.known_peers = {}
            state._events = {}
            if state._rival_presence is not None and state._rival_presence.session == session:
                state.presence, state.presence_at, state._rival_presence = state._rival_presence, now, None
            self._place(state)
            if known and not back and (not boot_id or boot_id == state.boot_id):
                notices.append(Notice("restart", state.name, "the agent restarted", Severity.INFO))
        if boot_id and boot_id != state.boot_id:
            state.rebooted_at = None
            if boot_id in state._old_boots:
                # A machine's earlier boot does not come back.
                if not back:
                    self._hear_rival(state, session, boot_id, now, notices)
            elif state.boot_id:
                clean, away_s = state.said_goodbye, now - max(state.report_at or 0.0, state.presence_at or 0.0)
                text = f"the machine rebooted, {'after a goodbye' if clean else 'without a goodbye'}"
                notices.append(Notice("reboot", state.name, text, Severity.INFO if clean else Severity.WARNING))
                if not clean and away_s <= self.silent_after(state):
                    # Else it was known to be away.
                    state.rebooted_at, state.away_s = now, away_s
            state._old_boots = (*state._old_boots, state.boot_id)[-_OLD_SESSIONS:]
            state.boot_id = boot_id
        return True

    def _hear_rival(self, state: NodeState, session: str, boot_id: str, now: float, notices: list[Notice]) -> None:
        """A session that was replaced has something new to say."""
        if state.rivals is None:
            state.rivals = Rivals()
        other_boot = bool(boot_id and state.boot_id and boot_id != state.boot_id)
        if state.rivals.heard(state.session_at, other_boot, now):
            self._stir(state.name)
            if self._is_due("duplicate", state.name, now):
                text = (
                    f"two agents report as {state.name} (sessions {state.session} and {session}; "
                    f"{state.rivals.words}): give one of them another name"
                )
                notices.append(Notice("duplicate", state.name, text, Severity.CRITICAL))

    def _silent(self, state: NodeState, now: float) -> bool:
        heard = max(state.report_at or 0.0, state.presence_at or 0.0)
        return now - heard > self.silent_after(state)

    def _deaf_since(self, heard_at: float | None) -> bool:
        """Our own session was interrupted since: what is missing may be our loss."""
        return heard_at is None or self.session_at is None or self.session_at > heard_at or not self.connected

    def _is_due(self, kind: str, name: str, now: float) -> bool:
        """Whether a repeating notice may be given again."""
        key = (kind, name)
        noted = self._noted.get(key)
        if noted is not None and now - noted < _REPEAT_S:
            return False
        if len(self._noted) >= _MAX_NOTED:
            self._noted = {other: at for other, at in self._noted.items() if now - at < _REPEAT_S}
            if len(self._noted) >= _MAX_NOTED:
                return False
        self._noted[key] = now
        return True

    def _stir(self, name: str) -> None:
        self._stirs.pop(name, None)
        self._stir_count += 1
        self._stirs[name] = self._stir_count

    def _place(self, state: NodeState) -> None:
        """Bring pairs and paths up to date with what the node names now; its neighbours' are as they were."""
        name = state.name
        before = self._named.get(name)
        offered = {offer.name for offer in state.presence.peers} if state.presence is not None else set()
        named = {
            peer: state.offers(peer) or ()
            for peer in offered.union(state.known_peers)
            if peer != name and (not self._expected or peer in self._expected)
        }
        if named == before:
            return
        self._named[name] = named
        self.topology += 1
        for peer in (before or {}).keys() - named.keys():
            self._watchers[peer].discard(name)
            if name not in self._named.get(peer, {}):
                pair = (name, peer) if name < peer else (peer, name)
                self._pairs.discard(pair)
                self._paths.pop(pair, None)
        for peer in named:
            self._watchers.setdefault(peer, set()).add(name)
        self._pairs.update(pairs := self.pairs_of(name))
        for pair in pairs:
            self._paths.pop(pair, None)
        self._sorted_pairs = None

    def _find_clones(self, before: Presence | None, after: Presence) -> None:
        """Bring `clones` up to date with a node's new presence. Two agents on one machine share its boot too."""
        for machine in {before.machine if before is not None else "", after.machine} - {""}:
            # A presence that was believed later, as a rival's, was never looked at here.
            known = self._machines.setdefault(machine, set())
            if machine == after.machine:
                known.add(after.node)
            else:
                known.discard(after.node)
                self.clones.pop(after.node, None)
            if not known:
                del self._machines[machine]
            said = {name: self._nodes[name].presence for name in known}
            found = {name: each for name, each in said.items() if each is not None and each.machine == machine}
            for name, mine in found.items():
                others = tuple(
                    sorted(
                        other.node
                        for other in found.values()
                        if other.node != name and other.boot_id != mine.boot_id and other.online
                    )
                )
                if others != self.clones.get(name, ()):
                    self.clones[name] = others
                    self._stir(name)

    def _find_paths(self, pair: Pair) -> list[str]:
        ends = [(self._nodes.get(node), peer) for node, peer in (pair, pair[::-1])]
        heard = [
            (state.offers(peer) or ()) if state is not None and state.first_seen is not None else None
            for state, peer in ends
        ]
        first, second = heard
        if first is None or second is None:
            return list(first or second or ())
        return [path for path in first if path in second]
