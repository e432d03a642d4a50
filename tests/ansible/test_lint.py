"""Playbooks and roles are what ansible-lint asks of production, and parse with the example inventory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAYBOOKS = Path(__file__).parents[2] / "ansible"
BIN = Path(sys.executable).parent


def run(*argv: str, home: Path) -> str:
    """What a program of Ansible's said, when it was not content."""
    path = f"{BIN}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "ANSIBLE_HOME": str(home), "XDG_CACHE_HOME": str(home), "NO_COLOR": "1"}
    done = subprocess.run(argv, check=False, cwd=PLAYBOOKS, env=env, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ansible_lint_is_content(tmp_path: Path) -> None:
    assert run(str(BIN / "ansible-lint"), "--offline", "-q", "--nocolor", home=tmp_path) == ""


@pytest.mark.parametrize(
    "playbook", sorted(path.name for path in PLAYBOOKS.glob("*.yml") if path.name != "variables.yml")
)
def test_a_playbook_parses_with_the_example(playbook: str, tmp_path: Path) -> None:
    argv = ["--syntax-check", "-i", "inventory.example", playbook]
    assert run(str(BIN / "ansible-playbook"), *argv, home=tmp_path) == ""
