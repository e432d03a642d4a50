"""The running agent: probes, uplink, conduct and steering, connected. What to do is decided in core/conduct.py.

probes ─► report ─► uplink        links, verifications ─► ┐
                    uplink ─► desired (signed) ─────────► conduct ─► steering, observed, events, state on disk
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

from vagus_agent import threads
from vagus_agent.config import METERED_REPORT_FACTOR, Address, Config, Network
from vagus_agent.config_file import ConfigError, Keys, load, load_keys
from vagus_agent.conntrack_flush import ConntrackFlush
from vagus_agent.core import reload, report
from vagus_agent.core.clocks import Clocks
from vagus_agent.core.complaints import Complaints
from vagus_agent.core.conduct import Conduct, State
from vagus_agent.core.link import Change, Link
from vagus_agent.core.prober import Gap, Prober, Proof, starved
from vagus_agent.net import addresses
from vagus_agent.net.netlink import Netlink, SteeringError
from vagus_agent.net.steering import Interfaces, Outcome, Steering
from vagus_agent.net.udp import ProbeSockets
from vagus_agent.obstacle_watch import ObstacleWatch
from vagus_agent.probes.clock import moment
from vagus_agent.probes.etcd import EtcdProbe
from vagus_agent.probes.services import ServiceChecks
from vagus_agent.probes.system import SystemProbe, boot_id, machine
from vagus_agent.probes.tailscale import TailscaleProbe
from vagus_agent.state import StateFile
from vagus_agent.uplink import Session, Uplink
from vagus_protocol import __version__, messages, topics
from vagus_protocol.codec import Rejected, decode, encode
from vagus_protocol.messages import (
    ControllerPresence,
    Etcd,
    Event,
    EventKind,
    LinkState,
    Relay,
    Report,
    Service,
    Tailscale,
)
from vagus_protocol.signing import open_sealed
from vagus_runtime import logs, memory
from vagus_runtime.sdnotify import Notifier

log = logging.getLogger("vagus")

_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def run(file: Path, config: Config, keys: Keys) -> int:
    """Run until SIGTERM or SIGINT; the exit code. `file`: what SIGHUP reads again; `config` came from it."""
    memory.one_heap()
    try:
        return asyncio.run(Agent(file, config, keys).run())
    except (OSError, SteeringError) as error:
        log.error("%s", error.strerror if isinstance(error, OSError) and error.strerror else error)
        return 1


class Agent:
    def __init__(self, file: Path, config: Config, keys: Keys) -> None:
        self.config = config
        self.keys = keys
        self.session = secrets.token_hex(8)
        self.boot_id = boot_id()
        self._file = file
        self._notifier = Notifier(os.environ)
        self._state_file = StateFile(config.state_dir)
        self._relays: dict[tuple[str, str], Relay] = {}
        self._tailscale: Tailscale | None = None
        self._announcer = report.Announcer()
        self._session: Session | None = None
        self._event_seq = 0
        self._rejected = 0
        self._complaints = Complaints()
        self._newest_state = State()
        self._timer: asyncio.TimerHandle | None = None
        self._steer = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._stop = asyncio.Event()
        self._reread = asyncio.Event()

    async def run(self) -> int:
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread.set)
        if not await self._addresses_there():
            return 0
        now = monotonic()
        self._prober = Prober(self.config, self.keys.probe, secrets.randbits(64), now, random.random())
        self._system = SystemProbe(self.config.report)
        self._sockets = ProbeSockets(
            self.config, self._prober, self._on_changes, self._on_proof, monotonic, self._on_gap, self._system.awake
        )
        self._links: dict[str, list[Link]] = {}
        self._sort_links()
        self._obstacles = ObstacleWatch(self.config, self._prober.links)
        self._conduct = Conduct(self.config, self._links, self.session, now)
        self._flush = ConntrackFlush(
            self.config,
            partial(self._tell, EventKind.STEERING),
            partial(self._complain, "conntrack", EventKind.STEERING),
        )
        self._checks = ServiceChecks(self.config.checks, self.config.addresses, self._service_changed)
        self._uplink = Uplink(
            self.config.mqtt,
            fleet=self.config.fleet,
            node=self.config.node,
            loop=loop,
            will=encode(report.last_will(self.config, self.session)),
            on_desired=self._on_desired,
            on_controllers=self._on_controllers,
            on_session=self._on_session,
            on_refused=partial(self._complain, "broker", EventKind.UPLINK),
        )
        self._steering = Steering(Netlink(self.config.steering), self.config, log)
        await self._steering.open()
        try:
            await self._take_over()
            # Before the first probe: it takes a tenth of a second on a small machine.
            memory.settle()
            self._sockets.open()
            return await self._serve()
        finally:
            self._sockets.close()
            await self._steering.close()

    async def _addresses_there(self) -> bool:
        """Wait for this node's service addresses, if need be; False: stopped meanwhile."""
        waiting = asyncio.ensure_future(addresses.until_there(self.config.addresses, self._say_absent))
        beside = [asyncio.ensure_future(self._stop.wait()), asyncio.ensure_future(self._watchdog_loop())]
        try:
            await asyncio.wait([waiting, *beside], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
            return not self._stop.is_set()
        finally:
            for task in (waiting, *beside):
                task.cancel()
            await asyncio.gather(waiting, *beside, return_exceptions=True)

    def _say_absent(self, missing: Sequence[Address]) -> None:
        names = " and ".join(map(str, missing))
        remedy = "; ".join(f"ip addr add {each}/{each.max_prefixlen} dev lo" for each in missing)
        log.warning("waiting for service address %s, which this machine does not have yet; by hand: %s", names, remedy)
        self._notifier.status(f"waiting for service address {names}, which this machine does not have yet")
        # Running, as far as systemd is concerned: it would end a start that takes minutes.
        self._notifier.ready()

    async def _take_over(self) -> None:
        """Start from what the kernel does now: a restart moves nothing.

        After a reboot the kernel is empty, and the state on disk says what was decided.
        """
        state, trouble = self._state_file.load()
        if trouble:
            self._tell(EventKind.AGENT, trouble, logging.ERROR)
        self._conduct.restore(state, await self._steering.standing_overrides(), monotonic())
        outcome = await self._steering.reconcile(self._conduct.overrides, "start")
        self._conduct.on_kernel(self._steering.overrides, outcome.paths, outcome.failed, outcome.drift)

    async def _serve(self) -> int:
        self._introduce()
        self._follow()
        self._uplink.start()
        etcd = None
        if self.config.etcd is not None:
            etcd = EtcdProbe(self.config.etcd, self._etcd_changed, [str(each) for each in self.config.addresses])
        if etcd is not None:
            etcd.start()
        loops = [
            self._report_loop(etcd),
            self._steer_loop(),
            self._save_loop(),
            self._steering.watch(self._on_outcome, self._on_interfaces),
            self._watchdog_loop(),
            self._reload_loop(),
            self._checks.run(),
            self._obstacles.run(),
        ]
        if self.config.steering.flush_conntrack:
            loops.append(self._flush.run())
        if self.config.tailscale is not None:
            loops.append(self._tailscale_loop(TailscaleProbe(self.config.tailscale, self._other_networks())))
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        stopping = asyncio.ensure_future(self._stop.wait())
        self._notifier.ready()
        log.info("%s runs: %d peers, paths %s", self.config.node, len(self._links), self._path_names())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = next((task for task in tasks if task.done()), None)
            if failed is not None and failed.exception() is not None:
                log.critical(
                    "a part of the agent failed: it stops, for systemd to start it again", exc_info=failed.exception()
                )
            return 1 if failed is not None else 0
        finally:
            self._notifier.stopping()
            if self._timer is not None:
                self._timer.cancel()
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
            if etcd is not None:
                etcd.stop()
            await self._leave()

    async def _leave(self) -> None:
        overrides = self._conduct.moved
        if overrides and self.config.on_stop == "clear":
            with suppress(SteeringError):
                for line in await self._steering.clear(overrides_only=True):
                    log.warning('on_stop = "clear": removed %s', line)
        elif overrides:
            names = ", ".join(f"{peer} by {path}" for peer, path in overrides.items())
            log.warning('overrides stay (on_stop = "keep"): %s; vagus-agent routes clear removes them', names)
        self._state_file.save(self._conduct.state)
        await self._uplink.stop(encode(report.goodbye(self.config, self.session)))

    # --- what comes in -------------------------------------------------------------------------------------------

    def _on_changes(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.new is LinkState.DOWN:
                self._uplink.path_down(change.link.peer, change.link.path)
        now = monotonic()
        for link in dict.fromkeys(change.link for change in changes):
            if self._announcer.news(link, self._links[link.peer]):
                self._event_seq += 1
                links = [self._describe(other, now) for other in self._links[link.peer]]
                self._uplink.publish_event(report.link_event(self.config, self.session, self._event_seq, link, links))
                log.info("%s to %s: %s (%s)", link.path, link.peer, link.state, link.reason)
        self._conduct.on_links(now)
        self._follow()

    def _on_proof(self, proof: Proof) -> None:
        self._conduct.on_proof(proof)
        self._follow()

    def _on_gap(self, gap: Gap) -> None:
        self._conduct.on_gap(gap)
        self._follow()

    def _on_desired(self, payload: bytes) -> None:
        if not payload:
            return
        message = open_sealed(payload, self.keys.node, self.config.fleet, self.config.node)
        if isinstance(message, Rejected):
            self._conduct.on_rejected(message.reason, monotonic())
        else:
            self._conduct.on_desired(message, monotonic())
        self._follow()

    def _on_controllers(self, topic: str, payload: bytes, retained: bool) -> None:
        where = topics.parse(topic)
        if not isinstance(where, topics.ControllerTopic):
            return
        presence = decode(payload, ControllerPresence) if payload else None
        if isinstance(presence, Rejected):
            self._complain("controllers", EventKind.REFUSED, f"{topic}: {presence.reason}")
            return
        self._conduct.on_controller(where.controller, presence, monotonic(), retained=retained)
        self._follow()

    def _on_session(self, session: Session | None, reason: str) -> None:
        if session is None:
            log.warning("no broker: %s", reason)
        elif self._session is None or session.broker != self._session.broker:
            self._tell(EventKind.UPLINK, f"connected to broker {session.name}")
        self._session = session
        self._conduct.on_session(session is not None, monotonic())
        self._follow()

    def _on_interfaces(self, interfaces: Interfaces) -> None:
        self._sockets.interfaces_changed()

    def _on_outcome(self, outcome: Outcome) -> None:
        self._conduct.on_kernel(self._steering.overrides, outcome.paths, outcome.failed, outcome.drift)
        self._follow()

    def _etcd_changed(self, etcd: Etcd) -> None:
        """In the etcd probe's thread."""
        text = (
            f"etcd: term {etcd.term}, leader {etcd.leader_id or 'none'}" if etcd.answering else f"etcd: {etcd.reason}"
        )
        with suppress(RuntimeError):
            # RuntimeError: the loop has ended; nobody is left to tell.
            self._loop.call_soon_threadsafe(self._tell, EventKind.ETCD, text)

    def _service_changed(self, name: str, service: Service) -> None:
        text = f"{name} answers again" if service.ok else f"{name}: {service.reason}"
        self._tell(EventKind.SERVICE, text, logging.INFO if service.ok else logging.WARNING, service.peer)

    # --- what follows --------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Do what the conduct asks for, after every word to it."""
        if self._conduct.overrides != self._steering.overrides:
            self._steer.set()
        if self.config.steering.flush_conntrack:
            self._flush.on_paths(self._conduct.paths, self._conduct.on_trial)
        for peer, path in self._conduct.take_measure():
            self._sockets.measure(peer, path)
        for peer, path in self._conduct.take_verify():
            self._sockets.verify(peer, path)
            self._checks.verify(peer, partial(self._on_checks, peer, path))
        for note in self._conduct.take_notes():
            self._tell(note.kind, note.text, _LEVELS[note.level], note.peer)
        if (observed := self._conduct.take_observed()) is not None:
            self._uplink.publish_retained("observed", encode(observed))
        if (state := self._conduct.take_state()) is not None:
            self._newest_state = state
            self._unsaved.set()
        if self._timer is not None:
            self._timer.cancel()
        due = self._conduct.deadline
        self._timer = self._loop.call_at(due, self._tick) if due < inf else None

    def _on_checks(self, peer: str, path: str, failed: tuple[str, ...]) -> None:
        self._conduct.on_checks(peer, path, failed)
        self._follow()

    def _tick(self) -> None:
        self._conduct.tick(monotonic())
        self._follow()

    # --- loops ---------------------------------------------------------------------------------------------------

    async def _steer_loop(self) -> None:
        while True:
            await self._steer.wait()
            self._steer.clear()
            # Everything is moved before anything of it is told or verified.
            outcome: Outcome | None = None
            drift: tuple[str, ...] = ()
            for peer in tuple(self._links):
                # Asked for each anew: much may be decided while the kernel is at work.
                path = self._conduct.overrides.get(peer)
                if path is not None and self._steering.overrides.get(peer) != path:
                    outcome = await self._steering.override(peer, path, self._conduct.reason(peer))
                    drift += outcome.drift
            if outcome is not None:
                self._on_outcome(replace(outcome, drift=drift))

    async def _save_loop(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            # Not in the loop: a worn SD card can take seconds to write.
            trouble = await threads.run("save", partial(self._state_file.save, self._newest_state))
            if trouble:
                self._complain("state", EventKind.AGENT, trouble)

    async def _report_loop(self, etcd: EtcdProbe | None) -> None:
        seq = 0
        due = monotonic()
        clocks = Clocks()
        while True:
            now = monotonic()
            seq += 1
            if jumped := clocks.look(*moment()):
                self._tell(EventKind.AGENT, jumped, logging.WARNING)
            interval = self._report_interval_s()
            system = self._system.read(now)
            self._prober.starve(starved(system))
            message = Report(
                v=1,
                node=self.config.node,
                session=self.session,
                seq=seq,
                boot_id=self.boot_id,
                interval_s=interval,
                lag_s=self._prober.take_worst_lag(),
                system=system,
                links=tuple(self._describe(link, now) for link in self._prober.links),
                etcd=etcd.latest(now) if etcd is not None else None,
                tailscale=self._tailscale,
                services=self._checks.latest(),
                epoch=self._conduct.term[0],
                generation=self._conduct.term[1],
                event_seq=self._event_seq,
                dropped_events=self._uplink.dropped_events,
                broker=self._session.name if self._session is not None else "",
            )
            self._uplink.publish_report(report.payload(message))
            self._announcer.told(self._prober.links)
            self._status(now)
            self._tick()
            due = max(due + interval, now)
            self._system.expect(due, interval)
            await asyncio.sleep(due - monotonic())

    def _report_interval_s(self) -> float:
        """Longer while reports go by a metered path; the report says its interval, so nobody takes it for silence."""
        carrier = self._session.broker.path if self._session is not None else ""
        metered = any(path.metered and path.name == carrier for path in self.config.paths)
        return self.config.report.interval_s * (METERED_REPORT_FACTOR if metered else 1)

    async def _tailscale_loop(self, probe: TailscaleProbe) -> None:
        settings = self.config.tailscale
        assert settings is not None
        while True:
            before = self._tailscale
            peers = {peer.name: peer.addresses for peer in self.config.peers}
            self._tailscale, relays = await probe.read(peers)
            self._relays = {(peer, settings.path): relay for peer, relay in relays.items()}
            if before is not None and (before.backend_state, before.error) != (
                self._tailscale.backend_state,
                self._tailscale.error,
            ):
                text = self._tailscale.error or f"backend is {self._tailscale.backend_state}"
                self._tell(EventKind.TAILSCALE, f"tailscale: {text}", logging.WARNING)
            await asyncio.sleep(settings.interval_s)

    async def _reload_loop(self) -> None:
        """The configuration is read again: all of it counts that can, or, with a mistake in it, nothing."""
        while True:
            await self._reread.wait()
            self._reread.clear()
            self._notifier.reloading(monotonic())
            try:
                config, keys = await threads.run("reload", self._read_again)
            except ConfigError as error:
                for mistake in error.mistakes:
                    log.error("%s", mistake)
                text = f"the configuration was not taken, and the old one stays: {error.brief}"
                self._tell(EventKind.AGENT, text, logging.ERROR)
            else:
                plan = reload.plan(self.config, config)
                if plan.changed:
                    await self._take(plan.config)
                waiting = plan.waiting + (() if keys == self.keys else ("the keys in keys_file",))
                if waiting:
                    self._tell(EventKind.AGENT, f"changed, and needs a restart: {', '.join(waiting)}", logging.WARNING)
                what = ", ".join(plan.changed) or "nothing that can change while the agent runs"
                self._tell(EventKind.AGENT, f"configuration read again; changed: {what}")
            self._notifier.ready()

    def _read_again(self) -> tuple[Config, Keys]:
        config = load(self._file, files=True)
        return config, load_keys(config)

    async def _take(self, config: Config) -> None:
        """Run by `config` from now on. Traffic first; then everything at once, before anything else happens."""
        known = {peer.name: config.paths_to(peer) for peer in config.peers}
        stay = {
            peer: path
            for peer, path in self._conduct.overrides.items()
            if any(path == offered.name for offered in known.get(peer, ()))
        }
        outcome = await self._steering.reconfigure(config, stay)
        self.config = config
        now = monotonic()
        logs.set_level(config.log_level)
        self._prober.reconfigure(config, now, random.random())
        self._sort_links()
        self._conduct.reconfigure(config, now)
        self._system.reconfigure(config.report)
        self._checks.reconfigure(config.checks)
        self._obstacles.reconfigure(config)
        self._flush.reconfigure(config)
        self._introduce()
        self._sockets.reconfigure(config)
        self._on_outcome(outcome)

    async def _watchdog_loop(self) -> None:
        """Proves to systemd that the event loop turns."""
        while True:
            self._notifier.watchdog()
            await asyncio.sleep(self._notifier.watchdog_interval_s or 3600.0)

    def _status(self, now: float) -> None:
        alive = sum(link.state in (LinkState.UP, LinkState.DEGRADED) for link in self._prober.links)
        moved = self._conduct.moved
        self._notifier.status(
            f"{alive} of {len(self._prober.links)} links up; "
            f"broker {self._session.name if self._session is not None else 'none'}"
            + (f"; on another path: {', '.join(moved)}" if moved else "")
        )
        if self._prober.rejected > self._rejected:
            count = self._prober.rejected - self._rejected
            text = "datagrams on the probe port that no peer of this fleet sent"
            if self._complain("probes", EventKind.REFUSED, text, f"{count} "):
                self._rejected = self._prober.rejected

    # --- what goes out -------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        birth = report.birth(self.config, self.session, self.boot_id, __version__, machine())
        self._uplink.publish_retained("presence", encode(birth))

    def _describe(self, link: Link, now: float) -> messages.Link:
        obstacle = self._obstacles.of(link.peer, link.path)
        return report.describe(link, now, self._conduct.paths.get(link.peer, ""), self._relays, obstacle)

    def _tell(self, kind: EventKind, text: str, level: int = logging.INFO, peer: str = "") -> None:
        log.log(level, "%s", text)
        self._event_seq += 1
        self._uplink.publish_event(
            Event(
                v=1,
                node=self.config.node,
                session=self.session,
                seq=self._event_seq,
                kind=kind,
                text=text[:1000],
                warning=level > logging.INFO,
                peer=peer,
            )
        )

    def _complain(self, about: str, kind: EventKind, text: str, prefix: str = "") -> bool:
        """Tell it, unless it was told lately; whether it was told."""
        said = self._complaints.worth(about, text, monotonic())
        if said is not None:
            self._tell(kind, said + prefix + text, logging.WARNING)
        return said is not None

    # --- small answers -------------------------------------------------------------------------------------------

    def _sort_links(self) -> None:
        """peer → its links in rung order, in the dict that is shared with the conduct."""
        self._links.clear()
        for peer in self.config.peers:
            self._links[peer.name] = [link for link in self._prober.links if link.peer == peer.name]

    def _other_networks(self) -> Mapping[str, Sequence[Network]]:
        assert self.config.tailscale is not None
        return {path.name: path.networks for path in self.config.paths if path.name != self.config.tailscale.path}

    def _path_names(self) -> str:
        return ", ".join(path.name for path in self.config.paths)
