"""What a release is built from: locks that agree with pyproject.toml and each other, files for the right target."""

from __future__ import annotations

import io
import tarfile
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
from packaging.requirements import Requirement as Wish
from packaging.utils import canonicalize_name

from build_release import compiled_wheel
from install_release import PARTS, TOOL, Refused, Requirement, read_lock
from lock_release import Pin, build_requires, environment, line_of, read_pins
from wheelhouse import LOCKS, PLATFORMS, PYTHONS, Target, Wheelhouse, needed_glibc, read, targets

REPOSITORY = Path(__file__).parents[2]
ALL = targets(PLATFORMS, PYTHONS)
SHA = "ab" * 32


def wishes(part: str) -> list[Wish]:
    """What pyproject.toml asks for, extras of our own followed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found = []
    for line in project["dependencies"] if part == "agent" else project["optional-dependencies"][part]:
        wish = Wish(line)
        found += [each for extra in wish.extras for each in wishes(extra)] if wish.name == "vagus" else [wish]
    return found


@pytest.mark.parametrize("target", ALL, ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_each_lock_has_what_pyproject_asks_for(target: Target, part: str) -> None:
    """It fails when pyproject.toml has changed: scripts/build-release --lock."""
    pins = {canonicalize_name(each.name): each for each in read(target.lock) if part in each.parts}
    for wish in wishes(part):
        pin = pins.get(canonicalize_name(wish.name))
        assert pin is not None, f"{target}: no {wish.name}; run scripts/build-release --lock"
        assert wish.specifier.contains(pin.version), f"{target}: {pin.name} {pin.version} is not {wish.specifier}"


def test_a_fleet_has_one_version_of_everything() -> None:
    versions: dict[str, set[str]] = {}
    for target in ALL:
        for each in read(target.lock):
            versions.setdefault(each.name, set()).add(each.version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


@pytest.mark.parametrize("target", ALL, ids=str)
def test_each_lock_brings_pip_and_the_right_wheels(target: Target) -> None:
    lock = read(target.lock)
    assert [each.name for each in lock if TOOL in each.parts] == ["pip"]
    assert len({each.name for each in lock}) == len(lock)
    for each in lock:
        if each.build:
            assert not each.file.endswith(".whl")
            assert each.build == "pure" or target.platform == "armv7l"
        else:
            assert each.file.endswith(("-any.whl", f"_{target.platform}.whl")), each.file


def test_etcd3_is_the_version_that_wheels_alone_would_not_bring() -> None:
    assert {(each.version, each.build) for target in ALL for each in read(target.lock) if each.name == "etcd3"} == {
        ("0.12.0", "pure")
    }


def test_a_line_of_a_lock_is_read_as_it_was_written() -> None:
    for one in (
        Requirement("etcd3", "0.12.0", SHA, ("etcd",), "etcd3-0.12.0.tar.gz", "pure"),
        Requirement("pyroute2.minimal", "0.9.7", SHA, ("agent", "etcd"), "pyroute2_minimal-0.9.7-py3-none-any.whl"),
    ):
        assert read_lock(line_of(one), "lock") == [one]


def test_what_uv_writes_is_read() -> None:
    text = (
        "greenlet==3.5 ; python_full_version < '3.14' and platform_machine == 'x86_64' \\\n"
        f"    --hash=sha256:{SHA} \\\n"
        f"    --hash=sha256:{SHA[::-1]}\n"
        f"idna==3.1 \\\n    --hash=sha256:{SHA}\n"
    )
    greenlet, idna = read_pins(text)
    assert (greenlet.name, greenlet.version, len(greenlet.hashes)) == ("greenlet", "3.5", 2)
    assert idna == Pin("idna", "3.1", "", (f"sha256:{SHA}",))
    assert [greenlet.holds(Target(platform, "3.11")) for platform in PLATFORMS] == [True, False, False]


def test_what_is_no_pin_is_refused() -> None:
    with pytest.raises(Refused, match="idna>=3"):
        read_pins("idna>=3\n")


def test_markers_are_those_of_the_target_and_not_of_this_machine() -> None:
    assert environment(Target("armv7l", "3.13")) == {
        **environment(Target("armv7l", "3.13")),
        "platform_machine": "armv7l",
        "python_version": "3.13",
        "sys_platform": "linux",
    }


@pytest.mark.parametrize(
    ("wheels", "glibc"),
    [
        (["a-1-py3-none-any.whl"], (2, 0)),
        (["a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl"], (2, 17)),
        # Several tags: the oldest that it claims.
        (["a-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"], (2, 27)),
        (["a-1-cp36-abi3-manylinux2010_x86_64.whl", "b-1-cp39-abi3-manylinux_2_34_x86_64.whl"], (2, 34)),
        # Compiled here, on a Debian that has Python 3.11, whatever else the wheel is good for.
        (["a-1-cp311-cp311-linux_armv7l.whl"], (2, 36)),
        (["a-1-cp36-abi3-linux_armv7l.whl"], (2, 36)),
    ],
)
def test_the_c_library_that_wheels_need(wheels: list[str], glibc: tuple[int, int]) -> None:
    assert needed_glibc(wheels, "3.11") == glibc


def test_what_is_compiled_needs_the_c_library_of_its_debian() -> None:
    assert needed_glibc(["a-1-cp36-abi3-linux_armv7l.whl"], "3.13") == (2, 41)


def test_what_was_compiled_for_an_older_python_is_taken_where_it_holds_for_newer_ones(tmp_path: Path) -> None:
    """Else two targets have wheels of one name and different bytes, and the lock of one of them asks for a file that
    the release does not hold."""
    house = Wheelhouse(tmp_path / "cache", lambda text: None)
    old, new = Target("armv7l", "3.11"), Target("armv7l", "3.13")

    def compiled(name: str, target: Target, wheel: str) -> tuple[Requirement, Path]:
        source = Requirement(name, "1", sha256(name.encode()).hexdigest(), ("agent",), f"{name}-1.tar.gz", "compile")
        (tmp_path / wheel).write_text(f"{name} {target}")
        house.note(f"{source.sha256}-{target}", tmp_path / wheel)
        return source, tmp_path / wheel

    psutil, _ = compiled("psutil", new, "psutil-1-cp36-abi3-linux_armv7l.whl")
    assert compiled_wheel(house, psutil, old) is None
    newer = compiled_wheel(house, psutil, new)
    assert newer is not None
    assert newer.read_text() == "psutil armv7l-cp313"
    compiled("psutil", old, "psutil-1-cp36-abi3-linux_armv7l.whl")
    assert compiled_wheel(house, psutil, old) == (both := compiled_wheel(house, psutil, new))
    assert both is not None
    assert both.read_text() == "psutil armv7l-cp311"

    msgspec, _ = compiled("msgspec", old, "msgspec-1-cp311-cp311-linux_armv7l.whl")
    assert compiled_wheel(house, msgspec, old) is not None
    assert compiled_wheel(house, msgspec, new) is None


def test_what_a_backend_asks_for_while_it_builds_is_locked_too(tmp_path: Path) -> None:
    """Nothing is fetched while something is compiled."""
    house = Wheelhouse(tmp_path / "cache", lambda text: None)
    for backend, more in (("scikit_build_core.build", ["cmake", "ninja"]), ("setuptools.build_meta", [])):
        project = f'[build-system]\nrequires = ["wanted"]\nbuild-backend = "{backend}"\n'
        with tarfile.open(tmp_path / "a-1.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("a-1/pyproject.toml")
            member.size = len(project)
            archive.addfile(member, io.BytesIO(project.encode()))
        source = Requirement("a", "1", house.keep(tmp_path / "a-1.tar.gz"), ("agent",), "a-1.tar.gz", "compile")
        assert build_requires(house, source) == ["wanted", *more]


def test_all_that_compiling_needs_is_locked_for_each_target_that_needs_it() -> None:
    pins = read_pins((LOCKS / "compile.txt").read_text())
    for target in ALL:
        if any(each.build == "compile" for each in read(target.lock)):
            assert {"pip", "setuptools", "cmake", "ninja"} <= {pin.name for pin in pins if pin.holds(target)}


def test_pip_is_not_asked_for_wheels_that_debian_12_cannot_load() -> None:
    options = Target("aarch64", "3.11").pip_options()
    assert "manylinux_2_36_aarch64" in options
    assert "manylinux_2_37_aarch64" not in options
    assert options[:4] == ["--implementation", "cp", "--python-version", "3.11"]
