"""Flap damping: a path that comes and goes costs a pair penalties, and a pair with many of them stays where it is.

The idea is RFC 2439's: every move of a pair adds a penalty, and so does every death of the first path while the pair
is away from it and on the way home. The penalty halves with every half-life. Above `suppress` the pair is damped, until
the penalty has fallen below `reuse`; it is capped so that this takes `longest_s` at most.

Only moves that can as well wait are damped: going home, and, while etcd has quorum, leaving a path that is not dead.

The hold before failback has a longer memory: a failback that is followed by a failover within `longest_hold_s` doubles
the next hold, up to that; one that lasts longer makes it what is configured.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

from vagus_controller import config
from vagus_controller.core.fleet import Pair
from vagus_controller.core.verdict import seconds

# The scale of routers (RFC 7196): a withdrawal costs 1000, a lesser change 500.
MOVE_PENALTY: Final = 1000.0
DEATH_PENALTY: Final = 500.0
# Below it a penalty is forgotten.
_NOTHING: Final = 1.0
# A hold of none has nothing to double.
_LEAST_DOUBLED_S: Final = 1.0
# 2 to this is beyond what any setting needs, and no overflow.
_MOST_DOUBLINGS: Final = 60.0


class Damped(Struct, frozen=True, kw_only=True):
    """A pair's memory at one moment: what is saved. `home_s`: seconds since it went home by itself, None when away."""

    penalty: float = 0.0
    suppressed: bool = False
    doublings: int = 0
    home_s: float | None = None


class _Memory:
    __slots__ = ("at", "doublings", "home_at", "penalty", "suppressed")

    def __init__(self, now: float) -> None:
        # as it was at `at`
        self.penalty = 0.0
        self.at = now
        self.suppressed = False
        self.doublings = 0
        self.home_at: float | None = None


class Damping:
    def __init__(self, settings: config.Damping, failback_hold_s: float) -> None:
        self._memories: dict[Pair, _Memory] = {}
        self.reconfigure(settings, failback_hold_s)

    def reconfigure(self, settings: config.Damping, failback_hold_s: float) -> None:
        """Other settings from now on; penalties stay."""
        self._settings = settings
        self._hold_s = failback_hold_s
        self._ceiling = ceiling(settings)

    def moved(self, pair: Pair, now: float, *, home: bool) -> None:
        """The pair moves by itself; `home`: to its first path."""
        memory = self._charge(pair, MOVE_PENALTY, now)
        if home:
            memory.home_at = now
        elif memory.home_at is not None:
            lasted = now - memory.home_at
            memory.doublings = memory.doublings + 1 if lasted < self._settings.longest_hold_s else 0
            memory.home_at = None

    def came_back(self, pair: Pair) -> None:
        """The pair's way home was taken back: it did not arrive."""
        memory = self._memories.get(pair)
        if memory is not None:
            memory.home_at = None

    def died(self, pair: Pair, now: float) -> None:
        """The first path, which the pair was waiting to go home to, is dead again."""
        self._charge(pair, DEATH_PENALTY, now)

    def penalty(self, pair: Pair, now: float) -> float:
        memory = self._memories.get(pair)
        return 0.0 if memory is None else self._decayed(memory, now)

    def reusable_in(self, pair: Pair, now: float) -> float:
        """Seconds until the pair is damped no more; 0 when it is not."""
        memory = self._memories.get(pair)
        if memory is None or not memory.suppressed:
            return 0.0
        penalty, reuse = self._decayed(memory, now), self._settings.reuse
        return self._settings.half_life_s * math.log2(penalty / reuse) if penalty > reuse else 0.0

    def hold_s(self, pair: Pair) -> float:
        """Seconds that the way home must have been good before the pair goes home."""
        memory = self._memories.get(pair)
        if memory is None or not memory.doublings:
            return self._hold_s
        doubled = max(self._hold_s, _LEAST_DOUBLED_S) * math.exp2(min(memory.doublings, _MOST_DOUBLINGS))
        return max(min(doubled, self._settings.longest_hold_s), self._hold_s)

    def words(self, pair: Pair, now: float) -> str:
        """How the pair stands with it, as a sentence."""
        penalty = self.penalty(pair, now)
        left = self.reusable_in(pair, now)
        figures = f"a penalty of {penalty:.0f} for moves and deaths of its first path"
        if left:
            return f"damped: {figures}; it moves again in {seconds(left)}, below {self._settings.reuse:.0f}"
        return f"{figures}, damped above {self._settings.suppress:.0f}" if penalty >= _NOTHING else "no penalty"

    def snapshot(self, now: float) -> dict[Pair, Damped]:
        """What a restart must not forget, as durations."""
        for pair in [pair for pair, memory in self._memories.items() if self._is_over(memory, now)]:
            del self._memories[pair]
        return {
            pair: Damped(
                penalty=self._decayed(memory, now),
                suppressed=memory.suppressed,
                doublings=memory.doublings,
                home_s=now - memory.home_at if memory.home_at is not None else None,
            )
            for pair, memory in self._memories.items()
        }

    def restore(self, damped: dict[Pair, Damped], now: float) -> None:
        """Time that passed while nobody looked does not count: nobody knows what the links did then."""
        for pair, each in damped.items():
            memory = self._memories[pair] = _Memory(now)
            memory.penalty = min(max(each.penalty, 0.0), self._ceiling)
            memory.suppressed = each.suppressed
            memory.doublings = max(each.doublings, 0)
            memory.home_at = now - each.home_s if each.home_s is not None else None

    def _charge(self, pair: Pair, penalty: float, now: float) -> _Memory:
        memory = self._memories.get(pair)
        if memory is None:
            memory = self._memories[pair] = _Memory(now)
        before = self._decayed(memory, now)
        memory.penalty = min(before + penalty, self._ceiling)
        memory.at = now
        memory.suppressed = (memory.suppressed and before > self._settings.reuse) or (
            memory.penalty > self._settings.suppress
        )
        return memory

    def _decayed(self, memory: _Memory, now: float) -> float:
        return memory.penalty * math.exp2(-(now - memory.at) / self._settings.half_life_s)

    def _is_over(self, memory: _Memory, now: float) -> bool:
        if self._decayed(memory, now) >= _NOTHING:
            return False
        # While it is away, the hold that it earned still counts; at home, only as long as a failover would double it.
        if memory.home_at is None:
            return not memory.doublings
        return now - memory.home_at >= self._settings.longest_hold_s


def ceiling(settings: config.Damping) -> float:
    """The penalty from which `longest_s` of decay leads down to `reuse`."""
    return settings.reuse * math.exp2(min(settings.longest_s / settings.half_life_s, _MOST_DOUBLINGS))
