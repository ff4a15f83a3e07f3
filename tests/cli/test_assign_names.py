"""What `kofn assign` says: bins by their columns, items by their ids, one group where rows are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.cli.assign import command
from kofn.core.checks import InfeasibleError

Capture = pytest.CaptureFixture[str]
NUMBERED = re.compile(r"\b(bin|bins|item|items|row|rows) \d")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("rows", "flags", "says"),
    [
        (["x,,", "y,1,2"], ["--capacity", 2], "item 'x' lists no bin"),
        (["x,,", "y,1,2"], [], "item 'x' lists no bin"),
        (["x,1,", "y,1,2"], ["--capacity", 2, "--per-item", 2], "item 'x' lists 1 bins"),
        (["x,1,", "y,1,2"], ["--capacity", 2, "--per-item", 2, "--overflow", "error"], "item 'x' lists 1 bins"),
        (["x,1,", "y,1,", "z,1,2"], ["--capacity", "1,9"], "2 items list no other bins than 'b1'"),
        (["x,1,", "y,1,", "z,1,2"], ["--capacity", 9, "--min-size", "0,2"], "bins 'b2' must hold 2 items"),
        (["x,3,1", "y,3,1"], ["--capacity", 1, "--overflow", "error"], "bin 'b1' is a first choice of 2 items"),
        (["x,3,1", "y,3,1"], ["--capacity", "1,1", "--min-size", "0,2"], "bin 'b2' must hold 2 (min_size)"),
        (["x,3,1", "y,3,1"], ["--capacity", "5,5", "--min-size", "0,3"], "min_size asks for 3 items in all"),
    ],
)
def test_refusals_name_bins_by_column_and_items_by_id(
    folder: Path, capsys: Capture, rows: list[str], flags: list[object], says: str
) -> None:
    Path("s.csv").write_text("\n".join(["item,b1,b2", *rows]) + "\n")
    line = refused(capsys, "assign", "s.csv", "--id", "item", "--scores", *flags)
    assert says in line
    assert not NUMBERED.search(line.partition("; ")[0].replace("3 items in all", ""))


@pytest.mark.parametrize(
    ("sizes", "limits", "says"),
    [
        ("9,1", "3", "item 'x' has size 9 and fits in no bin that it lists, bin 'b"),
        ("1,1", "5", "item 'y' lists no bin"),
    ],
)
def test_sizes_within_limits_name_them_too(folder: Path, capsys: Capture, sizes: str, limits: str, says: str) -> None:
    one, other = sizes.split(",")
    Path("s.csv").write_text(f"item,size,b1,b2\nx,{one},1,2\ny,{other},,\n")
    line = refused(capsys, "assign", "s.csv", "--id", "item", "--scores", "--size", "size", "--limit", limits)
    assert says in line


def test_python_names_the_columns_and_the_index_of_a_frame() -> None:
    frame = pl.DataFrame({"b1": [1.0, 1.0, 1.0], "b2": [-np.inf, -np.inf, 2.0]})
    with pytest.raises(InfeasibleError, match="2 items list no other bins than 'b1'"):
        kofn.assign(scores=frame, capacity=[1, 9])
    with pytest.raises(InfeasibleError, match="item 'q' lists no bin"):
        kofn.assign(scores=[[1.0], [-np.inf]], capacity=9, ids=["p", "q"])
    with pytest.raises(InfeasibleError, match="item 1 lists no bin"):
        kofn.assign(scores=[[1.0], [-np.inf]], capacity=9)


def test_links_name_rows_by_id(folder: Path, capsys: Capture) -> None:
    pl.DataFrame({"id": ["p", "q", "r"], "x": [1.0, 2.0, 3.0]}).write_csv("x.csv")
    Path("must.csv").write_text("a,b\np,q\nq,r\n")
    Path("apart.csv").write_text("a,b\np,r\n")
    call = ("assign", "x.csv", "--id", "id", "--columns", "x", "--k", 2)
    line = refused(capsys, *call, "--must-link", "must.csv", "--cannot-link", "apart.csv")
    assert "keeps rows 'p' and 'r' apart, must_link joins them ('p'-'q'-'r')" in line


def test_words_that_refusals_advise_stand_in_the_help(capsys: Capture) -> None:
    code, text, _ = run(capsys, "assign", "--help")
    assert code == 0
    for flag in ("--reserve", "--overflow", "--min-size", "--per-item", "--capacity", "--limit", "--k", "--method"):
        assert flag in text
    assert {"reserve", "overflow", "per_item"} <= {param.name for param in command.params}


def test_a_reserve_is_a_worth_or_a_cost_as_the_scores_are(folder: Path, capsys: Capture) -> None:
    Path("s.csv").write_text("item,b1,b2\nx,5,9\ny,1,2\nz,8,7\n")
    call = ("assign", "s.csv", "--id", "item", "--scores", "--capacity", 2, "--json")
    code, text, err = run(capsys, *call, "--sense", "min", "--reserve", 4)
    assert code == 0, err
    assert json.loads(text)["labels"] == [-1, 0, -1]
    assert json.loads(text)["value"] == 9.0
    code, text, err = run(capsys, *call, "--reserve", 6)
    assert (code, json.loads(text)["labels"]) == (0, [1, -1, 0])


REVIEWS = """paper,ann,bob,cem,dee
p1,0.637,0.27,0.041,0.017
p2,0.813,0.913,0.607,0.729
p3,,0.935,0.816,0.003
p4,0.857,0.034,0.73,0.176
p5,0.863,0.541,0.3,0.423
p6,0.028,0.124,,0.647
"""


def test_reviewers_within_a_capacity_are_found_in_one_command(folder: Path, capsys: Capture) -> None:
    Path("rv.csv").write_text(REVIEWS)
    call = ("assign", "rv.csv", "--id", "paper", "--scores", "--per-item", 2, "--capacity", 3)
    code, text, err = run(capsys, *call, "-o", "as.csv", "--report", "as.html")
    assert code == 0, err
    assert "balanced_assignment: 6 items in 4 bins (ann, bob, cem, dee), value 7.715 (optimal)" in text
    assert "0 unplaced" in text
    assert "dropped" not in text
    frame = pl.read_csv("as.csv")
    assert len(frame) == 12
    assert frame["bin"].value_counts()["count"].to_list() == [3, 3, 3, 3]
    code, text, _ = run(capsys, *call, "--overflow", "reroute", "--json")
    assert (code, json.loads(text)["method"]) == (0, "capped_routing")
    assert "bin 'bob' is a first choice" in refused(capsys, *call, "--overflow", "error")
    line = refused(capsys, *call, "--min-size", 4)
    assert "must hold 4 (min_size) and can hold 3" in line
    assert run(capsys, *call, "--min-size", 3)[0] == 0


@pytest.mark.parametrize("rows", [["1,2"] * 5, ["1,2"]], ids=["the same", "one"])
@pytest.mark.parametrize("method", [[], ["-m", "dynmsc"]], ids=["auto", "dynmsc"])
def test_rows_that_are_all_the_same_are_one_group(
    folder: Path, capsys: Capture, rows: list[str], method: list[str]
) -> None:
    Path("z.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    call = ("assign", "z.csv", "--columns", "x,y", *(method or ["--k", "auto"]))
    code, text, err = run(capsys, *call, "-o", "g.csv", "--report", "g.html")
    if code:  # a method that needs two rows says so, before anything is written
        assert method
        assert (code, err.startswith("kofn: "), Path("g.csv").exists()) == (2, True, False)
        return
    assert "1 group: " in text
    assert pl.read_csv("g.csv")["group"].to_list() == [0] * len(rows)
    code, text, _ = run(capsys, *call, "--json")
    assert (code, json.loads(text)["bins"]) == (0, 1)


def test_the_report_calls_bins_as_the_columns_are_called(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.csv").write_text("paper,ana,<bob>,cem\np,.9,.2,.1\nq,.8,.3,.3\nr,.7,.3,.2\n")
    code, _, err = run(capsys, "assign", "s.csv", "--id", "paper", "--scores", "--capacity", 1, "--report", "r.html")
    assert code == 0, err
    page = Path("r.html").read_text()
    assert "ana" in page
    assert "&lt;bob&gt;" in page
    assert "<bob>" not in page
    assert "bin 0" not in page
