#!/usr/bin/env python3
"""Puts a release of vagus on this node, beside those that are there, and switches between them.

ROOT/releases/VERSION   a virtual environment each. RECORD in it is written last: without it a release is half-made, is
                        never switched to, and is made anew
ROOT/current            leads to the active one; replaced by rename, so at every moment it leads somewhere whole
ROOT/previous           leads to the one that was active before: where --rollback goes

Python's standard library alone, and no network. All that a release needs is verified before anything is changed. It
must parse on every Python 3.7 or newer, to say there that it is too old.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

OLDEST = (3, 11)
DEFAULT_ROOT = "/opt/vagus"
RECORD = "vagus-release.json"
# Each part's packages, and what of them must load before a release counts as made.
PARTS = {
    "agent": "vagus_agent.daemon, pyroute2",
    "etcd": "etcd3",
    "controller": "vagus_controller.daemon, vagus_controller.ctl",
    "oidc": "authlib, httpx2",
}
# What of a lock is not installed, but installs.
TOOL = "pip"
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!]*")
_LOCK_LINE = re.compile(
    r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})  # ([a-z]+(?: [a-z]+)*): (\S+)( \((?:pure|compile)\))?"
)
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
# Byte code beside the sources, and pip's own copies: of the size of what is unpacked.
_ROOM_FACTOR = 2.5
_SLOW_S = 1800


class Refused(Exception):
    """Why nothing was done, or what failed, in words for the person at the node."""


class Requirement(NamedTuple):
    """A line of a lock. `build`: how a wheel is made of a source file, in the locks that a release is built from."""

    name: str
    version: str
    sha256: str
    parts: tuple[str, ...]
    file: str
    build: str = ""

    @property
    def line(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


# --- what a release holds --------------------------------------------------------------------------------------------


def platform_of(machine: str, bits: int) -> str:
    """The platform whose wheels fit. A 32-bit system on a 64-bit kernel, as on many Pis, calls its machine aarch64."""
    if bits == 64 and machine in ("x86_64", "aarch64"):
        return machine
    if bits == 32 and machine in ("armv7l", "armv8l", "aarch64"):
        return "armv7l"
    if machine == "armv6l":
        raise Refused("this is an ARMv6 processor (Pi 1, Pi Zero): vagus needs ARMv7 or newer")
    raise Refused(f"{machine} with {bits} bits: vagus runs on x86_64, aarch64 and armv7l")


def read_sums(text: str) -> dict[str, str]:
    """File → SHA-256, of SHA256SUMS."""
    sums = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _SUMS_LINE.fullmatch(line)
        if match is None or match[2].startswith("/") or ".." in match[2].split("/"):
            raise Refused(f"SHA256SUMS line {number} is damaged: copy the release again")
        sums[match[2]] = match[1]
    return sums


def read_lock(text: str, name: str) -> list[Requirement]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#"):
            match = _LOCK_LINE.fullmatch(line)
            if match is None:
                raise Refused(f"{name} line {number} is damaged: copy the release again")
            build = (match[6] or "").strip(" ()")
            found.append(Requirement(match[1], match[2], match[3], tuple(match[4].split()), match[5], build))
    return found


def versions_kept(serials: dict[str, int], needed: Sequence[str | None], keep: int) -> list[str]:
    """Of the whole releases, by the order in which they were made: the `needed`, filled up to `keep` by the newest."""
    kept = list(dict.fromkeys(version for version in needed if version is not None))
    for version in sorted(serials, key=lambda each: -serials[each]):
        if version not in kept and len(kept) < keep:
            kept.append(version)
    return kept


class Release:
    """A release directory. Whatever is read from it was verified against SHA256SUMS."""

    def __init__(self, folder: Path, digest: str = "") -> None:
        self.folder = folder
        try:
            content = (folder / "SHA256SUMS").read_bytes()
        except OSError as error:
            raise Refused(f"{folder} is not a release of vagus: SHA256SUMS: {error.strerror}") from None
        if digest and hashlib.sha256(content).hexdigest() != digest.lower():
            raise Refused(f"{folder} is not the release that --digest names: its SHA256SUMS is another")
        self.sums = read_sums(_text(content, "SHA256SUMS"))
        try:
            about = json.loads(self._read("release.json"))
            self.version, self.targets = str(about["version"]), dict(about["targets"])
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{folder}/release.json is damaged: copy the release again") from None
        _check_version(self.version)

    def wheels(self, target: str, parts: Sequence[str]) -> dict[Requirement, Path]:
        """What `parts` need on `target`, and pip itself, each with its wheel: whole and unchanged."""
        name = f"locks/{target}.txt"
        places = {sha256: path for path, sha256 in self.sums.items() if path.endswith(".whl")}
        found = {}
        for each in read_lock(_text(self._read(name), name), name):
            if TOOL in each.parts or set(parts) & set(each.parts):
                path = places.get(each.sha256)
                if path is None:
                    raise Refused(f"{name} wants a {each.name} {each.version} that SHA256SUMS does not list")
                self._verify(path)
                found[each] = self.folder / path
        return found

    def check_node(self, node: Node) -> None:
        if node.target not in self.targets:
            raise Refused(
                f"this node is {node.platform} with Python {node.python}; release {self.version} has wheels for "
                f"{', '.join(sorted(self.targets))}. Build it with scripts/build-release --platform {node.platform} "
                f"--python {node.python}, or run this by another Python that it has"
            )
        needed = tuple(self.targets[node.target].get("glibc", ()))
        if node.glibc < needed:
            has = f"has {_dotted(node.glibc)}" if node.glibc else "has another C library, such as musl"
            raise Refused(f"the wheels need glibc {_dotted(needed)} or newer; this system {has}")

    def _read(self, name: str) -> bytes:
        self._verify(name)
        return (self.folder / name).read_bytes()

    def _verify(self, name: str) -> None:
        if name not in self.sums:
            raise Refused(f"SHA256SUMS does not list {name}: this release is not whole")
        try:
            with (self.folder / name).open("rb") as file:
                sha256 = hashlib.sha256()
                for block in iter(lambda: file.read(1 << 20), b""):
                    sha256.update(block)
        except OSError as error:
            raise Refused(f"{self.folder / name}: {error.strerror}; copy the release again") from None
        if sha256.hexdigest() != self.sums[name]:
            raise Refused(f"{self.folder / name} is not what SHA256SUMS says: damaged or tampered with")


# --- what this node is -----------------------------------------------------------------------------------------------


class Node(NamedTuple):
    platform: str
    python: str
    # () where it is another C library.
    glibc: tuple[int, ...]

    @property
    def target(self) -> str:
        return f"{self.platform}-cp{self.python.replace('.', '')}"


def this_node() -> Node:
    if sys.version_info < OLDEST:
        raise Refused(
            f"{sys.executable} is Python {platform.python_version()}; vagus needs {_dotted(OLDEST)} or newer. "
            "Debian 12, Raspberry Pi OS 12 and newer have it"
        )
    if sys.implementation.name != "cpython":
        raise Refused(f"{sys.executable} is {sys.implementation.name}; vagus needs CPython")
    try:
        import venv  # noqa: F401
    except ImportError:
        raise Refused(f"{sys.executable} lacks its module venv: apt-get install python3-venv") from None
    name, version = platform.libc_ver()
    glibc = tuple(int(part) for part in version.split(".") if part.isdigit()) if name == "glibc" else ()
    bits = 64 if sys.maxsize > 2**32 else 32
    return Node(platform_of(os.uname().machine, bits), _dotted(sys.version_info[:2]), glibc)


# --- what is installed -----------------------------------------------------------------------------------------------


class Tree:
    """ROOT: releases side by side, and the two links."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for link in ("current", "previous"):
            if os.path.lexists(root / link) and not (root / link).is_symlink():
                raise Refused(f"{root / link} is not a link: something else put it there; move it away first")

    @property
    def active(self) -> str | None:
        return self._named_by("current")

    @property
    def previous(self) -> str | None:
        return self._named_by("previous")

    def _named_by(self, link: str) -> str | None:
        try:
            version = Path(os.readlink(self.root / link)).name
        except OSError:
            return None
        return version if self.path(version).is_dir() else None

    def path(self, version: str) -> Path:
        return self.root / "releases" / version

    def present(self) -> list[str]:
        """Every release, half-made ones too."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(each.name for each in (self.root / "releases").iterdir() if each.is_dir())
        return []

    def record(self, version: str) -> dict[str, Any] | None:
        """What was noted when the release was whole; None: it is not."""
        try:
            record = json.loads((self.path(version) / RECORD).read_bytes())
            return record if isinstance(record["wheels"], dict) and isinstance(record["serial"], int) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_record(self, version: str, node: Node, parts: Sequence[str], wheels: dict[str, str]) -> None:
        serials = [each["serial"] for each in map(self.record, self.present()) if each is not None]
        before = self.record(version)
        record = {
            "version": version,
            "python": node.python,
            "parts": list(parts),
            "serial": before["serial"] if before is not None else max(serials, default=0) + 1,
            "wheels": wheels,
        }
        # All else must be on the disk before the word that it is.
        os.sync()
        file = self.path(version) / (RECORD + ".new")
        with file.open("w") as stream:
            json.dump(record, stream, indent=1, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        file.replace(self.path(version) / RECORD)
        _sync_folder(self.path(version))

    def activate(self, version: str) -> None:
        """The link `previous` goes first: wherever this ends, it leads to what was active before, or is."""
        if self.active is not None:
            self._point("previous", self.active)
        self._point("current", version)

    def roll_back(self, version: str) -> None:
        """`previous` stays as it is: a second time changes nothing."""
        self._point("current", version)

    def _point(self, link: str, version: str) -> None:
        fresh = self.root / f".{link}.new"
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(f"releases/{version}")
        fresh.replace(self.root / link)
        _sync_folder(self.root)

    def remove(self, version: str) -> None:
        if self.previous == version:
            (self.root / "previous").unlink()
        self.clear(version)

    def clear(self, version: str) -> None:
        """The record goes first: half removed is half-made."""
        with contextlib.suppress(FileNotFoundError):
            (self.path(version) / RECORD).unlink()
            _sync_folder(self.path(version))
        shutil.rmtree(self.path(version))


def trouble_of(venv: Path, version: str, parts: Sequence[str]) -> str:
    """Why a release does not start on this machine; "" when it does."""
    loads = ", ".join(imports for part, imports in PARTS.items() if part in parts)
    try:
        done = _run([str(venv / "bin/python"), "-I", "-W", "ignore", "-c", f"import {loads}"], venv)
        if done.returncode == 0:
            done = _run([str(venv / "bin/vagus-agent"), "--version"], venv)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "it does not start within half an hour"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}" + (": not for this processor" if done.returncode == -4 else "")
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["no word why"])[-1]
    said = done.stdout.strip()
    return "" if said == f"vagus-agent {version}" else f"it calls itself {said!r}"


def make(tree: Tree, version: str, wheels: dict[Requirement, Path], parts: Sequence[str]) -> None:
    """The environment of `version`; what an earlier run has left of it is gone."""
    import venv

    folder = tree.path(version)
    if folder.exists():
        tree.clear(version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(folder.parent, wheels)
    try:
        venv.EnvBuilder(symlinks=True).create(folder)
        fill(tree, version, wheels, parts)
    except OSError as error:
        raise Refused(f"{error.filename or folder}: {error.strerror}; run this again to finish {version}") from None


def fill(tree: Tree, version: str, wheels: dict[Requirement, Path], parts: Sequence[str]) -> None:
    """Install `wheels` into the environment, and prove that it starts. What is there already stays as it is.

    Without dependencies: the lock is all of them, and a marker that asks for the machine is wrong where a 32-bit system
    runs on a 64-bit kernel.
    """
    folder = tree.path(version)
    tool = next(path for each, path in wheels.items() if TOOL in each.parts)
    lines = [each.line for each in wheels if TOOL not in each.parts]
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    try:
        (temporary / "lock.txt").write_text("\n".join(lines) + "\n")
        where = [f"--find-links={each}" for each in sorted({str(path.parent) for path in wheels.values()})]
        pip = [str(folder / "bin/python"), "-I", f"{tool}/pip", "--no-cache-dir", "--disable-pip-version-check"]
        install = [
            "install",
            "--no-input",
            "--no-index",
            *where,
            "--only-binary=:all:",
            "--require-hashes",
            "--no-deps",
        ]
        done = _run([*pip, *install, "--compile", "-r", str(temporary / "lock.txt")], folder, TMPDIR=str(temporary))
    except subprocess.TimeoutExpired:
        raise Refused(f"pip was not done within half an hour; run this again to finish {version}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if done.returncode != 0:
        words = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-8:])
        raise Refused(f"pip could not install {version}; run this again to finish it:\n{words}")
    trouble = trouble_of(folder, version, parts)
    if trouble:
        raise Refused(f"release {version} does not start on this node: {trouble}")


# --- what is asked for -----------------------------------------------------------------------------------------------


class Installer:
    """Carries out one command line. `changed` tells whether anything was, or with `check` would be."""

    def __init__(self, tree: Tree, *, check: bool) -> None:
        self.tree = tree
        self.check = check
        self.changed = False
        # Releases that were seen to start, by this very run.
        self._proven: set[str] = set()
        # As the links are, or with `check` would be.
        self.active, self.previous = tree.active, tree.previous

    def install(self, release: Release, parts: Sequence[str]) -> None:
        version, tree, node = release.version, self.tree, this_node()
        release.check_node(node)
        record = tree.record(version)
        before = record or {"parts": [], "wheels": {}, "python": node.python}
        parts = [part for part in PARTS if part == "agent" or part in parts or part in before["parts"]]
        wheels = release.wheels(node.target, parts)
        wanted = {each.name: each.sha256 for each in wheels if TOOL not in each.parts}
        sound = record is not None and not trouble_of(tree.path(version), version, before["parts"])
        if sound:
            self._proven.add(version)
        other = [name for name in wanted if before["wheels"].get(name, wanted[name]) != wanted[name]]
        if sound and version == self.active and before["python"] != node.python:
            raise Refused(
                f"{version} is active and made for Python {before['python']}: run this by python{before['python']}"
            )
        if sound and version == self.active and other:
            raise Refused(
                f"{version} is active, and was made of other files ({', '.join(other)}): "
                "what has changed needs a version of its own"
            )
        whole = sound and before["python"] == node.python and not other
        if whole and wanted.items() <= before["wheels"].items():
            return
        self.changed = True
        if self.check:
            return
        if whole:
            fill(tree, version, wheels, parts)
        else:
            make(tree, version, wheels, parts)
        tree.write_record(version, node, parts, wanted)
        self._proven.add(version)

    def activate(self, version: str) -> None:
        self._must_be_whole(version)
        if version == self.active:
            return
        self.changed = True
        self.active, self.previous = version, self.active or self.previous
        if not self.check:
            self.tree.activate(version)

    def roll_back(self) -> str:
        if self.previous is None:
            raise Refused("there is nothing to go back to: no release was active before")
        self._must_be_whole(self.previous)
        if self.previous != self.active:
            self.changed = True
            self.active = self.previous
            if not self.check:
                self.tree.roll_back(self.previous)
        return self.previous

    def remove(self, version: str) -> None:
        if version == self.active:
            raise Refused(f"{version} is active: switch to another release first")
        if version not in self.tree.present():
            return
        self.changed = True
        if version == self.previous:
            self.previous = None
        if not self.check:
            self.tree.remove(version)

    def keep(self, count: int) -> None:
        records = {version: self.tree.record(version) for version in self.tree.present()}
        serials = {version: record["serial"] for version, record in records.items() if record is not None}
        kept = versions_kept(serials, (self.active, self.previous), count)
        for version in records:
            if version not in kept:
                self.remove(version)

    def _must_be_whole(self, version: str) -> None:
        if version in self._proven or (self.check and self.changed):
            return
        record = self.tree.record(version)
        if record is None:
            there = version in self.tree.present()
            raise Refused(f"release {version} is {'half-made: install it again' if there else 'not installed'}")
        trouble = trouble_of(self.tree.path(version), version, record["parts"])
        if trouble:
            raise Refused(f"release {version} does not start on this node: {trouble}; install it again")

    def releases(self) -> list[dict[str, Any]]:
        found = []
        for version in self.tree.present():
            record = self.tree.record(version)
            parts = record["parts"] if record is not None else []
            found.append({"version": version, "whole": record is not None, "parts": parts})
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    os.umask(0o022)
    try:
        answer = carry_out(options)
    except Refused as refused:
        sys.stderr.write(f"install-release: {refused}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"install-release: {error.filename or options.root}: {error.strerror}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def carry_out(options: argparse.Namespace) -> dict[str, Any]:
    if sys.version_info < OLDEST:
        this_node()
    root = Path(os.path.abspath(options.root))
    release = Release(Path(os.path.abspath(options.release)), options.digest) if options.release else None
    if release is not None and options.activate not in (None, True, release.version):
        raise Refused(f"{release.folder} is release {release.version}, not {options.activate}")
    with _alone(root, read_only=options.check or options.list):
        installer = Installer(Tree(root), check=options.check)
        version = options.remove
        if release is not None:
            version = release.version
            installer.install(release, options.parts)
        if options.rollback:
            version = installer.roll_back()
        elif options.activate:
            version = release.version if release is not None else options.activate
            installer.activate(version)
        if options.remove:
            installer.remove(options.remove)
        if options.keep:
            installer.keep(options.keep)
        answer = {
            "changed": installer.changed,
            "version": version,
            "active": installer.active,
            "previous": installer.previous,
        }
        if options.list:
            answer["releases"] = installer.releases()
        return answer


@contextlib.contextmanager
def _alone(root: Path, *, read_only: bool) -> Iterator[None]:
    """Nobody else changes ROOT meanwhile. The lock is on the folder itself and ends with this process."""
    if read_only and not root.is_dir():
        yield
        return
    if not read_only:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise Refused(f"{root} may not be written: run this as root")
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another install-release is at work in {root}") from None
        yield
    finally:
        os.close(folder)


def _check_room(folder: Path, wheels: dict[Requirement, Path]) -> None:
    unpacked = 0
    for path in wheels.values():
        with zipfile.ZipFile(path) as wheel:
            unpacked += sum(each.file_size for each in wheel.infolist())
    needed, free = int(unpacked * _ROOM_FACTOR), shutil.disk_usage(folder).free
    if free < needed:
        raise Refused(
            f"{folder} has {free >> 20} MB left; this release needs {needed >> 20}: --keep or --remove old ones"
        )


def _run(command: Sequence[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Without the caller's Python and pip settings: what they say is not for this environment."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "PIP_CONFIG_FILE": os.devnull,
        **more,
    }
    return subprocess.run(
        list(command), env=environment, cwd="/", capture_output=True, text=True, timeout=_SLOW_S, check=False
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(f"{name} is damaged: copy the release again") from None


def _check_version(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise Refused(f"{version!r} is no version")
    return version


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version, as 0.1.0 is")
    return text


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number of releases, 1 or more")
    return int(text)


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if not set(parts) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"{text!r}: names of {', '.join(PARTS)}, with commas")
    return parts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="install-release",
        description="Installs releases of vagus side by side, without a network, and switches between them. "
        "Prints one line of JSON: changed, version, active, previous.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--release", metavar="DIR", help="install the release in DIR; finishes a half-made one")
    what.add_argument("--rollback", action="store_true", help="switch to the release that was active before")
    what.add_argument("--list", action="store_true", help="tell what is installed")
    what.add_argument("--remove", metavar="VERSION", type=_version, help="remove a release that is not active")
    parser.add_argument(
        "--activate",
        nargs="?",
        const=True,
        metavar="VERSION",
        type=_version,
        help="switch: with --release to that one, alone to VERSION",
    )
    parser.add_argument(
        "--keep", metavar="N", type=_count, help="remove all but N: the active, the one before, and the newest"
    )
    parser.add_argument(
        "--parts", metavar="PART,…", type=_parts, default=list(PARTS), help=f"of {', '.join(PARTS)}; all if not given"
    )
    parser.add_argument("--digest", metavar="SHA256", default="", help="what the SHA-256 of SHA256SUMS must be")
    parser.add_argument("--root", metavar="DIR", default=DEFAULT_ROOT, help=DEFAULT_ROOT)
    parser.add_argument("--check", action="store_true", help="verify all, tell what would change, and change nothing")
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.activate is True and not options.release:
        parser.error("--activate needs a VERSION, or --release DIR")
    if options.activate and (options.rollback or options.remove):
        parser.error("--activate goes with --release, or alone")
    if not (options.release or options.rollback or options.list or options.remove or options.activate or options.keep):
        parser.error("one of --release, --activate, --rollback, --list, --remove, --keep is needed")
    return options


if __name__ == "__main__":
    sys.exit(main())
