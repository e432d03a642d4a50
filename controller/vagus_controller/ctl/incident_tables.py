"""Incidents for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from vagus_controller.ctl.tables import Column, causes, duration, moment, nothing, table, text
from vagus_controller.views import ChannelView, IncidentView, Severity


def incidents(console: Console, found: Sequence[IncidentView], about: str | None = None) -> None:
    columns = (
        *(Column("id"), Column("state"), Column("began"), Column("for", 60), Column("what")),
        *(Column("vagus", 80), Column("on it", 70)),
    )
    rows = [
        (
            *(str(each.id), _state(each), moment(each.at), duration(each.duration_s), each.title),
            *(each.did, each.resolved_by or each.acknowledged_by),
        )
        for each in found
    ]
    table(console, columns, rows, nothing("no incident", about))


def incident(console: Console, found: IncidentView) -> None:
    """One: what it is, what comes of it, what happened, what people say."""
    console.print(text(f"incident {found.id}, {found.state}: {found.title}", found.severity))
    came_back = f", came back {found.reopened} times" if found.reopened else ""
    console.print(text(f"since {moment(found.at)}, for {duration(found.duration_s)}{came_back}"))
    for line in causes(found):
        console.print(text(line))
    console.print(text(f"vagus: {found.did or 'nothing was moved'}"))
    if found.merged_into is not None:
        console.print(text(f"it was part of incident {found.merged_into}"))
    if found.resolved_by:
        console.print(text(f"resolved by {found.resolved_by}: {found.resolution}"))
    elif found.acknowledged_by:
        console.print(text(f"acknowledged by {found.acknowledged_by}"))
    columns = (Column("", 60), Column("what"), Column("state"), Column("for", 60), Column("reason"))
    rows = [
        (
            *("cause" if each.is_cause else "so", f"{each.kind} {each.subject}"),
            text("over" if each.over else each.state, None if each.over else each.severity),
            *(duration(each.since_s), each.reason),
        )
        for each in found.troubles
    ]
    table(console, columns, rows, "nothing is wrong any more")
    if found.troubles_total > len(found.troubles):
        console.print(text(f"and {found.troubles_total - len(found.troubles)} more"))
    for step in found.timeline:
        subject = f"{step.subject} " if step.kind in ("verdict", "action") and step.subject else ""
        console.print(text(f"{moment(step.at)} {subject}{step.text}", step.severity))
    for note in found.notes:
        console.print(text(f"{moment(note.at)} {note.who}: {note.text}"))


def incident_line(found: IncidentView) -> Text:
    state = "" if found.state == "open" else f", {found.state}"
    return text(f"{moment(found.ended_at or found.at)} incident {found.id}{state}: {found.title}", found.severity)


def channels(console: Console, found: Sequence[ChannelView]) -> None:
    columns = (
        *(Column("channel"), Column("service"), Column("state"), Column("waiting"), Column("sent", 70)),
        *(Column("last", 70), Column("tells", 90), Column("note")),
    )
    severity = {"works": Severity.OK, "fails": Severity.CRITICAL}
    rows = [
        (
            *(each.name, each.service, text(each.state, severity.get(each.state)), str(each.waiting), str(each.sent)),
            moment(each.last_sent_at) if each.last_sent_at is not None else "never",
            ", ".join((*each.severities, *each.kinds, *each.sites)),
            each.failure or each.quiet,
        )
        for each in found
    ]
    table(console, columns, rows, "no channel; [[notify.channel]] in the controller's configuration makes one")


def _state(found: IncidentView) -> Text:
    return text(found.severity.value if found.state == "open" else found.state, found.severity)
