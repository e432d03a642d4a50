"""Debian's userland of another processor, with a release installed in it as a node does it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from build_release import build
from userland import SUITES, check_machine, emulated, run_in, unpack
from wheelhouse import Target, Wheelhouse, default_cache

REPOSITORY = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inside"
PYTHONPATH = f"PYTHONPATH=/{INSIDE.name}"
ARCHITECTURE = {"aarch64": "arm64", "armv7l": "armhf"}
# Not python3-venv: a release brings its own pip.
PACKAGES = ("python3", "coreutils", "dash", "libstdc++6", "zlib1g")


def built(platform: str, folder: Path) -> Path:
    """A release for this platform and every Python; what nobody publishes is compiled, once, which takes minutes."""
    check_machine()
    house = Wheelhouse(default_cache(), print)
    return build(house, REPOSITORY, folder, [Target(platform, python) for python in SUITES], may_compile=True)


@contextmanager
def installed(release: Path, target: Target, parts: str, folder: Path) -> Iterator[Path]:
    """The root; programs in it run while this lasts."""
    check_machine()
    arch = ARCHITECTURE[target.platform]
    unpack(arch, SUITES[target.python], PACKAGES, default_cache(), folder)
    shutil.copytree(release, folder / "release")
    shutil.copytree(INSIDE, folder / INSIDE.name)
    with emulated(arch):
        install = [
            PYTHONPATH,
            "python3",
            "/release/install-release",
            "--release",
            "/release",
            "--activate",
            "--parts",
            parts,
        ]
        said = json.loads(run_in(folder, arch, install, f"installing the release for {target}"))
        assert said["changed"] is True
        assert said["active"] == said["version"]
        yield folder
