"""A stand-in for an OpenID provider: real HTTP, real RS256, PKCE and one-time codes; it lets in whom the test says, and
misbehaves as the test says."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "vagus", "a-secret-of-the-client"


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})


class Standin:
    """As a context manager. `claims`: of who signs in; `userinfo`: what is told only there. `forge(claims)` may return
    another id_token; `refusal`: why nobody is let in."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {"sub": "1", "email": "ines@example.org", "email_verified": True}
        self.userinfo: dict[str, Any] = {}
        self.key = new_key()
        self.public = [self.key]
        self.forge: Callable[[dict[str, Any]], str] | None = None
        self.refusal = ""
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                standin._answer(self, "")

            def do_POST(self) -> None:
                standin._answer(self, self.rfile.read(int(self.headers["content-length"])).decode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def sign(self, claims: dict[str, Any], key: RSAKey | None = None) -> str:
        key = key or self.key
        return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)

    def _answer(self, request: BaseHTTPRequestHandler, body: str) -> None:
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        form = {key: values[0] for key, values in parse_qs(body).items()}
        self.asked.append(parts.path)
        if parts.path == "/authorize":
            request.send_response(302)
            request.send_header("Location", self._authorize(query))
            request.end_headers()
            return
        answer: Any = {"error": "not here"}
        if parts.path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            answer = {name: f"{self.issuer}/{place}" for name, place in places.items()}
            answer |= {"issuer": self.issuer, "userinfo_endpoint": f"{self.issuer}/userinfo"}
        elif parts.path == "/keys":
            answer = KeySet(list(self.public)).as_dict(private=False)
        elif parts.path == "/token":
            answer = self._token(form, request.headers.get("authorization", ""))
        elif parts.path == "/userinfo" and request.headers.get("authorization") == "Bearer an-access-token":
            answer = {"sub": self.claims["sub"], **self.userinfo}
        request.send_response(400 if "error" in answer else 200)
        request.send_header("Content-Type", "application/json")
        request.end_headers()
        request.wfile.write(json.dumps(answer).encode())

    def _authorize(self, query: dict[str, str]) -> str:
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        back = {"state": query["state"]}
        if self.refusal:
            back |= {"error": "access_denied", "error_description": self.refusal}
        else:
            back["code"] = secrets.token_urlsafe(8)
            self._codes[back["code"]] = query
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def _token(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        if authorization != "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode():
            return {"error": "invalid_client"}
        asked = self._codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or asked["code_challenge"] != challenge.decode().rstrip("=")
            or asked["redirect_uri"] != form["redirect_uri"]
            or form["grant_type"] != "authorization_code"
        ):
            return {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.claims,
        }
        signed = self.forge(claims) if self.forge else self.sign(claims)
        return {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 300, "id_token": signed}
