"""The API's client: answers as bytes or views, and every failure as one sentence that says what to do."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeVar

import httpx
import msgspec

# What the controller needs for an answer, with room for a node at load 25.
_TIMEOUT_S: Final = 10.0
# The stream says something every 3 s.
_SILENCE_S: Final = 10.0

# How the detail of a 404 begins where the path itself is unknown.
_NOT_SERVED: Final = "nothing is served here"

FAILED: Final = 1
UNREACHABLE: Final = 3
NOT_ALLOWED: Final = 4

T = TypeVar("T")


class CtlError(Exception):
    """Shown as it is; `code` is the exit code."""

    def __init__(self, words: str, code: int = FAILED) -> None:
        super().__init__(words)
        self.code = code


class Message(NamedTuple):
    """One server-sent event."""

    topic: str
    data: str
    id: str


class _Problem(msgspec.Struct):
    detail: str


class Client:
    def __init__(self, url: str, token: str, timeout_s: float = _TIMEOUT_S) -> None:
        self._url = url
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise CtlError("the token is not one word of ASCII characters: is it the right file?", NOT_ALLOWED)
        try:
            self._http = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {token}", "X-Vagus-Who": _who()},
                timeout=timeout_s,
                # The controller is a neighbour, never behind the proxy that the environment may name.
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise CtlError(f"{url}: {error}; --url is like http://127.0.0.1:8118", 2) from None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, **params: Any) -> bytes:
        """The answer's body. Raises CtlError."""
        query = {key: value for key, value in params.items() if value is not None}
        try:
            answer = self._http.request(method, f"/api/v1{path}", json=body, params=query)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        except (httpx.InvalidURL, ValueError) as error:
            raise CtlError(f"{self._url}: {error}; --url is like http://127.0.0.1:8118", 2) from None
        self._check(answer)
        return answer.content

    def stream(self, last_id: str) -> Iterator[Message]:
        """Server-sent events until the connection ends. Raises CtlError."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx.Timeout(_TIMEOUT_S, read=_SILENCE_S)
        try:
            with self._http.stream("GET", "/api/v1/stream", headers=headers, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                self._check(answer)
                yield from _messages(answer.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.HTTPError) -> CtlError:
        if isinstance(error, httpx.UnsupportedProtocol):
            return CtlError(f"{self._url} is no URL; --url is like http://127.0.0.1:8118", 2)
        if isinstance(error, httpx.TimeoutException):
            words = "does not answer in time"
        else:
            words = f"cannot be reached ({str(error) or type(error).__name__})"
        return CtlError(
            f"the controller at {self._url} {words}. Does it run (systemctl status vagus-controller)? "
            "Another address: --url or VAGUS_URL",
            UNREACHABLE,
        )

    def _check(self, answer: httpx.Response) -> None:
        if answer.status_code == 401:
            raise CtlError(
                "the controller does not know this token, or its time is over. Take an API token, made on the page "
                "under Account, or the one in the file that http.token_file names in the controller's configuration: "
                "give it by --token-file or VAGUS_TOKEN",
                NOT_ALLOWED,
            )
        if answer.is_success:
            return
        if answer.is_redirect:
            raise CtlError(f"{self._url} sends us to {answer.headers.get('location')}: give that address by --url")
        try:
            words = msgspec.json.decode(answer.content, type=_Problem).detail
        except msgspec.MsgspecError:
            words = f"{self._url} answered {answer.status_code}: is it a vagus controller?"
        if answer.status_code == 404 and words.startswith(_NOT_SERVED):
            words = (
                f"the controller at {self._url} does not know {answer.url.path}: is it older than this vagusctl "
                "(vagusctl status says its version)? Or correct the name"
            )
        raise CtlError(words, NOT_ALLOWED if answer.status_code == 403 else FAILED)


def decode(data: bytes | str, kind: type[T]) -> T:
    """The view in an answer. Raises CtlError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise CtlError(f"the answer is not as expected ({error}): is it a vagus controller of this version?") from None


def _messages(lines: Iterator[str]) -> Iterator[Message]:
    topic, last_id = "message", ""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Message(topic, "\n".join(data), last_id)
            topic, data = "message", []
        elif field == "event":
            topic = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value


def _who() -> str:
    """For the ledger: who asked, from where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}".encode("ascii", "replace").decode()
