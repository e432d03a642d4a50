"""One incident for each cause: what folds into what, when it is news, when it is over, and what survives."""

from __future__ import annotations

import pytest

from unit.incident_world import IncidentWorld
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Refused, Severity

CITIES = {"austin": ("austin-1", "austin-2"), "tokyo": ("tokyo-1", "tokyo-2"), "berlin": ("berlin-1", "berlin-2")}
THREE = {"austin": ("a",), "berlin": ("b",), "tokyo": ("c",)}


def subjects(world: IncidentWorld) -> set[str]:
    return {each.subject for each in world.the_one().troubles}


def test_a_calm_fleet_has_none() -> None:
    world = IncidentWorld(CITIES, members=("austin-1", "berlin-1", "tokyo-1"))
    world.run(120)
    assert world.told == []


@pytest.mark.parametrize("subject", ["a--b/lte", "a--nobody/overlay"])
def test_a_verdict_on_what_is_configured_no_more_opens_none(subject: str) -> None:
    """It may have waited while the controller was in doubt; nothing would ever end it."""
    world = IncidentWorld(THREE)
    world.incidents.verdicts(
        [Verdict("link", subject, "unproven", Severity.WARNING, "never had a reply", (), world.now)]
    )
    world.run(60)
    assert world.told == []


@pytest.mark.parametrize("members", [(), ("austin-1", "berlin-1", "tokyo-1"), ("austin-1", "austin-2", "berlin-1")])
@pytest.mark.parametrize("victim", ["austin-1", "tokyo-2"])
def test_a_dead_node_is_one_incident_with_its_links_and_quorum_inside(victim: str, members: tuple[str, ...]) -> None:
    world = IncidentWorld(CITIES, members=members)
    world.down = {victim}
    world.run(60)
    found = world.the_one()
    assert found.title.startswith(f"{victim} is down")
    assert (found.cause.kind, found.cause.scope, found.cause.target) == ("liveness", "node", victim)
    assert found.severity is Severity.CRITICAL
    inside = subjects(world)
    assert victim in inside
    assert sum(victim in each and "/" in each for each in inside) == 10
    if victim in members:
        assert "test" in inside, "quorum is a consequence"
        assert "quorum" in found.title
    assert {each.id for each in world.told} == {found.id}
    world.heal()
    world.run(60)
    assert world.open == ()
    assert world.told[-1].state == "over"


def test_a_dead_node_of_two() -> None:
    world = IncidentWorld({"x": ("a",), "y": ("b",)})
    world.down = {"b"}
    world.run(60)
    assert world.the_one().title == "b is down"
    told(world, causes=1)


def told(world: IncidentWorld, *, causes: int) -> None:
    """The rest of the one incident are consequences, in the list and in short."""
    [brief] = world.incidents.briefs(world.now)
    assert (world.the_one().causes_total, brief.causes) == (causes, causes)


def test_a_site_that_loses_power_is_one_incident() -> None:
    world = IncidentWorld(CITIES)
    world.down = {"tokyo-1", "tokyo-2"}
    world.run(60)
    found = world.the_one()
    assert found.title == "site tokyo is down: 2 nodes"
    assert sum(each.kind == "link" for each in found.troubles) == 2 * 4 * 2


@pytest.mark.parametrize("sites", [CITIES, THREE, {"one": ("a", "b", "c", "d")}])
def test_the_overlay_dead_everywhere_is_one_incident(sites: dict[str, tuple[str, ...]]) -> None:
    world = IncidentWorld(sites)
    world.cut("overlay")
    world.run(30)
    found = world.the_one()
    assert found.title == "overlay is dead everywhere"
    assert found.cause.path == "overlay"
    assert found.did == f"moved {len(world.pairs)} pairs to backup"
    told(world, causes=len(world.pairs))
    world.heal()
    world.run(200)
    assert [each.state for each in world.told if each.id == found.id][-1] == "over"
    last = world.incidents.find(found.id, world.now)
    assert last.did == f"{len(world.pairs)} pairs home again"
    assert any("failback" in step.text for step in last.timeline)
    assert {each.id for each in world.told} == {found.id}


def test_the_overlay_between_cities_dead_while_their_lans_carry_it() -> None:
    world = IncidentWorld(CITIES)
    world.dead = {(pair, "overlay") for pair in world.pairs if pair[0][:3] != pair[1][:3]}
    world.run(30)
    assert world.titles == ["overlay is dead everywhere"]


@pytest.mark.parametrize(
    ("nodes", "title"),
    [(("tokyo-1",), "overlay of tokyo-1 is dead"), (("tokyo-1", "tokyo-2"), "overlay of site tokyo is dead")],
)
def test_the_overlay_of_a_node_or_a_site(nodes: tuple[str, ...], title: str) -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay", *nodes)
    world.run(30)
    assert world.titles == [title]


def test_every_path_of_a_node_that_still_reports() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay", "tokyo-1")
    world.cut("backup", "tokyo-1")
    world.run(30)
    found = world.the_one()
    assert found.title == "every path of tokyo-1 is dead, and 5 pairs cannot move"
    assert found.did == "5 pairs cannot move"


def test_both_paths_of_a_pair() -> None:
    world = IncidentWorld(CITIES)
    world.dead = {(("austin-1", "tokyo-1"), "overlay"), (("austin-1", "tokyo-1"), "backup")}
    world.run(30)
    assert world.titles == ["every path between austin-1 and tokyo-1 is dead, and 1 pair cannot move"]


def test_one_link_and_a_standby_that_is_not_proven() -> None:
    world = IncidentWorld(CITIES)
    world.dead = {(("austin-1", "tokyo-1"), "overlay")}
    world.sick = {(("berlin-1", "tokyo-1"), "backup"): "unknown"}
    world.run(30)
    assert world.titles == [
        "overlay between austin-1 and tokyo-1 is dead",
        "backup between berlin-1 and tokyo-1 is not proven",
    ]
    assert [each.severity for each in world.open] == [Severity.CRITICAL, Severity.WARNING]


def test_links_that_fail_one_after_the_other_within_minutes_become_one() -> None:
    world = IncidentWorld(CITIES)
    for peer in ("austin-1", "austin-2", "berlin-1", "berlin-2", "tokyo-1"):
        world.dead.add(((min(peer, "tokyo-2"), "tokyo-2"), "overlay"))
        world.run(20)
    assert world.titles == ["overlay of tokyo-2 is dead"]
    found = world.the_one()
    merged = {each.id: each for each in world.told if each.state == "merged"}
    assert all(each.merged_into == found.id for each in merged.values())
    assert found.id == min(each.id for each in world.told), "people know it by its first number"


def test_what_fails_much_later_is_another_incident() -> None:
    world = IncidentWorld(THREE)
    world.dead = {(("a", "b"), "overlay")}
    world.run(400)
    world.dead.add((("a", "c"), "overlay"))
    world.run(30)
    assert sorted(world.titles) == ["overlay between a and b is dead", "overlay between a and c is dead"]
    world.dead.add((("b", "c"), "overlay"))
    world.run(30)
    assert sorted(world.titles) == ["overlay between a and b is dead", "overlay of c is dead"]
    assert {each.id for each in world.told} == {1, 2}, "what was told of a and c goes on"


def test_a_node_that_is_cut_off_with_its_overlay_is_the_overlays_incident() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay", "tokyo-1")
    world.mute = {"tokyo-1"}
    world.run(60)
    found = world.the_one()
    assert found.cause.kind in ("link", "liveness")
    assert "tokyo-1" in found.title
    assert "cut off" in found.title
    assert len({each.id for each in world.told}) == 1


def test_a_stopped_agent_is_the_cause_of_what_its_peers_miss() -> None:
    world = IncidentWorld(CITIES)
    world.stop("tokyo-1")
    world.run(60)
    assert world.the_one().title == "tokyo-1 is offline: its agent was stopped"


def test_an_agents_quick_restart_is_no_news() -> None:
    world = IncidentWorld(CITIES)
    world.stop("tokyo-1")
    world.run(2)
    world.heal()
    world.run(60)
    assert world.told == []


def test_a_blind_controller_opens_nothing_else() -> None:
    world = IncidentWorld(CITIES)
    world.down = {*world.names}
    world.run(60)
    assert world.the_one().title == "the controller is blind"
    assert {each.cause.kind for each in world.told} == {"controller"}
    world.heal()
    world.run(60)
    assert world.open == ()
    assert {each.cause.kind for each in world.told} == {"controller"}


def test_a_controller_that_starts_is_not_blind_for_long_enough_to_tell() -> None:
    world = IncidentWorld(CITIES)
    world.fleet.on_session(False, world.now, "the broker restarts")
    world.run(20)
    world.fleet.on_session(True, world.now, "back")
    world.run(60)
    assert world.told == []


def test_a_spike_on_a_member_is_the_cause_of_the_quorum_that_churns() -> None:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    world.busy = {"a"}
    world.run(20)
    assert world.titles == ["load spike on a"]
    assert world.the_one().severity is Severity.WARNING
    for _ in range(4):
        world.term += 1
        world.run(4)
    found = world.the_one()
    assert found.title == "load spike on a, and etcd quorum is churning"
    world.etcd = dict.fromkeys("abc", "fails")
    world.run(20)
    assert world.the_one().id == found.id
    assert world.the_one().title == "load spike on a, and etcd quorum is lost"
    assert world.the_one().severity is Severity.CRITICAL


def test_quorum_with_no_other_trouble_is_its_own() -> None:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    world.etcd = {"b": "fails"}
    world.run(20)
    assert world.titles == ["etcd quorum is at risk"]


def test_quorum_goes_over_to_what_broke_it_anew() -> None:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    world.down = {"c"}
    world.run(600)
    assert world.titles == ["c is down, and etcd quorum is at risk"]
    world.dead = {(("a", "b"), "overlay")}
    world.etcd = {"a": "fails", "b": "fails"}
    world.run(60)
    assert world.titles == [
        "overlay between a and b is dead, and etcd quorum is lost",
        "c is down",
    ]


def test_load_on_the_whole_fleet_at_once_is_one_incident() -> None:
    world = IncidentWorld(CITIES)
    world.busy = set(world.names)
    world.run(30)
    assert world.titles == ["load spikes all over the fleet, on 6 nodes"]


def test_what_lasts_for_a_moment_is_no_news_unless_vagus_moved_something() -> None:
    world = IncidentWorld(CITIES)
    world.sick = {(("austin-1", "tokyo-1"), "overlay"): "degraded"}
    world.run(3)
    world.heal()
    world.run(60)
    assert world.told == []
    world.cut("overlay")
    world.run(3)
    world.heal()
    world.run(200)
    assert {each.title for each in world.told} == {"overlay is dead everywhere"}
    assert world.told[-1].state == "over"


def test_the_same_again_is_the_same_incident_and_held_for_longer() -> None:
    world = IncidentWorld(CITIES)
    holds = []
    for _ in range(4):
        world.cut("overlay", "tokyo-1")
        world.run(20)
        assert world.the_one().id == 1
        world.heal()
        began = world.now
        while world.open:
            world.tick()
        holds.append(world.now - began)
    assert world.ids == 1
    assert [round(hold / 30) for hold in holds] == [1, 2, 4, 8]
    assert world.told[-1].reopened == 3
    world.run(1000)
    world.cut("overlay", "tokyo-1")
    world.run(20)
    assert world.the_one().id == 2, "that was long ago"


def test_what_heals_in_any_order_stays_one() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay")
    world.run(20)
    for each in sorted(world.dead):
        world.dead.discard(each)
        world.run(10)
        assert len(world.open) <= 1
    world.run(60)
    assert world.ids == 1


def test_what_is_left_over_is_named() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay")
    world.run(20)
    world.dead = {(("austin-1", "tokyo-1"), "overlay")}
    world.run(60)
    assert world.titles == [
        "overlay between austin-1 and tokyo-1 is dead, left over when this had ended: overlay was in trouble everywhere"
    ]


def quorum_that_outlives_its_cause() -> IncidentWorld:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    world.busy = {"a"}
    world.run(40)
    world.etcd = {"a": "stuck"}
    world.run(40)
    assert world.titles == ["load spike on a, and etcd quorum is at risk"]
    world.busy = set()
    world.run(60)
    world.etcd = dict.fromkeys("abc", "stuck")
    world.run(40)
    assert world.titles == ["etcd quorum is lost, left over when this had ended: load spike on a"]
    return world


def test_what_is_over_is_called_by_its_cause_though_something_worse_was_left_of_it() -> None:
    world = quorum_that_outlives_its_cause()
    world.heal()
    world.run(60)
    assert world.open == ()
    assert world.told[-1].state == "over"
    assert world.told[-1].title == "load spike on a, and etcd quorum is at risk"
    assert world.told[-1].why.startswith("load 40 on a")


def test_what_a_person_resolved_is_called_by_its_cause_when_it_is_over() -> None:
    world = quorum_that_outlives_its_cause()
    found = world.the_one()
    world.incidents.resolve(found.id, "known", "ann", world.now, 0.0)
    world.heal()
    world.run(60)
    assert world.incidents.find(found.id, world.now).title == "load spike on a, and etcd quorum is at risk"
    assert world.told[-1].title == "load spike on a, and etcd quorum is at risk"


def test_what_is_over_is_not_called_by_how_much_was_left_of_it() -> None:
    world = IncidentWorld(CITIES)
    peers = [pair for pair in world.pairs if "tokyo-1" in pair]
    world.sick = {(pair, "overlay"): "degraded" for pair in peers}
    world.run(60)
    assert world.titles == ["overlay of tokyo-1 is degraded"]
    world.sick = {}
    world.dead = {(pair, "overlay") for pair in peers[:2]}
    world.run(60)
    assert world.titles == ["overlay of tokyo-1 is dead (2 of 5 are left)"]
    world.dead = {(peers[0], "overlay")}
    world.run(20)
    assert "left over when this had ended" in world.titles[0]
    world.heal()
    world.run(120)
    assert world.told[-1].state == "over"
    assert world.told[-1].title == "overlay of tokyo-1 is dead"


# --- persons --------------------------------------------------------------------------------------------------------


def test_acknowledge_note_and_resolve() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay", "tokyo-1")
    world.run(20)
    incidents, number = world.incidents, world.the_one().id
    assert incidents.acknowledge(number, "ines", world.now, 5.0).acknowledged_by == "ines"
    assert incidents.note(number, "the provider knows", "ines", world.now, 6.0).notes[0].text == "the provider knows"
    [changed] = world.tick()
    assert changed.acknowledged_at == 5.0
    done = incidents.resolve(number, "the router is replaced tomorrow", "ines", world.now, 7.0)
    assert (done.state, done.resolved_by, done.resolution) == ("resolved", "ines", "the router is replaced tomorrow")
    assert [step.text for step in done.timeline[-2:]] == [
        "acknowledged by ines",
        "resolved by ines: the router is replaced tomorrow",
    ]
    world.run(600)
    assert world.open == ()
    with pytest.raises(Refused, match="is resolved"):
        incidents.acknowledge(number, "ines", world.now, 8.0)
    with pytest.raises(KeyError):
        incidents.resolve(99, "x", "ines", world.now, 8.0)


def test_what_is_resolved_is_open_again_when_it_is_worse() -> None:
    world = IncidentWorld(CITIES)
    world.sick = {(("austin-1", "tokyo-1"), "overlay"): "degraded"}
    world.run(20)
    number = world.the_one().id
    world.incidents.resolve(number, "known", "ines", world.now, 7.0)
    world.run(60)
    assert world.open == ()
    world.sick = {(("austin-1", "tokyo-1"), "overlay"): "down"}
    world.run(5)
    found = world.the_one()
    assert (found.id, found.state, found.resolved_by, found.reopened) == (number, "open", "", 1)


def test_what_is_resolved_does_not_hide_its_node_that_dies() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay", "tokyo-1")
    world.run(20)
    world.incidents.resolve(1, "known", "ines", world.now, 7.0)
    world.run(60)
    world.down = {"tokyo-1"}
    world.run(30)
    found = world.the_one()
    assert (found.id, found.title) == (2, "tokyo-1 is down")
    assert world.incidents.find(1, world.now).state == "resolved"


# --- what survives --------------------------------------------------------------------------------------------------


def test_a_restart_forgets_nothing() -> None:
    world = IncidentWorld(CITIES, members=("austin-1", "berlin-1", "tokyo-1"))
    world.down = {"tokyo-1"}
    world.run(30)
    world.incidents.acknowledge(1, "ines", world.now, 5.0)
    before = world.the_one()
    for _ in range(5):
        world.restart()
        world.run(20)
    after = world.the_one()
    assert (after.id, after.at, after.acknowledged_by) == (before.id, before.at, "ines")
    assert after.title == before.title
    world.heal()
    world.run(60)
    assert world.open == ()
    assert world.ids == 1


def test_a_number_that_the_store_has_lost_is_not_given_to_another() -> None:
    """When the power fails, what was saved of an incident is on disk, and the store's line of it may not be."""
    world = IncidentWorld(CITIES)
    world.down = {"tokyo-1"}
    world.run(30)
    first = world.the_one()
    world.ids -= 1
    world.restart()
    world.busy = {"austin-1"}
    world.run(60)
    assert sorted(each.id for each in world.open) == [first.id, first.id + 1]


def test_what_was_mended_while_it_was_away_is_over() -> None:
    world = IncidentWorld(CITIES)
    world.cut("overlay")
    world.run(30)
    world.heal()
    world.restart()
    world.run(60)
    assert world.open == ()


def test_damaged_state_is_told_and_nothing_of_it_taken() -> None:
    world = IncidentWorld(CITIES)
    for damage in (b"{", b"{}", b'[{"kept": 1}]', b"\xff"):
        fresh = world.life()
        assert fresh.restore(damage, 0.0)
        assert fresh.open(0.0) == ()


def test_a_standby_that_failed_its_drill_is_one_until_a_drill_passes() -> None:
    world = IncidentWorld(THREE)
    world.unfit[("a", "b")] = "b: service check etcd: connection refused"
    world.run(30)
    assert world.the_one().title == "the standby of a and b failed its drill"
    assert world.the_one().severity is Severity.WARNING
    assert "service check etcd: connection refused" in world.the_one().why
    world.restart()
    world.run(30)
    assert world.the_one().title == "the standby of a and b failed its drill"
    world.unfit.clear()
    world.run(60)
    assert world.open == ()
    assert world.ids == 1


# --- partitions ------------------------------------------------------------------------------------------------------

FOUR = {"austin": ("a",), "berlin": ("b",), "tokyo": ("c",), "frankfurt": ("v",)}


def part(world: IncidentWorld, *groups: str, paths: tuple[str, ...] = ("overlay", "backup")) -> None:
    """No link between nodes of two groups carries anything; nodes are letters."""
    of = {node: group for group in groups for node in group}
    world.dead |= {
        (pair, path)
        for pair in world.pairs
        for path in paths
        if {of.get(pair[0]), of.get(pair[1])}.isdisjoint({None}) and of[pair[0]] != of[pair[1]]
    }


@pytest.mark.parametrize(
    ("groups", "title", "quorum"),
    [
        (("a", "bc"), "every path between a and b, c is dead", "at risk"),
        (("a", "b", "c"), "every path among a, b, c is dead", "lost"),
        (("av", "bc"), "every path between a, v and b, c is dead", "at risk"),
    ],
)
def test_a_partition_is_one_incident_with_its_quorum_inside(groups: tuple[str, ...], title: str, quorum: str) -> None:
    """The controller hears all of them: what lies between them fails."""
    world = IncidentWorld(FOUR, members=("a", "b", "c"))
    part(world, *groups)
    world.etcd = dict.fromkeys("abc" if quorum == "lost" else "a", "fails")
    world.run(60)
    found = world.the_one()
    assert found.title.startswith(title), found.title
    assert f"etcd quorum is {quorum}" in found.title
    assert found.cause.scope == "apart"
    assert title.removesuffix(" is dead") in found.why
    assert len({each.id for each in world.told}) == 1
    world.heal()
    world.run(200)
    assert world.open == ()
    assert len({each.id for each in world.told}) == 1


def test_a_partition_over_one_path_moves_its_pairs_and_is_one() -> None:
    world = IncidentWorld(FOUR)
    part(world, "a", "bc", paths=("overlay",))
    world.run(30)
    assert world.titles == ["overlay between a and b, c is dead"]
    assert world.the_one().did == "moved 2 pairs to backup"


def test_a_partition_that_grows_keeps_its_number() -> None:
    world = IncidentWorld({**FOUR, "osaka": ("o",), "lima": ("l",)})
    for groups in (("a", "b"), ("a", "bc"), ("ao", "bc")):
        part(world, *groups, paths=("overlay",))
        world.run(15)
    assert world.titles == ["overlay between a, o and b, c is dead"]
    assert world.the_one().id == min(each.id for each in world.told)


def test_links_with_nothing_between_them_stay_apart() -> None:
    world = IncidentWorld({**FOUR, "osaka": ("o",)})
    world.dead = {(("a", "b"), "overlay"), (("c", "v"), "overlay")}
    world.run(30)
    assert len(world.open) == 2
    world.heal()
    world.run(100)
    world.dead = {(("a", "b"), "overlay"), (("b", "c"), "overlay"), (("c", "v"), "overlay")}
    world.run(30)
    assert len(world.open) == 3, "all of them reach each other by way of what is left"


def test_a_link_that_fails_long_after_another_of_its_node_is_another() -> None:
    world = IncidentWorld({**FOUR, "osaka": ("o",)})
    world.dead = {(("a", "b"), "overlay")}
    world.run(100)
    world.dead.add((("a", "c"), "overlay"))
    world.run(30)
    assert len(world.open) == 2


@pytest.mark.parametrize("how", ["dead", "degraded"])
def test_what_fails_between_two_sites_is_one_incident(how: str) -> None:
    world = IncidentWorld(CITIES)
    between = [pair for pair in world.pairs if {world.site_of[node] for node in pair} == {"austin", "tokyo"}]
    for number, pair in enumerate(between):
        if how == "dead":
            world.dead.add((pair, "overlay"))
        else:
            world.sick[pair, "overlay"] = how
        world.run(1.0 if number < len(between) - 1 else 30.0)
    found = world.the_one()
    assert found.title == f"overlay between sites austin and tokyo is {how}"
    assert (found.cause.scope, found.cause.target) == ("sites", "austin--tokyo")
    assert "overlay between sites austin and tokyo" in found.why


def test_a_node_that_dies_in_a_partition_is_its_own_incident() -> None:
    world = IncidentWorld({**FOUR, "osaka": ("o",), "lima": ("l",)})
    part(world, "a", "bc", paths=("overlay",))
    world.run(30)
    world.down = {"l"}
    world.run(60)
    assert sorted(world.titles) == ["l is down", "overlay between a and b, c is dead"]


def test_a_partition_survives_a_restart() -> None:
    world = IncidentWorld(FOUR, members=("a", "b", "c"))
    part(world, "a", "bc")
    world.run(30)
    before = world.the_one()
    world.restart()
    world.run(60)
    assert (world.the_one().id, world.the_one().title) == (before.id, before.title)


# --- a restart while leaders change ----------------------------------------------------------------------------------


def churning() -> IncidentWorld:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    for _ in range(5):
        world.term += 1
        world.run(20)
    assert world.titles == ["etcd quorum is churning"]
    return world


def test_a_restart_while_leaders_go_on_changing_tells_it_neither_as_over_nor_again() -> None:
    world = churning()
    number = world.the_one().id
    world.restart()
    for _ in range(10):
        world.term += 1
        world.run(20)
    assert {(each.id, each.state) for each in world.told} == {(number, "open")}
    assert world.titles == ["etcd quorum is churning"]
    world.run(500)
    assert world.open == ()


def test_leaders_that_stay_after_a_restart_end_it_once_that_is_known() -> None:
    world = churning()
    world.restart()
    world.run(280)
    assert world.titles == ["etcd quorum is churning"]
    world.run(80)
    assert world.open == ()
    assert [each.state for each in world.told][-1] == "over"


# --- two faults at once ----------------------------------------------------------------------------------------------


def test_a_full_quota_is_no_consequence_of_a_dead_link_or_a_load() -> None:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    world.dead = {(("a", "b"), "overlay")}
    world.busy = {"c"}
    world.run(30)
    world.alarms = ("NOSPACE on a",)
    world.run(30)
    assert "etcd needs attention: alarm NOSPACE on a" in world.titles
    assert len(world.open) == 3


@pytest.mark.parametrize(
    ("busy", "titles"),
    [
        ("a", ["load spike on a, and etcd quorum is at risk"]),
        ("b", ["etcd quorum is at risk", "load spike on b"]),
    ],
)
def test_a_member_that_ends_is_a_consequence_of_its_own_load_alone(busy: str, titles: list[str]) -> None:
    world = IncidentWorld(THREE, members=("a", "b", "c"))
    world.busy = {busy}
    world.run(30)
    world.etcd = {"a": "fails"}
    world.run(30)
    assert sorted(world.titles) == titles
