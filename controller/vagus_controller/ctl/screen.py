"""The screen of `vagusctl watch`: the same picture as the fleet page, in as many lines as the terminal has.

Pure: the picture, the size and two clocks in; lines out, the most urgent first. Sections share the room that is left,
and each counts what it has no room for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Final

from rich.text import Text

from vagus_controller.ctl.link_lines import links
from vagus_controller.ctl.node_lines import nodes
from vagus_controller.ctl.picture import Entry, Picture
from vagus_controller.ctl.signs import GAP, Signs, head, plural, rank
from vagus_controller.ctl.tables import duration, moment, text
from vagus_controller.views import EventEntry, FleetView, QuorumView, Severity

# The controller speaks at least every three seconds.
STALE_AFTER_S: Final = 6.0
# etcd's heartbeat is 100 ms; a read that waits that long for a disk costs leaders.
_SLOW_READ_S: Final = 0.1
_BUSY_DISK: Final = 0.9
_SUMMARY_LINES: Final = 2
# One more incident, or pause, for each so many lines of the terminal.
_LINES_PER_INCIDENT: Final = 8
_LINES_PER_PAUSE: Final = 12
# From here on there is room for what is well too.
_TALL: Final = 32
# What a section takes of the room, in turns, until it has what it wants.
_LINKS_STEP, _NODES_STEP, _ENTRIES_STEP = 2, 1, 1


def draw(picture: Picture, width: int, height: int, now: float, at: float, signs: Signs) -> Text:
    """`now`: monotonic, as the picture's own times; `at`: epoch seconds, for display."""
    lines = [_title(picture, width, now, at, signs)]
    if picture.trouble:
        lines += [text(line, Severity.CRITICAL) for line in _wrapped(picture.trouble, width, _SUMMARY_LINES)]
    if picture.fleet is not None:
        body = _top(picture, picture.fleet, width, height, now, signs)
        body += _sections(picture, picture.fleet, width, height - len(lines) - len(body), now, at, signs)
        if picture.trouble or now - picture.heard_at > STALE_AFTER_S:
            for line in body:
                line.stylize("dim")
        lines += body
    elif not picture.trouble:
        lines.append(text("waiting for the controller's first picture"))
    for line in lines:
        line.truncate(max(width, 1), overflow="ellipsis")
    return Text("\n", no_wrap=True, end="").join(lines[: max(height, 1)])


def _title(picture: Picture, width: int, now: float, at: float, signs: Signs) -> Text:
    """Whose picture it is, and how fresh; where there is no room for both, how fresh."""
    silent = now - picture.heard_at
    if picture.trouble:
        age = f"; this picture is {duration(silent)} old" if picture.fleet is not None else ""
        fresh = text(f"{signs.severity[Severity.CRITICAL]} not connected, trying again{age}", Severity.CRITICAL)
    elif picture.fleet is not None and silent > STALE_AFTER_S:
        words = f"{signs.severity[Severity.WARNING]} the controller has said nothing for {duration(silent)}"
        fresh = text(words, Severity.WARNING)
    else:
        fresh = text("connecting" if picture.fleet is None else f"{signs.severity[Severity.OK]} live")
    fresh.append(f"  {time.strftime('%H:%M:%S', time.localtime(at))}")
    fleet = picture.fleet
    left = text("vagus" if fleet is None else f"{fleet.fleet}  controller {fleet.controller}, {_part(fleet)}")
    left.stylize("bold")
    left.truncate(max(width - fresh.cell_len - 2, 0), overflow="ellipsis", pad=True)
    return left.append("  ").append_text(fresh) if left.plain.strip() else fresh


def _part(fleet: FleetView) -> str:
    return f"mode {fleet.mode}" if fleet.leads else f"stands by: {fleet.standing}"


# --- what fills the top ---------------------------------------------------------------------------------------------


def _top(picture: Picture, fleet: FleetView, width: int, height: int, now: float, signs: Signs) -> list[Text]:
    age = now - picture.head_at
    sign = signs.severity[fleet.severity]
    words = f"{sign} {fleet.severity.value.upper()}  {fleet.summary}"
    lines = [text(line, fleet.severity) for line in _wrapped(words, width, _SUMMARY_LINES)]
    for line in lines:
        line.stylize("bold")
    lines += _pauses(fleet, age, height, signs)
    lines += _incidents(fleet, age, max(height // _LINES_PER_INCIDENT, 1), signs)
    if not fleet.incidents and height >= _TALL:
        lines.append(text(f"{signs.severity[Severity.OK]} no open incident"))
    return lines + _quorum(fleet, width, height, signs)


def _pauses(fleet: FleetView, age: float, height: int, signs: Signs) -> list[Text]:
    most = max(height // _LINES_PER_PAUSE, 1)
    lines = []
    for pause in fleet.pauses[:most]:
        left = duration(max(pause.expires_s - age, 0.0))
        what = " ".join(filter(None, (pause.scope, pause.target)))
        words = f"{signs.severity[Severity.WARNING]} PAUSED  {what}, {left} left ({pause.who}: {pause.reason})"
        lines.append(text(words, Severity.WARNING))
    if left_out := len(fleet.pauses) - len(lines):
        lines.append(text(f"and {plural(left_out, 'more pause')}: vagusctl status"))
    return lines


def _incidents(fleet: FleetView, age: float, most: int, signs: Signs) -> list[Text]:
    lines = []
    for one in fleet.incidents[:most]:
        on_it = f"; {one.acknowledged_by} is on it" if one.acknowledged_by else ""
        did = one.did or "vagus did nothing about it"
        words = f"{signs.severity[one.severity]} #{one.id} {one.title}, {duration(one.age_s + age)}; {did}{on_it}"
        lines.append(text(words, one.severity))
    if left := len(fleet.incidents) - len(lines):
        lines.append(text(f"and {plural(left, 'more incident')}: vagusctl incidents"))
    return lines


def _quorum(fleet: FleetView, width: int, height: int, signs: Signs) -> list[Text]:
    found = fleet.quorum
    severity = found.verdict.severity
    if not found.members and not found.voters:
        return [text(f"QUORUM  {found.verdict.reason}")]
    if severity is Severity.OK and found.margin == 0 and found.voters > 1:
        severity = Severity.WARNING
    parts = [
        f"QUORUM {signs.severity[severity]} {found.verdict.state.replace('-', ' ')}",
        f"{found.answering}/{found.voters} answer, {_margin(found)}",
        f"{f'{found.leader} leads' if found.leader else 'no leader'}, term {'-' if found.term is None else found.term}",
        f"{plural(found.leader_changes_1h, 'change')}/h",
    ]
    lines = _wrapped("; ".join(parts), width, 2)
    if found.verdict.severity is not Severity.OK:
        lines += _wrapped(found.verdict.reason, width, 2)
    members = [_member(found, position, signs) for position in range(len(found.members))]
    told = [words for words, bad in members if bad or height >= _TALL] + _slow(fleet)
    if told:
        lines += _wrapped("  ".join(told), width, 2 if height < _TALL else 4)
    bad = severity is not Severity.OK
    return [text(line, severity if bad else None) for line in lines]


def _margin(found: QuorumView) -> str:
    if found.margin is None:
        return "how many may fail is not known"
    if found.margin < 0 or found.verdict.state == "lost":
        return "a majority is missing"
    return "one failure from loss" if found.margin == 0 else f"{found.margin} may fail"


def _member(found: QuorumView, position: int, signs: Signs) -> tuple[str, bool]:
    """In words, and whether it is bad."""
    member = found.members[position]
    etcd = member.etcd
    if etcd is None:
        return f"{signs.severity[Severity.UNKNOWN]} {member.node}: nothing heard", True
    if not etcd.answering:
        return f"{signs.severity[Severity.CRITICAL]} {member.node}: {etcd.reason or 'no answer'}", True
    troubles = [*etcd.alarms, *((f"read failed: {etcd.read_error}",) if etcd.read_error else ())]
    facts = [*(("leader",) if member.node == found.leader else ()), f"read {duration(etcd.read_s)}", *troubles]
    severity = Severity.WARNING if troubles else Severity.OK
    return f"{signs.severity[severity]} {member.node}: {', '.join(facts)}", bool(troubles)


def _slow(fleet: FleetView) -> list[str]:
    """Members that seem to wait for their disk."""
    systems = {node.name: node.report.system for node in fleet.nodes if node.report is not None}
    found = []
    for member in fleet.quorum.members:
        system = systems.get(member.node)
        busy = next((each for each in system.disk_io if (each.busy or 0) >= _BUSY_DISK), None) if system else None
        if busy is not None:
            found.append(f"slow disk? {member.node}: {busy.device} is busy {(busy.busy or 0) * 100:.0f} %")
        elif member.etcd is not None and (member.etcd.read_s or 0) >= _SLOW_READ_S:
            found.append(f"slow disk or link? a read through {member.node} takes {duration(member.etcd.read_s)}")
    return found


# --- what shares the rest -------------------------------------------------------------------------------------------


def _sections(
    picture: Picture, fleet: FleetView, width: int, room: int, now: float, at: float, signs: Signs
) -> list[Text]:
    wants = [max(len(fleet.pairs), 1), max(len(fleet.nodes), 1), max(len(picture.entries), 1)]
    # A section with less than its heading and a few lines is none.
    count = max(min(len(wants), room // 4), 0)
    given = share(room - count, wants[:count], (_LINKS_STEP, _NODES_STEP, _ENTRIES_STEP))
    lines: list[Text] = []
    if count > 0:
        lines += links(fleet, _ages(picture.pairs_at, now), given[0] + 1, width, signs)
    if count > 1:
        lines += nodes(fleet, _ages(picture.nodes_at, now), given[1] + 1, width, signs)
    if count > 2:
        lines += _entries(picture.entries, given[2] + 1, width, at, signs)
    return lines


def share(room: int, wants: Sequence[int], steps: Sequence[int]) -> list[int]:
    """What each gets of the room: in turns, by its step, until it has what it wants."""
    given = [0] * len(wants)
    while room > 0 and given != list(wants):
        for number, (want, step) in enumerate(zip(wants, steps, strict=False)):
            taken = min(step, want - given[number], room)
            given[number] += taken
            room -= taken
    return given


def _ages(since: Mapping[str, float], now: float) -> dict[str, float]:
    return {name: now - then for name, then in since.items()}


def _entries(entries: Sequence[Entry], room: int, width: int, at: float, signs: Signs) -> list[Text]:
    legend = f"{signs.traffic} traffic  {signs.half} from one end  {signs.proven} standby proven  {signs.bare} not"
    title = head(("EVENTS AND DECISIONS", legend), (max(width - len(legend) - GAP, min(width, 20)), len(legend)))
    if not entries:
        return [title, text("nothing has happened yet")][:room]
    return [title, *(_entry(each, at, signs) for each in entries[: room - 1])][:room]


def _entry(entry: Entry, at: float, signs: Signs) -> Text:
    # Of today the time is enough.
    when = moment(entry.at)
    when = when.partition(" ")[2] or when if abs(at - entry.at) < 12 * 3600 else when
    if isinstance(entry, EventEntry):
        severity = entry.severity if rank(entry.severity) > rank(Severity.INFO) else None
        return text(f"{when} {signs.severity[entry.severity]} {entry.subject}: {entry.text}", severity)
    outcome = f" ({entry.outcome})" if entry.outcome else ""
    line = text(f"{when} = {entry.who}: {entry.action} {entry.subject}{outcome}: {entry.reason}")
    line.stylize("bold", 0, len(line.plain) - len(entry.reason))
    return line


def _wrapped(words: str, width: int, most: int) -> list[str]:
    """At most so many lines; the last of them holds the rest, for whoever cuts it."""
    lines = wrap(words, max(width, 8)) or [""]
    return [*lines[: most - 1], " ".join(lines[most - 1 :])] if len(lines) > most else lines
