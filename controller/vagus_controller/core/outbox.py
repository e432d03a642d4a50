"""The port through which the brain speaks to the world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from vagus_controller.core.fleet import Notice
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import LedgerEntry, Severity


class Outbox(Protocol):
    """What a brain does to the world. Every call returns at once and does not call the brain."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Retained, QoS 1. Without a session it may be lost: the brain says it again when it has settled."""

    def event(self, source: str, kind: str, subject: str, text: str, severity: Severity = ...) -> None:
        """A line of history."""

    def notices(self, notices: Iterable[Notice]) -> None:
        """Lines of history."""

    def complain(self, who: str, text: str) -> None:
        """Bad input; it may come very often, and one line a minute is enough."""

    def decision(
        self, who: str, action: str, subject: str, reason: str, *, evidence: Sequence[str] = (), outcome: str = ...
    ) -> LedgerEntry:
        """A line of the ledger."""

    def outcome(self, entry: LedgerEntry, outcome: str) -> None:
        """How the decision of that entry ended."""

    def verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Findings that may be news."""

    def save(self) -> None:
        """What `Brain.saved` gives has changed in a way that a restart must not forget."""

    def changed(self) -> None:
        """The picture that `Brain.fleet_view` draws is another."""
