"""Signing in by OpenID Connect, against a stand-in provider over loopback."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from contract.fleet_samples import Running
from contract.oidc_standin import CLIENT, SECRET, Standin, new_key
from contract.test_accounts import OURS, signed_in
from contract.test_api import problem
from vagus_controller.api.auth import COOKIE
from vagus_controller.api.oidc import COOKIE as LEAVING
from vagus_controller.api.oidc import name_of, role_of
from vagus_controller.config import Oidc
from vagus_runtime.settings import ConfigError

NAME = "http://vagus.test"


@pytest.fixture
def standin() -> Iterator[Standin]:
    with Standin() as standin:
        yield standin


def settings(standin: Standin, directory: Path, **more: Any) -> dict[str, Any]:
    secret = directory / "oidc-secret"
    if not secret.exists():
        secret.touch(0o600)
        secret.write_text(SECRET + "\n")
    oidc: dict[str, Any] = {
        "issuer": standin.issuer,
        "client_id": CLIENT,
        "client_secret_file": str(secret),
        "operators": ("ines@example.org",),
        "viewers": ("vera@example.org",),
    }
    return {"url": NAME, "oidc": Oidc(**(oidc | more))}


@pytest.fixture
def running(standin: Standin, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "vagus.db", **settings(standin, tmp_path)) as running:
        yield running


def there_and_back(running: Running, client: httpx.Client, wanted: str = "") -> httpx.Response:
    """What a browser does: our link, the provider, the way back. The answer of the last step."""
    left = client.get("/login/oidc", params={"next": wanted} if wanted else None)
    if left.status_code != 303:
        return left
    sent = httpx.get(left.headers["location"])
    back = sent.headers["location"]
    assert back.startswith(f"{NAME}/login/oidc/callback?")
    return client.get(back.removeprefix(NAME))


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=20) as client:
        yield client


def test_an_operator_of_the_provider_commands(running: Running, client: httpx.Client, standin: Standin) -> None:
    assert "Sign in by 127.0.0.1" in client.get("/login").text
    answer = there_and_back(running, client, "/events?subject=a")
    assert (answer.status_code, answer.headers["location"]) == (303, "/events?subject=a")
    assert LEAVING not in client.cookies
    me = client.get("/api/v1/me").json()
    assert (me["name"], me["role"], me["origin"], me["has_password"]) == (
        "ines@example.org",
        "operator",
        "oidc",
        False,
    )
    body = {"pair": running.operator.view.pairs[0].name}
    assert client.post("/api/v1/failback", json=body, headers=OURS).status_code == 202
    assert running.operator.asked[0][2] == "ines@example.org"
    assert running.audited[0][:4] == (
        "ines@example.org",
        "sign-in",
        "user ines@example.org",
        "by OpenID Connect, from 127.0.0.1",
    )


def test_a_viewer_of_the_provider_does_not(running: Running, client: httpx.Client, standin: Standin) -> None:
    standin.claims["email"] = "vera@example.org"
    assert there_and_back(running, client).headers["location"] == "/"
    body = {"pair": running.operator.view.pairs[0].name}
    problem(client.post("/api/v1/failback", json=body, headers=OURS), 403)
    assert running.operator.asked == []


@pytest.mark.parametrize(
    "claims", [{"email": "mallory@example.org"}, {"email_verified": False}, {"email": {"ines@example.org": 1}}]
)
def test_who_is_nobody_here_stays_out(
    running: Running, client: httpx.Client, standin: Standin, claims: dict[str, Any]
) -> None:
    standin.claims |= claims
    answer = there_and_back(running, client)
    assert answer.status_code == 403
    assert "neither viewer nor operator" in answer.text
    assert COOKIE not in client.cookies


def test_whom_the_provider_refuses_is_told_why(running: Running, client: httpx.Client, standin: Standin) -> None:
    standin.refusal = "not at <b>night</b>"
    answer = there_and_back(running, client)
    assert answer.status_code == 403
    assert "not at &lt;b&gt;night&lt;/b&gt;" in answer.text


def other_key(standin: Standin, claims: dict[str, Any]) -> str:
    return standin.sign(claims, new_key())


def unsigned(_standin: Standin, claims: dict[str, Any]) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
    ]
    return ".".join([*parts, ""])


def by_our_secret(_standin: Standin, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


def by_its_public_key(standin: Standin, claims: dict[str, Any]) -> str:
    """The old trick: the public key as the secret of an HMAC."""
    return jwt.encode(
        {"alg": "HS256", "kid": standin.key.kid}, claims, OctKey.import_key(standin.key.as_bytes(private=False))
    )


def changed(**how: Any) -> Callable[[Standin, dict[str, Any]], str]:
    def change(standin: Standin, claims: dict[str, Any]) -> str:
        return standin.sign({key: value for key, value in (claims | how).items() if value is not None})

    return change


@pytest.mark.parametrize(
    "forge",
    [
        other_key,
        unsigned,
        by_our_secret,
        by_its_public_key,
        changed(nonce="another"),
        changed(nonce=None),
        changed(aud="another client"),
        changed(aud=[CLIENT, "another client"], azp="another client"),
        changed(iss="http://another.example"),
        changed(exp=int(time.time()) - 3600),
        changed(exp=None),
        changed(sub=None),
        changed(iat=int(time.time()) + 3600),
        lambda _standin, _claims: "garbage",
    ],
    ids=[
        *(
            "another's key",
            "unsigned",
            "our secret",
            "its public key",
            "another nonce",
            "no nonce",
            "for another client",
        ),
        *("for several", "another issuer", "expired", "without an end", "nobody", "from the future", "garbage"),
    ],
)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_what_the_provider_did_not_sign_for_us_now_lets_nobody_in(
    running: Running, client: httpx.Client, standin: Standin, forge: Callable[[Standin, dict[str, Any]], str]
) -> None:
    standin.forge = lambda claims: forge(standin, claims)
    answer = there_and_back(running, client)
    assert answer.status_code == 502
    assert "does not answer as it should" in answer.text
    assert COOKIE not in client.cookies
    problem(client.get("/api/v1/me"), 401)


def test_an_answer_without_its_beginning_lets_nobody_in(
    running: Running, client: httpx.Client, standin: Standin
) -> None:
    """Another's answer given to a victim's browser, twice the same one, an old one."""
    left = client.get("/login/oidc")
    back = httpx.get(left.headers["location"]).headers["location"].removeprefix(NAME)
    with httpx.Client(base_url=running.url) as victim:
        assert "did not begin" in victim.get(back).text
        victim.get("/login/oidc")
        assert "another attempt" in victim.get(back).text
        assert COOKIE not in victim.cookies
    kept = client.cookies[LEAVING]
    assert client.get(back).status_code == 303
    client.cookies.clear()
    again = client.get(back, headers={"Cookie": f"{LEAVING}={kept}"})
    assert again.status_code == 502
    late = json.loads(bytes.fromhex(kept))
    late["at"] -= 601
    cookie = {"Cookie": f"{LEAVING}={json.dumps(late).encode().hex()}"}
    assert "too long" in client.get(back, headers=cookie).text
    assert "did not begin" in client.get(back, headers={"Cookie": f"{LEAVING}=zz"}).text


def test_keys_that_the_provider_changed_are_fetched_anew(
    running: Running, client: httpx.Client, standin: Standin
) -> None:
    assert there_and_back(running, client).status_code == 303
    standin.key = new_key()
    standin.public = [standin.key]
    assert there_and_back(running, client).status_code == 303
    assert standin.asked.count("/keys") == 2
    assert standin.asked.count("/.well-known/openid-configuration") == 1


def test_groups_may_be_told_only_by_userinfo(standin: Standin, tmp_path: Path) -> None:
    http = settings(standin, tmp_path, claim="groups", operators=("admins",), viewers=("*",))
    standin.userinfo = {"groups": ["users", "admins"]}
    with Running(tmp_path / "vagus.db", **http) as running, httpx.Client(base_url=running.url) as client:
        assert there_and_back(running, client).status_code == 303
        assert client.get("/api/v1/me").json()["role"] == "operator"
        standin.userinfo = {"groups": "users"}
        assert there_and_back(running, client).status_code == 303
        assert client.get("/api/v1/me").json()["role"] == "viewer"


def test_a_change_of_the_settings_ends_what_they_gave(standin: Standin, tmp_path: Path) -> None:
    http = settings(standin, tmp_path)
    with Running(tmp_path / "vagus.db", **http) as running, httpx.Client(base_url=running.url) as client:
        there_and_back(running, client)
        session = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
        secret = client.post("/api/v1/tokens", json={"name": "ci"}, headers=OURS).json()["secret"]
        token = {"Authorization": f"Bearer {secret}"}
    for http, status in (
        (settings(standin, tmp_path), 200),
        (settings(standin, tmp_path, operators=("bob@example.org",)), 401),
        ({}, 401),
    ):
        with Running(tmp_path / "vagus.db", **http) as running, httpx.Client(base_url=running.url) as client:
            assert client.get("/api/v1/me", headers=session).status_code == status
            assert client.get("/api/v1/me", headers=token).status_code == status


def test_a_provider_that_is_away_or_calls_itself_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Standin() as standin:
        http = settings(standin, tmp_path)
    with Running(tmp_path / "vagus.db", **http) as running, httpx.Client(base_url=running.url) as client:
        answer = client.get("/login/oidc")
        assert answer.status_code == 502
        assert "A password still works" in answer.text
        signed_in(client)
    with Standin() as standin:
        http = settings(standin, tmp_path, issuer=standin.issuer + "/")
        with Running(tmp_path / "vagus.db", **http) as running, httpx.Client(base_url=running.url) as client:
            assert client.get("/login/oidc").status_code == 502
    assert "write that as http.oidc.issuer" in caplog.text


def test_a_secret_that_others_may_read_is_refused(standin: Standin, running: Running, tmp_path: Path) -> None:
    (tmp_path / "oidc-secret").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Running(tmp_path / "another.db", **settings(standin, tmp_path))


OIDC = Oidc(issuer="https://id.example.org", client_id="vagus", operators=("a@b", "admins"), viewers=("v",))


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "7", "email": "a@b", "email_verified": True}, "a@b"),
        # Who calls himself as another does is not taken for him.
        ({"sub": "7", "email": "a@b"}, "7@id.example.org"),
        ({"sub": "7", "preferred_username": "operator"}, "operator@id.example.org"),
        ({"sub": "7\x1b[31m", "preferred_username": " "}, "7[31m@id.example.org"),
        ({"sub": "x" * 500}, "x" * 64 + "@id.example.org"),
    ],
)
def test_whom_the_ledger_names(claims: dict[str, Any], name: str) -> None:
    assert name_of(OIDC, claims) == name


@pytest.mark.parametrize(
    ("claim", "claims", "role"),
    [
        ("email", {"email": "a@b", "email_verified": True}, "operator"),
        ("email", {"email": "a@b", "email_verified": "true"}, None),
        ("email", {"email": "a@b"}, None),
        ("groups", {"groups": ["v", "admins"]}, "operator"),
        ("groups", {"groups": ["v", 7, None, {}]}, "viewer"),
        ("groups", {"groups": "admins"}, "operator"),
        ("groups", {"groups": {"admins": True}}, None),
        ("groups", {"groups": []}, None),
        ("groups", {}, None),
    ],
)
def test_what_the_claim_makes_of_somebody(claim: str, claims: dict[str, Any], role: str | None) -> None:
    oidc = Oidc(**{each: getattr(OIDC, each) for each in OIDC.__struct_fields__} | {"claim": claim})
    assert role_of(oidc, claims) == role
