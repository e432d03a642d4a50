"""Events that wait for a broker: bounded, oldest dropped first and counted, sent in order, again when unconfirmed."""

from __future__ import annotations

from collections import deque

import msgspec

from vagus_protocol.messages import Event


class Backlog:
    """Events on their way. `peek`, then `sent` under its message number, which `acked` or `requeue` settles.

    At most `limit` wait and `window` are unconfirmed at a time; `now` is monotonic seconds.
    """

    def __init__(self, limit: int, window: int = 16) -> None:
        # window: below mosquitto's max_inflight_messages (20), which presence and observed share.
        self.dropped = 0
        self._limit = max(limit, 1)
        self._window = window
        self._waiting: deque[tuple[float, Event]] = deque()
        self._flying: dict[int, tuple[float, Event]] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    def add(self, now: float, event: Event) -> None:
        self._waiting.append((now, event))
        self._trim()

    def peek(self, now: float) -> Event | None:
        """The next event to send, with its age; None when there is none or enough are unconfirmed."""
        if not self._waiting or len(self._flying) >= self._window:
            return None
        since, event = self._waiting[0]
        return msgspec.structs.replace(event, age_s=round(event.age_s + max(now - since, 0.0), 3))

    def sent(self, number: int) -> None:
        """What `peek` gave went out as message `number`."""
        self._flying[number] = self._waiting.popleft()

    def flying(self, number: int) -> bool:
        """Whether message `number` is an unconfirmed event."""
        return number in self._flying

    def acked(self, number: int) -> None:
        """The broker has message `number`; numbers of other messages are ignored."""
        self._flying.pop(number, None)

    def requeue(self) -> None:
        """The session is gone, or nobody listens: what was not confirmed goes again, before the rest."""
        self._waiting.extendleft(reversed(self._flying.values()))
        self._flying.clear()
        self._trim()

    def oldest_s(self, now: float) -> float:
        """Age of the oldest event that waits, 0 when none does."""
        return max(now - self._waiting[0][0], 0.0) if self._waiting else 0.0

    def _trim(self) -> None:
        while len(self._waiting) > self._limit:
            self._waiting.popleft()
            self.dropped += 1
