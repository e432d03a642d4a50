"""The state file: what survives a restart, also a damaged one and one of an older version."""

from __future__ import annotations

from pathlib import Path

from vagus_agent.core.trial import Kept
from vagus_agent.state import State, StateFile


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "new"))
    assert file.load() == (State(), "")
    state = State(
        epoch=3,
        generation=7,
        assignments={"b": "backup", "c": "overlay"},
        reflex={"d": "backup"},
        trials={
            "c": Kept("backup", 3, 7, 10.0),
            "e": Kept("backup", 3, 6, 2.5, running=False, state="reverted", reason="not confirmed within 2.5 s"),
        },
    )
    assert file.save(state) == ""
    assert StateFile(str(tmp_path / "new")).load() == (state, "")


def test_a_file_of_the_version_before_trials_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"epoch":3,"generation":4,"assignments":{"b":"backup"},"reflex":{"c":"lte"}}')
    state, trouble = StateFile(str(tmp_path)).load()
    assert trouble == ""
    assert state == State(epoch=3, generation=4, assignments={"b": "backup"}, reflex={"c": "lte"})


def test_a_damaged_file_is_put_aside_and_said(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b'{"epoch":3,"trials":{"b":{"path"')
    state, trouble = StateFile(str(tmp_path)).load()
    assert state == State()
    assert "was damaged" in trouble
    assert (tmp_path / "state.damaged").exists()
    assert StateFile(str(tmp_path)).load() == (State(), "")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in StateFile(str(tmp_path / "file")).save(State())
