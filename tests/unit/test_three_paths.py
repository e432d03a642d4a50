"""A pair with three paths, the last of them metered: which one it goes to, and how it comes back."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from unit.pair_world import DEGRADED, DOWN, PAIR, UP, World
from vagus_controller.core.failover import Decision
from vagus_protocol.messages import Link, LinkState, PathOffer, PeerOffer, Presence, Report

PATHS = ("overlay", "backup", "lte")
HOLD_S = 10.0


class Three(World):
    def __init__(self) -> None:
        super().__init__(failback_hold_s=HOLD_S)

    def present(self, node: str, *, automatic: bool = True) -> None:
        offers = tuple(PathOffer(name=path, metered=path == "lte", idle_interval_s=5.0) for path in PATHS)
        peer = PeerOffer(name="b" if node == "a" else "a", addresses=(), paths=PATHS)
        birth = Presence(v=1, node=node, session="s", online=True, boot_id="1", paths=offers, peers=(peer,))
        self.fleet.on_presence(birth, self.now)

    def hear(self, states: Mapping[str, LinkState]) -> None:
        """Both ends' reports; a path that is not named is up."""
        self.seq += 1
        for node, peer in (PAIR, PAIR[::-1]):
            links = tuple(
                Link(
                    peer=peer,
                    path=path,
                    state=states.get(path, UP),
                    # the idle probes of a metered path are 5 s apart
                    proven_s=30.0 if states.get(path) is DOWN else 6.0 if path == "lte" else 0.1,
                    reason="said so",
                    since_s=0.5,
                )
                for path in PATHS
            )
            report = Report(v=1, node=node, session="s", seq=self.seq, boot_id="1", interval_s=2.0, links=links)
            self.fleet.on_report(report, self.now)

    def live(self, seconds: int, **states: LinkState) -> list[Decision]:
        decided = []
        for _ in range(seconds):
            self.now += 1.0
            self.hear(states)
            decided += self.decide()
        return decided


def moves(decided: list[Decision]) -> list[tuple[str, str]]:
    return [(one.kind, one.path) for one in decided]


def test_the_first_fit_path_in_order_carries_it() -> None:
    world = Three()
    assert moves(world.live(2, overlay=DOWN)) == [("failover", "backup")]
    world = Three()
    assert moves(world.live(2, overlay=DOWN, backup=DOWN)) == [("failover", "lte")]


def test_when_the_backup_dies_too_the_metered_path_is_next() -> None:
    world = Three()
    world.live(2, overlay=DOWN)
    assert moves(world.live(2, overlay=DOWN, backup=DOWN)) == [("failover", "lte")]


def test_with_every_path_dead_it_stays_and_says_why_of_each() -> None:
    world = Three()
    (decision,) = world.live(2, overlay=DOWN, backup=DOWN, lte=DOWN)
    assert decision.kind == "hold"
    assert "backup is not proven" in decision.reason
    assert "lte is not proven" in decision.reason
    assert world.path == "overlay"


def test_it_leaves_the_metered_path_for_the_backup_after_a_hold_though_home_is_dead() -> None:
    world = Three()
    world.live(2, overlay=DOWN, backup=DOWN)
    assert moves(world.live(int(HOLD_S), overlay=DOWN)) == []
    (decision,) = world.live(2, overlay=DOWN)
    assert (decision.kind, decision.path, decision.urgent) == ("failover", "backup", False)
    assert decision.reason == "backup has been proven from both ends for 10 s, and comes before lte"
    assert moves(world.live(60, overlay=DOWN)) == [], "there it stays"


def test_home_comes_first_when_both_are_good() -> None:
    world = Three()
    world.live(2, overlay=DOWN, backup=DOWN)
    assert moves(world.live(int(HOLD_S) + 2)) == [("failback", "overlay")]


def test_a_backup_that_does_not_hold_is_not_gone_to() -> None:
    world = Three()
    world.live(2, overlay=DOWN, backup=DOWN)
    for _ in range(5):
        assert moves(world.live(int(HOLD_S) - 2, overlay=DOWN)) == []
        assert moves(world.live(1, overlay=DOWN, backup=DOWN)) == []
    assert world.path == "lte"


def test_a_degraded_backup_is_no_reason_to_leave_a_sound_metered_path() -> None:
    world = Three()
    world.live(2, overlay=DOWN, backup=DOWN)
    assert moves(world.live(60, overlay=DOWN, backup=DEGRADED)) == []


def test_a_person_who_put_it_there_ends_it() -> None:
    world = Three()
    world.hear({})
    world.failover.record(
        Decision(kind="switchover", pair=PAIR, path="lte", origin="operator", reason="test", was="overlay"), world.now
    )
    world.failover.confirmed(PAIR, world.now)
    assert moves(world.live(60)) == []
    assert moves(world.live(2, lte=DOWN)) == [("failback", "overlay")]


@pytest.mark.parametrize("away", ["overlay", "backup"])
def test_the_way_home_is_told_in_words(away: str) -> None:
    world = Three()
    world.live(2, overlay=DOWN, backup=DOWN)
    world.live(3, **{away: DOWN})
    words = world.failover.homeward_words(world.fleet, PAIR, world.now)
    if away == "overlay":
        assert "overlay is not good enough to go home to" in words
        assert "backup has been good for 2 s of 10 s" in words
    else:
        assert words == "overlay has been good for 2 s of 10 s"
