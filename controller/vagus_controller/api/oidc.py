"""Signing in by an OpenID Connect provider: the code flow with PKCE, state and nonce, by Authlib.

What must be known again when the browser comes back is in a cookie for this path only: nothing is kept here that a
stranger could fill. Everything that the provider signs is checked against its keys, its name, our id and the nonce.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response
from msgspec import Struct

from vagus_controller.accounts.access import Access
from vagus_controller.accounts.book import Role
from vagus_controller.api import auth
from vagus_controller.api.auth import Asked, Site
from vagus_controller.api.login import form, let_in
from vagus_controller.config import Http, Oidc
from vagus_runtime.settings import ConfigError, read_secret

log = logging.getLogger("vagus.oidc")

CALLBACK: Final = "/login/oidc/callback"
COOKIE: Final = "vagus_oidc"
_PATH: Final = "/login/oidc"
_LASTS_S: Final = 600
# How long the provider's word about itself, and its keys, are believed.
_FRESH_S: Final = 3600.0
_TIMEOUT_S: Final = 10.0
_LEEWAY_S: Final = 60
# Signatures that only the provider can make: no "none", and nothing that our own secret could sign.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_MAX_NAME: Final = 64
# What their libraries raise when the provider, or the network before it, does not do what it should.
_TROUBLE: Final = (AuthlibBaseError, JoseError, httpx2.HTTPError, httpx2.InvalidURL, msgspec.MsgspecError, ValueError)


class _Metadata(Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""


class _Leaving(Struct):
    """What the browser keeps while it is at the provider."""

    state: str
    nonce: str
    verifier: str
    next: str
    at: float


class NotLetIn(Exception):
    """In words for the person at the page."""


def role_of(oidc: Oidc, claims: dict[str, Any]) -> Role | None:
    """What the provider's word makes of somebody; None: nobody."""
    value = claims.get(oidc.claim)
    values = {each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)}
    if oidc.claim == "email" and claims.get("email_verified") is not True:
        values = set()
    if values & set(oidc.operators):
        return "operator"
    if values & set(oidc.viewers) or "*" in oidc.viewers:
        return "viewer"
    return None


def name_of(oidc: Oidc, claims: dict[str, Any]) -> str:
    """Whom the ledger names; unlike every user's name, which has no @."""
    email = claims.get("email") if claims.get("email_verified") is True else None
    for name in (email, claims.get("preferred_username"), claims.get("sub")):
        if isinstance(name, str) and name.strip():
            break
    plain = "".join(letter for letter in str(name) if letter.isprintable()).strip()[:_MAX_NAME]
    return plain if "@" in plain else f"{plain}@{urlsplit(oidc.issuer).netloc}"


class Provider:
    def __init__(self, http: Http, now: Callable[[], float] = time.time) -> None:
        """Raises ConfigError when the secret or the authority cannot be read."""
        assert http.oidc is not None
        self.oidc = http.oidc
        self._redirect = http.url + CALLBACK
        self._now = now
        self._secret = ""
        if self.oidc.client_secret_file:
            self._secret = read_secret(Path(self.oidc.client_secret_file)).decode("utf-8", "replace").strip()
        try:
            self._tls = ssl.create_default_context(cafile=self.oidc.ca_file or None)
        except OSError as error:
            raise ConfigError([f"{self.oidc.ca_file}: http.oidc.ca_file: {error.strerror or error}"]) from None
        self._metadata: tuple[float, _Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    @property
    def name(self) -> str:
        return urlsplit(self.oidc.issuer).hostname or ""

    def _client(self) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            client_id=self.oidc.client_id,
            client_secret=self._secret or None,
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            scope=" ".join(self.oidc.scopes),
            redirect_uri=self._redirect,
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
            verify=self._tls,
        )

    async def _discover(self, client: AsyncOAuth2Client) -> _Metadata:
        if self._metadata is not None and monotonic() - self._metadata[0] < _FRESH_S:
            return self._metadata[1]
        url = self.oidc.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = msgspec.json.decode(await self._get(client, url), type=_Metadata)
        if found.issuer != self.oidc.issuer:
            raise ValueError(f"it calls itself {found.issuer!r}: write that as http.oidc.issuer")
        self._metadata = (monotonic(), found)
        return found

    async def _get(self, client: AsyncOAuth2Client, url: str) -> bytes:
        answer = await client.request("GET", url, withhold_token=True)
        answer.raise_for_status()
        content: bytes = answer.content
        return content

    async def leave(self, wanted: str) -> tuple[str, str]:
        """Where the browser goes, and what it keeps meanwhile."""
        leaving = _Leaving(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            next=wanted,
            at=self._now(),
        )
        async with self._client() as client:
            metadata = await self._discover(client)
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=leaving.state,
                nonce=leaving.nonce,
                code_verifier=leaving.verifier,
            )
        return url, msgspec.json.encode(leaving).hex()

    async def come_back(self, query: dict[str, str], kept: str) -> tuple[str, Role, str]:
        """Name, role, and where the person wanted to go. Raises NotLetIn, and what is in `_TROUBLE`."""
        try:
            leaving = msgspec.json.decode(bytes.fromhex(kept), type=_Leaving)
        except (ValueError, msgspec.MsgspecError):
            raise NotLetIn("This browser did not begin to sign in here, or keeps no cookies: try again.") from None
        if not secrets.compare_digest(leaving.state.encode(), query.get("state", "").encode()):
            raise NotLetIn("That answer belongs to another attempt: try again.")
        if not 0 <= self._now() - leaving.at <= _LASTS_S:
            raise NotLetIn("That took too long: try again.")
        if "code" not in query:
            raise NotLetIn(f"{self.name} did not let you in: {query.get('error_description') or query.get('error')}")
        async with self._client() as client:
            metadata = await self._discover(client)
            token = await client.fetch_token(
                metadata.token_endpoint, code=query["code"], code_verifier=leaving.verifier
            )
            claims = await self._checked(client, metadata, token, leaving.nonce)
            if self.oidc.claim not in claims and metadata.userinfo_endpoint:
                answer = await client.get(metadata.userinfo_endpoint)
                answer.raise_for_status()
                more = msgspec.json.decode(answer.content, type=dict[str, Any])
                if more.get("sub") == claims["sub"]:
                    claims = {**more, **claims}
        role, name = role_of(self.oidc, claims), name_of(self.oidc, claims)
        if role is None:
            log.warning(
                "%s is nobody here: http.oidc.claim is %s, theirs %r",
                name,
                self.oidc.claim,
                claims.get(self.oidc.claim),
            )
            raise NotLetIn(f"{self.name} knows you, but here you are neither viewer nor operator.")
        return name, role, leaving.next

    async def _checked(
        self, client: AsyncOAuth2Client, metadata: _Metadata, token: dict[str, Any], nonce: str
    ) -> dict[str, Any]:
        """What the provider signed."""
        signed = token.get("id_token")
        if not isinstance(signed, str):
            raise ValueError("it gave no id_token")
        found: jwt.Token | None = None
        # Keys change: one that is not known is asked for once more.
        for fresh in (False, True):
            keys = await self._known_keys(client, metadata, fresh)
            try:
                found = jwt.decode(signed, keys, algorithms=list(_ALGORITHMS))
                break
            except (JoseError, ValueError):
                if fresh:
                    raise
        assert found is not None
        claims = CodeIDToken(
            found.claims,
            found.header,
            options={"iss": {"value": metadata.issuer}, "aud": {"value": self.oidc.client_id}},
            params={"nonce": nonce, "client_id": self.oidc.client_id, "access_token": token.get("access_token")},
        )
        claims.validate(now=int(self._now()), leeway=_LEEWAY_S)
        return dict(claims)

    async def _known_keys(self, client: AsyncOAuth2Client, metadata: _Metadata, fresh: bool) -> KeySet:
        if self._keys is None or fresh or monotonic() - self._keys[0] > _FRESH_S:
            found = KeySet.import_key_set(msgspec.json.decode(await self._get(client, metadata.jwks_uri)))
            self._keys = (monotonic(), found)
        return self._keys[1]


def oidc_routes(access: Access, site: Site, provider: Provider, session_s: float) -> tuple[HTTPRouteHandler, ...]:
    def trouble(error: Exception) -> Response[str]:
        """The person cannot mend it: the log says what the provider did."""
        log.error("%s: %s", provider.oidc.issuer, error or type(error).__name__)
        words = f"{provider.name} does not answer as it should; the controller’s log says more. A password still works."
        return form(words, 502, oidc=provider.name)

    @get("/login/oidc", include_in_schema=False, opt={"public": True})
    async def leave(request: Asked) -> Response[str]:
        try:
            url, kept = await provider.leave(request.query_params.get("next", "")[:1000])
        except _TROUBLE as error:
            return trouble(error)
        cookie = site.cookie(request, COOKIE, kept, _LASTS_S, _PATH)
        return Response("", status_code=303, headers={"Location": url}, cookies=[cookie])

    @get("/login/oidc/callback", include_in_schema=False, opt={"public": True})
    async def come_back(request: Asked) -> Response[str]:
        try:
            query = {key: str(value) for key, value in request.query_params.items()}
            name, role, wanted = await provider.come_back(query, auth.cookie(request.headers, COOKIE))
        except NotLetIn as error:
            answer = form(str(error), 403, oidc=provider.name)
        except _TROUBLE as error:
            answer = trouble(error)
        else:
            answer = let_in(
                access, site, request, access.sign_in_person(name, role, auth.address(request)), wanted, session_s
            )
        answer.cookies = [*answer.cookies, site.cookie(request, COOKIE, "", 0, _PATH)]
        return answer

    return (leave, come_back)
