"""The agent's settings: every mistake is told, all at once, with file, key and what is allowed."""

from __future__ import annotations

import contextlib
import os
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strategies import json_values
from toml_text import change, numbers, to_toml
from vagus_agent.__main__ import main
from vagus_agent.config import Config, Probe, Steering
from vagus_agent.config_file import ConfigError, load, load_keys
from vagus_protocol.probe import path_hash

EXAMPLE = Path(__file__).parents[2] / "agent/agent.example.toml"

MINIMAL = """
fleet = "home"
node = "tokyo"
addresses = ["10.99.0.1"]
keys_file = "/etc/vagus/keys.toml"
mqtt.brokers = [{ host = "10.88.0.2" }]
paths = [
  { name = "overlay", interface = "tailscale0" },
  { name = "backup", interface = "wg0", networks = ["10.88.0.0/24"] },
]
peers = [
  { name = "austin", addresses = ["10.99.0.2"], via.backup = ["10.88.0.2"] },
  { name = "berlin", addresses = ["10.99.0.3"], prefixes = ["192.168.30.0/24"], via.backup = ["10.88.0.3"] },
]
"""
FULL = EXAMPLE.read_text()


def written(directory: Path, raw: dict[str, Any] | str) -> Path:
    file = directory / "agent.toml"
    file.write_text(raw if isinstance(raw, str) else to_toml(raw))
    return file


def mistakes(directory: Path, raw: dict[str, Any] | str, **options: bool) -> list[str]:
    """What is told about `raw`, without the file's name, which every line must begin with."""
    file = written(directory, raw)
    with pytest.raises(ConfigError) as error:
        load(file, **options)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines), lines
    return [line.removeprefix(f"{file}: ") for line in lines]


ABSURD = (-1, -0.5, 1e300, float("nan"), float("inf"), float("-inf"))


@pytest.mark.parametrize("where", sorted(set(numbers(Config))))
def test_no_number_may_be_negative_or_absurd(tmp_path: Path, where: str) -> None:
    for value in ABSURD:
        raw = tomllib.loads(FULL)
        change(raw, where, value)
        with pytest.raises(ConfigError) as error:
            load(written(tmp_path, raw))
        assert any(f": {where}: " in line for line in error.value.mistakes), (value, error.value)


def test_the_example_loads_and_shows_the_defaults() -> None:
    config = load(EXAMPLE)
    assert (config.probe, config.steering) == (Probe(), Steering())
    assert config.addresses == (ip_address("10.99.0.1"), ip_address("fd99::1"))
    assert config.peers[1].prefixes == (ip_network("192.168.30.0/24"),)
    assert config.peers[0].via == {"backup": (ip_address("10.88.0.2"), ip_address("fd88::2"))}


def test_what_is_left_out_takes_the_default_of_the_struct(tmp_path: Path) -> None:
    config = load(written(tmp_path, MINIMAL))
    assert config.probe == Probe()
    assert (config.etcd, config.tailscale, config.checks) == (None, None, ())
    assert [path.name for path in config.paths_to(config.peers[0])] == ["overlay", "backup"]


@pytest.mark.parametrize(("own", "expected"), [(None, 5.0), (0.5, 0.5)])
def test_a_metered_path_probes_slowly_unless_it_says_otherwise(tmp_path: Path, own: float, expected: float) -> None:
    raw = tomllib.loads(MINIMAL)
    change(raw, "paths.1.metered", True)
    if own is not None:
        change(raw, "paths.1.idle_interval_s", own)
    assert [path.idle_interval_s for path in load(written(tmp_path, raw)).paths] == [0.25, expected]


# Where the sound file (FULL) is changed, to what (None: removed), and what must be told.
MISTAKES: list[tuple[str, Any, str]] = [
    ("fleet", None, 'fleet: is missing: text "…"'),
    ("fleet", "Home", 'fleet: "Home" is not a name: 1 to 63 of a-z'),
    ("node", 7, 'node: must be text "…", not 7'),
    ("node", "tokyo\n", 'node: "tokyo\\n" is not a name'),
    ("node", "tokyo--1", 'node: "tokyo--1" is not a name: '),
    ("site", "x" * 65, "site: must be at most 64 printable"),
    ("nodee", "x", "nodee: unknown key: did you mean node?"),
    ("xyzzy", 1, "xyzzy: unknown key: allowed are addresses, "),
    ("reflex", "sometimes", 'reflex: must be one of "orphaned", "always", "off", not "sometimes"'),
    ("orphaned_after_s", 0, "orphaned_after_s: must be between 1 and 3600, not 0"),
    ("state_dir", "state", 'state_dir: must be an absolute path, not "state"'),
    ("state_dir", "", "state_dir: must not be empty"),
    ("addresses", [], "addresses: must hold at least one"),
    ("addresses", "10.99.0.1", 'addresses: must be a list [ … ], not "10.99.0.1"'),
    ("addresses.0", "10.99.0.1/32", 'addresses[1]: must be an IP address such as "10.77.0.1"'),
    ("addresses.0", 1, "addresses[1]: must be an IP address"),
    ("addresses.0", "127.0.0.1", "addresses[1]: 127.0.0.1 is a loopback address"),
    ("addresses.0", "224.0.0.5", "addresses[1]: 224.0.0.5 is a multicast address"),
    ("addresses.0", "0.0.0.0", "addresses[1]: 0.0.0.0 is the unspecified address"),
    ("addresses.0", "255.255.255.255", "addresses[1]: 255.255.255.255 is a reserved address"),
    ("addresses.0", "169.254.1.1", "addresses[1]: 169.254.1.1 is a link-local address"),
    ("addresses.1", "::ffff:10.0.0.1", "is an IPv4 address in IPv6 spelling"),
    ("addresses.1", "10.99.0.1", "addresses[2]: 10.99.0.1/32 overlaps 10.99.0.1/32 of the same node: name it once"),
    ("paths", [], "paths: must hold at least one table [[paths]]"),
    ("paths", "overlay", 'paths: must be tables [[paths]], not "overlay"'),
    ("paths.0", "overlay", 'paths[1]: must be a table [paths[1]], not "overlay"'),
    ("paths.1.name", "overlay", 'paths: "overlay" is named twice'),
    ("paths.1.interface", "tailscale0", "paths: interface tailscale0 serves two paths"),
    ("paths.1.interface", "an-interface-too-long", 'paths[2] "backup".interface: "an-interface-too-long" cannot be'),
    ("paths.1.interface", "a/b", "cannot be an interface"),
    ("paths.1.interface", "wg\0", 'paths[2] "backup".interface: "wg\\u0000" cannot be'),
    ("paths.1.interface", "lo", "interface: lo leads to no peer"),
    ("paths.0.idle_interval_s", 0.01, 'paths[1] "overlay".idle_interval_s: must be between 0.05 and 60, not 0.01'),
    ("paths.0.idle_interval_s", float("nan"), "must be between 0.05 and 60, not nan"),
    ("paths.0.idle_interval_s", float("inf"), "must be between 0.05 and 60, not inf"),
    ("paths.0.idle_interval_s", "fast", 'idle_interval_s: must be a number, not "fast"'),
    ("paths.0.metered", "yes", 'metered: must be true or false, not "yes"'),
    (
        "paths.1.networks",
        ["10.88.0.2/24"],
        'networks[1]: "10.88.0.2/24" has bits beyond its prefix length: did you mean',
    ),
    ("paths.1.networks", ["10.88.0.0/33"], "networks[1]: must be a network such as"),
    ("paths.1.networks", ["100.64.0.0/16"], "paths: network 100.64.0.0/10 of overlay overlaps 100.64.0.0/16 of backup"),
    ("peers.0.name", "tokyo", 'peers: "tokyo" is this node itself'),
    ("peers.0.name", "berlin", 'peers: "berlin" is named twice'),
    ("peers.0.addresses", [], "addresses: must hold at least one service address of this peer"),
    ("peers.0.addresses", ["10.99.0.3"], '"berlin".addresses[1]: 10.99.0.3/32 overlaps 10.99.0.3/32 of austin'),
    ("peers.0.addresses", ["10.99.0.1"], '"austin".addresses[1]: 10.99.0.1/32 overlaps 10.99.0.1/32 of tokyo'),
    ("peers.0.addresses", ["192.168.30.7"], "192.168.30.7/32 overlaps 192.168.30.0/24 of berlin"),
    ("peers.0.prefixes", ["192.168.0.0/16"], "192.168.30.0/24 overlaps 192.168.0.0/16 of austin"),
    ("peers.1.prefixes", ["192.168.30.0/24"] * 2, "192.168.30.0/24 overlaps 192.168.30.0/24 of the same node"),
    ("peers.0.prefixes", ["0.0.0.0/0"], "prefixes[1]: 0.0.0.0/0 is everything"),
    ("peers.0.prefixes", ["224.0.0.0/4"], "prefixes[1]: 224.0.0.0/4 is loopback, multicast or link-local"),
    ("peers.0.prefixes", ["10.88.0.128/25"], "10.88.0.128/25 overlaps 10.88.0.0/24, the network of path backup itself"),
    ("peers.0.paths", ["overlay", "satellite"], 'there is no path "satellite"; configured: overlay, backup'),
    ("peers.0.paths", ["overlay"], "via.backup: backup is not among this peer's paths (overlay)"),
    ("peers.1.paths", ["backup", "backup"], '"berlin".paths: names "backup" twice'),
    ("peers.0.via", {"satellite": ["10.88.0.2"]}, 'via.satellite: there is no path "satellite"'),
    ("peers.0.via.backup", ["10.0.0"], 'via.backup[1]: must be an IP address such as "10.77.0.1"'),
    ("peers.0.via.backup", ["10.88.0.2", "10.88.0.9"], "via.backup: has 2 IPv4 addresses; at most one a family"),
    ("peers.0.via.backup", ["10.89.0.2"], "via.backup: 10.89.0.2 is outside the networks of backup (10.88.0.0/24)"),
    ("peers.0.via.backup", ["10.99.0.2"], "via.backup: 10.99.0.2 is the service address itself"),
    ("mqtt", None, "mqtt: is missing: a table"),
    ("mqtt.brokers", [], "mqtt.brokers: must hold at least one table"),
    ("mqtt.brokers.0.host", "mqtt://broker", 'mqtt.brokers[1].host: "mqtt://broker" must be an address or a host name'),
    ("mqtt.brokers.0.host", "10.88.0.2:8883", "without scheme, user, port or [ ]"),
    ("mqtt.brokers.0.host", "broker:8883", 'mqtt.brokers[1].host: "broker:8883" must be an address or a host name'),
    ("mqtt.brokers.0.host", "[fd88::2]", 'mqtt.brokers[1].host: "[fd88::2]" must be an address'),
    ("mqtt.brokers.0.host", "10.88.0.256", 'mqtt.brokers[1].host: "10.88.0.256" must be an address'),
    ("mqtt.brokers.0.host", "broker\0", 'mqtt.brokers[1].host: "broker\\u0000" must be an address'),
    ("mqtt.brokers.0.port", 0, "mqtt.brokers[1].port: must be between 1 and 65535, not 0"),
    ("mqtt.brokers.0.port", "8883", 'mqtt.brokers[1].port: must be a whole number, not "8883"'),
    ("mqtt.brokers.0.port", 2**80, "mqtt.brokers[1].port: must be "),
    ("mqtt.brokers.0.peer", "oslo", 'mqtt.brokers[1].peer: there is no peer "oslo"; configured: austin, berlin'),
    ("mqtt.brokers.0.path", "satellite", 'mqtt.brokers[1].path: there is no path "satellite"'),
    ("mqtt.brokers.0.path", None, "mqtt.brokers[1].path: peer and path go together"),
    ("mqtt.username", "tokyo\n", 'mqtt.username: must be printable characters, not "tokyo\\n"'),
    ("mqtt.username", None, "mqtt.username: is missing: password_file is set"),
    ("mqtt.cert_file", "/etc/c.pem", "mqtt.key_file: is missing: cert_file and key_file go together"),
    ("mqtt.ca_file", "ca.pem", 'mqtt.ca_file: must be an absolute path, not "ca.pem"'),
    ("mqtt.protocol", "4", 'mqtt.protocol: must be one of "5", "3.1.1", not "4"'),
    ("mqtt.backlog", 0, "mqtt.backlog: must be between 1 and 100000, not 0"),
    ("mqtt.password", "x", "mqtt.password: unknown key: did you mean password_file?"),
    ("probe.port", 65536, "probe.port: must be between 1 and 65535"),
    ("probe.burst", 1.5, "probe.burst: must be a whole number, not 1.5"),
    ("probe.burst", True, "probe.burst: must be a whole number, not true"),
    ("probe.timeout_floor_s", 2.0, "probe.timeout_floor_s: must not be above timeout_cap_s, 1"),
    ("probe.confirm_floor_s", 2.0, "probe.confirm_floor_s: must not be above timeout_cap_s, 1"),
    ("probe.degraded_exit_loss", 0.05, "probe.degraded_exit_loss: must be below degraded_enter_loss, 0.04"),
    ("steering.table", 254, "steering.table: 254 is the table main"),
    ("steering.table", 0, "steering.table: must be between 1 and "),
    ("steering.table", 2**32, "steering.table: must be between 1 and "),
    ("steering.table", 52, "steering.table: 52 is the table Tailscale's"),
    ("steering.priority", 5210, "steering.priority: must not be in 5200-5299"),
    ("steering.priority", 32766, "steering.priority: must be between 1 and 32765"),
    ("steering.priority", 6000, "steering.priority: must be below 5200: Tailscale's rules would come first"),
    ("steering.protocol", 186, "steering.protocol: 186 belongs to the kernel or a routing daemon; 118 is free"),
    ("steering.protocol", 4, "steering.protocol: 4 belongs to"),
    ("steering.protocol", 256, "steering.protocol: must be between 1 and 255"),
    ("steering.mark", 0x1080000, "steering.mark: 0x1080000 has bits outside mask 0xff0000"),
    ("steering.mark", 0, "steering.mark: must not be 0"),
    (
        "steering",
        {"enabled": False, "flush_conntrack": True},
        "steering.flush_conntrack: follows the agent's own moves",
    ),
    ("report.mounts", ["data"], 'report.mounts[1]: must be an absolute path, not "data"'),
    ("report.processes", ["/usr/bin/etcd"], "report.processes[1]:"),
    ("report.interval_s", -2, "report.interval_s: must be between 0.5 and 3600, not -2"),
    ("etcd.endpoint", "http://127.0.0.1:2379", 'etcd.endpoint: "http://127.0.0.1:2379" must be "host:port"'),
    ("etcd.endpoint", "::1:2379", 'etcd.endpoint: "::1:2379" must be "host:port", an IPv6 address in [ ]'),
    ("etcd.key_file", None, "etcd.key_file: is missing"),
    ("etcd.username", "root", "etcd.password_file: is missing"),
    ("tailscale.path", "tunnel", 'tailscale.path: there is no path "tunnel"'),
    ("tailscale.socket", "", "tailscale.socket: must not be empty"),
    ("tailscale", True, "tailscale: must be a table [tailscale], not true"),
    ("checks.0.http", "http://10.99.0.2/", 'checks[1] "etcd-austin": needs exactly one of tcp'),
    ("checks.0.tcp", None, 'checks[1] "etcd-austin": needs exactly one of tcp'),
    ("checks.0.tcp", "10.99.0.2", 'checks[1] "etcd-austin".tcp: "10.99.0.2" must be "host:port"'),
    ("checks.0.tcp", "[zz]:80", 'tcp: "[zz]:80" must be "host:port"'),
    ("checks.0.tcp", "10.99.0.2:70000", 'must be "host:port"'),
    ("checks.0.peer", "oslo", 'checks[1] "etcd-austin".peer: there is no peer "oslo"'),
    ("checks.0.timeout_s", 20, 'checks[1] "etcd-austin".timeout_s: must not be above interval_s, 10'),
    ("checks.1.http", "ftp://10.99.0.3/", 'checks[2] "web-berlin".http: "ftp://10.99.0.3/" must be a URL'),
    ("checks.1.http", "http://[::1", "must be a URL"),
    ("checks.1.http", "http://me:secret@10.99.0.3/", "must be a URL"),
    ("checks.1.http", "http://10.99.0.3/a b", "must be a URL"),
    ("checks.1.http", "http://10.99.0.3/größe", "must be a URL"),
    ("checks.1.http", "http://a:99999/", "must be a URL"),
    ("checks.1.ca_file", "/etc/ca.pem", 'checks[2] "web-berlin".ca_file: is for https only'),
    ("checks.1.status", 99, "status: must be between 100 and 599"),
    ("checks.1.name", "etcd-austin", 'checks: "etcd-austin" is named twice'),
]


@pytest.mark.parametrize(("where", "value", "told"), MISTAKES, ids=lambda v: str(v)[:40])
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(tmp_path: Path, where: str, value: Any, told: str) -> None:
    raw = tomllib.loads(FULL)
    change(raw, where, value)
    lines = mistakes(tmp_path, raw)
    assert any(told in line for line in lines), lines


def test_a_peer_of_the_other_family_only_is_told(tmp_path: Path) -> None:
    raw = tomllib.loads(MINIMAL)
    change(raw, "peers.0.addresses", ["fd99::2"])
    change(raw, "peers.1.via.backup", ["fd88::3"])
    assert mistakes(tmp_path, raw) == [
        'peers[1] "austin".addresses: has no address of this node\'s family (IPv4)',
        'peers[1] "austin".via.backup: 10.88.0.2 is of a family in which this peer has neither address nor prefix',
        'peers[2] "berlin".via.backup: fd88::3 is of a family in which this peer has neither address nor prefix',
    ]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    raw = tomllib.loads(FULL)
    for where, value in {"node": "", "probe.burst": "5", "peers.1.via.backup": ["x"], "steering.table": 0}.items():
        change(raw, where, value)
    change(raw, "report.mount", ["/"])
    keys = {line.split(": ")[0] for line in mistakes(tmp_path, raw)}
    assert keys == {"report.mount", 'peers[2] "berlin".via.backup[1]', "node", "probe.burst", "steering.table"}


def test_in_brief_it_is_the_first_mistake_and_how_many_more() -> None:
    assert ConfigError(["a: is missing"]).brief == "a: is missing"
    assert ConfigError(["a: is missing", "b: unknown key", "c: unknown key"]).brief == "a: is missing (and 2 more)"


def test_two_path_names_with_the_same_hash_are_told(tmp_path: Path) -> None:
    seen: dict[int, str] = {}
    for number in range(1_000_000):
        name = f"p{number}"
        if (other := seen.setdefault(path_hash(name), name)) != name:
            break
    raw = tomllib.loads(MINIMAL)
    raw["paths"] = [{"name": other, "interface": "a0"}, {"name": name, "interface": "b0"}]
    raw["peers"] = []
    assert mistakes(tmp_path, raw) == [f"paths: {other} and {name} have the same hash in probes: rename one of them"]


def test_more_paths_than_a_probe_can_tell_are_told(tmp_path: Path) -> None:
    raw = tomllib.loads(MINIMAL)
    raw["paths"] = [{"name": f"p{n}", "interface": f"i{n}"} for n in range(9)]
    raw["peers"] = []
    assert mistakes(tmp_path, raw) == ["paths: has 9; a probe has room for 8"]


def test_more_links_than_a_report_can_tell_are_told(tmp_path: Path) -> None:
    raw = tomllib.loads(MINIMAL)
    raw["peers"] = [{"name": f"n{each}", "addresses": [f"10.99.1.{each}"]} for each in range(81)]
    assert mistakes(tmp_path, raw) == [
        "peers: are 162 links over all paths; a report has room for 160: name fewer peers or paths"
    ]
    raw["peers"].pop()
    assert len(load(written(tmp_path, raw)).peers) == 80


def test_certificates_without_tls_are_told(tmp_path: Path) -> None:
    raw = tomllib.loads(MINIMAL)
    change(raw, "mqtt.ca_file", "/etc/ca.pem")
    assert "mqtt.brokers: none has tls = true" in mistakes(tmp_path, raw)[0]


def test_a_service_address_inside_its_own_nodes_prefix_is_fine(tmp_path: Path) -> None:
    raw = tomllib.loads(MINIMAL)
    change(raw, "peers.1.addresses", ["192.168.30.1"])
    assert load(written(tmp_path, raw)).peers[1].addresses == (ip_address("192.168.30.1"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fleet = \n", "not valid TOML: Invalid value (at line 1, column 9)"),
        ('fleet = "a"\nfleet = "b"\n', "not valid TOML: Cannot overwrite a value (at line 2"),
        ("a = " + "[" * 100_000, "not valid TOML: "),
        ("a = " + "1" * 5000, "not valid TOML: "),
        ("# " + "x" * (1 << 20), "larger than 1048576 bytes"),
    ],
)
def test_what_is_not_toml_is_told_with_line_and_column(tmp_path: Path, text: str, told: str) -> None:
    assert told in mistakes(tmp_path, text)[0]


def test_what_is_not_text_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(b'fleet = "home"\nnode = "\xff"\n')
    with pytest.raises(ConfigError, match="line 2 is not UTF-8"):
        load(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/none\.toml: does not exist"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a directory, not a file"):
        load(tmp_path)


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    return "null" if value is None else value


SETTINGS = sorted({where for where, _, _ in MISTAKES})


@given(where=st.sampled_from(SETTINGS), value=json_values.map(_without_null))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_gives_a_configuration_or_its_mistakes(tmp_path: Path, where: str, value: Any) -> None:
    raw = tomllib.loads(FULL)
    change(raw, where, value)
    with contextlib.suppress(ConfigError):
        assert isinstance(load(written(tmp_path, raw)), Config)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gives_mistakes(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text)


# --- files that the settings name ----------------------------------------------------------------------------------


def with_keys(directory: Path, text: str, mode: int = 0o600) -> Path:
    """A sound file whose keys_file holds `text`."""
    keys = directory / "keys.toml"
    keys.write_text(text)
    keys.chmod(mode)
    raw = tomllib.loads(MINIMAL)
    change(raw, "keys_file", str(keys))
    return written(directory, raw)


NODE_KEY, PROBE_KEY = "11" * 32, "22" * 32
KEYS = f'node = "{NODE_KEY}"\nprobe = "{PROBE_KEY}"\n'


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_the_keys_load(tmp_path: Path, mode: int) -> None:
    keys = load_keys(load(with_keys(tmp_path, KEYS, mode)))
    assert (keys.node.hex(), keys.probe.hex()) == (NODE_KEY, PROBE_KEY)
    assert "11" not in f"{keys} {keys!r}"


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (KEYS, 0o644, "holds a key, and its mode is 0644: chmod 600 "),
        (KEYS, 0o660, "its mode is 0660"),
        (f'node = "{NODE_KEY}"\n', 0o600, 'probe: is missing: text "…"'),
        (f'node = "{NODE_KEY}"\nprobe = "22"\n', 0o600, "probe: a key is 64 hex digits; this has 2"),
        (f'node = "{"zz" * 32}"\nprobe = "{PROBE_KEY}"\n', 0o600, "node: a key is 64 hex digits; this has other"),
        (f'node = "{NODE_KEY}"\nprobe = "{NODE_KEY}"\n', 0o600, "probe: is the same key as node"),
        (NODE_KEY, 0o600, "not valid TOML"),
    ],
)
def test_a_keys_file_that_is_wrong_is_told_without_showing_a_key(
    tmp_path: Path, text: str, mode: int, told: str
) -> None:
    config = load(with_keys(tmp_path, text, mode))
    with pytest.raises(ConfigError) as error:
        load_keys(config)
    assert str(error.value).startswith(config.keys_file)
    assert told in str(error.value)
    assert "11" * 16 not in str(error.value)


@pytest.mark.parametrize("host", ["10.88.0.2", "fd88::2", "fe80::2%eth0", "broker", "mqtt.example.org", "pi-1.local."])
def test_a_broker_is_named_by_address_or_name(tmp_path: Path, host: str) -> None:
    raw = tomllib.loads(FULL)
    change(raw, "mqtt.brokers.0.host", host)
    assert load(written(tmp_path, raw)).mqtt.brokers[0].host == host


def test_files_that_are_named_must_be_there_when_asked_for(tmp_path: Path) -> None:
    raw = tomllib.loads(FULL)
    for where in ("keys_file", "mqtt.password_file", "mqtt.ca_file", "etcd.ca_file", "etcd.cert_file", "etcd.key_file"):
        change(raw, where, str(tmp_path / "none" / where))
    load(written(tmp_path, raw))
    lines = mistakes(tmp_path, raw, files=True)
    assert len(lines) == 6
    assert all(line.endswith(": does not exist") for line in lines)


# --- the command ---------------------------------------------------------------------------------------------------


def test_check_config_says_that_a_file_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(with_keys(tmp_path, KEYS))]) == 0
    assert "sound: node tokyo of fleet home, 2 peers, paths overlay, backup" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["check-config"], ["run"], ["doctor"], ["routes", "show"]])
def test_a_wrong_file_is_told_in_words_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    file = written(tmp_path, "fleet = 1")
    assert main([*command, "--config", str(file)]) == 2
    told = capsys.readouterr()
    assert f'vagus-agent: {file}: fleet: must be text "…", not 1' in told.err.splitlines()
    assert told.out == ""


def test_check_config_of_another_machine_opens_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--no-files", "--config", str(EXAMPLE)]) == 0


def test_every_setting_is_in_the_example() -> None:
    """What an example does not show, nobody finds."""
    for kind in _tables(Config):
        for field in kind.__struct_fields__:
            assert f"{field} = " in FULL or f"[{field}]" in FULL or f"{field}]]" in FULL or f"{field}." in FULL, field


def _tables(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    found = [kind]
    for field in msgspec.structs.fields(kind):
        for part in (field.type, *getattr(field.type, "__args__", ())):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found += _tables(part)
    return found


def test_another_users_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    file = written(tmp_path, MINIMAL)
    file.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # whom no mode stops
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=r"may not be read by user [0-9]+; run as root"):
            load(file)
    finally:
        if is_root:
            os.seteuid(0)
