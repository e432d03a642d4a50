"""The node's own etcd member, asked by etcd3 in a thread of its own.

etcd3 is synchronous and brings grpc (~18 MB): both are imported by the thread, so a node without etcd never has them.
Every RPC has a deadline, and nobody waits for the thread: `latest` only picks up what it left last.

`answering` means that the member's Status RPC came back, which needs no quorum; a linearizable read needs one: see
`read_s`. Ids are hex, as etcdctl prints them; `leader_id` is "" while there is no leader. With `answering`, `reason`
names what could not be asked: a refused user, a member list that needs more rights.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import msgspec

from vagus_agent import config
from vagus_protocol.messages import Certificate, Etcd, EtcdMember
from vagus_runtime import memory

if TYPE_CHECKING:
    from etcd3 import Etcd3Client

log = logging.getLogger(__name__)

# An absent key that nobody uses: reading it costs etcd one read index and no data.
READ_KEY: Final = b"\0vagus"
# Fields that etcd sends and etcd3 0.12's generated messages lack; protobuf keeps them as unknown fields.
# Source: etcd's api/etcdserverpb/rpc.proto, StatusResponse and Member.
_STATUS_APPLIED_INDEX: Final = 7
_STATUS_ERRORS: Final = 8
_STATUS_IS_LEARNER: Final = 10
_MEMBER_IS_LEARNER: Final = 5
_ALARMS: Final = {1: "NOSPACE", 2: "CORRUPT"}
_CHANNEL: Final = (
    # No proxy stands between a node and its own member, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
    # grpc's own backoff grows to 2 minutes; a member that is back must be seen at the next probe.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_REASON_LENGTH: Final = 300
# Members and alarms are asked for with each so many probes, and at once when the status gives a reason to: an RPC wakes
# grpc's threads some ten times, and both change by hand or over hours.
_THOROUGH_EVERY: Final = 5
# A certificate changes once a year, and two handshakes take a Pi some 20 ms. Where something is wrong with one, or one
# could not be read, a person may be at it.
_CERTIFICATES_EVERY_S: Final = 3600.0
_CERTIFICATES_AGAIN_S: Final = 60.0
_EXPIRES_SOON_S: Final = 15 * 86_400.0


class _Unusable(Exception):
    """The probe cannot even ask; the text says why, and what to do."""


class EtcdProbe:
    """`on_change` is called in the probe's thread when `answering`, the leader or the term changed. `addresses`: the
    node's service addresses, which its peer certificate must name."""

    def __init__(
        self, etcd: config.Etcd, on_change: Callable[[Etcd], None] = lambda _: None, addresses: Sequence[str] = ()
    ) -> None:
        self._config = etcd
        self._on_change = on_change
        self._addresses = addresses
        # host:port → when it was read, and what it said
        self._certificates: dict[str, tuple[float, Certificate]] = {}
        self._certificates_due = 0.0
        # where its peers dial it, as the member told last; None: it has not yet
        self._peers: tuple[str, ...] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd-probe", daemon=True)
        # Replaced whole, never changed: a reader sees the old observation or the new one.
        self._latest: tuple[float, Etcd] | None = None
        self._client: Etcd3Client | None = None
        self._until_thorough = 0
        # why members and alarms could not be asked for, in words
        self._refusal = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and the RPC in flight; returns within a second."""
        self._stop.set()
        if self._client is not None:
            self._client.close()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def latest(self, now: float) -> Etcd | None:
        """The newest observation, with its age at `now` (time.monotonic); None before the first. Never blocks."""
        latest = self._latest
        if latest is None:
            return None
        at, etcd = latest
        return msgspec.structs.replace(etcd, age_s=max(0.0, now - at))

    def _run(self) -> None:
        # grpc prints handshake errors to stderr; ours stand in `reason`.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        # Its newer way to wait wakes four threads of its own seventeen times an RPC; the older one wakes the caller six
        # times.
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._probe()
            except Exception as error:
                log.error("etcd probe: %s: %s", type(error).__name__, error)
            self._stop.wait(max(0.0, self._config.interval_s - (time.monotonic() - started)))
        self._close()

    def _probe(self) -> None:
        """One observation, in two steps: the status at once, then what may take its whole deadline without quorum."""
        try:
            client = self._client = self._client or self._open()
            trouble = self._authenticate(client)
            status, ailing = self._status(client)
        except Exception as error:
            # A new channel at the next probe also reads renewed certificates, and leaves a dead TCP connection.
            self._close()
            reason = self._words(error)
            if "certificate" in reason:
                # One that is over is why nobody gets an answer any more.
                self._look_at_certificates()
            if not self._stop.is_set():
                self._publish(Etcd(answering=False, reason=reason))
            return
        last = self._latest[1] if self._latest is not None else Etcd(answering=False)
        untried = last.read_s is None and not last.read_error
        self._publish(
            msgspec.structs.replace(
                status,
                alarms=last.alarms,
                members=last.members,
                read_s=last.read_s,
                read_error="not tried yet" if untried else last.read_error,
            )
        )
        members, alarms = last.members, last.alarms
        self._until_thorough -= 1
        elected = (last.leader_id, last.term) != (status.leader_id, status.term)
        if ailing or alarms or elected or not members or self._until_thorough <= 0:
            try:
                members = self._members(client)
                alarms = self._alarms(client, {member.id: member.name for member in members})
                self._until_thorough = _THOROUGH_EVERY
                self._refusal = ""
            except Exception as error:
                self._refusal = f"members and alarms: {self._words(error)}"
        trouble = trouble or self._refusal
        read_s, read_error = self._read(client)
        if members:
            urls = [url for member in members if member.id == status.member_id for url in member.peer_urls]
            self._peers = tuple(url.removeprefix("https://") for url in urls if url.startswith("https://"))
            self._look_at_certificates()
        if not self._stop.is_set():
            self._publish(
                msgspec.structs.replace(
                    status,
                    alarms=alarms,
                    members=members,
                    read_s=read_s,
                    read_error=read_error,
                    reason=trouble[:_REASON_LENGTH],
                )
            )

    def _look_at_certificates(self) -> None:
        """Once an hour: what the member shows its clients, and its peers."""
        now, settings = time.monotonic(), self._config
        if now < self._certificates_due or not (settings.ca_file or self._peers):
            return
        from vagus_agent.probes import certificates

        own = (settings.cert_file, settings.key_file) if settings.cert_file and settings.key_file else None
        known, self._certificates, well = self._certificates, {}, True
        peers = self._peers or ()
        for where in dict.fromkeys((*[settings.endpoint] * bool(settings.ca_file), *peers)):
            host, _, port = where.partition("/")[0].rpartition(":")
            host = host.strip("[]")
            wanted = self._named_by(host) if where in peers else ()
            found = certificates.read(host, int(port), wanted, own, settings.timeout_s) if port.isdecimal() else None
            if found is not None:
                self._certificates[where] = time.monotonic(), found
                well = well and not found.missing and (found.expires_s or 0.0) > _EXPIRES_SOON_S
            else:
                well = False
                if where in known:
                    self._certificates[where] = known[where]
        rests = well and self._peers is not None
        self._certificates_due = now + (_CERTIFICATES_EVERY_S if rests else _CERTIFICATES_AGAIN_S)

    def _named_by(self, host: str) -> Sequence[str]:
        """What a certificate must name for peers that dial `host`: it, when it is one of our service addresses."""
        try:
            dialled = ip_address(host)
        except ValueError:
            return self._addresses
        same = [each for each in self._addresses if ip_address(each) == dialled]
        return same or self._addresses

    def _publish(self, etcd: Etcd) -> None:
        now, last = time.monotonic(), self._latest[1] if self._latest is not None else None
        etcd = msgspec.structs.replace(
            etcd,
            certificates=tuple(_aged(each, now - at) for at, each in self._certificates.values()),
            patience_s=self._config.interval_s + 3 * self._config.timeout_s,
        )
        self._latest = now, etcd
        if last is None or (last.answering, last.leader_id, last.term) != (etcd.answering, etcd.leader_id, etcd.term):
            self._on_change(etcd)

    def _open(self) -> Etcd3Client:
        """A client; no connection is made yet. Raises `_Unusable`."""
        settings = self._config
        for key in ("ca_file", "cert_file", "key_file", "password_file"):
            if path := getattr(settings, key):
                self._contents(key, path)
        if (settings.cert_file or settings.key_file) and not settings.ca_file:
            raise _Unusable("etcd.cert_file and etcd.key_file need etcd.ca_file: without it etcd3 does not use TLS")
        if bool(settings.cert_file) != bool(settings.key_file):
            raise _Unusable("etcd.cert_file and etcd.key_file: one is set and the other is not")
        first = "etcd3" not in sys.modules
        try:
            import etcd3
        except Exception as error:
            # Not only ImportError: with protobuf 4 or later its generated modules raise a TypeError.
            raise _Unusable(f"etcd3 cannot be imported, install vagus[etcd]: {str(error)[:150]}") from None
        if first:
            memory.settle()
        host, _, port = settings.endpoint.rpartition(":")
        return etcd3.client(
            host,
            port,
            ca_cert=settings.ca_file or None,
            cert_cert=settings.cert_file or None,
            cert_key=settings.key_file or None,
            timeout=settings.timeout_s,
            grpc_options=_CHANNEL,
        )

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _authenticate(self, client: Etcd3Client) -> str:
        """Gets a token unless there is one; what went wrong, in words. etcd answers most questions without it.

        Done here because etcd3's constructor fails whole without quorum, which a new token needs.
        """
        settings = self._config
        if not settings.username or client.metadata is not None:
            return ""
        import grpc
        from etcd3 import etcdrpc

        password = self._contents("password_file", settings.password_file).strip() if settings.password_file else ""
        request = etcdrpc.AuthenticateRequest(name=settings.username, password=password)
        try:
            token = etcdrpc.AuthStub(client.channel).Authenticate(request, settings.timeout_s).token
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                # "authentication is not enabled": the user is not needed.
                return ""
            return f"asked without etcd.username {settings.username!r}: {self._words(error)}"
        client.metadata = (("token", token),)
        return ""

    def _status(self, client: Etcd3Client) -> tuple[Etcd, bool]:
        """The status, and whether it tells of errors: an alarm, or no leader."""
        # The stub, not client.status(): that one drops the member's own id, the applied index and the learner flag.
        from etcd3 import etcdrpc

        status = client.maintenancestub.Status(
            etcdrpc.StatusRequest(), self._config.timeout_s, metadata=client.metadata
        )
        etcd = Etcd(
            answering=True,
            version=status.version,
            cluster_id=f"{status.header.cluster_id:x}",
            member_id=f"{status.header.member_id:x}",
            leader_id=f"{status.leader:x}" if status.leader else "",
            term=status.raftTerm,
            raft_index=status.raftIndex,
            applied_index=_unknown_integer(status, _STATUS_APPLIED_INDEX),
            db_bytes=status.dbSize,
            learner=bool(_unknown_integer(status, _STATUS_IS_LEARNER)),
        )
        return etcd, any(field.field_number == _STATUS_ERRORS for field in status.UnknownFields())

    def _members(self, client: Etcd3Client) -> tuple[EtcdMember, ...]:
        from etcd3 import etcdrpc

        answer = client.clusterstub.MemberList(
            etcdrpc.MemberListRequest(), self._config.timeout_s, metadata=client.metadata
        )
        return tuple(
            EtcdMember(
                id=f"{member.ID:x}",
                name=member.name,
                peer_urls=tuple(member.peerURLs),
                learner=bool(_unknown_integer(member, _MEMBER_IS_LEARNER)),
            )
            for member in answer.members
        )

    def _alarms(self, client: Etcd3Client, names: dict[str, str]) -> tuple[str, ...]:
        """Alarms of the whole cluster: "NOSPACE on pi-1"."""
        texts = []
        for alarm in client.list_alarms():
            member = f"{alarm.member_id:x}"
            kind = _ALARMS.get(alarm.alarm_type, f"alarm {alarm.alarm_type}")
            texts.append(f"{kind} on {names.get(member) or member}")
        return tuple(sorted(texts))

    def _read(self, client: Etcd3Client) -> tuple[float | None, str]:
        """(latency, "") of a linearizable read, or (None, why it failed).

        etcd asks the quorum before it looks at the user (Range in etcd's server/v3_server.go): a refusal is an answer.
        """
        import grpc

        started = time.monotonic()
        try:
            client.get_response(READ_KEY)
        except Exception as error:
            refusal = _rpc_error(error)
            code = refusal.code() if refusal is not None else None
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT):
                # The token is too old, or from before a restart: get another at the next probe.
                client.metadata = None
            elif code is not grpc.StatusCode.PERMISSION_DENIED:
                return None, self._words(error)
        return time.monotonic() - started, ""

    def _contents(self, key: str, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise _Unusable(f"etcd.{key}: cannot read {path}: {error.strerror}") from None

    def _words(self, error: Exception) -> str:
        """What happened, with the endpoint or file it happened to."""
        endpoint = self._config.endpoint
        if isinstance(error, _Unusable):
            return str(error)[:_REASON_LENGTH]
        rpc = _rpc_error(error)
        if rpc is None:
            return f"{endpoint}: {type(error).__name__}: {error}"[:_REASON_LENGTH]
        details = (rpc.details() or rpc.code().name).removeprefix("etcdserver: ")
        if rpc.code().name == "DEADLINE_EXCEEDED":
            return f"no answer from {endpoint} in {self._config.timeout_s:g} s"
        if "Connection refused" in details:
            return f"{endpoint} refused the connection"
        if "CERTIFICATE_VERIFY_FAILED" in details:
            return f"{endpoint}: its certificate is not signed by etcd.ca_file, is out of date or names another host"
        if any(sign in details for sign in ("Socket closed", "Connection reset", "TSI_", "handshake")):
            if self._latest is not None and self._latest[1].answering:
                return f"{endpoint} closed the connection"
            if not self._config.ca_file:
                return f"{endpoint} closed the connection: does it want TLS (etcd.ca_file)?"
            cause = details.rpartition("last error: ")[2]
            return f"{endpoint}: TLS failed: does it speak TLS, and trust etcd.cert_file? ({cause})"[:_REASON_LENGTH]
        return f"{endpoint}: {details}"[:_REASON_LENGTH]


def _aged(certificate: Certificate, seconds: float) -> Certificate:
    """As it is so much later."""
    if certificate.expires_s is None:
        return certificate
    return msgspec.structs.replace(certificate, expires_s=certificate.expires_s - seconds)


def _rpc_error(error: BaseException | None) -> Any:
    """grpc's own error: etcd3 raises its own kind in the place of some, without their details."""
    import grpc

    while error is not None and not isinstance(error, grpc.RpcError):
        error = error.__context__
    return error


def _unknown_integer(message: Any, number: int) -> int | None:
    """Field `number` of a protobuf message whose class does not know it. proto3 leaves out a zero and a false."""
    for field in message.UnknownFields():
        if field.field_number == number and isinstance(field.data, int):
            return field.data
    return None
