"""How much more than its own a node has to do: streaming, in a few numbers a node.

The signal is tasks that run or wait, for a core or a disk, per core: the load average's own raw material, without its
minute of delay. CUSUMs (Page, 1954) sum what of it is above `usual` plus an allowance, second by second, and fall to 0
when it is not: one with a small allowance for what lasts, one with a large allowance for what is steep, and a slow one
that excuses no job of any minute. Each above its threshold is a surge. One sample adds at most a part of a threshold,
so that no single count is one.

`usual` is the greater of what was of late (an hour's memory) and what was at this hour of the day on earlier days; and
what comes at this minute of every hour on top of it, as cron's jobs do. All follow in clipped steps, and not at all
in the first minutes of a surge, so that none becomes usual; together they never excuse more than a bound. The small
allowance is learned: how high this node's own short bursts go, which end by themselves; and it grows with noise.

A node that is met is taken as it is, up to a bound, but for what its kernel saw rise. A surge is over when the level is
back near usual, and also when it has only hovered for long: too high for that, and too low to be told.

Time of day is the monotonic clock's, modulo a day: where its day begins does not matter, and no wall clock can jump.
"""

from __future__ import annotations

from array import array
from typing import Final

from vagus_controller.config import Load
from vagus_controller.core.verdict import Hysteresis

# Tasks per core. A machine that is always this busy is at load, whatever is usual.
_USUAL_MOST: Final = 3.0
# What is only guessed excuses less.
_GUESS_MOST: Final = 2.0
# Time constant of "usual of late": an hour of something makes it two thirds usual. A step pulls by at most _CLIP.
_USUAL_TAU_S: Final = 3600.0
_CLIP: Final = 1.5
_HOURS: Final = 24
_DAY_UNIT: Final = 0.0125
_UNKNOWN: Final = 255
_HOUR_S: Final = 3600.0
_MINUTES: Final = 60
_MINUTE_S: Final = 60.0
# How much of an hour's difference at that minute is remembered, up and down: jobs are not as long each time, and the
# longest count. And a difference of how much.
_MINUTE_UP: Final = 0.5
_MINUTE_DOWN: Final = 0.1
_MINUTE_CLIP: Final = 2.0
_MINUTE_UNIT: Final = 0.01
# What has been so for ten minutes without being a surge is usual.
_NEAR_TAU_S: Final = 600.0
# Until a node was seen without a surge for so long, what is usual is learned by this time constant, upwards in steps of
# at most so much, also in a surge.
_MET_S: Final = 30.0
_MET_TAU_S: Final = 20.0
_MET_CLIP: Final = 0.5
# A surge of so long may be the node's new work: it begins to become usual.
_LASTS_S: Final = 900.0
# How much of a day's difference at that hour is remembered: two days make it three quarters usual.
_DAY_SHARE: Final = 0.5
# The steep one's allowance, of `enter_per_core`; and its threshold, of the other's.
_STEEP: Final = 1.75
_STEEP_SHARE: Final = 0.6
# The third one's allowance, of `enter_per_core`, above what is usual without any job's minutes, and its time.
_LONG: Final = 0.9
_LONG_S: Final = 70.0
# A sample adds at most this part of a threshold.
_SAMPLE_SHARE: Final = 0.45
# How far samples are from usual in the mean, in tasks per core: beyond, thresholds grow with it, up to so many times.
_CALM: Final = 0.3
_NOISIEST: Final = 2.5
# The more tasks there usually are, the more their number varies, also before it was seen to today.
_BUSY_LEAST: Final = 0.6
_BUSY: Final = 0.9
# Of what thresholds grow by with noise, so much is the small allowance's too: a count that varies stays up for a while.
_NOISE_ALLOWED: Final = 0.3
# What is learned of bursts moves the small allowance within these, of `enter_per_core`, and so much above them. It
# begins at the most.
_LEAST: Final = 0.9
_MOST: Final = 1.1
_MARGIN: Final = 0.2
# Bursts are seen as their mean over about so long, and remembered for about so many hours.
_BURST_S: Final = 12.0
_BURST_KEPT: Final = 0.9
# What lasts longer, with its end, is no burst, and nothing to get used to so soon.
_SHORT_S: Final = 125.0


class Surge:
    """`level`, `usual`: tasks per core. `began`: since when there is evidence; None: there is none."""

    __slots__ = (
        "_burst", "_day", "_due", "_habit", "_hour", "_hour_s", "_hour_sum", "_hovers_s", "_long", "_minute",
        "_minute_s", "_minute_sum", "_minutes", "_near", "_noise", "_peak", "_seen_s", "_slow", "_steep", "_today",
        "active", "began", "level", "recent", "rest", "usual",
    )  # fmt: skip

    def __init__(self, settings: Load, usual: float) -> None:
        """`usual`: a first guess."""
        self.active = False
        self.level = self.usual = self.recent = min(usual, _GUESS_MOST)
        self.began: float | None = None
        self.rest = Hysteresis(settings.exit_for_s, settings.exit_for_s)
        self._slow = self._steep = self._long = 0.0
        # learned: what was usual at each hour of the day, in fractions of _DAY_UNIT; and the highest bursts of late
        self._day = array("B", [_UNKNOWN] * _HOURS)
        self._habit = _MOST * settings.enter_per_core
        self._burst = self._peak = self._noise = 0.0
        self._hour = -1
        self._today = 0.0
        self._near = self.usual
        # for how long it was seen without a surge, an hour at most; and for how long a surge only hovers
        self._seen_s = self._hovers_s = 0.0
        self._hour_sum = self._hour_s = 0.0
        # in fractions of _MINUTE_UNIT
        self._minutes = array("B", [0] * _MINUTES)
        self._minute = -1
        self._minute_sum = self._minute_s = self._due = 0.0

    def reconfigure(self, settings: Load) -> None:
        """Other thresholds from now on; what was learned stays, as far as they let it."""
        self.rest.enter_s = self.rest.leave_s = settings.exit_for_s
        self._habit = _within(self._habit, settings.enter_per_core)

    def forget(self) -> None:
        """Drop the evidence: the samples had a gap. What is usual stays."""
        self._slow = self._steep = self._long = self._burst = 0.0
        self.began = None
        self.rest.forget()

    def update(
        self,
        settings: Load,
        level: float,
        step: float,
        now: float,
        *,
        moment: float = 0.0,
        before: float = _GUESS_MOST,
        ripe: bool = True,
    ) -> bool:
        """Take a sample that stands for the last `step` seconds; `moment`: what it was at their end, if it is known
        apart, which tells a steep one sooner; `before`: how much of it is not new, by somebody who saw what was before
        us; `ripe`: whether evidence may become a surge."""
        self.level = level
        if self._seen_s < _MET_S and ripe:
            self._meet(min(level, before, _GUESS_MOST), step)
        minute = int(now // _MINUTE_S) % _MINUTES
        if minute != self._minute:
            self._turn(minute, now, settings)
        base = self._today
        if base < self.recent:
            base = self.recent
        around = base if base > self._near else self._near
        usual = around + self._due
        self.usual = usual = usual if usual < _USUAL_MOST else _USUAL_MOST
        above = level - usual
        if not self.active or (self.began is not None and now - self.began > _LASTS_S):
            pull = level - self.recent
            pull = _CLIP if pull > _CLIP else -_CLIP if pull < -_CLIP else pull
            tau = min(max(self._seen_s, _NEAR_TAU_S), _USUAL_TAU_S)
            self.recent = min(self.recent + pull * min(step / tau, 1.0), _USUAL_MOST)
            most = usual + _CLIP
            self._hour_sum += step * (level if level < most else most)
            self._hour_s += step
            # What is more in this minute than in those around it, or than usual.
            more = level - around
            self._minute_sum += step * (more if more < _MINUTE_CLIP else _MINUTE_CLIP)
            self._minute_s += step
        self._burst += (above - self._burst) * min(step / _BURST_S, 1.0)
        if not self.active:
            if self._seen_s < _USUAL_TAU_S and ripe:
                self._seen_s += step
            self._near += (level - self._near) * min(step / _NEAR_TAU_S, 1.0)
            if self._burst > self._peak:
                self._peak = self._burst
            away = above if above > 0.0 else -above
            self._noise += ((away if away < _CLIP else _CLIP) - self._noise) * min(step / _USUAL_TAU_S, 1.0)
        noisy = max(1.0, min(max(self._noise / _CALM, _BUSY_LEAST + _BUSY * usual), _NOISIEST))
        if self.active:
            return self._ends(settings, above, noisy, step, now)
        enter, for_s = settings.enter_per_core, settings.enter_for_s
        allowed = self._habit * (1.0 + _NOISE_ALLOWED * (noisy - 1.0))
        enough = allowed * for_s * noisy
        more, most = (above - allowed) * step, _SAMPLE_SHARE * enough
        slow = self._slow = max(0.0, self._slow + (most if more > most else more))
        steep_enough = _STEEP_SHARE * enter * for_s * noisy
        steepest = (moment if moment > level else level) - usual
        more, most = (steepest - _STEEP * enter) * step, _SAMPLE_SHARE * steep_enough
        steep = self._steep = max(0.0, self._steep + (most if more > most else more))
        # What is neither steep nor, by what was learned, unexpected, and does not end.
        long_enough = _LONG * enter * _LONG_S * noisy
        more = level - base - _LONG * enter
        long = self._long = max(0.0, self._long + (more if more < _CLIP else _CLIP) * step)
        if slow == 0.0 and steep == 0.0 and long == 0.0:
            self.began = None
            return False
        if self.began is None:
            self.began = now - step
        if slow >= enough or steep >= steep_enough or long >= long_enough:
            if ripe:
                self.active = True
                self._hovers_s = 0.0
                self.rest = Hysteresis(settings.exit_for_s, settings.exit_for_s)
            else:
                self._slow = min(slow, enough)
                self._steep = min(steep, steep_enough)
                self._long = min(long, long_enough)
        return self.active

    def _meet(self, level: float, step: float) -> None:
        """Nothing is known of it yet but what is there."""
        if self._seen_s == 0.0:
            self._near = max(self._near, level)
        # What is less than was thought counts at once, what is more may be a surge.
        pull = min(level - self._near, _MET_CLIP)
        self.recent = self._near = self._near + pull * min(step / _MET_TAU_S, 1.0)

    def _ends(self, settings: Load, above: float, noisy: float, step: float, now: float) -> bool:
        grown = 1.0 + _NOISE_ALLOWED * (noisy - 1.0)
        most = settings.exit_per_core * grown
        # Hysteresis that is not active yet: its condition is rest.
        rests = self.rest.update(above <= most, above > most, now)
        self._hovers_s = max(0.0, self._hovers_s + (step if above <= self._habit * grown else -step))
        hovers = self._hovers_s >= (settings.exit_for_s if self._seen_s < _MET_S else _NEAR_TAU_S)
        if rests or hovers:
            self.active = False
            if not rests:
                self._near = max(self._near, self.usual + self._burst)
            began, self.began = self.began, None
            if began is None or now - began > _SHORT_S:
                # That was no burst of its own.
                self._peak = 0.0
            else:
                self._expect(began, now - settings.exit_for_s)
            self.forget()
        return self.active

    def _turn(self, minute: int, now: float, settings: Load) -> None:
        """A minute is over: what it was like is remembered for the next hour's; and an hour, for tomorrow's."""
        minutes, before = self._minutes, self._minute
        # A job comes some seconds sooner or later, and takes longer or not. What is so in this hour is not known yet.
        # The most of what only varies is no job.
        due = _MINUTE_UNIT * max(minutes[minute - 1], minutes[minute], minutes[(minute + 1) % _MINUTES])
        self._due = max(0.0, due - self._noise)
        if before >= 0 and self._minute_s > 0.0:
            was = self._minute_sum / self._minute_s
            if not self.active:
                more = max(was, 0.0) / _MINUTE_UNIT - minutes[before]
                minutes[before] = round(minutes[before] + (_MINUTE_UP if more > 0.0 else _MINUTE_DOWN) * more)
        self._minute = minute
        self._minute_sum = self._minute_s = 0.0
        hour = int(now // _HOUR_S) % _HOURS
        if hour == self._hour:
            return
        if self._hour >= 0 and self._hour_s > 0.0:
            self._remember(self._hour_sum / self._hour_s)
        if self._hour >= 0 and not self.active:
            enter, learned = settings.enter_per_core, self._habit - _MARGIN
            learned = self._peak if self._peak > learned else learned + (1.0 - _BURST_KEPT) * (self._peak - learned)
            self._habit = _within(learned + _MARGIN, enter)
            self._peak = 0.0
        self._hour = hour
        # Work begins within an hour, not with it.
        soon = (self._day[hour], self._day[(hour + 1) % _HOURS])
        self._today = max(0.0 if known == _UNKNOWN else known * _DAY_UNIT for known in soon)
        self._hour_sum = self._hour_s = 0.0

    def _expect(self, began: float, ended: float) -> None:
        """A burst was told of as a surge: it may come again at its minutes."""
        height = round(min(self._peak, _MINUTE_CLIP) / _MINUTE_UNIT)
        for minute in range(int(began // _MINUTE_S), int(ended // _MINUTE_S) + 1):
            known = self._minutes[minute % _MINUTES]
            self._minutes[minute % _MINUTES] = round(known + _MINUTE_UP * max(0, height - known))

    def _remember(self, was: float) -> None:
        """`was`: what the hour was in the mean."""
        known = self._day[self._hour]
        before = self.recent if known == _UNKNOWN else known * _DAY_UNIT
        change = 0.0 if known == _UNKNOWN else was - before
        now = before + _DAY_SHARE * max(-_CLIP, min(_CLIP, change))
        self._day[self._hour] = round(max(0.0, min(now, _USUAL_MOST)) / _DAY_UNIT)


def _within(allowance: float, enter: float) -> float:
    return min(max(allowance, _LEAST * enter), _MOST * enter)
