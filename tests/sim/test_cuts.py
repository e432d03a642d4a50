"""How long traffic is silent when a path dies silently, in virtual time: at any moment, and also when a machine, or all
of them, stand still in the middle of it.

Asked for is the bound of `core/prober.py` and what orders take; of a stall, the stall itself and as much again: who was
late cannot know how late the daemon is that carries the path.
"""

from __future__ import annotations

import random
from typing import Final

import pytest

from sim import settings
from sim.chief import Chief
from sim.member import Member
from sim.schedule import Schedule
from sim.world import World

_FLEETS: Final = 20
# The bound of detection with default settings; and the broker, the controller and the kernels.
_BOUND_S: Final = 0.295 + 0.055
_A, _B = settings.NODES[:2]
_OVERLAY, _BACKUP = settings.PATHS
_SETTLED_S: Final = 10.0
_GIVEN_UP_S: Final = 3.0
_STALLS: Final = ((), ("a",), ("a", "b"), ("controller",), ("a", "b", "c", "controller"))


def _fleet(seed: int, reflex: str) -> World:
    nodes, controllers = settings.NODES[:3], settings.CONTROLLERS[:1]
    world = World(Schedule(seed, nodes, controllers, True, reflex, "healed", (), (), 0))
    for wire in world.network.wires.values():
        wire.delay = 0.001
    for program in (*world.members.values(), *world.chiefs.values()):
        world.engine.after(world.rng.uniform(0.0, 0.5), program.start)
    return world


def _programs(world: World, stalled: tuple[str, ...]) -> list[Member | Chief]:
    chief = world.chiefs[settings.CONTROLLERS[0]]
    return [chief if name == "controller" else world.members[name] for name in stalled]


def _stall(world: World, stalled: tuple[str, ...], lasts_s: float) -> None:
    for program in _programs(world, stalled):
        program.freeze()
        thaw = program.thaw if isinstance(program, Member) else program.process.thaw
        world.engine.after(lasts_s, thaw)


def _gone_by(world: World, path: str) -> bool:
    return all(world.members[node].paths()[peer] == path for node, peer in ((_A, _B), (_B, _A)))


def _silence_s(seed: int, reflex: str, stalled: tuple[str, ...], lasts_s: float) -> float:
    """From the cut until both ends have left the path."""
    world, rng = _fleet(seed, reflex), random.Random(seed)
    cut_at = _SETTLED_S + rng.uniform(0.0, 3.0)
    world.engine.at(cut_at + rng.uniform(-0.1, 0.3), _stall, world, stalled, lasts_s)
    world.engine.run(cut_at)
    assert _gone_by(world, _OVERLAY)
    world.cut_everywhere(_OVERLAY)
    world.engine.run(cut_at + _GIVEN_UP_S, lambda: _gone_by(world, _BACKUP))
    return world.engine.now - cut_at


@pytest.mark.parametrize("reflex", ["off", "always"])
@pytest.mark.parametrize("lasts_s", [0.05, 0.17, 0.3])
@pytest.mark.parametrize("stalled", _STALLS, ids="+".join)
def test_a_silent_cut_is_left_in_time(stalled: tuple[str, ...], lasts_s: float, reflex: str) -> None:
    seeds = range(round(1000 * lasts_s), round(1000 * lasts_s) + _FLEETS)
    worst, seed = max((_silence_s(seed, reflex, stalled, lasts_s), seed) for seed in seeds)
    assert worst <= _BOUND_S + (2 * lasts_s if stalled else 0.0), f"seed {seed}"
