"""Views as tables and sentences for a terminal. What comes from the fleet is text: no markup, no control characters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vagus_controller.views import (
    CheckView,
    DrillView,
    EventEntry,
    FleetView,
    IncidentView,
    LastDrill,
    LedgerEntry,
    NodeView,
    PairView,
    PathView,
    PauseView,
    PlanView,
    QuorumView,
    Severity,
    VerdictView,
    WhyView,
)

_STYLES: Final = {
    Severity.OK: "green",
    Severity.INFO: "blue",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "bold red",
    Severity.UNKNOWN: "magenta",
}
ABSENT: Final = "-"


class Column(NamedTuple):
    """`from_width`: a terminal that is narrower leaves the column out."""

    name: str
    from_width: int = 0


def text(value: str, severity: Severity | None = None) -> Text:
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in value)
    return Text(clean, style=_STYLES[severity] if severity is not None else "")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def percent(share: float | None) -> str:
    return ABSENT if share is None else f"{share * 100:.0f} %"


def moment(at: float) -> str:
    try:
        return time.strftime("%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return ABSENT


def table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[Text | str]], empty: str) -> None:
    """`rows` hold a cell for every column, shown or not."""
    rows = list(rows)
    shown = [index for index, column in enumerate(columns) if console.width >= column.from_width]
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index in shown:
        # Names are folded last, and never by long reasons beside them.
        longest = max((len(row[0]) for row in rows), default=0)
        name_width = min(longest, console.width // 3) if index == 0 else None
        grid.add_column(columns[index].name, overflow="fold", min_width=name_width)
    for row in rows:
        cells = [row[index] for index in shown]
        grid.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in cells))
    console.print(grid if grid.row_count else text(empty))


def status(console: Console, fleet: FleetView) -> None:
    console.print(text(fleet.summary, fleet.severity))
    console.print(
        text(
            f"fleet {fleet.fleet}, controller {fleet.controller} ({fleet.version}), mode {fleet.mode}, "
            f"epoch {fleet.epoch}, up {duration(fleet.uptime_s)}, broker {fleet.broker or 'none'}"
        )
    )
    if not fleet.leads:
        console.print(text(f"this controller stands by, and decides nothing: {fleet.standing}", Severity.INFO))
    troubled: list[VerdictView] = [fleet.observer, fleet.quorum.verdict]
    for node in fleet.nodes:
        troubled += [node.liveness, node.load]
    troubled += [path.verdict for pair in fleet.pairs for path in pair.paths]
    verdicts(
        console,
        [each for each in troubled if each.severity in (Severity.WARNING, Severity.CRITICAL)],
        "nothing needs attention",
        evidence=False,
    )
    moved = [pair for pair in fleet.pairs if pair.origin != "default" or pair.status != "settled"]
    if moved:
        console.print(text("pairs that are not on their first path, or wait:"))
        links(console, moved)
    if fleet.pauses:
        pauses(console, fleet.pauses)


def verdicts(console: Console, found: Sequence[VerdictView], empty: str, *, evidence: bool = True) -> None:
    columns = (Column("what"), Column("state"), Column("for", 60), Column("reason"))
    rows = [
        (
            f"{each.kind} {each.subject}",
            text(each.state, each.severity),
            duration(each.since_s),
            _reason(each) if evidence else each.reason,
        )
        for each in found
    ]
    table(console, columns, rows, empty)


def _reason(verdict: VerdictView) -> str:
    return "; ".join((verdict.reason, *verdict.evidence[:4]))


def nodes(console: Console, found: Sequence[NodeView]) -> None:
    columns = (
        *(Column("node"), Column("site", 60), Column("state"), Column("heard", 50), Column("load")),
        *(Column("memory", 90), Column("disk", 100), Column("temp", 100), Column("version", 120), Column("note", 80)),
    )
    table(console, columns, map(_node_row, found), "no node has spoken yet")


def _node_row(node: NodeView) -> tuple[Text | str, ...]:
    system = node.report.system if node.report is not None else None
    load = memory = disk = temperature = ABSENT
    if system is not None:
        load = f"{system.load1:.1f}/{system.cores}"
        if system.memory_bytes and system.memory_available_bytes is not None:
            memory = percent(1 - system.memory_available_bytes / system.memory_bytes)
        if system.disks:
            disk = percent(max(each.used for each in system.disks))
        if system.temperature_c is not None:
            temperature = f"{system.temperature_c:.0f} °C"
    notes = [verdict.reason for verdict in (node.liveness, node.load) if verdict.severity is not Severity.OK]
    notes += [f"drift: {each}" for each in node.drift]
    return (
        *(node.name, node.site, text(node.liveness.state, node.liveness.severity), duration(node.report_age_s)),
        *(text(load, node.load.severity), memory, disk, temperature, node.version, "; ".join(notes)),
    )


def links(console: Console, found: Sequence[PairView]) -> None:
    """The table, and beneath it, a line each, why something is not as it should be."""
    columns = (
        *(Column("pair"), Column("path"), Column("state"), Column("rtt", 60), Column("loss", 70)),
        *(Column("standby", 80), Column("traffic"), Column("status", 50)),
    )
    rows = [_link_row(pair, path) for pair in found for path in pair.paths]
    table(console, columns, rows, "no two nodes name each other as peers yet")
    for pair in found:
        if pair.reason:
            console.print(text(f"{pair.name}: {pair.reason}"))
        for path in pair.paths:
            if path.verdict.severity is not Severity.OK:
                console.print(text(f"{path.verdict.subject} {path.verdict.state}: {path.verdict.reason}"))
            elif path.unproven:
                console.print(text(f"{path.verdict.subject} is not proven, because {path.unproven}"))


def _link_row(pair: PairView, path: PathView) -> tuple[Text | str, ...]:
    first = path is pair.paths[0]
    sides = [node for node, used in zip(pair.nodes, pair.observed, strict=True) if used == path.path]
    traffic = {0: "", 1: f"from {sides[0]}" if sides else "", 2: "both ends"}[len(sides)]
    return (
        *(
            pair.name if first else "",
            f"{path.path} (metered)" if path.metered else path.path,
            text(path.verdict.state, path.verdict.severity),
        ),
        *(duration(slower(path, "rtt_s")), percent(slower(path, "loss_10s"))),
        "proven" if path.proven else text("not proven", Severity.WARNING),
        traffic,
        f"{pair.status} ({pair.origin})" if pair.assigned == path.path else "",
    )


def slower(path: PathView, field: str) -> float | None:
    """The figure of the end that has it worse."""
    values = [getattr(end.link, field) for end in path.ends if end.link is not None]
    return max((value for value in values if value is not None), default=None)


def quorum(console: Console, found: QuorumView) -> None:
    console.print(text(f"{found.verdict.state}: {_reason(found.verdict)}", found.verdict.severity))
    margin = "unknown" if found.margin is None else str(found.margin)
    console.print(
        text(
            f"{found.answering} of {found.voters} voters answer, {margin} more may fail; "
            f"leader {found.leader or 'none'}, term {ABSENT if found.term is None else found.term}, "
            f"{found.leader_changes_1h} leader changes in the last hour"
        )
    )
    columns = (
        *(Column("member"), Column("answers"), Column("read"), Column("term", 60), Column("applied", 70)),
        *(Column("heard", 60), Column("note")),
    )
    rows: list[tuple[str, ...]] = []
    for member in found.members:
        etcd = member.etcd
        if etcd is None:
            rows.append((member.node, ABSENT, ABSENT, ABSENT, ABSENT, duration(member.age_s), "nothing heard of it"))
            continue
        notes = [
            each for each in (etcd.reason, etcd.read_error, *etcd.alarms, "learner" if etcd.learner else "") if each
        ]
        rows.append(
            (
                *(member.node, "yes" if etcd.answering else "no", duration(etcd.read_s)),
                *(ABSENT if value is None else str(value) for value in (etcd.term, etcd.applied_index)),
                *(duration(member.age_s), "; ".join(notes)),
            )
        )
    table(console, columns, rows, "no node reports an etcd member")


def nothing(words: str, about: str | None) -> str:
    """For an empty table: a name that nobody has looks just the same."""
    return f"{words} about {about}; `vagusctl nodes` and `links` have the names" if about else words


def events(console: Console, found: Sequence[EventEntry], about: str | None = None) -> None:
    columns = (Column("id", 100), Column("when"), Column("subject"), Column("kind", 80), Column("what"))
    rows = [(str(each.id), moment(each.at), each.subject, each.kind, text(each.text, each.severity)) for each in found]
    table(console, columns, rows, "nothing has happened yet" if about is None else nothing("nothing is known", about))


def ledger(console: Console, found: Sequence[LedgerEntry]) -> None:
    columns = (
        *(Column("id", 100), Column("when"), Column("who", 80), Column("action"), Column("subject")),
        *(Column("reason"), Column("outcome", 60)),
    )
    rows = [
        (
            *(str(each.id), moment(each.at), each.who, each.action, each.subject),
            *("; ".join((each.reason, *each.evidence)), each.outcome),
        )
        for each in found
    ]
    table(console, columns, rows, "nothing has been decided yet")


def pauses(console: Console, found: Sequence[PauseView]) -> None:
    columns = (Column("pause"), Column("of"), Column("ends in"), Column("who", 60), Column("reason"))
    rows = [
        (str(each.id), f"{each.scope} {each.target}".strip(), duration(each.expires_s), each.who, each.reason)
        for each in found
    ]
    table(console, columns, rows, "no pause")


_PLAN_STYLES: Final = {
    "dry run": Severity.INFO,
    "under way": Severity.INFO,
    "done": Severity.OK,
    "stopped": Severity.WARNING,
}
_STEP_STYLES: Final = {
    "on trial": Severity.INFO,
    "confirmed": Severity.OK,
    "rolled back": Severity.WARNING,
    "refused": Severity.WARNING,
}


def plan(console: Console, found: PlanView) -> None:
    """One plan: what it does, its stages in order, what is checked, what stops it."""
    number = f"plan {found.id}, " if found.id else ""
    console.print(text(f"{number}{found.state}: {found.what} ({found.reason})", _PLAN_STYLES[found.state]))
    if found.outcome:
        console.print(text(f"stopped {found.outcome}", Severity.WARNING))
    columns = (Column("stage"), Column("pair"), Column("from"), Column("to"), Column("state"), Column("note", 70))
    rows = [
        (
            *(str(number) if step is stage.steps[0] else "", step.pair, step.was, step.path),
            *(text(step.state, _STEP_STYLES.get(step.state)), step.reason),
        )
        for number, stage in enumerate(found.stages, 1)
        for step in stage.steps
    ]
    table(console, columns, rows, "no pair")
    for title, lines in (
        ("checked before and after:", found.checks),
        ("what stops it:", found.stops),
        ("nothing to do for:", found.skipped),
    ):
        if lines:
            console.print(title)
            for line in lines:
                console.print(text(f"  {line}"))


def plans(console: Console, found: Sequence[PlanView]) -> None:
    columns = (
        *(Column("plan"), Column("began"), Column("who", 80), Column("what"), Column("state")),
        *(Column("pairs"), Column("reason", 100), Column("note", 60)),
    )
    rows = []
    for each in found:
        steps = [step for stage in each.stages for step in stage.steps]
        done = sum(step.state == "confirmed" for step in steps)
        state = text(each.state, _PLAN_STYLES[each.state])
        began = f"{duration(each.age_s)} ago"
        rows.append(
            (str(each.id), began, each.who, each.what, state, f"{done} of {len(steps)}", each.reason, each.outcome)
        )
    table(console, columns, rows, "no plan yet")


_DRILL_STYLES: Final = {"ok": Severity.OK, "aborted": Severity.WARNING, "skipped": Severity.WARNING}


def drills(console: Console, found: Sequence[DrillView]) -> None:
    columns = (
        *(Column("drill"), Column("began"), Column("who", 90), Column("pair"), Column("by", 60), Column("state")),
        *(Column("gap out"), Column("gap back"), Column("note", 70)),
    )
    rows = [
        (
            *(str(each.id), f"{duration(each.age_s)} ago", each.who, one.pair, one.path),
            *(text(one.state, _DRILL_STYLES.get(one.state)), gap(one.gap_s), gap(one.gap_back_s), one.reason),
        )
        for each in found
        for one in each.pairs
    ]
    table(console, columns, rows, "no drill since this controller began; `vagusctl drill` begins one")
    for each in found:
        if each.outcome:
            console.print(text(f"drill {each.id} {each.outcome}", Severity.WARNING))


def _last_drill(name: str, last: LastDrill) -> str:
    when = f" {duration(max(time.time() - last.at, 0))} ago" if last.at else ""
    return f"{name}: last drill{when}: {'ok' if last.ok else 'aborted'}: {last.words}"


def gap(seconds: float | None) -> str:
    return ABSENT if seconds is None else f"{seconds * 1000:.0f} ms" if seconds else "none"


def checks(console: Console, found: Sequence[CheckView]) -> None:
    columns = (Column("looked at", 60), Column("result"), Column("now"))
    rows = [(each.what, "" if each.result == "info" else each.result, each.text) for each in found]
    table(console, columns, rows, "nothing to look at")


def why(console: Console, found: WhyView) -> None:
    verdicts(console, found.verdicts, "no finding")
    for incident in found.incidents:
        console.print(text(f"incident {incident.id}: {incident.title}", incident.severity))
        for line in causes(incident):
            console.print(text(f"  {line}"))
    if found.pairs:
        links(console, found.pairs)
    for pair in found.pairs:
        if pair.drill is not None:
            console.print(text(_last_drill(pair.name, pair.drill), None if pair.drill.ok else Severity.WARNING))
    if found.checks:
        checks(console, found.checks)
    console.print("decisions:")
    ledger(console, found.ledger)
    console.print("events:")
    events(console, found.events)


def causes(incident: IncidentView) -> list[str]:
    """What came of what, and what is not known."""
    return [f"why: {incident.why}"] * bool(incident.why) + [f"not known: {doubt}" for doubt in incident.doubts]


def event_line(entry: EventEntry) -> Text:
    return text(f"{moment(entry.at)} {entry.subject} {entry.kind}: {entry.text}", entry.severity)


def ledger_line(entry: LedgerEntry) -> Text:
    outcome = f" ({entry.outcome})" if entry.outcome else ""
    return text(f"{moment(entry.at)} {entry.who}: {entry.action} {entry.subject}: {entry.reason}{outcome}")


def fleet_line(fleet: FleetView) -> Text:
    return text(f"{moment(fleet.at)} {fleet.summary}", fleet.severity)
