"""Incidents over the API and in vagusctl: listing, paging, one, and what persons do about them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import msgspec
import pytest

from browser import incident_samples
from contract.fleet_samples import TOKEN, Running
from contract.test_api import problem
from contract.test_ctl import Command, failed
from contract.test_ctl import ctl as ctl
from vagus_controller.views import ChannelView, IncidentView, Severity, Wanted

OPEN = 12


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Vagus-Who": "ines"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=10) as client:
        yield client


def ids(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()]


def test_the_open_ones_and_all_page_and_filter(running: Running, client: httpx.Client) -> None:
    for number in range(1, 8):
        running.store.record_incident(incident_samples.spike_of_last_week(number))
    stale = msgspec.structs.replace(incident_samples.overlay_of_osaka(), title="as it was")
    running.store.record_incident(stale)
    assert ids(client.get("/api/v1/incidents")) == [OPEN]
    assert ids(client.get("/api/v1/incidents?show=all&limit=3")) == [OPEN, 7, 6]
    assert ids(client.get("/api/v1/incidents?show=all&before=6")) == [5, 4, 3, 2, 1]
    assert ids(client.get("/api/v1/incidents?show=all&subject=pi-berlin&limit=2")) == [7, 6]
    assert ids(client.get("/api/v1/incidents?subject=pi-berlin")) == []
    assert client.get("/api/v1/incidents?show=all").json()[0]["title"] == "overlay of pi-osaka is dead"
    assert "show" in problem(client.get("/api/v1/incidents?show=closed"), 400)
    assert "limit" in problem(client.get("/api/v1/incidents?limit=0"), 400)


def test_one_as_it_is_now_or_as_it_was(running: Running, client: httpx.Client) -> None:
    running.store.record_incident(incident_samples.spike_of_last_week())
    answer = client.get(f"/api/v1/incidents/{OPEN}")
    assert msgspec.json.decode(answer.content, type=IncidentView) == incident_samples.overlay_of_osaka()
    answer = client.get("/api/v1/incidents/7")
    assert msgspec.json.decode(answer.content, type=IncidentView) == incident_samples.spike_of_last_week()
    assert "no incident 99" in problem(client.get("/api/v1/incidents/99"), 404)
    assert "open are: 12" in problem(client.get("/api/v1/incidents/0"), 404)
    problem(client.get("/api/v1/incidents/x"), 404)


def test_acknowledge_note_and_resolve(running: Running, client: httpx.Client) -> None:
    where = f"/api/v1/incidents/{OPEN}"
    assert client.post(f"{where}/acknowledge").json()["acknowledged_by"] == "ines"
    assert client.post(f"{where}/note", json={"text": "the provider knows"}).status_code == 200
    assert client.post(f"{where}/resolve", json={"note": "replaced"}).json()["state"] == "resolved"
    assert running.operator.asked == [
        ("acknowledge", OPEN, "ines"),
        ("note", OPEN, "the provider knows", "ines"),
        ("resolve", OPEN, "replaced", "ines"),
    ]
    for path, body, words in (
        (f"{where}/note", {"text": ""}, "text"),
        (f"{where}/note", {}, "text"),
        (f"{where}/resolve", {"note": "x" * 1001}, "note"),
        (f"{where}/resolve", {"text": "x"}, "unknown field"),
    ):
        assert words in problem(client.post(path, json=body), 400)
    for action, asked in (("acknowledge", None), ("note", {"text": "x"}), ("resolve", {"note": "x"})):
        assert "no incident 7" in problem(client.post(f"/api/v1/incidents/7/{action}", json=asked), 404)
    running.operator.refusal = "incident 12 is over: nothing is left to do about it"
    assert "is over" in problem(client.post(f"{where}/acknowledge"), 409)


def test_a_stranger_is_told_nothing(running: Running) -> None:
    for path in ("", f"/{OPEN}"):
        problem(httpx.get(f"{running.url}/api/v1/incidents{path}", timeout=10), 401)
    problem(httpx.post(f"{running.url}/api/v1/incidents/{OPEN}/acknowledge", timeout=10), 401)


def test_the_stream_brings_changes(running: Running, client: httpx.Client) -> None:
    with client.stream("GET", "/api/v1/stream") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: fleet"
        running.publish("incident", incident_samples.overlay_of_osaka())
        assert next(line for line in lines if line.startswith("event: incident"))
        data = next(line for line in lines if line.startswith("data:")).removeprefix("data: ")
        assert msgspec.json.decode(data, type=IncidentView) == incident_samples.overlay_of_osaka()


def test_metrics_count_the_open_ones_by_severity(running: Running, client: httpx.Client) -> None:
    briefs = (incident_samples.brief(incident_samples.overlay_of_osaka()),)
    running.operator.view = msgspec.structs.replace(running.operator.view, incidents=briefs)
    text = client.get("/metrics").text
    assert 'vagus_incidents{severity="critical"} 1.0' in text
    assert 'vagus_incidents{severity="warning"} 0.0' in text


def test_vagusctl_lists_shows_and_acts(running: Running, ctl: Command) -> None:
    running.store.record_incident(incident_samples.spike_of_last_week())
    listed = ctl("incidents")
    assert "overlay of pi-osaka is dead" in listed.stdout
    assert "load spike" not in listed.stdout
    assert "load spike on pi-berlin" in ctl("incidents", "--all").stdout
    one = ctl("incident", str(OPEN)).stdout
    for words in (
        "moved 3 pairs to backup",
        "pi-berlin--pi-osaka/overlay",
        "failover: confirmed",
        "the provider knows",
    ):
        assert words in one
    assert "acknowledged by" in ctl("ack", str(OPEN)).stdout
    assert ctl("note", str(OPEN), "router ordered").returncode == 0
    assert "resolved by" in ctl("resolve", str(OPEN), "--note", "replaced").stdout
    assert [asked[0] for asked in running.operator.asked] == ["acknowledge", "note", "resolve"]
    assert "no incident 99" in failed(ctl("incident", "99"), 1)
    assert msgspec.json.decode(ctl("incidents", "--json").stdout)[0]["id"] == OPEN


def test_the_store_keeps_the_newest_of_each_over_a_restart(running: Running) -> None:
    first = incident_samples.overlay_of_osaka()
    later = msgspec.structs.replace(first, state="over", ended_at=5.0, severity=Severity.WARNING)
    running.store.record_incident(first)
    running.until(lambda: not running.store._incidents.waiting, "the first is written")
    running.store.record_incident(later)
    assert running.store.incident(OPEN) == later
    running.until(lambda: not running.store._incidents.waiting, "the second is written")
    assert running.store.incident(OPEN) == later
    assert running.store.incidents(Wanted(10)) == [later]
    assert running.store.incident(11) is None
    number = running.store.new_incident_id()
    assert running.store.new_incident_id() == number + 1
    assert running.store.new_incident_id(number + 10) == number + 11


# --- notifications --------------------------------------------------------------------------------------------------


def test_channels_are_shown_and_tried(running: Running, client: httpx.Client) -> None:
    answer = client.get("/api/v1/notifications")
    assert msgspec.json.decode(answer.content, type=tuple[ChannelView, ...]) == incident_samples.channels()
    assert client.post("/api/v1/notifications/test", json={"channel": "ops"}).json()["delivered"] is True
    assert client.post("/api/v1/notifications/test", json={"channel": "team"}).json()["delivered"] is False
    assert running.operator.asked == [("test", "ops", "ines"), ("test", "team", "ines")]
    unknown = client.post("/api/v1/notifications/test", json={"channel": "opps"})
    assert "did you mean ops" in problem(unknown, 404)
    text = client.get("/metrics").text
    assert 'vagus_notify_works{channel="team"} 0.0' in text
    assert 'vagus_notify_works{channel="ops"} 1.0' in text
    assert 'vagus_notify_waiting{channel="team"} 1.0' in text


def test_vagusctl_notify(running: Running, ctl: Command) -> None:
    shown = ctl("notify", "channels").stdout
    assert "Telegram" in shown
    assert "Failed to send Email" in shown
    assert "ops: taken after 0.2 s" in ctl("notify", "test", "ops").stdout
    assert "team did not take it: refused" in failed(ctl("notify", "test", "team"), 1)
