"""What a load spike comes of: kinds told apart by what else a report carries, the likeliest root first.

No kind needs PSI, which Raspberry Pi kernels ship switched off. What began after the spike is told after what was
there before: a processor that is throttled since the spike heated it is a consequence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from vagus_controller.core.verdict import seconds
from vagus_protocol.messages import DiskIo, LinkState, Process, Relay, Report, System

Kind = Literal["undervoltage", "throttled", "memory", "io", "blocked", "steal", "retransmits", "process", "cpu"]

# Shares of time (PSI, CPU states, a disk's work), of memory; a core.
_IO_SHARE: Final = 0.2
_DISK_BUSY: Final = 0.9
_MEMORY_PRESSURE: Final = 0.1
_MEMORY_LEFT: Final = 0.05
_STEAL_SHARE: Final = 0.1
# Of a core, and above what is usual for it.
_PROCESS_CORES: Final = 0.5
_PROCESS_MORE: Final = 0.3
# Segments a second, and of all that were sent.
_RETRANSMITS: Final = 20.0
_RETRANSMIT_SHARE: Final = 0.05
_PROCESSES_NAMED: Final = 3
_TAKES: Final = re.compile(r"(?<=, )([^,;]+) takes [\d.]+ cores")


class Finding(NamedTuple):
    kind: Kind
    words: str


class Context(NamedTuple):
    """What a single report does not tell. `heated`: the firmware throttles since the spike, not before.
    `retransmits`: TCP segments sent again a second, and their share of all that were sent; None: not known. `usual`:
    cores that processes take by name. `hung`: tasks that wait, by load1, and neither run nor wait for a disk."""

    usual: Mapping[str, float]
    heated: bool = False
    retransmits: float | None = None
    retransmit_share: float | None = None
    hung: float = 0.0


def find(report: Report, system: System, context: Context) -> list[Finding]:
    """Never empty."""
    found: list[Finding] = []
    throttling = system.throttling
    if throttling is not None:
        heat = f" at {system.temperature_c:.0f} °C" if system.temperature_c is not None else ""
        if throttling.undervoltage:
            found.append(Finding("undervoltage", "under-voltage: the power supply or its cable is too weak"))
        if throttling.throttled or throttling.frequency_capped or throttling.soft_temp_limit:
            found.append(Finding("throttled", f"the CPU is throttled{heat}"))
    if _short_of_memory(system):
        left = ""
        if system.memory_bytes and system.memory_available_bytes is not None:
            left = f", {system.memory_available_bytes / system.memory_bytes:.0%} of it is left"
        found.append(Finding("memory", f"memory pressure{left}"))
    waiting = _waits(system, context)
    if waiting is not None:
        found.append(waiting)
    if system.cpu_steal is not None and system.cpu_steal >= _STEAL_SHARE:
        found.append(Finding("steal", f"the host takes {system.cpu_steal:.0%} of the CPU (steal)"))
    storm = _storm(report, context)
    if storm is not None:
        found.append(storm)
    greedy = _greedy(system, context)
    if greedy:
        words = "CPU, " + ", ".join(f"{each.name} takes {each.cpu:.1f} cores" for each in greedy)
        found.append(Finding("process", words))
    if not found:
        found.append(Finding("cpu", "CPU, by processes that are not watched" if system.processes else "CPU"))
    if context.heated:
        found.sort(key=lambda each: each.kind in ("undervoltage", "throttled"))
    return found


def takers(words: str) -> list[str]:
    """The processes that `find` named in what it said."""
    return list(dict.fromkeys(_TAKES.findall(words)))


def throttled(system: System) -> bool:
    """Whether the firmware says so now, of heat or voltage."""
    flags = system.throttling
    return flags is not None and (
        flags.undervoltage or flags.throttled or flags.frequency_capped or flags.soft_temp_limit
    )


def _short_of_memory(system: System) -> bool:
    if system.psi_memory is not None and system.psi_memory.some >= _MEMORY_PRESSURE:
        return True
    if not system.memory_bytes or system.memory_available_bytes is None:
        return False
    return system.memory_available_bytes < _MEMORY_LEFT * system.memory_bytes


def _waits(system: System, context: Context) -> Finding | None:
    """Tasks that wait: for a disk of this machine, or for something that no disk explains."""
    disk = max(system.disk_io, key=lambda each: (each.busy or 0.0, each.await_s or 0.0), default=None)
    works = disk is not None and (disk.busy or 0.0) >= _DISK_BUSY
    blocked = (system.blocked or 0) + context.hung
    # Blocked tasks outnumber the running ones.
    many = blocked > max(1.0, float(system.runnable or 0))
    pressed = (system.psi_io is not None and system.psi_io.some >= _IO_SHARE) or (
        system.cpu_iowait is not None and system.cpu_iowait >= _IO_SHARE
    )
    if not many and not pressed:
        return None
    if many and not works and system.disk_io and all((each.busy or 0.0) < _IO_SHARE for each in system.disk_io):
        what = "a network file system or a driver that does not answer"
        return Finding("blocked", f"I/O that no disk here explains: {blocked:.0f} tasks are blocked ({what})")
    return Finding("io", "I/O" + (_of(disk) if disk is not None else ""))


def _of(disk: DiskIo) -> str:
    if not disk.busy:
        return ""
    # A device that finishes nothing has no latency to tell.
    stuck = disk.await_s is None and disk.busy >= _DISK_BUSY
    latency = " and finishes nothing" if stuck else ""
    if disk.await_s is not None:
        latency = f", a request takes {_short(disk.await_s)}"
    return f", {disk.device} is {disk.busy:.0%} busy{latency}"


def _storm(report: Report, context: Context) -> Finding | None:
    if context.retransmits is None or context.retransmits < _RETRANSMITS:
        return None
    if context.retransmit_share is not None and context.retransmit_share < _RETRANSMIT_SHARE:
        return None
    links = impaired(report)
    after = f", {links[0]}" if links else ""
    return Finding("retransmits", f"TCP sends {context.retransmits:.0f} segments a second again{after}")


def _greedy(system: System, context: Context) -> list[Process]:
    found: dict[str, Process] = {}
    for each in (*system.processes, *system.busiest):
        if each.cpu >= max(_PROCESS_CORES, context.usual.get(each.name, 0.0) + _PROCESS_MORE):
            found.setdefault(each.name, each)
    return sorted(found.values(), key=lambda each: -each.cpu)[:_PROCESSES_NAMED]


def evidence(system: System) -> list[str]:
    lines = []
    if system.cpu_iowait is not None:
        lines.append(f"I/O wait {system.cpu_iowait:.0%} of CPU time")
    for name, pressure in (("cpu", system.psi_cpu), ("io", system.psi_io), ("memory", system.psi_memory)):
        if pressure is not None:
            lines.append(f"pressure on {name}: {pressure.some:.0%} of the last 10 s")
    if system.blocked:
        lines.append(f"{system.blocked} tasks blocked on I/O")
    return lines


def impaired(report: Report) -> list[str]:
    """Links that make software wait and retry: a hint at the cause, or at what suffers."""
    lines = []
    for link in report.links:
        if link.relay in (Relay.DERP, Relay.PEER_RELAY):
            lines.append(f"the link to {link.peer} over {link.path} is relayed ({link.relay.value})")
        elif link.state in (LinkState.DEGRADED, LinkState.DOWN):
            lines.append(f"the link to {link.peer} over {link.path} is {link.state.value}")
    return lines


def _short(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1.0 else seconds(value)
