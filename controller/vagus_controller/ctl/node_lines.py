"""The nodes of a fleet as lines, the worst first: what each machine says of itself, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from rich.text import Text

from vagus_controller.ctl.signs import GAP, Signs, counted, head, rank, rest, row, worst
from vagus_controller.ctl.tables import ABSENT, duration, percent, text
from vagus_controller.views import FleetView, NodeView, Severity
from vagus_protocol.messages import Pressure, System

# Where a Raspberry Pi 4 begins to slow itself down.
_HOT_C: Final = 80.0
_NAME_AT_MOST: Final = 24


class _Column(NamedTuple):
    """`from_width`: a terminal that is narrower leaves the column out."""

    title: str
    width: int
    from_width: int = 0


_COLUMNS: Final = (
    _Column("site", 12, 110),
    _Column("state", 10),
    _Column("per core", 8, 40),
    _Column("cpu/io/mem", 11, 60),
    _Column("temp", 6, 50),
    _Column("memory", 6, 100),
    _Column("disk", 5, 100),
)


def mood(node: NodeView) -> Severity:
    drift = (Severity.WARNING,) if node.drift else ()
    return worst((node.liveness.severity, node.load.severity, *drift))


def nodes(fleet: FleetView, ages: Mapping[str, float], room: int, width: int, signs: Signs) -> list[Text]:
    """At most `room` lines, the first of them the heading. `ages`: how old what is known of a node is."""
    moods = {node.name: mood(node) for node in fleet.nodes}
    shown = [width >= column.from_width for column in _COLUMNS]
    title = counted("NODES", list(moods.values()))
    longest = max((len(node.name) for node in fleet.nodes), default=0)
    name = min(max(longest, len(title)), _NAME_AT_MOST, max(width // 3, 8))
    widths = [name, *(column.width for column, is_in in zip(_COLUMNS, shown, strict=True) if is_in)]
    left = width - sum(widths) - GAP * len(widths)
    if left >= GAP:
        widths.append(left)
    titles = [column.title for column, is_in in zip(_COLUMNS, shown, strict=True) if is_in]

    def line(node: NodeView) -> Text:
        cells = (node.site, _state(node, moods[node.name], signs), *_figures(node))
        kept = [cell for cell, is_in in zip(cells, shown, strict=True) if is_in]
        return row([node.name, *kept, _notes(node, ages.get(node.name, 0.0))][: len(widths)], widths)

    lines = [head([title, *titles, "notes"][: len(widths)], widths)]
    if not fleet.nodes:
        return [*lines, text("no node has spoken yet")][:room]
    room -= 1
    found = sorted(fleet.nodes, key=lambda node: (-rank(moods[node.name]), node.name))
    whole = len(found) if len(found) <= room else max(room - 1, 0)
    lines += map(line, found[:whole])
    if whole < len(found) and room > 0:
        lines.append(rest(moods[node.name] for node in found[whole:]))
    return lines


def _state(node: NodeView, severity: Severity, signs: Signs) -> Text:
    """Of the verdict that is worse."""
    verdict = max(node.liveness, node.load, key=lambda each: rank(each.severity))
    words = "drift" if rank(severity) > rank(verdict.severity) else verdict.state.replace("-", " ")
    if severity is Severity.OK:
        words = node.liveness.state
    return text(f"{signs.severity[severity]} {words}", severity)


def _figures(node: NodeView) -> tuple[Text | str, ...]:
    system = node.report.system if node.report is not None else None
    if system is None:
        return (ABSENT,) * 5
    memory = disk = ABSENT
    if system.memory_bytes and system.memory_available_bytes is not None:
        memory = percent(1 - system.memory_available_bytes / system.memory_bytes)
    if system.disks:
        disk = percent(max(each.used for each in system.disks))
    load = text(f"{system.load1 / system.cores:.2f}", node.load.severity if _is_bad(node.load.severity) else None)
    return load, _pressure(system), _temperature(system), memory, disk


def _is_bad(severity: Severity) -> bool:
    return rank(severity) > rank(Severity.UNKNOWN)


def _pressure(system: System) -> str:
    kinds = (system.psi_cpu, system.psi_io, system.psi_memory)
    return "/".join(map(_share, kinds)) if any(kinds) else ABSENT


def _share(pressure: Pressure | None) -> str:
    return ABSENT if pressure is None else f"{pressure.some * 100:.0f}%"


def _temperature(system: System) -> Text:
    if system.temperature_c is None:
        return text(ABSENT)
    hot = system.temperature_c >= _HOT_C
    return text(f"{system.temperature_c:.0f} °C{'!' if hot else ''}", Severity.WARNING if hot else None)


def _notes(node: NodeView, age: float) -> Text:
    found: list[str] = []
    if node.liveness.state != "fresh" and node.report_age_s is not None:
        found.append(f"heard {duration(node.report_age_s + age)} ago")
    system = node.report.system if node.report is not None else None
    found += _power(system)
    found += [each.reason for each in (node.liveness, node.load) if each.severity is not Severity.OK]
    found += [f"drift: {each}" for each in node.drift]
    if node.report is not None:
        found += [f"{each.name} fails: {each.reason}" for each in node.report.services if not each.ok]
    return text("; ".join(found))


def _power(system: System | None) -> list[str]:
    """What the firmware of a Raspberry Pi holds back."""
    flags = system.throttling if system is not None else None
    if flags is None:
        return []
    now = {
        "under-voltage": flags.undervoltage,
        "throttled": flags.throttled,
        "frequency capped": flags.frequency_capped,
        "soft temperature limit": flags.soft_temp_limit,
    }
    return [name for name, is_on in now.items() if is_on]
