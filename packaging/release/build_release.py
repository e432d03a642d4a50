"""Makes dist/vagus-VERSION: everything that a node needs to install this version, without a network.

  vagus-VERSION/install-release       what a node runs
  vagus-VERSION/SHA256SUMS            of every file
  vagus-VERSION/release.json          version, commit, what it was made for
  vagus-VERSION/locks/TARGET.txt      requirements with hashes, one file for each platform and Python
  vagus-VERSION/wheels/any            vagus itself, and all that is for any machine
  vagus-VERSION/wheels/PLATFORM       the rest
  vagus-VERSION/systemd               the units

The version is the one in protocol/vagus_protocol/__init__.py. The same commit and locks make the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import lock_release
from compile_armv7l import compile_all
from install_release import PARTS, Refused, Requirement
from wheelhouse import (
    PLATFORMS,
    PYTHONS,
    Target,
    Wheelhouse,
    default_cache,
    epoch_of,
    needed_glibc,
    read,
    run,
    sha256_of,
    targets,
)

SOURCE: Final = Path(__file__).parents[2]


def build(house: Wheelhouse, source: Path, out: Path, wanted: Sequence[Target], *, may_compile: bool) -> Path:
    """The finished release directory. What was there under its name is replaced at the end, whole."""
    epoch = epoch_of(source)
    # The oldest Python first: what is compiled for it may do for the others.
    locks = {target: read(target.lock) for target in sorted(wanted, key=lambda one: PYTHONS.index(one.python))}
    files = {target: house.fetch(target, lock) for target, lock in locks.items()}
    wheels = {target: _wheels(house, target, found, may_compile=may_compile) for target, found in files.items()}
    house.say("building vagus")
    own = house.build(source, epoch)
    version = own.name.split("-")[1]
    partial = out / f".vagus-{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for target, found in wheels.items():
        _lay_out(partial, target, version, {**found, _own(own, version): own})
    about = {
        "version": version,
        "commit": _commit(source),
        "targets": {
            str(target): {"glibc": needed_glibc((path.name for path in found.values()), target.python)}
            for target, found in wheels.items()
        },
    }
    (partial / "release.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    shutil.copyfile(source / "packaging/release/install_release.py", partial / "install-release")
    units = sorted((source / "packaging/systemd").glob("*.service"))
    if units:
        (partial / "systemd").mkdir()
    for unit in units:
        shutil.copyfile(unit, partial / "systemd" / unit.name)
    _seal(partial, epoch)
    final = out / f"vagus-{version}"
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)
    return final


def _wheels(
    house: Wheelhouse, target: Target, files: dict[Requirement, Path], *, may_compile: bool
) -> dict[Requirement, Path]:
    """The wheel of each requirement: as it came, or built here."""
    compiled = {each: path for each, path in files.items() if each.build == "compile"}
    missing = [each for each in compiled if compiled_wheel(house, each, target) is None]
    if missing and not (may_compile and target.platform == "armv7l"):
        names = ", ".join(f"{each.name} {each.version}" for each in missing)
        raise Refused(
            f"{target}: nobody publishes wheels of {names}. Compile them with --compile-armv7l (root, mmdebstrap, "
            "qemu-user-static; some minutes, once), or leave the platform out: --platform x86_64 --platform aarch64"
        )
    if missing:
        compile_all(house, target, {each: compiled[each] for each in missing})
    found = {}
    for each, path in files.items():
        if each.build == "pure":
            found[each] = house.pure(each, path)
        elif each.build == "compile":
            wheel = compiled_wheel(house, each, target)
            assert wheel is not None
            found[each] = wheel
        else:
            found[each] = path
    return found


def compiled_wheel(house: Wheelhouse, each: Requirement, target: Target) -> Path | None:
    """What was compiled here of a source for `target`, or for an older Python where that holds for newer ones too: a
    release has one file of a name."""
    for python in PYTHONS[: PYTHONS.index(target.python) + 1]:
        wheel = house.built(f"{each.sha256}-{target._replace(python=python)}")
        if wheel is not None and (python == target.python or "-abi3-" in wheel.name):
            return wheel
    return None


def _own(wheel: Path, version: str) -> Requirement:
    return Requirement("vagus", version, sha256_of(wheel), tuple(PARTS), wheel.name)


def _lay_out(folder: Path, target: Target, version: str, wheels: dict[Requirement, Path]) -> None:
    lines = [
        f"# vagus {version} for {target}. By hand, in a virtual environment, from this folder:",
        "# pip install --no-index --no-deps --require-hashes --find-links ../wheels/any "
        f"--find-links ../wheels/{target.platform} -r {target}.txt",
    ]
    for each, path in sorted(wheels.items(), key=lambda one: one[0].name):
        place = folder / "wheels" / ("any" if path.name.endswith("-any.whl") else target.platform)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / path.name).exists():
            shutil.copyfile(path, place / path.name)
        line = Requirement(each.name, each.version, sha256_of(path), each.parts, path.name)
        lines.append(lock_release.line_of(line))
    (folder / "locks").mkdir(exist_ok=True)
    (folder / "locks" / f"{target}.txt").write_text("\n".join(lines) + "\n")


def _seal(folder: Path, epoch: int) -> None:
    """SHA256SUMS, and the same modes and times whoever built it."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    (folder / "SHA256SUMS").write_text("".join(f"{sha256_of(folder / path)}  {path}\n" for path in files))
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o755 if path.is_dir() or path.name == "install-release" else 0o644)
        os.utime(path, (epoch, epoch))


def _commit(source: Path) -> str:
    """The commit, with a + when the tree differs from it; "" outside of git."""
    try:
        commit = run(["git", "-C", source, "rev-parse", "HEAD"], "git rev-parse").strip()
        return commit + ("+" if run(["git", "-C", source, "status", "--porcelain"], "git status") else "")
    except (Refused, OSError):
        return ""


def show(house: Wheelhouse, wanted: Sequence[Target]) -> str:
    """What a release would hold, and what must be compiled first."""
    lines = []
    for target in wanted:
        lock = read(target.lock)
        glibc = needed_glibc((each.file for each in lock if each.build != "pure"), target.python)
        lines.append(f"{target}: {len(lock)} packages, glibc 2.{glibc[1]} or newer")
        for each in lock:
            how = ""
            if each.build == "compile":
                how = "compiled" if compiled_wheel(house, each, target) else "TO BE COMPILED: --compile-armv7l"
            elif each.build == "pure":
                how = "built here, for any machine"
            lines.append(f"  {each.name} {each.version}  {each.file}{f'  ({how})' if how else ''}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # What was registered with the kernel is taken back at SIGTERM too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    wanted = targets(options.platform or PLATFORMS, options.python or PYTHONS)
    house = Wheelhouse(options.cache, _say)
    try:
        if options.lock:
            lock_release.write(house, options.source, targets(PLATFORMS, PYTHONS))
        elif options.list:
            sys.stdout.write(show(house, wanted) + "\n")
        else:
            release = build(house, options.source, options.out, wanted, may_compile=options.compile_armv7l)
            _say(f"{', '.join(map(str, wanted))}; its digest, for install-release --digest:")
            _say(sha256_of(release / "SHA256SUMS"))
            sys.stdout.write(f"{release}\n")
    except Refused as refused:
        _say(str(refused))
        return 1
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"build-release: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/build-release", description=(__doc__ or "").split("\n\n")[0])
    several = "; several by repeating it; all when not given"
    parser.add_argument("--platform", action="append", choices=PLATFORMS, help=f"for which machines{several}")
    parser.add_argument("--python", action="append", choices=PYTHONS, help=f"for which Python{several}")
    parser.add_argument("--out", type=Path, default=SOURCE / "dist", metavar="DIR", help="where to (dist)")
    parser.add_argument("--source", type=Path, default=SOURCE, metavar="DIR", help="another tree of vagus to build")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help=str(default_cache()))
    parser.add_argument("--compile-armv7l", action="store_true", help="compile what has no armv7l wheels, under qemu")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="only tell what the release would hold")
    what.add_argument("--lock", action="store_true", help="choose the newest versions that pyproject.toml allows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
