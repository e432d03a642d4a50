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
    "a node that came while its leader was away was never told": _schedule(
        3351,
        "healed",
        Fault(8.629, "agent_crashes", ("b", False)),
        Fault(10.193, "controller_crashes", ("north",)),
        Fault(10.617, "controller_starts", ("north", "kept")),
        Fault(11.975, "cut_broker", ("north",)),
        Fault(15.248, "mend", ("a", "b", "backup")),
        controllers=1,
    ),
    "a leader's old word, published again, kept everybody from leading": _schedule(
        4565,
        "overlay dead",
        Fault(7.777, "broker_stops"),
        Fault(7.777, "controller_crashes", ("south",)),
        Fault(8.279, "broker_starts", ("kept",)),
        Fault(8.596, "controller_starts", ("south", "kept")),
        Fault(12.792, "cut_everywhere", ("overlay",)),
        Fault(13.08, "mend_everywhere", ("overlay",)),
        Fault(15.53, "controller_crashes", ("north",)),
        Fault(18.703, "controller_starts", ("north", "lost")),
        Fault(19.863, "replay", ("", 0.3502368814117097)),
        nodes=3,
    ),
    "an agent was not told what was confirmed before it was left again": _schedule(
        200936,
        "overlay impaired",
        Fault(4.959, "cut", ("b", "a", "overlay")),
        Fault(6.312, "mend", ("b", "a", "overlay")),
        Fault(6.401, "ambush", (0.11990281542236102, "command", "drill", "fleet")),
        Fault(29.562, "etcd_starts", ("a",)),
    ),
    "a controller that was stopped decided by what had been true": _schedule(
        200301,
        "overlay impaired",
        Fault(16.683, "controller_freezes", ("north",)),
        Fault(17.479, "cut_everywhere", ("overlay",)),
        Fault(20.735, "mend_everywhere", ("overlay",)),
        Fault(33.6, "controller_thaws", ("north",)),
        controllers=1,
        reflex="off",
    ),
}
