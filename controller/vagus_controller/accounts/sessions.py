"""What the controller notes of who is in: sessions, devices, when tokens were last used. `now` is the wall clock, since
all of it outlives a restart."""

from __future__ import annotations

from typing import Final, TypeVar

from msgspec import Struct

from vagus_controller.accounts.book import Origin, Role

# Beyond these the one that was used longest ago goes; of one user, so that nobody can push others out.
MAX_SESSIONS: Final = 2000
MAX_EACH: Final = 40
# A use is noted at most so often: it must not cost a write each.
NOTE_EVERY_S: Final = 60.0


class Session(Struct, kw_only=True):
    """Of a person of OpenID Connect, `role` is what the provider's word gave; of a user, it is looked up."""

    user: str
    origin: Origin
    # A user's `serial`, or the `[http.oidc]` that let the person in: when it changes, the session is over.
    under: str
    role: Role
    made_at: float
    used_at: float


class Device(Struct, kw_only=True):
    """A browser that signed in as `user` before: see `throttle`."""

    user: str
    used_at: float


class Notes(Struct, kw_only=True):
    """By digest of the secret that the browser holds; `used`: token id → when."""

    v: int = 1
    sessions: dict[str, Session] = {}
    devices: dict[str, Device] = {}
    used: dict[str, float] = {}


T = TypeVar("T", Session, Device)


class Sessions:
    def __init__(self, idle_s: float, longest_s: float, notes: Notes | None = None) -> None:
        self._idle_s = idle_s
        self._longest_s = longest_s
        self.notes = notes or Notes()
        # Something is not on disk yet.
        self.changed = False

    def begin(self, key: str, session: Session) -> None:
        self.notes.sessions[key] = session
        _bound(self.notes.sessions, MAX_SESSIONS, MAX_EACH, key)
        self.changed = True

    def find(self, key: str, now: float) -> Session | None:
        """The session, whose use is noted; None when there is none, or its time is over. A clock that went back ends
        nothing."""
        session = self.notes.sessions.get(key)
        if session is None:
            return None
        if self._is_over(session, now):
            self.end(key)
            return None
        if now - session.used_at >= NOTE_EVERY_S:
            session.used_at = now
            self.changed = True
        return session

    def end(self, key: str) -> Session | None:
        session = self.notes.sessions.pop(key, None)
        self.changed = self.changed or session is not None
        return session

    def end_expired(self, now: float) -> None:
        for key in [*self.notes.sessions]:
            if self._is_over(self.notes.sessions[key], now):
                self.end(key)

    def _is_over(self, session: Session, now: float) -> bool:
        return now - session.used_at > self._idle_s or now - session.made_at > self._longest_s

    def know_device(self, key: str, user: str, now: float) -> None:
        self.notes.devices[key] = Device(user=user, used_at=now)
        _bound(self.notes.devices, MAX_SESSIONS, MAX_EACH, key)
        self.changed = True

    def is_device_of(self, key: str, user: str) -> bool:
        device = self.notes.devices.get(key)
        return device is not None and device.user == user

    def token_used(self, token_id: str, now: float) -> None:
        if abs(now - self.notes.used.get(token_id, 0.0)) >= NOTE_EVERY_S:
            self.notes.used[token_id] = now
            self.changed = True

    def forget_tokens_but(self, known: set[str]) -> None:
        for token_id in self.notes.used.keys() - known:
            del self.notes.used[token_id]


def _bound(table: dict[str, T], most: int, most_each: int, key: str) -> None:
    """The user of the newest, `key`, makes room for it first, then all."""
    mine = [each for each in table if table[each].user == table[key].user]
    for keys, bound in ((mine, most_each), ([*table], most)):
        for _ in range(len(keys) - bound):
            oldest = min((each for each in keys if each in table), key=lambda each: table[each].used_at)
            table.pop(oldest)
