"""The agent on ARM: in Debian's arm64 userland under qemu-user, installed from the release's wheels, beside real hosts.

On demand (`scripts/test arm64`): it needs root, fetches a userland and wheels, and takes minutes. What runs is arm64's
Python, its wheels and its C library; the kernel is this machine's. Routes, rules, TUN interfaces, UDP and TCP are real.
qemu-user has no packet times, marks, nfnetlink or generic netlink: the agent says so and goes on.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_release import build
from lab.fleet_helpers import (
    AGENT,
    CONTROLLER,
    VPS,
    Since,
    failback,
    kernel_goes,
    node,
    table,
    until,
    until_settled,
    until_well,
)
from lab.harness import HostSpec, Lab
from lab.harness.hosts import Host
from userland import SUITES, check_machine, emulated, run_in, unpack
from wheelhouse import Target, Wheelhouse, default_cache

REPOSITORY = Path(__file__).parents[2]
PI = HostSpec("pi", "tokyo")
PACKAGES = ("python3", "python3-venv", "coreutils", "dash", "iproute2", "nftables", "libstdc++6", "zlib1g")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = [Target("aarch64", python) for python in SUITES]
    house = Wheelhouse(default_cache(), lambda text: None)
    return build(house, REPOSITORY, tmp_path_factory.mktemp("dist"), wanted, may_compile=False)


@pytest.fixture(scope="module", params=SUITES, ids=lambda python: f"python{python}")
def root(request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Debian's root with a release installed as a node does it, by its own install-release."""
    check_machine()
    folder = tmp_path_factory.mktemp("root")
    unpack("arm64", SUITES[request.param], PACKAGES, default_cache(), folder)
    subprocess.run(["cp", "-r", str(release), str(folder / "release")], check=True)
    with emulated("arm64"):
        said = run_in(
            folder,
            ["python3", "/release/install-release", "--release", "/release", "--activate"],
            "installing the release on arm64",
        )
        assert json.loads(said)["changed"] is True
        yield folder


def enter(host: Host, root: Path, lab: Lab) -> None:
    """The host's own /proc, /sys, /dev, /run and the lab's files within `root`; the mounts go with the host."""
    for place in (lab.dir, *map(Path, ("/proc", "/sys", "/dev", "/run"))):
        inside = root / place.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        host.run(["mount", "--rbind", str(place), str(inside)])


def vagus_agent(lab: Lab, root: Path, *arguments: str) -> list[str]:
    """The command line of the emulated Pi's own program."""
    config = str(lab[PI.name].directory / "agent.toml")
    return ["chroot", str(root), "/opt/vagus/current/bin/vagus-agent", *arguments, "--config", config]


def start_agent(lab: Lab, root: Path) -> None:
    lab.write_agent(lab[PI.name])
    # Without it, qemu of Debian 12 takes ten times as long for Debian 13's programs.
    lab[PI.name].spawn(vagus_agent(lab, root, "run"), name="agent", env={"QEMU_CPU": "cortex-a72"})


@pytest.fixture
def lab(root: Path) -> Iterator[Lab]:
    """A VPS with broker and controller, a Pi on this machine's own processor, and the one that is emulated."""
    with Lab((VPS, PI, HostSpec("pi2", "austin")), agent=AGENT, controller=CONTROLLER) as lab:
        enter(lab[PI.name], root, lab)
        lab.start_broker()
        lab.start_agents(VPS.name, "pi2")
        start_agent(lab, root)
        lab.start_controller()
        until_well(lab)
        yield lab


def test_it_reports_probes_and_moves_traffic(lab: Lab, root: Path) -> None:
    agent = lab.process(PI.name, "agent")
    assert Path(f"/proc/{agent.pid}/exe").resolve().name.startswith("qemu-aarch64")
    system = node(lab, PI.name)["report"]["system"]
    assert system["memory_total"] > 0
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

    shown = lab[PI.name].run(vagus_agent(lab, root, "routes", "show"))
    assert lab["pi2"].service in shown.stdout


def test_its_doctor_says_what_it_cannot_see_and_does_not_crash(lab: Lab, root: Path) -> None:
    done = lab[PI.name].run(vagus_agent(lab, root, "doctor"), check=False, timeout_s=120)
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
    until(lambda: "runs: 2 peers" in lab.process(PI.name, "agent").tail(), "it runs again")
    assert table(lab, PI.name, "pi2") == before
