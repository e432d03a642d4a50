"""The benchmark's score, against values that its own tests and documents publish."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))

import nab

STANDARD = nab.Profile(tp=1.0, fp=0.11, fn=1.0)
# nab/tests/unit/scorer_test.py
ODD = nab.Profile(tp=1.1, fp=0.11, fn=1.2)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (-1.0, 0.9866142981514305),
        (-0.5, 0.8482836399575131),
        (0.0, 0.0),
        (1.0, -0.9866142981514305),
        (3.0, -1.0),
        (100.0, -1.0),
    ],
)
def test_the_sigmoid(position: float, value: float) -> None:
    assert nab.scaled_sigmoid(position) == pytest.approx(value)


@pytest.mark.parametrize(("rows", "first"), [(100, 15), (4032, 604), (5000, 750), (15902, 750), (0, 0)])
def test_probation(rows: int, first: int) -> None:
    assert nab.probation(rows) == first


@pytest.mark.parametrize(
    ("rows", "windows", "detections", "first", "value"),
    [
        (5, [], [], 0, 0.0),
        (5, [], [1, 3], 0, -2 * 0.11),
        (7, [(1, 2), (4, 5)], [], 0, -2 * 1.2),
        (5, [], [1, 3], 4, 0.0),
        (5, [], [1, 3], 3, -0.11),
        (7, [(1, 2)], [2], 0, 0.8482836399575131 * 1.1 / 0.9866142981514305),
        (7, [(1, 2), (4, 5)], [2], 0, 0.8482836399575131 * 1.1 / 0.9866142981514305 - 1.2),
        (7, [(4, 5)], [4], 0, 1.1),
        (7, [(4, 5)], [4, 5], 0, 1.1),
        (7, [(1, 2), (4, 5)], [2, 4], 0, 0.8482836399575131 * 1.1 / 0.9866142981514305 + 1.1),
    ],
)
def test_its_own_cases(rows: int, windows: list[nab.Window], detections: list[int], first: int, value: float) -> None:
    assert nab.score(rows, windows, detections, ODD, first) == pytest.approx(value)


def test_all_at_once() -> None:
    """nab/tests/integration/scorer_test.py, testScoringAllMetrics: -0.9540 with windows of five rows."""
    windows = [(40, 44), (80, 84)]
    value = nab.score(100, windows, [40, 41, 47], nab.Profile(1.0, 1.0, 1.0), 0)
    assert value == pytest.approx(-0.9540, abs=5e-5)


def test_a_window_in_probation_is_nobodys_miss() -> None:
    assert nab.score(100, [(2, 8)], [], STANDARD, 15) == 0.0
    assert nab.score(100, [(10, 20)], [], STANDARD, 15) == -1.0
    assert nab.score(100, [(10, 20)], [12], STANDARD, 15) == -1.0


def test_nothing_is_0_and_the_best_is_100() -> None:
    windows = [(20, 29), (60, 69)]
    null = nab.score(100, windows, [], STANDARD, 15)
    assert nab.normalised(null, null, 2, STANDARD) == 0.0
    assert nab.normalised(nab.score(100, windows, [20, 60], STANDARD, 15), null, 2, STANDARD) == pytest.approx(100.0)
    assert nab.normalised(nab.score(100, windows, [20], STANDARD, 15), null, 2, STANDARD) == pytest.approx(50.0)


def test_a_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "data/some").mkdir(parents=True)
    lines = [f"2014-04-01 00:{minute:02}:00,{minute / 2}" for minute in range(40)]
    (tmp_path / "data/some/series.csv").write_text("timestamp,value\n" + "\n".join(lines))
    window = ["2014-04-01 00:10:00.000000", "2014-04-01 00:19:00.000000"]
    (tmp_path / "windows.json").write_text(json.dumps({"some/series.csv": [window]}))
    weights = {"tpWeight": 1.0, "fnWeight": 2.0, "fpWeight": 0.11, "tnWeight": 1.0}
    (tmp_path / "profiles.json").write_text(json.dumps({"low_FN": {"CostMatrix": weights}}))
    (series,), profiles = nab.load(tmp_path)
    assert (series.name, series.windows, series.probation) == ("some/series.csv", [(10, 19)], 6)
    assert (series.values[3], series.at[1] - series.at[0]) == (1.5, 60.0)
    assert profiles == {"low_FN": nab.Profile(tp=1.0, fp=0.11, fn=2.0)}


@pytest.mark.parametrize("there", [False, True])
def test_what_is_missing_is_said(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "windows.json").write_text('{"some/series.csv": []}')
        (tmp_path / "profiles.json").write_text("{}")
    with pytest.raises(
        nab.Missing, match=r"no data for 1 of its" if there else r"needs windows\.json .*--nab DIRECTORY"
    ):
        nab.load(tmp_path)
