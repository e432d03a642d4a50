"""Lists a page at a time, with a Link to the next page (RFC 8288): back in time by `limit` and `before`, or what has a
name by `limit` and `after`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Protocol, TypeVar
from urllib.parse import urlencode

from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from litestar.response import Response

from vagus_controller.api.auth import Asked
from vagus_controller.views import Wanted

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="At most so many, newest first.")]
Before = Annotated[int | None, QueryParameter(ge=0, le=2**53, description="Only ids below this one: the next page.")]
Many = Annotated[int | None, QueryParameter(ge=1, le=1000, description="At most so many; all when left out.")]
After = Annotated[
    str | None, QueryParameter(max_length=200, description="Only names that come after this one: the next page.")
]
Subject = Annotated[
    str | None, QueryParameter(max_length=200, description="A node with its pairs, or a pair with its paths.")
]
Since = Annotated[float | None, QueryParameter(ge=0, description="Not older: epoch seconds.")]
Until = Annotated[float | None, QueryParameter(ge=0, description="Older than this: epoch seconds.")]


def _wanted(
    limit: Limit = 100, before: Before = None, subject: Subject = None, since: Since = None, until: Until = None
) -> Wanted:
    return Wanted(limit, before, subject, since, until)


# What a route about history takes: `wanted: Which`, with `dependencies=WANTED`.
Which = NamedDependency[Wanted]
WANTED: Final = {"wanted": Provide(_wanted, sync_to_thread=False)}
LINK: Final = ResponseHeader(
    name="Link", description='rel="next": the next page, when there may be one', required=False, documentation_only=True
)


class Entry(Protocol):
    @property
    def id(self) -> int: ...


E = TypeVar("E", bound=Entry)


def paged(request: Asked, entries: list[E], limit: int) -> Response[list[E]]:
    """`entries`, newest first, as what was asked for with `limit`."""
    return Response(entries, headers=_next(request, "before", entries[-1].id) if len(entries) >= limit else {})


V = TypeVar("V")


def by_name(
    request: Asked, names: Sequence[str], draw: Callable[[str], V], limit: int | None, after: str | None
) -> Response[tuple[V, ...]]:
    """Of `names`, which are sorted, what was asked for, drawn."""
    start = bisect_right(names, after) if after is not None else 0
    end = len(names) if limit is None else start + limit
    shown = names[start:end]
    return Response(
        tuple(map(draw, shown)), headers=_next(request, "after", shown[-1]) if shown and end < len(names) else {}
    )


def _next(request: Asked, key: str, value: int | str) -> dict[str, str]:
    """The header that leads on: the same, from there."""
    query = [(name, given) for name, given in request.query_params.items() if name != key]
    return {"Link": f'<{request.url.path}?{urlencode([*query, (key, value)])}>; rel="next"'}
