"""The screen of `vagusctl watch`, drawn at fixed sizes: what a person reads there, and that it always fits."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from browser import incident_samples, samples
from browser.samples import BERLIN, LISBON, OSAKA
from vagus_controller.ctl.picture import Picture, heard, with_entries
from vagus_controller.ctl.screen import draw, share
from vagus_controller.ctl.signs import PLAIN, SIGNS, Signs
from vagus_controller.views import FleetView, IncidentBrief, Severity

AT = samples.AT


def brief(number: int = 12) -> IncidentBrief:
    whole = incident_samples.overlay_of_osaka(number)
    return IncidentBrief(
        id=whole.id,
        title=whole.title,
        severity=whole.severity,
        at=whole.at,
        age_s=41.0,
        cause=whole.cause,
        did=whole.did,
        troubles=4,
        acknowledged_by="ines",
    )


def bad_hour() -> FleetView:
    return replace(samples.bad_hour(), incidents=(brief(),))


def picture(fleet: FleetView) -> Picture:
    """As it came at 100 s."""
    return with_entries(heard(Picture(), fleet, 100.0), [*samples.events(), *samples.ledger()])


def shown(
    seen: Picture,
    width: int = 80,
    height: int = 24,
    *,
    now: float = 100.0,
    signs: Signs = SIGNS,
    colour: bool = False,
    environment: dict[str, str] | None = None,
) -> str:
    """What stands on a terminal of that size."""
    console = Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=colour,
        color_system="standard" if colour else None,
        _environ=environment or {},
    )
    console.print(draw(seen, width, height, now, AT, signs), end="")
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def line_of(words: str, screen: str) -> str:
    [line] = [line for line in screen.splitlines() if words in line]
    return line


SIZES = [(80, 24), (100, 30), (160, 50), (240, 80)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_bad_hour_is_whole_on_every_screen(width: int, height: int) -> None:
    screen = shown(picture(bad_hour()), width, height)
    flowing = " ".join(screen.split())
    assert f"! WARNING {bad_hour().summary}" in flowing
    assert "✗ #12 overlay of pi-osaka is dead, 41 s; moved 3 pairs to backup; ines is on it" in screen
    assert "PAUSED site lisbon, 42 min left (ines: router swap)" in flowing
    assert "QUORUM ✓ healthy; 3/3 answer, 1 may fail; pi-berlin leads, term 7; 0 changes/h" in screen
    assert all(pair.name in screen for pair in bad_hour().pairs)
    assert all(f"\n{node.name} " in screen for node in bad_hour().nodes)
    assert "load spike: 6.3 tasks per core" in screen
    # The newest five are there on the smallest screen too.
    assert "traffic is on the backup at both ends, 0.2" in screen
    decision = "= brain-1: failover pi-osaka--vps-fra (both ends applied generation 12)"
    assert (decision in screen) == (height > 24)


def test_a_link_says_state_traffic_figures_and_whether_the_standby_is_proven() -> None:
    screen = shown(picture(bad_hour()))
    moved = line_of(f"{BERLIN}--{OSAKA} ", screen)
    assert "○ ✗ down 100 %" in moved
    assert "▶ ✓ up 244 ms" in moved
    assert "» on backup 40 s" in moved
    at_home = line_of(f"{BERLIN}--{LISBON} ", screen)
    assert " ".join(at_home.split()) == f"{BERLIN}--{LISBON} ▶ ✓ up 46 ms ● ✓ up 51 ms at home"
    relayed = line_of("pi-lisbon--vps-fra ", screen)
    assert "212 ms 1 %" in relayed
    assert "! waits 12 min" in relayed


def test_a_controller_that_stands_by_says_so() -> None:
    assert "controller brain-1, mode auto" in shown(picture(bad_hour()))
    assert "controller brain-2, stands by: brain-1 leads" in shown(picture(samples.standby()), 120)


def test_the_worst_comes_first() -> None:
    screen = shown(picture(bad_hour()))
    places = [
        screen.index(f"\n{name} ") for name in (f"{BERLIN}--{OSAKA}", "pi-lisbon--vps-fra", f"{BERLIN}--{LISBON}")
    ]
    assert places == sorted(places)
    assert screen.index(f"\n{OSAKA} ") < screen.index(f"\n{BERLIN} ")


def test_traffic_of_one_end_only_is_marked_as_such() -> None:
    still = samples.calm()
    torn = replace(still.pairs[0], observed=("overlay", "backup"))
    screen = shown(picture(replace(still, pairs=(torn, *still.pairs[1:]))))
    assert "▷ ✓ up 46 ms" in line_of(f"{BERLIN}--{LISBON} ", screen)
    assert "▷ ✓ up 51 ms" in line_of(f"{BERLIN}--{LISBON} ", screen)


def test_a_node_says_load_per_core_pressure_heat_and_what_holds_it_back() -> None:
    screen = shown(picture(bad_hour()), 160, 50)
    words = line_of("! spike", screen)
    for each in (OSAKA, "6.28", "100%/42%/0%", "81 °C!", "78 %", "under-voltage; throttled"):
        assert each in words


def test_one_failure_from_loss_is_a_warning_that_names_member_and_disk() -> None:
    screen = shown(picture(samples.one_from_loss()))
    assert "QUORUM ! at risk; 2/3 answer, one failure from loss" in screen
    assert "✗ pi-osaka: connection refused" in screen
    assert "slow disk? pi-lisbon: mmcblk0 is busy 97 %" in screen


def test_ages_grow_from_when_each_part_came() -> None:
    seen = heard(picture(bad_hour()), None, 157.0)
    screen = shown(seen, now=159.0)
    assert "✓ live" in screen
    assert "is dead, 1 min;" in screen
    assert "on backup 1 min" in screen
    assert "41 min left" in screen


def test_a_silent_controller_and_a_lost_one_are_told_with_the_age_of_the_picture() -> None:
    seen = picture(samples.calm())
    assert "✓ live" in shown(seen, now=105.0)
    silent = shown(seen, now=112.0)
    assert "! the controller has said nothing for 12 s" in silent
    assert "live" not in silent.splitlines()[0]
    lost = shown(replace(seen, trouble="the controller at http://x cannot be reached"), now=112.0)
    assert "✗ not connected, trying again; this picture is 12 s old" in lost
    assert "the controller at http://x cannot be reached" in lost
    assert samples.calm().summary in lost


def test_without_a_picture_it_says_what_it_waits_for() -> None:
    assert "waiting for the controller's first picture" in shown(Picture())
    assert "nowhere" in shown(Picture(trouble="nowhere"))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50)])
def test_a_large_fleet_is_grouped_by_site_and_what_does_not_fit_is_counted(width: int, height: int) -> None:
    fleet = samples.large()
    screen = shown(picture(fleet), width, height)
    lost = sum(pair.assigned == "backup" for pair in fleet.pairs)
    listed = sum("on backup" in line for line in screen.splitlines())
    assert f"LINKS 4950, {lost} troubled" in screen
    assert listed >= 4
    assert f"and {4950 - listed} more, {lost - listed} of them troubled" in screen
    [nodes_rest] = [line for line in screen.splitlines() if line.endswith("none troubled")]
    nodes = sum("✓ fresh" in line for line in screen.splitlines())
    assert nodes_rest == f"and {100 - nodes} more, none troubled"


def test_the_matrix_of_sites_counts_what_is_impaired() -> None:
    fleet = samples.large()
    site_of = {node.name: node.site for node in fleet.nodes}
    lost = [pair for pair in fleet.pairs if pair.assigned == "backup"]
    between = sum({site_of[node] for node in pair.nodes} == {"berlin", "osaka"} for pair in lost)
    lines = shown(picture(fleet), 160, 50).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("by site"))
    column = lines[head].index("berlin")
    osaka = next(line for line in lines[head:] if line.startswith("osaka "))
    assert osaka[column:].startswith(f"✗ {between} ")
    assert f"✗ berlin and osaka: {between} of 289 links impaired or moved" in shown(picture(fleet), 80, 24)


def test_a_path_that_has_no_room_is_counted() -> None:
    assert "overlay +1" in shown(picture(bad_hour()), 50, 24)


def test_it_is_told_by_shape_and_words_and_colour_only_adds() -> None:
    seen = picture(bad_hour())
    plain, coloured = shown(seen), shown(seen, colour=True)
    assert "\x1b[31" in coloured or "\x1b[1;31" in coloured
    without = shown(seen, colour=True, environment={"NO_COLOR": "1"})
    assert not any(f"{code}m" in without for code in ("[31", ";31", "[32", "[33", ";33", "[34"))
    for words in ("✗ down", "✓ up", "! spike", "! WARNING", "» on backup"):
        assert words in plain


def test_a_terminal_of_few_letters() -> None:
    screen = shown(picture(bad_hour()), signs=PLAIN)
    assert "- X down 100 %" in screen
    assert "T + up 244 ms" in screen
    assert "s + up 51 ms" in screen


def test_hostile_words_are_words() -> None:
    hostile = "\x1b]0;owned\x07[bold]\x9b31m\u202e"
    view = bad_hour()
    dressed = replace(
        view,
        summary=hostile,
        nodes=tuple(replace(each, drift=(hostile,)) for each in view.nodes),
        pairs=tuple(replace(each, reason=hostile) for each in view.pairs),
        quorum=replace(view.quorum, leader=hostile),
        incidents=(replace(brief(), title=hostile),),
    )
    screen = shown(picture(dressed), 200, 60)
    assert "[bold]" in screen
    assert not set("\x1b\x07\x9b\u202e") & set(screen)


PICTURES = [
    picture(fleet)
    for fleet in (
        *(samples.calm(), bad_hour(), samples.blind(), samples.stuck(), samples.one_from_loss(), samples.hostile()),
        *(samples.recommended(), samples.large(30), replace(samples.calm(), nodes=(), pairs=())),
        replace(bad_hour(), incidents=tuple(map(brief, range(40))), pauses=samples.bad_hour().pauses * 40),
    )
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(PICTURES),
    st.integers(1, 250),
    st.integers(1, 90),
    st.floats(0, 1e6),
    st.sampled_from(["", "the connection is lost, " * 20]),
)
def test_it_fits_every_terminal(seen: Picture, width: int, height: int, later: float, trouble: str) -> None:
    drawn = draw(replace(seen, trouble=trouble), width, height, 100.0 + later, AT, SIGNS)
    lines = drawn.split("\n", allow_blank=True)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3)), max_size=4))
def test_room_is_shared_out_and_none_is_kept_back(room: int, wanted: list[tuple[int, int]]) -> None:
    wants, steps = [want for want, _ in wanted], [step for _, step in wanted]
    given_out = share(room, wants, steps)
    assert sum(given_out) == min(room, sum(wants))
    assert all(got <= want for got, want in zip(given_out, wants, strict=True))


def test_who_wants_little_leaves_the_rest_to_others() -> None:
    assert share(14, [6, 4, 100], [2, 1, 1]) == [6, 4, 4]
    assert share(16, [4950, 100, 100], [2, 1, 1]) == [8, 4, 4]


def test_severities_have_signs_of_their_own() -> None:
    for signs in (SIGNS, PLAIN):
        assert len({signs.severity[severity] for severity in Severity}) == len(Severity)
