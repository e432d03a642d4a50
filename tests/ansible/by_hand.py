"""Installs agents and a controller under their units without any role: what the units' own tests need."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from hosts import BootedHost, Hosts
from lab.harness import hosts as lab_hosts
from lab.harness.hosts import PORT, Host, PathName
from lab.harness.services import FLEET, agent_settings, merge, to_toml
from vagus_protocol import signing

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "packaging/systemd"
_RELEASE = "/opt/vagus/releases/test"
_PROGRAM = """\
#!/usr/bin/python3 -sP
import sys
sys.path.insert(0, "{release}/lib")
from {package}.__main__ import main
sys.exit(main())
"""

_ADDRESS = """\
[Unit]
Description=The service addresses
Before=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip addr replace {host.service}/32 dev lo
ExecStart=/sbin/ip addr replace {host.service6}/128 dev lo nodad

[Install]
WantedBy=multi-user.target
"""

_BACKUP = """\
[Unit]
Description=The backup network: wireguard-go

[Service]
Environment=GOMAXPROCS=1 LOG_LEVEL=error
ExecStart=/usr/bin/wireguard-go -f wg0
ExecStartPost=/bin/sh -e /usr/lib/vagus-tests/backup-up
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""


def install(host: BootedHost, *programs: str) -> None:
    """The programs (agent, controller) of this environment, their users and units; nothing is started."""
    extras = {"controller"} if "controller" in programs else set()
    archive = host.directory / "release.tar"
    with tarfile.open(archive, "w") as tar:
        for source, name in _files(extras):
            tar.add(source, f"lib/{name}", recursive=False)
        for program in programs:
            text = _PROGRAM.format(release=_RELEASE, package=f"vagus_{program}").encode()
            member = tarfile.TarInfo(f"bin/vagus-{program}")
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text))
    host.copy(archive, "/run/release.tar")
    host.ssh(
        f"mkdir -p {_RELEASE} && tar -C {_RELEASE} --no-same-owner -xf /run/release.tar && rm /run/release.tar"
        f" && python3 -m compileall -q {_RELEASE}/lib && ln -sfn releases/test /opt/vagus/current"
    )
    for program in programs:
        user = f"vagus-{program}"
        host.ssh(f"useradd --system --no-create-home --shell /usr/sbin/nologin {user}")
        host.write(f"/etc/systemd/system/{user}.service", (UNITS / f"{user}.service").read_text())
    host.ssh("systemctl daemon-reload")


def _files(extras: set[str]) -> Iterator[tuple[Path, str]]:
    """The files of vagus and of all that it needs here, with their names below site-packages."""
    for package in ("vagus_protocol", "vagus_runtime", "vagus_agent", "vagus_controller"):
        root = REPOSITORY / package.removeprefix("vagus_")
        for file in sorted((root / package).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file, str(file.relative_to(root))
    # The controller asks for its version by the distribution's name.
    for name in sorted(_closure("vagus", extras)):
        for entry in distribution(name).files or ():
            source = Path(str(entry.locate()))
            if ".." not in entry.parts and entry.suffix not in (".pyc", ".pth") and source.is_file():
                yield source, str(entry)


def _closure(name: str, extras: set[str], seen: set[str] | None = None) -> set[str]:
    seen = set() if seen is None else seen
    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        marker = wanted.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            continue
        try:
            distribution(wanted.name)
        except PackageNotFoundError:
            continue
        if wanted.name not in seen:
            seen.add(wanted.name)
            _closure(wanted.name, set(wanted.extras), seen)
    return seen | {name}


def network(hosts: Hosts) -> None:
    """Service addresses and the backup network, as units of each host."""

    def endpoint(host: Host, peer: Host, path: PathName) -> str:
        return f"{peer.underlay}:{PORT[path]}"

    for host in hosts.values():
        peers = [peer for peer in hosts.values() if peer is not host]
        script = lab_hosts.tunnel_script(host, peers, "backup", True, endpoint)
        host.write("/usr/lib/vagus-tests/backup-up", script + "\n", "0600")
        host.write("/etc/systemd/system/service-address.service", _ADDRESS.format(host=host))
        host.write("/etc/systemd/system/backup-network.service", _BACKUP)
        host.ssh("systemctl daemon-reload && systemctl enable -q --now service-address backup-network")


def broker(host: BootedHost) -> None:
    """mosquitto for everybody on the lab's internet; who may say what is another test's."""
    host.ssh("DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mosquitto mosquitto-clients")
    host.write("/etc/mosquitto/conf.d/test.conf", "listener 1883\nallow_anonymous true\n")
    host.ssh("systemctl restart mosquitto")


def configure_agent(hosts: Hosts, name: str, at: str, fleet_key: bytes, **over: Any) -> None:
    """agent.toml of the host `name`, and what it names; the broker is on the host `at`."""
    host = hosts[name]
    peers = [peer for peer in hosts.values() if peer is not host]
    base = agent_settings(host, peers, hosts[at], ipv6=True, tls=False)
    base = merge(
        base,
        {
            "keys_file": "/etc/vagus/keys.toml",
            "state_dir": "/var/lib/vagus-agent",
            "mqtt": {"username": name, "password_file": "/run/credentials/vagus-agent.service/mqtt"},
        },
    )
    # What only root may read comes by LoadCredential, as an etcd member's client key does.
    host.write("/etc/secret/mqtt", "secret\n", "0600")
    host.write(
        "/etc/systemd/system/vagus-agent.service.d/credentials.conf",
        "[Service]\nLoadCredential=mqtt:/etc/secret/mqtt\n",
    )
    keys = {"node": signing.node_key(fleet_key, name).hex(), "probe": signing.probe_key(fleet_key).hex()}
    host.write("/etc/vagus/keys.toml", to_toml(keys), "0640", "root:vagus-agent")
    host.write("/etc/vagus/agent.toml", to_toml(merge(base, over)), "0640", "root:vagus-agent")
    host.ssh("systemctl daemon-reload")


def configure_controller(host: BootedHost, fleet_key: bytes, nodes: list[str], **over: Any) -> None:
    settings = {
        "fleet": FLEET,
        "name": "brain",
        "fleet_key_file": "/etc/vagus/fleet.key",
        "nodes": nodes,
        "mqtt": {"brokers": [{"host": "127.0.0.1"}]},
    }
    host.write("/etc/vagus/fleet.key", fleet_key.hex() + "\n", "0640", "root:vagus-controller")
    host.write("/etc/vagus/controller.toml", to_toml(merge(settings, over)), "0640", "root:vagus-controller")
