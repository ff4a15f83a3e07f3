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
