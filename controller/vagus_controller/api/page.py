"""The status page: a fixed shell of HTML; everything on it is drawn by ES modules from the API and its stream.

No data enters the HTML here, so nothing that the network says can become markup.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from litestar import get
from litestar.response import Response
from litestar.static_files import create_static_files_router

_HERE: Final = Path(__file__).parent

# Scripts, styles, images and requests of this origin only, none inline; nobody frames the page.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _html(text: str, status_code: int = 200) -> Response[str]:
    return Response(text, media_type="text/html; charset=utf-8", status_code=status_code, headers=HEADERS)


def _template(name: str) -> str:
    return (_HERE / "templates" / name).read_text(encoding="utf-8")


@get("/", include_in_schema=False, sync_to_thread=False)
def index() -> Response[str]:
    return _html(_template("page.html"))


_static = create_static_files_router(path="/static", directories=[_HERE / "static"], include_in_schema=False)

page_routes: tuple[object, ...] = (index, _static)
