"""`kofn allocate` on real files."""

from __future__ import annotations

import json
import math
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


def test_an_empty_cell_is_a_level_that_the_item_may_not_have(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "layer,params,2,3,4,8\nq_proj,4096,9.1,4.0,1.2,0.1\nlm_head,32000,50,22,{},1.5\n"
    call = ("allocate", "q.csv", "--id", "layer", "--size", "params")
    answers = []
    for cell, more in (("", ()), ("inf", ()), ("NA", ("--na", "NA"))):
        Path("q.csv").write_text(rows.format(cell))
        code, text, err = run(capsys, *call, "--mean-budget", 4, *more, "--json")
        assert code == 0, err
        answers.append({name: value for name, value in json.loads(text).items() if name != "seconds"})
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["amounts"] == [8, 3]
    pl.read_csv("q.csv", null_values="NA").write_parquet("q.parquet")
    parquet = json.loads(run(capsys, "allocate", "q.parquet", *call[2:], "--mean-budget", 4, "--json")[1])
    assert parquet["amounts"] == [8, 3]
    for cell in ("NA", "tbd", "-inf", "nan"):
        Path("q.csv").write_text(rows.format(cell))
        assert "q.csv column '4' at row 1 is" in refused(capsys, *call, "--mean-budget", 4)
    Path("q.csv").write_text(rows.format("").replace("50,22,,1.5", ",,,"))
    assert "row 1 ('lm_head') allows no level" in refused(capsys, *call, "--mean-budget", 4)
    Path("q.csv").write_text(rows.format("").replace("1.2,", ","))
    assert json.loads(run(capsys, *call, "--mean-budget", 4, "--json")[1])["amounts"] == [8, 3]
    levels = ("--levels", "2,3,4,8")
    Path("q.csv").write_text(Path("q.csv").read_text().replace("2,3,4,8", "l2,l3,l4,l8"))
    assert json.loads(run(capsys, *call, "--mean-budget", 4, *levels, "--json")[1])["amounts"] == [8, 3]
    pl.DataFrame({"item": ["a", "b"], "gain": [[1.0, -math.inf, 3.0], [1.0, 2.0, 9.0]]}).write_parquet("v.parquet")
    gains = run(capsys, "allocate", "v.parquet", "--id", "item", "--budget", 2, "--sense", "max", "--json")[1]
    assert json.loads(gains)["amounts"] == [0, 2]


def test_gains_that_are_taken_as_losses_are_noted_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("gains.csv").write_text("channel,0,1000,2000\na,0,50,90\nb,0,30,80\n")
    call = ("allocate", "gains.csv", "--id", "channel", "--budget", 3000)
    code, _, err = run(capsys, *call)
    assert code == 0
    assert err == "warning: all curves rise with the amount: gains? then --sense max\n"
    code, text, err = run(capsys, *call, "--sense", "max", "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["amounts"] == [1000, 2000]
