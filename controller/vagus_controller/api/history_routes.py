"""Figures over time, for charts: GET /nodes/NAME/history, /links/PAIR/history and /sparklines."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Annotated, Final, Literal

from litestar import get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from vagus_controller.api.routes import find_pair, unknown
from vagus_controller.chart_views import Charts, NodeHistory, PairHistory, Sparklines
from vagus_controller.views import Operator

# An answer has at most so many slots.
MOST_SLOTS: Final = 1500
_RANGES: Final = {"1h": 3600, "24h": 86400, "7d": 7 * 86400, "30d": 30 * 86400}
_LEAST_STEP_S: Final = 10
# Beyond what any clock says, and far from where arithmetic ends.
_LAST: Final = 2**33

Range = Annotated[
    Literal["1h", "24h", "7d", "30d"] | None, QueryParameter(description="The time up to `until`; or else `since`.")
]
Since = Annotated[float | None, QueryParameter(ge=0, le=_LAST, description="Epoch seconds.")]
Until = Annotated[float | None, QueryParameter(ge=0, le=_LAST, description="Epoch seconds; now when left out.")]
Step = Annotated[
    int | None, QueryParameter(ge=_LEAST_STEP_S, le=_LAST, description="Seconds of a slot; by itself what is kept.")
]
WithLinks = Annotated[bool, QueryParameter(description="Also round trips, jitter and loss of all its links.")]
Peers = Annotated[
    list[Annotated[str, Meta(max_length=63)]] | None,
    QueryParameter(max_items=100, description="Links to these peers only: each `peer=NAME` adds one."),
]


def history_routes(operator: Operator, charts: Charts) -> tuple[HTTPRouteHandler, ...]:
    def asked(range: str | None, since: float | None, until: float | None, step: int | None) -> tuple[int, int, int]:
        """Start, end and step of what is asked for; start and end are whole steps."""
        if range is not None and since is not None:
            raise HTTPException(status_code=400, detail="range: cannot be together with since; leave one out")
        end = time.time() if until is None else until
        start = max(end - _RANGES[range or "1h"], 0) if since is None else since
        if start >= end:
            raise HTTPException(status_code=400, detail="since: must be before until, or before now without it")
        step_s = step or charts.best_step(math.floor(start), math.ceil(end))
        first, last = math.floor(start / step_s) * step_s, math.ceil(end / step_s) * step_s
        if (last - first) // step_s > MOST_SLOTS + 1:
            least = math.ceil((end - start) / MOST_SLOTS)
            raise HTTPException(
                status_code=400,
                detail=f"step: makes more than {MOST_SLOTS} points; take {least} or more, or a shorter time",
            )
        return first, last, step_s

    @get("/nodes/{name:str}/history", summary="A node's figures over time")
    async def node_history(
        name: FromPath[str],
        range: Range = None,
        since: Since = None,
        until: Until = None,
        step: Step = None,
        links: WithLinks = False,
        peer: Peers = None,
    ) -> NodeHistory:
        # The picture of a large fleet takes longer to draw than the chart.
        if not charts.knows(name):
            known = operator.canvas().names
            if name not in known:
                raise unknown("node", name, known)
        start, end, step_s = asked(range, since, until, step)
        peers = frozenset(peer or ())
        read = charts.node_history
        return await asyncio.to_thread(read, name, start, end, step_s, links=links or bool(peers), peers=peers)

    @get("/links/{pair:str}/history", summary="A pair's paths over time, from both ends, and which one traffic took")
    async def pair_history(
        pair: FromPath[str],
        range: Range = None,
        since: Since = None,
        until: Until = None,
        step: Step = None,
    ) -> PairHistory:
        start, end, step_s = asked(range, since, until, step)
        a, _, b = pair.partition("--")
        a, b = min(a, b), max(a, b)
        if charts.knows(a) and charts.knows(b):
            found = await asyncio.to_thread(charts.pair_history, a, b, start, end, step_s)
            if any(each.paths for each in found.ends):
                return found
        a, b = find_pair(operator.canvas(), pair)
        return await asyncio.to_thread(charts.pair_history, a, b, start, end, step_s)

    @get("/sparklines", summary="Load per core of every node in the last hour")
    async def sparklines() -> Sparklines:
        return await asyncio.to_thread(charts.sparklines)

    return (node_history, pair_history, sparklines)
