"""Who is alive, as told by its reports and its peers, and when the controller must doubt itself first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import World, event, goodbye, last_will, link, links, presence, report
from vagus_controller.core.detect.liveness import Liveness
from vagus_controller.core.patience import Patience
from vagus_controller.core.verdict import Hysteresis, Verdict, follow, seconds, some
from vagus_controller.views import Severity
from vagus_protocol.messages import PathOffer

NODES = ("a", "b", "c", "d", "e")


class Watch(World):
    def __init__(self, *names: str, **settings: object) -> None:
        super().__init__(*names, **settings)
        self.liveness = Liveness(self.config)

    def verdict(self, node: str) -> Verdict:
        return self.liveness.evaluate(self.fleet, self.now)[node]

    def state(self, node: str) -> str:
        return self.verdict(node).state

    def observer(self) -> str:
        return self.liveness.controller(self.fleet, self.now).state


def without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in NODES if name not in names)


def test_reports_make_fresh_and_their_absence_late() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    assert {world.state(name) for name in NODES} == {"fresh"}
    world.run(5.5, *without("e"))
    assert world.state("e") == "late"
    assert "every 2.0 s" in world.verdict("e").reason


def test_silent_and_unreached_by_every_peer_is_down() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    died = world.now
    while world.now < died + 14.0:
        world.pass_time(2.0)
        for name in without("e"):
            peers = world.peers(name)
            told = links(*(peer for peer in peers if peer != "e")) + links("e", state="down")
            world.report(name, links=told)
        # Four sites see that nothing answers: that shortens the 10 s.
        if world.now <= died + 4.0:
            assert world.state("e") in ("fresh", "late")
    verdict = world.verdict("e")
    assert verdict.state == "node down"
    assert verdict.severity is Severity.CRITICAL
    assert len(verdict.evidence) == 4
    assert verdict.evidence[0] == "a: overlay down; backup down"
    since = verdict.since
    world.pass_time(0.5)
    assert world.verdict("e").since == since
    world.report("e")
    assert world.state("e") == "fresh"


def test_one_path_that_answers_makes_it_cut_off() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.run(12.0, *without("e"), links=(link("e", state="down"), link("e", "backup")))
    verdict = world.verdict("e")
    assert verdict.state == "cut off"
    assert "backup up, answered" in verdict.evidence[0]


def test_an_up_link_whose_last_reply_is_old_proves_nothing() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.run(12.0, *without("e"), links=(link("e", proven_s=9.0),))
    assert world.state("e") == "unknown"


def test_peers_that_contradict_each_other_prove_nothing() -> None:
    world = Watch("a", "b", "c")
    world.run(6.0)
    while world.now < 118.0:
        world.pass_time(2.0)
        world.report("a", links=(link("c", proven_s=9.0),))
        world.report("b", links=links("c", state="down"))
    assert world.state("c") == "unknown"
    assert "do not agree" in world.verdict("c").reason


def test_a_metered_path_answers_seldom_and_still_counts() -> None:
    world = Watch("a", "b", "c")
    slow = (PathOffer(name="overlay", metered=True, idle_interval_s=5.0),)
    for name in ("a", "b"):
        world.tell(presence(name, *world.peers(name), paths=slow))
    world.run(6.0)
    world.run(12.0, "a", "b", links=(link("c", proven_s=9.0),))
    assert world.state("c") == "cut off"


def test_without_a_fresh_witness_it_is_unknown() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.run(12.0, *without("e"), links=())
    assert world.state("e") == "unknown"
    assert "no fresh peer" in world.verdict("e").reason


def test_the_word_of_a_peer_that_is_silent_too_does_not_count() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.report("d", links=links("e", state="down"))
    world.run(4.0, "a", "b", "c", links=())
    world.run(20.0, "a", "b", "c", links=())
    assert world.state("e") == "unknown"


def test_a_goodbye_is_no_failure_until_it_reports_again() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.tell(goodbye("e"))
    assert world.state("e") == "offline"
    world.run(30.0, *without("e"), links=links("e", state="down"))
    assert world.state("e") == "offline"
    assert "stopped" in world.verdict("e").reason
    world.report("e")
    assert world.state("e") == "fresh"


def test_a_last_will_is_only_a_hint() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.tell(last_will("e"))
    assert world.state("e") == "fresh"
    world.run(4.0, *without("e"), links=links("e", state="down"))
    assert world.state("e") == "fresh"
    world.run(1.5, *without("e"), links=links("e", state="down"))
    assert world.state("e") == "node down", "late is silent once the broker lost it too"
    world.report("e")
    assert world.state("e") == "fresh"


def test_intervals_are_the_nodes_own() -> None:
    world = Watch("a", "b", "c")
    world.run(4.0)
    world.tell(report("c", 50, interval_s=20.0, links=links("a", "b")))
    world.run(45.0, "a", "b")
    assert world.state("c") == "fresh"
    world.run(10.0, "a", "b")
    assert world.state("c") == "late"


def test_a_configured_node_that_never_spoke_is_unknown() -> None:
    world = Watch("a", "b", nodes=("a", "b", "ghost"))
    assert world.state("ghost") == "unknown"
    world.run(30.0)
    assert world.state("ghost") == "unknown"
    assert "has not reported" in world.verdict("ghost").reason


# --- the observer ----------------------------------------------------------------------------------------------------


def test_no_broker_session_is_blind_and_none_is_down() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    assert world.observer() == "connected"
    world.fleet.on_session(False, world.now, "timed out")
    world.pass_time(60.0)
    assert world.observer() == "blind"
    assert "timed out" in world.liveness.controller(world.fleet, world.now).reason
    assert {world.state(name) for name in NODES} == {"unknown"}


def test_never_connected_is_blind() -> None:
    world = World()
    fresh = Liveness(world.config)
    world.fleet.session_at = None
    assert fresh.controller(world.fleet, 5.0).state == "blind"


def test_settles_for_one_report_interval_after_connecting() -> None:
    world = Watch(*NODES)
    world.pass_time(1.9)
    assert world.observer() == "settling"
    world.pass_time(0.2)
    assert world.observer() == "connected"


def test_most_of_the_fleet_silent_at_once_is_blindness() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.run(11.0, "a", "b", links=links("c", "d", "e", state="down"))
    assert world.observer() == "blind"
    assert "3 of 5" in world.liveness.controller(world.fleet, world.now).reason
    assert [world.state(name) for name in "cde"] == ["unknown"] * 3
    world.run(2.0, "a", "b", "c", "d")
    assert world.observer() == "connected"


def test_last_wills_do_not_hide_blindness() -> None:
    """The broker's own uplink dies: it publishes everybody's last will."""
    world = Watch(*NODES)
    world.run(6.0)
    for name in without("a"):
        world.tell(last_will(name))
    world.run(11.0, "a", links=links(*without("a"), state="down"))
    assert world.observer() == "blind"


def test_fewer_than_the_share_is_no_blindness() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.run(12.0, "a", "b", "c", links=links("d", "e", state="down"))
    assert world.observer() == "connected"
    assert [world.state(name) for name in "de"] == ["node down"] * 2


def test_nodes_that_die_one_by_one_are_no_blindness() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    for alive in (("a", "b", "c", "d"), ("a", "b", "c"), ("a", "b"), ("a",)):
        dead = tuple(name for name in NODES if name not in alive)
        world.run(14.0, *alive, links=links(*dead, state="down"))
        assert world.observer() == "connected"
        assert {world.state(name) for name in dead} == {"node down"}


def test_one_node_alone_is_not_a_share() -> None:
    world = Watch("a")
    world.run(6.0)
    world.pass_time(60.0)
    assert world.observer() == "connected"
    assert world.state("a") == "unknown"


def test_two_that_die_one_after_the_other_are_no_blindness() -> None:
    world = Watch("a", "b")
    world.run(6.0)
    world.run(20.0, "a")
    world.pass_time(12.0)
    assert world.observer() == "connected"


def test_two_of_two_silent_at_once_is_blindness() -> None:
    world = Watch("a", "b")
    world.run(6.0)
    world.pass_time(12.0)
    assert world.observer() == "blind"


def test_nodes_dead_before_a_reconnect_do_not_make_us_blind_after_it() -> None:
    world = Watch("a", "b", "c")
    world.run(6.0)
    world.run(60.0, "a", "b")
    world.run(60.0, "a")
    world.fleet.on_session(False, world.now, "restart")
    world.fleet.on_session(True, world.pass_time(3.0), "back")
    world.run(30.0, "a")
    assert world.observer() == "connected"


def test_after_a_reconnect_old_reports_say_neither_fresh_nor_dead() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.fleet.on_session(False, world.now, "restart")
    world.pass_time(30.0)
    world.fleet.on_session(True, world.now, "back")
    world.pass_time(2.5)
    assert world.observer() == "connected"
    assert {world.state(name) for name in NODES} == {"unknown"}
    world.reports()
    assert {world.state(name) for name in NODES} == {"fresh"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("report", "down", "will", "bye", "lost", "back", "event")),
            st.sampled_from(NODES[:3]),
            st.sampled_from((0.0, 0.3, 2.0, 11.0)),
        ),
        max_size=40,
    )
)
def test_while_in_doubt_no_node_is_down_and_since_never_moves_within_a_state(
    story: list[tuple[str, str, float]],
) -> None:
    world = Watch(*NODES[:3])
    before: dict[str, Verdict] = {}
    for what, node, pause in story:
        world.pass_time(pause)
        if what == "report":
            world.report(node)
        elif what == "down":
            world.report(node, links=links(*world.peers(node), state="down"))
        elif what == "event":
            world.tell(event(node, "a", link("a", state="down")))
        elif what == "will":
            world.tell(last_will(node))
        elif what == "bye":
            world.tell(goodbye(node))
        else:
            world.fleet.on_session(what == "back", world.now, what)
        now = world.liveness.evaluate(world.fleet, world.now)
        if world.observer() != "connected":
            assert "node down" not in {verdict.state for verdict in now.values()}
        for name, verdict in now.items():
            if name in before and before[name].state == verdict.state:
                assert verdict.since == before[name].since
            else:
                assert verdict.since == world.now
            assert verdict.reason
        before = dict(now)


# --- helpers of verdicts ---------------------------------------------------------------------------------------------


def test_follow_keeps_since_and_the_object_when_nothing_changed() -> None:
    first = follow(None, "link", "x", "up", Severity.OK, "well", (), 1.0)
    assert follow(first, "link", "x", "up", Severity.OK, "well", (), 2.0) is first
    worded = follow(first, "link", "x", "up", Severity.OK, "very well", (), 2.0)
    assert (worded.since, worded.reason) == (1.0, "very well")
    assert follow(worded, "link", "x", "down", Severity.CRITICAL, "gone", (), 3.0).since == 3.0


def test_hysteresis_enters_and_leaves_late() -> None:
    condition = Hysteresis(4.0, 6.0)
    states = [condition.update(on, not on, float(at)) for at, on in enumerate([True] * 6 + [False] * 8)]
    assert states == [False] * 4 + [True] * 8 + [False] * 2


def test_hysteresis_ignores_a_short_burst_and_finds_a_noisy_condition() -> None:
    burst = Hysteresis(4.0, 6.0)
    assert not any(burst.update(at % 20 < 4, at % 20 >= 4, float(at)) for at in range(200))
    noisy = Hysteresis(4.0, 6.0)
    assert any(noisy.update(at % 5 != 0, False, float(at)) for at in range(20))


@pytest.mark.parametrize(
    ("value", "words"), [(0.04, "0.0 s"), (0.31, "0.3 s"), (12.4, "12 s"), (300.0, "5 min"), (9000.0, "2 h")]
)
def test_durations_in_words(value: float, words: str) -> None:
    assert seconds(value) == words


def test_evidence_is_bounded() -> None:
    assert some([str(number) for number in range(20)], 3) == ("0", "1", "2", "and 17 more")


# --- patience --------------------------------------------------------------------------------------------------------


def silent_for(world: Watch, witnesses: dict[str, str]) -> float:
    """Seconds from e's last word until it is down, with these words of its peers; others do not probe it."""
    world.run(6.0)
    died = world.now
    while world.now < died + 30.0:
        world.pass_time(0.5)
        if (world.now - died) % 2.0 == 0.0:
            for name in without("e"):
                told = links(*(peer for peer in world.peers(name) if peer != "e"))
                told += links("e", state=witnesses[name]) if name in witnesses else ()
                world.report(name, links=told)
        if world.state("e") == "node down":
            return world.now - died
    raise AssertionError(world.verdict("e").reason)


def sited(sites: str) -> Watch:
    world = Watch(*NODES)
    for name, site in zip(NODES, sites, strict=True):
        world.tell(presence(name, *world.peers(name), site=site))
    return world


def test_more_independent_witnesses_shorten_patience() -> None:
    alone = silent_for(sited("abcde"), {"a": "down"})
    two = silent_for(sited("abcde"), {"a": "down", "b": "down"})
    three = silent_for(sited("abcde"), {"a": "down", "b": "down", "c": "down"})
    assert 5.0 < three < two < alone <= 10.5
    assert silent_for(sited("xxxxe"), dict.fromkeys("abcd", "down")) == alone, "of one site they count once"


def test_one_witness_that_reaches_it_takes_all_of_the_patience() -> None:
    world = sited("abcde")
    world.run(6.0)
    for _ in range(4):
        world.pass_time(2.0)
        for name in without("e"):
            told = links(*(peer for peer in world.peers(name) if peer != "e"))
            world.report(name, links=told + links("e", state="up" if name == "d" else "down"))
        assert world.state("e") in ("fresh", "late")


def test_our_own_trouble_stretches_it() -> None:
    world = sited("abcde")
    world.fleet.patience = 2.0
    assert silent_for(world, dict.fromkeys("abc", "down")) > 10.0


def test_patience_grows_with_how_late_we_are_and_is_gone_soon() -> None:
    patience = Patience(0.0, 0.5)
    assert patience.tick(0.5) == 1.0
    assert patience.tick(1.4) == 1.0, "0.4 s is no trouble"
    assert patience.tick(3.4) == pytest.approx(2.5)
    assert patience.tick(3.9) < 2.5
    assert patience.tick(1000.0) == 3.0, "not for ever, however late"
    now = 1000.0
    while patience.tick(now := now + 0.5) > 1.1:
        assert now < 1060.0


# --- reboots, doubles and clones -------------------------------------------------------------------------------------


def reboot(world: Watch, name: str, away_s: float) -> None:
    world.run(away_s, *without(name))
    world.tell(last_will(name))
    world.tell(presence(name, *world.peers(name), session="s2", boot_id="b2"))


def goes_on(world: Watch, name: str, seconds: float) -> set[str]:
    """Its states while all report, `name` as its new self."""
    seen = set()
    end = world.now + seconds
    while world.now < end:
        world.pass_time(2.0)
        world.reports(*without(name))
        world.report(name, session="s2", boot_id="b2")
        seen.add(world.state(name))
    return seen


def test_a_fast_reboot_is_seen_by_its_boot_and_passes() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    reboot(world, "e", 4.0)
    assert "rebooted" in goes_on(world, "e", 20.0)
    assert goes_on(world, "e", 20.0) >= {"fresh"}
    assert world.state("e") == "fresh"
    assert not any(notice.kind == "joined" for notice in world.notices if notice.subject == "e"), "it is not new"


def test_a_reboot_after_a_goodbye_is_none_of_our_business() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    world.tell(goodbye("e"))
    world.run(4.0, *without("e"))
    world.tell(presence("e", *world.peers("e"), session="s2", boot_id="b2"))
    assert goes_on(world, "e", 40.0) == {"fresh"}
    assert [notice.severity for notice in world.notices if notice.kind == "reboot"] == [Severity.INFO]


def test_an_agent_that_restarts_is_no_reboot() -> None:
    world = Watch(*NODES)
    world.run(6.0)
    for _ in range(20):
        world.pass_time(2.0)
        world.reports(*without("e"))
        world.report("e", session="s2")
        assert world.state("e") == "fresh"


@pytest.mark.parametrize(("boot", "words"), [("b2", "two machines: a cloned SD card"), ("e-b1", "on one machine")])
def test_two_agents_of_one_name_are_named_as_long_as_both_report(boot: str, words: str) -> None:
    world = Watch(*NODES)
    world.run(6.0)
    seq = 0
    for _ in range(6):
        world.pass_time(2.0)
        world.reports(*NODES)
        seq += 1
        world.tell(report("e", seq, session="s2", boot_id=boot, links=links(*world.peers("e"))))
        assert world.state("e") != "rebooted"
    verdict = world.verdict("e")
    assert (verdict.state, verdict.severity) == ("duplicate", Severity.CRITICAL)
    assert words in verdict.reason
    for _ in range(15):
        world.pass_time(2.0)
        world.reports(*without("e"))
        seq += 1
        world.tell(report("e", seq, session="s2", boot_id=boot, links=links(*world.peers("e"))))
        last = world.state("e")
    assert last in ("fresh", "rebooted")


def test_a_cloned_disk_under_another_name() -> None:
    world = Watch(*NODES)
    for name in ("d", "e"):
        world.tell(presence(name, *world.peers(name), machine="cafe"))
    world.run(6.0)
    verdict = world.verdict("d")
    assert (verdict.state, verdict.severity) == ("cloned", Severity.WARNING)
    assert "e on another machine has the same /etc/machine-id" in verdict.reason
    assert world.state("e") == "cloned"
    world.tell(presence("e", *world.peers("e"), machine="beef", session="s3"))
    world.run(4.0, *without("e"))
    assert world.state("d") == "fresh"


def test_two_agents_on_one_machine_share_its_id_and_its_boot() -> None:
    world = Watch(*NODES)
    for name in ("d", "e"):
        world.tell(presence(name, *world.peers(name), machine="cafe", boot_id="same"))
    for _ in range(3):
        world.pass_time(2.0)
        world.reports(*without("d", "e"))
        for name in ("d", "e"):
            world.report(name, boot_id="same")
    assert (world.state("d"), world.state("e")) == ("fresh", "fresh")


WORDS = st.tuples(
    st.sampled_from(NODES),
    st.sampled_from(("report", "rival", "reboot", "will", "goodbye", "clone", "alone", "blind")),
    st.sampled_from((0.0, 0.5, 2.0, 11.0, 40.0)),
)


@given(st.lists(WORDS, max_size=25))
def test_whatever_was_said_the_same_is_found_twice_and_all_of_it_passes(story: list[tuple[str, str, float]]) -> None:
    worlds = Watch(*NODES), Watch(*NODES)
    for world in worlds:
        for number, (node, what, pause) in enumerate(story):
            world.pass_time(pause)
            match what:
                case "report":
                    world.report(node)
                case "rival":
                    world.tell(report(node, number, session="s2", boot_id="b2"))
                case "reboot":
                    world.tell(presence(node, *world.peers(node), session=f"s{number}", boot_id=f"b{number}"))
                case "will":
                    world.tell(last_will(node))
                case "goodbye":
                    world.tell(goodbye(node))
                case "clone":
                    world.tell(presence(node, *world.peers(node), machine="cafe", boot_id=f"b{number}"))
                case "alone":
                    world.report(node, links=links(*world.peers(node), state="down"))
                case "blind":
                    world.fleet.on_session(not world.fleet.connected, world.now, "test")
            world.liveness.evaluate(world.fleet, world.now)
    assert worlds[0].liveness.verdicts == worlds[1].liveness.verdicts
    world = worlds[0]
    world.fleet.on_session(True, world.now, "test")
    for name in NODES:
        world.tell(presence(name, *world.peers(name), session="last", boot_id=f"{name}-b1", machine=name))
    for number in range(60):
        world.pass_time(2.0)
        for name in NODES:
            world.tell(report(name, number, session="last", links=links(*world.peers(name))))
        found = world.liveness.evaluate(world.fleet, world.now)
    assert {verdict.state for verdict in found.values()} == {"fresh"}
