"""The whole picture that everybody who watches has, encoded: each part once, when it is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from vagus_controller.views import FleetChange, FleetView, NodeView, Pair, PairView

_encode = msgspec.json.Encoder().encode
# The last field of a part, which says how old it is: it was drawn just now.
_JUST_DRAWN: Final = b"0.0}"
# Younger than this is as good as just drawn: no change is told sooner after another.
_YOUNG_S: Final = 0.25


class _Part(NamedTuple):
    encoded: bytes
    at: float


class Album:
    def __init__(self) -> None:
        self._nodes: dict[str, _Part] = {}
        self._pairs: dict[str, _Part] = {}

    def take(self, change: FleetChange, now: float) -> FleetChange:
        """Everybody is told the change; what it consists of is encoded from here on."""
        for name in change.gone_nodes:
            self._nodes.pop(name, None)
        for name in change.gone_pairs:
            self._pairs.pop(name, None)
        return replace(change, nodes=_keep(self._nodes, change.nodes, now), pairs=_keep(self._pairs, change.pairs, now))

    def whole(self, head: FleetView, names: Iterable[str], pairs: Iterable[Pair], now: float) -> FleetView:
        """All of these were told."""
        return replace(
            head,
            nodes=tuple(_aged(self._nodes[name], now) for name in names),
            pairs=tuple(_aged(self._pairs["--".join(pair)], now) for pair in pairs),
        )


def _keep(parts: dict[str, _Part], told: Iterable[NodeView | PairView], now: float) -> Any:
    """The same, encoded."""
    found = []
    for view in told:
        part = parts[view.name] = _Part(_encode(view), now)
        found.append(msgspec.Raw(part.encoded))
    return tuple(found)


def _aged(part: _Part, now: float) -> Any:
    assert part.encoded.endswith(_JUST_DRAWN)
    if now - part.at < _YOUNG_S:
        return msgspec.Raw(part.encoded)
    return msgspec.Raw(b"%b%.3f}" % (part.encoded[: -len(_JUST_DRAWN)], now - part.at))
