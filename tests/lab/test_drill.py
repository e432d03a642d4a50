"""Drills of a real fleet: rehearsed, measured, and nothing of it left."""

from __future__ import annotations

import time
from typing import Any

from lab.fleet_helpers import (
    begin,
    failback,
    pair,
    pair_name,
    problem,
    state,
    table,
    until,
    until_settled,
)
from lab.harness import Lab, TcpStream

PAIR = ("pi1", "pi2")
OTHER = ("pi1", "vps")
NAME = pair_name(*PAIR)
MOST_TRIES = 3
DRILL = {"scope": "pair", "target": NAME, "reason": "a test"}


def drills(lab: Lab) -> Any:
    return lab.api("/api/v1/drills")


def ended(lab: Lab) -> Any:
    """The newest drill, once it is over."""
    until(lambda: drills(lab)[0]["state"] != "under way", lambda: f"the drill ends: {drills(lab)} {state(lab)}")
    return drills(lab)[0]


def test_a_drill_leaves_everything_as_it_was_and_the_stream_lives(lab: Lab) -> None:
    before = {name: table(lab, name) for name in PAIR}
    with TcpStream(lab, *PAIR) as tcp:
        for _ in range(MOST_TRIES):
            begin(lab, "drills", DRILL)
            until(lambda: pair(lab, *PAIR)["observed"] == ["backup", "backup"], lambda: f"out: {drills(lab)}")
            [found] = ended(lab)["pairs"]
            if found["state"] == "ok":
                break
            # A tunnel of a starved machine may stand still, and then a drill rightly ends.
            until_settled(lab, "overlay", [PAIR])
        assert found["state"] == "ok", found
        assert found["gap_s"] is not None, "both ends measured the way out"
        assert found["gap_back_s"] is not None, "both ends measured the way back"
        until_settled(lab, "overlay", [PAIR])
        until(lambda: tcp.receipts()[-1].sent > time.monotonic() - 1, "the TCP stream goes on")
        assert tcp.connections() == 1
    assert {name: table(lab, name) for name in PAIR} == before
    assert pair(lab, *PAIR)["origin"] == "default"
    assert pair(lab, *PAIR)["drill"]["ok"] is True
    newest = next(one for one in lab.api("/api/v1/ledger?limit=100") if one["action"] == "drill")
    assert newest["outcome"].startswith("ok: ")


def test_during_an_incident_it_is_refused(lab: Lab) -> None:
    body = {"pair": pair_name(*OTHER), "path": "backup", "reason": "a test"}
    lab.api("/api/v1/switchover", method="POST", body=body)
    until_settled(lab, "backup", [OTHER])
    status, detail = problem(lab, "/api/v1/drills", DRILL)
    assert status == 409
    assert f"off the first path: {pair_name(*OTHER)}" in detail
    failback(lab, *OTHER)


def test_a_backup_that_is_cut_in_mid_drill_aborts_and_reverts(lab: Lab) -> None:
    with TcpStream(lab, *PAIR) as tcp:
        begin(lab, "drills", DRILL)
        until(lambda: pair(lab, *PAIR)["observed"] == ["backup", "backup"], lambda: f"out: {drills(lab)}")
        lab.cut("backup", *PAIR)
        found = ended(lab)
        assert found["pairs"][0]["state"] == "aborted", found
        assert "backup" in found["pairs"][0]["reason"]
        until_settled(lab, "overlay", [PAIR])
        until(lambda: tcp.receipts()[-1].sent > time.monotonic() - 1, "the TCP stream goes on")
        assert tcp.connections() == 1
    assert pair(lab, *PAIR)["drill"]["ok"] is False
