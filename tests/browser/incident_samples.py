"""Pictures of incidents, for the API's and the page's tests."""

from __future__ import annotations

from browser.samples import AT, BERLIN, LISBON, OSAKA, VPS
from vagus_controller.views import (
    CauseView,
    ChannelView,
    IncidentBrief,
    IncidentStep,
    IncidentView,
    NoteView,
    Severity,
    TroubleView,
)


def overlay_of_osaka(incident_id: int = 12) -> IncidentView:
    """Three pairs whose overlay died at one moment, and quorum at risk by it."""
    return overlay_of(OSAKA, (f"{BERLIN}--{OSAKA}", f"{LISBON}--{OSAKA}", f"{OSAKA}--{VPS}"), incident_id)


def overlay_of(node: str, links: tuple[str, ...], incident_id: int) -> IncidentView:
    dead = tuple(
        TroubleView(
            kind="link",
            subject=f"{name}/overlay",
            state="down",
            severity=Severity.CRITICAL,
            reason="no probe gets through in either direction",
            since_s=41.0,
            over=False,
            is_cause=True,
        )
        for name in links
    )
    quorum = TroubleView(
        kind="quorum",
        subject="harbour",
        state="at-risk",
        severity=Severity.WARNING,
        reason="one more failure loses it",
        since_s=38.0,
        over=True,
        is_cause=False,
    )
    return IncidentView(
        id=incident_id,
        at=AT - 41,
        subject=node,
        title=f"overlay of {node} is dead",
        severity=Severity.CRITICAL,
        worst=Severity.CRITICAL,
        state="open",
        cause=CauseView(kind="link", scope="node", target=node, path="overlay"),
        did=f"moved {len(links)} pairs to backup",
        duration_s=41.0,
        troubles=(*dead, quorum)[:50],
        troubles_total=len(links) + 1,
        causes_total=len(links),
        timeline=(
            IncidentStep(
                at=AT - 41,
                kind="verdict",
                subject=f"{links[0]}/overlay",
                text="down: 6 probes in a row without an answer",
                severity=Severity.CRITICAL,
            ),
            IncidentStep(
                at=AT - 40.6,
                kind="action",
                subject=links[0],
                text="failover: confirmed at both ends",
                severity=Severity.INFO,
            ),
        ),
        notes=(NoteView(at=AT - 10, who="ines", text="the provider knows"),),
    )


def spike_of_last_week(incident_id: int = 7) -> IncidentView:
    return IncidentView(
        id=incident_id,
        at=AT - 7 * 86_400,
        subject=BERLIN,
        title=f"load spike on {BERLIN}",
        severity=Severity.WARNING,
        worst=Severity.WARNING,
        state="over",
        cause=CauseView(kind="load", scope="node", target=BERLIN, path=""),
        did="",
        duration_s=310.0,
        ended_at=AT - 7 * 86_400 + 310,
    )


def brief(incident: IncidentView) -> IncidentBrief:
    return IncidentBrief(
        id=incident.id,
        title=incident.title,
        severity=incident.severity,
        at=incident.at,
        age_s=incident.duration_s,
        cause=incident.cause,
        did=incident.did,
        troubles=sum(not each.over for each in incident.troubles),
        causes=sum(not each.over and each.is_cause for each in incident.troubles),
        acknowledged_by=incident.acknowledged_by,
    )


def channels() -> tuple[ChannelView, ...]:
    """One that works, one that does not."""
    ops = ChannelView(
        name="ops",
        service="Telegram",
        severities=("warning", "critical"),
        kinds=(),
        sites=(),
        repeat_s=14_400.0,
        quiet="",
        state="works",
        waiting=0,
        sent=31,
        failed=1,
        dropped=0,
        last_sent_at=AT - 40,
        last_failed_at=AT - 86_400,
        failure="",
    )
    team = ChannelView(
        name="team",
        service="E-Mail",
        severities=("critical",),
        kinds=(),
        sites=("osaka",),
        repeat_s=0.0,
        quiet="quiet hours",
        state="fails",
        waiting=1,
        sent=3,
        failed=7,
        dropped=0,
        last_sent_at=AT - 86_400,
        last_failed_at=AT - 20,
        failure="Failed to send Email",
    )
    return (ops, team)
