"""What one agent decides between messages, clock, links and kernel: acceptance, trials, reflex, and what it says of it.

A driver (the daemon, or a simulation in virtual time) tells what happens, and afterwards does what is asked for:

    conduct = Conduct(config, {peer: its links in rung order}, session, now)
    conduct.restore(state on disk, overrides that stand in the kernel or None, now)    once, at the start
    conduct.on_session, on_controller, on_desired, on_rejected                         what the broker says
    conduct.on_links                          a link changed: its state, or the peer's view of it
    conduct.on_kernel                         after every write or look: what was asked for, what the kernel answers
    conduct.on_proof, on_checks, on_gap       what became of a verification (the order does not matter)
    conduct.tick                              at `deadline`, and with every report

After each of them, in this order:

    overrides        peer → path: what differs from what the kernel was asked for last, ask it for; then `on_kernel`
    take_measure()   for each: `Prober.measure`, whose Gap goes to `on_gap`
    take_verify()    for each: `Prober.verify`, whose Proof goes to `on_proof`, and the peer's service checks at once,
                     whose result goes to `on_checks` (it is not waited for where the configuration has none)
    take_notes()     events to tell
    take_observed()  to publish; None when it says nothing new, or while the kernel is yet to be asked
    take_state()     to write to disk; None when nothing changed

The invariant: a peer goes by the path that our own reflex holds it on, or else by that of its running trial, or else by
the last confirmed one, or else by its first. Nothing moves by a restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from vagus_agent.config import Config
from vagus_agent.core import desired, reflex
from vagus_agent.core.complaints import Complaints
from vagus_agent.core.link import Link
from vagus_agent.core.prober import Gap, Proof
from vagus_agent.core.trial import Kept, Trial
from vagus_protocol.messages import (
    ControllerPresence,
    Desired,
    EventKind,
    LinkState,
    Observed,
    ObservedState,
)

_ALIVE = (LinkState.UP, LinkState.DEGRADED)


class State(Struct, frozen=True):
    """What survives a restart: the last accepted desired, and the overrides that the agent made alone.

    `assignments`: peer → the last confirmed path; `trials`: of that desired; `reflex`: peer → path.
    """

    epoch: int = 0
    generation: int = 0
    author: str = ""
    assignments: dict[str, str] = {}
    reflex: dict[str, str] = {}
    trials: dict[str, Kept] = {}


class Note(NamedTuple):
    """An event in words."""

    kind: EventKind
    text: str
    level: Literal["info", "warning", "error"] = "info"
    peer: str = ""


class Verify(NamedTuple):
    """Prove that our packets to `peer` go by `path` and come back. It replaces an earlier one for the same peer."""

    peer: str
    path: str


class Measure(NamedTuple):
    """Measure what traffic to `peer` sees of its move to `path`, from before the move on."""

    peer: str
    path: str


class Conduct:
    def __init__(self, config: Config, links: Mapping[str, Sequence[Link]], session: str, now: float) -> None:
        self._config = config
        self._links = links
        self._session = session
        self._accepted = desired.Accepted()
        self._trials: dict[str, Trial] = {}
        # peer → path that we put it on by ourselves
        self._held: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._refusal: tuple[int, int, str] | None = None
        self._connected = False
        self._leaders: dict[str, bool] = {}
        self._alone_since: float | None = now
        self._orphan = False
        self._asked: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._failed = ""
        self._drift: tuple[str, ...] = ()
        self._complaints = Complaints()
        self._checked_peers = _checked_peers(config)
        self._notes: list[Note] = []
        self._verify: list[Verify] = []
        self._measure: list[Measure] = []
        self._told: Observed | None = None
        self._unsaved = False

    # --- what is asked for -------------------------------------------------------------------------------------------

    @property
    def overrides(self) -> dict[str, str]:
        """peer → the path that it should go by now, for every peer."""
        return {peer: self._held.get(peer) or self._assigned(peer) for peer in self._links}

    @property
    def moved(self) -> dict[str, str]:
        """Those of `overrides` that are not the peer's first path."""
        return {peer: path for peer, path in self.overrides.items() if path != self._first_path(peer)}

    @property
    def paths(self) -> Mapping[str, str]:
        """peer → the path that the kernel answered with last, "" for none of ours."""
        return self._paths

    @property
    def on_trial(self) -> set[str]:
        """The peers whose path is not confirmed yet."""
        return {peer for peer, trial in self._trials.items() if trial.running}

    @property
    def term(self) -> tuple[int, int]:
        """(epoch, generation) of the last accepted desired."""
        return self._accepted.term

    @property
    def state(self) -> State:
        return State(
            epoch=self._accepted.epoch,
            generation=self._accepted.generation,
            author=self._accepted.author,
            assignments=dict(self._accepted.assignments),
            reflex=dict(self._held),
            trials={peer: trial.kept() for peer, trial in self._trials.items()},
        )

    @property
    def observed(self) -> Observed:
        refusal = self._refusal
        state = ObservedState.APPLIED
        if refusal is not None:
            state = ObservedState.REFUSED
        elif self._failed:
            state = ObservedState.FAILED
        return Observed(
            v=1,
            node=self._config.node,
            session=self._session,
            epoch=self._accepted.epoch,
            generation=self._accepted.generation,
            state=state,
            paths=dict(self._paths),
            reflex=dict(self._held),
            verifications={peer: trial.wire() for peer, trial in self._trials.items()},
            reason=refusal[2] if refusal is not None else self._failed,
            drift=self._drift,
            refused_epoch=refusal[0] if refusal is not None else 0,
            refused_generation=refusal[1] if refusal is not None else 0,
        )

    @property
    def deadline(self) -> float:
        """When `tick` must be called next; infinity when only news can change anything."""
        due = min((trial.deadline for trial in self._trials.values() if trial.running), default=math.inf)
        return due if self._orphan else min(due, self._orphaned_from)

    @property
    def _orphaned_from(self) -> float:
        return math.inf if self._alone_since is None else self._alone_since + self._config.orphaned_after_s

    def orphaned(self, now: float) -> bool:
        """Whether nobody has led us for so long that the reflex may act."""
        return now >= self._orphaned_from

    def reason(self, peer: str) -> str:
        """Why the peer goes where it goes, in the words of whoever decided it; "" when nobody said."""
        return self._reasons.get(peer, "")

    def take_verify(self) -> list[Verify]:
        taken, self._verify = self._verify, []
        return taken

    def take_measure(self) -> list[Measure]:
        taken, self._measure = self._measure, []
        return taken

    def take_notes(self) -> list[Note]:
        taken, self._notes = self._notes, []
        return taken

    def take_observed(self) -> Observed | None:
        if self.overrides != self._asked:
            return None
        observed = self.observed
        if observed == self._told:
            return None
        self._told = observed
        return observed

    def take_state(self) -> State | None:
        if not self._unsaved:
            return None
        self._unsaved = False
        return self.state

    # --- what happens ------------------------------------------------------------------------------------------------

    def restore(self, state: State, standing: Mapping[str, str] | None, now: float) -> None:
        """Start from what the kernel does now: a restart moves nothing.

        `standing`: the overrides of ours that it has; None when it has nothing of ours, as after a reboot: then the
        state on disk says what was decided.
        """
        on_trial = {peer: kept.path for peer, kept in state.trials.items()}
        self._accepted = desired.Accepted(state.epoch, state.generation, state.assignments, on_trial, state.author)
        self._trials = {peer: Trial.resumed(kept, now) for peer, kept in state.trials.items()}
        for peer, kept in self._trials.items():
            if kept.running and not self._offers(peer, kept.path):
                kept.revert(f"{kept.path} to {peer} is not in the configuration any more")
        if standing is None:
            self._held = {peer: path for peer, path in state.reflex.items() if self._offers(peer, path)}
        else:
            self._held = {}
            for peer in self._links:
                # Without an override in the kernel a peer is on its first path: by our reflex, or by nobody's decision.
                uses = standing.get(peer, self._first_path(peer))
                trial = self._trials.get(peer)
                if trial is not None and trial.running and uses != trial.path:
                    trial.revert(f"{peer} did not go by {trial.path} any more when the agent started")
                if uses != self._assigned(peer) and (peer in standing or state.reflex.get(peer) == uses):
                    self._held[peer] = uses
        for peer in self._held.keys() & self._trials.keys():
            self._trials[peer].running = False
        self._asked = self.overrides

    def reconfigure(self, config: Config, now: float) -> None:
        """Other settings from now on; `links` has become what they say. As after a restart with them: what is still
        offered stays where it is."""
        self._config = config
        self._checked_peers = _checked_peers(config)
        for peer, trial in self._trials.items():
            if trial.running and not self._offers(peer, trial.path):
                trial.revert(f"{trial.path} to {peer} is not in the configuration any more")
        self._held = {peer: path for peer, path in self._held.items() if self._offers(peer, path)}
        self._unsaved = True
        self._react(now)

    def on_session(self, connected: bool, now: float) -> None:
        """A broker session began or ended."""
        self._connected = connected
        if not connected:
            self._leaders.clear()
        self._company_changed(now)

    def on_controller(
        self, controller: str, presence: ControllerPresence | None, now: float, *, retained: bool = False
    ) -> None:
        """What a controller says of itself, or what the broker remembers of it (`retained`); None: nothing any more.

        A leader may have died together with the broker, and then nobody published its last will. One that lives tells
        so to who comes new: it is given the time of an orphan to do it.
        """
        leads = presence is not None and presence.online and presence.leader
        if leads and retained and not self._leaders.get(controller):
            self._alone_since = now
            leads = False
        self._leaders[controller] = leads
        self._company_changed(now)

    def on_desired(self, message: Desired, now: float) -> None:
        """A desired with a good signature."""
        verdict = desired.judge(message, self._accepted, self._config)
        if isinstance(verdict, desired.Refusal):
            self._refuse(message.epoch, message.generation, verdict.reason, now)
            return
        self._refusal = None
        if verdict is self._accepted:
            return
        self._accepted = verdict
        self._unsaved = True
        self._reasons = {
            peer: f"on trial: {word.reason}" if word.trial else word.reason
            for peer, word in message.assignments.items()
        }
        again = {
            peer: trial
            for peer, trial in self._trials.items()
            if verdict.trials.get(peer) == trial.path and trial.epoch == message.epoch
        }
        # A trial that is told once more is no new word: it ends no reflex, not even its own.
        words = {peer: path for peer, path in {**verdict.assignments, **verdict.trials}.items() if peer not in again}
        self._held = reflex.heed(words, self._held, self._links)
        self._trials = again
        for peer, path in verdict.trials.items():
            if peer in again:
                continue
            within_s = message.confirm_within_s
            trial = self._trials[peer] = Trial(path, message.epoch, message.generation, within_s, now + within_s)
            if peer in self._held:
                trial.running = False
                self._trial_failed(peer, trial, f"{path} is down here, and {self._held[peer]} answers: it stays")
            elif message.assignments[peer].drill:
                self._measure.append(Measure(peer, path))
        self._begin()

    def on_rejected(self, reason: str, now: float) -> None:
        """What came in the place of a desired is none, or not signed for us."""
        self._refuse(0, 0, reason, now)

    def on_links(self, now: float) -> None:
        """A link changed: its state, or what the peer thinks of it."""
        self._react(now)

    def on_kernel(
        self,
        asked: Mapping[str, str],
        paths: Mapping[str, str],
        failed: str = "",
        drift: tuple[str, ...] = (),
    ) -> None:
        """`asked`: the `overrides` that the kernel was asked for last, of every peer; `paths`: peer → the path that it
        answers with; `failed` and `drift`: what is wrong, and what others had changed, in words."""
        before, self._asked = self._asked, dict(asked)
        self._paths, self._drift = dict(paths), drift
        self._notes += [Note(EventKind.DRIFT, f"drift: {line}", "warning") for line in drift]
        if failed and failed != self._failed:
            self._notes.append(Note(EventKind.STEERING, failed, "error"))
        elif self._failed and not failed:
            self._notes.append(Note(EventKind.STEERING, "routes and rules are as wanted again"))
        self._failed = failed
        for peer, path in self._asked.items():
            if peer in self._links and before.get(peer) != path:
                text = f"{peer} goes by {paths.get(peer) or 'none of our paths'} ({self.reason(peer)})"
                self._notes.append(Note(EventKind.STEERING, text, peer=peer))
        self._begin()

    def on_proof(self, proof: Proof) -> None:
        trial = self._trials.get(proof.peer)
        if trial is None or not trial.begun or trial.state != "pending" or trial.path != proof.path:
            return
        if proof.ok:
            trial.proven(proof.reason)
        else:
            self._trial_failed(proof.peer, trial, proof.reason)

    def on_gap(self, gap: Gap) -> None:
        trial = self._trials.get(gap.peer)
        if trial is not None and trial.path == gap.path:
            trial.gap_s = gap.seconds

    def on_checks(self, peer: str, path: str, failed: tuple[str, ...]) -> None:
        """The service checks of `peer` ran over `path`; `failed`: those that fail now and did not before."""
        trial = self._trials.get(peer)
        if trial is None or not trial.begun or trial.checked or trial.path != path:
            return
        trial.tried(failed)
        if failed:
            text = f"{peer} by {trial.path}: {', '.join(failed)} answered before the move, and does not now"
            self._notes.append(Note(EventKind.TRIAL, text, "warning", peer))

    def tick(self, now: float) -> None:
        for peer, trial in self._trials.items():
            if trial.running and now >= trial.deadline:
                self._time_is_over(peer, trial)
        self._react(now)

    # --- trials ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the verifications whose route stands; fail those whose route does not."""
        for peer, trial in self._trials.items():
            if not trial.running or self._asked.get(peer) != trial.path or trial.state == "failed":
                continue
            goes_by = self._paths.get(peer)
            if goes_by is None:
                continue
            if goes_by != trial.path:
                says = self._failed or f"the kernel sends it by {goes_by or 'none of our paths'}"
                self._trial_failed(peer, trial, f"{trial.path} cannot carry {peer}: {says}")
            elif not trial.begun:
                trial.begin()
                trial.checked = peer not in self._checked_peers
                self._verify.append(Verify(peer, trial.path))

    def _trial_failed(self, peer: str, trial: Trial, reason: str) -> None:
        trial.fail(reason)
        self._notes.append(Note(EventKind.TRIAL, f"{peer} by {trial.path} failed its trial: {reason}", "warning", peer))

    def _time_is_over(self, peer: str, trial: Trial) -> None:
        """Not confirmed: back to the confirmed path, unless that is dead while the trial's lives."""
        self._unsaved = True
        home = self._confirmed(peer)
        if trial.path == home:
            trial.running = False
            return
        links = {link.path: link for link in self._links[peer]}
        late = f"not confirmed within {trial.within_s:g} s"
        dead = links.get(home)
        if dead is not None and dead.state is LinkState.DOWN and links[trial.path].state in _ALIVE:
            trial.running = False
            trial.reason = f"{late}, but {home} is down ({dead.reason}): it stays"
            self._held[peer] = trial.path
            self._reasons[peer] = f"reflex: {trial.reason}"
            self._notes.append(Note(EventKind.TRIAL, f"{peer} by {trial.path}: {trial.reason}", "warning", peer))
            return
        why = late if trial.state != "failed" else f"{late}, and it failed: {trial.reason}"
        trial.revert(why)
        self._reasons[peer] = f"the trial of {trial.path} was {late}"
        self._notes.append(
            Note(EventKind.TRIAL, f"{peer} goes back from {trial.path} to {home}: {why}", "warning", peer)
        )

    # --- alone -------------------------------------------------------------------------------------------------------

    def _company_changed(self, now: float) -> None:
        """Note since when nobody leads us."""
        if self._connected and any(self._leaders.values()):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        self._react(now)

    def _react(self, now: float) -> None:
        """Let the reflex look at every peer."""
        self._orphan = self.orphaned(now)
        for peer, links in self._links.items():
            assigned = self._assigned(peer)
            step = reflex.decide(self._config.reflex, self._orphan, peer, links, assigned, self._held.get(peer))
            if step is None:
                continue
            trial = self._trials.get(peer)
            if trial is not None and trial.running:
                # Its path died under it. What remains of it is where it came from.
                trial.revert(step.reason)
            if step.path is None or step.path == self._assigned(peer):
                self._held.pop(peer, None)
            else:
                self._held[peer] = step.path
            self._reasons[peer] = f"reflex: {step.reason}"
            text = f"{peer} → {step.path or assigned}: {step.reason}"
            self._notes.append(Note(EventKind.REFLEX, text, "warning", peer))
            self._unsaved = True

    def _refuse(self, epoch: int, generation: int, reason: str, now: float) -> None:
        text = f"desired refused: {reason}"
        prefix = self._complaints.worth("desired", text, now)
        if prefix is not None:
            self._notes.append(Note(EventKind.REFUSED, prefix + text, "warning"))
            self._refusal = (epoch, generation, reason)

    # --- small answers -----------------------------------------------------------------------------------------------

    def _assigned(self, peer: str) -> str:
        """Where the peer goes without a reflex of ours."""
        trial = self._trials.get(peer)
        return trial.path if trial is not None and trial.running else self._confirmed(peer)

    def _confirmed(self, peer: str) -> str:
        return self._accepted.assignments.get(peer) or self._first_path(peer)

    def _first_path(self, peer: str) -> str:
        return self._links[peer][0].path

    def _offers(self, peer: str, path: str) -> bool:
        return any(link.path == path for link in self._links.get(peer, ()))


def _checked_peers(config: Config) -> set[str]:
    return {check.peer for check in config.checks if check.peer}
