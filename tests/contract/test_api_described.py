"""The API as its own OpenAPI document describes it, tried by schemathesis: every answer is one that the document
promises, with the body that it promises; what the document allows is accepted, and what it forbids refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, Failure, FailureGroup, load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from contract.brain_operator import BrainOperator
from contract.fleet_samples import TOKEN, MemoryOperator, Running
from door import VIEWER
from unit.test_brain import Floor

POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
BEARER = {"Authorization": f"Bearer {TOKEN}"}
load_all_checks()


def leading() -> BrainOperator:
    """Of the nodes a, b and c."""
    operator = BrainOperator()
    operator.floor = Floor()
    return operator


@pytest.fixture
def running(operator: MemoryOperator, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "vagus.db", operator) as running:
        for number in range(5):
            running.event("a", f"event {number}")
            running.decision("a--b")
        yield running


# The stream never ends: test_api.py reads it.
LEFT_OUT = {"/api/v1/stream"}


@pytest.mark.parametrize(("operator", "examples"), [(leading(), 8), (MemoryOperator(), 2)], ids=["brain", "samples"])
def test_every_answer_is_one_that_the_document_promises(
    running: Running, operator: MemoryOperator, examples: int
) -> None:
    first = operator.fleet().pairs[0]
    # What is there: made up names lead to 404 only.
    known = {"name": first.nodes[0], "pair": first.name, "subject": first.name, "path": "backup", "pause_id": 1}
    known |= {"incident_id": 12, "pairs": [first.name], "target": ""}
    described = schemathesis.openapi.from_url(f"{running.url}/api/v1/openapi.json", headers=BEARER)
    tried, found = [], []
    for result in described.get_all_operations():
        operation = result.ok()
        if operation.path in LEFT_OUT:
            continue
        names = known | ({"name": VIEWER} if "/users" in operation.path else {})
        for mode, over in ((POSITIVE, {}), (POSITIVE, names), (NEGATIVE, {})):
            try:
                _try(operation, mode, over, examples)
            except (FailureGroup, Failure, Unsatisfiable) as failure:
                found.append(f"{operation.label} ({mode.value}): {failure}")
        tried.append(operation.label)
        if isinstance(operator, BrainOperator):
            # Time goes on: trials end, plans go to their next stage.
            operator.floor.run(1)
    assert len(tried) >= 36
    assert not found, "\n\n".join(found)


def _try(
    operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, over: dict[str, Any], examples: int
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: schemathesis.Case) -> None:
        for part in (case.path_parameters, case.body):
            if isinstance(part, dict):
                part.update({key: value for key, value in over.items() if key in part})
        # Which parameters go together, OpenAPI cannot say.
        untold = [positive_data_acceptance] if operation.path.endswith("/history") else []
        case.call_and_validate(headers=BEARER, timeout=20, checks=CHECKS.get_all(), excluded_checks=untold)

    answers()
