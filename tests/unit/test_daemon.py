"""The controller put together, and not started."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from browser import incident_samples
from unit.fleet_builders import config
from vagus_controller.config import Store
from vagus_controller.daemon import Controller
from vagus_controller.views import Severity, Wanted


def test_a_store_that_does_not_work_is_an_event_once_when_it_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/vagus.db"
    controller = Controller(tmp_path / "controller.toml", replace(config(), store=Store(url=url)), b"k" * 32)
    controller._store.start()
    try:
        for _ in range(3):
            controller._tell_troubles()
        told = [each for each in controller._store.events(Wanted(100)) if each.kind == "store"]
        assert [(each.subject, each.severity) for each in told] == [(controller.config.name, Severity.WARNING)]
        assert f"{tmp_path}/file/vagus.db: history is kept in memory only" in told[0].text
    finally:
        controller._store.stop()


def test_the_open_incidents_are_in_the_picture_and_in_all_changes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = Controller(
        tmp_path / "controller.toml", replace(config(), store=Store(url=f"sqlite:///{tmp_path}/vagus.db")), b"k" * 32
    )
    briefs = (incident_samples.brief(incident_samples.overlay_of_osaka()),)
    monkeypatch.setattr(controller.casebook.incidents, "briefs", lambda _now: briefs)
    assert controller.fleet().incidents == briefs
    # What each change of the stream begins with.
    assert controller.canvas().head.incidents == briefs
