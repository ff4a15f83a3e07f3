"""Rows that `--drop-empty` leaves out: the others keep their numbers, in the output, the report and the pairs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run

POINTS = "x,y,name\n1,2,a\n,3,b\n8,9,c\n8,8,d\n1,1,e\n9,9,f\n"
GAPS = "id,x,y,t\na,,1,one cat\nb,,2,\nc,3,3,two dogs\nd,4,5,two dogs\ne,3,3,a hen\nf,6,9,some cows\n"
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


@pytest.mark.parametrize("word", ["include", "start"])
@pytest.mark.parametrize("more", [[], ["--dedupe", "0.9"], ["--exclude", "0"]])
def test_a_row_that_is_named_and_left_out_is_refused(
    word: str, more: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gaps.csv").write_text(GAPS)
    call = ("select", "gaps.csv", "--columns", "x,y", "-k", "2", "--drop-empty", *more)
    line = refused(capsys, *call, f"--{word}", "2,0,1")
    assert f"--{word} names row 0 and 1 more, which miss a value and are left out by --drop-empty" in line
    by_id = refused(capsys, *call[:6], "--drop-empty", "--id", "id", f"--{word}", "b")
    assert f"--{word} names row 'b', which misses a value and is left out" in by_id
    assert f"take it out of --{word}" in by_id


@pytest.mark.parametrize("word", ["include", "start", "exclude"])
def test_rows_that_do_not_exist_are_refused_beside_such_that_are_left_out(
    word: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gaps.csv").write_text(GAPS)
    call = ("select", "gaps.csv", "--columns", "x,y", "-k", "2", f"--{word}")
    for row, more in (("99", ()), ("zz", ("--id", "id"))):
        # The same line as where no row is left out.
        whole = refused(capsys, *call[:2], "--columns", "y", *call[4:], row, *more)
        assert refused(capsys, *call, row, "--drop-empty", *more) == whole


def test_rows_that_are_left_out_may_be_excluded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("gaps.csv").write_text(GAPS)
    call = ("select", "gaps.csv", "--columns", "x,y", "-k", "2", "--drop-empty", "--json")
    code, out, err = run(capsys, *call, "--include", "2", "--exclude", "0,5")
    assert code == 0, err
    picks = json.loads(out)["picks"]
    assert 2 in picks
    assert not {0, 1, 5} & set(picks)


@pytest.mark.parametrize(
    ("call", "pairs"),
    [
        (("--columns", "x,y", "--drop-empty"), [(4, 2)]),
        (("--columns", "x,y", "--drop-empty", "--include", "4"), [(2, 4)]),
        (("--columns", "x,y", "--impute", "median"), [(4, 2)]),
        (("--text", "t", "--drop-empty"), [(3, 2)]),
    ],
)
def test_duplicates_are_named_by_their_row_of_the_file(
    call: tuple[str, ...], pairs: list[tuple[int, int]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gaps.csv").write_text(GAPS)
    code, _, err = run(capsys, "select", "gaps.csv", *call, "--dedupe", "0.9", "--dropped", "d.csv")
    assert code == 0, err
    assert pl.read_csv("d.csv").select("row", "kept").rows() == pairs
