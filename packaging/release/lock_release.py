"""Chooses the versions that a release holds, and writes locks/: one for each platform and Python, and one of the tools.

uv resolves once for all targets, with environment markers, so a fleet has one version of everything. (`pip download
--platform` asks the markers of the machine that it runs on, and would bring armv7l what only x86_64 needs.) pip then
fetches the files, and so tells which packages have no wheel for a target.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from packaging.markers import Marker

from install_release import PARTS, TOOL, Refused, Requirement
from wheelhouse import LOCKS, PYTHONS, Target, Wheelhouse, run

BUILD_TOOLS: Final = ("pip", "hatchling>=1.25", "setuptools", "wheel")
# What a build backend asks for only while it builds, where the machine has none.
_ASKED_LATER: Final = {"scikit_build_core.build": ("cmake", "ninja")}
_HEADER: Final = (
    "# Written by scripts/build-release --lock: requirement, hash, parts: file (how a wheel is made of a source)."
)
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)==(\S+)(?: *; *(.+))?")
_NO_WHEEL: Final = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)==")


class Pin(NamedTuple):
    """One version of a package, where its marker holds, and the hashes of all its files."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def holds(self, target: Target) -> bool:
        return not self.marker or Marker(self.marker).evaluate(environment(target))

    @property
    def line(self) -> str:
        return f"{self.name}=={self.version} " + " ".join(f"--hash={each}" for each in self.hashes)


def environment(target: Target) -> dict[str, str]:
    """What markers ask, as Debian's Python answers it on `target`."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python}.2",
        "os_name": "posix",
        "platform_machine": target.platform,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python}.2",
        "python_version": target.python,
        "sys_platform": "linux",
    }


def read_pins(text: str) -> list[Pin]:
    """What uv (or pip-compile) wrote."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.split(" #")[0].strip()
        if line and not line.startswith("#"):
            wish, *hashes = line.split(" --hash=")
            match = _PIN.fullmatch(wish.strip())
            if match is None:
                raise Refused(f"uv wrote {wish.strip()!r}, which is no pin")
            pins.append(Pin(match[1], match[2], match[3] or "", tuple(each.strip() for each in hashes)))
    return pins


def line_of(each: Requirement) -> str:
    built = f" ({each.build})" if each.build else ""
    return f"{each.line}  # {' '.join(each.parts)}: {each.file}{built}"


def write(house: Wheelhouse, source: Path, wanted: Sequence[Target]) -> None:
    LOCKS.mkdir(exist_ok=True)
    house.say("uv chooses the versions")
    with house.scratch() as folder:
        tools = folder / "tools.in"
        tools.write_text("\n".join(BUILD_TOOLS) + "\n")
        (LOCKS / "build.txt").write_text(_resolve(tools))
        project = source / "pyproject.toml"
        everything = folder / "everything.txt"
        everything.write_text(_resolve(project, *(f"--extra={part}" for part in PARTS if part != "agent")))
        chosen = {part: read_pins(_resolve(project, "--constraint", everything, *_extra(part))) for part in PARTS} | {
            TOOL: [pin for pin in read_pins((LOCKS / "build.txt").read_text()) if pin.name == TOOL]
        }
    needs: dict[Target, dict[Pin, tuple[str, ...]]] = {}
    for target in wanted:
        parts: dict[Pin, tuple[str, ...]] = {}
        for part, pins in chosen.items():
            for pin in pins:
                if pin.holds(target):
                    parts[pin] = (*parts.get(pin, ()), part)
        needs[target] = _one_each(parts, target)
    locks = {target: _files(house, target, parts) for target, parts in needs.items()}
    pure = _pure(locks)
    locks = {target: [_how(each, pure) for each in sorted(lock)] for target, lock in locks.items()}
    for target, lock in locks.items():
        target.lock.write_text("\n".join([_HEADER, *map(line_of, lock)]) + "\n")
    write_compile(house, {each for lock in locks.values() for each in lock if each.build == "compile"})


def write_compile(house: Wheelhouse, sources: Iterable[Requirement]) -> None:
    """What builds the sources that are compiled here, as wheels."""
    with house.scratch() as folder:
        wishes = folder / "compile.in"
        wishes.write_text(
            "\n".join(["pip", *(wish for each in sources for wish in build_requires(house, each))]) + "\n"
        )
        (LOCKS / "compile.txt").write_text(_resolve(wishes))


def build_requires(house: Wheelhouse, source: Requirement) -> list[str]:
    """What a source package wants for being built."""
    path = house.path(source.sha256)
    assert path is not None
    with tarfile.open(path) as archive:
        try:
            member = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/pyproject.toml")
        except KeyError:
            member = None
        project = tomllib.loads(member.read().decode()) if member is not None else {}
    system = project.get("build-system", {})
    found: list[str] = system.get("requires", ["setuptools", "wheel"])
    return [*found, *_ASKED_LATER.get(system.get("build-backend", ""), ())]


def _extra(part: str) -> list[str]:
    return [] if part == "agent" else [f"--extra={part}"]


def _resolve(project: Path, *options: object) -> str:
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    return run([*command, "--python-version", PYTHONS[0], *options, project], "uv pip compile")


def _one_each(parts: dict[Pin, tuple[str, ...]], target: Target) -> dict[Pin, tuple[str, ...]]:
    """The same package may come by several parts, with another marker each."""
    merged: dict[tuple[str, str], tuple[Pin, tuple[str, ...]]] = {}
    for pin, names in parts.items():
        known = merged.get((pin.name, pin.version), (pin, ()))
        merged[pin.name, pin.version] = known[0], tuple(dict.fromkeys((*known[1], *names)))
    twice = {name for name, _ in merged if [each for each, _ in merged].count(name) > 1}
    if twice:
        raise Refused(f"{target}: two versions of {', '.join(sorted(twice))}")
    return dict(merged.values())


def _files(house: Wheelhouse, target: Target, pins: dict[Pin, tuple[str, ...]]) -> list[Requirement]:
    """The file of each package: its wheel, or where there is none, its source."""
    house.say(f"{target}: which files there are")
    sources: list[Pin] = []
    with house.scratch() as folder:
        while True:
            lines = [pin.line for pin in pins if pin not in sources]
            try:
                house.download(
                    lines, folder, "--only-binary=:all:", *target.pip_options(), what=f"choosing for {target}"
                )
                break
            except Refused as refused:
                match = _NO_WHEEL.search(str(refused))
                absent = [pin for pin in pins if match is not None and pin.name == match[1] and pin not in sources]
                if not absent:
                    raise
                sources += absent
        for pin in sources:
            house.download_source(pin.line, pin.name, folder)
        by_hash = {house.keep(path): path.name for path in folder.glob("*.*")}
    found = []
    for pin, parts in pins.items():
        hashes = {each.removeprefix("sha256:") for each in pin.hashes}
        (sha256,) = hashes & set(by_hash)
        build = "compile" if pin in sources else ""
        found.append(Requirement(pin.name, pin.version, sha256, parts, by_hash[sha256], build))
    return found


def _pure(locks: dict[Target, list[Requirement]]) -> set[str]:
    """What has a wheel for no target at all has nothing to compile: such projects just publish none."""
    return {
        each.name
        for each in next(iter(locks.values()))
        if all(other.build for lock in locks.values() for other in lock if other.name == each.name)
    }


def _how(each: Requirement, pure: set[str]) -> Requirement:
    return each._replace(build="pure") if each.name in pure else each
