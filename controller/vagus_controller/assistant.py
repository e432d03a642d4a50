"""Keeps what the broker retains for Home Assistant as it should be: what is missing is published, the rest removed.

The broker is the only memory: it delivers what it retains of ours, also from before a restart, from another controller
that led, and from a time when this was switched on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from vagus_controller.config import HomeAssistant
from vagus_controller.core import assistant
from vagus_controller.views import FleetView

log = logging.getLogger("vagus.assistant")

# At once, so that nothing else has to wait; the rest follows in the next round.
_MOST: Final = 200


class Assistant:
    def __init__(self, fleet: str, settings: HomeAssistant, publish: Callable[[str, bytes], bool]) -> None:
        """`publish`: retained; False when it could not."""
        self.subscriptions = assistant.filters(fleet, settings.prefix)
        self._fleet = fleet
        self._settings = settings
        self._publish = publish
        self._heard: dict[str, bytes] = {}
        # of the last round; and whether the broker lets nothing of it through
        self._told: dict[str, bytes] = {}
        self._refused = False

    @property
    def idle(self) -> bool:
        """Switched off with nothing left to remove, or not let in until the next session."""
        return self._refused or not (self._settings.enabled or self._heard)

    def new_session(self) -> None:
        """The broker delivers anew what it retains."""
        self._heard, self._told, self._refused = {}, {}, False

    def take(self, topic: str, payload: bytes) -> bool:
        """Whether the message is one of ours; also our own come back."""
        if not assistant.owns(self._fleet, self._settings.prefix, topic):
            return False
        if payload:
            self._heard[topic] = payload
        else:
            self._heard.pop(topic, None)
        return True

    def keep(self, view: FleetView) -> None:
        """To be called now and then by the controller that leads, once all that is retained was heard."""
        wanted = assistant.retained(view, self._settings.prefix) if self._settings.enabled else {}
        news = [(topic, b"") for topic in self._heard.keys() - wanted.keys()]
        news += [(topic, payload) for topic, payload in wanted.items() if self._heard.get(topic) != payload]
        told = dict(news[:_MOST])
        if told and told == self._told:
            self._refused = True
            log.warning(
                "Home Assistant: the broker lets nothing through; let this controller read and write %s/# in its ACL",
                self._settings.prefix,
            )
            return
        self._told = told
        for topic, payload in told.items():
            if not self._publish(topic, payload):
                return
