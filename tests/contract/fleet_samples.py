"""An Operator in memory, over the pictures of `browser.samples`: what the API shows and what it asks of the daemon."""

from __future__ import annotations

from typing import Any

import msgspec

from browser import samples
from vagus_controller.views import FleetView, LedgerEntry, PauseView, Refused


class MemoryOperator:
    """views.Operator. `asked` holds what a person asked for; `refusal` makes every command refused."""

    def __init__(self, view: FleetView | None = None) -> None:
        self.view = view or samples.calm()
        self.asked: list[tuple[Any, ...]] = []
        self.refusal = ""

    def fleet(self) -> FleetView:
        return self.view

    def _command(self, *what: Any) -> None:
        if self.refusal:
            raise Refused(self.refusal)
        self.asked.append(what)

    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry:
        self._command("switchover", pair, path, who, reason, force)
        return samples.entry(len(self.asked), "switchover", pair, reason, "started", who=who)

    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        self._command("failback", pair, who, reason)
        return samples.entry(len(self.asked), "failback", pair, reason, "started", who=who)

    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView:
        self._command("pause", scope, target, who, reason, for_s)
        pause = PauseView(
            id=len(self.asked) + 10,
            scope=scope,  # type: ignore[arg-type]
            target=target,
            reason=reason,
            who=who,
            expires_s=for_s,
        )
        self.view = msgspec.structs.replace(self.view, pauses=(*self.view.pauses, pause))
        return pause

    def resume(self, pause_id: int, *, who: str) -> None:
        left = tuple(pause for pause in self.view.pauses if pause.id != pause_id)
        if left == self.view.pauses:
            raise KeyError(str(pause_id))
        self._command("resume", pause_id, who)
        self.view = msgspec.structs.replace(self.view, pauses=left)
