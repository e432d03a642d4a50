"""One link: a peer over one path, as this node sees it. A literal transition table fed by probes.

unknown ─streak─► up ⇄ degraded            the burst decides: any reply brings the link back, none is `down`
   │              │ miss, alarm, step
   └─burst lost   ▼
       ▼       suspect ─burst lost─► down ─streak─► up
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from vagus_agent.config import Probe
from vagus_protocol.messages import LinkState

UNKNOWN, UP, DEGRADED, SUSPECT, DOWN = LinkState


class Signal(StrEnum):
    STREAK = "streak"  # enough replies in a row
    REPLY = "reply"  # one reply
    MISS = "miss"  # one probe unanswered in time
    ALARM = "alarm"  # the peer suspects this link
    LOST = "burst lost"  # every probe of the burst unanswered
    LOSSY = "lossy"
    CLEAN = "clean"
    UNSENDABLE = "unsendable"  # the kernel refuses to send on this path


# SUSPECT on REPLY goes back to what it was before: see `_Link.apply`.
TRANSITIONS: Final[dict[tuple[LinkState, Signal], LinkState]] = {
    (UNKNOWN, Signal.STREAK): UP,
    (UNKNOWN, Signal.LOST): DOWN,
    (UNKNOWN, Signal.UNSENDABLE): DOWN,
    (UP, Signal.MISS): SUSPECT,
    (UP, Signal.ALARM): SUSPECT,
    (UP, Signal.LOSSY): DEGRADED,
    (UP, Signal.UNSENDABLE): DOWN,
    (DEGRADED, Signal.MISS): SUSPECT,
    (DEGRADED, Signal.ALARM): SUSPECT,
    (DEGRADED, Signal.CLEAN): UP,
    (DEGRADED, Signal.UNSENDABLE): DOWN,
    (SUSPECT, Signal.REPLY): UP,
    (SUSPECT, Signal.LOST): DOWN,
    (SUSPECT, Signal.UNSENDABLE): DOWN,
    (DOWN, Signal.STREAK): UP,
}

# RFC 6298: gains and factor of the smoothed RTT; its initial timeout.
_ALPHA: Final = 1 / 8
_BETA: Final = 1 / 4
_K: Final = 4
_INITIAL_TIMEOUT_S: Final = 1.0
# A link that has never answered is not called down for so long: where both ends of a WireGuard tunnel begin a handshake
# at once, neither may succeed, and they try again after 5 s (its REKEY_TIMEOUT) and up to a third of one.
_FIRST_WAIT_S: Final = 5.5
# Replies before an unknown link is up: two, so that one stray echo is not proof.
_FIRST_STREAK: Final = 2
# The first probe of a link is no later, and one that answers and is not up yet is asked again as soon, also where idle
# probes are rare: a metered path is known soon after a start, and does not stay down for minutes after its outage.
FIRST_WITHIN_S: Final = 1.0
_AGAIN_WITHIN_S: Final = 0.25
# Fewer probes than this say nothing about loss.
_LOSS_EVIDENCE: Final = 50
_WINDOW_S: Final = 60
# Moments of an idle interval that a node's probes share; and how far from midway, in parts of their distance, a probe
# stays: a little more than half, so that it does not go to and fro between two of them.
_SLOTS: Final = 4
_STAY: Final = 0.6
# One wide probe goes with each so many idle ones; after one that was lost the next goes soon, until so many in a row
# say that it is no chance: a fifth of all packets lost does that once in an hour, and is told as loss.
_WIDE_EVERY: Final = 50
_WIDE_SOON_S: Final = 1.0
_WIDE_LOST: Final = 5


class Change(Struct, frozen=True):
    link: Link
    old: LinkState
    new: LinkState
    reason: str
    at: float


class Link:
    """State of one link. Times are monotonic seconds; `changes` collects transitions for the owner."""

    __slots__ = (
        "_alarmed",
        "_before",
        "_before_reason",
        "_buckets",
        "_burst_deadline",
        "_burst_left",
        "_phase",
        "_sendable",
        "_settings",
        "_streak",
        "_up_since",
        "changes",
        "heard",
        "heard_seq",
        "idle_interval",
        "last_reply",
        "last_sent",
        "next_send",
        "own_lag",
        "path",
        "peer",
        "peer_lag",
        "peer_state",
        "reason",
        "reordered",
        "rtt",
        "rttvar",
        "sent",
        "since",
        "state",
        "wide_due",
        "wide_lost",
        "wide_since",
    )

    def __init__(
        self, peer: str, path: str, idle_interval: float, settings: Probe, start: float, changes: list[Change]
    ) -> None:
        self.peer = peer
        self.path = path
        self.idle_interval = idle_interval
        self.state = UNKNOWN
        self.since = start
        self.reason = "not probed yet"
        self.rtt: float | None = None
        self.rttvar = 0.0
        self.last_reply: float | None = None
        self.last_sent = start
        self.next_send = start
        self._phase = start
        self.peer_state: LinkState | None = None
        # Lateness in seconds of either end: of its event loop, or of whatever carries the path on a starved machine.
        self.own_lag = self.peer_lag = 0.0
        self.changes = changes
        self._settings = settings
        self._before = UP
        self._before_reason = ""
        self._alarmed = False
        self._streak = 0
        self._burst_left = 0
        self._burst_deadline: float | None = None
        self._sendable = True
        self._up_since = start
        # probes to the peer; from it, the newest of them, and those that came after a later one
        self.sent = self.heard = self.reordered = 0
        self.heard_seq: int | None = None
        # wide probes: when the next is due, how many were lost in a row, and since when
        self.wide_due = start + _WIDE_EVERY * idle_interval
        self.wide_lost = 0
        self.wide_since = start
        # second → [probes, lost], idle probes only: a burst would bias the loss
        self._buckets: dict[int, list[int]] = {}

    # --- what time asks for ------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `poll` must be called next (probe timeouts are the owner's)."""
        if self._burst_deadline is None or self._burst_left:
            return self.next_send
        return min(self.next_send, self._burst_deadline + self._patience)

    def poll(self, now: float, early: float = 0.0) -> bool:
        """Whether a probe is to be sent now; ends a burst whose time is over. An idle probe may go `early` seconds
        before its time."""
        waited = self._burst_deadline is not None and now >= self._burst_deadline + self._patience
        if waited and not self._burst_left:
            self._end_burst()
            if self.state in (SUSPECT, UNKNOWN):
                unanswered = f"{self._settings.burst} of {self._settings.burst} burst probes lost"
                why = f" ({self.reason}){self._patience_words()}" if self.state is SUSPECT else ""
                self._apply(Signal.LOST, now, unanswered + why)
        if now < (self.next_send if self._burst_left else self.next_send - early):
            return False
        self.last_sent = now
        if self._burst_left:
            self._burst_left -= 1
            self.next_send = now + self._settings.burst_interval_s if self._burst_left else self._next_idle(now)
            self._burst_deadline = now + self._confirm_wait
        else:
            # Keep the phase, unless we are late by more than a whole interval.
            self.next_send = max(self.next_send + self.idle_interval, now + self.idle_interval / 2)
        return True

    @property
    def told(self) -> LinkState:
        """What the peer is told of this link.

        A suspicion that came from the peer is not told back: it would alarm the peer in turn, and so for ever where a
        round trip is longer than a burst.
        """
        return self._before if self.state is SUSPECT and self._alarmed else self.state

    @property
    def in_burst(self) -> bool:
        return self._burst_deadline is not None

    @property
    def timeout(self) -> float:
        """Seconds after which a probe counts as missed (RFC 6298)."""
        if self.rtt is None:
            return _INITIAL_TIMEOUT_S
        settings = self._settings
        margin = max(_K * self.rttvar, settings.timeout_floor_s)
        return min(self.rtt + margin, settings.timeout_cap_s)

    @property
    def _confirm_wait(self) -> float:
        """Seconds to wait for the last burst probe, patience apart: three round trips, so that an RTT step is not an
        outage."""
        if self.rtt is None:
            return _FIRST_WAIT_S
        settings = self._settings
        enough = 3 * self.rtt + _K * self.rttvar
        return min(max(enough, settings.confirm_floor_s), settings.timeout_cap_s)

    @property
    def _patience(self) -> float:
        """Seconds more for the last burst probe: what the slower end says that it needs, as it is now. A stall in the
        middle of the burst counts with it, and a loop that is late every time does not put off the end for ever."""
        return 0.0 if self.rtt is None else max(self.own_lag, self.peer_lag)

    def retune(self, idle_interval: float, settings: Probe) -> None:
        """Other settings from now on; what is known of the link stays. A burst under way goes on as it began."""
        self._settings = settings
        if idle_interval != self.idle_interval:
            self.idle_interval = idle_interval
            self.wide_due = min(self.wide_due, self.last_sent + _WIDE_EVERY * idle_interval)
            if not self._burst_left:
                self.next_send = min(self.next_send, self.last_sent + idle_interval)

    def meeting(self, heard: float) -> float:
        """When our next idle probe should go, about midway between the peer's: together they look twice as often at no
        cost. About, since all links share four moments of an interval: a wake-up costs more than a probe."""
        midway = heard + self.idle_interval / 2
        slot = self.idle_interval / _SLOTS
        if abs(self.next_send - midway) <= _STAY * slot:
            return self.next_send
        return self._phase + round((midway - self._phase) / slot) * slot

    def align(self, moment: float, now: float) -> None:
        """Send our next idle probe then; never later than one and a half intervals after our last, since a peer in
        bursts must not silence us."""
        settled = self._burst_deadline is None and self.state is not UNKNOWN
        if settled and now < moment <= self.last_sent + 1.5 * self.idle_interval:
            self.next_send = moment

    # --- what happened -----------------------------------------------------------------------------------------

    def replied(self, rtt: float, sent: float, now: float, *, idle: bool) -> None:
        """A probe came back after `rtt` seconds (without the responder's hold)."""
        if self.rtt is None or rtt < self.rtt / 2:
            # RFC 6298's start; also when the path became much shorter: a wait for a handshake is no measure of it.
            self.rtt, self.rttvar = rtt, rtt / 2
        else:
            self.rttvar += _BETA * (abs(self.rtt - rtt) - self.rttvar)
            self.rtt += _ALPHA * (rtt - self.rtt)
        self.last_reply = now if self.last_reply is None else max(self.last_reply, now)
        self._sendable = True
        if idle:
            self._count(sent, lost=False)
        self._streak += 1
        if self.state is SUSPECT:
            self._end_burst()
            self._apply(Signal.REPLY, now, f"answered in {_ms(rtt)}")
        elif self._streak >= (_FIRST_STREAK if self.state is UNKNOWN else self._settings.up_after):
            self._end_burst_if_unknown()
            self._apply(Signal.STREAK, now, f"{self._streak} replies in a row, the last in {_ms(rtt)}")
        elif self.state in (UNKNOWN, DOWN):
            self.next_send = min(self.next_send, now + _AGAIN_WITHIN_S)

    def missed(self, now: float) -> None:
        """A probe was not answered within `timeout`: late, or lost."""
        self._streak = 0
        if self.state in (UP, DEGRADED):
            self._suspect(Signal.MISS, now, f"no reply within {_ms(self.timeout)}")
        elif self.state is UNKNOWN and self._burst_deadline is None:
            self._start_burst(now)

    def lost(self, sent: float) -> None:
        """An idle probe was never answered."""
        self._count(sent, lost=True)

    def alarmed(self, now: float) -> None:
        """The peer suspects this link: look at once."""
        if self.state in (UP, DEGRADED):
            self._suspect(Signal.ALARM, now, "the peer had no reply")

    def refused(self, why: str, now: float) -> None:
        """The kernel did not take a probe for this path."""
        self._streak = 0
        if self._sendable or self.state is not DOWN:
            self._sendable = False
            self._end_burst()
            self._apply(Signal.UNSENDABLE, now, why)

    def judge_loss(self, now: float) -> None:
        """Enter or leave `degraded` by the loss of the last minute."""
        total, lost = self._loss(now, _WINDOW_S)
        if total < _LOSS_EVIDENCE:
            return
        share = lost / total
        if share >= self._settings.degraded_enter_loss:
            self._apply(Signal.LOSSY, now, f"{share:.0%} of the last minute's probes lost")
        elif share <= self._settings.degraded_exit_loss:
            self._apply(Signal.CLEAN, now, f"{share:.1%} of the last minute's probes lost")

    def loss(self, now: float, window: int) -> float | None:
        """Share of idle probes lost in the last `window` seconds, or since it came up; None without any."""
        total, lost = self._loss(now, window)
        return lost / total if total else None

    # --- what passes --------------------------------------------------------------------------------------------

    def take_probe(self, *, late: bool, seq: int | None) -> None:
        """The peer's own probe came in over this path; `late`: after one that was sent later. `seq`: the newest's."""
        self.heard += 1
        if late:
            self.reordered += 1
        else:
            self.heard_seq = seq

    def wide_sent(self, now: float, *, before_lost: bool) -> None:
        """A wide probe goes out; `before_lost`: the one before was never answered."""
        if before_lost:
            if not self.wide_lost:
                self.wide_since = now
            self.wide_lost += 1
        soon = 0 < self.wide_lost < _WIDE_LOST
        self.wide_due = now + (_WIDE_SOON_S if soon else _WIDE_EVERY * self.idle_interval)

    def large_lost_s(self, now: float) -> float | None:
        """For how long no wide probe was answered, if that is no chance, and small ones are."""
        if self.wide_lost < _WIDE_LOST or self.state not in (UP, DEGRADED, SUSPECT):
            return None
        return max(now - self.wide_since, 0.0)

    # --- inside ------------------------------------------------------------------------------------------------

    def _patience_words(self) -> str:
        late = "this node" if self.own_lag >= self.peer_lag else "the peer"
        return f", waited {_ms(self._patience)} longer since {late} was late" if self._patience else ""

    def _apply(self, signal: Signal, now: float, reason: str) -> None:
        new = TRANSITIONS.get((self.state, signal))
        if new is None:
            return
        if signal is Signal.REPLY:
            new = self._before
            if new is DEGRADED:
                reason = self._before_reason
        old, self.state, self.since, self.reason = self.state, new, now, reason
        if old in (DOWN, UNKNOWN):
            self._up_since = now
        if new is not SUSPECT:
            self._before = new if new in (UP, DEGRADED) else UP
        self.changes.append(Change(self, old, new, reason, now))

    def _suspect(self, signal: Signal, now: float, reason: str) -> None:
        self._before, self._before_reason = self.state, self.reason
        self._alarmed = signal is Signal.ALARM
        self._apply(signal, now, reason)
        self._start_burst(now)

    def _start_burst(self, now: float) -> None:
        self._burst_left = self._settings.burst
        self._burst_deadline = now + self._settings.burst * self._settings.burst_interval_s + self._confirm_wait
        self.next_send = now

    def _end_burst(self) -> None:
        if self._burst_left:
            self.next_send = self._next_idle(self.last_sent)
        self._burst_left, self._burst_deadline = 0, None

    def _next_idle(self, now: float) -> float:
        """The last moment of our phase within an interval from `now`: links that keep the phase they started with wake
        their node up together."""
        return self._phase + (now + self.idle_interval - self._phase) // self.idle_interval * self.idle_interval

    def _end_burst_if_unknown(self) -> None:
        if self.state is UNKNOWN:
            self._end_burst()

    def _count(self, sent: float, *, lost: bool) -> None:
        """Into the second in which the probe was sent; its fate is known up to some seconds later."""
        second = int(sent)
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = [0, 0]
            for old in [old for old in self._buckets if old < second - _WINDOW_S]:
                del self._buckets[old]
        bucket[0] += 1
        bucket[1] += lost

    def _loss(self, now: float, window: int) -> tuple[int, int]:
        start = int(now) - window
        if self.state not in (DOWN, UNKNOWN):
            # An outage that is over is not loss.
            start = max(start, int(self._up_since))
        total = lost = 0
        for second, (probes, gone) in self._buckets.items():
            if second > start:
                total += probes
                lost += gone
        return total, lost


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
