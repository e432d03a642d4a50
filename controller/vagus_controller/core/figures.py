"""What of a report is kept for charts: figures by key, as whole numbers.

A key is a name of `METRICS`, for what a machine has several of with what it is about: "load", "disk_used:/",
"rtt:PEER:PATH". A figure is its value times the metric's scale, so that most take one or two bytes on disk. What a
machine lacks has no key: absent is not zero.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vagus_protocol.messages import Etcd, Link, Observed, Relay, Report, System


class Metric(NamedTuple):
    scale: int
    unit: str
    words: str


METRICS: Final = {
    "load": Metric(100, "", "Load average over 1 minute, per core"),
    "runnable": Metric(1, "", "Tasks that run or wait for a core"),
    "psi_cpu": Metric(1000, "share", "Time that some task waited for a core, over 10 s"),
    "psi_io": Metric(1000, "share", "Time that some task waited for a disk, over 10 s"),
    "psi_memory": Metric(1000, "share", "Time that some task waited for memory, over 10 s"),
    "cpu": Metric(1000, "share", "CPU time in programs and kernel, of all cores"),
    "iowait": Metric(1000, "share", "CPU time idle with a disk awaited"),
    "steal": Metric(1000, "share", "CPU time that the hypervisor gave to others"),
    "memory_used": Metric(1000, "share", "Memory that is not available"),
    "swap_used": Metric(1000, "share", "Swap in use"),
    "temperature": Metric(10, "°C", "Temperature of the processor"),
    "throttled": Metric(1000, "share", "Time that the firmware throttled the processor"),
    "undervoltage": Metric(1000, "share", "Time with too little voltage"),
    "agent_lag": Metric(1_000_000, "s", "How late the agent's own loop ran, worst of a report's interval"),
    "etcd_term": Metric(1, "", "Raft term: it grows by each election"),
    "etcd_leads": Metric(1000, "share", "Time that this member led"),
    "etcd_read": Metric(1_000_000, "s", "Latency of a linearizable read"),
    # of a mount, a device, a program's name
    "disk_used": Metric(1000, "share", "Fullness of a file system"),
    "disk_busy": Metric(1000, "share", "Time that a disk worked"),
    "process": Metric(1000, "cores", "CPU of all processes of a name, in cores"),
    # of PEER:PATH
    "rtt": Metric(1_000_000, "s", "Round-trip time"),
    "jitter": Metric(1_000_000, "s", "Jitter"),
    "loss": Metric(1000, "share", "Loss over 10 s"),
    # of PEER
    "direct": Metric(1000, "share", "Time that traffic went by the first path, and that one directly"),
    "relayed": Metric(1000, "share", "Time that traffic went by the first path, through a relay"),
    "backup": Metric(1000, "share", "Time that traffic went through another network than the first"),
}
LINK_METRICS: Final = ("rtt", "jitter", "loss")
ROUTE_METRICS: Final = ("direct", "relayed", "backup")

# What fits into four bytes, both ways.
_MOST: Final = 2**31 - 1
# Of disks, devices and names: a stranger's report may hold thousands.
_MOST_OF_A_KIND: Final = 16
_MOST_LINKS: Final = 500
_LONGEST_NAME: Final = 100


def figures(report: Report, observed: Observed | None) -> dict[str, int]:
    """The figures of a node's report, and of what its kernel does."""
    values: dict[str, float | None] = {"agent_lag": report.lag_s}
    if report.system is not None:
        values |= _machine(report.system)
    if report.etcd is not None:
        values |= _etcd(report.etcd)
    for link in report.links[:_MOST_LINKS]:
        which = f"{link.peer}:{link.path}"
        values["rtt:" + which] = link.rtt_s
        values["jitter:" + which] = link.jitter_s
        values["loss:" + which] = link.loss_10s
    if observed is not None:
        values |= _routes(report.links[:_MOST_LINKS], observed)
    return {key: _whole(key, value) for key, value in values.items() if value is not None}


def value_of(key: str, figure: float) -> float:
    """The value that a figure, or a mean of figures, stands for."""
    return round(figure) / METRICS[key.partition(":")[0]].scale


def _whole(key: str, value: float) -> int:
    number = round(value * METRICS[key.partition(":")[0]].scale)
    return number if -_MOST <= number <= _MOST else (_MOST if number > 0 else -_MOST)


def _machine(system: System) -> dict[str, float | None]:
    pressures = {"psi_cpu": system.psi_cpu, "psi_io": system.psi_io, "psi_memory": system.psi_memory}
    values: dict[str, float | None] = {
        "load": system.load1 / system.cores,
        "runnable": system.runnable,
        **{key: pressure.some for key, pressure in pressures.items() if pressure is not None},
        "cpu": _sum(system.cpu_user, system.cpu_system),
        "iowait": system.cpu_iowait,
        "steal": system.cpu_steal,
        "memory_used": _used(system.memory_bytes, system.memory_available_bytes),
        "temperature": system.temperature_c,
    }
    if system.swap_bytes and system.swap_used_bytes is not None:
        values["swap_used"] = min(system.swap_used_bytes / system.swap_bytes, 1.0)
    if (flags := system.throttling) is not None:
        values["throttled"] = flags.throttled or flags.frequency_capped or flags.soft_temp_limit
        values["undervoltage"] = flags.undervoltage
    for disk in system.disks[:_MOST_OF_A_KIND]:
        values["disk_used:" + disk.mount[:_LONGEST_NAME]] = disk.used
    for device in system.disk_io[:_MOST_OF_A_KIND]:
        values["disk_busy:" + device.device[:_LONGEST_NAME]] = device.busy
    for process in system.processes[:_MOST_OF_A_KIND]:
        values["process:" + process.name[:_LONGEST_NAME]] = process.cpu
    return values


def _etcd(etcd: Etcd) -> dict[str, float | None]:
    leads = etcd.leader_id == etcd.member_id if etcd.leader_id and etcd.member_id else None
    return {"etcd_term": etcd.term, "etcd_leads": leads, "etcd_read": etcd.read_s}


def _routes(links: tuple[Link, ...], observed: Observed) -> dict[str, float | None]:
    """Which way traffic goes to each peer. Where that is not known (Tailscale tells of no idle peer), none of the three
    counts, so that their sum says for how much of the time it is."""
    values: dict[str, float | None] = {}
    paths: dict[str, list[Link]] = {}
    for link in links:
        paths.setdefault(link.peer, []).append(link)
    for peer, its_links in paths.items():
        used = observed.paths.get(peer)
        if used is None:
            continue
        way = next((_way(link, link is its_links[0]) for link in its_links if link.path == used), "")
        values |= {f"{each}:{peer}": each == way for each in ROUTE_METRICS}
    return values


def _way(link: Link, first: bool) -> str:
    if not first or link.relay is Relay.RIDING_BACKUP:
        return "backup"
    if link.relay in (Relay.DERP, Relay.PEER_RELAY):
        return "relayed"
    return "" if link.relay is Relay.IDLE else "direct"


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return min(sum(known), 1.0) if known else None


def _used(total: int | None, available: int | None) -> float | None:
    return max(1.0 - available / total, 0.0) if total and available is not None else None
