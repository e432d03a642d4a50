"""The yardstick: FRR's bgpd and bfdd over the lab's two tunnels, as a network engineer would set them up.

eBGP on both tunnels, the overlay preferred (local preference 200 against 100), BFD on every session (multihop on the
overlay, whose addresses are host routes as Tailscale's are). Each host announces its service address.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.harness import Lab, LabError
from lab.harness.hosts import Host

_DAEMONS = "/usr/lib/frr"


def start(lab: Lab, interval_ms: int, multiplier: int = 3) -> None:
    """Run zebra, bfdd and bgpd on every host; sessions come up within some seconds."""
    if not Path(_DAEMONS, "bgpd").exists():
        raise LabError("FRR is missing: apt-get install frr")
    for host in lab.hosts.values():
        others = lab.others(host)
        for other in others:
            # zebra resolves next hops in the main table; the lab, like Tailscale, keeps them in table 52.
            host.run(["ip", "route", "replace", f"{other.overlay}/32", "dev", "tailscale0"])
        directory = host.directory / "frr"
        directory.mkdir(exist_ok=True)
        shutil.chown(directory, "frr", "frr")
        config = directory / "frr.conf"
        config.write_text(_config(host, others, interval_ms, multiplier))
        shutil.chown(config, "frr", "frr")
        host.run(["sh", "-c", "mkdir -p /run/frr && chown frr:frr /run/frr"])
        # In this order, each after the socket of the one before: bgpd gives its BFD sessions up otherwise.
        for daemon, socket in (("zebra", "zserv.api"), ("bfdd", "bfdd.vty"), ("bgpd", "bgpd.vty")):
            host.spawn(
                [
                    f"{_DAEMONS}/{daemon}",
                    "-f",
                    str(config),
                    "-i",
                    f"/run/frr/{daemon}.pid",
                    "-z",
                    "/run/frr/zserv.api",
                    "--vty_socket",
                    "/run/frr",
                    "-A",
                    "127.0.0.1",
                    "--log",
                    "stdout",
                ],
                name=daemon,
            )
            host.run(
                ["sh", "-c", f"for i in $(seq 100); do [ -S /run/frr/{socket} ] && exit; sleep 0.05; done; exit 1"]
            )


def is_ready(lab: Lab) -> bool:
    """Whether every BFD session is up and every host reaches every other over the overlay."""
    for host in lab.hosts.values():
        done = host.run(["vtysh", "--vty_socket", "/run/frr", "-c", "show bfd peers json"], check=False)
        try:
            sessions = json.loads(done.stdout)
        except ValueError:
            return False
        if len(sessions) != 2 * len(lab.others(host)) or any(one["status"] != "up" for one in sessions):
            return False
        for other in lab.others(host):
            route = host.run(["ip", "route", "get", other.service, "from", host.service], check=False).stdout
            if "dev tailscale0" not in route:
                return False
    return True


def _config(host: Host, others: Sequence[Host], interval_ms: int, multiplier: int) -> str:
    timers = f"{multiplier} {interval_ms} {interval_ms}"
    neighbors, policies = [], []
    for other in others:
        # One end calls, the other is called: when both do so at one moment, again and again, it may take minutes.
        passive = [f" neighbor {each} passive" for each in (other.overlay, other.backup) if host.number > other.number]
        neighbors += [
            f" neighbor {other.overlay} remote-as {65000 + other.number}",
            f" neighbor {other.overlay} ebgp-multihop 2",
            f" neighbor {other.overlay} update-source {host.overlay}",
            f" neighbor {other.overlay} bfd {timers}",
            f" neighbor {other.overlay} timers connect 1",
            f" neighbor {other.backup} remote-as {65000 + other.number}",
            f" neighbor {other.backup} bfd {timers}",
            f" neighbor {other.backup} timers connect 1",
            *passive,
        ]
        policies += [
            f"  neighbor {other.overlay} route-map OVERLAY in",
            f"  neighbor {other.backup} route-map BACKUP in",
        ]
    return "\n".join(
        [
            "frr defaults datacenter",
            f"hostname {host.name}",
            f"router bgp {65000 + host.number}",
            f" bgp router-id {host.service}",
            " no bgp ebgp-requires-policy",
            *neighbors,
            " address-family ipv4 unicast",
            f"  network {host.service}/32",
            *policies,
            " exit-address-family",
            "route-map OVERLAY permit 10",
            " set local-preference 200",
            "route-map BACKUP permit 10",
            " set local-preference 100",
            "",
        ]
    )
