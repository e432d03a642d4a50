"""The controller's REST API, asked from its own host, with Python's standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

# Of every module that asks; in words in plugins/doc_fragments.
OPTIONS = {
    "url": {"type": "str", "default": "http://127.0.0.1:8118"},
    "token_file": {"type": "path", "default": "/var/lib/vagus-controller/token", "no_log": False},
}
# As vagusctl has it.
_TIMEOUT_S = 10.0


class ApiError(Exception):
    """In words, with what to do."""


class Api:
    def __init__(self, url: str, token_file: str, who: str) -> None:
        """Raises ApiError where there is no token."""
        self._url = url.rstrip("/")
        self._who = who
        # The controller is a neighbour, never behind the proxy that the environment may name.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with open(token_file, encoding="ascii") as stream:
                self._token = stream.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            words = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ApiError(
                f"no token: {token_file}: {words}. vagus_api_token_file names it on the controller's host"
            ) from None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer. Raises ApiError."""
        request = urllib.request.Request(
            f"{self._url}/api/v1{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "X-Vagus-Who": self._who,
            },
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ApiError(self._refusal(error)) from None
        except (OSError, ValueError) as error:
            words = getattr(error, "reason", None) or error
            raise ApiError(
                f"the controller at {self._url} cannot be reached ({words}): does it run "
                "(systemctl status vagus-controller)? vagus_api_url names another address"
            ) from None

    def picture(self) -> dict[str, Any]:
        return {what: self.ask("GET", f"/{what}") for what in ("fleet", "plans", "drills")}

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        if error.code == 401:
            return f"the controller at {self._url} does not know this token: vagus_api_token_file names another"
        try:
            return str(json.loads(error.read())["detail"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"{self._url} answered {error.code}: is it a vagus controller?"
