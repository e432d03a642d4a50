"""Pauses: while one covers a node, nothing moves there by itself. Each has a reason, an author and an end."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from vagus_controller.core.fleet import Fleet
from vagus_controller.core.verdict import seconds
from vagus_controller.views import PauseView, Refused

Scope = Literal["fleet", "site", "node"]
_SHORTEST_S: Final = 1.0
_LONGEST_S: Final = 30 * 86400.0
_MOST: Final = 200


class Pause(msgspec.Struct, frozen=True):
    """`until`: monotonic; on disk the seconds that were left, since a restart may follow a jump of the wall clock."""

    id: int
    scope: Scope
    target: str
    reason: str
    who: str
    until: float

    @property
    def covers(self) -> str:
        """What it covers, in words."""
        return "the fleet" if self.scope == "fleet" else f"{self.scope} {self.target}"

    def view(self, now: float) -> PauseView:
        return PauseView(
            id=self.id,
            scope=self.scope,
            target=self.target,
            reason=self.reason,
            who=self.who,
            expires_s=max(self.until - now, 0.0),
        )


class Pauses:
    def __init__(self) -> None:
        self.standing: list[Pause] = []
        self._last_id = 0

    def add(self, fleet: Fleet, scope: str, target: str, reason: str, who: str, for_s: float, now: float) -> Pause:
        """Raises KeyError for an unknown node or site, Refused for what makes no sense."""
        if scope not in get_args(Scope):
            raise Refused(f"{scope!r} is no scope; a pause covers the fleet, a site or a node")
        if scope == "fleet" and target:
            raise Refused(f"a pause of the fleet covers everything: leave {target!r} out, or pause that site or node")
        if scope != "fleet" and not target:
            raise Refused(f"which {scope}? A pause of a {scope} needs its name")
        if scope == "node" and target not in fleet.nodes:
            raise KeyError(target)
        if scope == "site" and target not in {state.site for state in fleet.nodes.values()}:
            raise KeyError(target)
        if not _SHORTEST_S <= for_s <= _LONGEST_S:
            raise Refused(f"a pause lasts {_SHORTEST_S:.0f} s to 30 days: nobody remembers a longer one")
        for known in self.standing:
            if (known.scope, known.target) == (scope, target) and known.until >= now + for_s:
                raise Refused(
                    f"pause {known.id} by {known.who} covers {known.covers} for {seconds(known.until - now)} already: "
                    "end that one first, if it shall be shorter"
                )
        if len(self.standing) >= _MOST:
            raise Refused(f"{_MOST} pauses stand already: end some, or pause their site or the fleet instead")
        self._last_id += 1
        pause = Pause(self._last_id, scope, target, reason, who, now + for_s)  # type: ignore[arg-type]
        self.standing.append(pause)
        return pause

    def end(self, pause_id: int) -> Pause:
        """Raises KeyError when there is no such pause."""
        for pause in self.standing:
            if pause.id == pause_id:
                self.standing.remove(pause)
                return pause
        raise KeyError(str(pause_id))

    def expire(self, now: float) -> list[Pause]:
        over = [pause for pause in self.standing if pause.until <= now]
        self.standing = [pause for pause in self.standing if pause.until > now]
        return over

    def on(self, fleet: Fleet, node: str) -> str:
        """The pause that covers `node`, in words; "" when none does."""
        state = fleet.nodes.get(node)
        for pause in self.standing:
            covered = {
                "fleet": True,
                "node": pause.target == node,
                "site": state is not None and state.site == pause.target,
            }
            if covered[pause.scope]:
                return f"{pause.covers} by {pause.who}: {pause.reason or 'no reason given'}"
        return ""

    def left(self, now: float) -> list[Pause]:
        """For the disk: `until` holds the seconds that are left."""
        return [msgspec.structs.replace(pause, until=pause.until - now) for pause in self.standing]

    def restore(self, left: list[Pause], now: float) -> None:
        self.standing = [msgspec.structs.replace(pause, until=now + pause.until) for pause in left]
        self._last_id = max((pause.id for pause in left), default=0)
