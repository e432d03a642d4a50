"""The controller without its edges: everything it decides between messages, clock and commands.

    message ─► fleet ─► detectors ─► failover ─► desired ─► outbox

A driver (the daemon, or a simulation in virtual time) makes a `Brain` with an `Outbox`, and then

- gives it what it saved in an earlier life: `restore(saved, now)`;
- tells it when its broker session came or went: `on_session`; and after each coming, once all retained messages have
  been given to `on_message`, that it may speak: `settled`;
- gives it every message of `topics.controller_subscriptions`: `on_message`; a payload may be empty (a retained message
  was cleared), and its own publications come back to it as any other;
- calls `tick` every `TICK_S`, while there is a session or not.

`now` is monotonic seconds and never goes back. Whatever it says it says through the outbox, in the same call. There is
no clock and no randomness here: the same calls give the same words. A person's commands are in `commands.Commands`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from vagus_controller.config import Config
from vagus_controller.core import evidence, leadership, picture
from vagus_controller.core.assignments import Assignments, Term
from vagus_controller.core.detect.link import Links
from vagus_controller.core.detect.liveness import Liveness
from vagus_controller.core.detect.load import LoadDetector
from vagus_controller.core.detect.quorum import Quorum
from vagus_controller.core.drills import Drills
from vagus_controller.core.explain import explain
from vagus_controller.core.failover import Decision, Failover, Intent, Memory, Pair, Situation
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.heritage import Heritage
from vagus_controller.core.orders import Book
from vagus_controller.core.outbox import Outbox
from vagus_controller.core.pair import ordered, pair_named, subject
from vagus_controller.core.patience import Patience
from vagus_controller.core.pauses import Pauses
from vagus_controller.core.plans import Plans
from vagus_controller.core.remainder import open_trials
from vagus_controller.core.succession import Succession
from vagus_controller.core.transaction import Plan
from vagus_controller.views import CheckView, FleetView, IncidentBrief, LastDrill, Severity
from vagus_protocol import topics
from vagus_protocol.codec import Rejected, decode, encode
from vagus_protocol.messages import (
    ControllerPresence,
    Event,
    EventKind,
    LinkState,
    Observed,
    ObservedState,
    Orders,
    Presence,
    Report,
)
from vagus_protocol.signing import open_sealed

__all__ = ["TICK_S", "Brain", "Outbox"]

TICK_S: Final = 0.5
# Six ticks: who did nothing for so long was stopped, and what it hears first is old, though it looks new.
_ASLEEP_S: Final = 3.0
# Who comes new hears so often that we lead: the first may come before its subscription, and then proves nothing.
_GREETINGS: Final = 3
# What is said under our name and is not ours is set right at once, and then no more often than this: a twin answers.
_SET_RIGHT_S: Final = 10.0
_ALIVE: Final = (LinkState.UP, LinkState.DEGRADED)


class _Saved(msgspec.Struct):
    """What a restart must not forget. `orders`: pauses, and the plan or drill under way."""

    epoch: int = 0
    intents: dict[str, Intent] = {}
    orders: Orders | None = None
    memory: Memory = Memory()
    drills: dict[str, LastDrill] = {}


class Brain:
    def __init__(
        self, config: Config, fleet_key: bytes, session: str, outbox: Outbox, now: float, *, version: str = ""
    ) -> None:
        """`session`: of this life, another in each; two controllers that collide on one epoch part by it."""
        self.config = config
        self.session = session
        self.fleet = Fleet(config)
        self.failover = Failover(config.failover)
        self.leadership = leadership.Leadership(config.name, session)
        self.pauses = Pauses()
        self.outbox = outbox
        self._version = version
        self._started = self._awake_at = now
        self._patience = Patience(now, TICK_S)
        self._assignments = Assignments(config.fleet, config.name, fleet_key, session)
        self._liveness = Liveness(config)
        self._links = Links(config)
        self.quorum = Quorum(config)
        self._load = LoadDetector(config)
        self.plans = Plans(self.failover, self, self._publish_desired, self._say_orders, outbox)
        alive = self._liveness.verdicts
        self.drills = Drills(self.fleet, self.failover, self.plans, self.pauses, outbox, self._situation, alive)
        book = Book(config.fleet, config.name, session, fleet_key)
        self.succession = Succession(book, self.leadership, self.pauses, self.plans, self.drills, outbox, self._anchor)
        self._heritage = Heritage()
        # nodes whose retained desired is not ours any more, and older
        self._overwritten: set[str] = set()
        self._settled = False
        self._wall_ahead: float | None = None
        # ticks at which we say that we lead, to somebody who has come
        self._greetings = 0
        # whether the broker has another word under our name than our own, and when we may set it right
        self._misquoted = False
        self._set_right_from = now
        self._observer = self._liveness.controller(self.fleet, now)
        self._quorum_verdict = self.quorum.evaluate(self.fleet, now)

    def reconfigure(self, config: Config) -> None:
        """Other thresholds and guards from now on; who we are, and what was decided and found, stays."""
        self.config = self.fleet.config = config
        self.failover.reconfigure(config.failover)
        self._liveness.reconfigure(config.liveness.blind_share)
        self._links.reconfigure(config.failover.confirm_within_s)
        self._load.reconfigure(config)
        if self.fleet.connected:
            self.announce()

    # --- what survives -------------------------------------------------------------------------------------------

    def restore(self, saved: bytes, now: float) -> str:
        """Take up what `saved` gave in an earlier life; "" or what is wrong with it, and then nothing is taken."""
        try:
            before = msgspec.json.decode(saved, type=_Saved)
        except msgspec.MsgspecError as error:
            return str(error)
        self.leadership.saw_epoch(before.epoch)
        for name, intent in before.intents.items():
            pair = pair_named(name)
            if pair is not None:
                self.failover.intents[pair] = replace(intent, since=now)
        if before.orders is not None:
            self.succession.follow(before.orders, now)
        self.failover.restore(before.memory, now)
        self.drills.restore({pair: last for name, last in before.drills.items() if (pair := pair_named(name))})
        return ""

    def saved(self, now: float) -> bytes:
        saved = _Saved(
            epoch=self.leadership.epoch,
            intents={"--".join(pair): intent for pair, intent in self.failover.intents.items()},
            orders=self.succession.orders(now),
            memory=self.failover.snapshot(now),
            drills=self.drills.saved(),
        )
        return msgspec.json.encode(saved)

    # --- the broker ----------------------------------------------------------------------------------------------

    def on_session(self, connected: bool, reason: str, now: float) -> None:
        self.outbox.notices(self.fleet.on_session(connected, now, reason))
        text = f"connected: {reason}" if connected else f"broker session lost: {reason}"
        severity = Severity.INFO if connected else Severity.WARNING
        self.outbox.event("controller", "session", self.config.name, text, severity)
        if connected:
            self.leadership.new_session()
            self.announce()
        else:
            self._settled = False

    def settled(self, now: float) -> None:
        """All retained messages are in: from now on, until the session is lost, the brain may lead and speak."""
        if self._settled:
            return
        self._settled = True
        if not self.leadership.leads:
            # Whoever leads answers, and by that we know that it lives.
            self.announce()
        led = self.leadership.leads
        self._lead_or_wait(now)
        self.plans.executor.be_patient(now)
        # Also those who came before us.
        self._greetings = _GREETINGS
        if led and self.leadership.leads:
            # The broker may have lost what it retained; and who came while we were away has not been told at all.
            self.succession.send_orders()
            for node, told in self._assignments.told.items():
                self._send_desired(node, told.payload)
            for node in self.fleet.nodes:
                self._publish_desired(node)
            for state in list(self.fleet.nodes.values()):
                if state.observed is not None:
                    self._keep_apart(state.observed, now)

    def on_message(self, topic: str, payload: bytes, now: float) -> None:
        self._wake(now)
        where = topics.parse(topic)
        if isinstance(where, topics.ControllerTopic):
            self._on_controller(where, payload, now)
        elif isinstance(where, topics.OrdersTopic):
            self.succession.on_orders(where.controller, payload, now)
        elif where is not None and where.fleet == self.config.fleet and (payload or where.leaf == "desired"):
            if where.leaf == "report":
                self._on_report(where.node, payload, now)
            elif where.leaf == "event":
                self._on_event(where.node, payload, now)
            elif where.leaf == "observed":
                self._on_observed(where.node, payload, now)
            elif where.leaf == "presence":
                self._on_presence(where.node, payload, now)
            else:
                self._on_desired(where.node, payload)

    def _wake(self, now: float) -> None:
        """Doubt ourselves after a sleep, before anything is decided by what was said in it."""
        slept, self._awake_at = now - self._awake_at, now
        if slept > _ASLEEP_S:
            self.fleet.on_sleep(slept, now)
            self.plans.executor.be_patient(now)
            self._observer = self._liveness.controller(self.fleet, now)
            text = f"stood still for {slept:.0f} s (stopped, or starved): it hears the fleet before it decides"
            self.outbox.event("controller", "session", self.config.name, text, Severity.WARNING)

    def _on_report(self, node: str, payload: bytes, now: float) -> None:
        report = decode(payload, Report)
        if isinstance(report, Rejected) or report.node != node:
            self._reject(node, "report", report)
            return
        if notices := self.fleet.on_report(report, now, payload):
            self.outbox.notices(notices)
        if node in self.fleet.nodes:
            self._load.on_report(node, report, now)

    def _on_event(self, node: str, payload: bytes, now: float) -> None:
        event = decode(payload, Event)
        if isinstance(event, Rejected) or event.node != node:
            self._reject(node, "event", event)
            return
        notices = self.fleet.on_event(event, now)
        if event.kind is EventKind.LINK and event.peer:
            self._decide(now, [ordered(node, event.peer)])
        self.outbox.notices(notices)
        if node in self.fleet.nodes:
            severity = Severity.WARNING if event.warning else Severity.INFO
            late = f" ({event.age_s:.0f} s ago)" if event.age_s >= 1 else ""
            self.outbox.event(
                node, event.kind.value, subject(node, event.peer, event.path), event.text + late, severity
            )

    def _on_observed(self, node: str, payload: bytes, now: float) -> None:
        observed = decode(payload, Observed)
        if isinstance(observed, Rejected) or observed.node != node:
            self._reject(node, "observed", observed)
            return
        state = self.fleet.nodes.get(node)
        self._has_gone_back(state.observed if state is not None else None, observed)
        self.outbox.notices(self.fleet.on_observed(observed, now))
        self.leadership.heard_epoch(observed.epoch)
        state = self.fleet.nodes.get(node)
        if state is not None and state.observed is observed:
            self.plans.observed(observed, now)
        if observed.state is ObservedState.REFUSED:
            text = f"{node} refused epoch {observed.refused_epoch}: {observed.reason}"
            self.outbox.complain(node, text)
            self._apply_leadership(self.leadership.was_refused(observed.refused_epoch, observed.epoch), now)
        if self._settled:
            self._keep_apart(observed, now)
        if observed.reflex:
            self._decide(now, [ordered(node, peer) for peer in observed.reflex])

    def _has_gone_back(self, before: Observed | None, observed: Observed) -> None:
        """Tell of a node that has forgotten what it had accepted: it was told anew, but an older one could fool it."""
        if before is None or before.session == observed.session:
            return
        had, has = (before.epoch, before.generation), (observed.epoch, observed.generation)
        if has < had:
            lost = "lost" if has == (0, 0) else "older than what it had accepted, as from an old disk image"
            text = (
                f"its state on disk is {lost}: it went back from epoch {had[0]} generation {had[1]} to epoch {has[0]} "
                f"generation {has[1]}, and is told the newest"
            )
            self.outbox.event("controller", "fencing", observed.node, text, Severity.WARNING)

    def _keep_apart(self, observed: Observed, now: float) -> None:
        """Leave an epoch under which a node follows another."""
        if self._assignments.contested(observed, self.leadership.epoch):
            self._apply_leadership(self.leadership.shares_epoch(observed.node), now)

    def _on_presence(self, node: str, payload: bytes, now: float) -> None:
        presence = decode(payload, Presence)
        if isinstance(presence, Rejected) or presence.node != node:
            self._reject(node, "presence", presence)
            return
        self.outbox.notices(self.fleet.on_presence(presence, now))
        self._load.on_presence(self.fleet.nodes.get(node), now)
        if presence.online and self._settled and self.leadership.leads:
            self._publish_desired(node)
            self._greetings = _GREETINGS

    def _on_desired(self, node: str, payload: bytes) -> None:
        """Our own, or another controller's: it tells which epochs there are. Mischief is undone by `tick`."""
        told = self._assignments.told.get(node)
        if told is not None and payload == told.payload:
            self._overwritten.discard(node)
            return
        desired = open_sealed(payload, self._assignments.key(node), self.config.fleet, node)
        if isinstance(desired, Rejected):
            if payload:
                self.outbox.complain(
                    node, f"a desired for {node} that no controller of this fleet signed: {desired.reason}"
                )
            self._overwritten.add(node)
            return
        self.leadership.saw_epoch(desired.epoch)
        self._heritage.heard(desired)
        if told is not None and (desired.epoch, desired.generation) <= told.term:
            self._overwritten.add(node)

    def _on_controller(self, where: topics.ControllerTopic, payload: bytes, now: float) -> None:
        presence = decode(payload, ControllerPresence) if payload else None
        if presence is None:
            return
        if isinstance(presence, Rejected) or presence.controller != where.controller:
            self._reject(where.controller, "presence", presence)
            return
        if presence.controller == self.config.name and presence.session != self.session:
            if presence.online and self._settled:
                text = f"another controller calls itself {presence.controller} too: give each its own `name`"
                self.outbox.complain(presence.controller, f"{text} (its session is {presence.session})")
            if not presence.online or self.leadership.leads:
                # The last will of our own earlier session, after our birth; or a twin's word in the place of ours.
                self.announce()
        if presence.controller == self.config.name:
            self._misquoted = payload != self.presence(online=True)[1]
        self._apply_leadership(self.leadership.saw_presence(presence, fresh=self._settled), now)
        if self._settled and self.leadership.leads and presence.online and not presence.leader:
            self._greetings = _GREETINGS

    def _reject(self, who: str, what: str, message: Rejected | object) -> None:
        why = message.reason if isinstance(message, Rejected) else "it names another sender than its topic"
        self.outbox.complain(who, f"{what} from {who} was not taken: {why}")

    # --- leading -------------------------------------------------------------------------------------------------

    def presence(self, *, online: bool) -> tuple[str, bytes]:
        """Topic and payload of our own presence: retained, and with `online` false the last will."""
        presence = ControllerPresence(
            v=1,
            controller=self.config.name,
            session=self.session,
            online=online,
            leader=online and self.leadership.leads,
            epoch=self.leadership.epoch,
            version=self._version,
            mode=self.config.failover.mode,
        )
        return topics.controller(self.config.fleet, self.config.name), encode(presence)

    def announce(self) -> None:
        self.outbox.publish(*self.presence(online=True))

    def goodbye(self, now: float) -> None:
        """The last word of this life. What is on trial goes on in the next."""
        if self._settled and self.leadership.leads:
            self.drills.interrupt("this controller stops", now)
            self.plans.flush()
            self.succession.say_orders(now)
        self.succession.leave("this controller stops", now)
        self.outbox.publish(*self.presence(online=False))

    def _lead_or_wait(self, now: float) -> None:
        if not self.leadership.leads:
            told = self._heritage.inherit(self.fleet, self.failover, now)
            self.failover.follow(self.fleet, now, told)
        self._apply_leadership(self.leadership.tick(now, self._settled), now)

    def _apply_leadership(self, change: leadership.Change | None, now: float) -> None:
        if change is None:
            return
        text = f"leads under epoch {change.epoch}" if change.leads else "stands by"
        severity = Severity.INFO if change.leads else Severity.WARNING
        self.outbox.event("controller", "leadership", self.config.name, f"{text}: {change.reason}", severity)
        self.outbox.save()
        self.announce()
        if change.leads:
            self._begin_term(now)
        else:
            self.failover.stand_by()
            self.succession.leave(change.reason, now)

    def _begin_term(self, now: float) -> None:
        """Everybody hears of the new epoch; what is under way, ours or our predecessor's, goes on."""
        left = self.succession.inherit(self._heritage.orders, now)
        self._heritage.forget()
        self._assignments.begin_epoch()
        self.plans.executor.be_patient(now)
        self.drills.revert_found(left.drill, now)
        begun = left.begun(self.failover)
        free = [trial for trial in open_trials(self.failover) if self.plans.executor.on_trial(trial.pair) is None]
        self.plans.resume([trial for trial in free if trial.pair not in begun], now)
        found = self.failover.take_found()
        for each in found:
            # Taken over on trial too: the ends say whether it carries.
            self.failover.intents.pop(each.pair, None)
        homes = {each.pair: self.fleet.paths_of(each.pair)[0] for each in found}
        self.plans.decided([replace(each, was=homes[each.pair], urgent=True) for each in found], now)
        self.succession.take_up(self.fleet, self.failover, now)
        for node in self.fleet.nodes:
            self._publish_desired(node)

    # --- deciding ------------------------------------------------------------------------------------------------

    def tick(self, now: float, wall: float | None = None) -> None:
        """Every `TICK_S`. `wall`: epoch seconds, for maintenance windows alone; None: the clock is not known."""
        self._wake(now)
        self.fleet.patience = self._patience.tick(now)
        self._wall_ahead = None if wall is None else wall - now
        over = self.pauses.expire(now)
        for pause in over if self.leadership.leads else ():
            self.outbox.decision("vagus", "resume", pause.covers, "the pause is over")
        if over:
            self.outbox.save()
        self._observer = self._liveness.controller(self.fleet, now)
        self._liveness.evaluate(self.fleet, now)
        self._links.evaluate(self.fleet, now)
        self._quorum_verdict = self.quorum.evaluate(self.fleet, now)
        if self._settled and self._misquoted and now >= self._set_right_from:
            # Perhaps an old word of ours, published again. A twin that leads says so once more.
            self._misquoted, self._set_right_from = False, now + _SET_RIGHT_S
            self.leadership.doubt_twin()
            self.announce()
        if self._settled:
            self._lead_or_wait(now)
        if self._settled and self.leadership.leads:
            for node in self._overwritten & self._assignments.told.keys():
                self._send_desired(node, self._assignments.told[node].payload)
            self._overwritten.clear()
            if self._greetings:
                # What a broker retains of a leader does not prove to who comes new that it lives.
                self._greetings -= 1
                self.announce()
            self.plans.tick(now)
            self.drills.tick(now)
            self.succession.tick(now)
        observed = {name: state.observed for name, state in self.fleet.nodes.items() if state.observed is not None}
        alone = [ordered(name, peer) for name, each in observed.items() for peer in each.reflex]
        self._decide(now, dict.fromkeys((*self._links.judged, *self.failover.restless(self.fleet), *alone)))
        for text in self.quorum.take_news():
            self.outbox.event("controller", "quorum", self.config.fleet, text, Severity.INFO)
        self.outbox.verdicts(
            (self._observer, self._quorum_verdict, *self._liveness.news, *self._load.take_news(), *self._links.news)
        )
        self.outbox.changed()

    def _decide(self, now: float, pairs: Iterable[Pair]) -> None:
        if not (self._settled and self.leadership.leads):
            return
        self.drills.watch(now)
        known = [pair for pair in pairs if len(self.fleet.paths_of(pair)) > 1]
        self.plans.watch(self.fleet, known, now)
        decisions = self.failover.evaluate(self.fleet, self._situation(now), now, known)
        if decisions:
            self.plans.decided(decisions, now)

    def _situation(self, now: float) -> Situation:
        quorum = self._quorum_verdict
        return Situation(
            controller=self._liveness.controller(self.fleet, now),
            quorum=quorum,
            quorum_lost_since=quorum.since if quorum.state == "lost" else None,
            members=self.members(),
            links=self._links.verdicts,
            paused=lambda node: self.pauses.on(self.fleet, node),
            busy=self.plans.busy(now),
            planned=self.plans.executor.planned,
            heard=self._answered,
            wall=None if self._wall_ahead is None else now + self._wall_ahead,
        )

    def _answered(self, node: str) -> bool:
        state = self.fleet.nodes.get(node)
        return state is None or state.observed is None or self._assignments.answered(state.observed)

    def members(self) -> frozenset[str]:
        """The nodes whose etcd votes."""
        return self.quorum.members(self.fleet)

    # --- transaction.Checks --------------------------------------------------------------------------------------

    def preflight(self, plan: Plan, step: Decision, now: float) -> str:
        """Why the step must not begin now; a person's plan heeds no guard but proof."""
        if self.failover.trying(step.pair, step.path):
            # It was begun in an earlier life.
            return ""
        if step.automatic:
            forbidden = self.failover.forbidden(self.fleet, self._situation(now), step.pair, now)
            if forbidden:
                return forbidden
        return self.failover.limitation(self.fleet, step.pair, step.path, now)

    def dead(self, plan: Plan, step: Decision, now: float) -> bool:
        """Whether the path that is left is dead by its ends' words; one that was dead is so until an end says more."""
        if step.was == step.path:
            return False
        if evidence.down(self.fleet, step.pair, step.was, now, self.config.failover.confirm_within_s):
            return True
        words = [self.fleet.believed(*ends, step.was, now) for ends in (step.pair, step.pair[::-1])]
        return plan.urgent and not any(word is not None and word.link.state in _ALIVE for word in words)

    def silent(self, node: str, now: float) -> bool:
        """Whether a node that was heard is not any more: it is late, or offline."""
        state = self.fleet.nodes.get(node)
        if state is None or state.said_goodbye or state.lost_connection:
            return True
        return state.report_at is not None and now - state.report_at > self.fleet.late_after(state)

    # --- telling -------------------------------------------------------------------------------------------

    def _publish_desired(self, node: str, *, anew: bool = False) -> Term | None:
        """Tell a node its assignments, unless it has been told the same; the (epoch, generation) it must apply."""
        renewed = self._assignments.renew(
            node, self.fleet, self.failover, self.leadership.epoch, self.succession.generation, anew=anew
        )
        if renewed is None:
            return None
        told, news = renewed
        if news:
            self._send_desired(node, told.payload)
        return told.term

    def _anchor(self) -> None:
        node = next(iter(self._assignments.told), None)
        if node is not None:
            self._publish_desired(node, anew=True)

    def _say_orders(self, now: float) -> None:
        self.succession.say_orders(now)

    def _send_desired(self, node: str, payload: bytes) -> None:
        self.outbox.publish(topics.node(self.config.fleet, node, "desired"), payload)

    # --- showing -------------------------------------------------------------------------------------------------

    def fleet_view(self, now: float, *, at: float = 0.0, broker: str = "") -> FleetView:
        """The whole picture; see `canvas`."""
        return self.canvas(now, at=at, broker=broker).whole()

    def canvas(
        self, now: float, *, at: float = 0.0, broker: str = "", incidents: tuple[IncidentBrief, ...] = ()
    ) -> picture.Canvas:
        """The fleet as views, to be drawn in parts; good until the brain is called again. `at`: wall-clock epoch
        seconds; `broker`: the one that we are connected to; `incidents`: those that are open; all are only shown."""
        return picture.Canvas(self._sources(now, at, broker, incidents))

    def explain(self, pair: str, now: float) -> tuple[CheckView, ...]:
        """What the failover policy looks at for the pair "a--b", now. Raises KeyError for an unknown one."""
        known = pair_named(pair)
        if known is None or not self.fleet.has(known):
            raise KeyError(pair)
        checks = explain(self.failover, self.fleet, self._situation(now), known, now)
        if self.leadership.leads:
            return checks
        text = f"this one decides nothing, it stands by: {self.leadership.reason}"
        return (CheckView(what="leadership", result="block", text=text), *checks)

    def summary(self, now: float) -> str:
        """The fleet's health in one sentence."""
        return picture.summary(self._sources(now))[0]

    def _sources(
        self, now: float, at: float = 0.0, broker: str = "", incidents: tuple[IncidentBrief, ...] = ()
    ) -> picture.Sources:
        return picture.Sources(
            config=self.config,
            fleet=self.fleet,
            failover=self.failover,
            plans=self.plans,
            drills=self.drills.last,
            observer=self._observer,
            nodes=self._liveness.verdicts,
            loads=self._load.verdicts,
            links=self._links.verdicts,
            dead=self._links.dead(),
            hindered=self._links.hindered(),
            quorum=self.quorum.view(self.fleet, self._quorum_verdict, now),
            pauses=tuple(pause.view(now) for pause in self.pauses.standing),
            incidents=incidents,
            epoch=self.leadership.epoch,
            leads=self.leadership.leads,
            standing=self.leadership.reason,
            broker=broker,
            version=self._version,
            started=self._started,
            now=now,
            at=at,
        )
