"""A standby that an end knows an obstacle of: told before the day, and never moved to while it is not proven."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from unit.test_brain import Floor
from vagus_controller.views import Severity
from vagus_protocol.messages import LinkState

NAME = "a--b"
DROP = "Tailscale's firewall drops 100.64.0.2; set node attribute disable-linux-cgnat-drop-rule"


class Standby(Floor):
    """Between a and b, the backup's `state` at both ends, and what a knows of it."""

    state = LinkState.UP
    obstacle = ""

    def links(self, node: str) -> tuple[Any, ...]:
        return tuple(
            replace(
                link,
                state=self.state,
                proven_s=0.1 if self.state is LinkState.UP else None,
                obstacle=self.obstacle if node == "a" else "",
            )
            if {node, link.peer} == {"a", "b"} and link.path == "backup"
            else link
            for link in super().links(node)
        )


def summary(floor: Floor) -> tuple[str, Severity]:
    view = floor.brain.fleet_view(floor.now)
    return view.summary, view.severity


def test_an_unproven_standby_is_a_warning_before_the_day_and_all_is_not_well() -> None:
    floor = Standby()
    assert summary(floor)[1] is Severity.OK
    floor.state, floor.obstacle = LinkState.UNKNOWN, DROP
    floor.run(5)
    text, severity = summary(floor)
    assert severity is Severity.WARNING
    assert "a–b has a path that is not proven" in text
    [backup] = [path for path in floor.pair(NAME).paths if path.path == "backup"]
    assert (backup.proven, backup.verdict.state, backup.verdict.severity) == (False, "unproven", Severity.WARNING)
    assert backup.unproven.startswith(f"a: {DROP}")
    floor.state, floor.obstacle = LinkState.UP, ""
    floor.run(5)
    assert summary(floor)[1] is Severity.OK


def test_with_the_first_path_dead_too_nothing_moves_and_the_ledger_says_host_setting_and_fix() -> None:
    floor = Standby()
    floor.state, floor.obstacle = LinkState.DOWN, DROP
    floor.run(5)
    floor.kill("overlay", NAME)
    floor.run(5)
    assert floor.pair(NAME).assigned == "overlay"
    assert not floor.entries("failover")
    assert f"backup is not proven, because a: {DROP} (" in floor.entries("hold", NAME)[-1].reason


def test_packets_decide_a_proven_path_is_moved_to_whatever_is_said_of_it() -> None:
    floor = Standby()
    floor.obstacle = DROP
    floor.run(5)
    assert summary(floor)[1] is Severity.WARNING
    floor.kill("overlay", NAME)
    floor.run(5)
    assert floor.pair(NAME).assigned == "backup"
