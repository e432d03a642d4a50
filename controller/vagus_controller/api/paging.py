"""Lists that go back in time, a page at a time: `limit` and `before`, and a Link to the next page (RFC 8288)."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar
from urllib.parse import urlencode

from litestar.datastructures import ResponseHeader
from litestar.response import Response

from vagus_controller.api.auth import Asked

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
