"""What the agents do alone: with the controller dead, the broker dead, by standing order, or not at all."""

from __future__ import annotations

import time

from lab.fleet_helpers import (
    ORPHANED_AFTER_S,
    Since,
    ends_go,
    holds,
    pair,
    pair_name,
    pairs,
    restart_agents,
    state,
    until,
    until_settled,
    until_well,
)
from lab.harness import Lab, TcpStream, UdpStream

PAIR = ("pi1", "pi2")
# Silence that a change of hands may cost on a busy machine. What it costs on an idle one: bench/blackout.
BLIP_S = 1.5


def until_alone_on(lab: Lab, path: str) -> None:
    """Every kernel has moved; nobody is asked but the kernels."""
    assert path in ("overlay", "backup")
    until(lambda: ends_go(lab, path, pairs(lab)), f"all kernels on {path}")  # type: ignore[arg-type]


def test_orphaned_agents_move_both_ends_and_the_controller_adopts_and_brings_home(lab: Lab) -> None:
    since = Since(lab)
    names = {pair_name(*one) for one in pairs(lab)}
    with TcpStream(lab, *PAIR) as tcp, UdpStream(lab, *PAIR) as udp:
        lab.kill_controller()
        lab.cut("overlay")
        until_alone_on(lab, "backup")
        until(lambda: udp.arrivals()[-1].arrived > time.monotonic() - 0.2, "the UDP stream goes on")
        alone = time.monotonic()

        lab.start_controller()
        until_settled(lab, "backup")
        assert since.moves() == {("adopt", name) for name in names}
        for entry in since.ledger("adopt"):
            assert "by itself: taken over" in entry["reason"]
            assert entry["outcome"].startswith("done at both ends")
        for one in pairs(lab):
            assert pair(lab, *one)["origin"] == "reflex"

        lab.mend("overlay")
        until_settled(lab, "overlay")
        assert since.moves() == {(action, name) for action in ("adopt", "failback") for name in names}
        home = time.monotonic()
        until(lambda: tcp.receipts()[-1].sent > home and udp.arrivals()[-1].sent > home, "the streams go on")
        assert tcp.connections() == 1
        assert udp.gap(alone).seconds < BLIP_S


def test_with_reflex_off_nothing_moves_until_the_controller_is_back(lab: Lab) -> None:
    restart_agents(lab, settings={"reflex": "off"})
    try:
        until_well(lab)
        since = Since(lab)
        lab.kill_controller()
        lab.cut("overlay")
        holds(lambda: ends_go(lab, "overlay", pairs(lab)), 2 * ORPHANED_AFTER_S, "an agent moved with its reflex off")
        lab.start_controller()
        until_settled(lab, "backup")
        assert {action for action, _ in since.moves()} == {"failover"}
    finally:
        lab.mend("overlay")
        until_settled(lab, "overlay")
        restart_agents(lab)


def test_with_the_broker_dead_too_the_agents_save_their_links(lab: Lab) -> None:
    since = Since(lab)
    lab.kill_broker()
    lab.cut("overlay")
    until_alone_on(lab, "backup")
    lab.start_broker()
    until_settled(lab, "backup")
    # The controller lived on: it may also have heard that the overlay is dead before it heard of a reflex.
    assert {action for action, _ in since.moves()} <= {"adopt", "failover"}

    def told() -> set[str]:
        return {one["source"] for one in since.events("reflex", "no controller is reachable")}

    until(lambda: told() == {"vps", "pi1", "pi2"}, lambda: f"what the agents did alone is told, not only by {told()}")
    lab.mend("overlay")
    until_settled(lab, "overlay")


def test_a_lone_reflex_lets_go_when_its_path_dies_and_the_assigned_one_lives(lab: Lab) -> None:
    lab.kill_controller()
    lab.cut("overlay", *PAIR)
    until(lambda: ends_go(lab, "backup", [PAIR]), "the reflex moves the pair")
    lab.mend("overlay", *PAIR)
    lab.cut("backup", *PAIR)
    until(lambda: ends_go(lab, "overlay", [PAIR]), "it goes back to the path that lives")
    lab.mend("backup", *PAIR)
    lab.start_controller()


def test_reflex_always_acts_under_a_pause_and_waits_for_the_end_of_it_to_be_adopted(lab: Lab) -> None:
    restart_agents(lab, settings={"reflex": "always"})
    try:
        until_well(lab)
        since = Since(lab)
        body = {"scope": "fleet", "reason": "hands off", "for_s": 600}
        pause = lab.api("/api/v1/pauses", method="POST", body=body)
        lab.cut("overlay", *PAIR)
        until(lambda: ends_go(lab, "backup", [PAIR]), lambda: f"the reflex moves the pair: {state(lab)}")
        assert not since.moves()
        until(lambda: since.events("reflex", "set to always"), "the agents tell")
        lab.api(f"/api/v1/pauses/{pause['id']}", method="DELETE")
        until_settled(lab, "backup", [PAIR])
        assert {subject for _, subject in since.moves()} == {pair_name(*PAIR)}
    finally:
        lab.mend("overlay")
        until_settled(lab, "overlay")
        restart_agents(lab)
