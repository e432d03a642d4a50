"""The account page in Chromium: one's password, API tokens, and for operators the users."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from playwright.sync_api import BrowserContext, Page, expect

from browser.axe import serious
from browser.board import Board, Site
from contract.oidc_standin import Standin
from contract.test_oidc import settings
from door import VIEWER, VIEWER_PASSWORD


def test_a_token_is_made_shown_once_used_and_revoked(page: Page, site: Site) -> None:
    site.open(page, "/account")
    expect(page.get_by_role("heading", level=1)).to_have_text("Account of operator operator")
    expect(page.locator("#token-list")).to_contain_text("None yet")
    tokens = page.locator("#tokens")
    tokens.get_by_label("Name").fill("prometheus")
    tokens.get_by_role("button", name="Make a token").click()
    secret = tokens.locator(".secret").inner_text()
    bearer = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{site.url}/metrics", headers=bearer).status_code == 200
    page.reload()
    expect(tokens.locator("tbody tr")).to_contain_text("prometheus")
    expect(page.locator("body")).not_to_contain_text(secret)
    page.get_by_role("button", name="Revoke: prometheus").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.locator("#token-list")).to_contain_text("None yet")
    assert httpx.get(f"{site.url}/metrics", headers=bearer).status_code == 401


def test_a_user_is_made_promoted_and_removed(page: Page, site: Site, complaints: list[str]) -> None:
    site.open(page, "/account")
    users = page.locator("#users")
    users.get_by_label("Name").fill("bob")
    users.get_by_label("First password").fill("short")
    users.get_by_role("button", name="Make a user").click()
    expect(users.locator("tbody tr")).to_have_count(2)
    users.get_by_label("First password").fill("bobs own password")
    users.get_by_role("button", name="Make a user").click()
    expect(users.get_by_role("status")).to_have_text("bob can sign in now.")
    page.get_by_role("button", name="Make operator: bob").click()
    page.get_by_role("dialog").get_by_role("button", name="Make operator").click()
    expect(users.get_by_role("row", name=re.compile("^bob"))).to_contain_text("operator")
    page.get_by_role("button", name="Remove: operator").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page).to_have_url(re.compile("/login"))
    # The answers that say so.
    complaints.clear()


def test_a_viewer_has_no_users_and_makes_tokens_to_read(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(site.url + "/account")
    expect(page).to_have_url(re.compile(r"/login\?next=%2Faccount$"))
    page.get_by_label("User").fill(VIEWER)
    page.get_by_label("Password").fill(VIEWER_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Account of {VIEWER} viewer")
    expect(page.locator("#users")).to_be_hidden()
    expect(page.get_by_role("option", name="read and command")).to_be_disabled()
    password = page.locator("#password")
    password.get_by_label("The one you have").fill("not it")
    password.get_by_label("The new one").fill("something else")
    password.get_by_role("button").click()
    expect(password.get_by_role("status")).to_have_text("that is not your password")
    password.get_by_label("The one you have").fill(VIEWER_PASSWORD)
    password.get_by_role("button").click()
    expect(password.get_by_role("status")).to_contain_text("Changed")


def test_the_way_back_from_a_provider_on_another_site_finds_the_session(
    context: BrowserContext, board: Board, tmp_path: Path
) -> None:
    """What a cookie's SameSite means, only a browser knows."""
    site = Site(board, tmp_path)
    with Standin() as standin:
        site.url = f"http://vagus.test:{site.port}"
        site.http = settings(standin, tmp_path) | {"url": site.url}
        site.start()
        try:
            page = context.new_page()
            page.goto(site.url + "/events")
            page.get_by_role("link", name="Sign in by 127.0.0.1").click()
            expect(page).to_have_url(site.url + "/events")
            page.get_by_label("Account and appearance").click()
            page.get_by_role("link", name="Account and API tokens").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Account of ines@example.org operator")
            expect(page.locator("#password")).to_be_hidden()
            # A link in a chat: from another site, and signed in all the same.
            page.goto(standin.issuer + "/a-chat")
            page.evaluate("url => location.assign(url)", site.url + "/events")
            expect(page.get_by_role("heading", level=1)).to_have_text("Events and decisions")
        finally:
            site.stop()


def test_nothing_serious_is_found_by_axe(page: Page, site: Site) -> None:
    site.open(page, "/account")
    expect(page.locator("#user-list tbody tr")).to_have_count(2)
    assert serious(page) == []
    page.goto(site.url + "/login")
    page.get_by_text("No password?").click()
    assert serious(page) == []
