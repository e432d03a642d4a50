"""install-release without environments: what it reads and refuses, and where the links lead wherever it is cut."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import install_release
from install_release import (
    Installer,
    Node,
    Refused,
    Release,
    Tree,
    main,
    platform_of,
    read_lock,
    read_sums,
    versions_kept,
)

SHA = "ab" * 32


@pytest.fixture(autouse=True)
def _starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every release starts here; tests/contract has real ones."""
    monkeypatch.setattr(install_release, "trouble_of", lambda *_: "")


def test_an_old_python_reads_it_far_enough_to_say_that_it_is_too_old() -> None:
    source = Path(install_release.__file__).read_text()
    ast.parse(source, feature_version=(3, 7))


def test_an_old_python_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install_release.sys, "version_info", (3, 9, 2))
    assert main(["--list", "--root", "/nowhere"]) == 1
    assert "vagus needs 3.11 or newer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("machine", "bits", "platform"),
    [
        ("x86_64", 64, "x86_64"),
        ("aarch64", 64, "aarch64"),
        ("armv7l", 32, "armv7l"),
        # Raspberry Pi OS of 32 bits on the kernel of 64 that it boots by default.
        ("aarch64", 32, "armv7l"),
        ("armv8l", 32, "armv7l"),
    ],
)
def test_the_platform_is_that_of_the_userland(machine: str, bits: int, platform: str) -> None:
    assert platform_of(machine, bits) == platform


@pytest.mark.parametrize(("machine", "bits"), [("armv6l", 32), ("x86_64", 32), ("i686", 32), ("riscv64", 64)])
def test_other_machines_are_refused(machine: str, bits: int) -> None:
    with pytest.raises(Refused, match=r"ARMv7|armv7l"):
        platform_of(machine, bits)


@pytest.mark.parametrize("line", ["", "x", f"{SHA} one-space", f"{SHA}  /etc/passwd", f"{SHA}  a/../../b"])
def test_damaged_sums_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(Refused, match="line 2"):
        read_sums(f"{SHA}  wheels/a.whl\n{line}\n")


def test_a_lock_is_read_whole() -> None:
    text = f"# a comment\nmsgspec==0.20.0 --hash=sha256:{SHA}  # agent etcd: msgspec.whl\n"
    (one,) = read_lock(text, "lock")
    assert (one.name, one.version, one.sha256, one.parts) == ("msgspec", "0.20.0", SHA, ("agent", "etcd"))
    assert one.line == f"msgspec==0.20.0 --hash=sha256:{SHA}"


@pytest.mark.parametrize(
    "line",
    [
        "msgspec==0.20.0",
        f"msgspec>=0.20.0 --hash=sha256:{SHA}  # agent: a.whl",
        f"msgspec==0.20.0 --hash=sha256:{SHA}",
        f"--pre msgspec==0.20.0 --hash=sha256:{SHA}  # agent: a.whl",
    ],
)
def test_a_lock_that_says_anything_else_is_refused(line: str) -> None:
    with pytest.raises(Refused, match="lock line 1"):
        read_lock(line + "\n", "lock")


@pytest.mark.parametrize(
    ("needed", "keep", "kept"),
    [
        (("3", "2"), 3, {"3", "2", "4"}),
        (("3", "2"), 1, {"3", "2"}),
        # After a rollback both links lead to the same one.
        (("1", "1"), 2, {"1", "4"}),
        ((None, None), 2, {"4", "3"}),
        (("4", None), 9, {"1", "2", "3", "4"}),
    ],
)
def test_the_newest_are_kept_and_what_is_needed(needed: tuple[str | None, ...], keep: int, kept: set[str]) -> None:
    assert set(versions_kept({"1": 1, "2": 2, "3": 3, "4": 4}, needed, keep)) == kept


# --- a release directory ---------------------------------------------------------------------------------------------


def make_release(folder: Path, version: str = "1.0", *, target: str = "", glibc: tuple[int, int] = (2, 5)) -> Path:
    """Its files are no wheels: nothing here installs them."""
    target = target or install_release.this_node().target
    content = {"wheels/any/vagus.whl": f"vagus {version}".encode(), "wheels/any/pip.whl": b"pip"}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    content[f"locks/{target}.txt"] = (
        f"vagus=={version} --hash=sha256:{sums['wheels/any/vagus.whl']}  # agent etcd controller oidc: vagus.whl\n"
        f"pip==25.0 --hash=sha256:{sums['wheels/any/pip.whl']}  # pip: pip.whl\n"
    ).encode()
    content["release.json"] = json.dumps({"version": version, "targets": {target: {"glibc": glibc}}}).encode()
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    seal(folder, content)
    return folder


def seal(folder: Path, content: dict[str, bytes]) -> None:
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items())
    (folder / "SHA256SUMS").write_text("".join(lines))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What is said; it must be all on stderr, in words."""
    assert main([str(each) for each in arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("install-release: ")
    assert "Traceback" not in said.err
    return said.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([str(each) for each in arguments]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    said: dict[str, Any] = json.loads(line)
    return said


TARGET = install_release.this_node().target


@pytest.mark.parametrize("name", ["wheels/any/vagus.whl", "wheels/any/pip.whl", f"locks/{TARGET}.txt", "release.json"])
def test_a_changed_file_is_named_before_anything_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    release = make_release(tmp_path / "release")
    with (release / name).open("ab") as file:
        file.write(b" ")
    said = refusal(capsys, "--release", release, "--root", tmp_path / "root")
    assert name in said
    assert "tampered" in said
    assert not (tmp_path / "root/releases").exists()


@pytest.mark.parametrize("name", ["wheels/any/vagus.whl", f"locks/{TARGET}.txt", "release.json", "SHA256SUMS"])
def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    release = make_release(tmp_path / "release")
    (release / name).unlink()
    assert name in refusal(capsys, "--release", release, "--root", tmp_path / "root")
    assert not (tmp_path / "root/releases").exists()


def test_a_lock_that_was_changed_along_with_its_sum_needs_a_wheel_that_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = make_release(tmp_path / "release")
    lock = release / f"locks/{TARGET}.txt"
    lock.write_text(lock.read_text().replace(hashlib.sha256(b"vagus 1.0").hexdigest(), SHA))
    seal(release, {str(path.relative_to(release)): path.read_bytes() for path in release.rglob("*.*")})
    assert "vagus 1.0 that SHA256SUMS does not list" in refusal(
        capsys, "--release", release, "--root", tmp_path / "root"
    )


def test_whoever_names_the_digest_gets_that_release_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = make_release(tmp_path / "release")
    digest = hashlib.sha256((release / "SHA256SUMS").read_bytes()).hexdigest()
    arguments = ("--release", release, "--root", tmp_path / "root", "--check", "--digest")
    assert answer(capsys, *arguments, digest)["changed"] is True
    (release / "wheels/any/vagus.whl").write_bytes(b"evil")
    seal(release, {str(path.relative_to(release)): path.read_bytes() for path in release.rglob("*.*")})
    assert "--digest" in refusal(capsys, *arguments, digest)


def test_another_platform_is_refused_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = make_release(tmp_path / "release", target="s390x-cp399")
    said = refusal(capsys, "--release", release, "--root", tmp_path / "root")
    assert "has wheels for s390x-cp399" in said
    assert "scripts/build-release --platform" in said


@pytest.mark.parametrize(("glibc", "words"), [((2, 31), "has 2.31"), ((), "such as musl")])
def test_another_c_library_is_refused(tmp_path: Path, glibc: tuple[int, ...], words: str) -> None:
    node = install_release.this_node()
    release = Release(make_release(tmp_path, glibc=(2, 34)))
    with pytest.raises(Refused, match=r"glibc 2.34 or newer.*" + words):
        release.check_node(Node(node.platform, node.python, glibc))


def test_a_version_that_is_a_path_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = make_release(tmp_path / "release", "1.0/../../etc")
    assert "no version" in refusal(capsys, "--release", release, "--root", tmp_path / "root")


def test_check_tells_what_would_be_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = make_release(tmp_path / "release")
    said = answer(capsys, "--release", release, "--activate", "--check", "--root", tmp_path / "root")
    assert said == {"changed": True, "version": "1.0", "active": "1.0", "previous": None}
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--activate"],
        ["--keep", "0"],
        ["--release", "x", "--rollback"],
        ["--rollback", "--activate", "1.0"],
        ["--remove", "../x"],
        ["--activate", "../x"],
        ["--release", "x", "--parts", "agent,brain"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


# --- the links -------------------------------------------------------------------------------------------------------


def tree_of(root: Path, *versions: str) -> Tree:
    """Whole releases, made in this order."""
    tree = Tree(root)
    for version in versions:
        tree.path(version).mkdir(parents=True)
        tree.write_record(version, install_release.this_node(), ["agent"], {})
    return tree


def links(root: Path) -> tuple[str | None, str | None]:
    tree = Tree(root)
    return tree.active, tree.previous


def test_switching_back_and_forth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree_of(tmp_path, "1.0", "2.0", "3.0")
    where = ("--root", tmp_path)
    assert "nothing to go back to" in refusal(capsys, "--rollback", *where)
    assert answer(capsys, "--activate", "1.0", *where)["previous"] is None
    assert answer(capsys, "--activate", "2.0", *where) == {
        "changed": True,
        "version": "2.0",
        "active": "2.0",
        "previous": "1.0",
    }
    assert answer(capsys, "--activate", "2.0", *where)["changed"] is False
    assert links(tmp_path) == ("2.0", "1.0")
    assert (tmp_path / "current").resolve() == tmp_path / "releases/2.0"
    assert answer(capsys, "--rollback", *where)["active"] == "1.0"
    # A second time is not the way forth.
    assert answer(capsys, "--rollback", *where) == {
        "changed": False,
        "version": "1.0",
        "active": "1.0",
        "previous": "1.0",
    }
    assert answer(capsys, "--activate", "3.0", *where)["previous"] == "1.0"


def test_a_half_made_release_is_never_active(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tree_of(tmp_path, "1.0")
    tree.activate("1.0")
    tree.path("2.0").mkdir()
    assert "half-made" in refusal(capsys, "--activate", "2.0", "--root", tmp_path)
    assert "not installed" in refusal(capsys, "--activate", "3.0", "--root", tmp_path)
    assert links(tmp_path) == ("1.0", None)
    listed = answer(capsys, "--list", "--root", tmp_path)
    assert [(each["version"], each["whole"]) for each in listed["releases"]] == [("1.0", True), ("2.0", False)]


def test_a_release_that_does_not_start_is_not_switched_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree_of(tmp_path, "1.0")
    monkeypatch.setattr(install_release, "trouble_of", lambda *_: "no Python any more")
    assert "no Python any more" in refusal(capsys, "--activate", "1.0", "--root", tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"wheels": {}, "serial": "1"}'])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    tree = tree_of(tmp_path, "1.0")
    (tree.path("1.0") / install_release.RECORD).write_text(content)
    assert tree.record("1.0") is None


def test_removing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tree_of(tmp_path, "1.0", "2.0")
    tree.activate("1.0")
    tree.activate("2.0")
    assert "switch to another" in refusal(capsys, "--remove", "2.0", "--root", tmp_path)
    assert answer(capsys, "--remove", "1.0", "--root", tmp_path) == {
        "changed": True,
        "version": "1.0",
        "active": "2.0",
        "previous": None,
    }
    assert not (tmp_path / "previous").is_symlink()
    assert answer(capsys, "--remove", "1.0", "--root", tmp_path)["changed"] is False


def test_keep_removes_half_made_ones_and_the_oldest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tree_of(tmp_path, "9.0", "1.0", "2.0", "3.0")
    tree.activate("9.0")
    tree.activate("1.0")
    tree.path("4.0").mkdir()
    assert answer(capsys, "--keep", "3", "--root", tmp_path, "--check")["changed"] is True
    assert len(tree.present()) == 5
    assert answer(capsys, "--keep", "3", "--root", tmp_path)["changed"] is True
    assert tree.present() == ["1.0", "3.0", "9.0"]
    assert answer(capsys, "--keep", "3", "--root", tmp_path)["changed"] is False


def test_what_is_no_link_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree_of(tmp_path, "1.0")
    (tmp_path / "current").mkdir()
    assert "is not a link" in refusal(capsys, "--activate", "1.0", "--root", tmp_path)


def test_two_at_once_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree_of(tmp_path, "1.0")
    with install_release._alone(tmp_path, read_only=False):
        assert "another install-release" in refusal(capsys, "--activate", "1.0", "--root", tmp_path)


class PowerCut(BaseException):
    pass


def test_wherever_a_switch_is_cut_the_links_lead_to_whole_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before every change of the disk, in turn; run again, it is finished, and goes back to what was active."""
    finished = False
    for cut in range(1, 20):
        root = tmp_path / str(cut)
        tree = tree_of(root, "1.0", "2.0", "3.0")
        tree.activate("1.0")
        tree.activate("2.0")
        with monkeypatch.context() as patch:
            steps = [0]

            def counted(real: Any, cut: int = cut, steps: list[int] = steps) -> Any:
                def step(*arguments: Any, **named: Any) -> Any:
                    steps[0] += 1
                    if steps[0] == cut:
                        raise PowerCut
                    return real(*arguments, **named)

                return step

            for name in ("unlink", "symlink_to", "replace"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            try:
                tree.activate("3.0")
                finished = True
            except PowerCut:
                pass
        active, previous = links(root)
        assert (active, previous) in {("2.0", "1.0"), ("2.0", "2.0"), ("3.0", "2.0")}
        if finished:
            break
        Installer(Tree(root), check=False).activate("3.0")
        assert links(root) == ("3.0", "2.0")
        assert Installer(Tree(root), check=False).roll_back() == "2.0"
    assert finished
    assert cut > 4


def test_wherever_a_removal_is_cut_what_is_left_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of(tmp_path, "1.0", "2.0")
    tree.activate("1.0")
    tree.activate("2.0")

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(PowerCut):
            tree.remove("1.0")
    assert tree.record("1.0") is None
    assert links(tmp_path) == ("2.0", None)
