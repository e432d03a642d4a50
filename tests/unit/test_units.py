"""The systemd units, judged by systemd itself: what they expose, and that it knows every word of them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "packaging/systemd"
# Overall exposure level, ten times what systemd-analyze prints.
MOST = {"vagus-agent": 17, "vagus-controller": 13}


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is missing: apt-get install systemd"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def exposure(unit: Path) -> float:
    """What `security` prints as the overall level."""
    done = analyze("security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.fixture(params=MOST)
def unit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_exposes_little_and_the_documents_say_how_much(unit: str) -> None:
    file = UNITS / f"{unit}.service"
    level = exposure(file)
    assert level * 10 <= MOST[unit]
    done = analyze("security", "--offline=true", f"--threshold={MOST[unit]}", str(file))
    assert done.returncode == 0, done.stdout
    assert f"| `{unit}` | {level} |" in (REPOSITORY / "docs/systemd.md").read_text()


def test_the_judge_can_fail(unit: str, tmp_path: Path) -> None:
    bare = tmp_path / f"{unit}.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(bare) > 9
    assert analyze("security", "--offline=true", f"--threshold={MOST[unit]}", str(bare)).returncode != 0
    bare.write_text("[Service]\nExecStart=/bin/true\nMemoryMaxx=1\n")
    assert "MemoryMaxx" in analyze("verify", str(bare)).stderr


def test_systemd_knows_every_word_of_it(unit: str, tmp_path: Path) -> None:
    """`verify` exits with 0 in spite of unknown keys; it looks for the programs, which are not installed here."""
    for program in ("vagus-agent", "vagus-controller"):
        (tmp_path / program).symlink_to("/bin/true")
    text = (UNITS / f"{unit}.service").read_text()
    copy = tmp_path / f"{unit}.service"
    copy.write_text(text.replace("/opt/vagus/current/bin", str(tmp_path)))
    done = analyze("verify", "--man=no", str(copy))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def settings(unit: str) -> dict[str, list[str]]:
    """Every value of each key."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"{unit}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_its_privileges_are_what_is_needed_and_no_more() -> None:
    agent, controller = settings("vagus-agent"), settings("vagus-controller")
    assert agent["CapabilityBoundingSet"] == agent["AmbientCapabilities"] == ["CAP_NET_ADMIN"]
    assert controller["CapabilityBoundingSet"] == controller["AmbientCapabilities"] == [""]
    assert (agent["User"], controller["User"]) == (["vagus-agent"], ["vagus-controller"])


def test_it_depends_on_nobody_and_comes_after_the_networks(unit: str) -> None:
    found = settings(unit)
    assert not found.keys() & {"Requires", "BindsTo", "PartOf", "Requisite"}
    assert found["Wants"] == ["network-online.target"]
    assert "network-online.target" in found["After"][0]
    if unit == "vagus-agent":
        assert "tailscaled.service" in found["After"][0]


def test_its_files_are_where_the_programs_look_for_them(unit: str) -> None:
    found = settings(unit)
    assert found["ExecStart"] == [f"/opt/vagus/current/bin/{unit} run"]
    assert found["StateDirectory"] == [unit]
    example = REPOSITORY / unit.removeprefix("vagus-") / f"{unit.removeprefix('vagus-')}.example.toml"
    assert f"/var/lib/{unit}" in example.read_text()
    assert found["Type"] == ["notify"]


def test_the_drop_in_is_for_systemd_254_and_waits_longer_and_longer() -> None:
    drop_in = configparser.ConfigParser()
    drop_in.optionxform = str  # type: ignore[assignment,method-assign]
    drop_in.read(UNITS / "backoff.conf")
    assert dict(drop_in["Service"]) == {"RestartSteps": "6", "RestartMaxDelaySec": "60s"}
