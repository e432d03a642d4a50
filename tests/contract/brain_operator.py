"""A person's commands, and what is shown, by a real brain."""

from __future__ import annotations

from contract.fleet_samples import MemoryOperator
from unit.test_brain import Floor
from vagus_controller.core.brain import Brain
from vagus_controller.core.commands import Commands
from vagus_controller.views import (
    CheckView,
    DrillAsk,
    DrillView,
    FleetView,
    LedgerEntry,
    PauseView,
    PlanAsk,
    PlanView,
)


class BrainOperator(MemoryOperator):
    """Incidents and notices are the samples; `floor`, with the brain, may come once there is a store."""

    floor: Floor

    @property
    def brain(self) -> Brain:
        return self.floor.brain

    @property
    def commands(self) -> Commands:
        return self.floor.commands

    def fleet(self) -> FleetView:
        return self.brain.fleet_view(self.floor.now, at=1e9, broker="127.0.0.1")

    def explain(self, pair: str) -> tuple[CheckView, ...]:
        return self.brain.explain(pair, self.floor.now)

    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry:
        return self.commands.switchover(pair, path, self.floor.now, who=who, reason=reason, force=force)

    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        return self.commands.failback(pair, self.floor.now, who=who, reason=reason)

    def approve(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        return self.commands.approve(pair, self.floor.now, who=who, reason=reason)

    def plan(self, ask: PlanAsk, *, who: str) -> PlanView:
        return self.commands.plan(ask, self.floor.now, who=who)

    def plans(self) -> tuple[PlanView, ...]:
        return self.brain.plans.views(self.floor.now)

    def drill(self, ask: DrillAsk, *, who: str) -> DrillView:
        return self.commands.drill(ask, self.floor.now, who=who)

    def drills(self) -> tuple[DrillView, ...]:
        return self.brain.drills.views(self.floor.now)

    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView:
        return self.commands.pause(scope, target, self.floor.now, who=who, reason=reason, for_s=for_s)

    def resume(self, pause_id: int, *, who: str) -> None:
        self.commands.resume(pause_id, self.floor.now, who=who)
