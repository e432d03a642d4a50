"""The lab does what it says: what every claim of the demo and the bench stands on."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.harness import EtcdWatch, HostSpec, Lab, LabError, TcpStream, UdpStream, sweep
from lab.harness.services import FLEET, to_toml
from vagus_agent import config_file as agent_config
from vagus_controller import config_file as controller_config
from vagus_protocol import topics

THREE = (
    HostSpec("pi1", "tokyo", {"etcd"}),
    HostSpec("pi2", "austin", {"etcd"}),
    HostSpec("vps", "frankfurt", {"etcd", "broker", "controller"}),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """Three hosts with static routes; a test that breaks something mends it."""
    with Lab(THREE, static_routes=True) as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    yield shared
    shared.mend("overlay")
    shared.mend("backup")
    shared.static_routes("overlay")


def wait_for(condition: object, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes on this machine that name `directory`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if directory.name in line:
            found.append(line)
    return found


@pytest.mark.parametrize("path", ["overlay", "backup"])
def test_both_tunnels_carry_the_service_addresses(lab: Lab, path: str) -> None:
    lab.static_routes(path)  # type: ignore[arg-type]
    other = {"overlay": "backup", "backup": "overlay"}[path]
    lab.cut(other)  # type: ignore[arg-type]
    for peer in (lab["pi2"], lab["vps"]):
        for address in (peer.service, peer.service6):
            pings = lab["pi1"].ping(address)
            assert (pings.answered, pings.errors) == (3, []), f"{address} over {path}"


def test_without_static_routes_nothing_routes_service_addresses_and_leaks_are_counted() -> None:
    with Lab(THREE[:2]) as lab:
        assert lab.leaks() == 0
        assert lab["pi1"].ping(lab["pi2"].overlay).answered == 3
        assert lab["pi1"].ping(lab["pi2"].service, timeout_s=0.2).answered == 0
        assert lab["pi1"].ping(lab["pi2"].service6, timeout_s=0.2).answered == 0
        assert lab.leaks() == 6


def test_a_cut_is_silent_and_only_where_asked_for_and_mends(lab: Lab) -> None:
    one, two, three = lab["pi1"], lab["pi2"], lab["vps"]
    lab.cut("overlay", "pi1", "pi2")
    pings = one.ping(two.service, timeout_s=0.3)
    assert (pings.answered, pings.errors) == (0, [])
    assert two.ping(one.service6, timeout_s=0.3).answered == 0
    assert one.ping(three.service).answered == 3
    assert one.ping(two.backup).answered == 3
    lab.mend("overlay", "pi1")
    assert one.ping(two.service).answered == 3


def test_a_cut_everywhere_is_one_moment(lab: Lab) -> None:
    with UdpStream(lab, "pi1", "pi2") as one, UdpStream(lab, "vps", "pi1", ipv6=True) as two:
        time.sleep(0.3)
        at = lab.cut("overlay")
        time.sleep(0.3)
        lab.mend("overlay")
        time.sleep(1.0)
        gaps = [stream.gap(at) for stream in (one, two)]
    for gap in gaps:
        assert gap.seconds > 0.25
        assert gap.lost > 40
    assert abs(gaps[0].start - gaps[1].start) < 0.25


def test_one_way_cut_drops_one_direction(lab: Lab) -> None:
    with UdpStream(lab, "pi1", "pi2") as there, UdpStream(lab, "pi2", "pi1") as back:
        at = lab.cut("overlay", "pi1", "pi2", one_way=True)
        time.sleep(0.4)
        until = time.monotonic()
        time.sleep(0.5)
        assert there.gap(at, until).seconds > 0.3
        assert back.gap(at, until).lost == 0


def test_loss_drops_a_share(lab: Lab) -> None:
    lab.loss("overlay", 0.3, "pi1", "pi2", one_way=True)
    with UdpStream(lab, "pi1", "pi2", interval_s=0.002) as stream:
        time.sleep(1.5)
        arrivals = stream.arrivals()
    share = 1 - len(arrivals) / (arrivals[-1].seq + 1)
    assert 0.2 < share < 0.4


def test_degrade_sends_the_overlay_through_a_relay_and_the_stand_in_says_so(lab: Lab) -> None:
    one, two = lab["pi1"], lab["pi2"]
    assert one.ping(two.service).answered == 3
    assert peer_status(lab, "pi1", "pi2")["CurAddr"] == f"{two.underlay}:41641"
    lab.degrade("pi1", "pi2", delay_s=0.05, jitter_s=0.01)
    rtts = [rtt for rtt in one.ping(two.service).rtts if rtt is not None]
    assert len(rtts) == 3
    assert all(rtt >= 0.1 for rtt in rtts)
    assert one.ping(lab["vps"].service).answered == 3
    status = peer_status(lab, "pi1", "pi2")
    assert (status["CurAddr"], status["Active"]) == ("", True)
    lab.cut("overlay", "pi1", "pi2")
    assert one.ping(two.service, timeout_s=0.4).answered == 0
    lab.mend("overlay")
    rtts = [rtt for rtt in one.ping(two.service).rtts if rtt is not None]
    assert len(rtts) == 3
    assert min(rtts) < 0.1
    assert peer_status(lab, "pi1", "pi2")["CurAddr"] == f"{two.underlay}:41641"
    lab.degrade("pi1", "pi2", delay_s=0.001, jitter_s=0, loss=0.5)
    pings = one.ping(two.service, count=60, interval_s=0.01, timeout_s=0.3)
    assert 1 <= pings.answered <= 40  # a quarter is left after both ways


def test_overlay_interface_gone_and_back(lab: Lab) -> None:
    lab.overlay_gone("pi1")
    assert "tailscale0" not in lab["pi1"].run(["ip", "-o", "link"]).stdout
    assert local_status(lab, "pi1")["BackendState"] == "Stopped"
    lab.overlay_back("pi1")
    assert local_status(lab, "pi1")["BackendState"] == "Running"
    assert lab["pi1"].ping(lab["pi2"].service, timeout_s=6).answered == 3


def local_status(lab: Lab, name: str, headers: str = "Host: local-tailscaled.sock") -> dict[str, object]:
    script = (
        "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect('/var/run/tailscale/tailscaled.sock');"
        f"s.sendall(b'GET /localapi/v0/status HTTP/1.1\\r\\n{headers}\\r\\n\\r\\n');"
        "sys.stdout.write(s.makefile().read())"
    )
    head, _, body = lab[name].run([sys.executable, "-I", "-S", "-c", script]).stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 200"), head
    return dict(json.loads(body))


def peer_status(lab: Lab, name: str, peer: str) -> dict[str, object]:
    peers = local_status(lab, name)["Peer"]
    assert isinstance(peers, dict)
    return next(dict(one) for one in peers.values() if one["HostName"] == peer)


def test_stand_in_refuses_what_localapi_refuses(lab: Lab) -> None:
    with pytest.raises(AssertionError, match="403"):
        local_status(lab, "pi1", "Host: localhost:8080")


def test_a_frozen_host_answers_nothing_and_goes_on_when_thawed(lab: Lab) -> None:
    with UdpStream(lab, "pi1", "pi2") as stream:
        at = time.monotonic()
        lab["pi2"].freeze()
        time.sleep(0.3)
        lab["pi2"].thaw()
        time.sleep(0.2)
        assert stream.gap(at).seconds > 0.25
    assert lab["pi1"].ping(lab["pi2"].service).answered == 3


def test_a_hog_is_bounded_and_named(lab: Lab) -> None:
    hog = lab["pi2"].hog(3, 1.0, name="encoder")
    wait_for(lambda: lab["pi2"].run(["pgrep", "-c", "-x", "encoder"], check=False).stdout.strip() == "3")
    assert lab["pi1"].run(["pgrep", "-c", "-x", "encoder"], check=False).stdout.strip() == "0"
    assert hog.wait(15) == 0


def test_host_killed_and_booted() -> None:
    with Lab(THREE, static_routes=True) as lab:
        lab.kill_host("pi2")
        pings = lab["pi1"].ping(lab["pi2"].service, timeout_s=0.3)
        assert (pings.answered, pings.errors) == (0, [])
        with pytest.raises(LabError, match="pi2 is not running"):
            lab["pi2"].run(["true"])
        lab.boot_host("pi2")
        assert lab["pi2"].ping(lab["pi1"].service, timeout_s=6).answered == 3


def test_a_tcp_connection_lives_through_a_switch_by_hand(lab: Lab) -> None:
    with TcpStream(lab, "pi1", "pi2") as stream:
        at = lab.cut("overlay")
        lab.static_routes("backup")
        time.sleep(1.5)
        assert stream.stall(at).seconds < 1.2
        assert (stream.alive, stream.connections(), stream.ended()) == (True, 1, "")
        assert stream.receipts()[-1].sent > at + 0.5
        assert stream.four_tuple[0] == lab["pi1"].service


def test_etcd_elects_a_leader_and_keeps_it_when_nothing_happens(lab: Lab) -> None:
    lab.start_etcd()
    members = json.loads(
        lab["pi1"].run(["etcdctl", "endpoint", "status", "--cluster", "-w", "json"], env={"ETCDCTL_API": "3"}).stdout
    )
    assert len(members) == 3
    assert len({one["Status"]["leader"] for one in members}) == 1
    with EtcdWatch(lab) as watch:
        since = time.monotonic()
        time.sleep(1.5)
        assert watch.failed_reads(since) == []
        assert len(watch.leaders(since)) == 1
        assert {one.member for one in watch.readings(since)} == {"pi1", "pi2", "vps"}
        lab.fault("etcd-freeze", "pi1")
        time.sleep(0.5)
        frozen = time.monotonic()
        wait_for(lambda: watch.failed_reads(since))
        # Others' reads fail too while they elect, where it was the leader.
        wait_for(lambda: "pi1" in {one.member for one in watch.failed_reads(since)})
        lab.fault("etcd-thaw", "pi1")
        wait_for(lambda: [one for one in watch.readings(frozen) if one.member == "pi1" and one.read_s is not None], 20)


def mosquitto_client(lab: Lab, host: str, to: str, *args: str) -> subprocess.CompletedProcess[str]:
    """paho in the host: Debian's mosquitto package has no client programs."""
    script = Path(__file__).with_name("mqtt_try.py")
    return lab[host].run([sys.executable, str(script), to, *args], check=False, timeout_s=20)


def test_broker_wants_the_password_and_holds_to_the_acl(lab: Lab) -> None:
    lab.start_broker()
    vps, password = lab["vps"], lab.passwords["pi1"]
    own, foreign = topics.node(FLEET, "pi1", "report"), topics.node(FLEET, "pi2", "report")
    desired = topics.node(FLEET, "pi1", "desired")
    try:
        for address in (vps.underlay, vps.backup, vps.service, vps.overlay):
            assert "published" in mosquitto_client(lab, "pi1", address, "pi1", password, "pub", own).stdout, address
        assert "refused" in mosquitto_client(lab, "pi1", vps.backup, "pi1", "wrong", "pub", own).stdout
        master = lab.passwords["controller"]
        for topic in (own, foreign):
            assert "published" in mosquitto_client(lab, "vps", vps.backup, "controller", master, "pub", topic).stdout
        assert "published" in mosquitto_client(lab, "vps", vps.backup, "controller", master, "pub", desired).stdout
        # What a node may not write never reaches the controller; what it may not read, it does not get.
        mosquitto_client(lab, "pi1", vps.backup, "pi1", password, "pub", foreign, "forged")
        mosquitto_client(lab, "pi1", vps.backup, "pi1", password, "pub", desired, "forged")
        assert (
            mosquitto_client(lab, "vps", vps.backup, "controller", master, "get", foreign).stdout == "message hello\n"
        )
        assert mosquitto_client(lab, "pi1", vps.backup, "pi1", password, "get", desired).stdout == "message hello\n"
        assert mosquitto_client(lab, "pi1", vps.backup, "pi1", password, "get", foreign).stdout == "nothing\n"
        # Retained messages survive a SIGKILL.
        lab.kill_broker()
        lab.start_broker()
        assert mosquitto_client(lab, "pi1", vps.backup, "pi1", password, "get", desired).stdout == "message hello\n"
    finally:
        lab.process("vps", "mosquitto").kill()


def test_broker_with_tls_by_the_labs_own_ca() -> None:
    with Lab(THREE, tls=True) as lab:
        lab.start_broker()
        ca = str(lab["vps"].directory / "broker" / "ca.pem")
        topic = topics.node(FLEET, "pi1", "report")
        done = mosquitto_client(lab, "pi1", lab["vps"].backup, "pi1", lab.passwords["pi1"], "pub", topic, "hello", ca)
        assert "published" in done.stdout, done.stderr
        assert lab.agent_settings(lab["pi1"])["mqtt"]["ca_file"] == ca


def test_configurations_are_what_agent_and_controller_take() -> None:
    with Lab(THREE, agent={"reflex": "always"}, controller={"failover": {"failback_hold_s": 5}}) as lab:
        agent = agent_config.load(lab.write_agent(lab["pi1"], {"probe": {"burst": 4}}), files=True)
        assert (agent.node, agent.reflex, agent.probe.burst, len(agent.peers)) == ("pi1", "always", 4, 2)
        assert [broker.host for broker in agent.mqtt.brokers] == ["10.60.0.3", "10.99.0.3", "100.64.0.3"]
        assert agent.etcd is not None
        controller = controller_config.load(lab.write_controller(), files=True)
        assert controller.failover.failback_hold_s == 5
        assert controller.nodes == ("pi1", "pi2", "vps")
        assert (lab["pi1"].directory / "keys.toml").stat().st_mode & 0o777 == 0o600


def test_toml_survives_quotes_and_nesting() -> None:
    settings = {"a": 'say "hi" \\ there', "t": {"x": [{"b": True, "n": 1.5}], "m": {"k-1": "v"}}, "z": 2}
    assert tomllib.loads(to_toml(settings)) == settings


def test_the_controllers_broker_traffic_can_be_cut_alone(lab: Lab) -> None:
    lab.start_broker()
    topic = topics.node(FLEET, "vps", "report")
    vps, master, own = lab["vps"], lab.passwords["controller"], lab.passwords["vps"]
    try:
        lab.cut_controller()
        assert "published" not in mosquitto_client(lab, "vps", "127.0.0.1", "controller", master, "pub", topic).stdout
        assert "published" in mosquitto_client(lab, "vps", vps.backup, "vps", own, "pub", topic).stdout
        lab.cut_controller(False)
        assert "published" in mosquitto_client(lab, "vps", "127.0.0.1", "controller", master, "pub", topic).stdout
    finally:
        lab.process("vps", "mosquitto").kill()


def test_a_hosts_page_is_reachable_from_outside(lab: Lab) -> None:
    serve = [
        sys.executable,
        "-m",
        "http.server",
        "8118",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(lab["vps"].directory),
    ]
    page = lab["vps"].spawn(serve, name="page")
    (lab["vps"].directory / "hello").write_text("hello from inside")
    url = lab.publish(lab["vps"], 8118)
    wait_for(lambda: lab["vps"].listens(8118))
    port = int(url.rsplit(":", 1)[1])

    def fetch() -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/hello")
            return connection.getresponse().read()
        finally:
            connection.close()

    assert fetch() == b"hello from inside"
    page.kill()
    with pytest.raises((http.client.HTTPException, OSError)):
        fetch()


WRONG_FAULTS = (
    (("overlay-kut",), "no fault"),
    (("host-kill",), "usage"),
    (("overlay-cut", "pi9"), "no host"),
    (("hog", "pi1", "x"), "usage"),
)


@pytest.mark.parametrize(("words", "answer"), WRONG_FAULTS)
def test_a_wrong_fault_says_what_is_right(lab: Lab, words: tuple[str, ...], answer: str) -> None:
    with pytest.raises(LabError, match=answer):
        lab.fault(*words)


def test_two_labs_side_by_side_do_not_meet() -> None:
    with Lab(THREE[:2], static_routes=True) as one, Lab(THREE[:2], static_routes=True) as two:
        one.cut("overlay")
        assert one["pi1"].ping(one["pi2"].service, timeout_s=0.2).answered == 0
        assert two["pi1"].ping(two["pi2"].service).answered == 3
        one.close()
        assert two["pi1"].ping(two["pi2"].service).answered == 3


def test_without_ipv6() -> None:
    with Lab(THREE[:2], ipv6=False, static_routes=True) as lab:
        assert lab["pi1"].ping(lab["pi2"].service).answered == 3
        assert "inet6" not in lab["pi1"].run(["ip", "address"]).stdout


def outside() -> tuple[list[str], list[str]]:
    """Interfaces and mounts of the machine itself."""
    interfaces = [name for _, name in socket.if_nameindex()]
    return interfaces, Path("/proc/mounts").read_text().splitlines()


def test_everything_is_gone_after_an_exception() -> None:
    before = outside()
    made: list[Lab] = []

    def break_it() -> None:
        with Lab(THREE) as lab:
            made.append(lab)
            lab["pi1"].freeze()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_it()
    assert not made[0].dir.exists()
    assert processes_of(made[0].dir) == []
    assert outside() == before


_VICTIM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lab.harness import HostSpec, Lab
with Lab([HostSpec("pi1"), HostSpec("vps", roles={"broker"})]) as lab:
    lab.start_broker()
    lab["pi1"].freeze()
    print(lab.dir, lab["pi1"].pid, lab["vps"].pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_everything_is_gone_however_the_maker_dies(number: signal.Signals) -> None:
    argv = [sys.executable, "-c", _VICTIM, str(Path(__file__).parents[1])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as victim:
        assert victim.stdout is not None
        directory, *pids = victim.stdout.readline().split()
        assert Path(directory).is_dir()
        victim.send_signal(number)
        victim.wait(20)
    wait_for(lambda: processes_of(Path(directory)) == [])
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    if number == signal.SIGKILL:
        sweep()
    wait_for(lambda: not Path(directory).exists())  # another run may be sweeping it
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{Path(directory).name}"))


def test_sweep_leaves_living_labs_alone() -> None:
    with Lab(THREE[:1]) as lab:
        assert lab.dir.name not in sweep()
        assert lab["pi1"].run(["true"]).returncode == 0
    assert not (Path(tempfile.gettempdir()) / lab.dir.name).exists()
