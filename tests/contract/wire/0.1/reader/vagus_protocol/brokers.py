"""Which broker next, when to give one up, what to say about it: the policy that agents and controllers share.

The bound it keeps: when the current broker goes silent (packets vanish, process frozen), a session with a working one
stands within 5 s, also when the next broker in the order is a black hole too. Worst case, in seconds:

    PING_AFTER_S 1.5  the last byte came just before the silence; then we ask
  + PING_WAIT_S  1.7  no answer                                         → 3.2: silent
  + SPREAD_S     0.3  so that a fleet does not arrive in one instant    → 3.5
  + CONNECT_S    1.2  the next broker in the order answers nothing either → 4.7
  + 0.3               connect and CONNACK of the one after it           → 5.0

It holds for numeric addresses; a name costs what the resolver takes. TLS on a broker that accepts and then freezes
costs up to CONNECT_S more. A hint that the path is down skips the first three lines.
"""

from __future__ import annotations

from typing import Final, Literal

PING_AFTER_S: Final = 1.5
# Three TCP retransmissions fit (0.2 + 0.4 + 0.8 s); shorter gives up healthy brokers on lossy links.
PING_WAIT_S: Final = 1.7
SPREAD_S: Final = 0.3
CONNECT_S: Final = 1.2
# Told to the broker, which publishes the last will after 1.5 times this. Longer than our own patience: a node that is
# slow for a few seconds is not gone. It bounds nothing of the above.
KEEPALIVE_S: Final = 5
# When no broker works: 0.5, 1, 2, 4, 5, 5 … seconds between rounds, half of it random.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_CAP_S: Final = 5.0
# A refusal (password, rights) heals only by a person: 15, 30, 60, 60 … seconds, half of it random.
REFUSED_FIRST_S: Final = 15.0
REFUSED_CAP_S: Final = 60.0
# A session that lived less than this was no success: backoff goes on where it was.
STABLE_S: Final = 10.0
# Between attempts to go back to an earlier broker; doubles while they fail.
RETURN_S: Final = 60.0
RETURN_CAP_S: Final = 600.0


class Rotation:
    """Chooses among `count` brokers, in their order. `now`: monotonic seconds; `roll`: a fresh random number in 0..1.

    A round tries every broker once; after a stable session on broker i the round is i+1 … i, otherwise 0 … count-1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("at least one broker is needed")
        self.current: int | None = None
        self._count = count
        self._round = list(range(count))
        self._not_before = 0.0
        self._failed_rounds = 0
        self._refusals = [0] * count
        self._blocked_until = [0.0] * count
        self._since = 0.0
        self._returned = False
        self._return_wait_s = RETURN_S
        self._return_at = 0.0
        self._return_to = 0

    def next(self, now: float) -> tuple[int, float]:
        """The broker to try, and how many seconds to wait first."""
        start = max(now, self._not_before)
        if not self._round:
            self._round = [broker for broker in range(self._count) if self._blocked_until[broker] <= start]
        if not self._round:
            broker = min(range(self._count), key=self._blocked_until.__getitem__)
            return broker, self._blocked_until[broker] - now
        return self._round[0], start - now

    def connected(self, now: float, broker: int, roll: float) -> None:
        """A session with `broker` stands: the one that `next` named, or an earlier one that `earlier` named."""
        self._returned = self.current is not None
        self.current = broker
        self._since = now
        self._refusals[broker] = 0
        self._blocked_until[broker] = 0.0
        self._round = [other for other in self._round if other != broker]
        self._return_to = 0
        self._plan_return(now, roll)

    def failed(self, now: float, broker: int, roll: float, *, refused: bool = False) -> None:
        """`broker` did not become a session."""
        if refused:
            wait = min(REFUSED_FIRST_S * 2 ** min(self._refusals[broker], 8), REFUSED_CAP_S)
            self._refusals[broker] += 1
            self._blocked_until[broker] = now + wait * (0.5 + 0.5 * roll)
        self._round = [other for other in self._round if other != broker and self._blocked_until[other] <= now]
        self._not_before = now
        if not self._round:
            wait = min(BACKOFF_FIRST_S * 2 ** min(self._failed_rounds, 8), BACKOFF_CAP_S)
            self._failed_rounds += 1
            self._not_before = now + wait * (0.5 + 0.5 * roll)

    def lost(self, now: float, roll: float, *, hinted: bool = False) -> None:
        """The session ended. `hinted`: we left it because its path is down, so the next may be tried at once."""
        broker, lived = self.current, now - self._since
        if broker is None:
            return
        self.current = None
        if lived < STABLE_S:
            if self._returned:
                self._return_wait_s = min(self._return_wait_s * 2, RETURN_CAP_S)
            self.failed(now, broker, roll)
            return
        if lived >= RETURN_S:
            self._return_wait_s = RETURN_S
        self._failed_rounds = 0
        order = [(broker + step) % self._count for step in range(1, self._count + 1)]
        self._round = [other for other in order if self._blocked_until[other] <= now]
        self._not_before = now if hinted else now + SPREAD_S * roll

    def earlier(self, now: float) -> int | None:
        """An earlier broker that is worth a look now, while the current session goes on."""
        if self.current is None or self.current == 0 or now < self._return_at:
            return None
        return self._return_to

    def stayed(self, now: float, roll: float) -> None:
        """The earlier broker did not answer."""
        if self.current is None:
            return
        self._return_to += 1
        if self._return_to >= self.current:
            self._return_to = 0
            self._return_wait_s = min(self._return_wait_s * 2, RETURN_CAP_S)
        self._plan_return(now, roll)

    def _plan_return(self, now: float, roll: float) -> None:
        self._return_at = now + self._return_wait_s * (0.75 + 0.5 * roll)


class Silence:
    """Whether a session's broker still talks.

    Silence counts from our question, not from the last byte: a process that was itself not scheduled for seconds asks
    first, and blames the broker only when the question stays open.
    """

    def __init__(self, now: float) -> None:
        self._heard = now
        self._asked: float | None = None

    def heard(self, now: float) -> None:
        self._heard = now
        self._asked = None

    def check(self, now: float) -> Literal["ping", "silent"] | None:
        """What to do now: send a ping, give the session up, or nothing. To be called after reading what is there."""
        if self._asked is not None:
            return "silent" if now - self._asked >= PING_WAIT_S else None
        if now - self._heard >= PING_AFTER_S:
            self._asked = now
            return "ping"
        return None

    def deadline(self) -> float:
        """When `check` has its next answer."""
        return self._heard + PING_AFTER_S if self._asked is None else self._asked + PING_WAIT_S


class Said:
    """Rate limit for log lines: a line about `key` is due when its text is new or `every_s` have passed."""

    def __init__(self, every_s: float = 60.0) -> None:
        self._every_s = every_s
        self._last: dict[str, tuple[str, float]] = {}

    def due(self, now: float, key: str, text: str) -> bool:
        last = self._last.get(key)
        if last is not None and last[0] == text and now - last[1] < self._every_s:
            return False
        self._last[key] = (text, now)
        return True
