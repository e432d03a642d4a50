"""Names for a shell's completion, as the controller has them: soon, or not at all and without a word.

Some shells evaluate what they are given: only what is plain is offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import typer
from msgspec import Struct

from vagus_controller.ctl.client import Client, CtlError, decode

T = TypeVar("T")
Offer = tuple[str, str]

TIMEOUT_S: Final = 1.5
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ,./-]")


class _Node(Struct):
    name: str
    site: str


class _Path(Struct):
    path: str


class _Pair(Struct):
    name: str
    paths: list[_Path]


class _Incident(Struct):
    id: int
    title: str


class _Pause(Struct):
    id: int
    scope: str
    target: str
    reason: str


class _Channel(Struct):
    name: str
    service: str


class Completions:
    """`client`: for the command line so far."""

    def __init__(self, client: Callable[[typer.Context], Client]) -> None:
        self._client = client

    def nodes(self, context: typer.Context, incomplete: str) -> list[Offer]:
        return _offered(incomplete, ((each.name, each.site) for each in self._ask(context, "/nodes", _Node)))

    def sites(self, context: typer.Context, incomplete: str) -> list[Offer]:
        return _offered(incomplete, ((each.site, "") for each in self._ask(context, "/nodes", _Node)))

    def pairs(self, context: typer.Context, incomplete: str) -> list[Offer]:
        return _offered(incomplete, ((each.name, "") for each in self._ask(context, "/links", _Pair)))

    def paths(self, context: typer.Context, incomplete: str) -> list[Offer]:
        """Of the pairs that are named already, or of all."""
        pairs = self._ask(context, "/links", _Pair)
        named = set(context.params.get("pairs") or ())
        chosen = [each for each in pairs if each.name in named] or pairs
        return _offered(incomplete, ((path.path, "") for each in chosen for path in each.paths))

    def subjects(self, context: typer.Context, incomplete: str) -> list[Offer]:
        """Nodes and pairs; once a pair is there, its paths."""
        pairs = self._ask(context, "/links", _Pair)
        if "/" in incomplete:
            return _offered(incomplete, ((f"{each.name}/{path.path}", "") for each in pairs for path in each.paths))
        nodes = self._ask(context, "/nodes", _Node)
        return _offered(incomplete, [*((each.name, each.site) for each in nodes), *((each.name, "") for each in pairs)])

    def reasons_for(self, context: typer.Context, incomplete: str) -> list[Offer]:
        """What `why` explains."""
        return self.subjects(context, incomplete) + _offered(incomplete, (("quorum", ""), ("fleet", "")))

    def incidents(self, context: typer.Context, incomplete: str) -> list[Offer]:
        found = self._ask(context, "/incidents", _Incident)
        return _offered(incomplete, ((str(each.id), each.title) for each in found))

    def pauses(self, context: typer.Context, incomplete: str) -> list[Offer]:
        found = self._ask(context, "/pauses", _Pause)
        return _offered(incomplete, ((str(each.id), f"{each.scope} {each.target} {each.reason}") for each in found))

    def channels(self, context: typer.Context, incomplete: str) -> list[Offer]:
        found = self._ask(context, "/notifications", _Channel)
        return _offered(incomplete, ((each.name, each.service) for each in found))

    def _ask(self, context: typer.Context, path: str, kind: type[T]) -> list[T]:
        try:
            return decode(self._client(context).ask("GET", path), list[kind])  # type: ignore[valid-type]
        except CtlError:
            return []


def _offered(incomplete: str, found: Iterable[Offer]) -> list[Offer]:
    """Each once, with what it is, as it came."""
    offers = {name: words for name, words in found if name.startswith(incomplete) and _PLAIN.fullmatch(name)}
    return [(name, _NOT_PLAIN.sub(" ", words)) for name, words in offers.items()]
