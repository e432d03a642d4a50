"""Lazy imports of what libraries import at their top and we never use, by the standard library's own `LazyLoader`.

The library is not changed: the module is there under its name, and loads at the first use of anything in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class _Postponed:
    """A finder for `sys.meta_path`."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = prefixes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(self._prefixes):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def postpone(*prefixes: str) -> None:
    """From now on, load modules whose name begins with one of `prefixes` at their first use, not at their import.

    Only for modules that one thread at most will use: before Python 3.12, two first uses at once load it twice.
    """
    sys.meta_path.insert(0, _Postponed(prefixes))
