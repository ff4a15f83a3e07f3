"""Columns of names that differ in every row, and picks that repeat others: both are said, nothing is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import run

from kofn import assign, select
from kofn.core.plans import Plan
from kofn.report.measures import Space

_WARNING = "warning: column 'state' differs in every row, so that it only puts all rows equally far apart"


@pytest.fixture
def crimes(folder: Path) -> Path:
    states = [f"state {i:02}" for i in range(20)]
    few = [f"area {i % 4}" for i in range(20)]
    rng = np.random.default_rng(0)
    pl.DataFrame({"state": states, "area": few, "violent": rng.random(20)}).write_csv("c.csv")
    return Path("c.csv")


@pytest.mark.parametrize("verb", ["select", "assign"])
def test_a_column_that_differs_in_every_row_is_warned_of(
    verb: str, crimes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys, verb, crimes, "--columns", "state,violent", "-k", 3)[1]
    assert f"{_WARNING}; if it names them, say --id state and leave it out of --columns" in out
    assert "compared by columns state (20 names), violent scaled" in out
    assert "warning" not in run(capsys, verb, crimes, "--columns", "area,violent", "-k", 3)[1]
    out = run(capsys, verb, crimes, "--columns", "violent", "--id", "state", "-k", 3)[1]
    assert "warning" not in out
    assert ("medoids: state" if verb == "assign" else "first picks: state") in out
    assert _WARNING in run(capsys, verb, crimes, "--columns", "state,violent", "-k", 3, "--dry-run")[2]


def test_the_warning_is_a_note_of_the_plan_in_python(crimes: Path) -> None:
    for verb in (select, assign):
        notes = verb(str(crimes), columns=["state", "violent"], k=3).info["notes"]
        assert any(note.startswith(_WARNING) for note in notes)


def test_picks_that_repeat_others_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    pl.DataFrame({"a": rng.integers(0, 4, 90) / 3, "b": rng.integers(0, 3, 90) / 7}).write_csv("d.csv")
    call = ("select", "d.csv", "--columns", "a,b", "-k", 15, "--plan", "p.npz", "--report", "r.html")
    out = run(capsys, *call)[1]
    assert (
        "78 rows have the same vector as an earlier row\nonly 12 different rows; 3 picks repeat others: ask for -k 12"
        in out
    )
    # Equal rows are no distance apart, by either measure.
    assert "distance to the nearest pick 0: no such picks" in out
    assert "mean euclidean distance to the nearest pick 0; 15 rows" in out
    assert Plan.load("p.npz").info["duplicate_picks"] == 3
    assert "3 picks repeat others, as only 12 rows differ" in Path("r.html").read_text()
    assert json.loads(run(capsys, *call, "--json")[1])["duplicate_picks"] == 3
    assert "repeat" not in run(capsys, "select", "d.csv", "--columns", "a,b", "-k", 12)[1]


def test_equal_rows_are_no_distance_apart_whatever_their_size() -> None:
    rng = np.random.default_rng(0)
    for metric, scale in (("euclidean", 1e3), ("sqeuclidean", 1e-3), ("cosine", 7.0)):
        X = np.repeat(rng.normal(3, 1, (40, 60)) * scale, 2, axis=0)
        space = Space(X, metric)
        far = space.between(space.rows(slice(None)), space.rows(slice(None)))
        same = np.repeat(np.repeat(np.eye(40, dtype=bool), 2, axis=0), 2, axis=1)
        assert (far[same] == 0).all()
        assert (far[~same] > 0).all()
