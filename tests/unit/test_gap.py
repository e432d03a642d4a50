"""What traffic sees of a switch, measured by unpinned packets, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.agent_world import World
from unit.test_link import Network, healthy
from vagus_agent.core.prober import Gap, Send
from vagus_protocol.messages import Assignment, Desired

EVERY_S = 0.02
WHOLE_S = 4.0


def measured(network: Network, *, silent: tuple[float, float] = (0, 0), switch_s: float = 0.1) -> Gap:
    """A measurement by a of its move to the backup: the kernel's route is the overlay's for `switch_s`, and nothing of
    what is not pinned arrives within `silent`, both from its beginning."""
    begin = network.now
    pinned = network.transmit

    def transmit(sender: str, sends: list[Send]) -> None:
        for send in sends:
            if send.pinned:
                pinned(sender, [send])
            elif not silent[0] <= network.now - begin < silent[1]:
                route = "overlay" if network.now - begin < switch_s else "backup"
                pinned(sender, [Send(send.peer, route, send.data)])

    network.transmit = transmit  # type: ignore[method-assign]
    network.measure("a", "b", "backup")
    network.run(WHOLE_S)
    [found] = network.probers["a"].gaps
    return found


def test_a_switch_that_loses_nothing_has_no_gap() -> None:
    assert measured(healthy()) == Gap("b", "backup", 0.0)


@pytest.mark.parametrize("silent", [(0.1, 0.35), (0.0, 0.2), (1.0, 1.03), (2.5, 3.0)])
def test_the_gap_is_what_was_silent_as_exactly_as_the_probes_tell(silent: tuple[float, float]) -> None:
    found = measured(healthy(), silent=silent)
    assert found.seconds == pytest.approx(silent[1] - silent[0], abs=2 * EVERY_S + 0.001)


def test_nothing_that_comes_back_is_a_gap_of_the_whole_time() -> None:
    assert measured(healthy(), silent=(0, 99)).seconds == pytest.approx(3.0, abs=2 * EVERY_S)


@given(st.floats(0.002, 0.15), st.floats(0.002, 0.15))
def test_paths_of_different_length_are_no_gap(overlay: float, backup: float) -> None:
    network = healthy()
    network.delay = lambda sender, to, path: overlay if path == "overlay" else backup
    # Until what these paths usually take is known.
    network.run(10)
    assert measured(network).seconds == 0.0


def test_a_path_that_stands_still_and_then_delivers_all_is_a_gap_too() -> None:
    network = healthy()
    begin = network.now

    def delay(sender: str, to: str, path: str) -> float:
        return max(0.001, begin + 1.25 - network.now) if begin + 1.0 <= network.now else 0.001

    network.delay = delay
    assert measured(network).seconds == pytest.approx(0.25, abs=2 * EVERY_S)


def test_it_counts_neither_for_loss_nor_for_the_links() -> None:
    network = healthy()
    measured(network, silent=(0, 99))
    assert network.changes == []
    assert all(link.loss(network.now, 10) == 0 for link in network.probers["a"].links)


def say(world: World, generation: int, path: str, *, trial: bool, drill: bool = False) -> None:
    word = Assignment(path=path, trial=trial, drill=drill)
    world.conduct.on_desired(
        Desired(v=1, fleet="t", node="a", controller="x", epoch=1, generation=generation, assignments={"b": word}),
        world.now,
    )


def test_a_drill_is_measured_from_before_its_move_and_the_gap_is_told() -> None:
    world = World()
    say(world, 1, "backup", trial=True, drill=True)
    assert [(peer, path) for peer, path in world.conduct.take_measure()] == [("b", "backup")]
    assert world.paths["b"] == "overlay", "it is asked for before the kernel is"
    world.follow()
    assert world.verification("b").gap_s is None
    world.conduct.on_gap(Gap("b", "backup", 0.04))
    world.follow()
    assert world.verification("b").gap_s == 0.04
    say(world, 2, "overlay", trial=True, drill=True)
    world.follow()
    assert world.verification("b").gap_s is None
    world.conduct.on_gap(Gap("b", "backup", 0.5))
    world.follow()
    assert world.verification("b").gap_s is None, "of another move"


def test_other_moves_are_not_measured() -> None:
    world = World()
    say(world, 1, "backup", trial=True)
    say(world, 2, "backup", trial=False)
    assert world.conduct.take_measure() == []
