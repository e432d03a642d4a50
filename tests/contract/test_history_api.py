"""Charts over the real API: what nodes reported, and what is said about a question that makes no sense."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.controller import TOKEN as ITS_TOKEN
from contract.controller import Controller
from contract.fleet_samples import TOKEN, Running
from contract.mosquitto import Mosquitto, Watcher
from contract.test_api import PAIR, problem
from unit.fleet_builders import config, link, observed, report, system
from vagus_controller.core.fleet import Fleet
from vagus_protocol import topics
from vagus_protocol.codec import encode

A, B = PAIR.split("--")


def history(running: Running, began: float, seconds: int) -> None:
    """Both nodes of PAIR have reported for so long, up to now."""
    fleet = Fleet(config())
    for second in range(seconds):
        for node, peer in ((A, B), (B, A)):
            links = (link(peer, "overlay", rtt_s=0.01, loss_10s=0.0), link(peer, "backup", rtt_s=0.02, loss_10s=0.5))
            said = report(node, second, system=system(load1=2.0, temperature_c=None), links=links)
            fleet.on_report(said, float(second), encode(said))
            fleet.on_observed(observed(node, paths={peer: "overlay"}), float(second))
        running.archive.take(fleet.nodes, float(second), began + second)
    running.until(lambda: not running.archive._queue, "the writer has taken all in")


def get(client: httpx.Client, path: str, **asked: Any) -> Any:
    answer = client.get(f"/api/v1/{path}", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_nodes_chart(running: Running, client: httpx.Client) -> None:
    began = time.time() - 300
    history(running, began, 300)
    body = get(client, f"nodes/{A}/history", range="1h")
    assert body["step_s"] == 10
    assert 28 <= len(body["at"]) <= 31
    assert body["at"][0] % 10 == 0
    columns = {(each["metric"], each["of"]): each for each in body["columns"]}
    assert "temperature" not in {metric for metric, _ in columns}, "what it lacks is absent"
    load = columns["load", ""]
    assert set(load["mean"]) <= {0.5, None}
    assert len(load["low"]) == len(load["mean"]) == len(load["high"]) == len(body["at"])
    assert body["links"] == []
    full = get(client, f"nodes/{A}/history", links="true", step=60, since=began, until=began + 300)
    assert full["step_s"] == 60
    assert [(each["peer"], each["path"]) for each in full["links"]] == [(B, "backup"), (B, "overlay")]
    assert full["links"][0]["loss"]["mean"][0] == 0.5
    assert full["links"][0]["jitter_s"] is None
    for peers, found in (([B], full["links"]), (["nobody"], []), ([B, "nobody"], full["links"])):
        some = get(client, f"nodes/{A}/history", peer=peers, step=60, since=began, until=began + 300)
        assert (some["links"], some["columns"]) == (found, full["columns"])


def test_a_pairs_chart_in_either_order(running: Running, client: httpx.Client) -> None:
    history(running, time.time() - 120, 120)
    body = get(client, f"links/{PAIR}/history", range="1h")
    assert body["pair"] == PAIR
    assert [end["node"] for end in body["ends"]] == [A, B]
    assert body["ends"][0]["shares"] == {"direct": 1.0, "relayed": 0.0, "backup": 0.0}
    assert len(body["ends"][0]["ways"]["direct"]) == len(body["at"])
    assert {path["path"] for path in body["ends"][1]["paths"]} == {"overlay", "backup"}
    turned = get(client, f"links/{B}--{A}/history", range="1h")
    assert turned["ends"] == body["ends"]


def test_a_node_without_history_has_an_empty_chart(client: httpx.Client) -> None:
    body = get(client, f"nodes/{A}/history", range="30d")
    assert (body["at"], body["columns"]) == ([], [])
    assert get(client, f"links/{PAIR}/history")["ends"][0]["shares"]["direct"] is None


def test_sparklines_of_the_whole_fleet(running: Running, client: httpx.Client) -> None:
    assert get(client, "sparklines")["nodes"] == {}
    history(running, time.time() - 240, 240)
    body = get(client, "sparklines")
    assert set(body["nodes"]) == {A, B}
    assert len(body["nodes"][A]) == 30
    assert body["nodes"][A][-2] == 0.5
    assert 0 <= body["end"] - time.time() <= 2 * body["step_s"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"range": "2h"}, "range"),
        ({"range": "1h", "since": 5}, "leave one out"),
        ({"since": 100, "until": 100}, "since: must be before until"),
        ({"since": 9e9}, "since"),
        ({"since": 8e9}, "must be before"),
        ({"since": "nan"}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"until": -1}, "until"),
        ({"range": "30d", "step": 60}, "step: makes more than 1500 points; take 1728 or more"),
        ({"step": 0}, "step"),
        ({"step": 9}, "step"),
        ({"step": 10**30}, "step"),
    ],
)
@pytest.mark.parametrize("where", [f"nodes/{A}/history", f"links/{PAIR}/history"])
def test_a_bad_question_is_told_what_is_wrong(
    client: httpx.Client, where: str, asked: dict[str, Any], words: str
) -> None:
    assert words in problem(client.get(f"/api/v1/{where}", params=asked), 400)


def test_the_longest_time_is_answered(client: httpx.Client) -> None:
    assert get(client, f"nodes/{A}/history", since=0)["at"] == []


def test_who_is_not_there_and_who_may_not_ask(running: Running, client: httpx.Client) -> None:
    assert "did you mean" in problem(client.get(f"/api/v1/nodes/{A}x/history"), 404)
    assert "no pair" in problem(client.get("/api/v1/links/a--b/history"), 404)
    with httpx.Client(base_url=running.url, timeout=10) as stranger:
        for path in (f"nodes/{A}/history", f"links/{PAIR}/history", "sparklines"):
            problem(stranger.get(f"/api/v1/{path}"), 401)
    assert TOKEN


def test_events_and_decisions_of_a_time(running: Running, client: httpx.Client) -> None:
    first, second = running.event(A, "one"), running.event(A, "two")
    decided = running.decision(PAIR)
    at = second.at
    assert [each["id"] for each in get(client, "events", since=at)] == [second.id]
    assert [each["id"] for each in get(client, "events", until=at)] == [first.id]
    assert get(client, "ledger", until=decided.at) == []
    assert [each["id"] for each in get(client, "ledger", since=decided.at, until=decided.at + 1)] == [decided.id]
    running.until(lambda: not running.store._events.waiting, "the rows are on disk")
    assert [each["id"] for each in get(client, "events", since=first.at, until=at)] == [first.id]
    assert "since" in problem(client.get("/api/v1/events", params={"since": "soon"}), 400)


def test_a_real_controller_charts_what_comes_by_the_broker_and_remembers_it(tmp_path: Path) -> None:
    def chart() -> Any:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{controller.port}/api/v1/nodes/pi/history?range=1h"
            answer = httpx.get(url, headers={"Authorization": f"Bearer {ITS_TOKEN}"}, timeout=10)
            if answer.status_code == 200 and answer.json()["at"]:
                return answer.json()
        return None

    def until_charted() -> Any:
        deadline = time.monotonic() + 60
        while (found := chart()) is None:
            assert time.monotonic() < deadline, "nothing is charted within 60 s"
        return found

    with Mosquitto() as broker, Watcher(broker.port) as node:
        controller = Controller(broker, tmp_path)
        controller.write('nodes = ["pi"]\n')
        try:
            controller.start()
            said = threading.Event()

            def report_on() -> None:
                seq = 0
                while not said.wait(0.2):
                    seq += 1
                    node.send(topics.node("lab", "pi", "report"), encode(report("pi", seq, system=system(load1=2.0))))

            reporter = threading.Thread(target=report_on)
            reporter.start()
            try:
                found = until_charted()
            finally:
                said.set()
                reporter.join()
            controller.stop()
            controller.start()
            again = until_charted()
        finally:
            controller.stop(crash=True)
    assert found["columns"][0]["metric"] == again["columns"][0]["metric"] == "load"
    assert set(again["columns"][0]["mean"]) <= {0.5, None}
    assert set(found["at"]) <= set(again["at"])
