"""What is behind a quorum that is not well: the links between its members, their machines, their certificates, and who
joined or left.

etcd's own timers are the measure of a link: its leader speaks every heartbeat, and a member that hears nothing for an
election timeout starts an election. etcd's documentation wants a round trip of no more than a tenth of that; and TCP
sends again after 0.2, 0.6 and 1.4 s, so three lost in a row are an election.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from vagus_controller.core.detect.liveness import answered
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.node import LinkSeen
from vagus_controller.core.verdict import Verdict, ms, seconds
from vagus_controller.views import Severity
from vagus_protocol.messages import Certificate, Etcd, EtcdMember, LinkState, Relay

_RELAYED: Final = (Relay.DERP, Relay.PEER_RELAY)
_ROUND_TRIPS_IN_ELECTION: Final = 10.0
_HEARTBEATS: Final = 2.0
# Three of a row of messages are lost every few minutes at this share.
_LOSS: Final = 0.05
# A write waits for the disk: so long for one is beyond a heartbeat, as etcd's own warnings have it.
_DISK_S: Final = 0.1
_TASKS_PER_CORE: Final = 4.0
_PSI: Final = 0.6
# etcd ends when it cannot write its log.
_FULL: Final = 0.99
_EXPIRES_S: Final = 14 * 86_400.0
_URGENT_S: Final = 2 * 86_400.0
_REMEMBER_S: Final = 3600.0
_MOST_CHANGES: Final = 20


class Attention(NamedTuple):
    """`text`: for the reason; `remedy`: for the evidence, "" for none."""

    severity: Severity
    text: str
    remedy: str = ""


class Timers(NamedTuple):
    """etcd's --heartbeat-interval and --election-timeout."""

    heartbeat_s: float
    election_s: float

    @property
    def round_trip_s(self) -> float:
        return min(_HEARTBEATS * self.heartbeat_s, self.election_s / _ROUND_TRIPS_IN_ELECTION)

    def words(self) -> str:
        return (
            f"etcd's heartbeat of {ms(self.heartbeat_s)} and election timeout of {ms(self.election_s)} bear "
            f"{ms(self.round_trip_s)} and {_LOSS:.0%}"
        )


# --- what explains it ------------------------------------------------------------------------------------------------


class Blamed(NamedTuple):
    """A link, "a--b/path", and what of it etcd's timers do not bear."""

    subject: str
    text: str


def unbearable(fleet: Fleet, nodes: list[str], timers: Timers, now: float) -> list[Blamed]:
    """The pairs whose path in use has a round trip or a loss that etcd's timers do not bear, the worst first."""
    found = []
    for a, b, path in _paths(fleet, nodes):
        ends = [seen for node, peer in ((a, b), (b, a)) if (seen := fleet.believed(node, peer, path, now)) is not None]
        if not ends or not _carries(fleet, (a, b), path, ends):
            continue
        trip = max((end.link.rtt_s or 0.0 for end in ends), default=0.0)
        loss = max((end.link.loss_60s or 0.0 for end in ends if end.link.loss_10s), default=0.0)
        words = [f"RTT {ms(trip)}"] * (trip > timers.round_trip_s) + [f"{loss:.0%} lost"] * (loss >= _LOSS)
        if words:
            relayed = any(end.link.relay in _RELAYED for end in ends)
            text = f"{a}--{b}/{path}: {', '.join(words)}" + (", relayed" if relayed else "")
            found.append((trip / timers.round_trip_s + loss / _LOSS, Blamed(f"{a}--{b}/{path}", text)))
    return [blamed for _, blamed in sorted(found, key=lambda each: (-each[0], each[1]))]


def impaired(fleet: Fleet, nodes: list[str], now: float) -> list[str]:
    """Links between members that an end does not call plainly up, one line a pair and path."""
    lines = []
    for a, b, path in _paths(fleet, nodes):
        for node, peer in ((a, b), (b, a)):
            seen = fleet.believed(node, peer, path, now)
            if seen is None:
                continue
            link = seen.link
            relayed = link.relay in _RELAYED
            if relayed or link.state not in (LinkState.UP, LinkState.UNKNOWN):
                how = f"relayed ({link.relay.value})" if relayed and link.relay else link.state.value
                because = f": {link.reason}" if link.reason else ""
                lines.append(f"{a}--{b}/{path}: {node} sees it {how}{because}")
                break
    return lines


def starved(fleet: Fleet, nodes: list[str], now: float) -> list[str]:
    """Members whose machine keeps etcd waiting: for its disk, or for the CPU."""
    lines = []
    for name in nodes:
        state = fleet.nodes.get(name)
        system = state.report.system if state is not None and fleet.is_fresh(state, now) and state.report else None
        if system is None:
            continue
        slow = max(
            (disk for disk in system.disk_io if disk.await_s), key=lambda disk: disk.await_s or 0.0, default=None
        )
        if slow is not None and (slow.await_s or 0.0) >= _DISK_S:
            lines.append(f"{name}: its disk {slow.device} takes {ms(slow.await_s or 0.0)} for a request")
        elif system.psi_io is not None and (system.psi_io.full or 0.0) >= _PSI:
            lines.append(f"{name}: everything on it waits for its disk, {system.psi_io.full:.0%} of the time")
        tasks = ((system.runnable or 0) + (system.blocked or 0)) / system.cores
        if tasks >= _TASKS_PER_CORE:
            lines.append(f"{name}: {tasks:.0f} tasks wait for each core")
    return lines


def _paths(fleet: Fleet, nodes: list[str]) -> Iterable[tuple[str, str, str]]:
    for index, a in enumerate(nodes):
        for b in nodes[index + 1 :]:
            for path in fleet.paths_of((a, b)):
                yield a, b, path


def _carries(fleet: Fleet, pair: tuple[str, str], path: str, ends: list[LinkSeen]) -> bool:
    """Whether the pair's traffic goes by it: as its ends say, and the first path while none says so."""
    if any(end.link.current for end in ends):
        return True
    every = [fleet.link(node, peer, each) for node, peer in (pair, pair[::-1]) for each in fleet.paths_of(pair)]
    return fleet.paths_of(pair)[0] == path and not any(seen is not None and seen.link.current for seen in every)


# --- who is missing --------------------------------------------------------------------------------------------------


def reach(fleet: Fleet, node: str, now: float) -> str:
    """By which paths the node's peers reach it, in words; "" when none of them can tell."""
    alive: dict[str, None] = {}
    dead: dict[str, None] = {}
    for witness in fleet.fresh_watchers(node, now):
        for seen in witness.links_to(node):
            link = seen.link
            if link.state in (LinkState.UP, LinkState.DEGRADED) and answered(witness, seen, now) is not None:
                alive[link.path] = None
            elif link.state in (LinkState.DOWN, LinkState.SUSPECT):
                dead[link.path] = None
    lost = [path for path in dead if path not in alive]
    if alive:
        return f"peers reach its node by {' and '.join(alive)}" + (f", not by {' nor by '.join(lost)}" if lost else "")
    return f"no peer reaches its node by {' or by '.join(lost)}" if lost else ""


def full_disk(fleet: Fleet, node: str, now: float) -> str:
    """That a file system of the node's is full, in words; "" when none is, or it does not tell."""
    state = fleet.nodes.get(node)
    system = state.report.system if state is not None and fleet.is_fresh(state, now) and state.report else None
    full = [disk.mount for disk in system.disks if disk.used >= _FULL] if system is not None else []
    return f"its file system {full[0]} is full" if full else ""


def absence(etcd: Etcd) -> str:
    """Why a member does not answer, in a word or two, as far as its agent's words tell."""
    reason = etcd.reason
    if "no answer" in reason or "frozen" in reason:
        return "frozen, or starved"
    if "refused the connection" in reason or "connection refused" in reason:
        return "not running"
    return ""


# --- what is trouble whatever the state ------------------------------------------------------------------------------


def alarms(raised: Iterable[str]) -> list[Attention]:
    return [
        Attention(Severity.CRITICAL, f"alarm {alarm}{_MEANS.get(alarm.partition(' ')[0], '')}", _remedy(alarm))
        for alarm in sorted(set(raised))
    ]


def stands_alone(verdict: Verdict) -> bool:
    """Whether all that is wrong with a quorum is of its data or certificates, which no node, link or load explains."""
    found = verdict.reason.partition("; ")[2]
    return verdict.state == "healthy" and found.startswith(_ATTENTION)


# How what is trouble whatever the state begins, in a reason.
_ATTENTION: Final = ("alarm ", "the certificate of ")
_MEANS: Final = {"NOSPACE": " (its disk quota is full: writes are refused)", "CORRUPT": " (its data differ)"}


def _remedy(alarm: str) -> str:
    if "NOSPACE" in alarm:
        return "writes are refused; compact, defragment, then `etcdctl alarm disarm`"
    if "CORRUPT" in alarm:
        return "members' data differ; replace the member named"
    return "see `etcdctl alarm list`"


def certificates(name: str, told: Iterable[Certificate]) -> list[Attention]:
    """What is wrong with a member's certificates, or will be within 14 days."""
    found = []
    for each in told:
        whose = f"the certificate of {name} at {each.where}"
        renew = f"{name}: renew the certificate at {each.where}, and restart etcd if it does not read it anew"
        if each.expires_s is not None and each.expires_s <= 0:
            found.append(Attention(Severity.CRITICAL, f"{whose} has expired, {_days(-each.expires_s)} ago", renew))
        elif each.expires_s is not None and each.expires_s < _EXPIRES_S:
            severity = Severity.CRITICAL if each.expires_s < _URGENT_S else Severity.WARNING
            found.append(Attention(severity, f"{whose} expires in {_days(each.expires_s)}", renew))
        if each.missing:
            remedy = f"{name}: issue it with {each.missing} among its subject alternative names"
            found.append(
                Attention(Severity.WARNING, f"{whose} does not name the service address {each.missing}", remedy)
            )
    return found


def splits(follows: dict[tuple[int, str], list[str]], name_of: Callable[[str], str]) -> list[str]:
    """Members that follow different leaders; `follows`: (term, leader) → who does."""
    if len({leader for _, leader in follows}) < 2:
        return []
    return [
        f"split view: {', '.join(names)} {'follows' if len(names) == 1 else 'follow'} {name_of(leader)} at term {term}"
        for (term, leader), names in sorted(follows.items())
    ]


# --- who joined and left ---------------------------------------------------------------------------------------------


class Changes:
    """What became of the member list, for an hour. `news`: what nobody was told of yet."""

    def __init__(self) -> None:
        self.news: list[str] = []
        self._known: dict[str, EtcdMember] | None = None
        self._told: deque[tuple[float, str]] = deque(maxlen=_MOST_CHANGES)

    def observe(self, members: Iterable[EtcdMember], name_of: Callable[[str], str], now: float) -> None:
        """`members`: as one that is part of a quorum has them; `name_of`: an id's node, still known when it is gone."""
        before, self._known = self._known, {member.id: member for member in members}
        if before is None:
            return
        came = [member for member in self._known.values() if member.id not in before]
        gone = [member for member in before.values() if member.id not in self._known]
        for member in came:
            name = name_of(member.id)
            again = next((old for old in gone if member.name and old.name == member.name), None)
            again = again or next((old for old in gone if set(old.peer_urls) & set(member.peer_urls)), None)
            if again is not None:
                gone.remove(again)
                self._tell(f"{name} was replaced: member {again.id} became {member.id}", now)
            else:
                self._tell(f"{name} joined as a {'learner' if member.learner else 'member'} ({member.id})", now)
        for member in gone:
            self._tell(f"{name_of(member.id)} was removed from the cluster (member {member.id})", now)
        for member in self._known.values():
            if member.id in before and before[member.id].learner and not member.learner:
                self._tell(f"{name_of(member.id)} votes: it was a learner", now)

    def words(self, now: float) -> list[str]:
        return [f"{text}, {seconds(now - at)} ago" for at, text in self._told if now - at < _REMEMBER_S]

    def _tell(self, text: str, now: float) -> None:
        self._told.append((now, text))
        self.news.append(text)


def _days(value: float) -> str:
    return f"{value / 86_400:.0f} days" if value >= 2 * 86_400 else seconds(value)
