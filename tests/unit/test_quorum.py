"""etcd's quorum, from every member's own endpoint, in clusters of 1 to 7."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import World, goodbye, link, links, member, presence, report, system
from vagus_controller.config import Failover, Quality
from vagus_controller.core.causes import Trouble, own_cause
from vagus_controller.core.chain import why
from vagus_controller.core.detect.quorum import Quorum
from vagus_controller.core.incident import words
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import QuorumView, Severity
from vagus_protocol.messages import Certificate, Disk, DiskIo, Etcd, EtcdMember, PathOffer, Relay

DB = ("db-1", "db-2", "db-3")
TIMED_OUT: dict[str, Any] = {"read_s": None, "read_error": "timed out after 2 s", "leader_id": ""}


class Watch(World):
    def __init__(self, *names: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.quorum = Quorum(self.config)

    def etcd(self, node: str, **changes: Any) -> None:
        """The node reports its member, which answers and reads unless told otherwise."""
        told = changes.pop("links", links(*self.peers(node)))
        self.report(node, etcd=member(node, *self.peers(node), **changes), links=told)

    def silent_etcd(self, node: str, reason: str = "connection refused") -> None:
        self.report(node, etcd=Etcd(answering=False, reason=reason))

    def verdict(self) -> Verdict:
        return self.quorum.evaluate(self.fleet, self.now)

    def view(self) -> QuorumView:
        return self.quorum.view(self.fleet, self.verdict(), self.now)


def cluster(size: int) -> Watch:
    world = Watch(*(f"db-{number}" for number in range(1, size + 1)))
    for name in world.names:
        world.etcd(name)
    return world


def test_no_etcd_anywhere_is_none() -> None:
    world = Watch("a", "b")
    world.reports()
    verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("none", Severity.OK)
    assert world.view().margin is None


@pytest.mark.parametrize(("size", "margin"), [(1, 0), (3, 1), (5, 2), (7, 3)])
def test_healthy(size: int, margin: int) -> None:
    world = cluster(size)
    view = world.view()
    assert view.verdict.state == "healthy"
    assert view.verdict.severity is Severity.OK
    assert (view.leader, view.term, view.voters, view.answering, view.margin) == ("db-1", 2, size, size, margin)
    assert [each.node for each in view.members] == list(world.names)
    assert world.quorum.members(world.fleet) == frozenset(world.names)


def test_two_members_are_always_at_risk() -> None:
    assert cluster(2).verdict().state == "at-risk"


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_each_number_of_failures(size: int) -> None:
    majority = size // 2 + 1
    for failed in range(1, size + 1):
        world = cluster(size)
        world.verdict()
        world.pass_time(2.0)
        quorate = size - failed >= majority
        for index, name in enumerate(world.names):
            if index < failed:
                world.silent_etcd(name)
            else:
                world.etcd(name, **({"leader_id": f"id-db-{size}"} if quorate else TIMED_OUT))
        view = world.view()
        if not quorate:
            assert view.verdict.state == "lost"
            assert view.margin == 0
            assert view.leader == ""
            assert "db-1" in view.verdict.reason
        else:
            margin = size - failed - majority
            assert view.verdict.state == ("healthy" if margin else "at-risk")
            assert view.verdict.severity is Severity.WARNING
            assert view.margin == margin
            assert "db-1" in view.verdict.reason
            assert any("db-1: does not answer: connection refused" in line for line in view.verdict.evidence)


def test_a_single_election_is_neither_churning_nor_lost() -> None:
    world = cluster(3)
    world.verdict()
    world.pass_time(1.0)
    for name in DB:
        world.etcd(name, leader_id="", read_s=0.004)
    verdict = world.verdict()
    assert verdict.state == "at-risk"
    assert "an election" in verdict.reason
    world.pass_time(2.0)
    for name in DB:
        world.etcd(name, leader_id="id-db-2", term=3)
    assert world.verdict().state == "healthy"
    assert world.view().leader == "db-2"
    assert world.view().leader_changes_1h == 1


def test_an_election_that_does_not_end_is_lost() -> None:
    world = cluster(3)
    for _ in range(3):
        for name in DB:
            world.etcd(name, leader_id="", read_s=0.004)
        world.verdict()
        world.pass_time(2.0)
    assert world.verdict().state == "lost"


def test_lost_does_not_turn_into_an_election() -> None:
    world = cluster(3)
    for name in DB:
        world.etcd(name, **TIMED_OUT)
    lost = world.verdict()
    assert lost.state == "lost"
    world.pass_time(2.0)
    for name in DB:
        world.etcd(name, leader_id="", read_s=0.004)
    assert world.verdict().since == lost.since


def test_a_leader_that_comes_back_under_its_term_is_no_change() -> None:
    world = cluster(3)
    world.verdict()
    for leader in ("", "id-db-1", "", "id-db-1"):
        world.pass_time(2.0)
        for name in DB:
            world.etcd(name, leader_id=leader)
        world.verdict()
    assert world.view().leader_changes_1h == 0


def test_leader_after_leader_is_churning_until_it_calms() -> None:
    world = cluster(3)
    world.verdict()
    for term in range(3, 6):
        world.pass_time(20.0)
        for name in DB:
            world.etcd(name, leader_id=f"id-db-{term % 3 + 1}", term=term)
        state = world.verdict().state
        assert state == ("churning" if term == 5 else "healthy")
    assert "3 leader changes in 5 min" in world.verdict().reason
    for _ in range(70):
        world.pass_time(4.0)
        for name in DB:
            world.etcd(name, leader_id="id-db-3", term=5)
        world.verdict()
    assert world.verdict().state == "healthy"
    assert world.view().leader_changes_1h == 3


def test_the_election_that_ends_a_loss_of_quorum_is_no_churn() -> None:
    world = cluster(3)
    world.verdict()
    for term in (3, 4, 5, 6):
        world.pass_time(2.0)
        for name in DB[1:]:
            world.silent_etcd(name)
        world.etcd(DB[0], **TIMED_OUT)
        assert world.verdict().state == "lost"
        world.pass_time(2.0)
        for name in DB:
            world.etcd(name, leader_id="id-db-2", term=term)
        assert world.verdict().state == "healthy"
    assert world.view().leader_changes_1h == 4


def test_a_member_that_lags_behind_is_no_leader_change() -> None:
    world = cluster(3)
    world.verdict()
    for turn in range(20):
        world.pass_time(2.0)
        world.etcd(DB[turn % 3], leader_id="id-db-2", term=3)
        assert world.verdict().state == "healthy"
    assert world.view().leader_changes_1h == 1


def test_split_views_are_evidence() -> None:
    world = cluster(3)
    world.etcd("db-3", leader_id="id-db-3", term=2)
    assert any("split view" in line and "db-3 follows db-3" in line for line in world.verdict().evidence)


def test_too_few_views_are_unknown_and_never_healthy() -> None:
    world = Watch(*DB)
    world.etcd("db-1")
    verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("unknown", Severity.UNKNOWN)
    assert "a read works through db-1" in verdict.reason
    assert world.view().margin is None
    world.etcd("db-2")
    assert world.verdict().state == "at-risk", "db-3 is not proven"
    world.etcd("db-3")
    assert world.verdict().state == "healthy"


def test_a_silent_fleet_is_unknown() -> None:
    world = cluster(3)
    world.verdict()
    world.pass_time(30.0)
    assert world.verdict().state == "unknown"
    assert world.view().leader == ""


def test_hosts_that_no_peer_reaches_count_as_failed() -> None:
    world = cluster(3)
    for _ in range(5):
        world.pass_time(2.0)
        world.etcd("db-1", links=links("db-2", "db-3", state="down"), **TIMED_OUT)
    verdict = world.verdict()
    assert verdict.state == "lost"
    assert any("db-2: its agent is silent and no peer reaches the node" in line for line in verdict.evidence)


def test_hosts_that_are_silent_but_reached_may_be_a_quorum_of_their_own() -> None:
    world = cluster(3)
    for _ in range(5):
        world.pass_time(2.0)
        world.etcd("db-1", **TIMED_OUT)
    assert world.verdict().state == "unknown"


def test_a_goodbye_of_an_agent_says_nothing_of_its_etcd() -> None:
    world = cluster(3)
    world.tell(goodbye("db-3"))
    verdict = world.verdict()
    assert verdict.state == "at-risk"
    assert "db-3 unheard" in verdict.reason


def test_a_frozen_members_old_answer_does_not_count() -> None:
    world = cluster(3)
    world.etcd("db-3", age_s=9.0)
    verdict = world.verdict()
    assert verdict.state == "at-risk"
    assert any("its last answer is 9.0 s old" in line for line in verdict.evidence)


def test_a_read_not_tried_yet_is_no_failure() -> None:
    world = Watch(*DB)
    for name in DB:
        world.etcd(name, read_s=None, read_error="not tried yet")
    assert world.verdict().state == "unknown"


def test_learners_do_not_vote() -> None:
    world = Watch(*DB, "db-4")
    for name in DB:
        world.report(name, etcd=member(name, *(other for other in DB if other != name), learners=("db-4",)))
    world.report("db-4", etcd=member("db-4", *DB, learner=True, learners=()))
    world.report("db-4", etcd=Etcd(answering=False, reason="frozen"))
    view = world.view()
    assert (view.voters, view.margin, view.verdict.state) == (3, 1, "healthy")
    assert [each.node for each in view.members] == [*DB, "db-4"]
    assert world.quorum.members(world.fleet) == frozenset(DB)


def test_a_removed_member_does_not_count() -> None:
    world = cluster(3)
    world.verdict()
    world.pass_time(2.0)
    for name, other in (("db-1", "db-2"), ("db-2", "db-1")):
        world.report(name, etcd=member(name, other, applied_index=200))
    world.etcd("db-3", applied_index=150, **TIMED_OUT)
    view = world.view()
    assert (view.voters, view.verdict.state) == (2, "at-risk")
    assert any("db-3: its etcd is not a member" in line for line in view.verdict.evidence)


def test_members_without_an_agent_are_named_as_etcd_does() -> None:
    world = Watch("db-1", "db-2")
    for name in world.names:
        others = [other for other in (*world.names, "elsewhere") if other != name]
        world.report(name, etcd=member(name, *others))
    view = world.view()
    assert (view.voters, view.verdict.state) == (3, "at-risk")
    assert [each.node for each in view.members] == ["db-1", "db-2", "elsewhere"]
    assert any("elsewhere: no agent" in line for line in view.verdict.evidence)


def test_a_member_that_never_answered_is_found_by_its_peer_address() -> None:
    world = Watch("pi-1", "pi-2", "pi-3")
    members = tuple(
        EtcdMember(id=f"id-{number}", name=f"m{number}", peer_urls=(f"http://10.9.0.{number}:2380",))
        for number in (1, 2, 3)
    )
    for number in (1, 2, 3):
        name = f"pi-{number}"
        world.tell(presence(name, *world.peers(name), addresses=(f"10.9.0.{number}/32",), etcd_member=True))
        answer = Etcd(answering=True, member_id=f"id-{number}", leader_id="id-1", term=2, read_s=0.01, members=members)
        world.report(name, etcd=answer if number < 3 else Etcd(answering=False, reason="frozen"))
    view = world.view()
    assert [each.node for each in view.members] == ["pi-1", "pi-2", "pi-3"]
    assert view.verdict.state == "at-risk"
    assert any("pi-3: does not answer: frozen" in line for line in view.verdict.evidence)


@pytest.mark.parametrize("alarm", ["NOSPACE on db-2", "CORRUPT on db-2"])
def test_alarms_are_critical_whatever_the_state(alarm: str) -> None:
    world = cluster(3)
    world.etcd("db-1", alarms=(alarm,))
    verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("healthy", Severity.CRITICAL)
    assert alarm in verdict.reason


def test_the_links_to_blame_are_named() -> None:
    world = cluster(3)
    world.verdict()
    world.pass_time(2.0)
    for name in DB:
        told = tuple(
            link(peer, path, "down" if path == "overlay" else "up", reason="burst lost" if path == "overlay" else "")
            for peer in world.peers(name)
            for path in ("overlay", "backup")
        )
        world.etcd(name, links=told, **TIMED_OUT)
    verdict = world.verdict()
    assert verdict.state == "lost"
    assert "db-1--db-2/overlay: db-1 sees it down: burst lost" in verdict.evidence
    assert not any("/backup" in line for line in verdict.evidence)
    assert world.quorum.findings.impaired


def test_a_relayed_link_between_members_is_blamed_too() -> None:
    world = cluster(3)
    world.etcd("db-3", links=(link("db-1", relay=Relay.DERP),), **TIMED_OUT)
    assert "db-1--db-3/overlay: db-3 sees it relayed (derp)" in world.verdict().evidence


def test_all_failing_before_any_member_list_was_heard_is_lost() -> None:
    world = Watch(*DB)
    for name in DB:
        world.silent_etcd(name)
    assert world.verdict().state == "lost"


def test_a_cluster_restored_at_a_lower_term_is_believed_after_a_while() -> None:
    world = cluster(3)
    for name in DB:
        world.etcd(name, term=50)
    world.verdict()
    for _ in range(40):
        world.pass_time(2.0)
        for name in DB:
            world.etcd(name, term=2)
        world.verdict()
    assert world.view().term == 2
    assert world.verdict().state == "healthy"


ANSWERS = st.one_of(
    st.none(),
    st.builds(
        Etcd,
        answering=st.booleans(),
        age_s=st.sampled_from((0.0, 3.0, 100.0)),
        member_id=st.sampled_from(("", "id-db-1", "id-db-2", "x")),
        leader_id=st.sampled_from(("", "id-db-1", "id-db-2", "x")),
        term=st.sampled_from((None, 0, 2, 3, 2**63 - 1)),
        applied_index=st.sampled_from((None, 1, 2)),
        learner=st.booleans(),
        alarms=st.sampled_from(((), ("NOSPACE on db-1",), ("odd",))),
        members=st.lists(
            st.builds(EtcdMember, id=st.sampled_from(("id-db-1", "id-db-2", "y")), name=st.sampled_from(("", "db-1"))),
            max_size=3,
        ).map(tuple),
        read_s=st.sampled_from((None, 0.01)),
        read_error=st.sampled_from(("", "timed out", "not tried yet")),
        certificates=st.sampled_from(((), (Certificate(where="a:1", expires_s=-1e12, missing="b"),))),
    ),
)


@given(st.lists(st.tuples(st.sampled_from(DB), ANSWERS, st.sampled_from((0.0, 2.0, 9.0))), max_size=30))
def test_no_story_breaks_it_and_healthy_is_never_said_without_reads(story: list[Any]) -> None:
    world = Watch(*DB)
    for node, answer, pause in story:
        world.pass_time(pause)
        world.seq[node] += 1
        world.tell(report(node, world.seq[node], etcd=answer))
        view = world.view()
        voters = world.quorum.findings.voters
        reads = sum(voter.standing == "reads" for voter in voters)
        if view.verdict.state in ("healthy", "churning"):
            assert reads >= 1
        if view.verdict.state == "healthy" and view.voters > 1:
            assert reads > view.voters // 2
        if view.verdict.state == "lost":
            assert reads == 0
        assert view.margin is None or 0 <= view.margin <= max(view.voters - 1, 0)


# --- what is behind it -----------------------------------------------------------------------------------------------


def churn(world: Watch, turns: int = 4, every: float = 20.0, **changes: Any) -> Verdict:
    """A leader after the other."""
    world.verdict()
    for turn in range(1, turns + 1):
        world.pass_time(every)
        for name in world.names:
            told = {key: each(name) if callable(each) else each for key, each in changes.items()}
            world.etcd(name, leader_id=f"id-{world.names[turn % len(world.names)]}", term=2 + turn, **told)
        verdict = world.verdict()
    return verdict


def trips(world: Watch, slow: str, **figures: Any) -> Any:
    """Links by which the members' traffic goes, those of one node with these figures."""
    usual = {"rtt_s": 0.03, "loss_10s": 0.0, "loss_60s": 0.0, "current": True}

    def told(name: str) -> Any:
        return tuple(
            link(peer, **(usual | (figures if slow in (name, peer) else {}))) for peer in world.peers(name)
        ) + tuple(link(peer, "backup", rtt_s=5.0) for peer in world.peers(name))

    return told


def test_churning_says_how_often_and_which_pairs_explain_it_against_etcds_timers() -> None:
    world = cluster(3)
    verdict = churn(world, links=trips(world, "db-3", rtt_s=0.21))
    assert verdict.state == "churning"
    assert "4 leader changes in 5 min (one every 20 s)" in verdict.reason
    assert "db-1--db-3/overlay: RTT 210 ms" in verdict.reason
    assert "db-1--db-2" not in verdict.reason
    assert "backup" not in verdict.reason, "nothing goes by it"
    assert any("heartbeat of 100 ms and election timeout of 1000 ms" in line for line in verdict.evidence)
    assert world.quorum.findings.blamed == ("db-1--db-3/overlay", "db-2--db-3/overlay")


def test_loss_explains_it_too_and_other_timers_bear_more() -> None:
    world = cluster(3)
    assert "12% lost" in churn(world, links=trips(world, "db-3", loss_10s=0.1, loss_60s=0.12)).reason
    patient = Watch(*DB, failover=Failover(quality=Quality(etcd_heartbeat_s=0.5, etcd_election_s=5.0)))
    for name in DB:
        patient.etcd(name)
    patient.verdict()
    assert "RTT" not in churn(patient, links=trips(patient, "db-3", rtt_s=0.21)).reason


def test_churning_by_a_slow_disk_or_by_nothing_that_is_seen() -> None:
    world = cluster(3)
    slow = {"db-2": system(disk_io=(DiskIo(device="mmcblk0", await_s=0.4),))}
    verdict = churn(world, links=trips(world, ""))
    assert "etcd's own log would" in verdict.reason
    for _ in range(3):
        world.pass_time(2.0)
        for name in DB:
            told = {"etcd": member(name, *world.peers(name), term=6), "system": slow.get(name)}
            world.report(name, links=trips(world, "")(name), **told)
        verdict = world.verdict()
    assert "db-2: its disk mmcblk0 takes 400 ms for a request" in verdict.reason


@pytest.mark.parametrize("size", [3, 5, 7])
def test_lost_says_who_is_missing_and_by_which_path_it_is_reached(size: int) -> None:
    world = cluster(size)
    gone = world.names[size // 2 :]
    for _ in range(6):
        world.pass_time(2.0)
        for name in world.names[: size // 2]:
            told = tuple(
                link(peer, path, "down" if peer in gone[:-1] or (peer in gone and path == "overlay") else "up")
                for peer in world.peers(name)
                for path in ("overlay", "backup")
            )
            world.etcd(name, links=told, **TIMED_OUT)
        frozen = Etcd(answering=False, reason="no answer from 127.0.0.1:2379 in 2 s")
        world.report(gone[-1], etcd=frozen, links=links(*gone[:-1], state="down"))
        world.verdict()
    verdict = world.verdict()
    assert verdict.state == "lost"
    lines = "\n".join(verdict.evidence)
    assert f"{gone[0]}: no peer reaches its node by overlay or by backup" in lines
    assert f"{gone[-1]}: peers reach its node by backup, not by overlay" in lines
    if size == 3:
        assert f"{gone[0]}: missing, no peer reaches its node by overlay or by backup" in verdict.reason
        assert f"{gone[-1]}: frozen, or starved, peers reach its node by backup" in verdict.reason


def test_a_metered_path_answers_seldom_and_still_reaches_a_member() -> None:
    world = cluster(3)
    paths = (PathOffer(name="overlay"), PathOffer(name="backup", metered=True, idle_interval_s=5.0))
    for name in ("db-1", "db-2"):
        world.tell(presence(name, *world.peers(name), paths=paths))
        ways = (link("db-3", "overlay", "down"), link("db-3", "backup", proven_s=9.0))
        world.etcd(name, links=ways)
    world.silent_etcd("db-3", "no answer in 2 s")
    assert "db-3: peers reach its node by backup, not by overlay" in world.verdict().evidence


@pytest.mark.parametrize(
    ("reason", "words"), [("127.0.0.1:2379 refused the connection", "not running"), ("no answer in 2 s", "frozen")]
)
def test_a_member_that_is_frozen_is_not_one_that_does_not_run(reason: str, words: str) -> None:
    world = cluster(3)
    world.silent_etcd("db-3", reason)
    assert f"db-3: {words}" in world.verdict().reason


def test_a_full_quota_says_that_writes_are_refused() -> None:
    world = cluster(5)
    world.etcd("db-1", alarms=("NOSPACE on db-2",))
    assert "alarm NOSPACE on db-2 (its disk quota is full: writes are refused)" in world.verdict().reason
    world.etcd("db-1")
    assert world.verdict().severity is Severity.OK


def test_members_that_follow_different_leaders_for_long_are_trouble() -> None:
    world = cluster(5)
    severities = []
    for _ in range(8):
        world.pass_time(2.0)
        for name in world.names:
            world.etcd(name, **({"leader_id": "id-db-5"} if name == "db-5" else {}))
        severities.append(world.verdict().severity)
    assert severities[0] is Severity.OK
    assert severities[-1] is Severity.WARNING
    assert "split view: db-5 follows db-5" in world.verdict().reason
    for name in world.names:
        world.etcd(name)
    assert world.verdict().severity is Severity.OK


def test_who_joins_and_who_leaves_is_told_once() -> None:
    world = cluster(3)
    world.verdict()
    world.pass_time(2.0)
    for name in DB:
        world.report(name, etcd=member(name, *world.peers(name), learners=("db-4",)))
    world.verdict()
    assert world.quorum.take_news() == ["db-4 joined as a learner (id-db-4)"]
    assert any("db-4 is a learner" in line for line in world.verdict().evidence)
    world.pass_time(2.0)
    for name in DB:
        world.report(name, etcd=member(name, *world.peers(name), "db-4"))
    world.verdict()
    assert world.quorum.take_news() == ["db-4 votes: it was a learner"]
    world.pass_time(2.0)
    for name in ("db-1", "db-2"):
        world.report(name, etcd=member(name, "db-4", "db-1" if name == "db-2" else "db-2", applied_index=500))
    world.verdict()
    assert world.quorum.take_news() == ["db-3 was removed from the cluster (member id-db-3)"]
    assert world.quorum.take_news() == []
    assert any("db-3 was removed from the cluster" in line for line in world.verdict().evidence)


def test_a_member_that_comes_back_with_another_id_was_replaced() -> None:
    world = cluster(3)
    world.verdict()
    world.pass_time(2.0)
    new = tuple(EtcdMember(id="new" if name == "db-3" else f"id-{name}", name=name) for name in DB)
    for name in ("db-1", "db-2"):
        world.etcd(name, members=new)
    world.etcd("db-3", members=new, member_id="new")
    world.verdict()
    assert world.quorum.take_news() == ["db-3 was replaced: member id-db-3 became new"]


DAY = 86_400.0


@pytest.mark.parametrize(
    ("certificate", "severity", "words"),
    [
        (Certificate(where="10.1.0.2:2380", expires_s=15 * DAY), Severity.OK, ""),
        (Certificate(where="10.1.0.2:2380", expires_s=13 * DAY), Severity.WARNING, "10.1.0.2:2380 expires in 13 days"),
        (Certificate(where="10.1.0.2:2380", expires_s=1 * DAY), Severity.CRITICAL, "expires in 24 h"),
        (Certificate(where="10.1.0.2:2380", expires_s=-3 * DAY), Severity.CRITICAL, "has expired, 3 days ago"),
        (
            Certificate(where="x:2380", expires_s=90 * DAY, missing="10.1.0.2"),
            Severity.WARNING,
            "does not name the service address 10.1.0.2",
        ),
        (Certificate(where="x:2380"), Severity.OK, ""),
    ],
)
def test_certificates(certificate: Certificate, severity: Severity, words: str) -> None:
    world = cluster(3)
    world.etcd("db-2", certificates=(certificate,))
    verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("healthy", severity)
    assert words in verdict.reason
    if words:
        assert "the certificate of db-2" in verdict.reason
        world.etcd("db-2")
        assert world.verdict().severity is Severity.OK


@given(st.lists(st.tuples(st.sampled_from(DB), ANSWERS, st.sampled_from((0.0, 2.0, 9.0))), max_size=20))
def test_the_same_story_gives_the_same_words_and_all_of_it_passes(story: list[Any]) -> None:
    worlds = Watch(*DB), Watch(*DB)
    for world in worlds:
        for node, answer, pause in story:
            world.pass_time(pause)
            world.seq[node] += 1
            world.tell(report(node, world.seq[node], etcd=answer))
            world.verdict()
    assert worlds[0].verdict() == worlds[1].verdict()
    world = worlds[0]
    for _ in range(400):
        world.pass_time(2.0)
        for name in DB:
            world.etcd(name)
        verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("healthy", Severity.OK), verdict.reason


# --- other clusters, full disks, elections as they are seen -----------------------------------------------------------


def of_cluster(world: Watch, name: str, cluster_id: str, *others: str, **changes: Any) -> None:
    """The node's etcd is of that cluster, in which `others` are too."""
    world.report(name, etcd=member(name, *others, cluster_id=cluster_id, **changes))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("new_id", ["id-db-3", "new"])
def test_a_member_that_began_a_cluster_of_its_own_is_none_of_the_others(known: bool, new_id: str) -> None:
    """Its data were lost and it was started as new: it answers, reads, and knows a leader: itself."""
    world = Watch(*DB)
    if known:
        for name in DB:
            of_cluster(world, name, "c1", *world.peers(name))
        assert world.verdict().state == "healthy"
    alone = (EtcdMember(id=new_id, name="db-3"),)
    for _ in range(3):
        world.pass_time(2.0)
        of_cluster(world, "db-1", "c1", "db-2", "db-3")
        of_cluster(world, "db-2", "c1", "db-1", "db-3")
        of_cluster(world, "db-3", "c2", member_id=new_id, members=alone, leader_id=new_id, term=9, applied_index=4)
        view = world.view()
    assert (view.voters, view.margin, view.verdict.state) == (3, 0, "at-risk")
    assert view.verdict.severity is Severity.CRITICAL
    assert view.leader == "db-1"
    assert "db-3: its etcd is of another cluster (c2)" in view.verdict.reason
    assert view.leader_changes_1h == 0


def test_one_that_reads_alone_does_not_hide_that_the_others_lost_their_quorum() -> None:
    world = Watch(*DB)
    for name in DB:
        of_cluster(world, name, "c1", *world.peers(name))
    world.verdict()
    for _ in range(3):
        world.pass_time(2.0)
        of_cluster(world, "db-1", "c1", "db-2", "db-3", **TIMED_OUT)
        world.silent_etcd("db-2")
        alone = (EtcdMember(id="id-db-3", name="db-3"),)
        of_cluster(world, "db-3", "c2", members=alone, leader_id="id-db-3")
        state = world.verdict().state
    assert state == "lost"


def test_a_cluster_restored_by_most_of_its_nodes_is_believed() -> None:
    world = Watch(*DB)
    for name in DB:
        of_cluster(world, name, "c1", *world.peers(name))
    world.verdict()
    world.pass_time(2.0)
    of_cluster(world, "db-1", "c2", "db-2")
    of_cluster(world, "db-2", "c2", "db-1")
    of_cluster(world, "db-3", "c1", "db-1", "db-2", **TIMED_OUT)
    view = world.view()
    assert (view.voters, view.verdict.state) == (2, "at-risk")
    assert "db-3: its etcd is of another cluster (c1)" in view.verdict.reason


def test_agents_that_do_not_tell_the_cluster_are_judged_without() -> None:
    world = Watch(*DB)
    for name, cluster_id in (("db-1", "c1"), ("db-2", ""), ("db-3", "")):
        of_cluster(world, name, cluster_id, *world.peers(name))
    assert world.verdict().severity is Severity.OK


def test_a_member_that_ended_on_a_full_disk_says_so() -> None:
    world = cluster(3)
    full = system(disks=(Disk(mount="/var", used=1.0, free_bytes=0),))
    world.report("db-3", etcd=Etcd(answering=False, reason="127.0.0.1:2379 refused the connection"), system=full)
    assert "db-3: not running, its file system /var is full" in world.verdict().reason


@pytest.mark.parametrize("every", [2.0, 30.0, 300.0])
def test_how_old_an_answer_may_be_follows_how_often_the_agent_asks(every: float) -> None:
    world = cluster(3)
    world.etcd("db-3", age_s=every + 1.0, patience_s=every + 6.0)
    assert world.verdict().severity is Severity.OK
    world.etcd("db-3", age_s=every + 7.0, patience_s=every + 6.0)
    assert "frozen" in world.verdict().reason


CHANGED: dict[str, Any] = {"read_s": None, "read_error": "127.0.0.1:2379: leader changed"}


@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_normal_election_as_its_members_tell_of_it_is_no_trouble(size: int) -> None:
    """A leader hands over or stalls: reads that wait fail once, some members know no leader, for some seconds."""
    world = cluster(size)
    world.verdict()
    world.pass_time(1.0)
    leader = {"leader_id": f"id-db-{size}", "term": 3}
    for number, name in enumerate(world.names):
        world.etcd(name, **CHANGED, **({"leader_id": ""} if number % 2 else leader))
    assert world.verdict().state == "at-risk"
    assert world.verdict().severity is Severity.INFO
    for name in world.names:
        world.pass_time(0.5)
        world.etcd(name, **leader)
        assert world.verdict().severity in (Severity.OK, Severity.INFO), world.verdict().reason
    assert (world.verdict().state, world.verdict().severity) == ("healthy", Severity.OK)


def test_an_election_beside_a_member_that_is_away_is_trouble_at_once() -> None:
    world = cluster(3)
    world.etcd("db-2", **CHANGED)
    world.silent_etcd("db-3")
    assert (world.verdict().state, world.verdict().severity) == ("at-risk", Severity.WARNING)


def test_a_certificate_that_is_over_is_told_of_a_member_that_nobody_can_ask_any_more() -> None:
    """Its own agent is refused by it too, and so are its peers: that is why."""
    world = cluster(3)
    over = Certificate(where="10.1.0.3:2380", expires_s=-3600.0)
    refused = Etcd(answering=False, reason="127.0.0.1:2379: its certificate is out of date", certificates=(over,))
    world.report("db-3", etcd=refused)
    verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("at-risk", Severity.CRITICAL)
    assert "the certificate of db-3 at 10.1.0.3:2380 has expired" in verdict.reason


def test_a_learners_certificate_is_looked_at_too() -> None:
    world = Watch(*DB, "db-4")
    for name in DB:
        world.report(name, etcd=member(name, *(other for other in DB if other != name), learners=("db-4",)))
    soon = Certificate(where="10.1.0.4:2380", expires_s=5 * DAY)
    world.report("db-4", etcd=member("db-4", *DB, learner=True, members=(), certificates=(soon,)))
    assert "the certificate of db-4 at 10.1.0.4:2380 expires in 5 days" in world.verdict().reason


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(
    ("told", "title"),
    [
        ({"alarms": ("NOSPACE on db-1",)}, "etcd needs attention: alarm NOSPACE on db-1"),
        (
            {"certificates": (Certificate(where="10.1.0.1:2380", expires_s=5 * DAY),)},
            "etcd needs attention: the certificate of db-1 at 10.1.0.1:2380 expires in 5 days",
        ),
    ],
)
def test_what_needs_attention_is_in_the_title_and_in_the_chain(size: int, told: dict[str, Any], title: str) -> None:
    world = cluster(size)
    world.etcd("db-1", **told)
    trouble = Trouble(world.verdict(), world.now)
    assert words(own_cause(trouble.key), [trouble]) == title
    chain = why(own_cause(trouble.key), [trouble], lambda _: True, lambda _: "now")
    assert chain.startswith(f"etcd: {title.partition(': ')[2]}"), chain
