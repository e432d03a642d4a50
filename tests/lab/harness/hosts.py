"""A host of the lab: its addresses, roles and tunnel keys, and the shell that sets it up."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from lab.harness import tailscale_rules
from lab.harness.namespaces import Namespace, Process

PathName = Literal["overlay", "backup"]
HERE = Path(__file__).parent
INTERNET = "10.99.255.254"
INTERNET6 = "fd99::ffff"
INTERFACE: Mapping[PathName, str] = {"overlay": "tailscale0", "backup": "wg0"}
PORT: Mapping[PathName, int] = {"overlay": 41641, "backup": 51820}
MTU: Mapping[PathName, int] = {"overlay": 1280, "backup": 1420}
NETWORKS: Mapping[PathName, tuple[str, str]] = {
    "overlay": ("100.64.0.0/10", "fd7a:115c:a1e0::/48"),
    "backup": ("10.60.0.0/16", "fd60::/64"),
}

_NFT = """
table inet lab {
  chain broker-in { type filter hook input priority -10; policy accept; }
}
"""


@dataclasses.dataclass(frozen=True)
class HostSpec:
    """A host to build. Roles: "etcd" (a member), "broker" (mosquitto; one host), "controller" (one host)."""

    name: str
    site: str = ""
    roles: frozenset[str] | set[str] = frozenset()
    agent: bool = True


@dataclasses.dataclass(frozen=True)
class TunnelKey:
    private: str
    public: str

    @property
    def public_hex(self) -> str:
        return base64.b64decode(self.public).hex()


@dataclasses.dataclass(frozen=True)
class Pings:
    """Round trips in seconds, None where no answer came; ICMP errors and refusals to send, in words."""

    rtts: list[float | None]
    errors: list[str]

    @property
    def answered(self) -> int:
        return len([rtt for rtt in self.rtts if rtt is not None])


class Host(Namespace):
    """A Namespace with addresses and roles. `number` counts from 1. `cgnat`: its overlay addresses are its service
    addresses."""

    def __init__(
        self,
        spec: HostSpec,
        number: int,
        directory: Path,
        cgroup: Path | None,
        keys: Sequence[TunnelKey],
        *,
        cgnat: bool = False,
    ) -> None:
        super().__init__(spec.name, directory, cgroup)
        self.site = spec.site
        self.roles = frozenset(spec.roles)
        self.agent = spec.agent
        self.number = number
        self.underlay = _nth("10.99.0.0", number)
        self.underlay6 = _nth("fd99::", number)
        self.service = _nth("10.118.0.0", number)
        self.service6 = _nth("fd76::", number)
        self.overlay = _nth("100.64.0.0", number)
        self.overlay6 = _nth("fd7a:115c:a1e0::", number)
        if cgnat:
            self.service, self.service6 = self.overlay, self.overlay6
        self.backup = _nth("10.60.0.0", number)
        self.backup6 = _nth("fd60::", number)
        self.key: Mapping[PathName, TunnelKey] = {"overlay": keys[0], "backup": keys[1]}

    def tunnel_addresses(self, path: PathName) -> tuple[str, str]:
        return (self.overlay, self.overlay6) if path == "overlay" else (self.backup, self.backup6)

    def ping(
        self, address: str, *, count: int = 3, interval_s: float = 0.05, timeout_s: float = 1.0, source: str = ""
    ) -> Pings:
        argv = [sys.executable, "-I", "-S", str(HERE / "ping.py"), address, count, interval_s, timeout_s, source]
        done = self.run([str(one) for one in argv if one != ""], timeout_s=count * interval_s + timeout_s + 10)
        return Pings(**json.loads(done.stdout))

    def listens(self, port: int) -> bool:
        """Whether a TCP socket listens on `port` in the host."""
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    return True
        return False

    def hog(self, tasks: int = 25, seconds: float = 60.0, *, name: str = "hog") -> Process:
        """`tasks` busy processes called `name` at nice 0, which end by themselves after `seconds`.

        One kernel: every host sees the load and the pressure; only this one sees the processes behind them.
        """
        busy = self.directory / "bin" / name
        busy.parent.mkdir(exist_ok=True)
        if not busy.exists():
            busy.symlink_to(shutil.which("dash") or "/bin/sh")
        one = f"timeout --foreground {seconds} {busy} -c 'while :; do :; done'"
        script = f"i=0; while [ $i -lt {tasks} ]; do i=$((i+1)); {one} & done; wait"
        return self.spawn(["sh", "-c", script], name=name)

    def start_tunnel(self, path: PathName) -> Process:
        # A killed one leaves its socket behind, and would be taken for the new one.
        Path(f"/proc/{self.pid}/root/run/wireguard/{INTERFACE[path]}.sock").unlink(missing_ok=True)
        # One thread of Go is enough for a lab, and leaves the CPU to what is measured.
        env = {"WG_PROCESS_FOREGROUND": "1", "GOMAXPROCS": "1", "LOG_LEVEL": "error"}
        return self.spawn(["wireguard-go", INTERFACE[path]], name=f"wireguard-{path}", env=env)


# --- the shell that sets a host up ---------------------------------------------------------------------------------


def network_script(host: Host, ipv6: bool, *, cgnat_drop: bool = True) -> str:
    """Underlay, default route, service address, and what Tailscale would have put beside them."""
    sysctl = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0"
    if not ipv6:
        sysctl = "net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
    batch = [
        f"addr add {host.underlay}/16 dev wan0",
        "link set wan0 up",
        f"route add default via {INTERNET} dev wan0",
        f"addr add {host.service}/32 dev lo",
        *(f"rule add pref {pref} {what}" for pref, what in tailscale_rules.RULES),
    ]
    if ipv6:
        batch += [
            f"addr add {host.underlay6}/64 dev wan0 nodad",
            f"-6 route add default via {INTERNET6} dev wan0",
            f"addr add {host.service6}/128 dev lo nodad",
            *(f"-6 rule add pref {pref} {what}" for pref, what in tailscale_rules.RULES),
        ]
    return "\n".join(
        (
            f"sysctl -qw {sysctl}",
            f"nft -f - <<'END'\n{_NFT}\nEND",
            ip_batch(batch),
            tailscale_rules.filter_script(drop=cgnat_drop),
        )
    )


def tunnel_script(
    host: Host, peers: Iterable[Host], path: PathName, ipv6: bool, endpoint: Callable[[Host, Host, PathName], str]
) -> str:
    """Configures a tunnel whose wireguard-go was started: keys, peers, addresses, routes to tunnel addresses.

    `endpoint(host, peer, path)` is where `host` sends packets for `peer`.
    """
    peers, device = tuple(peers), INTERFACE[path]
    conf = ["[Interface]", f"PrivateKey = {host.key[path].private}", f"ListenPort = {PORT[path]}", "FwMark = 0x80000"]
    for peer in peers:
        allowed = [*peer.tunnel_addresses(path), peer.service, peer.service6]
        conf += ["[Peer]", f"PublicKey = {peer.key[path].public}", f"AllowedIPs = {', '.join(allowed)}"]
        conf.append(f"Endpoint = {endpoint(host, peer, path)}")
    four, six = host.tunnel_addresses(path)
    # Tailscale gives itself a /32 and each peer a route in table 52; plain WireGuard has its network on the interface.
    batch = [f"addr add {four}/{32 if path == 'overlay' else 16} dev {device}"]
    if ipv6:
        batch.append(f"addr add {six}/{128 if path == 'overlay' else 64} dev {device} nodad")
    batch.append(f"link set {device} mtu {MTU[path]} up")
    if path == "overlay":
        batch += [f"route add {peer.overlay} dev {device} table 52" for peer in peers]
        batch += [f"-6 route add {peer.overlay6} dev {device} table 52" for peer in peers if ipv6]
    return "\n".join(
        (
            f"n=0; until [ -S /run/wireguard/{device}.sock ]; do n=$((n+1)); [ $n -lt 500 ]; sleep 0.01; done",
            f"wg setconf {device} /dev/stdin <<'END'\n" + "\n".join(conf) + "\nEND",
            ip_batch(batch),
        )
    )


def service_routes(host: Host, peers: Iterable[Host], path: PathName, ipv6: bool) -> list[str]:
    """`ip` commands that route the peers' service addresses over `path`, beside Tailscale's own routes."""
    routes = []
    for peer in peers:
        routes.append(f"route replace {peer.service} dev {INTERFACE[path]} src {host.service} table 52")
        if ipv6:
            routes.append(f"-6 route replace {peer.service6} dev {INTERFACE[path]} src {host.service6} table 52")
    return routes


def ip_batch(lines: Sequence[str]) -> str:
    """Shell for `ip` commands, those that start with -6 apart: a batch has one family."""
    four = [line for line in lines if not line.startswith("-6 ")]
    six = [line.removeprefix("-6 ") for line in lines if line.startswith("-6 ")]
    parts = (("ip", four), ("ip -6", six))
    return "\n".join(f"{ip} -batch - <<'END'\n" + "\n".join(batch) + "\nEND" for ip, batch in parts if batch)


def tunnel_keys(count: int) -> list[TunnelKey]:
    private = [base64.b64encode(os.urandom(32)).decode() for _ in range(count)]
    script = "while read -r key; do echo $key | wg pubkey; done"
    argv = ["sh", "-ec", script]
    done = subprocess.run(argv, input="\n".join(private) + "\n", capture_output=True, text=True, check=True)
    return [TunnelKey(*pair) for pair in zip(private, done.stdout.split(), strict=True)]


def _nth(base: str, number: int) -> str:
    return str(ipaddress.ip_address(base) + number)
