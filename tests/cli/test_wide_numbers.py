"""Whole numbers of more than 64 bits in columns of numbers, and cells that are none in columns of levels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn.io.opening import open_table
from kofn.tables.predictions import answers_of

WIDE = 99999999999999999999


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    read: dict[str, object] = json.loads(out)
    return read


@pytest.mark.parametrize("names", ["0,1,2", "w 0,w 1,w 2"])
def test_a_level_with_a_cell_that_is_no_number_is_refused_and_not_dropped(
    names: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.csv").write_text(f"id,{names}\na,x,4,1\nb,5,4,3\n")
    said = refused(capsys, "allocate", "c.csv", "--id", "id", "--budget", "2")
    assert f"column {names.split(',')[0]!r} at row 0 is 'x', which is not a number" in said


def test_a_level_with_one_long_number_is_a_level(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in (WIDE, "1e20"):
        Path("c.csv").write_text(f"id,0,1,2\na,{cell},4,1\nb,5,4,3\n")
        run(capsys, "allocate", "c.csv", "--id", "id", "--budget", "2", "-o", "o.csv")
        assert pl.read_csv("o.csv")["amount"].to_list() == [2, 0]


def test_judges_of_long_numbers_rank_and_are_refused_where_floats_would_tie_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.csv").write_text(f"id,acc,params\na,1,{WIDE}\nb,2,7\n")
    assert answer(capsys, "combine", "a.csv", "--id", "id", "-o", "o.csv")["judges"] == ["acc", "params"]
    Path("a.csv").write_text(f"id,acc,params\na,1,{WIDE}\nb,2,{WIDE - 1}\nc,3,\n")
    said = refused(capsys, "combine", "a.csv", "--id", "id", "-o", "o.csv")
    assert f"column 'params' holds {WIDE - 1} at row 1, which double precision rounds" in said
    # Of 18 digits, an int64.
    Path("a.csv").write_text("id,acc,params\na,1,100000000000000001\nb,2,100000000000000000\nc,3,\n")
    assert "column 'params' holds 100000000000000001 at row 0" in refused(capsys, "combine", "a.csv", "-o", "o.csv")


def test_bins_of_long_numbers_are_bins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.csv").write_text(f"item,b1,b2\na,{WIDE},1\nb,1,2\n")
    code, out, err = run(capsys, "assign", "s.csv", "--id", "item", "--scores", "--capacity", "2")
    assert code == 0, err
    assert "2 bins (b1, b2)" in out
    assert "not taken" not in out


@pytest.mark.parametrize("rest", [["1", "2"], [*map(str, range(200))], ["1.5", "2.5"]])
def test_rows_are_compared_by_long_numbers_as_numbers(
    rest: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("v.csv").write_text("\n".join(["v", str(WIDE), str(WIDE - 1), *rest]) + "\n")
    code, out, err = run(capsys, "select", "v.csv", "--columns", "v", "-k", "2")
    assert code == 0, err
    assert "names" not in out


def test_long_numbers_come_out_as_they_are_written_and_keys_stay_keys(folder: Path) -> None:
    digits = "1" * 40
    Path("t.csv").write_text(f"x,y\n{WIDE},{WIDE}\n1,{digits}\n")
    table = open_table("t.csv")
    assert table.numbers("x").tolist() == [1e20, 1]
    assert table.numbers("y").tolist() == [1e20, float(digits)]
    assert table.take(np.array([0]))["x"].to_list() == [str(WIDE)]
    assert table.ids("y").tolist() == [str(WIDE), digits]
    assert answers_of(table, "x").tolist() == [1e20, 1]
    Path("t.csv").write_text(f"y\n{WIDE}\n{WIDE - 1}\n")
    assert answers_of(open_table("t.csv"), "y").tolist() == [str(WIDE), str(WIDE - 1)]
