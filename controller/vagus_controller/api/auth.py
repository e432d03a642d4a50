"""Who may come in: one operator's token, as a bearer or, in a browser, as a session cookie made from it.

Everything is closed unless it is named in `_PUBLIC`. The cookie is `<expiry>.<HMAC of it with the token>`: no session
is kept here, so signing in outlives a restart of the controller, and a new token ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from vagus_runtime import settings
from vagus_runtime.settings import ConfigError

COOKIE: Final = "vagus_session"
# A browser sends it cross-site only after asking us, which we never allow: proof that a request comes from our page.
PAGE_HEADER: Final = "x-vagus-request"
WHO_HEADER: Final = "x-vagus-who"
SESSION_S: Final = 7 * 86400
MIN_TOKEN: Final = 16
_MAX_WHO: Final = 64
_PUBLIC: Final = ("/healthz", "/login", "/logout")
_PUBLIC_FOLDER: Final = "/static/"
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


def same(given: str, token: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def make_session(token: str, now: float) -> str:
    expiry = str(int(now) + SESSION_S)
    return f"{expiry}.{_seal(token, expiry)}"


def is_session(value: str, token: str, now: float) -> bool:
    expiry, _, seal = value.partition(".")
    if not hmac.compare_digest(seal.encode("utf-8", "surrogateescape"), _seal(token, expiry).encode()):
        return False
    return now < int(expiry) <= now + SESSION_S


def _seal(token: str, expiry: str) -> str:
    message = b"vagus/1/session\0" + expiry.encode("utf-8", "surrogateescape")
    return hmac.digest(token.encode(), message, hashlib.sha256).hex()


def from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that another site's page sent this request. Without Sec-Fetch-Site (plain HTTP), a form of
    our own page has the origin "null", which is its referrer policy's doing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin not in (None, "null") and urlsplit(origin or "").netloc != headers.get("host")


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _who(headers: Headers) -> str:
    """Whom the ledger names: what the client says of itself. It is a note, not a proof: there is one token."""
    said = "".join(letter for letter in headers.get(WHO_HEADER, "") if letter.isprintable())[:_MAX_WHO].strip()
    return said or "the API"


class Door:
    """The middleware. It leaves `who` in the request's state."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == ScopeType.HTTP:
                path = scope["path"]
                if path not in _PUBLIC and not path.startswith(_PUBLIC_FOLDER):
                    who = self._admit(Headers.from_scope(scope), scope["method"])
                    if who is None:
                        await _refuse(path, send)
                        return
                    scope["state"]["who"] = who
            await app(scope, receive, send)

        return guarded

    def _admit(self, headers: Headers, method: str) -> str | None:
        """Who it is, None for nobody; raises a 403 for a request that another site's page made."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme:
            return _who(headers) if scheme.lower() == "bearer" and same(bearer.strip(), self._token) else None
        if not is_session(_cookie(headers), self._token, time.time()):
            return None
        if method not in _SAFE and (PAGE_HEADER not in headers or from_elsewhere(headers)):
            raise HTTPException(
                status_code=403, detail=f"a request by session cookie must come from this page, with {PAGE_HEADER}"
            )
        return "the page"


async def _refuse(path: str, send: Send) -> None:
    """A person is shown the door; a program is told in words."""
    if not path.startswith(_FOR_PROGRAMS):
        headers = [(b"location", b"/login"), (b"content-length", b"0"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    raise HTTPException(
        status_code=401,
        detail="no valid token: send `Authorization: Bearer TOKEN`, the one in the controller's http.token_file",
        headers={"WWW-Authenticate": "Bearer"},
    )
