"""What an agent decides: acceptance, reflex, restart; in virtual time. Trials: test_trial.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.agent_world import A, Word, World
from vagus_protocol.messages import ControllerPresence, EventKind, LinkState, ObservedState

UP, DOWN, SUSPECT = LinkState.UP, LinkState.DOWN, LinkState.SUSPECT


def test_at_first_every_peer_goes_by_its_first_path_and_that_is_said() -> None:
    world = World()
    assert world.paths == {"b": "overlay", "c": "overlay"}
    assert world.observed.paths == {"b": "overlay", "c": "overlay"}
    assert (world.observed.epoch, world.observed.generation) == (0, 0)


def test_a_confirmed_word_moves_at_once_and_is_said_once_the_kernel_has_it() -> None:
    world = World(kernel_s=0.05)
    world.say((1, 1), b="backup")
    assert world.conduct.overrides["b"] == "backup"
    assert world.observed.generation == 0, "nothing is claimed before the kernel has it"
    world.run(0.1)
    assert world.observed.paths["b"] == "backup"
    assert (world.observed.epoch, world.observed.generation) == (1, 1)
    assert world.said(EventKind.STEERING) == ["b goes by backup (because)"]
    assert world.disk.assignments == {"b": "backup"}


def test_a_peer_that_is_not_named_goes_by_its_first_path() -> None:
    world = World()
    world.say((1, 1), b="backup")
    world.say((1, 2), c="backup")
    assert world.paths == {"b": "overlay", "c": "backup"}


def test_an_older_term_changes_nothing_and_is_reported() -> None:
    world = World()
    world.say((2, 2), b="backup")
    world.say((2, 1), b="overlay")
    assert world.paths["b"] == "backup"
    assert world.observed.state is ObservedState.REFUSED
    assert (world.observed.refused_epoch, world.observed.refused_generation) == (2, 1)
    assert "older" in world.observed.reason
    assert len(world.said(EventKind.REFUSED)) == 1
    world.say((2, 1), b="overlay")
    assert len(world.said(EventKind.REFUSED)) == 1, "the same complaint is not told twice in a minute"
    world.run(61)
    world.say((2, 1), b="overlay")
    assert len(world.said(EventKind.REFUSED)) == 2


def test_a_good_word_ends_the_refusal() -> None:
    world = World()
    world.conduct.on_rejected("a wrong signature", world.now)
    world.follow()
    assert world.observed.state is ObservedState.REFUSED
    world.say((1, 1), b="overlay")
    assert world.observed.state is ObservedState.APPLIED


def test_what_the_kernel_cannot_do_is_said() -> None:
    world = World()
    world.kernel_refuses["b"] = "the kernel has no wg0"
    world.say((1, 1), b="backup")
    assert world.observed.state is ObservedState.FAILED
    assert world.observed.reason == "the kernel has no wg0"
    assert world.observed.paths["b"] == "overlay"
    assert "the kernel has no wg0" in world.said(EventKind.STEERING)
    levels = {note.text: note.level for note in world.notes if note.kind is EventKind.STEERING}
    assert levels["the kernel has no wg0"] == "error"
    world.kernel_refuses.clear()
    world.say((1, 2), b="overlay")
    levels = {note.text: note.level for note in world.notes if note.kind is EventKind.STEERING}
    assert levels["routes and rules are as wanted again"] == "info"


# --- alone -----------------------------------------------------------------------------------------------------------


def test_an_agent_that_nobody_leads_is_orphaned_after_its_time_and_saves_its_link() -> None:
    world = World()
    world.led(False)
    world.break_link("b", "overlay")
    world.run(A.orphaned_after_s - 0.4)
    assert world.paths["b"] == "overlay"
    world.run(0.2)
    assert world.paths == {"b": "backup", "c": "overlay"}
    assert world.observed.reflex == {"b": "backup"}
    assert world.disk.reflex == {"b": "backup"}
    assert "no controller is reachable" in world.said(EventKind.REFLEX)[0]


def test_a_leader_that_only_the_broker_remembers_is_none() -> None:
    """Leader and broker may have died together: then nobody published the last will."""
    world = World()
    leader = ControllerPresence(v=1, controller="x", session="1", online=True, leader=True)
    world.conduct.on_session(False, world.now)
    world.run(1)
    world.conduct.on_session(True, world.now)
    world.conduct.on_controller("x", leader, world.now, retained=True)
    world.run(A.orphaned_after_s - 0.1)
    assert not world.conduct.orphaned(world.now), "it has its time to say that it lives"
    world.run(0.2)
    assert world.conduct.orphaned(world.now)
    world.conduct.on_controller("x", leader, world.now)
    world.run(100)
    assert not world.conduct.orphaned(world.now)
    world.conduct.on_controller("x", leader, world.now, retained=True)
    world.run(100)
    assert not world.conduct.orphaned(world.now), "it was heard in this session"
    world.conduct.on_session(False, world.now)
    world.conduct.on_session(True, world.now)
    world.conduct.on_controller("x", leader, world.now, retained=True)
    world.run(A.orphaned_after_s + 0.1)
    assert world.conduct.orphaned(world.now), "in the new session, it was not"


def test_a_led_agent_waits_for_its_controller() -> None:
    world = World()
    world.break_link("b", "overlay")
    world.run(60)
    assert world.paths["b"] == "overlay"


def test_a_leader_without_a_broker_leads_nobody() -> None:
    world = World()
    world.conduct.on_session(False, world.now)
    world.follow()
    world.run(A.orphaned_after_s)
    assert world.conduct.orphaned(world.now)
    world.conduct.on_session(True, world.now)
    world.follow()
    assert world.conduct.orphaned(world.now), "a session alone is no leader: its word is retained, and comes"


def test_the_controller_s_word_takes_a_reflex_over() -> None:
    world = World()
    world.led(False)
    world.break_link("b", "overlay")
    world.run(10)
    world.led(True)
    world.say((1, 1), b="overlay")
    assert world.paths["b"] == "backup", "not onto a dead path"
    world.say((1, 2), b="backup")
    assert world.observed.reflex == {}
    assert world.paths["b"] == "backup"


def test_a_reflex_lets_go_when_its_path_dies_and_the_first_lives() -> None:
    world = World()
    world.led(False)
    world.break_link("b", "overlay")
    world.run(10)
    world.mend_link("b", "overlay")
    assert world.paths["b"] == "backup"
    world.break_link("b", "backup")
    assert world.paths["b"] == "overlay"
    assert world.observed.reflex == {}


# --- invariants ------------------------------------------------------------------------------------------------------

peers = st.sampled_from(["b", "c"])
paths = st.sampled_from(["overlay", "backup", "lte"])
words = st.dictionaries(peers, st.builds(Word, paths, st.booleans()))
terms = st.tuples(st.integers(1, 3), st.integers(1, 4))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), terms, words),
        st.tuples(st.just("run"), st.sampled_from([0.1, 1.0, 4.0, 11.0])),
        st.tuples(st.just("link"), peers, paths, st.sampled_from([UP, DOWN, SUSPECT])),
        st.tuples(st.just("led"), st.booleans()),
        st.tuples(st.just("kernel"), peers, st.sampled_from(["", "no"])),
        st.tuples(st.just("restart")),
    ),
    max_size=15,
)


def live(world: World, history: list[tuple[object, ...]]) -> None:
    for kind, *arguments in history:
        match kind, arguments:
            case "say", [term, saying]:
                world.say(term, **saying)  # type: ignore[arg-type]
            case "run", [seconds]:
                world.run(seconds)  # type: ignore[arg-type]
            case "link", [peer, path, state]:
                world.set_link(peer, path, state)  # type: ignore[arg-type]
            case "led", [yes]:
                world.led(bool(yes))
            case "kernel", [peer, trouble]:
                world.kernel_refuses[str(peer)] = str(trouble)
            case "restart", _:
                world.restart()


@given(steps, terms, words)
def test_an_older_term_is_never_accepted(
    history: list[tuple[object, ...]], term: tuple[int, int], saying: dict[str, Word]
) -> None:
    world = World()
    live(world, history)
    before, overrides = world.conduct.term, world.conduct.overrides
    world.say(term, **saying)
    assert world.conduct.term == max(before, term)
    if term < before:
        assert world.conduct.overrides == overrides


@given(steps)
def test_the_same_desired_twice_does_nothing(history: list[tuple[object, ...]]) -> None:
    world = World()
    live(world, [*history, ("say", (4, 1), {"b": Word("backup", True), "c": Word("lte", False)})])
    world.run(20)
    before = (world.conduct.overrides, world.conduct.state, world.observed, len(world.notes))
    world.say((4, 1), b=Word("backup", True), c=Word("lte", False))
    assert (world.conduct.overrides, world.conduct.state, world.observed, len(world.notes)) == before


@given(steps)
def test_a_restart_moves_nothing(history: list[tuple[object, ...]]) -> None:
    world = World()
    live(world, history)
    before = world.conduct.overrides
    world.restart()
    assert world.conduct.overrides == before
    assert world.moves_since_restart == []


@given(steps)
def test_a_reboot_brings_back_what_was_decided(history: list[tuple[object, ...]]) -> None:
    world = World()
    live(world, history)
    before = world.conduct.overrides
    world.restart(kernel_is_empty=True)
    assert world.conduct.overrides == before


@settings(max_examples=50)
@given(steps)
def test_every_peer_has_one_path_that_is_offered_and_what_is_said_is_what_is(history: list[tuple[object, ...]]) -> None:
    world = World()
    live(world, history)
    world.run(0.1)
    assert set(world.conduct.overrides) == {"b", "c"}
    assert world.observed == world.conduct.observed
    for peer, path in world.conduct.overrides.items():
        assert path in ("overlay", "backup", "lte")
        # Where the kernel ever refused, only the next look tells that it does not any more.
        if peer not in world.kernel_refuses:
            assert world.observed.paths[peer] == path


@pytest.mark.parametrize("lead", ["nobody", "offline", "standby"])
def test_only_a_leader_that_is_there_leads(lead: str) -> None:
    world = World()
    world.led(False, how=lead)
    world.run(A.orphaned_after_s)
    assert world.conduct.orphaned(world.now)
