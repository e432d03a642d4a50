"""Whether etcd has a quorum, from every voter's own endpoint.

| state | when |
| --- | --- |
| none | no node runs etcd |
| healthy | a majority does linearizable reads, and one more voter may fail (a lone member has none to spare) |
| at-risk | quorum stands (or is just electing), but one more failure loses it |
| churning | quorum stands, but its leader or term changed 3 times in 5 minutes; one election is normal |
| lost | no voter can read, and those that fail are too many for the rest to be a majority |
| unknown | too few voters are heard to say any of it |

Whatever the state, alarms, members that follow different leaders for longer than an election takes, nodes whose etcd is
of another cluster, and certificates that expire soon or do not name the service address are told, and are trouble.
`members.py` says what is behind it.

The election that ends a loss of quorum is the end of that, and no churn.

A linearizable read succeeds only with a quorum behind it, so one is proof that there is one; its absence proves loss
only where the silent voters could not be a majority of their own.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, Literal, NamedTuple

import msgspec

from vagus_controller.config import Config
from vagus_controller.core.detect import members
from vagus_controller.core.detect.liveness import witnesses
from vagus_controller.core.detect.members import Attention, Blamed, Timers
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.node import NodeState
from vagus_controller.core.verdict import RANK, Verdict, follow, seconds, some
from vagus_controller.views import MemberView, QuorumView, Severity, VerdictView
from vagus_protocol.messages import Etcd, EtcdMember

# etcd's default election timeout is 1 s, drawn from 1 to 2 s, and a split vote draws again; and what is heard of it is
# seconds old: an agent asks every 2 s, and reports every 2 s. Until then it is no trouble.
_ELECTION_S: Final = 6.0
_CHURN_CHANGES: Final = 3
_CHURN_WINDOW_S: Final = 300.0
_HISTORY_S: Final = 3600.0
# Bounds memory; far beyond what counts as churning.
_MAX_CHANGES: Final = 1000
# A lower term than the last one is believed (a restored cluster) when the higher one is unheard for this long.
_FORGET_TERM_S: Final = 60.0
# Members that follow different leaders for so long do not just learn of an election one after the other.
_SPLIT_S: Final = 8.0
# What an agent says before its first read: neither success nor failure.
_UNTRIED: Final = ("", "not tried yet")
# etcd's word to reads that wait while a leader is elected; the next one works.
_ELECTED: Final = "leader changed"

_SEVERITY: Final = {
    "none": Severity.OK,
    "healthy": Severity.OK,
    "at-risk": Severity.WARNING,
    "churning": Severity.WARNING,
    "lost": Severity.CRITICAL,
    "unknown": Severity.UNKNOWN,
}

# reads: part of a quorum; electing: answers, knows no leader or just learnt of one; failing: cannot read or does not
# answer, or its host is dead as its peers see it; unheard: we cannot tell.
Standing = Literal["reads", "electing", "failing", "unheard"]


class _Voter(NamedTuple):
    name: str
    node: str | None
    standing: Standing
    words: str
    # None unless the member's own endpoint answers now
    etcd: Etcd | None
    # why it does not take part, in a word or two; "" when that is not known
    brief: str = ""
    # not heard since we connected, and it has still time: our own absence, not its
    pending: bool = False


class Findings(msgspec.Struct, frozen=True):
    """What the verdict rests on. `impaired`: links between members that are not up, in words."""

    voters: tuple[_Voter, ...] = ()
    leader: str = ""
    term: int | None = None
    margin: int | None = None
    # node (or, without an agent, the member's own name) of every member, learners too
    members: tuple[str, ...] = ()
    impaired: tuple[str, ...] = ()
    # the links, "a--b/path", that carry members' traffic in a way that etcd's timers do not bear
    blamed: tuple[str, ...] = ()


class Quorum:
    def __init__(self, config: Config) -> None:
        self._subject = config.fleet
        quality = config.failover.quality
        self._timers = Timers(quality.etcd_heartbeat_s, quality.etcd_election_s)
        self._verdict: Verdict | None = None
        # the newest member list that a member gave, and of which cluster
        self._membership: tuple[EtcdMember, ...] = ()
        self._cluster = ""
        self._node_of: dict[str, str] = {}
        self._joined = members.Changes()
        self._member_nodes: frozenset[str] = frozenset()
        self._leadership: tuple[str, int] | None = None
        self._leadership_at = 0.0
        self._changes: deque[float] = deque(maxlen=_MAX_CHANGES)
        # those of them that no loss of quorum explains
        self._churn: deque[float] = deque(maxlen=_MAX_CHANGES)
        self._leaderless_since: float | None = None
        # since when a member that is needed is electing
        self._electing_since: float | None = None
        # since when members follow different leaders
        self._split_since: float | None = None
        self.findings = Findings()

    def members(self, fleet: Fleet) -> frozenset[str]:
        """The nodes whose etcd votes, as of the last `evaluate`."""
        return self._member_nodes

    def missing(self) -> frozenset[str]:
        """Those of them that are no part of a quorum."""
        return frozenset(voter.node for voter in self.findings.voters if voter.node and voter.standing != "reads")

    def evaluate(self, fleet: Fleet, now: float) -> Verdict:
        hosts = [state for state in fleet.nodes.values() if state.runs_etcd]
        if not (hosts or self._membership) and self._verdict is not None and self._verdict.state == "none":
            return self._verdict
        heard = {state.name: etcd for state in hosts if (etcd := _heard(fleet, state, now)) is not None}
        self._learn_membership(hosts, heard, now)
        voters = self._listen(fleet, hosts, now)
        self._member_nodes = frozenset(voter.node for voter in voters if voter.node is not None)
        self._follow_leadership(voters, now)
        state, reason, margin = self._judge(voters, now)
        severity, evidence = _SEVERITY[state], [f"{voter.name}: {voter.words}" for voter in voters]
        if state == "healthy" and any(voter.standing != "reads" for voter in voters):
            severity = Severity.WARNING
        if self._is_election(voters, now) and state in ("healthy", "at-risk"):
            severity = Severity.INFO
        nodes = sorted(self._member_nodes)
        well = state in ("none", "healthy") and severity in (Severity.OK, Severity.INFO)
        impaired = [] if well else members.impaired(fleet, nodes, now)
        blamed = [] if well else members.unbearable(fleet, nodes, self._timers, now)
        if not well:
            reason, behind = self._explain(fleet, state, reason, voters, blamed, now)
            evidence += behind
        strangers = self._strangers(heard)
        evidence += list(strangers.values()) + impaired + self._learners(heard) + self._joined.words(now)
        split = self._split(voters, now)
        evidence += split
        apart = [text for node, text in strangers.items() if self._is_apart(heard[node])]
        for attention in self._attention(fleet, voters, split, apart, now):
            severity = max(severity, attention.severity, key=RANK.index)
            reason += f"; {attention.text}"
            evidence += [f"{attention.text}: {attention.remedy}"] * bool(attention.remedy)
        leader, term = self._leadership if self._leadership is not None else ("", None)
        self.findings = Findings(
            voters=tuple(voters),
            leader=self._name(leader) if any(voter.standing == "reads" for voter in voters) else "",
            term=term,
            margin=margin,
            members=self._all_members(voters),
            impaired=tuple(impaired),
            blamed=tuple(each.subject for each in blamed),
        )
        self._verdict = follow(self._verdict, "quorum", self._subject, state, severity, reason, some(evidence, 24), now)
        return self._verdict

    def take_news(self) -> list[str]:
        """Who joined the cluster or left it since it was called last."""
        news, self._joined.news = self._joined.news, []
        return news

    def view(self, fleet: Fleet, verdict: Verdict, now: float) -> QuorumView:
        """The last evaluation as the page shows it."""
        found = self.findings
        return QuorumView(
            verdict=VerdictView(
                kind=verdict.kind,
                subject=verdict.subject,
                state=verdict.state,
                severity=verdict.severity,
                reason=verdict.reason,
                evidence=verdict.evidence,
                since_s=max(now - verdict.since, 0.0),
            ),
            leader=found.leader,
            term=found.term,
            voters=len(found.voters),
            answering=sum(voter.etcd is not None for voter in found.voters),
            margin=found.margin,
            members=tuple(_member_view(fleet, name, now) for name in found.members),
            leader_changes_1h=sum(at > now - _HISTORY_S for at in self._changes),
        )

    # --- who votes -----------------------------------------------------------------------------------------------

    def _learn_membership(self, hosts: list[NodeState], heard: dict[str, Etcd], now: float) -> None:
        lists = [etcd for etcd in heard.values() if etcd.answering and etcd.members]
        if lists:
            self._cluster = self._choose_cluster(lists)
            lists = [etcd for etcd in lists if not self._is_apart(etcd)]
            newest = max(lists, key=lambda etcd: (etcd.read_s is not None, etcd.applied_index or 0))
            self._membership = newest.members
            if newest.read_s is not None:
                # Only who is part of a quorum knows; names are asked for before those who left are forgotten.
                self._name_members(hosts)
                self._joined.observe(self._membership, self._name, now)
        # A member that does not answer now does not tell its id: what it told before stands while it is a member.
        listed = {member.id for member in self._membership}
        self._node_of = {member: node for member, node in self._node_of.items() if member in listed}
        self._name_members(hosts)

    def _choose_cluster(self, lists: list[Etcd]) -> str:
        """That of most members. A node that began a cluster of its own reads, and is no proof of the one that it left:
        of as many it is the one that we knew."""
        backing = Counter(etcd.cluster_id for etcd in lists)
        reading = Counter(etcd.cluster_id for etcd in lists if etcd.read_s is not None)
        return max(backing, key=lambda each: (backing[each], each == self._cluster, reading[each], each))

    def _is_apart(self, etcd: Etcd) -> bool:
        """Whether it says to be of another cluster."""
        return bool(etcd.cluster_id and self._cluster and etcd.cluster_id != self._cluster)

    def _name_members(self, hosts: list[NodeState]) -> None:
        for state in hosts:
            etcd = _told(state)
            if etcd is not None and etcd.member_id and not self._is_apart(etcd):
                self._node_of[etcd.member_id] = state.name
        for member in self._membership:
            if member.id not in self._node_of:
                node = _match(member, hosts)
                if node:
                    self._node_of[member.id] = node

    def _listen(self, fleet: Fleet, hosts: list[NodeState], now: float) -> list[_Voter]:
        """Every voter and how it stands; while no member list is known, every node that runs etcd counts as one."""
        voters = []
        if not self._membership:
            for state in hosts:
                etcd = _told(state)
                if etcd is None or not etcd.learner:
                    voters.append(_stand(fleet, state.name, state, now))
            return voters
        for member in self._membership:
            if not member.learner:
                node = self._node_of.get(member.id)
                state_or_none = fleet.nodes.get(node) if node is not None else None
                voter = _stand(fleet, node or member.name or member.id, state_or_none, now)
                etcd = voter.etcd
                if etcd is not None and (self._is_apart(etcd) or etcd.member_id not in ("", member.id)):
                    # It answers and may read; but what it reads is none of this member's.
                    voter = _Voter(
                        voter.name, node, "failing", "its node runs another member", None, "runs another member"
                    )
                voters.append(voter)
        return sorted(voters, key=lambda voter: voter.name)

    def _strangers(self, heard: dict[str, Etcd]) -> dict[str, str]:
        """Nodes whose etcd is not, or no longer, a member of the cluster."""
        listed = {member.id for member in self._membership}
        return {
            node: f"{node}: its etcd is of another cluster ({etcd.cluster_id}), with data of its own"
            if self._is_apart(etcd)
            else f"{node}: its etcd is not a member of this cluster, and does not count"
            for node, etcd in heard.items()
            if listed and etcd.member_id and (self._is_apart(etcd) or etcd.member_id not in listed)
        }

    def _all_members(self, voters: list[_Voter]) -> tuple[str, ...]:
        if not self._membership:
            return tuple(voter.name for voter in voters)
        return tuple(sorted(self._name(member.id) for member in self._membership))

    def _name(self, member_id: str) -> str:
        """The member's node; without an agent its own name, or its id."""
        node = self._node_of.get(member_id)
        if node is not None:
            return node
        names = (member.name for member in self._membership if member.id == member_id)
        return next(names, "") or member_id

    def _learners(self, heard: dict[str, Etcd]) -> list[str]:
        most = max((etcd.applied_index or 0 for etcd in heard.values()), default=0)
        lines = []
        for member in self._membership:
            if member.learner:
                name = self._name(member.id)
                etcd = heard.get(self._node_of.get(member.id, ""))
                behind = most - (etcd.applied_index or 0) if etcd is not None and etcd.answering else None
                how = "does not answer" if behind is None else f"{behind} entries behind"
                lines.append(f"{name} is a learner, {how}: it does not vote")
        return lines

    # --- what is behind it ---------------------------------------------------------------------------------------

    def _explain(
        self, fleet: Fleet, state: str, reason: str, voters: list[_Voter], blamed: list[Blamed], now: float
    ) -> tuple[str, list[str]]:
        """The reason with what is behind it, and the evidence for that."""
        nodes = sorted(self._member_nodes)
        behind = [f"{each.text}; {self._timers.words()}" for each in blamed]
        behind += members.starved(fleet, nodes, now)
        missing = []
        for voter in voters:
            if voter.standing in ("failing", "unheard") and voter.node is not None:
                reached = members.reach(fleet, voter.node, now)
                behind += [f"{voter.name}: {reached}"] * bool(reached)
                full = members.full_disk(fleet, voter.node, now)
                words = ", ".join(part for part in (voter.brief, full, reached) if part)
                missing += [f"{voter.name}: {words}"] * bool(words)
        if missing and state in ("lost", "at-risk", "healthy"):
            reason += f" ({'; '.join(some(missing, 4))})"
        if state == "churning" or (state in ("at-risk", "lost") and blamed and not missing):
            if blamed:
                reason += f"; {'; '.join(each.text for each in blamed[:2])}: more than etcd's timers bear"
            elif behind:
                reason += f"; {behind[0]}"
            elif state == "churning":
                reason += "; no link, disk or load between its members explains it: etcd's own log would"
        return reason, behind

    def _split(self, voters: list[_Voter], now: float) -> list[str]:
        follows: dict[tuple[int, str], list[str]] = {}
        for voter in voters:
            if voter.etcd is not None and voter.etcd.leader_id:
                follows.setdefault((voter.etcd.term or 0, voter.etcd.leader_id), []).append(voter.name)
        lines = members.splits(follows, self._name)
        self._split_since = (now if self._split_since is None else self._split_since) if lines else None
        return lines

    def _attention(
        self, fleet: Fleet, voters: list[_Voter], split: list[str], apart: list[str], now: float
    ) -> list[Attention]:
        """What is trouble whatever the state."""
        found = members.alarms(alarm for voter in voters if voter.etcd is not None for alarm in voter.etcd.alarms)
        remedy = "one of the two is not wanted: remove its data, and let it join the other"
        found += [Attention(Severity.CRITICAL, text, remedy) for text in apart]
        # The views of one moment are not of one moment: reports are two seconds apart.
        if self._split_since is not None and now - self._split_since >= _SPLIT_S:
            found.append(Attention(Severity.WARNING, split[-1]))
        # Also of learners, and of members that do not answer: that may be why.
        for name in self._all_members(voters):
            state = fleet.nodes.get(name)
            etcd = _heard(fleet, state, now) if state is not None else None
            if etcd is not None:
                found += members.certificates(name, etcd.certificates)
        return found

    # --- the leader ----------------------------------------------------------------------------------------------

    def _follow_leadership(self, voters: list[_Voter], now: float) -> None:
        """Count changes of (leader, term) as the most advanced member sees them."""
        views = [
            (voter.etcd.term, voter.etcd.leader_id)
            for voter in voters
            if voter.etcd is not None and voter.etcd.leader_id and voter.etcd.term is not None
        ]
        if not views:
            return
        known = self._leadership
        if known is not None and (known[1], known[0]) in views:
            self._leadership_at = now
        term, leader = max(views)
        if known is None:
            self._leadership, self._leadership_at = (leader, term), now
        elif term > known[1] or (term == known[1] and (known[1], known[0]) not in views):
            self._leadership, self._leadership_at = (leader, term), now
            self._changes.append(now)
            if self._verdict is None or self._verdict.state != "lost":
                self._churn.append(now)
        elif term < known[1] and now - self._leadership_at > _FORGET_TERM_S:
            self._leadership, self._leadership_at = (leader, term), now

    def _is_election(self, voters: list[_Voter], now: float) -> bool:
        """Whether what is missing is but an election, and not for long."""
        missing = {voter.standing for voter in voters} - {"reads"}
        if "electing" not in missing:
            self._electing_since = None
            return False
        if self._electing_since is None:
            self._electing_since = now
        return missing == {"electing"} and now - self._electing_since < _ELECTION_S

    # --- the finding ---------------------------------------------------------------------------------------------

    def _judge(self, voters: list[_Voter], now: float) -> tuple[str, str, int | None]:
        """(state, reason, margin)"""
        count = len(voters)
        if not count:
            return "none", "no node runs etcd", None
        majority = count // 2 + 1
        by: dict[Standing, list[str]] = {"reads": [], "electing": [], "failing": [], "unheard": []}
        for voter in voters:
            by[voter.standing].append(voter.name)
        reads = len(by["reads"])
        wrong = (
            (by["failing"], "failing"),
            (by["electing"], "without a leader"),
            (by["unheard"], "unheard"),
        )
        trouble = "; ".join(f"{', '.join(names)} {words}" for names, words in wrong if names)
        if not reads:
            return self._without_reads(by, count, majority, trouble, now)
        self._leaderless_since = None
        tail = f"; {trouble}" if trouble else ""
        if reads + len(by["failing"]) + len(by["electing"]) < majority:
            return "unknown", f"a read works through {', '.join(by['reads'])}, but most members are unheard{tail}", None
        margin = max(reads - majority, 0)
        leader = self._name(self._leadership[0]) if self._leadership is not None else "unknown"
        churn = [at for at in self._churn if at > now - _CHURN_WINDOW_S]
        if len(churn) >= _CHURN_CHANGES:
            rate = f"one every {seconds((churn[-1] - churn[0]) / (len(churn) - 1))}"
            return "churning", f"{len(churn)} leader changes in 5 min ({rate}), now {leader}{tail}", margin
        pending = [voter.name for voter in voters if voter.pending]
        if not margin and pending and count > 1:
            heard = f"{reads} of {count} members read; {', '.join(pending)} not heard since the controller connected"
            return "unknown", heard, None
        if count == 1:
            return "healthy", f"the only member reads, and one member tolerates no failure{tail}", 0
        if margin:
            return "healthy", f"{reads} of {count} members read, {margin} more may fail, leader {leader}{tail}", margin
        return "at-risk", f"{reads} of {count} members read: one more failure loses quorum{tail}", 0

    def _without_reads(
        self, by: dict[Standing, list[str]], count: int, majority: int, trouble: str, now: float
    ) -> tuple[str, str, int | None]:
        failing, electing = len(by["failing"]), len(by["electing"])
        if count - failing - electing >= majority:
            self._leaderless_since = None
            return "unknown", f"only {failing + electing} of {count} members are heard: {trouble}", None
        if self._leaderless_since is None:
            self._leaderless_since = now
        lasted = now - self._leaderless_since
        was_lost = self._verdict is not None and self._verdict.state == "lost"
        if count - failing < majority or lasted >= _ELECTION_S or was_lost:
            return "lost", f"no member of {count} can read, {majority} must agree: {trouble}", 0
        return "at-risk", f"no leader for {seconds(lasted)}: an election, or quorum is going: {trouble}", 0


def _told(state: NodeState) -> Etcd | None:
    return state.report.etcd if state.report is not None else None


def _heard(fleet: Fleet, state: NodeState, now: float) -> Etcd | None:
    """What the node says of its member, unless its word is late."""
    return _told(state) if fleet.is_fresh(state, now) else None


def _stand(fleet: Fleet, name: str, state: NodeState | None, now: float) -> _Voter:
    if state is None:
        return _Voter(name, None, "unheard", "no agent of this fleet reports it", None)
    node = state.name
    etcd = _heard(fleet, state, now)
    if etcd is None:
        if state.said_goodbye:
            return _Voter(name, node, "unheard", "its agent said goodbye", None)
        if fleet.is_fresh(state, now):
            return _Voter(name, node, "unheard", "its agent does not tell of etcd yet", None)
        since = fleet.session_at
        if since is not None and (state.report_at or 0.0) < since and now - since <= fleet.silent_after(state):
            return _Voter(name, node, "unheard", "not heard since the controller connected", None, pending=True)
        reached, _ = witnesses(fleet, node, now)
        if reached is False:
            return _Voter(name, node, "failing", "its agent is silent and no peer reaches the node", None, "missing")
        return _Voter(name, node, "unheard", "its agent is silent", None)
    if not etcd.answering:
        words = f"does not answer: {etcd.reason or 'no reason given'}"
        return _Voter(name, node, "failing", words, None, members.absence(etcd))
    if etcd.age_s > etcd.patience_s:
        return _Voter(name, node, "failing", f"its last answer is {seconds(etcd.age_s)} old", None, "frozen")
    untried = etcd.read_s is None and etcd.read_error in _UNTRIED
    if etcd.read_s is None and etcd.read_error.endswith(_ELECTED):
        return _Voter(name, node, "electing", "answers, and its leader has just changed", etcd)
    if not etcd.leader_id:
        if etcd.read_s is None and not untried:
            return _Voter(name, node, "failing", f"no leader, and reads fail: {etcd.read_error}", etcd)
        return _Voter(name, node, "electing", "answers, but knows no leader", etcd)
    if untried:
        return _Voter(name, node, "unheard", "answers, but no read was tried yet", etcd)
    if etcd.read_s is None:
        return _Voter(name, node, "failing", f"reads fail: {etcd.read_error}", etcd)
    return _Voter(name, node, "reads", f"reads in {etcd.read_s * 1000:.0f} ms, term {etcd.term}", etcd)


def _match(member: EtcdMember, hosts: list[NodeState]) -> str:
    """The node of a member whose endpoint never told its id: by its name, or by its peer address; "" when none."""
    for state in hosts:
        if state.name == member.name:
            return state.name
    for state in hosts:
        for address in state.presence.addresses if state.presence is not None else ():
            bare = address.split("/")[0]
            host = f"[{bare}]" if ":" in bare else bare
            if any(f"//{host}:" in url or url.endswith(f"//{host}") for url in member.peer_urls):
                return state.name
    return ""


def _member_view(fleet: Fleet, name: str, now: float) -> MemberView:
    state = fleet.nodes.get(name)
    etcd = _told(state) if state is not None else None
    if etcd is None or state is None or state.report_at is None:
        return MemberView(node=name, etcd=None, age_s=None)
    return MemberView(node=name, etcd=etcd, age_s=etcd.age_s + now - state.report_at)
