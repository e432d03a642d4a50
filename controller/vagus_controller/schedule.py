"""When drills are due: a cron expression in UTC. The wall clock alone decides, so this is no part of the core."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cronsim import CronSim, CronSimError

from vagus_controller.core.windows import Windows

# One that was due while the clock jumped, or while nobody looked, is not made up for later than this.
_LATE_S: Final = 60.0
_FIELDS: Final = 5


class Schedule:
    """When drills are due, by a cron expression in UTC."""

    def __init__(self, expression: str) -> None:
        """Raises ValueError, in words."""
        if len(expression.split()) != _FIELDS:
            # A sixth would be seconds.
            raise ValueError(f"it has {_FIELDS} fields")
        try:
            CronSim(expression, datetime(2025, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(str(error)) from None
        self._expression = expression
        self._next: float | None = None
        self._last = 0.0

    def due(self, wall: float) -> bool:
        """Whether one is due now; each is due once. `wall`: epoch seconds; may jump, and may never have been set."""
        if not Windows.knows(wall):
            return False
        jumped_back = wall < self._last - _LATE_S
        self._last = wall
        if self._next is not None and wall < self._next and not jumped_back:
            return False
        due = self._next is not None and not jumped_back and wall - self._next < _LATE_S
        try:
            self._next = next(CronSim(self._expression, datetime.fromtimestamp(wall, UTC))).timestamp()
        except StopIteration:
            # A day that does not exist, such as the 30th of February.
            self._next = float("inf")
        return due
