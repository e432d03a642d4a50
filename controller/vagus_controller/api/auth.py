"""The door: who asks, and may they. A bearer token, or in a browser a session's cookie.

Everything is closed unless its route says `opt={"public": True}`. A viewer sees all; what changes something is the
operators', unless its route says `opt={"viewer": True}`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from litestar import Request
from litestar.datastructures import Cookie, Headers, State
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from vagus_controller.accounts.access import Access, Identity
from vagus_runtime import settings
from vagus_runtime.settings import ConfigError

Asked = Request[object, object, State]

COOKIE: Final = "vagus_session"
# A browser that signed in before: see `accounts/throttle.py`.
DEVICE_COOKIE: Final = "vagus_device"
DEVICE_S: Final = 400 * 86400
# A browser sends it cross-site only after asking us, which we never allow: proof that a request comes from our page.
PAGE_HEADER: Final = "x-vagus-request"
WHO_HEADER: Final = "x-vagus-who"
MIN_TOKEN: Final = 16
_MAX_WHO: Final = 64
_FOR_PROGRAMS: Final = ("/api/", "/metrics")
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


def load_token(file: str) -> str:
    """The token in `file`; a missing file is made, mode 0600, with a random one. Raises ConfigError."""
    path = Path(file)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError([f"{path}: http.token_file cannot be made: {error.strerror}"]) from None
    else:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
    token = settings.read_secret(path).decode("utf-8", errors="replace").strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            [
                f"{path}: a token is one word of {MIN_TOKEN} or more ASCII characters; "
                "remove the file, and a good one is made at the next start"
            ]
        )
    return token


class Site:
    """Under which name a request reached us, and whether a browser may keep a cookie for TLS only."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._secure = parts.scheme == "https"

    def is_secure(self, request: Asked) -> bool:
        """Also behind a proxy that does not say so, by the name that it is reached under."""
        return request.url.scheme == "https" or (self._secure and request.headers.get("host") == self._host)

    def is_elsewhere(self, headers: Headers) -> bool:
        """Whether a browser says that another site's page sent this request. Without Sec-Fetch-Site (plain HTTP), a
        form of our own page has the origin "null", which is its referrer policy's doing."""
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        origin = headers.get("origin")
        return origin not in (None, "null") and urlsplit(origin or "").netloc not in (headers.get("host"), self._host)

    def cookie(self, request: Asked, key: str, value: str, max_age: int | None, path: str = "/") -> Cookie:
        """Lax: a link to the page in a chat or a mail, and the way back from an OpenID provider, must find the session.
        What changes something needs more than the cookie: see `Door`."""
        return Cookie(
            key=key,
            value=value,
            max_age=max_age,
            path=path,
            httponly=True,
            samesite="lax",
            secure=self.is_secure(request),
        )


def cookie(headers: Headers, key: str) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(key)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def address(request: Asked) -> str:
    """Of the client; an IPv6 one's network, since that is what one person has."""
    host = request.client.host if request.client is not None else "?"
    return ":".join(host.split("%")[0].split(":")[:4]) + "::/64" if host.count(":") > 1 else host


def identity(request: Asked) -> Identity:
    found: Identity = request.state.identity
    return found


def _said(headers: Headers) -> str:
    said = "".join(letter for letter in headers.get(WHO_HEADER, "") if letter.isprintable())[:_MAX_WHO].strip()
    return said or "the API"


class Door:
    """The middleware. It leaves in the request's state: `identity`; `who`, for the ledger; `still`, which tells whether
    who asked may still be here, for answers that last."""

    def __init__(self, access: Access, site: Site) -> None:
        self._access = access
        self._site = site

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            opt = scope["route_handler"].opt
            if scope["type"] == ScopeType.HTTP and not opt.get("public"):
                headers = Headers.from_scope(scope)
                look = self._who(headers)
                found = look()
                if found is None:
                    await _refuse(scope, send)
                    return
                if scope["method"] not in _SAFE:
                    self._may_change(found, headers, opt)
                scope["state"].update(identity=found, who=found.who, still=lambda: look() is not None)
            await app(scope, receive, send)

        return guarded

    def _who(self, headers: Headers) -> Callable[[], Identity | None]:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme:
            token, said = bearer.strip() if scheme.lower() == "bearer" else "", _said(headers)
            return lambda: self._access.bearer(token, said)
        session = cookie(headers, COOKIE)
        return lambda: self._access.session(session)

    def _may_change(self, asks: Identity, headers: Headers, opt: dict[str, Any]) -> None:
        if asks.via == "session" and (PAGE_HEADER not in headers or self._site.is_elsewhere(headers)):
            raise HTTPException(
                status_code=403, detail=f"a request by session cookie must come from this page, with {PAGE_HEADER}"
            )
        if asks.role != "operator" and not opt.get("viewer"):
            raise HTTPException(status_code=403, detail=f"{asks.who} is a viewer: this needs an operator")


async def _refuse(scope: Scope, send: Send) -> None:
    """A person is shown the door; a program is told in words."""
    path = scope["path"]
    if not path.startswith(_FOR_PROGRAMS):
        query = scope["query_string"].decode("latin-1")
        wanted = path + (f"?{query}" if query else "")
        told = {} if wanted == "/" else {"next": wanted}
        if cookie(Headers.from_scope(scope), COOKIE):
            told["over"] = "1"
        door = f"/login?{urlencode(told)}".rstrip("?").encode()
        headers = [(b"location", door), (b"content-length", b"0"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    raise HTTPException(
        status_code=401,
        detail="who asks? Sign in on the page, or send `Authorization: Bearer TOKEN`: an API token, or the one in the "
        "controller's http.token_file",
        headers={"WWW-Authenticate": "Bearer"},
    )
