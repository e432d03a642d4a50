"""A picture of a fleet with one node that tells everything that a node can tell."""

from __future__ import annotations

from msgspec.structs import replace

from browser import samples
from browser.samples import BERLIN, OSAKA
from vagus_controller.views import FleetView
from vagus_protocol.messages import DiskIo, Etcd, EtcdMember, Process, Service, Tailscale


def talkative() -> FleetView:
    """The bad hour, with Osaka telling all."""
    fleet = samples.bad_hour()
    node = next(each for each in fleet.nodes if each.name == OSAKA)
    assert node.report is not None
    assert node.report.system is not None
    system = replace(
        node.report.system,
        cpu_user=0.41,
        cpu_system=0.12,
        cpu_iowait=0.38,
        cpu_steal=0.0,
        cpu_idle=0.09,
        swap_bytes=1_000_000_000,
        swap_used_bytes=240_000_000,
        disk_io=(DiskIo(device="mmcblk0", busy=0.97, read_bps=1_200_000.0, write_bps=8_400_000.0),),
        processes=(
            Process(name="etcd", count=1, cpu=0.62, rss_bytes=180_000_000),
            Process(name="tailscaled", count=1, cpu=0.16, rss_bytes=48_000_000),
            Process(name="k3s-server", count=3, cpu=0.55, rss_bytes=820_000_000),
        ),
    )
    report = replace(
        node.report,
        system=system,
        lag_s=0.0042,
        etcd=Etcd(
            answering=True,
            version="3.5.16",
            member_id="8e9e05c52164694d",
            leader_id="91bc3c398fb3c146",
            term=7,
            raft_index=88_123,
            applied_index=88_121,
            db_bytes=21_300_000,
            read_s=0.112,
            members=(EtcdMember(id="8e9e05c52164694d", name=OSAKA),),
        ),
        tailscale=Tailscale(backend_state="Running", key_expires_s=12 * 86_400.0),
        services=(
            Service(name="k3s API", ok=True, peer=BERLIN, latency_s=0.244),
            Service(name="Longhorn", ok=False, peer=BERLIN, reason="connection refused at 10.70.0.1:9500"),
        ),
    )
    nodes = tuple(replace(each, report=report) if each.name == OSAKA else each for each in fleet.nodes)
    return replace(fleet, nodes=nodes)
