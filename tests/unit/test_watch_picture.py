"""What `vagusctl watch` makes of the stream: the picture that the controller has, and how old it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from browser import samples
from vagus_controller.core.differences import Differences, Whole, lean
from vagus_controller.ctl.picture import Picture, changed, heard
from vagus_controller.views import FleetChange, FleetView

SAMPLES = (samples.calm(), samples.bad_hour(), samples.stuck(), samples.one_from_loss(), samples.blind())


def reported(fleet: FleetView, seq: int) -> FleetView:
    """With reports of its own: two that differ have not one number."""
    nodes = tuple(replace(node, report=node.report and replace(node.report, seq=seq)) for node in fleet.nodes)
    return replace(fleet, nodes=nodes)


def first_told(differences: Differences, fleet: FleetView) -> FleetView:
    """The picture that a stream begins with."""
    change = differences.rest(Whole(fleet), 0.0, 10_000)
    assert change is not None
    return changed(replace(fleet, nodes=(), pairs=()), change)


PICTURES = tuple(reported(fleet, seq) for seq, fleet in enumerate(SAMPLES))


@st.composite
def fleets(draw: st.DrawFn) -> FleetView:
    """Some of the nodes and pairs of the samples, each as one of the samples has it."""
    parts = {}
    for kind in ("nodes", "pairs"):
        versions = zip(*(getattr(picture, kind) for picture in PICTURES), strict=True)
        parts[kind] = tuple(part for of in versions if (part := draw(st.sampled_from((None, *of)))) is not None)
    return replace(draw(st.sampled_from(PICTURES)), **parts)


@given(fleets(), fleets())
def test_the_differences_of_any_two_pictures_make_the_second_of_the_first(first: FleetView, second: FleetView) -> None:
    differences = Differences()
    whole = first_told(differences, first)
    # Late enough that nothing waits, for an age that no sample differs by.
    change = differences.look(Whole(second), 10.0)
    assert change is not None
    assert changed(whole, change) == replace(second, nodes=tuple(map(lean, second.nodes)))


@given(st.lists(fleets(), min_size=2, max_size=5))
def test_a_stream_of_differences_ends_where_the_fleet_is(story: list[FleetView]) -> None:
    differences = Differences()
    shown = heard(Picture(), first_told(differences, story[0]), 0.0)
    now = 0.0
    for fleet in story[1:]:
        now += 10.0
        shown = heard(shown, differences.look(Whole(fleet), now), now)
    assert shown.fleet == replace(story[-1], nodes=tuple(map(lean, story[-1].nodes)))
    assert {node.name for node in shown.fleet.nodes} <= shown.nodes_at.keys()
    assert {pair.name for pair in shown.fleet.pairs} <= shown.pairs_at.keys()


def test_each_part_is_as_old_as_its_last_word() -> None:
    calm, bad = samples.calm(), samples.bad_hour()
    moved = next(pair for pair in bad.pairs if pair.assigned == "backup")
    shown = heard(Picture(), calm, 1.0)
    shown = heard(shown, FleetChange(head=replace(bad, nodes=(), pairs=()), pairs=(moved,)), 5.0)
    assert shown.fleet is not None
    assert (shown.fleet.summary, shown.head_at) == (bad.summary, 5.0)
    assert shown.pairs_at == {pair.name: 5.0 if pair.name == moved.name else 1.0 for pair in calm.pairs}
    assert set(shown.nodes_at.values()) == {1.0}


def test_what_was_drawn_before_it_came_is_as_old_as_that() -> None:
    calm = samples.calm()
    [first, *others] = calm.pairs
    shown = heard(Picture(), replace(calm, pairs=(replace(first, drawn_s=40.0), *others)), 100.0)
    assert shown.pairs_at[first.name] == 60.0
    assert {shown.pairs_at[pair.name] for pair in others} == {100.0}


def test_a_word_of_nothing_is_a_sign_of_life() -> None:
    lost = replace(heard(Picture(), samples.calm(), 1.0), trouble="the connection is lost")
    back = heard(lost, None, 9.0)
    assert (back.heard_at, back.head_at, back.trouble) == (9.0, 1.0, "")


def test_a_change_of_a_picture_that_never_came_is_no_picture() -> None:
    change = FleetChange(head=replace(samples.calm(), nodes=(), pairs=()), pairs=samples.calm().pairs)
    assert heard(Picture(), change, 1.0).fleet is None


def test_entries_are_newest_first_bounded_and_about_the_fleet() -> None:
    shown = Picture()
    for number in range(300):
        shown = heard(shown, samples.event(number, "pi-1", "news", samples.Severity.INFO), 1.0)
    assert shown.entries[0].id == 299
    assert len(shown.entries) == 200
    signed_in = heard(shown, samples.entry(900, "sign-in", "ines", "", ""), 1.0)
    assert signed_in.entries == shown.entries
    decided = heard(shown, samples.entry(900, "failover", "a--b", "dead", "done"), 1.0)
    assert decided.entries[0].id == 900
