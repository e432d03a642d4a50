"""The standing orders: pauses, and the plan or drill under way, for whoever leads next.

Model. Who leads retains one message, sealed with a key that only controllers have. Who owns the broker can keep it
back, or give a controller that never heard of it a real one that is over, but can make none. (epoch, generation) orders
them, of all controllers and of the disk: the newest counts. Each desired names the orders that it was told under, and
when something has ended a node is told anew: older ones are not the last word of who led last, and count for nothing.

They are said before what they speak of: a plan's next stage before its trials, and that it is stopped before its stage
goes back. So a controller that dies between two messages leaves a plan that can go on, or none.

A pause travels as what is left of it, and is said again every `REFRESH_S` while it stands: who comes new is wrong by as
much, and always to the longer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec.structs import replace

from vagus_controller.core.assignments import Term
from vagus_controller.core.pauses import Pause, as_orders
from vagus_protocol.codec import MAX_ORDERS, Rejected
from vagus_protocol.messages import DrillOrder, Orders, PlanOrder
from vagus_protocol.signing import open_orders, orders_key, seal_orders

REFRESH_S: Final = 30.0
_NEVER: Final = float("-inf")


class Standing(NamedTuple):
    """What there is to say."""

    pauses: tuple[Pause, ...] = ()
    plan: PlanOrder | None = None
    drill: DrillOrder | None = None

    def lacks(self, before: Standing) -> bool:
        """Whether something that stood before does not any more."""
        plan, drill = before.plan is not None and self.plan is None, before.drill is not None and self.drill is None
        return plan or drill or not {pause.id for pause in before.pauses} <= {pause.id for pause in self.pauses}


class Book:
    """The newest orders that we know of, said or heard. `ours`: said in this life of ours. `said`, `payload`: ours, as
    said last; b"" under this epoch before any."""

    def __init__(self, fleet: str, controller: str, session: str, fleet_key: bytes) -> None:
        self.term: Term = (0, 0)
        self.author = controller
        self.ours = False
        self.payload = b""
        self.fleet = fleet
        self.controller = controller
        self._session = session
        self._key = orders_key(fleet_key)
        self.said = Standing()
        self._said_at = _NEVER

    def orders(self, standing: Standing, now: float) -> Orders:
        """As they are kept on our own disk."""
        return self._orders(standing, self.term, self.author, now)

    def begin_epoch(self, epoch: int) -> None:
        """Whatever stands must be said under the new epoch."""
        self.term, self.author, self.ours = (epoch, 0), self.controller, True
        self.payload, self._said_at = b"", _NEVER

    def renew(self, standing: Standing, now: float) -> bytes | None:
        """What to publish; None: it has been said."""
        stale = bool(standing.pauses) and now - self._said_at >= REFRESH_S
        if self.payload and standing == self.said and not stale:
            return None
        self.term = (self.term[0], self.term[1] + 1)
        self.said, self._said_at = standing, now
        orders = self._orders(standing, self.term, self.controller, now)
        self.payload = seal_orders(orders, self._key)
        if len(self.payload) > MAX_ORDERS and orders.plan is not None:
            self.payload = seal_orders(replace(orders, plan=replace(orders.plan, steps=())), self._key)
        return self.payload

    def open(self, controller: str, payload: bytes) -> Orders | Rejected:
        """What `controller` said, when it is signed."""
        orders = open_orders(payload, self._key, self.fleet)
        if isinstance(orders, Orders) and orders.controller != controller:
            return Rejected(f"Orders: said by {orders.controller}, not by {controller}")
        return orders

    def is_newer(self, orders: Orders) -> bool:
        return (orders.epoch, orders.generation) > self.term

    def take(self, orders: Orders) -> None:
        """These are what we know."""
        self.term, self.author, self.ours = (orders.epoch, orders.generation), orders.controller, False

    def _orders(self, standing: Standing, term: Term, controller: str, now: float) -> Orders:
        return Orders(
            v=1,
            fleet=self.fleet,
            controller=controller,
            session=self._session,
            epoch=term[0],
            generation=term[1],
            pauses=as_orders(standing.pauses, now),
            plan=standing.plan,
            drill=standing.drill,
        )
