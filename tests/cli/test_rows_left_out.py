"""Rows that `--drop-empty` leaves out: the others keep their numbers, in the output, the report and the pairs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from command_line import run

POINTS = "x,y,name\n1,2,a\n,3,b\n8,9,c\n8,8,d\n1,1,e\n9,9,f\n"
SCORES = "A,B\n1,0.5\n,0.8\n0.7,0.1\n0.2,0.9\n"


@pytest.mark.parametrize("more", [[], ["--equal"], ["--must-link", "pairs.csv"], ["--capacity", "3"]])
def test_groups_without_the_rows_left_out_have_a_report(
    more: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("points.csv").write_text(POINTS)
    Path("pairs.csv").write_text("one,other\n0,4\n2,5\n")
    where = ["--columns", "x,y", "--drop-empty", "--k", "2", "-o", "o.csv", "--report", "o.html", "--json"]
    code, out, err = run(capsys, "assign", "points.csv", *where, *more)
    assert code == 0, err
    assert Path("o.html").stat().st_size > 0
    written = pl.read_csv("o.csv")
    assert written["name"].to_list() == ["a", "c", "d", "e", "f"]
    groups = dict(zip(written["name"], written["group"], strict=True))
    assert groups["a"] == groups["e"] != groups["c"] == groups["d"] == groups["f"]
    # Examples are told by their numbers in the file.
    for medoid in json.loads(out).get("medoids", []):
        assert "abcdef"[medoid] in written.filter("medoid")["name"].to_list()


def test_placements_name_rows_by_their_number_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scores.csv").write_text(SCORES)
    call = ["--scores", "--drop-empty", "--capacity", "1", "--overflow", "drop", "-o", "o.csv", "--report", "o.html"]
    code, _, err = run(capsys, "assign", "scores.csv", *call)
    assert code == 0, err
    placed = pl.read_csv("o.csv")
    assert dict(zip(placed["id"], placed["bin"], strict=True)) == {0: "A", 2: None, 3: "B"}
