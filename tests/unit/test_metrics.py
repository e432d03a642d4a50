"""/metrics, its document, the dashboard and the alert rules: they name the same metrics, labels and states."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from browser import samples
from vagus_controller.api.metrics import _Collector
from vagus_controller.core.detect import link, liveness, quorum
from vagus_controller.core.figures import METRICS

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = DOCS / "grafana-dashboard.json"
RULES = DOCS / "alert-rules.yaml"


def exposed() -> dict[str, tuple[tuple[str, ...], str]]:
    """name → labels and words of every family of a fleet that has everything."""
    view = samples.bad_hour()
    assert view.quorum.margin is not None
    return {
        family.name: (tuple(family._labelnames), family.documentation)  # type: ignore[attr-defined]
        for family in _Collector(view, 0, 0).collect()
    }


def test_the_document_lists_every_metric_with_its_labels_and_words() -> None:
    rows = re.findall(r"^\| `(vagus_\w+)` \| (.*?) ?\| (.*?) \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    documented = {name: (tuple(re.findall(r"`(\w+)`", labels)), words) for name, labels, words in rows}
    assert documented == exposed()
    assert [name for name, _, _ in rows] == list(exposed()), "in the order of /metrics"


# --- what is built on them --------------------------------------------------------------------------------------------

# Every label's values are bounded: names of nodes, sites, paths and pairs, or a closed set of words.
_STATES = {
    "vagus_node_liveness": set(liveness._SEVERITY),
    "vagus_node_load_state": {"normal", "spike", "unknown"},
    "vagus_link_state": {"up", *link._SEVERITY},
    "vagus_links": {"up", *link._SEVERITY},
    "vagus_quorum_state": set(quorum._SEVERITY),
    "vagus_controller_state": {"connected", *liveness._IN_DOUBT},
    "vagus_pairs": {"settled", "moving", "waiting", "recommended", "held"},
}
_SCRAPED = {"up": ("job", "instance")}
_WORDS = {"sum", "by", "on", "and", "or", "vector", "label_values", "node", "pair"}


def wrong(expression: str) -> list[str]:
    """What an expression names that a scrape would not have."""
    known = {name: labels for name, (labels, _) in exposed().items()} | _SCRAPED
    found: list[str] = []
    metrics = re.findall(r"\b(vagus_\w+|up\b)(?:\{(.*?)\})?", expression)
    assert metrics, expression
    for name, matchers in metrics:
        if name not in known:
            found.append(f"{name} is no metric")
            continue
        for label, value in re.findall(r"(\w+)\s*=~?\s*\"(.*?)\"", matchers):
            if label not in known[name]:
                found.append(f"{name} has no label {label}")
            if label in ("state", "status") and not set(value.split("|")) <= _STATES[name]:
                found.append(f"{name} has no state {value}")
    for grouped in re.findall(r"\b(?:by|on) \((.*?)\)", expression):
        for label in grouped.split(", "):
            found += [f"{name} has no label {label}" for name, _ in metrics if label not in (*known[name], "instance")]
    without = re.sub(r"\{.*?\}|vagus_\w+|\bup\b|\b(?:by|on) \(.*?\)", "", expression)
    found += [f"{word} is no word of ours" for word in re.findall(r"[a-z_]+", without) if word not in _WORDS]
    if expression.count("(") != expression.count(")") or expression.count("{") != expression.count("}"):
        found.append("brackets")
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_shows_what_there_is(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    names = {name for target in panel["targets"] for name in re.findall(r"vagus_\w+", target["expr"])}
    labels = {label for name in names for label in exposed()[name][0]}
    for target in panel["targets"]:
        assert wrong(target["expr"]) == []
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
        assert target["datasource"]["uid"] == "${datasource}", "whoever imports it chooses"


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    all_of_it = dashboard["panels"]
    assert len({panel["id"] for panel in all_of_it}) == len(all_of_it)
    taken: set[tuple[int, int]] = set()
    for panel in all_of_it:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    for name, each in variables.items():
        if name != "datasource":
            assert wrong(each["definition"]) == []
    used = set(re.findall(r"\$(?:\{)?(\w+)", " ".join(t["expr"] for p in panels() for t in p["targets"])))
    assert used <= set(variables)


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Vagus[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert wrong(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    names = re.findall(r"(?:vagus_\w+|\bup\b)", rule["expr"])
    kept = re.findall(r"by \((.*?)\)", rule["expr"])
    labels = set(kept[0].split(", ")) if kept else {*(exposed() | {"up": (("job",), "")})[names[0]][0], "instance"}
    words = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", words)) <= labels, "what the alert says, it has"


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "expression",
    [
        "vagus_node_lode1 > 1",
        'vagus_node_load1{path="overlay"} > 1',
        'vagus_quorum_state{state="gone"} == 1',
        "sum by (site) (vagus_pairs) > 0",
        "summ(vagus_pairs) > 0",
        "sum(vagus_pairs > 0",
    ],
)
def test_the_check_sees_what_is_wrong(expression: str) -> None:
    assert wrong(expression)


def test_the_document_lists_every_figure_of_charts() -> None:
    text = (DOCS / "metrics.md").read_text().split("\n## Charts\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*?) \|$", text, re.MULTILINE)
    assert {name: (unit, words) for name, unit, words in rows} == {
        name: (metric.unit, metric.words) for name, metric in METRICS.items()
    }
