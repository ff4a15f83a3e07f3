"""`kofn allocate` on real files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

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
    assert "raise mean_budget=1 to 2 at least" in refused(capsys, *shared, "--mean-budget", 1)


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
    # A flag that was given is not asked for again.
    Path("two.csv").write_text("layer,block,params,w 2,w 3\na,0,100,9,4\nb,0,50,7,5\nc,1,200,8,3\n")
    told = refused(capsys, "allocate", "two.csv", "--id", "layer", "--mean-budget", 4, "--size", "params")
    assert told.endswith(
        "column 'block' holds numbers and is not named like the levels (w 2,w 3); name the levels: "
        "--columns 'w 2,w 3'\n"
    )
    Path("stems.csv").write_text(rows.format("layer,params,l2,l3,l4,l8"))
    told = refused(capsys, "allocate", "stems.csv", "--id", "layer", "--budget", 4)
    assert "column 'params'" in told
    # The number by which names differ is the level, not the column's place among them.
    out = run(capsys, *("allocate", "stems.csv", "--id", "layer", "--size", "params", "--mean-budget", 4))[
        1
    ].splitlines()
    assert out[1] == "levels by the names of the columns: 2, 3, 4, 8 (columns l2, l3, l4, l8)"
    numbers = run(capsys, *call, "--size", "params")[1].splitlines()
    assert [*out[:1], *out[2:]] == [*numbers[:1], *numbers[2:]]
    Path("unlike.csv").write_text("layer,w2_g64,w4_g128\na,9,4\nb,7,5\n")
    assert "levels 0, 1, 2" in run(capsys, "allocate", "unlike.csv", "--budget", 1)[1]


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
    said = "one cell is empty or infinite, that of item lm_head in column '4': the item does not get that level"
    assert answers[0]["notes"] == [f"{said}; fill it in if it may"]
    Path("q.csv").write_text(rows.format("").replace("1.2,", ","))
    assert (
        "2 cells are empty or infinite, the first that of item q_proj in column '4'"
        in run(capsys, *call, "--mean-budget", 4)[1]
    )
    Path("q.csv").write_text(rows.format("NA"))
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


ROWS = "layer,block,params,2,3,4,8,ms_2,ms_3,ms_4,ms_8\n"
ROWS += "a,x,100,9,4,2,1,1,2,3,4\nb,x,50,7,5,3,2,1,1,2,3\nc,y,200,8,3,2,1,2,2,2,5\n"
CALL = ("allocate", "rows.csv", "--id", "layer", "--size", "params")


def test_the_uniform_baseline_stands_beside_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.csv").write_text(ROWS)
    call = (*CALL, "--columns", "2,3,4,8", "--mean-budget", 5)
    code, out, err = run(capsys, *call)
    assert code == 0, err
    assert "uniform, 4 an item: value 7, used 1,400; the allocation is better by" in out
    answer = json.loads(run(capsys, *call, "--json", "-o", "bits.csv")[1])
    assert answer["uniform"]["amounts"] == [4, 4, 4]
    assert answer["value"] < answer["uniform"]["value"]
    assert answer["uniform"]["used"] <= answer["budget"] == 1750
    frame = pl.read_csv("bits.csv", null_values="NaN")
    ends = {8: "most", 2: "least"}
    assert frame["at_bound"].fill_null("").to_list() == [ends.get(amount, "") for amount in frame["amount"].to_list()]
    assert "a next step brings most at" in out
    assert "9,999 is above" not in out
    assert "budget=9999 is above 2800" in run(capsys, *CALL, "--columns", "2,3,4,8", "--budget", 9999)[1]


def test_limits_shares_ties_and_counts_of_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.csv").write_text(ROWS)

    def answer(*more: object) -> dict[str, Any]:
        code, text, err = run(capsys, *CALL, *more, "--json")
        assert code == 0, err
        return json.loads(text)

    plain = answer("--limit", "ms=99", "--mean-budget", 4)
    assert plain["limits"]["ms"]["used"] > 6
    tight = answer("--limit", "ms=6", "--mean-budget", 4)
    assert tight["limits"]["ms"]["used"] <= 6
    assert tight["value"] > plain["value"]
    assert (plain["uniform"]["breaks"], tight["uniform"]["breaks"]) == ([], ["ms"])
    tied = answer("--limit", "ms=99", "--tie", "block", "--mean-budget", 4)
    assert tied["amounts"][0] == tied["amounts"][1]
    share = answer("--columns", "2,3,4,8", "--mean-budget", 4, "--quota", "block=y:50%-")
    assert share["limits"]["block=y"]["used"] >= 0.5 * share["budget"]
    assert answer("--columns", "2,3,4,8", "--mean-budget", 4, "-k", 3)["amounts"]
    assert "k=1 items may be above zero" in refused(capsys, *CALL, "--columns", "2,3,4,8", "--budget", 1400, "-k", 1)
    Path("unit.csv").write_text("id,ms,0,1,2\na,1,9,4,1\nb,5,9,3,0\n")
    unit = json.loads(run(capsys, "allocate", "unit.csv", "--id", "id", "--budget", 3, "--limit", "ms=6", "--json")[1])
    assert (unit["amounts"], unit["limits"]["ms"]["used"]) == ([1, 1], 6)


def test_bounds_are_numbers_or_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.csv").write_text("id,low,high,0,1,2\na,1,,9,4,1\nb,,1,9,3,0\nc,,,5,5,5\n")
    call = ("allocate", "b.csv", "--id", "id", "--budget", 3, "--json")
    assert json.loads(run(capsys, *call, "--min", "low", "--max", "high")[1])["amounts"] == [2, 1, 0]
    assert json.loads(run(capsys, *call, "--columns", "0,1,2", "--min", 1, "--max", 1)[1])["amounts"] == [1, 1, 1]
    assert "--min lower: no number and no column of b.csv" in refused(
        capsys, *call, "--columns", "0,1,2", "--min", "lower"
    )
    assert "budget=1 is below 3" in refused(capsys, *call[:-2], 1, "--columns", "0,1,2", "--min", 1)


def test_the_frontier_is_printed_and_in_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.csv").write_text("id,0,1,2\na,9,4,1\nb,9,3,0\n")
    call = ("allocate", "f.csv", "--id", "id", "--budget", 2, "--frontier")
    assert (
        "value by budget, 5 optimal plans on the convex hull: 0: 18, 1: 12, 2: 7, 3: 4, 4: 1" in run(capsys, *call)[1]
    )
    frontier = json.loads(run(capsys, *call, "--json")[1])["frontier"]
    assert (frontier["budget"], frontier["value"]) == ([0, 1, 2, 3, 4], [18, 12, 7, 4, 1])


def test_votes_are_shared_in_whole_seats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text("party,votes\nred,47000\nblue,16000\ngreen,15900\ngrey,12000\npink,6000\nblack,3100\n")
    call = ("allocate", "votes.csv", "--id", "party")
    code, out, err = run(capsys, *call, "--budget", 120, "--method", "sainte_lague")
    assert code == 0, err
    assert "used 120 of 120" in out
    assert "by the scores in column votes" in out
    assert "  red: 57" in out
    answer = json.loads(run(capsys, *call, "--budget", 10, "-m", "largest_remainder", "--json")[1])
    assert answer["amounts"] == [5, 2, 1, 1, 1, 0]
    most = json.loads(run(capsys, *call, "--budget", 10, "-m", "dhondt", "--min", 1, "--max", 4, "--json")[1])
    assert (sum(most["amounts"]), min(most["amounts"]), max(most["amounts"])) == (10, 1, 4)
    assert "--method sainte_lague" in refused(capsys, *call, "--budget", 10)
    Path("two.csv").write_text("party,votes,members\nred,47,3\nblue,16,9\n")
    two = ("allocate", "two.csv", "--id", "party", "--budget", 5, "-m", "dhondt")
    assert "has 2 numeric columns (votes, members)" in refused(capsys, *two)
    assert run(capsys, *two, "--columns", "votes")[0] == 0
    Path("tie.csv").write_text("party,votes\nred,5\nblue,5\n")
    tie = run(capsys, "allocate", "tie.csv", "--id", "party", "--budget", 3, "-m", "dhondt")
    assert "a tie: 1 of the units went to the first in order of 2 items" in tie[2]


def test_which_way_is_better_is_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("g.csv").write_text("id,0,1,2\na,0,4,9\nb,0,3,4\n")
    call = ("allocate", "g.csv", "--id", "id", "--budget", 2)
    assert json.loads(run(capsys, *call, "--higher", "--json")[1])["amounts"] == [2, 0]
    assert json.loads(run(capsys, *call, "--lower", "--json")[1])["amounts"] == [0, 0]
    assert "do not agree" in refused(capsys, *call, "--higher", "--sense", "min")
    assert "--limit 'ms'" in refused(capsys, *call, "--limit", "ms")
    assert "names 'ms' twice" in refused(capsys, *call, "--limit", "ms=1", "--limit", "ms=2")


def test_the_report_shows_curves_the_trade_off_and_equal_amounts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.csv").write_text(ROWS)
    call = (*CALL, "--columns", "2,3,4,8", "--mean-budget", 5, "--report", "r.html")
    code, out, err = run(capsys, *call)
    assert code == 0, err
    page = Path("r.html").read_text()
    for title in ("How much each gets", "What more or less budget would bring", "What one more buys", "Curve of a"):
        assert title in page
    assert "equal amounts" in page
    assert "value by budget" not in out
    assert run(capsys, *CALL, "--limit", "ms=6", "--mean-budget", 4, "--report", "r.html")[0] == 0
    page = Path("r.html").read_text()
    assert "What more or less budget would bring" not in page
    assert "breaks ms" in page


def test_the_frontier_is_told_as_what_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d.csv").write_text("id,g,0,1,2,3\na,x,0,5,8,9\nb,x,0,1,2,7\nc,y,0,4,5,5.5\n")
    call = ("allocate", "d.csv", "--id", "id", "--higher", "--budget", 4)
    out = run(capsys, *call, "--frontier")[1]
    assert "8 optimal plans on the convex hull, of which 7: 0: 0, 1: 5" in out
    for side in (("--quota", "g=x:0-2"), ("-k", 1), ("--tie", "g")):
        assert f"leaves no room for {side[0]}" in refused(capsys, *call, "--frontier", *side)
    # The step of an item may break what else was asked.
    assert "a next step" in run(capsys, *call)[1]
    assert "a next step" not in run(capsys, *call, "-k", 1)[1]


def test_the_price_is_said_as_what_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hull.csv").write_text("layer,0,1,2\na,8,8,1\nb,3,1,1\n")
    call = ("allocate", "hull.csv", "--id", "layer", "--budget", 1, "--frontier")
    out = run(capsys, *call, "--report", "h.html")[1]
    slope = "price: more budget is worth 3.5 a unit, the slope of the convex hull of all plans"
    assert f"{slope}; the next plan on it takes 2: value 4, better by 5" in out
    page = Path("h.html").read_text()
    # The mark is this plan's, which is above the line from budget 0 to budget 2.
    assert ">1: 9<" in page
    assert "Marked: this plan. To the right of the budget, 1, the line&#x27;s slope is the price, 3.5 a unit." in (
        page.replace("'", "&#x27;")
    )
    sized = "layer,params,2,4,8\nq,100,9,4,1\nk,50,5,2,0.5\nv,200,20,3,1\nmlp,400,8,7,1\n"
    Path("sized.csv").write_text(sized)
    call = ("allocate", "sized.csv", "--id", "layer", "--size", "params", "--mean-budget", 4, "--frontier")
    answer = json.loads(run(capsys, *call, "--json")[1])
    budgets, values = answer["frontier"]["budget"], answer["frontier"]["value"]
    after = next(i for i, budget in enumerate(budgets) if budget > 3000)
    assert answer["price"] == (values[after - 1] - values[after]) / (budgets[after] - budgets[after - 1])
    limited = run(capsys, *call[:-1], "-k", 4)[1]
    assert "a unit of budget, in the linear relaxation" in limited
    most = run(capsys, *call[:-3], "--budget", 6000)[1]
    assert "price: 0, as no larger budget brings a better plan" in most
