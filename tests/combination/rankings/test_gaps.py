"""Gaps in scores as pandas and Python write them, and refusals that call alternatives by their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import refused

import kofn
from kofn.combination import long_ballots, win_ballots
from kofn.core.checks import InputError

GAPS = pd.DataFrame({"j1": [3, 1, pd.NA, 2], "j2": [1, 2, 3, pd.NA]}, index=list("abcd"))
PLAIN = np.array([[3, 1], [1, 2], [np.nan, 3], [2, np.nan]])
KINDS: dict[str, Any] = {
    "objects": GAPS,
    "Int64": GAPS.astype("Int64"),
    "Float64": GAPS.astype("Float64"),
    "an array of objects": GAPS.to_numpy(),
    "lists": [[3, 1], [1, None], [pd.NA, 3], [2, None]],
}


@pytest.mark.parametrize("table", [kind for name, kind in KINDS.items() if name != "lists"])
@pytest.mark.parametrize("method", ["borda", "kemeny", "schulze"])
def test_na_is_a_gap(method: str, table: Any) -> None:
    plan, plain = (kofn.combine(rankings=scores, method=method) for scores in (table, PLAIN))
    assert plan.result.tolist() == plain.result.tolist()
    assert plan.info["rated"].tolist() == [2, 2, 1, 1]


def test_na_in_lists_columns_of_booleans_and_predictions() -> None:
    assert kofn.combine(rankings=KINDS["lists"]).info["rated"].tolist() == [2, 1, 1, 1]
    passed = pd.DataFrame({"j1": pd.array([True, False, pd.NA]), "j2": [1, 2, 3]})
    assert kofn.combine(rankings=passed).info["rated"].tolist() == [2, 2, 1]
    members = [np.array([0.2, pd.NA, 0.9, 0.4], object), [0.3, 0.4, None, 0.5]]
    assert kofn.combine(members, y=[0, 0, 1, 1], folds=0).info["missing"] == 2
    long = long_ballots(list("abc"), list("jjj"), [1, None, pd.NA])["rankings"]
    np.testing.assert_array_equal(np.asarray(long), [[1.0], [np.nan], [np.nan]])
    wins = pd.DataFrame({"a": [pd.NA, 1], "b": [2, pd.NA]}, index=["a", "b"])
    assert win_ballots(wins)["weights"].tolist() == [2.0, 1.0]
    with pytest.raises(InputError, match="judge 'j1' rated nothing"):
        kofn.combine(rankings=GAPS.assign(j1=pd.array([pd.NA] * 4, "Float64")))


@pytest.mark.parametrize("method", ["bradley_terry", "plackett_luce", "general_preference"])
def test_alternatives_without_strengths_are_called_by_their_ids(method: str) -> None:
    won = pd.DataFrame({"j1": [3, 2, 1], "j2": [3, 1, 2]}, index=["top", "mid", "low"])
    with pytest.raises(InputError, match=r"never lost to the others \(top\)"):
        kofn.combine(rankings=won, method=method)
    apart = pd.DataFrame({"j1": [1, 2, np.nan, np.nan], "j2": [np.nan, np.nan, 1, 2]}, index=list("wxyz"))
    with pytest.raises(InputError, match=r"no comparison between them.*: w, x; y, z;"):
        kofn.combine(rankings=apart, method=method)


def test_a_dry_run_refuses_what_the_run_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("won.csv").write_text("model,j1,j2\ntop,3,3\nmid,2,1\nlow,1,2\n")
    Path("votes.csv").write_text("model_a,model_b,winner\nx,y,x\nx,z,x\ny,z,z\ny,z,y\n")
    for words in (("won.csv", "--id", "model"), ("votes.csv",)):
        for method in ("bradley_terry", "plackett_luce", "general_preference"):
            said = refused(capsys, "combine", *words, "-m", method, "--dry-run")
            assert "never lost to the others (" in said
            assert said == refused(capsys, "combine", *words, "-m", method)
    for more in (("--weights", "1"), ("--weights", "0,0")):
        words = ("combine", "won.csv", "--id", "model", *more)
        assert refused(capsys, *words, "--dry-run") == refused(capsys, *words)


@pytest.mark.parametrize("rows", [["x,", "y,", "z,1"], ["x,1,", "y,,2", "z,,"]])
def test_tables_in_which_no_two_rows_are_compared_are_refused(
    rows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    judges = ",".join("ab"[: rows[0].count(",")])
    Path("r.csv").write_text("\n".join([f"model,{judges}", *rows]) + "\n")
    says = "no two of the 3 rows were compared"
    assert says in refused(capsys, "combine", "r.csv", "--id", "model")
    with pytest.raises(InputError, match=says):
        kofn.combine("r.csv", ids="model")
