"""Playbooks and roles are what ansible-lint asks of production, and parse with the example inventory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLAYBOOKS = Path(__file__).parents[2] / "ansible"
BIN = Path(sys.executable).parent


def said(*argv: str, home: Path) -> str:
    """What a program of Ansible's said, and whether it was content."""
    path = f"{BIN}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "ANSIBLE_HOME": str(home), "XDG_CACHE_HOME": str(home), "NO_COLOR": "1"}
    done = subprocess.run(argv, check=False, cwd=PLAYBOOKS, env=env, capture_output=True, text=True)
    return f"exit {done.returncode}\n{done.stdout}{done.stderr}"


def run(*argv: str, home: Path) -> str:
    """What it said, when it was not content."""
    told = said(*argv, home=home)
    return "" if told.startswith("exit 0\n") else told


def test_ansible_lint_is_content(tmp_path: Path) -> None:
    assert run(str(BIN / "ansible-lint"), "--offline", "-q", "--nocolor", home=tmp_path) == ""


@pytest.mark.parametrize(
    "playbook", sorted(path.name for path in PLAYBOOKS.glob("*.yml") if path.name != "variables.yml")
)
def test_a_playbook_parses_with_the_example(playbook: str, tmp_path: Path) -> None:
    argv = ["--syntax-check", "-i", "inventory.example", playbook]
    assert run(str(BIN / "ansible-playbook"), *argv, home=tmp_path) == ""


def judged(inventory: Path, home: Path, *more: str) -> str:
    argv = [str(BIN / "ansible"), "-i", str(inventory), "vps", "-m", "vagus_fleet", "-a", "do=check"]
    return said(*argv, "-e", f"vagus_release_dir={home}/vagus-0.1.0", *more, home=home)


def test_ansible_tells_what_is_wrong_with_an_inventory(tmp_path: Path) -> None:
    """Ansible's own reading of it, by the plugin that every playbook begins with; no host is asked."""
    inventory = tmp_path / "inventory"
    shutil.copytree(PLAYBOOKS / "inventory.example", inventory)
    told = judged(inventory, tmp_path)
    assert "1 problem; nothing was changed anywhere" in told
    assert "vagus_release_dir: there is no release in" in told

    given = {"vagus_rollout_batches": ["1"], "vagus_backup_port": "wireguard"}
    (inventory / "group_vars/all.yml").write_text(
        (inventory / "group_vars/all.yml").read_text() + "".join(f"{name}: {value}\n" for name, value in given.items())
    )
    told = judged(inventory, tmp_path)
    assert "vps: vagus_backup_port: must be a whole number, not 'wireguard'" in told
    assert "vagus_rollout_batches: has no effect in the inventory: give it on the command line, by -e" in told

    more = ("-e", '{"vagus_rollout_batches": ["0"], "vagus_backup_port": 51820}')
    told = judged(inventory, tmp_path, *more)
    assert "vagus_rollout_batches: '0' is neither a number of nodes" in told
    assert "has no effect" not in told


@pytest.mark.parametrize(
    ("playbook", "more"),
    [("drill.yml", "vagus_drill_piar=austin--tokyo"), ("uninstall.yml", "vagus_uninstall=home vagus_drill_piar=x")],
)
def test_a_playbook_that_asks_no_host_first_tells_of_a_typing_mistake(playbook: str, more: str, tmp_path: Path) -> None:
    """Else the one would drill the whole fleet, and the other say only that its output is hidden."""
    told = said(str(BIN / "ansible-playbook"), "-i", "inventory.example", playbook, "-e", more, home=tmp_path)
    assert "vagus_drill_piar: there is no such variable; did you mean vagus_drill_pair?" in told
    assert "has been hidden" not in told


def test_uninstall_tells_of_a_secrets_file_that_cannot_be_read(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(PLAYBOOKS / "inventory.example", inventory)
    (inventory / "vagus-secrets.yml").write_text("fleet_key: x\n")
    (inventory / "vagus-secrets.yml").chmod(0o644)
    argv = [str(BIN / "ansible-playbook"), "-i", str(inventory), "uninstall.yml", "-e", "vagus_uninstall=home"]
    told = said(*argv, home=tmp_path)
    assert "vagus-secrets.yml: holds secrets, and its mode is 0644: chmod 600" in told
