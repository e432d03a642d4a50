"""What a page is told of a fleet that changes: what matters at once, the rest when a person would see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from browser import samples
from browser.samples import BERLIN, OSAKA
from vagus_controller.core.differences import Differences, Whole, lean
from vagus_controller.views import Canvas, FleetChange, FleetView, NodeView, PairView
from vagus_protocol.messages import Link

_ALL = 10_000
BERLIN_OSAKA = f"{BERLIN}--{OSAKA}"


class Page:
    """What a page does with what it is told."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeView] = {}
        self.pairs: dict[str, PairView] = {}
        self.summary = ""

    def take(self, change: FleetChange | None) -> None:
        if change is None:
            return
        self.summary = change.head.summary
        for name in change.gone_nodes:
            del self.nodes[name]
        for name in change.gone_pairs:
            del self.pairs[name]
        self.nodes |= {node.name: node for node in change.nodes}
        self.pairs |= {pair.name: pair for pair in change.pairs}


def opened(fleet: FleetView) -> tuple[Differences, Page]:
    """A page that was given the whole picture at 0 s."""
    differences, page = Differences(), Page()
    page.take(differences.rest(Whole(fleet), 0.0, _ALL))
    return differences, page


def at(fleet: FleetView, now: float) -> Whole:
    """The fleet as it is at `now`, when it was so at 0 s."""
    return Whole(samples.aged(fleet, now))


def with_rtt(fleet: FleetView, name: str, rtt_s: float) -> FleetView:
    def moved(pair: PairView) -> PairView:
        [overlay, *others] = pair.paths
        end = overlay.ends[0]
        assert end.link is not None
        link: Link = replace(end.link, rtt_s=rtt_s)
        return replace(pair, paths=(replace(overlay, ends=(replace(end, link=link), overlay.ends[1])), *others))

    return replace(fleet, pairs=tuple(moved(pair) if pair.name == name else pair for pair in fleet.pairs))


def rtt(pair: PairView) -> float:
    link = pair.paths[0].ends[0].link
    assert link is not None
    assert link.rtt_s is not None
    return link.rtt_s


def test_nothing_is_told_twice() -> None:
    differences, _ = opened(samples.calm())
    assert differences.look(at(samples.calm(), 0.5), 0.5) is None
    later = differences.look(at(samples.calm(), 5.0), 5.0)
    # Only the head, whose ages a page may want to set right.
    assert later is not None
    assert (later.nodes, later.pairs) == ((), ())


def test_what_changed_in_kind_is_told_at_the_next_look_and_nothing_else() -> None:
    differences, page = opened(samples.calm())
    change = differences.look(at(samples.bad_hour(), 0.25), 0.25)
    assert change is not None
    calm = {pair.name: pair for pair in samples.calm().pairs}
    assert {pair.name for pair in change.pairs} == {
        pair.name for pair in samples.bad_hour().pairs if pair != calm[pair.name]
    }
    assert [node.name for node in change.nodes] == [OSAKA]
    page.take(change)
    assert page.summary == samples.bad_hour().summary
    assert page.pairs[BERLIN_OSAKA].observed == ("backup", "backup")


def test_figures_wait_until_the_last_ones_were_seen() -> None:
    differences, _ = opened(samples.calm())
    change = differences.look(at(with_rtt(samples.calm(), BERLIN_OSAKA, 0.5), 0.5), 0.5)
    assert change is None
    change = differences.look(at(with_rtt(samples.calm(), BERLIN_OSAKA, 0.5), 2.5), 2.5)
    assert change is not None
    assert [pair.name for pair in change.pairs] == [BERLIN_OSAKA]


@pytest.mark.parametrize(
    "changes",
    [
        {"metered": True},
        {"idle_interval_s": 5.0},
        {"proven": False},
        {"unproven": "no answer"},
        {"path": "lte"},
    ],
    ids=lambda each: next(iter(each)),
)
def test_what_is_said_of_a_path_is_told(changes: dict[str, object]) -> None:
    fleet = samples.calm()
    differences, page = opened(fleet)
    first, *others = fleet.pairs
    overlay, *paths = first.paths
    another = replace(first, paths=(replace(overlay, **changes), *paths))
    page.take(differences.look(at(replace(fleet, pairs=(another, *others)), 3.0), 3.0))
    shown = page.pairs[first.name].paths[0]
    assert {name: getattr(shown, name) for name in changes} == changes


def test_small_steps_never_add_up_to_a_lie() -> None:
    fleet = samples.calm()
    differences, page = opened(fleet)
    told = 0
    for step in range(200):
        fleet = with_rtt(fleet, BERLIN_OSAKA, rtt(page.pairs[BERLIN_OSAKA]) if step == 0 else rtt(_pair(fleet)) * 1.01)
        change = differences.look(at(fleet, 3.0 * (step + 1)), 3.0 * (step + 1))
        told += bool(change and change.pairs)
        page.take(change)
        shown, true = rtt(page.pairs[BERLIN_OSAKA]), rtt(_pair(fleet))
        assert abs(shown - true) <= 0.11 * true
    assert told < 25


def _pair(fleet: FleetView) -> PairView:
    return next(pair for pair in fleet.pairs if pair.name == BERLIN_OSAKA)


@pytest.mark.parametrize("picture", [samples.calm, samples.bad_hour])
def test_what_goes_is_told_and_what_comes_back_is_new(picture: Callable[[], FleetView]) -> None:
    whole = picture()
    differences, page = opened(whole)
    without = replace(
        whole,
        nodes=tuple(node for node in whole.nodes if node.name != OSAKA),
        pairs=tuple(pair for pair in whole.pairs if OSAKA not in pair.nodes),
    )
    change = differences.look(at(without, 0.5), 0.5)
    assert change is not None
    assert change.gone_nodes == (OSAKA,)
    assert BERLIN_OSAKA in change.gone_pairs
    page.take(change)
    assert len(page.pairs) == 3
    page.take(differences.look(at(whole, 1.0), 1.0))
    assert page.nodes.keys() == {node.name for node in whole.nodes}
    assert page.pairs.keys() == {pair.name for pair in whole.pairs}


def test_a_picture_is_what_was_told_and_only_the_rest_is_drawn_in_steps() -> None:
    fleet = samples.large(60, dead=0)
    differences, page = Differences(), Page()
    page.take(differences.look(Counting(Whole(fleet)), 0.0))
    told = len(page.nodes) + len(page.pairs)
    left = len(fleet.nodes) + len(fleet.pairs) - told
    assert told
    while left:
        canvas = Counting(Whole(fleet))
        page.take(differences.rest(canvas, 0.1, 40))
        assert 0 < canvas.drawn <= 80
        left -= canvas.drawn
    assert page.nodes == {node.name: lean(node) for node in fleet.nodes}
    assert page.pairs == {pair.name: pair for pair in fleet.pairs}
    canvas = Counting(Whole(fleet))
    assert differences.rest(canvas, 0.2, 40) is None
    assert canvas.drawn == 0


def test_who_asks_for_a_picture_tells_the_others_how_the_fleet_is() -> None:
    differences, page = opened(samples.calm())
    page.take(differences.rest(at(samples.bad_hour(), 0.5), 0.5, _ALL))
    assert page.summary == samples.bad_hour().summary


class Counting:
    """A Canvas that counts what is drawn of it, of which nothing says that it stirred."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self.head = canvas.head
        self.names: Sequence[str] = canvas.names
        self.pairs: Sequence[tuple[str, str]] = canvas.pairs
        self.drawn = 0

    def node(self, name: str) -> NodeView:
        self.drawn += 1
        return self._canvas.node(name)

    def pair(self, pair: tuple[str, str]) -> PairView:
        self.drawn += 1
        return self._canvas.pair(pair)

    def stirred(self, since: int) -> tuple[Iterable[str], Iterable[tuple[str, str]], int]:
        return (), (), since


def test_a_look_at_a_large_fleet_is_bounded_and_all_have_their_turn() -> None:
    quiet = samples.large(60, dead=0)
    differences, page = opened(quiet)
    hit = replace(
        quiet,
        pairs=tuple(replace(pair, reason="another word", status="held") for pair in quiet.pairs),
    )
    now = 0.0
    for _ in range(24):
        now += 0.25
        canvas = Counting(at(hit, now))
        page.take(differences.look(canvas, now))
        assert canvas.drawn <= 1200
    assert all(pair.status == "held" for pair in page.pairs.values())


def test_what_stirred_is_told_before_its_turn() -> None:
    quiet = samples.large(60, dead=0)
    differences, page = opened(quiet)
    last = quiet.pairs[-1]
    page.take(differences.look(Counting(Whole(quiet)), 0.25))
    moved = replace(quiet, pairs=(*quiet.pairs[:-1], replace(last, assigned="backup")))

    class Stirred(Counting):
        def stirred(self, since: int) -> tuple[Iterable[str], Iterable[tuple[str, str]], int]:
            return (), (last.nodes,), since + 1

    page.take(differences.look(Stirred(Whole(moved)), 0.5))
    assert page.pairs[last.name].assigned == "backup"


def test_what_stirred_before_a_picture_was_drawn_is_not_drawn_again_and_what_stirs_after_is() -> None:
    fleet = samples.large(60, dead=0)
    # One after another, each at its own count.
    counts = {node.name: count for count, node in enumerate(fleet.nodes, 1)}

    class Stirring(Counting):
        def stirred(self, since: int) -> tuple[Iterable[str], Iterable[tuple[str, str]], int]:
            found = [name for name, count in counts.items() if count > since]
            return found, (), max(counts.values())

    differences, page = Differences(), Page()
    canvas = Stirring(Whole(fleet))
    page.take(differences.rest(canvas, 0.0, _ALL))
    drawn = canvas.drawn
    assert drawn == len(fleet.nodes) + len(fleet.pairs)
    differences.look(canvas, 0.01)
    share = canvas.drawn - drawn
    assert share < drawn / 2
    last = fleet.nodes[-1]
    counts[last.name] = len(counts) + 1
    online = replace(fleet, nodes=(*fleet.nodes[:-1], replace(last, online=not last.online)))
    page.take(differences.look(Stirring(Whole(online)), 0.02))
    assert page.nodes[last.name].online is not last.online


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["calm", "bad", "stuck", "risk", "blind"]), st.floats(0.01, 3.0)), max_size=12)
)
def test_a_page_that_was_told_everything_shows_what_is(steps: list[tuple[str, float]]) -> None:
    pictures = {
        "calm": samples.calm(),
        "bad": samples.bad_hour(),
        "stuck": samples.stuck(),
        "risk": samples.one_from_loss(),
        "blind": samples.blind(),
    }
    differences, page = opened(pictures["calm"])
    now, last = 0.0, "calm"
    for last, wait in steps:
        now += wait
        page.take(differences.look(at(pictures[last], now), now))
    for _ in range(3):
        now += 2.5
        page.take(differences.look(at(pictures[last], now), now))
    fresh = pictures[last]
    assert page.summary == fresh.summary
    for pair in fresh.pairs:
        shown = page.pairs[pair.name]
        assert (shown.status, shown.assigned, shown.observed, shown.reason) == (
            pair.status,
            pair.assigned,
            pair.observed,
            pair.reason,
        )
        assert [(path.verdict.state, path.proven, path.unproven) for path in shown.paths] == [
            (path.verdict.state, path.proven, path.unproven) for path in pair.paths
        ]
    for node in fresh.nodes:
        assert page.nodes[node.name].load.state == node.load.state
