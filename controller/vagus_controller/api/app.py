"""The web application, and its server in the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, cast

import uvicorn
from litestar import Litestar, Request, Response, Router
from litestar.datastructures import MutableScopeHeaders, State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler, Message, Scope

from vagus_controller.api.auth import Door
from vagus_controller.api.history_routes import history_routes
from vagus_controller.api.login import login_routes
from vagus_controller.api.page import page_routes
from vagus_controller.api.routes import Problems, api_routes, other_routes
from vagus_controller.api.stream import ChangeFeed
from vagus_controller.config import Http
from vagus_controller.views import Charts, History, Operator, Refused, View

log = logging.getLogger("vagus.api")

MAX_BODY: Final = 16 * 1024
_MAX_CONNECTIONS: Final = 300
_BACKLOG: Final = 128
_STOP_S: Final = 2
_GENERIC: Final = {
    404: "nothing is served here; /api/v1/openapi.json lists what is",
    405: "this method is not served here; /api/v1/openapi.json lists those that are",
    413: f"a request's body has at most {MAX_BODY} bytes",
}
# Where a route says nothing else.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Problem(View, frozen=True, kw_only=True):
    """An error, as RFC 9457 has it; `detail` says what is wrong and what to do."""

    status: int
    title: str
    detail: str


def create_app(
    operator: Operator, history: History, changes: ChangeFeed, token: str, problems: Problems, charts: Charts
) -> Litestar:
    """The application. `problems` says what keeps the controller from its work, in words: what /healthz shows."""
    return Litestar(
        route_handlers=[
            Router(
                "/api/v1", route_handlers=[*api_routes(operator, history, changes), *history_routes(operator, charts)]
            ),
            *other_routes(operator, changes, problems),
            *login_routes(token),
            *cast("Sequence[ControllerRouterHandler]", page_routes()),
        ],
        middleware=[Door(token)],
        exception_handlers={
            Refused: _on_refused,
            RecursionError: _on_deep_nesting,
            HTTPException: _on_http_error,
            Exception: _on_bug,
        },
        before_send=[_add_headers],
        request_max_body_size=MAX_BODY,
        logging_config=None,
        state=State({"changes": changes}),
        openapi_config=OpenAPIConfig(
            title="vagus controller",
            version=version("vagus"),
            description="What the controller sees, and what a person may ask of it. Errors are RFC 9457 problems.",
            # Only the document: a viewer would load scripts from other hosts.
            path="/api/v1/openapi.json",
            render_plugins=[JsonRenderPlugin(path="/")],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
        ),
    )


def _problem(status: int, detail: str, headers: dict[str, Any] | None = None) -> Response[Problem]:
    problem = Problem(status=status, title=HTTPStatus(status).phrase, detail=detail)
    return Response(problem, status_code=status, headers=headers, media_type="application/problem+json")


def _on_refused(_request: Request[Any, Any, Any], error: Refused) -> Response[Problem]:
    return _problem(409, str(error))


def _on_deep_nesting(_request: Request[Any, Any, Any], _error: RecursionError) -> Response[Problem]:
    """Only a JSON body can nest that deep here."""
    return _problem(400, "body: nested too deeply")


def _on_http_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Also Litestar's own: of a body that does not fit, `extra` names each field."""
    if error.status_code >= 500 and error.__cause__ is not None:
        return _on_bug(_request, error)
    wrong = [each for each in error.extra if isinstance(each, dict)] if isinstance(error.extra, list) else []
    fields = [(str(each.get("key", "body")), each.get("message", "is wrong")) for each in wrong]
    detail = "; ".join(f"{'body' if key == 'data' else key}: {message}" for key, message in fields)
    if not detail:
        generic = error.detail == HTTPStatus(error.status_code).phrase
        detail = _GENERIC.get(error.status_code, error.detail) if generic else error.detail
    return _problem(error.status_code, detail, error.headers)


def _on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("%s %s failed: a bug", request.method, request.url.path, exc_info=error)
    return _problem(500, "a bug in the controller; its log has the details")


async def _add_headers(message: Message, _scope: Scope) -> None:
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)


class _Server(uvicorn.Server):
    """Signals stay the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Litestar, http: Http) -> None:
    """Serves until it is cancelled, then ends what is open within seconds. Raises OSError, in words, when it cannot
    listen."""
    listener = _listen(http)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_S,
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        app.state.changes.close()
        server.should_exit = True
        await asyncio.wait([serving], timeout=2 * _STOP_S)
        raise
    finally:
        serving.cancel()
        listener.close()


def _listen(http: Http) -> socket.socket:
    where = f"{http.host}:{http.port}"
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        return socket.create_server((http.host, http.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        remedy = {
            errno.EADDRINUSE: "another program listens there; stop it, or set http.port",
            errno.EADDRNOTAVAIL: "this machine has no such address; set http.host",
            errno.EACCES: "this user may not listen there; set http.port above 1023",
        }.get(error.errno or 0, f"{error.strerror or error}; set http.host and http.port")
        raise OSError(error.errno, f"cannot serve the API on {where}: {remedy}") from None
