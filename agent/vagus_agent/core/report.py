"""What the agent says of itself: presence, report and events, from its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from vagus_agent.config import Config
from vagus_agent.core.link import Link
from vagus_protocol import messages
from vagus_protocol.codec import MAX_PAYLOAD, encode
from vagus_protocol.messages import Event, EventKind, LinkState, PathOffer, PeerOffer, Presence, Relay, Report


def birth(config: Config, session: str, boot_id: str, version: str, machine: str = "") -> Presence:
    return Presence(
        v=1,
        node=config.node,
        session=session,
        online=True,
        boot_id=boot_id,
        version=version,
        site=config.site,
        addresses=tuple(str(address) for address in config.addresses),
        paths=tuple(
            PathOffer(name=path.name, metered=path.metered, idle_interval_s=path.idle_interval_s)
            for path in config.paths
        ),
        peers=tuple(
            PeerOffer(
                name=peer.name,
                addresses=tuple(str(address) for address in peer.addresses),
                paths=tuple(path.name for path in config.paths_to(peer)),
                prefixes=tuple(str(prefix) for prefix in peer.prefixes),
            )
            for peer in config.peers
        ),
        reflex=config.reflex,
        automatic=config.automatic,
        etcd_member=config.etcd is not None,
        machine=machine,
    )


def last_will(config: Config, session: str) -> Presence:
    """What the broker says for us when we are gone without a word: a hint, not a proof."""
    return Presence(v=1, node=config.node, session=session, online=False, reason="connection lost")


def goodbye(config: Config, session: str) -> Presence:
    return Presence(v=1, node=config.node, session=session, online=False, reason="stopped")


def describe(
    link: Link, now: float, current: str, relays: Mapping[tuple[str, str], Relay], obstacle: str = ""
) -> messages.Link:
    """The wire form of a link. `current`: the path that carries the peer now."""
    return messages.Link(
        peer=link.peer,
        path=link.path,
        state=link.state,
        since_s=max(now - link.since, 0.0),
        reason=link.reason,
        rtt_s=link.rtt,
        jitter_s=link.rttvar if link.rtt is not None else None,
        loss_10s=link.loss(now, 10),
        loss_60s=link.loss(now, 60),
        proven_s=max(now - link.last_reply, 0.0) if link.last_reply is not None else None,
        peer_state=link.peer_state,
        relay=relays.get((link.peer, link.path)),
        current=link.path == current,
        obstacle=obstacle,
        sent=link.sent,
        heard=link.heard,
        reordered=link.reordered,
        large_lost_s=link.large_lost_s(now),
    )


def payload(report: Report) -> bytes:
    """As it is sent. One that would be refused for its size says its figures without the words."""
    whole = encode(report)
    if len(whole) <= MAX_PAYLOAD:
        return whole
    links = tuple(replace(link, reason="", obstacle="") for link in report.links)
    services = tuple(replace(service, reason="") for service in report.services)
    return encode(replace(report, links=links, services=services))


def link_event(config: Config, session: str, seq: int, link: Link, links: Sequence[messages.Link]) -> Event:
    """`links`: every link to that peer, so that the controller can decide on this message alone."""
    return Event(
        v=1,
        node=config.node,
        session=session,
        seq=seq,
        kind=EventKind.LINK,
        text=f"{link.path} to {link.peer} is {link.state}: {link.reason}",
        peer=link.peer,
        path=link.path,
        links=tuple(links),
    )


class Announcer:
    """Which changes of a link's state are worth an event: a suspicion that came to nothing is not."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], LinkState] = {}

    def news(self, link: Link, siblings: Sequence[Link]) -> bool:
        """Whether `link` deserves an event. `siblings`: all links to its peer, which the event tells too."""
        key = (link.peer, link.path)
        known = self._told.get(key)
        if link.state is LinkState.SUSPECT or known is link.state:
            return False
        self._told[key] = link.state
        self.told(siblings)
        return True

    def told(self, links: Iterable[Link]) -> None:
        """These were told, in an event or a report: what was told as suspect is news again when it turns out well."""
        for link in links:
            if link.state is LinkState.SUSPECT:
                self._told[link.peer, link.path] = LinkState.SUSPECT
