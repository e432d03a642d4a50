"""The lab: hosts, the internet between them, two real tunnels, the services on top, and what can go wrong.

    internet: a bridge, 10.99.255.254/16            every UDP packet between hosts passes its nft table: cuts and losses
      └ wan0      10.99.0.N, fd99::N                underlay, default route to the internet (so that leaks show)
    host N
      ├ lo        10.118.0.N/32, fd76::N/128        service address: both tunnels carry it
      ├ tailscale0  100.64.0.N, fd7a:115c:a1e0::N   overlay: wireguard-go, UDP 41641, peers in table 52 like Tailscale
      └ wg0       10.60.0.N/16, fd60::N/64          backup: wireguard-go, UDP 51820

Nothing routes the service addresses: that is the agent's work (or `static_routes`). A fault on a tunnel's packets is an
element of a set in the one nft table that all of them pass: a cut of any number of pairs is one transaction, so it is
simultaneous and silent (no ICMP, no interface event).
"""

from __future__ import annotations

import atexit
import base64
import dataclasses
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

from lab.harness import services
from lab.harness.namespaces import LabError, Namespace, Process, remove_cgroup
from lab.harness.services import Settings, merge

PathName = Literal["overlay", "backup"]
HERE = Path(__file__).parent
INTERNET = "10.99.255.254"
INTERFACE: Mapping[PathName, str] = {"overlay": "tailscale0", "backup": "wg0"}
PORT: Mapping[PathName, int] = {"overlay": 41641, "backup": 51820}
MTU: Mapping[PathName, int] = {"overlay": 1280, "backup": 1420}
NETWORKS: Mapping[PathName, tuple[str, str]] = {
    "overlay": ("100.64.0.0/10", "fd7a:115c:a1e0::/48"),
    "backup": ("10.60.0.0/16", "fd60::/64"),
}
_PREFIX = "vagus-lab-"
_RELAY_PORTS = 20000
_MAX_HOSTS = 200

# Addresses, rules and filters as Tailscale sets them up: its mark, its table 52, its drop of foreign 100.64/10 sources.
_HOST_NFT = """
table inet lab {
  chain ts-input {
    type filter hook input priority 0; policy accept;
    iifname "lo" accept
    ip saddr 100.115.92.0/23 accept
    ip saddr 100.64.0.0/10 iifname != "tailscale0" drop
  }
  chain broker-in { type filter hook input priority -10; policy accept; }
}
"""
_INTERNET_NFT = """
table bridge lab {
  set cut { type ipv4_addr . ipv4_addr . inet_service; }
  chain loss { }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    ip saddr . ip daddr . udp dport @cut drop
    jump loss
    ip daddr 10.118.0.0/16 counter name leaked4 drop
    ip6 daddr fd76::/64 counter name leaked6 drop
  }
  counter leaked4 { }
  counter leaked6 { }
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
    """A host of the lab: a Namespace with addresses and roles. `number` counts from 1."""

    def __init__(
        self, spec: HostSpec, number: int, directory: Path, cgroup: Path | None, keys: Sequence[TunnelKey]
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

    def hog(self, tasks: int, seconds: float, *, name: str = "hog") -> Process:
        """`tasks` busy processes called `name` at nice 0, which end by themselves after `seconds`."""
        busy = self.directory / "bin" / name
        busy.parent.mkdir(exist_ok=True)
        if not busy.exists():
            busy.symlink_to(shutil.which("dash") or "/bin/sh")
        one = f"timeout --foreground {seconds} {busy} -c 'while :; do :; done'"
        script = f"i=0; while [ $i -lt {tasks} ]; do i=$((i+1)); {one} & done; wait"
        return self.spawn(["sh", "-c", script], name=name)


class Lab:
    """A context manager: hosts and tunnels stand on entry, everything is gone on exit, however that comes about.

    `static_routes` routes the service addresses over the overlay without any agent. `agent`, `controller`: settings
    merged into every agent's, the controller's configuration. `tls`: agents and controller use the broker's TLS
    listener. `relay`: the relay process runs from the start. `fair_cpu`: one CPU cgroup a host, where we may.
    """

    def __init__(
        self,
        hosts: Sequence[HostSpec],
        *,
        ipv6: bool = True,
        relay: bool = False,
        static_routes: bool = False,
        tls: bool = False,
        fair_cpu: bool = True,
        agent: Settings | None = None,
        controller: Settings | None = None,
    ) -> None:
        names = [spec.name for spec in hosts]
        if len(set(names)) != len(names) or not 0 < len(names) <= _MAX_HOSTS:
            raise LabError(f"1 to {_MAX_HOSTS} hosts with different names, please; got {names}")
        self._specs = tuple(hosts)
        self.ipv6 = ipv6
        self.tls = tls
        self._relay_from_start = relay
        self._static_routes = static_routes
        self._fair_cpu = fair_cpu
        self._agent_settings = agent or {}
        self._controller_settings = controller or {}
        self.hosts: dict[str, Host] = {}
        self.urls: dict[str, str] = {}
        self.token = secrets.token_urlsafe(24)
        self.fleet_key = secrets.token_bytes(32)
        self.passwords = {name: secrets.token_urlsafe(12) for name in (*names, "controller")}
        self._cut: set[tuple[PathName, str, str]] = set()
        self._loss: dict[tuple[PathName, str, str], float] = {}
        self._relayed: set[tuple[str, str]] = set()
        self._cut_since: dict[tuple[str, str], float] = {}
        self._overlay_off: set[str] = set()
        self._lock = threading.RLock()
        self._relay: subprocess.Popen[str] | None = None
        self._forwards: list[subprocess.Popen[bytes]] = []
        self._cgroups: Path | None = None
        self._old_sigterm: Any = None

    # --- life and death ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces: run it as root")
        for program, package in (("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables")):
            services.need(program, package)
        for program, package in (("wireguard-go", "wireguard-go"), ("wg", "wireguard-tools")):
            services.need(program, package)
        sweep()
        self.dir = Path(tempfile.mkdtemp(prefix=_PREFIX))
        atexit.register(self.close)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._old_sigterm = signal.signal(signal.SIGTERM, _exit_on_sigterm)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Everything goes; idempotent. Hosts die by losing their PID 1: nothing in them can refuse."""
        if not self.dir.exists():
            return
        atexit.unregister(self.close)
        for child in self._forwards:
            child.kill()
            child.wait(5)
        self._forwards.clear()
        try:
            for host in (*self.hosts.values(), self.internet):
                host.close()
        finally:
            if self._cgroups is not None:
                remove_cgroup(self._cgroups)
            if os.environ.get("VAGUS_LAB_KEEP"):
                (self.dir / "owner").unlink()
            else:
                shutil.rmtree(self.dir, ignore_errors=True)
            if self._old_sigterm is not None:
                signal.signal(signal.SIGTERM, self._old_sigterm)
                self._old_sigterm = None

    def _build(self) -> None:
        (self.dir / "owner").write_text(json.dumps({"pid": os.getpid(), "start": _start_time(os.getpid())}))
        root = _cpu_cgroups() if self._fair_cpu else None
        if root is not None:
            self._cgroups = root / self.dir.name
        self.internet = Namespace("internet", self.dir / "internet")
        keys = _tunnel_keys(2 * len(self._specs))
        for number, spec in enumerate(self._specs, 1):
            cgroup = self._cgroups / spec.name if self._cgroups is not None else None
            own = keys[2 * number - 2 : 2 * number]
            self.hosts[spec.name] = Host(spec, number, self.dir / spec.name, cgroup, own)
        self.internet.start()
        for host in self.hosts.values():
            host.start()
        self.internet.ready()
        self.internet.run(["sh", "-ec", _INTERNET_SETUP], input=_INTERNET_NFT)
        if self._relay_from_start:
            self._start_relay()
        for host in self.hosts.values():
            host.ready()
        self._set_up(self.hosts.values())

    def _set_up(self, hosts: Iterable[Host]) -> None:
        """Wires hosts that are powered on to the internet, and brings up their tunnels, all side by side."""
        hosts = tuple(hosts)
        links = [f"link add h{host.number} type veth peer name wan0 netns {host.pid}" for host in hosts]
        links += [f"link set h{host.number} master inet0 up" for host in hosts]
        # In the internet's network namespace, but outside of its PID namespace: the hosts' PIDs are ours.
        argv = ["nsenter", f"--net=/proc/{self.internet.pid}/ns/net", "ip", "-batch", "-"]
        done = subprocess.run(argv, check=False, input="\n".join(links), capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise LabError(f"internet: {done.stderr.strip()}")
        for host in hosts:
            for path in INTERFACE:
                self._start_tunnel(host, path)
            self._write_localapi(host)
        self._finish((host, self._host_script(host)) for host in hosts)
        for host in hosts:
            host.python(
                HERE / "localapi_standin.py", "/run/tailscale/tailscaled.sock", self._localapi(host), name="localapi"
            )

    def _finish(self, scripts: Iterable[tuple[Host, str]]) -> None:
        running = []
        for host, script in scripts:
            child = host.popen(["sh", "-ec", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            running.append((host, child))
        for host, child in running:
            out, _ = child.communicate(timeout=30)
            if child.returncode != 0:
                raise LabError(f"{host.name}: set-up: {out.strip()[:2000]}")

    def _host_script(self, host: Host) -> str:
        sysctl = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0"
        if not self.ipv6:
            sysctl = "net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
        lines = [
            f"sysctl -qw {sysctl}",
            f"nft -f - <<'END'\n{_HOST_NFT}\nEND",
        ]
        batch = [
            f"addr add {host.underlay}/16 dev wan0",
            "link set wan0 up",
            f"route add default via {INTERNET} dev wan0",
            f"addr add {host.service}/32 dev lo",
        ]
        for pref, what in _TAILSCALE_RULES:
            batch.append(f"rule add pref {pref} {what}")
        if self.ipv6:
            batch += [
                f"addr add {host.underlay6}/64 dev wan0 nodad",
                "-6 route add default via fd99::ffff dev wan0",
                f"addr add {host.service6}/128 dev lo nodad",
            ]
            batch += [f"-6 rule add pref {pref} {what}" for pref, what in _TAILSCALE_RULES]
        return "\n".join((*lines, _ip_batch(batch), *(self._tunnel_script(host, path) for path in INTERFACE)))

    # --- tunnels -----------------------------------------------------------------------------------------------------

    def _start_tunnel(self, host: Host, path: PathName) -> None:
        # One thread of Go is enough for a lab, and leaves the CPU to what is measured.
        env = {"WG_PROCESS_FOREGROUND": "1", "GOMAXPROCS": "1", "LOG_LEVEL": "error"}
        host.spawn(["wireguard-go", INTERFACE[path]], name=f"wireguard-{path}", env=env)

    def _tunnel_script(self, host: Host, path: PathName) -> str:
        """Configures a tunnel whose wireguard-go was started: keys, peers, addresses, routes."""
        device = INTERFACE[path]
        conf = [
            "[Interface]",
            f"PrivateKey = {host.key[path].private}",
            f"ListenPort = {PORT[path]}",
            "FwMark = 0x80000",
        ]
        for peer in self.others(host):
            allowed = [f"{address}" for address in (*peer.tunnel_addresses(path), peer.service, peer.service6)]
            conf += ["[Peer]", f"PublicKey = {peer.key[path].public}", f"AllowedIPs = {', '.join(allowed)}"]
            conf.append(f"Endpoint = {self._endpoint(host, peer, path)}")
        length = 32 if path == "overlay" else 16
        four, six = host.tunnel_addresses(path)
        batch = [f"addr add {four}/{length} dev {device}"]
        if self.ipv6:
            batch.append(f"addr add {six}/{128 if path == 'overlay' else 64} dev {device} nodad")
        batch.append(f"link set {device} mtu {MTU[path]} up")
        if path == "overlay":
            for peer in self.others(host):
                batch.append(f"route add {peer.overlay} dev {device} table 52")
                if self.ipv6:
                    batch.append(f"-6 route add {peer.overlay6} dev {device} table 52")
            if self._static_routes:
                batch += self._service_routes(host, path)
        return "\n".join(
            (
                f"n=0; until [ -S /run/wireguard/{device}.sock ]; do n=$((n+1)); [ $n -lt 500 ]; sleep 0.01; done",
                f"wg setconf {device} /dev/stdin <<'END'\n" + "\n".join(conf) + "\nEND",
                _ip_batch(batch),
            )
        )

    def _service_routes(self, host: Host, path: PathName) -> list[str]:
        routes = []
        for peer in self.others(host):
            routes.append(f"route replace {peer.service} dev {INTERFACE[path]} src {host.service} table 52")
            if self.ipv6:
                routes.append(f"-6 route replace {peer.service6} dev {INTERFACE[path]} src {host.service6} table 52")
        return routes

    def static_routes(self, path: PathName, *hosts: str) -> None:
        """Routes all peers' service addresses over `path` on `hosts` (default: all), as a hand would."""
        self._finish((host, _ip_batch(self._service_routes(host, path))) for host in self._select(hosts))

    def _relay_port(self, src: Host, dst: Host) -> int:
        """The relay's port that `src` sends to for `dst`."""
        return _RELAY_PORTS + (src.number - 1) * _MAX_HOSTS + dst.number - 1

    def _endpoint(self, host: Host, peer: Host, path: PathName) -> str:
        if path == "overlay" and _pair(host.name, peer.name) in self._relayed:
            return f"{INTERNET}:{self._relay_port(host, peer)}"
        return f"{peer.underlay}:{PORT[path]}"

    def _start_relay(self) -> subprocess.Popen[str]:
        if self._relay is None:
            self._relay = self.internet.popen(
                [sys.executable, "-I", "-S", str(HERE / "relay.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return self._relay

    def _tell_relay(self, **command: object) -> None:
        relay = self._start_relay()
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(json.dumps(command) + "\n")
        relay.stdin.flush()
        if not relay.stdout.readline():
            raise LabError("the relay ended; it needs its ports free in the internet namespace")

    # --- hosts by name -----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(f"no host {name!r}; there are {', '.join(self.hosts)}") from None

    def others(self, host: Host) -> list[Host]:
        return [peer for peer in self.hosts.values() if peer is not host]

    def with_role(self, role: str) -> list[Host]:
        return [host for host in self.hosts.values() if role in host.roles]

    def _the(self, role: str) -> Host:
        found = self.with_role(role)
        if len(found) != 1:
            raise LabError(f"exactly one host with role {role!r} is needed; there are {len(found)}")
        return found[0]

    def _select(self, names: Sequence[str]) -> list[Host]:
        return [self[name] for name in names] if names else list(self.hosts.values())

    def _pairs(self, a: str | None, b: str | None) -> list[tuple[str, str]]:
        """Pairs of `a` with `b`; of `a` with all; all."""
        if a is None:
            return [_pair(x, y) for x in self.hosts for y in self.hosts if x < y]
        if b is None:
            return [_pair(a, other.name) for other in self.others(self[a])]
        if self[a] is self[b]:
            raise LabError(f"a pair is two different hosts, not {a} twice")
        return [_pair(a, b)]

    # --- faults on the networks --------------------------------------------------------------------------------------

    def cut(self, path: PathName, a: str | None = None, b: str | None = None, *, one_way: bool = False) -> float:
        """Drops all packets of `path` silently: of the pair, of all pairs of `a`, or everywhere; `one_way`: only a → b.

        One nft transaction however many pairs. Returns the monotonic time just before it took effect (some ms).
        """
        flows = self._flows(path, a, b, one_way)
        return self._apply(lambda: self._cut.update(flows))

    def loss(
        self, path: PathName, share: float, a: str | None = None, b: str | None = None, *, one_way: bool = False
    ) -> float:
        """Drops a random `share` (0..1) of the packets of `path` in each direction."""
        flows = self._flows(path, a, b, one_way)
        if share == 0:
            return self._apply(lambda: [self._loss.pop(flow, None) for flow in flows])
        return self._apply(lambda: self._loss.update(dict.fromkeys(flows, share)))

    def mend(self, path: PathName = "overlay", a: str | None = None, b: str | None = None) -> float:
        """Ends cuts, losses and (overlay) the relay for the pair, for all pairs of `a`, or everywhere."""
        flows = self._flows(path, a, b, False)
        if path == "overlay":
            self._move([pair for pair in self._pairs(a, b) if pair in self._relayed], to_relay=False)

        def change() -> None:
            self._cut.difference_update(flows)
            for flow in flows:
                self._loss.pop(flow, None)

        return self._apply(change)

    def degrade(
        self, a: str | None, b: str | None, *, delay_s: float = 0.15, jitter_s: float = 0.03, loss: float = 0.0
    ) -> None:
        """The DERP case: the overlay of the pair(s) goes through a relay; delay and loss are each way."""
        pairs = self._pairs(a, b)
        for x, y in pairs:
            one, two = self[x], self[y]
            self._tell_relay(
                op="add",
                address=INTERNET,
                ends=[[one.underlay, PORT["overlay"]], [two.underlay, PORT["overlay"]]],
                ports=[self._relay_port(one, two), self._relay_port(two, one)],
                delay_s=delay_s,
                jitter_s=jitter_s,
                loss=loss,
            )
        self._move(pairs, to_relay=True)

    def _move(self, pairs: Sequence[tuple[str, str]], *, to_relay: bool) -> None:
        if not pairs:
            return
        with self._lock:
            if to_relay:
                self._relayed.update(pairs)
            else:
                self._relayed.difference_update(pairs)
                for a, b in pairs:  # first, or a late packet would make an end roam back to the relay
                    ports = [self._relay_port(self[a], self[b]), self._relay_port(self[b], self[a])]
                    self._tell_relay(op="remove", ports=ports)
            ends = [(self[a], self[b]) for x, y in pairs for a, b in ((x, y), (y, x))]
            script: dict[str, list[str]] = {}
            for host, peer in ends:
                if host.alive and host.name not in self._overlay_off:
                    key, endpoint = peer.key["overlay"].public, self._endpoint(host, peer, "overlay")
                    script.setdefault(host.name, []).append(f"wg set tailscale0 peer {key} endpoint {endpoint}")
            self._finish((self[name], "\n".join(lines)) for name, lines in script.items())
            self._write_localapis()

    def _flows(self, path: PathName, a: str | None, b: str | None, one_way: bool) -> list[tuple[PathName, str, str]]:
        if path not in INTERFACE:
            raise LabError(f"no path {path!r}; there are overlay and backup")
        pairs = self._pairs(a, b)
        if one_way:
            if a is None:
                raise LabError("one way needs a host to start from")
            return [(path, a, y if x == a else x) for x, y in pairs]
        return [(path, x, y) for pair in pairs for x, y in (pair, pair[::-1])]

    def _apply(self, change: Callable[[], object]) -> float:
        """Changes the sets of cuts and losses, and the internet's nft table to match, in one transaction."""
        with self._lock:
            before = set(self._cut)
            change()
            lines = ["flush set bridge lab cut", "flush chain bridge lab loss"]
            if elements := [self._match(flow, to) for flow in sorted(self._cut) for to in (False, True)]:
                lines.append("add element bridge lab cut {" + ", ".join(" . ".join(one) for one in elements) + "}")
            for flow, share in self._loss.items():
                for to in (False, True):
                    src, dst, port = self._match(flow, to)
                    lines.append(
                        f"add rule bridge lab loss ip saddr {src} ip daddr {dst} udp dport {port}"
                        f" numgen random mod 10000 < {round(share * 10000)} drop"
                    )
            nft = self.internet.popen(["nft", "-f", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
            at = time.monotonic()
            _, error = nft.communicate("\n".join(lines) + "\n", 10)
            if nft.returncode != 0:
                raise LabError(f"internet: nft: {error.strip()}")
            for path, x, y in self._cut - before:
                if path == "overlay":
                    self._cut_since.setdefault(_pair(x, y), at)
            cut_pairs = {_pair(x, y) for path, x, y in self._cut if path == "overlay"}
            self._cut_since = {pair: since for pair, since in self._cut_since.items() if pair in cut_pairs}
            self._write_localapis()
            return at

    def _match(self, flow: tuple[PathName, str, str], to_relay: bool) -> tuple[str, str, str]:
        path, x, y = flow
        src, dst = self[x], self[y]
        if to_relay:
            return src.underlay, INTERNET, str(self._relay_port(src, dst))
        return src.underlay, dst.underlay, str(PORT[path])

    def overlay_gone(self, name: str) -> float:
        """The host's overlay interface vanishes with its daemon; routes over it go with it. Returns the time."""
        host = self[name]
        at = time.monotonic()
        host.processes["wireguard-overlay"].kill()
        self._overlay_off.add(name)
        self._write_localapi(host)
        return at

    def overlay_back(self, name: str) -> float:
        host = self[name]
        self._start_tunnel(host, "overlay")
        self._finish([(host, self._tunnel_script(host, "overlay"))])
        self._overlay_off.discard(name)
        self._write_localapi(host)
        return time.monotonic()

    def leaks(self) -> int:
        """Packets to service addresses that left a host in the clear, by its default route."""
        out = self.internet.run(["nft", "-j", "list", "counters", "table", "bridge", "lab"]).stdout
        return sum(one["counter"]["packets"] for one in json.loads(out)["nftables"] if "counter" in one)

    # --- faults on hosts ---------------------------------------------------------------------------------------------

    def kill_host(self, name: str) -> float:
        """Power cut: everything in the host is gone; its directory (disk) stays."""
        at = time.monotonic()
        self[name].close()
        return at

    def boot_host(self, name: str) -> None:
        """Power back on a killed host: tunnels and the agent. Its etcd member lost its data, and stays away."""
        host = self[name]
        ran_agent = (host.directory / "agent.toml").exists()
        host.start()
        host.ready()
        self._overlay_off.discard(name)
        self._set_up([host])
        if ran_agent:
            self._start_agent(host)

    # --- the Tailscale stand-in --------------------------------------------------------------------------------------

    def _localapi(self, host: Host) -> Path:
        return host.directory / "localapi.json"

    def _write_localapis(self) -> None:
        for host in self.hosts.values():
            self._write_localapi(host)

    def _write_localapi(self, host: Host) -> None:
        peers = []
        for peer in self.others(host):
            pair = _pair(host.name, peer.name)
            path = "cut" if pair in self._cut_since else "relay" if pair in self._relayed else "direct"
            ips = [peer.overlay, peer.overlay6] if self.ipv6 else [peer.overlay]
            routes = [f"{peer.service}/32", f"{peer.service6}/128"] if self.ipv6 else [f"{peer.service}/32"]
            peers.append(
                {
                    "name": peer.name,
                    "ips": ips,
                    "allowed": [f"{ip}/{128 if ':' in ip else 32}" for ip in ips] + routes,
                    "key": peer.key["overlay"].public_hex,
                    "path": path,
                    "endpoint": f"{peer.underlay}:{PORT['overlay']}" if pair not in self._relayed else "",
                    "since": self._cut_since.get(pair, 0.0),
                }
            )
        state = {
            "backend": "Stopped" if host.name in self._overlay_off else "Running",
            "self": {"HostName": host.name, "TailscaleIPs": [host.overlay, host.overlay6][: 2 if self.ipv6 else 1]},
            "peers": peers,
        }
        target = self._localapi(host)
        fresh = target.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.rename(target)

    # --- broker ------------------------------------------------------------------------------------------------------

    def start_broker(self) -> Process:
        """mosquitto on the host with role "broker", on all its addresses; returns once it accepts connections."""
        host = self._the("broker")
        directory = host.directory / "broker"
        if not directory.exists():
            directory.mkdir()
            addresses = [host.underlay, host.backup, host.service, host.overlay, "127.0.0.1"]
            services.write_broker(directory, self.passwords, addresses, self.tls)
        process = host.spawn(["mosquitto", "-c", str(directory / "mosquitto.conf")], name="mosquitto")
        _wait(lambda: _listens(host, services.MQTT_PORT), 10, "mosquitto does not listen", process)
        return process

    def kill_broker(self) -> float:
        at = time.monotonic()
        self._the("broker").processes["mosquitto"].kill()
        return at

    def broker_addresses(self, host: Host) -> list[dict[str, Any]]:
        """The broker as `host` reaches it, in the order to try: backup, public, overlay."""
        broker = self._the("broker")
        port = services.MQTT_TLS_PORT if self.tls else services.MQTT_PORT
        if host is broker:
            return [{"host": broker.backup, "port": port, "tls": self.tls}]
        base = {"port": port, "tls": self.tls}
        return [
            {"host": broker.backup, **base, "peer": broker.name, "path": "backup"},
            {"host": broker.underlay, **base},
            {"host": broker.overlay, **base, "peer": broker.name, "path": "overlay"},
        ]

    # --- etcd --------------------------------------------------------------------------------------------------------

    def start_etcd(self, *, wait_s: float = 30.0) -> float:
        """Starts all members (service addresses must be routed); returns the seconds until all are healthy."""
        members = self.with_role("etcd")
        began = time.monotonic()
        for host in members:
            host.spawn(self._etcd_command(host), name="etcd")
        for host in members:
            _wait(
                lambda host=host: self._etcd_healthy(host),
                wait_s,
                f"{host.name}: etcd is not healthy",
                host.processes["etcd"],
            )  # type: ignore[misc]
        return time.monotonic() - began

    def restart_etcd(self, name: str) -> Process:
        """Starts a killed member again, with its data."""
        return self[name].spawn(self._etcd_command(self[name]), name="etcd")

    def _etcd_command(self, host: Host) -> list[str]:
        members = {member.name: member.service for member in self.with_role("etcd")}
        return services.etcd_command(host.name, host.service, members, "/run/etcd")

    def _etcd_healthy(self, host: Host) -> bool:
        argv = ["etcdctl", "--endpoints", "http://127.0.0.1:2379", "--command-timeout=2s", "endpoint", "health"]
        return host.run(argv, check=False, env={"ETCDCTL_API": "3"}).returncode == 0

    def etcd_endpoints(self) -> str:
        return ",".join(f"http://{host.service}:2379" for host in self.with_role("etcd"))

    # --- agents and controller ---------------------------------------------------------------------------------------

    def agent_settings(self, host: Host, over: Settings | None = None) -> dict[str, Any]:
        """The host's agent.toml as a dict: the lab's, the Lab's `agent`, then `over`."""
        paths = [{"name": path, "interface": INTERFACE[path], "networks": list(NETWORKS[path])} for path in INTERFACE]
        base: dict[str, Any] = {
            "fleet": services.FLEET,
            "node": host.name,
            "site": host.site,
            "addresses": self._service_addresses(host),
            "keys_file": str(host.directory / "keys.toml"),
            "state_dir": str(host.directory / "agent-state"),
            "paths": paths,
            "peers": [
                {
                    "name": peer.name,
                    "addresses": self._service_addresses(peer),
                    "via": {"backup": [peer.backup, peer.backup6][: 2 if self.ipv6 else 1]},
                }
                for peer in self.others(host)
                if peer.agent
            ],
            "mqtt": {
                "brokers": self.broker_addresses(host),
                "username": host.name,
                "password_file": str(host.directory / "password"),
            },
            "tailscale": {"socket": "/run/tailscale/tailscaled.sock"},
        }
        if self.tls:
            base["mqtt"]["ca_file"] = str(self._the("broker").directory / "broker" / "ca.pem")
        if "etcd" in host.roles:
            base["etcd"] = {"endpoint": "127.0.0.1:2379"}
        return merge(merge(base, self._agent_settings), over or {})

    def _service_addresses(self, host: Host) -> list[str]:
        return [host.service, host.service6] if self.ipv6 else [host.service]

    def start_agents(self, *names: str, settings: Settings | None = None) -> list[Process]:
        """Writes configurations and keys, and runs the real agent on `names` (default: on all agent hosts)."""
        started = []
        for host in self._select(names):
            if host.agent:
                self.write_agent(host, settings)
                started.append(self._start_agent(host))
        return started

    def write_agent(self, host: Host, settings: Settings | None = None) -> Path:
        services.write_keys(host.directory / "keys.toml", self.fleet_key, host.name)
        services.write_private(host.directory / "password", self.passwords[host.name] + "\n")
        (host.directory / "agent-state").mkdir(exist_ok=True)
        config = host.directory / "agent.toml"
        config.write_text(services.to_toml(self.agent_settings(host, settings)))
        return config

    def _start_agent(self, host: Host) -> Process:
        config = host.directory / "agent.toml"
        return host.spawn([*services.command("vagus-agent"), "run", "--config", str(config)], name="agent")

    def controller_settings(self, over: Settings | None = None) -> dict[str, Any]:
        host = self._the("controller")
        directory = host.directory / "controller"
        broker = self._the("broker")
        port = services.MQTT_TLS_PORT if self.tls else services.MQTT_PORT
        brokers = [{"host": "127.0.0.1", "port": port, "tls": self.tls}]
        if host is not broker:
            brokers = [{key: one[key] for key in ("host", "port", "tls")} for one in self.broker_addresses(host)]
        base: dict[str, Any] = {
            "fleet": services.FLEET,
            "name": services.CONTROLLER,
            "fleet_key_file": str(directory / "fleet.key"),
            "nodes": [one.name for one in self.hosts.values() if one.agent],
            "mqtt": {"brokers": brokers, "username": "controller", "password_file": str(directory / "password")},
            "http": {"host": "127.0.0.1", "port": services.HTTP_PORT, "token_file": str(directory / "token")},
            "store": {"url": f"sqlite:///{directory}/vagus.db"},
        }
        if self.tls:
            base["mqtt"]["ca_file"] = str(broker.directory / "broker" / "ca.pem")
        return merge(merge(base, self._controller_settings), over or {})

    def start_controller(self, *, settings: Settings | None = None, port: int = 0, wait_s: float = 20.0) -> str:
        """Runs the real controller; returns the address of its page, reachable from outside the lab at 127.0.0.1.

        `port`: the port outside, 0 for a free one. A second call restarts a killed one at the same address.
        """
        host = self._the("controller")
        directory = host.directory / "controller"
        directory.mkdir(exist_ok=True)
        services.write_private(directory / "fleet.key", self.fleet_key.hex() + "\n")
        services.write_private(directory / "password", self.passwords["controller"] + "\n")
        services.write_private(directory / "token", self.token + "\n")
        config = directory / "controller.toml"
        config.write_text(services.to_toml(self.controller_settings(settings)))
        argv = [*services.command("vagus-controller"), "run", "--config", str(config)]
        process = host.spawn(argv, name="controller")
        if "controller" not in self.urls:
            self.urls["controller"] = self.publish(host, services.HTTP_PORT, port=port)
        _wait(lambda: _listens(host, services.HTTP_PORT), wait_s, "the controller does not listen", process)
        return self.urls["controller"]

    def kill_controller(self) -> float:
        at = time.monotonic()
        self._the("controller").processes["controller"].kill()
        return at

    def cut_controller(self, cut: bool = True) -> float:
        """Drops the controller's broker traffic silently (or lets it pass again); agents keep theirs, where it shares
        the broker's host."""
        host = self._the("controller")
        where = "ip daddr 127.0.0.1 ip saddr 127.0.0.1" if host is self._the("broker") else "meta l4proto tcp"
        ports = f"{{ {services.MQTT_PORT}, {services.MQTT_TLS_PORT} }}"
        lines = ["flush chain inet lab broker-in"]
        if cut:
            lines += [f"add rule inet lab broker-in {where} tcp {side} {ports} drop" for side in ("sport", "dport")]
        at = time.monotonic()
        host.run(["nft", "-f", "-"], input="\n".join(lines) + "\n")
        return at

    def publish(self, host: Host, inner_port: int, *, port: int = 0) -> str:
        """Makes 127.0.0.1:`inner_port` of the host reachable from outside; returns the URL."""
        with socket.create_server(("127.0.0.1", port)) as server:
            # Outside of the host's PID namespace: a host that is killed or frozen closes no one's port.
            self._forwards.append(
                subprocess.Popen(
                    [
                        "nsenter",
                        f"--net=/proc/{host.pid}/ns/net",
                        "--",
                        sys.executable,
                        "-I",
                        "-S",
                        str(HERE / "forward.py"),
                        str(server.fileno()),
                        "127.0.0.1",
                        str(inner_port),
                    ],
                    pass_fds=[server.fileno()],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
            )
            return f"http://127.0.0.1:{server.getsockname()[1]}"

    def api(self, path: str, *, method: str = "GET", body: object = None, timeout_s: float = 5.0) -> Any:
        """A call of the controller's REST API with the operator's token, decoded from JSON."""
        request = urllib.request.Request(
            f"{self.urls['controller']}/{path.lstrip('/')}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return json.loads(answer.read() or b"null")

    def logs(self, lines: int = 30) -> str:
        """The ends of all logs, for a failure's report."""
        parts = []
        for log in sorted(self.dir.glob("*/*.log")):
            if log.stat().st_size:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
                parts.append(f"--- {log.parent.name}/{log.name}\n{tail}")
        return "\n".join(parts)


_TAILSCALE_RULES = (
    (5210, "fwmark 0x80000/0xff0000 lookup main"),
    (5230, "fwmark 0x80000/0xff0000 lookup default"),
    (5250, "fwmark 0x80000/0xff0000 unreachable"),
    (5270, "lookup 52"),
)
_INTERNET_SETUP = f"""
nft -f -
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link add inet0 type bridge forward_delay 0 mcast_snooping 0
ip addr add {INTERNET}/16 dev inet0
ip addr add fd99::ffff/64 dev inet0 nodad
ip link set inet0 up
"""


def _ip_batch(lines: Sequence[str]) -> str:
    """Shell for `ip` commands, those that start with -6 apart: a batch has one family."""
    four = [line for line in lines if not line.startswith("-6 ")]
    six = [line.removeprefix("-6 ") for line in lines if line.startswith("-6 ")]
    parts = [
        f"ip{option} -batch - <<'END'\n" + "\n".join(one) + "\nEND" for option, one in (("", four), (" -6", six)) if one
    ]
    return "\n".join(parts)


def _nth(base: str, number: int) -> str:
    return str(ipaddress.ip_address(base) + number)


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def _exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _tunnel_keys(count: int) -> list[TunnelKey]:
    private = [base64.b64encode(os.urandom(32)).decode() for _ in range(count)]
    script = "while read -r key; do echo $key | wg pubkey; done"
    done = subprocess.run(
        ["sh", "-ec", script], input="\n".join(private) + "\n", capture_output=True, text=True, check=True
    )
    return [TunnelKey(*pair) for pair in zip(private, done.stdout.split(), strict=True)]


def _wait(ready: Callable[[], bool], timeout_s: float, problem: str, process: Process) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not process.alive:
            raise LabError(f"{process.name} ended with {process.returncode}:\n{process.tail()}")
        if time.monotonic() > deadline:
            raise LabError(f"{problem} after {timeout_s} s:\n{process.tail()}")
        time.sleep(0.02)


def _listens(host: Host, port: int) -> bool:
    """Whether a TCP socket listens on `port` in the host's network namespace."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{host.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                return True
    return False


def _cpu_cgroups() -> Path | None:
    """Where to make one CPU cgroup a host, so that a hog on one starves only that one; None where we may not."""
    for root, control in (("/sys/fs/cgroup/cpu", ""), ("/sys/fs/cgroup", "cgroup.subtree_control")):
        path = Path(root)
        if not (path / "cgroup.procs").exists() or not os.access(path, os.W_OK):
            continue
        if control and "cpu" not in (path / control).read_text().split():
            continue
        return path
    return None


def _start_time(pid: int) -> str:
    """A process's start in ticks since boot: with the PID, its identity. "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def sweep() -> list[str]:
    """Removes what killed runs left: directories and cgroups (hosts die with their maker). Returns the names."""
    swept = []
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/owner"):
        try:
            who = json.loads(owner.read_text())
        except (OSError, ValueError):
            continue  # another lab is writing it, or gone just now
        if who["start"] == _start_time(who["pid"]):
            continue
        if (root := _cpu_cgroups()) is not None and (root / owner.parent.name).is_dir():
            for cgroup in (root / owner.parent.name).iterdir():
                if cgroup.is_dir():
                    remove_cgroup(cgroup)
            remove_cgroup(root / owner.parent.name)
        shutil.rmtree(owner.parent, ignore_errors=True)
        swept.append(owner.parent.name)
    return swept
