"""Pairs of nodes and their names: "a--b", a < b."""

from __future__ import annotations

from vagus_controller.core.fleet import Pair


def ordered(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def pair_named(name: str) -> Pair | None:
    """The pair of a name "a--b", in either order; None when it is no such name."""
    a, separator, b = name.partition("--")
    return (min(a, b), max(a, b)) if separator and a and b and a != b else None


def subject(node: str, peer: str, path: str) -> str:
    """What a node's word about its peer over a path is about, by the name that verdicts give it."""
    if not peer:
        return node
    name = "--".join(ordered(node, peer))
    return f"{name}/{path}" if path else name
