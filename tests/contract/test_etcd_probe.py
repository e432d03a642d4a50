"""The etcd probe against real etcd on loopback: one member and three, frozen, killed, with TLS, users and alarms."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from vagus_agent import config
from vagus_agent.probes import etcd as etcd_probe
from vagus_agent.probes.etcd import EtcdProbe
from vagus_protocol.messages import Etcd

TIMEOUT_S = 0.5


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def until(condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)


@dataclass
class Cluster:
    """Members pi-1, pi-2, … in processes of their own; `flags` go to each."""

    root: Path
    size: int
    flags: tuple[str, ...] = ()
    scheme: str = "http"
    etcdctl_flags: tuple[str, ...] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        ports = free_ports(2 * self.size)
        self.clients = [f"127.0.0.1:{port}" for port in ports[: self.size]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[self.size :]]

    def start(self) -> None:
        for index in range(self.size):
            self.processes.append(self.launch(index))
        until(lambda: self.ctl("endpoint", "health", check=False).returncode == 0, "a healthy cluster")

    def launch(self, index: int) -> subprocess.Popen[bytes]:
        name = f"pi-{index + 1}"
        url = f"{self.scheme}://{self.clients[index]}"
        with (self.root / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *("etcd", "--name", name, "--data-dir", str(self.root / name), "--unsafe-no-fsync"),
                    *("--listen-client-urls", url, "--advertise-client-urls", url),
                    *("--listen-peer-urls", self.peers[index], "--initial-advertise-peer-urls", self.peers[index]),
                    *("--initial-cluster", ",".join(f"pi-{i + 1}={peer}" for i, peer in enumerate(self.peers))),
                    *self.flags,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": os.uname().machine},
            )

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.send_signal(signal.SIGCONT)
        for process in self.processes:
            process.wait(timeout=10)

    def ctl(self, *arguments: str, member: int = 0, check: bool = True) -> subprocess.CompletedProcess[str]:
        endpoint = f"{self.scheme}://{self.clients[member]}"
        command = ["etcdctl", "--endpoints", endpoint, "--command-timeout", "5s", *self.etcdctl_flags, *arguments]
        done = subprocess.run(
            command, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=20, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done

    def settings(self, member: int = 0, /, **changes: str) -> config.Etcd:
        quick = config.Etcd(endpoint=self.clients[member], interval_s=0.1, timeout_s=TIMEOUT_S)
        return msgspec.structs.replace(quick, **changes)


class Watched:
    """A running probe and every change it told of."""

    def __init__(self, settings: config.Etcd) -> None:
        self.changes: list[Etcd] = []
        self.probe = EtcdProbe(settings, self.changes.append)
        self.probe.start()

    def now(self) -> Etcd:
        started = time.monotonic()
        etcd = self.probe.latest(started)
        assert time.monotonic() - started < 0.1
        return etcd or Etcd(answering=False, reason="nothing yet")

    def until(self, condition: Callable[[Etcd], bool], what: str) -> Etcd:
        deadline = time.monotonic() + 20.0
        while not condition(etcd := self.now()):
            assert time.monotonic() < deadline, f"not within 20 s: {what}; the last was {etcd}"
            time.sleep(0.02)
        return etcd


@pytest.fixture
def watch() -> Iterator[Callable[[config.Etcd], Watched]]:
    watched: list[Watched] = []

    def start(settings: config.Etcd) -> Watched:
        watched.append(Watched(settings))
        return watched[-1]

    yield start
    for one in watched:
        started = time.monotonic()
        one.probe.stop()
        assert time.monotonic() - started < 1.5


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Cluster]:
    with running(Cluster(tmp_path, 1)) as cluster:
        yield cluster


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with running(Cluster(tmp_path, 3)) as cluster:
        yield cluster


Watch = Callable[[config.Etcd], Watched]


def read_works(etcd: Etcd) -> bool:
    return etcd.read_s is not None


def test_a_single_member(single: Cluster, watch: Watch) -> None:
    etcd = watch(single.settings()).until(read_works, "a read")
    assert (etcd.answering, etcd.reason, etcd.read_error) == (True, "", "")
    assert etcd.version.startswith("3.")
    assert etcd.member_id == etcd.leader_id
    assert etcd.cluster_id not in ("", "0", etcd.member_id)
    assert etcd.patience_s == pytest.approx(0.1 + 3 * TIMEOUT_S)
    assert etcd.term is not None
    assert etcd.term >= 2
    assert etcd.raft_index is not None
    assert etcd.applied_index is not None
    assert 0 < etcd.applied_index <= etcd.raft_index
    assert etcd.db_bytes is not None
    assert etcd.db_bytes > 0
    assert etcd.read_s is not None
    assert 0 < etcd.read_s < TIMEOUT_S
    assert (etcd.learner, etcd.alarms, etcd.age_s < 1.0) == (False, (), True)
    (member,) = etcd.members
    assert (member.id, member.name, member.peer_urls, member.learner) == (
        etcd.member_id,
        "pi-1",
        (single.peers[0],),
        False,
    )


def test_nothing_listens_then_etcd_comes_and_goes(tmp_path: Path, watch: Watch) -> None:
    cluster = Cluster(tmp_path, 1)
    watched = watch(cluster.settings())
    endpoint = cluster.clients[0]
    nothing = watched.until(lambda e: e.reason != "nothing yet", "an observation")
    assert (nothing.answering, nothing.reason) == (False, f"{endpoint} refused the connection")
    with running(cluster):
        watched.until(read_works, "a read")
        cluster.processes[0].kill()
        cluster.processes[0].wait(timeout=10)
        dead = watched.until(lambda e: not e.answering, "the death")
        assert endpoint in dead.reason
        cluster.processes.append(cluster.launch(0))
        watched.until(read_works, "a read after the restart")
    assert [change.answering for change in watched.changes][:4] == [False, True, False, True]


def test_a_frozen_member_is_told_in_words_and_blocks_nobody(single: Cluster, watch: Watch) -> None:
    watched = watch(single.settings())
    watched.until(read_works, "a read")
    single.processes[0].send_signal(signal.SIGSTOP)
    oldest = 0.0
    while (etcd := watched.now()).answering:
        oldest = max(oldest, etcd.age_s)
        time.sleep(0.01)
    assert etcd.reason == f"no answer from {single.clients[0]} in {TIMEOUT_S:g} s"
    assert oldest > TIMEOUT_S / 2, "the last answer gets old before it is given up"
    single.processes[0].send_signal(signal.SIGCONT)
    watched.until(read_works, "a read after the thaw")


def test_stop_while_frozen_returns_at_once(single: Cluster) -> None:
    settings = config.Etcd(endpoint=single.clients[0], interval_s=0.05, timeout_s=30.0)
    watched = Watched(settings)
    watched.until(read_works, "a read")
    single.processes[0].send_signal(signal.SIGSTOP)
    until(lambda: watched.now().age_s > 0.5, "an RPC in flight")
    started = time.monotonic()
    watched.probe.stop()
    assert time.monotonic() - started < 1.5
    assert watched.now().answering, "a stop is no observation"


def test_quorum_lost_found_again_and_another_leader(three: Cluster, watch: Watch) -> None:
    first = watch(three.settings()).until(read_works, "a read")
    assert [member.name for member in sorted(first.members, key=lambda m: m.name)] == ["pi-1", "pi-2", "pi-3"]
    names = {member.id: int(member.name[-1]) - 1 for member in first.members}
    leader = names[first.leader_id]
    survivor, third = (index for index in range(3) if index != leader)

    watched = watch(three.settings(survivor))
    before = watched.until(read_works, "a read")
    assert before.leader_id == first.leader_id
    three.processes[leader].send_signal(signal.SIGSTOP)
    after = watched.until(
        lambda e: (e.term or 0) > (before.term or 0) and bool(e.leader_id), "a new term with a leader"
    )
    assert after.term is not None
    assert before.term is not None
    assert after.term > before.term
    assert after.leader_id != first.leader_id
    assert after.leader_id in [change.leader_id for change in watched.changes]

    three.processes[third].send_signal(signal.SIGSTOP)
    lost = watched.until(lambda e: e.read_s is None, "no quorum")
    assert lost.answering, "a member without quorum still tells its status"
    assert lost.read_error
    watched.until(lambda e: e.leader_id == "", "no leader")

    three.processes[third].send_signal(signal.SIGCONT)
    watched.until(lambda e: read_works(e) and bool(e.leader_id), "quorum again")


def test_a_learner(single: Cluster, watch: Watch, tmp_path: Path) -> None:
    extra = Cluster(tmp_path / "learner", 1)
    extra.root.mkdir()
    single.ctl("member", "add", "pi-9", "--learner", "--peer-urls", extra.peers[0])
    watched = watch(single.settings())
    watched.until(lambda e: sorted(m.learner for m in e.members) == [False, True], "one member and one learner")
    extra.flags = (
        *("--name", "pi-9", "--initial-cluster-state", "existing"),
        *("--initial-cluster", f"pi-1={single.peers[0]},pi-9={extra.peers[0]}"),
    )
    try:
        extra.processes.append(extra.launch(0))
        learner = watch(extra.settings()).until(lambda e: e.answering and "tried" not in e.read_error, "a learner")
    finally:
        extra.stop()
    assert learner.learner
    assert learner.read_s is None
    assert "learner" in learner.read_error


def test_the_space_alarm_names_its_member(tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    # The status tells that there is one: it is not waited for until alarms are asked for anyway.
    monkeypatch.setattr(etcd_probe, "_THOROUGH_EVERY", 10**9)
    with running(Cluster(tmp_path, 1, flags=("--quota-backend-bytes", "20000"))) as cluster:
        watched = watch(cluster.settings())
        watched.until(read_works, "a read")
        cluster.ctl("put", "big", "x" * 15000, check=False)
        cluster.ctl("put", "big2", "x" * 15000, check=False)
        etcd = watched.until(lambda e: bool(e.alarms), "the alarm")
    assert etcd.alarms == ("NOSPACE on pi-1",)


@pytest.fixture
def secured(three: Cluster, tmp_path: Path) -> Cluster:
    """Three members with auth on: root, and vagus, who may read nothing."""
    (tmp_path / "password").write_text("right\n")
    (tmp_path / "wrong").write_text("wrong\n")
    three.ctl("user", "add", "root:secret")
    three.ctl("user", "add", "vagus:right")
    three.ctl("auth", "enable")
    three.etcdctl_flags = ("--user", "root:secret")
    return three


def test_auth_with_a_user_who_may_read_nothing(secured: Cluster, watch: Watch, tmp_path: Path) -> None:
    settings = secured.settings(username="vagus", password_file=str(tmp_path / "password"))
    watched = watch(settings)
    # Each question has a deadline of its own, which a busy machine may miss once.
    watched.until(lambda e: read_works(e) and (e.reason, len(e.members)) == ("", 3), "a refused read, and members")
    for process in secured.processes[1:]:
        process.send_signal(signal.SIGSTOP)
    lost = watched.until(lambda e: e.read_s is None, "no quorum: the refusal needs one")
    assert lost.answering
    for process in secured.processes[1:]:
        process.send_signal(signal.SIGCONT)
    watched.until(read_works, "quorum again")


def test_auth_with_a_wrong_password_or_no_user(secured: Cluster, watch: Watch, tmp_path: Path) -> None:
    wrong = watch(secured.settings(username="vagus", password_file=str(tmp_path / "wrong")))
    etcd = wrong.until(read_works, "a read")
    assert "etcd.username 'vagus'" in etcd.reason
    assert "invalid user ID or password" in etcd.reason
    etcd = watch(secured.settings()).until(read_works, "a read without a user")
    assert etcd.answering
    for process in secured.processes[1:]:
        process.send_signal(signal.SIGSTOP)
    wrong.until(lambda e: e.read_s is None and e.answering, "no quorum")


def test_a_user_where_auth_is_off(single: Cluster, watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right\n")
    watched = watch(single.settings(username="vagus", password_file=str(tmp_path / "password")))
    assert watched.until(read_works, "a read").reason == ""


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def certificates(root: Path, member_days: int = 2) -> None:
    """Two authorities, and certificates for 127.0.0.1: member and client by ca, stranger by other."""
    for authority in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *(
                "-subj",
                f"/CN={authority}",
                "-keyout",
                str(root / f"{authority}.key"),
                "-out",
                str(root / f"{authority}.crt"),
            ),
        )
    (root / "san").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name, authority in (("member", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(root / f"{name}.key"), "-out", str(root / f"{name}.csr")),
        )
        openssl(
            *("x509", "-req", "-in", str(root / f"{name}.csr"), "-CAcreateserial"),
            *("-days", str(member_days if name == "member" else 2)),
            *("-CA", str(root / f"{authority}.crt"), "-CAkey", str(root / f"{authority}.key")),
            *("-extfile", str(root / "san"), "-out", str(root / f"{name}.crt")),
        )


def test_tls_with_client_certificates(tmp_path: Path, watch: Watch) -> None:
    certificates(tmp_path)

    def tls(ca: str, name: str) -> dict[str, str]:
        return {
            "ca_file": str(tmp_path / f"{ca}.crt"),
            "cert_file": str(tmp_path / f"{name}.crt"),
            "key_file": str(tmp_path / f"{name}.key"),
        }

    files = tls("ca", "client")
    cluster = Cluster(
        tmp_path,
        1,
        scheme="https",
        flags=(
            *("--cert-file", str(tmp_path / "member.crt"), "--key-file", str(tmp_path / "member.key")),
            *("--client-cert-auth", "--trusted-ca-file", files["ca_file"]),
        ),
        etcdctl_flags=("--cacert", files["ca_file"], "--cert", files["cert_file"], "--key", files["key_file"]),
    )
    with running(cluster):
        watched = watch(cluster.settings(**files))
        assert watched.until(read_works, "a read over TLS").answering
        [shown] = watched.until(lambda e: bool(e.certificates), "its certificate").certificates
        assert shown.where == cluster.clients[0]
        assert shown.expires_s is not None
        assert 86_400 < shown.expires_s <= 2 * 86_400

        def refusal(**settings: str) -> str:
            etcd = watch(cluster.settings(**settings)).until(lambda e: e.reason != "nothing yet", "an observation")
            assert not etcd.answering
            return etcd.reason

        endpoint = cluster.clients[0]
        assert refusal(**tls("other", "client")).startswith(f"{endpoint}: its certificate is not signed by")
        assert "etcd.cert_file" in refusal(**tls("ca", "stranger"))
        assert "etcd.cert_file" in refusal(ca_file=files["ca_file"])
        assert refusal() == f"{endpoint} closed the connection: does it want TLS (etcd.ca_file)?"


def test_a_certificate_that_is_over_is_read_where_it_keeps_the_probe_out(tmp_path: Path, watch: Watch) -> None:
    certificates(tmp_path, member_days=-1)
    cluster = Cluster(
        tmp_path,
        1,
        scheme="https",
        flags=("--cert-file", str(tmp_path / "member.crt"), "--key-file", str(tmp_path / "member.key")),
        etcdctl_flags=("--insecure-skip-tls-verify", "--insecure-transport=false"),
    )
    with running(cluster):
        etcd = watch(cluster.settings(ca_file=str(tmp_path / "ca.crt"))).until(
            lambda e: bool(e.certificates), "its certificate"
        )
        assert not etcd.answering
        assert "out of date" in etcd.reason
        [shown] = etcd.certificates
        assert shown.where == cluster.clients[0]
        assert shown.expires_s is not None
        assert shown.expires_s < 0


def test_files_that_are_missing_are_named(single: Cluster, watch: Watch, tmp_path: Path) -> None:
    def reason(**settings: str) -> str:
        return watch(single.settings(**settings)).until(lambda e: e.reason != "nothing yet", "an observation").reason

    missing = str(tmp_path / "missing.pem")
    assert reason(ca_file=missing) == f"etcd.ca_file: cannot read {missing}: No such file or directory"
    assert reason(username="vagus", password_file=missing).startswith(f"etcd.password_file: cannot read {missing}")
    certificates(tmp_path)
    existing = str(tmp_path / "ca.crt")
    assert "need etcd.ca_file" in reason(cert_file=existing, key_file=existing)
    assert "one is set" in reason(ca_file=existing, cert_file=existing)
    assert "does it speak TLS" in reason(ca_file=existing)
