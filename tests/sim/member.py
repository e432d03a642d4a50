"""A node: the real agent's conduct and steering over a kernel of its own, with links, a session and a disk."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from sim import settings
from sim.broker import Broker, Client
from sim.engine import Engine, Fuse, Process
from sim.kernel import SimKernel, run
from sim.links import Links
from vagus_agent.config import Config
from vagus_agent.core import report
from vagus_agent.core.backlog import Backlog
from vagus_agent.core.conduct import Conduct, State
from vagus_agent.core.link import Change, Link
from vagus_agent.core.prober import Gap, Proof
from vagus_agent.net.steering import Outcome, Steering
from vagus_protocol import messages, topics
from vagus_protocol.codec import Rejected, decode, encode
from vagus_protocol.messages import ControllerPresence, Etcd, Event, EventKind, Relay, Report
from vagus_protocol.signing import open_sealed

Trace = Callable[[str, str], None]

_REPORT_S = 2.0
_UNHEARD_RETRY_S = 2.0
_DEBOUNCE_S = 0.05
_log = logging.getLogger("vagus.sim")
_log.disabled = True


class Witness(Protocol):
    """What the invariants are told of a node."""

    def agent_began(self, member: Member) -> None: ...

    def accepted(self, member: Member, payload: bytes) -> None: ...

    def agent_ended(self, member: Member) -> None: ...

    def steered(self, member: Member) -> None:
        """The kernel may have changed."""


class Member:
    """`disk`: the state file; `image`: an older one."""

    def __init__(
        self,
        engine: Engine,
        broker: Broker,
        links: Links,
        config: Config,
        etcd: Callable[[str], Etcd | None],
        rng: random.Random,
        witness: Witness,
        trace: Trace,
    ) -> None:
        self.name = config.node
        self.config = config
        self.process = Process(engine, config.node)
        # between two writes to the kernel, and between two things that it says or keeps
        self.write_fuse, self.word_fuse = Fuse(self), Fuse(self)
        self.kernel = SimKernel(config, self.write_fuse.step)
        self.disk = b""
        self.image = b""
        self.conduct: Conduct | None = None
        # seconds that a change of the kernel takes
        self.steering_s = 0.002
        # since when nothing keeps it from acting: it runs, and its kernel takes what it writes
        self.able_since = 0.0
        # (peer, path) over which the peer's service does not answer
        self.deaf_services: set[tuple[str, str]] = set()
        # (peer, path) → how the overlay carries the peer
        self.relays: dict[tuple[str, str], Relay] = {}
        self._etcd = etcd
        self._engine, self._broker, self._rng, self._witness, self._trace = engine, broker, rng, witness, trace
        self._all_links = links
        self._client: Client | None = None
        self._paths: dict[str, str] | None = None
        self._topics = {leaf: topics.node(settings.FLEET, self.name, leaf) for leaf in topics.NODE_LEAVES}
        self._wanted = frozenset((self._topics["desired"], self._topics["presence"]))
        self._controllers = f"{topics.ROOT}/{settings.FLEET}/controllers/"

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self, disk: str = "kept") -> None:
        if self.process.running:
            return
        if disk == "lost":
            self.disk = b""
        elif disk == "older":
            self.disk = self.image
        self.process.begin()
        self.able_since = self._engine.now
        now = self.process.now
        self.session = f"{self._rng.getrandbits(32):08x}"
        self._trace(self.name, f"starts, session {self.session}")
        self.write_fuse.left = self.word_fuse.left = None
        self._backlog = Backlog(500)
        self._numbers = self._event_seq = self._report_seq = 0
        self._unheard_until: float | None = None
        self._announced_at = -10.0
        self._announcer = report.Announcer()
        self._retained: dict[topics.NodeLeaf, bytes] = {}
        self._steer_due = self._look_due = False
        self._timer_at = float("inf")
        self._steering = Steering(self.kernel, self.config, _log)
        run(self._steering.open())
        self._links = self._all_links.begin(self)
        conduct = self.conduct = Conduct(self.config, self._links, self.session, now)
        self._witness.agent_began(self)
        state = msgspec.json.decode(self.disk, type=State) if self.disk else State()
        conduct.restore(state, run(self._steering.standing_overrides()), now)
        will = encode(report.last_will(self.config, self.session))
        self._client = Client(
            self._broker,
            self.process,
            self,
            f"vagus-{self.name}",
            self._wants,
            (self._topics["presence"], will),
            self._rng,
        )
        self._retained["presence"] = encode(report.birth(self.config, self.session, "boot", "sim"))
        outcome = self._steered(self._steering.reconcile(conduct.overrides, "start"))
        self._on_outcome(outcome, outcome.drift)
        self._client.start()
        self.process.after(self._rng.uniform(0.0, _REPORT_S), self._report)

    def crash(self, reboot: bool = False) -> None:
        self.write_fuse.left = self.word_fuse.left = None
        if self.process.running:
            self._trace(self.name, "the machine reboots" if reboot else "the agent crashes")
            self.process.end()
            self._witness.agent_ended(self)
            self.conduct = None
            self._all_links.end(self.name)
            if self._client is not None:
                self._broker.crashed(self._client, reboot)
                self._client = None
        if reboot:
            self.process.clock_offset = self._rng.uniform(0.0, 1e5)
            self.kernel.reboot()
            self._kernel_changed()

    def freeze(self) -> None:
        if self.process.awake and self._client is not None:
            self.process.freeze()
            self._broker.frozen(self._client)
            self._all_links.touch(self.name)

    def thaw(self) -> None:
        self.able_since = self._engine.now
        self.process.thaw()
        self._all_links.touch(self.name)

    def kernel_event(self) -> None:
        """Somebody else changed the kernel: the agent looks, soon."""
        self._kernel_changed()
        if self.process.running and not self._look_due:
            self._look_due = True
            self.process.after(_DEBOUNCE_S, self._look)

    @property
    def able(self) -> bool:
        return self.process.awake and not self.kernel.refuses

    @property
    def busy(self) -> bool:
        """Whether something is under way: a trial, or a change of the kernel."""
        trials = self.conduct is not None and any(kept.running for kept in self.conduct.state.trials.values())
        return trials or self._steer_due or self._look_due

    @property
    def orphaned(self) -> bool:
        """Whether the agent holds that nobody leads it."""
        return self.conduct is None or self.conduct.orphaned(self.process.now)

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.connected

    def paths(self) -> Mapping[str, str]:
        """peer → the path that a packet takes now."""
        if self._paths is None:
            self._paths = {peer.name: self.kernel.path_to(peer.name) for peer in self.config.peers}
        return self._paths

    # --- Port ------------------------------------------------------------------------------------------------------

    def _wants(self, topic: str) -> bool:
        return topic in self._wanted or topic.startswith(self._controllers)

    def session_began(self) -> None:
        assert self._client is not None
        assert self.conduct is not None
        for leaf, payload in self._retained.items():
            self._client.publish(self._topics[leaf], payload, True)
        self._client.subscribe()
        self._flush()
        self.conduct.on_session(True, self.process.now)
        self._work()

    def session_lost(self, reason: str) -> None:
        assert self.conduct is not None
        self._backlog.requeue()
        self.conduct.on_session(False, self.process.now)
        self._work()

    def subscribed(self) -> None: ...

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        assert self.conduct is not None
        now = self.process.now
        if topic == self._topics["presence"]:
            if payload != self._retained["presence"] and now - self._announced_at > 1.0 and self._client is not None:
                self._announced_at = now
                self._client.publish(topic, self._retained["presence"], True)
            return
        if topic == self._topics["desired"]:
            message = open_sealed(payload, settings.key(self.name), settings.FLEET, self.name)
            if isinstance(message, Rejected):
                self.conduct.on_rejected(message.reason, now)
            else:
                self._all_links.refresh(self.name)
                before = self.conduct.term
                self.conduct.on_desired(message, now)
                if self.conduct.term != before:
                    self._witness.accepted(self, payload)
        else:
            where = topics.parse(topic)
            presence = decode(payload, ControllerPresence)
            if not isinstance(presence, ControllerPresence) or not isinstance(where, topics.ControllerTopic):
                return
            self._unheard_until = None
            self._all_links.refresh(self.name)
            self.conduct.on_controller(where.controller, presence, now, retained=retained)
            self._flush()
        self._work()

    def acknowledged(self, number: int, heard: bool) -> None:
        if not heard and self._backlog.flying(number):
            self._backlog.requeue()
            self._unheard_until = self.process.now + _UNHEARD_RETRY_S
            self.process.after(_UNHEARD_RETRY_S, self._flush)
        else:
            self._backlog.acked(number)
            self._flush()

    # --- what happens ------------------------------------------------------------------------------------------------

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Links changed; none: only what a peer thinks of one did."""
        assert self.conduct is not None
        now = self.process.now
        self._all_links.refresh(self.name)
        for change in changes:
            link = change.link
            siblings = self._links[link.peer]
            self._trace(self.name, f"{link.path} to {link.peer}: {change.old} → {change.new} ({change.reason})")
            if self._announcer.news(link, siblings):
                self._event_seq += 1
                told = [self._describe(other) for other in siblings]
                self._event(report.link_event(self.config, self.session, self._event_seq, link, told))
        self.conduct.on_links(now)
        self._work()

    def _tick(self) -> None:
        assert self.conduct is not None
        self._timer_at = float("inf")
        self._all_links.refresh(self.name)
        self.conduct.tick(self.process.now)
        self._work()

    def _report(self) -> None:
        assert self.conduct is not None
        assert self._client is not None
        now = self.process.now
        self._all_links.refresh(self.name)
        self._report_seq += 1
        epoch, generation = self.conduct.term
        message = Report(
            v=1,
            node=self.name,
            session=self.session,
            seq=self._report_seq,
            boot_id="boot",
            interval_s=_REPORT_S,
            links=tuple(self._describe(link) for links in self._links.values() for link in links),
            etcd=self._etcd(self.name),
            epoch=epoch,
            generation=generation,
            event_seq=self._event_seq,
        )
        self._client.publish(self._topics["report"], encode(message))
        self._announcer.told(link for links in self._links.values() for link in links)
        self.conduct.tick(now)
        self._work()
        self.process.after(_REPORT_S, self._report)

    # --- what is asked for -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Do what the conduct asks for after each call."""
        conduct = self.conduct
        assert conduct is not None
        if not self._steer_due and conduct.overrides != self._steering.overrides:
            self._steer_due = True
            self.process.after(self.steering_s * self._rng.uniform(0.5, 1.5), self._steer)
        for measure in conduct.take_measure():
            self._all_links.measure(self.name, measure.peer, measure.path)
        for verify in conduct.take_verify():
            self._trace(self.name, f"verifies {verify.path} to {verify.peer}")
            self._all_links.verify(self.name, verify.peer, verify.path)
            self.process.after(self._rng.uniform(0.01, 0.4), self._check, verify.peer, verify.path)
        for note in conduct.take_notes():
            self._trace(self.name, f"{note.kind}: {note.text}")
            self._tell(note.kind, note.text, note.peer)
        observed = conduct.take_observed()
        if observed is not None:
            self.word_fuse.step()
            self._retained["observed"] = encode(observed)
            if self._client is not None:
                self._client.publish(self._topics["observed"], self._retained["observed"], True)
        state = conduct.take_state()
        if state is not None:
            self.word_fuse.step()
            self.process.after(self._rng.uniform(0.001, 0.03), self._save, msgspec.json.encode(state))
        deadline = conduct.deadline
        if deadline < self._timer_at:
            self._timer_at = deadline
            self.process.after(max(deadline - self.process.now, 0.0), self._tick)

    def _save(self, state: bytes) -> None:
        self.word_fuse.step()
        self.disk = state

    def _steer(self) -> None:
        conduct = self.conduct
        assert conduct is not None
        self._steer_due = False
        outcome: Outcome | None = None
        drift: tuple[str, ...] = ()
        for peer in self._links:
            path = conduct.overrides[peer]
            if self._steering.overrides.get(peer) != path:
                outcome = self._steered(self._steering.override(peer, path, conduct.reason(peer)))
                drift += outcome.drift
        if outcome is not None:
            self._on_outcome(outcome, drift)

    def _on_outcome(self, outcome: Outcome, drift: tuple[str, ...]) -> None:
        assert self.conduct is not None
        self._trace(self.name, f"kernel: {dict(outcome.paths)} {outcome.failed}")
        self.conduct.on_kernel(self._steering.overrides, outcome.paths, outcome.failed, drift)
        self._work()

    def _look(self) -> None:
        self._look_due = False
        outcome = self._steered(self._steering.reconcile(self._steering.overrides, "recheck"))
        self._on_outcome(outcome, outcome.drift)

    def _steered(self, act: Coroutine[Any, Any, Outcome]) -> Outcome:
        try:
            return run(act)
        finally:
            self._kernel_changed()

    def _kernel_changed(self) -> None:
        self._paths = None
        self._witness.steered(self)

    def on_proof(self, proof: Proof) -> None:
        assert self.conduct is not None
        self._trace(self.name, f"proof: {proof.path} to {proof.peer}: {proof.ok} ({proof.reason})")
        self.conduct.on_proof(proof)
        self._work()

    def on_gap(self, gap: Gap) -> None:
        assert self.conduct is not None
        self._trace(self.name, f"a gap of {gap.seconds:.3f} s on the way of {gap.peer} to {gap.path}")
        self.conduct.on_gap(gap)
        self._work()

    def _check(self, peer: str, tried: str) -> None:
        """The peer's service check, over whatever way the kernel gives by now."""
        assert self.conduct is not None
        failed = (f"{peer}-api",) if (peer, self.paths()[peer]) in self.deaf_services else ()
        self.conduct.on_checks(peer, tried, failed)
        self._work()

    # --- what goes out -----------------------------------------------------------------------------------------------

    def _describe(self, link: Link) -> messages.Link:
        assert self.conduct is not None
        return report.describe(link, self.process.now, self.conduct.paths.get(link.peer, ""), self.relays)

    def _tell(self, kind: EventKind, text: str, peer: str = "") -> None:
        self._event_seq += 1
        self._event(
            Event(
                v=1, node=self.name, session=self.session, seq=self._event_seq, kind=kind, text=text[:1000], peer=peer
            )
        )

    def _event(self, event: Event) -> None:
        self._backlog.add(self.process.now, event)
        self._flush()

    def _flush(self) -> None:
        if self._client is None or not self._client.connected:
            return
        now = self.process.now
        if self._unheard_until is not None and now < self._unheard_until:
            return
        self._unheard_until = None
        while (event := self._backlog.peek(now)) is not None:
            self._numbers += 1
            self._client.publish(self._topics["event"], encode(event), False, self._numbers)
            self._backlog.sent(self._numbers)
