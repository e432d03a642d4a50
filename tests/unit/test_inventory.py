"""Ansible's preflight: every mistake of an inventory in words, with host and variable, before anything is changed."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.inventory_samples import KNOWN, REPOSITORY, example, read, sound
from vagus_agent.config_file import load
from vagus_inventory import hosts, plan, secrets, table
from vagus_inventory import settings as made
from vagus_protocol.topics import is_name
from wheelhouse import PLATFORMS, PYTHONS


def test_the_example_is_sound() -> None:
    fleet = sound()
    assert [node.name for node in fleet.nodes] == ["vps", "tokyo", "austin", "berlin"]
    assert made.mistakes(fleet) == []


# --- bad input: what the host and the variable are called, and what is wrong -----------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param(
            {"austin": {"vagus_service_addresses": ["10.99.0.1"]}},
            "austin: vagus_service_addresses: 10.99.0.1/32 is in vagus_service_addresses of tokyo too",
            id="duplicate service addresses",
        ),
        pytest.param(
            {"tokyo": {"vagus_prefixes": ["192.168.30.128/25"]}},
            "tokyo: vagus_prefixes: 192.168.30.128/25 overlaps 192.168.30.0/24, which is in vagus_prefixes of berlin",
            id="overlapping prefixes",
        ),
        pytest.param(
            {"tokyo": {"vagus_prefixes": ["10.99.0.0/24"]}},
            "austin: vagus_service_addresses: 10.99.0.2/32 overlaps 10.99.0.0/24, which is in vagus_prefixes of tokyo",
            id="a service address in another node's prefix",
        ),
        pytest.param(
            {"tokyo": {"vagus_prefixes": ["10.88.0.0/25"]}},
            "tokyo: vagus_prefixes: 10.88.0.0/25 overlaps 10.88.0.0/24 of vagus_backup_networks itself",
            id="a prefix in the backup's own network",
        ),
        pytest.param(
            {"tokyo": {"vagus_backup_addresses": None}},
            "tokyo: vagus_backup_addresses: is missing",
            id="a node without backup address",
        ),
        pytest.param(
            {"tokyo": {"vagus_backup_addresses": []}},
            "tokyo: vagus_backup_addresses: is empty: a node without an address in the backup network",
            id="an empty backup address",
        ),
        pytest.param(
            {"tokyo": {"vagus_backup_addresses": ["10.77.0.1"]}},
            "tokyo: vagus_backup_addresses: 10.77.0.1 is in none of vagus_backup_networks (10.88.0.0/24, fd88::/64)",
            id="a backup address elsewhere",
        ),
        pytest.param(
            {"tokyo": {"vagus_backup_addresses": ["10.88.0.2"]}},
            "austin: vagus_backup_addresses: 10.88.0.2 is that of tokyo too",
            id="duplicate backup addresses",
        ),
        pytest.param(
            {"tokyo": {"vagus_node_name": "Tokyo/1"}},
            "tokyo: vagus_node_name: 'Tokyo/1' cannot be a node's name: 1 to 63 of a-z",
            id="a name that MQTT cannot carry",
        ),
        pytest.param(
            {"tokyo": {"vagus_node_name": "to#kyo+"}}, "tokyo: vagus_node_name: 'to#kyo+' cannot be", id="wildcards"
        ),
        pytest.param(
            {"tokyo": {"vagus_node_name": "controller"}},
            "tokyo: vagus_node_name: 'controller' is a user of the broker with other rights",
            id="a name with the controller's rights",
        ),
        pytest.param(
            {"tokyo": {"vagus_node_name": "austin"}},
            "austin: its name in the inventory: 'austin' is the name of tokyo too",
            id="two nodes of one name",
        ),
        pytest.param(
            {"vps": {"vagus_controller_name": "tokyo"}},
            "vps: vagus_controller_name: 'tokyo' is the name of tokyo too",
            id="a controller called as a node",
        ),
        pytest.param(
            {"tokyo": {"vagus_backup_interface": "wireguard-backup-0"}},
            "tokyo: vagus_backup_interface: 'wireguard-backup-0' cannot be an interface: 1 to 15 characters",
            id="a name that Linux cannot carry",
        ),
        pytest.param(
            {"tokyo": {"vagus_service_adresses": ["10.99.0.1"]}},
            "tokyo: vagus_service_adresses: there is no such variable; did you mean vagus_service_addresses?",
            id="unknown variables",
        ),
        pytest.param(
            {"tokyo": {"vagus_service_addresses": "10.99.0.1"}},
            "tokyo: vagus_service_addresses: must be a list [ … ], not '10.99.0.1'",
            id="a text in the place of a list",
        ),
        pytest.param(
            {"tokyo": {"vagus_service_addresses": ["10.99.0.1/32"]}},
            "tokyo: vagus_service_addresses: '10.99.0.1/32' is no IP address; without a prefix length",
            id="a network in the place of an address",
        ),
        pytest.param(
            {"tokyo": {"vagus_tailscale": "perhaps"}},
            "tokyo: vagus_tailscale: must be true or false, not 'perhaps'",
            id="neither true nor false",
        ),
        pytest.param(
            {"austin": {"vagus_backup_endpoint": None}},
            "tokyo, austin: vagus_backup_endpoint: neither has one, so neither can begin their tunnel",
            id="two nodes behind NAT",
        ),
        pytest.param(
            {"austin": {"vagus_backup_endpoint": "austin.example.org:51820"}},
            "austin: vagus_backup_endpoint: 'austin.example.org:51820' must be an address or a name, without a port",
            id="an endpoint with its port",
        ),
        pytest.param(
            {"austin": {"vagus_backup_endpoint": "100.64.0.2"}},
            "austin: vagus_backup_endpoint: 100.64.0.2 is in 100.64.0.0/10 of vagus_overlay_networks: the backup would",
            id="a backup inside the overlay",
        ),
        pytest.param(
            {"austin": {"vagus_backup_endpoint": "fd88::2"}},
            "austin: vagus_backup_endpoint: fd88::2 is in fd88::/64 of vagus_backup_networks: the backup would",
            id="a backup inside itself",
        ),
        pytest.param(
            {"tokyo": {"vagus_rollout_batches": ["1", "0"]}},
            "tokyo: vagus_rollout_batches: '0' is neither a number of nodes, such as 3, nor a share, such as 50%",
            id="a batch that Ansible takes for all at once",
        ),
        pytest.param(
            {"tokyo": {"vagus_rollout_batches": ["1", "few"]}},
            "tokyo: vagus_rollout_batches: 'few' is neither a number of nodes",
            id="a batch of no number",
        ),
        pytest.param(
            {"tokyo": {"vagus_rollout_batches": ["101%"]}},
            "tokyo: vagus_rollout_batches: '101%' is neither a number of nodes",
            id="more than all",
        ),
        pytest.param(
            {"tokyo": {"vagus_rollout_batches": []}},
            "tokyo: vagus_rollout_batches: is empty: all nodes would go at once, without a canary",
            id="no batches",
        ),
        pytest.param(
            {"tokyo": {"vagus_rollout_steady_s": -1}},
            "tokyo: vagus_rollout_steady_s: -1 is no time: seconds, 0 or more",
            id="no time",
        ),
        pytest.param(
            {"austin": {"vagus_backup_manage": False}},
            "vps: vagus_backup_manage: is true, and false on austin",
            id="half a mesh",
        ),
        pytest.param(
            {"vps": {"vagus_broker_certificate_file": "cert.pem"}},
            "vps: vagus_broker_key_file, vagus_broker_ca_file: missing; certificate, key and ca go together",
            id="a certificate without its key",
        ),
        pytest.param(
            {"tokyo": {"vagus_fleet": "away"}},
            "tokyo: vagus_fleet: differs from that of other hosts; put it into group_vars/all",
            id="two fleets",
        ),
        pytest.param(
            {"vps": {"vagus_broker_port": "mqtt"}},
            "vps: vagus_broker_port: must be a whole number, not 'mqtt'",
            id="port",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_host_and_variable(changes: dict[str, dict[str, Any]], told: str) -> None:
    _, problems = read(changes)
    assert any(problem.startswith(told) for problem in problems), problems


def test_all_mistakes_are_told_at_once() -> None:
    tokyo = {"vagus_backup_addresses": None, "vagus_prefixes": "x"}
    _, problems = read({"tokyo": tokyo, "berlin": {"vagus_sites": "B"}})
    assert sorted(problem.split(": ")[:2] for problem in problems) == [
        ["berlin", "vagus_sites"],
        ["tokyo", "vagus_backup_addresses"],
        ["tokyo", "vagus_prefixes"],
    ]


@pytest.mark.parametrize("group", ["vagus_brokers", "vagus_controllers", "vagus_nodes"])
def test_an_empty_group_is_told(group: str) -> None:
    assert f"inventory: the group {group} is empty: it needs at least one host" in read(**{group: []})[1]


def test_two_brokers_are_told() -> None:
    _, problems = read(vagus_brokers=["vps", "austin"])
    assert any("the group vagus_brokers has vps, austin" in problem for problem in problems)


def test_a_broker_that_nobody_reaches_is_told() -> None:
    _, problems = read({"broker": {"vagus_broker_addresses": []}}, vagus_brokers=["broker"])
    assert any(problem.startswith("broker: vagus_broker_addresses: is empty") for problem in problems)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"probe": {"burts": 5}}, "tokyo: agent.toml: probe.burts: unknown key: did you mean burst?"),
        ({"steering": {"priority": 5250}}, "tokyo: agent.toml: steering.priority: must not be in 5200-5299"),
        ({"site": None}, "tokyo: vagus_agent_settings: holds a value that no setting has, such as null"),
    ],
)
def test_the_agent_itself_judges_its_settings(settings: dict[str, Any], told: str) -> None:
    problems = made.mistakes(sound({"tokyo": {"vagus_agent_settings": settings}}))
    assert len(problems) == 1
    assert problems[0].startswith(told)


def test_the_controller_itself_judges_its_settings() -> None:
    problems = made.mistakes(sound({"vps": {"vagus_controller_settings": {"failover": {"mode": "manual"}}}}))
    assert problems == ['vps: controller.toml: failover.mode: must be one of "auto", "recommend", not "manual"']


@given(name=st.text(alphabet="abz09._-/+# Ä", min_size=1, max_size=70))
@settings(max_examples=100)
def test_a_node_may_be_called_what_the_protocol_can_carry(name: str) -> None:
    _, problems = read({"tokyo": {"vagus_node_name": name}})
    refused = any("cannot be a node's name" in problem for problem in problems)
    assert refused != is_name(name)


# --- hosts -----------------------------------------------------------------------------------------------------------

FIT = """\
user=0
machine=aarch64
bits=64
python=3.11
venv=yes
systemd=yes
apt=/usr/bin/apt-get
active=
wireguard=yes
"""


def _problems(stdout: str, version: str = "0.1.0", **more: Any) -> list[str]:
    seen = {"tokyo": hosts.facts({"stdout": stdout, **more})}
    return list(hosts.problems(seen, sound(), version, ["aarch64-cp311", "armv7l-cp311"]))


def test_a_fit_host_has_no_problem() -> None:
    assert _problems(FIT) == []
    assert _problems(FIT.replace("active=", "active=0.1.0")) == []


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("python=3.11", "python=3.9", "tokyo: Python 3.9 is too old: 3.11 or newer is needed"),
        ("python=3.11", "python=", "tokyo: /usr/bin/python3 is not there"),
        ("venv=yes", "venv=", "tokyo: Python has no venv module: apt-get install python3-venv"),
        ("python=3.11", "python=3.12", "tokyo: Python 3.12 is none that releases are for (3.11, 3.13): vagus_python"),
        ("machine=aarch64", "machine=riscv64", "tokyo: its processor is riscv64; releases are for x86_64, aarch64,"),
        ("machine=aarch64", "machine=armv6l", "tokyo: its processor is armv6l; releases are for"),
        ("python=3.11", "python=3.13", "tokyo: is aarch64-cp313, and the release is for aarch64-cp311, armv7l-cp311"),
        ("bits=64", "bits=32", ""),
        ("user=0", "user=1000", "tokyo: is not reached as root"),
        ("systemd=yes", "systemd=", "tokyo: does not run under systemd"),
        ("apt=/usr/bin/apt-get", "apt=", "tokyo: is not Debian, Raspberry Pi OS or Ubuntu"),
        ("active=", "active=0.0.9", "tokyo: release 0.0.9 is active, and vagus_release_dir is 0.1.0: rollout.yml"),
    ],
)
def test_an_unfit_host_is_told(was: str, now: str, told: str) -> None:
    problems = _problems(FIT.replace(was, now, 1))
    assert [problem[: len(told)] for problem in problems] == ([told] if told else [])


def test_a_release_is_asked_for_what_can_be_made() -> None:
    assert (hosts.PLATFORMS, hosts.PYTHONS) == (PLATFORMS, PYTHONS)


def test_an_unreachable_host_is_told() -> None:
    problems = _problems("", unreachable=True, msg="Connection timed out")
    assert problems == ["tokyo: cannot be reached: Connection timed out. Bring it back, or run with --limit '!tokyo'"]


def test_a_shell_that_says_nothing_is_told() -> None:
    assert _problems("", rc=127, stderr="sh: not found")[0].startswith("tokyo: cannot be reached: sh: not found")


@pytest.mark.parametrize(("version", "can"), [("252", False), ("254", True), ("", False)])
def test_a_unit_backs_off_where_systemd_can(version: str, can: bool) -> None:
    assert hosts.backs_off(hosts.facts({"stdout": f"{FIT}systemd_version={version}\n"})) is can


def test_what_a_host_is_is_told_by_a_real_shell() -> None:
    done = subprocess.run(["sh", "-c", hosts.look(sys.executable)], check=True, capture_output=True, text=True)
    said = hosts.facts({"stdout": done.stdout})
    assert said["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert said["user"] == str(os.geteuid())
    assert said["machine"]
    assert set(said) == {line.partition("=")[0] for line in FIT.splitlines()} | {"systemd_version"}


def test_what_a_host_runs_is_asked_of_the_right_python() -> None:
    assert "'/usr/bin/python3' -c" in hosts.look("")
    assert "'/opt/python' -c" in hosts.look("/opt/python")


def test_a_release_is_told_from_what_is_none(tmp_path: Any) -> None:
    folder = tmp_path / "vagus-0.1.0"
    assert "there is no release in" in hosts.release_in(folder)[1][0]
    folder.mkdir()
    (folder / "release.json").write_text("{")
    assert "is damaged" in hosts.release_in(folder)[1][0]
    (folder / "release.json").write_text(json.dumps({"version": "0.2.0", "targets": {}}))
    assert "is damaged" in hosts.release_in(folder)[1][0]
    (folder / "release.json").write_text(json.dumps({"version": "0.1.0", "targets": {"aarch64-cp311": {}}}))
    assert hosts.release_in(folder) == (["aarch64-cp311"], [])


@pytest.mark.parametrize(
    ("record", "has"), [({"parts": ["agent", "etcd"]}, True), ({"parts": ["controller"]}, False), ({}, False)]
)
def test_an_installed_release_has_parts(record: dict[str, Any], has: bool) -> None:
    slurped = {"content": base64.b64encode(json.dumps(record).encode()).decode()}
    assert hosts.has_parts(slurped, ["agent"]) is has
    assert not hosts.has_parts({"msg": "file not found"}, ["agent"])


# --- what follows ----------------------------------------------------------------------------------------------------


def _secrets(fleet: Any) -> secrets.Secrets:
    whole, _ = secrets.completed(
        {},
        users=made.users(fleet),
        tunnels=plan.tunnels(fleet),
        hosts=plan.certificate_hosts(fleet),
        random=os.urandom,
    )
    return whole


def test_agents_try_the_broker_over_the_backup_first_then_in_public_then_over_the_overlay(tmp_path: Any) -> None:
    fleet = sound()
    told = plan.host_plan(fleet, fleet.hosts["tokyo"], _secrets(fleet), "")
    (tmp_path / "agent.toml").write_text(told["node"]["toml"])
    config = load(tmp_path / "agent.toml")
    assert [(broker.host, broker.peer, broker.path) for broker in config.mqtt.brokers] == [
        ("10.88.0.4", "vps", "backup"),
        ("fd88::4", "vps", "backup"),
        ("203.0.113.7", "", ""),
        ("100.64.0.4", "vps", "overlay"),
    ]
    assert {peer.name for peer in config.peers} == {"austin", "berlin", "vps"}
    assert all(broker.tls for broker in config.mqtt.brokers)


def test_a_tunnel_carries_backup_and_service_addresses_and_prefixes() -> None:
    fleet = sound()
    tunnel = plan.host_plan(fleet, fleet.hosts["tokyo"], _secrets(fleet), "")["tunnel"]
    peers = {peer["name"]: peer for peer in tunnel["peers"]}
    assert peers["berlin"]["allowed"] == [
        *("10.88.0.3/32", "fd88::3/128", "10.99.0.3/32", "fd99::3/128", "192.168.30.0/24"),
    ]
    assert peers["berlin"]["endpoint"] == "berlin.example.org:51820"
    assert tunnel["addresses"] == ["10.88.0.1/24", "fd88::1/64"]
    assert tunnel["mark"] == "0x80000"
    back = plan.host_plan(fleet, fleet.hosts["berlin"], _secrets(fleet), "")["tunnel"]
    assert next(peer for peer in back["peers"] if peer["name"] == "tokyo")["endpoint"] == ""


def test_another_mark_of_the_agent_is_the_tunnels_too() -> None:
    fleet = sound({"tokyo": {"vagus_agent_settings": {"steering": {"mark": 0x20000}}}})
    assert plan.host_plan(fleet, fleet.hosts["tokyo"], _secrets(fleet), "")["tunnel"]["mark"] == "0x20000"


def test_a_node_learns_no_secret_but_its_own() -> None:
    fleet = sound()
    kept = _secrets(fleet)
    told = json.dumps(plan.host_plan(fleet, fleet.hosts["tokyo"], kept, ""))
    assert kept["fleet_key"] not in told
    assert kept["ca"]["key"] not in told
    for other in ("austin", "controller"):
        assert kept["passwords"][other] not in told
    assert kept["passwords"]["tokyo"] in told
    assert kept["wireguard"]["austin"] not in told


def test_the_certificate_is_for_every_address_of_the_broker() -> None:
    assert set(plan.certificate_hosts(sound()) or ()) == {
        *("127.0.0.1", "::1", "localhost", "203.0.113.7", "10.88.0.4", "fd88::4", "100.64.0.4", "10.99.0.4", "fd99::4")
    }


def test_a_certificate_that_is_given_is_for_wherever_anybody_looks_for_the_broker() -> None:
    assert made.sought_brokers(sound()) == {"127.0.0.1", "10.88.0.4", "fd88::4", "203.0.113.7", "100.64.0.4"}
    elsewhere = {"mqtt": {"brokers": [{"host": "broker.example.org", "port": 8883, "tls": True}]}}
    given = {name: {"vagus_agent_settings": elsewhere} for name in ("vps", "tokyo", "austin", "berlin")}
    assert made.sought_brokers(sound(given)) == {"127.0.0.1", "broker.example.org"}


def test_a_user_may_set_whatever_the_agent_can(tmp_path: Any) -> None:
    over = {"report": {"interval_s": 5.0}, "etcd": {"endpoint": "127.0.0.1:2379"}}
    fleet = sound({"tokyo": {"vagus_agent_settings": over}})
    told = plan.host_plan(fleet, fleet.hosts["tokyo"], _secrets(fleet), "")
    settings = tomllib.loads(told["node"]["toml"])
    assert settings["report"] == {"interval_s": 5.0}
    assert told["parts"] == ["agent", "etcd"]
    assert plan.host_plan(fleet, fleet.hosts["vps"], _secrets(fleet), "")["parts"] == ["agent", "controller"]


# --- documents -------------------------------------------------------------------------------------------------------


def test_every_variable_is_in_the_documents_as_the_roles_declare_it() -> None:
    text = (REPOSITORY / "docs/ansible.md").read_text()
    told = text[text.index(table.BEGIN) : text.index(table.END) + len(table.END)]
    assert told == table.table(list(KNOWN.values())), "python3 -m vagus_inventory.table, in ansible/plugins, makes it"


def test_the_example_uses_no_variable_in_vain() -> None:
    _, given = example()
    assert {name for theirs in given.values() for name in theirs} <= set(KNOWN)


def test_roles_use_declared_variables_only() -> None:
    used = set()
    for file in (REPOSITORY / "ansible/roles").rglob("*"):
        if file.suffix in (".yml", ".j2") and "meta" not in file.parts:
            used |= set(re.findall(r"\.vars\.(vagus_\w+)", file.read_text()))
    assert used <= set(KNOWN)
    assert used
