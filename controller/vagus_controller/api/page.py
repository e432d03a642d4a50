"""The status page: a fixed shell of HTML; everything on it is drawn by ES modules from the API and its stream.

No data enters the HTML here, so nothing that the network says can become markup.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from litestar import Router, get
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response
from litestar.static_files import create_static_files_router

_HERE: Final = Path(__file__).parent


@get("/", include_in_schema=False, sync_to_thread=False)
def index() -> Response[str]:
    shell = (_HERE / "templates" / "page.html").read_text(encoding="utf-8")
    return Response(shell, media_type="text/html; charset=utf-8")


# No build step means no names with hashes in them: `no-cache` has the browser ask each time, by ETag.
_static: Final = create_static_files_router(
    path="/static", directories=[_HERE / "static"], cache_control=CacheControlHeader(no_cache=True)
)

page_routes: Final[tuple[HTTPRouteHandler | Router, ...]] = (index, _static)
