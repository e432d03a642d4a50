"""One trial: a path that carries a peer for a while, is verified with real packets, and waits to be confirmed.

accepted ─► kernel applied ─► packets and service checks ─► verified | failed ─► confirmed (forgotten)
    └────────────────────── not confirmed within `within_s` ──────────────────► reverted, or kept as a reflex
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from vagus_protocol.messages import Verification

State = Literal["pending", "verified", "failed", "reverted"]


class Kept(Struct, frozen=True, omit_defaults=True):
    """A trial on disk. `state` and `reason` count once it does not run any more."""

    path: str
    epoch: int
    generation: int
    within_s: float
    running: bool = True
    state: State = "pending"
    reason: str = ""


@dataclass(slots=True)
class Trial:
    """(epoch, generation): of the desired that began it. `within_s` and `deadline`: how long it waits for its
    confirmation, and until when."""

    path: str
    epoch: int
    generation: int
    within_s: float
    deadline: float
    running: bool = True
    state: State = "pending"
    reason: str = "not applied yet"
    failed_checks: tuple[str, ...] = ()
    # What the verification still waits for.
    begun: bool = False
    proof: str = ""
    checked: bool = False
    # Of a drill.
    gap_s: float | None = None

    @classmethod
    def resumed(cls, kept: Kept, now: float) -> Trial:
        """A restart costs it nothing: it has its whole time again, and is verified again."""
        trial = cls(kept.path, kept.epoch, kept.generation, kept.within_s, now + kept.within_s)
        if not kept.running:
            trial.running, trial.state, trial.reason = False, kept.state, kept.reason
        return trial

    def kept(self) -> Kept:
        if self.running:
            return Kept(self.path, self.epoch, self.generation, self.within_s)
        return Kept(self.path, self.epoch, self.generation, self.within_s, False, self.state, self.reason)

    def wire(self) -> Verification:
        return Verification(
            path=self.path,
            epoch=self.epoch,
            generation=self.generation,
            state=self.state,
            reason=self.reason[:1000],
            failed_checks=self.failed_checks,
            gap_s=self.gap_s,
        )

    # --- its verification --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The kernel gives its path: packets and service checks are under way."""
        self.begun = True
        self.reason = "packets over the kernel's own route are under way"

    def proven(self, how: str) -> None:
        self.proof = how
        self._conclude()

    def tried(self, failed_checks: tuple[str, ...]) -> None:
        """The service checks are through; `failed_checks`: those that fail now and did not before."""
        self.checked, self.failed_checks = True, failed_checks
        self._conclude()

    def fail(self, reason: str) -> None:
        self.state, self.reason = "failed", reason

    def revert(self, reason: str) -> None:
        """Traffic goes back to the confirmed path."""
        self.running, self.state, self.reason = False, "reverted", reason

    def _conclude(self) -> None:
        if self.state != "pending" or not self.proof:
            return
        if not self.checked:
            self.reason = f"{self.proof}; service checks are under way"
            return
        self.state, self.reason = "verified", self.proof
