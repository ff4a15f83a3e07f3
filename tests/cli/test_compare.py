"""`kofn compare --judge COL`: ways to pick, tried on the rows that have labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn import datasets
from kofn.cli import compare_trial
from kofn.core.checks import InputError


@pytest.fixture
def pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scanned digits with their names, and a hundred rows without one; few splits."""
    monkeypatch.setattr(compare_trial, "SPLITS", 4)
    data = datasets.load("digits")
    assert data.X is not None
    assert data.y is not None
    names = [f"d{label}" if row < 400 else None for row, label in enumerate(data.y[:500])]
    pl.DataFrame({"image": data.X[:500].tolist(), "digit": names}).write_parquet(folder / "pool.parquet")
    return folder / "pool.parquet"


def test_what_gains_and_what_loses_is_told(pixels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("compare", pixels, "--vectors", "image", "--judge", "digit", "-k", 10)
    methods = ("--methods", "auto,farthest_first")
    answer: dict[str, Any] = json.loads(run(capsys, *call, *methods, "--json")[1])
    assert (answer["labelled"], answer["classes"], answer["splits"]) == (400, 10, 4)
    assert (answer["pool"], answer["test"]) == (266, 134)
    found = {row["method"]: row for row in answer["rows"]}
    assert found["auto"]["points"] > 10
    assert found["auto"]["beaten"] > 0.95
    assert found["farthest_first"]["points"] < found["auto"]["points"]
    assert all(row["interval"] > 0 and 20 < row["random"] < 90 for row in answer["rows"])
    assert answer["verdicts"]["10"].startswith("use auto: surely better than random here")


def test_splits_on_an_engine_have_the_same_answers(
    pixels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_trial, "SPLITS", 2)
    call = ("compare", pixels, "--vectors", "image", "--judge", "digit", "-k", 10, "--methods", "farthest_first")
    here, there = (
        json.loads(run(capsys, *call, "--json", *more)[1]) for more in ((), ("--engine", "local", "--threads", 2))
    )
    for told in (here, there):
        del told["seconds"], told["rows"][0]["seconds"]
    assert here == there
    assert "choose one of local, ray" in refused(capsys, *call, "--engine", "spork")
    assert "say --engine ray too" in refused(capsys, *call, "--address", "head:6379")


def test_labels_without_meaning_are_no_reason_to_choose(pixels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.read_parquet(pixels)
    shuffled = frame["digit"].shuffle(seed=1)
    frame.with_columns(digit=shuffled).write_parquet("noise.parquet")
    call = ("compare", "noise.parquet", "--vectors", "image", "--judge", "digit", "-k", 20, "--methods")
    assert "no method is surely better than random here" in run(capsys, *call, "auto,typiclust")[1]


def test_texts_and_columns_are_judged_by_what_the_picking_did_not_see(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_trial, "SPLITS", 2)
    rng = np.random.default_rng(0)
    names = np.array(["sun", "rain"])[rng.integers(0, 2, 90)]
    frame = pl.DataFrame(
        {
            "text": [f"the {name} of day {row % 13} and week {row % 7}" for row, name in enumerate(names)],
            "size": rng.normal(size=90) + (names == "sun"),
            "place": rng.choice(["a", "b"], 90),
            "day": pl.Series(range(90)).cast(pl.Date),
            "kind": names,
        }
    )
    frame.write_csv("pool.csv")
    text = run(capsys, "compare", "pool.csv", "--text", "text", "--judge", "kind", "-k", 6)[1]
    assert "character n-grams" in text
    assert "2 splits, pools of 60, judged on 30" in text
    assert "k=6: random rows reach" in text
    assert all(method in text for method in compare_trial.METHODS)
    columns = run(capsys, "compare", "pool.csv", "--columns", "size,place,day", "--judge", "kind", "-k", 6)[1]
    assert "on ranks and by trees" in columns


def test_what_cannot_be_compared_is_refused(pixels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("compare", pixels, "--vectors", "image")
    assert "no column 'digits'; did you mean 'digit'" in refused(capsys, *call, "--judge", "digits", "-k", 5)
    assert "266 are the pool of a split; ask for k < 266" in refused(capsys, *call, "--judge", "digit", "-k", "5,300")
    assert "give whole numbers of rows" in refused(capsys, *call, "--judge", "digit", "-k", "2.5")
    assert "give whole numbers of rows" in refused(capsys, *call, "--judge", "digit", "-k", "nan")
    wrong = refused(capsys, *call, "--judge", "digit", "-k", 5, "--methods", "typiclst")
    assert "did you mean 'typiclust'" in wrong
    assert "needs scores" in refused(capsys, *call, "--judge", "digit", "-k", 5, "--methods", "top_k")
    assert "Missing option '--judge'" in refused(capsys, *call, "-k", 5)
    frame = pl.read_parquet(pixels)
    frame.with_columns(digit=pl.lit("one")).write_parquet("same.parquet")
    assert "at least 2 classes" in refused(
        capsys, "compare", "same.parquet", "--vectors", "image", "--judge", "digit", "-k", 5
    )
    frame.head(12).write_parquet("few.parquet")
    few = refused(capsys, "compare", "few.parquet", "--vectors", "image", "--judge", "digit", "-k", 2)
    assert "label at least 30" in few
    late = refused(capsys, *call, "--judge", "digit", "-k", 5, "--time-limit", 0.001, code=1)
    assert "no time for two splits" in late


def test_gaps_are_filled_or_left_out_and_the_answer_is_not_compared_by(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_trial, "SPLITS", 2)
    rng = np.random.default_rng(0)
    x = [None if row == 3 else float(value) for row, value in enumerate(rng.normal(size=60))]
    pl.DataFrame({"x": x, "code": rng.integers(0, 3, 60), "topic": ["a", "b"] * 30}).write_csv("p.csv")
    call = ("compare", "p.csv", "--columns", "x,code", "--judge", "topic", "-k", 4, "--methods", "typiclust")
    assert "row 3 is empty; fill or drop those rows first" in refused(capsys, *call)
    code, text, err = run(capsys, *call, "--drop-empty")
    assert code == 0, err
    assert "compared on 59 labelled rows" in text
    assert "1 row misses a value and is left out" in text
    shown = run(capsys, *call, "--impute", "median", "--categories", "code")[1]
    assert "compared on 60 labelled rows" in shown
    assert "columns x, code (3 names)" in shown
    assert "1 row misses a value, filled with the median" in shown
    for flags in (("--columns", "x,topic"), ("--text", "topic")):
        said = refused(capsys, "compare", "p.csv", *flags, "--judge", "topic", "-k", 4)
        assert "--judge topic is what the rows are compared by too" in said


@pytest.mark.parametrize("n", [30, 300, 3_000, 6_000])
@pytest.mark.parametrize("most", [40, 1_999, 2_000, 3_000])
def test_what_is_advised_of_k_is_taken(n: int, most: int) -> None:
    def sizes(rows: int, k: int) -> tuple[int, int]:
        arguments: Any = SimpleNamespace(k=(1, k), label_column="y")
        return compare_trial._sizes(rows, 2, arguments)

    try:
        pool, _ = sizes(n, most)
    except InputError as error:
        said = str(error).replace(",", "")
        asked, labels = re.search(r"ask for k < (\d+)", said), re.search(r"label at least (\d+)", said)
        assert asked or labels, said
        if asked:
            sizes(n, int(asked[1]) - 1)
        if labels:
            sizes(int(labels[1]), most)
        assert most < 2_000 or labels is None
    else:
        assert most < pool
