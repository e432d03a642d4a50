"""The picture that a stream begins with is what everybody was told, and says how long ago that was."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from browser import samples
from unit.test_watch_picture import fleets
from vagus_controller.api.album import Album
from vagus_controller.core.differences import Differences, Whole, lean
from vagus_controller.views import FleetChange, FleetView


def decoded(told: FleetView) -> FleetView:
    return msgspec.json.decode(msgspec.json.encode(told), type=FleetView)


def whole(album: Album, fleet: FleetView, now: float) -> FleetView:
    canvas = Whole(fleet)
    return decoded(album.whole(canvas.head, canvas.names, canvas.pairs, now))


@given(st.lists(fleets(), min_size=1, max_size=5))
def test_it_is_the_fleet_as_it_was_told(story: list[FleetView]) -> None:
    differences, album = Differences(), Album()
    now = 0.0
    for fleet in story:
        # Late enough that nothing waits; and what a look leaves out is the rest.
        now += 10.0
        for change in (differences.look(Whole(fleet), now), differences.rest(Whole(fleet), now, 10_000)):
            if change is not None:
                album.take(change, now)
    shown = whole(album, story[-1], now)
    young = replace(
        shown,
        nodes=tuple(replace(node, drawn_s=0.0) for node in shown.nodes),
        pairs=tuple(replace(pair, drawn_s=0.0) for pair in shown.pairs),
    )
    assert young == decoded(replace(story[-1], nodes=tuple(map(lean, story[-1].nodes))))


def test_each_part_says_how_old_it_is() -> None:
    calm, album = samples.calm(), Album()
    head = replace(calm, nodes=(), pairs=())
    album.take(FleetChange(head=head, nodes=calm.nodes, pairs=calm.pairs), 100.0)
    album.take(FleetChange(head=head, pairs=calm.pairs[:1]), 107.25)
    shown = whole(album, calm, 110.5)
    assert {node.drawn_s for node in shown.nodes} == {10.5}
    assert [pair.drawn_s for pair in shown.pairs] == [3.25, *[10.5] * (len(calm.pairs) - 1)]


def test_a_change_reads_the_same_encoded() -> None:
    bad = samples.bad_hour()
    change = FleetChange(head=replace(bad, nodes=(), pairs=()), nodes=bad.nodes, pairs=bad.pairs, gone_nodes=("x",))
    told = Album().take(change, 1.0)
    assert msgspec.json.decode(msgspec.json.encode(told), type=FleetChange) == msgspec.json.decode(
        msgspec.json.encode(change), type=FleetChange
    )
