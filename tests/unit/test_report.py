"""What an agent says of itself, as values."""

from __future__ import annotations

from unit.agent_world import A
from vagus_agent.config import Probe
from vagus_agent.core import report
from vagus_agent.core.link import Link as Probed
from vagus_protocol.codec import MAX_LINKS, MAX_PAYLOAD, decode, encode
from vagus_protocol.messages import Link, LinkState, Presence, Relay, Report, Service


def test_the_last_will_and_the_goodbye() -> None:
    assert encode(report.last_will(A, "s1")) == (
        b'{"v":1,"node":"a","session":"s1","online":false,"reason":"connection lost"}'
    )
    assert report.goodbye(A, "s1") == Presence(v=1, node="a", session="s1", online=False, reason="stopped")


def said(reason: str) -> Report:
    """Of a node with as many links as there may be, whose figures are as long as they get."""
    links = [
        Link(
            peer=f"a-node-with-a-long-name-{number}",
            path="overlay",
            state=LinkState.DEGRADED,
            since_s=1234567.123456789,
            reason=reason,
            rtt_s=0.12345678901234567,
            jitter_s=0.012345678901234567,
            loss_10s=0.12345678901234567,
            loss_60s=0.12345678901234567,
            proven_s=0.12345678901234567,
            peer_state=LinkState.DEGRADED,
            relay=Relay.RIDING_BACKUP,
            current=True,
            obstacle=reason,
            sent=123456789,
            heard=123456789,
            reordered=1234567,
        )
        for number in range(MAX_LINKS)
    ]
    services = tuple(Service(name=f"check-{number}", ok=False, reason=reason) for number in range(16))
    return Report(
        v=1, node="a", session="s" * 16, seq=1, boot_id="b" * 36, interval_s=2.0, links=tuple(links), services=services
    )


def test_a_report_that_would_be_refused_for_its_size_keeps_its_figures() -> None:
    small, large = said(""), said("no reply within 120 ms, and so on " * 20)
    assert report.payload(small) == encode(small)
    assert len(encode(large)) > MAX_PAYLOAD
    sent = report.payload(large)
    # There is room for the machine's own figures.
    assert len(sent) < MAX_PAYLOAD - 4096
    assert decode(sent, Report) == small


def probed(peer: str, path: str, state: LinkState) -> Probed:
    link = Probed(peer, path, 0.25, Probe(), 0.0, [])
    link.state = state
    return link


def test_a_suspicion_that_was_told_is_news_again_when_it_turns_out_well() -> None:
    """Whoever decides would hold it against the path until the next report."""
    up, suspect, down = LinkState.UP, LinkState.SUSPECT, LinkState.DOWN
    backup, overlay = probed("b", "backup", up), probed("b", "overlay", up)
    announcer = report.Announcer()
    assert announcer.news(backup, [backup, overlay])
    assert announcer.news(overlay, [backup, overlay])
    backup.state = suspect
    assert not announcer.news(backup, [backup, overlay])
    backup.state = up
    assert not announcer.news(backup, [backup, overlay]), "nobody heard of it"
    backup.state = suspect
    announcer.told([backup, overlay])
    backup.state = up
    assert announcer.news(backup, [backup, overlay]), "a report told it"
    backup.state, overlay.state = suspect, down
    assert announcer.news(overlay, [backup, overlay])
    backup.state = up
    assert announcer.news(backup, [backup, overlay]), "the other link's event told it"
