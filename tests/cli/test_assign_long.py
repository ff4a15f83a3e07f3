"""`kofn assign --long ITEM,BIN,SCORE`: scores one a row, and a table of them that is given without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run


@pytest.fixture
def scores(folder: Path) -> pl.DataFrame:
    """Scores of 12 papers for 4 reviewers, of which two pairs are missing, one with an empty cell."""
    rng = np.random.default_rng(0)
    rows = [(f"p{i:02}", f"rev{j}", rng.random()) for i in range(12) for j in range(4)]
    frame = pl.DataFrame(rows, schema=["paper", "reviewer", "score"], orient="row")
    frame = frame.with_columns(pl.when(pl.int_range(48) == 7).then(None).otherwise(pl.col("score")).alias("score"))
    frame = frame.filter(pl.int_range(48) != 20).sample(fraction=1, shuffle=True, seed=1)
    frame.write_csv("long.csv")
    return frame


def test_the_long_form_is_assigned_as_the_wide_one(scores: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    wide = scores.pivot(on="reviewer", index="paper", values="score", maintain_order=True)
    wide.write_csv("wide.csv")
    more = ("--capacity", 7, "--per-item", 2, "-o")
    code, out, err = run(capsys, "assign", "long.csv", "--long", "paper,reviewer,score", *more, "a.csv")
    assert code == 0, err
    assert "one score a row: score of 12 of paper for 4 of reviewer; 2 pairs without one are kept apart" in out
    names = ",".join(wide.columns[1:])
    assert run(capsys, "assign", "wide.csv", "--id", "paper", "--columns", names, "--scores", *more, "b.csv")[0] == 0
    ours, theirs = (pl.read_csv(name).sort("id", "bin") for name in ("a.csv", "b.csv"))
    assert ours.equals(theirs)
    placed = set(ours.select("id", "bin").iter_rows())
    assert len(placed) == 24
    assert not placed & {("p01", "rev3"), ("p05", "rev0")}
    equal = run(
        capsys, "assign", "long.csv", "--long", "paper,reviewer,score", "--equal", "--per-item", 2, "-o", "e.csv"
    )
    assert equal[0] == 0, equal[2]
    assert pl.read_csv("e.csv")["bin"].value_counts()["count"].to_list() == [6] * 4
    # Costs, a dry run, and a report go on as of a wide table.
    call = ("assign", "long.csv", "--long", "paper,reviewer,score", "--sense", "min", "--capacity", 7)
    assert run(capsys, *call, "--report", "r.html")[0] == 0
    assert "12 x 4" in run(capsys, *call, "--dry-run")[1]


def test_a_pair_that_is_given_twice_is_refused(scores: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    pl.concat([scores, scores[3:4]]).write_csv("twice.csv")
    paper, reviewer, _ = scores.row(3)
    message = refused(capsys, "assign", "twice.csv", "--long", "paper,reviewer,score")
    assert f"twice.csv scores paper {paper!r} and reviewer {reviewer!r} at row 3 and at row 47; give one" in message


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--long", "paper,score"), "--long paper,score: give --long ITEM,BIN,SCORE"),
        (("--long", "paper,score,reviewer"), "'reviewer' holds no numbers; name the column of scores last"),
        (("--long", "paper,reviewer,score", "--id", "paper"), "--long names the column of the items"),
        (("--long", "paper,reviewer,grade"), "long.csv has no column 'grade'"),
    ],
)
def test_what_long_cannot_be(
    flags: tuple[str, ...], says: str, scores: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, "assign", "long.csv", *flags)


def test_a_table_in_the_long_form_is_recognised(scores: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    says = "holds one score a row, 'score' of each 'paper' for each 'reviewer'; say --long paper,reviewer,score"
    for more in ((), ("--capacity", 4), ("--id", "paper"), ("--dry-run",)):
        assert f"long.csv {says} in place of --scores" in refused(capsys, "assign", "long.csv", "--scores", *more)
    # Papers and reviewers that are numbers are told by what their columns are called.
    whole = scores.with_columns(pl.col("paper").str.slice(1).cast(int), pl.col("reviewer").str.slice(3).cast(int))
    whole.write_csv("whole.csv")
    assert f"whole.csv {says}" in refused(capsys, "assign", "whole.csv", "--scores")
    # Three bins of whole scores are no such table.
    Path("bins.csv").write_text("ana,bob,cem\n1,2,3\n1,3,3\n2,2,1\n2,3,1\n")
    assert run(capsys, "assign", "bins.csv", "--scores", "--capacity", 2)[0] == 0
