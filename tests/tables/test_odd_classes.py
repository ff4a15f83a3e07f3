"""A class may be called NA or nan: only an empty cell or a missing value is no label, in every kind of table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from command_line import run

import kofn
from kofn.tables.odd_classes import odd_classes

NAMES = ("NA", "FR", "None", "nan")
LABELS = [NAMES[row % 4] if row < 24 else None for row in range(36)]
FRAME = pl.DataFrame({"x": np.arange(36.0), "size": np.arange(36.0) % 5, "country": LABELS})
CALL = ("select", "--columns", "x,size", "--label", "country", "-k", 3, "--model", "none", "--seed", 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    FRAME.write_csv("p.csv")
    FRAME.write_ndjson("p.jsonl")
    FRAME.write_parquet("p.parquet")
    return tmp_path


@pytest.mark.parametrize("file", ["p.csv", "p.jsonl", "p.parquet"])
def test_names_of_nothing_are_classes_of_files(file: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys, *CALL, file)
    assert code == 0, err
    assert "labelled in 'country' so far: 24 rows, FR 6, NA 6, None 6, nan 6; 12 rows are left" in text
    for name in ("NA", "None", "nan"):
        assert f"6 rows: {name!r} counts as a class of 'country'; if it stands for no label, say --na {name!r}" in text
    text = run(capsys, *CALL, file, "--na", "NA,nan")[1]
    assert "so far: 12 rows, FR 6, None 6; 24 rows are left" in text
    assert "'NA'" not in text
    assert "6 rows: 'None' counts" in text


@pytest.mark.parametrize("kind", ["pandas", "polars", "dict", "dict of empty text"])
def test_names_of_nothing_are_classes_of_tables(kind: str) -> None:
    tables: dict[str, Any] = {
        "pandas": pd.DataFrame(FRAME.to_dict(as_series=False)),
        "polars": FRAME,
        "dict": FRAME.to_dict(as_series=False),
        "dict of empty text": FRAME.with_columns(pl.col("country").fill_null("")).to_dict(as_series=False),
    }
    plan = kofn.select(tables[kind], columns=["x", "size"], y="country", k=3, model="none", seed=1)
    assert set(plan.indices) <= set(range(24, 36))
    assert plan.info["labels"] == dict.fromkeys(sorted(NAMES), 6)
    assert "6 rows: 'NA' counts as a class of 'country'; if it stands for no label, say na='NA'" in plan.info["notes"]


def test_compare_judges_by_a_class_that_is_called_na(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FRAME.with_columns(country=pl.Series([NAMES[row % 3 and 1] if row < 34 else None for row in range(36)])).write_csv(
        "c.csv"
    )
    call = ("compare", "c.csv", "--columns", "x,size", "--judge", "country", "-k", 2, "--methods", "farthest_first")
    answer = json.loads(run(capsys, *call, "--json")[1])
    assert (answer["labelled"], answer["classes"]) == (34, 2)
    assert any(note.startswith("12 rows: 'NA' counts as a class") for note in answer["notes"])


@pytest.mark.parametrize("nothing", ["", " ", None])
def test_empty_text_is_no_label_of_a_list(nothing: str | None) -> None:
    X = np.vstack([np.arange(6.0)[:, None], 50 + np.arange(6.0)[:, None]])
    y = ["a", *[nothing] * 5, "NA", *[nothing] * 5]
    groups = kofn.assign(X, y=y, method="laplacian_shot")
    assert groups.info["classes"] == ["NA", "a"]
    assert groups.labels.tolist() == [1] * 6 + [0] * 6
    picks = kofn.select(X, y=y, k=2, method="uncertainty_herding", seed=0)
    assert not {0, 6} & set(picks.indices.tolist())


def test_numbers_that_measure_are_no_classes() -> None:
    (line,) = odd_classes(np.array([f"{row / 10}" for row in range(1, 9)]), "y")
    assert line.startswith("'y' holds 8 different numbers with decimals")
    assert odd_classes(["1", "2", "", "b"], "y") == ()
    assert odd_classes(["-1", "0", "1", "-1"], "y")[0].startswith("2 rows: '-1' counts as a class of 'y'")
