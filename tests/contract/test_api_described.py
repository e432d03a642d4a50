"""The API as its own OpenAPI document describes it, tried by schemathesis: every answer is one that the document
promises, with the body that it promises; what the document allows is accepted, and what it forbids refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, Failure, FailureGroup, load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from browser import samples
from contract.fleet_samples import TOKEN, Running
from door import VIEWER

POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
BEARER = {"Authorization": f"Bearer {TOKEN}"}
load_all_checks()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("api") / "vagus.db") as running:
        for number in range(5):
            running.event("pi-berlin", f"event {number}")
            running.decision("pi-berlin--pi-lisbon")
        yield running


# The stream never ends: test_api.py reads it.
LEFT_OUT = {"/api/v1/stream"}
PAIR = samples.calm().pairs[0].name
# What is there: made up names lead to 404 only.
KNOWN = {
    "name": samples.calm().nodes[0].name,
    "pair": PAIR,
    "subject": PAIR,
    "pause_id": 1,
    "token_id": "1",
    "path": "backup",
    "incident_id": 12,
}


def test_every_answer_is_one_that_the_document_promises(running: Running) -> None:
    described = schemathesis.openapi.from_url(f"{running.url}/api/v1/openapi.json", headers=BEARER)
    tried, found = [], []
    for result in described.get_all_operations():
        operation = result.ok()
        if operation.path in LEFT_OUT:
            continue
        for mode, known in ((POSITIVE, False), (POSITIVE, True), (NEGATIVE, False)):
            try:
                _try(operation, mode, known)
            except (FailureGroup, Failure, Unsatisfiable) as failure:
                found.append(f"{operation.label} ({mode.value}): {failure}")
        tried.append(operation.label)
    assert len(tried) >= 36
    assert not found, "\n\n".join(found)


def _try(operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, known: bool) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: schemathesis.Case) -> None:
        for part in (case.path_parameters, case.body) if known else ():
            if isinstance(part, dict):
                names = KNOWN | ({"name": VIEWER} if "/users" in operation.path else {})
                part.update({key: value for key, value in names.items() if key in part})
        # Which parameters go together, OpenAPI cannot say.
        untold = [positive_data_acceptance] if known and operation.path.endswith("/history") else []
        case.call_and_validate(headers=BEARER, timeout=20, checks=CHECKS.get_all(), excluded_checks=untold)

    answers()
