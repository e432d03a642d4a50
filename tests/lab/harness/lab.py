"""The lab: hosts, the internet between them, two real tunnels, the services on top, and what can go wrong.

    internet: a bridge, 10.99.255.254/16            every UDP packet between hosts passes its nft table: cuts and losses
      └ wan0      10.99.0.N, fd99::N                underlay, default route to the internet (so that leaks show)
    host N
      ├ lo        10.118.0.N/32, fd76::N/128        service address: both tunnels carry it
      ├ tailscale0  100.64.0.N, fd7a:115c:a1e0::N   overlay: wireguard-go, UDP 41641, peers in table 52 like Tailscale
      └ wg0       10.60.0.N/16, fd60::N/64          backup: wireguard-go, UDP 51820

Nothing routes the service addresses: that is the agent's work (or `static_routes`).
"""

from __future__ import annotations

import atexit
import contextlib
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
from typing import Any

from lab.harness import faults, hosts, services, tailscale_rules
from lab.harness.hosts import HERE, INTERFACE, INTERNET, NETWORKS, PORT, Host, HostSpec, PathName
from lab.harness.internet import MAX_HOSTS, Flow, Internet, relay_port
from lab.harness.namespaces import LabError, Process, cpu_cgroups, remove_cgroup, start_time
from lab.harness.services import Settings, merge

_PREFIX = "vagus-lab-"
_PROGRAMS = {"unshare": "util-linux", "ip": "iproute2", "nft": "nftables", "wireguard-go": "wireguard-go"} | {
    "wg": "wireguard-tools"
}


class Lab:
    """A context manager: hosts and tunnels stand on entry, everything is gone on exit, however that comes about.

    `static_routes` routes the service addresses over the overlay without any agent. `agent`, `controller`: settings
    merged into every agent's, the controller's configuration. `tls`: agents and controller use the broker's TLS
    listener. `fair_cpu`: one CPU cgroup a host, where we may, so that a hog starves its own host only. `cgnat`: the
    hosts' service addresses are their overlay addresses, in 100.64.0.0/10.
    """

    def __init__(
        self,
        specs: Sequence[HostSpec],
        *,
        ipv6: bool = True,
        static_routes: bool = False,
        tls: bool = False,
        fair_cpu: bool = True,
        cgnat: bool = False,
        agent: Settings | None = None,
        controller: Settings | None = None,
    ) -> None:
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names) or not 0 < len(names) <= MAX_HOSTS:
            raise LabError(f"1 to {MAX_HOSTS} hosts with different names, please; got {names}")
        self.ipv6 = ipv6
        self.tls = tls
        self.hosts: dict[str, Host] = {}
        self.urls: dict[str, str] = {}
        self.token = secrets.token_urlsafe(24)
        # Of the user `operator`, on the page.
        self.password = secrets.token_urlsafe(9)
        self.fleet_key = secrets.token_bytes(32)
        self.passwords = {name: secrets.token_urlsafe(12) for name in (*names, "controller")}
        self._specs = tuple(specs)
        self._static_routes = static_routes
        self._agent_settings = agent or {}
        self._controller_settings = controller or {}
        self._cut: set[Flow] = set()
        self._loss: dict[Flow, float] = {}
        self._narrow: dict[Flow, int] = {}
        self._relayed: set[tuple[str, str]] = set()
        self._cut_since: dict[tuple[str, str], float] = {}
        self._overlay_off: set[str] = set()
        self._etcd_flags: dict[str, tuple[str, ...]] = {}
        self._cgnat = cgnat
        self._drop_lifted: set[str] = set()
        self._lock = threading.RLock()
        # URL → who forwards to the host behind it
        self._forwards: dict[str, subprocess.Popen[bytes]] = {}
        root = cpu_cgroups() if fair_cpu else None
        self.dir = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(6)}"
        self._cgroup = root / self.dir.name if root is not None else None
        self._old_sigterm: Any = None

    # --- life and death ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces: run it as root")
        for program, package in _PROGRAMS.items():
            services.need(program, package)
        sweep()
        self.dir.mkdir(mode=0o755)
        (self.dir / "owner").write_text(json.dumps({"pid": os.getpid(), "start": start_time(os.getpid())}))
        self.internet = Internet(self.dir / "internet")
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
        for url in [*self._forwards]:
            self.unpublish(url)
        # Backwards; each of them also where one before fails.
        with contextlib.ExitStack() as rest:
            rest.callback(self._forget)
            if self._cgroup is not None:
                rest.callback(remove_cgroup, self._cgroup)
            for host in (self.internet, *reversed(self.hosts.values())):
                rest.callback(host.close)

    def _forget(self) -> None:
        if os.environ.get("VAGUS_LAB_KEEP"):
            (self.dir / "owner").unlink()
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)
            self._old_sigterm = None

    def _build(self) -> None:
        keys = hosts.tunnel_keys(2 * len(self._specs))
        for number, spec in enumerate(self._specs, 1):
            cgroup = self._cgroup / spec.name if self._cgroup is not None else None
            own = keys[2 * number - 2 : 2 * number]
            self.hosts[spec.name] = Host(spec, number, self.dir / spec.name, cgroup, own, cgnat=self._cgnat)
        self.internet.start()
        for host in self.hosts.values():
            host.start()
        self.internet.ready()
        self.internet.set_up()
        if self._cgnat:
            self.internet.guard(*NETWORKS["overlay"])
        for host in self.hosts.values():
            host.ready()
        self._set_up(tuple(self.hosts.values()))

    def _set_up(self, fresh: Sequence[Host]) -> None:
        """Wires hosts that are powered on to the internet, and brings up their tunnels, all side by side."""
        self.internet.wire(fresh)
        for host in fresh:
            for path in INTERFACE:
                host.start_tunnel(path)
            self._write_localapi(host)
        self._shell(
            (
                host,
                "\n".join((self._network(host), *(self._tunnel(host, path) for path in INTERFACE))),
            )
            for host in fresh
        )
        if self._static_routes:
            self.static_routes("overlay", *(host.name for host in fresh))
        for host in fresh:
            socket_path, state = "/run/tailscale/tailscaled.sock", self._localapi_file(host)
            host.python(HERE / "localapi_standin.py", socket_path, state, name="localapi")

    def _network(self, host: Host) -> str:
        return hosts.network_script(host, self.ipv6, cgnat_drop=host.name not in self._drop_lifted)

    def _tunnel(self, host: Host, path: PathName) -> str:
        return hosts.tunnel_script(host, self.others(host), path, self.ipv6, self._endpoint)

    @staticmethod
    def _shell(scripts: Iterable[tuple[Host, str]]) -> None:
        """Runs a shell script in each host, side by side."""
        running = [
            (host, host.popen(["sh", "-ec", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
            for host, script in scripts
        ]
        for host, child in running:
            out, _ = child.communicate(timeout=30)
            if child.returncode != 0:
                raise LabError(f"{host.name}: set-up: {out.strip()[:2000]}")

    def logs(self, lines: int = 30) -> str:
        """The ends of all logs, for a failure's report."""
        parts = []
        for log in sorted(self.dir.glob("*/*.log")):
            if log.stat().st_size:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
                parts.append(f"--- {log.parent.name}/{log.name}\n{tail}")
        return "\n".join(parts)

    # --- hosts by name -----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(f"no host {name!r}; there are {', '.join(self.hosts)}") from None

    def process(self, host: str, name: str) -> Process:
        """The host's process `name`: agent, controller, mosquitto, etcd, wireguard-overlay, wireguard-backup, …"""
        found = self[host].processes.get(name)
        if found is None:
            raise LabError(f"{host} runs no {name!r}; it runs {', '.join(self[host].processes)}")
        return found

    def others(self, host: Host) -> list[Host]:
        return [peer for peer in self.hosts.values() if peer is not host]

    def with_role(self, role: str) -> list[Host]:
        return [host for host in self.hosts.values() if role in host.roles]

    def the(self, role: str) -> Host:
        """The one host with `role`."""
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

    def fault(self, name: str, *args: str) -> object:
        """A fault by its name and words, as on a command line: `faults.FAULTS` lists them."""
        return faults.do_fault(self, name, *args)

    def cut(self, path: PathName, a: str | None = None, b: str | None = None, *, one_way: bool = False) -> float:
        """Drops all packets of `path` silently: of the pair, of all pairs of `a`, or everywhere; `one_way`: only a → b.

        One transaction, however many pairs. Returns the monotonic time just before it took effect (some ms).
        """
        flows = self._flows(path, a, b, one_way)
        return self._filter(lambda: self._cut.update(flows))

    def loss(
        self, path: PathName, share: float, a: str | None = None, b: str | None = None, *, one_way: bool = False
    ) -> float:
        """Drops a random `share` (0..1) of the packets of `path` in each direction; 0 ends it."""
        flows = self._flows(path, a, b, one_way)

        def change() -> None:
            for flow in flows:
                self._loss.pop(flow, None)
                if share > 0:
                    self._loss[flow] = share

        return self._filter(change)

    def narrow(
        self, path: PathName, size: int, a: str | None = None, b: str | None = None, *, one_way: bool = False
    ) -> float:
        """An MTU black hole: drops the packets of `path` that have more than `size` bytes outside of the tunnel,
        silently."""
        flows = self._flows(path, a, b, one_way)
        return self._filter(lambda: self._narrow.update(dict.fromkeys(flows, size)))

    def mend(self, path: PathName = "overlay", a: str | None = None, b: str | None = None) -> float:
        """Ends cuts, losses, black holes and (overlay) the relay for the pair, for all pairs of `a`, or everywhere."""
        flows = self._flows(path, a, b, False)
        if path == "overlay":
            self._repoint([pair for pair in self._pairs(a, b) if pair in self._relayed], to_relay=False)

        def change() -> None:
            self._cut.difference_update(flows)
            for flow in flows:
                self._loss.pop(flow, None)
                self._narrow.pop(flow, None)

        return self._filter(change)

    def degrade(
        self,
        a: str | None = None,
        b: str | None = None,
        *,
        delay_s: float = 0.15,
        jitter_s: float = 0.03,
        loss: float = 0.0,
    ) -> None:
        """The DERP case: the overlay of the pair(s) goes through a relay; delay, jitter and loss are each way."""
        pairs = self._pairs(a, b)
        for x, y in pairs:
            self.internet.relay(self[x], self[y], delay_s, jitter_s, loss)
        self._repoint(pairs, to_relay=True)

    def _endpoint(self, host: Host, peer: Host, path: PathName) -> str:
        if path == "overlay" and _pair(host.name, peer.name) in self._relayed:
            return f"{INTERNET}:{relay_port(host, peer)}"
        return f"{peer.underlay}:{PORT[path]}"

    def _repoint(self, pairs: Sequence[tuple[str, str]], *, to_relay: bool) -> None:
        """Points the overlay endpoints of `pairs` to the relay, or to one another."""
        with self._lock:
            if to_relay:
                self._relayed.update(pairs)
            else:
                self._relayed.difference_update(pairs)
                for a, b in pairs:  # first, or a late packet would make an end roam back to the relay
                    self.internet.stop_relay(self[a], self[b])
            scripts: dict[str, list[str]] = {}
            for host, peer in ((self[a], self[b]) for x, y in pairs for a, b in ((x, y), (y, x))):
                if host.alive and host.name not in self._overlay_off:
                    key, endpoint = peer.key["overlay"].public, self._endpoint(host, peer, "overlay")
                    scripts.setdefault(host.name, []).append(f"wg set tailscale0 peer {key} endpoint {endpoint}")
            self._shell((self[name], "\n".join(lines)) for name, lines in scripts.items())
            self._write_localapis()

    def _flows(self, path: PathName, a: str | None, b: str | None, one_way: bool) -> list[Flow]:
        if path not in INTERFACE:
            raise LabError(f"no path {path!r}; there are {', '.join(INTERFACE)}")
        pairs = self._pairs(a, b)
        if one_way:
            if a is None:
                raise LabError("one way needs a host to start from")
            return [Flow(path, self[a], self[y if x == a else x]) for x, y in pairs]
        return [Flow(path, self[x], self[y]) for pair in pairs for x, y in (pair, pair[::-1])]

    def _filter(self, change: Callable[[], None]) -> float:
        with self._lock:
            change()
            at = self.internet.filter(self._cut, self._loss, self._narrow)
            cut = {_pair(flow.src.name, flow.dst.name) for flow in self._cut if flow.path == "overlay"}
            self._cut_since = {pair: self._cut_since.get(pair, at) for pair in cut}
            self._write_localapis()
            return at

    def static_routes(self, path: PathName, *names: str) -> None:
        """Routes all peers' service addresses over `path` on `names` (default: all hosts), as a hand would."""
        self._shell(
            (host, hosts.ip_batch(hosts.service_routes(host, self.others(host), path, self.ipv6)))
            for host in self._select(names)
        )

    def overlay_gone(self, name: str) -> float:
        """The host's overlay interface vanishes with its daemon; routes over it go with it. Returns the time."""
        at = time.monotonic()
        self.process(name, "wireguard-overlay").kill()
        self._overlay_off.add(name)
        self._write_localapi(self[name])
        return at

    def tailscale_ends(self, name: str, how: tailscale_rules.End) -> float:
        """The host's Tailscale ends, and leaves what it leaves when it ends so; `overlay_back` brings it back."""
        at, script = time.monotonic(), ""
        if how == "logged out":
            script = tailscale_rules.log_out_script(self.ipv6)
        else:
            at = self.overlay_gone(name)
        if how == "stopped":
            script = tailscale_rules.rules_script("del", self.ipv6)
        if how != "killed":
            script += "\n" + tailscale_rules.no_filter_script()
        self._shell([(self[name], script)])
        self._overlay_off.add(name)
        self._write_localapi(self[name])
        return at

    def cgnat_drop(self, drop: bool, *names: str) -> None:
        """Tailscale's drop of 100.64.0.0/10 on other interfaces, in place or lifted, on `names` (default: all)."""
        wanted = self._select(names)
        for host in wanted:
            (self._drop_lifted.discard if drop else self._drop_lifted.add)(host.name)
        self._shell((host, tailscale_rules.filter_script(drop=drop)) for host in wanted)

    def overlay_back(self, name: str) -> float:
        host = self[name]
        if not self.process(name, "wireguard-overlay").alive:
            host.start_tunnel("overlay")
        rules = tailscale_rules.rules_script("add", self.ipv6)
        chain = tailscale_rules.filter_script(drop=name not in self._drop_lifted)
        self._shell([(host, "\n".join((self._tunnel(host, "overlay"), rules, chain)))])
        if self._static_routes:
            self.static_routes("overlay", name)
        self._overlay_off.discard(name)
        self._write_localapi(host)
        return time.monotonic()

    def leaks(self) -> int:
        """Packets to service addresses that left a host in the clear, by its default route, since the lab was built.

        Compare two readings: ICMP errors, in answer to probes that come before a host has its routes, count too.
        """
        return self.internet.leaks()

    # --- faults on hosts ---------------------------------------------------------------------------------------------

    def kill_host(self, name: str) -> float:
        """Power cut: everything in the host is gone; its directory (disk) stays. Returns the time."""
        at = time.monotonic()
        self[name].close()
        return at

    def boot_host(self, name: str) -> None:
        """Power back on a killed host: tunnels, broker, agent. Its etcd member lost its data, and stays away."""
        host = self[name]
        if host.alive:
            raise LabError(f"{name} is running")
        host.start()
        host.ready()
        self._overlay_off.discard(name)
        self._set_up([host])
        if (host.directory / "broker").exists():
            self.start_broker()
        if (host.directory / "agent.toml").exists():
            self._run_agent(host)

    # --- the Tailscale stand-in --------------------------------------------------------------------------------------

    @staticmethod
    def _localapi_file(host: Host) -> Path:
        return host.directory / "localapi.json"

    def _write_localapis(self) -> None:
        for host in self.hosts.values():
            self._write_localapi(host)

    def _write_localapi(self, host: Host) -> None:
        """Tells the host's stand-in what the lab did to its overlay."""
        families = 2 if self.ipv6 else 1
        peers = []
        for peer in self.others(host):
            pair = _pair(host.name, peer.name)
            ips = [peer.overlay, peer.overlay6][:families]
            relayed = pair in self._relayed
            peers.append(
                {
                    "name": peer.name,
                    "ips": ips,
                    "routes": [f"{peer.service}/32", f"{peer.service6}/128"][:families],
                    "key": peer.key["overlay"].public_hex,
                    "path": "relay" if relayed else "cut" if pair in self._cut_since else "direct",
                    "endpoint": "" if relayed else f"{peer.underlay}:{PORT['overlay']}",
                    "since": self._cut_since.get(pair, 0.0),
                }
            )
        state = {
            "backend": "Stopped" if host.name in self._overlay_off else "Running",
            "self": {"HostName": host.name, "TailscaleIPs": [host.overlay, host.overlay6][:families]},
            "peers": peers,
        }
        target = self._localapi_file(host)
        fresh = target.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.rename(target)

    # --- broker ------------------------------------------------------------------------------------------------------

    def start_broker(self) -> Process:
        """mosquitto on the host with role "broker", on all its addresses; returns once it accepts connections."""
        host = self.the("broker")
        directory = host.directory / "broker"
        if not directory.exists():
            directory.mkdir()
            addresses = [host.underlay, host.backup, host.overlay, host.service, "127.0.0.1"]
            services.write_broker(directory, self.passwords, addresses, self.tls)
        process = host.spawn(["mosquitto", "-c", str(directory / "mosquitto.conf")], name="mosquitto")
        _wait(lambda: host.listens(services.MQTT_PORT), 10, "mosquitto does not listen", process)
        return process

    def kill_broker(self) -> float:
        """SIGKILL; `start_broker` starts it again. Returns the time."""
        at = time.monotonic()
        self.process(self.the("broker").name, "mosquitto").kill()
        return at

    # --- etcd --------------------------------------------------------------------------------------------------------

    def start_etcd(self, *flags: str, wait_s: float = 30.0) -> float:
        """Starts all members (service addresses must be routed); returns the seconds until all are healthy."""
        began = time.monotonic()
        members = [self.restart_etcd(host.name, *flags) for host in self.with_role("etcd")]
        for host, process in zip(self.with_role("etcd"), members, strict=True):
            self._wait_etcd(host, wait_s, process)
        return time.monotonic() - began

    def _wait_etcd(self, host: Host, wait_s: float, process: Process) -> None:
        argv = ["etcdctl", "--endpoints", "http://127.0.0.1:2379", "--command-timeout=2s", "endpoint", "health"]

        def healthy() -> bool:
            return host.run(argv, check=False, env={"ETCDCTL_API": "3"}).returncode == 0

        _wait(healthy, wait_s, f"{host.name}: etcd is not healthy", process)

    def restart_etcd(self, name: str, *flags: str) -> Process:
        """Starts a member, with the data it has; does not wait for it. `flags`: of etcd, for it and its later lives."""
        self._etcd_flags[name] = flags or self._etcd_flags.get(name, ())
        members = {member.name: member.service for member in self.with_role("etcd")}
        host = self[name]
        command = services.etcd_command(host.name, host.service, members, "/run/etcd")
        return host.spawn([*command, *self._etcd_flags[name]], name="etcd")

    # --- agents and controller ---------------------------------------------------------------------------------------

    def agent_settings(self, host: Host, over: Settings | None = None) -> dict[str, Any]:
        """The host's agent.toml as a dict: the lab's, with the Lab's `agent` and then `over` merged in."""
        peers = [peer for peer in self.others(host) if peer.agent]
        base = services.agent_settings(host, peers, self.the("broker"), ipv6=self.ipv6, tls=self.tls)
        return merge(merge(base, self._agent_settings), over or {})

    def write_agent(self, host: Host, settings: Settings | None = None) -> Path:
        """Writes the agent's configuration, keys and password; returns the configuration's path."""
        services.write_keys(host.directory / "keys.toml", self.fleet_key, host.name)
        services.write_private(host.directory / "password", self.passwords[host.name] + "\n")
        (host.directory / "agent-state").mkdir(exist_ok=True)
        config = host.directory / "agent.toml"
        services.write_private(config, services.to_toml(self.agent_settings(host, settings)))
        return config

    def start_agents(self, *names: str, settings: Settings | None = None) -> list[Process]:
        """Configures and runs the real agent on `names` (default: on all agent hosts); does not wait for them."""
        wanted = [host for host in self._select(names) if host.agent]
        for host in wanted:
            self.write_agent(host, settings)
        return [self._run_agent(host) for host in wanted]

    @staticmethod
    def _run_agent(host: Host) -> Process:
        config = str(host.directory / "agent.toml")
        return host.spawn([*services.command("vagus-agent"), "run", "--config", config], name="agent")

    def wait_routed(self, timeout_s: float = 20.0) -> float:
        """Waits until every agent has routed all its peers over a tunnel; returns the seconds it took."""
        began = time.monotonic()
        for host in (one for one in self.hosts.values() if one.agent):
            peers = [peer for peer in self.others(host) if peer.agent]
            script = "; ".join(f"ip route get {peer.service}" for peer in peers)

            def routed(host: Host = host, script: str = script, count: int = len(peers)) -> bool:
                out = host.run(["sh", "-c", script], check=False).stdout
                return (
                    sum(f"dev {device} " in line for line in out.splitlines() for device in INTERFACE.values()) == count
                )

            left = timeout_s - (time.monotonic() - began)
            _wait(routed, left, f"{host.name}: peers are not routed", self.process(host.name, "agent"))
        return time.monotonic() - began

    def controller_settings(self, over: Settings | None = None) -> dict[str, Any]:
        """controller.toml as a dict: the lab's, with the Lab's `controller` and then `over` merged in."""
        nodes = [host.name for host in self.hosts.values() if host.agent]
        base = services.controller_settings(self.the("controller"), nodes, self.the("broker"), tls=self.tls)
        return merge(merge(base, self._controller_settings), over or {})

    def write_controller(self, settings: Settings | None = None) -> Path:
        """Writes the controller's configuration, fleet key, passwords and token; returns the configuration's path."""
        directory = self.the("controller").directory / "controller"
        directory.mkdir(exist_ok=True)
        services.write_private(directory / "fleet.key", self.fleet_key.hex() + "\n")
        services.write_private(directory / "password", self.passwords["controller"] + "\n")
        services.write_private(directory / "token", self.token + "\n")
        services.write_private(directory / "operator-password", self.password + "\n")
        config = directory / "controller.toml"
        services.write_private(config, services.to_toml(self.controller_settings(settings)))
        return config

    def start_controller(self, *, settings: Settings | None = None, port: int = 0, wait_s: float = 20.0) -> str:
        """Runs the real controller; returns the address of its page, reachable from outside the lab at 127.0.0.1.

        `port`: the port outside, 0 for a free one. A second call restarts a killed one at the same address.
        """
        host = self.the("controller")
        config = self.write_controller(settings)
        process = host.spawn([*services.command("vagus-controller"), "run", "--config", str(config)], name="controller")
        if "controller" not in self.urls:
            self.urls["controller"] = self.publish(host, services.HTTP_PORT, port=port)
        _wait(lambda: host.listens(services.HTTP_PORT), wait_s, "the controller does not listen", process)
        return self.urls["controller"]

    def kill_controller(self) -> float:
        """SIGKILL; `start_controller` starts it again. Returns the time."""
        at = time.monotonic()
        self.process(self.the("controller").name, "controller").kill()
        return at

    def cut_controller(self, cut: bool = True) -> float:
        """Drops the controller's broker traffic silently, or lets it pass again. Returns the time.

        Beside the broker it speaks over 127.0.0.1, so agents keep theirs; on a host of its own, that host's agent is
        cut with it.
        """
        host = self.the("controller")
        where = "ip saddr 127.0.0.1 ip daddr 127.0.0.1" if host is self.the("broker") else "meta l4proto tcp"
        ports = f"{{ {services.MQTT_PORT}, {services.MQTT_TLS_PORT} }}"
        lines = ["flush chain inet lab broker-in"]
        if cut:
            lines += [f"add rule inet lab broker-in {where} tcp {side} {ports} drop" for side in ("sport", "dport")]
        at = time.monotonic()
        host.run(["nft", "-f", "-"], input="\n".join(lines) + "\n")
        return at

    def publish(self, host: Host, inner_port: int, *, port: int = 0) -> str:
        """Makes 127.0.0.1:`inner_port` of the host reachable from outside, at 127.0.0.1 as well; returns the URL."""
        try:
            server = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise LabError(f"127.0.0.1:{port}: {error.strerror}; choose another port") from None
        with server:
            forward = [sys.executable, "-I", "-S", str(HERE / "forward.py"), str(server.fileno()), "127.0.0.1"]
            # In the host's network namespace only: it is not one of the host's processes.
            child = subprocess.Popen(
                ["nsenter", f"--net=/proc/{host.pid}/ns/net", "--", *forward, str(inner_port)],
                pass_fds=[server.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            self._forwards[url] = child
            return url

    def unpublish(self, url: str) -> None:
        """Breaks all connections through a published URL, and new ones are refused; `publish` on its port brings it
        back. Idempotent."""
        if child := self._forwards.pop(url, None):
            child.kill()
            child.wait(5)

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


def sweep() -> list[str]:
    """Removes what killed runs left: directories and cgroups (hosts die with their maker). Returns the names."""
    swept = []
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/owner"):
        try:
            who: Mapping[str, Any] = json.loads(owner.read_text())
        except (OSError, ValueError):
            continue  # another lab is writing it, or gone just now
        if who["start"] == start_time(who["pid"]):
            continue
        if (root := cpu_cgroups()) is not None:
            cgroup = root / owner.parent.name
            with contextlib.suppress(FileNotFoundError):  # there is none, or a sweep of another run was faster
                for child in os.listdir(cgroup):
                    if (cgroup / child).is_dir():
                        remove_cgroup(cgroup / child)
            remove_cgroup(cgroup)
        shutil.rmtree(owner.parent, ignore_errors=True)
        swept.append(owner.parent.name)
    return swept


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def _exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _wait(ready: Callable[[], bool], timeout_s: float, problem: str, process: Process) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not process.alive:
            raise LabError(f"{process.name} ended with {process.returncode}:\n{process.tail()}")
        if time.monotonic() > deadline:
            raise LabError(f"{problem} after {timeout_s} s:\n{process.tail()}")
        time.sleep(0.02)
