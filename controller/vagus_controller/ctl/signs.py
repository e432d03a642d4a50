"""What the parts of the screen are made of: signs that are told apart without colour, and lines of cells. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from rich.text import Text

from vagus_controller.ctl.tables import text
from vagus_controller.views import Severity


class Signs(NamedTuple):
    """One letter each. `traffic`: both ends send by the path; `half`: one does; `proven` and `bare`: a standby."""

    severity: Mapping[Severity, str]
    traffic: str
    half: str
    proven: str
    bare: str


_IN_ORDER: Final = (Severity.OK, Severity.INFO, Severity.WARNING, Severity.CRITICAL, Severity.UNKNOWN)
SIGNS: Final = Signs(dict(zip(_IN_ORDER, "✓»!✗?", strict=True)), "▶", "▷", "●", "○")
# For a terminal whose letters are few.
PLAIN: Final = Signs(dict(zip(_IN_ORDER, "+>!X?", strict=True)), "T", "t", "s", "-")

_RANK: Final = {
    Severity.OK: 0,
    Severity.INFO: 1,
    Severity.UNKNOWN: 2,
    Severity.WARNING: 3,
    Severity.CRITICAL: 4,
}
GAP: Final = 2


def rank(severity: Severity) -> int:
    return _RANK[severity]


def worst(severities: Iterable[Severity]) -> Severity:
    return max(severities, key=rank, default=Severity.OK)


def troubled(severity: Severity) -> bool:
    return rank(severity) > rank(Severity.INFO)


def plural(count: int, one: str) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def counted(what: str, moods: Sequence[Severity]) -> str:
    """The title of a section: how many there are, and how many of them need somebody."""
    bad = sum(map(troubled, moods))
    return f"{what} {len(moods)}, {bad} troubled" if bad else f"{what} {len(moods)}"


def rest(moods: Iterable[Severity]) -> Text:
    """The line for what had no room."""
    hidden = list(moods)
    bad = sum(map(troubled, hidden))
    words = f"and {len(hidden)} more, {bad} of them troubled" if bad else f"and {len(hidden)} more, none troubled"
    return text(words, worst(hidden) if bad else None)


def row(cells: Sequence[Text | str], widths: Sequence[int], style: str = "") -> Text:
    """One line: each cell in its width."""
    line = Text(style=style, no_wrap=True)
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        part = text(cell) if isinstance(cell, str) else cell.copy()
        part.truncate(width, overflow="ellipsis", pad=True)
        line.append_text(part)
        if number < len(widths) - 1:
            line.append(" " * GAP)
    return line


def head(cells: Sequence[str], widths: Sequence[int]) -> Text:
    return row(cells, widths, style="reverse")
