"""Everything worth remembering: into the store, onto the stream of changes, and into the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Final

import msgspec

from vagus_controller.api.stream import ChangeFeed
from vagus_controller.core.fleet import Notice
from vagus_controller.core.verdict import Verdict
from vagus_controller.store import Store
from vagus_controller.views import Change, IncidentView, LedgerEntry, Severity

log = logging.getLogger("vagus")

# The same trouble is written down at most this often, and so many different ones of one sender in that time: who sends
# garbage can word it in endless ways.
_COMPLAIN_S: Final = 60.0
_MOST_COMPLAINTS: Final = 10
_QUIET: Final = (Severity.OK, Severity.INFO, Severity.UNKNOWN)


class Chronicle:
    def __init__(self, store: Store, feed: ChangeFeed) -> None:
        self._store = store
        self._feed = feed
        self._changes = 0
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        # of subjects of which nothing was written down yet
        self._untold: set[tuple[str, str]] = set()
        # sender → beginning of the complaint → when
        self._complained: dict[str, dict[str, float]] = {}

    def event(self, source: str, kind: str, subject: str, text: str, severity: Severity = Severity.INFO) -> None:
        entry = self._store.record_event(
            at=time.time(), source=source, kind=kind, subject=subject, text=text, severity=severity
        )
        self._changes += 1
        self._feed.publish(Change(self._changes, "event", entry))
        line = " ".join(text.splitlines())
        log.log(logging.INFO if severity in _QUIET else logging.WARNING, "%s %s: %s", subject, kind, line)

    def notices(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self.event("controller", notice.kind, notice.subject, notice.text, notice.severity)

    def complain(self, who: str, text: str, kind: str = "refused") -> None:
        """Bad input, at most once a minute per kind of trouble, and a bounded number of kinds per sender."""
        now = monotonic()
        told = {words: at for words, at in self._complained.get(who, {}).items() if now - at < _COMPLAIN_S}
        if text[:80] in told or len(told) >= _MOST_COMPLAINTS:
            return
        told[text[:80]] = now
        fresh = {name: kinds for name, kinds in self._complained.items() if now - max(kinds.values()) < _COMPLAIN_S}
        self._complained = {**fresh, who: told}
        if len(told) == _MOST_COMPLAINTS:
            text += "; more about this sender is not told for a minute"
        self.event("controller", kind, who, text, Severity.WARNING)

    def decision(
        self, who: str, action: str, subject: str, reason: str, *, evidence: Sequence[str] = (), outcome: str = "done"
    ) -> LedgerEntry:
        entry = self._store.record_ledger(
            at=time.time(),
            who=who,
            action=action,
            subject=subject,
            reason=reason,
            evidence=tuple(evidence),
            outcome=outcome,
        )
        self._changes += 1
        self._feed.publish(Change(self._changes, "ledger", entry))
        log.info("%s %s: %s", action, subject, reason)
        return entry

    def outcome(self, entry: LedgerEntry, outcome: str) -> None:
        """How a decision ended; the entry is told again."""
        self._store.update_outcome(entry.id, outcome)
        self._changes += 1
        self._feed.publish(Change(self._changes, "ledger", msgspec.structs.replace(entry, outcome=outcome)))

    def verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Write down every verdict that changed its state, or how bad it is, since its subject's last; the first one
        only if it is bad news, and that all is well only after something else was. One that did not change may be left
        out."""
        for verdict in verdicts:
            key = (verdict.kind, verdict.subject)
            before = self._verdicts.get(key)
            self._verdicts[key] = verdict
            if before is not None and (before.state, before.severity) == (verdict.state, verdict.severity):
                continue
            untold = before is None or key in self._untold
            if untold and verdict.severity in (_QUIET if before is None else (Severity.OK,)):
                self._untold.add(key)
                continue
            self._untold.discard(key)
            text = f"{verdict.state}: {verdict.reason}"
            self.event("controller", verdict.kind, verdict.subject, text, verdict.severity)

    def incident(self, incident: IncidentView) -> None:
        self._store.record_incident(incident)
        self._changes += 1
        self._feed.publish(Change(self._changes, "incident", incident))
