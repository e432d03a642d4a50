"""The agent on ARM: in Debian's arm64 userland under qemu-user, installed from the release's wheels, beside real hosts.

What runs is arm64's Python, its wheels and its C library; the kernel is this machine's. Routes, rules, TUN interfaces,
UDP and TCP are real. qemu-user has no packet times, marks, nfnetlink or generic netlink: the agent says so and goes on.
It refuses rules too, though the kernel has them: netlink is led past it (inside/sitecustomize.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from arm64.userlands import PYTHONPATH, built, installed
from lab.fleet_helpers import (
    AGENT,
    CONTROLLER,
    VPS,
    Since,
    failback,
    healed,
    kernel_goes,
    node,
    table,
    until,
    until_settled,
    until_well,
)
from lab.harness import HostSpec, Lab
from lab.harness.hosts import Host
from userland import PROCESSORS, SUITES
from wheelhouse import Target

PI = HostSpec("pi", "tokyo")
# An emulated interpreter takes its time to load what the agent needs.
START_S = 180.0


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("aarch64", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module", params=SUITES, ids=lambda python: f"python{python}")
def root(request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(release, Target("aarch64", request.param), "agent", tmp_path_factory.mktemp("root")) as root:
        yield root


def enter(host: Host, root: Path, lab: Lab) -> None:
    """The host's own /proc, /sys, /dev, /run and the lab's files within `root`; the mounts go with the host."""
    for place in (lab.dir, *map(Path, ("/proc", "/sys", "/dev", "/run"))):
        inside = root / place.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        host.run(["mount", "--rbind", str(place), str(inside)])


def vagus_agent(lab: Lab, root: Path, *arguments: str) -> list[str]:
    """The command line of the emulated Pi's own program."""
    config = str(lab[PI.name].directory / "agent.toml")
    environment = [f"QEMU_CPU={PROCESSORS['arm64'].core}", PYTHONPATH]
    return [
        "env",
        *environment,
        "chroot",
        str(root),
        "/opt/vagus/current/bin/vagus-agent",
        *arguments,
        "--config",
        config,
    ]


def start_agent(lab: Lab, root: Path) -> None:
    lab.write_agent(lab[PI.name])
    before = runs(lab)
    lab[PI.name].spawn(vagus_agent(lab, root, "run"), name="agent")
    until(lambda: runs(lab) > before, "the emulated agent runs", START_S)


def runs(lab: Lab) -> int:
    """How often the emulated agent has said that it runs."""
    log = lab[PI.name].directory / "agent.log"
    return log.read_text().count("runs: 2 peers") if log.exists() else 0


@pytest.fixture(scope="module")
def shared(root: Path) -> Iterator[Lab]:
    """A VPS with broker and controller, a Pi on this machine's own processor, and the one that is emulated."""
    with Lab((VPS, PI, HostSpec("pi2", "austin")), agent=AGENT, controller=CONTROLLER) as lab:
        enter(lab[PI.name], root, lab)
        lab.start_broker()
        lab.start_agents(VPS.name, "pi2")
        lab.start_controller()
        start_agent(lab, root)
        until_well(lab)
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    with healed(shared) as lab:
        yield lab


def test_it_reports_probes_and_moves_traffic(lab: Lab, root: Path) -> None:
    agent = lab.process(PI.name, "agent")
    assert Path(f"/proc/{agent.pid}/exe").resolve().name.startswith("qemu-aarch64")
    system = node(lab, PI.name)["report"]["system"]
    assert system["memory_bytes"] > system["memory_available_bytes"] > 0
    said = agent.log.read_text()
    assert "Traceback" not in said
    assert "this kernel does not tell when a packet came" in said

    since = Since(lab)
    lab.cut("overlay", PI.name, "pi2")
    until(lambda: kernel_goes(lab, PI.name, "pi2", "backup"), "the emulated Pi's own kernel routes by the backup")
    until_settled(lab, "backup", [(PI.name, "pi2")])
    assert ("failover", "pi--pi2") in since.moves((PI.name, "pi2"))
    assert any("metric 10 " in line and "wg0" in line for line in table(lab, PI.name, "pi2"))
    assert lab[PI.name].ping(lab["pi2"].service, count=5).answered == 5

    lab.mend("overlay", PI.name, "pi2")
    failback(lab, PI.name, "pi2")
    assert kernel_goes(lab, PI.name, "pi2", "overlay")

    shown = lab[PI.name].run(vagus_agent(lab, root, "routes", "show"), timeout_s=START_S)
    assert lab["pi2"].service in shown.stdout


def test_its_doctor_says_what_it_cannot_see_and_does_not_crash(lab: Lab, root: Path) -> None:
    done = lab[PI.name].run(vagus_agent(lab, root, "doctor"), check=False, timeout_s=START_S)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stdout + done.stderr
    assert "service address" in done.stdout


def test_it_stops_and_adopts_its_routes(lab: Lab, root: Path) -> None:
    lab.cut("overlay", PI.name, "pi2")
    until_settled(lab, "backup", [(PI.name, "pi2")])
    before = table(lab, PI.name, "pi2")
    assert lab.process(PI.name, "agent").stop(20) == 0
    assert table(lab, PI.name, "pi2") == before
    start_agent(lab, root)
    assert table(lab, PI.name, "pi2") == before
