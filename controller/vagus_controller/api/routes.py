"""/api/v1, /metrics and /healthz: the picture of the fleet in parts, history, and what a person may ask for."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from litestar import delete, get, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, PathParameter, QueryParameter, RequestBody
from litestar.response import Response
from litestar.response.base import ASGIResponse
from msgspec import Meta, Struct

from vagus_controller.api import metrics
from vagus_controller.api.auth import Asked
from vagus_controller.api.paging import LINK, WANTED, After, Many, Which, by_name, paged
from vagus_controller.api.stream import (
    ChangeFeed,
    Full,
    StreamResponse,
    Subscriber,
    missed,
    parse_marks,
)
from vagus_controller.views import (
    ABOUT_PERSONS,
    AgentView,
    Canvas,
    ChannelView,
    CheckView,
    DrillAsk,
    DrillView,
    EventEntry,
    FleetView,
    History,
    IncidentView,
    LedgerEntry,
    NodeView,
    NotificationTest,
    Operator,
    Pair,
    PairView,
    PauseView,
    PlanAsk,
    PlanView,
    QuorumView,
    Refused,
    VerdictView,
    View,
    Wanted,
    WhyView,
    concerns,
)
from vagus_protocol.messages import Name

Problems = Callable[[], list[str]]

_HISTORY_OF_WHY: Final = 20
_MAX_PAUSE_S: Final = 30 * 86400
_MAX_PAIRS: Final = 1000
# With the longest names, and as many that are wrong, so that each is told so.
_MAX_PLAN: Final = 2 * _MAX_PAIRS * 140

Reason = Annotated[str, Meta(max_length=1000)]
PairName = Annotated[str, Meta(min_length=1, max_length=130)]
IncidentId = Annotated[int, PathParameter(ge=0, le=2**53)]
Show = Annotated[Literal["open", "all"], QueryParameter(description="Those that are open, or also those that were.")]


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""


class SwitchoverAsk(Ask, frozen=True, kw_only=True):
    pair: PairName
    path: Name
    reason: Reason = ""
    # Also when the path is not proven; needs a reason.
    force: bool = False


class FailbackAsk(Ask, frozen=True, kw_only=True):
    pair: PairName
    reason: Reason = ""


class ApproveAsk(Ask, frozen=True, kw_only=True):
    reason: Reason = ""


class PlansAsk(Ask, frozen=True, kw_only=True):
    """See views.PlanAsk."""

    # Empty: each pair to its first path.
    path: Annotated[str, Meta(max_length=63)]
    pairs: Annotated[tuple[PairName, ...], Meta(max_length=_MAX_PAIRS)] = ()
    scope: Literal["", "fleet", "site", "node"] = ""
    target: Annotated[str, Meta(max_length=200)] = ""
    reason: Reason = ""
    force: bool = False
    dry_run: bool = False


class DrillsAsk(Ask, frozen=True, kw_only=True):
    """See views.DrillAsk."""

    scope: Literal["pair", "site", "fleet"]
    target: Annotated[str, Meta(max_length=200)] = ""
    reason: Reason = ""


class PauseAsk(Ask, frozen=True, kw_only=True):
    scope: Literal["fleet", "site", "node"]
    target: Annotated[str, Meta(max_length=200)] = ""
    reason: Reason = ""
    for_s: Annotated[float, Meta(gt=0, le=_MAX_PAUSE_S)]


class NoteAsk(Ask, frozen=True, kw_only=True):
    text: Annotated[str, Meta(min_length=1, max_length=1000)]


class ResolveAsk(Ask, frozen=True, kw_only=True):
    # Why it is none any more.
    note: Annotated[str, Meta(min_length=1, max_length=1000)]


class TestAsk(Ask, frozen=True, kw_only=True):
    channel: Annotated[str, Meta(min_length=1, max_length=200)]


class Health(View, frozen=True, kw_only=True):
    status: Literal["ok", "trouble"]
    problems: list[str]


def api_routes(operator: Operator, history: History, changes: ChangeFeed) -> tuple[HTTPRouteHandler, ...]:
    @get("/fleet", sync_to_thread=False, summary="The whole picture")
    def fleet() -> FleetView:
        return operator.fleet()

    @get("/nodes", sync_to_thread=False, response_headers=[LINK], summary="All nodes, by name")
    def nodes(request: Asked, limit: Many = None, after: After = None) -> Response[tuple[NodeView, ...]]:
        canvas = operator.canvas()
        return by_name(request, canvas.names, canvas.node, limit, after)

    @get("/nodes/{name:str}", sync_to_thread=False, summary="One node")
    def node(name: FromPath[str]) -> NodeView:
        canvas = operator.canvas()
        if name not in canvas.names:
            raise unknown("node", name, canvas.names)
        return canvas.node(name)

    @get("/nodes/{name:str}/agent", sync_to_thread=False, summary="What the agent on a node is set to do")
    def agent(name: FromPath[str]) -> AgentView:
        try:
            return operator.agent(name)
        except KeyError:
            raise unknown("node", name, operator.canvas().names) from None

    @get(
        "/links",
        sync_to_thread=False,
        response_headers=[LINK],
        summary="All pairs of nodes, by name, with their paths from both ends",
    )
    def links(request: Asked, limit: Many = None, after: After = None) -> Response[tuple[PairView, ...]]:
        canvas = operator.canvas()
        known = {"--".join(pair): pair for pair in canvas.pairs}
        return by_name(request, [*known], lambda name: canvas.pair(known[name]), limit, after)

    @get("/links/{pair:str}", sync_to_thread=False, summary="One pair of nodes")
    def link(pair: FromPath[str]) -> PairView:
        canvas = operator.canvas()
        return canvas.pair(find_pair(canvas, pair))

    @get("/quorum", sync_to_thread=False, summary="etcd, from every member's own view")
    def quorum() -> QuorumView:
        return operator.canvas().head.quorum

    @get("/pauses", sync_to_thread=False, summary="Pauses in force")
    def pauses() -> tuple[PauseView, ...]:
        return operator.canvas().head.pauses

    @get("/events", dependencies=WANTED, response_headers=[LINK], summary="What happened, newest first")
    async def events(request: Asked, wanted: Which) -> Response[list[EventEntry]]:
        return paged(request, await asyncio.to_thread(history.events, wanted), wanted.limit)

    @get(
        "/ledger",
        dependencies=WANTED,
        response_headers=[LINK],
        summary="What was decided, also not to act, newest first",
    )
    async def ledger(request: Asked, wanted: Which) -> Response[list[LedgerEntry]]:
        return paged(request, await asyncio.to_thread(history.ledger, wanted), wanted.limit)

    @get("/why/{subject:path}", summary="Why a node, a pair, a path of a pair, quorum or the fleet is as it is")
    async def why(subject: FromPath[str]) -> WhyView:
        return await _why(operator, history, subject.strip("/"))

    @post("/switchover", status_code=202, sync_to_thread=False, summary="Move a pair to a path, and hold it there")
    def switchover(request: Asked, data: RequestBody[SwitchoverAsk]) -> LedgerEntry:
        name = _pair_name(operator, data.pair)
        return operator.switchover(name, data.path, who=_who(request), reason=data.reason, force=data.force)

    @post("/failback", status_code=202, sync_to_thread=False, summary="Move a pair to its first path")
    def failback(request: Asked, data: RequestBody[FailbackAsk]) -> LedgerEntry:
        name = _pair_name(operator, data.pair)
        return operator.failback(name, who=_who(request), reason=data.reason)

    @post("/pairs/{pair:str}/approve", status_code=202, sync_to_thread=False, summary="Carry out what is recommended")
    def approve(request: Asked, pair: FromPath[str], data: RequestBody[ApproveAsk]) -> LedgerEntry:
        name = _pair_name(operator, pair)
        return operator.approve(name, who=_who(request), reason=data.reason)

    @get("/plans", sync_to_thread=False, summary="Plans of moves under way, and the last ones, newest first")
    def plans() -> tuple[PlanView, ...]:
        return operator.plans()

    @post(
        "/plans",
        status_code=202,
        sync_to_thread=False,
        request_max_body_size=_MAX_PLAN,
        summary="Move many pairs, canary first; or rehearse it",
    )
    def plan(request: Asked, data: RequestBody[PlansAsk]) -> PlanView:
        canvas = operator.canvas()
        names = tuple("--".join(find_pair(canvas, name)) for name in data.pairs)
        if data.scope in ("site", "node"):
            targets = _targets(canvas, data.scope)
            if data.target not in targets:
                raise unknown(data.scope, data.target, targets)
        ask = PlanAsk(
            path=data.path,
            pairs=names,
            scope=data.scope,
            target=data.target,
            reason=data.reason,
            force=data.force,
            dry_run=data.dry_run,
        )
        return operator.plan(ask, who=_who(request))

    @get("/drills", sync_to_thread=False, summary="The drill under way, and the last ones, newest first")
    def drills() -> tuple[DrillView, ...]:
        return operator.drills()

    @post("/drills", status_code=202, sync_to_thread=False, summary="Rehearse failover and failback, pair by pair")
    def drill(request: Asked, data: RequestBody[DrillsAsk]) -> DrillView:
        canvas, target = operator.canvas(), data.target
        if data.scope == "pair":
            target = "--".join(find_pair(canvas, target))
        elif data.scope == "site" and target not in _targets(canvas, "site"):
            raise unknown("site", target, _targets(canvas, "site"))
        elif data.scope == "fleet" and target:
            raise Refused("target: must be empty when the scope is the fleet")
        return operator.drill(DrillAsk(scope=data.scope, target=target, reason=data.reason), who=_who(request))

    @post("/pauses", sync_to_thread=False, summary="Stop automatic moves for a while")
    def pause(request: Asked, data: RequestBody[PauseAsk]) -> PauseView:
        if data.scope == "fleet" and data.target:
            raise Refused("target: must be empty when the scope is the fleet")
        if data.scope != "fleet" and data.target not in (targets := _targets(operator.canvas(), data.scope)):
            raise unknown(data.scope, data.target, targets)
        return operator.pause(data.scope, data.target, who=_who(request), reason=data.reason, for_s=data.for_s)

    @delete("/pauses/{pause_id:int}", sync_to_thread=False, summary="End a pause")
    def resume(request: Asked, pause_id: FromPath[int]) -> None:
        try:
            operator.resume(pause_id, who=_who(request))
        except KeyError:
            known = ", ".join(str(each.id) for each in operator.canvas().head.pauses) or "none"
            raise NotFoundException(detail=f"no pause {pause_id}; there are: {known}") from None

    @get(
        "/incidents",
        dependencies=WANTED,
        response_headers=[LINK],
        summary="Incidents, newest first; those that are open come as they are now",
    )
    async def incidents(request: Asked, wanted: Which, show: Show = "open") -> Response[list[IncidentView]]:
        live = {each.id: each for each in operator.incidents()}
        found = dict(live)
        if show == "all":
            found = {each.id: each for each in await asyncio.to_thread(history.incidents, wanted)} | live
        newest = sorted(filter(wanted.takes, found.values()), key=lambda each: -each.id)
        return paged(request, newest[: wanted.limit], wanted.limit)

    @get("/incidents/{incident_id:int}", summary="One incident, with its timeline")
    async def incident(incident_id: IncidentId) -> IncidentView:
        try:
            return operator.incident(incident_id)
        except KeyError:
            kept = await asyncio.to_thread(history.incident, incident_id)
        if kept is None:
            raise _no_incident(operator, incident_id)
        return kept

    @post(
        "/incidents/{incident_id:int}/acknowledge",
        status_code=200,
        sync_to_thread=False,
        summary="Say that somebody is on it",
    )
    def acknowledge(request: Asked, incident_id: IncidentId) -> IncidentView:
        try:
            return operator.acknowledge(incident_id, who=_who(request))
        except KeyError:
            raise _no_incident(operator, incident_id) from None

    @post("/incidents/{incident_id:int}/note", status_code=200, sync_to_thread=False, summary="Write a note onto it")
    def note(request: Asked, incident_id: IncidentId, data: RequestBody[NoteAsk]) -> IncidentView:
        try:
            return operator.note(incident_id, data.text, who=_who(request))
        except KeyError:
            raise _no_incident(operator, incident_id) from None

    @post(
        "/incidents/{incident_id:int}/resolve",
        status_code=200,
        sync_to_thread=False,
        summary="Say that it is none any more",
    )
    def resolve(request: Asked, incident_id: IncidentId, data: RequestBody[ResolveAsk]) -> IncidentView:
        try:
            return operator.resolve(incident_id, data.note, who=_who(request))
        except KeyError:
            raise _no_incident(operator, incident_id) from None

    @get("/notifications", sync_to_thread=False, summary="Where people are told of incidents, and whether that works")
    def channels() -> tuple[ChannelView, ...]:
        return operator.channels()

    @post("/notifications/test", status_code=200, summary="Send a test notice, and wait for what comes of it")
    async def test_channel(request: Asked, data: RequestBody[TestAsk]) -> NotificationTest:
        try:
            return await operator.test_channel(data.channel, who=_who(request))
        except KeyError:
            raise unknown("channel", data.channel, {each.name for each in operator.channels()}) from None

    @get(
        "/stream",
        sync_to_thread=False,
        summary="Server-sent events: fleet, then change, event, ledger, incident, ping; Last-Event-ID resumes",
        media_type="text/event-stream",
        responses={200: ResponseSpec(data_container=str, media_type="text/event-stream", generate_examples=False)},
    )
    def stream(request: Asked) -> ASGIResponse:
        subscriber = Subscriber(packs="gzip" in request.headers.get("accept-encoding", ""))
        try:
            changes.subscribe(subscriber)
        except Full:
            raise HTTPException(
                status_code=503, detail="too many streams are open; close some pages or `vagusctl watch`"
            ) from None
        seen = parse_marks(request.headers.get("last-event-id", ""))

        async def catch_up() -> None:
            newest, entries = await asyncio.to_thread(missed, history, seen)
            subscriber.catch_up(seen, newest, entries)

        return StreamResponse(changes, subscriber, catch_up, operator.canvas, request.state.still)

    return (
        *(fleet, nodes, node, agent, links, link, quorum, pauses, events, ledger, why),
        *(switchover, failback, approve, plans, plan, drills, drill, pause, resume, stream),
        *(incidents, incident, acknowledge, note, resolve, channels, test_channel),
    )


def other_routes(operator: Operator, changes: ChangeFeed, problems: Problems) -> tuple[HTTPRouteHandler, ...]:
    @get("/healthz", sync_to_thread=False, include_in_schema=False, opt={"public": True})
    def healthz() -> Response[Health]:
        found = problems()
        health = Health(status="trouble" if found else "ok", problems=found)
        return Response(health, status_code=503 if found else 200)

    @get("/metrics", include_in_schema=False, media_type=metrics.CONTENT_TYPE)
    async def prometheus() -> bytes:
        found = problems()
        fleet, told = operator.fleet(), operator.channels()
        return await asyncio.to_thread(metrics.exposition, fleet, changes.subscribers, len(found), told)

    return (healthz, prometheus)


async def _why(operator: Operator, history: History, subject: str) -> WhyView:
    """Raises NotFoundException for a subject that is neither in the fleet nor in history."""
    canvas = operator.canvas()
    fleet = canvas.head
    name, _, path = subject.partition("/")
    pairs: tuple[PairView, ...] = ()
    checks: tuple[CheckView, ...] = ()
    verdicts: list[VerdictView] = []
    if subject in ("fleet", fleet.fleet, fleet.controller):
        verdicts = [fleet.observer, fleet.quorum.verdict]
        asked = None if subject in ("fleet", fleet.fleet) else subject
    elif subject == "quorum":
        verdicts = [fleet.quorum.verdict]
        asked = fleet.quorum.verdict.subject
    elif subject in canvas.names:
        node = canvas.node(subject)
        verdicts = [node.liveness, node.load]
        pairs = tuple(canvas.pair(pair) for pair in canvas.pairs if subject in pair)
        asked = subject
    elif "--" not in name:
        raise unknown("node", name, canvas.names)
    else:
        pair = canvas.pair(find_pair(canvas, name))
        verdicts = [each.verdict for each in pair.paths if not path or each.path == path]
        if not verdicts:
            raise unknown("path", path, [each.path for each in pair.paths])
        pairs = (pair,)
        checks = operator.explain(pair.name)
        asked = f"{pair.name}/{path}" if path else pair.name
    ledger, events = await asyncio.gather(
        # Decisions are about pairs, not about one of their paths.
        asyncio.to_thread(history.ledger, Wanted(_HISTORY_OF_WHY, subject=pairs[0].name if path else asked)),
        asyncio.to_thread(history.events, Wanted(_HISTORY_OF_WHY, subject=asked)),
    )
    ledger = [entry for entry in ledger if entry.action not in ABOUT_PERSONS]
    return WhyView(
        subject=asked or subject,
        verdicts=tuple(verdicts),
        pairs=pairs,
        checks=checks,
        incidents=tuple(each for each in operator.incidents() if asked is None or _is_about(each, asked)),
        ledger=ledger,
        events=events,
    )


def _is_about(incident: IncidentView, subject: str) -> bool:
    return concerns(incident.subject, subject) or any(concerns(each.subject, subject) for each in incident.troubles)


def find_pair(canvas: Canvas, name: str) -> Pair:
    """The pair "a--b", named in either order. Raises NotFoundException with what may have been meant."""
    for pair in canvas.pairs:
        if name in ("--".join(pair), "--".join(reversed(pair))):
            return pair
    raise unknown("pair", name, ["--".join(pair) for pair in canvas.pairs])


def _pair_name(operator: Operator, name: str) -> str:
    return "--".join(find_pair(operator.canvas(), name))


def unknown(what: str, name: str, known: Any) -> NotFoundException:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif not names:
        hint = "there are none"
    else:
        hint = f"there are: {', '.join(names[:10])}{', …' if len(names) > 10 else ''}"
    return NotFoundException(detail=f"no {what} {name[:100]!r}; {hint}")


def _no_incident(operator: Operator, incident_id: int) -> NotFoundException:
    known = ", ".join(str(each.id) for each in operator.incidents()[:10]) or "none"
    return NotFoundException(detail=f"no incident {incident_id} that is open or was lately; open are: {known}")


def _targets(canvas: Canvas, scope: str) -> set[str]:
    names = {canvas.node(name).site for name in canvas.names} if scope == "site" else set(canvas.names)
    return names - {""}


def _who(request: Asked) -> str:
    return str(request.state.who)
