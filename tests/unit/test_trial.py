"""Trials: traffic goes at once, is verified with real packets, and goes back by itself unless it is confirmed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.agent_world import Word, World
from vagus_agent.core.conduct import State
from vagus_protocol.messages import EventKind, LinkState, ObservedState

UP, DOWN, DEGRADED, SUSPECT = LinkState.UP, LinkState.DOWN, LinkState.DEGRADED, LinkState.SUSPECT
TRIAL = Word("backup", True)


def test_a_trial_goes_at_once_is_verified_and_stays_once_confirmed() -> None:
    world = World(kernel_s=0.01, proof_s=0.1)
    world.say((1, 1), b=TRIAL)
    world.run(0.05)
    assert world.paths["b"] == "backup"
    assert world.verification("b").state == "pending"
    world.run(0.1)
    found = world.verification("b")
    assert (found.path, found.epoch, found.generation, found.state) == ("backup", 1, 1, "verified")
    assert found.reason == "came back"
    world.say((1, 2), b="backup")
    world.run(60)
    assert world.paths["b"] == "backup"
    assert world.observed.verifications == {}
    assert world.disk.assignments == {"b": "backup"}
    assert not world.said(EventKind.TRIAL)


def test_the_verification_waits_for_the_kernel() -> None:
    world = World(kernel_s=1.0)
    world.say((1, 1), b=TRIAL)
    world.run(0.9)
    assert world.verified == []
    world.run(0.2)
    assert world.verified == [("b", "backup")]


def test_without_confirmation_it_goes_back_after_its_time_and_the_same_desired_does_not_try_again() -> None:
    world = World()
    world.say((1, 1), b="overlay")
    world.say((1, 2), within_s=3.0, b=TRIAL)
    world.run(2.9)
    assert world.paths["b"] == "backup"
    world.run(0.2)
    assert world.paths["b"] == "overlay"
    assert world.verification("b").state == "reverted"
    assert world.verification("b").reason == "not confirmed within 3 s"
    assert world.said(EventKind.TRIAL) == ["b goes back from backup to overlay: not confirmed within 3 s"]
    assert (world.observed.epoch, world.observed.generation) == (1, 2)
    assert world.observed.reflex == {}
    world.say((1, 2), within_s=3.0, b=TRIAL)
    assert world.observed.state is ObservedState.APPLIED
    assert world.paths["b"] == "overlay"
    world.restart()
    world.say((1, 2), within_s=3.0, b=TRIAL)
    assert world.observed.state is ObservedState.APPLIED, "a restart does not make it another desired"
    assert world.paths["b"] == "overlay"
    assert world.verification("b").state == "reverted"


def test_a_rollback_takes_it_back_before_its_time() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.run(1)
    world.say((1, 2), b="overlay")
    assert world.paths["b"] == "overlay"
    world.run(60)
    assert world.observed.verifications == {}
    assert not world.said(EventKind.TRIAL)


def test_packets_that_do_not_come_back_fail_it_and_the_controller_decides() -> None:
    world = World(silent={("b", "backup")})
    world.say((1, 1), b=TRIAL)
    world.run(1)
    assert world.verification("b").state == "failed"
    assert world.verification("b").reason == "none of 5 came back"
    assert world.said(EventKind.TRIAL) == ["b by backup failed its trial: none of 5 came back"]
    assert world.paths["b"] == "backup", "whoever began it knows whether the old path is better"
    world.run(10)
    assert world.paths["b"] == "overlay"
    assert "none of 5 came back" in world.verification("b").reason


def test_a_kernel_that_does_not_obey_fails_it_in_the_kernel_s_words() -> None:
    world = World()
    world.kernel_refuses["b"] = "b is assigned to backup, which cannot stand"
    world.say((1, 1), b=TRIAL)
    assert world.verification("b").state == "failed"
    assert "which cannot stand" in world.verification("b").reason
    assert world.verified == []


def test_service_checks_that_worked_before_are_told_and_a_verified_path_is_verified_all_the_same() -> None:
    world = World(failing_checks=("db",))
    world.say((1, 1), c=TRIAL)
    world.run(1)
    found = world.verification("c")
    assert (found.state, found.failed_checks) == ("verified", ("db",))
    assert "db" in world.said(EventKind.TRIAL)[0]


def test_it_is_not_verified_before_its_service_checks_are_through() -> None:
    world = World(silent={("c", "backup")})
    world.say((1, 1), c=TRIAL)
    conduct = world.conduct
    conduct.on_checks("c", "lte", ("db",))
    assert conduct.observed.verifications["c"].failed_checks == (), "another path's checks are none of it"
    world.silent.clear()
    world.config = msgspec.structs.replace(world.config, checks=())  # the driver's: nothing tells of the checks
    world.run(1)
    assert world.verification("c").state == "pending"
    conduct.on_checks("c", "backup", ())
    world.follow()
    assert world.verification("c").state == "verified"


def test_a_trial_of_the_confirmed_path_is_verified_and_needs_no_way_back() -> None:
    world = World()
    world.say((1, 1), b="backup")
    world.say((1, 2), b=TRIAL)
    world.run(1)
    assert world.verification("b").state == "verified"
    world.run(60)
    assert world.paths["b"] == "backup"
    assert not world.said(EventKind.TRIAL)


def test_another_generation_with_the_same_trial_keeps_deadline_and_verification() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.run(6)
    world.say((1, 2), b=TRIAL, c="backup")
    assert world.verified == [("b", "backup")]
    assert world.verification("b").generation == 1
    assert world.verification("b").state == "verified"
    world.run(3.9)
    assert world.paths == {"b": "backup", "c": "backup"}
    world.run(0.2)
    assert world.paths == {"b": "overlay", "c": "backup"}


def test_a_new_epoch_begins_it_anew() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.run(6)
    world.say((2, 1), b=TRIAL)
    assert world.verification("b").state == "pending"
    assert world.verified == [("b", "backup")] * 2
    world.run(9.9)
    assert world.paths["b"] == "backup"
    assert (world.verification("b").epoch, world.verification("b").state) == (2, "verified")
    world.run(0.2)
    assert world.paths["b"] == "overlay"


def test_another_trial_path_is_another_trial_and_the_way_back_stays_the_confirmed_one() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.run(6)
    world.say((1, 2), b=Word("lte", True))
    world.run(9.9)
    assert world.paths["b"] == "lte"
    world.run(0.2)
    assert world.paths["b"] == "overlay"


def test_nobody_is_sent_back_onto_a_dead_path() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.break_link("b", "overlay")
    world.run(11)
    assert world.paths["b"] == "backup"
    assert world.observed.reflex == {"b": "backup"}
    assert "overlay is down" in world.said(EventKind.TRIAL)[0]
    assert "it stays" in world.verification("b").reason
    world.restart()
    assert world.observed.reflex == {"b": "backup"}
    world.say((1, 2), b="backup")
    assert world.observed.reflex == {}
    assert world.paths["b"] == "backup"


def test_one_that_stayed_stays_when_it_is_told_once_more() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.break_link("b", "overlay")
    world.run(11)
    world.say((1, 2), b=TRIAL, c="backup")
    assert world.paths == {"b": "backup", "c": "backup"}
    assert world.observed.reflex == {"b": "backup"}
    world.say((2, 1), b=TRIAL)
    assert world.observed.reflex == {}, "a new epoch begins it anew"
    assert world.paths["b"] == "backup"


def test_a_led_agent_does_not_leave_a_trial_whose_path_dies_but_an_orphan_does() -> None:
    world = World()
    world.say((1, 1), within_s=60.0, b=TRIAL)
    world.break_link("b", "backup")
    world.run(5)
    assert world.paths["b"] == "backup"
    world.led(False)
    world.run(10)
    assert world.paths["b"] == "overlay"
    assert world.verification("b").state == "reverted"
    assert world.observed.reflex == {}, "it is where it was confirmed"


def test_a_trial_onto_a_path_that_is_dead_here_does_not_end_a_reflex_that_works() -> None:
    world = World()
    world.led(False)
    world.break_link("b", "overlay")
    world.run(10)
    world.led(True)
    world.say((1, 1), b=Word("overlay", True))
    assert world.paths["b"] == "backup"
    assert world.observed.reflex == {"b": "backup"}
    assert world.verification("b").state == "failed"
    assert "overlay is down here" in world.verification("b").reason


def test_after_a_restart_it_has_its_whole_time_again_and_is_verified_again() -> None:
    world = World()
    world.say((1, 1), within_s=7.0, b=TRIAL)
    world.run(5)
    world.restart()
    assert world.paths["b"] == "backup"
    assert world.verified == [("b", "backup")] * 2
    world.run(6.9)
    assert world.paths["b"] == "backup"
    assert world.verification("b").state == "verified"
    world.run(0.2)
    assert world.paths["b"] == "overlay"


def test_a_failback_on_trial_outlives_a_restart_although_the_kernel_shows_no_override() -> None:
    world = World()
    world.say((1, 1), b="backup")
    world.say((1, 2), b=Word("overlay", True))
    world.restart()
    assert world.paths["b"] == "overlay"
    world.run(11)
    assert world.paths["b"] == "backup"


def test_an_override_that_somebody_took_away_while_we_were_dead_ends_it() -> None:
    world = World()
    world.say((1, 1), b=TRIAL)
    world.kernel["b"] = "overlay"
    world.restart()
    assert world.paths["b"] == "overlay"
    assert world.verification("b").state == "reverted"


def test_a_state_of_an_older_version_is_still_read() -> None:
    old = b'{"epoch":3,"generation":4,"assignments":{"b":"backup"},"reflex":{}}'
    world = World(disk=msgspec.json.decode(old, type=State))
    assert world.conduct.term == (3, 4)
    assert world.paths["b"] == "backup"


def test_the_state_on_disk_round_trips() -> None:
    world = World()
    world.say((1, 1), b=TRIAL, c="lte")
    world.run(11)
    assert msgspec.json.decode(msgspec.json.encode(world.disk), type=State) == world.disk


@pytest.mark.parametrize("within_s", [0.05, 1.0, 10.0])
@given(
    states=st.tuples(*[st.sampled_from([UP, DOWN, DEGRADED, SUSPECT])] * 2),
    moment=st.floats(0, 0.9),
    comes_back=st.booleans(),
    kernel=st.booleans(),
    restart=st.booleans(),
)
def test_unconfirmed_it_ends_on_the_confirmed_path_unless_that_is_dead_and_the_other_lives(
    within_s: float,
    states: tuple[LinkState, LinkState],
    moment: float,
    comes_back: bool,
    kernel: bool,
    restart: bool,
) -> None:
    world = World(silent=set() if comes_back else {("b", "backup")})
    world.kernel_refuses["b"] = "" if kernel else "no"
    world.say((1, 1), within_s=within_s, b=TRIAL)
    world.run(moment * within_s)
    for path, state in zip(("overlay", "backup"), states, strict=True):
        world.set_link("b", path, state)
    if restart:
        world.restart()
    world.run(within_s + 0.1)
    stays = states[0] is DOWN and states[1] in (UP, DEGRADED)
    assert world.conduct.overrides["b"] == ("backup" if stays else "overlay")
    assert world.observed.reflex == ({"b": "backup"} if stays else {})
    assert (world.verification("b").state == "reverted") is not stays
