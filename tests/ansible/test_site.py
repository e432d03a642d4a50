"""The life of a fleet by playbooks: from nothing, again, changed, with new keys, and gone without a trace.

The tests are one story and run in their order; each looks at what the playbook before it did.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hosts import Hosts
from site_fleet import PATIENT, Fleet, build_release, changed, proven, words
from snapshot import Snapshot, differences


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_release(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def fleet(booted: Callable[..., Hosts], release: Path) -> Fleet:
    """As in the example: broker and controller are on a node."""
    return Fleet(booted("vps", "tokyo", "austin"), release, whole=True)


@pytest.fixture(scope="module")
def before(fleet: Fleet) -> dict[str, Snapshot]:
    return {name: host.snapshot() for name, host in fleet.hosts.items()}


def test_a_mistake_changes_nothing_anywhere(fleet: Fleet, before: dict[str, Snapshot]) -> None:
    tokyo = fleet.hosts["tokyo"]
    fleet.write(host_variables={"austin": {"vagus_service_addresses": [tokyo.service], "vagus_sit": "Austin"}})
    done = fleet.play("site.yml", check=False)
    fleet.write()
    assert done.returncode != 0
    assert f"{tokyo.service}/32 is in vagus_service_addresses of" in words(done)
    assert "there is no such variable; did you mean vagus_site?" in words(done)
    assert "nothing was changed anywhere" in words(done)
    assert set(changed(done).values()) == {0}
    assert not fleet.secrets_file.exists()
    for name, host in fleet.hosts.items():
        assert differences(before[name], host.snapshot()) == []


def test_an_unreachable_host_changes_nothing_anywhere(fleet: Fleet, before: dict[str, Snapshot]) -> None:
    fleet.write(host_variables={"tokyo": {"ansible_host": "10.99.77.77", "ansible_ssh_timeout": 2}})
    done = fleet.play("site.yml", check=False)
    fleet.write()
    assert done.returncode != 0
    assert "tokyo: cannot be reached" in words(done)
    assert "nothing was changed anywhere" in words(done)
    assert set(changed(done).values()) == {0}
    assert differences(before["austin"], fleet.hosts["austin"].snapshot()) == []


def test_a_rehearsal_from_nothing_changes_nothing(fleet: Fleet, before: dict[str, Snapshot]) -> None:
    fleet.play("site.yml", "--check", "--diff")
    assert not fleet.secrets_file.exists()
    for name, host in fleet.hosts.items():
        assert differences(before[name], host.snapshot()) == []


def test_site_brings_up_everything_from_nothing(fleet: Fleet, before: dict[str, Snapshot]) -> None:
    fleet.play("site.yml")
    assert fleet.secrets_file.stat().st_mode & 0o777 == 0o600
    for host in fleet.nodes:
        assert (
            host.ssh("systemctl is-active vagus-agent vagus-addresses wg-quick@wg-vagus").stdout.split()
            == ["active"] * 3
        )
        assert host.ssh("stat -c %U /proc/$(systemctl show -P MainPID vagus-agent)").stdout.strip() == "vagus-agent"
    assert fleet.vps.ssh("systemctl is-active vagus-broker vagus-controller").stdout.split() == ["active"] * 2
    nodes = fleet.until("/nodes", lambda nodes: len(nodes) == 3 and all(node["online"] for node in nodes))
    assert {node["name"] for node in nodes} == {"vps", "tokyo", "austin"}
    # Overlay and backup carry the service addresses, from both ends.
    fleet.until("/links", proven)


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    assert changed(fleet.play("site.yml")) == {"vps": 0, "tokyo": 0, "austin": 0}
    assert set(changed(fleet.play("site.yml", "--check")).values()) == {0}


def test_all_of_it_is_there_after_a_boot(fleet: Fleet) -> None:
    fleet.hosts["tokyo"].reboot()
    fleet.until("/nodes", lambda nodes: all(node["online"] and (node["report_age_s"] or 99) < 5 for node in nodes))
    fleet.until("/links", proven)


def authority(fleet: Fleet) -> Path:
    """The broker's CA, in a file."""
    file = fleet.hosts.dir / "ca.pem"
    file.write_text(fleet.secrets()["ca"]["certificate"])
    return file


def test_the_broker_lets_nobody_in_by_a_wrong_password_or_without_tls(fleet: Fleet) -> None:
    secrets, address = fleet.secrets(), fleet.vps.underlay
    base = ["mosquitto_pub", "-h", address, "-p", "8883", "-t", "vagus/1/proving/nodes/tokyo/report", "-m", "x"]
    tls = ["--cafile", str(authority(fleet))]

    def publish(*more: str) -> int:
        return fleet.hosts.run([*base, *more], check=False).returncode

    assert publish(*tls, "-u", "tokyo", "-P", secrets["passwords"]["tokyo"]) == 0
    assert publish(*tls, "-u", "tokyo", "-P", secrets["passwords"]["austin"]) != 0
    assert publish(*tls) != 0
    assert publish("-u", "tokyo", "-P", secrets["passwords"]["tokyo"]) != 0


def test_a_node_hears_nothing_of_what_another_is_told(fleet: Fleet) -> None:
    secrets = fleet.secrets()
    listen = ["mosquitto_sub", "-h", fleet.vps.underlay, "-p", "8883", "--cafile", str(authority(fleet))]
    listen += ["-W", "3", "-v"]
    listen += ["-u", "austin", "-P", secrets["passwords"]["austin"], "-t", "vagus/1/proving/#"]
    topics = {line.split()[0] for line in fleet.hosts.run(listen, check=False).stdout.splitlines() if line}
    assert "vagus/1/proving/nodes/austin/desired" in topics or "vagus/1/proving/nodes/austin/presence" in topics
    assert not [topic for topic in topics if "/nodes/" in topic and "/austin/" not in topic]


def test_a_threshold_is_taken_up_without_a_restart(fleet: Fleet) -> None:
    def lives() -> list[str]:
        units = "vagus-agent vagus-controller vagus-broker"
        return [host.ssh(f"systemctl show -P MainPID {units}").stdout for host in fleet.nodes]

    born = lives()
    fleet.write({"vagus_agent_settings": {"probe": PATIENT | {"up_after": 6}}})
    done = fleet.play("site.yml", "--check", "--diff")
    assert "+up_after = 6" in done.stdout
    fleet.play("site.yml")
    assert lives() == born
    journal = fleet.hosts["tokyo"].ssh("journalctl -u vagus-agent --no-pager").stdout
    assert "configuration read again; changed: probe.up_after" in journal
    fleet.write()
    fleet.play("site.yml")
    assert lives() == born


class Reports:
    """When the controller last heard each node, looked at all the time from beside it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._over = threading.Event()
        self.heard: dict[str, list[float]] = {}
        self.looked = 0.0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Reports:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _look(self) -> None:
        while not self._over.wait(0.3):
            answer = self._fleet.ask("/nodes")
            self.looked = time.monotonic()
            for node in answer or ():
                if node["report_age_s"] is not None:
                    self.heard.setdefault(node["name"], []).append(self.looked - node["report_age_s"])

    def longest_gap(self, name: str) -> float:
        """Until the last look: also one that has not ended."""
        return max(b - a for a, b in pairwise([*self.heard[name], self.looked]))


def test_new_keys_lose_no_report_for_longer_than_ten_seconds(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    old = fleet.secrets()
    with Reports(fleet) as reports:
        time.sleep(4)
        fleet.play("rotate-keys.yml")
        time.sleep(4)
    new = fleet.secrets()
    assert "next" not in new
    assert new["fleet_key"] != old["fleet_key"]
    assert not set(new["passwords"].values()) & set(old["passwords"].values())
    assert {key: new[key] for key in ("ca", "wireguard", "operator_password")} == {
        key: old[key] for key in ("ca", "wireguard", "operator_password")
    }
    gaps = {host.name: reports.longest_gap(host.name) for host in fleet.nodes}
    record_property("longest_gap_s", gaps)
    assert max(gaps.values()) < 10, gaps
    fleet.until("/links", proven)
    for host in fleet.nodes:
        assert old["passwords"][host.name] not in host.ssh("cat /etc/vagus/agent/mqtt-password").stdout
    # What the new controller signs, the nodes accept.
    nodes = fleet.until("/nodes", lambda nodes: all(node["epoch"] > 0 for node in nodes))
    assert all(not node["drift"] for node in nodes)


def test_after_new_keys_a_run_changes_nothing(fleet: Fleet) -> None:
    assert changed(fleet.play("site.yml")) == {"vps": 0, "tokyo": 0, "austin": 0}


def test_a_change_of_keys_that_was_interrupted_is_carried_to_its_end(fleet: Fleet) -> None:
    tokyo, file = fleet.hosts["tokyo"], "/etc/vagus/agent/keys.toml"
    # Nobody can put another in its place.
    tokyo.ssh(f"mount --bind {file} {file}")
    assert fleet.play("rotate-keys.yml", check=False).returncode != 0
    tokyo.ssh(f"umount {file}")
    interrupted = fleet.secrets()
    assert set(interrupted["next"]) == {"fleet_key"}
    fleet.until("/nodes", lambda nodes: all(node["liveness"]["state"] == "fresh" for node in nodes))
    assert "a change of keys was interrupted: run rotate-keys.yml again" in words(fleet.play("site.yml", check=False))
    fleet.play("rotate-keys.yml")
    after = fleet.secrets()
    assert "next" not in after
    assert after["fleet_key"] == interrupted["next"]["fleet_key"] != interrupted["fleet_key"]
    fleet.until("/nodes", lambda nodes: all(node["epoch"] > 0 and not node["drift"] for node in nodes))
    fleet.until("/links", proven)
    assert changed(fleet.play("site.yml")) == {"vps": 0, "tokyo": 0, "austin": 0}


def test_keys_are_not_changed_while_a_pause_is_in_force(fleet: Fleet) -> None:
    ctl = "/opt/vagus/current/bin/vagusctl"
    fleet.vps.ssh(f"{ctl} pause --fleet --for 10m --reason 'somebody works'")
    secrets = fleet.secrets_file.read_text()
    done = fleet.play("rotate-keys.yml", check=False)
    assert done.returncode != 0
    assert "a pause is in force (somebody works) and would be forgotten" in words(done)
    assert fleet.secrets_file.read_text() == secrets
    fleet.vps.ssh(f"{ctl} resume --all")


def test_a_lost_secrets_file_locks_nobody_out(fleet: Fleet) -> None:
    kept = fleet.secrets_file.with_suffix(".kept")
    fleet.secrets_file.rename(kept)
    done = fleet.play("site.yml", check=False)
    assert done.returncode != 0
    assert "run a fleet already: bring the file back" in words(done)
    assert not fleet.secrets_file.exists()
    kept.rename(fleet.secrets_file)


def test_an_encrypted_secrets_file_stays_encrypted(fleet: Fleet) -> None:
    plain, password = fleet.secrets_file.read_bytes(), fleet.hosts.dir / "vault-password"
    password.write_text("between us\n")
    vault = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", "--vault-password-file", str(password)]
    fleet.hosts.run([*vault, str(fleet.secrets_file)])
    done = fleet.play("site.yml", check=False)
    assert done.returncode != 0
    assert "cannot be decrypted: run with --ask-vault-pass or --vault-password-file" in words(done)
    unlocked = ("--vault-password-file", str(password))
    assert changed(fleet.play("site.yml", *unlocked)) == {"vps": 0, "tokyo": 0, "austin": 0}
    # A new user of the broker: the file is written anew, by the same password.
    fleet.write(host_variables={"vps": {"vagus_broker_home_assistant": True}})
    fleet.play("site.yml", *unlocked)
    assert fleet.secrets_file.read_bytes().startswith(b"$ANSIBLE_VAULT;")
    fleet.hosts.run([vault[0], "decrypt", *vault[2:], str(fleet.secrets_file)])
    assert "homeassistant" in fleet.secrets()["passwords"]
    fleet.secrets_file.write_bytes(plain)
    fleet.write()
    fleet.play("site.yml")


def test_no_secret_was_ever_told(fleet: Fleet) -> None:
    fleet.play("site.yml", "-vvv", "--diff")
    assert len(fleet.private) > 10
    for said in fleet.said:
        assert not [secret for secret in fleet.private if secret in said]


def test_uninstall_leaves_nothing(fleet: Fleet, before: dict[str, Snapshot]) -> None:
    done = fleet.play("uninstall.yml", "-e", "vagus_uninstall=another", check=False)
    assert "another is not the fleet's name: nothing was removed" in words(done)
    assert fleet.hosts["tokyo"].ssh("systemctl is-active vagus-agent").stdout.strip() == "active"
    fleet.play("uninstall.yml", "-e", "vagus_uninstall=proving")
    for name, host in fleet.hosts.items():
        # apt and adduser keep notes of their own.
        own = ("files: /var/lib/dpkg/status-old ", "run: adduser ", "files: /etc/passwd ", "files: /etc/shadow ")
        own += ("files: /etc/group ", "files: /etc/gshadow ")
        left = [line for line in differences(before[name], host.snapshot()) if not line.startswith(own)]
        assert left == []
    # And once more, with nothing there.
    assert set(changed(fleet.play("uninstall.yml", "-e", "vagus_uninstall=proving")).values()) == {0}
