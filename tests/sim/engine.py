"""Virtual time: one queue of events, and processes that crash, freeze and start again, each with a clock of its own."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

Call = Callable[..., None]

# Some fifty times what a schedule has.
_MOST_EVENTS: Final = 300_000


class Mortal(Protocol):
    def crash(self) -> None: ...


class Died(BaseException):
    """The program ends here, in the middle of what it does."""

    def __init__(self, victim: Mortal) -> None:
        super().__init__()
        self.victim = victim


class Engine:
    """Runs events in order of their time; equal times in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        # called after every event
        self.after_each: Callable[[], None] = lambda: None
        self.events = 0
        self._queue: list[tuple[float, int, Call, tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, call: Call, *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, call, args))

    def after(self, seconds: float, call: Call, *args: Any) -> None:
        self.at(self.now + seconds, call, *args)

    def run(self, until: float, over: Callable[[], bool] = lambda: False) -> None:
        """Up to `until`, or until `over` says so."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, call, args = heapq.heappop(queue)
            try:
                call(*args)
            except Died as death:
                death.victim.crash()
            self.events += 1
            if self.events > _MOST_EVENTS:
                raise RuntimeError(f"{self.events} events in {self.now:.0f} s: something turns in circles")
            self.after_each()
            if over():
                return
        self.now = until


class Fuse:
    """Ends a program after so many more steps; None: not at all."""

    def __init__(self, victim: Mortal) -> None:
        self.left: int | None = None
        self._victim = victim

    def step(self) -> None:
        if self.left is not None:
            if self.left == 0:
                self.left = None
                raise Died(self._victim)
            self.left -= 1


class Process:
    """One program on one machine. What is meant for it while it is frozen waits; what was meant for an earlier life of
    it is forgotten."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.running = False
        self.frozen = False
        self._life = 0
        # when the last of its lives but the first began
        self.began_again = -inf
        # our monotonic clock minus the engine's: another one after every reboot, and it says nothing of the others'
        self.clock_offset = 0.0
        self._waiting: list[tuple[Call, tuple[Any, ...]]] = []

    @property
    def awake(self) -> bool:
        return self.running and not self.frozen

    @property
    def now(self) -> float:
        """This process's monotonic clock."""
        return self.engine.now + self.clock_offset

    def begin(self) -> None:
        self.running, self.frozen = True, False
        if self._life:
            self.began_again = self.engine.now
        self._life += 1
        self._waiting.clear()

    def end(self) -> None:
        self.running = self.frozen = False
        self._life += 1
        self._waiting.clear()

    def after(self, seconds: float, call: Call, *args: Any) -> None:
        """A timer, or a message on its way to us."""
        self.engine.after(seconds, self._arrive, self._life, call, args)

    def at_once(self, call: Call, *args: Any) -> None:
        """Now, or when we are thawed."""
        self._arrive(self._life, call, args)

    def _arrive(self, life: int, call: Call, args: tuple[Any, ...]) -> None:
        if life != self._life or not self.running:
            return
        if self.frozen:
            self._waiting.append((call, args))
        else:
            call(*args)

    def freeze(self) -> None:
        self.frozen = self.running

    def thaw(self) -> None:
        """Everything that came due in the meantime happens now, in its order."""
        if not self.frozen:
            return
        self.frozen = False
        life = self._life
        waiting, self._waiting = self._waiting, []
        for call, args in waiting:
            self._arrive(life, call, args)
