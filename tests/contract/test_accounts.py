"""Accounts over loopback: the real application, server and files; who may come in, and what they may do."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.fleet_samples import TOKEN, Running
from contract.test_api import problem, read
from door import PASSWORD, VIEWER, VIEWER_PASSWORD, no_audit
from vagus_controller.__main__ import main
from vagus_controller.accounts import access as accounts
from vagus_controller.accounts import passwords
from vagus_controller.accounts.access import Access
from vagus_controller.accounts.throttle import ADDRESS
from vagus_controller.api import stream
from vagus_controller.api.auth import COOKIE, DEVICE_COOKIE
from vagus_controller.api.page import assets
from vagus_controller.config import Http
from vagus_runtime.settings import ConfigError

BEARER = {"Authorization": f"Bearer {TOKEN}"}
OURS = {"X-Vagus-Request": "page"}
DAY = 86_400
# What a viewer may ask for all the same: it is about the viewer only.
FOR_VIEWERS = {("post", "/api/v1/me/password"), ("post", "/api/v1/tokens"), ("delete", "/api/v1/tokens/{token_id}")}


@pytest.fixture
def browser(running: Running) -> Iterator[Callable[[], httpx.Client]]:
    """Makes browsers: clients with cookies of their own."""
    made = []

    def browser() -> httpx.Client:
        made.append(httpx.Client(base_url=running.url, timeout=20))
        return made[-1]

    yield browser
    for client in made:
        client.close()


def sign_in(client: httpx.Client, user: str = "operator", password: str = PASSWORD, **more: Any) -> httpx.Response:
    return client.post("/login", data={"user": user, "password": password}, **more)


def signed_in(client: httpx.Client, user: str = "operator", password: str = PASSWORD) -> httpx.Client:
    answer = sign_in(client, user, password)
    assert (answer.status_code, answer.headers.get("location")) == (303, "/"), answer.text
    return client


def copied(client: httpx.Client) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}


Browser = Callable[[], httpx.Client]

# --- signing in and out ---------------------------------------------------------------------------------------------


def test_a_session_reads_and_asks_only_from_our_page(running: Running, browser: Browser) -> None:
    client = browser()
    answer = sign_in(client)
    cookies = {cookie.partition("=")[0]: cookie for cookie in answer.headers.get_list("set-cookie")}
    assert set(cookies) == {COOKIE, DEVICE_COOKIE}
    for cookie in cookies.values():
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
    assert "Path=/;" in cookies[COOKIE] + ";"
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/fleet").status_code == 200
    body = {"pair": running.operator.view.pairs[0].name}
    for headers in (
        {},
        OURS | {"Origin": "http://evil.example"},
        OURS | {"Sec-Fetch-Site": "cross-site"},
        OURS | {"Sec-Fetch-Site": "same-site"},
    ):
        problem(client.post("/api/v1/failback", json=body, headers=headers), 403)
    assert running.operator.asked == []
    for headers in (OURS, OURS | {"Origin": running.url}, OURS | {"Sec-Fetch-Site": "same-origin"}):
        assert client.post("/api/v1/failback", json=body, headers=headers).status_code == 202
    assert {asked[2] for asked in running.operator.asked} == {"operator"}


def test_a_session_that_was_signed_out_is_over_for_every_copy(running: Running, browser: Browser) -> None:
    client = signed_in(browser())
    copy = copied(client)
    assert browser().get("/api/v1/me", headers=copy).json()["name"] == "operator"
    answer = client.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert COOKIE not in client.cookies
    problem(browser().get("/api/v1/me", headers=copy), 401)
    assert [line[1] for line in running.audited] == ["sign-in", "sign-out"]


def test_who_signs_in_again_leaves_no_session_behind(browser: Browser) -> None:
    client = signed_in(browser())
    first = copied(client)
    signed_in(client, VIEWER, VIEWER_PASSWORD)
    assert client.get("/api/v1/me").json()["name"] == VIEWER
    problem(browser().get("/api/v1/me", headers=first), 401)


def test_a_form_of_another_site_signs_nobody_in_or_out(browser: Browser) -> None:
    client = signed_in(browser())
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        problem(sign_in(browser(), headers=headers), 403)
        problem(client.post("/logout", headers=headers), 403)
    assert client.get("/api/v1/me").status_code == 200


def test_an_unknown_user_and_a_wrong_password_look_the_same(running: Running, browser: Browser) -> None:
    answers = [
        sign_in(browser(), user, password)
        for user, password in (("operator", "not it"), ("nobody", PASSWORD), ("", ""), ("x" * 5000, "y" * 5000))
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1
    assert all("set-cookie" not in answer.headers for answer in answers)
    # What was typed as a name may be a password.
    assert [line[:3] for line in running.audited] == [("the page", "sign-in", "user operator")]
    assert "nobody" not in str(running.audited)


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/account?tab=1#x", "/account?tab=1#x"),
        ("", "/"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
    ],
)
def test_one_comes_back_to_where_one_wanted_to_go(browser: Browser, wanted: str, place: str) -> None:
    client = browser()
    answer = client.post("/login", data={"user": "operator", "password": PASSWORD, "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, place)
    assert "x" not in client.cookies


def test_what_the_login_page_repeats_is_no_markup(browser: Browser) -> None:
    text = browser().get("/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script>" not in text
    assert 'value="/&quot;&gt;' in text


# --- guessing -------------------------------------------------------------------------------------------------------


def test_guesses_are_slowed_but_not_the_browser_that_was_here_before(running: Running, browser: Browser) -> None:
    hers = signed_in(browser())
    attacker = browser()
    wrong = [sign_in(attacker, password=f"guess {number}") for number in range(int(ADDRESS[0]) + 1)]
    assert [answer.status_code for answer in wrong] == [403] * (len(wrong) - 1) + [429]
    assert 1 <= int(wrong[-1].headers["retry-after"]) <= ADDRESS[1] + 1
    assert f"try again in {wrong[-1].headers['retry-after']} s" in wrong[-1].text
    # Also the right one, from a stranger: else it would tell that it is right.
    assert sign_in(attacker).status_code == 429
    hers.post("/logout")
    signed_in(hers)
    assert len([line for line in running.audited if line[-1] == "refused"]) == 1


def test_an_address_that_a_client_claims_does_not_count(running: Running, browser: Browser) -> None:
    client = browser()
    statuses = [
        sign_in(client, password="guess", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
        for number in range(int(ADDRESS[0]) + 1)
    ]
    assert statuses[-1] == 429
    assert "from 127.0.0.1" in running.audited[0][3]


def test_passwords_are_checked_off_the_event_loop_and_only_so_many_at_once(
    running: Running, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_MAX_WAITING", 1)
    begun, go_on = threading.Event(), threading.Event()

    def slow(password: str, stored: str) -> bool:
        begun.set()
        return go_on.wait(20) and password == PASSWORD

    monkeypatch.setattr(passwords, "is_password", slow)
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(sign_in(browser())))
    first.start()
    assert begun.wait(20)
    assert browser().get("/healthz").status_code == 200
    assert sign_in(browser()).status_code == 503
    go_on.set()
    first.join(20)
    assert [answer.status_code for answer in answers] == [303]


# --- roles ----------------------------------------------------------------------------------------------------------


def routes(client: httpx.Client) -> list[tuple[str, str]]:
    """Every route of the API with every method, as the served document has them."""
    paths = client.get("/api/v1/openapi.json", headers=BEARER).json()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


def test_a_viewer_sees_everything_and_commands_nothing(running: Running, browser: Browser) -> None:
    viewer = signed_in(browser(), VIEWER, VIEWER_PASSWORD)
    token = viewer.post("/api/v1/tokens", json={"name": "board"}, headers=OURS).json()["secret"]
    commands = [each for each in routes(viewer) if each[0] != "get" and each not in FOR_VIEWERS]
    assert len(commands) >= 9
    for method, path in commands:
        for headers in (OURS, {"Authorization": f"Bearer {token}"}):
            client = viewer if headers == OURS else browser()
            answer = client.request(method, re.sub(r"\{\w+\}", "1", path), json={}, headers=headers)
            assert "this needs an operator" in problem(answer, 403), path
    assert running.operator.asked == []
    fleet = running.operator.view
    for path in ("fleet", "nodes", f"links/{fleet.pairs[0].name}", "events", "ledger", "why/fleet", "plans", "drills"):
        assert viewer.get(f"/api/v1/{path}").status_code == 200, path
    assert viewer.get("/metrics").status_code == 200
    assert viewer.get("/account").status_code == 200
    assert "only an operator" in problem(viewer.get("/api/v1/users"), 403)


def test_everybody_learns_who_they_are(browser: Browser) -> None:
    assert signed_in(browser()).get("/api/v1/me").json() == {
        "name": "operator",
        "role": "operator",
        "origin": "password",
        "via": "session",
        "has_password": True,
        "manages": True,
    }
    viewer = signed_in(browser(), VIEWER, VIEWER_PASSWORD)
    assert viewer.get("/api/v1/me").json()["role"] == "viewer"
    by_file = browser().get("/api/v1/me", headers=BEARER | {"X-Vagus-Who": "ines@desk"}).json()
    assert (by_file["name"], by_file["role"], by_file["via"]) == ("ines@desk", "operator", "file")


# --- users ----------------------------------------------------------------------------------------------------------


def test_an_operator_makes_changes_and_removes_users(running: Running, browser: Browser, tmp_path: Path) -> None:
    operator = signed_in(browser())
    bob = {"name": "bob", "role": "viewer", "password": "bobs own password"}
    assert operator.post("/api/v1/users", json=bob, headers=OURS).status_code == 201
    assert [user["name"] for user in operator.get("/api/v1/users").json()] == ["bob", "operator", VIEWER]
    assert bob["password"] not in (tmp_path / "accounts.json").read_text()
    client = signed_in(browser(), "bob", bob["password"])
    asked = {"scope": "fleet", "for_s": 60}
    problem(client.post("/api/v1/pauses", json=asked, headers=OURS), 403)
    # It counts at once, in sessions that are open.
    assert operator.put("/api/v1/users/bob", json={"role": "operator"}, headers=OURS).json()["role"] == "operator"
    assert client.post("/api/v1/pauses", json=asked, headers=OURS).status_code == 201
    assert operator.put("/api/v1/users/bob", json={"password": "another one"}, headers=OURS).status_code == 200
    problem(client.get("/api/v1/me"), 401)
    client = signed_in(browser(), "bob", "another one")
    assert operator.delete("/api/v1/users/bob", headers=OURS).status_code == 204
    problem(client.get("/api/v1/me"), 401)
    assert sign_in(browser(), "bob", "another one").status_code == 403
    changes = [(who, subject, reason) for who, action, subject, reason, _ in running.audited if action == "accounts"]
    assert changes == [
        ("operator", "user bob", "made, as viewer"),
        ("operator", "user bob", "is operator now, was viewer"),
        ("operator", "user bob", "has a new password; its sessions end"),
        ("operator", "user bob", "removed, with its sessions and tokens"),
    ]


def test_what_cannot_be_done_with_users_is_said(browser: Browser) -> None:
    operator = signed_in(browser())
    new = {"name": VIEWER, "role": "viewer", "password": "a long password"}
    assert "already" in problem(operator.post("/api/v1/users", json=new, headers=OURS), 409)
    assert "name" in problem(operator.post("/api/v1/users", json=new | {"name": "Bob"}, headers=OURS), 400)
    assert "password" in problem(operator.post("/api/v1/users", json=new | {"password": "short"}, headers=OURS), 400)
    easy = new | {"name": "bob", "password": "aaaaaaaaaaaa"}
    assert "too easy" in problem(operator.post("/api/v1/users", json=easy, headers=OURS), 409)
    assert "last operator" in problem(operator.delete("/api/v1/users/operator", headers=OURS), 409)
    assert "no user 'bob'" in problem(operator.delete("/api/v1/users/bob", headers=OURS), 404)
    assert "no user 'bob'" in problem(operator.put("/api/v1/users/bob", json={"role": "viewer"}, headers=OURS), 404)


def test_one_changes_ones_own_password_and_ones_other_sessions_end(browser: Browser) -> None:
    here, there = (signed_in(browser(), VIEWER, VIEWER_PASSWORD) for _ in range(2))
    wrong = {"old": "not it", "new": "something else"}
    assert "not your password" in problem(here.post("/api/v1/me/password", json=wrong, headers=OURS), 403)
    right = {"old": VIEWER_PASSWORD, "new": "something else"}
    assert here.post("/api/v1/me/password", json=right, headers=OURS).status_code == 204
    assert here.get("/api/v1/me").status_code == 200
    problem(there.get("/api/v1/me"), 401)
    assert sign_in(browser(), VIEWER, VIEWER_PASSWORD).status_code == 403
    signed_in(browser(), VIEWER, "something else")
    problem(browser().post("/api/v1/me/password", json=right, headers=BEARER), 403)


# --- API tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_told_once_listed_with_its_last_use_and_revoked(
    running: Running, browser: Browser, tmp_path: Path
) -> None:
    operator = signed_in(browser())
    made = operator.post("/api/v1/tokens", json={"name": "ci", "role": "operator"}, headers=OURS)
    assert made.status_code == 201
    secret, token = made.json()["secret"], made.json()["token"]
    assert (token["name"], token["role"], token["owner"], token["used_at"]) == ("ci", "operator", "operator", None)
    assert operator.get("/api/v1/tokens").json() == [token]
    bearer = {"Authorization": f"Bearer {secret}"}
    assert browser().post("/api/v1/pauses", json={"scope": "fleet", "for_s": 60}, headers=bearer).status_code == 201
    assert running.operator.asked[0][3] == "operator by token ci"
    [listed] = operator.get("/api/v1/tokens").json()
    assert listed["used_at"] == pytest.approx(token["made_at"], abs=60)
    assert secret not in operator.get("/api/v1/tokens").text
    assert operator.delete(f"/api/v1/tokens/{token['id']}", headers=OURS).status_code == 204
    problem(browser().get("/api/v1/fleet", headers=bearer), 401)
    problem(operator.delete(f"/api/v1/tokens/{token['id']}", headers=OURS), 404)
    running.stop()
    for file in (*tmp_path.glob("*.json"), *tmp_path.glob("vagus.db*")):
        assert secret.encode() not in file.read_bytes(), file
    assert [line[2:4] for line in running.audited if line[1] == "accounts"] == [
        ("token ci", "made, as operator, until it is revoked"),
        ("token ci", "revoked"),
    ]


def test_a_token_ends_with_its_time_and_with_its_owner(running: Running, browser: Browser) -> None:
    operator, viewer = signed_in(browser()), signed_in(browser(), VIEWER, VIEWER_PASSWORD)
    ask = {"name": "short", "expires_in_s": 3600}
    brief = {"Authorization": f"Bearer {viewer.post('/api/v1/tokens', json=ask, headers=OURS).json()['secret']}"}
    ask = {"name": "long"}
    lasting = {"Authorization": f"Bearer {viewer.post('/api/v1/tokens', json=ask, headers=OURS).json()['secret']}"}
    assert browser().get("/api/v1/me", headers=brief).status_code == 200
    running.later_s = 3601
    problem(browser().get("/api/v1/me", headers=brief), 401)
    assert browser().get("/api/v1/me", headers=lasting).status_code == 200
    operator.delete(f"/api/v1/users/{VIEWER}", headers=OURS)
    problem(browser().get("/api/v1/me", headers=lasting), 401)


def test_a_token_may_never_more_than_its_owner(browser: Browser) -> None:
    operator, viewer = signed_in(browser()), signed_in(browser(), VIEWER, VIEWER_PASSWORD)
    ask = {"name": "mine", "role": "operator"}
    assert "for more than a viewer may" in problem(viewer.post("/api/v1/tokens", json=ask, headers=OURS), 409)
    operator.put(f"/api/v1/users/{VIEWER}", json={"role": "operator"}, headers=OURS)
    bearer = {"Authorization": f"Bearer {viewer.post('/api/v1/tokens', json=ask, headers=OURS).json()['secret']}"}
    assert browser().get("/api/v1/me", headers=bearer).json()["role"] == "operator"
    operator.put(f"/api/v1/users/{VIEWER}", json={"role": "viewer"}, headers=OURS)
    assert browser().get("/api/v1/me", headers=bearer).json()["role"] == "viewer"


def test_nobody_sees_or_revokes_anothers_token_but_an_operator(browser: Browser) -> None:
    operator, viewer = signed_in(browser()), signed_in(browser(), VIEWER, VIEWER_PASSWORD)
    theirs = operator.post("/api/v1/tokens", json={"name": "ci"}, headers=OURS).json()["token"]["id"]
    mine = viewer.post("/api/v1/tokens", json={"name": "board"}, headers=OURS).json()["token"]["id"]
    assert [token["id"] for token in viewer.get("/api/v1/tokens").json()] == [mine]
    problem(viewer.delete(f"/api/v1/tokens/{theirs}", headers=OURS), 404)
    assert [token["id"] for token in operator.get("/api/v1/tokens").json()] == [theirs, mine]
    assert operator.delete(f"/api/v1/tokens/{mine}", headers=OURS).status_code == 204


def test_an_api_token_leaves_nothing_behind_that_outlives_it(browser: Browser) -> None:
    made = browser().post("/api/v1/tokens", json={"name": "ci", "role": "operator"}, headers=BEARER).json()
    assert made["token"]["owner"] == "-"
    bearer, client = {"Authorization": f"Bearer {made['secret']}"}, browser()
    new = {"name": "bob", "role": "operator", "password": "a long password"}
    for answer in (
        client.post("/api/v1/tokens", json={"name": "more"}, headers=bearer),
        client.delete(f"/api/v1/tokens/{made['token']['id']}", headers=bearer),
        client.post("/api/v1/users", json=new, headers=bearer),
        client.put(f"/api/v1/users/{VIEWER}", json={"password": "a long password"}, headers=bearer),
        client.delete(f"/api/v1/users/{VIEWER}", headers=bearer),
    ):
        assert "an API token cannot change accounts" in problem(answer, 403)


# --- how long it lasts ----------------------------------------------------------------------------------------------


def test_a_session_survives_a_restart_and_ends_with_its_time(
    browser: Browser, running: Running, tmp_path: Path
) -> None:
    client = signed_in(browser())
    cookie = copied(client)
    running.stop()
    assert client.cookies[COOKIE] not in (tmp_path / "sessions.json").read_text()
    assert stat.S_IMODE((tmp_path / "sessions.json").stat().st_mode) == 0o600
    with Running(tmp_path / "vagus.db") as again, httpx.Client(base_url=again.url, headers=cookie) as later:
        assert later.get("/api/v1/me").json()["name"] == "operator"
        for day in range(8):
            again.later_s = 0.9 * day * DAY
            assert later.get("/api/v1/me").status_code == 200
        again.later_s += 2 * DAY
        problem(later.get("/api/v1/me"), 401)


def test_a_session_that_nobody_uses_ends(browser: Browser, running: Running) -> None:
    client = signed_in(browser())
    running.later_s = DAY + 120
    problem(client.get("/api/v1/me"), 401)
    location = client.get("/events?subject=pi1").headers["location"]
    assert location == "/login?next=%2Fevents%3Fsubject%3Dpi1&over=1"
    assert "Your session is over." in client.get(location).text


def test_a_stream_ends_with_the_session_that_opened_it(
    running: Running, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PING_AFTER_S", 0.05)
    client = signed_in(browser(), VIEWER, VIEWER_PASSWORD)
    with client.stream("GET", "/api/v1/stream") as answer:
        lines = answer.iter_lines()
        read(lines, 1)
        signed_in(browser()).delete(f"/api/v1/users/{VIEWER}", headers=OURS)
        # It ends by itself.
        assert [line for line in lines if line.startswith("event: fleet")] == []
    problem(client.get("/api/v1/stream"), 401)


def test_an_open_page_keeps_its_session(running: Running, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_AFTER_S", 0.05)
    client = signed_in(browser())
    with client.stream("GET", "/api/v1/stream") as answer:
        lines = answer.iter_lines()
        read(lines, 1)
        for _ in range(3):
            running.later_s += DAY / 2
            for _ in range(4):
                next(line for line in lines if line == "event: ping")
    assert client.get("/api/v1/me").status_code == 200


def test_a_full_disk_ends_no_session_and_says_so(running: Running, browser: Browser, tmp_path: Path) -> None:
    client = signed_in(browser())
    running.until((tmp_path / "sessions.json").exists, "the session is on disk")
    # The disk is full for every file that is written anew; a link that was followed is removed.
    full = [tmp_path / f".{name}.{os.getpid()}" for name in ("sessions.json", "accounts.json")]
    for partial in full:
        partial.symlink_to("/dev/full")
    other = signed_in(browser())
    running.until(lambda: any("No space left" in each for each in running.access.problems), "the problem is told")
    new = {"name": "bob", "role": "viewer", "password": "a long password"}
    detail = problem(client.post("/api/v1/users", json=new, headers=OURS), 503)
    assert "nothing was changed: No space left" in detail
    assert client.get("/api/v1/me").status_code == other.get("/api/v1/me").status_code == 200
    assert len(client.get("/api/v1/users").json()) == 2
    # There is room again.
    assert client.post("/api/v1/users", json=new, headers=OURS).status_code == 201
    running.until(lambda: running.access.problems == [], "it is written again")


# --- first start, and what the configuration says --------------------------------------------------------------------


def started(directory: Path, **http: Any) -> Access:
    access = Access(Http(token_file=str(directory / "token"), **http), TOKEN, no_audit)
    access.start()
    return access


def test_the_first_start_tells_a_password_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "vagus")
    started(tmp_path)
    [told] = re.findall(r"as operator with the password (\S+), which is told only now", caplog.text)
    file = tmp_path / "accounts.json"
    assert told not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    caplog.clear()
    started(tmp_path)
    assert caplog.text == ""
    with Running(tmp_path / "vagus.db") as running, httpx.Client(base_url=running.url) as client:
        signed_in(client, "operator", told)


def test_the_password_in_the_configuration_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "password"
    file.touch(0o600)
    for password in ("the first one", "the second one"):
        file.write_text(password + "\n")
        with Running(tmp_path / "vagus.db", password_file=str(file)) as running:
            client = signed_in(httpx.Client(base_url=running.url), "operator", password)
            change = {"old": password, "new": "a third one"}
            detail = problem(client.post("/api/v1/me/password", json=change, headers=OURS), 409)
            assert "http.password_file" in detail
            assert "http.password_file" in problem(client.delete("/api/v1/users/operator", headers=OURS), 409)
            client.close()
    assert "told only now" not in caplog.text
    file.write_text("short")
    with pytest.raises(ConfigError, match="10 to 200 characters") as error:
        started(tmp_path, password_file=str(file))
    assert "short" not in str(error.value)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        started(tmp_path, password_file=str(file))


@pytest.mark.parametrize("damage", ["", "{", '{"users":[{"name":1}]}', '{"v":2}', "\x00" * 100])
def test_a_damaged_file_is_left_alone_and_the_token_still_works(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "accounts.json"
    file.touch(0o600)
    file.write_text(damage)
    with Running(tmp_path / "vagus.db") as running, httpx.Client(base_url=running.url) as client:
        assert sign_in(client).status_code == 403
        assert client.get("/api/v1/fleet", headers=BEARER).status_code == 200
        new = {"name": "bob", "role": "viewer", "password": "a long password"}
        detail = problem(client.post("/api/v1/users", json=new, headers=BEARER), 503)
        assert str(file) in detail
        [trouble] = running.access.problems
        assert str(file) in trouble
        assert "move" in trouble
    assert file.read_text() == damage


def test_a_directory_that_cannot_be_written_keeps_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access = started(tmp_path / "nowhere")
    assert "told only now" in caplog.text
    assert access.user("operator") is not None
    assert "users last until a restart" in access.problems[0]


def test_damaged_sessions_are_none(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    file.touch(0o600)
    file.write_text("{")
    with Running(tmp_path / "vagus.db") as running, httpx.Client(base_url=running.url) as client:
        signed_in(client)
    assert json.loads(file.read_text())["sessions"]


# --- on the controller itself ----------------------------------------------------------------------------------------


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`vagus-controller users …`: (exit code, what it said)."""
    config = tmp_path / "controller.toml"
    config.write_text(
        f'fleet = "f"\nname = "c"\nfleet_key_file = "{tmp_path}/key"\n[http]\ntoken_file = "{tmp_path}/token"\n'
        '[mqtt]\n[[mqtt.brokers]]\nhost = "127.0.0.1"\n'
    )

    def console(*words: str, said: str = "") -> tuple[int, str]:
        source, sink = os.pipe()
        os.write(sink, f"{said}\n".encode())
        os.close(sink)
        with os.fdopen(source) as stream:
            monkeypatch.setattr("sys.stdin", stream)
            code = main(["users", *words, "--config", str(config)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return console


def test_users_are_made_on_the_controller_while_it_runs(
    running: Running, browser: Browser, console: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_LOOK_EVERY_S", 0.0)
    code, said = console("add", "bob", "--role", "viewer", said="bobs own password")
    assert (code, "bob made, as viewer" in said) == (0, True)
    client = signed_in(browser(), "bob", "bobs own password")
    assert console("set-role", "bob", "--role", "operator")[0] == 0
    assert client.get("/api/v1/me").json()["role"] == "operator"
    token = client.post("/api/v1/tokens", json={"name": "ci"}, headers=OURS).json()
    _, listed = console("list")
    assert re.search(r"^bob +operator", listed, re.MULTILINE)
    assert token["token"]["id"] in listed
    assert console("revoke-token", token["token"]["id"])[0] == 0
    problem(browser().get("/api/v1/me", headers={"Authorization": f"Bearer {token['secret']}"}), 401)
    assert console("set-password", "bob", said="a new password")[0] == 0
    problem(client.get("/api/v1/me"), 401)
    signed_in(browser(), "bob", "a new password")
    assert console("remove", "bob")[0] == 0
    assert sign_in(browser(), "bob", "a new password").status_code == 403
    told = [line[3] for line in running.audited if line[0] == "vagus-controller users"]
    assert [words.partition(",")[0] for words in told] == [
        "made",
        "is operator now",
        "has a new password; its sessions end",
        "removed",
    ]


@pytest.mark.parametrize(
    ("words", "typed", "told"),
    [
        (["add", "Bob", "--role", "viewer"], "a long password", "a user's name is"),
        (["add", "bob", "--role", "viewer"], "short", "10 to 200 characters; nothing was changed"),
        (["add", "operator", "--role", "viewer"], "a long password", "there is a user operator already"),
        (["set-password", "bob"], "a long password", "there is no 'bob'"),
        (["remove", "operator"], "", "operator is the last operator"),
        (["revoke-token", "x"], "", "there is no 'x'"),
    ],
)
def test_mistakes_on_the_controller_are_told(
    running: Running, console: Callable[..., Any], words: list[str], typed: str, told: str
) -> None:
    code, said = console(*words, said=typed)
    assert code == 1
    assert told in said
    assert "Traceback" not in said


def test_before_the_first_start_there_is_nobody_to_change(console: Callable[..., Any], tmp_path: Path) -> None:
    assert "makes the first one when it starts" in console("list")[1]
    assert "start the controller once" in console("add", "bob", "--role", "viewer", said="a long password")[1]
    code, said = console("add", "ines", "--role", "operator", said="a long password")
    assert (code, "ines made" in said) == (0, True)
    with Running(tmp_path / "vagus.db") as running, httpx.Client(base_url=running.url) as client:
        signed_in(client, "ines", "a long password")


# --- behind a proxy, and the headers ---------------------------------------------------------------------------------


def test_behind_a_proxy_the_cookie_is_for_tls_only_and_the_clients_address_counts(tmp_path: Path) -> None:
    http = {"url": "https://vagus.example.org", "proxies": ("127.0.0.1",)}
    with Running(tmp_path / "vagus.db", **http) as running, httpx.Client(base_url=running.url) as client:
        by_proxy = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
        answer = sign_in(client, headers=by_proxy | {"Origin": "https://vagus.example.org"})
        assert answer.status_code == 303
        assert all("secure" in cookie.lower() for cookie in answer.headers.get_list("set-cookie"))
        assert "from 203.0.113.7" in running.audited[0][3]
        # A proxy that does not say that it speaks TLS: by the name that it is reached under.
        answer = sign_in(client, headers={"Host": "vagus.example.org"})
        assert "secure" in answer.headers["set-cookie"].lower()
        # Through a tunnel to the machine itself, without TLS.
        assert "secure" not in sign_in(client).headers["set-cookie"].lower()


def test_every_route_has_the_strict_headers(running: Running, browser: Browser) -> None:
    client = browser()
    client.headers.update(BEARER)
    places = [
        *(re.sub(r"\{\w+\}", "x", path) for method, path in routes(client) if method == "get" and "stream" not in path),
        *("/", "/account", "/login", "/logout", "/healthz", "/metrics", "/nothing", "/api/v1/openapi.json"),
        *(f"{assets().root}/{name}" for name in assets().files),
    ]
    for place in places:
        headers = client.get(place).headers
        policy = headers.get_list("content-security-policy", split_commas=True)
        assert policy == [
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
        ], place
        assert headers["x-content-type-options"] == "nosniff", place
        assert headers["x-frame-options"] == "DENY", place
        assert headers["referrer-policy"] == "no-referrer", place
        assert headers["cross-origin-opener-policy"] == "same-origin", place
        assert "server" not in headers, place
        if not place.startswith("/static/"):
            assert headers["cache-control"] == "no-store", place


PAGES = Path(stream.__file__).parent


def test_no_page_has_anything_inline_or_from_elsewhere() -> None:
    """What the policy forbids would be silently without effect."""
    for file in PAGES.rglob("*"):
        if file.suffix not in (".html", ".js", ".css", ".svg"):
            continue
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        code = re.sub(r"(?ms)/\*.*?\*/|^\s*//.*?$", "", text)
        assert not re.search(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", code), file
        if file.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text), file
