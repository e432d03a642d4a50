"""What the hosts run: configuration files and command lines of mosquitto, etcd, the agents and the controller."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.harness.hosts import INTERFACE, NETWORKS, Host
from lab.harness.namespaces import LabError
from vagus_protocol import signing, topics

FLEET = "lab"
CONTROLLER = "vps-brain"
MQTT_PORT = 1883
MQTT_TLS_PORT = 8883
HTTP_PORT = 8118
EXAMPLE_ACL = Path(__file__).parents[3] / "controller" / "mosquitto.example.acl"

Settings = Mapping[str, Any]


def merge(base: Settings, over: Settings) -> dict[str, Any]:
    """`base` with `over` on top; tables are merged, None removes a key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = dict(value) if isinstance(value, Mapping) else value
    return merged


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else _value(key)


def to_toml(settings: Settings) -> str:
    """TOML of nested dicts, lists and scalars: tables at the top level, inline below."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, table in settings.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(key)}]", *(f"{_key(name)} = {_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def need(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise LabError(f"{program} is missing: apt-get install {package}")
    return found


def command(name: str) -> list[str]:
    """The console command `name` of the environment that runs the lab."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise LabError(f"{path} is missing: install the project into the environment of {sys.executable}")
    return [str(path)]


# --- broker --------------------------------------------------------------------------------------------------------


def write_broker(directory: Path, passwords: Mapping[str, str], addresses: Sequence[str], tls: bool) -> list[str]:
    """Writes mosquitto's files; returns its command line. With `tls`, a lab CA and a certificate for `addresses`."""
    mosquitto = need("mosquitto", "mosquitto")
    password_file = directory / "passwords"
    write_private(password_file, "".join(f"{user}:{password}\n" for user, password in passwords.items()))
    subprocess.run([need("mosquitto_passwd", "mosquitto"), "-U", str(password_file)], check=True, capture_output=True)
    acl_file = directory / "acl"
    write_private(acl_file, EXAMPLE_ACL.read_text().replace("vagus/1/home/", f"{topics.ROOT}/{FLEET}/"))
    data = directory / "data"
    data.mkdir()
    # autosave after every change: with the defaults a SIGKILL loses every retained message; max_queued_messages: the
    # default of 1000 drops most of a burst; nodelay: a report must not wait for an acknowledgement of the one before.
    lines = [
        "user root",
        "per_listener_settings false",
        "allow_anonymous false",
        f"password_file {password_file}",
        f"acl_file {acl_file}",
        "persistence true",
        f"persistence_location {data}/",
        "autosave_on_changes true",
        "autosave_interval 1",
        "max_queued_messages 100000",
        "max_inflight_messages 1000",
        "set_tcp_nodelay true",
        "log_dest stdout",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        "connection_messages true",
        f"listener {MQTT_PORT}",
    ]
    if tls:
        _certificates(directory, addresses)
        lines += [
            f"listener {MQTT_TLS_PORT}",
            f"cafile {directory}/ca.pem",
            f"certfile {directory}/broker.pem",
            f"keyfile {directory}/broker.key",
        ]
    conf = directory / "mosquitto.conf"
    conf.write_text("\n".join(lines) + "\n")
    return [mosquitto, "-c", str(conf)]


def _certificates(directory: Path, addresses: Sequence[str]) -> None:
    openssl = need("openssl", "openssl")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    (directory / "san.cnf").write_text("subjectAltName=" + ",".join(f"IP:{address}" for address in addresses) + "\n")
    steps = [
        ["req", "-x509", *key, "-subj", "/CN=vagus lab CA", "-keyout", "ca.key", "-out", "ca.pem"],
        ["req", "-new", *key[:-2], "-subj", "/CN=broker", "-keyout", "broker.key", "-out", "broker.csr"],
        [
            "x509",
            "-req",
            "-in",
            "broker.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "san.cnf",
            "-out",
            "broker.pem",
        ],
    ]
    for step in steps:
        done = subprocess.run([openssl, *step], check=False, cwd=directory, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"openssl {step[0]}: {done.stderr.strip()}")


# --- etcd ----------------------------------------------------------------------------------------------------------


def etcd_command(name: str, address: str, members: Mapping[str, str], data: str) -> list[str]:
    """A member with etcd's default timers (100 ms heartbeat, 1 s election), on its service address and localhost."""
    cluster = ",".join(f"{member}=http://{where}:2380" for member, where in members.items())
    return [
        need("etcd", "etcd-server"),
        f"--name={name}",
        f"--data-dir={data}",
        f"--listen-peer-urls=http://{address}:2380",
        f"--initial-advertise-peer-urls=http://{address}:2380",
        f"--listen-client-urls=http://{address}:2379,http://127.0.0.1:2379",
        f"--advertise-client-urls=http://{address}:2379",
        f"--initial-cluster={cluster}",
        "--initial-cluster-token=vagus-lab",
        "--initial-cluster-state=new",
        "--logger=zap",
    ]


# --- agents and controller -----------------------------------------------------------------------------------------


def broker_addresses(host: Host, broker: Host, tls: bool) -> list[dict[str, Any]]:
    """The broker as `host` reaches it, in the order to try: backup, public, overlay."""
    base = {"port": MQTT_TLS_PORT if tls else MQTT_PORT, "tls": tls}
    if host is broker:
        return [{"host": broker.backup, **base}]
    return [
        {"host": broker.backup, **base, "peer": broker.name, "path": "backup"},
        {"host": broker.underlay, **base},
        {"host": broker.overlay, **base, "peer": broker.name, "path": "overlay"},
    ]


def agent_settings(host: Host, peers: Iterable[Host], broker: Host, *, ipv6: bool, tls: bool) -> dict[str, Any]:
    """agent.toml as a dict; the files it names are in the host's directory."""
    settings: dict[str, Any] = {
        "fleet": FLEET,
        "node": host.name,
        "site": host.site,
        "addresses": _addresses(host, ipv6),
        "keys_file": str(host.directory / "keys.toml"),
        "state_dir": str(host.directory / "agent-state"),
        "paths": [
            {"name": path, "interface": INTERFACE[path], "networks": list(NETWORKS[path][: 2 if ipv6 else 1])}
            for path in INTERFACE
        ],
        "peers": [
            {
                "name": peer.name,
                "addresses": _addresses(peer, ipv6),
                "via": {"backup": [peer.backup, peer.backup6][: 2 if ipv6 else 1]},
            }
            for peer in peers
        ],
        "mqtt": {
            "brokers": broker_addresses(host, broker, tls),
            "username": host.name,
            "password_file": str(host.directory / "password"),
        },
        "tailscale": {"socket": "/run/tailscale/tailscaled.sock"},
    }
    if tls:
        settings["mqtt"]["ca_file"] = str(broker.directory / "broker" / "ca.pem")
    if "etcd" in host.roles:
        settings["etcd"] = {"endpoint": "127.0.0.1:2379"}
    return settings


def _addresses(host: Host, ipv6: bool) -> list[str]:
    return [host.service, host.service6] if ipv6 else [host.service]


def controller_settings(host: Host, nodes: Iterable[str], broker: Host, *, tls: bool) -> dict[str, Any]:
    """controller.toml as a dict; the files it names are in `controller` in the host's directory."""
    directory = host.directory / "controller"
    # Beside the broker, localhost: not the address that the host's own agent uses, so that it can be cut alone.
    brokers = [{"host": "127.0.0.1", "port": MQTT_TLS_PORT if tls else MQTT_PORT, "tls": tls}]
    if host is not broker:
        brokers = [{key: one[key] for key in ("host", "port", "tls")} for one in broker_addresses(host, broker, tls)]
    settings: dict[str, Any] = {
        "fleet": FLEET,
        "name": CONTROLLER,
        "fleet_key_file": str(directory / "fleet.key"),
        "nodes": list(nodes),
        "mqtt": {"brokers": brokers, "username": "controller", "password_file": str(directory / "password")},
        "http": {
            "host": "127.0.0.1",
            "port": HTTP_PORT,
            "token_file": str(directory / "token"),
            "password_file": str(directory / "operator-password"),
        },
        "store": {"url": f"sqlite:///{directory}/vagus.db"},
    }
    if tls:
        settings["mqtt"]["ca_file"] = str(broker.directory / "broker" / "ca.pem")
    return settings


def write_keys(path: Path, fleet_key: bytes, node: str) -> None:
    """The agent's keys file of `node`."""
    keys = {"node": signing.node_key(fleet_key, node).hex(), "probe": signing.probe_key(fleet_key).hex()}
    write_private(path, to_toml(keys))
