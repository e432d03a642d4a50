"""The internet between the hosts: a bridge whose one nft table decides which tunnel packets vanish, and the relay.

A fault on a tunnel's packets is an element of a set that all of them pass. So a cut of any number of pairs is one
transaction: simultaneous, and silent (no ICMP, no interface event).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lab.harness.hosts import HERE, INTERNET, INTERNET6, PORT, Host, PathName
from lab.harness.namespaces import LabError, Namespace

MAX_HOSTS = 200
_RELAY_PORTS = 20000
_NFT = """
table bridge lab {
  set cut { type ipv4_addr . ipv4_addr . inet_service; }
  counter leaked4 { }
  counter leaked6 { }
  chain loss { }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    ip saddr . ip daddr . udp dport @cut drop
    jump loss
    ip daddr 10.118.0.0/16 counter name leaked4 drop
    ip6 daddr fd76::/64 counter name leaked6 drop
  }
}
"""
_SETUP = f"""
nft -f -
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link add inet0 type bridge forward_delay 0 mcast_snooping 0
ip addr add {INTERNET}/16 dev inet0
ip addr add {INTERNET6}/64 dev inet0 nodad
ip link set inet0 up
"""


class Flow(NamedTuple):
    """The packets of a path in one direction."""

    path: PathName
    src: Host
    dst: Host


class Internet(Namespace):
    def __init__(self, directory: Path) -> None:
        super().__init__("internet", directory)
        self._relay: subprocess.Popen[str] | None = None

    def set_up(self) -> None:
        self.run(["sh", "-ec", _SETUP], input=_NFT)

    def guard(self, four: str, six: str) -> None:
        """Counts and drops what is sent to these networks in the clear too."""
        lines = (
            f"add rule bridge lab prerouting ip daddr {four} counter name leaked4 drop",
            f"add rule bridge lab prerouting ip6 daddr {six} counter name leaked6 drop",
        )
        self.run(["nft", "-f", "-"], input="\n".join(lines) + "\n")

    def wire(self, hosts: Iterable[Host]) -> None:
        """Gives each host its `wan0` and plugs the other end into the bridge."""
        hosts = tuple(hosts)
        links = [f"link add h{host.number} type veth peer name wan0 netns {host.pid}" for host in hosts]
        links += [f"link set h{host.number} master inet0 up" for host in hosts]
        # In our network namespace, but outside of our PID namespace: the hosts' PIDs are the lab's.
        argv = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-force", "-batch", "-"]
        # A host that was killed leaves its end until the kernel has cleared its namespace, which may take seconds.
        old = "\n".join(f"link del h{host.number}" for host in hosts)
        subprocess.run(argv, check=False, input=old, capture_output=True, text=True, timeout=30)
        argv.remove("-force")
        done = subprocess.run(argv, check=False, input="\n".join(links), capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise LabError(f"internet: {done.stderr.strip()}")

    def filter(self, cut: Iterable[Flow], loss: Mapping[Flow, float], narrow: Mapping[Flow, int]) -> float:
        """Drops the flows in `cut`, a share of those in `loss`, of those in `narrow` the packets of more bytes, and
        lets all others pass: one transaction.

        Returns the monotonic time just before it (it takes some milliseconds).
        """
        lines = ["flush set bridge lab cut", "flush chain bridge lab loss"]
        if elements := [" . ".join(one) for flow in cut for one in _matches(flow)]:
            lines.append("add element bridge lab cut {" + ", ".join(elements) + "}")
        for flow, share in loss.items():
            for src, dst, port in _matches(flow):
                what = f"ip saddr {src} ip daddr {dst} udp dport {port}"
                lines.append(f"add rule bridge lab loss {what} numgen random mod 10000 < {round(share * 10000)} drop")
        for flow, size in narrow.items():
            for src, dst, port in _matches(flow):
                what = f"ip saddr {src} ip daddr {dst} udp dport {port}"
                lines.append(f"add rule bridge lab loss {what} ip length > {size} drop")
        nft = self.popen(["nft", "-f", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        at = time.monotonic()
        _, error = nft.communicate("\n".join(lines) + "\n", 10)
        if nft.returncode != 0:
            raise LabError(f"internet: nft: {error.strip()}")
        return at

    def leaks(self) -> int:
        """Packets to service addresses that came out of a host in the clear."""
        out = self.run(["nft", "-j", "list", "counters", "table", "bridge", "lab"]).stdout
        return sum(one["counter"]["packets"] for one in json.loads(out)["nftables"] if "counter" in one)

    # --- relay -------------------------------------------------------------------------------------------------------

    def relay(self, a: Host, b: Host, delay_s: float, jitter_s: float, loss: float) -> None:
        """Relays the overlay of a pair, once their endpoints point to `relay_port`. Again: with the new numbers."""
        self._tell(
            op="add",
            address=INTERNET,
            ends=[[a.underlay, PORT["overlay"]], [b.underlay, PORT["overlay"]]],
            ports=[relay_port(a, b), relay_port(b, a)],
            delay_s=delay_s,
            jitter_s=jitter_s,
            loss=loss,
        )

    def stop_relay(self, a: Host, b: Host) -> None:
        self._tell(op="remove", ports=[relay_port(a, b), relay_port(b, a)])

    def _tell(self, **command: object) -> None:
        if self._relay is None:
            argv = [sys.executable, "-I", "-S", str(HERE / "relay.py")]
            self._relay = self.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._relay.stdin is not None
        assert self._relay.stdout is not None
        self._relay.stdin.write(json.dumps(command) + "\n")
        self._relay.stdin.flush()
        if not self._relay.stdout.readline():
            raise LabError("the relay ended: are its ports free in the internet namespace?")


def relay_port(src: Host, dst: Host) -> int:
    """The relay's port that `src` sends to for `dst`."""
    return _RELAY_PORTS + (src.number - 1) * MAX_HOSTS + dst.number - 1


def _matches(flow: Flow) -> Sequence[tuple[str, str, str]]:
    """(source, destination, port) of the flow's packets, by the direct way and on their way to the relay."""
    direct = (flow.src.underlay, flow.dst.underlay, str(PORT[flow.path]))
    if flow.path == "backup":
        return (direct,)
    return (direct, (flow.src.underlay, INTERNET, str(relay_port(flow.src, flow.dst))))
