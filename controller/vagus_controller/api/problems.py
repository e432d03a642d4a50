"""Every error as an RFC 9457 problem, in words; and which ones the OpenAPI document promises."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap

from vagus_controller.accounts.access import TooMany, Unsaved, Wrong
from vagus_controller.accounts.passwords import Busy
from vagus_controller.api.page import shell
from vagus_controller.views import Refused, View

log = logging.getLogger("vagus.api")

MAX_BODY: Final = 16 * 1024
_GENERIC: Final = {
    404: "nothing is served here; /api/v1/openapi.json lists what is",
    405: "this method is not served here; /api/v1/openapi.json lists those that are",
}
_DESCRIBED: Final = {
    400: "The request is not as described; `detail` names each field",
    401: "No valid token or session",
    403: "Not for who asks: a viewer, an API token, another site's page",
    404: "No such thing; `detail` has what there is",
    409: "Refused; `detail` says why, and what to do instead",
    413: "The body is too large",
    429: "Too many wrong passwords; Retry-After says when",
    500: "A bug",
    503: "Not now; `detail` says why",
}


class Problem(View, frozen=True, kw_only=True):
    """An error, as RFC 9457 has it; `detail` says what is wrong and what to do."""

    status: int
    title: str
    detail: str


_RESPONSES: Final = {
    status: ResponseSpec(
        data_container=Problem, description=words, media_type="application/problem+json", generate_examples=False
    )
    for status, words in _DESCRIBED.items()
}


def documented(*handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """The same, with what they may answer besides."""
    found = [handler for part in handlers for handler in part]
    for handler in found:
        handler.responses = {**_RESPONSES, **(handler.responses or {})}
    return found


def problem(status: int, detail: str, headers: dict[str, Any] | None = None) -> Response[Problem]:
    found = Problem(status=status, title=HTTPStatus(status).phrase, detail=detail)
    return Response(found, status_code=status, headers=headers, media_type="application/problem+json")


def _on_refused(_request: Request[Any, Any, Any], error: Refused) -> Response[Problem]:
    return problem(409, str(error))


def _on_wrong(_request: Request[Any, Any, Any], _error: Wrong) -> Response[Problem]:
    return problem(403, "that is not your password")


def _on_too_many(_request: Request[Any, Any, Any], error: TooMany) -> Response[Problem]:
    return problem(429, str(error), {"Retry-After": str(error.wait_s)})


def _on_busy(_request: Request[Any, Any, Any], _error: Busy) -> Response[Problem]:
    return problem(503, "too many passwords are being checked: try again", {"Retry-After": "1"})


def _on_unsaved(_request: Request[Any, Any, Any], error: Unsaved) -> Response[Problem]:
    return problem(503, str(error))


def _on_deep_nesting(_request: Request[Any, Any, Any], _error: RecursionError) -> Response[Problem]:
    """Only a JSON body can nest that deep here."""
    return problem(400, "body: nested too deeply")


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Also Litestar's own: of a body that does not fit, `extra` names each field."""
    if error.status_code == 404 and _is_person(request):
        return Response(shell("lost"), status_code=404, media_type="text/html")
    if error.status_code >= 500 and error.__cause__ is not None:
        return _on_bug(request, error)
    wrong = [each for each in error.extra if isinstance(each, dict)] if isinstance(error.extra, list) else []
    fields = [(str(each.get("key", "body")), each.get("message", "is wrong")) for each in wrong]
    detail = "; ".join(f"{'body' if key == 'data' else key}: {message}" for key, message in fields)
    if not detail:
        generic = error.detail == HTTPStatus(error.status_code).phrase
        if error.status_code == 413:
            return problem(413, f"a request's body has at most {_largest(request)} bytes here", error.headers)
        detail = _GENERIC.get(error.status_code, error.detail) if generic else error.detail
    return problem(error.status_code, detail, error.headers)


def _largest(request: Request[Any, Any, Any]) -> object:
    return request.route_handler.resolve_request_max_body_size()


def _is_person(request: Request[Any, Any, Any]) -> bool:
    """Who types addresses, or follows old links."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def _on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("%s %s failed: a bug", request.method, request.url.path, exc_info=error)
    return problem(500, "a bug in the controller; its log has the details")


HANDLERS: Final[ExceptionHandlersMap] = {
    Refused: _on_refused,
    Wrong: _on_wrong,
    TooMany: _on_too_many,
    Busy: _on_busy,
    Unsaved: _on_unsaved,
    RecursionError: _on_deep_nesting,
    HTTPException: _on_http_error,
    Exception: _on_bug,
}
