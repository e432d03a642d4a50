"""The pages: fixed shells of HTML, in which ES modules draw what the API and its stream tell.

A page NAME is `templates/NAME.html` inside `templates/base.html`, with `static/NAME.css` and `static/NAME.js`. No data
enters the HTML, so nothing that the network says can become markup.

There is no build step. Every static file lives under a folder named by the hash of all of them, so a browser may keep
them for ever, and modules find each other by their relative names.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from litestar import Request, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Response

_HERE: Final = Path(__file__).parent
_COMPRESS_FROM: Final = 512
# The .js of some systems' tables is no JavaScript.
_MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Page(NamedTuple):
    title: str
    paths: tuple[str, ...]


PAGES: Final = {
    "fleet": Page("Fleet", ("/",)),
    "node": Page("Node", ("/nodes/{name:str}",)),
    "pair": Page("Pair", ("/pairs/{pair:str}",)),
    "failover": Page("Failover", ("/failover",)),
    "incidents": Page("Incidents", ("/incidents",)),
    "incident": Page("Incident", ("/incidents/{number:int}",)),
    "events": Page("Events", ("/events",)),
    "account": Page("Account", ("/account",)),
}


class _File(NamedTuple):
    content: bytes
    # None: not worth it
    compressed: bytes | None
    media_type: str


def _read(path: Path) -> _File:
    content = path.read_bytes()
    media_type = _MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = media_type.startswith("text/") or media_type.endswith("xml")
    compressed = gzip.compress(content, mtime=0) if text and len(content) >= _COMPRESS_FROM else None
    return _File(content, compressed, media_type)


class Assets:
    """The static files, as they were when the controller started."""

    def __init__(self, folder: Path = _HERE / "static") -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.files: Final = {path.relative_to(folder).as_posix(): _read(path) for path in paths}
        digest = hashlib.sha256()
        for name, file in self.files.items():
            digest.update(b"%b\0%d\0%b" % (name.encode(), len(file.content), file.content))
        self.version: Final = digest.hexdigest()[:12]

    @property
    def root(self) -> str:
        return f"/static/{self.version}"


@cache
def assets() -> Assets:
    return Assets()


def shell(template: str, **words: str) -> str:
    """The text of templates/TEMPLATE.html, with `$static` and `words` in their places."""
    text = (_HERE / "templates" / f"{template}.html").read_text(encoding="utf-8")
    return Template(text).substitute(words, static=assets().root)


@get("/static/{version:str}/{name:path}", include_in_schema=False, sync_to_thread=False, opt={"public": True})
def static(request: Request[object, object, State], version: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    file = assets().files.get(name.strip("/"))
    if file is None:
        raise NotFoundException(detail="no such file; open the page anew")
    # A page that stayed open over an update still gets its modules, to keep only until then.
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if version == assets().version else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.compressed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.content, media_type=file.media_type, headers=headers)


def page_routes() -> tuple[HTTPRouteHandler, ...]:
    return (static, *(_page(name, page) for name, page in PAGES.items()))


def _page(name: str, page: Page) -> HTTPRouteHandler:
    text = shell("base", page=name, title=page.title, main=shell(name))

    @get(list(page.paths), include_in_schema=False, sync_to_thread=False, name=f"page {name}")
    def show() -> Response[str]:
        return Response(text, media_type="text/html")

    return show
