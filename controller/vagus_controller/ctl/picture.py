"""The fleet as `vagusctl watch` knows it: what the stream told, folded into one picture. Pure; time is monotonic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller.views import ABOUT_PERSONS, EventEntry, FleetChange, FleetView, LedgerEntry

Entry = EventEntry | LedgerEntry

_MOST_ENTRIES: Final = 200


class Picture(Struct, frozen=True, kw_only=True):
    """`heard_at`: when the controller last said anything. `trouble`: why it cannot be heard, "" while it can."""

    fleet: FleetView | None = None
    # Since when each part of the fleet is as it is here: its ages count from then.
    head_at: float = 0.0
    nodes_at: Mapping[str, float] = {}
    pairs_at: Mapping[str, float] = {}
    # newest first
    entries: tuple[Entry, ...] = ()
    heard_at: float = 0.0
    trouble: str = ""


def heard(picture: Picture, told: FleetView | FleetChange | Entry | None, now: float) -> Picture:
    """With one more message; None: one that says nothing but that the controller is there."""
    picture = replace(picture, heard_at=now, trouble="")
    match told:
        case FleetView():
            return _shown(picture, told, told, now)
        case FleetChange() if picture.fleet is not None:
            return _shown(picture, changed(picture.fleet, told), told, now)
        case EventEntry() | LedgerEntry():
            return with_entries(picture, (told,))
    return picture


def with_entries(picture: Picture, entries: Iterable[Entry]) -> Picture:
    fresh = [each for each in entries if not (isinstance(each, LedgerEntry) and each.action in ABOUT_PERSONS)]
    newest_first = sorted((*fresh, *picture.entries), key=attrgetter("at"), reverse=True)
    return replace(picture, entries=tuple(newest_first[:_MOST_ENTRIES]))


def changed(fleet: FleetView, change: FleetChange) -> FleetView:
    """What the fleet is after the change: the picture that the controller had when it told it."""
    nodes = {node.name: node for node in fleet.nodes} | {node.name: node for node in change.nodes}
    pairs = {pair.name: pair for pair in fleet.pairs} | {pair.name: pair for pair in change.pairs}
    for name in change.gone_nodes:
        nodes.pop(name, None)
    for name in change.gone_pairs:
        pairs.pop(name, None)
    return replace(
        change.head,
        nodes=tuple(sorted(nodes.values(), key=attrgetter("name"))),
        pairs=tuple(sorted(pairs.values(), key=attrgetter("nodes"))),
    )


def _shown(picture: Picture, fleet: FleetView, told: FleetView | FleetChange, now: float) -> Picture:
    fresh_nodes = {node.name: now - node.drawn_s for node in told.nodes}
    fresh_pairs = {pair.name: now - pair.drawn_s for pair in told.pairs}
    if isinstance(told, FleetChange):
        fresh_nodes = {**picture.nodes_at, **fresh_nodes}
        fresh_pairs = {**picture.pairs_at, **fresh_pairs}
    return replace(picture, fleet=fleet, head_at=now, nodes_at=fresh_nodes, pairs_at=fresh_pairs)
