"""The modules of rollout.yml and drill.yml, as Ansible runs them, against the real API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from browser import samples
from contract.fleet_samples import TOKEN, MemoryOperator, Running
from vagus_controller.views import CauseView, DrillView, FleetView, IncidentBrief, NodeView, PlanView, Severity

PLUGINS = Path(__file__).parents[2] / "ansible/plugins"
OLD, NEW = samples.calm().nodes[0].version, "9.9.9"
NAMES = [node.name for node in samples.calm().nodes]


class Operator(MemoryOperator):
    """A calm fleet where nothing is under way, and drills are what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.drilled: list[DrillView] = []

    def plans(self) -> tuple[PlanView, ...]:
        return ()

    def drills(self) -> tuple[DrillView, ...]:
        return tuple(self.drilled)


@pytest.fixture
def operator() -> Operator:
    return Operator()


@pytest.fixture
def api(tmp_path: Path, operator: Operator) -> Iterator[dict[str, str]]:
    """How a module reaches it."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    with Running(tmp_path / "vagus.db", operator) as running:
        yield {"url": running.url, "token_file": str(tmp_path / "token")}


def run(module: str, arguments: dict[str, Any], home: Path) -> dict[str, Any]:
    """The module's answer; `failed` tells whether the task would have."""
    (home / "ansible.cfg").touch()
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"),
            *("-m", module, "-a", json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}"),
        ],
        env=os.environ
        | {
            "ANSIBLE_LIBRARY": str(PLUGINS / "modules"),
            "ANSIBLE_MODULE_UTILS": str(PLUGINS / "module_utils"),
            "ANSIBLE_HOME": str(home / "ansible"),
            "ANSIBLE_CONFIG": str(home / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.split(" => ", 1)[1])
    return answer | {"failed": done.returncode != 0}


def node(view: FleetView, name: str, **changes: Any) -> FleetView:
    nodes = tuple(msgspec.structs.replace(each, **changes) if each.name == name else each for each in view.nodes)
    return msgspec.structs.replace(view, nodes=nodes)


def upgraded(view: FleetView, name: str) -> FleetView:
    (was,) = (each for each in view.nodes if each.name == name)
    assert isinstance(was, NodeView)
    assert was.report is not None
    return node(view, name, version=NEW, report=msgspec.structs.replace(was.report, session="another life"))


def brief(number: int) -> IncidentBrief:
    return IncidentBrief(
        id=number,
        title="overlay of osaka is dead",
        severity=Severity.CRITICAL,
        at=0.0,
        age_s=9.0,
        cause=CauseView(kind="link", scope="site", target="osaka", path="overlay"),
        did="",
        troubles=1,
        acknowledged_by="",
    )


def test_a_rollout_from_its_beginning_to_a_healthy_batch(
    operator: Operator, api: dict[str, str], tmp_path: Path
) -> None:
    asked = {"nodes": NAMES, "version": NEW, "canary": NAMES[-1], "last": [NAMES[0]]}
    began = run("vagus_rollout", {"state": "begin", **asked, **api}, tmp_path)
    assert not began["failed"]
    assert began["outdated"] == [NAMES[-1], *NAMES[1:-1], NAMES[0]]
    assert (began["controller_version"], began["forced"]) == (samples.calm().version, [])
    first = NAMES[-1]
    operator.view = upgraded(operator.view, first)
    wait = {"state": "wait", "before": began["before"], "versions": {first: NEW}, **api}
    healthy = run("vagus_rollout", {**wait, "steady_s": 0, "timeout_s": 10}, tmp_path)
    assert (healthy["healthy"], healthy["why"]) == (True, [])
    ill = run("vagus_rollout", {**wait, "versions": dict.fromkeys(NAMES, NEW), "steady_s": 0, "timeout_s": 0}, tmp_path)
    assert not ill["failed"], "the play goes on, to go back"
    assert not ill["healthy"]
    assert f"{NAMES[0]} runs {OLD}, not {NEW}" in ill["why"]


def test_an_open_incident_refuses_it_and_a_reason_is_noted(
    operator: Operator, api: dict[str, str], tmp_path: Path
) -> None:
    operator.view = msgspec.structs.replace(operator.view, incidents=(brief(12),))
    asked = {"state": "begin", "nodes": NAMES, "version": NEW, **api}
    refused = run("vagus_rollout", asked, tmp_path)
    assert refused["failed"]
    assert refused["msg"].startswith("no rollout now: incident 12 is open: overlay of osaka is dead. Mend or end that")
    assert operator.asked == []
    no_reason = run("vagus_rollout", {**asked, "force": "yes"}, tmp_path)
    assert no_reason["failed"]
    assert "it takes the reason" in no_reason["msg"]
    forced = run("vagus_rollout", {**asked, "force": "it is what this mends", "note": True}, tmp_path)
    assert not forced["failed"]
    assert forced["forced"] == ["incident 12 is open: overlay of osaka is dead"]
    ((action, number, text, who),) = operator.asked
    assert (action, number) == ("note", 12)
    assert text == f"a rollout of {NEW} goes on although this is open: it is what this mends"
    assert "rollout.yml" in who


def test_a_blind_controller_refuses_whatever_the_reason(
    operator: Operator, api: dict[str, str], tmp_path: Path
) -> None:
    operator.view = samples.blind()
    refused = run(
        "vagus_rollout", {"state": "begin", "nodes": NAMES, "version": NEW, "force": "because", **api}, tmp_path
    )
    assert refused["failed"]
    assert "the controller is in doubt about itself" in refused["msg"]
    assert "no force helps" in refused["msg"]


def test_what_keeps_the_controller_from_being_asked_is_said_with_a_remedy(api: dict[str, str], tmp_path: Path) -> None:
    begin = {"state": "begin", "nodes": NAMES, "version": NEW}
    nobody = run("vagus_rollout", {**begin, **api, "url": "http://127.0.0.1:9"}, tmp_path)
    assert "cannot be reached" in nobody["msg"]
    assert "systemctl status vagus-controller" in nobody["msg"]
    (tmp_path / "other").write_text("another-token-that-nobody-knows")
    stranger = run("vagus_rollout", {**begin, **api, "token_file": str(tmp_path / "other")}, tmp_path)
    assert "does not know this token" in stranger["msg"]
    missing = run("vagus_rollout", {**begin, **api, "token_file": str(tmp_path / "none")}, tmp_path)
    assert "none: No such file or directory" in missing["msg"]
    # While a batch is watched, that is no healthy batch, and no failure either.
    gone = {"state": "wait", "versions": {NAMES[0]: NEW}, "timeout_s": 0, "url": "http://127.0.0.1:9"}
    unhealthy = run("vagus_rollout", {**gone, "token_file": api["token_file"]}, tmp_path)
    assert (unhealthy["failed"], unhealthy["healthy"]) == (False, False)
    assert "cannot be reached" in unhealthy["why"][0]


def test_a_drill_is_asked_for_and_told(operator: Operator, api: dict[str, str], tmp_path: Path) -> None:
    pair = samples.calm().pairs[0].name
    done = run("vagus_drill", {"scope": "pair", "target": pair, "reason": "a test", **api}, tmp_path)
    assert not done["failed"]
    assert done["told"] == [f"{pair}: by backup and back; out 40 ms, back below 20 ms"]
    ((action, ask, who),) = operator.asked
    assert (action, ask.scope, ask.target, ask.reason) == ("drill", "pair", pair, "a test")
    assert "drill.yml" in who


def test_a_drill_that_is_refused_or_stopped_fails(operator: Operator, api: dict[str, str], tmp_path: Path) -> None:
    operator.refusal = "no drill now: a plan is under way"
    assert run("vagus_drill", {"scope": "fleet", **api}, tmp_path)["msg"] == operator.refusal
    operator.refusal = ""
    unknown = run("vagus_drill", {"scope": "site", "target": "nowhere", **api}, tmp_path)
    assert unknown["msg"].startswith("no site 'nowhere'")
    sample = samples.drill(samples.calm().pairs[0].name)
    running = msgspec.structs.replace(sample, state="under way")
    operator.drill = lambda ask, *, who: running  # type: ignore[method-assign]
    operator.drilled = [msgspec.structs.replace(sample, state="stopped", outcome="stopped: ann paused the fleet")]
    assert (
        run("vagus_drill", {"scope": "fleet", **api}, tmp_path)["msg"] == "the drill was stopped: ann paused the fleet"
    )
    operator.drilled = []
    assert "does not know the drill" in run("vagus_drill", {"scope": "fleet", **api}, tmp_path)["msg"]
