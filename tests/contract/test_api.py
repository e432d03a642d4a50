"""The API over loopback: the real application and server, a real store, and an operator in memory."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import signal
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from browser import samples
from browser.samples import OSAKA
from contract.fleet_samples import TOKEN, MemoryOperator, Running
from vagus_controller.api import auth, stream
from vagus_controller.api.app import create_app, serve
from vagus_controller.api.auth import load_token
from vagus_controller.api.metrics import MAX_PAIRS, exposition
from vagus_controller.api.stream import ChangeFeed, Subscriber, parse_marks
from vagus_controller.config import Http
from vagus_controller.core.differences import Whole
from vagus_controller.views import Change, DrillAsk, EventEntry, FleetView, NodeView, PlanAsk, Severity
from vagus_runtime.settings import ConfigError

PAIR = samples.calm().pairs[0].name
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def stranger(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=10) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of an error, whose form is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"status", "title", "detail"}
    assert body["status"] == status
    assert body["detail"]
    assert "Traceback" not in answer.text
    return str(body["detail"])


# --- reading --------------------------------------------------------------------------------------------------------


def test_the_fleet_round_trips(running: Running, client: httpx.Client) -> None:
    answer = client.get("/api/v1/fleet")
    assert msgspec.json.decode(answer.content, type=FleetView) == running.operator.view


def test_parts_of_the_fleet(running: Running, client: httpx.Client) -> None:
    view = running.operator.view
    whole = json.loads(msgspec.json.encode(view))
    for path, expected in (
        ("nodes", whole["nodes"]),
        (f"nodes/{view.nodes[0].name}", whole["nodes"][0]),
        ("links", whole["pairs"]),
        (f"nodes/{OSAKA}/agent", json.loads(msgspec.json.encode(running.operator.agent(OSAKA)))),
        (f"links/{PAIR}", whole["pairs"][0]),
        (f"links/{'--'.join(reversed(view.pairs[0].nodes))}", whole["pairs"][0]),
        ("quorum", whole["quorum"]),
        ("pauses", whole["pauses"]),
    ):
        answer = client.get(f"/api/v1/{path}")
        assert answer.status_code == 200, path
        assert answer.json() == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nodes/pi-berln", "did you mean pi-berlin"),
        ("nodes/pi-berln/agent", "did you mean pi-berlin"),
        ("nodes/zzz", "there are: pi-berlin, pi-lisbon, pi-osaka, vps-fra"),
        ("links/pi-berlin--pi-osak", "did you mean pi-berlin--pi-osaka"),
        ("why/nobody", "no node 'nobody'"),
        (f"why/{PAIR}/carrier-pigeon", "no path 'carrier-pigeon'; there are: backup, overlay"),
    ],
)
def test_unknown_names_bring_suggestions(client: httpx.Client, path: str, words: str) -> None:
    assert words in problem(client.get(f"/api/v1/{path}"), 404)


def test_history_pages_and_filters(running: Running, client: httpx.Client) -> None:
    entries = [running.event(f"pi-{number % 2}", f"event {number}") for number in range(7)]
    first = client.get("/api/v1/events", params={"limit": 3}).json()
    assert [entry["id"] for entry in first] == [entry.id for entry in entries[:-4:-1]]
    rest = client.get("/api/v1/events", params={"before": first[-1]["id"]}).json()
    assert [entry["id"] for entry in rest] == [entry.id for entry in entries[3::-1]]
    pages, place = [], "/api/v1/events?limit=3&subject=pi-0"
    while place:
        answer = client.get(place)
        pages.append([entry["text"] for entry in answer.json()])
        place = answer.links.get("next", {}).get("url", "")
    assert pages == [["event 6", "event 4", "event 2"], ["event 0"]]
    ones = client.get("/api/v1/events", params={"subject": "pi-1"}).json()
    assert {entry["subject"] for entry in ones} == {"pi-1"}
    decided = running.decision(PAIR)
    assert client.get("/api/v1/ledger").json()[0]["id"] == decided.id


@pytest.mark.parametrize(("path", "part"), [("nodes", "nodes"), ("links", "pairs")])
def test_what_has_a_name_comes_in_pages_too(running: Running, client: httpx.Client, path: str, part: str) -> None:
    whole = json.loads(msgspec.json.encode(running.operator.view))[part]
    found, place = [], f"/api/v1/{path}?limit=3"
    while place:
        answer = client.get(place)
        found.append(answer.json())
        place = answer.links.get("next", {}).get("url", "")
    assert [entry for page in found for entry in page] == whole
    assert [len(page) for page in found] == [3] * (len(whole) // 3) + [1] * (len(whole) % 3 == 1)
    rest = client.get(f"/api/v1/{path}", params={"after": whole[0]["name"]})
    assert rest.json() == whole[1:]
    assert "link" not in rest.headers
    assert client.get(f"/api/v1/{path}", params={"after": "zzz"}).json() == []
    for query in ("limit=0", "limit=1001", "after=" + "x" * 201):
        assert query.partition("=")[0] in problem(client.get(f"/api/v1/{path}?{query}"), 400)


def test_why_brings_findings_decisions_and_events(running: Running, client: httpx.Client) -> None:
    running.decision(PAIR)
    running.event(f"{PAIR}/overlay", "the overlay is down")
    running.event("someone-else", "unrelated")
    running.store.record_ledger(
        at=1.0, who="ines", action="sign-in", subject="user ines", reason="by password", evidence=(), outcome="done"
    )
    node = running.operator.view.pairs[0].nodes[0]
    for subject, verdicts in ((PAIR, 2), (f"{PAIR}/overlay", 1), (node, 2)):
        why = client.get(f"/api/v1/why/{subject}").json()
        assert len(why["verdicts"]) == verdicts, subject
        assert [entry["action"] for entry in why["ledger"]] == ["failover"], subject
        assert [entry["text"] for entry in why["events"]] == ["the overlay is down"], subject
        assert PAIR in [pair["name"] for pair in why["pairs"]]
        looked_at = [check["what"] for check in why["checks"]]
        assert looked_at == ([] if subject == node else ["assigned", "overlay proven", "backup proven"]), subject
    # Who came and went explains nothing.
    assert [entry["action"] for entry in client.get("/api/v1/why/fleet").json()["ledger"]] == ["failover"]
    assert client.get("/api/v1/why/quorum").json()["verdicts"][0]["kind"] == "quorum"
    assert [each["kind"] for each in client.get("/api/v1/why/fleet").json()["verdicts"]] == ["controller", "quorum"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=nan", "before=-1", "before=1.5", "limit="]
)
def test_wrong_queries_name_the_parameter(client: httpx.Client, query: str) -> None:
    assert query.partition("=")[0] in problem(client.get(f"/api/v1/events?{query}"), 400)


def test_the_openapi_document_names_every_route_and_no_other_host(client: httpx.Client) -> None:
    answer = client.get("/api/v1/openapi.json")
    paths = answer.json()["paths"]
    expected = "fleet nodes nodes/{name} links links/{pair} quorum events ledger pauses pauses/{pause_id} switchover"
    for path in [
        *expected.split(),
        "nodes/{name}/agent",
        "plans",
        "drills",
        "pairs/{pair}/approve",
        "failback",
        "stream",
        "why/{subject}",
    ]:
        assert f"/api/v1/{path}" in paths
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    for page in ("/api/v1", "/api/v1/swagger", "/api/v1/redoc", "/schema"):
        assert client.get(page).status_code == 404


# --- asking ---------------------------------------------------------------------------------------------------------


def test_switchover_and_failback(running: Running, client: httpx.Client) -> None:
    body = {"pair": PAIR, "path": "backup", "reason": "new router", "force": True}
    answer = client.post("/api/v1/switchover", json=body, headers={"X-Vagus-Who": "ines@desk\x1b[31m" + "x" * 99})
    assert answer.status_code == 202
    assert answer.json()["action"] == "switchover"
    turned = "--".join(reversed(PAIR.split("--")))
    assert client.post("/api/v1/failback", json={"pair": turned}).status_code == 202
    (kind, pair, path, who, reason, force), failback = running.operator.asked
    assert (kind, pair, path, reason, force) == ("switchover", PAIR, "backup", "new router", True)
    assert who.startswith("ines@desk[31mx")
    assert len(who) == 64
    assert failback == ("failback", PAIR, "the API", "")


def test_a_plan_is_made_and_rehearsed(running: Running, client: httpx.Client) -> None:
    turned = "--".join(reversed(PAIR.split("--")))
    body = {"path": "backup", "pairs": [turned], "reason": "router", "dry_run": True}
    answer = client.post("/api/v1/plans", json=body)
    assert answer.status_code == 202
    assert answer.json()["state"] == "dry run"
    assert answer.json()["stages"][0]["steps"][0]["state"] == "on trial"
    assert client.post("/api/v1/plans", json={"path": "", "scope": "node", "target": "pi-osaka"}).status_code == 202
    (_, rehearsal, who), (_, real, _) = running.operator.asked
    assert rehearsal == PlanAsk(path="backup", pairs=(PAIR,), reason="router", dry_run=True)
    assert real == PlanAsk(scope="node", target="pi-osaka")
    assert who == "the API"
    assert [each["id"] for each in client.get("/api/v1/plans").json()] == [7]
    unknown = {"path": "backup", "scope": "node", "target": "pi-osakka"}
    assert "did you mean pi-osaka" in problem(client.post("/api/v1/plans", json=unknown), 404)
    assert "no pair 'a--b'" in problem(client.post("/api/v1/plans", json={"path": "backup", "pairs": ["a--b"]}), 404)
    assert "path" in problem(client.post("/api/v1/plans", json={"scope": "fleet"}), 400)


def test_a_drill_of_a_pair_a_site_or_all(running: Running, client: httpx.Client) -> None:
    turned = "--".join(reversed(PAIR.split("--")))
    answer = client.post("/api/v1/drills", json={"scope": "pair", "target": turned, "reason": "to know"})
    assert answer.status_code == 202
    assert answer.json()["pairs"][0]["gap_s"] == 0.04
    assert client.post("/api/v1/drills", json={"scope": "site", "target": "osaka"}).status_code == 202
    assert client.post("/api/v1/drills", json={"scope": "fleet"}).status_code == 202
    assert [asked for _, asked, _ in running.operator.asked] == [
        DrillAsk(scope="pair", target=PAIR, reason="to know"),
        DrillAsk(scope="site", target="osaka"),
        DrillAsk(scope="fleet"),
    ]
    assert [each["id"] for each in client.get("/api/v1/drills").json()] == [3]
    assert "no pair" in problem(client.post("/api/v1/drills", json={"scope": "pair", "target": "a--b"}), 404)
    assert "did you mean osaka" in problem(
        client.post("/api/v1/drills", json={"scope": "site", "target": "osakka"}), 404
    )
    assert "target" in problem(client.post("/api/v1/drills", json={"scope": "fleet", "target": "osaka"}), 409)
    running.operator.refusal = "no drill now: an incident"
    assert "an incident" in problem(client.post("/api/v1/drills", json={"scope": "fleet"}), 409)


def test_a_recommendation_is_approved(running: Running, client: httpx.Client) -> None:
    turned = "--".join(reversed(PAIR.split("--")))
    answer = client.post(f"/api/v1/pairs/{turned}/approve", json={"reason": "seen"})
    assert answer.status_code == 202
    assert running.operator.asked == [("approve", PAIR, "the API", "seen")]


def test_pause_and_resume(running: Running, client: httpx.Client) -> None:
    made = client.post("/api/v1/pauses", json={"scope": "node", "target": "pi-osaka", "reason": "disk", "for_s": 60})
    assert made.status_code == 201
    assert running.operator.asked == [("pause", "node", "pi-osaka", "the API", "disk", 60.0)]
    pause_id = made.json()["id"]
    assert client.get("/api/v1/pauses").json()[-1]["id"] == pause_id
    assert client.delete(f"/api/v1/pauses/{pause_id}").status_code == 204
    assert f"no pause {pause_id}; there are: " in problem(client.delete(f"/api/v1/pauses/{pause_id}"), 404)
    assert "did you mean pi-osaka" in problem(
        client.post("/api/v1/pauses", json={"scope": "node", "target": "pi-osakka", "for_s": 60}), 404
    )
    assert "target" in problem(client.post("/api/v1/pauses", json={"scope": "fleet", "target": "x", "for_s": 60}), 409)


def test_a_refusal_is_a_conflict_in_its_own_words(running: Running, client: httpx.Client) -> None:
    running.operator.refusal = "the backup of this pair is not proven; mend it, or force the move"
    answer = client.post("/api/v1/switchover", json={"pair": PAIR, "path": "backup"})
    assert problem(answer, 409) == running.operator.refusal


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("switchover", "{", "JSON|truncated"),
        ("switchover", "", "body|truncated"),
        ("switchover", "[]", "object"),
        ("switchover", "null", "object"),
        ("switchover", '{"pair":"a--b"}', "path"),
        ("switchover", '{"pair":1,"path":"backup"}', "pair"),
        ("switchover", '{"pair":"a--b","path":"../etc"}', "path"),
        ("switchover", '{"pair":"a--b","path":"backup","force":"yes"}', "force"),
        ("switchover", '{"pair":"a--b","path":"backup","sudo":true}', "sudo"),
        ("switchover", '{"pair":"a--b","path":"backup","reason":"' + "x" * 1001 + '"}', "reason"),
        ("switchover", '{"pair":"\\ud800","path":"backup"}', "JSON"),
        ("failback", '{"pair":""}', "pair"),
        ("pauses", '{"scope":"galaxy","for_s":1}', "scope"),
        ("pauses", '{"scope":"fleet","for_s":NaN}', "JSON"),
        ("pauses", '{"scope":"fleet","for_s":Infinity}', "JSON"),
        ("pauses", '{"scope":"fleet","for_s":1e999}', "for_s|range"),
        ("pauses", '{"scope":"fleet","for_s":1e300}', "for_s"),
        ("pauses", '{"scope":"fleet","for_s":-1}', "for_s"),
        ("pauses", '{"scope":"fleet","for_s":0}', "for_s"),
        ("pauses", '{"scope":"fleet","for_s":"soon"}', "for_s"),
        ("pauses", '{"scope":"fleet","for_s":' + "9" * 400 + "}", "for_s|range"),
        ("pauses", "[" * 10_000, ""),
        ("pauses", b"\xff\xfe{}", ""),
    ],
)
def test_bad_bodies_name_what_is_wrong(
    running: Running, client: httpx.Client, path: str, body: str | bytes, field: str
) -> None:
    answer = client.post(f"/api/v1/{path}", content=body, headers={"Content-Type": "application/json"})
    detail = problem(answer, 400)
    assert any(word in detail for word in field.split("|")), detail
    assert running.operator.asked == []


def test_a_large_body_is_refused(client: httpx.Client) -> None:
    answer = client.post("/api/v1/failback", content=b'{"pair":"' + b"x" * 20_000 + b'"}')
    assert "at most 16384 bytes" in problem(answer, 413)


def test_a_plan_may_name_as_many_pairs_as_the_document_says(running: Running, client: httpx.Client) -> None:
    long = f"{'x' * 63}--{'y' * 63}"
    answer = client.post("/api/v1/plans", json={"path": "backup", "pairs": [PAIR] * 500 + [long] * 500})
    assert "no pair 'xxx" in problem(answer, 404)
    assert "pairs" in problem(client.post("/api/v1/plans", json={"path": "backup", "pairs": [long] * 1001}), 400)
    assert "at most 280000 bytes" in problem(client.post("/api/v1/plans", content=b"x" * 280_001), 413)
    assert running.operator.asked == []


def test_other_methods_and_paths_are_problems_too(client: httpx.Client) -> None:
    answer = client.put("/api/v1/pauses")
    assert "openapi.json" in problem(answer, 405)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST", "OPTIONS"}
    assert "openapi.json" in problem(client.get("/api/v1/nothing"), 404)


def test_a_bug_shows_no_traceback(running: Running, client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    running.operator.fleet = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    assert problem(client.get("/api/v1/fleet"), 500) == "a bug in the controller; its log has the details"
    assert "ZeroDivisionError" in caplog.text


# --- the door -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \xff".encode("latin-1")},
        {"Cookie": f"{auth.COOKIE}={TOKEN}"},
        {"Cookie": f"{auth.COOKIE}={'0' * 64}"},
        {"Cookie": f"{auth.COOKIE}=\xff.\xfe".encode("latin-1")},
    ],
)
def test_nothing_without_the_token(running: Running, stranger: httpx.Client, headers: dict[str, Any]) -> None:
    for method, path in (
        *(("GET", f"/api/v1/{each}") for each in ("fleet", "nodes", "events", "openapi.json", "stream", "why/fleet")),
        *(
            ("POST", f"/api/v1/{each}")
            for each in ("switchover", "failback", "plans", "drills", "pairs/a--b/approve", "pauses")
        ),
        ("DELETE", "/api/v1/pauses/1"),
        ("GET", "/metrics"),
    ):
        answer = stranger.request(method, path, headers=headers)
        assert "Bearer" in problem(answer, 401), path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
    # A cookie that opens nothing is of a session that is over.
    over = {"over": ["1"]} if isinstance(headers.get("Cookie"), str) else {}
    for path, asked in (("/", {}), ("/account?x=1", {"next": ["/account?x=1"]})):
        page = stranger.get(path, headers=headers)
        to = urlsplit(page.headers["location"])
        assert (page.status_code, to.path, parse_qs(to.query)) == (303, "/login", asked | over)
    assert running.operator.asked == []


def test_healthz_needs_no_token_and_tells_trouble(running: Running, stranger: httpx.Client) -> None:
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "problems": []})
    running.problems.append("no broker session")
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "trouble", "problems": ["no broker session"]})


def test_every_answer_has_the_strict_headers(client: httpx.Client) -> None:
    for path in (
        "/",
        "/login",
        "/static/any/fleet.js",
        "/healthz",
        "/metrics",
        "/api/v1/fleet",
        "/nothing",
        "/api/v1/nodes/x",
    ):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers.get_list("content-security-policy", split_commas=True) == [headers["content-security-policy"]]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_the_token_file_is_made_kept_and_judged(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = load_token(str(file))
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_token(str(file)) == token
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_token(str(file))
    file.chmod(0o600)
    for bad in ("", "short", "two words in a token file", "ümläut-ümläut-ümläut"):
        file.write_text(bad)
        with pytest.raises(ConfigError, match="one word of 16 or more ASCII characters"):
            load_token(str(file))
    with pytest.raises(ConfigError, match="cannot be made"):
        load_token(str(tmp_path / "nowhere" / "token"))


# --- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_are_read_by_prometheus_own_parser(running: Running, client: httpx.Client) -> None:
    running.operator.view = samples.hostile()
    assert list(text_string_to_metric_families(client.get("/metrics").text))
    running.operator.view = samples.bad_hour()
    families = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
    view = samples.bad_hour()
    assert len(families["vagus_node_online"].samples) == len(view.nodes)
    assert sum(sample.value for sample in families["vagus_pairs"].samples) == len(view.pairs)
    assert families["vagus_quorum_voters"].samples[0].value == view.quorum.voters
    with_heat = [node for node in view.nodes if node.report and node.report.system and node.report.system.temperature_c]
    assert len(families["vagus_node_temperature_celsius"].samples) == len(with_heat)


def test_metrics_of_a_large_mesh_are_bounded() -> None:
    large = samples.large()
    assert len(large.pairs) > MAX_PAIRS
    text = exposition(large, 0, 0).decode()
    assert "vagus_pair_series_omitted 1.0" in text
    assert "vagus_link_rtt_seconds" not in text
    assert sum(1 for line in text.splitlines() if not line.startswith("#")) < 30 * len(large.nodes)


def test_every_metric_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    for family in text_string_to_metric_families(exposition(samples.bad_hour(), 0, 0).decode()):
        assert f"`{family.name}`" in documented, family.name


# --- the stream -----------------------------------------------------------------------------------------------------


def read(lines: Iterator[str], count: int) -> list[tuple[str, str, Any]]:
    """`count` messages, pings aside: (topic, id, data)."""
    found: list[tuple[str, str, Any]] = []
    topic = message_id = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            topic = value
        elif field == "id":
            message_id = value
        elif field == "data" and topic != "ping":
            found.append((topic, message_id, json.loads(value)))
            if len(found) == count:
                break
    return found


def test_a_new_client_gets_the_fleet_and_then_what_changes(running: Running, client: httpx.Client) -> None:
    running.event("pi-1", "before")
    with client.stream("GET", "/api/v1/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        [(topic, _, data)] = read(lines, 1)
        assert (topic, data["summary"]) == ("fleet", samples.calm().summary)
        running.publish("event", running.event("pi-1", "news\n\ndata: forged"))
        running.publish("ledger", running.decision(PAIR))
        running.publish("fleet", samples.bad_hour())
        messages = read(lines, 3)
    assert [topic for topic, _, _ in messages] == ["event", "ledger", "change"]
    assert messages[0][2]["text"] == "news\n\ndata: forged"
    change = messages[2][2]
    assert change["head"]["summary"] == samples.bad_hour().summary
    assert change["head"]["pairs"] == change["head"]["nodes"] == []
    assert {pair["name"] for pair in change["pairs"]} == {
        pair.name for pair, before in zip(samples.bad_hour().pairs, samples.calm().pairs, strict=True) if pair != before
    }
    assert [node["name"] for node in change["nodes"]] == [samples.OSAKA]


def test_answers_are_compressed_for_who_takes_that(client: httpx.Client) -> None:
    packed = client.get("/api/v1/fleet", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    plain = client.get("/api/v1/fleet", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_a_stream_is_compressed_for_who_takes_that(running: Running, client: httpx.Client) -> None:
    """Each message stands for itself, so that it is compressed once for all; together they are one gzip stream."""
    for encoding in ("gzip, deflate", "identity"):
        with client.stream("GET", "/api/v1/stream", headers={"Accept-Encoding": encoding}) as answer:
            assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in encoding else None)
            lines = answer.iter_lines()
            assert read(lines, 1)[0][2]["fleet"] == "harbour"
            running.publish("event", running.event("pi-1", "news"))
            # What changed since the last client's picture may come first.
            while (message := read(lines, 1)[0])[0] == "change":
                pass
            assert message[2]["text"] == "news"
            running.publish("fleet", samples.bad_hour())
            assert read(lines, 1)[0][0] == "change"
            running.publish("fleet", samples.calm())
            assert read(lines, 1)[0][0] == "change"


def test_a_returning_client_gets_what_it_missed_in_order_and_once(running: Running, client: httpx.Client) -> None:
    seen = running.event("pi-1", "seen")
    missed = [running.event("pi-1", "missed 1"), running.event("pi-1", "missed 2")]
    decided = running.decision(PAIR)
    headers = {"Last-Event-ID": f"{seen.id}-0"}
    with client.stream("GET", "/api/v1/stream", headers=headers) as answer:
        lines = answer.iter_lines()
        messages = read(lines, 4)
        assert [data.get("text", data.get("action")) for _, _, data in messages[:3]] == [
            "missed 1",
            "missed 2",
            "failover",
        ]
        assert messages[3][:2] == ("fleet", f"{missed[-1].id}-{decided.id}")
        running.publish("event", running.event("pi-1", "live"))
        assert read(lines, 1)[0][2]["text"] == "live"


@pytest.mark.parametrize("mark", ["", "x", "1", "-", "1-", "-1", "²-1", "1-2-3", "9" * 50 + "-1", "1 -2", "0x1-1"])
def test_a_foreign_last_event_id_is_no_id(mark: str) -> None:
    assert parse_marks(mark) is None


def test_an_idle_stream_pings(running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_AFTER_S", 0.05)
    with client.stream("GET", "/api/v1/stream") as answer:
        lines = answer.iter_lines()
        read(lines, 1)
        assert next(line for line in lines if line.startswith("event")) == "event: ping"


def test_a_stream_that_ends_is_forgotten_and_too_many_are_refused(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_SUBSCRIBERS", 1)
    with client.stream("GET", "/api/v1/stream") as answer:
        lines = answer.iter_lines()
        read(lines, 1)
        assert running.changes.subscribers == 1
        assert "too many" in problem(client.get("/api/v1/stream"), 503)
    running.until(lambda: running.changes.subscribers == 0, "the client that went is forgotten")


def test_a_client_that_does_not_read_holds_up_nobody_and_is_dropped(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_WITHIN_S", 0.5)
    running.operator.view = samples.large()
    with socket.create_connection(("127.0.0.1", running.port)) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        running.until(lambda: running.changes.subscribers == 1, "the stuck client is in")
        with client.stream("GET", "/api/v1/stream") as answer:
            lines = answer.iter_lines()
            read(lines, 1)
            running.publish("event", running.event("pi-1", "for those who read"))
            assert read(lines, 1)[0][2]["text"] == "for those who read"
            running.until(lambda: running.changes.subscribers == 1, "the stuck client is dropped")
            running.publish("event", running.event("pi-1", "still here"))
            assert read(lines, 1)[0][2]["text"] == "still here"


def test_stopping_ends_streams_within_seconds(running: Running, client: httpx.Client) -> None:
    with client.stream("GET", "/api/v1/stream") as answer:
        lines = answer.iter_lines()
        read(lines, 1)
        running.stop()
        assert [line for line in lines if line.startswith("event: fleet")] == []


# --- the feed, without a network -------------------------------------------------------------------------------------


def entry(number: int) -> EventEntry:
    return samples.event(number, "pi-1", f"event {number}", Severity.INFO)


def on_a_loop_that_jumps(run: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]) -> None:
    """Runs on an event loop whose clock stands still, but for jumps to the next timer; nothing there takes CPU time."""

    class Jumping(asyncio.SelectorEventLoop):
        jumped = 0.0

        def time(self) -> float:
            return self.jumped

        def _run_once(self) -> None:
            if not self._ready and self._scheduled:  # type: ignore[attr-defined]
                self.jumped += max(0.0, self._scheduled[0].when() - self.time())  # type: ignore[attr-defined]
            super()._run_once()  # type: ignore[misc]

    loop = Jumping()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "thread_time", lambda: 0.0)
            loop.run_until_complete(run(loop))
    finally:
        loop.close()


def numbered(number: int) -> FleetView:
    return msgspec.structs.replace(samples.calm(), summary=f"picture {number}")


def told(data: bytes) -> list[tuple[str, str]]:
    """(topic, summary) of each message about the fleet."""
    found = []
    for message in data.decode().split("\n\n"):
        topic, _, body = message.partition("\ndata: ")
        if topic in ("event: fleet", "event: change"):
            fleet = json.loads(body)
            found.append((topic[7:], fleet.get("head", fleet)["summary"]))
    return found


def test_changes_are_told_at_most_every_quarter_second_and_the_last_one_is() -> None:
    async def run(loop: asyncio.AbstractEventLoop) -> None:
        feed = ChangeFeed()
        clients = [Subscriber() for _ in range(5)]
        for each in clients:
            feed.subscribe(each)
            assert told(await feed.picture(each, lambda: Whole(samples.calm()))) == [("fleet", samples.calm().summary)]
        for number in range(100):
            feed.show(lambda number=number: Whole(numbered(number)))  # type: ignore[misc]
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        [first, *others] = [told(each.take()) for each in clients]
        assert others == [first] * 4
        assert first[-1] == ("change", "picture 99") or first[-1][1] >= "picture 75"
        feed.show(lambda: Whole(numbered(100)))
        await asyncio.sleep(1)
        assert told(clients[0].take()) == [("change", "picture 100")]
        # One second of pictures, the first at once.
        assert 4 <= len(first) <= 6

    on_a_loop_that_jumps(run)


def test_nothing_is_drawn_when_nobody_looks() -> None:
    async def run(loop: asyncio.AbstractEventLoop) -> None:
        ChangeFeed().show(lambda: pytest.fail("drawn for nobody"))
        await asyncio.sleep(1)

    on_a_loop_that_jumps(run)


def test_the_page_that_another_page_leads_to_is_given_what_was_kept_up_meanwhile_and_later_nothing_is_drawn() -> None:
    class Counting(Whole):
        drawn = 0

        def node(self, name: str) -> NodeView:
            Counting.drawn += 1
            return super().node(name)

    async def run(loop: asyncio.AbstractEventLoop) -> None:
        feed, one, two, three = ChangeFeed(), Subscriber(), Subscriber(), Subscriber()
        feed.subscribe(one)
        await feed.picture(one, lambda: Counting(numbered(1)))
        feed.unsubscribe(one)
        feed.show(lambda: Counting(numbered(2)))
        await asyncio.sleep(stream.LINGER_S - 1)
        feed.subscribe(two)
        await asyncio.sleep(2)
        before = Counting.drawn
        assert told(await feed.picture(two, lambda: Counting(numbered(2)))) == [("fleet", "picture 2")]
        assert Counting.drawn == before, "every part was told before"
        feed.unsubscribe(two)
        await asyncio.sleep(stream.LINGER_S + 1)
        feed.show(lambda: pytest.fail("drawn for nobody"))
        await asyncio.sleep(1)
        feed.subscribe(three)
        assert told(await feed.picture(three, lambda: Counting(numbered(3)))) == [("fleet", "picture 3")]
        assert Counting.drawn == before + len(samples.calm().nodes)

    on_a_loop_that_jumps(run)


def test_a_large_picture_reads_the_same_packed_and_what_changes_while_it_is_packed_is_told_after_it() -> None:
    words = random.Random(1).randbytes(600_000).hex()

    async def run() -> None:
        feed, packs, plain = ChangeFeed(), Subscriber(packs=True), Subscriber()
        for each in (packs, plain):
            feed.subscribe(each)
        large = msgspec.structs.replace(samples.calm(), summary=words)
        packing = asyncio.create_task(feed.picture(packs, lambda: Whole(large)))
        await asyncio.sleep(0)
        feed.show(lambda: Whole(numbered(2)))
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        assert told(inflate.decompress(await packing)) == [("fleet", words)]
        assert told(await feed.picture(plain, lambda: pytest.fail("drawn twice"))) == [("fleet", words)]
        await asyncio.sleep(1)
        assert told(inflate.decompress(packs.take())) == told(plain.take()) == [("change", "picture 2")]
        feed.close()

    asyncio.run(run())


def test_what_one_client_was_told_is_not_kept_however_long_it_stays() -> None:
    async def run(loop: asyncio.AbstractEventLoop) -> None:
        feed, client = ChangeFeed(), Subscriber()
        feed.subscribe(client)
        await feed.picture(client, lambda: Whole(samples.calm()))
        for number in range(100):
            feed.show(lambda number=number: Whole(numbered(number)))  # type: ignore[misc]
            await asyncio.sleep(0.5)
            client.take()
        gc.collect()
        alive = [each for each in gc.get_objects() if isinstance(each, stream.Message)]
        assert len(alive) <= 2

    on_a_loop_that_jumps(run)


def test_a_client_with_too_many_changes_waiting_is_given_the_whole_picture() -> None:
    async def run(loop: asyncio.AbstractEventLoop) -> None:
        feed, slow, quick = ChangeFeed(), Subscriber(), Subscriber()
        for each in (slow, quick):
            feed.subscribe(each)
            await feed.picture(each, lambda: Whole(samples.calm()))
        for number in range(stream.MAX_CHANGES + 1):
            feed.show(lambda number=number: Whole(numbered(number)))  # type: ignore[misc]
            await asyncio.sleep(0.3)
            assert told(quick.take()) == [("change", f"picture {number}")]
        assert slow.behind
        assert told(slow.take()) == []
        assert told(await feed.picture(slow, lambda: Whole(numbered(77)))) == [("fleet", "picture 77")]
        assert not slow.behind
        # The others learn what that picture knew and they did not.
        assert told(quick.take()) == [("change", "picture 77")]

    on_a_loop_that_jumps(run)


def test_who_comes_soon_after_another_is_given_its_picture_and_what_changed_since() -> None:
    async def run(loop: asyncio.AbstractEventLoop) -> None:
        feed, one, two, later = ChangeFeed(), Subscriber(), Subscriber(), Subscriber()
        for each in (one, two, later):
            feed.subscribe(each)
        await feed.picture(one, lambda: Whole(numbered(1)))
        feed.show(lambda: Whole(numbered(2)))
        await asyncio.sleep(0.5)
        assert told(await feed.picture(two, lambda: pytest.fail("drawn twice"))) == [("fleet", "picture 1")]
        assert told(two.take()) == told(one.take()) == [("change", "picture 2")]
        await asyncio.sleep(3)
        assert told(await feed.picture(later, lambda: Whole(numbered(3)))) == [("fleet", "picture 3")]
        assert told(later.take()) == []

    on_a_loop_that_jumps(run)


def test_a_subscriber_with_too_much_waiting_is_cut_off_and_resumes_where_it_was() -> None:
    async def run(loop: asyncio.AbstractEventLoop) -> None:
        feed, subscriber = ChangeFeed(), Subscriber()
        feed.subscribe(subscriber)
        feed.publish(Change(1, "event", entry(1)))
        assert b"id: 1-0\n" in subscriber.take()
        for number in range(2, stream.MAX_QUEUED + 10):
            feed.publish(Change(number, "event", entry(number)))
        assert subscriber.over
        assert len(subscriber.entries) == 0
        assert subscriber.marks == (1, 0)

    on_a_loop_that_jumps(run)


# --- the server -----------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_told_in_words(running: Running) -> None:
    app = create_app(MemoryOperator(), running.store, ChangeFeed(), running.access, list, running.archive, Http())
    with pytest.raises(
        OSError, match=f"127.0.0.1:{running.port}: another program listens there; stop it, or set http.port"
    ):
        asyncio.run(serve(app, Http(host="127.0.0.1", port=running.port)))
    with pytest.raises(OSError, match=r"no such address; set http\.host"):
        asyncio.run(serve(app, Http(host="203.0.113.1", port=running.port)))


def test_the_server_leaves_signals_alone(running: Running) -> None:
    """They are the daemon's: a server that took SIGTERM would keep it from its own clean stop."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    app = create_app(MemoryOperator(), running.store, ChangeFeed(), running.access, list, running.archive, Http())
    found: dict[str, list[Any]] = {}

    async def run() -> None:
        serving = asyncio.ensure_future(serve(app, Http(host="127.0.0.2", port=running.port)))
        found["before"] = [signal.getsignal(number) for number in numbers]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.2:{running.port}") as http:
            # It listens from its first step on; the answer comes when it serves.
            await asyncio.sleep(0)
            assert (await http.get("/healthz")).status_code == 200
        found["serving"] = [signal.getsignal(number) for number in numbers]
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(run())
    assert found["serving"] == found["before"]
