"""The main job: the controller moves pairs off a dead overlay and back, and does not where it must not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from lab.fleet_helpers import (
    FAILBACK_HOLD_S,
    FOUR_WITH_ETCD,
    Since,
    Wire,
    desired_topic,
    ends_go,
    fleet,
    holds,
    kernel_goes,
    node,
    pair,
    pair_name,
    pairs,
    problem,
    retained,
    route,
    running,
    settled_on,
    state,
    table,
    until,
    until_settled,
    until_well,
    verdict,
)
from lab.harness import Lab, TcpStream, UdpStream

PAIR = ("pi1", "pi2")
# A lost probe counts for a minute.
LOSS_IS_OVER_S = 100.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """A VPS with broker and controller, three Pis with etcd: a test that breaks something mends it."""
    with running(FOUR_WITH_ETCD, etcd=True) as lab:
        yield lab


def test_overlay_dead_everywhere_moves_every_pair_and_every_connection_lives(lab: Lab) -> None:
    since = Since(lab)
    names = {pair_name(*one) for one in pairs(lab)}
    with TcpStream(lab, *PAIR) as four, TcpStream(lab, *PAIR, ipv6=True) as six, UdpStream(lab, "pi3", "vps") as udp:
        streams = (four, six)
        lab.cut("overlay")
        until_settled(lab, "backup")
        moved = time.monotonic()
        until(lambda: all(one.receipts()[-1].sent > moved for one in streams), "both TCP streams go on")
        until(lambda: udp.arrivals()[-1].sent > moved, "the UDP stream goes on")
        assert since.moves() == {("failover", name) for name in names}
        for entry in since.ledger("failover"):
            assert entry["outcome"].startswith("done at both ends"), entry
            assert entry["who"] == "vagus"
            assert "overlay is down" in entry["reason"]
            assert "backup is proven from both ends" in entry["reason"]
            assert entry["evidence"]
        for name in names:
            assert since.events("link", "is down", f"{name}/overlay"), f"no agent's event of {name}"
            assert since.events("link", "down:", f"{name}/overlay"), f"no verdict of {name}"
            assert since.events("failover", "now by backup", name), f"the end of the move of {name} is not told"

        _the_same_desired_twice_changes_nothing(lab)

        home = Since(lab)
        lab.mend("overlay")
        until_settled(lab, "overlay")
        moved = time.monotonic()
        until(lambda: all(one.receipts()[-1].sent > moved for one in streams), "both TCP streams go on at home")
        assert home.moves() == {("failback", name) for name in names}
        for entry in home.ledger("failback"):
            held = float(entry["reason"].rpartition(" for ")[2].removesuffix(" s"))
            assert held >= FAILBACK_HOLD_S, entry["reason"]
        for stream in streams:
            assert stream.alive, stream.ended()
            assert stream.connections() == 1


def _the_same_desired_twice_changes_nothing(lab: Lab) -> None:
    since, before, told = Since(lab), table(lab, "pi1"), node(lab, "pi1")
    [payload] = [payload for name, payload in retained(lab, "desired").items() if name == "pi1"]
    with Wire(lab) as wire:
        for _ in range(2):
            wire.publish(desired_topic("pi1"), payload, retain=True)
    holds(lambda: table(lab, "pi1") == before, 1.5, "the same desired again changed routes")
    after = node(lab, "pi1")
    assert (after["epoch"], after["generation"], after["observed"]) == (
        told["epoch"],
        told["generation"],
        told["observed"],
    )
    assert not since.events("steering", subject=pair_name(*PAIR))
    assert not since.events("refused")
    assert not since.moves(PAIR)


def test_a_dead_pair_moves_alone(lab: Lab) -> None:
    since = Since(lab)
    lab.cut("overlay", *PAIR)
    until_settled(lab, "backup", [PAIR])
    others = [one for one in pairs(lab) if one != PAIR]
    until_settled(lab, "overlay", others)
    assert since.moves(PAIR) == {("failover", pair_name(*PAIR))}
    assert not since.unfounded()


def test_without_its_overlay_interface_the_kernel_falls_back_before_anybody_decides(lab: Lab) -> None:
    since = Since(lab)
    mine = [one for one in pairs(lab) if "pi1" in one]
    peers = [b if a == "pi1" else a for a, b in mine]
    # The agent sleeps: what happens at once is the kernel's doing.
    lab.process("pi1", "agent").freeze()
    lab.overlay_gone("pi1")
    fallen = {peer: route(lab, "pi1", peer) for peer in peers}
    lab.process("pi1", "agent").thaw()
    assert fallen == dict.fromkeys(peers, ("wg0", "wg0"))
    until_settled(lab, "backup", mine)
    assert {subject for _, subject in since.moves()} == {pair_name(*one) for one in mine}
    lab.overlay_back("pi1")
    until_settled(lab, "overlay")


def test_one_way_loss_moves_both_ends(lab: Lab) -> None:
    since = Since(lab)
    lab.cut("overlay", *PAIR, one_way=True)
    until_settled(lab, "backup", [PAIR])
    assert since.moves(PAIR) == {("failover", pair_name(*PAIR))}


def test_with_the_backup_dead_too_nothing_moves_and_the_reason_names_it(lab: Lab) -> None:
    since = Since(lab)
    lab.cut("backup", *PAIR)
    until(lambda: verdict(lab, *PAIR, "backup")["state"] == "down", "the backup is seen down")
    assert not since.moves(PAIR)
    lab.cut("overlay", *PAIR)
    until(lambda: pair(lab, *PAIR)["status"] == "waiting", lambda: f"the pair waits: {state(lab)}")
    holds(lambda: ends_go(lab, "overlay", [PAIR]), 2.0, "it moved to a dead backup")
    assert not since.moves(PAIR)
    reason = pair(lab, *PAIR)["reason"]
    assert "backup is not proven" in reason
    assert since.ledger("hold", pair_name(*PAIR)), "the ledger does not tell why nothing was done"
    lab.mend("backup", *PAIR)
    until_settled(lab, "backup", [PAIR])


def test_a_relayed_overlay_is_told_and_stays(lab: Lab) -> None:
    since = Since(lab)
    lab.degrade(*PAIR, delay_s=0.02, jitter_s=0.005, loss=0.04)

    def told(words: str) -> bool:
        one = verdict(lab, *PAIR, "overlay")
        return bool(one["state"] == "relayed" and one["severity"] == "warning" and words in one["reason"])

    until(lambda: told("DERP"), lambda: f"the relay is told: {state(lab)}")
    until(lambda: told("probes lost"), lambda: f"the loss is told: {state(lab)}")
    for delay_s in (0.05, 0.15):
        lab.degrade(*PAIR, delay_s=delay_s, jitter_s=0.02)
        holds(lambda: ends_go(lab, "overlay", [PAIR]), 2.5, "it moved")
    [overlay] = [path for path in pair(lab, *PAIR)["paths"] if path["path"] == "overlay"]
    assert all(end["link"]["rtt_s"] > 0.2 for end in overlay["ends"]), "the relay delays nothing: no test"
    assert not since.moves(PAIR)


def test_a_relayed_overlay_between_members_is_left_before_quorum_goes_and_gone_home_to_when_it_is_direct(
    lab: Lab,
) -> None:
    until(lambda: verdict(lab, *PAIR, "overlay")["state"] == "up", "what was lost is a minute ago", LOSS_IS_OVER_S)
    lab.kill_controller()
    lab.start_controller(settings={"failover": {"quality": {"members": "auto", "for_s": 5.0}}})
    until_well(lab)
    since = Since(lab)
    try:
        # Well above the backup, also where a busy machine makes that one jitter, and below what etcd's timers bear.
        lab.degrade(*PAIR, delay_s=0.035, jitter_s=0.005)
        until_settled(lab, "backup", [PAIR])
        reasons = [entry["reason"] for entry in since.ledger("failover", pair_name(*PAIR))]
        assert any("is relayed" in reason and "better by the margin" in reason for reason in reasons), since.ledger()
        looked_at = {check["what"]: check for check in lab.api(f"/api/v1/why/{pair_name(*PAIR)}")["checks"]}
        assert "not good enough to go home to" in looked_at["way home"]["text"]
        assert looked_at["backup proven"]["result"] == "pass"
        lab.mend("overlay", *PAIR)
        until(lambda: settled_on(lab, "overlay", [PAIR]), lambda: f"it goes home: {state(lab)}", LOSS_IS_OVER_S)
        assert ("failback", pair_name(*PAIR)) in since.moves()
    finally:
        lab.kill_controller()
        lab.start_controller()


def test_a_pair_whose_overlay_flaps_stays_on_the_backup_even_over_a_restart_until_a_person_moves_it(lab: Lab) -> None:
    name = pair_name(*PAIR)
    damped = {"failover": {"damping": {"half_life_s": 300.0}}}
    lab.kill_controller()
    lab.start_controller(settings=damped)
    until_well(lab)
    since = Since(lab)
    try:
        for outage in ("first", "second"):
            lab.cut("overlay", *PAIR)
            until_settled(lab, "backup", [PAIR])
            lab.mend("overlay", *PAIR)
            if outage == "first":
                until_settled(lab, "overlay", [PAIR])
        until(
            lambda: any("damped" in hold["reason"] for hold in since.ledger("hold", name)),
            lambda: f"it is told why the pair stays: {state(lab)}",
        )
        lab.kill_controller()
        lab.start_controller(settings=damped)
        until(lambda: pair(lab, *PAIR)["status"] == "waiting", lambda: f"the pair waits: {state(lab)}")
        holds(lambda: ends_go(lab, "backup", [PAIR]), FAILBACK_HOLD_S + 1.5, "it went home by itself")
        [check] = [one for one in lab.api(f"/api/v1/why/{name}")["checks"] if one["what"] == "flap damping"]
        assert check["result"] == "block"
        assert len(since.ledger("failback", name)) == 1
        lab.api("/api/v1/failback", method="POST", body={"pair": name, "reason": "the router was replaced"})
        until_settled(lab, "overlay", [PAIR])
    finally:
        lab.kill_controller()
        lab.start_controller()


def test_tailscale_riding_the_backup_is_flagged(lab: Lab) -> None:
    since = Since(lab)
    file = lab["pi1"].directory / "localapi.json"
    said = json.loads(file.read_text())
    for peer in said["peers"]:
        if peer["name"] == "pi2":
            peer["endpoint"] = f"{lab['pi2'].backup}:41641"
    fresh = file.with_suffix(".riding")
    fresh.write_text(json.dumps(said))
    fresh.rename(file)
    told = "pi1 reaches pi2 riding the backup network"
    until(lambda: told in verdict(lab, *PAIR, "overlay")["reason"], lambda: f"it is told: {state(lab)}")
    assert verdict(lab, *PAIR, "overlay")["state"] == "riding-backup"
    assert not since.moves(PAIR)


def test_a_pause_blocks_and_says_so_and_resume_acts(lab: Lab) -> None:
    since = Since(lab)
    pause = lab.api(
        "/api/v1/pauses",
        method="POST",
        body={"scope": "node", "target": "pi1", "reason": "new cabling", "for_s": 600},
    )
    lab.cut("overlay")
    mine = [one for one in pairs(lab) if "pi1" in one]
    others = [one for one in pairs(lab) if "pi1" not in one]
    until_settled(lab, "backup", others)
    until(lambda: all(pair(lab, *one)["status"] == "waiting" for one in mine), "the paused pairs wait")
    holds(lambda: ends_go(lab, "overlay", mine), 2.0, "a paused pair moved")
    assert "new cabling" in pair(lab, *PAIR)["reason"]
    assert [one["reason"] for one in fleet(lab)["pauses"]] == ["new cabling"]
    [hold] = since.ledger("hold", pair_name(*PAIR))
    assert "new cabling" in hold["reason"]
    lab.api(f"/api/v1/pauses/{pause['id']}", method="DELETE")
    until_settled(lab, "backup")
    assert [one["action"] for one in since.ledger() if one["action"] in ("pause", "resume")] == ["pause", "resume"]
    assert fleet(lab)["pauses"] == []


def test_recommend_only_recommends(lab: Lab) -> None:
    lab.kill_controller()
    lab.start_controller(settings={"failover": {"mode": "recommend"}})
    until_well(lab)
    since = Since(lab)
    try:
        lab.cut("overlay", *PAIR)
        until(lambda: pair(lab, *PAIR)["status"] == "recommended", lambda: f"it is recommended: {state(lab)}")
        holds(lambda: ends_go(lab, "overlay", [PAIR]), 2.0, "it moved")
        assert not since.moves(PAIR)
        [entry] = since.ledger("recommend")
        assert entry["subject"] == pair_name(*PAIR)
        assert "recommends failover to backup" in entry["reason"]
        lab.api("/api/v1/switchover", method="POST", body={"pair": pair_name(*PAIR), "path": "backup"})
        until_settled(lab, "backup", [PAIR])
        assert since.moves(PAIR) == {("switchover", pair_name(*PAIR))}
        lab.mend("overlay")
        until(lambda: verdict(lab, *PAIR, "overlay")["state"] == "up", "the overlay is seen up")
        lab.api("/api/v1/failback", method="POST", body={"pair": pair_name(*PAIR)})
        until_settled(lab, "overlay")
    finally:
        lab.kill_controller()
        lab.start_controller()


def test_switchover_and_failback_by_hand(lab: Lab) -> None:
    since = Since(lab)
    name = pair_name(*PAIR)
    with TcpStream(lab, *PAIR) as stream:
        body = {"pair": name, "path": "backup", "reason": "maintenance in Tokyo"}
        entry = lab.api("/api/v1/switchover", method="POST", body=body)
        assert (entry["action"], entry["subject"]) == ("switchover", name)
        until_settled(lab, "backup", [PAIR])
        # A person's switchover stays, although the overlay is well.
        holds(lambda: ends_go(lab, "backup", [PAIR]), FAILBACK_HOLD_S + 1.5, "it went home by itself")
        assert pair(lab, *PAIR)["origin"] == "operator"
        assert problem(lab, "/api/v1/switchover", body)[0] == 409
        lab.api("/api/v1/failback", method="POST", body={"pair": name, "reason": "done"})
        until_settled(lab, "overlay")
        moved = time.monotonic()
        until(lambda: stream.receipts()[-1].sent > moved, "the TCP stream goes on")
        assert stream.connections() == 1
    assert since.moves(PAIR) == {("switchover", name), ("failback", name)}
    done = [one["outcome"] for one in since.ledger() if one["subject"] == name]
    assert [one.startswith("done at both ends") for one in done] == [True, True]
    assert since.ledger("switchover")[0]["reason"] == "maintenance in Tokyo"


def test_switchover_to_an_unproven_backup_is_refused_and_force_needs_a_reason(lab: Lab) -> None:
    since = Since(lab)
    name = pair_name(*PAIR)
    lab.cut("backup", *PAIR)
    until(lambda: verdict(lab, *PAIR, "backup")["state"] == "down", "the backup is seen down")
    asked = {"pair": name, "path": "backup"}
    status, detail = problem(lab, "/api/v1/switchover", asked)
    assert status == 409
    assert "backup is not proven" in detail
    status, detail = problem(lab, "/api/v1/switchover", {**asked, "force": True})
    assert status == 409
    assert "reason" in detail
    assert ends_go(lab, "overlay", [PAIR])
    assert not since.moves(PAIR)
    lab.api("/api/v1/switchover", method="POST", body={**asked, "force": True, "reason": "I know why"})
    until(lambda: kernel_goes(lab, "pi1", "pi2", "backup"), "pi1 is on the backup")
    [entry] = since.ledger("switchover")
    assert "I know why" in entry["reason"]
    assert "not proven" in entry["reason"]
    # The backup is dead and the overlay lives: traffic does not stay in the void, whoever sent it there.
    until_settled(lab, "overlay", [PAIR])


def test_quorum_at_risk_lost_and_healthy_again_and_a_relayed_pair_of_members_moves_when_it_is_lost(lab: Lab) -> None:
    def quorum(found: str, because: str = "") -> None:
        until(
            lambda: (one := fleet(lab)["quorum"]["verdict"])["state"] == found and because in one["reason"],
            lambda: f"quorum {found}, {because}: {fleet(lab)['quorum']}",
        )

    # What other tests did to etcd's leaders is not this controller's to know: for five minutes it may be churn.
    lab.kill_controller()
    lab.start_controller()
    until_well(lab)
    quorum("healthy")
    since = Since(lab)
    lab.degrade(*PAIR, delay_s=0.02, jitter_s=0.005)
    until(lambda: verdict(lab, *PAIR, "overlay")["state"] == "relayed", "pi1--pi2 is relayed")
    try:
        lab.process("pi3", "etcd").kill()
        quorum(
            "at-risk", "pi3"
        )  # perhaps another one first: with its leader, every member loses its reads for a second
        assert not since.moves()
        lab.process("pi2", "etcd").freeze()
        quorum("lost", "2 must agree")
        until_settled(lab, "backup", [PAIR])
        assert {subject for _, subject in since.moves()} == {pair_name(*PAIR)}
        assert "no quorum" in since.ledger("failover")[0]["reason"]
        lab.process("pi2", "etcd").thaw()
        quorum("at-risk")
    finally:
        lab.process("pi2", "etcd").thaw()
        lab.restart_etcd("pi3")
    quorum("healthy")
