"""A file that holds numbers alone is taken as the vectors, as a DataFrame is; what may name the rows is asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn

RNG = np.random.default_rng(0)
FRAME = pl.DataFrame(RNG.normal(size=(40, 3)) * [1, 5, 20], schema=["a", "b", "c"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    FRAME.write_csv("p.csv")
    FRAME.write_parquet("p.parquet")
    FRAME.with_columns(key=pl.int_range(40) * 7, cost=pl.int_range(40) % 5).write_csv("keys.csv")
    return tmp_path


@pytest.mark.parametrize("file", ["p.csv", "p.parquet"])
def test_numbers_alone_are_the_vectors(file: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = kofn.select(FRAME, k=5)
    assert kofn.select(file, k=5).indices.tolist() == plan.indices.tolist()
    code, text, err = run(capsys, "select", file, "-k", 5)
    assert code == 0, err
    assert "compared by columns a, b, c as they are" in text
    assert "numbers alone, taken as the vectors; to scale them to equal weight name them by --columns" in text
    picks = json.loads(run(capsys, "select", file, "-k", 5, "--json")[1])["picks"]
    assert picks == plan.indices.tolist()
    code, text, err = run(capsys, "assign", file, "-k", 2, "--seed", 0)
    assert code == 0, err
    assert "numbers alone, taken as the vectors" in text
    notes = kofn.assign(file, k=2, seed=0).info["notes"]
    assert notes[1].endswith("to scale them to equal weight name them by columns")
    assert "40 x 3" in run(capsys, "select", file, "-k", 5, "--dry-run")[1]


def test_columns_of_unlike_scales_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FRAME.with_columns(pl.col("c") * 100).write_csv("wide.csv")
    text = run(capsys, "select", "wide.csv", "-k", 3)[1]
    assert "taken as the vectors; column 'c' spreads " in text
    assert "distances are those of the wide columns; to scale them to equal weight" in text


def test_columns_that_are_named_are_not_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: Any = ("select", "keys.csv", "--id", "key", "--cost", "cost", "--budget", 6)
    code, text, err = run(capsys, *words)
    assert code == 0, err
    assert "compared by columns a, b, c as they are" in text


@pytest.mark.parametrize("name", ["id", "Row", "doc_id", "serial"])
def test_what_may_name_the_rows_is_asked_about(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = pl.int_range(40) if name == "serial" else pl.lit(1.5)
    FRAME.with_columns(values.alias(name)).write_csv("q.csv")
    asks = f"say what the rows are compared by: --columns A,B (such as a,b,c,{name})"
    assert asks in refused(capsys, "select", "q.csv", "-k", 3)
    assert asks in refused(capsys, "assign", "q.csv", "-k", 3)
    FRAME.with_columns(pl.lit("x").alias("t")).write_csv("t.csv")
    assert "--text COLUMN (such as t)" in refused(capsys, "select", "t.csv", "-k", 3)
