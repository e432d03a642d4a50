"""Wheels for armv7l that nobody publishes, compiled by Debian's own gcc for armhf under qemu-user: minutes, once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import lock_release
from install_release import Refused, Requirement
from userland import SUITES, check_machine, emulated, run_in, unpack
from wheelhouse import LOCKS, Target, Wheelhouse

_PACKAGES: Final = (
    "python3",
    "python3-dev",
    "gcc",
    "libc6-dev",
    "libffi-dev",
    "coreutils",
    "dash",
    "sed",
    "libstdc++6",
)


def compile_all(house: Wheelhouse, target: Target, sources: Mapping[Requirement, Path]) -> None:
    check_machine()
    names = ", ".join(f"{each.name} {each.version}" for each in sources)
    house.say(f"{target}: compiling {names} under qemu; a minute or two each")
    with house.scratch() as folder:
        root, work = folder / "root", folder / "root/build"
        root.mkdir()
        unpack("armhf", SUITES[target.python], _PACKAGES, house.cache, root)
        work.mkdir()
        house.download(
            [pin.line for pin in lock_release.read_pins((LOCKS / "compile.txt").read_text()) if pin.holds(target)],
            work,
            "--only-binary=:all:",
            *target.pip_options(),
            what="fetching what compiles",
        )
        with emulated("armhf"):
            for requirement, source in sources.items():
                house.note(f"{requirement.sha256}-{target}", _compile(root, work, source, target))


def _compile(root: Path, work: Path, source: Path, target: Target) -> Path:
    shutil.copyfile(source, work / source.name)
    tool = next(path for path in work.glob("pip-*.whl"))
    pip = ["CC=gcc", "python3", f"/build/{tool.name}/pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--find-links=/build", "--no-cache-dir", "--wheel-dir=/build/made"]
    command = [*pip, "wheel", *options, f"/build/{source.name}"]
    run_in(root, "armhf", command, f"compiling {source.name} for {target}")
    made = [path for path in (work / "made").glob("*.whl") if path.name.endswith("_armv7l.whl")]
    if len(made) != 1:
        raise Refused(
            f"compiling {source.name} made {[path.name for path in made]}, where one wheel for armv7l was due"
        )
    wheel = made[0].replace(work / made[0].name)
    shutil.rmtree(work / "made")
    return wheel
