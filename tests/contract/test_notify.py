"""Notices by Apprise to a real HTTP server on loopback: one that takes them, refuses, hangs, comes back."""

from __future__ import annotations

import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vagus_controller import notify as notify_module
from vagus_controller.config import Channel
from vagus_controller.core.notices import Notice
from vagus_controller.notify import Messenger, scrubbed, service_of
from vagus_controller.views import ChannelView, Severity
from vagus_runtime.settings import ConfigError

SECRET = "s3cretpath-of-a-hook"


class Hook:
    """A web hook. `manner`: takes, fails (500), hangs (takes the request, and never answers), or breaks off."""

    def __init__(self) -> None:
        self.manner = "takes"
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.free = threading.Event()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.asked += 1
                if hook.manner == "hangs":
                    hook.free.wait(30)
                    return
                if hook.manner == "takes":
                    hook.taken.append(json.loads(body))
                self.send_response(200 if hook.manner == "takes" else 500)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"json://127.0.0.1:{self.server.server_port}/{SECRET}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.free.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.stop()


class Desk:
    def __init__(self, *channels: Channel) -> None:
        self.persisted = 0
        self.sent: list[Notice] = []
        self.messenger = Messenger(channels, self.persist, self.sent.append, timeout_s=1.0)
        self.messenger.start()

    def persist(self) -> None:
        self.persisted += 1

    @property
    def view(self) -> ChannelView:
        return self.messenger.views(lambda _: "")[0]


@pytest.fixture
def desk_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    monkeypatch.setattr(notify_module, "_RETRY_S", 0.05)
    monkeypatch.setattr(notify_module, "_RETRY_MOST_S", 0.2)
    desks: list[Desk] = []

    def make(*channels: Channel) -> Desk:
        desks.append(Desk(*channels))
        return desks[-1]

    yield make
    for desk in desks:
        desk.messenger.stop()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        pause.wait(0.01)


def notice(incident: int = 1, what: str = "began", **changes: Any) -> Notice:
    fields: dict[str, Any] = {"title": f"incident {incident} {what}", "text": "Cause: a cable", "channel": "ops"}
    fields |= {"severity": Severity.CRITICAL, "what": what, "incident": incident}
    return Notice(**(fields | changes))


def test_a_notice_arrives_once_with_title_text_and_look(hook: Hook, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(Channel(name="ops", url=hook.url))
    desk.messenger.send([notice()])
    until(lambda: bool(desk.sent), "it is sent")
    [taken] = hook.taken
    assert (taken["title"], taken["message"], taken["type"]) == ("incident 1 began", "Cause: a cable", "failure")
    assert (desk.view.state, desk.view.sent, desk.view.waiting, desk.view.service) == ("works", 1, 0, "JSON")
    assert desk.persisted >= 1, "on disk before it is sent"


def test_a_channel_that_fails_is_tried_again_and_shown(
    hook: Hook, desk_of: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    hook.manner = "fails"
    desk = desk_of(Channel(name="ops", url=hook.url))
    desk.messenger.send([notice(1), notice(2)])
    until(lambda: hook.asked >= 3, "it is tried again")
    view = desk.view
    assert view.state == "fails"
    assert view.failure
    assert view.waiting == 2
    assert SECRET not in view.failure + "".join(desk.messenger.problems())
    assert len(desk.messenger.problems()) == 1
    hook.manner = "takes"
    until(lambda: len(desk.sent) == 2, "both arrive")
    assert [taken["title"] for taken in hook.taken] == ["incident 1 began", "incident 2 began"]
    assert desk.view.state == "works"
    assert desk.messenger.problems() == []
    assert SECRET not in caplog.text
    complaints = [
        record for record in caplog.records if record.name == "vagus.notify" and record.levelno > logging.INFO
    ]
    assert len(complaints) == 1, "told once, not at each attempt"


def test_a_channel_that_hangs_delays_no_other(hook: Hook, desk_of: Callable[..., Desk]) -> None:
    other = Hook()
    try:
        hook.manner = "hangs"
        desk = desk_of(Channel(name="ops", url=hook.url), Channel(name="team", url=other.url))
        desk.messenger.send([notice(), notice(channel="team")])
        until(lambda: bool(other.taken), "the other one has it")
        until(lambda: desk.view.state == "fails", "the hanging one is given up for now")
        hook.manner = "takes"
        hook.free.set()
        until(lambda: len(desk.sent) == 2, "and has it too in the end")
        assert len(hook.taken) == 1
    finally:
        other.stop()


def test_what_ended_meanwhile_is_told_once_as_over(hook: Hook, desk_of: Callable[..., Desk]) -> None:
    hook.manner = "fails"
    desk = desk_of(Channel(name="ops", url=hook.url))
    desk.messenger.send([notice(1)])
    until(lambda: hook.asked >= 1, "it was tried")
    desk.messenger.send([notice(1, "over")])
    until(lambda: hook.asked >= 3, "and again")
    hook.manner = "takes"
    until(lambda: bool(desk.sent), "it is sent")
    assert [taken["title"] for taken in hook.taken] == ["incident 1 over"]
    assert desk.view.waiting == 0


def test_the_queue_is_bounded_and_the_oldest_goes(hook: Hook, desk_of: Callable[..., Desk]) -> None:
    hook.manner = "hangs"
    desk = desk_of(Channel(name="ops", url=hook.url))
    desk.messenger.send([notice(0)])
    until(lambda: hook.asked == 1, "the first is being sent")
    desk.messenger.send(notice(number) for number in range(1, 151))
    assert desk.view.waiting == 100
    assert desk.view.dropped == 51
    unsent = [each.incident for each in desk.messenger.unsent()]
    assert unsent == list(range(51, 151))


def test_what_is_being_sent_is_not_what_a_next_life_sends(hook: Hook, desk_of: Callable[..., Desk]) -> None:
    hook.manner = "hangs"
    desk = desk_of(Channel(name="ops", url=hook.url))
    desk.messenger.send([notice(1), notice(2)])
    until(lambda: hook.asked == 1, "the first is being sent")
    assert [each.incident for each in desk.messenger.unsent()] == [2]


def test_the_test_button(hook: Hook, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(Channel(name="ops", url=hook.url))
    assert desk.messenger.test("ops").result(30).delivered
    assert "If you can read this, ops works." in hook.taken[0]["message"]
    hook.manner = "fails"
    failed = desk.messenger.test("ops").result(30)
    assert not failed.delivered
    assert failed.detail
    assert SECRET not in failed.detail
    with pytest.raises(KeyError):
        desk.messenger.test("nobody")


def test_nobody_listens(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(Channel(name="ops", url=f"json://127.0.0.1:1/{SECRET}"))
    found = desk.messenger.test("ops").result(30)
    assert not found.delivered
    assert SECRET not in found.detail


def test_the_url_may_lie_in_a_file_that_only_we_read(hook: Hook, desk_of: Callable[..., Desk], tmp_path: Path) -> None:
    file = tmp_path / "hook"
    file.write_text(hook.url + "\n")
    file.chmod(0o644)
    desk = desk_of(Channel(name="ops", url_file=str(file)))
    found = desk.messenger.test("ops").result(30)
    assert "chmod 600" in found.detail
    file.chmod(0o600)
    assert desk.messenger.test("ops").result(30).delivered


def test_a_url_whose_file_is_another_since_or_gone_is_not_told_and_ends_nothing(
    hook: Hook, desk_of: Callable[..., Desk], tmp_path: Path
) -> None:
    file = tmp_path / "hook"
    file.write_text(hook.url)
    file.chmod(0o600)
    desk = desk_of(Channel(name="ops", url_file=str(file)))
    assert desk.messenger.test("ops").result(30).delivered
    hook.stop()
    file.write_text("json://192.0.2.1/another")
    assert "127.0.0.1" not in desk.messenger.test("ops").result(30).detail
    file.unlink()
    found = desk.messenger.test("ops").result(30)
    assert not found.delivered
    assert "127.0.0.1" not in found.detail
    assert not desk.messenger.test("ops").result(30).delivered, "its thread goes on"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hunter2-hunter2", "is no URL"),
        ("tgrm://hunter2-hunter2/1", "'tgrm' is no service"),
        ("tgram://hunter2-hunter2", "tgram://{bot_token}"),
        ("json://", "json://{host}"),
    ],
)
def test_a_wrong_url_is_told_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        service_of(url)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_no_part_of_a_url_is_told() -> None:
    url = "mailto://ines:p%40ssword@mail.example.org?to=ops@example.org"
    words = f"could not reach mail.example.org as ines: {url}: p@ssword refused\nTraceback"
    told = scrubbed(words, url)
    for part in ("p@ssword", "p%40ssword", "mail.example.org"):
        assert part not in told
    assert "\n" not in told
