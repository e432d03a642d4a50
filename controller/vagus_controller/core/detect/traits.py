"""How a link that carries does it badly, by what both ends count and measure.

| trait | when |
| --- | --- |
| black-hole | packets as large as traffic's are lost one way, while small ones pass |
| one-way-loss | an end sees loss, and what one sends arrives while what the other sends does not |
| slow | the round trip is far above the link's own learned one, for some seconds |
| reordering | a share of the probes arrives after later ones |

And of one that is down: whether one direction still carries. A probe and its echo cannot tell which of the two was
lost; both ends' counts of probes sent and heard can. Rates are compared, not counts, since reports are not of one
moment.

Per link two sets of counters, two rates each and one baseline: O(1) memory, whatever the time.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from vagus_controller import config
from vagus_controller.core.baseline import Baseline
from vagus_controller.core.fleet import Pair
from vagus_controller.core.node import LinkSeen
from vagus_controller.core.verdict import Hysteresis, ms, seconds
from vagus_protocol.messages import LinkState

# Rates are means of about this long; they are trusted after it.
_TAU_S: Final = 10.0
_GAP_S: Final = 60.0
# A direction loses if it loses this share at least, and the other one a quarter of it at most, and the difference is no
# chance: so many standard deviations of that of two shares of equal size. Where both lose 20 %, one reads 4 times the
# other of 80 probes now and then.
_LOSES: Final = 0.04
_OTHER: Final = 0.25
_SURE: Final = 3.5
# Probes a second below which a direction is not judged.
_LEAST_RATE: Final = 0.3
_REORDERS: Final = (0.05, 0.02)
# With more loss than this large packets are lost like all others.
_LOST_ALIKE: Final = 0.1
_SLOW_FOR_S: Final = 15.0
# Probes heard in one report's time while the link is down: it carries that way.
_HEARS: Final = 2

Ends = tuple[LinkSeen | None, LinkSeen | None]


class Trait(NamedTuple):
    state: str
    words: str


class _End:
    """What one end counted, per second; `hears`: whether the other's probes arrive while it says down."""

    __slots__ = ("at", "disorder", "heard", "hears", "hears_rate", "known_s", "reordered", "sends_rate", "sent")

    def __init__(self) -> None:
        self.at = -math.inf
        self.sent = self.heard = self.reordered = 0
        self.forget()

    def forget(self) -> None:
        self.sends_rate = self.hears_rate = self.disorder = self.known_s = 0.0
        self.hears: bool | None = None

    def take(self, seen: LinkSeen) -> None:
        link, step = seen.link, seen.at - self.at
        sent, heard = link.sent - self.sent, link.heard - self.heard
        reordered = link.reordered - self.reordered
        self.at, self.sent, self.heard, self.reordered = seen.at, link.sent, link.heard, link.reordered
        if not link.sent or step > _GAP_S or min(sent, heard, reordered) < 0:
            # It does not count, was not heard for long, or has started anew.
            self.forget()
            return
        kept = math.exp(-step / _TAU_S)
        self.sends_rate += (sent / step - self.sends_rate) * (1.0 - kept)
        self.hears_rate += (heard / step - self.hears_rate) * (1.0 - kept)
        if heard:
            self.disorder += (min(reordered / heard, 1.0) - self.disorder) * (1.0 - kept)
        self.known_s = min(self.known_s + step, _GAP_S)
        if link.state is not LinkState.DOWN:
            self.hears = None
        elif link.since_s >= step and heard != 1:
            self.hears = heard >= _HEARS


class Traits:
    def __init__(self, settings: config.Quality) -> None:
        self._settings = settings
        self._ends = (_End(), _End())
        self._at = -math.inf
        self._baseline = Baseline()
        self._trip_s = 0.0
        self._slow = Hysteresis(_SLOW_FOR_S, _SLOW_FOR_S)
        self._reorders = False

    def observe(self, ends: Ends) -> None:
        """Take what is news of both ends' words."""
        for end, seen in zip(self._ends, ends, strict=True):
            if seen is None:
                end.forget()
            elif seen.at > end.at:
                end.take(seen)
        self._measure(ends)
        disorder = max(end.disorder for end in self._ends)
        self._reorders = disorder >= _REORDERS[0] or (self._reorders and disorder > _REORDERS[1])

    def _measure(self, ends: Ends) -> None:
        told = [seen for seen in ends if seen is not None and seen.link.rtt_s is not None]
        alive = [seen for seen in told if seen.link.state in (LinkState.UP, LinkState.DEGRADED)]
        at = max((seen.at for seen in alive), default=-math.inf)
        if not alive:
            self._slow = Hysteresis(_SLOW_FOR_S, _SLOW_FOR_S)
            self._at = -math.inf
            return
        if at <= self._at:
            return
        step, self._at = at - self._at, at
        self._trip_s = max(seen.link.rtt_s or 0.0 for seen in alive)
        if step > _GAP_S:
            self._slow.forget()
        else:
            self._baseline.learn(self._trip_s, step)
        enters = self._baseline.exceeded(self._trip_s, self._settings.rtt_enter)
        leaves = not self._baseline.exceeded(self._trip_s, self._settings.rtt_exit)
        self._slow.update(enters, leaves, at)

    # --- what it tells -------------------------------------------------------------------------------------------

    def black_hole(self, pair: Pair, ends: Ends, now: float) -> str:
        for (node, peer), seen in zip((pair, pair[::-1]), ends, strict=True):
            lost_s = seen.link.large_lost_s if seen is not None else None
            if seen is not None and lost_s is not None and (seen.link.loss_10s or 0.0) <= _LOST_ALIKE:
                return (
                    f"packets as large as traffic's do not get from {node} to {peer}, small ones do, for "
                    f"{seconds(lost_s + now - seen.at)}: an MTU black hole; lower the MTU of {node}'s interface, or "
                    "let ICMP pass"
                )
        return ""

    def one_way_loss(self, pair: Pair) -> str:
        """Which direction loses, when only one does; "" when both do or it cannot be told."""
        there, back = self._lost(0), self._lost(1)
        if there is None or back is None:
            return ""
        most, least = max(there, back), min(there, back)
        if most < _LOSES or least > _OTHER * most or most - least < _SURE * self._chance((most + least) / 2):
            return ""
        source, target = pair if there >= back else pair[::-1]
        return f"{most:.0%} lost from {source} to {target}, {least:.0%} from {target} to {source}"

    def slow(self) -> str:
        """The step of the round trip, while there is one."""
        usual = self._baseline.rtt_s
        return f"round trip {ms(usual)} → {ms(self._trip_s)}" if self._slow.active and usual is not None else ""

    def reordering(self, pair: Pair) -> str:
        if not self._reorders:
            return ""
        index = max((0, 1), key=lambda each: self._ends[each].disorder)
        source, target = pair[1 - index], pair[index]
        return f"{self._ends[index].disorder:.0%} of what {source} sends arrives at {target} after what was sent later"

    def passes(self, pair: Pair) -> str:
        """Of a link that is down at both ends: which direction still carries."""
        hears = self._ends[0].hears, self._ends[1].hears
        if hears == (True, False):
            source, target = pair[::-1]
        elif hears == (False, True):
            source, target = pair
        else:
            return ""
        return f"{target} hears {source}, {source} hears nothing: nothing gets from {target} to {source}"

    def _chance(self, share: float) -> float:
        """The standard deviation of the difference between both directions, if each loses `share`: an average that
        forgets with the time constant τ is worth the probes of 2 τ."""
        counted = sum(1.0 / end.sends_rate for end in self._ends) / (2.0 * _TAU_S)
        return math.sqrt(share * (1.0 - share) * counted)

    def _lost(self, index: int) -> float | None:
        """The share that is lost of what the end sends; None: not known."""
        sender, hearer = self._ends[index], self._ends[1 - index]
        if min(sender.known_s, hearer.known_s) < _TAU_S or sender.sends_rate < _LEAST_RATE:
            return None
        return min(max(1.0 - hearer.hears_rate / sender.sends_rate, 0.0), 1.0)
