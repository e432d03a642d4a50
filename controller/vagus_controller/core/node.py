"""What one node said, and when we heard it."""

from __future__ import annotations

from typing import Final, NamedTuple

from vagus_controller.core.rivals import Rivals
from vagus_protocol.codec import decode
from vagus_protocol.messages import Link, Observed, PathOffer, Presence, Report

# The reason in an agent's last will (see messages.Presence); any other offline is a goodbye.
LAST_WILL: Final = "connection lost"
# Until a node reports its own interval: the agent's default.
DEFAULT_INTERVAL_S: Final = 2.0
# A node's word on its interval is believed within these: 0 would make it always silent, 1e9 never.
_LEAST_INTERVAL_S: Final = 0.2
_MOST_INTERVAL_S: Final = 300.0
# Before a session's first report; its successor is no sequence number.
NO_SEQ: Final = -2


class LinkSeen(NamedTuple):
    """One end's view of one path, and the monotonic time at which it was so."""

    link: Link
    at: float


class NodeState:
    """What one node said. Times are monotonic seconds of hearing it; None: never."""

    __slots__ = (
        "_before",
        "_events",
        "_index",
        "_old_boots",
        "_old_sessions",
        "_report",
        "_rival_presence",
        "away_s",
        "boot_id",
        "dropped_events",
        "event_seq",
        "first_seen",
        "interval_s",
        "known_peers",
        "lost_reports",
        "name",
        "observed",
        "payload",
        "presence",
        "presence_at",
        "rebooted_at",
        "report_at",
        "rivals",
        "seq",
        "session",
        "session_at",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.presence: Presence | None = None
        self.presence_at: float | None = None
        self.report_at: float | None = None
        self.observed: Observed | None = None
        # None: configured, never heard
        self.first_seen: float | None = None
        self.session = ""
        # since when it is believed
        self.session_at = 0.0
        self.boot_id = ""
        # of the newest report of `session`
        self.seq = NO_SEQ
        self.lost_reports = 0
        self.dropped_events = 0
        self.event_seq = 0
        # peer → paths, as reports name them, in their order
        self.known_peers: dict[str, tuple[str, ...]] = {}
        # sessions that were replaced → the last report's seq
        self._old_sessions: dict[str, int] = {}
        self._old_boots: tuple[str, ...] = ()
        # the newest birth of a replaced session, for when that one is believed again
        self._rival_presence: Presence | None = None
        # once a session that was replaced has spoken again
        self.rivals: Rivals | None = None
        # when its machine was found rebooted soon and without a goodbye, and how long nothing was heard of it then
        self.rebooted_at: float | None = None
        self.away_s = 0.0
        # the newest report: as it came, and decoded when it was asked for
        self.payload = b""
        self._report: Report | None = None
        # the newest report that said anything new but figures
        self._before: Report | None = None
        # its report interval
        self.interval_s = DEFAULT_INTERVAL_S
        # (peer, path) → link, of `report`; built when asked for
        self._index: dict[tuple[str, str], Link] | None = None
        # peer → (event seq, when it was so, its links): fresher than the report
        self._events: dict[str, tuple[int, float, tuple[Link, ...]]] = {}

    @property
    def site(self) -> str:
        return self.presence.site if self.presence is not None else ""

    @property
    def report(self) -> Report | None:
        """The newest report."""
        if self._report is None and self.payload:
            report = decode(self.payload, Report)
            self._report = report if isinstance(report, Report) else None
        return self._report

    @property
    def runs_etcd(self) -> bool:
        if self._before is not None and self._before.etcd is not None:
            return True
        return self.presence is not None and self.presence.etcd_member

    @property
    def said_goodbye(self) -> bool:
        """The node's last word is a clean offline."""
        presence = self.presence
        return presence is not None and not presence.online and presence.reason != LAST_WILL and self._offline

    @property
    def lost_connection(self) -> bool:
        """The broker published the node's last will, and no report came since. A hint, not a proof."""
        return self._offline and self.presence is not None and self.presence.reason == LAST_WILL

    @property
    def _offline(self) -> bool:
        if self.presence is None or self.presence.online or self.presence_at is None:
            return False
        return self.report_at is None or self.report_at <= self.presence_at

    def offers(self, peer: str) -> tuple[str, ...] | None:
        """The paths to `peer` that this node names, in rung order; None when it does not name the peer."""
        if self.presence is not None:
            for offer in self.presence.peers:
                if offer.name == peer:
                    return offer.paths
        return self.known_peers.get(peer)

    def path_offer(self, path: str) -> PathOffer | None:
        if self.presence is not None:
            for offer in self.presence.paths:
                if offer.name == path:
                    return offer
        return None

    def link(self, peer: str, path: str) -> LinkSeen | None:
        told = self._events.get(peer)
        if told is not None:
            for link in told[2]:
                if link.path == path:
                    return LinkSeen(link, told[1])
        if self.report_at is None:
            return None
        index = self._index
        if index is None:
            links = self.report.links if self.report is not None else ()
            index = self._index = {(link.peer, link.path): link for link in links}
        found = index.get((peer, path))
        return None if found is None else LinkSeen(found, self.report_at)

    def take(self, report: Report, payload: bytes, now: float) -> None:
        """Make it the newest one; `payload` may be empty."""
        self.payload = payload
        self._report = None if payload else report
        self.report_at = now
        if self.rivals is not None:
            self.rivals.spoke = False
        self.seq = report.seq
        self._index = None
        self.event_seq = report.event_seq
        if self._events:
            self._events = {peer: told for peer, told in self._events.items() if told[0] > report.event_seq}

    def note(self, report: Report) -> None:
        """What later reports are compared to."""
        self._before = report
        self.interval_s = min(max(report.interval_s, _LEAST_INTERVAL_S), _MOST_INTERVAL_S)

    def says_only_figures(self, report: Report) -> bool:
        """Whether the report differs from the noted one in nothing that changes who is linked to whom, and how."""
        before = self._before
        return (
            before is not None
            and report.interval_s == before.interval_s
            and (report.etcd is None) is (before.etcd is None)
            and _says_the_same(before.links, report.links)
        )

    def links_to(self, peer: str) -> list[LinkSeen]:
        """This node's newest view of every path to `peer`, in rung order."""
        seen = (self.link(peer, path) for path in self.offers(peer) or ())
        return [link for link in seen if link is not None]


def _says_the_same(before: tuple[Link, ...], after: tuple[Link, ...]) -> bool:
    """Whether the links differ in figures only."""
    if len(before) != len(after):
        return False
    for old, new in zip(before, after, strict=True):
        if old.state is not new.state or old.relay is not new.relay or old.path != new.path or old.peer != new.peer:
            return False
        if old.obstacle != new.obstacle or (old.large_lost_s is None) is not (new.large_lost_s is None):
            return False
    return True
