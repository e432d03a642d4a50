"""Debian hosts with a really booted systemd as PID 1, reached by real ssh, for what is installed on hosts.

    with booted("vps", "tokyo", "austin") as hosts:
        hosts["tokyo"].ssh("systemctl is-system-running")
        hosts.run(["ansible-playbook", "-i", str(inventory(hosts)), "site.yml"])

The network is the lab's: every host has `wan0` on the internet's bridge, where `hosts.run` runs things (ssh, Ansible)
as an operator would; no host reaches the real internet. Tailscale's place is taken by the lab's stand-in: a unit
tailscaled.service with tailscale0 (wireguard-go), its rules, table 52, source filter and LocalAPI. The service
addresses 10.118.0.N and fd76::N are in its peers' AllowedIPs; to have them on `lo` is up to who installs vagus.

A host is a lab's namespace in which systemd-nspawn boots: its network, mounts and processes belong to a PID namespace
whose PID 1 ends when our end of a pipe closes. So however the maker dies, nothing runs on; `sweep` takes away what a
killed run leaves on disk and of cgroups, before the next.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import tailscale_standin
from base_root import base_root
from lab.harness import hosts as lab_hosts
from lab.harness.hosts import INTERNET, INTERNET6, Host, HostSpec, PathName
from lab.harness.internet import Flow, Internet
from lab.harness.namespaces import LabError, Process, start_time
from lab.harness.services import need
from snapshot import ASK, Snapshot, told

_PREFIX = "vagus-hosts-"
# How long a boot, or anything that systemd is asked for, may take on a machine that is busy with something else.
PATIENCE_S = 120.0
# systemd-nspawn's exit status when the host asked for a reboot.
_REBOOT = 133

# The lab's own /sys would hide the cgroups that nspawn needs; the host's is nspawn's to make.
_INIT = """
set -e
read -r pid _ < /proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t overlay overlay -o "lowerdir=$2/base,upperdir=$2/up,workdir=$2/work" "$2/root"
ip link set lo up
echo "$pid"
read -r _ || true
"""

# In every cgroup hierarchy of its own, so that systemd in the host manages what is below.
_BOOT = 'for cgroup in $1; do echo 0 > "$cgroup/cgroup.procs"; done; shift; exec "$@"'

_NETWORK = """
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0
ip addr add {host.underlay}/16 dev wan0
ip addr add {host.underlay6}/64 dev wan0 nodad
ip link set wan0 up
ip route add default via {INTERNET} dev wan0
ip -6 route add default via {INTERNET6} dev wan0
"""


class BootedHost(Host):
    """A host that boots from its own copy of the base. Of `Host`: addresses, and `run` from outside, in its network
    namespace but with this machine's files. `address`: where ssh answers."""

    init = _INIT

    def __init__(self, name: str, number: int, fleet: Hosts, keys: Sequence[lab_hosts.TunnelKey]) -> None:
        super().__init__(HostSpec(name), number, fleet.dir / name, None, keys)
        self._fleet = fleet
        self._cgroups = [root / fleet.dir.name / name for root in cgroup_roots()]
        self.address = self.underlay
        for part in ("up", "work", "root"):
            (self.directory / part).mkdir(mode=0o755)
        (self.directory / "base").symlink_to(fleet.base)

    # --- life and death ----------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Power on, and wait until systemd has started what it starts."""
        self.power_on()
        self.await_boot()

    def power_on(self) -> None:
        if self.alive:
            raise LabError(f"{self.name} is running")
        self.start()
        self.ready()
        # The end of an earlier life's link may outlive it for a moment.
        self._fleet.internet.run(["ip", "link", "del", f"h{self.number}"], check=False)
        self._fleet.internet.wire([self])
        self.run(["sh", "-ec", _NETWORK.format(host=self, INTERNET=INTERNET, INTERNET6=INTERNET6)])
        for cgroup in self._cgroups:
            cgroup.mkdir(parents=True, exist_ok=True)
        nspawn = [
            *(need("systemd-nspawn", "systemd-container"), "-q", "-D", str(self.directory / "root"), "-M", self.name),
            *("--boot", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *("--network-namespace-path=/proc/self/ns/net", "--capability=CAP_NET_ADMIN,CAP_NET_RAW"),
            *("--console=read-only", "--kill-signal=SIGRTMIN+3"),
        ]
        argv = ["sh", "-c", _BOOT, "sh", " ".join(map(str, self._cgroups)), *nspawn]
        self.spawn(argv, name="nspawn", env={"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"})

    def await_boot(self) -> None:
        """Waits until ssh answers and no job is left to do."""
        deadline = time.monotonic() + PATIENCE_S
        while (done := self.ssh("systemctl is-system-running --wait", check=False)).returncode == 255:
            if not self.processes["nspawn"].alive or time.monotonic() > deadline:
                raise LabError(f"{self.name} does not boot: {done.stderr.strip()}\n{self.processes['nspawn'].tail()}")
            time.sleep(0.1)
        if done.stdout.strip() not in ("running", "degraded"):
            raise LabError(f"{self.name} is {done.stdout.strip() or done.stderr.strip()} after its boot")

    def reboot(self) -> None:
        """As a person would, by `systemctl reboot`; returns when it is up again, with nothing in its kernel."""
        nspawn = self.processes["nspawn"]
        self.ssh("systemctl reboot", check=False)
        if (code := nspawn.wait(PATIENCE_S)) != _REBOOT:
            raise LabError(f"{self.name} did not reboot: systemd-nspawn ended with {code}\n{nspawn.tail()}")
        self.power_cut()
        self.boot()

    def power_cut(self) -> None:
        """Everything in the host is gone, at once; its disk stays. `boot` powers it on again."""
        self.close()
        for cgroup in self._cgroups:
            remove_cgroups(cgroup)

    # --- what a person at a terminal could do ------------------------------------------------------------------------

    def ssh(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a shell command, or argv, on the host as root."""
        line = command if isinstance(command, str) else shlex.join(command)
        argv = ["ssh", *self._fleet.ssh_options, f"root@{self.address}", line]
        return self._fleet.internet.run(argv, check=check, input=input, timeout_s=timeout_s)

    def write(self, path: str, text: str, mode: str = "0644", owner: str = "root:root") -> None:
        """A file on the host, with its directories."""
        where, mine = shlex.quote(path), shlex.quote(owner)
        self.ssh(f"install -D -m {mode} /dev/stdin {where} && chown {mine} {where}", input=text)

    def copy(self, source: Path, target: str) -> None:
        """A file of this machine to the host."""
        argv = ["scp", "-q", *self._fleet.ssh_options, str(source), f"root@{self.address}:{target}"]
        self._fleet.internet.run(argv, timeout_s=PATIENCE_S)

    def snapshot(self) -> Snapshot:
        """Files, users, rules, routes, units and more; `snapshot.differences` compares two."""
        done = self.ssh("python3 -I -", input=ASK)
        return told(done.stdout, self.directory / "up", self._fleet.base)

    def logs(self, lines: int = 60) -> str:
        """The ends of console and journal, for a failure's report."""
        console = self.processes["nspawn"].tail() if "nspawn" in self.processes else "powered off"
        journal = ""
        if self.alive:
            with suppress(LabError):
                journal = self.ssh(f"journalctl -b -n {lines} -o short-monotonic --no-pager", timeout_s=20).stdout
        return f"--- {self.name}: console\n{console}\n--- {self.name}: journal\n{journal}"

    # --- before its first boot ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Puts what makes it this host onto its disk."""
        self._put("etc/hostname", self.name + "\n")
        self._put("etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n")
        # systemd gives itself one at the first boot.
        self._put("etc/machine-id", "")
        self._put("root/.ssh/authorized_keys", (self._fleet.dir / "id.pub").read_text())
        (self.directory / "up/root").chmod(0o700)
        peers = [host for host in self._fleet.values() if host is not self]
        for name, text in tailscale_standin.files(self, peers).items():
            self._put(name, text)
        for name, target in tailscale_standin.LINKS.items():
            link = self.directory / "up" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)

    def _put(self, name: str, text: str) -> None:
        path = self.directory / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Hosts(dict[str, BootedHost]):
    """The hosts of one run, by name, and the internet between them. Made by `booted`."""

    def __init__(self, names: Sequence[str], suite: str) -> None:
        super().__init__()
        self.base = base_root(suite)
        self.dir = Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(6)}"
        self.dir.mkdir(mode=0o755)
        (self.dir / "owner").write_text(json.dumps({"pid": os.getpid(), "start": start_time(os.getpid())}))
        self.internet = Internet(self.dir / "internet")
        self.ssh_options = ["-F", "none", "-i", str(self.dir / "id")]
        for option in ("BatchMode=yes", "ConnectTimeout=5", "LogLevel=ERROR", "StrictHostKeyChecking=no"):
            self.ssh_options += ["-o", option]
        self.ssh_options += ["-o", "UserKnownHostsFile=/dev/null"]
        self._names = names
        self._cut: set[Flow] = set()

    def build(self) -> None:
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vagus tests", "-f", str(self.dir / "id")]
        subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        keys = lab_hosts.tunnel_keys(2 * len(self._names))
        for number, name in enumerate(self._names, 1):
            self[name] = BootedHost(name, number, self, keys[2 * number - 2 : 2 * number])
        self.internet.start()
        self.internet.ready()
        self.internet.set_up()
        for host in self.values():
            host.prepare()
            host.power_on()
        for host in self.values():
            host.await_boot()

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of this machine on the internet, from where the hosts are reached. Ansible's own files, also
        the sockets of its connections, which are named by address alone, are this run's."""
        own = {"ANSIBLE_HOME": str(self.dir / "ansible"), "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.dir / "cp")}
        return self.internet.run(argv, check=check, env=own | dict(env or {}), timeout_s=timeout_s)

    def cut(self, path: PathName, a: str, b: str) -> None:
        """Drops the packets of the tunnel `path` between two hosts, silently; `mend` ends it."""
        self._cut |= {Flow(path, self[a], self[b]), Flow(path, self[b], self[a])}
        self.internet.filter(self._cut, {}, {})

    def mend(self) -> None:
        self._cut.clear()
        self.internet.filter((), {}, {})

    def logs(self) -> str:
        return "\n".join(host.logs() for host in self.values())

    def close(self) -> None:
        """Everything goes, at once; idempotent."""
        try:
            for host in self.values():
                host.power_cut()
            self.internet.close()
        finally:
            _remove(self.dir)


@contextmanager
def booted(*names: str, suite: str = "") -> Iterator[Hosts]:
    """Hosts that have booted; everything is gone at the end, however that comes about."""
    if os.geteuid() != 0:
        raise LabError("hosts are booted in namespaces: run it as root")
    need("systemd-nspawn", "systemd-container")
    sweep()
    hosts = Hosts(names, suite)
    atexit.register(hosts.close)
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _exit_on_sigterm)
    try:
        hosts.build()
        yield hosts
    finally:
        hosts.close()
        atexit.unregister(hosts.close)
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def inventory(
    hosts: Hosts,
    groups: Mapping[str, Sequence[str]] | None = None,
    variables: Mapping[str, object] | None = None,
    host_variables: Mapping[str, Mapping[str, object]] | None = None,
) -> Path:
    """Writes an Ansible inventory of `hosts`: how each is reached, the groups, and variables of all and of each."""
    common = shlex.join(hosts.ssh_options)
    each = {
        name: {
            "ansible_host": host.address,
            "ansible_user": "root",
            "ansible_ssh_common_args": common,
            "ansible_python_interpreter": "/usr/bin/python3",
            **(host_variables or {}).get(name, {}),
        }
        for name, host in hosts.items()
    }
    children = {group: {"hosts": {name: {} for name in members}} for group, members in (groups or {}).items()}
    path = hosts.dir / "inventory" / "hosts.yml"
    path.parent.mkdir(exist_ok=True)
    # JSON is YAML.
    path.write_text(json.dumps({"all": {"hosts": each, "vars": dict(variables or {}), "children": children}}, indent=2))
    return path


# --- what could be left ----------------------------------------------------------------------------------------------


def sweep() -> list[str]:
    """Removes what killed runs left on disk and of cgroups (hosts die with their maker). Returns the names."""
    swept = []
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/owner"):
        try:
            who = json.loads(owner.read_text())
        except (OSError, ValueError):
            continue  # another run is writing it, or gone just now
        if who["start"] != start_time(who["pid"]):
            _remove(owner.parent)
            swept.append(owner.parent.name)
    return swept


def _remove(directory: Path) -> None:
    for root in cgroup_roots():
        remove_cgroups(root / directory.name)
    shutil.rmtree(directory, ignore_errors=True)


def cgroup_roots() -> list[Path]:
    """Where a host needs a cgroup of its own: each hierarchy that systemd would manage; with version 2, the one."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.procs").exists():
        return [top]
    return [top / name for name in ("systemd", "unified", "cpu", "memory", "pids") if (top / name).is_dir()]


def remove_cgroups(cgroup: Path) -> None:
    """Removes a tree of emptied cgroups; the kernel needs a moment after the last process."""
    for _ in range(200):
        left = [Path(directory) for directory, _, _ in os.walk(cgroup, topdown=False)]
        for each in left:
            with suppress(OSError):
                each.rmdir()
        if not cgroup.exists():
            return
        time.sleep(0.01)


def _exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


__all__ = ["BootedHost", "Hosts", "LabError", "Process", "booted", "inventory", "sweep"]
