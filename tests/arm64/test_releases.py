"""A whole release starts where it is for: on Debian's arm64 and armhf, of both Pythons, on the oldest core it is for.

What `install-release` asks before a release counts is asked here of each: that agent, controller, etcd's client and
OpenID Connect load with all that they need, and that the agent says its version.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arm64.userlands import ARCHITECTURE, built, installed
from install_release import PARTS
from userland import SUITES, run_in
from wheelhouse import Target


@pytest.fixture(scope="module", params=ARCHITECTURE)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(request.param, tmp_path_factory.mktemp("dist"))


@pytest.mark.parametrize("python", SUITES)
def test_all_of_it_is_installed_and_starts(release: Path, python: str, tmp_path: Path) -> None:
    targets = json.loads((release / "release.json").read_text())["targets"]
    target = Target(next(iter(targets)).partition("-")[0], python)
    assert str(target) in targets
    arch = ARCHITECTURE[target.platform]
    with installed(release, target, ",".join(PARTS), tmp_path) as root:
        machine = run_in(root, arch, ["python3", "-c", "import os; print(os.uname().machine)"], "uname")
        assert machine.strip() == target.platform
        for program in ("vagus-agent", "vagus-controller", "vagusctl"):
            said = run_in(root, arch, [f"/opt/vagus/current/bin/{program}", "--help"], program)
            assert "usage" in said.lower()
