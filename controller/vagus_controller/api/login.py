"""Signing in and out of the page."""

from __future__ import annotations

import html
from typing import Final
from urllib.parse import quote

from litestar import get, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from vagus_controller.accounts.access import Access, SignedIn, TooMany, Wrong
from vagus_controller.accounts.passwords import Busy
from vagus_controller.api import auth
from vagus_controller.api.auth import Asked, Site
from vagus_controller.api.page import shell

_MAX_FIELD: Final = 300
_OVER: Final = '<p class="note" role="status">Your session is over. Sign in again, and you are back where you were.</p>'


def is_ours(path: str) -> bool:
    """Whether it is a place on this site: nothing that a browser could take for another host."""
    return path.startswith("/") and path[1:2] not in ("/", "\\") and path.isascii() and path.isprintable()


def form(
    trouble: str = "", status_code: int = 200, *, oidc: str = "", wanted: str = "", over: bool = False
) -> Response[str]:
    """The login page. `oidc`: the provider's name, "" for none; `wanted`: where to go then; `over`: a session was."""
    wanted = wanted if is_ours(wanted) else ""
    query = f"?next={quote(wanted, safe='')}" if wanted else ""
    text = shell(
        "login",
        words=f'<p class="trouble" role="alert">{html.escape(trouble)}</p>' if trouble else _OVER if over else "",
        oidc=f'<a class="button" href="/login/oidc{query}">Sign in by {html.escape(oidc)}</a>' if oidc else "",
        next=html.escape(wanted),
    )
    return Response(text, media_type="text/html", status_code=status_code)


def let_in(
    access: Access, site: Site, request: Asked, secrets: SignedIn, wanted: str, session_s: float
) -> Response[str]:
    access.forget(auth.cookie(request.headers, auth.COOKIE))
    cookies = [site.cookie(request, auth.COOKIE, secrets.session, int(session_s))]
    if secrets.device:
        cookies.append(site.cookie(request, auth.DEVICE_COOKIE, secrets.device, auth.DEVICE_S, "/login"))
    place = wanted if is_ours(wanted) else "/"
    return Response("", status_code=303, headers={"Location": place}, cookies=cookies)


def login_routes(access: Access, site: Site, session_s: float, oidc: str) -> tuple[HTTPRouteHandler, ...]:
    """`oidc`: the provider's name, "" for none."""

    def must_be_ours(request: Asked) -> None:
        if site.is_elsewhere(request.headers):
            raise HTTPException(
                status_code=403, detail="this form was sent by another site's page; open this one and sign in"
            )

    @get("/login", include_in_schema=False, sync_to_thread=False, opt={"public": True})
    def login_form(request: Asked) -> Response[str]:
        asked = request.query_params
        return form(oidc=oidc, wanted=asked.get("next", ""), over="over" in asked)

    @post("/login", include_in_schema=False, opt={"public": True})
    async def login(request: Asked) -> Response[str]:
        must_be_ours(request)
        sent = await request.form()
        name, password, wanted = (_text(sent.get(key)) for key in ("user", "password", "next"))
        device = auth.cookie(request.headers, auth.DEVICE_COOKIE)
        try:
            secrets = await access.sign_in(name.strip(), password, auth.address(request), device)
        except Wrong:
            return form("There is no such user with this password.", 403, oidc=oidc, wanted=wanted)
        except TooMany as error:
            answer = form(f"{error}.".capitalize(), 429, oidc=oidc, wanted=wanted)
            answer.headers["Retry-After"] = str(error.wait_s)
            return answer
        except Busy:
            return form("Too many people sign in at once: try again.", 503, oidc=oidc, wanted=wanted)
        return let_in(access, site, request, secrets, wanted, session_s)

    @post("/logout", include_in_schema=False, sync_to_thread=False, opt={"public": True})
    def logout(request: Asked) -> Response[str]:
        must_be_ours(request)
        access.sign_out(auth.cookie(request.headers, auth.COOKIE))
        gone = site.cookie(request, auth.COOKIE, "", 0)
        return Response("", status_code=303, headers={"Location": "/login"}, cookies=[gone])

    return (login_form, login, logout)


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_FIELD else ""
