"""Fencing and reflex: pure decisions of the agent."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_agent.config import Config, Mqtt, Path, Peer, Probe
from vagus_agent.core.desired import Accepted, Refusal, judge
from vagus_agent.core.link import Link
from vagus_agent.core.reflex import Step, decide, heed
from vagus_protocol.messages import Assignment, Desired, LinkState

UP, DOWN, SUSPECT, DEGRADED = LinkState.UP, LinkState.DOWN, LinkState.SUSPECT, LinkState.DEGRADED
UNKNOWN = LinkState.UNKNOWN

CONFIG = Config(
    fleet="t",
    node="a",
    addresses=(),
    paths=(Path(name="overlay", interface="o"), Path(name="backup", interface="b")),
    mqtt=Mqtt(brokers=()),
    keys_file="",
    peers=(Peer(name="b", addresses=()), Peer(name="c", addresses=(), paths=("overlay",))),
)


def desired(epoch: int, generation: int, **assignments: str) -> Desired:
    words = {peer: Assignment(path=path) for peer, path in assignments.items()}
    return Desired(v=1, fleet="t", node="a", controller="x", epoch=epoch, generation=generation, assignments=words)


@given(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_only_a_greater_term_is_taken(last: tuple[int, int], new: tuple[int, int]) -> None:
    kept = Accepted(*last, {"b": "overlay"})
    verdict = judge(desired(*new, b="backup"), kept, CONFIG)
    if new > last:
        assert verdict == Accepted(*new, {"b": "backup"})
    else:
        assert isinstance(verdict, Refusal)


def test_an_epoch_is_one_controllers() -> None:
    """Two that lost their memory, and whose broker did, may choose the same one: what they tell must not be mixed."""
    first = judge(msgspec.structs.replace(desired(1, 1, b="backup"), session="s1"), Accepted(), CONFIG)
    assert isinstance(first, Accepted)
    for session in ("s2", ""):
        other = msgspec.structs.replace(desired(1, 2, b="overlay"), session=session)
        verdict = judge(other, first, CONFIG)
        assert isinstance(verdict, Refusal)
        assert "it needs a greater one" in verdict.reason
    same = judge(msgspec.structs.replace(desired(1, 1, b="backup"), session="s2"), first, CONFIG)
    assert isinstance(same, Refusal), "the other one must learn of it before it decides anything"
    again = msgspec.structs.replace(desired(1, 2, b="overlay"), session="s1")
    assert judge(again, first, CONFIG) == Accepted(1, 2, {"b": "overlay"})
    greater = msgspec.structs.replace(desired(2, 1, b="overlay"), session="s2")
    assert judge(greater, first, CONFIG) == Accepted(2, 1, {"b": "overlay"})
    assert judge(again, Accepted(1, 1, {"b": "backup"}), CONFIG) == Accepted(1, 2, {"b": "overlay"}), (
        "an older state file"
    )


def test_the_same_again_is_the_same() -> None:
    kept = Accepted(1, 1, {"b": "backup"})
    assert judge(desired(1, 1, b="backup"), kept, CONFIG) is kept


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (desired(2, 1, z="backup"), "peer 'z' is not in this node's configuration"),
        (desired(2, 1, b="carrier-pigeon"), "offered: overlay, backup"),
        (desired(2, 1, c="backup"), "offered: overlay"),
        (desired(1, 1, b="overlay"), "two controllers"),
        (desired(1, 0, b="overlay"), "older"),
    ],
)
def test_what_is_refused_says_why(message: Desired, words: str) -> None:
    verdict = judge(message, Accepted(1, 1, {"b": "backup"}), CONFIG)
    assert isinstance(verdict, Refusal)
    assert words in verdict.reason


def on_trial(epoch: int, generation: int, **assignments: str) -> Desired:
    message = desired(epoch, generation, **assignments)
    words = {peer: Assignment(path=word.path, trial=peer == "b") for peer, word in message.assignments.items()}
    return msgspec.structs.replace(message, assignments=words)


def test_a_trial_is_kept_beside_what_was_confirmed() -> None:
    kept = Accepted(1, 1, {"b": "overlay", "c": "overlay"})
    taken = judge(on_trial(1, 2, b="backup"), kept, CONFIG)
    assert taken == Accepted(1, 2, {"b": "overlay"}, {"b": "backup"})
    assert judge(on_trial(1, 2, b="backup"), taken, CONFIG) is taken
    for other in (desired(1, 2, b="backup"), desired(1, 2, b="overlay"), on_trial(1, 2, b="overlay"), desired(1, 2)):
        assert isinstance(judge(other, taken, CONFIG), Refusal), "the same term with another content"
    assert judge(desired(1, 3, b="backup"), taken, CONFIG) == Accepted(1, 3, {"b": "backup"})
    refused = judge(on_trial(1, 3, b="carrier-pigeon"), taken, CONFIG)
    assert isinstance(refused, Refusal)
    assert "offered: overlay, backup" in refused.reason


def link(path: str, state: LinkState, last_reply: float | None = 10.0, peer_state: LinkState | None = DOWN) -> Link:
    made = Link("b", path, 0.2, Probe(), 0.0, [])
    made.state, made.last_reply, made.peer_state, made.reason = state, last_reply, peer_state, "because"
    return made


DEAD = (link("overlay", DOWN, 5.0), link("backup", UP, 10.0))


def test_an_orphan_saves_its_own_link_and_says_why() -> None:
    step = decide("orphaned", True, "b", DEAD, "overlay", None)
    assert step == Step("b", "backup", "overlay is down (because), backup answers, and no controller is reachable")


@pytest.mark.parametrize(
    ("mode", "orphaned", "acts"),
    [("orphaned", False, False), ("off", True, False), ("always", False, True), ("always", True, True)],
)
def test_modes(mode: str, orphaned: bool, acts: bool) -> None:
    assert (decide(mode, orphaned, "b", DEAD, "overlay", None) is not None) is acts  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "links",
    [
        (link("overlay", SUSPECT, 5.0), link("backup", UP)),
        (link("overlay", UP, 10.0), link("backup", UP)),
        (link("overlay", DOWN, 5.0), link("backup", DOWN, 5.0)),
        (link("overlay", DOWN, 5.0), link("backup", SUSPECT)),
        # the backup's last reply is older than the overlay's: perhaps it is the peer that is gone
        (link("overlay", DOWN, 5.0), link("backup", UP, 4.0)),
        # the peer itself calls the link up
        (link("overlay", DOWN, 5.0, UP), link("backup", UP)),
        # it has yet to find out: it has just started, and perhaps it was away and not the path
        (link("overlay", DOWN, 5.0, UNKNOWN), link("backup", UP)),
        (link("overlay", DOWN, 5.0),),
    ],
)
def test_without_proof_nothing_moves(links: tuple[Link, ...]) -> None:
    assert decide("always", True, "b", links, "overlay", None) is None


def test_a_reflex_lets_go_when_its_path_dies_and_the_first_lives() -> None:
    links = (link("overlay", UP), link("backup", DOWN, 5.0))
    step = decide("orphaned", False, "b", links, "overlay", "backup")
    assert step is not None
    assert step.path is None


def test_the_controller_s_word_ends_a_reflex_unless_it_points_into_the_void() -> None:
    alive = {"b": (link("overlay", UP), link("backup", UP))}
    dead = {"b": DEAD}
    assert heed({"b": "overlay"}, {"b": "backup"}, alive) == {}
    assert heed({"b": "backup"}, {"b": "backup"}, dead) == {}
    assert heed({"b": "overlay"}, {"b": "backup"}, dead) == {"b": "backup"}
    assert heed({}, {"b": "backup"}, alive) == {"b": "backup"}
