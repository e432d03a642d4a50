"""All links of a node: which probes to send and when, what each answer means. No sockets: bytes in, bytes out.

How fast a silent failure is found, both ends together: their idle probes interleave (`Link.meeting`), so one of them
meets the failure within about half an idle interval (at worst 0.65 of it, since a node's probes share moments); it
suspects after its timeout and tells the other end over every other path, which then looks at once; both end their burst
together.

    worst = 0.65 × idle + timeout + (burst - 1) × burst_interval + confirm wait   (defaults on a short path: 295 ms)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

import msgspec
from msgspec import Struct

from vagus_agent.config import Config, Path, Peer
from vagus_agent.core.link import DEGRADED, DOWN, FIRST_WITHIN_S, SUSPECT, UP, Change, Link
from vagus_protocol.codec import Rejected
from vagus_protocol.messages import System
from vagus_protocol.probe import ANSWERS_WIDE, Kind, Packet, Views, name_hash, pack, path_hash, unpack

# Lateness of our own event loop below this is ordinary scheduling.
_ORDINARY_LAG_S: Final = 0.01
_NO_LAG_S: Final = 0.001
# Idle probes that are due this soon go out with those that are due: waking up costs more than a probe.
_TOGETHER_S: Final = 0.002
# The remembered lag halves in this time.
_LAG_HALF_LIFE_S: Final = 2.0
# Nobody's lag buys more patience than this: a peer that claims to be slow must not hide a dead path.
_LAG_CAP_S: Final = 0.5
# Where tasks queue for the CPU, so do the daemons that carry the paths: at load 25 on two cores, a tunnel's was seen
# silent for 0.46 s while our own loop was 0.03 s late (docs/decisions/0003).
_STARVED_LAG_S: Final = 0.4
_STARVED_PSI: Final = 0.7
# PSI averages over 10 s: with so many runnable tasks a core, less of it is enough; without any, one moment's count.
_STARVED_PER_CORE: Final = 6
_PRESSED_PSI: Final = 0.3
_CARRIES: Final = (UP, DEGRADED)
# Replies later than this are not waited for.
_FORGET_S: Final = 3.0
_LOSS_CHECK_S: Final = 2.0
# A verification: so many probes, one after the other over the first half of its time, so that neither loss nor a tunnel
# that stands still for a moment decides it.
_VERIFY_PROBES: Final = 5
_VERIFY_S: Final = 1.0
# Measuring what traffic sees of a switch: a probe each so often, which is what a gap can be told apart by, for so long,
# and until the last answer may have come.
_GAUGE_EVERY_S: Final = 0.02
_GAUGE_S: Final = 3.0
_GAUGE_WAIT_S: Final = (0.5, 1.0)


def starved(system: System) -> bool:
    """Whether tasks queue for the CPU: by PSI, where the kernel has it, and by how many are runnable at this moment."""
    pressure = 1.0 if system.psi_cpu is None else system.psi_cpu.some
    queued = (system.runnable or 0) >= _STARVED_PER_CORE * system.cores
    return (system.psi_cpu is not None and pressure >= _STARVED_PSI) or (queued and pressure >= _PRESSED_PSI)


class _Outstanding(Struct):
    link: Link
    sent: float
    sent_us: int
    deadline: float
    idle: bool
    missed: bool = False
    # it was given a fresh timeout once, since we were late
    excused: bool = False


class Send(Struct, frozen=True):
    """A datagram for `peer` over `path`; not `pinned`: the kernel's own route decides, as for traffic."""

    peer: str
    path: str
    data: bytes
    pinned: bool = True


class Proof(Struct, frozen=True):
    """What became of a verification: whether packets that went by the kernel's own route came back on `path`, and in
    words how, or what was missed."""

    peer: str
    path: str
    ok: bool
    reason: str


class _Verification(Struct):
    link: Link
    next_send: float
    interval: float
    until: float
    # how far our own stalls may put that off
    latest: float
    left: int = _VERIFY_PROBES
    # seq → (sent, sent_us)
    sent: dict[int, tuple[float, int]] = {}
    # what went wrong, in words
    trouble: str = ""

    @property
    def deadline(self) -> float:
        return min(self.next_send, self.until) if self.left else self.until


class Gap(Struct, frozen=True):
    """What a measurement found: the longest that a packet to `peer` by the kernel's own route, sent again every 20 ms
    until an answer comes, had to wait beyond the usual round trip; 0: less than these 20 ms."""

    peer: str
    path: str
    seconds: float


class _Gauge(Struct):
    """One measurement. `sent`: seq → (sent, sent_us), in their order; `answered`: seq → when its echo arrived, without
    the time that the peer held it."""

    peer: str
    path: str
    next_send: float
    until: float
    over: float
    sent: dict[int, tuple[float, int]] = {}
    answered: dict[int, float] = {}

    @property
    def deadline(self) -> float:
        return self.next_send if self.next_send < self.until else self.over

    def gap(self, usual_s: float) -> float:
        """`usual_s`: the round trip of the longer path."""
        longest, soonest = 0.0, inf
        for seq, (sent, _) in reversed(self.sent.items()):
            soonest = min(soonest, self.answered.get(seq, inf))
            # What was never answered waited until the last one was sent, at least.
            until = soonest if soonest < inf else self.until + usual_s
            longest = max(longest, until - sent - usual_s)
        return longest if longest >= _GAUGE_EVERY_S else 0.0


class _Peer(Struct):
    name: str
    hash: int
    links: dict[str, Link]
    # learnt from echoes only: an echo answers our own fresh probe, so it cannot be a replay
    boot: int | None = None
    last_seq: int | None = None
    views: Views = ()
    answers_wide: bool = False


class Prober:
    """The engine: `received` for every datagram, `poll` when `due` has come and when `stale`; take `changes` and
    `proofs` after either."""

    def __init__(self, config: Config, key: bytes, boot: int, now: float, phase: float) -> None:
        """`boot`: 64 random bits of this process; `phase` in 0..1 spreads the nodes' idle probes."""
        self.changes: list[Change] = []
        self.proofs: list[Proof] = []
        self.gaps: list[Gap] = []
        self.links: list[Link] = []
        # a peer changed its mind about a link since the owner last reset this
        self.peer_changed = False
        self.rejected = 0
        # a datagram moved what is due: `due` is to be found anew, by `poll`
        self.stale = False
        self._key = key
        self._boot = boot
        self._self = name_hash(config.node)
        self._settings = config.probe
        self._peers: dict[str, _Peer] = {}
        self._by_hash: dict[int, _Peer] = {}
        self._outstanding: dict[int, _Outstanding] = {}
        self._verifications: dict[str, _Verification] = {}
        self._gauges: dict[str, _Gauge] = {}
        # path → bytes of a wide probe, as its interface has them; and (peer, path) → the one that is on its way
        self.wide_bytes: dict[str, int] = {}
        self._wide: dict[tuple[str, str], tuple[int, int]] = {}
        self._seq = 0
        self._lag = 0.0
        self._lag_at = now
        self._worst_lag = 0.0
        self._starved = False
        self._due = now
        self._loss_check = now + _LOSS_CHECK_S
        self._path_hashes = {path.name: path_hash(path.name) for path in config.paths}
        self._path_names = {digest: name for name, digest in self._path_hashes.items()}
        for peer in config.peers:
            self.add_peer(peer, config.paths_to(peer), now, phase)

    def add_peer(self, peer: Peer, paths: Sequence[Path], now: float, phase: float, known: _Peer | None = None) -> None:
        """`known`: the same peer as it was until now."""
        entry = _Peer(peer.name, name_hash(peer.name), {})
        if known is not None:
            # Not its views: they are looked at anew, for links that it told of before we had them.
            entry.boot, entry.last_seq, entry.answers_wide = known.boot, known.last_seq, known.answers_wide
        for path in paths:
            link = known.links.get(path.name) if known is not None else None
            if link is None:
                start = now + phase * min(path.idle_interval_s, FIRST_WITHIN_S)
                link = Link(peer.name, path.name, path.idle_interval_s, self._settings, start, self.changes)
            else:
                link.retune(path.idle_interval_s, self._settings)
            entry.links[path.name] = link
            self.links.append(link)
        self._peers[peer.name] = self._by_hash[entry.hash] = entry

    def reconfigure(self, config: Config, now: float, phase: float) -> None:
        """Other settings and peers from now on. A link that stays keeps all that is known of it, and its probes that
        are under way; `phase` is for new ones."""
        self._settings = config.probe
        before, self._peers, self._by_hash = self._peers, {}, {}
        self.links.clear()
        for peer in config.peers:
            self.add_peer(peer, config.paths_to(peer), now, phase, before.get(peer.name))
        self._be_patient()
        self._outstanding = {seq: probe for seq, probe in self._outstanding.items() if self._has(probe.link)}
        self._verifications = {peer: one for peer, one in self._verifications.items() if self._has(one.link)}
        self._gauges = {peer: one for peer, one in self._gauges.items() if self._offers(peer, one.path)}
        self._wide = {where: one for where, one in self._wide.items() if self._offers(*where)}
        self.changes[:] = [change for change in self.changes if self._has(change.link)]
        self.stale = True

    def _has(self, link: Link) -> bool:
        return self._offers(link.peer, link.path)

    def _offers(self, peer: str, path: str) -> bool:
        return peer in self._peers and path in self._peers[peer].links

    # --- time --------------------------------------------------------------------------------------------------

    @property
    def awaits_echoes(self) -> bool:
        """Whether `poll` could take an echo that was not read yet for a lost one."""
        return bool(self._outstanding or self._verifications or self._gauges)

    @property
    def due(self) -> float:
        """The deadline as `poll` found it: it stands when that sent nothing, and nothing else happened since."""
        return self._due

    @property
    def deadline(self) -> float:
        """When `poll` must be called next. A plain scan: a node has tens of links, and a heap cost more here."""
        self.stale = False
        first = self._loss_check
        for waiting in (self.links, self._outstanding.values(), self._verifications.values(), self._gauges.values()):
            for one in waiting:
                due = one.deadline
                if due < first:
                    first = due
        self._due = first
        return first

    def poll(self, now: float) -> list[Send]:
        """Probes that are due. Call it after every waiting datagram was given to `received`: what is not there by then
        is late, not unread."""
        # What was due then and is not past now, no datagram since has moved into the past.
        if self._lag or now - self._due > _ORDINARY_LAG_S:
            self._notice_lag(now)
        sends: list[Send] = []
        if self.deadline > now + _TOGETHER_S:
            return sends
        for seq in [seq for seq, probe in self._outstanding.items() if probe.deadline <= now]:
            self._expire(seq, now)
        for link in self.links:
            if link.deadline <= now + _TOGETHER_S and link.poll(now, _TOGETHER_S):
                sends.append(self._probe(link, now))
                if now >= link.wide_due and link.state in _CARRIES:
                    sends += self._wide_probe(link, now)
        for verification in tuple(self._verifications.values()):
            sends += self._verify(verification, now)
        for gauge in tuple(self._gauges.values()):
            sends += self._measure(gauge, now)
        if now >= self._loss_check:
            self._loss_check = now + _LOSS_CHECK_S
            for link in self.links:
                link.judge_loss(now)
        for change in self.changes:
            if change.new in (SUSPECT, DOWN) and change.at == now:
                sends += self._tell(change.link, now)
        return sends

    def _expire(self, seq: int, now: float) -> None:
        probe = self._outstanding[seq]
        if probe.missed:
            del self._outstanding[seq]
            if probe.idle:
                probe.link.lost(probe.sent)
            return
        probe.missed = True
        probe.deadline = probe.sent + _FORGET_S
        probe.link.missed(now)

    def _notice_lag(self, now: float) -> None:
        # Patience that ended may move the end of a burst into the past: nobody waited for that moment.
        late = now - max(self._due, self.deadline)
        self._lag *= 0.5 ** ((now - self._lag_at) / _LAG_HALF_LIFE_S)
        self._lag_at = now
        if late <= _ORDINARY_LAG_S:
            if self._lag < _NO_LAG_S:
                self._lag = 0.0
            self._be_patient()
            return
        self._lag = max(self._lag, min(late, _LAG_CAP_S))
        self._worst_lag = max(self._worst_lag, late)
        grace = min(late, _LAG_CAP_S)
        for probe in self._outstanding.values():
            # Once: a loop that is late every time must not put off a dead path's first miss for ever.
            if not (probe.missed or probe.excused):
                probe.deadline, probe.excused = max(probe.deadline, now + probe.link.timeout), True
        for verification in self._verifications.values():
            verification.until = min(verification.until + grace, verification.latest)
        self._be_patient()

    def starve(self, starved: bool) -> None:
        """Whether this machine is `starved`: if so, we are more patient, and so are our peers with us."""
        if starved != self._starved:
            self._starved = starved
            self._be_patient()

    @property
    def _patience(self) -> float:
        lag = self._lag if self._lag > _ORDINARY_LAG_S else 0.0
        return max(lag, _STARVED_LAG_S) if self._starved else lag

    def _be_patient(self) -> None:
        patience = self._patience
        for link in self.links:
            link.own_lag = patience

    def take_worst_lag(self) -> float:
        """The worst lateness of our own event loop since the last call, seconds."""
        worst, self._worst_lag = self._worst_lag, 0.0
        return worst

    # --- verification ------------------------------------------------------------------------------------------

    def verify(self, peer: str, path: str, now: float) -> None:
        """Find out whether our packets to `peer` go by `path` when the kernel's own route decides, and come back.

        The probes come with the next `poll`, the result as one of `proofs`, unless another verification of the same
        peer begins before. They count neither for the link's loss nor for its state.
        """
        link = self._peers[peer].links[path]
        whole = max(_VERIFY_S, 3 * link.timeout)
        self._verifications[peer] = _Verification(
            link, now, whole / (2 * _VERIFY_PROBES), now + whole, now + whole + _LAG_CAP_S
        )

    def _verify(self, verification: _Verification, now: float) -> list[Send]:
        link = verification.link
        if now >= verification.until:
            count = len(verification.sent)
            missed = f"none of {count} packets by the kernel's own route came back on {link.path}"
            self._conclude(link, False, verification.trouble or missed)
            return []
        if not verification.left or now < verification.next_send:
            return []
        verification.left -= 1
        verification.next_send = now + verification.interval
        return [self._unpinned(link.peer, link.path, verification.sent, now)]

    def _unpinned(self, peer: str, path: str, sent: dict[int, tuple[float, int]], now: float) -> Send:
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        sent_us = int(now * 1e6)
        sent[self._seq] = now, sent_us
        # An interval of nothing: no peer aligns its phase to these.
        data = self._packet(Kind.PROBE, peer, path, self._seq, sent_us, 0, 0.0)
        return msgspec.structs.replace(data, pinned=False)

    def _verified(self, verification: _Verification, path: str, packet: Packet, arrived: float) -> None:
        """An echo of one of its probes, which came back on `path`: the peer sends it where it heard the probe."""
        link = verification.link
        if path != link.path:
            verification.trouble = f"packets by the kernel's own route went by {path}, not by {link.path}"
            return
        rtt = max(arrived - verification.sent[packet.seq][0] - packet.hold_us / 1e6, 0.0)
        self._conclude(link, True, f"packets by the kernel's own route came back on {path} in {rtt * 1000:.1f} ms")

    def _conclude(self, link: Link, ok: bool, reason: str) -> None:
        del self._verifications[link.peer]
        self.proofs.append(Proof(link.peer, link.path, ok, reason))

    def measure(self, peer: str, path: str, now: float) -> None:
        """Measure from now on what traffic to `peer` sees of its move to `path`; the result is one of `gaps`.

        It replaces an earlier measurement of the same peer. Its probes count for nothing else.
        """
        least, most = _GAUGE_WAIT_S
        until = now + _GAUGE_S
        wait = min(max(3 * self._peers[peer].links[path].timeout, least), most)
        self._gauges[peer] = _Gauge(peer, path, now, until, until + wait)

    def _measure(self, gauge: _Gauge, now: float) -> list[Send]:
        if now >= gauge.over:
            del self._gauges[gauge.peer]
            usual_s = max(link.rtt or 0.0 for link in self._peers[gauge.peer].links.values())
            self.gaps.append(Gap(gauge.peer, gauge.path, gauge.gap(usual_s)))
            return []
        if now < gauge.next_send or gauge.next_send >= gauge.until:
            return []
        gauge.next_send = now + _GAUGE_EVERY_S
        return [self._unpinned(gauge.peer, gauge.path, gauge.sent, now)]

    def unroutable(self, peer: str, why: str) -> None:
        """The kernel did not take a packet that was not pinned: `why` in words."""
        if peer in self._verifications:
            self._verifications[peer].trouble = why

    # --- datagrams ---------------------------------------------------------------------------------------------

    def received(
        self, data: bytes, source_peer: str | None, path: str, arrived: float, now: float, hold: float
    ) -> list[Send]:
        """What to send back for one datagram.

        `source_peer`: whose service address it came from; `path`: the path of the interface it came in on; `arrived`:
        the kernel's receive time on the monotonic clock; `hold`: seconds since then.
        """
        packet = unpack(data, self._key)
        if isinstance(packet, Rejected):
            self.rejected += 1
            return []
        peer = self._by_hash.get(packet.sender)
        if peer is None or peer.name != source_peer or packet.receiver != self._self or path not in peer.links:
            self.rejected += 1
            return []
        if packet.kind is Kind.WIDE:
            return [self._echo(peer, path, packet, hold)]
        if packet.kind is Kind.PROBE:
            sends = [self._echo(peer, path, packet, hold)]
            # Of another life than the known one, numbers say nothing yet of their order.
            known = packet.boot == peer.boot
            if packet.interval_ms:
                # Not one that goes by the kernel's own route.
                link = peer.links[path]
                late = known and not _newer(packet.seq, link.heard_seq)
                link.take_probe(late=late, seq=packet.seq if known else link.heard_seq)
            if known and _newer(packet.seq, peer.last_seq):
                peer.answers_wide = packet.hold_us == ANSWERS_WIDE
                peer.last_seq = packet.seq
                self._align(peer, packet.interval_ms, arrived, now)
                self._learn(peer, packet, now)
            return sends
        self._answered(peer, path, packet, arrived, now)
        # As long as others of the same moment are waited for, `due` is theirs.
        settled = self._outstanding and peer.links[path].state in _CARRIES and not (self.changes or self.proofs)
        self.stale |= not settled
        return []

    def refused(self, peer: str, path: str, why: str, now: float) -> list[Send]:
        """The kernel did not take a probe: `why` in words. Returns what to tell the peer over other paths."""
        link = self._peers[peer].links[path]
        count = len(self.changes)
        link.refused(why, now)
        return self._tell(link, now) if len(self.changes) > count else []

    def _answered(self, peer: _Peer, path: str, packet: Packet, arrived: float, now: float) -> None:
        verification = self._verifications.get(peer.name)
        if verification is not None and packet.seq in verification.sent:
            if verification.sent[packet.seq][1] == packet.sent_us:
                self._verified(verification, path, packet, arrived)
                self._learn(peer, packet, now)
            return
        gauge = self._gauges.get(peer.name)
        if gauge is not None and packet.seq in gauge.sent:
            # By whichever path: before the switch it is the old one.
            if gauge.sent[packet.seq][1] == packet.sent_us:
                gauge.answered[packet.seq] = arrived - packet.hold_us / 1e6
            return
        if self._wide.get((peer.name, path)) == (packet.seq, packet.sent_us):
            del self._wide[peer.name, path]
            peer.links[path].wide_lost = 0
            return
        probe = self._outstanding.get(packet.seq)
        if probe is None or probe.link is not peer.links[path] or probe.sent_us != packet.sent_us:
            # Too late to mean anything, or it came back on another path.
            return
        del self._outstanding[packet.seq]
        if packet.boot != peer.boot:
            peer.boot, peer.last_seq = packet.boot, None
            for link in peer.links.values():
                link.heard_seq = None
        rtt = max(arrived - probe.sent - packet.hold_us / 1e6, 0.0)
        probe.link.replied(rtt, probe.sent, now, idle=probe.idle)
        self._learn(peer, packet, now)

    def _learn(self, peer: _Peer, packet: Packet, now: float) -> None:
        """The peer's own view of every link between us; its alarm makes us look at once."""
        lag = min(packet.lag_ms / 1000, _LAG_CAP_S)
        for link in peer.links.values():
            link.peer_lag = lag
        if packet.views == peer.views:
            return
        peer.views = packet.views
        for digest, state in packet.views:
            known = peer.links.get(self._path_names.get(digest, ""))
            if known is None or known.peer_state is state:
                continue
            if state in (SUSPECT, DOWN) and known.peer_state not in (SUSPECT, DOWN):
                known.alarmed(now)
            known.peer_state = state
            self.peer_changed = self.stale = True

    def _align(self, peer: _Peer, interval_ms: int, heard: float, now: float) -> None:
        """One end aligns, with all its links to the peer at once."""
        alike = [link for link in peer.links.values() if interval_ms == round(link.idle_interval * 1000)]
        if alike and self._self > peer.hash:
            moment = alike[0].meeting(heard)
            for link in alike:
                if link.next_send != moment:
                    link.align(moment, now)
                    self.stale = True

    def _probe(self, link: Link, now: float) -> Send:
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        idle = not link.in_burst
        sent_us = int(now * 1e6)
        self._outstanding[self._seq] = _Outstanding(link, now, sent_us, now + link.timeout, idle)
        link.sent += 1
        return self._packet(Kind.PROBE, link.peer, link.path, self._seq, sent_us, ANSWERS_WIDE, link.idle_interval)

    def _wide_probe(self, link: Link, now: float) -> list[Send]:
        """One as large as traffic's packets, beside an ordinary one: it wakes nobody up, and its loss is not the
        link's."""
        size, where = self.wide_bytes.get(link.path, 0), (link.peer, link.path)
        if not size or not self._peers[link.peer].answers_wide:
            return []
        link.wide_sent(now, before_lost=self._wide.pop(where, None) is not None)
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        sent_us = int(now * 1e6)
        self._wide[where] = self._seq, sent_us
        return [self._packet(Kind.WIDE, link.peer, link.path, self._seq, sent_us, 0, link.idle_interval, 8, size)]

    def _echo(self, peer: _Peer, path: str, probe: Packet, hold: float) -> Send:
        hold_us = min(int(max(hold, 0.0) * 1e6), 0xFFFFFFFF)
        views = len(probe.views)
        interval = peer.links[path].idle_interval
        return self._packet(Kind.ECHO, peer.name, path, probe.seq, probe.sent_us, hold_us, interval, views)

    def _packet(
        self,
        kind: Kind,
        peer: str,
        path: str,
        seq: int,
        sent_us: int,
        hold_us: int,
        interval: float,
        views: int = 8,
        size: int = 0,
    ) -> Send:
        entry = self._peers[peer]
        told = tuple([(self._path_hashes[name], link.told) for name, link in entry.links.items()])[:views]
        lag_ms, interval_ms = int(self._patience * 1000), min(round(interval * 1000), 0xFFFF)
        packet = Packet(kind, self._self, entry.hash, self._boot, seq, sent_us, hold_us, lag_ms, interval_ms, told)
        return Send(peer, path, pack(packet, self._key, size))

    def _tell(self, link: Link, now: float) -> list[Send]:
        """A probe over every other path at once: it carries the news, and proves that path while this one is silent."""
        others = self._peers[link.peer].links.values()
        return [self._probe(other, now) for other in others if other is not link]


def _newer(seq: int, last: int | None) -> bool:
    """Whether `seq` comes after `last` in 32-bit serial arithmetic (RFC 1982)."""
    return last is None or 0 < (seq - last) & 0xFFFFFFFF < 2**31
