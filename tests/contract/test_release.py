"""A real release of this tree, installed into real environments: switched, extended, damaged, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import install_release
from build_release import build
from wheelhouse import Target, Wheelhouse, default_cache, sha256_of

REPOSITORY = Path(__file__).parents[2]
NODE = install_release.this_node()
TARGET = Target(NODE.platform, NODE.python)
AGENT = ("--parts", "agent")


def house() -> Wheelhouse:
    return Wheelhouse(default_cache(), lambda text: None)


def copy_of_the_tree(folder: Path, version: str, *, broken: bool = False) -> Path:
    """This tree as another version of vagus; `broken`: its agent does not load."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("protocol", "runtime", "agent", "controller", "packaging"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / name)
    own = folder / "protocol/vagus_protocol/__init__.py"
    lines = own.read_text().splitlines()
    own.write_text(
        "\n".join([line for line in lines if "__version__" not in line] + [f'__version__ = "{version}"', ""])
    )
    if broken:
        (folder / "agent/vagus_agent/daemon.py").write_text("raise ImportError('a part is missing')\n")
    return folder


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three releases by their versions: 1.0, 2.0, and 3.0, whose agent does not load."""
    folder = tmp_path_factory.mktemp("releases")
    made = {}
    for version in ("1.0", "2.0", "3.0"):
        source = copy_of_the_tree(folder / f"source-{version}", version, broken=version == "3.0")
        made[version] = build(house(), source, folder, [TARGET], may_compile=False)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all these tests: an environment works only where it was made."""
    return tmp_path_factory.mktemp("place") / "opt"


@pytest.fixture
def root(place: Path) -> Iterator[Path]:
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def first(releases: dict[str, Path], place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What there is when the agent of 1.0 was installed and activated: made once, to be copied."""
    install(place, releases["1.0"], *AGENT, "--activate")
    return place.rename(tmp_path_factory.mktemp("first") / "opt")


@pytest.fixture
def installed(first: Path, root: Path) -> None:
    """The agent of 1.0 is active in `root`."""
    subprocess.run(["cp", "--archive", first, root], check=True, timeout=60)


def run(root: Path, release: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The release's own program, as a node runs it; with a network that leads nowhere and settings that mislead."""
    program = release or REPOSITORY
    script = program / "install-release" if release else REPOSITORY / "packaging/release/install_release.py"
    command = [sys.executable, str(script), "--root", str(root), *arguments]
    if release is not None:
        command += ["--release", str(release)]
    misleading = {
        "PIP_INDEX_URL": "http://127.0.0.1:9",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_TARGET": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "PYTHONDONTWRITEBYTECODE": "1",
        "https_proxy": "http://127.0.0.1:9",
    }
    return subprocess.run(
        command,
        env={**os.environ, **misleading},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        umask=0o077,
    )


def install(root: Path, release: Path | None, *arguments: str) -> dict[str, Any]:
    """What it answers, in its one line."""
    done = run(root, release, *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    said: dict[str, Any] = json.loads(line)
    return said


def refusal(root: Path, release: Path | None, *arguments: str) -> str:
    done = run(root, release, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("install-release: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def version_of(root: Path) -> str:
    command = [str(root / "current/bin/vagus-agent"), "--version"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()[-1]


def test_two_versions_side_by_side(releases: dict[str, Path], root: Path) -> None:
    first = install(root, releases["1.0"], *AGENT, "--activate")
    assert first == {"changed": True, "version": "1.0", "active": "1.0", "previous": None}
    assert install(root, releases["1.0"], *AGENT, "--activate") == {**first, "changed": False}
    # Installed, and not yet active.
    assert install(root, releases["2.0"], *AGENT)["active"] == "1.0"
    assert version_of(root) == "1.0"
    assert install(root, releases["2.0"], *AGENT, "--activate")["previous"] == "1.0"
    assert version_of(root) == "2.0"
    assert install(root, None, "--rollback")["active"] == "1.0"
    assert version_of(root) == "1.0"
    assert install(root, None, "--keep", "1")["changed"] is True
    assert [each["version"] for each in install(root, None, "--list")["releases"]] == ["1.0"]
    assert version_of(root) == "1.0"


@pytest.mark.usefixtures("installed")
def test_everybody_may_read_it_and_it_is_compiled(root: Path) -> None:
    """The agent runs as a user of its own, who cannot write byte code; the test's umask is root's strictest."""
    venv = root / "releases/1.0"
    closed = [
        path for path in (root, *root.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o044 != 0o044
    ]
    assert not closed
    package = venv / f"lib/python{NODE.python}/site-packages/vagus_agent"
    sources = {path.stem for path in package.rglob("*.py")}
    assert sources == {path.name.split(".")[0] for path in package.rglob("*.pyc")}


@pytest.mark.usefixtures("installed")
def test_an_agent_alone_brings_nothing_of_the_controller_and_what_is_missing_comes_later(
    releases: dict[str, Path], root: Path
) -> None:
    packages = root / f"releases/1.0/lib/python{NODE.python}/site-packages"
    assert {"msgspec", "psutil", "paho", "pyroute2"} <= {path.name for path in packages.iterdir()}
    assert not (packages / "litestar").exists()
    assert not (packages / "grpc").exists()
    before = (packages / "msgspec/__init__.py").stat().st_ino
    assert install(root, releases["1.0"])["changed"] is True
    assert (packages / "msgspec/__init__.py").stat().st_ino == before, "what the running agent uses was not touched"
    (whole,) = install(root, None, "--list")["releases"]
    assert whole == {"version": "1.0", "whole": True, "parts": ["agent", "etcd", "controller", "oidc"]}
    for program in ("vagus-controller", "vagusctl"):
        subprocess.run([root / "current/bin" / program, "--help"], capture_output=True, timeout=60, check=True)
    # Fewer parts asked for: what is there stays.
    assert install(root, releases["1.0"], *AGENT)["changed"] is False


def test_a_tampered_wheel_is_refused_and_nothing_is_changed(
    releases: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    shutil.copytree(releases["1.0"], tmp_path / "copy")
    (wheel,) = (tmp_path / "copy/wheels/any").glob("paho*")
    with wheel.open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    assert wheel.name in refusal(root, tmp_path / "copy", *AGENT)
    assert not (root / "releases").exists()


def test_a_wheel_that_was_changed_along_with_its_sum_is_refused_too(
    releases: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(releases["1.0"], copy)
    (wheel,) = (copy / "wheels/any").glob("paho*")
    before = sha256_of(wheel)
    with wheel.open("ab") as file:
        file.write(b"x")
    sums = copy / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(before, sha256_of(wheel)))
    assert "paho-mqtt" in refusal(root, copy, *AGENT)
    assert not (root / "releases").exists()


@pytest.mark.usefixtures("installed")
def test_a_release_whose_agent_does_not_load_is_never_active(releases: dict[str, Path], root: Path) -> None:
    said = refusal(root, releases["3.0"], *AGENT, "--activate")
    assert said == "install-release: release 3.0 does not start on this node: ImportError: a part is missing\n"
    assert version_of(root) == "1.0"
    assert "half-made" in refusal(root, None, "--activate", "3.0")


# What install-release is about to do when it is killed: where in make() or after it.
STAGES = {
    "after the environment": "module.fill = die",
    "after pip": "module.trouble_of = die",
    "before the record": "module.os.sync = die",
    "at the record": "module.Path.replace = die",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.usefixtures("installed")
def test_killed_in_the_middle_it_is_half_made_and_run_again_it_is_finished(
    releases: dict[str, Path], root: Path, stage: str
) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY / "packaging/release")!r})
import install_release as module
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
whole = module.Tree.record(module.Tree(module.Path({str(root)!r})), "1.0")
{STAGES[stage]}
sys.exit(module.main(sys.argv[1:]))
"""
    arguments = ["--root", str(root), "--release", str(releases["2.0"]), *AGENT, "--activate"]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert version_of(root) == "1.0"
    assert "half-made" in refusal(root, None, "--activate", "2.0")
    assert install(root, releases["2.0"], *AGENT, "--activate") == {
        "changed": True,
        "version": "2.0",
        "active": "2.0",
        "previous": "1.0",
    }
    assert version_of(root) == "2.0"


@pytest.mark.usefixtures("installed")
def test_other_files_under_the_same_version_do_not_replace_what_is_active(
    releases: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    source = copy_of_the_tree(tmp_path / "source", "1.0")
    (source / "agent/vagus_agent/extra.py").write_text("CHANGED = True\n")
    other = build(house(), source, tmp_path, [TARGET], may_compile=False)
    assert "made of other files (vagus)" in refusal(root, other, *AGENT)
    # Where it is not active, it is made anew.
    install(root, releases["2.0"], *AGENT, "--activate")
    assert install(root, other, *AGENT)["changed"] is True
    assert (root / f"releases/1.0/lib/python{NODE.python}/site-packages/vagus_agent/extra.py").exists()


@pytest.mark.usefixtures("installed")
def test_an_environment_whose_python_is_gone_is_made_anew(releases: dict[str, Path], root: Path) -> None:
    """As after an upgrade of the system."""
    python = root / "releases/1.0/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert "does not start" in refusal(root, None, "--activate", "1.0")
    assert install(root, releases["1.0"], *AGENT, "--activate")["changed"] is True
    assert version_of(root) == "1.0"


def test_the_same_tree_makes_the_same_bytes(releases: dict[str, Path], tmp_path: Path) -> None:
    """Even elsewhere, at another time, under another umask."""
    old = os.umask(0o077)
    try:
        source = copy_of_the_tree(tmp_path / "elsewhere", "1.0")
        again = build(house(), source, tmp_path, [TARGET], may_compile=False)
    finally:
        os.umask(old)
    assert (again / "SHA256SUMS").read_bytes() == (releases["1.0"] / "SHA256SUMS").read_bytes()
    modes = {path.name: oct(path.stat().st_mode) for path in again.iterdir()}
    assert modes == {path.name: oct(path.stat().st_mode) for path in releases["1.0"].iterdir()}


def test_the_lock_also_serves_by_hand(releases: dict[str, Path], tmp_path: Path) -> None:
    """As its own first lines say."""
    lock = releases["1.0"] / f"locks/{TARGET}.txt"
    command = lock.read_text().splitlines()[1].removeprefix("# pip ").split()
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", f"--python={venv}", *command, "--no-compile"]
    subprocess.run(pip, cwd=lock.parent, check=True, capture_output=True, timeout=300)
    subprocess.run([venv / "bin/vagusctl", "--help"], capture_output=True, check=True, timeout=60)
