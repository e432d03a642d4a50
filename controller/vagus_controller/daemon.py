"""The running controller.

    MQTT ─► fleet ─► detectors ─► failover ─► desired ─► MQTT          ─► ledger, events, page

Everything runs in one event loop. A link event goes from the socket to the two published desireds in one call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable
from importlib.metadata import version
from time import monotonic
from typing import Final

import msgspec

from vagus_controller.api.app import create_app, serve
from vagus_controller.api.auth import load_token
from vagus_controller.api.stream import ChangeFeed
from vagus_controller.broker import BrokerSession
from vagus_controller.chronicle import Chronicle
from vagus_controller.config import Config
from vagus_controller.core import leadership, picture
from vagus_controller.core.assignments import Assignments, Term
from vagus_controller.core.detect.link import Links
from vagus_controller.core.detect.liveness import Liveness
from vagus_controller.core.detect.load import LoadDetector
from vagus_controller.core.detect.quorum import Quorum
from vagus_controller.core.failover import Decision, Failover, Intent, Pair, Situation
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.moves import Move, Moves
from vagus_controller.core.pauses import Pause, Pauses
from vagus_controller.store import Store
from vagus_controller.views import FleetView, LedgerEntry, PauseView, Refused, Severity
from vagus_protocol import topics
from vagus_protocol.codec import Rejected, decode, encode
from vagus_protocol.messages import (
    ControllerPresence,
    Event,
    EventKind,
    Observed,
    ObservedState,
    Presence,
    Report,
)
from vagus_protocol.signing import open_sealed
from vagus_runtime.sdnotify import Notifier

log = logging.getLogger("vagus")

_TICK_S: Final = 0.5
_SEVERITY_OF: Final = {
    EventKind.DRIFT: Severity.WARNING,
    EventKind.REFLEX: Severity.WARNING,
    EventKind.REFUSED: Severity.WARNING,
    EventKind.AGENT: Severity.WARNING,
}


class _Saved(msgspec.Struct):
    """What a restart must not forget; pauses with the seconds that were left, since wall clocks jump."""

    epoch: int = 0
    intents: dict[str, Intent] = {}
    pauses: list[Pause] = []


def run(config: Config, fleet_key: bytes) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    try:
        return asyncio.run(Controller(config, fleet_key).run())
    except OSError as error:
        log.error("%s", error)
        return 1


class Controller:
    def __init__(self, config: Config, fleet_key: bytes) -> None:
        self.config = config
        self._assignments = Assignments(config.fleet, config.name, fleet_key)
        self._session_id = secrets.token_hex(8)
        self._started = monotonic()
        self._fleet = Fleet(config)
        self._liveness = Liveness(config)
        self._links = Links(config)
        self._quorum = Quorum(config)
        self._load = LoadDetector(config)
        self._failover = Failover(config.failover)
        self._moves = Moves()
        self._leadership = leadership.Leadership(config.name, self._session_id)
        self._pauses = Pauses()
        # nodes whose retained desired is not ours any more, and older
        self._overwritten: set[str] = set()
        self._settled = False
        self._store = Store(config.store.url, config.store.keep_days, config.store.keep_rows)
        self._feed = ChangeFeed()
        self._chronicle = Chronicle(self._store, self._feed)
        self._notifier = Notifier(os.environ)
        self._stop = asyncio.Event()
        now = monotonic()
        self._observer = self._liveness.controller(self._fleet, now)
        self._quorum_verdict = self._quorum.evaluate(self._fleet, now)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._store.start()
        self._restore()
        token = load_token(self.config.http.token_file)
        app = create_app(self, self._store, self._feed, token, self._problems)
        self._broker = BrokerSession(
            self.config.mqtt,
            client_id=f"vagus-{self.config.fleet}-{self.config.name}-{self._session_id[:6]}",
            subscriptions=topics.controller_subscriptions(self.config.fleet),
            will=(topics.controller(self.config.fleet, self.config.name), encode(self._presence(online=False))),
            on_message=self._on_message,
            on_session=self._on_session,
        )
        self._broker.start()
        tasks = [
            asyncio.ensure_future(serve(app, self.config.http)),
            asyncio.ensure_future(self._tick_loop()),
            asyncio.ensure_future(self._settle_loop()),
        ]
        stopping = asyncio.ensure_future(self._stop.wait())
        self._notifier.ready()
        log.info("%s runs for fleet %s, http://%s:%d", self.config.name, self.config.fleet, *self._listens())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = next((task for task in tasks if task.done()), None)
            if failed is not None:
                error = failed.exception()
                if isinstance(error, OSError):
                    raise error
                log.critical("a part of the controller failed; it stops, for systemd to start it again", exc_info=error)
                return 1
            return 0
        finally:
            self._notifier.stopping()
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
            self._announce(online=False)
            await self._broker.stop()
            self._save()
            self._store.stop()

    def _listens(self) -> tuple[str, int]:
        return self.config.http.host, self.config.http.port

    # --- what survives -------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        raw = self._store.load_state("controller")
        if raw is None:
            return
        try:
            saved = msgspec.json.decode(raw, type=_Saved)
        except msgspec.MsgspecError as error:
            log.error("the saved state is damaged (%s): starting from what the broker retains", error)
            return
        now = monotonic()
        self._leadership.saw_epoch(saved.epoch)
        for name, intent in saved.intents.items():
            pair = _pair(name)
            if pair is not None:
                self._failover.intents[pair] = msgspec.structs.replace(intent, since=now)
        self._pauses.restore(saved.pauses, now)

    def _save(self) -> None:
        saved = _Saved(
            epoch=self._leadership.epoch,
            intents={"--".join(pair): intent for pair, intent in self._failover.intents.items()},
            pauses=self._pauses.left(monotonic()),
        )
        self._store.save_state("controller", msgspec.json.encode(saved))

    # --- the broker ----------------------------------------------------------------------------------------------

    def _on_session(self, connected: bool, reason: str) -> None:
        now = monotonic()
        self._chronicle.notices(self._fleet.on_session(connected, now, reason))
        if not connected:
            self._settled = False
            self._chronicle.event(
                "controller", "session", self.config.name, f"broker session lost: {reason}", Severity.WARNING
            )
        else:
            self._chronicle.event(
                "controller", "session", self.config.name, f"connected to {self._broker.broker}", Severity.INFO
            )
            self._announce()

    async def _settle_loop(self) -> None:
        """After each connect: wait until all retained messages are in, then speak."""
        while True:
            await self._broker.barrier()
            if not self._settled:
                self._settled = True
                led = self._leadership.leads
                self._lead_or_wait()
                if led and self._leadership.leads:
                    # The broker may have lost what it retained.
                    for node, told in self._assignments.told.items():
                        self._send_desired(node, told.payload)
            await asyncio.sleep(_TICK_S / 5)

    def _lead_or_wait(self) -> None:
        if not self._leadership.leads:
            self._failover.follow(self._fleet, monotonic())
        self._apply_leadership(self._leadership.tick(monotonic(), self._settled))

    def _apply_leadership(self, change: leadership.Change | None) -> None:
        if change is None:
            return
        text = f"leads under epoch {change.epoch}" if change.leads else "stands by"
        self._chronicle.event(
            "controller",
            "leadership",
            self.config.name,
            f"{text}: {change.reason}",
            Severity.INFO if change.leads else Severity.WARNING,
        )
        self._save()
        self._announce()
        if change.leads:
            self._assignments.begin_epoch()
            self._carry_out(self._failover.take_found(), monotonic(), "vagus")
            for node in self._fleet.nodes:
                self._publish_desired(node)

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        where = topics.parse(topic)
        if isinstance(where, topics.ControllerTopic):
            self._on_controller(where, payload)
        elif where is not None and where.fleet == self.config.fleet and (payload or where.leaf == "desired"):
            if where.leaf == "report":
                self._on_report(where.node, payload)
            elif where.leaf == "event":
                self._on_event(where.node, payload)
            elif where.leaf == "observed":
                self._on_observed(where.node, payload)
            elif where.leaf == "presence":
                self._on_presence(where.node, payload)
            else:
                self._on_desired(where.node, payload)

    def _on_report(self, node: str, payload: bytes) -> None:
        report = decode(payload, Report)
        if isinstance(report, Rejected) or report.node != node:
            self._reject(node, "report", report)
            return
        now = monotonic()
        notices = self._fleet.on_report(report, now, payload)
        if notices:
            self._chronicle.notices(notices)
        if node in self._fleet.nodes:
            self._load.on_report(node, report, now)

    def _on_event(self, node: str, payload: bytes) -> None:
        event = decode(payload, Event)
        if isinstance(event, Rejected) or event.node != node:
            self._reject(node, "event", event)
            return
        now = monotonic()
        notices = self._fleet.on_event(event, now)
        if event.kind is EventKind.LINK and event.peer:
            self._decide(now, [_ordered(node, event.peer)])
        self._chronicle.notices(notices)
        if node in self._fleet.nodes:
            severity = _SEVERITY_OF.get(event.kind, Severity.INFO)
            late = f" ({event.age_s:.0f} s ago)" if event.age_s >= 1 else ""
            self._chronicle.event(node, event.kind.value, _subject(node, event), event.text + late, severity)

    def _on_observed(self, node: str, payload: bytes) -> None:
        observed = decode(payload, Observed)
        if isinstance(observed, Rejected) or observed.node != node:
            self._reject(node, "observed", observed)
            return
        now = monotonic()
        self._chronicle.notices(self._fleet.on_observed(observed, now))
        self._leadership.heard_epoch(observed.epoch)
        for move, outcome in self._moves.observed(observed, now):
            self._finish(move, outcome)
        if observed.state is ObservedState.REFUSED:
            text = f"{node} refused epoch {observed.refused_epoch}: {observed.reason}"
            self._chronicle.complain(node, text)
            self._apply_leadership(self._leadership.was_refused(observed.refused_epoch, observed.epoch))
        if observed.reflex:
            self._decide(now, [_ordered(node, peer) for peer in observed.reflex])

    def _on_presence(self, node: str, payload: bytes) -> None:
        presence = decode(payload, Presence)
        if isinstance(presence, Rejected) or presence.node != node:
            self._reject(node, "presence", presence)
            return
        self._chronicle.notices(self._fleet.on_presence(presence, monotonic()))
        if presence.online and self._settled and self._leadership.leads:
            self._publish_desired(node)

    def _on_desired(self, node: str, payload: bytes) -> None:
        """Our own, or another controller's: it tells which epochs there are. Mischief is undone by `_tick`."""
        told = self._assignments.told.get(node)
        if told is not None and payload == told.payload:
            self._overwritten.discard(node)
            return
        desired = open_sealed(payload, self._assignments.key(node), self.config.fleet, node)
        if isinstance(desired, Rejected):
            if payload:
                self._chronicle.complain(
                    node, f"a desired for {node} that no controller of this fleet signed: {desired.reason}"
                )
            self._overwritten.add(node)
            return
        self._leadership.saw_epoch(desired.epoch)
        if told is not None and (desired.epoch, desired.generation) <= told.term:
            self._overwritten.add(node)

    def _on_controller(self, where: topics.ControllerTopic, payload: bytes) -> None:
        presence = decode(payload, ControllerPresence) if payload else None
        if presence is None:
            return
        if isinstance(presence, Rejected) or presence.controller != where.controller:
            self._reject(where.controller, "presence", presence)
            return
        if presence.controller == self.config.name and presence.session != self._session_id and not presence.online:
            # The last will of our own earlier session, after our birth.
            self._announce()
        self._apply_leadership(self._leadership.saw_presence(presence))

    def _reject(self, who: str, what: str, message: Rejected | object) -> None:
        why = message.reason if isinstance(message, Rejected) else "it names another sender than its topic"
        self._chronicle.complain(who, f"{what} from {who} was not taken: {why}")

    # --- deciding ------------------------------------------------------------------------------------------------

    async def _tick_loop(self) -> None:
        due = monotonic()
        while True:
            started = monotonic()
            self._tick(started)
            self._notifier.watchdog()
            due = max(due + _TICK_S, monotonic())
            await asyncio.sleep(due - monotonic())

    def _tick(self, now: float) -> None:
        over = self._pauses.expire(now)
        for pause in over:
            self._by_person("vagus", "resume", pause.covers, "the pause is over")
        if over:
            self._save()
        self._observer = self._liveness.controller(self._fleet, now)
        self._liveness.evaluate(self._fleet, now)
        self._links.evaluate(self._fleet, now)
        self._quorum_verdict = self._quorum.evaluate(self._fleet, now)
        if self._settled:
            self._lead_or_wait()
        if self._settled and self._leadership.leads:
            for node in self._overwritten & self._assignments.told.keys():
                self._send_desired(node, self._assignments.told[node].payload)
            self._overwritten.clear()
        observed = {name: state.observed for name, state in self._fleet.nodes.items() if state.observed is not None}
        alone = [_ordered(name, peer) for name, each in observed.items() for peer in each.reflex]
        self._decide(now, dict.fromkeys((*self._links.judged, *self._failover.restless(), *alone)))
        for move, excuse in self._moves.tick(observed, now):
            self._chronicle.outcome(move.ledger, f"unfinished: {excuse}")
            self._chronicle.event(
                "controller", "failover", "--".join(move.pair), f"not finished: {excuse}", Severity.WARNING
            )
        self._chronicle.verdicts(
            (self._observer, self._quorum_verdict, *self._liveness.news, *self._load.take_news(), *self._links.news)
        )
        self._publish_picture()
        self._notifier.status(picture.summary(self._sources(now))[0])

    def _decide(self, now: float, pairs: Iterable[Pair]) -> None:
        if not (self._settled and self._leadership.leads):
            return
        known = [pair for pair in pairs if len(self._fleet.paths_of(pair)) > 1]
        quorum = self._quorum_verdict
        situation = Situation(
            controller=self._observer,
            quorum=quorum,
            quorum_lost_since=quorum.since if quorum.state == "lost" else None,
            members=self._quorum.members(self._fleet),
            links=self._links.verdicts,
            paused=lambda node: self._pauses.on(self._fleet, node),
        )
        decisions = self._failover.evaluate(self._fleet, situation, now, known)
        for decision in decisions:
            if decision.moves:
                self._failover.record(decision, now)
                self._failover.confirmed(decision.pair, now)
        self._carry_out(decisions, now, "vagus")

    def _carry_out(self, decisions: list[Decision], now: float, who: str) -> list[LedgerEntry]:
        """Publish first, write afterwards: the switch is what is urgent."""
        moves = [decision for decision in decisions if decision.moves]
        touched = {node for decision in moves for node in decision.pair}
        force = {node for decision in moves if decision.kind == "revert" for node in decision.pair}
        terms = {node: self._publish_desired(node, force=node in force) for node in sorted(touched)}
        entries = []
        for decision in decisions:
            entry = self._chronicle.decision(
                who,
                decision.kind,
                "--".join(decision.pair),
                decision.reason,
                evidence=decision.evidence,
                outcome="told both ends" if decision.moves else "",
            )
            entries.append(entry)
            if decision.moves:
                waits = {node: term for node in decision.pair if (term := terms[node]) is not None}
                self._moves.start(Move(decision.pair, decision.path, entry, now, waits))
        if moves:
            self._save()
            self._publish_picture()
        return entries

    def _finish(self, move: Move, outcome: str) -> None:
        self._chronicle.outcome(move.ledger, outcome)
        self._chronicle.event(
            "controller", "failover", "--".join(move.pair), f"now by {move.path}: {outcome}", Severity.INFO
        )
        self._publish_picture()

    def _publish_desired(self, node: str, *, force: bool = False) -> Term | None:
        """Tell a node its assignments, unless it has been told the same; the (epoch, generation) it must apply."""
        renewed = self._assignments.renew(node, self._fleet, self._failover, self._leadership.epoch, force=force)
        if renewed is None:
            return None
        told, news = renewed
        if news:
            self._send_desired(node, told.payload)
        return told.term

    def _send_desired(self, node: str, payload: bytes) -> None:
        self._broker.publish(topics.node(self.config.fleet, node, "desired"), payload, qos=1, retain=True)

    def _presence(self, *, online: bool) -> ControllerPresence:
        return ControllerPresence(
            v=1,
            controller=self.config.name,
            session=self._session_id,
            online=online,
            leader=online and self._leadership.leads,
            epoch=self._leadership.epoch,
            version=version("vagus"),
            mode=self.config.failover.mode,
        )

    def _announce(self, *, online: bool = True) -> None:
        topic = topics.controller(self.config.fleet, self.config.name)
        self._broker.publish(topic, encode(self._presence(online=online)), qos=1, retain=True)

    # --- telling -------------------------------------------------------------------------------------------------

    def _publish_picture(self) -> None:
        if self._feed.wants_fleet:
            self._chronicle.picture(self.fleet())

    def _problems(self) -> list[str]:
        """What keeps this controller from doing its work, in words; empty when all is well."""
        problems = [self._store.problem] if self._store.problem else []
        if not self._broker.connected:
            problems.append("no broker session")
        return problems

    def _sources(self, now: float) -> picture.Sources:
        return picture.Sources(
            config=self.config,
            fleet=self._fleet,
            failover=self._failover,
            moves=self._moves,
            observer=self._observer,
            nodes=self._liveness.verdicts,
            loads=self._load.verdicts,
            links=self._links.verdicts,
            dead=self._links.dead(),
            quorum=self._quorum.view(self._fleet, self._quorum_verdict, now),
            pauses=tuple(pause.view(now) for pause in self._pauses.standing),
            epoch=self._leadership.epoch,
            leads=self._leadership.leads,
            standing=self._leadership.reason,
            broker=self._broker.broker,
            version=version("vagus"),
            started=self._started,
            now=now,
            at=time.time(),
        )

    # --- views.Operator ------------------------------------------------------------------------------------------

    def fleet(self) -> FleetView:
        return picture.draw(self._sources(monotonic()))

    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry:
        known = self._known(pair)
        now = monotonic()
        self._must_lead()
        paths = self._fleet.paths_of(known)
        if path not in paths:
            raise Refused(f"{path!r} is not a path between {known[0]} and {known[1]}; there are: {', '.join(paths)}")
        if self._failover.intent(self._fleet, known).path == path:
            raise Refused(f"{pair} is assigned to {path} already")
        limitation = self._failover.limitation(self._fleet, known, path, now)
        if limitation and not force:
            raise Refused(f"{limitation}. To move it all the same, force it and give a reason")
        if limitation and not reason:
            raise Refused("a forced switchover needs a reason: it is kept in the ledger")
        words = (reason or "asked for") + (f" (forced although {limitation})" if limitation else "")
        decision = Decision(kind="switchover", pair=known, path=path, origin="operator", reason=words)
        return self._by_hand(decision, now, who)

    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        known = self._known(pair)
        now = monotonic()
        self._must_lead()
        home = self._fleet.paths_of(known)[0]
        if self._failover.intent(self._fleet, known).path == home:
            raise Refused(f"{pair} is on its first path, {home}, already")
        limitation = self._failover.limitation(self._fleet, known, home, now)
        if limitation:
            raise Refused(
                f"{limitation}. It goes home by itself once {home} is proven, or force a switchover to {home}"
            )
        words = reason or "asked for"
        return self._by_hand(Decision(kind="failback", pair=known, path=home, origin="default", reason=words), now, who)

    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView:
        now = monotonic()
        pause = self._pauses.add(self._fleet, scope, target, reason, who, for_s, now)
        self._save()
        self._by_person(who, "pause", pause.covers, f"{reason or 'no reason given'}, for {for_s:.0f} s")
        return pause.view(now)

    def resume(self, pause_id: int, *, who: str) -> None:
        pause = self._pauses.end(pause_id)
        self._save()
        self._by_person(who, "resume", pause.covers, f"ends the pause of {pause.who} ({pause.reason})")

    def _by_hand(self, decision: Decision, now: float, who: str) -> LedgerEntry:
        self._failover.record(decision, now)
        self._failover.confirmed(decision.pair, now)
        return self._carry_out([decision], now, who)[0]

    def _by_person(self, who: str, action: str, subject: str, reason: str) -> None:
        self._chronicle.decision(who, action, subject, reason)
        self._publish_picture()

    def _must_lead(self) -> None:
        if not self._leadership.leads:
            raise Refused(f"this controller does not lead ({self._leadership.reason}): ask the one that does")

    def _known(self, name: str) -> Pair:
        pair = _pair(name)
        if pair is None or pair not in self._fleet.pairs():
            raise KeyError(name)
        return pair


def _ordered(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def _pair(name: str) -> Pair | None:
    """The pair of a name "a--b", in either order; None when it is no such name."""
    a, separator, b = name.partition("--")
    return (min(a, b), max(a, b)) if separator and a and b and a != b else None


def _subject(node: str, event: Event) -> str:
    if not event.peer:
        return node
    pair = f"{min(node, event.peer)}--{max(node, event.peer)}"
    return f"{pair}/{event.path}" if event.path else pair
