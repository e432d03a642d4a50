"""Pauses: while one covers a node, nothing moves there by itself. Each has a reason, an author and an end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

import msgspec

from vagus_controller.core.fleet import Fleet
from vagus_controller.core.verdict import seconds
from vagus_controller.views import PauseView, Refused
from vagus_protocol.messages import PauseOrder

Scope = Literal["fleet", "site", "node"]
_SHORTEST_S: Final = 1.0
_LONGEST_S: Final = 30 * 86400.0
_MOST: Final = 200
# Of a reason or a name, on disk and to other controllers.
_LONGEST_TEXT: Final = 1000


class Pause(msgspec.Struct, frozen=True):
    """`until`: monotonic; on disk and to other controllers go the seconds that are left, since wall clocks jump."""

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

    def on(self, fleet: Fleet, node: str) -> bool:
        """Whether it covers the node."""
        if self.scope == "site":
            state = fleet.nodes.get(node)
            return state is not None and state.site == self.target
        return self.scope == "fleet" or self.target == node

    def is_in(self, order: PauseOrder) -> bool:
        """Whether the order is of this pause."""
        return (self.scope, self.target, self.who) == (order.scope, order.target, order.who)

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
        for pause in self.standing:
            if pause.on(fleet, node):
                return f"{pause.covers} by {pause.who}: {pause.reason or 'no reason given'}"
        return ""

    def restore(self, orders: Iterable[PauseOrder], now: float) -> None:
        """Those of an earlier life, or of who leads, in the place of ours."""
        self.standing = [
            Pause(each.id, each.scope, each.target, each.reason, each.who, now + each.left_s) for each in orders
        ][:_MOST]
        self._last_id = max((pause.id for pause in self.standing), default=self._last_id)


def as_orders(pauses: Iterable[Pause], now: float) -> tuple[PauseOrder, ...]:
    return tuple(
        PauseOrder(
            id=pause.id,
            scope=pause.scope,
            left_s=max(pause.until - now, 0.0),
            target=pause.target,
            reason=pause.reason[:_LONGEST_TEXT],
            who=pause.who[:_LONGEST_TEXT],
        )
        for pause in pauses
    )
