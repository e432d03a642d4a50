"""The controller put together, and not started."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from browser import incident_samples
from unit.fleet_builders import config
from vagus_controller.config import Store
from vagus_controller.daemon import Controller


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
