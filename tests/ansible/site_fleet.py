"""A fleet on booted hosts: an inventory of it, playbooks run on it, and what its controller says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from base_root import make
from hosts import BootedHost, Hosts, LabError, inventory

REPOSITORY: Final = Path(__file__).parents[2]
PLAYBOOKS: Final = REPOSITORY / "ansible"
FLEET: Final = "proving"
_RECAP: Final = re.compile(r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)


def build_release(out: Path, source: Path = REPOSITORY) -> Path:
    """The release of a tree, for the hosts' own machine and Python."""
    options = ["--platform", "x86_64", "--python", _python(), "--out", out, "--source", source]
    make([REPOSITORY / "scripts/build-release", *options], "scripts/build-release")
    return next(path for path in out.iterdir() if path.name.startswith("vagus-"))


def _python() -> str:
    """The Python of the hosts: this machine's Debian's."""
    done = subprocess.run(["/usr/bin/python3", "-V"], check=True, capture_output=True, text=True)
    return ".".join(done.stdout.split()[1].split(".")[:2])


# It is no dead path when all tunnels stand still while Ansible works on all hosts, which are one machine, at once.
PATIENT = {"confirm_floor_s": 0.5}


class Fleet:
    """Hosts with an inventory. `vps` has broker and controller; all others, and the vps with `whole`, are nodes."""

    def __init__(self, hosts: Hosts, release: Path, *, whole: bool = False) -> None:
        self.hosts = hosts
        self.release = release
        self.whole = whole
        self.said: list[str] = []
        # Every secret that there ever was.
        self.private: set[str] = set()
        self.write()

    @property
    def vps(self) -> BootedHost:
        return self.hosts["vps"]

    @property
    def nodes(self) -> list[BootedHost]:
        return [host for host in self.hosts.values() if self.whole or host is not self.vps]

    @property
    def dir(self) -> Path:
        return self.hosts.dir

    def logs(self) -> str:
        """For a failure's report."""
        return self.hosts.logs()

    @property
    def secrets_file(self) -> Path:
        return self.dir / "inventory/vagus-secrets.yml"

    def secrets(self) -> Any:
        """What is in the file, unless it is encrypted."""
        found = yaml.safe_load(self.secrets_file.read_text())
        if isinstance(found, dict):
            keys = [line for name in ("ca", "broker") for line in found[name]["key"].splitlines()[1:-1]]
            self.private |= {found["fleet_key"], found["operator_password"], *found["passwords"].values(), *keys}
            self.private |= set(found["wireguard"].values())
        return found

    def write(
        self,
        variables: Mapping[str, object] | None = None,
        host_variables: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        """The inventory, with these variables on top."""
        each: dict[str, dict[str, object]] = {
            host.name: {
                "vagus_site": host.name.capitalize(),
                "vagus_service_addresses": [host.service, host.service6],
                "vagus_backup_addresses": [host.backup, host.backup6],
                "vagus_backup_endpoint": host.underlay,
            }
            for host in self.nodes
        }
        each["vps"] = each.get("vps", {}) | {"vagus_broker_addresses": [self.vps.underlay]}
        for name, more in (host_variables or {}).items():
            each[name] = each.get(name, {}) | dict(more)
        shared: dict[str, object] = {
            "vagus_fleet": FLEET,
            "vagus_release_dir": str(self.release),
            "vagus_backup_networks": ["10.60.0.0/16", "fd60::/64"],
            # One kernel: what a host sees of load is all that this machine does, and no incident of the fleet's.
            "vagus_controller_settings": {"load": {"enter_per_core": 1000.0}},
            "vagus_agent_settings": {"probe": PATIENT},
        }
        groups = {
            "vagus_brokers": ["vps"],
            "vagus_controllers": ["vps"],
            "vagus_nodes": [host.name for host in self.nodes],
        }
        self.inventory = inventory(self.hosts, groups, shared | dict(variables or {}), each)

    def play(self, playbook: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a playbook of the repository, as an operator would."""
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory), *options]
        done = self.hosts.run(
            [*argv, str(PLAYBOOKS / playbook)],
            check=False,
            env={"ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"},
            timeout_s=900,
        )
        self.said.append(done.stdout + done.stderr)
        if self.secrets_file.exists():
            self.secrets()
        if check and done.returncode != 0:
            raise LabError(f"{playbook}: {done.stdout[-6000:]}\n{done.stderr[-2000:]}")
        return done

    # --- what the controller says ------------------------------------------------------------------------------------

    def ask(self, path: str) -> Any:
        """The controller's answer; None while it has none."""
        script = (
            "import json,sys,urllib.request as r\n"
            "token=open('/var/lib/vagus-controller/token').read().strip()\n"
            "q=r.Request('http://127.0.0.1:8118/api/v1'+sys.argv[1],headers={'Authorization':'Bearer '+token})\n"
            "print(r.urlopen(q,timeout=5).read().decode())"
        )
        done = self.vps.ssh(["python3", "-c", script, path], check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def until(self, path: str, wanted: Any, timeout_s: float = 60.0) -> Any:
        """The first answer that `wanted` takes."""
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self.ask(path)
            if answer is not None and wanted(answer):
                return answer
            if time.monotonic() > deadline:
                raise LabError(f"{path} did not become what is wanted in {timeout_s:g} s: {json.dumps(answer)[:3000]}")
            time.sleep(0.5)


def words(done: subprocess.CompletedProcess[str]) -> str:
    """What a playbook said, in one line: as YAML its messages are folded, and their quotes doubled."""
    return " ".join(done.stdout.split()).replace("''", "'")


def changed(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Host → how much a playbook changed."""
    return {host: int(count) for host, _, count, _, _ in _RECAP.findall(done.stdout)}


def proven(pairs: Sequence[Mapping[str, Any]]) -> bool:
    return bool(pairs) and all(path["proven"] for pair in pairs for path in pair["paths"])
