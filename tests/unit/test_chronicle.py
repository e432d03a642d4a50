"""Which verdicts are written down as events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vagus_controller.api.stream import ChangeFeed
from vagus_controller.chronicle import Chronicle
from vagus_controller.core.verdict import Verdict
from vagus_controller.store import Store
from vagus_controller.views import EventEntry, Severity, Wanted


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/vagus.db", 90.0, 1000)
    store.start()
    yield store
    store.stop()


def verdict(state: str, severity: Severity, reason: str = "because") -> Verdict:
    return Verdict("link", "a--b/backup", state, severity, reason, (), 0.0)


def told(store: Store, *verdicts: Verdict) -> list[EventEntry]:
    """The events, oldest first, of a controller that comes to these verdicts one after the other."""
    chronicle = Chronicle(store, ChangeFeed())
    for each in verdicts:
        chronicle.verdicts([each])
    return store.events(Wanted(100))[::-1]


def test_good_news_is_told_only_after_bad_and_the_same_state_once(store: Store) -> None:
    up, down = verdict("up", Severity.OK), verdict("down", Severity.CRITICAL)
    events = told(store, up, up, down, verdict("down", Severity.CRITICAL, "for longer"), up)
    assert [(each.text, each.severity) for each in events] == [
        ("down: because", Severity.CRITICAL),
        ("up: because", Severity.OK),
    ]


def test_an_unproven_standby_is_told_at_first_sight_as_a_warning(store: Store) -> None:
    [event] = told(store, verdict("unproven", Severity.WARNING, "no reply ever, because a: the firewall drops it"))
    assert event.severity is Severity.WARNING
    assert event.text == "unproven: no reply ever, because a: the firewall drops it"


def test_an_obstacle_on_a_path_that_stays_up_is_told_when_it_comes_and_when_it_goes(store: Store) -> None:
    up, hindered = verdict("up", Severity.OK), verdict("up", Severity.WARNING, "up, but a: MTU")
    assert [(each.text, each.severity) for each in told(store, up, hindered, hindered, up)] == [
        ("up: up, but a: MTU", Severity.WARNING),
        ("up: because", Severity.OK),
    ]


def test_what_a_node_says_is_one_line_of_the_log_and_kept_as_it_came(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "vagus"):
        Chronicle(store, ChangeFeed()).event("pi-1", "agent", "pi-1", "all is well\nvps liveness: node down")
    assert caplog.messages == ["pi-1 agent: all is well vps liveness: node down"]
    assert store.events(Wanted(1))[0].text == "all is well\nvps liveness: node down"
