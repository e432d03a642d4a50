"""Schedules that once broke an invariant, each with the name of what was wrong."""

from __future__ import annotations

from typing import Final

from sim.schedule import Fault, Schedule
from sim.settings import CONTROLLERS, NODES


def _schedule(
    seed: int, rest: str, *faults: Fault, nodes: int = 2, controllers: int = 2, reflex: str = "orphaned"
) -> Schedule:
    return Schedule(
        seed,
        NODES[:nodes],
        CONTROLLERS[:controllers],
        False,
        reflex,
        rest,
        faults,
        tuple(range(len(faults))),
        len(faults),
    )


REGRESSIONS: Final[dict[str, Schedule]] = {
    "two controllers that started alike led under one epoch": _schedule(2751, "healed"),
    "a leader that died with its broker was taken for alive by its standby": _schedule(
        0, "leader and broker die", reflex="off"
    ),
    "a leader that died with its broker was taken for alive by its agents": _schedule(
        0, "nobody leads", Fault(12.382, "broker_stops"), nodes=3
    ),
    "an epoch was given anew when both controller and broker had forgotten it": _schedule(
        0,
        "healed",
        Fault(8.0, "broker_stops"),
        Fault(8.0, "controller_crashes", ("north",)),
        Fault(9.0, "broker_starts", ("lost",)),
        Fault(9.0, "controller_starts", ("north", "lost")),
        controllers=1,
    ),
    "a leader that was cut off took over an epoch whose words were the same as its own": _schedule(
        105217, "healed", Fault(4.712, "cut_broker", ("north",)), Fault(11.259, "mend_broker", ("north",))
    ),
    "an agent that came before its leader was never greeted": _schedule(
        293,
        "healed",
        Fault(11.811, "broker_stops"),
        Fault(11.811, "controller_crashes", ("north",)),
        Fault(12.075, "broker_starts", ("kept",)),
        Fault(12.129, "controller_starts", ("north", "kept")),
        Fault(16.6, "mend", ("b", "c", "overlay")),
        nodes=3,
    ),
}
