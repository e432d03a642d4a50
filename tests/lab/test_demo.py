"""The README's first command, as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [["--once"], ["--once", "--local"]])
def test_the_demo_tells_its_story_and_what_it_claims_holds(arguments: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "story.json"
    done = subprocess.run(
        [ROOT / "scripts/demo", *arguments, "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    story = json.loads(figures.read_text()) if figures.exists() else {"held": None, "steps": []}
    claims = [step for step in story["steps"] if step["held"] is not None]
    # How long a silence was is for the story to tell: on a machine that is busy with other tests it may be too long.
    failed = [step for step in claims if not step["held"] and "gap_s" not in step["figures"]]
    assert claims, done.stdout + done.stderr
    assert not failed, done.stdout + done.stderr
    assert done.returncode == (0 if story["held"] else 1)
    assert "http://127.0.0.1:" in done.stdout


_NO_MOSQUITTO = """
import runpy, shutil, sys
shutil.which = lambda *_, **__: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_mosquitto_the_broker_is_embedded(tmp_path: Path) -> None:
    figures = tmp_path / "story.json"
    demo = [ROOT / ".venv/bin/python", "-c", _NO_MOSQUITTO, ROOT / "tests/lab/demo.py"]
    done = subprocess.run(
        [*demo, "--once", "--local", "--json", figures], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(figures.read_text())["held"] is True


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_the_demo_started_ends_with_it_however_it_is_ended(ends: signal.Signals, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C and its own end to the children too, some of which read their settings anew by it."""
    with (tmp_path / "told").open("wb") as told:
        demo = subprocess.Popen(
            [ROOT / ".venv/bin/python", ROOT / "tests/lab/demo.py", "--local"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            start_new_session=True,
        )
    assert demo.stdout is not None
    with demo.stdout:
        assert any("Ctrl-C ends it." in line for line in demo.stdout)
        os.killpg(demo.pid, ends)
        assert demo.wait(30) == 128 + ends
    assert "Traceback" not in (tmp_path / "told").read_text()
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["told"]


def test_without_root_the_demo_is_local() -> None:
    """As nobody, with the environment that root has prepared."""
    # Not under pytest's own directory, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="vagus-nobody-") as directory:
        shutil.chown(directory, "nobody")
        done = subprocess.run(
            [ROOT / ".venv/bin/python", ROOT / "tests/lab/demo.py", "--once", "--json", f"{directory}/story.json"],
            capture_output=True,
            text=True,
            timeout=120,
            user="nobody",
            env={**os.environ, "TMPDIR": directory, "HOME": directory},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(Path(directory, "story.json").read_text())["held"] is True


@pytest.mark.parametrize("arguments", [["--json", "/no/such/place/story.json"], ["--port", "80000"]])
def test_what_could_only_fail_at_the_end_is_told_at_once(arguments: list[str]) -> None:
    done = subprocess.run([ROOT / "scripts/demo", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"scripts/demo: error: {' '.join(arguments)}: ")


def test_help_tells_how_to_break_and_mend() -> None:
    done = subprocess.run([ROOT / "scripts/demo", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "overlay-cut" in done.stdout
    assert "overlay-mend" in done.stdout
