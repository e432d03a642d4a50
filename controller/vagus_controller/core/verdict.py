"""A detector's finding, and the two helpers that keep findings from flapping."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from vagus_controller.views import Severity

# `stuck`: a pair that must move and cannot, or could not in its last drill; found by the failover policy, no detector
Kind = Literal["liveness", "controller", "link", "quorum", "load", "stuck"]
# From good to bad.
RANK: Final = (Severity.OK, Severity.INFO, Severity.UNKNOWN, Severity.WARNING, Severity.CRITICAL)


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`subject`: a node, "a--b/path", or the fleet's or controller's name. `since`: monotonic seconds of its state."""

    kind: Kind
    subject: str
    state: str
    severity: Severity
    reason: str
    evidence: tuple[str, ...]
    since: float


def follow(
    previous: Verdict | None,
    kind: Kind,
    subject: str,
    state: str,
    severity: Severity,
    reason: str,
    evidence: tuple[str, ...],
    now: float,
) -> Verdict:
    """The verdict after `previous`: `since` stays while the state does, and an unchanged verdict is the same object."""
    if previous is None or previous.state != state:
        return Verdict(kind, subject, state, severity, reason, evidence, now)
    if previous.reason == reason and previous.evidence == evidence and previous.severity is severity:
        return previous
    return Verdict(kind, subject, state, severity, reason, evidence, previous.since)


class Hysteresis:
    """A condition that counts after `enter_s` seconds of it, and ends after `leave_s` seconds of its end.

    Sampled and leaky: the time between two samples that both show the condition is evidence; a sample without it takes
    its own step away instead of all, so a noisy condition is still found and a burst shorter than `enter_s` is not.
    """

    __slots__ = ("_evidence_s", "_last", "_shown", "active", "enter_s", "leave_s")

    def __init__(self, enter_s: float, leave_s: float) -> None:
        self.enter_s = enter_s
        self.leave_s = leave_s
        self.active = False
        self._evidence_s = 0.0
        self._last: float | None = None
        self._shown = False

    def update(self, entering: bool, leaving: bool, now: float) -> bool:
        """Take one sample; `entering` and `leaving` may both be false (between two thresholds). Returns `active`."""
        step = 0.0 if self._last is None else max(0.0, now - self._last)
        self._last = now
        shown = leaving if self.active else entering
        if shown:
            if self._shown:
                self._evidence_s += step
            if self._evidence_s >= (self.leave_s if self.active else self.enter_s):
                self.active = not self.active
                self._evidence_s = 0.0
                shown = False
        elif self._evidence_s:
            self._evidence_s = max(0.0, self._evidence_s - step)
        self._shown = shown
        return self.active

    def forget(self) -> None:
        """Drop the evidence gathered so far: the samples had a gap."""
        self._evidence_s = 0.0
        self._last = None
        self._shown = False


def seconds(value: float) -> str:
    """A duration in words: "0.3 s", "12 s", "4 min", "3 h"."""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h"


def ms(value: float) -> str:
    """A short time in words, in seconds where it is none."""
    if value >= 9.95:
        return seconds(value) if value < math.inf else "no time that ends"
    return f"{value * 1000:.0f} ms"


def some(lines: list[str], most: int = 8) -> tuple[str, ...]:
    """The first lines as evidence, and how many more there are."""
    if len(lines) <= most:
        return tuple(lines)
    return (*lines[:most], f"and {len(lines) - most} more")
