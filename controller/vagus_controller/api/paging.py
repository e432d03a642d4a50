"""Lists that go back in time, a page at a time: `limit` and `before`, and a Link to the next page (RFC 8288)."""

from __future__ import annotations

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
    headers = {}
    if len(entries) >= limit:
        query = [(key, value) for key, value in request.query_params.items() if key != "before"]
        next_page = urlencode([*query, ("before", entries[-1].id)])
        headers["Link"] = f'<{request.url.path}?{next_page}>; rel="next"'
    return Response(entries, headers=headers)
