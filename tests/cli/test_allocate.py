"""`kofn allocate` on real files."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run


def test_allocate_spends_the_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("curves.csv").write_text("layer,params,l2,l4,l8\nemb,1000,9,3,1\nmlp,4000,30,4,0.5\nout,500,20,15,1\n")
    shared = ["allocate", "curves.csv", "--id", "layer", "--size", "params", "--levels", "2,4,8"]
    code, text, err = run(capsys, *shared, "--mean-budget", 4, "-o", "bits.csv", "--json")
    assert code == 0, err
    answer = json.loads(text)
    assert answer["status"] == "optimal"
    assert answer["used"] <= answer["budget"] == 22_000
    assert pl.read_csv("bits.csv")["id"].to_list() == ["emb", "mlp", "out"]
    assert "raise it by" in refused(capsys, *shared, "--mean-budget", 1)


def test_columns_named_by_numbers_are_the_levels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "{}\na,100,9,4,2,1\nb,50,7,5,3,2\nc,200,8,3,2,1\n"
    Path("sized.csv").write_text(rows.format("layer,params,2,3,4,8"))
    call = ("allocate", "sized.csv", "--id", "layer", "--mean-budget", 4)
    told = refused(capsys, *call)
    assert "column 'params' holds numbers and is not named like the levels (2,3,4,8)" in told
    assert "--size 'params'" in told
    assert "--columns 2,3,4,8" in told
    code, out, _ = run(capsys, *call, "--size", "params")
    assert code == 0
    assert "levels by the names of the columns: 2, 3, 4, 8" in out
    assert run(capsys, *call, "--size", "params", "--levels", "2,3,4,8")[1].splitlines()[2:] == out.splitlines()[2:]
    answer = json.loads(run(capsys, *call, "--columns", "8,4,3,2", "--json")[1])
    assert set(answer["amounts"]) <= {2, 3, 4, 8}
    assert answer["used"] <= answer["budget"] == 12
    Path("stems.csv").write_text(rows.format("layer,params,l2,l3,l4,l8"))
    told = refused(capsys, "allocate", "stems.csv", "--id", "layer", "--budget", 4)
    assert "column 'params'" in told
    assert "levels 0, 1, 2" in run(capsys, "allocate", "stems.csv", "--size", "params", "--budget", 400)[1]


def test_a_judge_of_prose_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("model,mmlu,notes\na,3,fast\nb,2,slow and 5% better\nc,1,\n")
    for call in (("combine", "board.csv"), ("select", "board.csv", "--rankings", "-k", 1)):
        told = refused(capsys, *call, "--columns", "mmlu,notes")
        assert "column 'notes' holds text and no scores; leave it out of --columns" in told
