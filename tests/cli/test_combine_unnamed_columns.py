"""Tables of predictions with columns that nobody named, and with infinite ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.core.checks import InputError


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    features = {"x0": rng.normal(size=30), "x1": rng.normal(size=30)}
    out = pl.DataFrame({**features, "m0": rng.random(30), "m1": rng.random(30), "y": rng.integers(0, 2, 30)})
    out.write_csv("oof.csv")
    return out


@pytest.mark.parametrize("answers", ["numbers", "text"])
@pytest.mark.parametrize("more", [(), ("--feature-columns", "x0")])
def test_features_are_no_models(
    answers: str, more: tuple[str, ...], frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    if answers == "text":
        frame.with_columns(y=pl.when(pl.col("y") == 1).then(pl.lit("yes")).otherwise(pl.lit("no"))).write_csv("oof.csv")
    message = refused(capsys, "combine", "oof.csv", "--label", "y", *more)
    # A flag that was given is repeated with its value, not given twice.
    rest = "x0,x1"
    assert "name the models with --columns m0,m1" in message
    assert f"compared by with --feature-columns {rest};" in message


def test_a_column_of_row_numbers_is_an_id(frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    keyed = frame.with_row_index("row").drop("x0", "x1").rename({"m0": "model 0"})
    keyed.write_csv("oof.csv")
    message = refused(capsys, "combine", "oof.csv", "--label", "y")
    assert "with --columns 'model 0,m1', or the column that names the rows with --id row;" in message
    assert "--feature-columns" not in message
    assert run(capsys, "combine", "oof.csv", "--label", "y", "--id", "row", "--folds", "0")[0] == 0
    keyed.with_columns(frame["x0"]).write_csv("oof.csv")
    message = refused(capsys, "combine", "oof.csv", "--label", "y")
    assert (
        "names the rows with --id row, or the features that rows are compared by with --feature-columns x0;" in message
    )


def test_numbers_and_named_columns_are_taken(frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "combine", "oof.csv", "--label", "y", "--columns", "m0,m1", "--folds", "0")[0] == 0
    frame.with_columns(y=pl.col("x0") * 2).write_csv("oof.csv")
    assert run(capsys, "combine", "oof.csv", "--label", "y", "--folds", "0")[0] == 0


def test_python_is_told_of_its_own_words(frame: pl.DataFrame) -> None:
    with pytest.raises(InputError, match=r"with columns=\['m0', 'm1'\], or the features .* by with X=\['x0', 'x1'\]"):
        kofn.combine(frame, y="y")


def test_an_infinite_prediction_is_told_with_its_file(frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    odd = pl.Series([*[0.5] * 3, np.inf, *[0.5] * 26])
    frame.with_columns(m1=odd).write_csv("new.csv")
    words = ("combine", "oof.csv", "--label", "y", "--columns", "m0,m1", "--folds", "0")
    assert "new.csv: member 'm1' at row 3 is infinite" in refused(capsys, *words, "--apply", "new.csv")
    assert "new.csv: member 'm1' at row 3 is infinite" in refused(capsys, "combine", "new.csv", *words[2:])
    for name in ("m0", "m1"):
        np.save(f"{name}.npy", frame[name].to_numpy())
    np.save("new_1.npy", odd.to_numpy())
    words = ("combine", "m0.npy", "m1.npy", "--label", "y.npy", "--folds", "0", "--apply", "m0.npy")
    np.save("y.npy", frame["y"].to_numpy())
    assert "new_1.npy: member" in refused(capsys, *words, "--apply", "new_1.npy")


def test_percents_beyond_the_whole_are_said(frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("combine", "oof.csv", "--columns", "m0,m1", "-m", "weighted_mean", "--weights")
    note = "note: --weights are 110% in all, and count by their share of that: 63.6%, 36.4%\n"
    assert run(capsys, *call, "70%,40%")[2] == note
    assert run(capsys, *call, "70%,40%", "--label", "y")[2] == note
    for weights in ("70%,30%", "0.7,0.4", "33.3%,66%"):
        assert run(capsys, *call, weights)[2] == ""
    assert (
        note.removeprefix("note: ")
        in run(capsys, "combine", "oof.csv", "--columns", "m0,m1", "--weights", "70%,40%")[1]
    )


def test_weights_of_columns_of_chances_may_be_of_models(
    frame: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.with_row_index("row").with_columns(name=pl.format("r{}", pl.col("m0"))).write_csv("oof.csv")
    call = ("combine", "oof.csv", "--id", "row", "--columns", "m0,m1")
    assert "or take their mean without: -m weighted_mean" in run(capsys, *call, "--weights", "70%,30%")[2]
    assert run(capsys, *call)[2] == ""
    assert run(capsys, *call, "--weights", "70%,30%", "--lower", "m0")[2] == ""
    assert run(capsys, "combine", "oof.csv", "--id", "name", *call[4:], "--weights", "1,2")[2] == ""
    assert run(capsys, "combine", "oof.csv", "--id", "row", "--columns", "x0,m1", "--weights", "1,2")[2] == ""
