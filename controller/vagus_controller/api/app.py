"""The web application, and its server in the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Final, cast
from urllib.parse import urlsplit

import uvicorn
from litestar import Litestar, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import MutableScopeHeaders, State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler, Message, Scope

from vagus_controller.accounts.access import Access
from vagus_controller.api.account_routes import account_routes
from vagus_controller.api.auth import COOKIE, Door, Site
from vagus_controller.api.described import Document
from vagus_controller.api.history_routes import history_routes
from vagus_controller.api.login import login_routes
from vagus_controller.api.page import page_routes
from vagus_controller.api.problems import HANDLERS, MAX_BODY, documented
from vagus_controller.api.routes import Problems, api_routes, other_routes
from vagus_controller.api.status_page import status_routes
from vagus_controller.api.stream import ChangeFeed
from vagus_controller.chart_views import Charts
from vagus_controller.config import Http
from vagus_controller.views import History, Operator
from vagus_runtime.settings import ConfigError

_MAX_CONNECTIONS: Final = 300
_BACKLOG: Final = 128
_STOP_S: Final = 2
# Where a route says nothing else.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(
    operator: Operator,
    history: History,
    changes: ChangeFeed,
    access: Access,
    problems: Problems,
    charts: Charts,
    http: Http,
) -> Litestar:
    """The application. `problems` says what keeps the controller from its work, in words: what /healthz shows."""
    site = Site(http.url)
    oidc = _oidc_routes(access, site, http)
    return Litestar(
        route_handlers=[
            Router(
                "/api/v1",
                route_handlers=documented(
                    api_routes(operator, history, changes), history_routes(operator, charts), account_routes(access)
                ),
            ),
            *other_routes(operator, changes, problems),
            *login_routes(access, site, http.session_s, urlsplit(http.oidc.issuer).hostname or "" if http.oidc else ""),
            *oidc,
            *status_routes(http.public_status, operator, charts),
            *cast("Sequence[ControllerRouterHandler]", page_routes()),
        ],
        middleware=[Door(access, site)],
        lifespan=[access.running],
        exception_handlers=HANDLERS,
        before_send=[_add_headers],
        request_max_body_size=MAX_BODY,
        # Static files and the stream are compressed already, once for all.
        compression_config=CompressionConfig("gzip", gzip_compress_level=4, exclude=["^/static/", "^/api/v1/stream$"]),
        logging_config=None,
        state=State({"changes": changes}),
        openapi_config=OpenAPIConfig(
            title="vagus controller",
            version=version("vagus"),
            description="What the controller sees, and what a person may ask of it. Errors are RFC 9457 problems.",
            # Only the document: a viewer would load scripts from other hosts.
            path="/api/v1/openapi.json",
            render_plugins=[Document()],
            components=Components(
                security_schemes={
                    "token": SecurityScheme(type="http", scheme="bearer"),
                    "session": SecurityScheme(type="apiKey", security_scheme_in="cookie", name=COOKIE),
                }
            ),
            security=[{"token": []}, {"session": []}],
        ),
    )


def _oidc_routes(access: Access, site: Site, http: Http) -> tuple[HTTPRouteHandler, ...]:
    """Its libraries are an extra, and loaded where they are used. Raises ConfigError."""
    if http.oidc is None:
        return ()
    try:
        from vagus_controller.api.oidc import Provider, oidc_routes
    except ImportError as error:
        raise ConfigError([f"http.oidc needs what the extra vagus[oidc] installs: {error}"]) from None
    return oidc_routes(access, site, Provider(http), http.session_s)


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
            proxy_headers=bool(http.proxies),
            forwarded_allow_ips=[*http.proxies],
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
