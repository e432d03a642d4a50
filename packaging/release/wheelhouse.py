"""Where a release's files come from: the locks, pip, a cache by hash, and wheels that are built here.

A lock names each file by its hash, so the same locks make the same wheelhouse, whatever the index offers meanwhile.
pip, and what builds wheels, are themselves locked (locks/build.txt) and run in an environment of their own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from install_release import Refused, Requirement, read_lock

LOCKS: Final = Path(__file__).parent / "locks"
PLATFORMS: Final = ("x86_64", "aarch64", "armv7l")
PYTHONS: Final = ("3.11", "3.13")
# Debian 12's. Older wheels fit too; a newer one would not load there.
NEWEST_GLIBC: Final = 36
_OLDEST_GLIBC: Final = {"x86_64": 5, "aarch64": 17, "armv7l": 17}
_MANYLINUX: Final = re.compile(r"manylinux(?:_2_(\d+)|(2014|2010|1))_")
# Of the Debian that has this Python: what compiled wheels need.
_GLIBC_OF: Final = {"3.11": 36, "3.13": 41}
_LEGACY: Final = {"2014": 17, "2010": 12, "1": 5}
_EPOCH_OF_ZIP: Final = 315532800


class Target(NamedTuple):
    platform: str
    python: str

    def __str__(self) -> str:
        return f"{self.platform}-cp{self.python.replace('.', '')}"

    @property
    def lock(self) -> Path:
        return LOCKS / f"{self}.txt"

    def pip_options(self) -> list[str]:
        """What makes pip choose for this target and not for the machine that it runs on."""
        tags = [f"linux_{self.platform}"]
        tags += [f"manylinux_2_{n}_{self.platform}" for n in range(NEWEST_GLIBC, _OLDEST_GLIBC[self.platform] - 1, -1)]
        tags += [f"manylinux{name}_{self.platform}" for name in ("2014", "2010", "1")]
        return [
            *("--implementation", "cp", "--python-version", self.python),
            *(option for tag in tags for option in ("--platform", tag)),
        ]


def targets(platforms: Iterable[str], pythons: Iterable[str]) -> list[Target]:
    return [Target(platform, python) for platform in platforms for python in pythons]


def needed_glibc(wheels: Iterable[str], python: str) -> tuple[int, int]:
    """The oldest glibc under which all these wheels, which this Python gets, load."""
    return (2, max((_glibc(wheel, python) for wheel in wheels), default=0))


def _glibc(wheel: str, python: str) -> int:
    tags = wheel.removesuffix(".whl").rsplit("-", 1)[1]
    if tags == "any":
        return 0
    found = [int(new) if new else _LEGACY[old] for new, old in _MANYLINUX.findall(tags)]
    return min(found) if found else _GLIBC_OF[python]


def read(path: Path) -> list[Requirement]:
    try:
        return read_lock(path.read_text(), str(path))
    except FileNotFoundError:
        raise Refused(f"{path} is missing: scripts/build-release --lock writes it") from None


def run(command: Sequence[object], what: str, **environment: str) -> str:
    """What the command printed. A failure is told in its own last words."""
    done = subprocess.run(
        [str(each) for each in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        raise Refused(f"{what} failed:\n{words}")
    return done.stdout


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Wheelhouse:
    """Files by their hash, in a cache that outlives the build."""

    def __init__(self, cache: Path, say: Callable[[str], None]) -> None:
        self.cache = cache
        self.say = say
        self._tools: Path | None = None

    @property
    def tools(self) -> Path:
        """The interpreter of the environment with the locked pip and build backends."""
        if self._tools is None:
            lock = LOCKS / "build.txt"
            version = ".".join(map(str, sys.version_info[:3]))
            folder = self.cache / f"tools-{version}-{sha256_of(lock)[:16]}"
            python = folder / "bin/python"
            if not (folder / "ready").exists():
                self.say("preparing pip and what builds wheels")
                shutil.rmtree(folder, ignore_errors=True)
                venv.EnvBuilder(with_pip=True).create(folder)
                run([python, "-m", "pip", "install", "-q", "--require-hashes", "-r", lock], "preparing the build tools")
                (folder / "ready").touch()
            self._tools = python
        return self._tools

    def pip(self, *arguments: object, what: str, **environment: str) -> str:
        quiet = ("--disable-pip-version-check", "--no-input")
        return run([self.tools, "-m", "pip", *arguments, *quiet], what, **environment)

    def path(self, sha256: str) -> Path | None:
        """The cached file with this hash; one that is damaged counts as not there."""
        for path in (self.cache / "files" / sha256).glob("*"):
            if sha256_of(path) == sha256:
                return path
        return None

    def keep(self, path: Path) -> str:
        """Into the cache; the file's hash."""
        sha256 = sha256_of(path)
        folder = self.cache / "files" / sha256
        folder.mkdir(parents=True, exist_ok=True)
        # Under another name first, and in another folder: a cache that was interrupted holds nothing half.
        partial = self.cache / f"partial-{os.getpid()}"
        shutil.copyfile(path, partial)
        partial.replace(folder / path.name)
        return sha256

    def fetch(self, target: Target, wanted: Sequence[Requirement]) -> dict[Requirement, Path]:
        """Every file of a lock, from the cache or by pip, which checks the hashes."""
        missing = [each for each in wanted if self.path(each.sha256) is None]
        if missing:
            self.say(f"{target}: fetching {len(missing)} files")
        wheels = [each for each in missing if not each.build]
        with self.scratch() as folder:
            if wheels:
                lines = [each.line for each in wheels]
                self.download(
                    lines, folder, "--only-binary=:all:", *target.pip_options(), what=f"fetching for {target}"
                )
            for each in missing:
                if each.build:
                    self.download_source(each.line, each.name, folder)
            for path in folder.glob("*.*"):
                self.keep(path)
        found = {each: self.path(each.sha256) for each in wanted}
        absent = [each.file for each, path in found.items() if path is None]
        if absent:
            raise Refused(f"{target}: pip did not bring {', '.join(absent)}; scripts/build-release --lock chooses anew")
        return {each: path for each, path in found.items() if path is not None}

    def download(self, lines: Sequence[str], folder: Path, *options: str, what: str) -> None:
        requirements = folder / "requirements"
        requirements.write_text("\n".join(lines) + "\n")
        self.pip(
            *("download", "-q", "--no-deps", "--require-hashes", "--dest", folder, *options, "-r", requirements),
            what=what,
        )

    def download_source(self, line: str, name: str, folder: Path) -> None:
        """pip asks a source package for its name, by what that wants for it: nothing of that gets into a wheel."""
        self.download([line], folder, f"--no-binary={name}", what=f"fetching the source of {name}")

    def build(self, source: Path, epoch: int) -> Path:
        """A wheel of a source package or tree, by the locked tools. The same source makes the same bytes."""
        with self.scratch() as folder:
            self.pip(
                *("wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir"),
                *("--wheel-dir", folder, source),
                what=f"building {source.name}",
                SOURCE_DATE_EPOCH=str(epoch),
                PYTHONHASHSEED="0",
            )
            (wheel,) = folder.glob("*.whl")
            path = self.path(self.keep(wheel))
            assert path is not None
            return path

    def pure(self, requirement: Requirement, source: Path) -> Path:
        """The wheel of a package that exists as source only, and has nothing to compile."""
        name = f"{requirement.sha256}-{sha256_of(LOCKS / 'build.txt')}"
        wheel = self.built(name)
        if wheel is None:
            self.say(f"building {requirement.name} {requirement.version}")
            wheel = self.build(source, _EPOCH_OF_ZIP)
            if not wheel.name.endswith("-none-any.whl"):
                raise Refused(f"{wheel.name} is not for any machine, though the lock calls {requirement.name} pure")
            self.note(name, wheel)
        return wheel

    def built(self, name: str) -> Path | None:
        """A wheel that was made here before, by what it was made of."""
        note = self.cache / "built" / name
        return self.path(note.read_text()) if note.exists() else None

    def note(self, name: str, wheel: Path) -> None:
        (self.cache / "built").mkdir(parents=True, exist_ok=True)
        (self.cache / "built" / name).write_text(self.keep(wheel))

    def scratch(self) -> _Scratch:
        self.cache.mkdir(parents=True, exist_ok=True)
        return _Scratch(self.cache)


class _Scratch:
    def __init__(self, parent: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="scratch-", dir=parent)

    def __enter__(self) -> Path:
        return Path(self._folder.name)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vagus-release"


def epoch_of(source: Path) -> int:
    """The time that stands in the files: SOURCE_DATE_EPOCH, or when HEAD was committed."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        if not given.isdigit():
            raise Refused(f"SOURCE_DATE_EPOCH is {given!r}: seconds since 1970 are meant")
        return max(int(given), _EPOCH_OF_ZIP)
    try:
        return int(run(["git", "-C", source, "log", "-1", "--format=%ct"], "git log"))
    except (Refused, OSError, ValueError):
        return _EPOCH_OF_ZIP
