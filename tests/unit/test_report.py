"""What an agent says of itself, as values."""

from __future__ import annotations

from unit.agent_world import A
from vagus_agent.core import report
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
