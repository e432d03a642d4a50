"""Signing in and out of the page."""

from __future__ import annotations

import time
from typing import Final

from litestar import Request, get, post
from litestar.datastructures import Cookie, State
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from vagus_controller.api import auth
from vagus_controller.api.page import shell

_WRONG: Final = '<p class="trouble" role="alert">That is not the token.</p>'


def _form(trouble: str, status_code: int) -> Response[str]:
    return Response(shell("login", trouble=trouble), media_type="text/html", status_code=status_code)


def _session(request: Request[object, object, State], value: str, seconds: int) -> Cookie:
    return Cookie(
        key=auth.COOKIE,
        value=value,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


@get("/login", include_in_schema=False, sync_to_thread=False)
def login_form() -> Response[str]:
    return _form("", 200)


@post("/logout", include_in_schema=False, sync_to_thread=False)
def logout(request: Request[object, object, State]) -> Response[str]:
    _must_be_ours(request)
    return Response("", status_code=303, headers={"Location": "/login"}, cookies=[_session(request, "", 0)])


def _must_be_ours(request: Request[object, object, State]) -> None:
    if auth.from_elsewhere(request.headers):
        raise HTTPException(
            status_code=403, detail="this form was sent by another site's page; open this one and sign in"
        )


def login_routes(token: str) -> tuple[HTTPRouteHandler, ...]:
    @post("/login", include_in_schema=False)
    async def login(request: Request[object, object, State]) -> Response[str]:
        _must_be_ours(request)
        given = (await request.form()).get("token", "")
        if not isinstance(given, str) or not auth.same(given.strip(), token):
            return _form(_WRONG, 403)
        session = _session(request, auth.make_session(token, time.time()), auth.SESSION_S)
        return Response("", status_code=303, headers={"Location": "/"}, cookies=[session])

    return (login_form, login, logout)
