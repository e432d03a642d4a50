"""Prometheus metrics, made from the picture of the fleet at each scrape. docs/metrics.md lists them.

The number of series is bounded: what is per pair is left out of fleets with more than MAX_PAIRS pairs, where the counts
by state remain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vagus_controller.core.figures import figures, value_of
from vagus_controller.views import ChannelView, FleetView, NodeView, PathView, Severity

MAX_PAIRS: Final = 2000
CONTENT_TYPE: Final = "text/plain; version=0.0.4"


def exposition(fleet: FleetView, subscribers: int, problems: int, channels: Iterable[ChannelView] = ()) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(fleet, subscribers, problems, channels))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, fleet: FleetView, subscribers: int, problems: int, channels: Iterable[ChannelView] = ()) -> None:
        self._channels = channels
        self._fleet = fleet
        self._subscribers = subscribers
        self._problems = problems

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        fleet = self._fleet
        info = _gauge("vagus_controller_info", "This controller", "fleet", "controller", "version", "mode")
        info.add_metric([fleet.fleet, fleet.controller, fleet.version, fleet.mode], 1)
        yield info
        yield _one("vagus_controller_epoch", "Leadership term", fleet.epoch)
        yield _one("vagus_controller_leads", "1 for the controller that decides, 0 for one that stands by", fleet.leads)
        yield _one("vagus_controller_uptime_seconds", "Since the controller started", fleet.uptime_s)
        yield _one("vagus_controller_broker_connected", "1 with a broker session", bool(fleet.broker))
        yield _one("vagus_controller_problems", "What keeps it from its work, as /healthz says", self._problems)
        yield _one("vagus_controller_streams", "Open streams of changes", self._subscribers)
        state = _gauge("vagus_controller_state", "1 for its own verdict on itself", "state")
        state.add_metric([fleet.observer.state], 1)
        yield state
        incidents = _gauge("vagus_incidents", "Open incidents by their severity", "severity")
        counts = Counter(incident.severity for incident in fleet.incidents)
        for severity in (Severity.UNKNOWN, Severity.WARNING, Severity.CRITICAL):
            incidents.add_metric([severity], counts[severity])
        yield incidents
        works = _gauge("vagus_notify_works", "0 when the last notice to the channel failed", "channel")
        waiting = _gauge("vagus_notify_waiting", "Notices that the channel has not taken yet", "channel")
        for channel in self._channels:
            works.add_metric([channel.name], channel.state != "fails")
            waiting.add_metric([channel.name], channel.waiting)
        yield from (works, waiting)
        yield _one("vagus_pauses", "Pauses in force", len(fleet.pauses))
        yield from self._nodes()
        yield from self._pairs()
        yield from self._quorum()

    def _nodes(self) -> Iterator[Metric]:
        labels = ("node", "site")
        states = _gauge("vagus_node_liveness", "1 for the node's state", *labels, "state")
        loads = _gauge("vagus_node_load_state", "1 for the load verdict's state", *labels, "state")
        families = {name: _gauge(name, words, *labels) for name, words in _NODE_GAUGES.items()}
        for node in self._fleet.nodes:
            who = [node.name, node.site]
            states.add_metric([*who, node.liveness.state], 1)
            loads.add_metric([*who, node.load.state], 1)
            for name, value in _node_values(node).items():
                if value is not None:
                    families[name].add_metric(who, value)
        yield states
        yield loads
        yield from families.values()

    def _pairs(self) -> Iterator[Metric]:
        pairs = self._fleet.pairs
        by_status = _gauge(
            "vagus_pairs", "Pairs of nodes by the path they are assigned and their status", "path", "status"
        )
        for (path, status), count in sorted(Counter((pair.assigned, pair.status) for pair in pairs).items()):
            by_status.add_metric([path, status], count)
        yield by_status
        by_state = _gauge("vagus_links", "Paths of pairs by their verdict", "path", "state")
        counts = Counter((path.path, path.verdict.state) for pair in pairs for path in pair.paths)
        for (name, state), count in sorted(counts.items()):
            by_state.add_metric([name, state], count)
        yield by_state
        unproven = _gauge("vagus_links_unproven", "Paths of pairs that are not proven from both ends", "path")
        for name, count in sorted(
            Counter(path.path for pair in pairs for path in pair.paths if not path.proven).items()
        ):
            unproven.add_metric([name], count)
        yield unproven
        yield _one(
            "vagus_pair_series_omitted", "1 when there are too many pairs for series of each", len(pairs) > MAX_PAIRS
        )
        if len(pairs) > MAX_PAIRS:
            return
        labels = ("pair", "path")
        up = _gauge("vagus_link_state", "1 for the verdict's state", *labels, "state")
        proven = _gauge("vagus_link_proven", "1 when proven from both ends", *labels)
        assigned = _gauge("vagus_link_assigned", "1 for the path that the pair is assigned", *labels)
        rtt = _gauge("vagus_link_rtt_seconds", "Smoothed round-trip time, the worse end", *labels)
        jitter = _gauge("vagus_link_jitter_seconds", "Jitter, the worse end", *labels)
        loss = _gauge("vagus_link_loss_ratio", "Loss over 60 s, the worse end", *labels)
        for pair in pairs:
            for each in pair.paths:
                which = [pair.name, each.path]
                up.add_metric([*which, each.verdict.state], 1)
                proven.add_metric(which, each.proven)
                assigned.add_metric(which, pair.assigned == each.path)
                for family, field in ((rtt, "rtt_s"), (jitter, "jitter_s"), (loss, "loss_60s")):
                    if (value := _worst(each, field)) is not None:
                        family.add_metric(which, value)
        yield from (up, proven, assigned, rtt, jitter, loss)

    def _quorum(self) -> Iterator[Metric]:
        quorum = self._fleet.quorum
        state = _gauge("vagus_quorum_state", "1 for the verdict's state", "state")
        state.add_metric([quorum.verdict.state], 1)
        yield state
        yield _one("vagus_quorum_voters", "Voting etcd members", quorum.voters)
        yield _one("vagus_quorum_answering", "Voters that answer", quorum.answering)
        yield _one("vagus_quorum_leader_changes_1h", "Leader changes in the last hour", quorum.leader_changes_1h)
        if quorum.margin is not None:
            yield _one("vagus_quorum_margin", "Members that may yet fail", quorum.margin)


_NODE_GAUGES: Final = {
    "vagus_node_online": "1 when the node is there",
    "vagus_node_report_age_seconds": "Age of the newest report",
    "vagus_node_reports_lost": "Reports lost since the node's session began",
    "vagus_node_drift": "Differences between desired and observed routes",
    "vagus_node_generation": "Generation of the assignments that the node applied",
    "vagus_node_agent_lag_seconds": "How late the agent's own loop ran, worst of an interval",
    "vagus_node_load1": "Load average over 1 minute",
    "vagus_node_cores": "CPU cores",
    "vagus_node_cpu_ratio": "CPU time in programs and kernel, of all cores",
    "vagus_node_iowait_ratio": "CPU time idle with a disk awaited",
    "vagus_node_steal_ratio": "CPU time that the hypervisor gave to others",
    "vagus_node_psi_cpu_ratio": "PSI cpu some, over 10 s",
    "vagus_node_psi_io_ratio": "PSI io some, over 10 s",
    "vagus_node_psi_memory_ratio": "PSI memory some, over 10 s",
    "vagus_node_memory_bytes": "Memory",
    "vagus_node_memory_available_bytes": "Memory that is available",
    "vagus_node_disk_used_ratio": "Fullness of the fullest file system",
    "vagus_node_temperature_celsius": "Temperature of the processor",
    "vagus_node_throttled": "1 while the Raspberry Pi firmware slows the processor",
    "vagus_node_undervoltage": "1 when the Raspberry Pi firmware sees too little voltage",
    "vagus_node_etcd_leads": "1 when the node's etcd member leads",
    "vagus_node_etcd_term": "Raft term, as the member sees it",
    "vagus_node_etcd_read_seconds": "Latency of a linearizable read",
}


def _node_values(node: NodeView) -> dict[str, float | None]:
    """What a node lacks is None, and no series."""
    values: dict[str, float | None] = {
        "vagus_node_online": node.online,
        "vagus_node_report_age_seconds": node.report_age_s,
        "vagus_node_reports_lost": node.reports_lost,
        "vagus_node_drift": len(node.drift),
        "vagus_node_generation": node.generation,
    }
    if node.report is None:
        return values
    # The same figures as in charts, by the same rules.
    kept = figures(node.report, None)
    values |= {name: value_of(key, kept[key]) for name, key in _AS_IN_CHARTS.items() if key in kept}
    system = node.report.system
    if system is not None:
        values |= {
            "vagus_node_load1": system.load1,
            "vagus_node_cores": system.cores,
            "vagus_node_memory_bytes": system.memory_bytes,
            "vagus_node_memory_available_bytes": system.memory_available_bytes,
            "vagus_node_disk_used_ratio": max((disk.used for disk in system.disks), default=None),
        }
    return values


_AS_IN_CHARTS: Final = {
    "vagus_node_agent_lag_seconds": "agent_lag",
    "vagus_node_cpu_ratio": "cpu",
    "vagus_node_iowait_ratio": "iowait",
    "vagus_node_steal_ratio": "steal",
    "vagus_node_psi_cpu_ratio": "psi_cpu",
    "vagus_node_psi_io_ratio": "psi_io",
    "vagus_node_psi_memory_ratio": "psi_memory",
    "vagus_node_temperature_celsius": "temperature",
    "vagus_node_throttled": "throttled",
    "vagus_node_undervoltage": "undervoltage",
    "vagus_node_etcd_leads": "etcd_leads",
    "vagus_node_etcd_term": "etcd_term",
    "vagus_node_etcd_read_seconds": "etcd_read",
}


def _worst(path: PathView, field: str) -> float | None:
    values = [getattr(end.link, field) for end in path.ends if end.link is not None]
    known = [float(value) for value in values if value is not None]
    return max(known) if known else None


def _gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, labels=labels)


def _one(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)
