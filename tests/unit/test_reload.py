"""A configuration that is read again: what counts at once, what waits, and that nothing is lost by it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from unit.agent_world import A, Word, World
from vagus_agent.config import Check, Config, Etcd, Mqtt, Path, Peer, Probe, Report, Steering, Tailscale
from vagus_agent.core.prober import Prober, Send
from vagus_agent.core.reload import plan
from vagus_protocol.messages import EventKind, LinkState

PATHS = (Path(name="overlay", interface="o0"), Path(name="backup", interface="b0"))
RUNNING = Config(
    fleet="f",
    node="a",
    addresses=(ip_address("10.99.0.1"),),
    paths=PATHS,
    mqtt=Mqtt(brokers=()),
    keys_file="/k",
    peers=(Peer(name="b", addresses=(ip_address("10.99.0.2"),)),),
)
C = Peer(name="c", addresses=(ip_address("10.99.0.3"),))

# What is another in the file, by the name it is told under.
AT_ONCE: dict[str, dict[str, Any]] = {
    "site": {"site": "Osaka"},
    "peers": {"peers": (*RUNNING.peers, C)},
    "reflex": {"reflex": "always"},
    "orphaned_after_s": {"orphaned_after_s": 9.0},
    "automatic": {"automatic": False},
    "on_stop": {"on_stop": "clear"},
    "report": {"report": Report(interval_s=5.0)},
    "checks": {"checks": (Check(name="db", tcp="10.99.0.2:5432"),)},
    "log_level": {"log_level": "debug"},
    "steering.recheck_s": {"steering": Steering(recheck_s=60.0)},
    "path overlay: idle_interval_s": {"paths": (replace(PATHS[0], idle_interval_s=1.0), PATHS[1])},
    "path backup: metered": {"paths": (PATHS[0], replace(PATHS[1], metered=True))},
} | {
    f"probe.{field.name}": {"probe": replace(Probe(), **{field.name: field.default + 1})}
    for field in msgspec.structs.fields(Probe)
    if field.name != "port"
}
LATER: dict[str, dict[str, Any]] = {
    "fleet": {"fleet": "g"},
    "node": {"node": "z"},
    "addresses": {"addresses": (ip_address("10.99.0.9"),)},
    "mqtt": {"mqtt": Mqtt(brokers=(), username="a")},
    "keys_file": {"keys_file": "/other"},
    "state_dir": {"state_dir": "/other"},
    "etcd": {"etcd": Etcd()},
    "tailscale": {"tailscale": Tailscale()},
    "probe.port": {"probe": Probe(port=5181)},
    "paths": {"paths": (*PATHS, Path(name="lte", interface="l0"))},
    "path overlay: interface": {"paths": (replace(PATHS[0], interface="o1"), PATHS[1])},
    "path backup: networks": {"paths": (PATHS[0], replace(PATHS[1], networks=(ip_network("10.88.0.0/24"),)))},
} | {
    f"steering.{name}": {"steering": replace(Steering(), **{name: value})}
    for name, value in {
        "enabled": False,
        "table": 7,
        "priority": 7,
        "protocol": 7,
        "mark": 0x10000,
        "mask": 0x30000,
        "flush_conntrack": True,
    }.items()
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_this_counts_at_once(name: str) -> None:
    read = replace(RUNNING, **AT_ONCE[name])
    assert plan(RUNNING, read) == (read, (name,), ())


@pytest.mark.parametrize("name", LATER)
def test_this_needs_a_restart_and_is_told_by_its_name(name: str) -> None:
    assert plan(RUNNING, replace(RUNNING, **LATER[name])) == (RUNNING, (), (name,))


def test_every_setting_is_one_or_the_other() -> None:
    told = {name.partition(": ")[2] or name for name in (*AT_ONCE, *LATER)}
    settings = {field.name for field in msgspec.structs.fields(Config)} - {"probe", "steering"}
    settings |= {f"probe.{field.name}" for field in msgspec.structs.fields(Probe)}
    settings |= {f"steering.{field.name}" for field in msgspec.structs.fields(Steering)}
    settings |= {field.name for field in msgspec.structs.fields(Path)} - {"name"}
    assert told == settings


def test_of_a_file_with_both_each_is_told() -> None:
    read = replace(RUNNING, peers=(C,), mqtt=Mqtt(brokers=(), username="a"), probe=Probe(port=1, burst=3))
    assert plan(RUNNING, read) == (
        replace(RUNNING, peers=(C,), probe=Probe(burst=3)),
        ("peers", "probe.burst"),
        ("mqtt", "probe.port"),
    )


def test_peers_wait_with_the_paths_that_they_are_offered() -> None:
    lte = Path(name="lte", interface="l0")
    read = replace(RUNNING, paths=(*PATHS, lte), peers=(replace(RUNNING.peers[0], paths=("lte",)),))
    assert plan(RUNNING, read) == (RUNNING, (), ("paths", "peers"))


def test_nothing_new_is_nothing() -> None:
    assert plan(RUNNING, RUNNING) == (RUNNING, (), ())


# --- probing -------------------------------------------------------------------------------------------------------


class Wire:
    """Probers whose packets arrive after 5 ms, as long as both know each other."""

    def __init__(self, *configs: Config) -> None:
        self.now = 1000.0
        self.ends = {
            config.node: Prober(config, b"k" * 32, number, self.now, 0.3) for number, config in enumerate(configs, 1)
        }
        self._flying: list[tuple[float, str, str, Send]] = []
        self.sent: list[tuple[str, str]] = []

    def _send(self, source: str, sends: list[Send]) -> None:
        for send in sends:
            self.sent.append((source, send.peer))
            self._flying.append((self.now + 0.005, source, send.peer, send))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = min([*(prober.deadline for prober in self.ends.values()), *(one[0] for one in self._flying)])
            if due > end:
                break
            self.now = max(self.now, due)
            for one in [one for one in self._flying if one[0] <= self.now]:
                self._flying.remove(one)
                _, source, target, send = one
                if target in self.ends:
                    found = self.ends[target].received(send.data, source, send.path, self.now, self.now, 0.0)
                    self._send(target, found)
            for name, prober in self.ends.items():
                self._send(name, prober.poll(self.now))
        self.now = end

    def states(self, name: str) -> dict[tuple[str, str], LinkState]:
        return {(link.peer, link.path): link.state for link in self.ends[name].links}


def node(name: str, *peers: str, **more: Any) -> Config:
    return replace(
        RUNNING,
        node=name,
        peers=tuple(Peer(name=peer, addresses=(ip_address(f"10.99.0.{ord(peer)}"),)) for peer in peers),
        **more,
    )


def test_links_that_stay_keep_all_they_know_whenever_the_reload_comes() -> None:
    for moment in (0.0, 0.001, 0.006, 0.05, 0.13, 0.24):
        wire = Wire(node("a", "b"), node("b", "a"))
        wire.run(5 + moment)
        a, b = wire.ends["a"], wire.ends["b"]
        before = list(a.links)
        assert {link.state for link in before} == {LinkState.UP}
        a.changes.clear()
        b.changes.clear()
        a.reconfigure(node("a", "b", "c", probe=Probe(burst=3, up_after=9)), wire.now, 0.7)
        wire.run(8)
        assert a.links[:2] == before, "the same links, and what they know"
        assert [change for change in (*a.changes, *b.changes) if change.link.peer != "c"] == []
        assert all(link.loss(wire.now, 60) == 0 for link in (*before, *b.links))
        assert wire.states("a")["c", "overlay"] is LinkState.DOWN, "the new peer is probed, and there is none yet"


def test_a_new_peer_comes_up_and_one_that_is_gone_is_left_alone() -> None:
    wire = Wire(node("a", "b"), node("b", "a"), node("c", "a"))
    wire.run(3)
    wire.ends["a"].reconfigure(node("a", "c"), wire.now, 0.7)
    wire.sent.clear()
    wire.run(5)
    assert set(wire.states("a").values()) == {LinkState.UP}
    assert set(wire.states("a")) == {("c", "overlay"), ("c", "backup")}
    assert set(wire.states("c").values()) == {LinkState.UP}
    assert ("a", "b") not in wire.sent
    wire.ends["a"].reconfigure(node("a", "b", "c"), wire.now, 0.7)
    wire.run(5)
    assert set(wire.states("a").values()) == {LinkState.UP}


def test_an_interval_counts_at_once_in_both_directions() -> None:
    wire = Wire(node("a", "b"), node("b", "a"))
    wire.run(3)
    slow = (replace(PATHS[0], idle_interval_s=2.0), replace(PATHS[1], idle_interval_s=2.0))
    for paths, least, most in ((slow, 8, 14), (PATHS, 75, 90)):
        for name, peer in (("a", "b"), ("b", "a")):
            wire.ends[name].reconfigure(node(name, peer, paths=paths), wire.now, 0.7)
        wire.sent.clear()
        wire.run(10)
        probes = sum(source == "a" for source, _ in wire.sent) / 2  # as many echoes
        assert least <= probes <= most
        assert set(wire.states("a").values()) == {LinkState.UP}


def test_thresholds_count_from_the_next_burst_on() -> None:
    wire = Wire(node("a", "b"), node("b", "a"))
    wire.run(3)
    wire.ends["a"].reconfigure(node("a", "b", probe=Probe(burst=3)), wire.now, 0.7)
    del wire.ends["b"]
    wire.run(2)
    assert [link.reason.partition(" burst")[0] for link in wire.ends["a"].links] == ["3 of 3", "3 of 3"]


# --- conduct -------------------------------------------------------------------------------------------------------


def reconfigure(world: World, config: Config) -> None:
    """As the daemon does it: the links are what the configuration says, then the conduct is told."""
    for peer in world.links.keys() - {peer.name for peer in config.peers}:
        del world.links[peer]
        del world.kernel[peer]
    for peer in config.peers:
        offered = {path.name for path in config.paths_to(peer)}
        world.links[peer.name] = [link for link in world.links[peer.name] if link.path in offered]
    world.conduct.reconfigure(config, world.now)
    world._look()
    world.follow()


def test_what_is_still_offered_stays_where_it_is() -> None:
    world = World()
    world.say((1, 1), b="backup", c="backup")
    world.run(1)
    reconfigure(world, replace(A, orphaned_after_s=60.0, peers=A.peers[:1]))
    world.run(1)
    assert world.paths == {"b": "backup"}
    assert world.observed.paths == {"b": "backup"}
    world.say((1, 1), b="backup", c="backup")
    assert world.said(EventKind.REFUSED) == [], "the same word again, of a peer that is gone, is no trouble"
    world.say((1, 2), b="overlay")
    assert world.paths == {"b": "overlay"}


def test_a_trial_of_what_is_not_offered_any_more_is_over_and_nobody_waits_for_it() -> None:
    world = World(proof_s=5.0)
    world.say((1, 1), b=Word("lte", trial=True), c=Word("lte", trial=True))
    world.run(0.5)
    reconfigure(world, replace(A, peers=(replace(A.peers[0], paths=("overlay", "backup")),)))
    world.run(30)
    assert world.paths == {"b": "overlay"}
    assert world.verification("b").state == "reverted"
    assert "not in the configuration any more" in world.verification("b").reason


def test_a_reflex_of_its_own_ends_with_the_path_and_orphans_are_counted_anew() -> None:
    world = World(config=replace(A, reflex="always"))
    world.break_link("b", "overlay")
    world.run(3)
    assert world.paths["b"] == "backup"
    reconfigure(world, replace(A, reflex="off"))
    assert world.paths["b"] == "backup", "held: settings move nothing"
    reconfigure(world, replace(A, reflex="off", peers=(replace(A.peers[0], paths=("overlay", "lte")), A.peers[1])))
    assert world.paths["b"] == "overlay"
    world.led(False)
    reconfigure(world, replace(A, reflex="orphaned", orphaned_after_s=60.0))
    world.run(30)
    assert not world.conduct.orphaned(world.now)
    reconfigure(world, replace(A, orphaned_after_s=5.0))
    assert world.conduct.orphaned(world.now)
