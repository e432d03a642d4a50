"""The links of a fleet as lines: pairs × paths, the worst first; where there are too many, sites × sites above them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from rich.text import Text

from vagus_controller.ctl.signs import GAP, Signs, counted, head, plural, rank, rest, row, worst
from vagus_controller.ctl.tables import duration, percent, slower, text
from vagus_controller.views import FleetView, PairView, PathView, Severity

_NAME_AT_MOST: Final = 40
_CELL_AT_LEAST, _CELL_AT_MOST = 13, 28
_STANDING: Final = 17
# A terminal with so much left for it says why.
_REASON_AT_LEAST: Final = 30
# With less room than this there is no matrix of sites.
_MATRIX_FROM: Final = 8
_SITE_AT_MOST: Final = 12


def home(pair: PairView) -> str:
    return pair.paths[0].path if pair.paths else ""


def moved(pair: PairView) -> bool:
    return any(path != home(pair) for path in (pair.assigned, *pair.observed))


def mood(pair: PairView) -> Severity:
    """The worst of anything about the pair."""
    found = [path.verdict.severity for path in pair.paths]
    if pair.status in ("waiting", "recommended"):
        found.append(Severity.WARNING)
    elif moved(pair) or pair.status != "settled":
        found.append(Severity.INFO)
    return worst(found)


class _Layout(NamedTuple):
    """`left_out`: paths that have no room."""

    paths: tuple[str, ...]
    left_out: int
    widths: tuple[int, ...]
    reason: bool


def links(fleet: FleetView, ages: Mapping[str, float], room: int, width: int, signs: Signs) -> list[Text]:
    """At most `room` lines, the first of them the heading. `ages`: for how long a pair has been as it is here."""
    moods = {pair.name: mood(pair) for pair in fleet.pairs}
    title = counted("LINKS", list(moods.values()))
    layout = _layout(fleet.pairs, len(title), width)
    more = f" +{layout.left_out}" if layout.left_out else ""
    names = (
        *layout.paths[:-1],
        *(f"{path}{more}" for path in layout.paths[-1:]),
        "standing",
        *(("why",) if layout.reason else ()),
    )
    lines = [head((title, *names), layout.widths)]
    if not fleet.pairs:
        return [*lines, text("no two nodes name each other as peers yet")][:room]
    room -= 1
    if len(fleet.pairs) > room >= _MATRIX_FROM:
        lines += (sites := _sites(fleet, moods, room // 2, width, signs))
        room -= len(sites)
    pairs = sorted(fleet.pairs, key=lambda pair: (-rank(moods[pair.name]), pair.nodes))
    shown = len(pairs) if len(pairs) <= room else max(room - 1, 0)
    lines += [_row(pair, ages.get(pair.name, 0.0), moods[pair.name], layout, signs) for pair in pairs[:shown]]
    if shown < len(pairs) and room > 0:
        lines.append(rest(moods[pair.name] for pair in pairs[shown:]))
    return lines


def _layout(pairs: tuple[PairView, ...], title: int, width: int) -> _Layout:
    """The name as far as it needs, the standing, then as many paths as fit, the first ones first."""
    longest = max((len(pair.name) for pair in pairs), default=0)
    name = min(max(longest, title), _NAME_AT_MOST, max(width // 3, 8))
    paths = tuple(dict.fromkeys(path.path for pair in pairs for path in pair.paths))
    left = width - name - GAP - _STANDING - GAP
    fit = max(min(len(paths), (left + GAP) // (_CELL_AT_LEAST + GAP)), 0)
    cell = min((left + GAP) // fit - GAP, _CELL_AT_MOST) if fit else 0
    left -= fit * (cell + GAP)
    reason = left >= _REASON_AT_LEAST
    widths = (name, *[cell] * fit, _STANDING, *((left,) if reason else ()))
    return _Layout(paths[:fit], len(paths) - fit, widths, reason)


def _row(pair: PairView, age: float, severity: Severity, layout: _Layout, signs: Signs) -> Text:
    by_name = {path.path: path for path in pair.paths}
    cells = [
        _cell(pair, by_name[name], cell, signs) if name in by_name else Text("")
        for name, cell in zip(layout.paths, layout.widths[1:], strict=False)
    ]
    return row(
        (
            text(pair.name, severity if rank(severity) > rank(Severity.INFO) else None),
            *cells,
            _standing(pair, age, signs),
            *((text(_why(pair)),) if layout.reason else ()),
        ),
        layout.widths,
    )


def _cell(pair: PairView, path: PathView, width: int, signs: Signs) -> Text:
    """Mark, sign, state, round trip, loss: what is cut first is the state's word, for the sign says it too."""
    senders = pair.observed.count(path.path)
    mark = (signs.proven if path.proven else signs.bare, signs.half, signs.traffic)[senders]
    verdict = path.verdict
    loss = slower(path, "loss_10s")
    rtt = slower(path, "rtt_s")
    figures = " ".join(
        (*((duration(rtt),) if rtt is not None else ()), *((percent(loss),) if loss and loss >= 0.005 else ()))
    )
    state = text(verdict.state.replace("-", " "), verdict.severity)
    state.truncate(max(width - 5 - len(figures), 1), overflow="ellipsis")
    found = Text().append(f"{mark} ", style="" if senders or path.proven else "yellow")
    found.append_text(text(f"{signs.severity[verdict.severity]} ", verdict.severity)).append_text(state)
    return found.append(f" {figures}" if figures else "")


def _standing(pair: PairView, age: float, signs: Signs) -> Text:
    if pair.status == "settled" and pair.assigned == home(pair):
        return text("at home" if not moved(pair) else "at home, not yet")
    words, severity = {
        "settled": (f"on {pair.assigned}", Severity.INFO),
        "moving": ("moving", Severity.INFO),
        "waiting": ("waits", Severity.WARNING),
        "recommended": ("approve?", Severity.WARNING),
        "held": (f"held on {pair.assigned}", Severity.INFO),
    }.get(pair.status, (pair.status, Severity.UNKNOWN))
    found = text(f"{signs.severity[severity]} {words}", severity)
    return found.append(f" {duration(pair.since_s + age)}")


def _why(pair: PairView) -> str:
    if pair.status != "settled" or moved(pair):
        return pair.reason
    for path in pair.paths:
        if path.verdict.severity is not Severity.OK:
            return f"{path.path}: {path.verdict.reason}"
        if path.unproven:
            return f"{path.path} is not proven: {path.unproven}"
    return ""


# --- sites × sites --------------------------------------------------------------------------------------------------


class _Cell(NamedTuple):
    worst: Severity
    impaired: int
    total: int


def _sites(fleet: FleetView, moods: Mapping[str, Severity], room: int, width: int, signs: Signs) -> list[Text]:
    """The worst of the links between two sites, and how many are impaired or moved: a matrix, or where it does not fit
    the worst of its cells."""
    site_of = {node.name: node.site or "no site" for node in fleet.nodes}
    between: dict[tuple[str, str], list[Severity]] = {}
    for pair in fleet.pairs:
        one, other = sorted(site_of.get(node, "no site") for node in pair.nodes)
        between.setdefault((one, other), []).append(moods[pair.name])
    cells = {
        sites: _Cell(worst(found), sum(each is not Severity.OK for each in found), len(found))
        for sites, found in between.items()
    }
    names = sorted({site for sites in cells for site in sites})
    column = min(max(map(len, names)), _SITE_AT_MOST)
    if len(names) < 2:
        return []
    if len(names) + 1 <= room and (column + GAP) * (len(names) + 1) <= width:
        widths = [column] * (len(names) + 1)
        lines = [row(("by site", *names), widths, style="underline").append("  impaired or moved", style="dim")]
        for line in names:
            found = [cells.get((name, line)) for name in names]
            lines.append(row((line, *(_sign(cell, signs) for cell in found)), widths))
        return lines
    return _worst_sites(cells, room, width, signs)


def _sign(cell: _Cell | None, signs: Signs) -> Text:
    if cell is None:
        return Text("")
    return text(f"{signs.severity[cell.worst]} {cell.impaired or ''}".rstrip(), cell.worst)


def _worst_sites(cells: Mapping[tuple[str, str], _Cell], room: int, width: int, signs: Signs) -> list[Text]:
    bad = sorted(
        ((sites, cell) for sites, cell in cells.items() if cell.impaired),
        key=lambda each: (-rank(each[1].worst), -each[1].impaired, each[0]),
    )
    well = len(cells) - len(bad)
    lines = []
    for (one, other), cell in bad[: room - 1]:
        where = f"within {one}" if one == other else f"{one} and {other}"
        words = f"{where}: {cell.impaired} of {plural(cell.total, 'link')} impaired or moved"
        lines.append(text(f"{signs.severity[cell.worst]} {words}", cell.worst))
    hidden = len(bad) - len(lines)
    more = f"{plural(hidden, 'more pair')} of sites with impaired links; " if hidden else ""
    lines.append(text(f"{more}{plural(well, 'pair')} of sites well"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines
